//! The answer of the engine, as data. One renderer turns it into text (`serve::render`); JSON is this, serialised.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::cluster::{Action, ClusterPolicy, Direction, Labels, NetworkPolicy, Origin, Requirement, Tier, Workload};

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
    /// The tiers that were asked, in order, and what each said. Empty where policies do not speak of the side.
    pub tiers: Vec<TierStep>,
    /// The outcome.
    #[serde(flatten)]
    pub admission: Admission,
}

/// What one tier says of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TierStep {
    /// Which tier.
    pub tier: Tier,
    /// What it says.
    #[serde(flatten)]
    pub outcome: TierOutcome,
}

/// The outcome of one tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "says", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum TierOutcome {
    /// No policy of the tier selects the pod for this direction. The next tier is asked.
    NoPolicy,
    /// Policies of the tier select the pod, and none of their rules matches. The next tier is asked.
    NoMatch {
        /// How many policies.
        policies: usize,
    },
    /// A Pass rule matches. The next tier is asked.
    Pass {
        /// The rule.
        by: RuleRef,
    },
    /// A rule admits the connection; later tiers are not asked.
    Accept {
        /// The rule; of several NetworkPolicy rules the first.
        by: RuleRef,
    },
    /// A Deny rule matches, or NetworkPolicies isolate the pod and none of their rules matches. Later tiers are not asked.
    Deny {
        /// The rule; absent when NetworkPolicies isolate.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<RuleRef>,
    },
    /// Cannot decide.
    Undecided {
        /// What is missing.
        why: String,
    },
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
    /// No policy isolates the pod in this direction, and no rule of the other tiers matches.
    NotIsolated,
    /// At least one rule admits the connection.
    Allowed {
        /// All NetworkPolicy rules that do, in the order of policies by name and then of rules; or the one rule of the Admin or Baseline tier.
        by: Vec<RuleRef>,
    },
    /// Policies isolate the pod, and no rule admits the connection; or a Deny rule of the Admin or Baseline tier matches.
    Denied {
        /// The Deny rule that decided; absent when NetworkPolicies isolate the pod.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<RuleRef>,
        /// Every NetworkPolicy that isolates the pod, by name, with the reason of each of its rules. Empty where a Deny rule decided.
        isolating: Vec<IsolatingPolicy>,
        /// The rules that could have admitted it in the order of how little they miss. Where a Deny rule decided: the Accept and Pass
        /// rules that were asked before it.
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
    /// `NetworkPolicy`, `AdminNetworkPolicy`, `BaselineAdminNetworkPolicy`, `ClusterNetworkPolicy`
    pub kind: &'static str,
    /// Its namespace; empty for the cluster-scoped kinds.
    #[serde(skip_serializing_if = "str::is_empty")]
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
    /// How a reader finds a policy of the Admin or Baseline tier.
    pub fn of_cluster(policy: &ClusterPolicy) -> Self {
        PolicyRef {
            kind: policy.kind.as_str(),
            namespace: Arc::default(),
            name: policy.name.clone(),
            resource_version: policy.resource_version.clone(),
            origin: policy.origin.clone(),
        }
    }

    /// `shop/api`, or `deny-all` for a cluster-scoped policy.
    pub fn full_name(&self) -> String {
        if self.namespace.is_empty() { self.name.to_string() } else { format!("{}/{}", self.namespace, self.name) }
    }

    /// How a reader finds `policy`.
    pub fn of(policy: &NetworkPolicy) -> Self {
        PolicyRef {
            kind: "NetworkPolicy",
            namespace: policy.namespace.clone(),
            name: policy.name.clone(),
            resource_version: policy.resource_version.clone(),
            origin: policy.origin.clone(),
        }
    }
}

/// `NetworkPolicy shop/api`
impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.full_name())
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
    /// Its name, which only rules of cluster-scoped policies can have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// What it does; absent for NetworkPolicies, whose rules all admit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// File and line of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// `NetworkPolicy shop/api ingress[0]`, `AdminNetworkPolicy no-db egress[2] "no-db"`
impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[{}]", self.policy, self.direction, self.index)?;
        self.name.iter().try_for_each(|name| write!(f, " {name:?}"))
    }
}

