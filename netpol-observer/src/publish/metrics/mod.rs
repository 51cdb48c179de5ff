//! Metrics for Prometheus: what an agent's drops were, and how it does.
//!
//! Drops are counted when they are settled. Everything else is what the agent is at the time of the scrape. The number of series is bounded:
//! [`Drops`] has an overflow, and what is told of watches is as many lines as the cluster has kinds.

mod drops;
mod outlets;
mod process;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::{Registry, Unit};

pub use self::drops::{DEFAULT_SERIES, Drops, Labels, OVERFLOW};
pub use self::outlets::Outlets;

use super::Progress;
use crate::agent::{Page, Snapshot, Timings};

/// What every name begins with.
const PREFIX: &str = "netpol_observer";

/// The page at `/metrics`.
pub struct Metrics {
    registry: Registry,
    drops: Drops,
    progress: Arc<Progress>,
    outlets: Outlets,
}

impl Metrics {
    /// Over drops that are counted elsewhere, how far they have come, what becomes of them in other sinks, and how long things take.
    pub fn new(drops: Drops, progress: Arc<Progress>, outlets: Outlets, timings: &Timings) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register("drops", "Drops that were explained, some seconds after they happened", drops.family());
        for (name, help, histogram) in [
            ("explanation_duration", "Time to explain a drop; of drops that are explained together the mean", &timings.explanation),
            ("report_delay", "Time from a drop in the kernel until readers have it explained", &timings.report),
            ("watch_lag", "Time from when a change was read from a watch until drops are judged by it", &timings.update),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
        Metrics { registry, drops, progress, outlets }
    }
}

impl Page for Metrics {
    fn content_type(&self) -> &'static str {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    }

    fn text(&self, snapshot: &Snapshot) -> String {
        let now = state::registry(snapshot, &self.drops, &self.progress, &self.outlets);
        let process = process::registry();
        let mut text = String::new();
        // A string takes everything.
        _ = [&self.registry, &now, &process]
            .into_iter()
            .try_for_each(|registry| encode_registry(&mut text, registry))
            .and_then(|()| encode_eof(&mut text));
        text
    }
}
