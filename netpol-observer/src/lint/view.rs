//! Policies of all kinds as one shape, so that a lint is written once.

use std::sync::Arc;

use ipnet::IpNet;

use crate::cluster::{
    Action, Cidr, ClusterPeer, ClusterPolicy, ClusterPort, ClusterRule, Direction, NetworkPolicy, Origin, Peer, PolicyPort, PortNumber,
    Rule, Selector, Subject,
};

use super::finding::About;

/// Pods by namespace and labels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pods<'a> {
    pub(super) scope: Scope<'a>,
    /// None: all of them.
    pub(super) pod: Option<&'a Selector>,
}

/// Namespaces.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope<'a> {
    /// One: that of the policy.
    Own(&'a Arc<str>),
    /// Those that match.
    Matching(&'a Selector),
}

/// Whom a peer speaks of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reach<'a> {
    /// Everybody, external addresses included.
    Any,
    Pods(Pods<'a>),
    Addresses {
        cidr: &'a Cidr,
        except: &'a [Cidr],
    },
    Nodes(&'a Selector),
    Domain(&'a Arc<str>),
    /// The API server refuses it.
    Invalid,
}

/// Which ports an entry speaks of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ports<'a> {
    Port(&'a PolicyPort),
    /// A container port's name, whatever the protocol.
    Named(&'a Arc<str>),
    Invalid,
}

/// A rule of any kind of policy.
#[derive(Clone, Debug)]
pub(super) struct RuleView<'a> {
    pub(super) direction: Direction,
    pub(super) index: usize,
    pub(super) action: Action,
    /// At least one, save for a rule that matches nothing; with its place in `from` or `to`.
    pub(super) peers: Vec<(usize, Reach<'a>)>,
    /// None: all.
    pub(super) ports: Vec<Ports<'a>>,
    pub(super) origin: Option<&'a Origin>,
}

impl<'a> RuleView<'a> {
    pub(super) fn of(policy: &'a NetworkPolicy, direction: Direction) -> Vec<Self> {
        let rules = policy.rules(direction).unwrap_or_default().iter().enumerate();
        rules.map(|(index, rule)| Self::of_rule(policy, direction, index, rule)).collect()
    }

    fn of_rule(policy: &'a NetworkPolicy, direction: Direction, index: usize, rule: &'a Rule) -> Self {
        let mut peers: Vec<_> = rule.peers.iter().map(|peer| reach(peer, &policy.namespace)).enumerate().collect();
        if peers.is_empty() {
            peers.push((0, Reach::Any));
        }
        let ports = rule.ports.iter().map(of_port).collect();
        RuleView { direction, index, action: Action::Accept, peers, ports, origin: rule.origin.as_ref() }
    }

    pub(super) fn of_cluster(policy: &'a ClusterPolicy, direction: Direction) -> Vec<Self> {
        let rules = policy.rules(direction).iter().enumerate();
        rules.map(|(index, rule)| Self::of_cluster_rule(direction, index, rule)).collect()
    }

    fn of_cluster_rule(direction: Direction, index: usize, rule: &'a ClusterRule) -> Self {
        let peers = rule.peers.iter().enumerate().flat_map(|(i, peer)| cluster_reaches(peer).into_iter().map(move |reach| (i, reach)));
        let ports = rule.ports.iter().map(|port| match port {
            ClusterPort::Port(port) => of_port(port),
            ClusterPort::Named(name) => Ports::Named(name),
            ClusterPort::Invalid(_) => Ports::Invalid,
        });
        RuleView { direction, index, action: rule.action, peers: peers.collect(), ports: ports.collect(), origin: rule.origin.as_ref() }
    }

    /// Whether a part of it is refused by the API server: what the rule means is then not what it says.
    pub(super) fn is_invalid(&self) -> bool {
        let peer = self.peers.iter().any(|(_, peer)| match peer {
            Reach::Invalid => true,
            Reach::Pods(pods) => pods.is_invalid(),
            Reach::Nodes(selector) => selector_is_invalid(selector),
            Reach::Any | Reach::Addresses { .. } | Reach::Domain(_) => false,
        });
        peer || self.ports.iter().any(|port| matches!(port, Ports::Invalid))
    }

    /// `spec.ingress[0]`
    pub(super) fn field(&self) -> String {
        format!("spec.{}[{}]", self.direction, self.index)
    }

    /// `spec.ingress[0].from[1]`
    pub(super) fn peer_field(&self, index: usize) -> String {
        format!("{}.{}[{index}]", self.field(), peers_field(self.direction))
    }
}

impl Pods<'_> {
    /// Whether a term is refused by the API server; then it selects nothing, and that is reported as such.
    pub(super) fn is_invalid(&self) -> bool {
        let namespace = matches!(self.scope, Scope::Matching(selector) if selector_is_invalid(selector));
        namespace || self.pod.is_some_and(selector_is_invalid)
    }
}

/// `from` or `to`
pub(super) fn peers_field(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}

pub(super) fn selector_is_invalid(selector: &Selector) -> bool {
    selector.requirements.iter().any(|requirement| matches!(requirement.operator, crate::cluster::Operator::Invalid(_)))
}

/// The pods a NetworkPolicy selects.
pub(super) fn selected(policy: &NetworkPolicy) -> Pods<'_> {
    Pods { scope: Scope::Own(&policy.namespace), pod: Some(&policy.pod_selector) }
}

/// The pods a cluster-scoped policy selects; none when its subject is refused.
pub(super) fn subject(policy: &ClusterPolicy) -> Option<Pods<'_>> {
    let pods = match &policy.subject {
        Subject::Namespaces(namespace) => Pods { scope: Scope::Matching(namespace), pod: None },
        Subject::Pods { namespace, pod } => Pods { scope: Scope::Matching(namespace), pod: Some(pod) },
        Subject::Invalid(_) => return None,
    };
    (!pods.is_invalid()).then_some(pods)
}

fn reach<'a>(peer: &'a Peer, own: &'a Arc<str>) -> Reach<'a> {
    match peer {
        Peer::Pods { namespace: None, pod: None } | Peer::Invalid(_) => Reach::Invalid,
        Peer::Pods { namespace, pod } => {
            let scope = namespace.as_ref().map_or(Scope::Own(own), Scope::Matching);
            Reach::Pods(Pods { scope, pod: pod.as_ref() })
        }
        Peer::IpBlock(block) => Reach::Addresses { cidr: &block.cidr, except: &block.except },
    }
}

fn cluster_reaches(peer: &ClusterPeer) -> Vec<Reach<'_>> {
    match peer {
        ClusterPeer::Namespaces(namespace) => vec![Reach::Pods(Pods { scope: Scope::Matching(namespace), pod: None })],
        ClusterPeer::Pods { namespace, pod } => vec![Reach::Pods(Pods { scope: Scope::Matching(namespace), pod: Some(pod) })],
        ClusterPeer::Nodes(selector) => vec![Reach::Nodes(selector)],
        ClusterPeer::Networks(networks) => networks.iter().map(|cidr| Reach::Addresses { cidr, except: &[] }).collect(),
        ClusterPeer::DomainNames(names) => names.iter().map(Reach::Domain).collect(),
        ClusterPeer::Invalid(_) => vec![Reach::Invalid],
    }
}

