//! The tasks that send what the sink hands to them.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::attribute::SCHEMA;
use super::client::{Client, Outcome, Signal};
use super::counters::{Counters, Fate};
use crate::watch::Backoff;

/// Records in a request, at most.
const TOGETHER: usize = 512;
/// Bytes in a request, about: receivers take 4 MiB.
const TOGETHER_BYTES: usize = 2 * 1024 * 1024;
/// A record waits so long for others to go with it.
const LINGER: Duration = Duration::from_secs(1);
/// What the receiver did not take for so long is lost, so that what comes then is not late as well.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);
/// Between two of the same warnings.
const QUIET: Duration = Duration::from_secs(60);
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const LAST_WAIT: Duration = Duration::from_millis(500);

impl Signal for ExportLogsServiceRequest {
    type Answer = ExportLogsServiceResponse;
    const PATH: &'static str = "/v1/logs";
    const METHOD: &'static str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

    fn rejected(answer: Self::Answer) -> (i64, String) {
        answer.partial_success.map(|part| (part.rejected_log_records, part.error_message)).unwrap_or_default()
    }
}

impl Signal for ExportMetricsServiceRequest {
    type Answer = ExportMetricsServiceResponse;
    const PATH: &'static str = "/v1/metrics";
    const METHOD: &'static str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

    fn rejected(answer: Self::Answer) -> (i64, String) {
        answer.partial_success.map(|part| (part.rejected_data_points, part.error_message)).unwrap_or_default()
    }
}

/// When to end: nothing yet, or a time.
pub(super) type End = watch::Receiver<Option<Instant>>;

/// What both tasks need.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) client: Client,
    pub(super) resource: Resource,
    pub(super) counters: Arc<Counters>,
    pub(super) end: End,
    /// How long a record is tried.
    pub(super) patience: Duration,
}

/// Warnings about one signal: one when something begins to go wrong, and then once in a while.
struct Complaints {
    signal: &'static str,
    is_away: bool,
    last: Option<Instant>,
}

impl Complaints {
    fn new(signal: &'static str) -> Self {
        Complaints { signal, is_away: false, last: None }
    }

    /// It could not be sent, and is to be tried again.
    fn away(&mut self, client: &Client, why: &str) {
        if !self.is_away {
            tracing::warn!("OTLP: {} cannot be sent to {}, and are tried again: {why}", self.signal, client.endpoint());
        }
        self.is_away = true;
    }

    /// Something is lost.
    fn lost(&mut self, client: &Client, count: u64, why: &str) {
        if self.last.is_none_or(|last| last.elapsed() >= QUIET) {
            tracing::warn!("OTLP: {} did not take {count} {}: {why}", client.endpoint(), self.signal);
            self.last = Some(Instant::now());
        }
    }

    fn back(&mut self, client: &Client) {
        if self.is_away {
            tracing::warn!("OTLP: {} are sent to {} again", self.signal, client.endpoint());
        }
        self.is_away = false;
    }
}

