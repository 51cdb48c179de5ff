//! What changes to policies and to labels of namespaces do to verdicts: those of before held against those of afterwards.
//!
//! A change of that kind moves no pod from one end to another, once the ends are those that the new objects ask for. So the rows of the
//! subjects that it touches are kept from before, and where they say something else of an end than the rows of afterwards do, the
//! verdicts on connections with that end are worked out under both.

use std::collections::HashSet;
use std::sync::Arc;

use super::cell::{Cell, TierCell};
use super::rows::{Computing, PortKey, TierRow, Tiers};
use super::rules::Peers;
use super::space::{EndId, EndWho, IdentityId};
use super::{Compiled, Map, PeerKey};
use crate::cluster::{Direction, Index, Labels, Namespace, Object, Selector, Subject};
use crate::policy::connection::Profile;
use crate::policy::evaluate::selects;
use crate::policy::explanation::Verdict;

/// An object before and after; one of them at least is there, and they differ.
pub(in crate::policy) type Change = (Option<Object>, Option<Object>);

/// Keys there are: the end of the last interval.
const END: PortKey = 3 << 16;

/// What the row of a subject costs to find, as against a verdict on two ends.
const ROW: u64 = 4;

/// Ends of which a cell says something at the cost of one verdict on two ends.
const ENDS_PER_VERDICT: usize = 256;

/// How much may still be done: verdicts on pairs of ends, or what takes as long.
#[derive(Clone, Copy, Debug)]
pub(in crate::policy) struct Work(u64);

impl Work {
    pub(in crate::policy) fn new(most: u64) -> Self {
        Work(most)
    }

    /// None when it is too much.
    pub(in crate::policy) fn take(&mut self, work: u64) -> Option<()> {
        self.0 = self.0.checked_sub(work)?;
        Some(())
    }
}

/// What a verdict becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::policy) enum Becomes {
    Denied,
    Allowed,
    /// It is undecided or was.
    Undecided,
}

impl Becomes {
    fn from(before: Verdict, after: Verdict) -> Option<Self> {
        match (before, after) {
            (Verdict::Allow, Verdict::Deny) => Some(Becomes::Denied),
            (Verdict::Deny, Verdict::Allow) => Some(Becomes::Allowed),
            _ if before == after => None,
            _ => Some(Becomes::Undecided),
        }
    }
}

/// The verdict on connections between two ends that is another than before, on some ports.
#[derive(Clone, Copy, Debug)]
pub(in crate::policy) struct Turn {
    pub(in crate::policy) source: EndId,
    pub(in crate::policy) destination: EndId,
    pub(in crate::policy) from: PortKey,
    /// The first key behind.
    pub(in crate::policy) end: PortKey,
    pub(in crate::policy) becomes: Becomes,
}

/// What the tiers said for the subjects that changes touch.
#[derive(Debug)]
pub(in crate::policy) struct Before {
    subjects: Vec<IdentityId>,
    /// For egress and for ingress.
    rows: Map<IdentityId, [Tiers; 2]>,
}

/// Whom changes touch.
#[derive(Default)]
struct Touched {
    subjects: Vec<IdentityId>,
    /// Policies whose peers will not be found again as they are now.
    serials: HashSet<u32>,
}

impl Compiled {
    /// Keeps what is said before changes. The objects are those of before, and what the new ones ask for is
    /// [expected](Compiled::expect). None when that is too much work.
    pub(in crate::policy) fn before(&self, changes: &[Change], index: &Index, profile: &Profile, work: &mut Work) -> Option<Before> {
        let Touched { mut subjects, serials } = self.touched(changes, index);
        subjects.sort_unstable();
        subjects.dedup();
        subjects.retain(|identity| self.is_inhabited(*identity));
        let mut filled: Map<*const TierRow, Arc<TierRow>> = Map::default();
        let mut rows = Map::default();
        for identity in &subjects {
            let mut of = |direction| {
                work.take(ROW)?;
                let mut tiers = self.row(*identity, direction, index, profile)?.tiers().clone();
                for tier in tiers.each_mut().filter(|tier| tier.has_any(&serials)) {
                    let copy = match filled.get(&Arc::as_ptr(tier)) {
                        Some(copy) => copy.clone(),
                        None => {
                            work.take((tier.size() * (1 + self.space.len() / ENDS_PER_VERDICT)) as u64)?;
                            let copy = Arc::new(self.computing(*identity, direction, index, profile).filled(tier));
                            filled.insert(Arc::as_ptr(tier), copy.clone());
                            copy
                        }
                    };
                    *tier = copy;
                }
                Some(tiers)
            };
            rows.insert(*identity, [of(Direction::Egress)?, of(Direction::Ingress)?]);
        }
        Some(Before { subjects, rows })
    }

