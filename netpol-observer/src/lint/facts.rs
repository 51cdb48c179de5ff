//! The objects as lints ask for them: pods in groups of equals, and what is not among the manifests.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::cluster::{Index, Labels, Pod, PodPhase, Selector};
use crate::flow::Protocol;
use crate::policy::Engine;

use super::Sink;
use super::finding::{Code, Draft, Severity};
use super::view::{Pods, Scope};

/// Namespaces that are listed by name in a message.
const MOST_NAMED: usize = 5;

pub(super) struct Facts<'a> {
    pub(super) engine: &'a Engine,
    pub(super) index: &'a Index,
    /// By name: those that an object describes, and those that hold pods.
    pub(super) areas: BTreeMap<&'a str, Area<'a>>,
    /// Addresses of pods that have one of their own, sorted.
    addresses: Vec<IpAddr>,
    /// Ranges the nodes give to pods.
    pub(super) pod_ranges: BTreeSet<IpNet>,
    /// Namespaces without pods that some lint would have needed them of.
    missing: RefCell<BTreeSet<String>>,
    /// Whether there is any pod.
    pub(super) has_pods: bool,
    /// Whether the objects look like those of a whole cluster, so that what is not among them is not there.
    pub(super) is_whole: bool,
    asked: Cell<bool>,
}

/// A namespace.
pub(super) struct Area<'a> {
    pub(super) name: Arc<str>,
    pub(super) labels: Cow<'a, Labels>,
    /// Pods that policies can select.
    pub(super) groups: Vec<Group<'a>>,
    /// Pods in their node's network, which no policy selects.
    host_network: Vec<&'a Arc<Pod>>,
    /// Pods that have ended; others like them may come.
    ended: Vec<&'a Arc<Pod>>,
}

/// Pods of a namespace with equal labels and ports: policies treat them alike.
pub(super) struct Group<'a> {
    /// The first by name.
    pub(super) pod: &'a Arc<Pod>,
    pub(super) count: usize,
}

type GroupKey<'a> = (&'a Labels, Vec<(Option<&'a str>, u16, Protocol)>);

impl Area<'_> {
    /// Whether there is a pod of any kind.
    pub(super) fn has_pods(&self) -> bool {
        !(self.groups.is_empty() && self.host_network.is_empty() && self.ended.is_empty())
    }
}

impl<'a> Facts<'a> {
    pub(super) fn of(engine: &'a Engine) -> Self {
        let index = engine.index();
        let mut areas: BTreeMap<&'a str, Area<'a>> = BTreeMap::new();
        let area = |name: &'a Arc<str>| Area {
            name: name.clone(),
            labels: index.namespace_labels(name),
            groups: Vec::new(),
            host_network: Vec::new(),
            ended: Vec::new(),
        };
        for namespace in index.namespaces() {
            areas.insert(&namespace.name, area(&namespace.name));
        }
        let mut addresses = Vec::new();
        let mut places: HashMap<(&str, GroupKey<'a>), usize> = HashMap::new();
        for pod in index.pods() {
            let of_pod = areas.entry(&pod.namespace).or_insert_with(|| area(&pod.namespace));
            if pod.phase == PodPhase::Terminated {
                of_pod.ended.push(pod);
            } else if pod.host_network {
                of_pod.host_network.push(pod);
            } else {
                addresses.extend(pod.ips.iter().map(IpAddr::to_canonical));
                let ports = pod.ports.iter().map(|port| (port.name.as_deref(), port.port, port.protocol)).collect();
                let place = *places.entry((&pod.namespace, (&pod.labels, ports))).or_insert(of_pod.groups.len());
                match of_pod.groups.get_mut(place) {
                    Some(group) => group.count += 1,
                    None => of_pod.groups.push(Group { pod, count: 1 }),
                }
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        let counts = index.counts();
        Facts {
            engine,
            index,
            areas,
            addresses,
            pod_ranges: index.nodes().flat_map(|node| &node.pod_cidrs).map(IpNet::trunc).collect(),
            missing: RefCell::default(),
            has_pods: counts.pods > 0,
            is_whole: counts.pods > 0 && counts.nodes > 0 || index.namespace("kube-system").is_some(),
            asked: Cell::new(false),
        }
    }

    /// The namespaces a scope speaks of, as far as they are known.
    pub(super) fn areas<'b>(&'b self, scope: Scope<'b>) -> impl Iterator<Item = &'b Area<'a>> {
        let one = match scope {
            Scope::Own(name) => self.areas.get(&**name),
            Scope::Matching(_) => None,
        };
        let matching: Option<&Selector> = match scope {
            Scope::Own(_) => None,
            Scope::Matching(selector) => Some(selector),
        };
        let several = matching.into_iter().flat_map(|selector| self.areas.values().filter(|area| selector.matches(&area.labels)));
        one.into_iter().chain(several)
    }

    /// The groups of pods that match.
    pub(super) fn groups<'b>(&'b self, pods: &Pods<'b>) -> impl Iterator<Item = &'b Group<'a>> {
        let selector = pods.pod;
        self.areas(pods.scope)
            .flat_map(|area| &area.groups)
            .filter(move |group| selector.is_none_or(|selector| selector.matches(&group.pod.labels)))
    }

