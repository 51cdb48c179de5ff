//! The cluster as it was at a moment.
//!
//! A [`Timeline`] owns the engine over the objects of now, and the changes of the last minutes. A drop is explained by the pods and
//! policies of its moment: what changed since is taken back, the question is asked, and what changed is put in place again. Times are the
//! caller's; no clock is read here.
//!
//! What is not known is said: [`Timeline::horizon`] is the time from which on the past is known, and what is asked of an earlier one is
//! answered as of the horizon and marked as not exact.
#![forbid(unsafe_code)]

mod bytes;
mod change;
mod log;
mod look_back;
mod owners;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::cluster::{Index, Kind, Object, ObjectKey};
use crate::policy::{Engine, Profile};

pub use change::{Change, ChangeKind};
pub use log::Limits;
pub use look_back::LookBack;
pub use owners::{Holder, Owner};

use log::Log;
use look_back::{is_many, put, rebuilt};

/// How far what a watch reports may lie behind what happened, in most clusters: who had an address is certain only so far.
pub const WATCH_LAG: SignedDuration = SignedDuration::from_secs(2);

/// The engine over the objects of now, and what they were in the last minutes.
#[derive(Debug)]
pub struct Timeline {
    engine: Engine,
    log: Log,
    /// Kinds of which there was a list.
    listed: BTreeSet<Kind>,
    /// When a kind was listed for the first time, last. Of the time before it is not known which objects of that kind there were.
    listed_at: Timestamp,
    /// The newest time that was told.
    last: Timestamp,
}

/// An answer about a time in the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past<R> {
    /// The answer.
    pub value: R,
    /// Whether the time is one of which all is known. Otherwise the answer is that of the [horizon](Timeline::horizon).
    pub exact: bool,
}

/// How much of the past is kept, and what is not kept any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// From when on the past is known.
    pub horizon: Timestamp,
    /// Changes that are kept.
    pub changes: usize,
    /// Bytes that they take, by an estimate that is too high rather than too low: every text and list of a former object counts as an
    /// allocation of its own, whether other objects share it or not.
    pub bytes: usize,
    /// Changes that became older than is to be kept.
    pub expired: u64,
    /// Changes that were forgotten earlier, because there were too many or they took too many bytes.
    pub pushed_out: u64,
}

impl Timeline {
    /// No objects yet; they come by [`reset`](Timeline::reset) and [`apply`](Timeline::apply), not before `now`.
    pub fn new(profile: Profile, limits: Limits, now: Timestamp) -> Self {
        Timeline { engine: Engine::new(profile), log: Log::new(limits, now), listed: BTreeSet::new(), listed_at: now, last: now }
    }

    /// The objects of now.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// From when on the past is known: no later change was forgotten, and every kind that is listed was listed by then.
    pub fn horizon(&self) -> Timestamp {
        self.log.horizon().max(self.listed_at)
    }

    /// How much of the past is kept.
    pub fn status(&self) -> Status {
        Status {
            horizon: self.horizon(),
            changes: self.log.len(),
            bytes: self.log.bytes(),
            expired: self.log.expired(),
            pushed_out: self.log.pushed_out(),
        }
    }

    /// An object came or changed. Returns whether it is different from before; otherwise there is nothing to remember. A time earlier
    /// than that of the last change is taken for the same.
    pub fn apply(&mut self, at: Timestamp, object: impl Into<Object>) -> bool {
        let object = object.into();
        self.change(at, object.key(), Some(object))
    }

    /// An object went. Returns whether it was there.
    pub fn delete(&mut self, at: Timestamp, key: &ObjectKey) -> bool {
        self.change(at, key.clone(), None)
    }

