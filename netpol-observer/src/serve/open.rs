//! Drops that what is told later may yet make others, with their repeats: they are not folded before they are settled.
//!
//! A drop whose client is named in full at once has its line; what comes behind it under the same kernel key waits here. So an amendment moves
//! exactly the drops that it is about, and a line that counts repeats is never wrong about whose they are.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Fate, Key};
use crate::diagnose::{Denial, How, PastKnown};
use crate::flow::FoldId;

/// For so long after a drop it may be amended because of what watches lag behind, and of addresses that are published late.
const SETTLES: SignedDuration = SignedDuration::from_secs(4);
/// The same where nobody is known to have an address: its owner may turn up that much later.
const SETTLES_LATE: SignedDuration = SignedDuration::from_secs(14);
/// For so long after it was given its repeats may come, however late it was given: a turn of the kernel's tables, and a half.
const REPEATS: SignedDuration = SignedDuration::from_millis(1500);
/// Drops that are open at most; beyond that the oldest are taken as they are.
const MAX_OPEN: usize = 4096;

/// A drop that may be amended.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) denial: Arc<Denial>,
    pub(super) key: Key,
    pub(super) fate: Fate,
    /// It was folded itself when it came: the first of its key. Otherwise it waits like its repeats.
    pub(super) folded: bool,
    /// The kernel's count of repeats behind it.
    pub(super) repeats: u64,
    /// When the last of them was.
    pub(super) last: Timestamp,
    /// Until when its repeats may come.
    repeats_until: Timestamp,
    until: Timestamp,
}

impl Record {
    pub(super) fn new(denial: Arc<Denial>, key: Key, fate: Fate, folded: bool, now: Timestamp) -> Self {
        let last = denial.event.time;
        let repeats_until = now.checked_add(REPEATS).unwrap_or(Timestamp::MAX);
        let until = settles_at(&denial).max(repeats_until);
        Record { denial, key, fate, folded, repeats: 0, last, repeats_until, until }
    }

    /// It is another by now.
    pub(super) fn amend(&mut self, denial: &Arc<Denial>, key: Key, fate: Fate) {
        (self.key, self.fate) = (key, fate);
        self.denial = Arc::clone(denial);
        self.until = settles_at(denial).max(self.repeats_until);
    }
}

fn settles_at(denial: &Denial) -> Timestamp {
    let is_late = denial
        .moment
        .as_ref()
        .is_some_and(|moment| moment.past != PastKnown::Exact || moment.owners.iter().any(|owner| matches!(owner.how, How::NotKnown)));
    let settles = if is_late { SETTLES_LATE } else { SETTLES };
    denial.event.time.checked_add(settles).unwrap_or(Timestamp::MAX)
}

/// Those that are open, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Open {
    records: VecDeque<Record>,
    /// Number of the first of them.
    first: u64,
    /// The last of each id, whose repeats go under it.
    latest: HashMap<FoldId, u64>,
}

impl Open {
    pub(super) fn push(&mut self, record: Record) {
        self.latest.insert(record.denial.event.id, self.first + self.records.len() as u64);
        self.records.push_back(record);
    }

    /// Where repeats of this id go.
    pub(super) fn latest(&mut self, id: FoldId) -> Option<&mut Record> {
        let place = self.latest.get(&id)?.checked_sub(self.first)?;
        self.records.get_mut(usize::try_from(place).ok()?)
    }

    pub(super) fn knows(&self, id: FoldId) -> bool {
        self.latest.contains_key(&id)
    }

    /// The drop of this id at this time.
    pub(super) fn find(&mut self, id: FoldId, time: Timestamp) -> Option<&mut Record> {
        self.records.iter_mut().find(|record| (record.denial.event.id, record.denial.event.time) == (id, time))
    }

    /// When the first of them settles.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.records.front().map(|record| record.until)
    }

    /// The next that is settled at `now`, or of which there are too many. One behind another is not settled before it, so that those of one id stay
    /// in their order.
    pub(super) fn settled(&mut self, now: Timestamp) -> Option<Record> {
        let is_due = self.records.len() > MAX_OPEN || self.records.front()?.until <= now;
        let record = is_due.then(|| self.records.pop_front()).flatten()?;
        let id = record.denial.event.id;
        if self.latest.get(&id) == Some(&self.first) {
            self.latest.remove(&id);
        }
        self.first += 1;
        Some(record)
    }
}
