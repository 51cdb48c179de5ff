//! A cluster that is watched: one set of objects and their past, which updates change, drops are judged by, and questions are answered from.
//!
//! All of it is behind one lock. The capture does not wait for it: while an update is taken in (a list of 100,000 pods takes seconds) or a
//! question is answered, what is captured waits in a bounded queue, and is judged as of its time afterwards.
//!
//! Updates go first: what is captured waits also while any are left that were received already, or a drop would be judged without what was told by
//! its time.

mod budget;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use prometheus_client::metrics::histogram::Histogram;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::{Judge, Objects, ObjectsStatus, Observation};
use crate::capture::Captured;
use crate::cluster::{Foreign, ForeignPolicies};
use crate::effect;
use crate::flow::KernelNames;
use crate::pipeline::{Moments, Step, time_of};
use crate::policy::{Bounds, Engine};
use crate::watch::{self, News, ResourceStatus, Status, StatusReader, Update, Watching};

pub use budget::Budget;

/// Captured pieces that wait while the objects are in use. Then the capture waits too, and the ring fills.
const MAX_BEHIND: usize = 32 * 1024;

/// How soon it is looked again whether the objects are free.
const AGAIN: SignedDuration = SignedDuration::from_millis(5);

/// Pieces that are judged before others may use the objects again.
const TOGETHER: usize = 256;

/// How long what was captured waits for updates at most. Where they come faster than they are taken in, drops are judged by what is known by then,
/// and amended.
const PATIENCE: SignedDuration = SignedDuration::from_secs(3);

/// The objects of a cluster as its API server tells them.
pub struct Watched {
    state: Mutex<State>,
    watches: OnceLock<StatusReader>,
}

struct State {
    moments: Moments,
    foreign: ForeignPolicies,
    /// What came of updates and was not taken by the judge yet.
    said: Vec<Observation>,
}

impl Watched {
    /// Over moments whose timeline is told by [`follow`](Watched::follow).
    pub fn new(moments: Moments) -> Arc<Self> {
        let state = State { moments, foreign: ForeignPolicies::default(), said: Vec::new() };
        Arc::new(Watched { state: Mutex::new(state), watches: OnceLock::new() })
    }

    /// Takes updates as long as there are any, in a thread of its own: one update may take seconds, or wait as long for whoever looks at the objects,
    /// and a thread of the runtime that reads the watches would not look at its sockets meanwhile. What is read late is taken for later than it was told.
    ///
    /// `delay` is told how long each waited.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn follow(self: Arc<Self>, mut watching: Watching, runtime: &Handle, delay: Histogram) -> io::Result<()> {
        // There is one who follows.
        _ = self.watches.set(watching.status());
        let runtime = runtime.clone();
        let follow = move || {
            let mut budget = Budget::default();
            while let Some(update) = runtime.block_on(watching.next()) {
                let begun = Instant::now();
                let at = update.at;
                let bounds = budget.bounds(watching.waiting(), begun);
                if self.take_in(update, &bounds) {
                    budget.spent(&bounds, begun, Instant::now());
                }
                delay.observe(Timestamp::now().duration_since(at).as_secs_f64().max(0.0));
            }
        };
        std::thread::Builder::new().name("objects".to_owned()).spawn(follow).map(|_| ())
    }

    /// Takes one update, with the effects of what it changes within bounds. What comes of it is given by the judge. Returns whether there were effects.
    pub fn take_in(&self, update: Update, bounds: &Bounds) -> bool {
        let mut state = self.lock();
        let Update { at, news } = update;
        let state = &mut *state;
        let timeline = state.moments.timeline_mut();
        let effects = match news {
            News::Listed { kind, objects, since } => {
                let (_, effects) = effect::reset(timeline, at, &[kind], objects, bounds);
                if let Some(since) = since {
                    state.moments.heard_again(kind, since, at);
                }
                effects
            }
            News::Relisted { kind, changed, same, since } => {
                let (_, effects) = effect::relist(timeline, at, kind, changed, |key| same.has(key), bounds);
                if let Some(since) = since {
                    state.moments.heard_again(kind, since, at);
                }
                effects
            }
            News::Applied(object) => effect::apply(timeline, at, object, bounds).effect.into_iter().collect(),
            News::Deleted(key) => effect::delete(timeline, at, &key, bounds).effect.into_iter().collect(),
            // An empty list follows when it is not there any more; nothing is known of it before its first.
            News::Served { .. } => return false,
            News::Foreign(foreign) => {
                state.count(|counted| counted.put(foreign));
                return false;
            }
            News::ForeignGone { group, kind } => {
                state.count(|counted| counted.remove(&group, &kind));
                return false;
            }
        };
        let has_effects = !effects.is_empty();
        state.said.extend(effects.into_iter().map(|effect| Observation::PolicyChange(Arc::new(effect))));
        // What waited for this, and what is otherwise by it.
        let steps = state.moments.tick(at);
        state.said.extend(steps.into_iter().map(of));
        has_effects
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A question that panics leaves the objects as they were: the engine of now is put in place again.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }
}

