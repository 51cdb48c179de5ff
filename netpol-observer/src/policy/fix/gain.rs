//! Whom a change admits that is denied today.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use ipnet::IpNet;

use crate::cluster::{ClusterPeer, Direction, IpBlock, Pod, PolicyPort, PortNumber, Rule, Selector, Subject};
use crate::policy::compiled::{Cell, End, EndId, IdentityId, Of, PeerKey, gather};
use crate::policy::connection::{Case, End as Side, Who};
use crate::policy::evaluate::{Changed, View};

use super::{Edit, Task};

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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
        let mut keys: Vec<PeerKey> = Vec::new();
        for key in opens.peers.iter().filter_map(|peer| PeerKey::of(peer, namespace)) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        Opened {
            subjects: Subjects::Network(namespace.clone(), pods.clone()),
            peers: keys,
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

/// The pods of an identity.
pub(super) type OfIdentity = (IdentityId, Vec<Of>);

/// A side of a newly admitted connection.
enum Named<'a> {
    Workload(&'a Pod),
    Outside(&'a Outside),
}

/// Addresses of which it is not known who has them.
#[derive(Clone, Debug)]
enum Outside {
    Block(Arc<str>),
    Anybody,
}

impl Named<'_> {
    /// A range is more than the one address that called, and everybody is more than a range.
    fn weight(&self) -> usize {
        match self {
            Named::Workload(..) => 1,
            Named::Outside(Outside::Block(cidr)) if cidr.ends_with("/32") || cidr.ends_with("/128") => 1,
            Named::Outside(Outside::Block(_)) => 2,
            Named::Outside(Outside::Anybody) => 3,
        }
    }

    fn shown(&self) -> String {
        match self {
            Named::Workload(pod) => name(pod),
            Named::Outside(Outside::Block(cidr)) => cidr.to_string(),
            Named::Outside(Outside::Anybody) => "any address".to_owned(),
        }
    }
}

/// An end that a change opens to.
#[derive(Debug)]
pub(super) struct Peer {
    end: EndId,
    workloads: Vec<Of>,
    outside: Option<Outside>,
}

/// No workload has a number beyond 32 bits.
const OUTSIDE: u64 = 1 << 32;

impl<'a> Gain<'a> {
    pub(super) fn new(task: &'a Task<'a>) -> Self {
        Gain { task }
    }

    /// How many pairs of workloads the change newly admits; counting ends at `enough`. `edit` is there for all but NetworkPolicies, which
    /// admit whatever their own tier denies.
    pub(super) fn count(&self, opened: &Opened, edit: Option<&Edit>, enough: usize) -> usize {
        if let Some(Edit::Labels(relabelled)) = edit {
            return relabelled.gains(self.task, enough).len().max(1);
        }
        let (mut found, mut admitted) = (HashSet::with_hasher(foldhash::fast::RandomState::default()), 0_usize);
        self.each(opened, edit, &mut |pair, _, peer| {
            if found.insert(pair) {
                admitted = admitted.saturating_add(peer.weight());
            }
            admitted < enough
        });
        admitted.max(1)
    }

    /// Who that is. The called one is always among them.
    pub(super) fn names(&self, opened: &Opened, edit: &Edit) -> Vec<String> {
        let (own, called) = self.task.case.sides(self.task.direction);
        let mut names = BTreeSet::new();
        if let Edit::Labels(relabelled) = edit {
            names.extend(relabelled.gains(self.task, usize::MAX));
        }
        names.insert(called.pod().map_or_else(|| IpNet::from(called.ip).to_string(), name));
        if !matches!(edit, Edit::Labels(_)) {
            let own = own.pod().map(|pod| (&pod.namespace, &pod.workload));
            let mut told = HashSet::new();
            self.each(opened, Some(edit), &mut |pair, subject, peer| {
                if told.insert(pair) {
                    names.insert(match self.task.direction {
                        _ if own == Some((&subject.namespace, &subject.workload)) => peer.shown(),
                        Direction::Ingress => format!("{} → {}", peer.shown(), name(subject)),
                        Direction::Egress => format!("{} → {}", name(subject), peer.shown()),
                    });
                }
                true
            });
        }
        names.into_iter().collect()
    }

    /// Hands over pairs of subject and peer that are newly admitted, under a number that tells them apart, for as long as more are wanted.
    fn each(&self, opened: &Opened, edit: Option<&Edit>, found: &mut impl FnMut((u64, u64), &Pod, Named<'_>) -> bool) {
        let changed = match edit {
            Some(Edit::Policy(changed @ Changed::ClusterPolicy(_))) => Some(changed),
            Some(Edit::Policy(Changed::NetworkPolicy(_)) | Edit::Labels(_)) | None => None,
        };
        let subjects = self.subjects(&opened.subjects);
        let cells: Vec<Vec<Cell<'a>>> = subjects.iter().map(|(identity, _)| self.cells(*identity, &opened.ports)).collect();
        let anybody = opened.any_peer.then(|| self.anybody());
        let named = opened.peers.iter().map(|key| self.peers(key));
        for (number, peers) in (OUTSIDE..).zip(anybody.into_iter().chain(named)) {
            for peer in peers.iter() {
                for ((_, subjects), cells) in subjects.iter().zip(&cells) {
                    let gains = |cell: &Cell<'_>| if changed.is_none() { cell.isolates(peer.end) } else { !cell.possible(peer.end).0 };
                    let is_admitted = || changed.is_none_or(|changed| self.admits(changed, subjects, &peer.workloads));
                    if cells.iter().any(gains) && is_admitted() && !pairs(subjects, (number, peer), found) {
                        return;
                    }
                }
            }
        }
    }

    /// Whether the changed policy of the Admin or Baseline tier admits these: rules before it may decide otherwise.
    fn admits(&self, changed: &Changed, subjects: &[Of], peers: &[Of]) -> bool {
        let changed: Vec<Changed> = self.task.view.changed.iter().chain([changed]).cloned().collect();
        let view = View { changed: &changed, ..self.task.view };
        // A pod calling itself is no example.
        let other_than = |peer: &Arc<Pod>| subjects.iter().flat_map(Of::examples).find(|subject| !Arc::ptr_eq(peer, subject));
        let pair = peers.iter().flat_map(Of::examples).find_map(|peer| Some((other_than(peer)?, side(peer))));
        let called = || Some((&subjects.first().filter(|_| peers.is_empty())?.pod, self.task.case.sides(self.task.direction).1));
        let Some((subject, other)) = pair.or_else(called) else { return false };
        let own = side(subject);
        let (source, destination) = match self.task.direction {
            Direction::Egress => (own, other),
            Direction::Ingress => (other, own),
        };
        view.judge(&Case { source, destination, ..self.task.case }, self.task.direction).admits() == Some(true)
    }

    /// The pods that the change selects, by identity.
    pub(super) fn subjects(&self, wanted: &Subjects) -> Arc<[OfIdentity]> {
        let (compiled, index) = (self.task.view.compiled, self.task.view.index);
        self.task.kept.subjects(wanted, || match wanted {
            Subjects::Network(namespace, pods) => compiled.pods_in(namespace, Some(pods)),
            Subjects::Cluster(Subject::Namespaces(namespaces)) => {
                compiled.namespaces(namespaces, index).into_iter().flat_map(|namespace| compiled.pods_in(namespace, None)).collect()
            }
            Subjects::Cluster(Subject::Pods { namespace, pod }) => {
                compiled.namespaces(namespace, index).into_iter().flat_map(|namespace| compiled.pods_in(namespace, Some(pod))).collect()
            }
            Subjects::Relabelled | Subjects::Cluster(Subject::Invalid(_)) => Vec::new(),
        })
    }

    /// Everybody.
    fn anybody(&self) -> Arc<[Peer]> {
        let compiled = self.task.view.compiled;
        let peer = |(id, end)| peer_at(id, end, |_| true, compiled.is_external(end).then_some(Outside::Anybody));
        self.task.kept.anybody(|| compiled.ends().map(peer).collect())
    }

    /// The ends that a peer matches, with the pods at each.
    fn peers(&self, key: &PeerKey) -> Arc<[Peer]> {
        self.task.kept.peers(key, || self.find_peers(key))
    }

    fn find_peers(&self, key: &PeerKey) -> Vec<Peer> {
        let (compiled, index) = (self.task.view.compiled, self.task.view.index);
        let mut found: Vec<Peer> = Vec::new();
        match key {
            PeerKey::Own(namespace, pods) => compiled.ends_matching(namespace, pods.as_ref(), |end, workloads| {
                found.push(Peer { end, workloads, outside: None });
            }),
            PeerKey::Pods(namespaces, pods) => {
                for namespace in compiled.namespaces(namespaces, index) {
                    compiled.ends_matching(namespace, pods.as_ref(), |end, workloads| found.push(Peer { end, workloads, outside: None }));
                }
            }
            PeerKey::Block(block) => {
                let block_itself = Outside::Block(block.cidr.text.clone());
                for (id, end) in compiled.ends_in(key, index, self.task.view.profile) {
                    let outside = compiled.is_external(end).then(|| block_itself.clone());
                    found.push(peer_at(id, end, |pod| holds(pod, block), outside));
                }
                // An address of its own has no end: it is judged like those around it.
                if let Some(end) = compiled.external_end(block.cidr.net.addr()) {
                    found.push(Peer { end, workloads: Vec::new(), outside: Some(block_itself) });
                }
            }
            PeerKey::Networks(networks) => {
                for cidr in networks {
                    if let Some(end) = compiled.external_end(cidr.net.addr()) {
                        found.push(Peer { end, workloads: Vec::new(), outside: Some(Outside::Block(cidr.text.clone())) });
                    }
                }
            }
            PeerKey::Nodes(_) | PeerKey::Names(_) => {}
        }
        found
    }

    /// What is admitted today on the ports that the change opens.
    fn cells(&self, identity: IdentityId, ports: &[PolicyPort]) -> Vec<Cell<'a>> {
        let view = &self.task.view;
        view.compiled.cells(identity, self.task.direction, ports, view.index, view.profile)
    }
}

/// Hands over the pairs of some pods of one identity and those at an end. Returns whether more are wanted.
fn pairs(subjects: &[Of], (outside, peer): (u64, &Peer), found: &mut impl FnMut((u64, u64), &Pod, Named<'_>) -> bool) -> bool {
    for subject in subjects {
        let number = u64::from(subject.workload);
        if let Some(named) = &peer.outside
            && !found((number, outside), &subject.pod, Named::Outside(named))
        {
            return false;
        }
        for of in &peer.workloads {
            // A pod may always reach itself: that is nothing new.
            let is_itself = !of.has_more() && !subject.has_more() && Arc::ptr_eq(&of.pod, &subject.pod);
            if !is_itself && !found((number, u64::from(of.workload)), &subject.pod, Named::Workload(&of.pod)) {
                return false;
            }
        }
    }
    true
}

fn peer_at(end: EndId, at: &End, is_wanted: impl FnMut(&Pod) -> bool, outside: Option<Outside>) -> Peer {
    let mut workloads = Vec::new();
    gather(at, is_wanted, &mut workloads);
    Peer { end, workloads, outside }
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
