//! What became of drops that are sent elsewhere.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::super::events::{self, Untold};
use super::super::otlp;

/// The accounts of the sinks that there are.
#[derive(Clone, Debug, Default)]
pub struct Outlets {
    /// To a collector of OpenTelemetry.
    pub otlp: Option<Arc<otlp::Counters>>,
    /// Events of Kubernetes.
    pub events: Option<Arc<events::Counters>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

pub(super) fn register(registry: &mut Registry, outlets: &Outlets) {
    if let Some(otlp) = &outlets.otlp {
        let records =
            [("sent", otlp.sent()), ("queue_full", otlp.queue_full()), ("refused", otlp.refused()), ("abandoned", otlp.abandoned())];
        registry.register("otlp_records", "OTLP log records by what became of them; one may stand for many drops", by_outcome(&records));
        let waiting = i64::try_from(otlp.waiting()).unwrap_or(i64::MAX);
        registry.register("otlp_records_waiting", "OTLP log records that wait or are on their way", ConstGauge::new(waiting));
        let requests = [("failed", otlp.failed_requests()), ("answered", otlp.requests().saturating_sub(otlp.failed_requests()))];
        registry.register("otlp_requests", "Requests to the collector, for logs and metrics", by_outcome(&requests));
        registry.register(
            "otlp_drops_overflowed",
            "Repeats that are in no record: more different ones came than are gathered",
            ConstCounter::new(otlp.overflowed()),
        );
    }
    if let Some(events) = &outlets.events {
        let requests = [("created", events.written()), ("patched", events.patched()), ("failed", events.failed())];
        registry.register("event_requests", "Requests that write Events, by what became of them", by_outcome(&requests));
        let mut mentions: Vec<_> = Untold::ALL.map(|why| (why.name(), events.untold(why))).to_vec();
        mentions.push(("told", events.told()));
        registry.register("event_mentions", "Drops that concern a pod, by what became of their Event", by_outcome(&mentions));
        let waiting = i64::try_from(events.waiting()).unwrap_or(i64::MAX);
        registry.register("event_mentions_waiting", "Those that are yet to be written", ConstGauge::new(waiting));
    }
}

fn by_outcome(counts: &[(&'static str, u64)]) -> Family<Outcome, Counter> {
    let family = Family::<Outcome, Counter>::default();
    for (outcome, count) in counts {
        family.get_or_create(&Outcome { outcome }).inc_by(*count);
    }
    family
}
