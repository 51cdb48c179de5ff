//! The frames of many agents in the order of their times, with a bounded delay. Pure: the clock is the caller's.
//!
//! A frame is given when every agent that is waited for has said (by a watermark) that it has nothing earlier, or when the frame has
//! waited for the bound. What then comes with an earlier time is *late*: it is given at once, and counted. Times are those of the agents'
//! clocks and are taken as they are. An agent whose clock is far ahead of everybody else's would make everything else late; its frames are
//! given out of their turn instead when they have waited for the bound, and counted too.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// An agent's stream: a number of the caller's.
pub type Source = u32;

/// How far in front of all others' watermarks a frame that nobody else has come to is held to be of a clock that is wrong.
const AHEAD: SignedDuration = SignedDuration::from_secs(5);

/// Puts frames in order. `P` is what a frame carries.
#[derive(Debug)]
pub struct Merge<P> {
    bound: Duration,
    waiting: BTreeMap<Place, (Source, P)>,
    /// Arrivals in their order, some given meanwhile: when, and which.
    arrivals: VecDeque<(Duration, Place)>,
    /// Frames that are late, in the order they came.
    late: VecDeque<Given<P>>,
    sources: BTreeMap<Source, Progress>,
    /// Up to where every source that is waited for has said everything, until one of them says more.
    floor: Option<Timestamp>,
    /// Time of the last frame given in order. What is before it is late.
    last: Timestamp,
    sequence: u64,
    counts: Counts,
}

/// What was given so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames in order.
    pub in_order: u64,
    /// Frames that came after frames with later times had been given.
    pub late: u64,
    /// Frames of a clock far in front of all others.
    pub ahead: u64,
}

/// How a frame stands to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// No frame given in order has a later time.
    InOrder,
    /// It came after frames with later times had been given.
    Late,
    /// Its clock is far in front of all others.
    Ahead,
}

/// A frame that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<P> {
    /// Whose.
    pub source: Source,
    /// When, by the agent's clock.
    pub order: Timestamp,
    /// How it stands to those before it.
    pub turn: Turn,
    /// What it carries.
    pub payload: P,
}

/// Where a frame stands: by its time, then by when it came.
type Place = (Timestamp, u64);

#[derive(Clone, Copy, Debug)]
struct Progress {
    /// Nothing before this comes any more.
    watermark: Timestamp,
    /// The latest time of its frames.
    highest: Timestamp,
    /// It may not send more before something of it is given.
    full: bool,
    /// Nothing was heard of it for a while: it is not waited for.
    stalled: bool,
}

impl Progress {
    /// Up to where it has said everything.
    fn said(&self) -> Timestamp {
        if self.full { self.watermark.max(self.highest) } else { self.watermark }
    }
}

impl<P> Merge<P> {
    /// Nothing yet. No frame waits longer than `bound`.
    pub fn new(bound: Duration) -> Self {
        Merge {
            bound,
            waiting: BTreeMap::new(),
            arrivals: VecDeque::new(),
            late: VecDeque::new(),
            sources: BTreeMap::new(),
            floor: None,
            last: Timestamp::MIN,
            sequence: 0,
            counts: Counts::default(),
        }
    }

    /// Changes the bound, for frames that wait already too.
    pub fn set_bound(&mut self, bound: Duration) {
        self.bound = bound;
    }

    /// From now on the source is waited for.
    pub fn join(&mut self, source: Source) {
        let progress = Progress { watermark: Timestamp::MIN, highest: Timestamp::MIN, full: false, stalled: false };
        self.sources.insert(source, progress);
        self.floor = None;
    }

    /// The source is not waited for any more. Frames of it that wait are given in their turn.
    pub fn leave(&mut self, source: Source) {
        self.sources.remove(&source);
        self.floor = None;
    }

    /// The source has sent nothing for a while: it is not waited for until it sends something.
    pub fn stall(&mut self, source: Source) {
        if let Some(progress) = self.sources.get_mut(&source) {
            progress.stalled = true;
            self.floor = None;
        }
    }

