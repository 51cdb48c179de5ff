//! Whether the capture loop turns, for `/healthz`.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The loop that has not turned for longer than this is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// When the capture loop last turned.
#[derive(Debug)]
pub struct Health {
    turned: Mutex<Instant>,
}

impl Default for Health {
    /// As if it had just turned: it gets its time to begin.
    fn default() -> Self {
        Health { turned: Mutex::new(Instant::now()) }
    }
}

impl Health {
    /// The loop has turned.
    pub fn turn(&self) {
        *self.turned.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Why it does not live, when it does not.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble_at(Instant::now())
    }

    fn trouble_at(&self, now: Instant) -> Option<String> {
        let since = now.saturating_duration_since(*self.turned.lock().unwrap_or_else(PoisonError::into_inner));
        (since > PATIENCE).then(|| format!("the capture loop has not turned for {} s", since.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stands_still_is_told() {
        let health = Health::default();
        assert_eq!(health.trouble(), None);
        let later = Instant::now() + Duration::from_secs(30);
        assert!(health.trouble_at(later).is_some_and(|trouble| trouble.contains("30 s") || trouble.contains("29 s")));
        health.turn();
        assert_eq!(health.trouble(), None);
    }
}
