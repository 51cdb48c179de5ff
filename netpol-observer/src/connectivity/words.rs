//! Parties and ports as people write them.

use std::fmt;

use crate::cluster::Workload;
use crate::policy::{PairEnd, PortRange};

/// `8080/TCP`, `8000-8100/TCP`, `every UDP port`.
pub fn range_words(range: &PortRange) -> String {
    let PortRange { protocol, from, to } = *range;
    match (from, to) {
        (0 | 1, u16::MAX) => format!("every {protocol} port"),
        (from, to) if from == to => format!("{from}/{protocol}"),
        (from, to) => format!("{from}-{to}/{protocol}"),
    }
}

/// A list of ranges: one text each, and a single `every port` for all ports of all three protocols.
pub fn port_words(ports: &[PortRange]) -> Vec<String> {
    let is_whole = |range: &PortRange| range.from <= 1 && range.to == u16::MAX;
    if ports.len() == 3 && ports.iter().all(is_whole) {
        return vec!["every port".to_owned()];
    }
    ports.iter().map(range_words).collect()
}

/// `shop/deploy/web`, `shop/web` for a bare pod, `nodes`, `203.0.113.0/24`.
impl fmt::Display for PairEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PairEnd::Workload { namespace, workload } => f.write_str(&workload_name(namespace, workload)),
            PairEnd::Nodes => f.write_str("nodes"),
            PairEnd::Outside(range) => write!(f, "{range}"),
        }
    }
}

/// A workload as people type it: `shop/deploy/web`, `shop/web` for a bare pod.
pub fn workload_name(namespace: &str, workload: &Workload) -> String {
    let kind = match &*workload.kind {
        "Pod" => return format!("{namespace}/{}", workload.name),
        "Deployment" => "deploy",
        "StatefulSet" => "sts",
        "DaemonSet" => "ds",
        "Job" => "job",
        "CronJob" => "cronjob",
        "ReplicaSet" => "rs",
        other => return format!("{namespace}/{}/{}", other.to_ascii_lowercase(), workload.name),
    };
    format!("{namespace}/{kind}/{}", workload.name)
}

/// Ranges of ports in order, those that touch put together.
pub fn merged(mut ports: Vec<PortRange>) -> Vec<PortRange> {
    ports.sort_unstable_by_key(|range| (range.protocol, range.from));
    let mut merged: Vec<PortRange> = Vec::new();
    for range in ports {
        let range = PortRange { from: range.from.max(1), ..range };
        match merged.last_mut() {
            Some(last) if last.protocol == range.protocol && u32::from(range.from) <= u32::from(last.to) + 1 => {
                last.to = last.to.max(range.to);
            }
            _ if range.from <= range.to => merged.push(range),
            _ => {}
        }
    }
    merged
}
