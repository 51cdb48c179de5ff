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
    /// These kinds are not heard of, each since its time.
    pub(super) fn set_open(&mut self, open: BTreeMap<Kind, Timestamp>) {
        self.open = open;
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
        cuts.set_open(BTreeMap::from([(Kind::Pod, at(100)), (Kind::Service, at(90))]));
        assert_eq!(cuts.at(at(91)), None);
        assert_eq!(cuts.at(at(95)), Some((vec![Kind::Service], at(90))));
        assert_eq!(cuts.at(at(103)), Some((vec![Kind::Pod, Kind::Service], at(90))));
        cuts.close(Kind::Pod, at(100), at(110));
        cuts.set_open(BTreeMap::new());
        assert_eq!(cuts.at(at(105)), Some((vec![Kind::Pod], at(100))));
        assert_eq!(cuts.at(at(110)), None, "from the list on all is known");
        cuts.close(Kind::Pod, at(120), at(121));
        assert_eq!(cuts.at(at(120)), None, "that is within what watches lag behind");
        cuts.expire(at(111));
        assert_eq!(cuts.at(at(105)), None);
    }
}