impl State {
    fn count(&mut self, change: impl FnOnce(&mut ForeignPolicies)) {
        change(&mut self.foreign);
        self.moments.set_foreign(Arc::new(self.foreign.clone()));
    }
}

fn of(step: Step) -> Observation {
    Observation::of(Ok(step))
}

/// Judges drops by a watched cluster, as of their time.
pub struct WatchedJudge {
    watched: Arc<Watched>,
    /// Captured while the objects were in use.
    behind: VecDeque<Captured>,
    /// When something is due, as it was when the objects were looked at last.
    due: Option<Timestamp>,
    /// Since when updates are let go first.
    yields_since: Option<Timestamp>,
}

impl WatchedJudge {
    /// By these objects.
    pub fn new(watched: Arc<Watched>) -> Self {
        WatchedJudge { watched, behind: VecDeque::new(), due: None, yields_since: None }
    }

    /// Up to when all that was told is known; nothing where it is better to wait until more is.
    fn known_to(&mut self, now: Timestamp, must: bool) -> Option<Timestamp> {
        let oldest = self.watched.watches.get().and_then(StatusReader::oldest_waiting);
        let Some(oldest) = oldest else {
            self.yields_since = None;
            return Some(now);
        };
        let since = self.yields_since.get_or_insert(now);
        let yielded = now.duration_since(*since);
        // A clock that was set back makes no difference: it is not waited any longer for that.
        let yields = (SignedDuration::ZERO..PATIENCE).contains(&yielded);
        if yielded >= PATIENCE * 2 {
            // As long as it waited for them, it went on without them.
            *since = now;
        }
        (!yields || must).then(|| oldest.min(now))
    }

    /// Judges what waits, a part of it: its caller comes again.
    fn catch_up(&mut self, names: &dyn KernelNames, now: Timestamp, must: bool) -> Vec<Observation> {
        // Asked before the objects are looked at: what is taken in meanwhile is known all the more.
        let known_to = self.known_to(now, must);
        let again = now.checked_add(AGAIN).unwrap_or(Timestamp::MAX);
        let state = if must { Some(self.watched.lock()) } else { self.watched.try_lock() };
        let Some(mut state) = state else {
            self.due = Some(again);
            return Vec::new();
        };
        let mut observations = std::mem::take(&mut state.said);
        let Some(known_to) = known_to else {
            self.due = Some(again);
            return observations;
        };
        if let Some(watches) = self.watched.watches.get() {
            state.moments.set_unheard(watches.unheard(), now);
        }
        if self.behind.is_empty() {
            observations.extend(state.moments.tick(known_to).into_iter().map(of));
        } else {
            let count = self.behind.len().min(TOGETHER);
            let pieces: Vec<Captured> = self.behind.drain(..count).collect();
            observations.extend(state.moments.take(&pieces, names, known_to).into_iter().map(Observation::of));
        }
        self.due = match state.moments.next_due() {
            _ if !self.behind.is_empty() => Some(now),
            // Due by the clock, and not by what is known.
            Some(due) if due <= now => Some(again),
            due => due,
        };
        observations
    }
}

