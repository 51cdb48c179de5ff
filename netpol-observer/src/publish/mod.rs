//! Drops for other programs: counted for Prometheus, as Events of Kubernetes, as OTLP records.
//!
//! ```text
//! Hub ─▶ Reader ─ Settling ─┬─▶ Sink: metrics
//!                           ├─▶ Sink: Events
//!                           └─▶ Sink: OTLP
//! ```
//!
//! What is counted or sent cannot be taken back, so drops go on only when nothing can make them others any more ([`Settling`]): some
//! seconds after they happened.
#![forbid(unsafe_code)]

pub mod events;
pub mod metrics;
pub mod otlp;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::agent::{Observation, Reader};
use crate::serve::{Settled, Settling};

/// What this program is called where its drops go.
pub const NAME: &str = "netpol-observer";

/// Observations that are taken in one go.
const TOGETHER: usize = 256;
/// The longest time without a look at what is due.
const TICK: Duration = Duration::from_millis(500);

/// Where drops go. It is called by one thread, and must not wait: what takes time, it hands to a task of its own, and counts what that one cannot take.
pub trait Sink: Send {
    /// Takes drops. `now` is the wall clock.
    fn take(&mut self, settled: &Settled, now: Timestamp);

    /// Called twice a second at least.
    fn tick(&mut self, now: Timestamp) {
        _ = now;
    }

    /// There is no more: what is waiting goes on.
    fn finish(&mut self, now: Timestamp) {
        self.tick(now);
    }

    /// What still sends then. The publisher waits for it, and whoever waits for the publisher bounds the time.
    fn tasks(&mut self) -> Vec<JoinHandle<()>> {
        Vec::new()
    }
}

/// Where drops are that did not come to the sinks, or did not yet.
#[derive(Debug, Default)]
pub struct Progress {
    settled: AtomicU64,
    open: AtomicU64,
    lost: AtomicU64,
    unattributed: AtomicU64,
    undecodable: AtomicU64,
}

impl Progress {
    /// Drops that the sinks were given.
    pub fn settled(&self) -> u64 {
        self.settled.load(Ordering::Relaxed)
    }

    /// Drops that may yet turn out to be others.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Drops that went by because more came than could be taken.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Repeats of drops that went by or are forgotten.
    pub fn unattributed(&self) -> u64 {
        self.unattributed.load(Ordering::Relaxed)
    }

    /// Records that hold no packet this program understands.
    pub fn undecodable(&self) -> u64 {
        self.undecodable.load(Ordering::Relaxed)
    }
}

/// Takes observations from a hub, and gives drops to sinks when they are settled.
pub struct Publisher {
    reader: Reader,
    settling: Settling,
    sinks: Vec<Box<dyn Sink>>,
    progress: Arc<Progress>,
}

impl Publisher {
    /// From this reader to these sinks.
    pub fn new(reader: Reader, sinks: Vec<Box<dyn Sink>>, progress: Arc<Progress>) -> Self {
        Publisher { reader, settling: Settling::default(), sinks, progress }
    }

    /// Runs until the hub is closed and everything was taken.
    pub async fn run(mut self) {
        loop {
            let taken = self.reader.take(TOGETHER);
            let now = Timestamp::now();
            if let Some(lost) = taken.lost {
                self.progress.lost.fetch_add(lost.count, Ordering::Relaxed);
            }
            for (_, observation) in &taken.observations {
                let settled = self.observe(observation, now);
                self.give(&settled, now);
            }
            let settled = self.settling.tick(now);
            self.give(&settled, now);
            self.sinks.iter_mut().for_each(|sink| sink.tick(now));
            if taken.caught_up.is_none() {
                // Others on this thread want to be served too.
                tokio::task::yield_now().await;
                continue;
            }
            if taken.closed.is_some() {
                break;
            }
            // Either way there is something to look at.
            _ = timeout(TICK, self.reader.changed()).await;
        }
        let now = Timestamp::now();
        let settled = self.settling.finish();
        self.give(&settled, now);
        self.sinks.iter_mut().for_each(|sink| sink.finish(now));
        for task in self.sinks.iter_mut().flat_map(|sink| sink.tasks()) {
            // A task that did not end well has nothing more to send either.
            _ = task.await;
        }
    }

    fn observe(&mut self, observation: &Observation, now: Timestamp) -> Vec<Settled> {
        match observation {
            Observation::Denial(denial) => self.settling.denial(Arc::clone(denial), now),
            Observation::Repeat { id, count, last } => self.settling.repeat(*id, *count, *last, now),
            Observation::Amendment(amendment) => self.settling.amendment(amendment, now),
            Observation::Undecodable => {
                self.progress.undecodable.fetch_add(1, Ordering::Relaxed);
                Vec::new()
            }
            Observation::PolicyChange(_) | Observation::Ledger(_) | Observation::Notice { .. } => Vec::new(),
        }
    }

    fn give(&mut self, settled: &[Settled], now: Timestamp) {
        for drops in settled {
            self.progress.settled.fetch_add(drops.count, Ordering::Relaxed);
            self.sinks.iter_mut().for_each(|sink| sink.take(drops, now));
        }
        self.progress.open.store(self.settling.open(), Ordering::Relaxed);
        self.progress.unattributed.store(self.settling.unattributed(), Ordering::Relaxed);
    }
}
