//! Drops for a collector of OpenTelemetry: log records and a metric, over OTLP.
//!
//! ```text
//! take ─┬─▶ LogRecord ─────────▶ queue ─▶ task: batches, tries again ─▶ receiver
//!       ├─▶ Repeats ─ interval ─▶   ″
//!       └─▶ Sums ──── interval ─▶ newest ─▶ task: tries again, until there is a newer one ─▶ receiver
//! ```
//!
//! The sink never waits. The queue is bounded, and every record that is not sent is in [`Counters`] with why. Sums are since the start, so that one which
//! cannot be sent loses nothing.
//!
//! `opentelemetry-otlp` is not used: its batches keep no account of what a receiver rejects, and its tries again are not those of the specification.

mod attribute;
mod client;
mod counters;
mod endpoint;
mod metrics;
mod record;
mod repeats;
#[cfg(test)]
mod tests;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderMap;
use jiff::Timestamp;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::resource::v1::Resource;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use attribute::{MAX_VALUE, SCHEMA};
pub use client::ClientError;
pub use counters::Counters;
pub use endpoint::{Endpoint, EndpointError, Protocol, headers_from_lines, headers_from_list, pairs};
pub use metrics::{DROPS, UNIT};
pub use record::{DROP, REPEATS};

use self::attribute::text;
use self::client::Client;
use self::metrics::Sums;
use self::repeats::{Gathered, Repeats, Taken};
use self::worker::Sender;
use super::Sink;
use crate::agent::About;
use crate::diagnose::Class;
use crate::serve::Settled;

/// Different drops whose repeats are gathered in an interval.
const MAX_GATHERED: usize = 2_048;
/// What was not sent by then, at the end, is lost. The publisher waits somewhat longer.
const FLUSH: Duration = Duration::from_secs(3);

/// Where drops are sent, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The receiver.
    pub endpoint: Endpoint,
    /// Go with each request.
    pub headers: HeaderMap,
    /// Certificates that are trusted instead of the machine's own: a file, PEM.
    pub ca: Option<PathBuf>,
    /// Between two exports of the metric, and of gathered repeats.
    pub interval: Duration,
    /// Records that wait at most.
    pub queue: usize,
    /// Series of the metric at most, not counting those for the rest.
    pub series: usize,
    /// Who the agent is.
    pub about: About,
    /// This machine's name.
    pub host: Option<String>,
    /// Attributes of the resource besides its own.
    pub resource: Vec<(String, String)>,
}

/// The sink.
pub struct Otlp {
    interval: Duration,
    /// When repeats and sums are to go on next.
    due: Option<Timestamp>,
    repeats: Repeats,
    sums: Sums,
    counters: Arc<Counters>,
    queue: Option<mpsc::Sender<LogRecord>>,
    newest: Option<watch::Sender<Option<(Metric, u64)>>>,
    end: watch::Sender<Option<Instant>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Otlp {
    /// Begins to send, by tasks of that runtime. Whether the receiver is there is not asked: an agent does not wait for it.
    ///
    /// # Errors
    /// The certificates cannot be read, there is no TLS, or the URL is none.
    pub fn start(options: Options, runtime: &Handle) -> Result<Self, ClientError> {
        let Options { endpoint, headers, ca, interval, queue, series, about, host, resource } = options;
        let client = Client::new(endpoint, headers, ca.as_deref())?;
        let counters = Arc::new(Counters::default());
        let (queue, records) = mpsc::channel(queue.max(1));
        let (newest, sums) = watch::channel(None);
        let (end, until) = watch::channel(None);
        let resource = of_agent(&about, host.as_deref(), &resource);
        let sender = Sender { client, resource, counters: Arc::clone(&counters), end: until, patience: worker::PATIENCE };
        let tasks = vec![runtime.spawn(sender.clone().logs(records)), runtime.spawn(sender.metrics(sums))];
        Ok(Otlp {
            interval,
            due: None,
            repeats: Repeats::new(MAX_GATHERED),
            sums: Sums::new(about.started, series),
            counters,
            queue: Some(queue),
            newest: Some(newest),
            end,
            tasks,
        })
    }

    /// What becomes of the drops.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    fn send(&self, record: LogRecord, drops: u64) {
        self.counters.record(drops);
        // Without a queue the end has been, and nobody sends any more.
        match self.queue.as_ref().map(mpsc::Sender::try_reserve) {
            Some(Ok(place)) => place.send(record),
            Some(Err(_)) | None => self.counters.full(),
        }
    }