impl Judge for WatchedJudge {
    fn take(&mut self, captured: &[Captured], names: &dyn KernelNames, now: Timestamp) -> Vec<Observation> {
        self.behind.extend(captured.iter().cloned());
        let must = self.behind.len() > MAX_BEHIND;
        self.catch_up(names, now, must)
    }

    fn tick(&mut self, names: &dyn KernelNames, now: Timestamp) -> Vec<Observation> {
        self.catch_up(names, now, false)
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.due
    }

    fn behind_since(&self, names: &dyn KernelNames) -> Option<Timestamp> {
        self.behind.iter().find_map(|captured| time_of(captured, names))
    }

    fn finish(&mut self, names: &dyn KernelNames, now: Timestamp) -> Vec<Observation> {
        let mut observations = self.catch_up(names, now, true);
        while !self.behind.is_empty() {
            observations.extend(self.catch_up(names, now, true));
        }
        let mut state = self.watched.lock();
        observations.append(&mut state.said);
        observations.extend(state.moments.finish(now).into_iter().map(of));
        observations
    }
}

impl Objects for Watched {
    fn with_engine(&self, run: &mut dyn FnMut(&Engine)) {
        run(self.lock().moments.timeline().engine());
    }

    fn missing(&self) -> Vec<String> {
        match self.watches.get() {
            Some(watches) => watches.missing(),
            None => vec!["the API server was not asked yet".to_owned()],
        }
    }

    fn caveats(&self) -> Vec<String> {
        let kinds: Vec<String> = self
            .lock()
            .foreign
            .kinds()
            .filter(|foreign| !foreign.counted || foreign.count > 0)
            .map(|Foreign { kind, group, counted, count, .. }| {
                let number = if *counted { count.to_string() } else { "an unknown number".to_owned() };
                format!("{kind} ({group}): {number}")
            })
            .collect();
        let unheard = self.watches.get().map(StatusReader::unheard).unwrap_or_default();
        let unheard = unheard.iter().map(|(kind, since)| format!("{kind} was last heard of at {since}; it may be otherwise by now"));
        let missing = self.missing().into_iter().map(|missing| format!("the agent is still syncing: {missing}"));
        let foreign = (!kinds.is_empty()).then(|| format!("policies that are not evaluated could change this: {}", kinds.join(", ")));
        missing.chain(unheard).chain(foreign).collect()
    }

    fn status(&self) -> ObjectsStatus {
        let state = self.lock();
        let timeline = state.moments.timeline();
        let mut status = ObjectsStatus::of(timeline.engine().index());
        let mut past = serde_json::to_value(timeline.status()).unwrap_or_default();
        if let (Value::Object(past), Ok(Value::Object(moments))) = (&mut past, serde_json::to_value(state.moments.status())) {
            past.extend(moments);
        }
        status.timeline = Some(past);
        let foreign = state.foreign.kinds().map(|foreign| {
            let key = format!("{}.{}", foreign.kind, foreign.group);
            (key, if foreign.counted { json!(foreign.count) } else { Value::Null })
        });
        status.foreign = Some(Value::Object(foreign.collect()));
        drop(state);
        status.sync = self.watches.get().map(|watches| sync(&watches.read()));
        status
    }

    fn watches(&self) -> Option<Status> {
        self.watches.get().map(StatusReader::read)
    }

    fn waiting_since(&self) -> Option<Timestamp> {
        self.watches.get().and_then(StatusReader::oldest_waiting)
    }

    fn is_without(&self) -> bool {
        false
    }
}

