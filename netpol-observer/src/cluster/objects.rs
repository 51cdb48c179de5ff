//! The trimmed objects the index keeps.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use super::index::NAMESPACE_NAME_LABEL;

use crate::flow::Protocol;

/// Object labels (`metadata.labels`).
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// Where an object was read from, when it came from a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Origin {
    /// Path as the user gave it, or `-` for standard input.
    pub file: Arc<str>,
    /// Line on which the object (or the part of it) begins, from 1.
    pub line: u32,
}

/// `policies.yaml:14`
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = if &*self.file == "-" { "standard input" } else { &self.file };
        write!(f, "{file}:{}", self.line)
    }
}

/// core/v1 Namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// `metadata.name`
    pub name: Arc<str>,
    /// `metadata.labels`, with `kubernetes.io/metadata.name` as the API server sets it.
    pub labels: Labels,
}

impl Namespace {
    /// The labels of a namespace that nobody described: the one that the API server sets.
    pub fn undescribed(name: &str) -> Labels {
        Labels::from([(NAMESPACE_NAME_LABEL.into(), name.into())])
    }
}

/// core/v1 Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.namespace`
    pub namespace: Arc<str>,
    /// `metadata.name`
    pub name: Arc<str>,
    /// `metadata.uid`; empty in most manifests.
    pub uid: Arc<str>,
    /// `metadata.labels`
    pub labels: Labels,
    /// `status.podIPs`, or `status.podIP` alone.
    pub ips: Vec<IpAddr>,
    /// `spec.nodeName`
    pub node: Option<Arc<str>>,
    /// `spec.hostNetwork`: the pod has its node's addresses.
    pub host_network: bool,
    /// `status.phase`
    pub phase: PodPhase,
    /// Condition `Ready`, and not being deleted; true where no conditions are given, as in manifests.
    pub ready: bool,
    /// `metadata.deletionTimestamp` is set: the pod ends, and its address may be another's before the object is gone.
    pub deleting: bool,
    /// `spec.containers[].ports[]` and those of restartable init containers (sidecars).
    pub ports: Vec<ContainerPort>,
    /// The workload that made it, from `metadata.ownerReferences`; a ReplicaSet is named as its Deployment.
    pub workload: Workload,
    /// Where it was read.
    pub origin: Option<Origin>,
}

/// `status.phase` of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPhase {
    /// Not yet running, running, or unknown: holds its address.
    Active,
    /// Succeeded or Failed: its address may already belong to another pod.
    Terminated,
}

/// What a pod belongs to; a bare pod is its own workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Workload {
    /// `Deployment`, `StatefulSet`, `DaemonSet`, `Job`, `Pod`, …
    pub kind: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// A `containerPort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// Name a policy or a Service may use.
    pub name: Option<Arc<str>>,
    /// Number.
    pub port: u16,
    /// TCP when the manifest names none.
    pub protocol: Protocol,
}

/// core/v1 Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`
    pub name: Arc<str>,
    /// `metadata.labels`
    pub labels: Labels,
    /// IP addresses of `status.addresses`.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`, or `spec.podCIDR` alone.
    pub pod_cidrs: Vec<ipnet::IpNet>,
}

/// core/v1 Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `metadata.namespace`
    pub namespace: Arc<str>,
    /// `metadata.name`
    pub name: Arc<str>,
    /// `spec.clusterIPs` without `None`.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip`
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.ports`
    pub ports: Vec<ServicePort>,
    /// `spec.selector`; without one somebody else writes the EndpointSlices.
    pub selector: Option<Labels>,
    /// `spec.publishNotReadyAddresses`
    pub publish_not_ready: bool,
    /// What the cluster's DNS answers for its name.
    pub dns: ServiceDns,
}

/// What the name of a Service stands for in the cluster's DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ServiceDns {
    /// Its own virtual address, which is translated to an endpoint and that one's port on the way.
    #[default]
    ClusterIp,
    /// `clusterIP: None`: the addresses of its endpoints. No port is translated.
    Headless,
    /// `type: ExternalName`: another name, `spec.externalName`.
    Name(Arc<str>),
}

/// One entry of `spec.ports` of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// May be absent when it is the only one.
    pub name: Option<Arc<str>>,
    /// The port callers dial.
    pub port: u16,
    /// TCP when absent.
    pub protocol: Protocol,
    /// The port of the pods behind it; `port` when absent.
    pub target_port: TargetPort,
    /// The port on every node, for NodePort and LoadBalancer Services.
    pub node_port: Option<u16>,
}

/// `targetPort`: a number, or the name of a container port, which each pod may map to another number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// A container port's name.
    Name(Arc<str>),
}

/// discovery.k8s.io/v1 EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// `metadata.namespace`
    pub namespace: Arc<str>,
    /// `metadata.name`
    pub name: Arc<str>,
    /// Label `kubernetes.io/service-name`.
    pub service: Option<Arc<str>>,
    /// `ports`
    pub ports: Vec<SlicePort>,
    /// `endpoints`, one per address.
    pub backends: Vec<Backend>,
}

/// A port of an EndpointSlice. No number means "all ports" and is kept out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the Service port it serves; empty for an unnamed one.
    pub name: Arc<str>,
    /// Number on the endpoint.
    pub port: u16,
    /// TCP when absent.
    pub protocol: Protocol,
}

/// A name in the DNS and the addresses it is known to stand for. No object of the cluster: it is learned from answers or from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainName {
    /// Fully qualified, lower case, without the final dot: `api.example.com`.
    pub name: Arc<str>,
    /// Every address; none means that the name is known to have none.
    pub addresses: Vec<IpAddr>,
}

/// An address behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its address.
    pub ip: IpAddr,
    /// `conditions.ready`, true when absent.
    pub ready: bool,
}
