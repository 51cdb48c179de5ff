//! The changes of the last minutes, oldest first, and the bounds on them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

use super::bytes;
use super::change::Change;
use crate::cluster::{Kind, Object, ObjectKey};

/// Addresses are given out by the cluster; nobody outside chooses them in order to make them collide.
type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// How much of the past is kept. Whichever is reached first decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For how long a change is kept: 10 minutes.
    pub keep: SignedDuration,
    /// Changes that are kept at most: 100,000.
    pub max_changes: usize,
    /// Bytes that they take at most, by the estimate of [`Status::bytes`](super::Status::bytes): 64 MiB.
    pub max_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { keep: SignedDuration::from_mins(10), max_changes: 100_000, max_bytes: 64 << 20 }
    }
}

/// What a change takes besides the objects: itself, its key (whose texts are the object's), and the slack of the queue it is in.
const PER_CHANGE: usize = 2 * size_of::<Change>();

/// What a change takes for each address of its object: the number in the address's queue, and its share of that queue.
const PER_ADDRESS: usize = 96;

#[derive(Debug)]
pub(super) struct Log {
    limits: Limits,
    /// Oldest first.
    changes: VecDeque<Change>,
    /// Number of the oldest change; they are numbered without gaps.
    first: u64,
    /// Numbers of the changes of objects that have the address, before or after; oldest first.
    by_address: Map<IpAddr, VecDeque<u64>>,
    bytes: usize,
    /// The time of the newest change that was forgotten: all later ones are here.
    horizon: Timestamp,
    expired: u64,
    pushed_out: u64,
}

impl Log {
    /// One that knows the past from now on.
    pub(super) fn new(limits: Limits, now: Timestamp) -> Self {
        Log { limits, changes: VecDeque::new(), first: 0, by_address: Map::default(), bytes: 0, horizon: now, expired: 0, pushed_out: 0 }
    }

    /// Adds a change that is no older than the last one.
    pub(super) fn push(&mut self, change: Change) {
        let number = self.next_number();
        for ip in change.addresses() {
            self.by_address.entry(ip).or_default().push_back(number);
        }
        self.bytes += cost(&change);
        self.changes.push_back(change);
        while self.changes.len() > self.limits.max_changes || self.bytes > self.limits.max_bytes {
            self.forget_oldest();
            self.pushed_out += 1;
        }
    }

    /// Forgets what is older than is to be kept.
    pub(super) fn expire(&mut self, now: Timestamp) {
        let Ok(end) = now.checked_sub(self.limits.keep) else { return };
        while self.changes.front().is_some_and(|oldest| oldest.when <= end) {
            self.forget_oldest();
            self.expired += 1;
        }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.changes.pop_front() else { return };
        // What was before its time is not known any more, whatever is left of that time itself.
        self.horizon = self.horizon.max(oldest.when);
        self.first += 1;
        self.bytes = self.bytes.saturating_sub(cost(&oldest));
        for ip in oldest.addresses() {
            let Some(numbers) = self.by_address.get_mut(&ip) else { continue };
            numbers.pop_front();
            if numbers.is_empty() {
                self.by_address.remove(&ip);
            }
        }
    }

    /// How many of the changes are of up to a time, or of up to the horizon where that is later.
    pub(super) fn place(&self, when: Timestamp) -> usize {
        self.after(when.max(self.horizon))
    }

    /// What becomes of objects on the way from one place to another, back or forth; each once.
    pub(super) fn difference(&self, from: usize, to: usize) -> Vec<(ObjectKey, Option<Object>)> {
        let between = self.changes.range(from.min(to)..from.max(to));
        let mut seen: HashSet<&ObjectKey, foldhash::fast::RandomState> = HashSet::default();
        // The last of several on the way knows what it leads to.
        if to < from {
            between.filter(|change| seen.insert(&change.key)).map(|change| (change.key.clone(), change.before.clone())).collect()
        } else {
            between.rev().filter(|change| seen.insert(&change.key)).map(|change| (change.key.clone(), change.after.clone())).collect()
        }
    }

    /// The objects of some kinds that have changes.
    pub(super) fn keys_of(&self, kinds: &[Kind]) -> HashSet<ObjectKey> {
        let of_kinds = self.changes.iter().filter(|change| kinds.contains(&change.key.kind));
        of_kinds.map(|change| change.key.clone()).collect()
    }

    /// The changes from one time to another, both included, oldest first.
    pub(super) fn between(&self, since: Timestamp, until: Timestamp) -> impl DoubleEndedIterator<Item = &Change> {
        let start = self.changes.partition_point(|change| change.when < since);
        self.changes.range(start..self.after(until).max(start))
    }

    /// The changes of objects that have the address, before or after; oldest first.
    pub(super) fn at_address(&self, ip: IpAddr) -> impl Iterator<Item = &Change> {
        let numbers = self.by_address.get(&ip).into_iter().flatten();
        numbers.filter_map(|number| self.changes.get(usize::try_from(number.checked_sub(self.first)?).ok()?))
    }

    /// Number of the next change.
    pub(super) fn next_number(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    /// The changes from a number on, oldest first.
    pub(super) fn since_number(&self, number: u64) -> impl Iterator<Item = &Change> {
        let start = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.changes.len());
        self.changes.range(start..)
    }

    /// Place of the first change after a time.
    fn after(&self, when: Timestamp) -> usize {
        self.changes.partition_point(|change| change.when <= when)
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.by_address.is_empty() && self.bytes == 0
    }

    #[cfg(test)]
    pub(super) fn addresses(&self) -> usize {
        self.by_address.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn horizon(&self) -> Timestamp {
        self.horizon
    }

    pub(super) fn expired(&self) -> u64 {
        self.expired
    }

    pub(super) fn pushed_out(&self) -> u64 {
        self.pushed_out
    }
}

/// Bytes that a change keeps from being given back. What the object became is held by the engine, or is what it was before the next
/// change, and is counted there.
fn cost(change: &Change) -> usize {
    PER_CHANGE + change.addresses().len() * PER_ADDRESS + change.before.as_ref().map_or(0, bytes::of)
}