    /// These are all objects of these kinds, as a list of them says at the start and after a watch was interrupted; of several with one
    /// name the last counts. Those of other kinds are [applied](Timeline::apply). Returns how many objects came, changed or went.
    ///
    /// Only real changes are remembered. The objects of a kind's first list have been there already for an unknown time: they are no
    /// changes, and the horizon moves up to `at`; what is remembered of other kinds stays.
    pub fn reset(&mut self, at: Timestamp, kinds: &[Kind], objects: impl IntoIterator<Item = Object>) -> usize {
        let at = self.moment(at);
        let wanted: BTreeMap<ObjectKey, Object> = objects.into_iter().map(|object| (object.key(), object)).collect();
        let gone = kinds.iter().flat_map(|kind| self.keys(*kind)).filter(|key| !wanted.contains_key(key));
        let mut changes: Vec<(ObjectKey, Option<Object>)> = gone.map(|key| (key, None)).collect();
        let index = self.engine.index();
        let differing = wanted.into_iter().filter(|(key, object)| index.object(key).as_ref() != Some(object));
        changes.extend(differing.map(|(key, object)| (key, Some(object))));

        let before: Vec<_> = changes.iter().map(|(key, _)| (key.clone(), index.object(key))).collect();
        if is_many(changes.len(), index) {
            self.engine = rebuilt(&self.engine, changes);
        } else {
            changes.into_iter().for_each(|(key, object)| put(&mut self.engine, &key, object));
        }
        let count = before.len();
        let first: Vec<Kind> = kinds.iter().copied().filter(|kind| !self.listed.contains(kind)).collect();
        // What was told before the list is known to have changed.
        let told = self.log.keys_of(&first);
        for (key, before) in before {
            let is_news = before.is_some() || told.contains(&key) || !first.contains(&key.kind);
            self.settled(at, key, before, is_news);
        }
        for kind in kinds {
            if self.listed.insert(*kind) {
                self.listed_at = at;
            }
        }
        count
    }

    /// Of a kind that was listed before: these objects are new or otherwise, those that are the same are as they were, and all others are gone. Returns how
    /// many came, changed or went.
    pub fn relist(
        &mut self,
        at: Timestamp,
        kind: Kind,
        changed: impl IntoIterator<Item = Object>,
        is_same: impl Fn(&ObjectKey) -> bool,
    ) -> usize {
        let changed: BTreeMap<ObjectKey, Object> = changed.into_iter().map(|object| (object.key(), object)).collect();
        let gone: Vec<ObjectKey> = self.keys(kind).into_iter().filter(|key| !is_same(key) && !changed.contains_key(key)).collect();
        let went = gone.iter().filter(|key| self.delete(at, key)).count();
        went + changed.into_values().filter(|object| self.apply(at, object.clone())).count()
    }

    /// Forgets changes that are older than is to be kept. Every change does that too; this is for a cluster in which nothing changes.
    pub fn expire(&mut self, now: Timestamp) {
        self.moment(now);
    }

    /// Asks about the time `when`, with the engine as it was then: after all changes of up to that time, those at the time included.
    ///
    /// Where nothing has changed since, which is the common case, that is the engine of now. Otherwise the time grows with the number of
    /// objects that changed since. After it, and after a panic of `read`, the engine is again that of now. For several times in a row
    /// [`look_back`](Timeline::look_back) is quicker.
    pub fn at<R>(&mut self, when: Timestamp, read: impl FnOnce(&Engine) -> R) -> Past<R> {
        let mut look_back = self.look_back();
        let Past { value: engine, exact } = look_back.at(when);
        Past { value: read(engine), exact }
    }

