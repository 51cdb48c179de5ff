//! One object of any kind the index keeps, and how it is named.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::cluster::{ClusterPolicy, ClusterPolicyKind, DomainName, EndpointSlice, Namespace, NetworkPolicy, Node, Pod, Service};

/// An object of a kind the index keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// core/v1 Namespace
    Namespace(Arc<Namespace>),
    /// core/v1 Node
    Node(Arc<Node>),
    /// core/v1 Pod
    Pod(Arc<Pod>),
    /// core/v1 Service
    Service(Arc<Service>),
    /// discovery.k8s.io/v1 EndpointSlice
    EndpointSlice(Arc<EndpointSlice>),
    /// networking.k8s.io/v1 NetworkPolicy
    NetworkPolicy(Arc<NetworkPolicy>),
    /// policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy, BaselineAdminNetworkPolicy, v1alpha2 ClusterNetworkPolicy
    ClusterPolicy(Arc<ClusterPolicy>),
    /// What is known of a name in the DNS.
    DomainName(Arc<DomainName>),
}

impl Object {
    /// What identifies it.
    pub fn key(&self) -> ObjectKey {
        let (kind, namespace, name) = match self {
            Object::Namespace(o) => (Kind::Namespace, None, &o.name),
            Object::Node(o) => (Kind::Node, None, &o.name),
            Object::Pod(o) => (Kind::Pod, Some(&o.namespace), &o.name),
            Object::Service(o) => (Kind::Service, Some(&o.namespace), &o.name),
            Object::EndpointSlice(o) => (Kind::EndpointSlice, Some(&o.namespace), &o.name),
            Object::NetworkPolicy(o) => (Kind::NetworkPolicy, Some(&o.namespace), &o.name),
            Object::ClusterPolicy(o) => (Kind::of(o.kind), None, &o.name),
            Object::DomainName(o) => (Kind::DomainName, None, &o.name),
        };
        ObjectKey { kind, namespace: namespace.cloned().unwrap_or_default(), name: name.clone() }
    }
}

macro_rules! object_from {
    ($($kind:ident),*) => {$(
        impl From<$kind> for Object {
            fn from(object: $kind) -> Self {
                Object::$kind(Arc::new(object))
            }
        }

        impl From<Arc<$kind>> for Object {
            fn from(object: Arc<$kind>) -> Self {
                Object::$kind(object)
            }
        }
    )*};
}

object_from!(Namespace, Node, Pod, Service, EndpointSlice, NetworkPolicy, ClusterPolicy, DomainName);

/// Kinds of objects the index keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Kind {
    /// core/v1 Namespace
    Namespace,
    /// core/v1 Node
    Node,
    /// core/v1 Pod
    Pod,
    /// core/v1 Service
    Service,
    /// discovery.k8s.io/v1 EndpointSlice
    EndpointSlice,
    /// networking.k8s.io/v1 NetworkPolicy
    NetworkPolicy,
    /// policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy
    AdminNetworkPolicy,
    /// policy.networking.k8s.io/v1alpha1 BaselineAdminNetworkPolicy
    BaselineAdminNetworkPolicy,
    /// policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy
    ClusterNetworkPolicy,
    /// A name in the DNS; no kind of Kubernetes.
    DomainName,
}

impl Kind {
    /// That of a policy of the cluster's scope.
    pub fn of(kind: ClusterPolicyKind) -> Self {
        match kind {
            ClusterPolicyKind::AdminNetworkPolicy => Kind::AdminNetworkPolicy,
            ClusterPolicyKind::BaselineAdminNetworkPolicy => Kind::BaselineAdminNetworkPolicy,
            ClusterPolicyKind::ClusterNetworkPolicy => Kind::ClusterNetworkPolicy,
        }
    }

    /// As a policy kind of the cluster's scope, if it is one.
    pub fn cluster_policy(self) -> Option<ClusterPolicyKind> {
        match self {
            Kind::AdminNetworkPolicy => Some(ClusterPolicyKind::AdminNetworkPolicy),
            Kind::BaselineAdminNetworkPolicy => Some(ClusterPolicyKind::BaselineAdminNetworkPolicy),
            Kind::ClusterNetworkPolicy => Some(ClusterPolicyKind::ClusterNetworkPolicy),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Namespace => "Namespace",
            Kind::Node => "Node",
            Kind::Pod => "Pod",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::NetworkPolicy => "NetworkPolicy",
            Kind::AdminNetworkPolicy => "AdminNetworkPolicy",
            Kind::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
            Kind::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Kind::DomainName => "name",
        })
    }
}

/// What identifies an object: no two in an [`Index`](super::Index) have the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for kinds that have none (Namespace, Node, the cluster-scoped policies).
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// As in messages: `Pod shop/web`, `Node node-1`.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        if namespace.is_empty() { write!(f, "{kind} {name}") } else { write!(f, "{kind} {namespace}/{name}") }
    }
}

/// How many objects of each kind there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Namespaces that some object describes.
    pub namespaces: usize,
    /// Pods, terminated ones included.
    pub pods: usize,
    /// Nodes.
    pub nodes: usize,
    /// Services.
    pub services: usize,
    /// EndpointSlices.
    pub endpoint_slices: usize,
    /// NetworkPolicies.
    pub network_policies: usize,
    /// AdminNetworkPolicies, BaselineAdminNetworkPolicies and ClusterNetworkPolicies.
    pub cluster_policies: usize,
}
