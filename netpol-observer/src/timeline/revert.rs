//! Taking changes back, and putting them in place again.

use crate::cluster::{Index, Object, ObjectKey};
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

/// An engine in which some objects are for a while what they were. When this goes away, by a panic too, they are again what they are.
pub(super) struct Reverted<'a> {
    engine: &'a mut Engine,
    redo: Vec<(ObjectKey, Option<Object>)>,
}

impl<'a> Reverted<'a> {
    pub(super) fn new(engine: &'a mut Engine, undo: Vec<(ObjectKey, Option<Object>)>) -> Self {
        let redo = undo.iter().map(|(key, _)| (key.clone(), engine.index().object(key))).collect();
        // Before the first is taken back: whatever happens from here on is put right.
        let reverted = Reverted { engine, redo };
        for (key, object) in undo {
            put(reverted.engine, &key, object);
        }
        reverted
    }

    pub(super) fn engine(&self) -> &Engine {
        self.engine
    }
}

impl Drop for Reverted<'_> {
    fn drop(&mut self) {
        for (key, object) in self.redo.drain(..) {
            put(self.engine, &key, object);
        }
    }
}
