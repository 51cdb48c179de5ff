//! Repeats of drops, gathered until the interval is over.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::flow::FoldId;
use crate::serve::render::route;
use crate::serve::{Brief, Settled};

/// Repeats of a drop, of which the same is to be said.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) id: FoldId,
    pub(super) brief: Arc<Brief>,
    pub(super) count: u64,
    pub(super) last: Timestamp,
}

/// What came of a gathering.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is kept.
    Gathered,
    /// It is kept, and what was gathered under the id before is another thing.
    Instead(Gathered),
    /// There is no room for one more.
    Overflow,
}

/// A table of bounded size.
#[derive(Debug)]
pub(super) struct Repeats {
    by_id: HashMap<FoldId, Gathered>,
    most: usize,
}

impl Repeats {
    /// Of so many different drops at most.
    pub(super) fn new(most: usize) -> Self {
        Repeats { by_id: HashMap::new(), most }
    }

    pub(super) fn take(&mut self, settled: &Settled) -> Taken {
        let new = Gathered { id: settled.id, brief: Arc::clone(&settled.brief), count: settled.count, last: settled.last };
        let is_full = self.by_id.len() >= self.most;
        match self.by_id.get_mut(&settled.id) {
            Some(old) if is_same(&old.brief, &new.brief) => {
                old.count += new.count;
                old.last = old.last.max(new.last);
                Taken::Gathered
            }
            Some(old) => Taken::Instead(std::mem::replace(old, new)),
            None if is_full => Taken::Overflow,
            None => {
                self.by_id.insert(new.id, new);
                Taken::Gathered
            }
        }
    }

    /// All of it, by the time of the last.
    pub(super) fn drain(&mut self) -> Vec<Gathered> {
        let mut all: Vec<Gathered> = self.by_id.drain().map(|(_, gathered)| gathered).collect();
        all.sort_by_key(|gathered| (gathered.last, gathered.id));
        all
    }
}

/// Whether the same is to be said of both.
fn is_same(a: &Arc<Brief>, b: &Arc<Brief>) -> bool {
    Arc::ptr_eq(a, b)
        || (a.blame == b.blame && a.reason == b.reason && a.route.class == b.route.class && route(&a.route) == route(&b.route))
}
