//! Ends as typed → the pods and addresses they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::close::{close, did_you_mean, listed};
use super::end::{End, WorkloadKind};
use super::error::QuestionError;
use crate::cluster::{Index, Labels, Pod, PodPhase, Service};
use crate::identify::{Identity, Party, party};

/// One pod, node or address that an end stands for.
#[derive(Clone, Debug)]
pub struct Member {
    /// `shop/web-7d9f`, `203.0.113.7`
    pub name: String,
    /// Who it is.
    pub identity: Identity,
    /// Its addresses; none where they are not known.
    pub ips: Vec<IpAddr>,
    /// What a reader should know of it.
    pub note: Option<String>,
}

/// Who is called, with the port there.
pub(super) type Destination = (Member, Option<u16>);

impl Member {
    /// A pod as somebody asks about it: judged by its labels also when it does not run.
    pub fn of_pod(pod: &Arc<Pod>, index: &Index) -> Self {
        let name = format!("{}/{}", pod.namespace, pod.name);
        let identity = Identity::Pod(pod.clone());
        if pod.phase == PodPhase::Terminated {
            let note = format!("{name} has ended (phase Succeeded or Failed): the answer is for a pod like it that runs");
            return Member { name, identity, ips: Vec::new(), note: Some(note) };
        }
        if pod.host_network {
            // Policies see the node.
            let node = pod.node.as_deref().and_then(|node| index.node(node));
            let at = pod.ips.iter().find_map(|ip| index.node_at(*ip)).or(node);
            let note = format!("{name} is in its node's network (hostNetwork): policies see its node, and do not select it");
            return match at {
                Some(node) => {
                    let ips = if pod.ips.is_empty() { node.addresses.clone() } else { pod.ips.clone() };
                    Member { name, identity: Identity::Node(node.clone()), ips, note: Some(note) }
                }
                None => Member { name, identity, ips: pod.ips.clone(), note: Some(note) },
            };
        }
        let note = pod.ips.is_empty().then(|| {
            format!("{name} has no address yet (no status.podIP): its labels are judged, and an ipBlock that names its address is not")
        });
        Member { name, identity, ips: pod.ips.clone(), note }
    }

    /// Whoever has the address.
    pub fn of_ip(ip: IpAddr, index: &Index) -> Self {
        let party = party(ip, index);
        let name = match &party.identity {
            Identity::Pod(_) | Identity::Node(_) => format!("{party} ({})", party.ip),
            _ => party.to_string(),
        };
        Member { name, ips: vec![party.ip], identity: party.identity, note: None }
    }

    /// The two ends for each family of addresses both have. Where an end's address is not known, the family's unspecified one stands for it.
    pub fn pairs(&self, other: &Member) -> Vec<(Party, Party)> {
        let of = |v4: bool| (self.at(v4, &other.ips), other.at(v4, &self.ips));
        [true, false].into_iter().map(of).filter_map(|(source, destination)| Some((source?, destination?))).collect()
    }

