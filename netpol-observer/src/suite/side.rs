//! The sides of tests as they are written → pods and addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;
use wildmatch::WildMatch;

use super::result::Problem;
use crate::cluster::{Index, Pod, PodPhase, Selector, Workload};
use crate::connectivity::workload_name;
use crate::identify::Identity;
use crate::policy::{GroupKind, Reachability};
use crate::question::label_selector::parse_selector;
use crate::question::{Callee, End, Member, QuestionError, members};

/// Whom a word of `from` or `to` stands for.
#[derive(Clone, Debug)]
pub(super) enum Side {
    /// As in `observer explain`.
    End(End),
    /// All workloads whose names match.
    Workloads {
        namespace: WildMatch,
        /// The short word for the kind, such as `deploy`; absent: any.
        kind: Option<WildMatch>,
        name: WildMatch,
        written: String,
    },
    /// All pods with these labels in namespaces that match.
    Labels { namespace: WildMatch, selector: Selector, written: String },
    /// Addresses outside of the cluster.
    Range(IpNet),
    /// A URL or a Service by its name, which leads through DNS and endpoints.
    Named(Callee),
}

/// Those that a test treats as one: the pods of a workload, a node, an address.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) key: Key,
    pub(super) members: Vec<Member>,
}

/// What a [`Unit`] is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    Workload(Arc<str>, Workload),
    Node(String),
    Address(IpAddr),
}

impl Unit {
    /// As in reports: `shop/deploy/web`, `203.0.113.7`.
    pub(super) fn name(&self) -> String {
        match &self.key {
            Key::Workload(namespace, workload) => workload_name(namespace, workload),
            Key::Node(name) => format!("node/{name}"),
            Key::Address(ip) => ip.to_string(),
        }
    }
}

impl Side {
    /// Reads one side. Names without a namespace are looked for in `namespace`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str, namespace: &str, is_called: bool) -> Result<Self, QuestionError> {
        let text = text.trim();
        if let Ok(range) = text.parse::<IpNet>() {
            return Ok(Side::Range(range.trunc()));
        }
        if text.contains('*') && !text.contains("://") {
            return wildcard(text, namespace);
        }
        if !is_called {
            return End::parse(text, namespace).map(Side::End);
        }
        match Callee::parse(text, namespace)? {
            Callee::End(End::Service { .. }) | Callee::Url(_) => Ok(Side::Named(Callee::parse(text, namespace)?)),
            Callee::End(end) => Ok(Side::End(end)),
        }
    }

    /// Everybody it stands for, in order.
    ///
    /// # Errors
    /// It stands for nobody: a test about nobody passes never.
    pub(super) fn units<'r>(&self, index: &Index, reachability: impl FnOnce() -> &'r Reachability) -> Result<Vec<Unit>, Problem> {
        match self {
            Side::End(end) => Ok(of_members(members(end, index)?)),
            Side::Workloads { namespace, kind, name, written } => {
                let is_meant = |pod: &&Arc<Pod>| {
                    let full = workload_name(&pod.namespace, &pod.workload);
                    let word = full.rsplit('/').nth(1).filter(|_| full.matches('/').count() == 2);
                    namespace.matches(&pod.namespace)
                        && name.matches(&pod.workload.name)
                        && kind.as_ref().is_none_or(|kind| word.is_some_and(|word| kind.matches(word)))
                };
                some(of_pods(index.pods().filter(is_meant), index), written)
            }
            Side::Labels { namespace, selector, written } => {
                let is_meant = |pod: &&Arc<Pod>| namespace.matches(&pod.namespace) && selector.matches(&pod.labels);
                some(of_pods(index.pods().filter(is_meant), index), written)
            }
            Side::Range(range) => Ok(of_range(*range, index, reachability())),
            Side::Named(_) => Err(Problem {
                message: "a URL or a Service stands for a whole way, and not for a side".to_owned(),
                hints: vec!["name the pods behind it: namespace/deploy/name".to_owned()],
            }),
        }
    }
}

impl From<QuestionError> for Problem {
    fn from(error: QuestionError) -> Self {
        Problem { message: error.message, hints: error.hints }
    }
}

