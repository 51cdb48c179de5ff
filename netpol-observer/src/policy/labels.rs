//! Which labels tell a workload from the others of its namespace.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cluster::{Index, Labels, Pod};

/// Labels that controllers set per pod or per revision: a policy that names them breaks with the next roll-out.
const PASSING: &[&str] = &[
    "pod-template-hash",
    "pod-template-generation",
    "controller-revision-hash",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/controller-uid",
    "controller-uid",
    "job-name",
    "batch.kubernetes.io/job-name",
];

/// Labels that by convention name an application, best first.
const NAMING: &[&str] = &["app.kubernetes.io/name", "app", "k8s-app", "app.kubernetes.io/component", "component", "name"];

/// A pod's labels without those that pass.
pub(super) fn lasting(pod: &Pod) -> Vec<(&Arc<str>, &Arc<str>)> {
    pod.labels.iter().filter(|(key, _)| !PASSING.contains(&&***key)).collect()
}

/// One or two of the pod's labels that admit the fewest other workloads of its namespace; of equals those with one that names
/// an application by convention (a `version: v1` alone may be unique today and is not tomorrow), of equals one instead of two.
/// Empty when it has no lasting label: then only the namespace is left to go by.
pub(super) fn identifying(pod: &Pod, index: &Index) -> Labels {
    let mut labels = lasting(pod);
    let rank = |key: &str| NAMING.iter().position(|naming| *naming == key).unwrap_or(NAMING.len());
    labels.sort_by_key(|(key, _)| rank(key));
    let neighbours: Vec<&Arc<Pod>> = index.pods_in(&pod.namespace).collect();
    let cost = |set: &[(&Arc<str>, &Arc<str>)]| {
        let matches = |other: &&&Arc<Pod>| set.iter().all(|(key, value)| other.labels.get(*key) == Some(*value));
        let admitted = neighbours.iter().filter(matches).map(|other| &other.workload).collect::<BTreeSet<_>>().len();
        (admitted, set.iter().all(|(key, _)| rank(key) == NAMING.len()))
    };
    let singles: Vec<Vec<_>> = labels.iter().map(|&label| vec![label]).collect();
    let mut best = singles.into_iter().min_by_key(|set| cost(set)).unwrap_or_default();
    if cost(&best) > (1, false) {
        let pairs = labels.iter().enumerate().flat_map(|(i, &first)| labels.iter().skip(i + 1).map(move |&second| vec![first, second]));
        // min_by_key takes the first of equals, so that a pair has to be better, not only as good.
        best = std::iter::once(best).chain(pairs).min_by_key(|set| cost(set)).unwrap_or_default();
    }
    best.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}