impl Sender {
    /// Tries until there is an answer, the patience is over, or something better is there to be sent.
    async fn deliver<S: Signal>(&self, request: &S, complaints: &mut Complaints, is_superseded: impl Fn() -> bool) -> Option<Outcome> {
        let start = Instant::now();
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            let outcome = self.client.send(request).await;
            self.counters.request(!matches!(outcome, Outcome::Taken { .. }));
            let Outcome::Later { after, why } = outcome else {
                complaints.back(&self.client);
                return Some(outcome);
            };
            complaints.away(&self.client, &why);
            let is_over = start.elapsed() >= self.patience;
            // A receiver that asks for a time gets it before anything else is sent.
            self.pause(backoff.failed(after)).await;
            if is_over {
                return Some(Outcome::Later { after, why });
            }
            if is_superseded() {
                return None;
            }
        }
    }

    /// Waits. At the end there is little time left to try again.
    async fn pause(&self, wait: Duration) {
        let mut end = self.end.clone();
        if end.borrow().is_some() {
            sleep(wait.min(LAST_WAIT)).await;
            return;
        }
        tokio::select! {
            () = sleep(wait) => {}
            // An error: the sink is gone.
            _ = end.wait_for(Option::is_some) => {}
        }
    }

    /// Sends records as they come, until there are no more or the end is there. What is left then is lost.
    pub(super) async fn logs(self, queue: mpsc::Receiver<LogRecord>) {
        let (counters, end) = (Arc::clone(&self.counters), self.end.clone());
        tokio::select! {
            () = self.all_logs(queue) => {}
            () = over(end) => {}
        }
        let rest = counters.abandon_the_rest();
        if rest > 0 {
            tracing::warn!("OTLP: {rest} log records were left at the end, and are lost");
        }
    }

    async fn all_logs(self, mut queue: mpsc::Receiver<LogRecord>) {
        let mut complaints = Complaints::new("log records");
        while let Some(batch) = self.batch(&mut queue).await {
            let count = batch.len() as u64;
            let outcome = self.deliver(&self.logs_request(batch), &mut complaints, || false).await;
            let fate = match outcome {
                Some(Outcome::Taken { rejected, said }) => {
                    if rejected > 0 || !said.is_empty() {
                        complaints.lost(&self.client, rejected, &said);
                    }
                    Fate::Sent { rejected }
                }
                Some(Outcome::Refused { why }) => {
                    complaints.lost(&self.client, count, &why);
                    Fate::Refused
                }
                Some(Outcome::Later { why, .. }) => {
                    complaints.lost(&self.client, count, &format!("for {} s: {why}", self.patience.as_secs()));
                    Fate::Abandoned
                }
                None => Fate::Abandoned,
            };
            self.counters.settle(count, fate);
        }
    }

    /// The next records, as many as go together.
    async fn batch(&self, queue: &mut mpsc::Receiver<LogRecord>) -> Option<Vec<LogRecord>> {
        let first = queue.recv().await?;
        let mut bytes = first.encoded_len();
        let mut batch = vec![first];
        let until = Instant::now() + LINGER;
        while batch.len() < TOGETHER && bytes < TOGETHER_BYTES {
            // Nothing more comes once the queue is closed.
            let Ok(Some(record)) = timeout(until.saturating_duration_since(Instant::now()), queue.recv()).await else { break };
            bytes += record.encoded_len();
            batch.push(record);
        }
        Some(batch)
    }

    fn logs_request(&self, log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
        let logs = ScopeLogs { scope: Some(scope()), log_records, schema_url: SCHEMA.to_owned() };
        let logs = ResourceLogs { resource: Some(self.resource.clone()), scope_logs: vec![logs], schema_url: SCHEMA.to_owned() };
        ExportLogsServiceRequest { resource_logs: vec![logs] }
    }

    /// Sends sums as they come. One that could not be sent gives way to the next, which has all that is in it.
    pub(super) async fn metrics(self, newest: watch::Receiver<Option<(Metric, u64)>>) {
        let end = self.end.clone();
        tokio::select! {
            () = self.all_metrics(newest) => {}
            () = over(end) => {}
        }
    }

    async fn all_metrics(self, mut newest: watch::Receiver<Option<(Metric, u64)>>) {
        let mut complaints = Complaints::new("metrics");
        while newest.changed().await.is_ok() {
            let Some((metric, points)) = newest.borrow_and_update().clone() else { continue };
            let is_superseded = || newest.has_changed().unwrap_or(false);
            match self.deliver(&self.metrics_request(metric), &mut complaints, is_superseded).await {
                Some(Outcome::Taken { rejected, said }) => {
                    if rejected > 0 || !said.is_empty() {
                        complaints.lost(&self.client, rejected, &said);
                    }
                    self.counters.points(points, rejected);
                }
                Some(Outcome::Refused { why }) => {
                    complaints.lost(&self.client, points, &why);
                    self.counters.points(points, points);
                }
                Some(Outcome::Later { .. }) | None => {}
            }
        }
    }

    fn metrics_request(&self, metric: Metric) -> ExportMetricsServiceRequest {
        let metrics = ScopeMetrics { scope: Some(scope()), metrics: vec![metric], schema_url: SCHEMA.to_owned() };
        let metrics =
            ResourceMetrics { resource: Some(self.resource.clone()), scope_metrics: vec![metrics], schema_url: SCHEMA.to_owned() };
        ExportMetricsServiceRequest { resource_metrics: vec![metrics] }
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "netpol-observer".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

/// Waits for the end, and until it is over.
async fn over(mut end: End) {
    let at = match end.wait_for(Option::is_some).await {
        Ok(at) => *at,
        // The sink is gone, and with it the queue: what is in it may still be sent.
        Err(_) => None,
    };
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