impl RuleRef {
    /// Where it stands, or else where its policy does.
    pub fn place(&self) -> Option<&Origin> {
        self.origin.as_ref().or(self.policy.origin.as_ref())
    }

    /// How a reader finds a rule of a NetworkPolicy.
    pub fn of(policy: &NetworkPolicy, direction: Direction, index: usize) -> Self {
        let rule = policy.rules(direction).and_then(|rules| rules.get(index));
        let origin = rule.and_then(|rule| rule.origin.clone());
        RuleRef { policy: PolicyRef::of(policy), direction, index, name: None, action: None, origin }
    }

    /// How a reader finds a rule of a policy of the Admin or Baseline tier.
    pub fn of_cluster(policy: &ClusterPolicy, direction: Direction, index: usize) -> Self {
        let rule = policy.rules(direction).get(index);
        RuleRef {
            policy: PolicyRef::of_cluster(policy),
            direction,
            index,
            name: rule.and_then(|rule| rule.name.clone()),
            action: rule.map(|rule| rule.action),
            origin: rule.and_then(|rule| rule.origin.clone()),
        }
    }
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
    /// File and line of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
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
    /// `nodes` term.
    NodeLabel {
        /// The term.
        wants: Requirement,
        /// The node.
        node: Arc<str>,
        /// The label's value there.
        has: Option<Arc<str>>,
    },
    /// `nodes` match the addresses of nodes only.
    NotANode {
        /// The peer's address.
        ip: IpAddr,
    },
    /// The peer's address is in none of the `networks`.
    OutsideNetworks {
        /// `networks`
        networks: Vec<String>,
        /// The peer's address.
        ip: IpAddr,
    },
    /// The peer's address is none that the names are known to stand for.
    NotTheName {
        /// `domainNames`
        names: Vec<Arc<str>>,
        /// The peer's address.
        ip: IpAddr,
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
    /// The object after the edit (or the new policy), ready for `kubectl apply`. When an earlier fix edits the same policy, that edit
    /// is in here too.
    pub manifest: Manifest,
    /// The edit as a JSON patch (RFC 6902) for `kubectl patch --type=json`: a `test` that the rule is still as it was when the edit was
    /// found, then the edit. Empty when the fix is a new policy. When an earlier fix edits the same policy, this one goes after it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patch: Vec<PatchOperation>,
    /// Workloads (`namespace/name`) or address blocks the changed policy admits that were not admitted before, this
    /// connection's peer among them, on the ports the change touches.
    pub newly_admits: Vec<String>,
}

/// One operation of a JSON patch (RFC 6902).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum PatchOperation {
    /// The patch is refused unless the value is there.
    Test {
        /// JSON pointer (RFC 6901).
        path: String,
        /// What must be there.
        value: serde_json::Value,
    },
    /// Inserts into a list before the index (`-` for its end), or sets a member of an object.
    Add {
        /// JSON pointer (RFC 6901).
        path: String,
        /// What is added.
        value: serde_json::Value,
    },
    /// Takes the place of the value that is there.
    Replace {
        /// JSON pointer (RFC 6901).
        path: String,
        /// What is there afterwards.
        value: serde_json::Value,
    },
}

/// An object as a fix leaves it. Kept as it is in the engine and turned into JSON when it is asked for: most explanations are never printed.
#[derive(Clone, Debug, PartialEq)]
pub enum Manifest {
    /// networking.k8s.io/v1
    NetworkPolicy(Arc<NetworkPolicy>),
    /// policy.networking.k8s.io
    ClusterPolicy(Arc<ClusterPolicy>),
    /// The labels a workload gives its pods: only that part of its manifest.
    Labels {
        /// `Deployment`, …, or `Pod` for a bare one.
        workload: Workload,
        /// `metadata.namespace`
        namespace: Arc<str>,
        /// The labels to add or to change.
        labels: Labels,
    },
}

impl Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
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
    /// A call to the Service may go to another endpoint than the one explained, and that one is denied too.
    OtherEndpointsDenied {
        /// `namespace/name`
        service: String,
        /// Address and port of each that is still denied after the fixes, as `shop/api-2 (10.0.0.7):8080`.
        endpoints: Vec<String>,
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
