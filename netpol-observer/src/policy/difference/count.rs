//! From pairs of ends to pairs of workloads.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::sample::Sample;
use super::{Bounds, Pair, PairEnd, Pairs, Turned};
use crate::cluster::{Index, Node, Pod};
use crate::policy::compiled::{Becomes, Change, End, EndId, Of, PortKey, Ranges, Turn, Work, gather, port_ranges};
use crate::policy::engine::Engine;

/// Numbers and pairs of numbers; nobody outside chooses them in order to make them collide.
type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// A node under one of its addresses.
pub(super) type At = (Arc<Node>, IpAddr);

/// A side of pairs, by its place in a list.
type SideId = u32;

/// Whoever of one side is at an end.
#[derive(Debug)]
pub(super) struct Member {
    side: SideId,
    pub(super) who: Who,
}

#[derive(Debug)]
pub(super) enum Who {
    Pods(Of),
    Nodes(Vec<At>),
    /// An address that calls, and one that is called; where there is none, nobody does.
    Outside([Option<IpAddr>; 2]),
}

/// Sorts turned verdicts.
pub(super) struct Counting<'a> {
    pub(super) engine: &'a Engine,
    /// The objects before and after.
    pub(super) indices: [&'a Index; 2],
    changes: &'a [Change],
    ranges: Option<Ranges>,
    nodes: Option<Map<EndId, Vec<At>>>,
    sides: Vec<PairEnd>,
    numbers: Map<PairEnd, SideId>,
    members: Map<EndId, Arc<[Member]>>,
}

/// The pairs of one kind, by their sides; and those that are to be named.
#[derive(Default)]
struct Found {
    pairs: HashSet<(SideId, SideId), foldhash::fast::RandomState>,
    named: Map<(SideId, SideId), Named>,
}

/// What is known of a pair that is to be named.
#[derive(Default)]
struct Named {
    intervals: Vec<(PortKey, PortKey)>,
    sample: Option<Sample>,
}

/// Place in the list of kinds.
const KINDS: [Becomes; 3] = [Becomes::Denied, Becomes::Allowed, Becomes::Undecided];

impl<'a> Counting<'a> {
    pub(super) fn new(engine: &'a Engine, indices: [&'a Index; 2], changes: &'a [Change]) -> Self {
        Counting {
            engine,
            indices,
            changes,
            ranges: None,
            nodes: None,
            sides: Vec::new(),
            numbers: Map::default(),
            members: Map::default(),
        }
    }

    /// Counts and names; none when that is too much work.
    pub(super) fn count(mut self, turns: &[Turn], bounds: &Bounds, work: &mut Work) -> Option<Turned> {
        let mut found = KINDS.map(|_| Found::default());
        for turn in turns {
            let [sources, destinations] = [turn.source, turn.destination].map(|end| self.members(end));
            work.take((sources.len() * destinations.len()) as u64)?;
            for (source, destination) in both(&sources, &destinations) {
                if connects(source, destination, turn, self.engine) {
                    found[turn.becomes as usize].pairs.insert((source.side, destination.side));
                }
            }
        }
        let mut ranks: Vec<SideId> = (0..).zip(&self.sides).map(|(id, _)| id).collect();
        ranks.sort_unstable_by_key(|id| &self.sides[*id as usize]);
        let mut rank_of = vec![0_u32; ranks.len()];
        for (rank, id) in (0..).zip(&ranks) {
            rank_of[*id as usize] = rank;
        }
        let order = |(source, destination): (SideId, SideId)| {
            let is_outside = self.is_outside((source, destination));
            (is_outside, rank_of[source as usize], rank_of[destination as usize])
        };
        let mut chosen: [Vec<(SideId, SideId)>; 3] = Default::default();
        for (chosen, found) in chosen.iter_mut().zip(&mut found) {
            let mut all: Vec<(SideId, SideId)> = found.pairs.iter().copied().collect();
            if all.len() > bounds.named && bounds.named > 0 {
                all.select_nth_unstable_by_key(bounds.named - 1, |pair| order(*pair));
            }
            all.truncate(bounds.named);
            all.sort_unstable_by_key(|pair| order(*pair));
            found.named = all.iter().map(|pair| (*pair, Named::default())).collect();
            *chosen = all;
        }
        self.sample(turns, &mut found);
        let [denied, allowed, undecided] = [0, 1, 2].map(|kind| self.pairs(&mut found[kind], &chosen[kind]));
        Some(Turned { denied, allowed, undecided })
    }

    /// Finds the ports, and a connection on the first of them, of the pairs that are to be named.
    fn sample(&mut self, turns: &[Turn], found: &mut [Found; 3]) {
        for turn in turns {
            let [sources, destinations] = [turn.source, turn.destination].map(|end| self.members(end));
            for (source, destination) in both(&sources, &destinations) {
                let named = &mut found[turn.becomes as usize].named;
                let Some(named) = named.get_mut(&(source.side, destination.side)) else { continue };
                if !connects(source, destination, turn, self.engine) {
                    continue;
                }
                named.intervals.push((turn.from, turn.end));
                if named.sample.as_ref().is_none_or(|known| turn.from <= known.port) {
                    let sample = Sample::of(source, destination, turn, self.engine);
                    named.sample = named.sample.take().into_iter().chain(sample).min();
                }
            }
        }
    }

    fn pairs(&self, found: &mut Found, chosen: &[(SideId, SideId)]) -> Pairs {
        let (all, outside) = (found.pairs.len(), found.pairs.iter().filter(|pair| self.is_outside(**pair)).count());
        let named = chosen.iter().filter_map(|pair| {
            let Named { intervals, sample } = found.named.remove(pair)?;
            let [source, destination] = [pair.0, pair.1].map(|side| self.sides[side as usize].clone());
            let causes = sample.map(|sample| sample.causes(self.indices, self.engine.profile())).unwrap_or_default();
            Some(Pair { source, destination, ports: port_ranges(intervals), causes })
        });
        Pairs { workloads: (all - outside) as u64, outside: outside as u64, named: named.collect() }
    }

    fn is_outside(&self, (source, destination): (SideId, SideId)) -> bool {
        [source, destination].iter().any(|side| !matches!(self.sides[*side as usize], PairEnd::Workload { .. }))
    }

    /// Who is at an end.
    fn members(&mut self, id: EndId) -> Arc<[Member]> {
        if let Some(known) = self.members.get(&id) {
            return known.clone();
        }
        let members: Arc<[Member]> = self.find_members(id).into();
        self.members.insert(id, members.clone());
        members
    }

    fn find_members(&mut self, id: EndId) -> Vec<Member> {
        let compiled = self.engine.compiled();
        let index = self.indices[1];
        let Some(end) = compiled.end(id) else { return Vec::new() };
        if compiled.is_external(end) {
            let (before, changes) = (self.indices[0], self.changes);
            let gone = || changes.iter().filter_map(|(before, _)| before.as_ref());
            let ranges = self.ranges.get_or_insert_with(|| compiled.ranges(gone(), before));
            let range = compiled.range_at(end, ranges);
            let addresses = [false, true].map(|is_called| compiled.outside_address(end, is_called, index));
            return vec![Member { side: self.number(PairEnd::Outside(range)), who: Who::Outside(addresses) }];
        }
        if compiled.is_of_nodes(end) {
            let nodes = self.nodes.get_or_insert_with(|| nodes(self.engine)).get(&id).cloned().unwrap_or_default();
            if nodes.is_empty() {
                return Vec::new();
            }
            return vec![Member { side: self.number(PairEnd::Nodes), who: Who::Nodes(nodes) }];
        }
        let mut workloads = Vec::new();
        gather(end, |_| true, &mut workloads);
        let side = |of: &Of| PairEnd::Workload { namespace: of.pod.namespace.clone(), workload: of.pod.workload.clone() };
        workloads.into_iter().map(|of| Member { side: self.number(side(&of)), who: Who::Pods(of) }).collect()
    }

    fn number(&mut self, side: PairEnd) -> SideId {
        let next = SideId::try_from(self.sides.len()).unwrap_or(SideId::MAX);
        *self.numbers.entry(side).or_insert_with_key(|side| {
            self.sides.push(side.clone());
            next
        })
    }
}

