//! Whom a change admits that is denied today.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use ipnet::IpNet;

use crate::cluster::{ClusterPeer, Direction, IpBlock, Peer, Pod, PolicyPort, PortNumber, Rule, Selector, Subject, Workload};
use crate::policy::compiled::{Cell, End, IdentityId, PeerKey};
use crate::policy::connection::{Case, End as Side, Who};
use crate::policy::evaluate::{Changed, View};

use super::{Candidate, Edit, Task};

/// What a change opens: to or from which pods, for which peers, on which ports.
pub(super) struct Opened {
    pub(super) subjects: Subjects,
    pub(super) peers: Vec<PeerKey>,
    /// No peer is named: everybody.
    pub(super) any_peer: bool,
    /// Empty: every port of every protocol.
    pub(super) ports: Vec<PolicyPort>,
}

/// The pods that the changed policy selects.
pub(super) enum Subjects {
    /// Of a NetworkPolicy: its namespace and podSelector.
    Network(Arc<str>, Selector),
    Cluster(Subject),
    /// The pods of one workload, by other labels than they have.
    Relabelled,
}

/// How many ports a change opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Breadth {
    /// Those that are named one by one, or in a short range.
    Listed,
    /// A protocol, or a long range.
    Protocol,
    Everything,
}

/// Ports of a range that still count as named one by one.
const SHORT_RANGE: u16 = 1000;

impl Opened {
    pub(super) fn network(namespace: &Arc<str>, pods: &Selector, opens: &Rule) -> Self {
        let keys = opens.peers.iter().filter_map(|peer: &Peer| PeerKey::of(peer, namespace));
        Opened {
            subjects: Subjects::Network(namespace.clone(), pods.clone()),
            peers: keys.collect(),
            any_peer: opens.peers.is_empty(),
            ports: opens.ports.clone(),
        }
    }

    pub(super) fn cluster(subject: &Subject, peer: &ClusterPeer, port: PolicyPort) -> Self {
        Opened {
            subjects: Subjects::Cluster(subject.clone()),
            peers: PeerKey::of_cluster(peer).into_iter().collect(),
            any_peer: false,
            ports: vec![port],
        }
    }

    pub(super) fn breadth(&self) -> Breadth {
        let of = |port: &PolicyPort| match port.port {
            PortNumber::Any => Breadth::Protocol,
            PortNumber::Range(from, to) if to.saturating_sub(from) >= SHORT_RANGE => Breadth::Protocol,
            _ => Breadth::Listed,
        };
        self.ports.iter().map(of).max().unwrap_or(Breadth::Everything)
    }
}

/// Counts and names whom changes admit.
pub(super) struct Gain<'a> {
    task: &'a Task<'a>,
}

/// A side of a newly admitted connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Named<'a> {
    Workload(&'a str, &'a Workload),
    Block(&'a str),
    Anybody,
}

impl Named<'_> {
    /// A range is more than the one address that called, and everybody is more than a range.
    fn weight(self) -> usize {
        match self {
            Named::Workload(..) => 1,
            Named::Block(cidr) if cidr.ends_with("/32") || cidr.ends_with("/128") => 1,
            Named::Block(_) => 2,
            Named::Anybody => 3,
        }
    }

    fn shown(self) -> String {
        match self {
            Named::Workload(namespace, workload) => format!("{namespace}/{}", workload.name),
            Named::Block(cidr) => cidr.to_owned(),
            Named::Anybody => "any address".to_owned(),
        }
    }
}

impl<'a> Gain<'a> {
    pub(super) fn new(task: &'a Task<'a>) -> Self {
        Gain { task }
    }

    /// How many pairs of workloads the change newly admits; counting ends at `enough`.
    pub(super) fn count(&self, candidate: &Candidate, enough: usize) -> usize {
        if let Edit::Labels(relabelled) = &candidate.edit {
            return relabelled.gains(self.task, enough).len().max(1);
        }
        let (mut found, mut admitted) = (HashSet::new(), 0_usize);
        self.each(candidate, &mut |subject, peer| {
            if found.insert((subject, peer)) {
                admitted = admitted.saturating_add(peer.weight());
            }
            admitted < enough
        });
        admitted.max(1)
    }

