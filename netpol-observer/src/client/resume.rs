//! Going on where a stream broke: from when on to ask, and what was given already. Pure.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::{SignedDuration, Timestamp};

/// Frames of one stream that are remembered; some seconds of a flood.
const REMEMBERED: usize = 16 * 1024;

/// What was received of one agent.
#[derive(Debug, Default)]
pub struct Resume {
    /// Everything before this was received.
    from: Option<Timestamp>,
    /// Hashes of the frames from then on that this connection brought.
    seen: BTreeMap<Timestamp, Vec<u64>>,
    /// And earlier connections: these come again.
    before: BTreeMap<Timestamp, Vec<u64>>,
    remembered: usize,
}

impl Resume {
    /// Nothing received.
    pub fn new() -> Self {
        Resume::default()
    }

    /// From when on to ask for drops; `None` before anything is known.
    pub fn since(&self) -> Option<Timestamp> {
        self.from
    }

    /// The stream begins at this time, unless it is known already how far it was read.
    pub fn begins(&mut self, time: Timestamp) {
        self.from.get_or_insert(time);
    }

    /// A new connection begins: what was received may come again.
    pub fn connect(&mut self) {
        for (order, hashes) in std::mem::take(&mut self.seen) {
            self.before.entry(order).or_default().extend(hashes);
        }
    }

    /// Whether a frame was not received before.
    pub fn is_new(&mut self, order: Timestamp, text: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        let known = self.before.get_mut(&order).and_then(|hashes| {
            let at = hashes.iter().position(|seen| *seen == hash)?;
            hashes.swap_remove(at);
            Some(())
        });
        self.seen.entry(order).or_default().push(hash);
        if known.is_none() {
            self.remembered += 1;
        }
        while self.remembered > REMEMBERED {
            // The earliest is forgotten, and not asked for again.
            let Some(earliest) = self.seen.keys().chain(self.before.keys()).min().copied() else { break };
            self.received(earliest.checked_add(SignedDuration::from_nanos(1)).unwrap_or(earliest));
        }
        known.is_none()
    }

    /// Everything before this was received.
    pub fn received(&mut self, before: Timestamp) {
        if self.from.is_none_or(|from| from < before) {
            self.from = Some(before);
        }
        self.seen = self.seen.split_off(&before);
        self.before = self.before.split_off(&before);
        self.remembered = self.seen.values().chain(self.before.values()).map(Vec::len).sum();
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
    fn what_was_received_since_the_last_watermark_is_known_again() {
        let mut resume = Resume::new();
        assert_eq!(resume.since(), None);
        resume.begins(at(5));
        assert!(resume.is_new(at(10), "a"));
        resume.received(at(20));
        assert!(resume.is_new(at(20), "b"));
        assert!(resume.is_new(at(20), "b"), "two of the same are two");
        assert!(resume.is_new(at(25), "c"));
        assert_eq!(resume.since(), Some(at(20)));
        resume.connect();
        assert!(!resume.is_new(at(20), "b"));
        // It breaks again before everything came once more.
        resume.connect();
        assert!(!resume.is_new(at(20), "b"));
        assert!(!resume.is_new(at(20), "b"));
        assert!(resume.is_new(at(20), "b"), "a third one");
        assert!(resume.is_new(at(22), "d"));
        assert!(!resume.is_new(at(25), "c"));
    }

    #[test]
    fn memory_is_bounded() {
        let mut resume = Resume::new();
        for number in 0..200_000i64 {
            assert!(resume.is_new(at(number), "x"));
        }
        assert!(resume.remembered <= REMEMBERED);
        assert_eq!(resume.since(), Some(at(200_000 - i64::try_from(REMEMBERED).unwrap() - 1) + SignedDuration::from_nanos(1)));
    }

    proptest! {
        /// An agent that keeps its frames and gives those from the time that it is asked for; connections break anywhere. Every frame arrives once.
        #[test]
        fn nothing_lost_and_nothing_doubled(
            orders in proptest::collection::vec((0..50i64, 0..3u8), 0..60),
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
