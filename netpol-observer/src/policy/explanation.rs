//! The answer of the engine, as data. One renderer turns it into text (`serve::render`); JSON is this, serialised.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::cluster::{Direction, NetworkPolicy, Origin, Requirement};

/// Whether a new connection is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Both directions admit it.
    Allow,
    /// At least one direction denies it.
    Deny,
    /// The objects do not tell; the explanation says why.
    Undecided,
}

/// Why a connection is or is not admitted.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Deny if either direction denies; else Undecided if either is; else Allow.
    pub verdict: Verdict,
    /// What policies on the source pod say.
    pub egress: DirectionExplanation,
    /// What policies on the destination pod say.
    pub ingress: DirectionExplanation,
    /// The smallest change per denying direction, each proved by evaluating the changed policies. Applying all of them
    /// allows the connection, unless `remaining` names something.
    pub fixes: Vec<Fix>,
    /// What keeps the connection from working even after the fixes.
    pub remaining: Vec<Remaining>,
    /// Things a reader should know: undefined behaviour that was decided by a profile, parts of policies left out as invalid.
    pub notes: Vec<String>,
}

/// One direction's part.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectionExplanation {
    /// Which direction.
    pub direction: Direction,
    /// `namespace/pod` whose policies apply; absent when that side is no pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The outcome.
    #[serde(flatten)]
    pub admission: Admission,
}

/// Outcome of one direction.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Admission {
    /// Policies do not speak of this side: an external address, a host-network pod, traffic exempt by the API.
    NotSubject {
        /// In a few words, for people.
        why: String,
    },
    /// No policy isolates the pod in this direction.
    NotIsolated,
    /// At least one rule admits the connection.
    Allowed {
        /// All rules that do, in the order of policies by name and then of rules.
        by: Vec<RuleRef>,
    },
    /// Policies isolate the pod, and no rule admits the connection.
    Denied {
        /// Every policy that isolates the pod, by name, with the reason of each of its rules.
        isolating: Vec<IsolatingPolicy>,
        /// The rules in the order of how little they miss.
        nearest: Vec<NearMiss>,
    },
    /// Cannot decide.
    Undecided {
        /// What is missing.
        why: String,
    },
}

/// A policy, as a reader can find it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRef {
    /// `NetworkPolicy`
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// When an API server has seen it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<Arc<str>>,
    /// File and line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

impl PolicyRef {
    /// How a reader finds `policy`.
    pub(super) fn of(policy: &NetworkPolicy) -> Self {
        PolicyRef {
            kind: "NetworkPolicy",
            namespace: policy.namespace.clone(),
            name: policy.name.clone(),
            resource_version: policy.resource_version.clone(),
            origin: policy.origin.clone(),
        }
    }
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleRef {
    /// The policy.
    pub policy: PolicyRef,
    /// `spec.ingress` or `spec.egress`
    pub direction: Direction,
    /// Index in that list.
    pub index: usize,
    /// File and line of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// A policy that isolates the pod and why none of its rules admits the connection.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IsolatingPolicy {
    /// The policy.
    pub policy: PolicyRef,
    /// One per rule, in order; empty when the policy has no rule in this direction.
    pub rules: Vec<RuleMiss>,
}

/// Why a rule does not admit the connection.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleMiss {
    /// Index in `spec.ingress` or `spec.egress`.
    pub index: usize,
    /// Per peer of the rule; empty when the peer matches.
    pub peers: Vec<PeerMiss>,
    /// Per port of the rule; empty when the port matches.
    pub ports: Vec<PortMiss>,
}

/// A peer of a rule that does not match, and every condition of it that failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerMiss {
    /// Index in `from` or `to`.
    pub index: usize,
    /// At least one.
    pub failed: Vec<Condition>,
}

/// A port of a rule that does not match, and every condition of it that failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMiss {
    /// Index in `ports`.
    pub index: usize,
    /// The entry as people write it: `8080/TCP`.
    pub wants: String,
    /// At least one.
    pub failed: Vec<Condition>,
}

