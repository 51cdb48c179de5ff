//! Who can reach whom on which ports, over the whole cluster.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Compiled;
use super::cell::Cell;
use super::rows::{Computing, PortKey, Row, TierRow, port_key, port_of};
use super::set::{Bits, Set};
use super::space::{EndId, EndWho};
use crate::cluster::{Direction, Index, Pod};
use crate::flow::Protocol;
use crate::policy::connection::Profile;

/// Who can open connections to whom, on every port of TCP, UDP and SCTP: those that are certainly admitted in both directions.
///
/// Ends that no rule can tell apart are one [`Group`]. What holds for single pods whatever the policies say is not in here: a pod may
/// always reach itself, and its own node may always reach it.
#[derive(Clone, Debug)]
pub struct Reachability {
    groups: Vec<Group>,
    /// Per destination, by the first port of intervals: the sources.
    sources: Vec<Sources>,
    /// First ports of the intervals within which nothing differs for anybody.
    starts: Vec<PortKey>,
    /// Per destination: the sources whose egress admits it on some port, and the sources that its ingress admits on some port.
    sides: [Vec<Set>; 2],
}

/// The sources of a destination, by the first port of intervals.
type Sources = Vec<(PortKey, Arc<Set>)>;

/// Ends of connections that no rule can tell apart.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they are.
    pub kind: GroupKind,
    /// The pods; none for nodes and for the outside.
    pub pods: Vec<Arc<Pod>>,
    /// For the outside: an address that is outside and can call, and one that can be called; none where there is no such address.
    pub addresses: [Option<IpAddr>; 2],
}

/// What the ends of a [`Group`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// Pods of one namespace.
    Pods,
    /// Nodes, and the pods in their network.
    Nodes,
    /// Addresses outside of the cluster: in this range, as far as no smaller one that policies name contains them; none for those in no
    /// such range.
    External(Option<IpNet>),
}

/// Ports within which nothing differs for anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The first.
    pub from: u16,
    /// The last.
    pub to: u16,
}

impl Reachability {
    /// Everybody.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// All ports, in intervals within which nothing differs for anybody.
    pub fn ports(&self) -> impl Iterator<Item = PortRange> {
        let starts = self.starts.iter().copied();
        starts.zip(self.starts.iter().copied().skip(1).chain([3 << 16])).map(|(from, end)| range(from, end))
    }

    /// The ports on which a group is reached, in intervals, with the groups that reach it: positions in [`groups`](Self::groups).
    pub fn sources_of(&self, destination: usize) -> impl Iterator<Item = (PortRange, impl Iterator<Item = usize>)> {
        let intervals = self.sources.get(destination).map(Vec::as_slice).unwrap_or_default();
        let ends = intervals.iter().skip(1).map(|(start, _)| *start).chain([3 << 16]);
        let count = self.groups.len();
        intervals.iter().zip(ends).map(move |((from, sources), end)| {
            let sources: Vec<usize> = sources.bits(count).iter().map(|group| group as usize).collect();
            (range(*from, end), sources.into_iter())
        })
    }

    /// Whether every connection from a group to another is admitted on a port. Groups are positions in [`groups`](Self::groups).
    pub fn admits(&self, source: usize, destination: usize, protocol: Protocol, port: u16) -> bool {
        let (Some(key), Some(intervals)) = (port_key(protocol, port), self.sources.get(destination)) else { return false };
        let at = intervals.partition_point(|(start, _)| *start <= key).checked_sub(1);
        let sources = at.and_then(|at| intervals.get(at)).map(|(_, sources)| sources);
        sources.is_some_and(|sources| u32::try_from(source).is_ok_and(|source| sources.contains(source)))
    }

    /// The ports on which every connection from a group to another is admitted. Groups are positions in [`groups`](Self::groups).
    pub fn ports_between(&self, source: usize, destination: usize) -> Vec<PortRange> {
        let (Ok(source), Some(intervals)) = (u32::try_from(source), self.sources.get(destination)) else { return Vec::new() };
        let ends = intervals.iter().skip(1).map(|(start, _)| *start).chain([3 << 16]);
        let admitted = intervals.iter().zip(ends).filter(|((_, sources), _)| sources.contains(source));
        port_ranges(admitted.map(|((from, _), end)| (*from, end)).collect())
    }

    /// Whether policies on one side admit connections from a group to another on some port: egress those on the source, ingress those on the destination.
    pub fn side_admits(&self, direction: Direction, source: usize, destination: usize) -> bool {
        let side = match direction {
            Direction::Egress => &self.sides[0],
            Direction::Ingress => &self.sides[1],
        };
        u32::try_from(source).is_ok_and(|source| side.get(destination).is_some_and(|sources| sources.contains(source)))
    }

