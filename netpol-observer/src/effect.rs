//! What a change of a policy does: between which workloads connections are newly denied and newly allowed, and which rules make the
//! difference.
//!
//! [`apply`] and [`delete`] are those of a [`Timeline`], and say besides what a changed NetworkPolicy, a policy of the other kinds or a
//! namespace with other labels does. Each change is compared with just before. A pod that comes or goes has no effect: it meets the
//! policies that there are.
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::cluster::{Kind, Object, ObjectKey};
use crate::policy::{Bounds, Difference, Engine, NotCounted, Pair, Turned, is_compared};
use crate::timeline::{Change, Timeline};

pub use crate::timeline::ChangeKind;
pub use words::summary;

/// What a change of one object does.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// When the object changed, by the timeline.
    pub when: Timestamp,
    /// Which object.
    pub key: ObjectKey,
    /// What happened to it.
    pub change: ChangeKind,
    /// The `metadata.resourceVersion` that it has now, or had last; none of a namespace, of which it is not kept.
    pub resource_version: Option<Arc<str>>,
    /// The same for the same change, whoever saw it.
    pub id: EffectId,
    /// Which connections have another verdict.
    pub difference: Difference,
}

/// Tells changes apart: a hash of the object's name and of its versions before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EffectId(pub u64);

/// 16 hexadecimal digits.
impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What came of an object that was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// Whether it is different from before.
    pub is_changed: bool,
    /// What that does, of a policy that says something else than before, and of a namespace whose labels make a difference.
    pub effect: Option<Effect>,
}

/// An object came or changed: [`Timeline::apply`], with the effect. Bounds of no verdicts count nothing.
pub fn apply(timeline: &mut Timeline, at: Timestamp, object: impl Into<Object>, bounds: &Bounds) -> Applied {
    let object = object.into();
    change(timeline, at, object.key(), Some(object), bounds)
}

/// An object went: [`Timeline::delete`], with the effect.
pub fn delete(timeline: &mut Timeline, at: Timestamp, key: &ObjectKey, bounds: &Bounds) -> Applied {
    change(timeline, at, key.clone(), None, bounds)
}

/// Changes of one list whose effects are worked out.
const MOST_AT_ONCE: usize = 100;

/// These are all objects of these kinds: [`Timeline::reset`], with the effects of those that are otherwise than before, by kind and name.
///
/// The objects of a kind's first list have been there for an unknown time; they have no effects. Of very many that changed while nobody
/// watched, the effects are not counted beyond the first hundred.
pub fn reset(
    timeline: &mut Timeline,
    at: Timestamp,
    kinds: &[Kind],
    objects: impl IntoIterator<Item = Object>,
    bounds: &Bounds,
) -> (usize, Vec<Effect>) {
    let objects: BTreeMap<ObjectKey, Object> = objects.into_iter().map(|object| (object.key(), object)).collect();
    let listed: Vec<Kind> = kinds.iter().copied().filter(|kind| is_compared(*kind) && timeline.is_listed(*kind)).collect();
    let gone = listed.iter().flat_map(|kind| timeline.keys(*kind)).filter(|key| !objects.contains_key(key)).map(|key| (key, None));
    let there = objects.iter().filter(|(key, _)| listed.contains(&key.kind)).map(|(key, object)| (key.clone(), Some(object.clone())));
    let told: BTreeMap<ObjectKey, Option<Object>> = gone.chain(there).collect();
    let (changed, effects) = one_by_one(timeline, at, told, bounds);
    (changed + timeline.reset(at, kinds, objects.into_values()), effects)
}

/// The same by what a list has otherwise than it was told before; see [`Timeline::relist`].
pub fn relist(
    timeline: &mut Timeline,
    at: Timestamp,
    kind: Kind,
    changed: Vec<Object>,
    is_same: impl Fn(&ObjectKey) -> bool,
    bounds: &Bounds,
) -> (usize, Vec<Effect>) {
    let mut told: BTreeMap<ObjectKey, Option<Object>> = BTreeMap::new();
    if is_compared(kind) {
        told.extend(timeline.keys(kind).into_iter().filter(|key| !is_same(key)).map(|key| (key, None)));
        told.extend(changed.iter().map(|object| (object.key(), Some(object.clone()))));
    }
    let (count, effects) = one_by_one(timeline, at, told, bounds);
    (count + timeline.relist(at, kind, changed, is_same), effects)
}

