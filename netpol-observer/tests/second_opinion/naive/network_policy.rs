//! networking.k8s.io/v1 NetworkPolicy.

use std::collections::BTreeSet;

use netpol_observer::policy::Profile;
use serde_json::Value;

use super::objects::{cidr, field, inside, label, list, named_ports, namespace_label, namespace_of, port_number, protocol, selected};
use super::{Answer, Case, EGRESS, INGRESS, Says, Side, World, any, both};

/// Silent about a pod that no policy isolates; otherwise what any rule of any policy admits is admitted, and nothing else.
pub(super) fn says(world: &World, case: &Case<'_>, direction: &str, pod: &Value, profile: &Profile) -> BTreeSet<Says> {
    let isolating: Vec<&Value> = world.of_kind("NetworkPolicy").filter(|policy| isolates(policy, pod, direction)).collect();
    if isolating.is_empty() {
        return BTreeSet::from([Says::Silent]);
    }
    let rules = isolating.iter().flat_map(|policy| list(&policy["spec"][direction]).map(move |rule| (policy, rule)));
    match any(rules.map(|(policy, rule)| admits(world, policy, rule, case, direction, profile))) {
        Some(true) => BTreeSet::from([Says::Accept]),
        Some(false) => BTreeSet::from([Says::Deny]),
        None => BTreeSet::from([Says::Accept, Says::Deny]),
    }
}

pub(super) fn isolates(policy: &Value, pod: &Value, direction: &str) -> bool {
    namespace_of(policy) == namespace_of(pod)
        && is_in_force(policy, direction)
        && selected(&policy["spec"]["podSelector"], |key| label(pod, key))
}

/// policyTypes absent or empty: Ingress always, Egress when there is a rule for it.
pub(super) fn is_in_force(policy: &Value, direction: &str) -> bool {
    let types: Vec<&str> = list(&policy["spec"]["policyTypes"]).filter_map(Value::as_str).collect();
    match direction {
        INGRESS if types.is_empty() => true,
        _ if types.is_empty() => list(&policy["spec"]["egress"]).next().is_some(),
        INGRESS => types.contains(&"Ingress"),
        _ => types.contains(&"Egress"),
    }
}

fn admits(world: &World, policy: &Value, rule: &Value, case: &Case<'_>, direction: &str, profile: &Profile) -> Answer {
    let peers = &rule[if direction == EGRESS { "to" } else { "from" }];
    // Missing or empty: everybody, and every port.
    let peer_fits = match list(peers).next() {
        None => Some(true),
        Some(_) => any(list(peers).map(|peer| peer_matches(world, policy, peer, case, direction, profile))),
    };
    let port_fits = match list(&rule["ports"]).next() {
        None => Some(true),
        Some(_) => any(list(&rule["ports"]).map(|port| port_matches(port, case))),
    };
    both(peer_fits, port_fits)
}

fn peer_matches(world: &World, policy: &Value, wanted: &Value, case: &Case<'_>, direction: &str, profile: &Profile) -> Answer {
    let (ip, side) = if direction == EGRESS { case.destination } else { case.source };
    match (field(wanted, "namespaceSelector"), field(wanted, "podSelector"), field(wanted, "ipBlock")) {
        (None, None, Some(block)) => {
            let ignored = !profile.ip_block_matches_pods && matches!(side, Side::Pod(_) | Side::Unowned);
            Some(!ignored && in_block(block, ip))
        }
        // Nothing set, or a block beside a selector: refused, and matches nothing.
        (None, None, None) | (_, _, Some(_)) => Some(false),
        (namespaces, pods, None) => {
            let pod = match side {
                Side::Pod(pod) => pod,
                Side::Unowned => return None,
                Side::Special | Side::Node(_) | Side::Outside => return Some(false),
            };
            let described: Vec<&Value> = world.of_kind("Namespace").collect();
            let right_namespace = match namespaces {
                Some(selector) => selected(selector, |key| namespace_label(&described, namespace_of(pod), key)),
                None => namespace_of(policy) == namespace_of(pod),
            };
            let right_pod = pods.is_none_or(|selector| selected(selector, |key| label(pod, key)));
            Some(right_namespace && right_pod)
        }
    }
}

/// Exceptions that are refused spoil the block.
fn in_block(block: &Value, ip: std::net::IpAddr) -> bool {
    let Some(range) = block["cidr"].as_str().and_then(cidr) else { return false };
    let mut excepted = false;
    for except in list(&block["except"]) {
        let Some(except) = except.as_str().and_then(cidr) else { return false };
        let is_strict_subset = except.1 > range.1 && inside(except.0, range);
        if !is_strict_subset {
            return false;
        }
        excepted |= inside(ip, except);
    }
    inside(ip, range) && !excepted
}

fn port_matches(port: &Value, case: &Case<'_>) -> Answer {
    let Some(wanted) = protocol(&port["protocol"]) else { return Some(false) };
    if wanted != case.protocol.to_string() {
        return Some(false);
    }
    let (from, to) = match (field(port, "port"), field(port, "endPort")) {
        (None, None) => return Some(true),
        // An end without a beginning, or with a name for one, is refused.
        (None, Some(_)) | (Some(Value::String(_)), Some(_)) => return Some(false),
        (Some(Value::String(name)), None) => return named_port_matches(name, wanted, case),
        (Some(from), None) => (port_number(from), port_number(from)),
        (Some(from), Some(to)) => (port_number(from), port_number(to)),
    };
    let (Some(from), Some(to)) = (from, to) else { return Some(false) };
    if to < from {
        return Some(false);
    }
    Some((from..=to).contains(&case.port?))
}

/// A name is looked up on the destination pod, in both directions, by name and protocol.
fn named_port_matches(name: &str, wanted: &str, case: &Case<'_>) -> Answer {
    let is_name = name.len() <= 15
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && name.chars().any(|c| c.is_ascii_lowercase())
        && !name.contains("--")
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !is_name {
        return Some(false);
    }
    on_destination(name, wanted, case)
}

/// Whether the port called is one of that name and protocol of the destination pod.
pub(super) fn on_destination(name: &str, wanted: &str, case: &Case<'_>) -> Answer {
    let pod = match case.destination.1 {
        Side::Pod(pod) => pod,
        Side::Unowned => return None,
        Side::Special | Side::Node(_) | Side::Outside => return Some(false),
    };
    let numbers = named_ports(pod, name, wanted);
    match case.port {
        _ if numbers.is_empty() => Some(false),
        Some(called) => Some(numbers.contains(&called)),
        None => None,
    }
}
