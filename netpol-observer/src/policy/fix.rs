//! The smallest change that admits a denied connection, proved by evaluating it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::cluster::{Direction, IpBlock, Labels, NetworkPolicy, Operator, Peer, Pod, PolicyPort, PortNumber, Requirement, Rule, Selector};
use crate::flow::Protocol;

use super::connection::{Case, End, Who};
use super::explain::reference;
use super::explanation::{Fix, NearMiss};
use super::labels;
use super::manifest::manifest;
use super::matching::{Context, Match};

/// Label that every namespace carries.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// An edited policy, not yet proved.
struct Candidate {
    policy: NetworkPolicy,
    /// Whether the policy is a new one.
    is_new: bool,
    change: String,
    /// The ports that the edit opens, as probes for what it newly admits.
    ports: Vec<(Protocol, u16)>,
    /// How large the edit is: an entry added to a list, a rule, a policy.
    size: u8,
}

/// The change with the fewest newly admitted workloads, of equals the smallest edit, of equals the one to the nearest rule.
///
/// # Errors
/// When no change helps; in words for people.
pub(super) fn smallest(context: &Context<'_>, case: &Case<'_>, direction: Direction, nearest: &[NearMiss]) -> Result<Fix, String> {
    let (subject, peer) = case.sides(direction);
    let Some(pod) = subject.pod() else { return Err("the side that policies deny is no pod".to_owned()) };
    let Some(port) = case.port.filter(|_| case.protocol.has_ports()) else {
        return Err(format!("policies cannot name {} connections without a port", case.protocol));
    };
    if matches!(peer.who, Who::Unowned) {
        return Err(format!("it is not known which pod has the address {}", peer.ip));
    }
    let new_port = PolicyPort { protocol: case.protocol, port: PortNumber::Number(port) };
    candidates(context, case, direction, nearest, pod, &new_port)
        .into_iter()
        .filter(|candidate| context.judge_with(case, direction, Some(&candidate.policy)).admits() == Some(true))
        .map(|candidate| {
            let admits = newly_admitted(context, case, direction, pod, &candidate);
            (admits, candidate)
        })
        .min_by_key(|(admits, candidate)| (admits.len(), candidate.size))
        .map(|(admits, candidate)| Fix {
            direction,
            policy: (!candidate.is_new).then(|| reference(&candidate.policy)),
            change: candidate.change,
            manifest: manifest(&candidate.policy),
            newly_admits: admits.into_iter().collect(),
        })
        .ok_or_else(|| "no single change to a policy admits it".to_owned())
}

fn candidates(
    context: &Context<'_>,
    case: &Case<'_>,
    direction: Direction,
    nearest: &[NearMiss],
    subject: &Pod,
    port: &PolicyPort,
) -> Vec<Candidate> {
    let (_, peer) = case.sides(direction);
    let list = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let mut found = Vec::new();
    let mut touched: Vec<Arc<NetworkPolicy>> = Vec::new();
    // Editing a policy that the API server refuses would not get it applied.
    let editable = |policy: &NetworkPolicy| policy.invalid.is_empty();
    for miss in nearest {
        let at = &miss.rule;
        let Some(policy) = context.index.policy(&at.policy.namespace, &at.policy.name).filter(|policy| editable(policy)) else { continue };
        let Some(rule) = policy.rules(direction).and_then(|rules| rules.get(at.index)) else { continue };
        let peer_fits = context.peers(rule, &policy.namespace, &peer) == Match::Yes;
        let port_fits = context.ports(rule, case) == Match::Yes;
        if port_fits && !peer_fits {
            let (new, shown) = peer_for(context, &peer, &policy.namespace);
            found.push(Candidate {
                policy: edited(policy, direction, at.index, |rule| rule.peers.push(new)),
                is_new: false,
                change: format!("{direction}[{}].{list} += {shown}", at.index),
                ports: probes(rule, case),
                size: 0,
            });
        }
        if peer_fits && !port_fits {
            found.push(Candidate {
                policy: edited(policy, direction, at.index, |rule| rule.ports.push(port.clone())),
                is_new: false,
                change: format!("{direction}[{}].ports += {port}", at.index),
                ports: case.port.map(|number| (case.protocol, number)).into_iter().collect(),
                size: 0,
            });
        }
    }
    touched.extend(context.isolating(subject, direction).filter(|policy| editable(policy)).cloned());
    let ports: Vec<(Protocol, u16)> = case.port.map(|number| (case.protocol, number)).into_iter().collect();
    for policy in &touched {
        let (new, shown) = peer_for(context, &peer, &policy.namespace);
        let mut changed = NetworkPolicy::clone(policy);
        let rules = match direction {
            Direction::Ingress => &mut changed.ingress,
            Direction::Egress => &mut changed.egress,
        };
        rules.get_or_insert_default().push(Rule { peers: vec![new], ports: vec![port.clone()], origin: None });
        let change = format!("{direction} += {list} {shown}, ports {port}");
        found.push(Candidate { policy: changed, is_new: false, change, ports: ports.clone(), size: 1 });
    }
    found.push(new_policy(context, case, direction, subject, port, list));
    found
}

