//! policy.networking.k8s.io: AdminNetworkPolicy, BaselineAdminNetworkPolicy (v1alpha1), ClusterNetworkPolicy (v1alpha2).

use std::collections::BTreeSet;
use std::net::IpAddr;

use netpol_observer::policy::{BaselineScope, Profile, TiedPriorities};
use serde_json::Value;

use super::network_policy::{isolates, on_destination};
use super::objects::{
    cidr, field, inside, is_valid_selector, label, list, name_of, namespace_label, namespace_of, port_number, protocol, selected,
};
use super::{Answer, Case, EGRESS, INGRESS, Says, Side, World, any, both};

pub(super) const KINDS: [&str; 3] = ["AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy"];

/// Policies by priority, the lower number first; of each the first rule that matches. No rule: silent, for nothing is isolated.
pub(super) fn says(world: &World, case: &Case<'_>, direction: &str, pod: &Value, tier: &str, profile: &Profile) -> BTreeSet<Says> {
    let is_isolated = || {
        let policies = || world.of_kind("NetworkPolicy");
        [EGRESS, INGRESS].iter().any(|direction| policies().any(|policy| isolates(policy, pod, direction)))
    };
    if tier == "Baseline" && profile.baseline == BaselineScope::PerPod && is_isolated() {
        return BTreeSet::from([Says::Silent]);
    }
    let policies = KINDS.into_iter().flat_map(|kind| world.of_kind(kind)).filter(|policy| tier_of(policy) == Some(tier));
    let mut policies: Vec<&Value> = policies.filter(|policy| is_subject(world, policy, pod)).collect();
    policies.sort_by_key(|policy| (priority(policy), name_of(policy)));
    // Who goes first among equals is not said: each of them may.
    let groups: Vec<Vec<&Value>> = match profile.tied_priorities {
        TiedPriorities::ByName => policies.into_iter().map(|policy| vec![policy]).collect(),
        TiedPriorities::Undecided => policies.chunk_by(|one, other| priority(one) == priority(other)).map(<[&Value]>::to_vec).collect(),
    };
    let mut possible = BTreeSet::new();
    for group in groups {
        let each: Vec<BTreeSet<Says>> = group.iter().map(|policy| policy_says(world, policy, case, direction)).collect();
        let all_silent = each.iter().all(|says| says.contains(&Says::Silent));
        possible.extend(each.into_iter().flatten().filter(|says| *says != Says::Silent));
        if !all_silent {
            return possible;
        }
    }
    possible.insert(Says::Silent);
    possible
}

fn tier_of(policy: &Value) -> Option<&str> {
    match policy["kind"].as_str()? {
        "AdminNetworkPolicy" => Some("Admin"),
        // Another name is refused: there is one baseline.
        "BaselineAdminNetworkPolicy" => (name_of(policy) == "default").then_some("Baseline"),
        _ => policy["spec"]["tier"].as_str(),
    }
}

fn priority(policy: &Value) -> i64 {
    policy["spec"]["priority"].as_i64().unwrap_or(0)
}

/// Exactly one of `namespaces` and `pods`; anything refused in it selects nothing.
fn is_subject(world: &World, policy: &Value, pod: &Value) -> bool {
    let subject = &policy["spec"]["subject"];
    selects(subject, policy).is_some_and(|selects| selects(world, pod))
}

type Selects<'a> = Box<dyn Fn(&World, &Value) -> bool + 'a>;

/// What `namespaces` or `pods` select; none where they are not as the API wants them.
fn selects<'a>(wanted: &'a Value, policy: &Value) -> Option<Selects<'a>> {
    let everything = Value::Object(serde_json::Map::new());
    let (namespaces, pods) = match (field(wanted, "namespaces"), field(wanted, "pods")) {
        (Some(namespaces), None) => (Some(namespaces), None),
        (None, Some(both)) => {
            let namespaces = field(both, "namespaceSelector");
            // Only ClusterNetworkPolicies may leave it out.
            if namespaces.is_none() && policy["kind"] != "ClusterNetworkPolicy" {
                return None;
            }
            (namespaces, Some(field(both, "podSelector")?))
        }
        _ => return None,
    };
    if ![namespaces, pods].into_iter().flatten().all(is_valid_selector) {
        return None;
    }
    Some(Box::new(move |world, pod| {
        let described: Vec<&Value> = world.of_kind("Namespace").collect();
        let namespaces = namespaces.unwrap_or(&everything);
        selected(namespaces, |key| namespace_label(&described, namespace_of(pod), key))
            && pods.is_none_or(|pods| selected(pods, |key| label(pod, key)))
    }))
}