/// Per resource, as docs/agent.md has it. What the cluster does not have is left out.
fn sync(status: &Status) -> Value {
    let resources = status.resources.iter().filter(|resource| resource.state != watch::State::Unserved).map(|resource| {
        let ResourceStatus { used, state, objects, listed_at, heard_at, lists, watches, failures, unreadable, requests, bytes, .. } =
            resource;
        let why = match state {
            watch::State::Waiting => Some("it was not asked for yet".to_owned()),
            watch::State::Listing => Some("it is being listed".to_owned()),
            watch::State::Watching | watch::State::Unserved => None,
            watch::State::Retrying { problem } => Some(problem.clone()),
            watch::State::Forbidden { problem, needs } => Some(format!("{problem}; it takes {needs}")),
        };
        let object = json!({
            "use": used, "watching": why.is_none(), "why": why, "objects": objects, "listedAt": listed_at, "lastEventAt": heard_at,
            "lists": lists, "watches": watches, "restarts": failures, "unreadable": unreadable, "requests": requests, "bytes": bytes,
        });
        (resource.resource.clone(), object)
    });
    Value::Object(resources.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::KernelLedger;
    use crate::cluster::{Kind, Namespace};
    use crate::flow::testing::{Names, RecordBuilder};
    use crate::pipeline::MomentsOptions;
    use crate::policy::Profile;
    use crate::timeline::{Limits, Timeline};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn watched() -> Arc<Watched> {
        Watched::new(Moments::new(Timeline::new(Profile::default(), Limits::default(), at(0)), MomentsOptions::default()))
    }

    fn record(seconds: u64) -> Captured {
        let ends = ["10.244.1.5:40000", "10.244.2.7:8080"].map(|end| end.parse().unwrap());
        Captured::Record(RecordBuilder::tcp_syn(ends[0], ends[1]).time_ns(seconds * 1_000_000_000).bytes())
    }

    fn kinds(observations: &[Observation]) -> Vec<&'static str> {
        let kind = |observation: &Observation| match observation {
            Observation::Denial(_) => "denial",
            Observation::Ledger(_) => "ledger",
            _ => "other",
        };
        observations.iter().map(kind).collect()
    }

    #[test]
    fn what_is_captured_while_the_objects_are_in_use_waits() {
        let (watched, names) = (watched(), Names { clock_offset_ns: 0, ..Names::linux() });
        let mut judge = WatchedJudge::new(Arc::clone(&watched));
        // A question that takes long.
        watched.with_engine(&mut |_| {
            assert!(judge.take(&[Captured::Ledger(KernelLedger::default()), record(10)], &names, at(10)).is_empty());
            assert_eq!(judge.behind_since(&names), Some(at(10)));
            assert!(judge.next_due().is_some_and(|due| due > at(10) && due < at(11)));
            assert!(judge.tick(&names, at(11)).is_empty());
        });
        // The drop waits for the lists, of which there is none yet.
        assert_eq!(kinds(&judge.tick(&names, at(11))), ["ledger"]);
        assert_eq!(judge.behind_since(&names), None);
        assert_eq!(kinds(&judge.tick(&names, at(14))), ["denial"]);
        assert_eq!(kinds(&judge.take(&[record(20)], &names, at(20))), [] as [&str; 0]);
        assert_eq!(kinds(&judge.finish(&names, at(20))), ["denial"]);
    }

    #[test]
    fn updates_that_were_received_go_first() {
        let (watched, names) = (watched(), Names { clock_offset_ns: 0, ..Names::linux() });
        let mut judge = WatchedJudge::new(Arc::clone(&watched));
        let (reader, waiting) = StatusReader::with_waiting(at(9));
        assert!(watched.watches.set(reader).is_ok());
        let ledger = || [Captured::Ledger(KernelLedger::default())];
        // What is captured waits for them.
        assert!(judge.take(&ledger(), &names, at(10)).is_empty());
        assert_eq!((judge.behind_since(&names), judge.next_due()), (None, at(10).checked_add(AGAIN).ok()));
        assert!(judge.tick(&names, at(12)).is_empty());
        // What came of others is given meanwhile.
        watched.lock().said.push(Observation::Undecodable);
        assert_eq!(kinds(&judge.tick(&names, at(12))), ["other"]);
        // Not for ever: it goes on without them for as long as it waited, then waits again.
        assert_eq!(kinds(&judge.tick(&names, at(13))), ["ledger"]);
        assert_eq!(kinds(&judge.take(&ledger(), &names, at(15))), ["ledger"]);
        assert_eq!(kinds(&judge.take(&ledger(), &names, at(16))), ["ledger"]);
        assert!(judge.take(&ledger(), &names, at(17)).is_empty());
        drop(waiting);
        assert_eq!(kinds(&judge.tick(&names, at(17))), ["ledger"]);
    }

    #[test]
    fn what_is_held_is_held_until_all_is_taken_in_that_was_told_by_then() {
        let (watched, names) = (watched(), Names { clock_offset_ns: 0, ..Names::linux() });
        let mut judge = WatchedJudge::new(Arc::clone(&watched));
        // It waits for the lists.
        assert!(judge.take(&[record(10)], &names, at(10)).is_empty());
        let (reader, waiting) = StatusReader::with_waiting(at(11));
        assert!(watched.watches.set(reader).is_ok());
        // It goes on without the update, and knows the objects up to that.
        for seconds in [12, 15, 16] {
            assert!(judge.tick(&names, at(seconds)).is_empty(), "{seconds}");
        }
        drop(waiting);
        assert_eq!(kinds(&judge.tick(&names, at(16))), ["denial"]);
    }

    #[test]
    fn a_part_is_judged_at_a_time() {
        let (watched, names) = (watched(), Names { clock_offset_ns: 0, ..Names::linux() });
        let mut judge = WatchedJudge::new(watched);
        let ledgers = vec![Captured::Ledger(KernelLedger::default()); TOGETHER * 2 + 1];
        assert_eq!(judge.take(&ledgers, &names, at(10)).len(), TOGETHER);
        assert_eq!(judge.next_due(), Some(at(10)), "there is more");
        assert_eq!(judge.tick(&names, at(10)).len(), TOGETHER);
        assert_eq!((judge.tick(&names, at(10)).len(), judge.next_due()), (1, None));
        assert_eq!(judge.take(&ledgers, &names, at(11)).len() + judge.finish(&names, at(11)).len(), ledgers.len());
    }

    #[test]
    fn what_an_update_brings_is_given_by_the_judge() {
        let (watched, names) = (watched(), Names { clock_offset_ns: 0, ..Names::linux() });
        let mut judge = WatchedJudge::new(Arc::clone(&watched));
        assert!(judge.take(&[record(10)], &names, at(10)).is_empty());
        for kind in [Kind::Namespace, Kind::Node, Kind::Pod, Kind::Service, Kind::EndpointSlice, Kind::NetworkPolicy] {
            let objects = if kind == Kind::Namespace {
                vec![Namespace { name: "shop".into(), labels: Namespace::undescribed("shop") }.into()]
            } else {
                Vec::new()
            };
            watched.take_in(Update { at: at(11), news: News::Listed { kind, objects, since: None } }, &Bounds::default());
        }
        // All objects are there, and none of them is the owner of an address.
        assert_eq!(kinds(&judge.tick(&names, at(11))), ["denial"]);
        watched.take_in(
            Update { at: at(12), news: News::Foreign(Foreign::uncounted("cilium.io", "CiliumNetworkPolicy", true)) },
            &Bounds::default(),
        );
        assert!(watched.caveats().iter().any(|caveat| caveat.contains("CiliumNetworkPolicy (cilium.io): an unknown number")));
        assert_eq!(watched.status().foreign.unwrap()["CiliumNetworkPolicy.cilium.io"], Value::Null);
        assert_eq!(watched.status().objects["namespaces"], 1);
        let gone = News::ForeignGone { group: "cilium.io".into(), kind: "CiliumNetworkPolicy".into() };
        watched.take_in(Update { at: at(13), news: gone }, &Bounds::default());
        assert!(!watched.caveats().iter().any(|caveat| caveat.contains("Cilium")));
    }
}