/// A policy of its own for this connection.
fn new_policy(context: &Context<'_>, case: &Case<'_>, direction: Direction, subject: &Pod, port: &PolicyPort, list: &str) -> Candidate {
    let (_, peer) = case.sides(direction);
    let (new, shown) = peer_for(context, &peer, &subject.namespace);
    let selector = selector(&labels::identifying(subject, context.index));
    let rules = vec![Rule { peers: vec![new], ports: vec![port.clone()], origin: None }];
    let other = peer.pod().map_or("external", |pod| &pod.workload.name);
    let name = match direction {
        Direction::Ingress => format!("{}-from-{other}", subject.workload.name),
        Direction::Egress => format!("{}-to-{other}", subject.workload.name),
    };
    let change = format!("new NetworkPolicy {}/{name} for {selector}: {direction} {list} {shown}, ports {port}", subject.namespace);
    let (ingress, egress) = match direction {
        Direction::Ingress => (Some(rules), None),
        Direction::Egress => (None, Some(rules)),
    };
    let policy = NetworkPolicy {
        namespace: subject.namespace.clone(),
        name: name.into(),
        resource_version: None,
        pod_selector: selector,
        ingress,
        egress,
        invalid: Vec::new(),
        origin: None,
    };
    Candidate { policy, is_new: true, change, ports: case.port.map(|number| (case.protocol, number)).into_iter().collect(), size: 2 }
}

fn edited(policy: &NetworkPolicy, direction: Direction, index: usize, edit: impl FnOnce(&mut Rule)) -> NetworkPolicy {
    let mut changed = policy.clone();
    let rules = match direction {
        Direction::Ingress => changed.ingress.as_mut(),
        Direction::Egress => changed.egress.as_mut(),
    };
    if let Some(rule) = rules.and_then(|rules| rules.get_mut(index)) {
        edit(rule);
    }
    changed
}

/// A peer that stands for this side in a policy of `namespace`, and how people would write it.
fn peer_for(context: &Context<'_>, end: &End<'_>, namespace: &str) -> (Peer, String) {
    let Some(pod) = end.pod() else {
        let cidr = IpNet::from(end.ip);
        return (Peer::IpBlock(IpBlock { cidr, except: Vec::new() }), format!("ipBlock {cidr}"));
    };
    let pods = selector(&labels::identifying(pod, context.index));
    let mut shown = format!("podSelector {}", braces(&pods));
    let namespaces = (*pod.namespace != *namespace).then(|| {
        let name = Requirement { key: NAMESPACE_NAME.into(), operator: Operator::In(vec![pod.namespace.clone()]) };
        Selector { requirements: vec![name] }
    });
    if let Some(namespaces) = &namespaces {
        shown.push_str(&format!(" namespaceSelector {}", braces(namespaces)));
    }
    (Peer::Pods { namespace: namespaces, pod: Some(pods) }, shown)
}