    /// How many ordered pairs of different pods are admitted on a port.
    pub fn pod_pairs(&self, protocol: Protocol, port: u16) -> u64 {
        let Some(key) = port_key(protocol, port) else { return 0 };
        let size = |group: &Group| group.pods.len() as u64;
        let mut pairs = 0;
        for (to, intervals) in self.groups.iter().zip(&self.sources).filter(|(to, _)| !to.pods.is_empty()) {
            let at = intervals.partition_point(|(start, _)| *start <= key).saturating_sub(1);
            let Some((_, sources)) = intervals.get(at) else { continue };
            for source in sources.bits(self.groups.len()).iter() {
                let Some(from) = self.groups.get(source as usize) else { continue };
                let same = from.pods.iter().filter(|pod| to.pods.iter().any(|other| Arc::ptr_eq(pod, other)));
                let itself = if std::ptr::eq(from, to) {
                    size(to)
                } else if from.kind == to.kind {
                    same.count() as u64
                } else {
                    0
                };
                pairs += size(from) * size(to) - itself;
            }
        }
        pairs
    }
}

/// The ports from a key up to another, which is not among them; both of one protocol.
fn range(from: PortKey, end: PortKey) -> PortRange {
    let ((protocol, from), (_, to)) = (port_of(from), port_of(end.saturating_sub(1)));
    PortRange { protocol, from, to }
}

/// Intervals of keys as ports; port 0 is none that anybody calls.
pub(in crate::policy) fn port_ranges(mut intervals: Vec<(PortKey, PortKey)>) -> Vec<PortRange> {
    intervals.sort_unstable();
    let mut merged: Vec<(PortKey, PortKey)> = Vec::new();
    for (from, end) in intervals {
        match merged.last_mut() {
            Some((_, last)) if from <= *last => *last = end.max(*last),
            _ => merged.push((from, end)),
        }
    }
    let protocols = (0..3).map(|protocol| protocol << 16);
    let of_protocols =
        protocols.flat_map(|first| merged.iter().map(move |(from, end)| ((*from).max(first), (*end).min(first + (1 << 16)))));
    of_protocols
        .filter(|(from, end)| from < end)
        .map(|(from, end)| range(from, end))
        .map(|range| PortRange { from: range.from.max(1).min(range.to), ..range })
        .collect()
}

/// An end with its rows; nodes and the outside have none and are admitted.
struct Member<'a> {
    end: EndId,
    rows: [Option<(&'a Row, Computing<'a>)>; 2],
}

impl Compiled {
    /// Who can reach whom.
    pub(in crate::policy) fn reachability(&self, index: &Index, profile: &Profile) -> Reachability {
        let mut members = Vec::new();
        let mut groups = Vec::new();
        for (id, end) in self.ends() {
            let kind = match &end.who {
                EndWho::Pod(_) if end.pods.is_empty() => continue,
                EndWho::Pod(_) => GroupKind::Pods,
                EndWho::Node(_) => GroupKind::Nodes,
                EndWho::External => GroupKind::External(self.space.range(end.class)),
            };
            let identity = match &end.who {
                EndWho::Pod(identity) => Some(*identity),
                EndWho::Node(_) | EndWho::External => None,
            };
            let rows = Direction::BOTH.map(|direction| {
                let row = self.row(identity?, direction, index, profile)?;
                Some((row, self.computing(identity?, direction, index, profile)))
            });
            members.push(Member { end: id, rows });
            let addresses = match kind {
                GroupKind::External(_) => [false, true].map(|is_called| self.outside_address(end, is_called, index)),
                GroupKind::Pods | GroupKind::Nodes => [None, None],
            };
            groups.push(Group { kind, pods: end.pods.clone(), addresses });
        }
        let starts = starts(&members);
        let (sources, sides) = Sweep::new(&members, self.space.len()).over(&starts);
        Reachability { groups, sources, starts, sides }
    }
}

/// Every port at which something begins to differ for somebody; each protocol begins one.
fn starts(members: &[Member<'_>]) -> Vec<PortKey> {
    let mut tiers: Vec<&Arc<TierRow>> =
        members.iter().flat_map(|member| &member.rows).flatten().flat_map(|(row, _)| row.tiers().each()).collect();
    tiers.sort_unstable_by_key(|tier| Arc::as_ptr(tier));
    tiers.dedup_by(|a, b| Arc::ptr_eq(a, b));
    let mut starts: Vec<PortKey> = vec![0, 1 << 16, 2 << 16];
    starts.extend(tiers.into_iter().flat_map(|tier| tier.starts()));
    starts.sort_unstable();
    starts.dedup();
    starts
}

/// Goes over the ports from the lowest to the highest and keeps the picture of who is admitted, changing what changes.
struct Sweep<'a> {
    members: &'a [Member<'a>],
    /// Position among the members of each end.
    position: Vec<Option<u32>>,
    /// Per destination: the sources whose egress admits it.
    leaving: Vec<Bits>,
    /// Per source: its egress cell of the port before.
    egress: Vec<Option<Cell<'a>>>,
    /// Per destination: its ingress cell of the port before, and the sources in it by position.
    ingress: Vec<(Option<Cell<'a>>, Bits)>,
}

