//! The smallest change that admits a denied connection, proved by evaluating it.

use std::sync::Arc;

use ipnet::IpNet;

use crate::cluster::{Direction, IpBlock, Labels, NetworkPolicy, Operator, Peer, Pod, PolicyPort, PortNumber, Requirement, Rule, Selector};

use super::connection::{Case, End, Who};
use super::explanation::{Fix, Manifest, NearMiss, PolicyRef};
use super::gain::{Change, Gain};
use super::labels;
use super::matching::{Context, Match};

/// Label that every namespace carries.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Longest `metadata.name`: a DNS subdomain (RFC 1123).
const MAX_NAME: usize = 253;

/// A change, not yet proved.
struct Candidate {
    change: Change,
    /// Whether the policy is a new one.
    is_new: bool,
    /// In one line.
    shown: String,
    /// How large the edit is: an entry added to a list, a rule, a policy.
    size: u8,
}

/// The other side of the connection in the words of a policy.
struct Other {
    end: Peer,
    /// The pod's labels without its namespace, for policies of the same one.
    near: Peer,
    namespace: Option<Arc<str>>,
    port: PolicyPort,
}

/// The change that admits the fewest others, of equals the smallest edit, of equals the one to the nearest rule; and the policy after it.
/// `cases` are all that the connection may be; the change must admit each of them.
///
/// # Errors
/// When no change helps; in words for people.
pub(super) fn smallest(
    context: &Context<'_>,
    cases: &[Case<'_>],
    direction: Direction,
    nearest: &[NearMiss],
) -> Result<(Fix, NetworkPolicy), String> {
    let Some(case) = cases.first() else { return Err("nothing is known of the connection".to_owned()) };
    let (subject, peer) = case.sides(direction);
    let Some(pod) = subject.pod() else { return Err("the side that policies deny is no pod".to_owned()) };
    let Some(port) = case.port.filter(|_| case.protocol.has_ports()) else {
        return Err(format!("policies cannot name {} connections without a port", case.protocol));
    };
    if matches!(peer.who, Who::Unowned) {
        return Err(format!("it is not known which pod has the address {}", peer.ip));
    }
    let other = Other::new(context, &peer, PolicyPort { protocol: case.protocol, port: PortNumber::Number(port) });
    let mut proved: Vec<Candidate> = edits(context, case, direction, nearest, &other);
    proved.extend(rules(context, pod, direction, &other));
    proved.extend(new_policy(context, case, direction, pod, &other));
    proved.retain(|candidate| {
        let admits = |case| context.judge_with(case, direction, Some(&candidate.change.policy)).admits() == Some(true);
        cases.iter().all(admits)
    });
    let gain = Gain::new(context, *case, direction, pod);
    proved
        .into_iter()
        .map(|candidate| (gain.of(&candidate.change), candidate))
        .min_by_key(|(admitted, candidate)| (admitted.len(), candidate.size))
        .map(|(admitted, candidate)| {
            let fix = Fix {
                direction,
                policy: (!candidate.is_new).then(|| PolicyRef::of(&candidate.change.policy)),
                change: candidate.shown,
                manifest: Manifest::NetworkPolicy(Arc::new(candidate.change.policy.clone())),
                patch: Vec::new(),
                newly_admits: admitted.into_iter().collect(),
            };
            (fix, candidate.change.policy)
        })
        .ok_or_else(|| "no single change to a policy admits it".to_owned())
}

/// Entries added to a list of a rule that misses one side only.
fn edits(context: &Context<'_>, case: &Case<'_>, direction: Direction, nearest: &[NearMiss], other: &Other) -> Vec<Candidate> {
    let (_, peer) = case.sides(direction);
    let list = peers_field(direction);
    let mut found = Vec::new();
    for miss in nearest {
        let at = &miss.rule;
        let policy = context.index.policy(&at.policy.namespace, &at.policy.name).filter(|policy| is_editable(policy));
        let Some(policy) = policy else { continue };
        let Some(rule) = policy.rules(direction).and_then(|rules| rules.get(at.index)) else { continue };
        let peer_fits = context.peers(rule, &policy.namespace, &peer) == Match::Yes;
        let port_fits = context.ports(rule, case) == Match::Yes;
        let (mut changed, mut opens) = (rule.clone(), rule.clone());
        let shown = match (peer_fits, port_fits) {
            (false, true) => {
                let (new, shown) = other.peer(&policy.namespace);
                changed.peers.push(new.clone());
                opens.peers = vec![new];
                format!("{direction}[{}].{list} += {shown}", at.index)
            }
            (true, false) => {
                changed.ports.push(other.port.clone());
                opens.ports = vec![other.port.clone()];
                format!("{direction}[{}].ports += {}", at.index, other.port)
            }
            _ => continue,
        };
        let mut edited = NetworkPolicy::clone(policy);
        if let Some(place) = rules_mut(&mut edited, direction).get_mut(at.index) {
            *place = changed.clone();
        }
        found.push(Candidate { change: Change { policy: edited, rule: changed, opens }, is_new: false, shown, size: 0 });
    }
    found
}

/// A rule added to a policy that isolates the pod.
fn rules(context: &Context<'_>, subject: &Pod, direction: Direction, other: &Other) -> Vec<Candidate> {
    let add = |policy: &Arc<NetworkPolicy>| {
        let (rule, shown) = other.rule(&policy.namespace);
        let mut changed = NetworkPolicy::clone(policy);
        rules_mut(&mut changed, direction).push(rule.clone());
        let shown = format!("{direction} += {} {shown}, ports {}", peers_field(direction), other.port);
        Candidate { change: Change { policy: changed, opens: rule.clone(), rule }, is_new: false, shown, size: 1 }
    };
    context.isolating(subject, direction).filter(|policy| is_editable(policy)).map(add).collect()
}

/// A policy of its own for this connection; none where it would isolate a pod that no policy isolates now, and so deny what
/// is admitted today.
fn new_policy(context: &Context<'_>, case: &Case<'_>, direction: Direction, subject: &Pod, other: &Other) -> Option<Candidate> {
    let pod_selector = selector(&labels::identifying(subject, context.index));
    let is_isolated = |pod: &Pod| context.isolating(pod, direction).next().is_some();
    let mut selected = context.index.pods_in(&subject.namespace).filter(|pod| pod_selector.matches(&pod.labels));
    if pod_selector.requirements.is_empty() || !selected.all(|pod| is_isolated(pod)) {
        return None;
    }
    let (rule, shown) = other.rule(&subject.namespace);
    let peer = case.sides(direction).1.pod().map_or("external", |pod| &pod.workload.name);
    let word = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let name = unused_name(context, &subject.namespace, &format!("{}-{word}-{peer}", subject.workload.name));
    let list = peers_field(direction);
    let shown =
        format!("new NetworkPolicy {}/{name} for {pod_selector}: {direction} {list} {shown}, ports {}", subject.namespace, other.port);
    let mut policy = NetworkPolicy { namespace: subject.namespace.clone(), name: name.into(), pod_selector, ..NetworkPolicy::default() };
    rules_mut(&mut policy, direction).push(rule.clone());
    Some(Candidate { change: Change { policy, opens: rule.clone(), rule }, is_new: true, shown, size: 2 })
}

/// A name that no policy of the namespace has: applying the manifest must not replace one.
fn unused_name(context: &Context<'_>, namespace: &str, wanted: &str) -> String {
    let with = |suffix: &str| {
        let base: String = wanted.chars().take(MAX_NAME.saturating_sub(suffix.len())).collect();
        format!("{}{suffix}", base.trim_end_matches(['-', '.']))
    };
    let mut name = with("");
    let mut number = 2_usize;
    while context.index.policy(namespace, &name).is_some() {
        name = with(&format!("-{number}"));
        number += 1;
    }
    name
}

/// Editing a policy that the API server refuses would not get it applied.
fn is_editable(policy: &NetworkPolicy) -> bool {
    policy.invalid.is_empty()
}

fn rules_mut(policy: &mut NetworkPolicy, direction: Direction) -> &mut Vec<Rule> {
    match direction {
        Direction::Ingress => policy.ingress.get_or_insert_default(),
        Direction::Egress => policy.egress.get_or_insert_default(),
    }
}

fn peers_field(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}

impl Other {
    fn new(context: &Context<'_>, end: &End<'_>, port: PolicyPort) -> Self {
        let Some(pod) = end.pod() else {
            let block = Peer::IpBlock(IpBlock { cidr: IpNet::from(end.ip).into(), except: Vec::new() });
            return Other { end: block.clone(), near: block, namespace: None, port };
        };
        let pods = Some(selector(&labels::identifying(pod, context.index)));
        let name = Requirement { key: NAMESPACE_NAME.into(), operator: Operator::Equals(pod.namespace.clone()) };
        let namespaces = Some(Selector { requirements: vec![name] });
        Other {
            end: Peer::Pods { namespace: namespaces, pod: pods.clone() },
            near: Peer::Pods { namespace: None, pod: pods },
            namespace: Some(pod.namespace.clone()),
            port,
        }
    }

    /// As an entry of a policy of `namespace`, and how people would write it.
    fn peer(&self, namespace: &str) -> (Peer, String) {
        let peer = if self.namespace.as_deref() == Some(namespace) { &self.near } else { &self.end };
        let shown = match peer {
            Peer::Pods { namespace, pod } => {
                let pods = pod.iter().map(|pods| format!("podSelector {}", braces(pods)));
                let namespaces = namespace.iter().map(|namespaces| format!("namespaceSelector {}", braces(namespaces)));
                pods.chain(namespaces).collect::<Vec<_>>().join(" ")
            }
            Peer::IpBlock(block) => format!("ipBlock {}", block.cidr),
            Peer::Invalid(why) => why.to_string(),
        };
        (peer.clone(), shown)
    }

    fn rule(&self, namespace: &str) -> (Rule, String) {
        let (peer, shown) = self.peer(namespace);
        (Rule { peers: vec![peer], ports: vec![self.port.clone()], origin: None }, shown)
    }
}

/// `{app: web}`, as in YAML.
fn braces(selector: &Selector) -> String {
    let terms = selector.requirements.iter().map(|requirement| match &requirement.operator {
        Operator::Equals(value) => format!("{}: {value}", requirement.key),
        Operator::In(values) => format!("{}: {}", requirement.key, values.join(",")),
        _ => requirement.to_string(),
    });
    format!("{{{}}}", terms.collect::<Vec<_>>().join(", "))
}

fn selector(labels: &Labels) -> Selector {
    let term = |(key, value): (&Arc<str>, &Arc<str>)| Requirement { key: key.clone(), operator: Operator::Equals(value.clone()) };
    Selector { requirements: labels.iter().map(term).collect() }
}
