//! Pairs of parties, before and after.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::ports::minus;
use super::{Comparison, MAX_EXPLAINED};
use crate::cluster::Direction;
use crate::connectivity::{Connectivity, PartyKind};
use crate::policy::{Cause, Engine, Pair, PortRange, Ruling};

/// The parties of both sides, with their places in each.
pub(super) struct Parties(BTreeMap<PartyKind, [Option<usize>; 2]>);

impl Parties {
    pub(super) fn of(sides: [&Connectivity; 2]) -> Self {
        let mut kinds: BTreeSet<&PartyKind> = sides.iter().flat_map(|side| side.parties()).map(|party| &party.kind).collect();
        let ranges: Vec<IpNet> = kinds.iter().filter_map(|kind| range(kind)).collect();
        kinds.retain(|kind| range(kind).is_none_or(|range| !is_covered(range, &ranges)));
        let places = sides.map(Places::of);
        let parties = kinds.into_iter().map(|kind| (kind.clone(), [places[0].find(kind), places[1].find(kind)]));
        Parties(parties.collect())
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (&PartyKind, [Option<usize>; 2])> {
        self.0.iter().map(|(kind, places)| (kind, *places))
    }
}

/// The range of a party outside.
fn range(kind: &PartyKind) -> Option<IpNet> {
    match kind {
        PartyKind::Outside(range) => Some(*range),
        PartyKind::Workload { .. } | PartyKind::Nodes => None,
    }
}

/// Whether each address of a range is in a smaller one of the ranges: then it is nobody who is not told apart further.
fn is_covered(range: IpNet, ranges: &[IpNet]) -> bool {
    let smaller = ranges.iter().filter(|other| **other != range && range.contains(*other)).copied().collect();
    IpNet::aggregate(&smaller).contains(&range)
}

/// Where parties are on one side.
struct Places<'a>(BTreeMap<&'a PartyKind, usize>);

impl<'a> Places<'a> {
    fn of(side: &'a Connectivity) -> Self {
        Places(side.parties().iter().enumerate().map(|(at, party)| (&party.kind, at)).collect())
    }

    /// A range that is not told apart here is a part of the next larger one that is.
    fn find(&self, kind: &PartyKind) -> Option<usize> {
        match (self.0.get(kind), kind) {
            (Some(at), _) => Some(*at),
            (None, PartyKind::Outside(range)) => {
                std::iter::successors(range.supernet(), IpNet::supernet).find_map(|range| self.0.get(&PartyKind::Outside(range)).copied())
            }
            (None, _) => None,
        }
    }
}

pub(super) fn compare(engines: [&Engine; 2], sides: [&Connectivity; 2], parties: &Parties, comparison: &mut Comparison) {
    let both = |places: [Option<usize>; 2]| places[0].zip(places[1]);
    let there: Vec<(&PartyKind, (usize, usize))> = parties.each().filter_map(|(kind, places)| Some((kind, both(places)?))).collect();
    for (from, sources) in &there {
        // Most pairs are not connected: those that are, by who is called.
        let edges = [(sides[0], sources.0), (sides[1], sources.1)].map(|(side, from)| {
            let mut ports: Vec<&[PortRange]> = vec![&[]; side.parties().len()];
            for edge in side.edges_from(from) {
                if let Some(place) = ports.get_mut(edge.to) {
                    *place = &edge.ports;
                }
            }
            ports
        });
        for (to, destinations) in &there {
            let [before, after] = [(0, destinations.0), (1, destinations.1)]
                .map(|(side, to): (usize, usize)| edges[side].get(to).copied().unwrap_or_default());
            if before == after {
                continue;
            }
            for (ports, were_admitted) in [(minus(before, after), true), (minus(after, before), false)] {
                if !ports.is_empty() {
                    let pair = Turned { engines, sides, from: (from, *sources), to: (to, *destinations), were_admitted };
                    pair.changes(&ports, comparison);
                }
            }
        }
    }
}

/// Two parties whose connections are decided otherwise.
struct Turned<'a> {
    engines: [&'a Engine; 2],
    sides: [&'a Connectivity; 2],
    from: (&'a PartyKind, (usize, usize)),
    to: (&'a PartyKind, (usize, usize)),
    were_admitted: bool,
}

impl Turned<'_> {
    /// A change for all ports with the same causes.
    fn changes(&self, ports: &[PortRange], comparison: &mut Comparison) {
        let mut changes: Vec<Pair> = Vec::new();
        let known = if self.were_admitted { &comparison.denied } else { &comparison.allowed };
        let explains = known.len() + comparison.undecided.len() < MAX_EXPLAINED;
        for range in ports {
            let causes = if explains { self.causes(range) } else { Vec::new() };
            match changes.iter_mut().find(|change| change.causes == causes) {
                Some(change) => change.ports.push(*range),
                None => changes.push(Pair { source: self.from.0.clone(), destination: self.to.0.clone(), ports: vec![*range], causes }),
            }
        }
        let is_open = |change: &Pair| {
            let mut rulings = change.causes.iter().flat_map(|cause| [&cause.before, &cause.after]);
            rulings.any(|ruling| matches!(ruling, Ruling::Undecided { .. }))
        };
        for change in changes {
            match (is_open(&change), self.were_admitted) {
                (true, _) => comparison.undecided.push(change),
                (false, true) => comparison.denied.push(change),
                (false, false) => comparison.allowed.push(change),
            }
        }
    }

    /// What is said on the first of the ports in the directions in which it is not the same.
    fn causes(&self, range: &PortRange) -> Vec<Cause> {
        let at = (range.protocol, range.from);
        // Where the pods of a workload differ it is one of those whose connections turned.
        let before = self.sides[0].rulings(self.engines[0], self.from.1.0, self.to.1.0, at, self.were_admitted);
        let after = self.sides[1].rulings(self.engines[1], self.from.1.1, self.to.1.1, at, !self.were_admitted);
        let (Some(before), Some(after)) = (before, after) else { return Vec::new() };
        let causes = Direction::BOTH.into_iter().zip(before.into_iter().zip(after)).map(|(direction, (before, after))| Cause {
            direction,
            before,
            after,
        });
        causes.filter(|cause| admits(&cause.before) != admits(&cause.after)).collect()
    }
}

/// Whether the connection passes; none where that cannot be decided.
fn admits(ruling: &Ruling) -> Option<bool> {
    match ruling {
        Ruling::Open | Ruling::Admitted { .. } => Some(true),
        Ruling::Denied { .. } => Some(false),
        Ruling::Undecided { .. } => None,
    }
}
