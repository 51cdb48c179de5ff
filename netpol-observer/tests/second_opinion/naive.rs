//! A second opinion: the API text, read literally over the objects as they are written. Slow, plain, and without a line of the engine or
//! of the conversion before it; what agrees with it twice is right, or wrong twice for different reasons.
//!
//! What cannot be known leaves several readings. A connection is allowed when every reading allows it, denied when every one denies
//! it, and undecided otherwise.

mod cluster_policy;
mod network_policy;
mod objects;
mod published;
mod service;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use netpol_observer::flow::Protocol;
use netpol_observer::policy::{OtherProtocols, Profile, Verdict};
use serde_json::Value;

use objects::{addresses, list, name_of, namespace_of};

/// A cluster as manifests, and the names in the DNS that are known.
#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) objects: Vec<Value>,
    pub(crate) names: BTreeMap<String, Vec<IpAddr>>,
}

/// A new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: Option<u16>,
}

/// What comes of a call, and which tiers had the last word in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Opinion {
    pub(crate) verdict: Verdict,
    pub(crate) decided_by: BTreeSet<&'static str>,
}

/// Who an address may be.
#[derive(Clone, Copy)]
enum Side<'a> {
    Pod(&'a Value),
    /// In a pod range; nobody is known to have it.
    Unowned,
    /// Multicast, loopback and the like.
    Special,
    /// Pods in the host's network are seen as their node.
    Node(&'a Value),
    Outside,
}

/// One reading of a call: who both sides are is settled.
struct Case<'a> {
    source: (IpAddr, Side<'a>),
    destination: (IpAddr, Side<'a>),
    protocol: Protocol,
    port: Option<u16>,
}

/// What a tier may say, and `Silent` where no rule of it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Says {
    Accept,
    Deny,
    Pass,
    Silent,
}

/// Yes, no, or it cannot be known.
type Answer = Option<bool>;

const INGRESS: &str = "ingress";
const EGRESS: &str = "egress";

impl World {
    fn of_kind(&self, kind: &'static str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// Of those with an address; the first by name speaks for all.
    fn node_at(&self, ip: IpAddr) -> Option<&Value> {
        let mut nodes: Vec<&Value> = self.of_kind("Node").filter(|node| node_addresses(node).contains(&ip)).collect();
        nodes.sort_by_key(|node| name_of(node));
        nodes.first().copied()
    }
}

pub(crate) fn opinion(world: &World, call: &Call, profile: &Profile) -> Opinion {
    let (source, destination) = (call.source.to_canonical(), call.destination.to_canonical());
    let targets = match service::called(world, destination, call) {
        Some(backends) => backends.into_iter().map(|(ip, port)| (ip, Some(port))).collect(),
        None => vec![(destination, call.port)],
    };
    let mut possible = BTreeSet::new();
    let mut decided_by = BTreeSet::new();
    for (ip, port) in targets {
        for source_side in sides(world, source) {
            for destination_side in sides(world, ip) {
                let case = Case { source: (source, source_side), destination: (ip, destination_side), protocol: call.protocol, port };
                let egress = one_direction(world, &case, EGRESS, profile, &mut decided_by);
                let ingress = one_direction(world, &case, INGRESS, profile, &mut decided_by);
                for out in &egress {
                    possible.extend(ingress.iter().map(|into| *out && *into));
                }
            }
        }
    }
    let verdict = match possible.iter().copied().collect::<Vec<bool>>()[..] {
        [true] => Verdict::Allow,
        [false] => Verdict::Deny,
        // Nothing behind the Service: there is nobody whose policies could be asked.
        _ => Verdict::Undecided,
    };
    Opinion { verdict, decided_by }
}

/// What may come of one direction of a call to somebody definite.
pub(crate) fn admits(world: &World, call: &Call, direction: &str, profile: &Profile) -> BTreeSet<bool> {
    let (source, destination) = (call.source.to_canonical(), call.destination.to_canonical());
    let mut possible = BTreeSet::new();
    for source_side in sides(world, source) {
        for destination_side in sides(world, destination) {
            let (source, destination) = ((source, source_side), (destination, destination_side));
            let case = Case { source, destination, protocol: call.protocol, port: call.port };
            possible.extend(one_direction(world, &case, direction, profile, &mut BTreeSet::new()));
        }
    }
    possible
}

/// All that an address may be.
fn sides(world: &World, ip: IpAddr) -> Vec<Side<'_>> {
    let pods: Vec<_> = world.of_kind("Pod").filter(|pod| holds(pod, ip)).map(Side::Pod).collect();
    if !pods.is_empty() {
        return pods;
    }
    if let Some(node) = world.node_at(ip) {
        return vec![Side::Node(node)];
    }
    if world.of_kind("Service").any(|service| service::has_address(service, ip)) {
        return vec![Side::Outside];
    }
    let only = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    };
    if only || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() {
        return vec![Side::Special];
    }
    let in_a_range = world.of_kind("Node").any(|node| {
        let many: Vec<&str> = list(&node["spec"]["podCIDRs"]).filter_map(Value::as_str).collect();
        let one = node["spec"]["podCIDR"].as_str().into_iter().collect();
        let ranges = if many.is_empty() { one } else { many };
        ranges.iter().any(|range| objects::cidr(range).is_some_and(|range| objects::inside(ip, range)))
    });
    vec![if in_a_range { Side::Unowned } else { Side::Outside }]
}

