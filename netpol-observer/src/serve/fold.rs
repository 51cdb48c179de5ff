//! Folds repeats: the first drop is shown, the next ones become a count.
//!
//! The kernel folds too, under a key that user space cannot change (`FoldKey`). Here two drops are the same only if people
//! would call them so: the same kernel key, the same ends, the same cause. Memory is bounded, and a key that has to go
//! gives its count away first, so that no drop is lost.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::Route;
use crate::diagnose::Denial;
use crate::flow::FoldId;

/// What makes two drops the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// What the kernel folds under.
    pub id: FoldId,
    /// A hash of what else has to agree: the ends by name, the Service, the cause and the policies to blame.
    pub same: u64,
}

/// What becomes of the drops of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// The first is shown in full, the others in summaries.
    Shown,
    /// The filters leave it out.
    FilteredOut,
    /// Before `--since`.
    Earlier,
    /// Touches nothing in the index.
    Elsewhere,
    /// Not the loss of a new connection.
    Noise,
}

/// Bounds of a [`Fold`].
#[derive(Clone, Copy, Debug)]
pub struct FoldOptions {
    /// At least this long between two summaries of a key.
    pub interval: SignedDuration,
    /// A record of a key that was not seen for longer than this is shown in full again.
    pub idle: SignedDuration,
    /// Keys kept.
    pub capacity: usize,
}

impl Default for FoldOptions {
    fn default() -> Self {
        FoldOptions { interval: SignedDuration::from_secs(5), idle: SignedDuration::from_secs(60), capacity: 65_536 }
    }
}

/// Repeats of a drop, ready to be shown.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Of which key.
    pub key: Key,
    /// From whom to whom.
    pub route: Arc<Route>,
    /// Drops in this summary.
    pub count: u64,
    /// Drops of the key so far, the one shown in full among them.
    pub total: u64,
    /// Time of the first drop of the key.
    pub first: Timestamp,
    /// Time of the last drop before this summary's.
    pub since: Timestamp,
    /// Time of the last drop in it.
    pub last: Timestamp,
}

/// What [`Fold::record`] and [`Fold::repeat`] made of drops.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The drop is to be shown in full.
    pub first: bool,
    /// The fate of the key; absent for repeats of an unknown key.
    pub fate: Option<Fate>,
    /// A denial held back as [`Fate::Earlier`] that turned out to go on: to be shown now, before its summary.
    pub revived: Option<Arc<Denial>>,
    /// Repeats that had to be given away: those of a key pushed out, or from before a long silence.
    pub flushed: Option<Summary>,
}

struct Entry {
    fate: Fate,
    route: Arc<Route>,
    held: Option<Arc<Denial>>,
    first: Timestamp,
    /// Last drop that a printed line covers.
    since: Timestamp,
    last: Timestamp,
    pending: u64,
    total: u64,
    /// When the last line was printed, by the caller's clock.
    printed: Timestamp,
    recency: u64,
}

impl Entry {
    fn take_summary(&mut self, key: Key) -> Option<Summary> {
        if self.pending == 0 {
            return None;
        }
        let summary = Summary {
            key,
            route: Arc::clone(&self.route),
            count: self.pending,
            total: self.total,
            first: self.first,
            since: self.since,
            last: self.last,
        };
        self.pending = 0;
        self.since = self.last;
        Some(summary)
    }
}

/// The table of keys.
pub struct Fold {
    options: FoldOptions,
    entries: HashMap<Key, Entry>,
    /// Under which key the kernel's repeats go: that of the last record with this id.
    latest: HashMap<FoldId, Key>,
    by_recency: BTreeMap<u64, Key>,
    due: BTreeSet<(Timestamp, Key)>,
    recency: u64,
}

impl Fold {
    /// An empty table.
    pub fn new(options: FoldOptions) -> Self {
        Fold {
            options: FoldOptions { capacity: options.capacity.max(1), ..options },
            entries: HashMap::new(),
            latest: HashMap::new(),
            by_recency: BTreeMap::new(),
            due: BTreeSet::new(),
            recency: 0,
        }
    }

    /// Takes a drop that came as a record; `now` is the caller's clock.
    pub fn record(&mut self, key: Key, fate: Fate, denial: &Arc<Denial>, now: Timestamp) -> Seen {
        let time = denial.event.time;
        self.latest.insert(key.id, key);
        let recency = self.next_recency(key);
        match self.entries.entry(key) {
            MapEntry::Occupied(mut occupied) => {
                let entry = occupied.get_mut();
                self.by_recency.remove(&entry.recency);
                entry.recency = recency;
                let goes_on = time.duration_since(entry.last) <= self.options.idle;
                // One that began before `--since` is shown in full once it is inside.
                let held_until_now = entry.fate == Fate::Earlier && fate == Fate::Shown;
                if goes_on && !held_until_now {
                    entry.last = entry.last.max(time);
                    entry.total += 1;
                    if fate == Fate::Shown {
                        entry.pending += 1;
                        self.due.insert((due_at(entry.printed, self.options.interval), key));
                    }
                    return Seen { first: false, fate: Some(fate), ..Seen::default() };
                }
                self.due.remove(&(due_at(entry.printed, self.options.interval), key));
                let flushed = entry.take_summary(key);
                *entry = new_entry(fate, denial, now, recency);
                Seen { first: true, fate: Some(fate), flushed, revived: None }
            }
            MapEntry::Vacant(vacant) => {
                vacant.insert(new_entry(fate, denial, now, recency));
                let flushed = if self.entries.len() > self.options.capacity { self.evict_oldest() } else { None };
                Seen { first: true, fate: Some(fate), flushed, revived: None }
            }
        }
    }