/// Makes the changes that can have effects, and works them out for the first ones.
fn one_by_one(timeline: &mut Timeline, at: Timestamp, told: BTreeMap<ObjectKey, Option<Object>>, bounds: &Bounds) -> (usize, Vec<Effect>) {
    let index = timeline.engine().index();
    let changes = told.into_iter().map(|(key, after)| Change { when: at, before: index.object(&key), key, after });
    let changes: Vec<Change> = changes.filter(matters).collect();
    let (mut changed, mut effects) = (0, Vec::new());
    for (place, change) in changes.into_iter().enumerate() {
        if place >= MOST_AT_ONCE {
            effects.extend(change.is_of_policy().then(|| effect(&change, Difference::NotCounted(NotCounted::Objects(MOST_AT_ONCE)))));
            continue;
        }
        let applied = make(timeline, change, bounds);
        changed += usize::from(applied.is_changed);
        effects.extend(applied.effect);
    }
    (changed, effects)
}

fn change(timeline: &mut Timeline, at: Timestamp, key: ObjectKey, object: Option<Object>, bounds: &Bounds) -> Applied {
    let before = timeline.engine().index().object(&key);
    make(timeline, Change { when: at, key, before, after: object }, bounds)
}

fn make(timeline: &mut Timeline, change: Change, bounds: &Bounds) -> Applied {
    let matters = matters(&change);
    if !matters || bounds.verdicts == 0 {
        let uncounted = (matters && change.is_of_policy()).then(|| effect(&change, Difference::NotCounted(NotCounted::Busy)));
        let is_changed = match change.after {
            Some(object) => timeline.apply(change.when, object),
            None => timeline.delete(change.when, &change.key),
        };
        return Applied { is_changed, effect: uncounted.filter(|_| is_changed) };
    }
    let compare = |engine: &mut Engine, key: &ObjectKey, object: Option<Object>| engine.change([(key.clone(), object)], bounds);
    let Some((when, difference)) = timeline.change_by(change.when, change.key.clone(), change.after.clone(), compare) else {
        return Applied { is_changed: false, effect: None };
    };
    // Of a namespace only what its labels do is news.
    let is_news = change.is_of_policy() || !difference.is_none();
    Applied { is_changed: true, effect: is_news.then(|| effect(&Change { when, ..change }, difference)) }
}

fn effect(change: &Change, difference: Difference) -> Effect {
    Effect {
        when: change.when,
        key: change.key.clone(),
        change: change.kind(),
        resource_version: change.after.as_ref().or(change.before.as_ref()).and_then(resource_version).cloned(),
        id: id(change),
        difference,
    }
}

/// Whether the change may turn a verdict by itself.
fn matters(change: &Change) -> bool {
    is_compared(change.key.kind) && change.before != change.after && !change.is_of_metadata_only()
}

fn resource_version(object: &Object) -> Option<&Arc<str>> {
    match object {
        Object::NetworkPolicy(policy) => policy.resource_version.as_ref(),
        Object::ClusterPolicy(policy) => policy.resource_version.as_ref(),
        _ => None,
    }
}

/// FNV-1a (64 bit), so that every agent and every version of the program has the same for the same change.
fn id(change: &Change) -> EffectId {
    let version = |object: &Option<Object>| match object {
        Some(Object::Namespace(namespace)) => namespace.labels.iter().map(|(key, value)| format!("{key}={value},")).collect(),
        Some(object) => resource_version(object).map_or("?".to_owned(), |version| version.to_string()),
        None => String::new(),
    };
    let parts = [change.key.to_string(), version(&change.before), version(&change.after)];
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    EffectId(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)))
}

impl Effect {
    /// The pairs that are named: those newly denied, those newly allowed, those undecided.
    pub fn pairs(&self) -> impl Iterator<Item = &Pair> {
        let turned: Option<&Turned> = match &self.difference {
            Difference::Counted(turned) => Some(turned),
            Difference::NotCounted(_) => None,
        };
        turned.into_iter().flat_map(|turned| [&turned.denied, &turned.allowed, &turned.undecided]).flat_map(|pairs| &pairs.named)
    }
}