/// Terminated pods have lost their address, pods in the host's network never had one of their own.
fn holds(pod: &Value, ip: IpAddr) -> bool {
    is_active(pod) && pod["spec"]["hostNetwork"] != true && pod_ips(pod).contains(&ip)
}

fn is_active(pod: &Value) -> bool {
    !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

fn pod_ips(pod: &Value) -> Vec<IpAddr> {
    let many = addresses(list(&pod["status"]["podIPs"]).map(|entry| &entry["ip"]));
    if list(&pod["status"]["podIPs"]).next().is_some() { many } else { addresses([&pod["status"]["podIP"]]) }
}

fn node_addresses(node: &Value) -> Vec<IpAddr> {
    addresses(list(&node["status"]["addresses"]).map(|entry| &entry["address"]))
}

/// Whether a connection may pass in one direction: all answers that are possible.
fn one_direction(
    world: &World,
    case: &Case<'_>,
    direction: &str,
    profile: &Profile,
    decided_by: &mut BTreeSet<&'static str>,
) -> BTreeSet<bool> {
    let nothing_to_say = BTreeSet::from([true]);
    // Of special addresses only calls to IPv4 link-local ones are judged: cloud metadata and node-local DNS live there.
    let is_metadata = matches!(case.destination.0, IpAddr::V4(ip) if ip.is_link_local());
    if matches!(case.source.1, Side::Special) || (matches!(case.destination.1, Side::Special) && !is_metadata) {
        return nothing_to_say;
    }
    // A pod to its own address is always allowed.
    if let (Side::Pod(source), Side::Pod(destination)) = (case.source.1, case.destination.1)
        && (namespace_of(source), name_of(source)) == (namespace_of(destination), name_of(destination))
    {
        return nothing_to_say;
    }
    let subject = if direction == EGRESS { case.source.1 } else { case.destination.1 };
    let pod = match subject {
        Side::Pod(pod) => pod,
        // Whoever it is may be selected by whatever policy there is.
        Side::Unowned if speaks_of(world, direction) => {
            decided_by.insert("unowned");
            return BTreeSet::from([true, false]);
        }
        Side::Unowned | Side::Special | Side::Node(_) | Side::Outside => return nothing_to_say,
    };
    // Traffic from a pod's own node is always allowed: its kubelet probes it.
    let node = world.of_kind("Node").find(|node| pod["spec"]["nodeName"] == node["metadata"]["name"]);
    if direction == INGRESS && node.is_some_and(|node| node_addresses(node).contains(&case.source.0)) {
        return nothing_to_say;
    }
    let mut possible = BTreeSet::new();
    let mut goes_on = true;
    for tier in ["Admin", "NetworkPolicy", "Baseline"] {
        if !goes_on {
            break;
        }
        let says = match tier {
            "NetworkPolicy" => network_policy::says(world, case, direction, pod, profile),
            _ => cluster_policy::says(world, case, direction, pod, tier, profile),
        };
        possible.extend(says.contains(&Says::Accept).then_some(true));
        possible.extend(says.contains(&Says::Deny).then_some(false));
        goes_on = says.contains(&Says::Pass) || says.contains(&Says::Silent);
        if says.iter().any(|says| matches!(says, Says::Accept | Says::Deny)) {
            decided_by.insert(tier);
        }
    }
    if goes_on {
        possible.insert(true);
    }
    // Policies speak of TCP, UDP and SCTP; what a denial means for other protocols is not said.
    if !case.protocol.has_ports() && possible.contains(&false) {
        match profile.other_protocols {
            OtherProtocols::Undecided => return BTreeSet::from([true, false]),
            OtherProtocols::Admitted => return BTreeSet::from([true]),
            OtherProtocols::Denied => {}
        }
    }
    possible
}

/// Whether there is any policy that could say something about a direction.
fn speaks_of(world: &World, direction: &str) -> bool {
    let isolates = |policy: &Value| network_policy::is_in_force(policy, direction);
    let has_rules = |policy: &Value| list(&policy["spec"][direction]).next().is_some();
    world.of_kind("NetworkPolicy").any(isolates) || cluster_policy::KINDS.into_iter().any(|kind| world.of_kind(kind).any(has_rules))
}

/// No alternatives at all: nothing matches. Otherwise one is enough.
fn any(alternatives: impl IntoIterator<Item = Answer>) -> Answer {
    let answers: Vec<Answer> = alternatives.into_iter().collect();
    match () {
        () if answers.contains(&Some(true)) => Some(true),
        () if answers.contains(&None) => None,
        () => Some(false),
    }
}

fn both(one: Answer, other: Answer) -> Answer {
    match (one, other) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

/// As manifests, one a line: what failed can be read and tried.
impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.objects.iter().try_for_each(|object| writeln!(f, "---\n{object}"))?;
        writeln!(f, "# names: {:?}", self.names)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Call { source, destination, protocol, port } = self;
        write!(f, "{source} -> {destination} {protocol} {port:?}")
    }
}
