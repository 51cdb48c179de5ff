//! Objects as the API server writes them → trimmed objects of the index.
//!
//! Pods are the most, and Nodes the longest: of those only the fields that are kept are read at all.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::Deserialize;

use crate::cluster::convert::{self, FieldErrors};
use crate::cluster::policy_api::{v1alpha1, v1alpha2};
use crate::cluster::{Kind, Object, ObjectKey};

/// Reads an object of a kind. What the API server should not have accepted of it is added to `errors`.
pub(super) fn object(kind: Kind, json: &[u8], errors: &mut FieldErrors) -> Result<Object, serde_json::Error> {
    Ok(match kind {
        Kind::Namespace => convert::namespace(serde_json::from_slice::<core::Namespace>(json)?).into(),
        Kind::Node => convert::node(serde_json::from_slice::<LeanNode>(json)?.into(), errors).into(),
        Kind::Pod => convert::pod(serde_json::from_slice::<LeanPod>(json)?.into(), errors).into(),
        Kind::Service => convert::service(serde_json::from_slice::<core::Service>(json)?, errors).into(),
        Kind::EndpointSlice => convert::endpoint_slice(serde_json::from_slice::<discovery::EndpointSlice>(json)?, errors).into(),
        Kind::NetworkPolicy => convert::network_policy(serde_json::from_slice::<networking::NetworkPolicy>(json)?, errors).into(),
        Kind::AdminNetworkPolicy => {
            convert::admin_network_policy(serde_json::from_slice::<v1alpha1::AdminNetworkPolicy>(json)?, errors).into()
        }
        Kind::BaselineAdminNetworkPolicy => {
            convert::baseline_admin_network_policy(serde_json::from_slice::<v1alpha1::BaselineAdminNetworkPolicy>(json)?, errors).into()
        }
        Kind::ClusterNetworkPolicy => {
            convert::cluster_network_policy(serde_json::from_slice::<v1alpha2::ClusterNetworkPolicy>(json)?, errors).into()
        }
        Kind::DomainName => return Err(serde::de::Error::custom("names in the DNS are no objects of the API")),
    })
}

/// What every object has, and what is left of one that cannot be read otherwise.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Named {
    #[serde(default)]
    pub(super) metadata: NamedMeta,
}

/// The metadata of any object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NamedMeta {
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) resource_version: String,
}

/// A bookmark.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Marked {
    pub(super) metadata: MarkedMeta,
}

/// The metadata of a bookmark.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MarkedMeta {
    pub(super) resource_version: String,
    #[serde(default)]
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

impl NamedMeta {
    /// As an object of a kind.
    pub(super) fn key(&self, kind: Kind) -> ObjectKey {
        ObjectKey { kind, namespace: self.namespace.as_str().into(), name: self.name.as_str().into() }
    }
}

/// ObjectMeta without `managedFields`, which are as long as the rest of many an object.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeanMeta {
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    deletion_timestamp: Option<Time>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl From<LeanMeta> for ObjectMeta {
    fn from(meta: LeanMeta) -> Self {
        let LeanMeta { namespace, name, uid, labels, deletion_timestamp, owner_references } = meta;
        ObjectMeta { namespace, name, uid, labels, deletion_timestamp, owner_references, ..ObjectMeta::default() }
    }
}