    /// Asks about several times, best in their order.
    pub fn look_back(&mut self) -> LookBack<'_> {
        LookBack::new(self)
    }

    /// Who had the address at some time from `from` to `to`, both included, in the order in which they got it; several may have had it at
    /// once. Around the time of a drop, `from` and `to` lie apart by what a watch may be late ([`WATCH_LAG`]) in both directions: whoever is
    /// named had the address then or may have had it. Before the horizon the answer is that of the horizon.
    pub fn owners(&self, ip: IpAddr, from: Timestamp, to: Timestamp) -> Vec<Owner> {
        owners::owners(&self.log, owners::holders(self.engine.index(), ip.to_canonical()), ip, from, to)
    }

    /// The changes from `since` to `until`, both included, that the filter takes, newest first. There may have been more before the
    /// horizon.
    pub fn changes(&self, since: Timestamp, until: Timestamp, filter: impl Fn(&Change) -> bool) -> impl Iterator<Item = &Change> {
        self.log.between(since, until).rev().filter(move |change| filter(change))
    }

    /// Number of the next change. Changes are numbered in their order, without gaps, so that a reader can ask for what is
    /// [new](Timeline::changes_from) to it.
    pub fn next_change(&self) -> u64 {
        self.log.next_number()
    }

    /// The changes from a number on that are still kept, oldest first.
    pub fn changes_from(&self, number: u64) -> impl Iterator<Item = &Change> {
        self.log.since_number(number)
    }

    /// When a kind was listed for the first time, last. What is asked about an earlier time is not known, whatever is kept.
    pub fn listed_at(&self) -> Timestamp {
        self.listed_at
    }

    /// An object came, changed or went, as with [`apply`](Timeline::apply) and [`delete`](Timeline::delete); `make` makes it in the engine,
    /// and is not called when it is not different from before. Returns what that returns, with the time of the change.
    pub(crate) fn change_by<R>(
        &mut self,
        at: Timestamp,
        key: ObjectKey,
        object: Option<Object>,
        make: impl FnOnce(&mut Engine, &ObjectKey, Option<Object>) -> R,
    ) -> Option<(Timestamp, R)> {
        let at = self.moment(at);
        let before = self.engine.index().object(&key);
        if before == object {
            return None;
        }
        let made = make(&mut self.engine, &key, object);
        self.settled(at, key, before, true);
        Some((at, made))
    }

    /// The newest time that was told.
    pub(crate) fn last(&self) -> Timestamp {
        self.last
    }

    /// How many kinds there was a list of.
    pub fn listed_kinds(&self) -> usize {
        self.listed.len()
    }

    /// Whether there was a list of the kind: all that is there is known.
    pub fn is_listed(&self, kind: Kind) -> bool {
        self.listed.contains(&kind)
    }

    fn change(&mut self, at: Timestamp, key: ObjectKey, object: Option<Object>) -> bool {
        self.change_by(at, key, object, put).is_some()
    }

    /// The time moves on, and never back.
    fn moment(&mut self, at: Timestamp) -> Timestamp {
        self.last = self.last.max(at);
        self.log.expire(self.last);
        self.last
    }

    /// The engine has what the object became.
    fn settled(&mut self, when: Timestamp, key: ObjectKey, before: Option<Object>, is_news: bool) {
        // From the index, not what was told: the index may have made it share its texts with others.
        let after = self.engine.index().object(&key);
        if is_news {
            self.log.push(Change { when, key, before, after });
        }
    }

    /// The objects of a kind that are there now.
    pub(crate) fn keys(&self, kind: Kind) -> Vec<ObjectKey> {
        let index = self.engine.index();
        match kind {
            Kind::Namespace => keys(index.namespaces()),
            Kind::Node => keys(index.nodes()),
            Kind::Pod => keys(index.pods()),
            Kind::Service => keys(index.services()),
            Kind::EndpointSlice => keys(index.endpoint_slices()),
            Kind::NetworkPolicy => keys(index.policies()),
            Kind::AdminNetworkPolicy | Kind::BaselineAdminNetworkPolicy | Kind::ClusterNetworkPolicy => cluster_policies(index, kind),
            Kind::DomainName => keys(index.domain_names()),
        }
    }
}

fn keys<'a, T: Clone + Into<Object> + 'a>(objects: impl Iterator<Item = &'a T>) -> Vec<ObjectKey> {
    objects.map(|object| object.clone().into().key()).collect()
}

fn cluster_policies(index: &Index, kind: Kind) -> Vec<ObjectKey> {
    keys(index.cluster_policies().filter(|policy| Some(policy.kind) == kind.cluster_policy()))
}
