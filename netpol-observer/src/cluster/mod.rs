//! Kubernetes objects → [`Index`]: what is where, and which policies there are.
//!
//! Objects are trimmed to what the later stages need (`objects`, `network_policy`). Today they come from manifests
//! (`manifests`); watches feed the same [`Index`] through the same three calls, `apply`, `delete` and `reset`.
#![forbid(unsafe_code)]

mod cluster_policy;
pub mod convert;
pub mod domain_names;
mod foreign;
mod index;
pub mod manifests;
mod network_policy;
mod objects;
pub mod policy_api;
pub mod policy_test;
mod selector;

pub use cluster_policy::{Action, ClusterPeer, ClusterPolicy, ClusterPolicyKind, ClusterPort, ClusterRule, Subject, Tier};
pub use foreign::{Foreign, ForeignNames, ForeignPolicies, MAX_FOREIGN_NAMES};
pub use index::{Counts, Index, Kind, NAMESPACE_NAME_LABEL, Object, ObjectKey, Texts};
pub use network_policy::{Cidr, Direction, IpBlock, NetworkPolicy, Peer, PolicyPort, PortNumber, Rule};
pub use objects::{
    Backend, ContainerPort, DomainName, EndpointSlice, Labels, Namespace, Node, Origin, Pod, PodPhase, Service, ServiceDns, ServicePort,
    SlicePort, TargetPort, Workload,
};
pub use selector::{Operator, Requirement, Selector};
