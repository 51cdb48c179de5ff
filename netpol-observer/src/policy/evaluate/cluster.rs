//! Whether the peers and ports of a rule of the Admin or Baseline tier match, and what failed when they do not.

use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::{Action, Cidr, ClusterPeer, ClusterPort, ClusterRule, Direction, DomainName, Index, Requirement, Selector};

use super::View;
use super::matching::{Ignore, Match, Namespaces, Sink, Unknown};
use crate::policy::connection::{Case, End, Who};
use crate::policy::explanation::Condition;

impl View<'_> {
    /// Whether a rule matches the connection.
    pub(in crate::policy) fn cluster_rule(&self, rule: &ClusterRule, direction: Direction, case: &Case<'_>) -> Match {
        let ports = self.cluster_ports(rule, case);
        if ports == Match::No { Match::No } else { ports.and(self.cluster_peers(rule, &case.sides(direction).1)) }
    }

    /// Whether any peer of the rule matches.
    pub(in crate::policy) fn cluster_peers(&self, rule: &ClusterRule, end: &End<'_>) -> Match {
        rule.peers.iter().fold(Match::No, |result, peer| result.or(self.cluster_peer(peer, rule.action, end, &mut Ignore)))
    }

    /// Whether any port of the rule matches.
    pub(in crate::policy) fn cluster_ports(&self, rule: &ClusterRule, case: &Case<'_>) -> Match {
        if rule.ports.is_empty() {
            return Match::Yes;
        }
        rule.ports.iter().fold(Match::No, |result, port| result.or(self.cluster_port(port, rule.action, case, &mut Ignore)))
    }

    /// Whether a peer matches; `sink` takes every condition that fails.
    pub(in crate::policy) fn cluster_peer<S: Sink>(&self, peer: &ClusterPeer, action: Action, end: &End<'_>, sink: &mut S) -> Match {
        match peer {
            ClusterPeer::Namespaces(namespaces) => self.pods(Namespaces::Selected(namespaces), None, end, sink),
            ClusterPeer::Pods { namespace, pod } => self.pods(Namespaces::Selected(namespace), Some(pod), end, sink),
            ClusterPeer::Nodes(nodes) => self.nodes(nodes, end, sink),
            ClusterPeer::Networks(networks) => {
                if networks.iter().any(|network| network.contains(end.ip)) {
                    return Match::Yes;
                }
                sink.fail(|| Condition::OutsideNetworks { networks: networks.iter().map(Cidr::to_string).collect(), ip: end.ip });
                Match::No
            }
            ClusterPeer::DomainNames(names) => self.domain_names(names, end, sink),
            ClusterPeer::Invalid(why) => closed(why, action, sink),
        }
    }

    fn nodes<S: Sink>(&self, nodes: &Selector, end: &End<'_>, sink: &mut S) -> Match {
        let node = match end.who {
            Who::Node(known) => known.or_else(|| self.index.node_at(end.ip).map(|node| &**node)),
            _ => None,
        };
        let Some(node) = node else {
            sink.fail(|| Condition::NotANode { ip: end.ip });
            return Match::No;
        };
        let mut result = Match::Yes;
        for requirement in nodes.failed(&node.labels) {
            result = Match::No;
            sink.fail(|| Condition::NodeLabel {
                wants: Requirement::clone(requirement),
                node: node.name.clone(),
                has: node.labels.get(&requirement.key).cloned(),
            });
        }
        result
    }

    /// Decided where the addresses of all the names are known. A name that is not may stand for any address outside of the cluster.
    fn domain_names<S: Sink>(&self, names: &[Arc<str>], end: &End<'_>, sink: &mut S) -> Match {
        let mut is_open = false;
        for name in names {
            let mut known = known_names(name, self.index).peekable();
            is_open |= known.peek().is_none();
            if known.any(|known| known.addresses.iter().map(IpAddr::to_canonical).any(|ip| ip == end.ip)) {
                return Match::Yes;
            }
        }
        if is_open && matches!(end.who, Who::External | Who::Special | Who::Unowned) {
            return Match::Unknown(Unknown::Name);
        }
        sink.fail(|| Condition::NotTheName { names: names.to_vec(), ip: end.ip });
        Match::No
    }

    /// Whether a port matches; `sink` takes every condition that fails.
    pub(in crate::policy) fn cluster_port<S: Sink>(&self, port: &ClusterPort, action: Action, case: &Case<'_>, sink: &mut S) -> Match {
        match port {
            ClusterPort::Port(port) => self.port(port, case, sink),
            ClusterPort::Named(name) => self.named_port(name, case.protocol, case, sink),
            ClusterPort::Invalid(why) => closed(why, action, sink),
        }
    }
}

/// A part that the API server refuses, or that is newer than what is known here: it must not admit more than was meant.
fn closed<S: Sink>(why: &Arc<str>, action: Action, sink: &mut S) -> Match {
    match action {
        Action::Accept => {
            sink.fail(|| Condition::Invalid { why: why.clone() });
            Match::No
        }
        Action::Deny | Action::Pass => Match::Yes,
    }
}

/// What is known of the names that a `domainNames` entry stands for: a name, or after `*.` everything one or more labels below it.
pub(in crate::policy) fn known_names<'a>(wanted: &'a str, index: &'a Index) -> impl Iterator<Item = &'a DomainName> {
    let below = wanted.strip_prefix('*');
    let exact = index.domain_name(wanted).filter(|_| below.is_none());
    let all = below
        .into_iter()
        .flat_map(|suffix| index.domain_names().filter(move |known| known.name.len() > suffix.len() && known.name.ends_with(suffix)));
    exact.into_iter().chain(all).map(|known| &**known)
}