    fn at(&self, v4: bool, other: &[IpAddr]) -> Option<Party> {
        let ip = match self.ips.iter().find(|ip| ip.is_ipv4() == v4) {
            Some(ip) => *ip,
            None if !self.ips.is_empty() => return None,
            None if other.is_empty() && !v4 => return None,
            None if v4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Some(Party { ip, identity: self.identity.clone() })
    }
}

/// All that an end stands for: at least one.
///
/// # Errors
/// There is none; says what was probably meant.
pub fn members(end: &End, index: &Index) -> Result<Vec<Member>, QuestionError> {
    match end {
        End::Ip(ip) => Ok(vec![Member::of_ip(*ip, index)]),
        End::Pod { namespace, name } => match index.pod(namespace, name) {
            Some(pod) => Ok(vec![Member::of_pod(pod, index)]),
            None => Err(no_pod(namespace, name, index)),
        },
        End::Node(name) => {
            let node = index.node(name).ok_or_else(|| {
                let names: Vec<String> = index.nodes().map(|node| node.name.to_string()).collect();
                missing(format!("no node {name}"), name, &names, "node/", ("nodes", None))
            })?;
            if node.addresses.is_empty() {
                return Err(QuestionError::new(format!("node {name} has no address in the manifests")).hint("ask about its IP address"));
            }
            Ok(vec![Member {
                name: format!("node {name}"),
                ips: node.addresses.clone(),
                identity: Identity::Node(node.clone()),
                note: None,
            }])
        }
        End::Workload { kind, namespace, name } => {
            let pods = index.pods_in(namespace).filter(|pod| belongs(pod, *kind, name));
            running_first(pods, index).ok_or_else(|| no_workload(*kind, namespace, name, index))
        }
        End::Labels { namespace, selector } => {
            let pods = index.pods_in(namespace).filter(|pod| selector.matches(&pod.labels));
            running_first(pods, index).ok_or_else(|| {
                let error = QuestionError::new(format!("no pod of namespace {namespace} has the labels {selector}"));
                with_pods_of(error, namespace, index)
            })
        }
        End::Service { namespace, name } => {
            let service = service(namespace, name, index)?;
            running_first(selected(service, index), index)
                .ok_or_else(|| QuestionError::new(format!("Service {namespace}/{name} has no pod behind it that could open a connection")))
        }
    }
}

/// The pods, those that have ended only where no other is there.
fn running_first<'a>(pods: impl Iterator<Item = &'a Arc<Pod>>, index: &Index) -> Option<Vec<Member>> {
    let (running, ended): (Vec<_>, Vec<_>) = pods.partition(|pod| pod.phase == PodPhase::Active);
    let chosen = if running.is_empty() { ended } else { running };
    let members: Vec<Member> = chosen.into_iter().map(|pod| Member::of_pod(pod, index)).collect();
    (!members.is_empty()).then_some(members)
}

/// The pods a Service selects.
pub(super) fn selected<'a>(service: &'a Service, index: &'a Index) -> impl Iterator<Item = &'a Arc<Pod>> {
    let has = |labels: &Labels, wanted: &Labels| wanted.iter().all(|(key, value)| labels.get(key) == Some(value));
    let wanted = service.selector.as_ref().filter(|selector| !selector.is_empty());
    wanted.into_iter().flat_map(move |wanted| index.pods_in(&service.namespace).filter(move |pod| has(&pod.labels, wanted)))
}

/// A Service by name.
///
/// # Errors
/// There is none; says what was probably meant.
pub(super) fn service<'a>(namespace: &str, name: &str, index: &'a Index) -> Result<&'a Arc<Service>, QuestionError> {
    index.service(namespace, name).ok_or_else(|| {
        let of_namespace = index.services().filter(|service| &*service.namespace == namespace);
        let names: Vec<String> = of_namespace.map(|service| service.name.to_string()).collect();
        let mut error =
            missing(format!("no Service {namespace}/{name}"), name, &names, &format!("{namespace}/svc/"), ("Services", Some(namespace)));
        let elsewhere = index.services().filter(|service| &*service.name == name);
        let elsewhere: Vec<String> = elsewhere.map(|service| format!("{}/svc/{name}", service.namespace)).collect();
        if !elsewhere.is_empty() {
            error = error.hint(format!("another namespace has one of that name: {}", listed(&elsewhere)));
        }
        error
    })
}

/// Whether the pod was made by the workload.
fn belongs(pod: &Pod, kind: WorkloadKind, name: &str) -> bool {
    let (owner_kind, owner) = (&*pod.workload.kind, &*pod.workload.name);
    match kind {
        WorkloadKind::CronJob => {
            // The Jobs of a CronJob have its name and the time they were due.
            let due = owner.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
            owner_kind == "CronJob" && owner == name
                || owner_kind == "Job" && due.is_some_and(|due| !due.is_empty() && due.chars().all(|c| c.is_ascii_digit()))
        }
        // A ReplicaSet that a Deployment made is named as the Deployment, and the pods keep its hash.
        WorkloadKind::ReplicaSet if owner_kind == "Deployment" => {
            let hash = pod.labels.get("pod-template-hash");
            hash.is_some_and(|hash| name.strip_prefix(owner).and_then(|rest| rest.strip_prefix('-')) == Some(&**hash))
        }
        kind => owner_kind == kind.as_str() && owner == name,
    }
}

