//! Which rule came nearest.

use crate::cluster::{Action, ClusterPolicy, Direction};

use super::misses;
use crate::policy::connection::Case;
use crate::policy::evaluate::View;
use crate::policy::explanation::{IsolatingPolicy, NearMiss, RuleMiss, RuleRef};

/// Rules of the Admin and Baseline tier that are kept as near misses: a tier may hold thousands.
const KEPT: usize = 16;

/// The rules in the order of how little they miss: fewest failed conditions of the best peer and the best port together. Of
/// equals, a rule whose port matches comes first (it is about the service that was called, and only who calls differs), and
/// then the order of policies by name and of rules.
pub(in crate::policy) fn order(isolating: &[IsolatingPolicy], direction: Direction) -> Vec<NearMiss> {
    let of_policy = |isolating: &IsolatingPolicy| {
        let policy = isolating.policy.clone();
        let at = move |miss: &RuleMiss| RuleRef {
            policy: policy.clone(),
            direction,
            index: miss.index,
            name: None,
            action: None,
            origin: miss.origin.clone(),
        };
        isolating.rules.iter().map(|miss| near(at(miss), miss)).collect::<Vec<_>>()
    };
    sorted(isolating.iter().flat_map(of_policy).collect())
}

/// The Accept and Pass rules that were asked before the Deny rule `at`, in the same order.
pub(in crate::policy) fn before(view: &View<'_>, case: &Case<'_>, direction: Direction, at: (&ClusterPolicy, usize)) -> Vec<NearMiss> {
    let Some(subject) = case.sides(direction).0.pod() else { return Vec::new() };
    let mut found = Vec::new();
    for policy in view.cluster_policies(subject, at.0.tier) {
        let is_last = (policy.kind, &policy.name) == (at.0.kind, &at.0.name);
        let asked = if is_last { at.1 } else { usize::MAX };
        for (index, rule) in policy.rules(direction).iter().enumerate().take(asked).filter(|(_, rule)| rule.action != Action::Deny) {
            let miss = misses::cluster_rule(view, case, direction, (policy, index), rule);
            found.push(near(RuleRef::of_cluster(policy, direction, index), &miss));
        }
        if is_last {
            break;
        }
    }
    let mut nearest = sorted(found);
    nearest.truncate(KEPT);
    nearest
}

fn near(rule: RuleRef, miss: &RuleMiss) -> NearMiss {
    let peer = miss.peers.iter().min_by_key(|peer| peer.failed.len()).map(|peer| peer.failed.clone()).unwrap_or_default();
    let port = miss.ports.iter().min_by_key(|port| port.failed.len()).cloned();
    NearMiss { rule, distance: peer.len() + port.as_ref().map_or(0, |port| port.failed.len()), peer, port }
}

fn sorted(mut nearest: Vec<NearMiss>) -> Vec<NearMiss> {
    nearest.sort_by_key(|miss| (miss.distance, miss.port.is_some()));
    nearest
}
