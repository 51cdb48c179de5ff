//! Whether a connection between two definite sides is admitted: `matching` and `cluster` say whether the peers and ports of rules match,
//! `walk` goes through the tiers. This file says what they look at: the objects, the profile, and changes that are only supposed.

mod cluster;
pub(super) mod matching;
pub(super) mod walk;

pub(super) use cluster::known_names;

use std::sync::Arc;

use crate::cluster::{ClusterPolicy, Direction, Index, Kind, Labels, NetworkPolicy, ObjectKey, Pod, Subject, Tier};

use super::compiled::Compiled;
use super::connection::Profile;

/// The objects as they are, or as they would be after changes: a fix is proved by evaluating under one.
#[derive(Clone, Copy)]
pub(in crate::policy) struct View<'a> {
    pub(in crate::policy) index: &'a Index,
    pub(in crate::policy) profile: &'a Profile,
    pub(in crate::policy) compiled: &'a Compiled,
    /// Policies that stand in the place of those of their name, or beside the others. Of several with one name the last counts.
    pub(in crate::policy) changed: &'a [Changed],
    /// Policies that are taken for not there.
    pub(in crate::policy) gone: &'a [ObjectKey],
}

/// A policy as a fix leaves it.
#[derive(Clone, Debug)]
pub(in crate::policy) enum Changed {
    NetworkPolicy(Arc<NetworkPolicy>),
    ClusterPolicy(Arc<ClusterPolicy>),
}

impl<'a> View<'a> {
    /// The policies that isolate a pod in a direction, by name.
    pub(in crate::policy) fn isolating(&self, pod: &Pod, direction: Direction) -> Vec<&'a NetworkPolicy> {
        let mut found: Vec<&NetworkPolicy> = match self.compiled.isolating(pod, direction, self.index) {
            Some(isolating) => isolating.collect(),
            None => {
                let here = self.index.policies_in(&pod.namespace).map(|policy| &**policy);
                here.filter(|policy| policy.rules(direction).is_some() && policy.pod_selector.matches(&pod.labels)).collect()
            }
        };
        found.retain(|policy| !self.is_gone(Kind::NetworkPolicy, &policy.namespace, &policy.name));
        for changed in self.changed {
            if let Changed::NetworkPolicy(policy) = changed
                && policy.namespace == pod.namespace
            {
                found.retain(|other| other.name != policy.name);
                if policy.rules(direction).is_some() && policy.pod_selector.matches(&pod.labels) {
                    found.push(policy);
                }
            }
        }
        if !self.changed.is_empty() {
            found.sort_by(|a, b| a.name.cmp(&b.name));
        }
        found
    }

    /// Whether any policy isolates a pod in a direction.
    pub(in crate::policy) fn is_isolated(&self, pod: &Pod, direction: Direction) -> bool {
        match self.compiled.isolating(pod, direction, self.index) {
            Some(mut isolating) if self.changed.is_empty() && self.gone.is_empty() => isolating.next().is_some(),
            _ => !self.isolating(pod, direction).is_empty(),
        }
    }

    /// The policies of the Admin or Baseline tier that have the pod among their subjects, by priority and then by name.
    pub(in crate::policy) fn cluster_policies(&self, pod: &Pod, tier: Tier) -> Vec<&'a ClusterPolicy> {
        let mut found: Vec<&ClusterPolicy> = match self.compiled.cluster_policies(pod, tier, self.index) {
            Some(policies) => policies.collect(),
            None => {
                let all = self.index.cluster_policies().map(|policy| &**policy);
                let mut found: Vec<&ClusterPolicy> =
                    all.filter(|policy| policy.tier == tier && self.is_subject(&policy.subject, pod)).collect();
                in_order(&mut found);
                found
            }
        };
        found.retain(|policy| !self.is_gone(Kind::of(policy.kind), "", &policy.name));
        if !self.changes_cluster_policies() {
            // They are kept in their order.
            return found;
        }
        for changed in self.changed {
            if let Changed::ClusterPolicy(policy) = changed {
                found.retain(|other| (other.kind, &other.name) != (policy.kind, &policy.name));
                if policy.tier == tier && self.is_subject(&policy.subject, pod) {
                    found.push(policy);
                }
            }
        }
        in_order(&mut found);
        found
    }

    fn is_gone(&self, kind: Kind, namespace: &str, name: &str) -> bool {
        self.gone.iter().any(|key| (key.kind, &*key.namespace, &*key.name) == (kind, namespace, name))
    }

    pub(in crate::policy) fn changes_cluster_policies(&self) -> bool {
        self.changed.iter().any(|changed| matches!(changed, Changed::ClusterPolicy(_)))
    }

    pub(in crate::policy) fn is_subject(&self, subject: &Subject, pod: &Pod) -> bool {
        selects(subject, &self.index.namespace_labels(&pod.namespace), &pod.labels)
    }

    /// Whether any policy speaks of this direction.
    pub(in crate::policy) fn speaks_of(&self, direction: Direction) -> bool {
        let is_as_it_was = |kind: Kind, namespace: &str, name: &str| {
            let is_it = |changed: &Changed| match changed {
                Changed::NetworkPolicy(policy) => (Kind::NetworkPolicy, &*policy.namespace, &*policy.name) == (kind, namespace, name),
                Changed::ClusterPolicy(policy) => (Kind::of(policy.kind), "", &*policy.name) == (kind, namespace, name),
            };
            !self.is_gone(kind, namespace, name) && !self.changed.iter().any(is_it)
        };
        let speaks = |changed: &Changed| match changed {
            Changed::NetworkPolicy(policy) => policy.rules(direction).is_some(),
            Changed::ClusterPolicy(policy) => !policy.rules(direction).is_empty(),
        };
        let network = |policy: &NetworkPolicy| {
            policy.rules(direction).is_some() && is_as_it_was(Kind::NetworkPolicy, &policy.namespace, &policy.name)
        };
        let cluster = |policy: &ClusterPolicy| !policy.rules(direction).is_empty() && is_as_it_was(Kind::of(policy.kind), "", &policy.name);
        self.changed.iter().any(speaks)
            || self.index.policies().any(|policy| network(policy))
            || self.index.cluster_policies().any(|policy| cluster(policy))
    }
}

/// Lower priority numbers go first; names make the order a definite one.
fn in_order(policies: &mut [&ClusterPolicy]) {
    policies.sort_by(|a, b| (a.priority, &a.name, a.kind).cmp(&(b.priority, &b.name, b.kind)));
}

/// Whether a pod with these labels, in a namespace with those, is a subject.
pub(in crate::policy) fn selects(subject: &Subject, namespace_labels: &Labels, pod_labels: &Labels) -> bool {
    match subject {
        Subject::Namespaces(namespaces) => namespaces.matches(namespace_labels),
        Subject::Pods { namespace, pod } => pod.matches(pod_labels) && namespace.matches(namespace_labels),
        Subject::Invalid(_) => false,
    }
}