fn policy_says(world: &World, policy: &Value, case: &Case<'_>, direction: &str) -> BTreeSet<Says> {
    let mut possible = BTreeSet::new();
    for rule in list(&policy["spec"][direction]) {
        let is_alpha1 = policy["kind"] != "ClusterNetworkPolicy";
        let action = match rule["action"].as_str() {
            Some("Allow") if is_alpha1 => Says::Accept,
            Some("Accept") if !is_alpha1 => Says::Accept,
            Some("Deny") => Says::Deny,
            Some("Pass") if policy["kind"] != "BaselineAdminNetworkPolicy" => Says::Pass,
            // What was meant nobody knows.
            _ => continue,
        };
        let peers = list(&rule[if direction == EGRESS { "to" } else { "from" }]);
        // A rule without peers matches nothing.
        let peer_fits = any(peers.map(|peer| peer_matches(world, policy, peer, action, case, direction)));
        match both(peer_fits, ports_match(policy, rule, action, case, direction)) {
            Some(true) => {
                possible.insert(action);
                return possible;
            }
            None => {
                possible.insert(action);
            }
            Some(false) => {}
        }
    }
    possible.insert(Says::Silent);
    possible
}

/// What the API refuses must not admit more than was meant: it matches nothing in rules that admit, everything in the others.
fn closed(action: Says) -> Answer {
    Some(action != Says::Accept)
}

fn peer_matches(world: &World, policy: &Value, wanted: &Value, action: Says, case: &Case<'_>, direction: &str) -> Answer {
    let (ip, side) = if direction == EGRESS { case.destination } else { case.source };
    let known: &[&str] = match (direction, policy["kind"].as_str()) {
        (INGRESS, _) => &["namespaces", "pods"],
        (_, Some("BaselineAdminNetworkPolicy")) => &["namespaces", "pods", "nodes", "networks"],
        _ => &["namespaces", "pods", "nodes", "networks", "domainNames"],
    };
    let set: Vec<&str> = known.iter().copied().filter(|name| field(wanted, name).is_some()).collect();
    match set[..] {
        ["namespaces" | "pods"] => {
            let Some(selects) = selects(wanted, policy) else { return closed(action) };
            match side {
                Side::Pod(pod) => Some(selects(world, pod)),
                Side::Unowned => None,
                Side::Special | Side::Node(_) | Side::Outside => Some(false),
            }
        }
        // The addresses of the nodes, not of the pods on them.
        ["nodes"] if is_valid_selector(&wanted["nodes"]) => match side {
            Side::Node(node) => Some(selected(&wanted["nodes"], |key| label(node, key))),
            _ => Some(false),
        },
        ["networks"] => {
            let networks: Vec<_> = list(&wanted["networks"]).map(|text| text.as_str().and_then(strict_cidr)).collect();
            if networks.is_empty() || networks.contains(&None) {
                return closed(action);
            }
            Some(networks.into_iter().flatten().any(|network| inside(ip, network)))
        }
        ["domainNames"] => domain_names_match(world, wanted, action, ip, side),
        _ => closed(action),
    }
}

/// The API takes no IPv4-mapped ranges here and no superfluous zeros.
fn strict_cidr(text: &str) -> Option<(IpAddr, u32)> {
    let (ip, length) = text.split_once('/')?;
    let ip: IpAddr = ip.parse().ok()?;
    if ip.to_canonical() != ip || (length.len() > 1 && length.starts_with('0')) || length.starts_with('+') { None } else { cidr(text) }
}

/// Decided where every name is known. An unknown one may stand for any address that is nobody's in the cluster.
fn domain_names_match(world: &World, wanted: &Value, action: Says, ip: IpAddr, side: Side<'_>) -> Answer {
    let names: Vec<&str> = list(&wanted["domainNames"]).filter_map(Value::as_str).collect();
    if names.is_empty() || !names.iter().all(|name| is_domain_name(name)) {
        return closed(action);
    }
    any(names.iter().map(|name| {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let stands_for = |known: &str| match name.strip_prefix("*.") {
            // One label or more below it, and not the name itself.
            Some(apex) => known.strip_suffix(apex).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            None => known == name,
        };
        let known: Vec<&Vec<IpAddr>> = world.names.iter().filter(|(known, _)| stands_for(known)).map(|(_, ips)| ips).collect();
        if known.iter().any(|ips| ips.contains(&ip)) {
            return Some(true);
        }
        let may_be_its = matches!(side, Side::Outside | Side::Special | Side::Unowned);
        if known.is_empty() && may_be_its { None } else { Some(false) }
    }))
}

