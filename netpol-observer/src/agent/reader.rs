//! A reader: a place in the hub's log.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use super::{Hub, Observation};
use crate::capture::KernelLedger;

/// A place in the log of a [`Hub`]. Dropping it makes room for another reader.
pub struct Reader {
    hub: Arc<Hub>,
    changed: watch::Receiver<u64>,
    /// Number of the next observation.
    next: u64,
    /// Observations before this number were there when the reader came.
    history: u64,
    /// Drops before the next observation.
    drops: u64,
    /// Since when the reader has everything.
    since: Timestamp,
    watermark: Timestamp,
    /// It has one of the places that there are for readers.
    counted: bool,
}

/// What a reader took.
#[derive(Debug)]
pub struct Taken {
    /// With the time at which each was given.
    pub observations: Vec<(Timestamp, Observation)>,
    /// Number of the next one.
    pub next: u64,
    /// What fell out of the log before the reader came to it; all of it before `observations`.
    pub lost: Option<Lost>,
    /// The kernel's counters as they were last.
    pub kernel: Option<KernelLedger>,
    /// No more is given, and why. There may be something left to take.
    pub closed: Option<Arc<str>>,
    /// There is no more at the moment.
    pub caught_up: Option<CaughtUp>,
}

/// Drops that a reader missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// How many.
    pub count: u64,
    /// Drops given before the next observation.
    pub(super) drops: u64,
}

/// What a reader knows that has everything.
#[derive(Clone, Copy, Debug)]
pub struct CaughtUp {
    /// All before this was given.
    pub watermark: Option<Timestamp>,
}

/// The hub has all the readers it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent has {max} readers already, which is as many as it serves at once: end one of them, or try again later")]
pub struct TooManyReaders {
    /// How many there may be.
    pub max: usize,
}

impl Reader {
    pub(super) fn new(
        hub: Arc<Hub>,
        changed: watch::Receiver<u64>,
        next: u64,
        history: u64,
        drops: u64,
        since: Timestamp,
        watermark: Timestamp,
    ) -> Self {
        Reader { hub, changed, next, history, drops, since, watermark, counted: true }
    }

    /// One that has no place to give back.
    pub(super) fn uncounted(mut self) -> Self {
        self.counted = false;
        self
    }

    /// Up to `limit` observations. Does not wait.
    pub fn take(&mut self, limit: usize) -> Taken {
        // Before the log is looked at, so that what comes between the two wakes the reader.
        self.changed.mark_unchanged();
        let taken = self.hub.take(self.next, self.drops, limit);
        if let Some(lost) = taken.lost {
            self.drops = lost.drops;
        }
        self.drops += taken.observations.iter().map(|(_, observation)| observation.drops()).sum::<u64>();
        self.next = taken.next;
        taken
    }

    /// Up to `limit` observations of those that were there when the reader came; `None` behind the last of them.
    pub fn take_history(&mut self, limit: usize) -> Option<Taken> {
        let left = usize::try_from(self.history.saturating_sub(self.next)).unwrap_or(usize::MAX);
        (left > 0).then(|| self.take(limit.min(left)))
    }

    /// Gives up what is left.
    pub fn skip(&mut self) -> Lost {
        let (next, lost) = self.hub.skip(self.drops);
        (self.next, self.drops) = (next, lost.drops);
        lost
    }

    /// Waits until there may be more. Cancel-safe.
    pub async fn changed(&mut self) {
        // The hub outlives its readers.
        _ = self.changed.changed().await;
    }

    /// When the hub was complete to at the time the reader came: the promise that its stream begins with.
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// From when on the hub had everything when the reader came.
    pub fn retained_since(&self) -> Timestamp {
        self.since
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.counted {
            self.hub.leave();
        }
    }
}