    /// Takes `count` drops that the kernel counted under `id`, the last of them at `last`.
    ///
    /// A key held back as [`Fate::Earlier`] is shown after all when its drops go on at or after `since`.
    pub fn repeat(&mut self, id: FoldId, count: u64, last: Timestamp, now: Timestamp, since: Option<Timestamp>) -> Seen {
        let Some(key) = self.latest.get(&id).copied() else {
            return Seen::default();
        };
        let recency = self.next_recency(key);
        let Some(entry) = self.entries.get_mut(&key) else {
            return Seen::default();
        };
        self.by_recency.remove(&entry.recency);
        entry.recency = recency;
        entry.last = entry.last.max(last);
        entry.total += count;
        let mut revived = None;
        if entry.fate == Fate::Earlier && since.is_some_and(|since| last >= since) {
            revived = entry.held.take();
            entry.fate = Fate::Shown;
            entry.printed = now;
        }
        if entry.fate == Fate::Shown && count > 0 {
            entry.pending += count;
            self.due.insert((due_at(entry.printed, self.options.interval), key));
        }
        Seen { first: false, fate: Some(entry.fate), revived, flushed: None }
    }

    /// Takes `count` repeats of a key whose drops were recorded: those that waited until it was certain whose they are. Returns whether the key is
    /// remembered.
    pub fn settle(&mut self, key: Key, count: u64, last: Timestamp) -> bool {
        let recency = self.next_recency(key);
        let Some(entry) = self.entries.get_mut(&key) else {
            self.by_recency.remove(&recency);
            return false;
        };
        self.by_recency.remove(&entry.recency);
        entry.recency = recency;
        entry.last = entry.last.max(last);
        entry.total += count;
        if entry.fate == Fate::Shown && count > 0 {
            entry.pending += count;
            self.due.insert((due_at(entry.printed, self.options.interval), key));
        }
        true
    }

    /// The last drop that was recorded with the id of this key was one of it: repeats of that id go there, and to no other if it is forgotten.
    pub fn set_latest(&mut self, key: Key) {
        if self.entries.contains_key(&key) {
            self.latest.insert(key.id, key);
        } else {
            self.latest.remove(&key.id);
        }
    }

    /// Whether a drop of this key at this time would be the first one.
    pub fn is_first(&self, key: Key, fate: Fate, time: Timestamp) -> bool {
        self.entries.get(&key).is_none_or(|entry| {
            let goes_on = time.duration_since(entry.last) <= self.options.idle;
            !goes_on || entry.fate == Fate::Earlier && fate == Fate::Shown
        })
    }

    /// Whether there was a drop of this key that is not forgotten.
    pub fn knows_key(&self, key: Key) -> bool {
        self.entries.contains_key(&key)
    }

    /// The only drop of this key, at this time, turned out to be another's: the next one will be the first.
    pub fn forget_alone(&mut self, key: Key, time: Timestamp) {
        let is_alone = |entry: &Entry| entry.total == 1 && entry.pending == 0 && entry.last == time;
        if !self.entries.get(&key).is_some_and(is_alone) {
            return;
        }
        if let Some(entry) = self.entries.remove(&key) {
            self.by_recency.remove(&entry.recency);
            self.due.remove(&(due_at(entry.printed, self.options.interval), key));
            if self.latest.get(&key.id) == Some(&key) {
                self.latest.remove(&key.id);
            }
        }
    }

    /// The summaries that are due at `now`, in the order of their last drop.
    pub fn due(&mut self, now: Timestamp) -> Vec<Summary> {
        let mut summaries = Vec::new();
        while let Some(&(at, key)) = self.due.first() {
            if at > now {
                break;
            }
            self.due.pop_first();
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.printed = now;
                summaries.extend(entry.take_summary(key));
            }
        }
        summaries.sort_by_key(|summary| summary.last);
        summaries
    }

    /// When the next summary is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// All summaries, due or not: for the end.
    pub fn flush(&mut self) -> Vec<Summary> {
        self.due.clear();
        let mut summaries: Vec<_> = self.entries.iter_mut().filter_map(|(key, entry)| entry.take_summary(*key)).collect();
        summaries.sort_by_key(|summary| (summary.last, summary.key));
        summaries
    }

    /// Whether a drop with this id was recorded and is not forgotten.
    pub fn knows(&self, id: FoldId) -> bool {
        self.latest.contains_key(&id)
    }

    /// Keys in the table.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was seen yet.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn next_recency(&mut self, key: Key) -> u64 {
        self.recency += 1;
        self.by_recency.insert(self.recency, key);
        self.recency
    }

    /// Forgets the least recently seen key. Were it the latest of its kernel id, no more recent key of that id would exist,
    /// so `latest` goes with it.
    fn evict_oldest(&mut self) -> Option<Summary> {
        let (_, key) = self.by_recency.pop_first()?;
        let mut entry = self.entries.remove(&key)?;
        self.due.remove(&(due_at(entry.printed, self.options.interval), key));
        if self.latest.get(&key.id) == Some(&key) {
            self.latest.remove(&key.id);
        }
        entry.take_summary(key)
    }
}

fn new_entry(fate: Fate, denial: &Arc<Denial>, now: Timestamp, recency: u64) -> Entry {
    let time = denial.event.time;
    Entry {
        fate,
        route: Arc::new(Route::of(denial)),
        held: (fate == Fate::Earlier).then(|| Arc::clone(denial)),
        first: time,
        since: time,
        last: time,
        pending: 0,
        total: 1,
        printed: now,
        recency,
    }
}

fn due_at(printed: Timestamp, interval: SignedDuration) -> Timestamp {
    printed.checked_add(interval).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
