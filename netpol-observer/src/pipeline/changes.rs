//! Changes of policies and labels around a drop, and what the policies said before and after each.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;

use super::attribution::{earlier, later};
use crate::cluster::{Kind, Object, ObjectKey, Pod};
use crate::diagnose::{CHANGE_WINDOW, RecentChange};
use crate::identify::{Identity, Party};
use crate::policy::{Connection, Engine, Explanation, Verdict};
use crate::timeline::{Change, LookBack, WATCH_LAG};

/// Changes that are looked at for one drop, before it and after it: the nearest.
const MAX_LOOKED_AT: usize = 8;

/// The changes that can make policies say otherwise, oldest first: a few of all that there are.
#[derive(Debug, Default)]
pub(super) struct Changes(VecDeque<Change>);

/// What the changes around a drop mean for its connection.
#[derive(Debug, Default)]
pub(super) struct Meaning {
    /// Those after which the policies said otherwise, the nearest first.
    pub(super) changes: Vec<RecentChange>,
    /// What the policies say after the first of these that was told after the drop, if they admitted it before and deny it then.
    pub(super) denied_after: Option<Explanation>,
}

/// Whether a change can make policies say otherwise of some connection: of a policy, or of labels.
fn is_of_interest(change: &Change) -> bool {
    if change.is_of_policy() {
        return !change.is_of_metadata_only();
    }
    match (&change.before, &change.after) {
        (Some(Object::Namespace(before)), Some(Object::Namespace(after))) => before.labels != after.labels,
        (Some(Object::Pod(before)), Some(Object::Pod(after))) => before.uid == after.uid && before.labels != after.labels,
        _ => false,
    }
}

impl Changes {
    /// Takes a change that is no older than the last one, and says whether it is one of those.
    pub(super) fn note(&mut self, change: &Change) -> bool {
        let is_one = is_of_interest(change);
        self.0.extend(is_one.then(|| change.clone()));
        is_one
    }

    /// Forgets what the timeline does not keep either.
    pub(super) fn expire(&mut self, horizon: Timestamp) {
        while self.0.front().is_some_and(|oldest| oldest.when < horizon) {
            self.0.pop_front();
        }
    }

    /// What those around `when` mean for a connection of which the policies say `verdict` then. `look` is at that time.
    pub(super) fn mean(&self, look: &mut LookBack<'_>, connection: &Connection, when: Timestamp, verdict: Verdict) -> Meaning {
        let (since, until) = (earlier(when, CHANGE_WINDOW), later(when, WATCH_LAG));
        let around = self.0.partition_point(|change| change.when < since)..self.0.partition_point(|change| change.when <= until);
        let concerned = self.0.range(around).filter(|change| concerns(&change.key, [&connection.source, &connection.destination]));
        let (before, after): (Vec<&Change>, Vec<&Change>) = concerned.partition(|change| change.when <= when);
        if before.is_empty() && after.is_empty() {
            return Meaning::default();
        }
        let mut meaning = Meaning::default();
        let mut supposed = Supposed::new(connection);
        let mut says = verdict;
        for change in before.into_iter().rev().take(MAX_LOOKED_AT) {
            supposed.put(&change.key, change.before.as_ref());
            let said = supposed.verdict(look);
            if said != says {
                meaning.changes.push(recent(change, when, [said, says]));
            }
            says = said;
        }
        supposed = Supposed::new(connection);
        says = verdict;
        for change in after.into_iter().take(MAX_LOOKED_AT) {
            supposed.put(&change.key, change.after.as_ref());
            let said = supposed.verdict(look);
            if said != says {
                if (verdict, says, said) == (Verdict::Allow, Verdict::Allow, Verdict::Deny) && meaning.denied_after.is_none() {
                    meaning.denied_after = Some(supposed.explain(look));
                }
                meaning.changes.push(recent(change, when, [says, said]));
            }
            says = said;
        }
        meaning.changes.sort_by_key(|change| change.before_drop.abs());
        meaning
    }
}

fn recent(change: &Change, when: Timestamp, [verdict_before, verdict_after]: [Verdict; 2]) -> RecentChange {
    let before_drop = when.duration_since(change.when);
    RecentChange { key: change.key.clone(), kind: change.kind(), when: change.when, before_drop, verdict_before, verdict_after }
}

/// Whether a change of this object can concern a connection, by the namespaces and names of its ends.
pub(super) fn concerns(key: &ObjectKey, [source, destination]: [&Party; 2]) -> bool {
    let mut pods = pods(source).iter().chain(pods(destination));
    match key.kind {
        Kind::NetworkPolicy => pods.any(|pod| pod.namespace == key.namespace),
        Kind::Namespace => pods.any(|pod| pod.namespace == key.name),
        Kind::Pod => pods.any(|pod| (&pod.namespace, &pod.name) == (&key.namespace, &key.name)),
        _ => true,
    }
}

fn pods(party: &Party) -> &[Arc<Pod>] {
    match &party.identity {
        Identity::Pod(pod) => std::slice::from_ref(pod),
        Identity::AmbiguousPods(pods) => pods,
        _ => &[],
    }
}

/// A connection in a cluster in which some objects are others.
struct Supposed {
    connection: Connection,
    policies: Vec<(ObjectKey, Option<Object>)>,
    /// Of these the engine has to be told; they change seldom.
    namespaces: Vec<(ObjectKey, Option<Object>)>,
}

impl Supposed {
    fn new(connection: &Connection) -> Self {
        Supposed { connection: connection.clone(), policies: Vec::new(), namespaces: Vec::new() }
    }

    fn put(&mut self, key: &ObjectKey, object: Option<&Object>) {
        // The ends of a connection are what they are said to be, whatever the index has of them.
        if let Some(Object::Pod(pod)) = object {
            relabel(&mut self.connection.source, pod);
            relabel(&mut self.connection.destination, pod);
            return;
        }
        let objects = if key.kind == Kind::Namespace { &mut self.namespaces } else { &mut self.policies };
        objects.retain(|(known, _)| known != key);
        objects.push((key.clone(), object.cloned()));
    }

    fn verdict(&self, look: &mut LookBack<'_>) -> Verdict {
        self.ask(look, |engine| engine.verdict_if(&self.connection, &self.policies))
    }

    fn explain(&self, look: &mut LookBack<'_>) -> Explanation {
        self.ask(look, |engine| engine.explain_if(&self.connection, &self.policies))
    }

    fn ask<R>(&self, look: &mut LookBack<'_>, ask: impl FnOnce(&Engine) -> R) -> R {
        if self.namespaces.is_empty() { ask(look.engine()) } else { look.supposing(&self.namespaces, ask) }
    }
}

/// Gives a pod its labels of another time.
fn relabel(party: &mut Party, then: &Arc<Pod>) {
    let relabelled = |pod: &mut Arc<Pod>| {
        if (&pod.namespace, &pod.name, &pod.uid) == (&then.namespace, &then.name, &then.uid) {
            *pod = Arc::new(Pod { labels: then.labels.clone(), ..(**pod).clone() });
        }
    };
    match &mut party.identity {
        Identity::Pod(pod) => relabelled(pod),
        Identity::AmbiguousPods(pods) => pods.iter_mut().for_each(relabelled),
        _ => {}
    }
}
