//! Drops that nothing can make others any more: what is counted or told elsewhere cannot be taken back.
//!
//! A drop is given some seconds after it happened, once, as what it was found to be by then; its repeats go under it. Where there is one set of objects for
//! all times (manifests), nothing is amended, and it is given at once.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::Brief;
use super::fold::{Fate, Key};
use super::open::{Open, Record};
use crate::diagnose::Denial;
use crate::flow::FoldId;
use crate::pipeline::Amendment;

/// Ids whose drops are remembered for their repeats: the kernel's fold tables tell of so many at once at most, in each of two turns.
const REMEMBERED: usize = 32_768;

/// Drops that are settled.
#[derive(Clone, Debug)]
pub struct Settled {
    /// What they are folded under.
    pub id: FoldId,
    /// What is to be said of each of them.
    pub brief: Arc<Brief>,
    /// The drop in full, where one that came as a record is among them.
    pub denial: Option<Arc<Denial>>,
    /// How many they are.
    pub count: u64,
    /// When the last of them was.
    pub last: Timestamp,
}

/// Holds drops until they are settled.
#[derive(Default)]
pub struct Settling {
    open: Open,
    /// Drops that are settled, by the id of their repeats. Of two generations the older one is forgotten as a whole.
    young: HashMap<FoldId, Arc<Brief>>,
    old: HashMap<FoldId, Arc<Brief>>,
    unattributed: u64,
    open_drops: u64,
}

impl Settling {
    /// Takes a drop that came as a record.
    pub fn denial(&mut self, denial: Arc<Denial>, now: Timestamp) -> Vec<Settled> {
        let mut settled = self.tick(now);
        self.open_drops += 1;
        if denial.moment.is_none() {
            settled.push(self.settle(denial, 0, None));
            return settled;
        }
        let key = Key { id: denial.event.id, same: 0 };
        self.open.push(Record::new(denial, key, Fate::Shown, true, now));
        settled
    }

    /// Takes repeats that the kernel counted.
    pub fn repeat(&mut self, id: FoldId, count: u64, last: Timestamp, now: Timestamp) -> Vec<Settled> {
        let mut settled = self.tick(now);
        if let Some(record) = self.open.latest(id) {
            record.repeats += count;
            record.last = record.last.max(last);
            self.open_drops += count;
        } else if let Some(brief) = self.recall(id) {
            settled.push(Settled { id, brief, denial: None, count, last });
        } else {
            self.unattributed += count;
        }
        settled
    }

    /// Takes what is to be said otherwise of a drop. Where it is settled already, this is said of its further repeats only.
    pub fn amendment(&mut self, amendment: &Amendment, now: Timestamp) -> Vec<Settled> {
        let settled = self.tick(now);
        let denial = &amendment.denial;
        if let Some(record) = self.open.find(amendment.id(), amendment.time()) {
            let (key, fate) = (record.key, record.fate);
            record.amend(denial, key, fate);
        } else if self.young.contains_key(&amendment.id()) || self.old.contains_key(&amendment.id()) {
            self.remember(amendment.id(), Arc::new(Brief::of(denial)));
        }
        settled
    }

