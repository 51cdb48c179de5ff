//! The log that readers take from: bounded by number, age and bytes, with the time from which on it is complete.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::reader::{CaughtUp, Lost, Reader, Taken, TooManyReaders};
use super::{Observation, bytes};
use crate::serve::Ledger;

/// Bounds of a [`Hub`].
#[derive(Clone, Copy, Debug)]
pub struct HubOptions {
    /// Observations kept.
    pub retain: usize,
    /// How long they are kept.
    pub retain_for: SignedDuration,
    /// Estimated bytes kept.
    pub retain_bytes: usize,
    /// Readers at once.
    pub readers: usize,
}

impl Default for HubOptions {
    fn default() -> Self {
        HubOptions { retain: 20_000, retain_for: SignedDuration::from_mins(10), retain_bytes: 32 * 1024 * 1024, readers: 64 }
    }
}

/// Where observations go to and readers take them from. One gives, many take; who gives never waits for who takes.
pub struct Hub {
    options: HubOptions,
    log: Mutex<Log>,
    /// Counts what was given. Readers that have everything wait for it to change.
    changed: watch::Sender<u64>,
    readers: AtomicUsize,
}

struct Entry {
    /// When it was given.
    at: Timestamp,
    /// Drops given before it.
    before: u64,
    bytes: usize,
    observation: Observation,
}

#[derive(Default)]
struct Log {
    entries: VecDeque<Entry>,
    /// Number of the first entry, counted from the start of the hub.
    first: u64,
    bytes: usize,
    /// Drops given so far.
    drops: u64,
    /// From when on the log is complete; absent before the capture has begun.
    complete_since: Option<Timestamp>,
    /// All before this was given.
    watermark: Option<Timestamp>,
    /// Account of everything given.
    ledger: Ledger,
    closed: Option<Arc<str>>,
    /// Drops that readers missed.
    lost: u64,
    /// Readers that were turned away.
    refused: u64,
}

/// What there is to say about a hub.
#[derive(Clone, Copy, Debug, Default)]
pub struct HubStatus {
    /// The account of everything given.
    pub ledger: Ledger,
    /// Observations that are kept.
    pub retained: usize,
    /// Their size, estimated.
    pub retained_bytes: usize,
    /// From when on they are complete.
    pub retained_since: Option<Timestamp>,
    /// All before this was given.
    pub watermark: Option<Timestamp>,
    /// Readers there are.
    pub readers: usize,
    /// How many there may be.
    pub max_readers: usize,
    /// Drops that readers missed because they were too slow.
    pub lost: u64,
    /// Readers that were turned away.
    pub refused: u64,
}

impl Hub {
    /// An empty hub. It takes readers once it was [started](Hub::start).
    pub fn new(options: HubOptions) -> Arc<Self> {
        let options = HubOptions { retain: options.retain.max(1), ..options };
        Arc::new(Hub { options, log: Mutex::default(), changed: watch::Sender::new(0), readers: AtomicUsize::new(0) })
    }

    /// Says that everything from `now` on is given.
    pub fn start(&self, now: Timestamp) {
        let mut log = self.lock();
        log.complete_since = Some(now);
        log.watermark = Some(now);
    }

    /// Whether it was started.
    pub fn is_started(&self) -> bool {
        self.lock().complete_since.is_some()
    }

