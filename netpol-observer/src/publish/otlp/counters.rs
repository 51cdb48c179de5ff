//! What became of the drops that were to be sent.

use std::sync::atomic::{AtomicU64, Ordering};

/// The account of a sink, in two steps.
///
/// Drops: `taken = reported + gathered + overflowed`. Records, of which one may stand for many drops:
/// `records = sent + waiting + queue_full + refused + abandoned`. The numbers are read one by one: they add up once nothing is under way.
#[derive(Debug, Default)]
pub struct Counters {
    taken: AtomicU64,
    left_out: AtomicU64,
    gathered: AtomicU64,
    overflowed: AtomicU64,
    reported: AtomicU64,
    records: AtomicU64,
    waiting: AtomicU64,
    sent: AtomicU64,
    queue_full: AtomicU64,
    refused: AtomicU64,
    abandoned: AtomicU64,
    requests: AtomicU64,
    failed_requests: AtomicU64,
    points_sent: AtomicU64,
    points_refused: AtomicU64,
    points_overflowed: AtomicU64,
}

/// Adds to a counter.
fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// Takes from a counter, down to nothing.
fn take(counter: &AtomicU64, count: u64) {
    // The closure always gives a value.
    _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |value| Some(value.saturating_sub(count)));
}

/// What became of a batch of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The receiver has them, save so many that it would not have.
    Sent { rejected: u64 },
    /// The receiver would not have any.
    Refused,
    /// They were tried for long enough, or the end has come.
    Abandoned,
}

impl Counters {
    /// Drops that the sink was given to be told as log records: without those that are left out.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Drops that are no log records: noise, and what does not concern the cluster. They are in the metrics.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Repeats that are gathered and go into a record at the end of the interval.
    pub fn gathered(&self) -> u64 {
        self.gathered.load(Ordering::Relaxed)
    }

    /// Repeats that are in no record: more different ones came in an interval than are gathered. They are in the metrics.
    pub fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Drops that records were made of, whatever became of those.
    pub fn reported(&self) -> u64 {
        self.reported.load(Ordering::Relaxed)
    }

    /// Records made.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Records that wait in the queue or are on their way.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Records that the receiver has taken.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Records lost because the queue was full.
    pub fn queue_full(&self) -> u64 {
        self.queue_full.load(Ordering::Relaxed)
    }

    /// Records lost because the receiver would not have them: for good, or as a part of a request.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Records lost because the receiver did not take them in time, or by the end.
    pub fn abandoned(&self) -> u64 {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Records lost, for whatever reason.
    pub fn lost(&self) -> u64 {
        self.queue_full() + self.refused() + self.abandoned()
    }

    /// Requests that were answered or failed, for logs and metrics.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Those that failed, were refused or are to be tried again.
    pub fn failed_requests(&self) -> u64 {
        self.failed_requests.load(Ordering::Relaxed)
    }

    /// Data points of metrics that the receiver has taken.
    pub fn points_sent(&self) -> u64 {
        self.points_sent.load(Ordering::Relaxed)
    }

    /// Data points that it would not have. Sums go on: nothing is lost if it takes the next ones.
    pub fn points_refused(&self) -> u64 {
        self.points_refused.load(Ordering::Relaxed)
    }

    /// Drops that are in a series for the rest, because there were too many series.
    pub fn points_overflowed(&self) -> u64 {
        self.points_overflowed.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self, drops: u64) {
        add(&self.taken, drops);
    }

    pub(super) fn leave_out(&self, drops: u64) {
        add(&self.left_out, drops);
    }

    pub(super) fn gather(&self, drops: u64) {
        add(&self.gathered, drops);
    }

    pub(super) fn overflow(&self, drops: u64) {
        add(&self.overflowed, drops);
    }

    /// Repeats that were gathered go on as a record.
    pub(super) fn ungather(&self, drops: u64) {
        take(&self.gathered, drops);
    }

    /// A record was made of so many drops, and is about to go into the queue.
    pub(super) fn record(&self, drops: u64) {
        add(&self.reported, drops);
        add(&self.records, 1);
        add(&self.waiting, 1);
    }

    /// It did not fit.
    pub(super) fn full(&self) {
        take(&self.waiting, 1);
        add(&self.queue_full, 1);
    }

    pub(super) fn settle(&self, records: u64, fate: Fate) {
        take(&self.waiting, records);
        match fate {
            Fate::Sent { rejected } => {
                let rejected = rejected.min(records);
                add(&self.sent, records - rejected);
                add(&self.refused, rejected);
            }
            Fate::Refused => add(&self.refused, records),
            Fate::Abandoned => add(&self.abandoned, records),
        }
    }

    /// Nobody sends what still waits.
    pub(super) fn abandon_the_rest(&self) -> u64 {
        let rest = self.waiting.swap(0, Ordering::Relaxed);
        add(&self.abandoned, rest);
        rest
    }

    pub(super) fn request(&self, failed: bool) {
        add(&self.requests, 1);
        add(&self.failed_requests, u64::from(failed));
    }

    pub(super) fn points(&self, points: u64, rejected: u64) {
        let rejected = rejected.min(points);
        add(&self.points_sent, points - rejected);
        add(&self.points_refused, rejected);
    }

    pub(super) fn points_overflow(&self, drops: u64) {
        add(&self.points_overflowed, drops);
    }
}