/// The nodes at each end.
fn nodes(engine: &Engine) -> Map<EndId, Vec<At>> {
    let mut nodes: Map<EndId, Vec<At>> = Map::default();
    for node in engine.index().nodes() {
        for ip in &node.addresses {
            if let Some(end) = engine.compiled().end_of_node(node, *ip) {
                nodes.entry(end).or_default().push((node.clone(), ip.to_canonical()));
            }
        }
    }
    nodes
}

fn both<'m>(sources: &'m [Member], destinations: &'m [Member]) -> impl Iterator<Item = (&'m Member, &'m Member)> {
    sources.iter().flat_map(move |source| destinations.iter().map(move |destination| (source, destination)))
}

/// Whether there are connections of these of which policies speak.
fn connects(source: &Member, destination: &Member, turn: &Turn, engine: &Engine) -> bool {
    match (&source.who, &destination.who) {
        // A pod may always reach itself.
        (Who::Pods(one), Who::Pods(other)) => one.has_more() || other.has_more() || !Arc::ptr_eq(&one.pod, &other.pod),
        // And its own node may always reach it.
        (Who::Nodes(nodes), Who::Pods(of)) => {
            let is_called = |pod: &Arc<Pod>| nodes.iter().any(|node| !is_own(pod, node, engine.index()));
            is_called(&of.pod) || (of.has_more() && pods_at(engine, turn.destination, of).any(is_called))
        }
        (Who::Outside([calls, _]), _) => calls.is_some(),
        (_, Who::Outside([_, is_called])) => is_called.is_some(),
        (_, Who::Nodes(_)) => true,
    }
}

/// Whether it is the node that the pod runs on.
pub(super) fn is_own(pod: &Pod, (node, ip): &At, index: &Index) -> bool {
    let own = pod.node.as_deref().and_then(|name| index.node(name));
    own.is_some_and(|own| own.name == node.name || own.addresses.iter().any(|of| of.to_canonical() == *ip))
}

/// The pods of a workload at an end.
pub(super) fn pods_at<'a>(engine: &'a Engine, end: EndId, of: &'a Of) -> impl Iterator<Item = &'a Arc<Pod>> {
    let end: Option<&End> = engine.compiled().end(end);
    let pods = end.into_iter().flat_map(|end| end.pods.iter().zip(&end.workloads));
    pods.filter(|(_, workload)| **workload == of.workload).map(|(pod, _)| pod)
}