/// Two labels or more of letters, digits, `-` and `_`, perhaps `*.` before them, perhaps a final dot.
fn is_domain_name(name: &str) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    let labels: Vec<&str> = name.strip_suffix('.').unwrap_or(name).split('.').collect();
    labels.len() > 1
        && labels.iter().all(|label| {
            let is_end = |c: char| c.is_ascii_alphanumeric();
            label.starts_with(is_end) && label.ends_with(is_end) && label.chars().all(|c| is_end(c) || c == '-' || c == '_')
        })
}

fn ports_match(policy: &Value, rule: &Value, action: Says, case: &Case<'_>, direction: &str) -> Answer {
    let is_alpha1 = policy["kind"] != "ClusterNetworkPolicy";
    let Some(ports) = field(rule, if is_alpha1 { "ports" } else { "protocols" }) else { return Some(true) };
    if list(ports).next().is_none() {
        return closed(action);
    }
    // Names mean nothing for peers that are addresses.
    let is_address = |peer: &Value| {
        let of_baseline = policy["kind"] == "BaselineAdminNetworkPolicy";
        ["networks", "nodes", "domainNames"].iter().any(|name| field(peer, name).is_some() && !(of_baseline && *name == "domainNames"))
    };
    let has_addresses = direction == EGRESS && list(&rule["to"]).any(is_address);
    any(list(ports).map(|port| {
        let matches = if is_alpha1 { alpha1_port(port, case, has_addresses) } else { alpha2_port(port, case, has_addresses) };
        matches.unwrap_or_else(|| closed(action))
    }))
}

/// None where the API refuses it.
fn alpha1_port(port: &Value, case: &Case<'_>, has_addresses: bool) -> Option<Answer> {
    match (field(port, "portNumber"), field(port, "portRange"), field(port, "namedPort")) {
        (Some(number), None, None) => {
            let called = port_number(&number["port"])?;
            Some(number_matches(protocol(&number["protocol"])?, called, called, case))
        }
        (None, Some(range), None) => {
            let (start, end) = (port_number(&range["start"])?, port_number(&range["end"])?);
            (start <= end).then_some(())?;
            Some(number_matches(protocol(&range["protocol"])?, start, end, case))
        }
        (None, None, Some(name)) => named(name, case, has_addresses),
        _ => None,
    }
}

fn alpha2_port(port: &Value, case: &Case<'_>, has_addresses: bool) -> Option<Answer> {
    let set: Vec<&str> = ["tcp", "udp", "sctp", "destinationNamedPort"].into_iter().filter(|name| field(port, name).is_some()).collect();
    match set[..] {
        ["destinationNamedPort"] => named(&port["destinationNamedPort"], case, has_addresses),
        [protocol] => {
            let wanted = protocol.to_ascii_uppercase();
            let Some(destination) = field(&port[protocol], "destinationPort") else {
                return Some(Some(wanted == case.protocol.to_string()));
            };
            match (field(destination, "number"), field(destination, "range")) {
                (Some(number), None) => {
                    let number = port_number(number)?;
                    Some(number_matches(&wanted, number, number, case))
                }
                (None, Some(range)) => {
                    let (start, end) = (port_number(&range["start"])?, port_number(&range["end"])?);
                    (start < end).then_some(())?;
                    Some(number_matches(&wanted, start, end, case))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn number_matches(wanted: &str, start: u16, end: u16, case: &Case<'_>) -> Answer {
    if wanted != case.protocol.to_string() {
        return Some(false);
    }
    Some((start..=end).contains(&case.port?))
}

/// The destination pod's port of that name, whatever its protocol.
fn named(name: &Value, case: &Case<'_>, has_addresses: bool) -> Option<Answer> {
    let name = name.as_str().filter(|name| !name.is_empty() && !has_addresses)?;
    Some(on_destination(name, &case.protocol.to_string(), case))
}
