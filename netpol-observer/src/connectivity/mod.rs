//! Who can talk to whom, by workload: what the engine says of all pods at once, put together for people.
//!
//! Pure. The engine's [`Reachability`] knows groups of pods that no rule can tell apart; here they are workloads, nodes and ranges of addresses outside,
//! the [`Party`]s. Two parties are connected on the ports on which some pod of the one may open connections to some pod of the other.
#![forbid(unsafe_code)]

mod collect;
mod places;
mod recorded;
#[cfg(test)]
mod tests;
mod words;

pub use crate::policy::PairEnd as PartyKind;
pub use places::{Places, RecordedEnd, RecordedWorkload};
pub use recorded::{Drops, RecordedDrop, UnreadableDrops};
pub use words::{merged, port_words, range_words, workload_name};

use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::{ContainerPort, Direction, Labels, Node, Origin, Pod};
use crate::flow::Protocol;
use crate::identify;
use crate::policy::{Connection, Engine, PolicyRef, PortRange, Reachability, Ruling};

/// Who can talk to whom.
#[derive(Clone, Debug)]
pub struct Connectivity {
    parties: Vec<Party>,
    /// By caller, then by who is called.
    edges: Vec<Edge>,
    reachability: Reachability,
    /// The groups of each party.
    groups: Vec<Vec<usize>>,
}

/// One side of connections.
#[derive(Clone, Debug)]
pub struct Party {
    /// What it is.
    pub kind: PartyKind,
    /// `metadata.labels` of its first pod; empty for others than workloads.
    pub labels: Labels,
    /// Its pods, those in their node's network left out; none for others than workloads.
    pub pods: Vec<Arc<Pod>>,
    /// The ports that its containers declare.
    pub ports: Vec<ContainerPort>,
    /// The NetworkPolicies that isolate any of its pods for egress and for ingress, by name.
    pub isolated: [Vec<PolicyRef>; 2],
    /// Where the workload was read.
    pub origin: Option<Origin>,
    nodes: Vec<Arc<Node>>,
    addresses: [Option<IpAddr>; 2],
}

/// Two parties between which connections are admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Who calls: a position in [`Connectivity::parties`].
    pub from: usize,
    /// Who is called.
    pub to: usize,
    /// On which ports, for some of the pods at least.
    pub ports: Vec<PortRange>,
}

impl Connectivity {
    /// Works it out.
    pub fn of(engine: &Engine) -> Self {
        collect::collect(engine)
    }

    /// Everybody: workloads by namespace and name, nodes, the outside.
    pub fn parties(&self) -> &[Party] {
        &self.parties
    }

    /// Who can talk to whom; in the order of callers, then of who is called.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// The groups of pods of a party that no rule can tell apart, as positions: parties with the same groups are said the same of, but of a pod and itself.
    pub fn groups_of(&self, party: usize) -> &[usize] {
        self.groups.get(party).map(Vec::as_slice).unwrap_or_default()
    }

    /// The edges of one caller, in the order of who is called.
    pub fn edges_from(&self, from: usize) -> &[Edge] {
        let begin = self.edges.partition_point(|edge| edge.from < from);
        let end = self.edges.partition_point(|edge| edge.from <= from);
        self.edges.get(begin..end).unwrap_or_default()
    }

    /// The ports on which one can open connections to the other.
    pub fn ports(&self, from: usize, to: usize) -> &[PortRange] {
        let at = self.edges.binary_search_by_key(&(from, to), |edge| (edge.from, edge.to));
        at.ok().and_then(|at| self.edges.get(at)).map(|edge| edge.ports.as_slice()).unwrap_or_default()
    }

    /// Whether policies on one side admit connections on some port: egress those on the caller, ingress those on who is called.
    pub fn side_admits(&self, direction: Direction, from: usize, to: usize) -> bool {
        let groups = |party: usize| self.groups.get(party).map(Vec::as_slice).unwrap_or_default();
        groups(from)
            .iter()
            .any(|source| groups(to).iter().any(|destination| self.reachability.side_admits(direction, *source, *destination)))
    }

    /// What policies say, egress first, of a connection between the first pods of two parties for which they say `admitted`, on a port. None where there is none.
    pub fn rulings(
        &self,
        engine: &Engine,
        from: usize,
        to: usize,
        (protocol, port): (Protocol, u16),
        admitted: bool,
    ) -> Option<[Ruling; 2]> {
        let connection = self.connection(from, to, (protocol, port), admitted)?;
        engine.rulings(&connection)
    }

    /// A connection between pods of two parties that is admitted on a port, or one that is not.
    pub fn connection(&self, from: usize, to: usize, (protocol, port): (Protocol, u16), admitted: bool) -> Option<Connection> {
        let groups = |party: usize| self.groups.get(party).map(Vec::as_slice).unwrap_or_default();
        let pairs = groups(from).iter().flat_map(|source| groups(to).iter().map(move |destination| (*source, *destination)));
        for (source, destination) in pairs {
            if self.reachability.admits(source, destination, protocol, port) == admitted
                && let Some((source, destination)) = self.sides((from, source), (to, destination))
            {
                return Some(Connection { source, destination, protocol, port: Some(port), service: None });
            }
        }
        None
    }

    fn sides(&self, (from, source): (usize, usize), (to, destination): (usize, usize)) -> Option<(identify::Party, identify::Party)> {
        let destinations = self.candidates(to, destination, true);
        self.candidates(from, source, false).into_iter().find_map(|source| {
            let is_other = |destination: &&identify::Party| {
                let is_same =
                    matches!((source.identity.pod(), destination.identity.pod()), (Some(one), Some(other)) if Arc::ptr_eq(one, other));
                !is_same
                    && (source.ip.is_ipv4() == destination.ip.is_ipv4() || source.ip.is_unspecified() || destination.ip.is_unspecified())
            };
            Some((source.clone(), destinations.iter().find(is_other)?.clone()))
        })
    }

    /// Pods, nodes or an address of a party that are in a group; of many pods two, so that one can call the other.
    fn candidates(&self, party: usize, group: usize, is_called: bool) -> Vec<identify::Party> {
        let (Some(party), Some(group)) = (self.parties.get(party), self.reachability.groups().get(group)) else { return Vec::new() };
        match &party.kind {
            PartyKind::Workload { namespace, workload } => {
                let of_party = group.pods.iter().filter(|pod| pod.namespace == *namespace && pod.workload == *workload).take(2);
                let with_address = |pod: &Arc<Pod>| -> Vec<identify::Party> {
                    let ips = if pod.ips.is_empty() { vec![IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)] } else { pod.ips.clone() };
                    ips.into_iter().map(|ip| identify::Party { ip, identity: identify::Identity::Pod(pod.clone()) }).collect()
                };
                of_party.flat_map(with_address).collect()
            }
            PartyKind::Nodes => {
                let of_node = |node: &Arc<Node>| {
                    node.addresses.first().map(|ip| identify::Party { ip: *ip, identity: identify::Identity::Node(node.clone()) })
                };
                party.nodes.iter().filter_map(of_node).collect()
            }
            PartyKind::Outside(_) => {
                let address = group.addresses.get(usize::from(is_called)).copied().flatten().or(party.addresses[usize::from(is_called)]);
                let identity = |ip| if identify::is_special(ip) { identify::Identity::Special } else { identify::Identity::External };
                address.map(|ip| identify::Party { ip, identity: identity(ip) }).into_iter().collect()
            }
        }
    }
}
