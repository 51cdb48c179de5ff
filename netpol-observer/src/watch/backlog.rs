//! Updates that came and are not taken in yet: whoever judges by the objects knows by them how far it knows the cluster.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

/// When the updates came that are not taken in, and how many came at each time.
#[derive(Debug, Default)]
pub(super) struct Backlog(Mutex<BTreeMap<Timestamp, usize>>);

impl Backlog {
    /// An update that came at this time is not taken in for as long as what is returned lives: in the hands of its watch, in the queue, or being
    /// taken in. It is counted off also where nobody comes to read it.
    pub(super) fn add(self: &Arc<Self>, at: Timestamp) -> Waiting {
        *self.lock().entry(at).or_default() += 1;
        Waiting { backlog: self.clone(), at }
    }

    /// When the first of them came.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.lock().keys().next().copied()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Timestamp, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them.
#[derive(Debug)]
pub(super) struct Waiting {
    backlog: Arc<Backlog>,
    at: Timestamp,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = self.backlog.lock();
        if let Some(count) = waiting.get_mut(&self.at) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_counts_until_the_last_of_its_time_is_taken_in() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let backlog = Arc::<Backlog>::default();
        assert_eq!(backlog.oldest(), None);
        let (later, first, second) = (backlog.add(at(2)), backlog.add(at(1)), backlog.add(at(1)));
        drop(first);
        assert_eq!(backlog.oldest(), Some(at(1)));
        drop(second);
        assert_eq!(backlog.oldest(), Some(at(2)));
        drop(later);
        assert_eq!(backlog.oldest(), None);
    }
}
