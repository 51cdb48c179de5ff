//! The cluster-scoped policies of policy.networking.k8s.io, as one type: AdminNetworkPolicy and BaselineAdminNetworkPolicy
//! (v1alpha1) and ClusterNetworkPolicy (v1alpha2), defaulted and compiled once.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::{Cidr, Direction, Labels, Origin, PolicyPort, Selector};

/// A policy of the Admin or the Baseline tier. Unlike NetworkPolicies it isolates nothing: only its rules act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPolicy {
    /// Which of the three kinds it was written as.
    pub kind: ClusterPolicyKind,
    /// `metadata.name`
    pub name: Arc<str>,
    /// `metadata.resourceVersion`, when an API server has seen it.
    pub resource_version: Option<Arc<str>>,
    /// `metadata.labels`
    pub labels: Labels,
    /// `metadata.annotations` without what kubectl keeps there for itself.
    pub annotations: Labels,
    /// Before or after the NetworkPolicies: `spec.tier`, and given by the kind in v1alpha1.
    pub tier: Tier,
    /// `spec.priority`, 0 to 1000: the lower number goes first within its tier. 0 for a BaselineAdminNetworkPolicy, of which there is one.
    pub priority: u16,
    /// The pods it applies to. Pods in their node's network are never among them.
    pub subject: Subject,
    /// Rules for connections to those pods; the first one that matches decides.
    pub ingress: Vec<ClusterRule>,
    /// Rules for connections from those pods.
    pub egress: Vec<ClusterRule>,
    /// What the API server would have refused, in the words of the field.
    pub invalid: Vec<String>,
    /// Where it was read.
    pub origin: Option<Origin>,
}

impl ClusterPolicy {
    /// The rules of one direction.
    pub fn rules(&self, direction: Direction) -> &[ClusterRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// The kind a [`ClusterPolicy`] was written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum ClusterPolicyKind {
    /// policy.networking.k8s.io/v1alpha1
    AdminNetworkPolicy,
    /// policy.networking.k8s.io/v1alpha1; the only one is named `default`.
    BaselineAdminNetworkPolicy,
    /// policy.networking.k8s.io/v1alpha2
    ClusterNetworkPolicy,
}

impl ClusterPolicyKind {
    /// As in `kind:`.
    pub fn as_str(self) -> &'static str {
        match self {
            ClusterPolicyKind::AdminNetworkPolicy => "AdminNetworkPolicy",
            ClusterPolicyKind::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
            ClusterPolicyKind::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }
}

impl fmt::Display for ClusterPolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The tiers in the order in which they are asked. What none decides is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Tier {
    /// AdminNetworkPolicies, and ClusterNetworkPolicies of `tier: Admin`.
    Admin,
    /// NetworkPolicies.
    NetworkPolicy,
    /// The BaselineAdminNetworkPolicy, and ClusterNetworkPolicies of `tier: Baseline`.
    Baseline,
}

/// `spec.subject`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// `namespaces`: all pods of the namespaces.
    Namespaces(Selector),
    /// `pods`: of the namespaces that match, the pods that match.
    Pods {
        /// `namespaceSelector`
        namespace: Selector,
        /// `podSelector`
        pod: Selector,
    },
    /// Neither, or both; selects nothing.
    Invalid(Arc<str>),
}

/// What a matching rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Action {
    /// Admits the connection in this direction; later tiers are not asked. `Allow` in v1alpha1.
    Accept,
    /// Denies the connection.
    Deny,
    /// Leaves the tier: NetworkPolicies are asked next, or after the Baseline tier the connection is admitted.
    Pass,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Action::Accept => "Accept",
            Action::Deny => "Deny",
            Action::Pass => "Pass",
        })
    }
}

/// One entry of `spec.ingress` or `spec.egress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRule {
    /// `name`
    pub name: Option<Arc<str>>,
    /// `action`
    pub action: Action,
    /// `from` or `to`, at least one; the rule matches a connection whose peer is any of them. A rule without peers matches nothing.
    pub peers: Vec<ClusterPeer>,
    /// `ports` (v1alpha1) or `protocols` (v1alpha2); empty: every port of every protocol.
    pub ports: Vec<ClusterPort>,
    /// Line of the rule in its file.
    pub origin: Option<Origin>,
}

/// One entry of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterPeer {
    /// `namespaces`: all pods of the namespaces.
    Namespaces(Selector),
    /// `pods`: of the namespaces that match, the pods that match.
    Pods {
        /// `namespaceSelector`
        namespace: Selector,
        /// `podSelector`
        pod: Selector,
    },
    /// `nodes` (egress only): the addresses of the nodes, not of the pods on them.
    Nodes(Selector),
    /// `networks` (egress only): addresses, those of pods included.
    Networks(Vec<Cidr>),
    /// `domainNames` (egress, Accept only), lower case: a name, or `*.` and a name for everything one or more labels below it.
    DomainNames(Vec<Arc<str>>),
    /// No field that is known here, or one that the API server refuses. Fails closed: in an Accept rule it matches nothing, in Deny and
    /// Pass rules everything.
    Invalid(Arc<str>),
}

/// One entry of `ports` or `protocols`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClusterPort {
    /// A protocol with a number, a range or no number; never a name.
    Port(PolicyPort),
    /// `namedPort` (v1alpha1), `destinationNamedPort` (v1alpha2): the destination pod's container port of this name, whatever its protocol.
    Named(Arc<str>),
    /// Refused by the API server, or no field that is known here. Fails closed like [`ClusterPeer::Invalid`].
    Invalid(Arc<str>),
}

/// As people write ports: `8080/TCP`, `metrics`.
impl fmt::Display for ClusterPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClusterPort::Port(port) => port.fmt(f),
            ClusterPort::Named(name) => f.write_str(name),
            ClusterPort::Invalid(why) => write!(f, "invalid port ({why})"),
        }
    }
}
