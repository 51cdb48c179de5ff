//! How far an agent's clock is off. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// A clock held against that of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    /// The agent's clock minus this machine's.
    pub ahead: SignedDuration,
    /// It is right within so much: half of the time that the question took.
    pub within: SignedDuration,
}

impl Skew {
    /// The agent said `theirs`; the answer came at `now` and took `round_trip`.
    pub fn measured(theirs: Timestamp, now: Timestamp, round_trip: Duration) -> Self {
        let half = SignedDuration::try_from(round_trip / 2).unwrap_or(SignedDuration::MAX);
        let middle = now.checked_sub(half).unwrap_or(Timestamp::MIN);
        Skew { ahead: theirs.duration_since(middle), within: half }
    }

    /// Whether it is off by more than a bound, whatever the error of the measurement.
    pub fn is_beyond(&self, bound: SignedDuration) -> bool {
        self.ahead.abs().saturating_sub(self.within) > bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_the_measurement_is_no_skew() {
        let now: Timestamp = "2026-11-23T14:02:10Z".parse().unwrap();
        let second = SignedDuration::from_secs(1);
        let skew = Skew::measured(now + SignedDuration::from_secs(4), now, Duration::from_secs(2));
        assert_eq!((skew.ahead, skew.within), (SignedDuration::from_secs(5), second));
        assert!(skew.is_beyond(second) && !skew.is_beyond(SignedDuration::from_secs(4)));
        let behind = Skew::measured(now - SignedDuration::from_secs(5), now, Duration::ZERO);
        assert!(behind.ahead.is_negative() && behind.is_beyond(second));
        assert!(!Skew::measured(now, now, Duration::from_secs(60)).is_beyond(SignedDuration::ZERO));
    }
}
