//! What the agent is at the time of a scrape.

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::super::Progress;
use super::{Drops, Outlets, PREFIX, outlets};
use crate::agent::{HubStatus, Snapshot};
use crate::serve::Ledger;
use crate::watch::{State, Status};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stage {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Resource {
    resource: String,
}

/// A registry of these values.
pub(super) fn registry(snapshot: &Snapshot, drops: &Drops, progress: &Progress, outlets: &Outlets) -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    about(&mut registry, snapshot);
    ledger(&mut registry, &snapshot.hub.ledger, progress);
    series(&mut registry, drops, progress);
    readers(&mut registry, &snapshot.hub);
    objects(&mut registry, snapshot);
    if let Some(watches) = &snapshot.watches {
        resources(&mut registry, watches, snapshot);
    }
    outlets::register(&mut registry, outlets);
    registry
}

fn about(registry: &mut Registry, snapshot: &Snapshot) {
    let about = &snapshot.about;
    let mut build = vec![("version", about.version.to_owned())];
    if let Some(kernel) = &snapshot.kernel {
        build.push(("kernel", kernel.release.clone()));
        build.push(("attach", kernel.attach.unwrap_or("recording").to_owned()));
    }
    registry.register("build", "The program and the kernel that it captures from", Info::new(build));
    registry.register(
        "ready",
        "Whether answers can be relied on: the capture is attached, all objects are known",
        flag(snapshot.missing.is_empty()),
    );
    registry.register("start_timestamp_seconds", "When the agent started", ConstGauge::new(seconds(about.started)));
    let problems = snapshot.kernel.as_ref().map_or(0, |kernel| kernel.problems.len());
    registry.register("kernel_problems", "What does not work as it should on this kernel, as status says", gauge(problems));
}

/// The stages that a drop passes, from the kernel on. What one has is what the next ones have together.
fn ledger(registry: &mut Registry, ledger: &Ledger, progress: &Progress) {
    let family = Family::<Stage, Counter>::default();
    let set = |stage, count: u64| {
        family.get_or_create(&Stage { stage }).inc_by(count);
    };
    if let Some(kernel) = &ledger.kernel {
        let counters = &kernel.counters;
        set("kernel_seen", counters.seen);
        set("kernel_reported", counters.reported);
        set("kernel_folded", counters.folded);
        set("kernel_ring_full", counters.ring_full);
        set("kernel_missed", kernel.program_misses);
        set("received_folded", kernel.folded_delivered);
    }
    set("received_records", ledger.records);
    set("undecodable", ledger.undecodable);
    set("settled", progress.settled());
    set("not_counted_reader_behind", progress.lost());
    set("not_counted_unattributed", progress.unattributed());
    registry.register("ledger_drops", "Drops by the stage that they came to; docs/metrics.md says which add up to which", family);
}

fn series(registry: &mut Registry, drops: &Drops, progress: &Progress) {
    registry.register("drop_series", "Series of drops, those of the overflow left out", gauge(drops.series()));
    registry.register("drop_series_limit", "How many there may be (--metrics-series)", gauge(drops.limit()));
    registry.register("drops_overflowed", "Drops that are counted in the overflow", ConstCounter::new(drops.overflowed()));
    registry.register("drops_unsettled", "Drops that may yet turn out to be others, and are counted then", gauge_of(progress.open()));
}

fn readers(registry: &mut Registry, hub: &HubStatus) {
    registry.register("readers", "Streams that are open", gauge(hub.readers));
    registry.register("reader_lost_drops", "Drops that readers missed because they were too slow", ConstCounter::new(hub.lost));
    registry.register("readers_refused", "Readers that were turned away", ConstCounter::new(hub.refused));
    registry.register("retained_observations", "What is kept for readers that come later", gauge(hub.retained));
    registry.register("retained_bytes", "Its size, estimated", gauge(hub.retained_bytes));
}

fn objects(registry: &mut Registry, snapshot: &Snapshot) {
    let family = Family::<Kind, Gauge>::default();
    for (kind, count) in &snapshot.objects.objects {
        family.get_or_create(&Kind { kind }).set(i64::try_from(*count).unwrap_or(i64::MAX));
    }
    registry.register("objects", "Objects of the cluster that are known", family);
}

fn resources(registry: &mut Registry, watches: &Status, snapshot: &Snapshot) {
    let (working, heard) = (Family::<Resource, Gauge>::default(), Family::<Resource, Gauge<f64, std::sync::atomic::AtomicU64>>::default());
    let (restarts, unreadable) = (Family::<Resource, Counter>::default(), Family::<Resource, Counter>::default());
    for resource in watches.resources.iter().filter(|resource| resource.state != State::Unserved) {
        let label = Resource { resource: resource.resource.clone() };
        working.get_or_create(&label).set(i64::from(resource.state == State::Watching));
        if let Some(at) = resource.heard_at {
            heard.get_or_create(&label).set(seconds(at));
        }
        restarts.get_or_create(&label).inc_by(resource.failures);
        unreadable.get_or_create(&label).inc_by(resource.unreadable);
    }
    registry.register("watch_working", "Whether changes come as they happen", working);
    registry.register("watch_heard_timestamp_seconds", "When the API server was last heard on it: a list, an event or a bookmark", heard);
    registry.register("watch_failures", "Requests and streams that failed", restarts);
    registry.register("watch_unreadable", "Objects that could not be read, each time they came", unreadable);
    registry.register("watch_requests", "Requests to the API server", ConstCounter::new(watches.requests));
    registry.register("watch_received_bytes", "Bytes of its answers", ConstCounter::new(watches.bytes));
    let waiting = snapshot.waiting_since.map_or(0.0, |since| snapshot.now.duration_since(since).as_secs_f64().max(0.0));
    registry.register(
        "watch_waiting_seconds",
        "For how long the oldest change waits that was read and by which drops are not judged yet",
        ConstGauge::new(waiting),
    );
}

fn seconds(at: Timestamp) -> f64 {
    at.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64()
}

fn flag(value: bool) -> ConstGauge<i64> {
    ConstGauge::new(i64::from(value))
}

fn gauge(value: usize) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

fn gauge_of(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}
