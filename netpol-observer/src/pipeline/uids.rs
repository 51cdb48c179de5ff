//! Which pod has a uid: what the other end of an interface is known by.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cluster::{Object, Pod};
use crate::timeline::Timeline;

/// Uids that are remembered; beyond that all are forgotten and looked for again.
const MAX_UIDS: usize = 4096;

/// The pods behind interfaces, by uid. Looking for one goes through all pods, so the answer is kept, also where there is none.
#[derive(Debug, Default)]
pub(super) struct Uids {
    /// The pod as it was told last.
    pods: HashMap<Arc<str>, Option<Arc<Pod>>>,
}

impl Uids {
    /// Looks for those of these uids that were not asked about before, among the pods of now and of the past.
    pub(super) fn find<'a>(&mut self, uids: impl Iterator<Item = &'a Arc<str>>, timeline: &Timeline) {
        let missing: Vec<&Arc<str>> = uids.filter(|uid| !self.pods.contains_key(*uid)).collect();
        if missing.is_empty() {
            return;
        }
        if self.pods.len() + missing.len() > MAX_UIDS {
            self.pods.clear();
        }
        self.pods.extend(missing.into_iter().map(|uid| (uid.clone(), None)));
        self.look_again(timeline);
    }

    /// Looks for all of them once more: there are pods of which no change told, those of a first list.
    pub(super) fn look_again(&mut self, timeline: &Timeline) {
        for change in timeline.changes_from(0) {
            [&change.before, &change.after].into_iter().flatten().for_each(|object| self.note(object));
        }
        for pod in timeline.engine().index().pods() {
            self.note_pod(pod);
        }
    }

    /// An object was told; of interest if it is a pod that was asked about.
    pub(super) fn note(&mut self, object: &Object) {
        if let Object::Pod(pod) = object {
            self.note_pod(pod);
        }
    }

    fn note_pod(&mut self, pod: &Arc<Pod>) {
        // Pods of manifests have none.
        if !pod.uid.is_empty()
            && let Some(known) = self.pods.get_mut(&pod.uid)
        {
            *known = Some(pod.clone());
        }
    }

    /// The pod with a uid, as it was told last.
    pub(super) fn get(&self, uid: &str) -> Option<&Arc<Pod>> {
        self.pods.get(uid)?.as_ref()
    }
}
