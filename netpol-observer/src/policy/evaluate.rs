//! The evaluation core: one direction of one connection between two definite sides.

use std::sync::Arc;

use crate::cluster::{Direction, NetworkPolicy, Pod};

use super::connection::{Case, Who};
use super::matching::{Context, Match, Unknown};

/// Outcome of one direction, without reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Policies do not speak of it.
    NotSubject(Exempt),
    /// No policy isolates the pod.
    NotIsolated,
    /// A rule admits it.
    Allowed,
    /// Isolated, and no rule admits it.
    Denied,
    /// Cannot decide.
    Undecided(Doubt),
}

/// Why policies do not speak of a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exempt {
    /// Outside the cluster.
    External,
    /// A node or a pod in its network.
    Node,
    /// Multicast, loopback and the like on either side.
    Special,
    /// The pod itself.
    Itself,
    /// From the node the pod runs on.
    OwnNode,
}

/// Why a direction cannot be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Something about the connection is not known.
    Missing(Unknown),
    /// The API does not say what policies mean for the protocol.
    Protocol,
}

impl Outcome {
    /// Whether the connection passes in this direction; `None` when that cannot be decided.
    pub(super) fn admits(self) -> Option<bool> {
        match self {
            Outcome::NotSubject(_) | Outcome::NotIsolated | Outcome::Allowed => Some(true),
            Outcome::Denied => Some(false),
            Outcome::Undecided(_) => None,
        }
    }
}

impl<'a> Context<'a> {
    /// The policies that isolate a pod in a direction, by name.
    pub(super) fn isolating<'b>(&self, pod: &'b Pod, direction: Direction) -> impl Iterator<Item = &'a Arc<NetworkPolicy>> + use<'a, 'b> {
        self.index
            .policies_in(&pod.namespace)
            .filter(move |policy| policy.rules(direction).is_some() && policy.pod_selector.matches(&pod.labels))
    }

    /// Judges one direction.
    pub(super) fn judge(&self, case: &Case<'_>, direction: Direction) -> Outcome {
        self.judge_with(case, direction, None)
    }

    /// Judges one direction as if `changed` stood in the place of the policy of its name, or beside the others.
    pub(super) fn judge_with(&self, case: &Case<'_>, direction: Direction, changed: Option<&NetworkPolicy>) -> Outcome {
        let subject = match self.subject(case, direction) {
            Ok(pod) => pod,
            Err(outcome) => return outcome,
        };
        let applies = |policy: &NetworkPolicy| policy.rules(direction).is_some() && policy.pod_selector.matches(&subject.labels);
        let changed = changed.filter(|policy| policy.namespace == subject.namespace);
        let replaced = |policy: &NetworkPolicy| changed.is_some_and(|changed| changed.name == policy.name);
        let current = self.isolating(subject, direction).map(|policy| &**policy).filter(|policy| !replaced(policy));
        let mut isolated = false;
        let mut missing = None;
        for policy in current.chain(changed.filter(|policy| applies(policy))) {
            isolated = true;
            for rule in policy.rules(direction).unwrap_or_default() {
                match self.rule(rule, &policy.namespace, direction, case) {
                    Match::Yes => return Outcome::Allowed,
                    Match::Unknown(what) => missing = Some(what),
                    Match::No => {}
                }
            }
        }
        match missing {
            _ if !isolated => Outcome::NotIsolated,
            Some(what) => Outcome::Undecided(Doubt::Missing(what)),
            None if !case.protocol.has_ports() => Outcome::Undecided(Doubt::Protocol),
            None => Outcome::Denied,
        }
    }

    /// The pod whose policies apply, or the outcome where none do.
    pub(super) fn subject<'b>(&self, case: &Case<'b>, direction: Direction) -> Result<&'b Pod, Outcome> {
        let subject = case.sides(direction).0;
        if matches!(case.source.who, Who::Special) || case.destination.is_beyond_policies() {
            return Err(Outcome::NotSubject(Exempt::Special));
        }
        if case.is_loop() {
            return Err(Outcome::NotSubject(Exempt::Itself));
        }
        if direction == Direction::Ingress && case.comes_from_own_node(self.index) {
            return Err(Outcome::NotSubject(Exempt::OwnNode));
        }
        match subject.who {
            Who::Pod(pod) => Ok(pod),
            Who::Node => Err(Outcome::NotSubject(Exempt::Node)),
            Who::External | Who::Special => Err(Outcome::NotSubject(Exempt::External)),
            // Whoever it is may be isolated, if there is any policy for this direction at all.
            Who::Unowned if self.index.policies().any(|policy| policy.rules(direction).is_some()) => {
                Err(Outcome::Undecided(Doubt::Missing(Unknown::Owner)))
            }
            Who::Unowned => Err(Outcome::NotIsolated),
        }
    }
}
