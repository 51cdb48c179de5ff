//! One change of one object.

use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;

use super::owners::addresses;
use crate::cluster::{NetworkPolicy, Object, ObjectKey};

/// An object that came, changed or went. What it was before and what it became are never equal.
#[derive(Clone, Debug)]
pub struct Change {
    /// When, as the caller of [`Timeline`](super::Timeline) said; no earlier than that of the change before.
    pub when: Timestamp,
    /// Which object.
    pub key: ObjectKey,
    /// What it was; absent when there was none of this name.
    pub before: Option<Object>,
    /// What it became; absent when it was removed.
    pub after: Option<Object>,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// There was none of this name before.
    Added,
    /// It was another, or was otherwise.
    Changed,
    /// It is gone.
    Removed,
}

/// As in sentences: `added`, `changed`, `removed`.
impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ChangeKind::Added => "added",
            ChangeKind::Changed => "changed",
            ChangeKind::Removed => "removed",
        })
    }
}

impl Change {
    /// What happened.
    pub fn kind(&self) -> ChangeKind {
        match (&self.before, &self.after) {
            (None, _) => ChangeKind::Added,
            (Some(_), Some(_)) => ChangeKind::Changed,
            (Some(_), None) => ChangeKind::Removed,
        }
    }

    /// Whether it is a change of a policy, of any of the kinds.
    pub fn is_of_policy(&self) -> bool {
        matches!(self.before.as_ref().or(self.after.as_ref()), Some(Object::NetworkPolicy(_) | Object::ClusterPolicy(_)))
    }

    /// Whether it is a change of a policy after which the policy says what it said before: only its labels, annotations,
    /// `resourceVersion` or its place in a file differ. It is no reason for a verdict to be another.
    pub fn is_of_metadata_only(&self) -> bool {
        match (&self.before, &self.after) {
            (Some(Object::NetworkPolicy(before)), Some(Object::NetworkPolicy(after))) => {
                let says = |policy: &NetworkPolicy| [policy.ingress.clone(), policy.egress.clone()].map(|rules| rules.map(unplaced));
                before.pod_selector == after.pod_selector && says(before) == says(after)
            }
            (Some(Object::ClusterPolicy(before)), Some(Object::ClusterPolicy(after))) => {
                let order = (before.tier, before.priority) == (after.tier, after.priority);
                let rules = |rules: &[crate::cluster::ClusterRule]| unplaced(rules.to_vec());
                let same = |a: &[_], b: &[_]| rules(a) == rules(b);
                order && before.subject == after.subject && same(&before.ingress, &after.ingress) && same(&before.egress, &after.egress)
            }
            _ => false,
        }
    }

    /// The addresses that the object has or had, each once, IPv4-mapped ones as IPv4.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let of_both = [&self.before, &self.after].into_iter().flatten().flat_map(addresses);
        let mut ips: Vec<IpAddr> = of_both.collect();
        ips.sort_unstable();
        ips.dedup();
        ips
    }
}

/// Rules without the lines they stand on.
fn unplaced<T: Placed>(mut rules: Vec<T>) -> Vec<T> {
    rules.iter_mut().for_each(Placed::forget_place);
    rules
}

trait Placed {
    fn forget_place(&mut self);
}

impl Placed for crate::cluster::Rule {
    fn forget_place(&mut self) {
        self.origin = None;
    }
}

impl Placed for crate::cluster::ClusterRule {
    fn forget_place(&mut self) {
        self.origin = None;
    }
}
