//! How often something may be done.

use std::time::{Duration, Instant};

/// So many at once, and one more each time that this much has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many at once; at least one.
    pub burst: u32,
    /// The time between two, in the long run.
    pub every: Duration,
}

/// A token bucket, kept as the time at which it is full again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    /// Absent while it is full.
    full_at: Option<Instant>,
}

impl Bucket {
    /// Whether one may be done now.
    pub(super) fn has(&self, rate: Rate, now: Instant) -> bool {
        let lacks = self.full_at.map_or(Duration::ZERO, |full| full.saturating_duration_since(now));
        lacks <= rate.every.saturating_mul(rate.burst.saturating_sub(1))
    }

    /// One is done.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) {
        let from = self.full_at.map_or(now, |full| full.max(now));
        self.full_at = from.checked_add(rate.every).or(Some(from));
    }

    /// Whether there is nothing to remember.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|full| full <= now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { burst: 3, every: Duration::from_secs(10) };

    #[test]
    fn a_burst_and_then_one_each_time() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        let mut done = Vec::new();
        for second in 0..35 {
            let now = start + Duration::from_secs(second);
            while bucket.has(RATE, now) {
                bucket.take(RATE, now);
                done.push(second);
            }
        }
        assert_eq!(done, [0, 0, 0, 10, 20, 30]);
        assert!(!bucket.is_full(start + Duration::from_secs(59)) && bucket.is_full(start + Duration::from_secs(60)));
    }

    proptest! {
        /// Whenever it is asked, in any window there are no more than the burst and what the window's length gives.
        #[test]
        fn no_window_has_more(pauses in proptest::collection::vec(0_u64..8_000, 1..200)) {
            let (mut bucket, mut now) = (Bucket::default(), Instant::now());
            let mut done: Vec<Instant> = Vec::new();
            for pause in pauses {
                now += Duration::from_millis(pause);
                if bucket.has(RATE, now) {
                    bucket.take(RATE, now);
                    done.push(now);
                }
            }
            for (at, from) in done.iter().enumerate() {
                for (more, to) in done[at..].iter().enumerate() {
                    let allowed = u128::from(RATE.burst) + to.duration_since(*from).as_millis() / RATE.every.as_millis();
                    prop_assert!((more as u128) < allowed, "{} in {:?}", more + 1, to.duration_since(*from));
                }
            }
        }
    }
}
