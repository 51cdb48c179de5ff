//! `netpol_observer.drops`: a sum for each thing that may be asked about.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric, NumberDataPoint, Sum, metric, number_data_point};

use super::attribute::{flag, point, text};
use super::record::nanoseconds;
use crate::cluster::{Direction, Workload};
use crate::policy::PolicyRef;
use crate::serve::render::directions;
use crate::serve::{Brief, class_name};

/// The metric's name.
pub const DROPS: &str = "netpol_observer.drops";
/// What it counts, in UCUM.
pub const UNIT: &str = "{packet}";
const DESCRIPTION: &str = "Packets that the kernel dropped, by who is to blame.";

/// What a sum is of. Blame has more than that; whatever is no label must not make a series.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Labels {
    directions: Vec<Direction>,
    class: &'static str,
    namespace: Option<Arc<str>>,
    workload: Option<Workload>,
    peer_namespace: Option<Arc<str>>,
    policy: Option<(&'static str, Arc<str>, Arc<str>)>,
    rule: Option<(Direction, usize)>,
    reason: Arc<str>,
}

/// Sums since the start, of bounded number.
#[derive(Debug)]
pub(super) struct Sums {
    start: Timestamp,
    most: usize,
    by_labels: HashMap<Labels, u64>,
    /// The rest, by direction and class: there are few of these.
    rest: HashMap<(Vec<Direction>, &'static str), u64>,
}

impl Sums {
    /// From `start` on, in so many series at most, not counting those for the rest.
    pub(super) fn new(start: Timestamp, most: usize) -> Self {
        Sums { start, most, by_labels: HashMap::new(), rest: HashMap::new() }
    }

    /// Counts drops; whether they got a series of their own.
    pub(super) fn add(&mut self, brief: &Brief, count: u64) -> bool {
        let labels = Labels::of(brief);
        if let Some(sum) = self.by_labels.get_mut(&labels) {
            *sum += count;
        } else if self.by_labels.len() < self.most {
            self.by_labels.insert(labels, count);
        } else {
            *self.rest.entry((labels.directions, labels.class)).or_default() += count;
            return false;
        }
        true
    }

    /// The metric as it stands, and how many points it has; nothing before the first drop.
    pub(super) fn metric(&self, now: Timestamp) -> Option<(Metric, u64)> {
        let own = self.by_labels.iter().map(|(labels, sum)| self.point(labels.attributes(), *sum, now));
        let rest = self.rest.iter().map(|((denying, class), sum)| {
            let mut attributes = of_class(denying, class);
            attributes.push(flag(point::OVERFLOW, true));
            self.point(attributes, *sum, now)
        });
        let data_points: Vec<NumberDataPoint> = own.chain(rest).collect();
        let points = data_points.len() as u64;
        let sum = Sum { data_points, aggregation_temporality: AggregationTemporality::Cumulative.into(), is_monotonic: true };
        let metric = Metric {
            name: DROPS.to_owned(),
            description: DESCRIPTION.to_owned(),
            unit: UNIT.to_owned(),
            data: Some(metric::Data::Sum(sum)),
            ..Metric::default()
        };
        (points > 0).then_some((metric, points))
    }

    fn point(&self, attributes: Vec<KeyValue>, sum: u64, now: Timestamp) -> NumberDataPoint {
        NumberDataPoint {
            attributes,
            start_time_unix_nano: nanoseconds(self.start),
            time_unix_nano: nanoseconds(now),
            value: Some(number_data_point::Value::AsInt(i64::try_from(sum).unwrap_or(i64::MAX))),
            ..NumberDataPoint::default()
        }
    }
}

impl Labels {
    fn of(brief: &Brief) -> Self {
        let blame = &brief.blame;
        let of_policy = |policy: &PolicyRef| (policy.kind, Arc::clone(&policy.namespace), Arc::clone(&policy.name));
        Labels {
            directions: blame.directions.clone(),
            class: class_name(&brief.route.class),
            namespace: blame.subject.namespace.clone(),
            workload: blame.subject.workload.clone(),
            peer_namespace: blame.peer.namespace.clone(),
            policy: blame.policy.as_ref().map(of_policy),
            rule: blame.rule,
            reason: Arc::clone(&brief.reason),
        }
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let mut attributes = of_class(&self.directions, self.class);
        attributes.push(text(point::REASON, &self.reason));
        attributes.extend(self.namespace.as_ref().map(|namespace| text(point::NAMESPACE, namespace)));
        let workload = self.workload.as_ref().map(|workload| format!("{}/{}", workload.kind, workload.name));
        attributes.extend(workload.map(|workload| text(point::WORKLOAD, &workload)));
        attributes.extend(self.peer_namespace.as_ref().map(|namespace| text(point::PEER_NAMESPACE, namespace)));
        if let Some((kind, namespace, name)) = &self.policy {
            let full = if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") };
            attributes.push(text(point::POLICY, &full));
        }
        attributes.extend(self.rule.map(|(direction, index)| text(point::RULE, &format!("{direction}[{index}]"))));
        attributes
    }
}

fn of_class(denying: &[Direction], class: &str) -> Vec<KeyValue> {
    let mut attributes = vec![text(point::CLASS, class)];
    if !denying.is_empty() {
        attributes.push(text(point::DIRECTION, &directions(denying)));
    }
    attributes
}
