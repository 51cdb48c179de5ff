//! A label that the peer's workload lacks: where a rule is meant for whoever carries it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::cluster::{Direction, Labels, Operator, Pod, Requirement, Workload};
use crate::policy::connection::{Case, End, Who};
use crate::policy::evaluate::View;
use crate::policy::explanation::{Condition, Manifest, NearMiss, PatchOperation};

use super::gain::{Opened, Subjects};
use super::{Candidate, Change, Edit, Size, Task, Written, patch::segment};

/// A label is weighed only where every change to a policy admits more workloads than this: who else looks at labels is a question to the
/// whole cluster.
pub(super) const WORTH_IT: usize = 4;

/// A pod as it would be with more labels; it stands for its workload.
#[derive(Clone)]
pub(super) struct Relabelled {
    before: Arc<Pod>,
    after: Arc<Pod>,
    added: Labels,
}

/// Proposes the labels that the nearest rules miss and nothing else.
pub(super) fn candidates(task: &Task<'_>, nearest: &[NearMiss], take: &mut impl FnMut(Candidate<'static>) -> bool) {
    let Some(pod) = task.case.sides(task.direction).1.pod() else { return };
    let Some(pod) = task.view.index.pod(&pod.namespace, &pod.name).cloned() else { return };
    let mut tried = BTreeSet::new();
    for miss in nearest.iter().filter(|miss| miss.port.is_none() && !miss.peer.is_empty()) {
        let Some(added) = missing(&miss.peer).filter(|added| tried.insert(added.clone())) else { continue };
        let mut after = Pod::clone(&pod);
        after.labels.extend(added.iter().map(|(key, value)| (key.clone(), value.clone())));
        let relabelled = Relabelled { before: pod.clone(), after: Arc::new(after), added };
        let shown = relabelled.shown();
        let of = relabelled.clone();
        let patch = Box::new(move || of.patch());
        let opened = Opened { subjects: Subjects::Relabelled, peers: Vec::new(), any_peer: false, ports: vec![task.other.port.clone()] };
        let change = Change { edit: Edit::Labels(relabelled), shown, patch };
        if !take(Candidate { edits: None, opened, size: Size::Label, change: Written::Now(change) }) {
            return;
        }
    }
}

/// The labels to add, if that is all there is to it. A label that is there already is somebody's, and stays.
fn missing(failed: &[Condition]) -> Option<Labels> {
    let wanted = |condition: &Condition| match condition {
        Condition::PodLabel { wants: Requirement { key, operator }, has: None, .. } => match operator {
            Operator::Equals(value) => Some((key.clone(), value.clone())),
            Operator::In(values) => Some((key.clone(), values.first()?.clone())),
            _ => None,
        },
        _ => None,
    };
    failed.iter().map(wanted).collect()
}

impl Relabelled {
    /// Whether the connection is admitted with the labels, and the other direction no less than without.
    pub(super) fn is_proved(&self, task: &Task<'_>) -> bool {
        let is_better = |case: &Case<'_>| {
            let after = self.on(case);
            Direction::BOTH.into_iter().all(|direction| {
                let before = task.view.judge(case, direction).admits();
                let after = task.view.judge(&after, direction).admits();
                if direction == task.direction { after == Some(true) } else { after == before || after == Some(true) }
            })
        };
        task.cases.iter().all(is_better)
    }

    /// The case with the pod as it would be.
    fn on<'a>(&'a self, case: &Case<'a>) -> Case<'a> {
        let side = |end: End<'a>| match end.who {
            Who::Pod(pod) if (&pod.namespace, &pod.name) == (&self.before.namespace, &self.before.name) => {
                End { who: Who::Pod(&self.after), ..end }
            }
            _ => end,
        };
        Case { source: side(case.source), destination: side(case.destination), ..*case }
    }

    /// The workloads that the pod could not reach, or that could not reach it, and now can, on the port of the connection and on those that
    /// the other workloads serve. Counting ends at `enough`.
    pub(super) fn gains(&self, task: &Task<'_>, enough: usize) -> Vec<String> {
        let view = &task.view;
        let own = workload(&self.before);
        let mut found = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for pod in view.index.pods().filter(|pod| !pod.host_network && workload(pod) != own) {
            let ports: Vec<_> = pod.ports.iter().map(|port| (port.protocol, port.port)).collect();
            if !seen.insert((workload(pod), pod.labels.clone(), ports.clone())) {
                continue;
            }
            for direction in Direction::BOTH {
                let served = if direction == Direction::Egress { &pod.ports } else { &self.before.ports };
                let asked =
                    served.iter().map(|port| (port.protocol, port.port)).chain([(task.case.protocol, task.case.port.unwrap_or_default())]);
                if asked.into_iter().any(|port| self.gains_with(view, pod, direction, port)) {
                    found.insert(match direction {
                        Direction::Egress => format!("{own} → {}", workload(pod)),
                        Direction::Ingress => format!("{} → {own}", workload(pod)),
                    });
                    if found.len() >= enough {
                        return found.into_iter().collect();
                    }
                }
            }
        }
        found.into_iter().collect()
    }

    fn gains_with(&self, view: &View<'_>, other: &Pod, direction: Direction, (protocol, port): (crate::flow::Protocol, u16)) -> bool {
        let is_admitted = |own: &Pod| {
            let (source, destination) = match direction {
                Direction::Egress => (side(own), side(other)),
                Direction::Ingress => (side(other), side(own)),
            };
            let case = Case { source, destination, protocol, port: Some(port) };
            Direction::BOTH.into_iter().all(|direction| view.judge(&case, direction).admits() == Some(true))
        };
        !is_admitted(&self.before) && is_admitted(&self.after)
    }

    fn shown(&self) -> String {
        let labels: Vec<String> = self.added.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        let of = &self.before;
        format!("labels of {} {}/{} += {{{}}}", of.workload.kind, of.namespace, of.workload.name, labels.join(", "))
    }

    fn patch(&self) -> Vec<PatchOperation> {
        let labels = if self.before.workload.kind.as_ref() == "Pod" { "/metadata/labels" } else { "/spec/template/metadata/labels" };
        let add =
            |(key, value): (&Arc<str>, &Arc<str>)| PatchOperation::Add { path: format!("{labels}/{}", segment(key)), value: json!(value) };
        self.added.iter().map(add).collect()
    }

    pub(super) fn manifest(&self) -> Manifest {
        Manifest::Labels { workload: self.before.workload.clone(), namespace: self.before.namespace.clone(), labels: self.added.clone() }
    }
}

fn workload(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace, pod.workload.name)
}

fn side(pod: &Pod) -> End<'_> {
    End { ip: address(pod), who: Who::Pod(pod) }
}

fn address(pod: &Pod) -> IpAddr {
    pod.ips.first().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::to_canonical)
}

/// The part of a workload's manifest that holds the labels of its pods.
pub(super) fn manifest(workload: &Workload, namespace: &str, labels: &Labels) -> Value {
    let metadata = json!({ "name": workload.name, "namespace": namespace });
    match &*workload.kind {
        "Pod" => json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": workload.name, "namespace": namespace, "labels": labels },
        }),
        kind @ ("Job" | "CronJob") => json!({
            "apiVersion": "batch/v1", "kind": kind, "metadata": metadata,
            "spec": { "template": { "metadata": { "labels": labels } } },
        }),
        kind => json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": metadata,
            "spec": { "template": { "metadata": { "labels": labels } } },
        }),
    }
}
