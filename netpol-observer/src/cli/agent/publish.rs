//! Where an agent's drops go besides its readers: metrics, for one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{AgentArgs, say};
use crate::agent::{About, Access, Certificate, Hub, Server, Timings};
use crate::cli::CommandError;
use crate::publish::events::Counters;
use crate::publish::metrics::{DEFAULT_SERIES, Drops, Metrics, Outlets};
use crate::publish::{Progress, Publisher, Sink};

/// What was not sent by then, at the end, is not sent.
const PATIENCE: Duration = Duration::from_secs(5);

/// `--metrics…`
#[derive(Args)]
pub(super) struct MetricsArgs {
    /// Serve /metrics for Prometheus here, and nothing else. Other than on a loopback address it takes TLS and the token of somebody who may get /metrics
    /// (docs/metrics.md).
    #[arg(id = "metrics_listen", long = "metrics", value_name = "ADDRESS:PORT", help_heading = "Metrics")]
    pub(super) listen: Option<SocketAddr>,

    /// Tell drops in so many series at most; what does not fit is counted in an overflow.
    #[arg(id = "metrics_series", long = "metrics-series", value_name = "N", default_value_t = DEFAULT_SERIES, value_parser = parse_series, help_heading = "Metrics")]
    series: usize,
}

fn parse_series(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|series| (1..=100_000).contains(series)).ok_or_else(|| "expected a number from 1 to 100000".to_owned())
}

impl MetricsArgs {
    /// Whether callers come over the network.
    pub(super) fn is_open(&self) -> bool {
        self.listen.is_some_and(|address| !address.ip().to_canonical().is_loopback())
    }
}

/// Drops on their way to the sinks.
pub(super) struct Publishing {
    /// Gives them to the sinks.
    publisher: JoinHandle<()>,
    /// What sinks have handed on, on its way; each ends by itself after the publisher.
    tasks: Vec<JoinHandle<()>>,
    /// What became of Events, where some were wanted.
    events: Option<Arc<Counters>>,
    pub(super) metrics: Arc<Metrics>,
}

impl AgentArgs {
    /// Begins to give drops to what they are wanted for.
    pub(super) fn publish(&self, api: &Runtime, hub: &Arc<Hub>, about: &About, timings: &Timings) -> Result<Publishing, CommandError> {
        let (progress, drops) = (Arc::new(Progress::default()), Drops::new(self.metrics.series));
        let mut sinks = vec![drops.sink()];
        let (outlets, tasks) = self.outlets(api, about, &mut sinks)?;
        let publisher = api.spawn(Publisher::new(hub.part(), sinks, Arc::clone(&progress)).run());
        let events = outlets.events.clone();
        Ok(Publishing { publisher, tasks, events, metrics: Arc::new(Metrics::new(drops, progress, outlets, timings)) })
    }

    /// Where else drops are wanted.
    fn outlets(
        &self,
        api: &Runtime,
        about: &About,
        sinks: &mut Vec<Box<dyn Sink>>,
    ) -> Result<(Outlets, Vec<JoinHandle<()>>), CommandError> {
        let (mut outlets, mut tasks) = (Outlets::default(), Vec::new());
        if let Some((events, task)) = self.events.start(api, &self.configuration(), about)? {
            outlets.events = Some(events.counters());
            tasks.push(task);
            sinks.push(Box::new(events));
        }
        if let Some(sink) = self.otlp.sink(api, about)? {
            outlets.otlp = Some(sink.counters());
            sinks.push(Box::new(sink));
        }
        Ok((outlets, tasks))
    }

    /// Serves metrics by a listener of their own, where that is wanted.
    pub(super) fn serve_metrics(
        &self,
        api: &Runtime,
        server: &Server,
        access: Access,
        certificate: Option<&Certificate>,
        until: watch::Receiver<bool>,
    ) -> Result<Option<JoinHandle<io::Result<()>>>, CommandError> {
        let Some(wanted) = self.metrics.listen else { return Ok(None) };
        let listener = Server::bind(wanted).map_err(|error| {
            CommandError::failure(format!("cannot listen on {wanted}: {error}")).hint("--metrics takes another address or port")
        })?;
        let address = listener.local_addr().unwrap_or(wanted);
        let certificate = certificate.filter(|_| self.metrics.is_open());
        let server = server.for_metrics(access, certificate);
        let scheme = if certificate.is_some() { "https" } else { "http" };
        say(&format!("metrics on {scheme}://{address}/metrics"));
        Ok(Some(api.spawn(async move { server.serve(listener, until).await })))
    }
}

impl Publishing {
    /// Waits until everything was given that the hub had when it was closed.
    pub(super) async fn ended(self) {
        let all = async {
            for task in [self.publisher].into_iter().chain(self.tasks) {
                // Whatever became of it, the others are waited for.
                _ = task.await;
            }
        };
        if timeout(PATIENCE, all).await.is_err() {
            tracing::warn!("drops were left that could not be counted or sent in time");
        }
        if let Some(events) = self.events {
            say(&format!("Events: {events}"));
        }
    }
}
