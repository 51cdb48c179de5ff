//! Why rules do not match: every condition that failed.

use crate::cluster::{ClusterPolicy, ClusterRule, Direction, NetworkPolicy, Rule};

use crate::policy::connection::Case;
use crate::policy::evaluate::View;
use crate::policy::evaluate::matching::Match;
use crate::policy::explanation::{IsolatingPolicy, PeerMiss, PolicyRef, PortMiss, RuleMiss};

/// The NetworkPolicies that isolate the pod, with why none of their rules admits the connection.
pub(in crate::policy) fn isolating(view: &View<'_>, case: &Case<'_>, direction: Direction) -> Vec<IsolatingPolicy> {
    let Some(subject) = case.sides(direction).0.pod() else { return Vec::new() };
    view.isolating(subject, direction).into_iter().map(|policy| why_not(view, case, direction, policy)).collect()
}

fn why_not(view: &View<'_>, case: &Case<'_>, direction: Direction, policy: &NetworkPolicy) -> IsolatingPolicy {
    let rules = policy.rules(direction).unwrap_or_default();
    let rules = rules.iter().enumerate().map(|(index, rule)| rule_miss(view, case, direction, policy, index, rule)).collect();
    IsolatingPolicy { policy: PolicyRef::of(policy), rules }
}

fn rule_miss(view: &View<'_>, case: &Case<'_>, direction: Direction, policy: &NetworkPolicy, index: usize, rule: &Rule) -> RuleMiss {
    let (_, peer_end) = case.sides(direction);
    let mut miss = RuleMiss { index, origin: rule.origin.clone(), peers: Vec::new(), ports: Vec::new() };
    if view.peers(rule, &policy.namespace, &peer_end) == Match::No {
        for (index, peer) in rule.peers.iter().enumerate() {
            let mut failed = Vec::new();
            view.peer(peer, &policy.namespace, &peer_end, &mut failed);
            miss.peers.push(PeerMiss { index, failed });
        }
    }
    if view.ports(rule, case) == Match::No {
        for (index, port) in rule.ports.iter().enumerate() {
            let mut failed = Vec::new();
            view.port(port, case, &mut failed);
            miss.ports.push(PortMiss { index, wants: port.to_string(), failed });
        }
    }
    miss
}

/// Why a rule of the Admin or Baseline tier does not match.
pub(in crate::policy) fn cluster_rule(
    view: &View<'_>,
    case: &Case<'_>,
    direction: Direction,
    at: (&ClusterPolicy, usize),
    rule: &ClusterRule,
) -> RuleMiss {
    let (_, peer_end) = case.sides(direction);
    let mut miss = RuleMiss { index: at.1, origin: rule.origin.clone(), peers: Vec::new(), ports: Vec::new() };
    if view.cluster_peers(rule, &peer_end) == Match::No {
        for (index, peer) in rule.peers.iter().enumerate() {
            let mut failed = Vec::new();
            view.cluster_peer(peer, rule.action, &peer_end, &mut failed);
            miss.peers.push(PeerMiss { index, failed });
        }
    }
    if view.cluster_ports(rule, case) == Match::No {
        for (index, port) in rule.ports.iter().enumerate() {
            let mut failed = Vec::new();
            view.cluster_port(port, rule.action, case, &mut failed);
            miss.ports.push(PortMiss { index, wants: port.to_string(), failed });
        }
    }
    miss
}