    /// Hands over every verdict that is another than before. The objects are those of afterwards. None when that is too much work.
    pub(in crate::policy) fn turns(&self, before: &Before, index: &Index, profile: &Profile, work: &mut Work) -> Option<Vec<Turn>> {
        let mut comparing = Comparing { compiled: self, index, profile, before, work, differing: Map::default(), turns: Vec::new() };
        for identity in &before.subjects {
            for direction in Direction::BOTH {
                comparing.subject(*identity, direction)?;
            }
        }
        Some(comparing.turns)
    }

    /// Whether any pod has the identity.
    fn is_inhabited(&self, identity: IdentityId) -> bool {
        self.inhabited(identity).next().is_some()
    }

    /// The ends of an identity at which there are pods.
    fn inhabited(&self, identity: IdentityId) -> impl Iterator<Item = EndId> {
        let has_pods = |end: &EndId| self.space.end(*end).is_some_and(|end| !end.pods.is_empty());
        self.space.ends_of(identity).iter().copied().filter(has_pods)
    }

    fn touched(&self, changes: &[Change], index: &Index) -> Touched {
        let mut touched = Touched::default();
        for change in changes {
            let (before, after) = change;
            for policy in [before, after].into_iter().flatten() {
                match policy {
                    Object::NetworkPolicy(policy) => touched.subjects.extend(self.selected(policy)),
                    Object::ClusterPolicy(policy) => touched.subjects.extend(self.subjects_of(policy, index)),
                    _ => {}
                }
            }
            let known = match before {
                Some(Object::NetworkPolicy(policy)) => {
                    self.network.get(&policy.namespace).and_then(|here| here.get(&policy.name)).map(|known| known.serial)
                }
                Some(Object::ClusterPolicy(policy)) => {
                    self.cluster.get(&(policy.tier, policy.priority, policy.name.clone(), policy.kind)).map(|known| known.serial)
                }
                _ => None,
            };
            touched.serials.extend(known);
            self.touched_by_labels(change, changes.len() > 1, index, &mut touched);
        }
        touched
    }

    /// The labels of a namespace decide which policies of the Admin and Baseline tiers have its pods as subjects, and which peers mean them.
    fn touched_by_labels(&self, (before, after): &Change, has_others: bool, index: &Index, touched: &mut Touched) {
        let Some(Object::Namespace(namespace)) = before.as_ref().or(after.as_ref()) else { return };
        let labels = |object: &Option<Object>| match object {
            Some(Object::Namespace(namespace)) => namespace.labels.clone(),
            _ => Namespace::undescribed(&namespace.name),
        };
        let (before, after): (Labels, Labels) = (labels(before), labels(after));
        let differs = |namespaces: &Selector| namespaces.matches(&before) != namespaces.matches(&after);
        let peers = self.matchers.ids(|key| matches!(key, PeerKey::Pods(namespaces, _) if differs(namespaces)));
        let names_them =
            |of: &[Box<[Peers]>; 2]| of.iter().flatten().any(|of| matches!(of, Peers::Of(ids) if ids.iter().any(|id| peers.contains(id))));
        for policy in self.network.values().flat_map(|here| here.values()).filter(|policy| names_them(&policy.peers)) {
            touched.serials.insert(policy.serial);
            touched.subjects.extend(self.selected(&policy.source));
        }
        for policy in self.cluster.values().filter(|policy| names_them(&policy.peers)) {
            touched.serials.insert(policy.serial);
            touched.subjects.extend(self.subjects_of(&policy.source, index));
        }
        // Other changes made together with this one may be policies that select them by the labels of afterwards.
        let becomes_subject = |id: &IdentityId| {
            let Some(of) = self.space.identity(*id) else { return false };
            let is_subject = |subject: &Subject| [&before, &after].map(|labels| selects(subject, labels, &of.labels));
            has_others || self.cluster.values().map(|policy| is_subject(&policy.source.subject)).any(|[before, after]| before != after)
        };
        touched.subjects.extend(self.space.identities_in(&namespace.name).iter().copied().filter(becomes_subject));
    }
}

/// One subject after the other.
struct Comparing<'a> {
    compiled: &'a Compiled,
    index: &'a Index,
    profile: &'a Profile,
    before: &'a Before,
    work: &'a mut Work,
    /// The ends of which two cells of a tier say something else.
    differing: Map<(*const TierCell, *const TierCell), Arc<[EndId]>>,
    turns: Vec<Turn>,
}

/// A direction of a subject, and the ports of an interval.
#[derive(Clone, Copy)]
struct Slot {
    direction: Direction,
    from: PortKey,
    end: PortKey,
}

/// What may come of a direction: admitted, denied.
type Possible = (bool, bool);

impl<'a> Comparing<'a> {
    /// What the tiers said, and what they say.
    fn tiers(&self, identity: IdentityId, direction: Direction) -> Option<[&'a Tiers; 2]> {
        let now = self.compiled.row(identity, direction, self.index, self.profile)?.tiers();
        let before = self.before.rows.get(&identity).map(|[egress, ingress]| match direction {
            Direction::Egress => egress,
            Direction::Ingress => ingress,
        });
        Some([before.unwrap_or(now), now])
    }

