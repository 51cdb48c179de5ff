//! What the searches for fixes have in common: by which labels a workload is told from others, whom a selector finds. All of it follows
//! from the objects alone and is forgotten when any of them changes.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cluster::{Labels, Pod, Selector, Workload};
use crate::policy::compiled::PeerKey;

use super::gain::{OfIdentity, Peer, Subjects};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What is kept; answers are the same without.
#[derive(Debug, Default)]
pub(in crate::policy) struct Kept(Mutex<State>);

impl Clone for Kept {
    fn clone(&self) -> Self {
        Kept::default()
    }
}

#[derive(Debug, Default)]
struct State {
    /// By namespace and workload.
    selectors: Map<Arc<str>, Map<Workload, ByLabels>>,
    subjects: Map<Subjects, Arc<[OfIdentity]>>,
    peers: Map<PeerKey, Arc<[Peer]>>,
    anybody: Option<Arc<[Peer]>>,
    /// Entries of all lists.
    size: usize,
}

/// Pods of one workload may differ in their labels.
type ByLabels = Vec<(Labels, Selector)>;

/// Entries that are kept, some tens of bytes each; with more than that all are worked out anew.
const MOST: usize = 1 << 17;

impl Kept {
    /// The selector that tells the pod's workload from others.
    pub(super) fn selector(&self, pod: &Pod, find: impl FnOnce() -> Selector) -> Selector {
        let known = self.with(|state| {
            let of = state.selectors.get(&pod.namespace)?.get(&pod.workload)?;
            of.iter().find(|(labels, _)| *labels == pod.labels).map(|(_, selector)| selector.clone())
        });
        known.unwrap_or_else(|| {
            let found = find();
            self.with(|state| {
                state.make_room(1);
                let of = state.selectors.entry(pod.namespace.clone()).or_default().entry(pod.workload.clone()).or_default();
                of.push((pod.labels.clone(), found.clone()));
            });
            found
        })
    }

    /// The pods that a policy selects.
    pub(super) fn subjects(&self, key: &Subjects, find: impl FnOnce() -> Vec<OfIdentity>) -> Arc<[OfIdentity]> {
        self.list(|state| &mut state.subjects, key, find)
    }

    /// The ends that a peer matches.
    pub(super) fn peers(&self, key: &PeerKey, find: impl FnOnce() -> Vec<Peer>) -> Arc<[Peer]> {
        self.list(|state| &mut state.peers, key, find)
    }

    /// Every end.
    pub(super) fn anybody(&self, find: impl FnOnce() -> Arc<[Peer]>) -> Arc<[Peer]> {
        self.with(|state| state.anybody.get_or_insert_with(find).clone())
    }

    fn list<K: Clone + Eq + Hash, V>(
        &self,
        of: impl Fn(&mut State) -> &mut Map<K, Arc<[V]>>,
        key: &K,
        find: impl FnOnce() -> Vec<V>,
    ) -> Arc<[V]> {
        if let Some(known) = self.with(|state| of(state).get(key).cloned()) {
            return known;
        }
        let found: Arc<[V]> = find().into();
        self.with(|state| {
            state.make_room(found.len());
            of(state).insert(key.clone(), found.clone());
        });
        found
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn make_room(&mut self, entries: usize) {
        if self.size + entries > MOST {
            *self = State::default();
        }
        self.size += entries + 1;
    }
}
