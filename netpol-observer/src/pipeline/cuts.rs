//! When a kind of objects was not heard of: what changed meanwhile was told later, or is not told yet.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;

use super::attribution::later;
use crate::cluster::Kind;
use crate::timeline::WATCH_LAG;

/// Times without news that are remembered; of more the oldest are not.
const MAX_CLOSED: usize = 1024;

/// The times without news. What is no longer than watches lag behind anyway is none.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    /// Not heard of now, since when.
    open: BTreeMap<Kind, Timestamp>,
    /// From when to when.
    closed: VecDeque<(Kind, Timestamp, Timestamp)>,
}

impl Cuts {
    /// These kinds are not heard of at a time, each since its own. Returns those that were not, and are heard of again without a list: the watch
    /// goes on where it was. What it has missed it tells at once, but does not say when it has told all.
    pub(super) fn set_open(&mut self, open: BTreeMap<Kind, Timestamp>, now: Timestamp) -> Vec<(Kind, Timestamp)> {
        let before = std::mem::replace(&mut self.open, open);
        let resumed: Vec<(Kind, Timestamp)> = before.into_iter().filter(|(kind, _)| !self.open.contains_key(kind)).collect();
        let told = later(now, WATCH_LAG);
        for (kind, since) in &resumed {
            self.close(*kind, *since, told);
        }
        resumed.into_iter().map(|(kind, _)| (kind, told)).collect()
    }

    /// Whether a kind is not heard of now.
    pub(super) fn is_open(&self, kind: Kind) -> bool {
        self.open.contains_key(&kind)
    }

    /// What changed of a kind since then was told together at this time.
    pub(super) fn close(&mut self, kind: Kind, since: Timestamp, at: Timestamp) {
        self.open.remove(&kind);
        if at > later(since, WATCH_LAG) {
            self.closed.push_back((kind, since, at));
            if self.closed.len() > MAX_CLOSED {
                self.closed.pop_front();
            }
        }
    }

    /// What was before is not known anyway.
    pub(super) fn expire(&mut self, horizon: Timestamp) {
        self.closed.retain(|(_, _, until)| *until >= horizon);
    }

    /// Whether a kind was not heard of at a time, or so little before that it might have been told of the time: then when it was heard of again, if it
    /// was.
    pub(super) fn of(&self, kind: Kind, when: Timestamp) -> Option<Option<Timestamp>> {
        let covers = |since: Timestamp| later(when, WATCH_LAG) > since;
        // A list may be taken in after the watch was seen to go on: the later of two ends is when all was told.
        let closed = self.closed.iter().filter(|(other, since, until)| *other == kind && covers(*since) && when < *until);
        if let Some(until) = closed.map(|(_, _, until)| *until).max() {
            return Some(Some(until));
        }
        self.open.get(&kind).filter(|since| covers(**since)).map(|_| None)
    }

    /// The kinds that were not heard of at a time, and since when one of them was not.
    pub(super) fn at(&self, when: Timestamp) -> Option<(Vec<Kind>, Timestamp)> {
        let open = self.open.iter().map(|(kind, since)| (*kind, *since, Timestamp::MAX));
        let cut = open.chain(self.closed.iter().copied());
        let cut: BTreeMap<Kind, Timestamp> = cut
            .filter(|(_, since, until)| when > later(*since, WATCH_LAG) && when < *until)
            .map(|(kind, since, _)| (kind, since))
            .collect();
        let since = cut.values().min().copied()?;
        Some((cut.into_keys().collect(), since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_time_without_news_begins_after_the_lag_and_ends_with_the_list() {
        let mut cuts = Cuts::default();
        assert!(cuts.set_open(BTreeMap::from([(Kind::Pod, at(100)), (Kind::Service, at(90))]), at(101)).is_empty());
        assert_eq!(cuts.at(at(91)), None);
        assert_eq!(cuts.at(at(95)), Some((vec![Kind::Service], at(90))));
        assert_eq!(cuts.at(at(103)), Some((vec![Kind::Pod, Kind::Service], at(90))));
        cuts.close(Kind::Pod, at(100), at(110));
        cuts.close(Kind::Service, at(90), at(104));
        assert!(cuts.set_open(BTreeMap::new(), at(120)).is_empty(), "there were lists");
        assert_eq!(cuts.at(at(105)), Some((vec![Kind::Pod], at(100))));
        assert_eq!(cuts.at(at(110)), None, "from the list on all is known");
        cuts.close(Kind::Pod, at(120), at(121));
        assert_eq!(cuts.at(at(120)), None, "that is within what watches lag behind");
        cuts.expire(at(111));
        assert_eq!(cuts.at(at(105)), None);
    }

    #[test]
    fn what_happened_a_little_before_may_not_have_been_told() {
        let mut cuts = Cuts::default();
        cuts.set_open(BTreeMap::from([(Kind::Pod, at(100))]), at(101));
        assert_eq!((cuts.of(Kind::Pod, at(98)), cuts.of(Kind::Pod, at(99))), (None, Some(None)));
        assert_eq!(cuts.of(Kind::Service, at(105)), None);
        cuts.close(Kind::Pod, at(100), at(110));
        assert_eq!((cuts.of(Kind::Pod, at(105)), cuts.of(Kind::Pod, at(110))), (Some(Some(at(110))), None));
    }

    #[test]
    fn a_watch_that_goes_on_has_told_all_after_the_lag() {
        let mut cuts = Cuts::default();
        cuts.set_open(BTreeMap::from([(Kind::Pod, at(100)), (Kind::Service, at(90))]), at(101));
        assert_eq!(cuts.set_open(BTreeMap::from([(Kind::Pod, at(100))]), at(120)), [(Kind::Service, at(122))]);
        assert_eq!((cuts.of(Kind::Service, at(121)), cuts.of(Kind::Service, at(122))), (Some(Some(at(122))), None));
        assert_eq!(cuts.of(Kind::Pod, at(121)), Some(None));
        cuts.close(Kind::Service, at(90), at(130));
        assert_eq!(cuts.of(Kind::Service, at(95)), Some(Some(at(130))), "there was a list after all");
    }
}
