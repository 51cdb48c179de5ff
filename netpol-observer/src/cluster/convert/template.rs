//! Workload kinds → the pods that they make, for manifests that no cluster has seen.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{FieldErrors, Pod, Workload, deployment_of, labels, namespace_of, pod, text};

/// Pods that stand for those of a workload which may have several: two, so that one can call the other.
const SEVERAL: i32 = 2;

/// The suffixes of such pods, where real ones have five letters by lot; `y` is none of those letters.
const SUFFIXES: [&str; SEVERAL as usize] = ["xxxxx", "yyyyy"];

/// A kind that makes pods, as its manifest says it.
pub trait Template {
    /// The pods that stand for those that it makes. Fields of pods that the API server refuses are reported under the template's path.
    fn stand_ins(self, errors: &mut FieldErrors) -> Vec<Pod>;
}

impl Template for apps::Deployment {
    fn stand_ins(self, errors: &mut FieldErrors) -> Vec<Pod> {
        let spec = self.spec;
        make("Deployment", &self.metadata, Some(spec.template), several(spec.replicas), "spec.template", errors)
    }
}

impl Template for apps::ReplicaSet {
    fn stand_ins(self, errors: &mut FieldErrors) -> Vec<Pod> {
        let spec = self.spec;
        let owner = self.metadata.owner_references.iter().flatten().find(|owner| owner.kind == "Deployment");
        // That of a Deployment is named as the Deployment, as its pods are.
        let name = owner.map(|owner| owner.name.clone()).or_else(|| {
            let hash = self.metadata.labels.as_ref()?.get("pod-template-hash")?;
            deployment_of(self.metadata.name.as_deref()?, Some(hash)).map(str::to_owned)
        });
        let replicas = several(spec.replicas);
        match name {
            Some(name) => {
                let metadata = ObjectMeta { name: Some(name), ..self.metadata };
                make("Deployment", &metadata, spec.template, replicas, "spec.template", errors)
            }
            None => make("ReplicaSet", &self.metadata, spec.template, replicas, "spec.template", errors),
        }
    }
}

impl Template for apps::StatefulSet {
    fn stand_ins(self, errors: &mut FieldErrors) -> Vec<Pod> {
        let spec = self.spec;
        let mut pods = make("StatefulSet", &self.metadata, Some(spec.template), several(spec.replicas), "spec.template", errors);
        let first = spec.ordinals.and_then(|ordinals| ordinals.start).unwrap_or_default();
        for (ordinal, pod) in (first..).zip(&mut pods) {
            pod.name = format!("{}-{ordinal}", pod.workload.name).into();
            // The labels that the controller sets.
            pod.labels.insert("statefulset.kubernetes.io/pod-name".into(), pod.name.clone());
            pod.labels.insert("apps.kubernetes.io/pod-index".into(), ordinal.to_string().into());
        }
        pods
    }
}

impl Template for apps::DaemonSet {
    fn stand_ins(self, errors: &mut FieldErrors) -> Vec<Pod> {
        make("DaemonSet", &self.metadata, Some(self.spec.template), SEVERAL, "spec.template", errors)
    }
}

impl Template for batch::Job {
    fn stand_ins(self, errors: &mut FieldErrors) -> Vec<Pod> {
        let spec = self.spec.unwrap_or_default();
        let mut pods = make("Job", &self.metadata, Some(spec.template), several(spec.parallelism.or(Some(1))), "spec.template", errors);
        for pod in &mut pods {
            // The labels that the controller sets.
            pod.labels.insert("job-name".into(), pod.workload.name.clone());
            pod.labels.insert("batch.kubernetes.io/job-name".into(), pod.workload.name.clone());
        }
        pods
    }
}

impl Template for batch::CronJob {
    fn stand_ins(self, errors: &mut FieldErrors) -> Vec<Pod> {
        let job = self.spec.job_template.spec.unwrap_or_default();
        // The labels of its Jobs' pods that name the Job hold the time it was due; nobody can select by them.
        let replicas = several(job.parallelism.or(Some(1)));
        make("CronJob", &self.metadata, Some(job.template), replicas, "spec.jobTemplate.spec.template", errors)
    }
}

/// How many pods stand for this many. An autoscaler leaves `replicas` out and may make any number; a workload that is scaled to none will be scaled up.
fn several(replicas: Option<i32>) -> i32 {
    replicas.map_or(SEVERAL, |replicas| replicas.clamp(1, SEVERAL))
}