    /// Whether any pod matches. Pods that have ended count: where they were, others will be.
    pub(super) fn any(&self, pods: &Pods<'_>) -> bool {
        let ended = |area: &Area<'_>| area.ended.iter().any(|pod| pods.pod.is_none_or(|selector| selector.matches(&pod.labels)));
        self.groups(pods).next().is_some() || self.areas(pods.scope).any(ended)
    }

    /// A pod that would match if it were not in its node's network.
    pub(super) fn in_host_network(&self, pods: &Pods<'_>) -> Option<&Arc<Pod>> {
        let matches = |pod: &&&Arc<Pod>| pods.pod.is_none_or(|selector| selector.matches(&pod.labels));
        self.areas(pods.scope).find_map(|area| area.host_network.iter().find(matches).copied())
    }

    /// A pod's address in the range and in none of the exceptions.
    pub(super) fn pod_address_in(&self, range: IpNet, is_excepted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let start = self.addresses.partition_point(|ip| *ip < range.network());
        let inside = self.addresses.get(start..).unwrap_or_default().iter().take_while(|ip| **ip <= range.broadcast());
        inside.copied().find(|ip| range.contains(ip) && !is_excepted(*ip))
    }

    /// Whether a namespace's pods are there to judge by; that they are not is said at the end.
    pub(super) fn knows_pods_of(&self, namespace: &str) -> bool {
        self.asked.set(true);
        let is_known = self.areas.get(namespace).is_some_and(Area::has_pods);
        if !is_known {
            self.missing.borrow_mut().insert(namespace.to_owned());
        }
        is_known
    }

    /// Says once what could not be judged.
    pub(super) fn silence(&self, sink: &mut Sink<'_>) {
        let missing = self.missing.borrow();
        if missing.is_empty() || !self.asked.get() {
            return;
        }
        let draft = Draft::general(Code::NoPods, Severity::Note);
        let help = "add the pods, as `kubectl get pods,namespaces -A -o yaml` prints them";
        if !self.has_pods {
            draft.say(sink, "no Pod among the manifests: whether selectors and named ports match anything is not judged", help);
            return;
        }
        let mut names: Vec<&str> = missing.iter().take(MOST_NAMED).map(String::as_str).collect();
        let more = format!("{} more", missing.len() - names.len());
        if missing.len() > names.len() {
            names.push(&more);
        }
        let word = if missing.len() == 1 { "namespace" } else { "namespaces" };
        let message =
            format!("no Pod of {word} {} among the manifests: whether policies there select anything is not judged", names.join(", "));
        draft.say(sink, message, help);
    }
}
