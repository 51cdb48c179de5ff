//! Drops as Events of Kubernetes (`events.k8s.io/v1`): on the pod that was blocked, and on the one whose policies blocked it.
//!
//! ```text
//! Settled ─ mentions ─▶ Events ─ bounded queue ─▶ Writer ─ Table (series, limits) ─▶ API server
//! ```
//!
//! The first drop of a series is an Event; further ones change its `series`, now and then. docs/events.md says what is written, how often,
//! and what that discloses. What is not written is counted, by cause ([`Counters`]).

mod account;
mod limit;
mod mention;
mod note;
mod refusals;
mod table;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::events::v1::EventSeries;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use account::{Counters, Untold};
pub use limit::Rate;

use self::mention::{Mention, mentions};
use self::note::Reporter;
use self::table::Table;
use self::writer::Writer;
use super::Sink;
use crate::identify::Party;
use crate::policy::PolicyRef;
use crate::serve::Settled;

/// `reportingController` of the Events.
pub const CONTROLLER: &str = "netpol-observer.io/agent";

/// Mentions that wait for the task which writes. It takes them also while it waits for the API server; but drops are settled in bursts, of 4,096 at most, each of
/// which may be told to two pods.
const QUEUE: usize = 8192;

/// What an Event may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disclosure {
    /// What is in the namespace of the pod that it is about, and cluster-scoped policies: as a reader in tenant mode would be shown it.
    OwnNamespace,
    /// Pods, labels and policies of any namespace.
    AcrossNamespaces,
}

impl Disclosure {
    /// Whether an Event in one namespace may name what is in another.
    fn names(self, own: &str, other: &str) -> bool {
        self == Disclosure::AcrossNamespaces || own == other
    }

    fn names_policy(self, own: &str, policy: &PolicyRef) -> bool {
        policy.namespace.is_empty() || self.names(own, &policy.namespace)
    }

    fn names_party(self, own: &str, party: &Party) -> bool {
        party.identity.pod().is_none_or(|pod| self.names(own, &pod.namespace))
    }
}

/// How much is written.
///
/// A rule that blocks something everywhere does so on all nodes at once. At the rates of the default 1,000 agents then write 200 Events and 200 changes per
/// second in the long run; a kubelet alone may write 50 Events per second (`eventRecordQPS`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// New Events of the agent.
    pub creations: Rate,
    /// Changes of series.
    pub changes: Rate,
    /// New Events of a pod: less at once than of all, so that a pod which tries all ports leaves something for others.
    pub of_pod: Rate,
    /// Series that are remembered.
    pub series: usize,
    /// The time from a new Event to the first change of its series: that it goes on is worth to be told soon.
    pub first_change: Duration,
    /// The time from there to the next change, which doubles with each.
    pub first_pause: Duration,
    /// The longest time between two changes. Events are kept for an hour since they were changed last.
    pub last_pause: Duration,
    /// A series ends after so long without a drop, as those of client-go do.
    pub finished_after: Duration,
    /// A new Event that could not be written for so long is not news any more.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let rate = |burst, seconds| Rate { burst, every: Duration::from_secs(seconds) };
        Limits {
            creations: rate(25, 5),
            changes: rate(10, 5),
            of_pod: rate(10, 300),
            series: 1024,
            first_change: Duration::from_secs(5),
            first_pause: Duration::from_secs(30),
            last_pause: Duration::from_secs(240),
            finished_after: Duration::from_secs(360),
            patience: Duration::from_secs(300),
        }
    }
}

/// Who writes, and what.
#[derive(Clone, Debug)]
pub struct EventsOptions<'a> {
    /// The agent's node.
    pub node: &'a str,
    /// The agent's pod, where it is one.
    pub pod: Option<&'a str>,
    /// What Events may name.
    pub disclosure: Disclosure,
    /// How much is written.
    pub limits: Limits,
}

/// Takes drops, and has Events written of them.
pub struct Events {
    disclosure: Disclosure,
    /// Absent when there is no more.
    queue: Option<mpsc::Sender<Mention>>,
    account: Arc<Counters>,
}

impl Events {
    /// Has Events written with this client, by a task of the runtime that this is called in. It ends some seconds after
    /// [`finish`](Sink::finish) at most.
    pub fn start(client: Client, options: &EventsOptions<'_>) -> (Self, JoinHandle<()>) {
        let account = Arc::new(Counters::default());
        let (queue, taken) = mpsc::channel(QUEUE);
        let reporter = Reporter::new(options.node, options.pod, options.disclosure);
        let table = Table::new(reporter, options.limits.clone(), Arc::clone(&account));
        let task = writer::start(Writer::new(client, table, taken));
        (Events { disclosure: options.disclosure, queue: Some(queue), account }, task)
    }

    /// What became of the drops.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.account)
    }

    fn queue(&self, mention: Mention) {
        let count = mention.count;
        self.account.count_mentions(count);
        let Some(queue) = &self.queue else {
            self.account.count_untold(Untold::Ended, count);
            return;
        };
        match queue.try_send(mention) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => self.account.count_untold(Untold::QueueFull, count),
            Err(mpsc::error::TrySendError::Closed(_)) => self.account.count_untold(Untold::Ended, count),
        }
    }
}

impl Sink for Events {
    fn take(&mut self, settled: &Settled, _now: Timestamp) {
        let mentions = mentions(settled, self.disclosure);
        if mentions.is_empty() {
            self.account.count_unconcerned(settled.count);
        }
        for mention in mentions {
            self.queue(mention);
        }
    }

    fn finish(&mut self, _now: Timestamp) {
        self.queue = None;
    }
}

/// A series as the API has it.
fn series_of(count: u64, last: Timestamp) -> EventSeries {
    EventSeries { count: i32::try_from(count).unwrap_or(i32::MAX), last_observed_time: MicroTime(last) }
}
