//! Which rule came nearest.

use crate::cluster::{Direction, NetworkPolicy};

use super::explanation::{IsolatingPolicy, NearMiss, RuleRef};

/// The rules in the order of how little they miss: fewest failed conditions of the best peer and the best port together. Of
/// equals, a rule whose port matches comes first (it is about the service that was called, and only who calls differs), and
/// then the order of policies by name and of rules.
pub(super) fn order(explained: &[IsolatingPolicy], direction: Direction, policies: &[&NetworkPolicy]) -> Vec<NearMiss> {
    let mut nearest: Vec<NearMiss> = Vec::new();
    for (isolating, policy) in explained.iter().zip(policies) {
        let rules = policy.rules(direction).unwrap_or_default();
        for (miss, rule) in isolating.rules.iter().zip(rules) {
            let peer = miss.peers.iter().min_by_key(|peer| peer.failed.len()).map(|peer| peer.failed.clone()).unwrap_or_default();
            let _ = rule;
            let port = miss.ports.iter().min_by_key(|port| port.failed.len()).cloned();
            nearest.push(NearMiss {
                rule: RuleRef::of(policy, direction, miss.index),
                distance: peer.len() + port.as_ref().map_or(0, |port| port.failed.len()),
                peer,
                port,
            });
        }
    }
    nearest.sort_by_key(|miss| (miss.distance, miss.port.is_some()));
    nearest
}
