//! Drops by whom they concern and who is to blame, in a bounded number of series.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::super::Sink;
use crate::cluster::Direction;
use crate::serve::{Brief, Settled, class_name};

/// Series of drops that an agent tells at most, unless it is told otherwise; those of the overflow come on top, of which there are as many as
/// directions times classes.
pub const DEFAULT_SERIES: usize = 1000;

/// What labels say that stand for many values.
pub const OVERFLOW: &str = "overflow";

/// The labels of a series of drops. A label that does not apply is empty, which Prometheus takes for absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Labels {
    /// `ingress`, `egress`, `both`: where policies deny it.
    pub direction: &'static str,
    /// Of the pod whose policies deny it; where no policy is to blame, of the pod that was called, or else of the one that called.
    pub namespace: String,
    /// `Deployment/api`, of the same pod.
    pub workload: String,
    /// The namespace of the other end.
    pub peer_namespace: String,
    /// `NetworkPolicy shop/api`: whose rule denied it or came nearest to admitting it.
    pub policy: String,
    /// `ingress[0]`: that rule.
    pub rule: String,
    /// As in `-o json`.
    pub class: &'static str,
    /// `NETFILTER_DROP`
    pub reason: String,
}

impl Labels {
    /// Those of a drop.
    pub fn of(brief: &Brief) -> Self {
        let Brief { route, blame, reason, .. } = brief;
        let text = |text: Option<&Arc<str>>| text.map(ToString::to_string).unwrap_or_default();
        Labels {
            direction: match blame.directions[..] {
                [] => "",
                [Direction::Ingress] => "ingress",
                [Direction::Egress] => "egress",
                [_, ..] => "both",
            },
            namespace: text(blame.subject.namespace.as_ref()),
            workload: blame.subject.workload.as_ref().map(|workload| format!("{}/{}", workload.kind, workload.name)).unwrap_or_default(),
            peer_namespace: text(blame.peer.namespace.as_ref()),
            policy: blame.policy.as_ref().map(|policy| format!("{} {}", policy.kind, policy.full_name())).unwrap_or_default(),
            rule: blame.rule.map(|(direction, index)| format!("{direction}[{index}]")).unwrap_or_default(),
            class: class_name(&route.class),
            reason: text(Some(reason)),
        }
    }

    /// What is left of them when there are too many.
    fn overflow(&self) -> Self {
        let many = || OVERFLOW.to_owned();
        Labels {
            direction: self.direction,
            class: self.class,
            namespace: many(),
            workload: many(),
            peer_namespace: many(),
            policy: many(),
            rule: many(),
            reason: many(),
        }
    }
}

/// Counts drops. Clones count into the same series.
#[derive(Clone, Debug)]
pub struct Drops {
    family: Family<Labels, Counter>,
    limit: usize,
    series: Arc<AtomicUsize>,
    overflowed: Arc<AtomicU64>,
}

impl Drops {
    /// In at most so many series.
    pub fn new(limit: usize) -> Self {
        Drops { family: Family::default(), limit, series: Arc::default(), overflowed: Arc::default() }
    }

    /// The series.
    pub(super) fn family(&self) -> Family<Labels, Counter> {
        self.family.clone()
    }

    /// How many series there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many there are, those of the overflow left out.
    pub fn series(&self) -> usize {
        self.series.load(Ordering::Relaxed)
    }

    /// Drops that are in the overflow.
    pub fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// What counts them.
    pub fn sink(&self) -> Box<dyn Sink> {
        Box::new(Counting { drops: self.clone(), known: HashSet::new() })
    }
}

struct Counting {
    drops: Drops,
    /// Series there are.
    known: HashSet<Labels>,
}

impl Sink for Counting {
    fn take(&mut self, settled: &Settled, _now: Timestamp) {
        let labels = Labels::of(&settled.brief);
        let drops = &self.drops;
        if self.known.contains(&labels) {
            drops.family.get_or_create(&labels).inc_by(settled.count);
        } else if self.known.len() < drops.limit {
            drops.family.get_or_create(&labels).inc_by(settled.count);
            self.known.insert(labels);
            drops.series.store(self.known.len(), Ordering::Relaxed);
        } else {
            drops.family.get_or_create(&labels.overflow()).inc_by(settled.count);
            drops.overflowed.fetch_add(settled.count, Ordering::Relaxed);
        }
    }
}
