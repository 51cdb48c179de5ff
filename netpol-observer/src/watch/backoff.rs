//! How long to wait before the next try, and what is drawn by lot so that a thousand agents do not do the same at once.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::Duration;

/// Longest wait that a server may ask for.
const MAX_ASKED: Duration = Duration::from_secs(300);

/// Waits that double with each failure in a row.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Backoff { first, most, failures: 0 }
    }

    /// What was tried works.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// What was tried failed once more: how long to wait. `asked` is what the server asks for, and at least that is waited.
    pub(crate) fn failed(&mut self, asked: Option<Duration>) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(20)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        // At least half of it: a wait of nearly nothing would be no wait.
        let own = doubled / 2 + jitter(doubled / 2);
        match asked.map(|asked| asked.min(MAX_ASKED)) {
            // Everybody was asked to come back at the same time.
            Some(asked) => asked + jitter(asked / 4).max(own / 4),
            None => own,
        }
    }
}

/// A time up to `most`, by lot.
pub(super) fn jitter(most: Duration) -> Duration {
    // The keys of the standard library's hash maps are random, and different each time.
    let lot = RandomState::new().hash_one(0_u8) >> 11;
    most.mul_f64(lot as f64 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_most_and_begin_anew_after_success() {
        let mut backoff = Backoff::new(SECOND, SECOND * 8);
        for expected in [1, 2, 4, 8, 8, 8] {
            let wait = backoff.failed(None);
            assert!(wait >= SECOND * expected / 2 && wait <= SECOND * expected, "{wait:?} instead of up to {expected} s");
        }
        backoff.succeeded();
        assert!(backoff.failed(None) <= SECOND);
        (0..100).for_each(|_| assert!(backoff.failed(None) <= SECOND * 8));
    }

    #[test]
    fn what_the_server_asks_for_is_waited_at_least_and_in_reason() {
        let mut backoff = Backoff::new(SECOND, SECOND * 8);
        let wait = backoff.failed(Some(SECOND * 20));
        assert!(wait > SECOND * 20 && wait <= SECOND * 25, "{wait:?}");
        assert!(backoff.failed(Some(Duration::MAX)) <= MAX_ASKED * 5 / 4);
    }

    #[test]
    fn lots_differ() {
        let mut lots: Vec<Duration> = (0..100).map(|_| jitter(SECOND)).collect();
        lots.sort();
        lots.dedup();
        assert!(lots.len() > 90 && lots.iter().all(|lot| *lot < SECOND));
        assert!(lots[0] < SECOND / 4 && lots[lots.len() - 1] > SECOND * 3 / 4);
    }
}