/// `{app: web}`, as in YAML.
fn braces(selector: &Selector) -> String {
    let terms = selector.requirements.iter().map(|requirement| match &requirement.operator {
        Operator::In(values) => format!("{}: {}", requirement.key, values.join(",")),
        _ => requirement.to_string(),
    });
    format!("{{{}}}", terms.collect::<Vec<_>>().join(", "))
}

fn selector(labels: &Labels) -> Selector {
    let term = |(key, value): (&Arc<str>, &Arc<str>)| Requirement { key: key.clone(), operator: Operator::In(vec![value.clone()]) };
    Selector { requirements: labels.iter().map(term).collect() }
}

/// The ports of a rule to ask about: those it names by number, and the one that was called.
fn probes(rule: &Rule, case: &Case<'_>) -> Vec<(Protocol, u16)> {
    let called = case.port.map(|number| (case.protocol, number));
    let numbers = rule.ports.iter().filter_map(|port| match &port.port {
        PortNumber::Number(number) | PortNumber::Range(number, _) => Some((port.protocol, *number)),
        PortNumber::Any | PortNumber::Name(_) | PortNumber::Invalid(_) => None,
    });
    let mut probes: Vec<_> = called.into_iter().chain(numbers).collect();
    probes.sort_unstable();
    probes.dedup();
    probes
}

/// Who gains by the edit: the peers that could not reach a pod the policy selects, on one of the ports, and now can. A peer
/// is named by its workload, with the selected workload where that is another than the one of this connection.
fn newly_admitted(context: &Context<'_>, case: &Case<'_>, direction: Direction, subject: &Pod, candidate: &Candidate) -> BTreeSet<String> {
    let mut gained = BTreeSet::new();
    let (_, peer) = case.sides(direction);
    let policy = &candidate.policy;
    let selected = one_per_workload(context.index.pods_in(&policy.namespace).filter(|pod| policy.pod_selector.matches(&pod.labels)));
    let peers = one_per_workload(context.index.pods().filter(|pod| !pod.host_network));
    let ends = peers.iter().filter_map(|pod| end_of(pod)).chain(peer.pod().is_none().then_some(peer));
    for peer in ends {
        for selected in selected.iter().filter_map(|pod| end_of(pod)) {
            let (source, destination) = match direction {
                Direction::Ingress => (peer, selected),
                Direction::Egress => (selected, peer),
            };
            let gains = candidate.ports.iter().any(|&(protocol, port)| {
                let probe = Case { source, destination, protocol, port: Some(port) };
                context.judge_with(&probe, direction, Some(policy)).admits() == Some(true)
                    && context.judge(&probe, direction).admits() == Some(false)
            });
            if gains {
                let mut name = peer.pod().map_or_else(|| IpNet::from(peer.ip).to_string(), workload);
                if let Some(other) = selected.pod().map(workload).filter(|other| *other != workload(subject)) {
                    name = match direction {
                        Direction::Ingress => format!("{name} → {other}"),
                        Direction::Egress => format!("{other} → {name}"),
                    };
                }
                gained.insert(name);
            }
        }
    }
    gained
}

fn workload(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace, pod.workload.name)
}

/// Pods of one workload with the same labels and named ports are the same to every policy; one stands for all.
fn one_per_workload<'a>(pods: impl Iterator<Item = &'a Arc<Pod>>) -> Vec<&'a Pod> {
    let mut seen = std::collections::HashSet::new();
    pods.filter(|pod| seen.insert((&pod.namespace, &pod.workload, labels::lasting(pod), pod.ports.len()))).map(|pod| &**pod).collect()
}

fn end_of(pod: &Pod) -> Option<End<'_>> {
    let ip: IpAddr = *pod.ips.first()?;
    Some(End { ip, who: Who::Pod(pod) })
}
