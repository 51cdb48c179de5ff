//! AdminNetworkPolicy and BaselineAdminNetworkPolicy.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{EgressPeer, IngressPeer, NamespacedPod, Subject, cluster_resource};

cluster_resource!(AdminNetworkPolicy, "v1alpha1", "adminnetworkpolicies");
cluster_resource!(BaselineAdminNetworkPolicy, "v1alpha1", "baselineadminnetworkpolicies");

/// A policy of the Admin tier.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdminNetworkPolicy {
    /// policy.networking.k8s.io/v1alpha1
    pub api_version: Option<String>,
    /// AdminNetworkPolicy
    pub kind: Option<String>,
    /// Name, labels, annotations.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What it does; required.
    pub spec: Option<AdminNetworkPolicySpec>,
    /// What an implementation wrote; not read.
    pub status: Option<IgnoredAny>,
}

/// `spec` of an [`AdminNetworkPolicy`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct AdminNetworkPolicySpec {
    /// 0 to 1000, the lower one goes first; required.
    pub priority: Option<i32>,
    /// Required.
    pub subject: Option<Subject>,
    /// At most 100.
    pub ingress: Option<Vec<IngressRule>>,
    /// At most 100.
    pub egress: Option<Vec<EgressRule<EgressPeer>>>,
}

/// The policy of the Baseline tier; the only one is named `default`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BaselineAdminNetworkPolicy {
    /// policy.networking.k8s.io/v1alpha1
    pub api_version: Option<String>,
    /// BaselineAdminNetworkPolicy
    pub kind: Option<String>,
    /// Name, labels, annotations.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What it does; required.
    pub spec: Option<BaselineAdminNetworkPolicySpec>,
    /// What an implementation wrote; not read.
    pub status: Option<IgnoredAny>,
}

/// `spec` of a [`BaselineAdminNetworkPolicy`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct BaselineAdminNetworkPolicySpec {
    /// Required.
    pub subject: Option<Subject>,
    /// At most 100; Allow and Deny only.
    pub ingress: Option<Vec<IngressRule>>,
    /// At most 100; Allow and Deny only.
    pub egress: Option<Vec<EgressRule<BaselineEgressPeer>>>,
}

/// One entry of `spec.ingress`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct IngressRule {
    /// At most 100 characters.
    pub name: Option<String>,
    /// `Allow`, `Deny` or `Pass`; required.
    pub action: Option<String>,
    /// 1 to 100; required.
    pub from: Option<Vec<IngressPeer>>,
    /// 1 to 100; every port when missing.
    pub ports: Option<Vec<Port>>,
}

/// One entry of `spec.egress`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct EgressRule<P> {
    /// At most 100 characters.
    pub name: Option<String>,
    /// `Allow`, `Deny` or `Pass`; required.
    pub action: Option<String>,
    /// 1 to 100; required.
    pub to: Option<Vec<P>>,
    /// 1 to 100; every port when missing.
    pub ports: Option<Vec<Port>>,
}

/// One entry of `to` in a [`BaselineAdminNetworkPolicy`], which has no `domainNames`. Exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct BaselineEgressPeer {
    /// All pods of the namespaces.
    pub namespaces: Option<LabelSelector>,
    /// Pods by the labels of their namespaces and their own.
    pub pods: Option<NamespacedPod>,
    /// The addresses of the nodes (experimental).
    pub nodes: Option<LabelSelector>,
    /// Address ranges, 1 to 25.
    pub networks: Option<Vec<String>>,
}

impl From<BaselineEgressPeer> for EgressPeer {
    fn from(BaselineEgressPeer { namespaces, pods, nodes, networks }: BaselineEgressPeer) -> Self {
        EgressPeer { namespaces, pods, nodes, networks, domain_names: None }
    }
}

/// One entry of `ports`. Exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// One number of a protocol.
    pub port_number: Option<PortNumber>,
    /// The destination pod's container port of this name (experimental).
    pub named_port: Option<String>,
    /// Numbers of a protocol in a row.
    pub port_range: Option<PortRange>,
}

/// `portNumber`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct PortNumber {
    /// TCP when missing.
    pub protocol: Option<String>,
    /// 1 to 65535; required.
    pub port: Option<i32>,
}

/// `portRange`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct PortRange {
    /// TCP when missing.
    pub protocol: Option<String>,
    /// 1 to 65535; required.
    pub start: Option<i32>,
    /// 1 to 65535, the range's last port; required.
    pub end: Option<i32>,
}