/// A single condition that failed: what the policy wants and what is there.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "condition", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Condition {
    /// `namespaceSelector` term.
    NamespaceLabel {
        /// The term.
        wants: Requirement,
        /// The peer's namespace.
        namespace: Arc<str>,
        /// The label's value there.
        has: Option<Arc<str>>,
    },
    /// podSelector without namespaceSelector: the peer must be in the policy's namespace.
    SameNamespace {
        /// The policy's namespace.
        wants: Arc<str>,
        /// The peer's.
        has: Arc<str>,
    },
    /// `podSelector` term.
    PodLabel {
        /// The term.
        wants: Requirement,
        /// `namespace/name` of the peer.
        pod: String,
        /// The label's value there.
        has: Option<Arc<str>>,
    },
    /// Selectors match pods only, and the peer is none (or one in the host's network).
    NotAPod {
        /// The peer's address.
        ip: IpAddr,
    },
    /// The peer's address is outside `cidr`.
    OutsideBlock {
        /// `ipBlock.cidr`
        cidr: String,
        /// The peer's address.
        ip: IpAddr,
    },
    /// The peer's address is inside `cidr` and also inside this `except`.
    Excepted {
        /// `ipBlock.cidr`
        cidr: String,
        /// The exception.
        except: String,
        /// The peer's address.
        ip: IpAddr,
    },
    /// The `cidr` is of the other IP family.
    Family {
        /// `ipBlock.cidr`
        cidr: String,
        /// The peer's address.
        ip: IpAddr,
    },
    /// The dataplane's `ipBlock`s do not match pod addresses (a profile switch).
    BlockIgnoresPods {
        /// `ipBlock.cidr`
        cidr: String,
        /// The peer's address.
        ip: IpAddr,
    },
    /// The number differs from `port` or lies outside `port..=endPort`.
    PortNumber {
        /// The port called.
        has: u16,
    },
    /// The protocol differs.
    Protocol {
        /// The protocol called.
        has: String,
    },
    /// The destination pod has that port name, but it stands for another number.
    NamedPortNumber {
        /// The name.
        name: Arc<str>,
        /// What the destination pod maps it to, for this protocol.
        stands_for: Vec<u16>,
        /// The port called.
        has: u16,
    },
    /// The destination pod has no port of that name and protocol.
    NamedPortMissing {
        /// The name.
        name: Arc<str>,
        /// `namespace/name` of the destination pod.
        pod: String,
    },
    /// A named port means nothing for a destination that is no pod.
    NamedPortNeedsPod {
        /// The name.
        name: Arc<str>,
    },
    /// The packet shows no port (ICMP, later fragment), and the rule wants one.
    NoPort,
    /// The API server would refuse this part; it matches nothing.
    Invalid {
        /// Why.
        why: Arc<str>,
    },
}

/// A rule and how much it misses.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NearMiss {
    /// The rule.
    pub rule: RuleRef,
    /// Failed conditions of its best peer and its best port together.
    pub distance: usize,
    /// The best peer's failed conditions; empty when a peer matches.
    pub peer: Vec<Condition>,
    /// What the best port wants and its failed conditions; absent when a port matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortMiss>,
}

/// A change to the policies that admits the connection in one direction.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fix {
    /// The direction it mends.
    pub direction: Direction,
    /// The policy to edit; absent when the fix is a new policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyRef>,
    /// The edit in one line: `ingress[0].from += podSelector {app: web}`.
    pub change: String,
    /// The policy's manifest after the edit (or the new policy), as JSON ready for `kubectl apply`. When an earlier fix edits the
    /// same policy, that edit is in here too.
    pub manifest: serde_json::Value,
    /// Workloads (`namespace/name`) or address blocks the changed policy admits that were not admitted before, this
    /// connection's peer among them, on the ports the change touches.
    pub newly_admits: Vec<String>,
}

/// Something besides the denied direction that stands in the way.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Remaining {
    /// The Service has no ready endpoint.
    ServiceWithoutEndpoints {
        /// `namespace/name`
        service: String,
    },
    /// The caller may not ask the cluster's DNS, so that it cannot look the Service's name up.
    DnsDenied {
        /// `namespace/name` of the DNS Service.
        service: String,
    },
    /// No proved fix was found for this direction.
    NoFix {
        /// Which.
        direction: Direction,
        /// Why.
        why: String,
    },
}
