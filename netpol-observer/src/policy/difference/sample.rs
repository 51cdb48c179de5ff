//! One connection that stands for a pair, and what policies say of it before and after.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use super::count::{Member, Who, is_own, pods_at};
use super::{Cause, Ruling};
use crate::cluster::{Direction, Index, Node, Pod};
use crate::identify::{Identity, Party, is_special};
use crate::policy::compiled::{Compiled, PortKey, Turn, port_of};
use crate::policy::connection::{Case, Connection, Profile};
use crate::policy::engine::Engine;
use crate::policy::evaluate::View;
use crate::policy::explain;

/// A connection.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) port: PortKey,
    source: Spot,
    destination: Spot,
}

/// One side of it.
#[derive(Clone, Debug)]
enum Spot {
    Pod(Arc<Pod>, IpAddr),
    Node(Arc<Node>, IpAddr),
    Outside(IpAddr),
}

impl Spot {
    fn name(&self) -> (&str, &str, IpAddr) {
        match self {
            Spot::Pod(pod, ip) => (&pod.namespace, &pod.name, *ip),
            Spot::Node(node, ip) => ("", &node.name, *ip),
            Spot::Outside(ip) => ("", "", *ip),
        }
    }

    fn party(&self) -> Party {
        match self {
            Spot::Pod(pod, ip) => Party { ip: *ip, identity: Identity::Pod(pod.clone()) },
            Spot::Node(node, ip) => Party { ip: *ip, identity: Identity::Node(node.clone()) },
            Spot::Outside(ip) if is_special(*ip) => Party { ip: *ip, identity: Identity::Special },
            Spot::Outside(ip) => Party { ip: *ip, identity: Identity::External },
        }
    }
}

/// By port, and then by names: whichever ends are looked at first, the sample of a pair is the same.
impl Ord for Sample {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |sample: &Sample| sample.port;
        let names = |sample: &'_ Sample| -> [(String, String, IpAddr); 2] {
            [&sample.source, &sample.destination].map(|spot| {
                let (namespace, name, ip) = spot.name();
                (namespace.to_owned(), name.to_owned(), ip)
            })
        };
        key(self).cmp(&key(other)).then_with(|| names(self).cmp(&names(other)))
    }
}

impl PartialOrd for Sample {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Sample {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Sample {}

impl Sample {
    /// The first connection by name between two members whose verdict turns.
    pub(super) fn of(source: &Member, destination: &Member, turn: &Turn, engine: &Engine) -> Option<Self> {
        let spots = |end, member: &Member, is_called: usize| -> Vec<Spot> {
            let mut spots: Vec<Spot> = match &member.who {
                Who::Pods(of) => {
                    pods_at(engine, end, of).map(|pod| Spot::Pod(pod.clone(), engine.compiled().address_at(pod, end))).collect()
                }
                Who::Nodes(nodes) => nodes.iter().map(|(node, ip)| Spot::Node(node.clone(), *ip)).collect(),
                Who::Outside(addresses) => addresses[is_called].map(Spot::Outside).into_iter().collect(),
            };
            spots.sort_by(|a, b| a.name().cmp(&b.name()));
            spots
        };
        let destinations = spots(turn.destination, destination, 1);
        let calls = |source: &Spot, destination: &Spot| match (source, destination) {
            (Spot::Pod(one, _), Spot::Pod(other, _)) => !Arc::ptr_eq(one, other),
            (Spot::Node(node, ip), Spot::Pod(pod, _)) => !is_own(pod, &(node.clone(), *ip), engine.index()),
            _ => true,
        };
        spots(turn.source, source, 0).into_iter().find_map(|source| {
            let destination = destinations.iter().find(|destination| calls(&source, destination))?.clone();
            Some(Sample { port: turn.from, source, destination })
        })
    }

    /// What is said of it, in the directions in which it is not the same before and after.
    pub(super) fn causes(&self, indices: [&Index; 2], profile: &Profile) -> Vec<Cause> {
        let (protocol, port) = port_of(self.port);
        let [source, destination] = [&self.source, &self.destination].map(Spot::party);
        let connection = Connection { source, destination, protocol, port: Some(port), service: None };
        let Some(case) = Case::all(&connection, &connection.destination, connection.port).next() else { return Vec::new() };
        // What nothing is compiled of is looked for among all objects: they are those of before and of afterwards.
        let nothing = Compiled::default();
        let cause = |direction: Direction| {
            let [before, after] = indices.map(|index| {
                let view = View { index, profile, compiled: &nothing, changed: &[], gone: &[] };
                explain::ruling(&view, &case, direction, [&connection.source, &connection.destination])
            });
            (before.admits() != after.admits()).then_some(Cause { direction, before, after })
        };
        Direction::BOTH.into_iter().filter_map(cause).collect()
    }
}

impl Ruling {
    /// Whether the connection passes; none where that cannot be decided.
    fn admits(&self) -> Option<bool> {
        match self {
            Ruling::Open | Ruling::Admitted { .. } => Some(true),
            Ruling::Denied { .. } => Some(false),
            Ruling::Undecided { .. } => None,
        }
    }
}
