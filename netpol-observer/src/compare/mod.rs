//! Two sets of objects → the connections that are newly allowed and newly denied between them. `observer diff`.
//!
//! Pure. Both engines say who can talk to whom ([`Connectivity`]); ranges of addresses outside that only one of them tells apart are told apart in both.
//! A workload that is in one of them only is named, and its connections are none of the difference.
#![forbid(unsafe_code)]

mod pair;
mod ports;
mod seen;
#[cfg(test)]
mod tests;

pub use seen::{Flow, Seen, SeenChange, Unreadable, read_flows, seen};

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{Index, Kind, Object, ObjectKey};
use crate::connectivity::{Connectivity, PartyKind};
use crate::policy::{Engine, Pair};

/// Changes of one kind of which it is looked for what made the difference; of further ones only who and on which ports is told.
pub const MAX_EXPLAINED: usize = 2_000;

/// What is different.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Connections that were allowed and are denied: between whom, on which ports (for workloads whose pods differ, of some pods at least), and what is said
    /// otherwise of one of them. Beyond [`MAX_EXPLAINED`] of a kind the last is left out.
    pub denied: Vec<Pair>,
    /// Connections that were denied and are allowed.
    pub allowed: Vec<Pair>,
    /// Connections of which it cannot be decided whether they are allowed, or could not be before.
    pub undecided: Vec<Pair>,
    /// Policies, and namespaces by their labels, that are different.
    pub objects: Vec<ObjectChange>,
    /// Workloads that are new.
    pub added: Vec<PartyKind>,
    /// Workloads that are gone.
    pub removed: Vec<PartyKind>,
    /// Workloads in both.
    pub workloads: usize,
}

/// A policy or a namespace that is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectChange {
    /// Which.
    pub key: ObjectKey,
    /// What happened to it.
    pub what: What,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It says something else.
    Changed,
}

impl Comparison {
    /// Whether no connection is decided otherwise.
    pub fn is_same(&self) -> bool {
        self.denied.is_empty() && self.allowed.is_empty() && self.undecided.is_empty()
    }
}

/// Compares.
pub fn compare(old: &Engine, new: &Engine) -> Comparison {
    compare_with(old, new, [&Connectivity::of(old), &Connectivity::of(new)])
}

/// Compares what was worked out before.
pub fn compare_with(old: &Engine, new: &Engine, sides: [&Connectivity; 2]) -> Comparison {
    let mut comparison = Comparison { objects: objects(old.index(), new.index()), ..Comparison::default() };
    let parties = pair::Parties::of(sides);
    for (kind, places) in parties.each() {
        if !matches!(kind, PartyKind::Workload { .. }) {
            continue;
        }
        match places {
            [Some(_), Some(_)] => comparison.workloads += 1,
            [None, Some(_)] => comparison.added.push(kind.clone()),
            [Some(_), None] => comparison.removed.push(kind.clone()),
            [None, None] => {}
        }
    }
    pair::compare([old, new], sides, &parties, &mut comparison);
    comparison
}

/// The objects that decide on connections and are different, what only the place or the version of is different left out.
fn objects(old: &Index, new: &Index) -> Vec<ObjectChange> {
    let of = |index: &Index| -> BTreeMap<ObjectKey, Object> {
        let policies = index.policies().map(|policy| {
            let mut policy = (**policy).clone();
            policy.origin = None;
            policy.resource_version = None;
            policy.labels.clear();
            policy.annotations.clear();
            policy.ingress.iter_mut().chain(&mut policy.egress).flatten().for_each(|rule| rule.origin = None);
            Object::from(policy)
        });
        let cluster = index.cluster_policies().map(|policy| {
            let mut policy = (**policy).clone();
            policy.origin = None;
            policy.resource_version = None;
            policy.annotations.clear();
            policy.ingress.iter_mut().chain(&mut policy.egress).for_each(|rule| rule.origin = None);
            Object::from(policy)
        });
        let namespaces = index.namespaces().map(|namespace| Object::from((**namespace).clone()));
        policies.chain(cluster).chain(namespaces).map(|object| (object.key(), object)).collect()
    };
    let (before, after) = (of(old), of(new));
    let keys: BTreeSet<&ObjectKey> = before.keys().chain(after.keys()).collect();
    let change = |key: &ObjectKey| {
        let what = match (before.get(key), after.get(key)) {
            (None, Some(_)) => What::Added,
            (Some(_), None) => What::Removed,
            (Some(before), Some(after)) if before != after => What::Changed,
            _ => return None,
        };
        // A namespace without labels of its own says nothing new.
        let says_nothing = key.kind == Kind::Namespace && what != What::Changed;
        (!says_nothing).then(|| ObjectChange { key: key.clone(), what })
    };
    keys.into_iter().filter_map(change).collect()
}