    fn computing(&self, identity: IdentityId, direction: Direction) -> Computing<'a> {
        self.compiled.computing(identity, direction, self.index, self.profile)
    }

    fn subject(&mut self, identity: IdentityId, direction: Direction) -> Option<()> {
        self.work.take(ROW)?;
        let Some([before, now]) = self.tiers(identity, direction) else { return Some(()) };
        if before.is(now) {
            return Some(());
        }
        let computing = self.computing(identity, direction);
        let own: Vec<EndId> = self.compiled.inhabited(identity).collect();
        let mut starts = before.starts();
        now.add_starts(&mut starts);
        starts.sort_unstable();
        starts.dedup();
        let ends = starts.iter().skip(1).copied().chain([END]);
        for (from, end) in starts.iter().copied().zip(ends) {
            let (Some(then), Some(now)) = (computing.cell(before, from), computing.cell(now, from)) else { continue };
            for other in self.differing(&then, &now)?.iter().copied() {
                self.work.take(1)?;
                let said = [then.possible(other), now.possible(other)];
                if said[0] != said[1] {
                    self.pairs(Slot { direction, from, end }, &own, other, said)?;
                }
            }
        }
        Some(())
    }

    /// The ends of which any tier says something else.
    fn differing(&mut self, before: &Cell<'a>, now: &Cell<'a>) -> Option<Arc<[EndId]>> {
        let len = self.compiled.space.len();
        let mut all: Option<Arc<[EndId]>> = None;
        for (then, now) in before.tiers().into_iter().zip(now.tiers()).filter(|(then, now)| !std::ptr::eq(*then, *now)) {
            let key = (std::ptr::from_ref(then), std::ptr::from_ref(now));
            let of_tier = match self.differing.get(&key) {
                Some(known) => known.clone(),
                None => {
                    self.work.take((1 + len / ENDS_PER_VERDICT) as u64)?;
                    let found: Arc<[EndId]> = then.differing(now, len).into();
                    self.differing.insert(key, found.clone());
                    found
                }
            };
            all = Some(match all {
                Some(others) if !others.is_empty() => {
                    let mut both: Vec<EndId> = others.iter().chain(of_tier.iter()).copied().collect();
                    both.sort_unstable();
                    both.dedup();
                    both.into()
                }
                _ => of_tier,
            });
        }
        Some(all.unwrap_or_default())
    }

    /// The verdicts on connections between the subject's ends and another, under what both sides said and say.
    fn pairs(&mut self, slot: Slot, own: &[EndId], other: EndId, said: [Possible; 2]) -> Option<()> {
        let space = &self.compiled.space;
        let Some(peer) = space.end(other) else { return Some(()) };
        let opposite = match slot.direction {
            Direction::Egress => Direction::Ingress,
            Direction::Ingress => Direction::Egress,
        };
        let rows = match &peer.who {
            EndWho::Pod(_) if peer.pods.is_empty() => return Some(()),
            EndWho::Pod(identity) => match self.tiers(*identity, opposite) {
                Some(tiers) => Some((tiers, self.computing(*identity, opposite))),
                None => return Some(()),
            },
            // No policies of its own.
            EndWho::Node(_) | EndWho::External => None,
        };
        let mut starts = vec![slot.from];
        if let Some(([before, now], _)) = &rows {
            before.add_starts(&mut starts);
            if !before.is(now) {
                now.add_starts(&mut starts);
            }
            starts.retain(|start| (slot.from..slot.end).contains(start));
            starts.sort_unstable();
            starts.dedup();
        }
        let is_ipv4 = space.is_ipv4(peer.class);
        for end in own.iter().copied().filter(|end| space.end(*end).is_some_and(|end| space.is_ipv4(end.class) == is_ipv4)) {
            let (source, destination) = if slot.direction == Direction::Egress { (end, other) } else { (other, end) };
            let behind = starts.iter().skip(1).copied().chain([slot.end]);
            for (from, behind) in starts.iter().copied().zip(behind) {
                self.work.take(1)?;
                let theirs = match &rows {
                    Some(([before, now], computing)) => {
                        let (Some(then), Some(now)) = (computing.cell(before, from), computing.cell(now, from)) else { continue };
                        [then.possible(end), now.possible(end)]
                    }
                    None => [(true, false); 2],
                };
                let [before, now] = [0, 1].map(|time| verdict(said[time], theirs[time]));
                if let Some(becomes) = Becomes::from(before, now) {
                    self.turns.push(Turn { source, destination, from, end: behind, becomes });
                }
            }
        }
        Some(())
    }
}

/// From what may come of both directions.
fn verdict(one: Possible, other: Possible) -> Verdict {
    match (one, other) {
        ((false, _), _) | (_, (false, _)) => Verdict::Deny,
        ((true, false), (true, false)) => Verdict::Allow,
        _ => Verdict::Undecided,
    }
}