fn no_pod(namespace: &str, name: &str, index: &Index) -> QuestionError {
    let names: Vec<&str> = index.pods_in(namespace).map(|pod| &*pod.name).collect();
    let mut meant: Vec<String> = close(name, names).into_iter().map(|found| format!("{namespace}/{found}")).collect();
    // People know their Deployments better than the names of pods.
    let workloads: Vec<_> = index.pods_in(namespace).map(|pod| &pod.workload).filter(|workload| &*workload.name == name).collect();
    if let Some(short) = workloads.iter().find_map(|workload| short_kind(&workload.kind)) {
        meant.insert(0, format!("{namespace}/{short}/{name}"));
    }
    if index.service(namespace, name).is_some() {
        meant.push(format!("{namespace}/svc/{name}"));
    }
    let elsewhere = index.pods().filter(|pod| &*pod.name == name).map(|pod| format!("{}/{name}", pod.namespace));
    meant.extend(elsewhere.take(3));
    let error = QuestionError::new(format!("no pod {namespace}/{name}"));
    match did_you_mean(&meant) {
        Some(question) => error.hint(question),
        None => with_pods_of(error, namespace, index),
    }
}

fn no_workload(kind: WorkloadKind, namespace: &str, name: &str, index: &Index) -> QuestionError {
    let of_kind = index.pods_in(namespace).filter(|pod| &*pod.workload.kind == kind.as_str());
    let names: Vec<String> = of_kind.map(|pod| pod.workload.name.to_string()).collect();
    let short = short_kind(kind.as_str()).unwrap_or("deploy");
    let what = format!("no pod of {} {namespace}/{name}", kind.as_str());
    let plural = format!("{}s with pods", kind.as_str());
    missing(what, name, &names, &format!("{namespace}/{short}/"), (&plural, Some(namespace)))
}

fn short_kind(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Deployment" => "deploy",
        "StatefulSet" => "sts",
        "DaemonSet" => "ds",
        "Job" => "job",
        "CronJob" => "cronjob",
        "ReplicaSet" => "rs",
        _ => return None,
    })
}

/// Something that is not there, with what is close to it or else all there is. `what` is the kind in the plural and its namespace.
fn missing(message: String, name: &str, names: &[String], prefix: &str, what: (&str, Option<&str>)) -> QuestionError {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    let meant: Vec<String> = close(name, names.iter().map(String::as_str)).iter().map(|found| format!("{prefix}{found}")).collect();
    let (kind, namespace) = what;
    let place = namespace.map(|namespace| format!(" of namespace {namespace}")).unwrap_or_default();
    let error = QuestionError::new(message);
    match did_you_mean(&meant) {
        Some(question) => error.hint(question),
        None if names.is_empty() => error.hint(format!("the manifests hold no {kind}{place}")),
        None => error.hint(format!("{kind}{place}: {}", listed(&names))),
    }
}

/// Names the pods of the namespace, or the namespaces there are.
fn with_pods_of(error: QuestionError, namespace: &str, index: &Index) -> QuestionError {
    let pods: Vec<String> = index.pods_in(namespace).map(|pod| pod.name.to_string()).collect();
    if !pods.is_empty() {
        return error.hint(format!("pods of namespace {namespace}: {}", listed(&pods)));
    }
    let mut namespaces: Vec<String> = index.pods().map(|pod| pod.namespace.to_string()).collect();
    namespaces.dedup();
    let meant: Vec<String> = close(namespace, namespaces.iter().map(String::as_str)).into_iter().map(str::to_owned).collect();
    let error = match did_you_mean(&meant) {
        Some(question) => error.hint(format!("namespace {namespace} has no pods; {question}")),
        None if namespaces.is_empty() => return error.hint("the manifests hold no pods at all"),
        None => error.hint(format!("namespace {namespace} has no pods; namespaces with pods: {}", listed(&namespaces))),
    };
    if namespace == "default" { error.hint("write namespace/name, or give the namespace with -n") } else { error }
}