impl<'a> Sweep<'a> {
    fn new(members: &'a [Member<'a>], ends: usize) -> Self {
        let count = members.len();
        let mut position = vec![None; ends];
        for (at, member) in (0..).zip(members) {
            if let Some(slot) = position.get_mut(member.end as usize) {
                *slot = Some(at);
            }
        }
        Sweep {
            members,
            position,
            leaving: vec![Bits::none(count); count],
            egress: vec![None; count],
            ingress: vec![(None, Bits::none(count)); count],
        }
    }

    /// The sources of each destination by port, and those that either side admits on some port.
    fn over(mut self, starts: &[PortKey]) -> (Vec<Sources>, [Vec<Set>; 2]) {
        let count = self.members.len();
        let mut sides = [vec![Bits::none(count); count], vec![Bits::none(count); count]];
        let mut sources: Vec<Sources> = vec![Vec::new(); count];
        for start in starts {
            let mut is_changed = vec![start % (1 << 16) == 0; count];
            self.leave(*start, &mut is_changed);
            self.arrive(*start, &mut is_changed);
            for (to, _) in is_changed.iter().enumerate().filter(|(_, is_changed)| **is_changed) {
                let (Some((_, ingress)), Some(leaving), Some(intervals)) =
                    (self.ingress.get(to), self.leaving.get(to), sources.get_mut(to))
                else {
                    continue;
                };
                for (side, admitted) in sides.iter_mut().zip([leaving, ingress]) {
                    if let Some(side) = side.get_mut(to) {
                        side.or(admitted);
                    }
                }
                let mut admitted = leaving.clone();
                admitted.and(ingress);
                let admitted = admitted.pack();
                // Intervals do not reach over the end of a protocol.
                let is_same = start % (1 << 16) != 0 && intervals.last().is_some_and(|(_, before)| **before == admitted);
                if !is_same {
                    intervals.push((*start, Arc::new(admitted)));
                }
            }
        }
        (sources, sides.map(|side| side.iter().map(Bits::pack).collect()))
    }

    /// What sources may leave for.
    fn leave(&mut self, start: PortKey, is_changed: &mut [bool]) {
        let ends = self.position.len();
        for (from, member) in (0_u32..).zip(self.members) {
            let Some(before) = self.egress.get_mut(from as usize) else { continue };
            let is_first = start == 0;
            let cell = member.rows[0].as_ref().and_then(|(row, computing)| computing.cell(row.tiers(), start));
            if !is_first && is_same(before.as_ref(), cell.as_ref()) {
                continue;
            }
            let now = member.admitted(0, cell.as_ref(), ends);
            let then = if is_first { Bits::none(ends) } else { member.admitted(0, before.as_ref(), ends) };
            for end in now.differing(&then) {
                let Some(to) = self.position.get(end as usize).copied().flatten() else { continue };
                if let (Some(leaving), Some(changed)) = (self.leaving.get_mut(to as usize), is_changed.get_mut(to as usize)) {
                    leaving.flip(from);
                    *changed = true;
                }
            }
            *before = cell;
        }
    }

    /// Whom destinations let in.
    fn arrive(&mut self, start: PortKey, is_changed: &mut [bool]) {
        let (count, ends) = (self.members.len(), self.position.len());
        for ((member, slot), changed) in self.members.iter().zip(&mut self.ingress).zip(is_changed) {
            let cell = member.rows[1].as_ref().and_then(|(row, computing)| computing.cell(row.tiers(), start));
            if start != 0 && is_same(slot.0.as_ref(), cell.as_ref()) {
                continue;
            }
            let mut sources = Bits::none(count);
            for end in member.admitted(1, cell.as_ref(), ends).iter() {
                if let Some(from) = self.position.get(end as usize).copied().flatten() {
                    sources.insert(from);
                }
            }
            *slot = (cell, sources);
            *changed = true;
        }
    }
}

impl Member<'_> {
    /// The ends that are admitted; all where no policy speaks of the member.
    fn admitted(&self, direction: usize, cell: Option<&Cell<'_>>, ends: usize) -> Bits {
        match (self.rows.get(direction), cell) {
            (Some(Some(_)), Some(cell)) => cell.admitted(ends),
            (Some(Some(_)), None) => Bits::none(ends),
            _ => Bits::all(ends),
        }
    }
}

fn is_same(a: Option<&Cell<'_>>, b: Option<&Cell<'_>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.is(b),
        (None, None) => true,
        _ => false,
    }
}
