//! Policies with their peers compiled.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::matchers::{MatcherId, Matchers, PeerKey};
use super::space::{Asked, Space};
use crate::cluster::{
    Action, ClusterPeer, ClusterPolicy, ClusterPort, Direction, Index, NetworkPolicy, Peer, PortNumber, Selector, Subject,
};
use crate::policy::evaluate::known_names;

/// The peers of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Peers {
    /// Every end: no peer is named, or one that cannot be read in a rule that fails closed by matching.
    Any,
    Of(Box<[MatcherId]>),
}

/// A NetworkPolicy; `serial` tells its versions apart.
#[derive(Debug)]
pub(super) struct Compiled<P> {
    pub(super) serial: u32,
    pub(super) source: Arc<P>,
    /// Peers of the egress rules and of the ingress rules.
    pub(super) peers: [Box<[Peers]>; 2],
}

impl<P> Compiled<P> {
    pub(super) fn peers(&self, direction: Direction) -> &[Peers] {
        &self.peers[slot(direction)]
    }

    /// Gives its peers back.
    pub(super) fn release(&self, matchers: &mut Matchers) {
        for peers in self.peers.iter().flatten() {
            if let Peers::Of(ids) = peers {
                ids.iter().for_each(|id| matchers.give(*id));
            }
        }
    }
}

/// Place of a direction in a pair.
pub(super) fn slot(direction: Direction) -> usize {
    match direction {
        Direction::Egress => 0,
        Direction::Ingress => 1,
    }
}

pub(super) fn network_policy(source: &Arc<NetworkPolicy>, serial: u32, matchers: &mut Matchers) -> Compiled<NetworkPolicy> {
    let peers = Direction::BOTH.map(|direction| {
        let rules = source.rules(direction).unwrap_or_default().iter();
        let compile = |peers: &Vec<Peer>| match peers.as_slice() {
            [] => Peers::Any,
            peers => {
                Peers::Of(peers.iter().filter_map(|peer| PeerKey::of(peer, &source.namespace)).map(|key| matchers.take(key)).collect())
            }
        };
        rules.map(|rule| &rule.peers).map(compile).collect()
    });
    Compiled { serial, source: source.clone(), peers }
}

pub(super) fn cluster_policy(source: &Arc<ClusterPolicy>, serial: u32, matchers: &mut Matchers) -> Compiled<ClusterPolicy> {
    let peers = Direction::BOTH.map(|direction| {
        let rules = source.rules(direction).iter();
        rules
            .map(|rule| {
                let is_open = rule.action != Action::Accept && rule.peers.iter().any(|peer| matches!(peer, ClusterPeer::Invalid(_)));
                if is_open {
                    return Peers::Any;
                }
                Peers::Of(rule.peers.iter().filter_map(PeerKey::of_cluster).map(|key| matchers.take(key)).collect())
            })
            .collect()
    });
    Compiled { serial, source: source.clone(), peers }
}

/// What policies ask of pods, nodes and addresses.
#[derive(Default)]
pub(super) struct Questions {
    pub(super) asked: Asked,
    pub(super) ranges: Vec<IpNet>,
}

impl Questions {
    pub(super) fn of_network_policy(policy: &NetworkPolicy) -> Self {
        let mut questions = Questions::default();
        questions.pods(&policy.pod_selector);
        for rule in Direction::BOTH.into_iter().flat_map(|direction| policy.rules(direction).unwrap_or_default()) {
            for peer in &rule.peers {
                match peer {
                    Peer::Pods { pod, .. } => pod.iter().for_each(|pods| questions.pods(pods)),
                    Peer::IpBlock(block) => questions.ranges.extend(block.except.iter().chain([&block.cidr]).map(|cidr| cidr.net)),
                    Peer::Invalid(_) => {}
                }
            }
            for port in &rule.ports {
                if let PortNumber::Name(name) = &port.port {
                    questions.asked.port_names.insert(name.clone());
                }
            }
        }
        questions
    }

    pub(super) fn of_cluster_policy(policy: &ClusterPolicy, index: &Index) -> Self {
        let mut questions = Questions::default();
        if let Subject::Pods { pod, .. } = &policy.subject {
            questions.pods(pod);
        }
        for rule in Direction::BOTH.into_iter().flat_map(|direction| policy.rules(direction)) {
            for peer in &rule.peers {
                match peer {
                    ClusterPeer::Pods { pod, .. } => questions.pods(pod),
                    ClusterPeer::Nodes(nodes) => {
                        questions.asked.node_keys.extend(nodes.requirements.iter().map(|requirement| requirement.key.clone()));
                    }
                    ClusterPeer::Networks(networks) => questions.ranges.extend(networks.iter().map(|cidr| cidr.net)),
                    ClusterPeer::DomainNames(names) => questions.ranges.extend(names.iter().flat_map(|name| addresses(name, index))),
                    ClusterPeer::Namespaces(_) | ClusterPeer::Invalid(_) => {}
                }
            }
            for port in &rule.ports {
                match port {
                    ClusterPort::Named(name) => drop(questions.asked.port_names.insert(name.clone())),
                    ClusterPort::Port(_) | ClusterPort::Invalid(_) => {}
                }
            }
        }
        questions
    }

    fn pods(&mut self, pods: &Selector) {
        self.asked.pod_keys.extend(pods.requirements.iter().map(|requirement| requirement.key.clone()));
    }

    /// Leaves what nobody asked before.
    pub(super) fn new_to(mut self, space: &Space) -> Self {
        self.asked.pod_keys.retain(|key| !space.asked.pod_keys.contains(key));
        self.asked.node_keys.retain(|key| !space.asked.node_keys.contains(key));
        self.asked.port_names.retain(|name| !space.asked.port_names.contains(name));
        self
    }
}

/// Every address of a name, as a range of its own.
pub(super) fn addresses<'a>(name: &'a str, index: &'a Index) -> impl Iterator<Item = IpNet> {
    known_names(name, index).flat_map(|known| known.addresses.iter().map(IpAddr::to_canonical).map(IpNet::from))
}