    fn send_gathered(&self, gathered: &Gathered, now: Timestamp) {
        self.counters.ungather(gathered.count);
        let Gathered { id, brief, count, last } = gathered;
        self.send(record::of_repeats(&id.to_string(), brief, *count, *last, now), *count);
    }

    fn send_what_is_due(&mut self, now: Timestamp) {
        for gathered in self.repeats.drain() {
            self.send_gathered(&gathered, now);
        }
        if let (Some(newest), Some(metric)) = (&self.newest, self.sums.metric(now)) {
            newest.send_replace(Some(metric));
        }
    }
}

impl Sink for Otlp {
    fn take(&mut self, settled: &Settled, now: Timestamp) {
        if !self.sums.add(&settled.brief, settled.count) {
            self.counters.points_overflow(settled.count);
        }
        // As `observer tail` does by default.
        if settled.brief.is_elsewhere || settled.brief.route.class == Class::Noise {
            self.counters.leave_out(settled.count);
            return;
        }
        self.counters.take(settled.count);
        if let Some(denial) = &settled.denial {
            self.send(record::of_drop(settled, denial, now), settled.count);
            return;
        }
        match self.repeats.take(settled) {
            Taken::Gathered => self.counters.gather(settled.count),
            Taken::Instead(other) => {
                self.counters.gather(settled.count);
                self.send_gathered(&other, now);
            }
            Taken::Overflow => self.counters.overflow(settled.count),
        }
    }

    fn tick(&mut self, now: Timestamp) {
        let due = *self.due.get_or_insert(now + self.interval);
        // A clock that was set back does not stop it.
        if now >= due || due > now + self.interval {
            self.due = Some(now + self.interval);
            self.send_what_is_due(now);
        }
    }

    fn finish(&mut self, now: Timestamp) {
        self.send_what_is_due(now);
        self.queue = None;
        self.newest = None;
        self.end.send_replace(Some(Instant::now() + FLUSH));
    }

    fn tasks(&mut self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.tasks)
    }
}

/// What all that is sent is of: the agent. What an environment adds does not replace what is known.
fn of_agent(about: &About, host: Option<&str>, more: &[(String, String)]) -> Resource {
    use attribute::resource::{HOST_NAME, K8S_NODE, K8S_POD, SERVICE_INSTANCE, SERVICE_NAME, SERVICE_VERSION};
    let mut attributes = vec![
        text(SERVICE_NAME, crate::publish::NAME),
        text(SERVICE_VERSION, about.version),
        text(SERVICE_INSTANCE, &instance(about)),
        text(K8S_NODE, &about.node),
    ];
    attributes.extend(about.pod.as_ref().map(|pod| text(K8S_POD, pod)));
    attributes.extend(host.map(|host| text(HOST_NAME, host)));
    let is_new = |attributes: &[KeyValue], key: &str| attributes.iter().all(|own| own.key != key);
    for (key, value) in more {
        if is_new(&attributes, key) {
            attributes.push(text(key, value));
        }
    }
    Resource { attributes, ..Resource::default() }
}

/// A UUID of version 4, as the conventions want it; where there is no chance to be had, the node and the time.
fn instance(about: &About) -> String {
    let mut bytes = [0_u8; 16];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        return format!("{}-{}", about.node, about.started.as_millisecond());
    }
    let number = u128::from_be_bytes(bytes) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let digits = format!("{number:032x}");
    // Only digits of ASCII: every place is a boundary.
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default().to_owned();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}
