//! `netpol_observer.drops`: a sum for each thing that may be asked about.

use std::collections::HashMap;

use jiff::Timestamp;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric, NumberDataPoint, Sum, metric, number_data_point};

use super::super::metrics::Labels;
use super::attribute::{flag, point, text};
use super::record::nanoseconds;
use crate::serve::Brief;

/// The metric's name.
pub const DROPS: &str = "netpol_observer.drops";
/// What it counts, in UCUM.
pub const UNIT: &str = "{packet}";
const DESCRIPTION: &str = "Packets that the kernel dropped, by who is to blame.";

/// Sums since the start, of bounded number.
#[derive(Debug)]
pub(super) struct Sums {
    start: Timestamp,
    most: usize,
    by_labels: HashMap<Labels, u64>,
    /// The rest, by direction and class: there are few of these.
    rest: HashMap<(&'static str, &'static str), u64>,
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
            *self.rest.entry((labels.direction, labels.class)).or_default() += count;
            return false;
        }
        true
    }

    /// The metric as it stands, and how many points it has; nothing before the first drop.
    pub(super) fn metric(&self, now: Timestamp) -> Option<(Metric, u64)> {
        let own = self.by_labels.iter().map(|(labels, sum)| self.point(attributes(labels), *sum, now));
        let rest = self.rest.iter().map(|((direction, class), sum)| {
            let mut attributes = of_class(direction, class);
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

/// Those of a drop; a label that does not apply has no attribute.
fn attributes(labels: &Labels) -> Vec<KeyValue> {
    let mut attributes = of_class(labels.direction, labels.class);
    let Labels { namespace, workload, peer_namespace, policy, rule, reason, .. } = labels;
    let others = [
        (point::REASON, reason),
        (point::NAMESPACE, namespace),
        (point::WORKLOAD, workload),
        (point::PEER_NAMESPACE, peer_namespace),
        (point::POLICY, policy),
        (point::RULE, rule),
    ];
    attributes.extend(others.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| text(name, value)));
    attributes
}

fn of_class(direction: &str, class: &str) -> Vec<KeyValue> {
    let mut attributes = vec![text(point::CLASS, class)];
    if !direction.is_empty() {
        attributes.push(text(point::DIRECTION, direction));
    }
    attributes
}
