//! How much work the effects of changes may be: knowing the objects comes first.

use std::time::{Duration, Instant};

use crate::policy::Bounds;

/// With so many updates waiting, effects of changes are not worked out.
const BUSY: usize = 32;

/// So many times as long as one took, none are worked out behind it: of the time a fifth at most goes there. Most take a millisecond, and what comes
/// within the next four is rare.
const REST: u32 = 4;

/// When effects are worked out.
#[derive(Debug, Default)]
pub struct Budget {
    rests_until: Option<Instant>,
}

impl Budget {
    /// The bounds for the next update, with so many waiting behind it.
    pub fn bounds(&self, waiting: usize, now: Instant) -> Bounds {
        if waiting > BUSY || self.rests_until.is_some_and(|until| now < until) {
            Bounds { verdicts: 0, ..Bounds::default() }
        } else {
            Bounds::default()
        }
    }

    /// An update that had effects was taken in within bounds, from `begun` to `now`.
    pub fn spent(&mut self, bounds: &Bounds, begun: Instant, now: Instant) {
        let took = now.saturating_duration_since(begun);
        if bounds.verdicts > 0 && took > Duration::ZERO {
            self.rests_until = now.checked_add(took * REST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_time_and_nothing_when_much_waits() {
        let (mut budget, begun) = (Budget::default(), Instant::now());
        let at = |milliseconds| begun + Duration::from_millis(milliseconds);
        let is_worked_out = |budget: &Budget, waiting, milliseconds| budget.bounds(waiting, at(milliseconds)).verdicts > 0;
        assert!(is_worked_out(&budget, BUSY, 0) && !is_worked_out(&budget, BUSY + 1, 0));
        budget.spent(&Bounds::default(), at(0), at(100));
        assert!(!is_worked_out(&budget, 0, 499) && is_worked_out(&budget, 0, 500));
        // What was not worked out is no reason to rest longer.
        budget.spent(&Bounds { verdicts: 0, ..Bounds::default() }, at(400), at(490));
        assert!(is_worked_out(&budget, 0, 500));
    }
}