fn make(
    kind: &str,
    metadata: &ObjectMeta,
    template: Option<core::PodTemplateSpec>,
    replicas: i32,
    path: &str,
    errors: &mut FieldErrors,
) -> Vec<Pod> {
    let Some(template) = template else { return Vec::new() };
    let name = text(metadata.name.clone());
    let of_template = template.metadata.unwrap_or_default();
    let mut of_pod = FieldErrors::new();
    let made = pod(core::Pod { metadata: ObjectMeta::default(), spec: template.spec, status: None }, &mut of_pod);
    errors.extend(of_pod.into_iter().map(|error| super::FieldError { field: format!("{path}.{}", error.field), ..error }));
    let labels = labels(of_template.labels);
    let suffixes = SUFFIXES.iter().take(usize::try_from(replicas).unwrap_or_default());
    let pods = suffixes.map(|suffix| Pod {
        namespace: namespace_of(metadata.namespace.clone()),
        name: format!("{name}-{suffix}").into(),
        labels: labels.clone(),
        workload: Workload { kind: kind.into(), name: name.clone() },
        ..made.clone()
    });
    pods.collect()
}

/// The pods to stand for workloads of which no pod is among the objects. What makes the same pods twice (a Deployment and its ReplicaSets) counts once, the
/// first by kind and name.
pub fn without_pods<'a>(pods: impl Iterator<Item = &'a Pod>, stand_ins: impl IntoIterator<Item = Vec<Pod>>) -> Vec<Pod> {
    type Key = (Arc<str>, Workload);
    let key = |pod: &Pod| -> Key { (pod.namespace.clone(), pod.workload.clone()) };
    let mut there: BTreeMap<Key, ()> = pods.map(|pod| (key(pod), ())).collect();
    let mut found = Vec::new();
    for pods in stand_ins {
        let Some(first) = pods.first() else { continue };
        // A CronJob's pods are those of its Jobs.
        let has_jobs = &*first.workload.kind == "CronJob"
            && there.keys().any(|(namespace, workload)| {
                let due = workload.name.strip_prefix(&*first.workload.name).and_then(|rest| rest.strip_prefix('-'));
                *namespace == first.namespace
                    && &*workload.kind == "Job"
                    && due.is_some_and(|due| due.bytes().all(|byte| byte.is_ascii_digit()))
            });
        if !has_jobs && there.insert(key(first), ()).is_none() {
            found.extend(pods);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(replicas: serde_json::Value) -> Vec<Pod> {
        let manifest = serde_json::json!({
            "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "not-this"}},
            "spec": {"replicas": replicas, "selector": {}, "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"hostNetwork": false, "containers": [{"name": "web", "ports": [{"name": "http", "containerPort": 8080}]}]},
            }},
        });
        let deployment: apps::Deployment = serde_json::from_value(manifest).expect("a Deployment");
        let mut errors = Vec::new();
        let pods = deployment.stand_ins(&mut errors);
        assert_eq!(errors, []);
        pods
    }

    #[test]
    fn a_deployment_stands_for_its_pods() {
        let pods = deployment(3.into());
        let names: Vec<&str> = pods.iter().map(|pod| &*pod.name).collect();
        assert_eq!(names, ["web-xxxxx", "web-yyyyy"]);
        let pod = &pods[0];
        assert_eq!((&*pod.namespace, &*pod.workload.kind, &*pod.workload.name), ("shop", "Deployment", "web"));
        assert_eq!(pod.labels.get("app").map(|value| &**value), Some("web"));
        assert_eq!((pod.ports[0].port, pod.ready, pod.ips.len()), (8080, true, 0));
        assert_eq!(deployment(serde_json::Value::Null).len(), 2);
        assert_eq!(deployment(1.into()).len(), 1);
        assert_eq!(deployment(0.into()).len(), 1);
    }

    #[test]
    fn pods_that_are_there_go_before_those_that_stand_for_them() {
        let there = Pod { name: "web-7d9f-abcde".into(), ..deployment(1.into()).remove(0) };
        assert_eq!(without_pods([&there].into_iter(), [deployment(1.into())]), []);
        assert_eq!(without_pods([].into_iter(), [deployment(1.into()), deployment(2.into())]).len(), 1);
    }
}