    /// The source is held back because too much of it waits here, so its next watermark cannot come before something is given: it is taken
    /// to send in the order of time, until it sends again.
    pub fn hold_back(&mut self, source: Source) {
        if let Some(progress) = self.sources.get_mut(&source) {
            progress.full = true;
            self.floor = None;
        }
    }

    /// The source has nothing before `order` any more.
    pub fn watermark(&mut self, source: Source, order: Timestamp) {
        if let Some(progress) = self.sources.get_mut(&source) {
            *progress = Progress { watermark: progress.watermark.max(order), full: false, stalled: false, ..*progress };
            self.floor = None;
        }
    }

    /// Takes a frame that arrives `now`, by a clock that never goes back.
    pub fn push(&mut self, source: Source, order: Timestamp, payload: P, now: Duration) {
        if let Some(progress) = self.sources.get_mut(&source) {
            *progress = Progress { highest: progress.highest.max(order), full: false, stalled: false, ..*progress };
            self.floor = None;
        }
        if order < self.last {
            self.late.push_back(Given { source, order, turn: Turn::Late, payload });
            return;
        }
        let place = (order, self.sequence);
        self.sequence += 1;
        self.arrivals.push_back((now, place));
        self.waiting.insert(place, (source, payload));
    }

    /// The next frame that is due; `None` when nothing is.
    pub fn next(&mut self, now: Duration) -> Option<Given<P>> {
        if let Some(late) = self.late.pop_front() {
            self.counts.late += 1;
            return Some(late);
        }
        let first = *self.waiting.first_key_value()?.0;
        if first.0 <= self.floor() {
            return self.give_first();
        }
        let overdue = self.next_due().is_some_and(|due| due <= now);
        let (_, place) = *self.arrivals.front().filter(|_| overdue)?;
        if self.is_ahead(place) {
            let (source, payload) = self.waiting.remove(&place)?;
            self.counts.ahead += 1;
            return Some(Given { source, order: place.0, turn: Turn::Ahead, payload });
        }
        self.give_first()
    }

    fn give_first(&mut self) -> Option<Given<P>> {
        let ((order, _), (source, payload)) = self.waiting.pop_first()?;
        self.last = order;
        self.counts.in_order += 1;
        Some(Given { source, order, turn: Turn::InOrder, payload })
    }

    /// Everything that waits, in order: for the end.
    pub fn finish(&mut self) -> Vec<Given<P>> {
        self.sources.clear();
        self.floor = None;
        std::iter::from_fn(|| self.next(Duration::ZERO)).collect()
    }

    /// When the frame that has waited longest has waited for the bound.
    pub fn next_due(&mut self) -> Option<Duration> {
        while self.arrivals.front().is_some_and(|(_, place)| !self.waiting.contains_key(place)) {
            self.arrivals.pop_front();
        }
        self.arrivals.front().map(|(arrived, _)| arrived.saturating_add(self.bound))
    }

    /// Frames that wait.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.late.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was given so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn floor(&mut self) -> Timestamp {
        let sources = &self.sources;
        *self.floor.get_or_insert_with(|| {
            let live = sources.values().filter(|progress| !progress.stalled);
            live.map(Progress::said).min().unwrap_or(Timestamp::MAX)
        })
    }

    /// Whether a frame is far in front of what all sources but its own have come to.
    fn is_ahead(&self, place: Place) -> bool {
        let Some((source, _)) = self.waiting.get(&place) else { return false };
        let others = self.sources.iter().filter(|(other, progress)| *other != source && !progress.stalled);
        let furthest = others.map(|(_, progress)| progress.watermark).max();
        // Others that have said nothing yet are no clock to compare with.
        furthest.filter(|furthest| *furthest > Timestamp::MIN).is_some_and(|furthest| place.0.duration_since(furthest) > AHEAD)
    }
}

#[cfg(test)]
mod tests;
