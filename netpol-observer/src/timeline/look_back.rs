//! The engine at several times in a row.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use jiff::Timestamp;

use super::change::Change;
use super::owners::{self, Owner, Tenure};
use super::{Past, Timeline};
use crate::cluster::{Index, Kind, Object, ObjectKey};
use crate::policy::Engine;

/// Changed objects from which on an engine is built anew, as a part of all objects that are there: one in four.
const MANY: usize = 4;

/// Fewer than these are never many.
const FEW: usize = 256;

/// Whether it is quicker to build an engine anew than to tell it of so many objects one by one.
pub(super) fn is_many(changed: usize, index: &Index) -> bool {
    let counts = index.counts();
    let there = counts.pods + counts.network_policies + counts.cluster_policies + counts.services + counts.nodes + counts.namespaces;
    changed > FEW && changed > there / MANY
}

/// Makes the object what is given.
pub(super) fn put(engine: &mut Engine, key: &ObjectKey, object: Option<Object>) {
    match object {
        Some(object) => engine.apply(object),
        None => engine.delete(key),
    }
}

/// Another engine, in which these objects are what is given.
pub(super) fn rebuilt(engine: &Engine, changes: Vec<(ObjectKey, Option<Object>)>) -> Engine {
    let mut index = engine.index().clone();
    for (key, object) in changes {
        match object {
            Some(object) => index.apply(object),
            None => index.delete(&key),
        }
    }
    Engine::over(index, *engine.profile())
}

/// Asks about several times. From one to the next only what changed between them is changed in the engine, so that drops in the order of
/// their times cost little more than the changes there were; what the engine has worked out stays where nothing changes.
///
/// The engine of the timeline is the one that is changed. When this goes away, by a panic too, it is again that of now.
#[derive(Debug)]
pub struct LookBack<'a> {
    timeline: &'a mut Timeline,
    /// How many of the changes in the log the engine has.
    place: usize,
    /// What objects are now, where the timeline's engine has them otherwise.
    displaced: HashMap<ObjectKey, Option<Object>>,
    /// An engine of the past of its own, where too many objects were others.
    own: Option<Engine>,
}

impl<'a> LookBack<'a> {
    pub(super) fn new(timeline: &'a mut Timeline) -> Self {
        let place = timeline.log.len();
        LookBack { timeline, place, displaced: HashMap::new(), own: None }
    }

    /// The engine as it was at a time; see [`Timeline::at`].
    pub fn at(&mut self, when: Timestamp) -> Past<&Engine> {
        let exact = when >= self.timeline.horizon();
        let target = self.timeline.log.place(when);
        if target != self.place {
            self.go(target);
        }
        Past { value: self.engine(), exact }
    }

    /// The engine as it was at the time that was asked about last; at first, that of now.
    pub fn engine(&self) -> &Engine {
        self.own.as_ref().unwrap_or(&self.timeline.engine)
    }

    /// Asks about a cluster that never was: that of the time that was asked about last, but with these objects otherwise. Afterwards it is
    /// as before.
    pub fn supposing<R>(&mut self, objects: &[(ObjectKey, Option<Object>)], read: impl FnOnce(&Engine) -> R) -> R {
        let mut were: Vec<(ObjectKey, Option<Object>)> = Vec::with_capacity(objects.len());
        let mut noted: Vec<ObjectKey> = Vec::new();
        for (key, object) in objects {
            let is = self.engine().index().object(key);
            were.push((key.clone(), is.clone()));
            match &mut self.own {
                Some(own) => put(own, key, object.clone()),
                None => {
                    // Noted before it is done, as in `go`: a panic of `read` leaves it to be put right.
                    if let Entry::Vacant(place) = self.displaced.entry(key.clone()) {
                        place.insert(is);
                        noted.push(key.clone());
                    }
                    put(&mut self.timeline.engine, key, object.clone());
                }
            }
        }
        let answer = read(self.engine());
        for (key, object) in were.into_iter().rev() {
            put(self.own.as_mut().unwrap_or(&mut self.timeline.engine), &key, object);
        }
        for key in noted {
            self.displaced.remove(&key);
        }
        answer
    }

    /// Like [`Timeline::owners`]: whichever time was asked about last makes no difference.
    pub fn owners(&self, ip: IpAddr, from: Timestamp, to: Timestamp) -> Vec<Owner> {
        let ip = ip.to_canonical();
        let log = &self.timeline.log;
        let mut now = owners::holders(self.timeline.engine.index(), ip);
        now.retain(|tenure| !self.displaced.contains_key(&tenure.key));
        // Whoever is displaced and has the address now got it by a change.
        for change in log.at_address(ip) {
            let Some(Some(object)) = self.displaced.get(&change.key) else { continue };
            if now.iter().all(|tenure| tenure.key != change.key) {
                now.extend(Tenure::of(object, ip));
            }
        }
        owners::owners(log, now, ip, from, to)
    }

    /// Like [`Timeline::horizon`].
    pub fn horizon(&self) -> Timestamp {
        self.timeline.horizon()
    }

    /// Like [`Timeline::listed_at`].
    pub fn listed_at(&self) -> Timestamp {
        self.timeline.listed_at()
    }

    /// Like [`Timeline::is_listed`].
    pub fn is_listed(&self, kind: Kind) -> bool {
        self.timeline.is_listed(kind)
    }

    /// Like [`Timeline::changes`].
    pub fn changes(&self, since: Timestamp, until: Timestamp, filter: impl Fn(&Change) -> bool) -> impl Iterator<Item = &Change> {
        self.timeline.changes(since, until, filter)
    }

    fn go(&mut self, target: usize) {
        let mut steps = self.timeline.log.difference(self.place, target);
        let live = &mut self.timeline.engine;
        let engine = self.own.as_ref().unwrap_or(live);
        // What changed back is as it was.
        steps.retain(|(key, object)| engine.index().object(key) != *object);
        if is_many(steps.len(), engine.index()) {
            self.own = Some(rebuilt(engine, steps));
        } else if let Some(own) = &mut self.own {
            steps.into_iter().for_each(|(key, object)| put(own, &key, object));
        } else {
            for (key, object) in steps {
                // Noted before it is done: whatever happens from here on is put right.
                let is = live.index().object(&key);
                self.displaced.entry(key.clone()).or_insert(is);
                put(live, &key, object);
            }
        }
        self.place = target;
    }
}

impl Drop for LookBack<'_> {
    fn drop(&mut self) {
        for (key, object) in self.displaced.drain() {
            if self.timeline.engine.index().object(&key) != object {
                put(&mut self.timeline.engine, &key, object);
            }
        }
    }
}