#[derive(Debug, Deserialize)]
struct LeanPod {
    #[serde(default)]
    metadata: LeanMeta,
    #[serde(default)]
    spec: Option<LeanPodSpec>,
    #[serde(default)]
    status: Option<LeanPodStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeanPodSpec {
    node_name: Option<String>,
    host_network: Option<bool>,
    containers: Option<Vec<LeanContainer>>,
    init_containers: Option<Vec<LeanContainer>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeanContainer {
    ports: Option<Vec<core::ContainerPort>>,
    restart_policy: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeanPodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<core::PodIP>>,
    conditions: Option<Vec<LeanCondition>>,
}

#[derive(Debug, Deserialize)]
struct LeanCondition {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    status: String,
}

impl From<LeanContainer> for core::Container {
    fn from(LeanContainer { ports, restart_policy }: LeanContainer) -> Self {
        core::Container { ports, restart_policy, ..core::Container::default() }
    }
}

impl From<LeanPodSpec> for core::PodSpec {
    fn from(spec: LeanPodSpec) -> Self {
        let containers = |list: Vec<LeanContainer>| list.into_iter().map(core::Container::from).collect();
        core::PodSpec {
            node_name: spec.node_name,
            host_network: spec.host_network,
            containers: spec.containers.map(containers).unwrap_or_default(),
            init_containers: spec.init_containers.map(containers),
            ..core::PodSpec::default()
        }
    }
}

impl From<LeanPodStatus> for core::PodStatus {
    fn from(status: LeanPodStatus) -> Self {
        let condition = |LeanCondition { kind, status }| core::PodCondition { type_: kind, status, ..core::PodCondition::default() };
        core::PodStatus {
            phase: status.phase,
            pod_ip: status.pod_ip,
            pod_ips: status.pod_ips,
            conditions: status.conditions.map(|conditions| conditions.into_iter().map(condition).collect()),
            ..core::PodStatus::default()
        }
    }
}

impl From<LeanPod> for core::Pod {
    fn from(LeanPod { metadata, spec, status }: LeanPod) -> Self {
        core::Pod { metadata: metadata.into(), spec: spec.map(Into::into), status: status.map(Into::into) }
    }
}

#[derive(Debug, Deserialize)]
struct LeanNode {
    #[serde(default)]
    metadata: LeanMeta,
    #[serde(default)]
    spec: Option<LeanNodeSpec>,
    #[serde(default)]
    status: Option<LeanNodeStatus>,
}

#[derive(Debug, Default, Deserialize)]
struct LeanNodeSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
struct LeanNodeStatus {
    addresses: Option<Vec<core::NodeAddress>>,
}

impl From<LeanNode> for core::Node {
    fn from(LeanNode { metadata, spec, status }: LeanNode) -> Self {
        let spec = spec.map(|LeanNodeSpec { pod_cidr, pod_cidrs }| core::NodeSpec { pod_cidr, pod_cidrs, ..core::NodeSpec::default() });
        let status = status.map(|LeanNodeStatus { addresses }| core::NodeStatus { addresses, ..core::NodeStatus::default() });
        core::Node { metadata: metadata.into(), spec, status }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is read of a pod and of a node is what converting the whole object keeps.
    #[test]
    fn lean_reading_keeps_what_full_reading_keeps() {
        let metadata = json!({
            "name": "web-7d9f8c5b4-x2x4q", "namespace": "shop", "uid": "u", "resourceVersion": "12", "labels": {"app": "web", "pod-template-hash": "7d9f8c5b4"},
            "annotations": {"a": "b"}, "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d9f8c5b4", "uid": "x", "controller": true}],
            "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": {"f:phase": {}}}}],
        });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {
                "nodeName": "node-1", "hostNetwork": true,
                "initContainers": [
                    {"name": "once", "ports": [{"containerPort": 1}]},
                    {"name": "sidecar", "restartPolicy": "Always", "ports": [{"name": "proxy", "containerPort": 15090, "protocol": "UDP"}]},
                ],
                "containers": [{"name": "app", "image": "i", "env": [{"name": "X", "value": "y"}], "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 70000}]}],
            },
            "status": {
                "phase": "Running", "podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}, {"ip": "nonsense"}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}, {"type": "PodScheduled", "status": "True"}],
                "containerStatuses": [{"name": "app", "image": "i", "imageID": "", "ready": true, "restartCount": 0}],
            },
        });
        let node = json!({
            "metadata": metadata, "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "nonsense"], "taints": []},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "node-1"}], "images": [{"names": ["i"], "sizeBytes": 1}]},
        });
        let mut lean = FieldErrors::new();
        let mut full = FieldErrors::new();
        let found = object(Kind::Pod, pod.to_string().as_bytes(), &mut lean).expect("a pod");
        assert_eq!(found, convert::pod(serde_json::from_value(pod).expect("a pod"), &mut full).into());
        let found = object(Kind::Node, node.to_string().as_bytes(), &mut lean).expect("a node");
        assert_eq!(found, convert::node(serde_json::from_value(node).expect("a node"), &mut full).into());
        assert_eq!(lean, full);
        assert_eq!(lean.len(), 3);
        for (kind, empty) in
            [(Kind::Pod, json!({"metadata": {"name": "a", "namespace": "b"}})), (Kind::Node, json!({"metadata": {"name": "a"}}))]
        {
            let found = object(kind, empty.to_string().as_bytes(), &mut lean).expect("an object");
            let named: Named = serde_json::from_value(empty).expect("an object");
            assert_eq!(found.key(), named.metadata.key(kind));
        }
    }

    #[test]
    fn what_is_no_such_object_is_an_error() {
        assert!(object(Kind::Pod, br#"{"metadata":{"name":7}}"#, &mut FieldErrors::new()).is_err());
        assert!(object(Kind::AdminNetworkPolicy, br#"{"spec":{"priority":"high"}}"#, &mut FieldErrors::new()).is_err());
        assert!(object(Kind::DomainName, b"{}", &mut FieldErrors::new()).is_err());
    }
}
