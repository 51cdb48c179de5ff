//! Named ports that stand for nothing, and ranges that stand for much.

use std::collections::BTreeMap;

use crate::cluster::{Direction, PolicyPort, PortNumber};
use crate::flow::Protocol;

use super::Sink;
use super::facts::{Facts, Group};
use super::finding::{Code, Severity};
use super::view::{Pods, PolicyView, Ports, Reach, RuleView, Scope};

/// Ports of a range from which on it is worth a note.
const MANY: u16 = 1000;

/// Named ports that a message lists.
const LISTED: usize = 6;

pub(super) fn lint(facts: &Facts<'_>, sink: &mut Sink<'_>) {
    let policies = facts.index.policies().map(|policy| (PolicyView::from(&**policy), "ports"));
    let cluster = facts.index.cluster_policies().map(|policy| {
        let of_v1alpha2 = policy.kind == crate::cluster::ClusterPolicyKind::ClusterNetworkPolicy;
        (PolicyView::from(&**policy), if of_v1alpha2 { "protocols" } else { "ports" })
    });
    for (view, list) in policies.chain(cluster) {
        for rule in &view.rules {
            for (index, port) in rule.ports.iter().enumerate() {
                let field = format!("{}.{list}[{index}]", rule.field());
                match port {
                    Ports::Port(PolicyPort { port: PortNumber::Range(from, to), .. }) if to.saturating_sub(*from) >= MANY => {
                        let message = format!("the range {from}-{to} holds {} ports", u32::from(to - from) + 1);
                        let draft = view.about.finding(Code::WidePortRange, Severity::Note, field, rule.origin);
                        draft.say(sink, message, "name the ports that are served, or leave out `port` if all of the protocol are meant");
                    }
                    Ports::Port(PolicyPort { port: PortNumber::Name(name), protocol }) => {
                        named(facts, &view, rule, &field, name, Some(*protocol), sink);
                    }
                    Ports::Named(name) => named(facts, &view, rule, &field, name, None, sink),
                    Ports::Port(_) | Ports::Invalid => {}
                }
            }
        }
    }
}

fn named(
    facts: &Facts<'_>,
    view: &PolicyView<'_>,
    rule: &RuleView<'_>,
    field: &str,
    name: &str,
    protocol: Option<Protocol>,
    sink: &mut Sink<'_>,
) {
    let has_addresses = rule.peers.iter().any(|(_, peer)| matches!(peer, Reach::Addresses { .. }));
    if rule.direction == Direction::Egress && has_addresses {
        let only = rule.peers.iter().all(|(_, peer)| matches!(peer, Reach::Addresses { .. }));
        let rest = if only { "the rule admits nothing by it" } else { "for the ipBlock peers of the rule it admits nothing" };
        let draft = view.about.finding(Code::NamedPortAddress, Severity::Error, field, rule.origin);
        let message = format!("the named port {name} is looked up on the destination pod, and an address has none: {rest}");
        draft.say(sink, message, "give the number of the port");
        if only {
            return;
        }
    }
    let groups = destinations(facts, view, rule);
    let has =
        |group: &&Group<'_>, any_protocol: bool| {
            group.pod.ports.iter().any(|port| {
                port.name.as_deref() == Some(name) && (any_protocol || protocol.is_none_or(|protocol| port.protocol == protocol))
            })
        };
    if groups.is_empty() || groups.iter().any(|group| has(group, false)) {
        return;
    }
    let whose = match rule.direction {
        Direction::Ingress => "pod that the policy selects",
        Direction::Egress => "pod that the peers match",
    };
    let wanted = protocol.map_or_else(|| format!("named {name}"), |protocol| format!("named {name} for {protocol}"));
    let message = format!("no {whose} has a port {wanted}, so that the entry matches nothing: {}", there(&groups));
    let help = if groups.iter().any(|group| has(group, true)) {
        "name and protocol must both match: set `protocol`, which is TCP when absent"
    } else {
        "give the number, or the name of the container port, which may differ from that of the Service's port"
    };
    view.about.finding(Code::NamedPortMissing, Severity::Warning, field, rule.origin).say(sink, message, help);
}

/// The pods that connections of the rule go to, as far as it selects pods.
fn destinations<'b, 'a>(facts: &'b Facts<'a>, view: &'b PolicyView<'_>, rule: &'b RuleView<'_>) -> Vec<&'b Group<'a>> {
    if rule.direction == Direction::Ingress {
        return view.subject.iter().flat_map(|pods| facts.groups(pods)).collect();
    }
    let of_peer = |(_, peer): &'b (usize, Reach<'_>)| -> Vec<&'b Group<'a>> {
        match peer {
            Reach::Any => facts.areas.values().flat_map(|area| &area.groups).collect(),
            Reach::Pods(pods) if !pods.is_invalid() => facts.groups(pods).collect(),
            _ => Vec::new(),
        }
    };
    let is_complete = |(_, peer): &(usize, Reach<'_>)| match peer {
        // A namespace whose pods are not among the manifests may well have such a port.
        Reach::Pods(Pods { scope, .. }) => {
            facts.areas(*scope).all(|area| area.has_pods()) && (facts.is_whole || matches!(scope, Scope::Own(_)))
        }
        Reach::Any => facts.is_whole,
        _ => true,
    };
    if !rule.peers.iter().all(is_complete) {
        return Vec::new();
    }
    rule.peers.iter().flat_map(of_peer).collect()
}

/// The names and numbers that are there: `they have http (8080/TCP) and metrics (9090/TCP)`.
fn there(groups: &[&Group<'_>]) -> String {
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for group in groups {
        for port in &group.pod.ports {
            let what = match &port.name {
                Some(name) => format!("{name} ({}/{})", port.port, port.protocol),
                None => format!("{}/{} without a name", port.port, port.protocol),
            };
            *names.entry(what).or_default() += group.count;
        }
    }
    let pods: usize = groups.iter().map(|group| group.count).sum();
    let (they, have, declare) = if pods == 1 { ("it", "has", "declares") } else { ("they", "have", "declare") };
    if names.is_empty() {
        return format!("{they} {declare} no container ports");
    }
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let more = names.len().saturating_sub(LISTED);
    let mut listed: Vec<String> = names.into_iter().take(LISTED).map(|(what, _)| what).collect();
    if more > 0 {
        listed.push(format!("{more} more"));
    }
    format!("{they} {have} {}", listed.join(", "))
}
