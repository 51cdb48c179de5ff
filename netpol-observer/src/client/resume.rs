//! Going on where a stream broke: from when on to ask, and what was given already. Pure.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::{SignedDuration, Timestamp};

/// Frames of one stream that are remembered.
const REMEMBERED: usize = 16 * 1024;

/// An agent may tell a drop so long after its time, as one of a pod whose address was not known yet. What it had not told when the connection
/// broke is older than its last watermark then.
const MARGIN: SignedDuration = SignedDuration::from_secs(5);

/// What was received of one agent.
#[derive(Debug, Default)]
pub struct Resume {
    /// Nothing from before is owed.
    floor: Option<Timestamp>,
    /// The last watermark.
    watermark: Option<Timestamp>,
    /// Hashes of the frames that this connection brought, by their order; as long as they may come again.
    seen: BTreeMap<Timestamp, Vec<u64>>,
    remembered: usize,
    /// Those of earlier connections that have not come again yet: their orders.
    before: HashMap<u64, Vec<Timestamp>>,
    /// At this watermark they will not come again any more.
    forget: Option<Timestamp>,
}

impl Resume {
    /// Nothing received.
    pub fn new() -> Self {
        Resume::default()
    }

    /// From when on to ask for drops; `None` before anything is known.
    pub fn since(&self) -> Option<Timestamp> {
        let late = self.watermark.map(|watermark| watermark.checked_sub(MARGIN).unwrap_or(Timestamp::MIN));
        self.floor.max(late)
    }

    /// The stream begins at this time, unless it has begun.
    pub fn begins(&mut self, time: Timestamp) {
        self.floor.get_or_insert(time);
    }

    /// A new connection begins: what was received may come again.
    pub fn connect(&mut self) {
        let since = self.since().unwrap_or(Timestamp::MIN);
        let known: usize = self.before.values().map(Vec::len).sum();
        if known > REMEMBERED {
            // Connections that break all the time before they bring what was there: then it may be given twice.
            self.before.clear();
        }
        for (order, hashes) in std::mem::take(&mut self.seen) {
            for hash in hashes {
                self.before.entry(hash).or_default().push(order);
            }
        }
        self.remembered = 0;
        self.before.retain(|_, orders| {
            orders.retain(|order| *order >= since);
            orders.sort_unstable();
            !orders.is_empty()
        });
        self.forget = self.watermark.map(|watermark| watermark.checked_add(MARGIN).unwrap_or(Timestamp::MAX));
    }

    /// Whether a frame was not received before. Its order may be another when it comes again.
    pub fn is_new(&mut self, order: Timestamp, text: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        self.seen.entry(order).or_default().push(hash);
        self.remembered += 1;
        while self.remembered > REMEMBERED {
            // The earliest is forgotten, and not asked for again.
            let Some((earliest, hashes)) = self.seen.pop_first() else { break };
            self.remembered -= hashes.len();
            self.floor = self.floor.max(earliest.checked_add(SignedDuration::from_nanos(1)).ok());
        }
        let Some(orders) = self.before.get_mut(&hash) else { return true };
        if orders.is_empty() {
            return true;
        }
        orders.remove(0);
        false
    }

    /// Everything before this was received, but for what the agent tells late.
    pub fn received(&mut self, watermark: Timestamp) {
        self.floor.get_or_insert(watermark);
        self.watermark = self.watermark.max(Some(watermark));
        if let Some(since) = self.since() {
            self.seen = self.seen.split_off(&since);
            self.remembered = self.seen.values().map(Vec::len).sum();
        }
        if self.forget.is_some_and(|forget| forget <= watermark) {
            self.before.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    #[test]
    fn what_may_come_again_is_known() {
        let mut resume = Resume::new();
        assert_eq!(resume.since(), None);
        resume.begins(at(5));
        assert!(resume.is_new(at(10), "a"));
        resume.received(at(20_000));
        assert!(resume.is_new(at(20_000), "b"));
        assert!(resume.is_new(at(20_000), "b"), "two of the same are two");
        assert!(resume.is_new(at(25_000), "c"));
        assert_eq!(resume.since(), Some(at(15_000)), "what is told late is asked for");
        resume.connect();
        assert!(!resume.is_new(at(19_000), "b"), "one that came late has another order when it comes again");
        // It breaks again before everything came once more.
        resume.connect();
        assert!(!resume.is_new(at(20_000), "b"));
        assert!(!resume.is_new(at(20_000), "b"));
        assert!(resume.is_new(at(20_000), "b"), "a third one");
        assert!(resume.is_new(at(17_000), "d"), "one that the agent had not told");
        assert!(!resume.is_new(at(25_000), "c"));
        assert!(resume.is_new(at(25_000), "a"), "long ago, and not known any more");
    }

    #[test]
    fn nothing_from_before_the_beginning_is_asked_for() {
        let mut resume = Resume::new();
        resume.begins(at(1000));
        resume.received(at(2000));
        assert_eq!(resume.since(), Some(at(1000)));
        let mut resume = Resume::new();
        resume.received(at(2000));
        resume.received(at(3000));
        assert_eq!(resume.since(), Some(at(2000)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut resume = Resume::new();
        for number in 0..200_000i64 {
            assert!(resume.is_new(at(number), "x"));
        }
        assert!(resume.remembered <= REMEMBERED);
        assert_eq!(resume.since(), Some(at(200_000 - i64::try_from(REMEMBERED).unwrap() - 1) + SignedDuration::from_nanos(1)));
        for _ in 0..10 {
            resume.connect();
            (0..10_000).for_each(|number| _ = resume.is_new(at(200_000 + number), &number.to_string()));
        }
        assert!(resume.before.values().map(Vec::len).sum::<usize>() <= 3 * REMEMBERED);
    }

    proptest! {
        /// An agent that keeps its frames and gives those from the time that it is asked for; connections break anywhere. Every frame arrives once.
        #[test]
        fn nothing_lost_and_nothing_doubled(
            orders in proptest::collection::vec((0..20_000i64, 0..3u8), 0..60),
            breaks in proptest::collection::vec(0..80usize, 0..6),
            watermarks in any::<bool>(),
        ) {
            let mut orders = orders;
            orders.sort_by_key(|(order, _)| *order);
            let mut resume = Resume::new();
            resume.begins(at(0));
            let mut received = Vec::new();
            for limit in breaks.into_iter().chain([usize::MAX]) {
                resume.connect();
                let since = resume.since().unwrap();
                for (order, text) in orders.iter().filter(|(order, _)| at(*order) >= since).take(limit) {
                    if watermarks {
                        resume.received(at(*order));
                    }
                    if resume.is_new(at(*order), &text.to_string()) {
                        received.push((*order, *text));
                    }
                }
            }
            received.sort_unstable();
            orders.sort_unstable();
            prop_assert_eq!(received, orders);
        }
    }
}
