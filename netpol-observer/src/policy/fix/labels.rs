//! Which labels tell a workload from the others of its namespace.

use std::sync::Arc;

use crate::cluster::{Index, Labels, Pod, Workload};

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
    let is_naming = |set: &[Label<'_>]| set.iter().any(|(key, _)| rank(key) < NAMING.len());
    let mut best: Option<(usize, bool, Vec<Label<'_>>)> = None;
    let singles = labels.iter().map(|&label| vec![label]);
    let pairs = labels.iter().enumerate().flat_map(|(i, &first)| labels.iter().skip(i + 1).map(move |&second| vec![first, second]));
    for set in singles.chain(pairs) {
        // Only a better one replaces the best, so that one label goes before two.
        let enough = best.as_ref().map_or(usize::MAX, |(others, ..)| others.saturating_add(1));
        let cost = (others(pod, &set, index, enough), !is_naming(&set));
        if best.as_ref().is_none_or(|(others, unnamed, _)| cost < (*others, *unnamed)) {
            best = Some((cost.0, cost.1, set));
        }
        if matches!(best, Some((0, false, _))) {
            break;
        }
    }
    let chosen = best.map(|(.., set)| set).unwrap_or_default();
    chosen.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

type Label<'a> = (&'a Arc<str>, &'a Arc<str>);

/// How many other workloads of the namespace have these labels too; counting ends at `enough`.
fn others(pod: &Pod, set: &[Label<'_>], index: &Index, enough: usize) -> usize {
    let mut found: Vec<&Workload> = Vec::new();
    for other in index.pods_in(&pod.namespace) {
        let is_other = other.workload != pod.workload && set.iter().all(|(key, value)| other.labels.get(*key) == Some(*value));
        if is_other && !found.contains(&&other.workload) {
            found.push(&other.workload);
            if found.len() >= enough {
                break;
            }
        }
    }
    found.len()
}
