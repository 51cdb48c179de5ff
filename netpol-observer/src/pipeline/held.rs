//! Drops that wait for what may be told of their ends, with the repeats behind them.

use std::collections::{BTreeSet, HashMap, VecDeque};

use jiff::Timestamp;

use crate::flow::{DropEvent, FoldId};

/// Something that waits.
pub(super) enum Waiting {
    Drop {
        event: Box<DropEvent>,
        /// When it is given, whatever is known by then.
        until: Timestamp,
    },
    Repeat {
        count: u64,
        last: Timestamp,
    },
}

/// What waits, by what is folded under: within an id the order is kept.
#[derive(Default)]
pub(super) struct Held {
    queues: HashMap<FoldId, VecDeque<Waiting>>,
    /// When the first drop of each queue is given.
    due: BTreeSet<(Timestamp, FoldId)>,
    drops: usize,
}

impl Held {
    /// Drops that wait.
    pub(super) fn len(&self) -> usize {
        self.drops
    }

    pub(super) fn has(&self, id: FoldId) -> bool {
        self.queues.contains_key(&id)
    }

    /// Puts a drop behind the others of its id.
    pub(super) fn push(&mut self, id: FoldId, event: Box<DropEvent>, until: Timestamp) {
        let queue = self.queues.entry(id).or_default();
        if queue.is_empty() {
            self.due.insert((until, id));
        }
        queue.push_back(Waiting::Drop { event, until });
        self.drops += 1;
    }

    /// Puts repeats behind the drops of their id.
    pub(super) fn push_repeat(&mut self, id: FoldId, count: u64, last: Timestamp) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        match queue.back_mut() {
            // One entry, however often the kernel counts them while their drop waits.
            Some(Waiting::Repeat { count: so_far, last: latest }) => {
                *so_far += count;
                *latest = last.max(*latest);
            }
            _ => queue.push_back(Waiting::Repeat { count, last }),
        }
    }

    /// All that waits of an id.
    pub(super) fn take(&mut self, id: FoldId) -> VecDeque<Waiting> {
        let queue = self.queues.remove(&id).unwrap_or_default();
        if let Some(Waiting::Drop { until, .. }) = queue.front() {
            self.due.remove(&(*until, id));
        }
        self.drops -= drops(&queue);
        queue
    }

    /// What is left of an id: a drop in front.
    pub(super) fn put(&mut self, id: FoldId, queue: VecDeque<Waiting>) {
        if let Some(Waiting::Drop { until, .. }) = queue.front() {
            self.due.insert((*until, id));
            self.drops += drops(&queue);
            self.queues.insert(id, queue);
        }
    }

    /// The ids of which something is to be given, or may be as far as `touched` says of a drop, in the order of their drops.
    pub(super) fn ready(&self, now: Timestamp, touched: impl Fn(&DropEvent) -> bool) -> Vec<FoldId> {
        let mut ready: Vec<(Timestamp, FoldId)> = Vec::new();
        for (id, queue) in &self.queues {
            if let Some(Waiting::Drop { event, until }) = queue.front()
                && (*until <= now || touched(event))
            {
                ready.push((event.time, *id));
            }
        }
        ready.sort_unstable();
        ready.into_iter().map(|(_, id)| id).collect()
    }

    /// When the next drop is given at the latest.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(until, _)| *until)
    }

    /// The times of the drops that wait.
    pub(super) fn times(&self) -> impl Iterator<Item = Timestamp> {
        self.queues.values().flatten().filter_map(|waiting| match waiting {
            Waiting::Drop { event, .. } => Some(event.time),
            Waiting::Repeat { .. } => None,
        })
    }
}

fn drops(queue: &VecDeque<Waiting>) -> usize {
    queue.iter().filter(|waiting| matches!(waiting, Waiting::Drop { .. })).count()
}
