//! A cluster that is watched: one set of objects and their past, which updates change, drops are judged by, and questions are answered from.
//!
//! All of it is behind one lock. The capture does not wait for it: while an update is taken in (a list of 100,000 pods takes seconds) or a
//! question is answered, what is captured waits in a bounded queue, and is judged as of its time afterwards.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Judge, Objects, ObjectsStatus, Observation};
use crate::capture::Captured;
use crate::cluster::{Foreign, ForeignPolicies};
use crate::effect;
use crate::flow::KernelNames;
use crate::pipeline::{Moments, Step, time_of};
use crate::policy::{Bounds, Engine};
use crate::watch::{self, News, ResourceStatus, Status, StatusReader, Update, Watching};

/// Captured pieces that wait while the objects are in use. Then the capture waits too, and the ring fills.
const MAX_BEHIND: usize = 32 * 1024;

/// With so many updates waiting, effects of changes are not worked out.
const BUSY: usize = 32;

/// How soon it is looked again whether the objects are free.
const AGAIN: SignedDuration = SignedDuration::from_millis(5);

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

    /// Takes updates as long as there are any.
    pub async fn follow(self: Arc<Self>, mut watching: Watching) {
        // There is one who follows.
        _ = self.watches.set(watching.status());
        while let Some(update) = watching.next().await {
            // What changes do is worked out where there is time for it: knowing the objects comes first.
            let bounds = if watching.waiting() > BUSY { Bounds { verdicts: 0, ..Bounds::default() } } else { Bounds::default() };
            self.take_in(update, &bounds);
        }
    }

    /// Takes one update, with the effects of what it changes within bounds. What comes of it is given by the judge.
    pub fn take_in(&self, update: Update, bounds: &Bounds) {
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
            News::Applied(object) => effect::apply(timeline, at, object, bounds).effect.into_iter().collect(),
            News::Deleted(key) => effect::delete(timeline, at, &key, bounds).effect.into_iter().collect(),
            // An empty list follows when it is not there any more; nothing is known of it before its first.
            News::Served { .. } => return,
            News::Foreign(foreign) => return state.count(|counted| counted.put(foreign)),
            News::ForeignGone { group, kind } => return state.count(|counted| counted.remove(&group, &kind)),
        };
        state.said.extend(effects.into_iter().map(|effect| Observation::PolicyChange(Arc::new(effect))));
        // What waited for this, and what is otherwise by it.
        let steps = state.moments.tick(at);
        state.said.extend(steps.into_iter().map(of));
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
}

impl WatchedJudge {
    /// By these objects.
    pub fn new(watched: Arc<Watched>) -> Self {
        WatchedJudge { watched, behind: VecDeque::new(), due: None }
    }

    /// Judges what waits.
    fn catch_up(&mut self, names: &dyn KernelNames, now: Timestamp, must: bool) -> Vec<Observation> {
        let state = if must { Some(self.watched.lock()) } else { self.watched.try_lock() };
        let Some(mut state) = state else {
            self.due = now.checked_add(AGAIN).ok();
            return Vec::new();
        };
        if let Some(watches) = self.watched.watches.get() {
            state.moments.set_unheard(watches.unheard());
        }
        let mut observations = std::mem::take(&mut state.said);
        let behind = self.behind.make_contiguous();
        if behind.is_empty() {
            observations.extend(state.moments.tick(now).into_iter().map(of));
        } else {
            observations.extend(state.moments.take(behind, names, now).into_iter().map(Observation::of));
            self.behind.clear();
        }
        self.due = state.moments.next_due();
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
