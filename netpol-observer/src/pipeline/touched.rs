//! What was told since the last time, and which drops it may make a difference to.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::changes::concerns;
use crate::cluster::{Object, ObjectKey};
use crate::flow::DropEvent;
use crate::identify::Party;
use crate::timeline::Change;

/// What changes since the last time may make a difference to.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// There were more changes than are kept, or objects of which no change told.
    pub(super) everything: bool,
    pub(super) addresses: HashSet<IpAddr>,
    uids: HashSet<Arc<str>>,
    /// Policies that changed, and what has other labels.
    policies: Vec<ObjectKey>,
}

impl Touched {
    /// Takes a change; `of_policies` if it can make policies say otherwise.
    pub(super) fn note(&mut self, change: &Change, of_policies: bool) {
        self.policies.extend(of_policies.then(|| change.key.clone()));
        self.addresses.extend(change.addresses());
        for object in [&change.before, &change.after].into_iter().flatten() {
            if let Object::Pod(pod) = object {
                self.uids.insert(pod.uid.clone());
            }
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        !self.everything && self.addresses.is_empty() && self.uids.is_empty() && self.policies.is_empty()
    }

    /// Whether policies may say otherwise of a connection between these two.
    pub(super) fn touches_policies_of(&self, ends: [&Party; 2]) -> bool {
        self.policies.iter().any(|key| concerns(key, ends))
    }

    /// Whether the pod behind the interface is another in some way.
    pub(super) fn touches_pod_of(&self, event: &DropEvent) -> bool {
        uid_of(event).is_some_and(|uid| self.uids.contains(uid))
    }
}

/// The addresses of a drop that may be an end's.
pub(super) fn addresses(event: &DropEvent) -> impl Iterator<Item = IpAddr> {
    let original = event.conntrack.iter().flat_map(|conntrack| [conntrack.original.source, conntrack.original.destination]);
    [event.flow.source, event.flow.destination].into_iter().chain(original).map(|ip| ip.to_canonical())
}

/// The uid of the pod behind the interface.
pub(super) fn uid_of(event: &DropEvent) -> Option<&Arc<str>> {
    event.peer.as_ref()?.pod_uid.as_ref()
}