    /// Takes observations, in their order. Everything that happened before `watermark` was given now or earlier; `now` is the wall clock.
    pub fn give(&self, observations: Vec<Observation>, watermark: Timestamp, now: Timestamp) {
        // Estimated before the lock is taken, for readers wait for it.
        let entries: Vec<(usize, Observation)> =
            observations.into_iter().map(|observation| (size_of::<Entry>() + bytes::of(&observation), observation)).collect();
        let nothing = entries.is_empty();
        let mut log = self.lock();
        for (bytes, observation) in entries {
            log.push(Entry { at: now, before: 0, bytes, observation });
            while log.entries.len() > self.options.retain || log.bytes > self.options.retain_bytes {
                log.forget_oldest();
            }
        }
        let oldest = now.checked_sub(self.options.retain_for).unwrap_or(Timestamp::MIN);
        while log.entries.front().is_some_and(|entry| entry.at < oldest) {
            log.forget_oldest();
        }
        log.watermark = log.watermark.max(Some(watermark));
        drop(log);
        // Watermarks alone wake nobody: readers look for them by themselves.
        if nothing {
            return;
        }
        self.changed.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// Ends: readers take what is left, and are told why there is no more.
    pub fn close(&self, reason: &str) {
        self.lock().closed = Some(reason.into());
        self.changed.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// A reader that begins with the oldest observation kept, or with what comes from now on.
    ///
    /// # Errors
    /// There are as many as there may be.
    pub fn reader(self: &Arc<Self>, from_oldest: bool) -> Result<Reader, TooManyReaders> {
        let max = self.options.readers;
        let one_more = |readers: usize| (readers < max).then_some(readers + 1);
        if self.readers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            self.lock().refused += 1;
            return Err(TooManyReaders { max });
        }
        let changed = self.changed.subscribe();
        let log = self.lock();
        let head = log.head();
        let next = if from_oldest { log.first } else { head };
        let drops = if from_oldest { log.entries.front().map_or(log.drops, |entry| entry.before) } else { log.drops };
        let since = log.complete_since.unwrap_or(Timestamp::MIN);
        let watermark = log.watermark.unwrap_or(since);
        Ok(Reader::new(Arc::clone(self), changed, next, head, drops, since, watermark))
    }

    /// A reader that is a part of the agent: it has everything from the start on, and takes no reader's place.
    pub fn part(self: &Arc<Self>) -> Reader {
        let changed = self.changed.subscribe();
        let log = self.lock();
        let since = log.complete_since.unwrap_or(Timestamp::MIN);
        let drops = log.entries.front().map_or(log.drops, |entry| entry.before);
        Reader::new(Arc::clone(self), changed, log.first, log.head(), drops, since, log.watermark.unwrap_or(since)).uncounted()
    }

    /// What comes next for a reader.
    pub(super) fn take(&self, next: u64, drops: u64, limit: usize) -> Taken {
        let mut log = self.lock();
        let mut from = next;
        let mut lost = None;
        if from < log.first {
            let before = log.entries.front().map_or(log.drops, |entry| entry.before);
            let count = before.saturating_sub(drops);
            log.lost += count;
            from = log.first;
            // Counters and notices that fell out are no loss worth a line.
            lost = (count > 0).then_some(Lost { count, drops: before });
        }
        let skip = usize::try_from(from - log.first).unwrap_or(usize::MAX);
        let observations: Vec<_> =
            log.entries.range(skip.min(log.entries.len())..).take(limit).map(|entry| (entry.at, entry.observation.clone())).collect();
        let next = from + observations.len() as u64;
        let caught_up = (next == log.head()).then_some(CaughtUp { watermark: log.watermark });
        Taken { observations, next, lost, kernel: log.ledger.kernel, closed: log.closed.clone(), caught_up }
    }

    /// Passes over everything that is left for a reader: the number of what comes next, and what it misses.
    pub(super) fn skip(&self, drops: u64) -> (u64, Lost) {
        let mut log = self.lock();
        let lost = Lost { count: log.drops.saturating_sub(drops), drops: log.drops };
        log.lost += lost.count;
        (log.head(), lost)
    }

    /// A reader has gone.
    pub(super) fn leave(&self) {
        self.readers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Readers there are.
    pub fn readers(&self) -> usize {
        self.readers.load(Ordering::Relaxed)
    }

    /// The account of everything given: `shown` and `repeats` are what was handed to readers, whoever they were.
    pub fn ledger(&self) -> Ledger {
        self.lock().ledger
    }

    pub(super) fn status(&self) -> HubStatus {
        let log = self.lock();
        HubStatus {
            ledger: log.ledger,
            retained: log.entries.len(),
            retained_bytes: log.bytes,
            retained_since: log.complete_since,
            watermark: log.watermark,
            readers: self.readers(),
            max_readers: self.options.readers,
            lost: log.lost,
            refused: log.refused,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // Nothing panics while it is held; a log that a panic left is as good as before.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn head(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn push(&mut self, entry: Entry) {
        self.account(&entry.observation);
        if let Observation::Ledger(ledger) = entry.observation {
            // Only the last one counts, and readers get it when they have everything.
            self.ledger.kernel = Some(ledger);
            return;
        }
        let before = self.drops;
        self.drops += entry.observation.drops();
        self.bytes += entry.bytes;
        self.entries.push_back(Entry { before, ..entry });
    }

    fn account(&mut self, observation: &Observation) {
        let ledger = &mut self.ledger;
        match observation {
            Observation::Denial(_) => {
                ledger.records += 1;
                ledger.decoded += 1;
                ledger.shown += 1;
            }
            Observation::Repeat { count, .. } => {
                ledger.counted += count;
                ledger.repeats += count;
            }
            Observation::Undecodable => {
                ledger.records += 1;
                ledger.undecodable += 1;
            }
            Observation::Amendment(_) | Observation::PolicyChange(_) | Observation::Ledger(_) | Observation::Notice { .. } => {}
        }
    }

    fn forget_oldest(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.first += 1;
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        // What happened later was given later, or says a later time itself.
        let until = entry.observation.time().map_or(entry.at, |time| time.max(entry.at));
        self.complete_since = self.complete_since.max(Some(until));
    }
}

#[cfg(test)]
mod tests;