    /// Who that is. The called one is always among them.
    pub(super) fn names(&self, candidate: &Candidate) -> Vec<String> {
        let (own, called) = self.task.case.sides(self.task.direction);
        let mut names = BTreeSet::new();
        if let Edit::Labels(relabelled) = &candidate.edit {
            names.extend(relabelled.gains(self.task, usize::MAX));
        } else {
            names.insert(called.pod().map_or_else(|| IpNet::from(called.ip).to_string(), name));
            let own = own.pod().map(|pod| (&*pod.namespace, &pod.workload));
            self.each(candidate, &mut |subject, peer| {
                names.insert(match (subject, self.task.direction) {
                    (Named::Workload(namespace, workload), _) if own == Some((namespace, workload)) => peer.shown(),
                    (_, Direction::Ingress) => format!("{} → {}", peer.shown(), subject.shown()),
                    (_, Direction::Egress) => format!("{} → {}", subject.shown(), peer.shown()),
                });
                true
            });
        }
        names.into_iter().collect()
    }

    /// Hands over pairs of subject and peer that are newly admitted, for as long as more are wanted.
    fn each(&self, candidate: &'a Candidate, found: &mut impl FnMut(Named<'a>, Named<'a>) -> bool) {
        let Edit::Policy(changed) = &candidate.edit else { return };
        let opened = &candidate.opened;
        let peers = self.peers(opened);
        for (identity, subjects) in self.subjects(opened) {
            let cells = self.cells(identity, &opened.ports);
            for (end, pods, named) in &peers {
                let gains = |cell: &Cell<'_>| match changed {
                    Changed::NetworkPolicy(_) => cell.isolates(*end),
                    Changed::ClusterPolicy(_) => !cell.possible(*end).0,
                };
                if !cells.iter().any(gains) {
                    continue;
                }
                if matches!(changed, Changed::ClusterPolicy(_)) && !self.admits(changed, &subjects, pods) {
                    continue;
                }
                for subject in &subjects {
                    let subject_name = Named::Workload(&subject.namespace, &subject.workload);
                    if let Some(named) = named
                        && !found(subject_name, *named)
                    {
                        return;
                    }
                    // A pod may always reach itself: that is nothing new.
                    for peer in pods.iter().filter(|peer| !Arc::ptr_eq(peer, subject)) {
                        if !found(subject_name, Named::Workload(&peer.namespace, &peer.workload)) {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Whether the changed policy of the Admin or Baseline tier admits these: rules before it may decide otherwise.
    fn admits(&self, changed: &Changed, subjects: &[&'a Arc<Pod>], peers: &[&'a Arc<Pod>]) -> bool {
        let changed: Vec<Changed> = self.task.view.changed.iter().chain([changed]).cloned().collect();
        let view = View { changed: &changed, ..self.task.view };
        let Some(subject) = subjects.first() else { return false };
        let own = side(subject);
        let others: Vec<Side<'_>> = if peers.is_empty() {
            vec![self.task.case.sides(self.task.direction).1]
        } else {
            peers.iter().take(1).map(|peer| side(peer)).collect()
        };
        others.into_iter().any(|other| {
            let (source, destination) = match self.task.direction {
                Direction::Egress => (own, other),
                Direction::Ingress => (other, own),
            };
            view.judge(&Case { source, destination, ..self.task.case }, self.task.direction).admits() == Some(true)
        })
    }

    /// The pods that the change selects, by identity.
    fn subjects(&self, opened: &Opened) -> Vec<(IdentityId, Vec<&'a Arc<Pod>>)> {
        let view = &self.task.view;
        match &opened.subjects {
            Subjects::Relabelled => Vec::new(),
            Subjects::Network(namespace, pods) => view.compiled.pods_in(namespace, |pod| pods.matches(&pod.labels)),
            Subjects::Cluster(subject) => {
                let namespaces = view.compiled.namespaces().filter(|namespace| match subject {
                    Subject::Namespaces(selector) | Subject::Pods { namespace: selector, .. } => {
                        selector.matches(&view.index.namespace_labels(namespace))
                    }
                    Subject::Invalid(_) => false,
                });
                namespaces
                    .flat_map(|namespace| {
                        view.compiled.pods_in(namespace, |pod| match subject {
                            Subject::Pods { pod: pods, .. } => pods.matches(&pod.labels),
                            Subject::Namespaces(_) => true,
                            Subject::Invalid(_) => false,
                        })
                    })
                    .collect()
            }
        }
    }

    /// The ends that the change opens to, the pods at each, and a name of what is no pod.
    fn peers(&self, opened: &'a Opened) -> Vec<(u32, Vec<&'a Arc<Pod>>, Option<Named<'a>>)> {
        let compiled = self.task.view.compiled;
        if opened.any_peer {
            let anybody = |end: &End| matches!(end.pods.as_slice(), []) && compiled.is_external(end);
            return compiled.ends().map(|(id, end)| (id, end.pods.iter().collect(), anybody(end).then_some(Named::Anybody))).collect();
        }
        let mut found = Vec::new();
        for key in &opened.peers {
            match key {
                PeerKey::Own(namespace, pods) => self.pods_at(namespace, pods.as_ref(), &mut found),
                PeerKey::Pods(namespaces, pods) => {
                    let index = self.task.view.index;
                    for namespace in compiled.namespaces().filter(|namespace| namespaces.matches(&index.namespace_labels(namespace))) {
                        self.pods_at(namespace, pods.as_ref(), &mut found);
                    }
                }
                PeerKey::Block(block) => {
                    let ends = compiled.ends_in(key, self.task.view.index, self.task.view.profile);
                    found.extend(ends.map(|(id, end)| {
                        let named = compiled.is_external(end).then(|| Named::Block(&block.cidr.text));
                        (id, end.pods.iter().filter(|pod| holds(pod, block)).collect(), named)
                    }));
                    // An address of its own has no end: it is judged like those around it.
                    if let Some(end) = compiled.external_end(block.cidr.net.addr()) {
                        found.push((end, Vec::new(), Some(Named::Block(&block.cidr.text))));
                    }
                }
                PeerKey::Networks(networks) => {
                    for cidr in networks {
                        if let Some(end) = compiled.external_end(cidr.net.addr()) {
                            found.push((end, Vec::new(), Some(Named::Block(&cidr.text))));
                        }
                    }
                }
                PeerKey::Nodes(_) | PeerKey::Names(_) => {}
            }
        }
        found
    }

    fn pods_at(&self, namespace: &str, pods: Option<&Selector>, found: &mut Vec<(u32, Vec<&'a Arc<Pod>>, Option<Named<'a>>)>) {
        for (id, end) in self.task.view.compiled.ends_of_namespace(namespace) {
            let matching: Vec<&Arc<Pod>> = end.pods.iter().filter(|pod| pods.is_none_or(|pods| pods.matches(&pod.labels))).collect();
            if !matching.is_empty() {
                found.push((id, matching, None));
            }
        }
    }

    /// What is admitted today on the ports that the change opens.
    fn cells(&self, identity: IdentityId, ports: &[PolicyPort]) -> Vec<Cell<'a>> {
        let view = &self.task.view;
        view.compiled.cells(identity, self.task.direction, ports, view.index, view.profile)
    }
}

fn name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace, pod.workload.name)
}

fn side<'a>(pod: &'a Arc<Pod>) -> Side<'a> {
    let ip = pod.ips.first().map_or(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), std::net::IpAddr::to_canonical);
    Side { ip, who: Who::Pod(pod) }
}

fn holds(pod: &Pod, block: &IpBlock) -> bool {
    pod.ips.iter().any(|ip| block.cidr.contains(ip.to_canonical()))
}