/// `team-a/*`, `*/deploy/api-*`, `*/app=web`.
fn wildcard(text: &str, default: &str) -> Result<Side, QuestionError> {
    let (head, rest) = match text.split_once('/') {
        Some((head, rest)) if !head.contains(['.', '=', '(', '!']) => (head, rest),
        _ => (default, text),
    };
    if rest.contains(['=', '!', '(']) {
        if rest.contains('*') {
            let error = QuestionError::new(format!("{text}: * stands for names, and not for values of labels"));
            return Err(error.hint("write the label alone for any value: */app"));
        }
        let selector = parse_selector(rest).map_err(|error| QuestionError::new(format!("{text}: {error}")))?;
        return Ok(Side::Labels { namespace: WildMatch::new(head), selector, written: text.to_owned() });
    }
    let parts: Vec<&str> = text.split('/').collect();
    let (namespace, kind, name) = match *parts.as_slice() {
        [name] => (default, None, name),
        // `deploy/web-*` is of the namespace that is meant anyway.
        [kind, name] if is_kind(kind) => (default, Some(kind), name),
        [namespace, name] => (namespace, None, name),
        [namespace, kind, name] => (namespace, Some(kind), name),
        _ => {
            return Err(QuestionError::new(format!("{text} has too many parts"))
                .hint("write namespace/name or namespace/deploy/name, with * in them"));
        }
    };
    if let Some(kind) = kind.filter(|kind| !is_kind(kind) && !kind.contains('*')) {
        return Err(
            QuestionError::new(format!("{text}: {kind:?} is no kind that makes pods")).hint("there are deploy, sts, ds, job, cronjob, rs")
        );
    }
    // Those of Services are the pods' ways, not pods.
    let kind = kind.map(|kind| WildMatch::new(short(kind)));
    Ok(Side::Workloads { namespace: WildMatch::new(namespace), kind, name: WildMatch::new(name), written: text.to_owned() })
}

fn is_kind(word: &str) -> bool {
    matches!(short(word), "deploy" | "sts" | "ds" | "job" | "cronjob" | "rs")
}

/// The short word that [`workload_name`] writes.
fn short(word: &str) -> &str {
    match word {
        "deployment" | "deployments" => "deploy",
        "statefulset" | "statefulsets" => "sts",
        "daemonset" | "daemonsets" => "ds",
        "jobs" => "job",
        "cj" | "cronjobs" => "cronjob",
        "replicaset" | "replicasets" => "rs",
        other => other,
    }
}

fn some(units: Vec<Unit>, written: &str) -> Result<Vec<Unit>, Problem> {
    if units.is_empty() {
        return Err(Problem {
            message: format!("{written} stands for no pod"),
            hints: vec!["a test about nobody cannot pass: correct the name, or add the workload's manifest".to_owned()],
        });
    }
    Ok(units)
}

/// Pods by workload. Those in their node's network are left out: policies do not select them.
fn of_pods<'a>(pods: impl Iterator<Item = &'a Arc<Pod>>, index: &Index) -> Vec<Unit> {
    let running = pods.filter(|pod| pod.phase == PodPhase::Active && !pod.host_network);
    let mut units: BTreeMap<Key, Vec<Member>> = BTreeMap::new();
    for pod in running {
        units.entry(Key::Workload(pod.namespace.clone(), pod.workload.clone())).or_default().push(Member::of_pod(pod, index));
    }
    units.into_iter().map(|(key, members)| Unit { key, members }).collect()
}

fn of_members(members: Vec<Member>) -> Vec<Unit> {
    let mut units: BTreeMap<Key, Vec<Member>> = BTreeMap::new();
    for member in members {
        let key = match (&member.identity, member.ips.first()) {
            (Identity::Pod(pod), _) => Key::Workload(pod.namespace.clone(), pod.workload.clone()),
            (Identity::Node(node), _) => Key::Node(node.name.to_string()),
            (_, ip) => Key::Address(ip.copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))),
        };
        units.entry(key).or_default().push(member);
    }
    units.into_iter().map(|(key, members)| Unit { key, members }).collect()
}

/// An address for each part of a range within which policies tell no addresses apart.
fn of_range(range: IpNet, index: &Index, reachability: &Reachability) -> Vec<Unit> {
    let mut first: Vec<IpAddr> = vec![range.network()];
    for group in reachability.groups() {
        if let GroupKind::External(Some(named)) = group.kind
            && range.contains(&named)
        {
            first.push(named.network());
            first.extend(next(named.broadcast()).filter(|ip| range.contains(ip)));
        }
    }
    first.sort_unstable();
    first.dedup();
    // The first address of all is special: nobody has it.
    let usable = |ip: IpAddr| if ip.is_unspecified() { next(ip).unwrap_or(ip) } else { ip };
    let members = first.into_iter().map(usable).map(|ip| (ip, Member::of_ip(ip, index)));
    members.map(|(ip, member)| Unit { key: Key::Address(ip), members: vec![member] }).collect()
}

fn next(ip: IpAddr) -> Option<IpAddr> {
    Some(match ip {
        IpAddr::V4(ip) => IpAddr::V4(ip.to_bits().checked_add(1)?.into()),
        IpAddr::V6(ip) => IpAddr::V6(ip.to_bits().checked_add(1)?.into()),
    })
}