    /// What is settled at `now`.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Settled> {
        let mut settled = Vec::new();
        while let Some(Record { denial, repeats, last, .. }) = self.open.settled(now) {
            settled.push(self.settle(denial, repeats, Some(last)));
        }
        settled
    }

    /// What is left, at the end.
    pub fn finish(&mut self) -> Vec<Settled> {
        self.tick(Timestamp::MAX)
    }

    /// When [`tick`](Settling::tick) has something to give.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.open.next_due()
    }

    /// Repeats of drops that were never taken or are forgotten.
    pub fn unattributed(&self) -> u64 {
        self.unattributed
    }

    /// Drops that are not settled yet.
    pub fn open(&self) -> u64 {
        self.open_drops
    }

    fn settle(&mut self, denial: Arc<Denial>, repeats: u64, last: Option<Timestamp>) -> Settled {
        let id = denial.event.id;
        let brief = Arc::new(Brief::of(&denial));
        self.remember(id, Arc::clone(&brief));
        self.open_drops -= 1 + repeats;
        Settled { id, brief, count: 1 + repeats, last: last.unwrap_or(denial.event.time), denial: Some(denial) }
    }

    fn recall(&mut self, id: FoldId) -> Option<Arc<Brief>> {
        if let Some(brief) = self.young.get(&id) {
            return Some(Arc::clone(brief));
        }
        let brief = self.old.remove(&id)?;
        self.remember(id, Arc::clone(&brief));
        Some(brief)
    }

    fn remember(&mut self, id: FoldId, brief: Arc<Brief>) {
        if self.young.len() >= REMEMBERED / 2 && !self.young.contains_key(&id) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&id);
        self.young.insert(id, brief);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::Moment;
    use crate::serve::testing::{at, example_at, party, pod};

    fn of_a_moment(id: u64, seconds: i64) -> Arc<Denial> {
        let mut denial = Denial::clone(&example_at(id, seconds));
        denial.moment = Some(Moment::default());
        Arc::new(denial)
    }

    fn counts(settled: &[Settled]) -> Vec<(u64, u64, bool)> {
        settled.iter().map(|settled| (settled.id.0, settled.count, settled.denial.is_some())).collect()
    }

    #[test]
    fn without_moments_drops_are_settled_at_once() {
        let mut settling = Settling::default();
        assert_eq!(counts(&settling.denial(example_at(1, 0), at(0))), [(1, 1, true)]);
        assert_eq!(counts(&settling.repeat(FoldId(1), 4, at(1), at(1))), [(1, 4, false)]);
        assert!(settling.repeat(FoldId(2), 3, at(1), at(1)).is_empty());
        assert_eq!((settling.unattributed(), settling.open()), (3, 0));
    }

    #[test]
    fn of_a_moment_they_are_held_with_their_repeats() {
        let mut settling = Settling::default();
        assert!(settling.denial(of_a_moment(1, 0), at(0)).is_empty());
        assert!(settling.repeat(FoldId(1), 4, at(1), at(1)).is_empty());
        assert_eq!(settling.open(), 5);
        let due = settling.next_due().unwrap();
        assert!(due > at(1) && due <= at(15), "{due}");
        let settled = settling.tick(due);
        assert_eq!((counts(&settled), settled[0].last, settling.open()), (vec![(1, 5, true)], at(1), 0));
        assert_eq!(counts(&settling.repeat(FoldId(1), 2, at(20), at(20))), [(1, 2, false)]);
    }

    #[test]
    fn an_amendment_is_in_time_for_what_is_held_and_for_later_repeats() {
        let mut settling = Settling::default();
        let amend = |before: &Arc<Denial>, name: &str| {
            let mut denial = Denial::clone(before);
            denial.who.client = party(&pod("shop", name, "10.244.1.5", &[]));
            Amendment { before: Arc::clone(before), earlier: Vec::new(), denial: Arc::new(denial), why: "told late".to_owned() }
        };
        let first = of_a_moment(1, 0);
        settling.denial(Arc::clone(&first), at(0));
        let amendment = amend(&first, "job-1");
        settling.amendment(&amendment, at(1));
        let settled = settling.finish();
        assert_eq!(settled[0].brief.route.client.to_string(), "shop/job-1");
        assert!(settling.amendment(&amend(&amendment.denial, "late-1"), at(30)).is_empty(), "it was given");
        let settled = settling.repeat(FoldId(1), 1, at(31), at(31));
        assert_eq!(settled[0].brief.route.client.to_string(), "shop/late-1");
        // Of what was never taken there is nothing to say.
        let unknown = of_a_moment(9, 0);
        assert!(settling.amendment(&amend(&unknown, "late-1"), at(32)).is_empty());
        assert!(settling.repeat(FoldId(9), 1, at(33), at(33)).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_goes_on_is_kept() {
        let mut settling = Settling::default();
        for id in 0..2 * REMEMBERED as u64 {
            settling.denial(example_at(id, 0), at(0));
            settling.repeat(FoldId(0), 1, at(0), at(0));
        }
        assert!(settling.young.len() + settling.old.len() <= REMEMBERED);
        assert_eq!((settling.repeat(FoldId(0), 1, at(0), at(0)).len(), settling.unattributed()), (1, 0));
        assert_eq!((settling.repeat(FoldId(1), 1, at(0), at(0)).len(), settling.unattributed()), (0, 1));
    }

    #[test]
    fn each_drop_is_given_once() {
        let mut settling = Settling::default();
        let mut given = 0;
        for turn in 0..200_u64 {
            let (id, seconds) = (turn % 7, i64::try_from(turn / 10).unwrap());
            let now = at(seconds);
            let settled =
                if turn % 3 == 0 { settling.denial(of_a_moment(id, seconds), now) } else { settling.repeat(FoldId(id), turn, now, now) };
            given += settled.iter().map(|settled| settled.count).sum::<u64>();
        }
        let taken = (0..200_u64).map(|turn| if turn % 3 == 0 { 1 } else { turn }).sum::<u64>();
        let rest: u64 = settling.finish().iter().map(|settled| settled.count).sum();
        assert_eq!((given + rest + settling.unattributed(), settling.open()), (taken, 0));
    }
}
