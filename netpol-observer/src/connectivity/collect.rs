//! Groups that no rule can tell apart → parties and the ports between them.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::words::merged;
use super::{Connectivity, Edge, Party, PartyKind};
use crate::cluster::{ContainerPort, Direction, Index, NetworkPolicy, Pod};
use crate::policy::{Engine, Group, GroupKind, PolicyRef, PortRange, Reachability};

/// All IPv4 addresses, and all IPv6 addresses.
const WHOLE: [IpNet; 2] =
    [IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)), IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0))];

/// Maps of numbers; nobody outside chooses them in order to make them collide.
type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

pub(super) fn collect(engine: &Engine) -> Connectivity {
    let index = engine.index();
    let reachability = engine.reachability();
    let families = families(index, &reachability);
    let mut members: BTreeMap<PartyKind, Vec<usize>> = BTreeMap::new();
    for (at, group) in reachability.groups().iter().enumerate() {
        for kind in kinds(group, families) {
            members.entry(kind).or_default().push(at);
        }
    }
    let parties: Vec<Party> = members.iter().map(|(kind, groups)| party(kind, groups, &reachability, index)).collect();
    let groups: Vec<Vec<usize>> = members.into_values().collect();
    let edges = edges(&parties, &groups, &reachability);
    Connectivity { parties, edges, reachability, groups }
}

/// Which families of addresses there are in the cluster: those of pods and those that policies name; IPv4 where pods have no addresses.
fn families(index: &Index, reachability: &Reachability) -> [bool; 2] {
    let mut families = [false; 2];
    for pod in index.pods().filter(|pod| !pod.host_network) {
        families[0] |= pod.ips.is_empty() || pod.ips.iter().any(IpAddr::is_ipv4);
        families[1] |= pod.ips.iter().any(IpAddr::is_ipv6);
    }
    for group in reachability.groups() {
        if let GroupKind::External(Some(range)) = group.kind {
            families[usize::from(range.addr().is_ipv6())] = true;
        }
    }
    families
}

/// Who is in a group.
fn kinds(group: &Group, families: [bool; 2]) -> Vec<PartyKind> {
    match group.kind {
        GroupKind::Pods => {
            let of = |pod: &Arc<Pod>| PartyKind::Workload { namespace: pod.namespace.clone(), workload: pod.workload.clone() };
            let mut kinds: Vec<PartyKind> = group.pods.iter().map(of).collect();
            kinds.sort_unstable();
            kinds.dedup();
            kinds
        }
        GroupKind::Nodes => vec![PartyKind::Nodes],
        GroupKind::External(range) => {
            let Some(address) = group.addresses.iter().flatten().next() else { return Vec::new() };
            let family = usize::from(address.is_ipv6());
            if families[family] { vec![PartyKind::Outside(range.unwrap_or(WHOLE[family]))] } else { Vec::new() }
        }
    }
}

fn party(kind: &PartyKind, groups: &[usize], reachability: &Reachability, index: &Index) -> Party {
    let of_groups = groups.iter().filter_map(|group| reachability.groups().get(*group));
    let mut pods: Vec<Arc<Pod>> = match kind {
        PartyKind::Workload { namespace, workload } => {
            let of_kind = |pod: &&Arc<Pod>| pod.namespace == *namespace && pod.workload == *workload;
            of_groups.clone().flat_map(|group| group.pods.iter().filter(of_kind)).cloned().collect()
        }
        PartyKind::Nodes | PartyKind::Outside(_) => Vec::new(),
    };
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    pods.dedup_by(|a, b| Arc::ptr_eq(a, b));
    let mut ports: Vec<ContainerPort> = pods.iter().flat_map(|pod| pod.ports.iter().cloned()).collect();
    ports.sort_by(|a, b| (a.port, a.protocol, &a.name).cmp(&(b.port, b.protocol, &b.name)));
    ports.dedup();
    Party {
        labels: pods.first().map(|pod| pod.labels.clone()).unwrap_or_default(),
        isolated: Direction::BOTH.map(|direction| isolating(&pods, direction, index)),
        origin: pods.first().and_then(|pod| pod.origin.clone()),
        nodes: if *kind == PartyKind::Nodes { index.nodes().cloned().collect() } else { Vec::new() },
        addresses: [0, 1].map(|role| of_groups.clone().find_map(|group| group.addresses.get(role).copied().flatten())),
        kind: kind.clone(),
        pods,
        ports,
    }
}

/// The policies that speak of any of the pods: NetworkPolicies, by name.
fn isolating(pods: &[Arc<Pod>], direction: Direction, index: &Index) -> Vec<PolicyRef> {
    let Some(first) = pods.first() else { return Vec::new() };
    let mut labels: Vec<_> = pods.iter().map(|pod| &pod.labels).collect();
    labels.dedup();
    let speaks =
        |policy: &&Arc<NetworkPolicy>| policy.rules(direction).is_some() && labels.iter().any(|labels| policy.pod_selector.matches(labels));
    index.policies_in(&first.namespace).filter(speaks).map(|policy| PolicyRef::of(policy)).collect()
}

fn edges(parties: &[Party], groups: &[Vec<usize>], reachability: &Reachability) -> Vec<Edge> {
    let mut of_group: Map<usize, Vec<usize>> = Map::default();
    for (party, groups) in groups.iter().enumerate() {
        for group in groups {
            of_group.entry(*group).or_default().push(party);
        }
    }
    let mut found: Map<(usize, usize), Vec<PortRange>> = Map::default();
    for (destination, called) in &of_group {
        for (range, sources) in reachability.sources_of(*destination) {
            for source in sources {
                for (from, to) in of_group.get(&source).into_iter().flatten().flat_map(|from| called.iter().map(move |to| (*from, *to))) {
                    if connects(parties, from, to, (source, *destination), reachability) {
                        found.entry((from, to)).or_default().push(range);
                    }
                }
            }
        }
    }
    let mut edges: Vec<Edge> = found.into_iter().map(|((from, to), ports)| Edge { from, to, ports: merged(ports) }).collect();
    edges.sort_unstable_by_key(|edge| (edge.from, edge.to));
    edges
}

/// Whether there are connections between the parties of which policies speak: not of a single pod to itself, and not between two that are no pods.
fn connects(parties: &[Party], from: usize, to: usize, groups: (usize, usize), reachability: &Reachability) -> bool {
    let (Some(source), Some(destination)) = (parties.get(from), parties.get(to)) else { return false };
    match (&source.kind, &destination.kind) {
        (PartyKind::Workload { namespace, workload }, PartyKind::Workload { .. }) if from == to => {
            let count = |group: usize| {
                let pods = reachability.groups().get(group).map(|group| group.pods.as_slice()).unwrap_or_default();
                pods.iter().filter(|pod| pod.namespace == *namespace && pod.workload == *workload).count()
            };
            groups.0 != groups.1 && source.pods.len() > 1 || count(groups.0) > 1
        }
        (PartyKind::Workload { .. }, PartyKind::Outside(_)) => destination.addresses[1].is_some(),
        (PartyKind::Outside(_), PartyKind::Workload { .. }) => source.addresses[0].is_some(),
        (PartyKind::Workload { .. }, _) | (_, PartyKind::Workload { .. }) => true,
        _ => false,
    }
}