fn of_port(port: &PolicyPort) -> Ports<'_> {
    match port.port {
        PortNumber::Invalid(_) => Ports::Invalid,
        _ => Ports::Port(port),
    }
}

/// A policy of any kind with its rules.
#[derive(Debug)]
pub(super) struct PolicyView<'a> {
    pub(super) about: About<'a>,
    /// None when the API server refuses what it selects.
    pub(super) subject: Option<Pods<'a>>,
    /// Of both directions.
    pub(super) rules: Vec<RuleView<'a>>,
}

impl<'a> From<&'a NetworkPolicy> for PolicyView<'a> {
    fn from(policy: &'a NetworkPolicy) -> Self {
        let subject = Some(selected(policy)).filter(|pods| !pods.is_invalid());
        let rules = Direction::BOTH.into_iter().flat_map(|direction| RuleView::of(policy, direction)).collect();
        PolicyView { about: policy.into(), subject, rules }
    }
}

impl<'a> From<&'a ClusterPolicy> for PolicyView<'a> {
    fn from(policy: &'a ClusterPolicy) -> Self {
        let rules = Direction::BOTH.into_iter().flat_map(|direction| RuleView::of_cluster(policy, direction)).collect();
        PolicyView { about: policy.into(), subject: subject(policy), rules }
    }
}

/// Whether exceptions leave nothing of a range.
pub(super) fn is_excepted(range: IpNet, except: &[Cidr]) -> bool {
    let inside: Vec<IpNet> = except.iter().map(|cidr| cidr.net.trunc()).collect();
    IpNet::aggregate(&inside).iter().any(|hole| hole.contains(&range.trunc()))
}
