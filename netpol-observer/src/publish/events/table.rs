//! The series that go on, what is to be written of them, and when. Synchronous; the times are the caller's.
//!
//! ```text
//! take ─▶ New ── create ──▶ Written ── patch, after 5 s, 30 s, 1 min ──▶ Written ── 6 min of silence ──▶ gone
//!          ▲                    │
//!          └── 404: expired ────┘
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::account::{Counters, Untold};
use super::limit::Bucket;
use super::mention::{Key, Mention};
use super::note::{Reporter, name};
use super::refusals::Refusals;
use super::{Limits, series_of};

/// What is to be asked of the API server.
#[derive(Clone, Debug)]
pub(super) enum Job {
    /// Create an Event.
    Create(Box<Event>),
    /// Change the series of one.
    Patch { namespace: Arc<str>, name: String, series: EventSeries },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is written.
    Done,
    /// There is no such Event any more.
    Missing,
    /// RBAC does not permit it.
    Forbidden,
    /// The namespace is being deleted, or is gone.
    NamespaceGone,
    /// It is refused as it is.
    Refused,
    /// It may succeed later.
    Failed,
}

/// A series.
struct Series {
    event: Event,
    namespace: Arc<str>,
    /// Mentions that the API server has.
    told: u64,
    /// Mentions since.
    untold: u64,
    /// When the first of all was, and the last.
    first: Timestamp,
    last: Timestamp,
    /// When the last one was taken.
    active: Instant,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    /// To be created, and since when.
    New(Instant),
    /// Created; not to be changed before this time, and after that one not for so long.
    Written { due: Instant, pause: Duration },
}

/// A request that is under way.
struct Busy {
    key: Key,
    /// Mentions that it tells.
    tells: u64,
    creates: bool,
}

/// The series, and the limits.
pub(super) struct Table {
    reporter: Reporter,
    limits: Limits,
    series: HashMap<Key, Series>,
    /// Those that are to be created, in their order.
    new: VecDeque<Key>,
    busy: Option<Busy>,
    creations: Bucket,
    changes: Bucket,
    pods: HashMap<Arc<str>, Bucket>,
    refusals: Refusals,
    account: Arc<Counters>,
    /// There will be no more mentions.
    is_ending: bool,
}

impl Table {
    pub(super) fn new(reporter: Reporter, limits: Limits, account: Arc<Counters>) -> Self {
        Table {
            reporter,
            limits,
            series: HashMap::new(),
            new: VecDeque::new(),
            busy: None,
            creations: Bucket::default(),
            changes: Bucket::default(),
            pods: HashMap::new(),
            refusals: Refusals::default(),
            account,
            is_ending: false,
        }
    }

    /// Takes drops, which are counted as mentions already.
    pub(super) fn take(&mut self, mention: &Mention, now: Instant) {
        if let Some(series) = self.series.get_mut(&mention.key) {
            series.untold += mention.count;
            series.last = series.last.max(mention.last);
            series.active = now;
            return;
        }
        if let Err(why) = self.open(mention, now) {
            self.account.count_untold(why, mention.count);
        }
    }

    /// Begins a series, if there may be one more.
    fn open(&mut self, mention: &Mention, now: Instant) -> Result<(), Untold> {
        let Some(denial) = &mention.denial else { return Err(Untold::NotOpened) };
        let namespace = Arc::clone(&mention.pod.namespace);
        if let Some(why) = self.refusals.creation(&namespace, now) {
            return Err(why);
        }
        self.may_create(&mention.key.uid, now)?;
        if self.series.len() >= self.limits.series {
            self.make_room()?;
        }
        self.has_created(&mention.key.uid, now);
        let series = Series {
            event: self.reporter.event(mention, denial),
            namespace,
            told: 0,
            untold: mention.count,
            first: denial.event.time,
            last: mention.last,
            active: now,
            stage: Stage::New(now),
        };
        self.series.insert(mention.key.clone(), series);
        self.new.push_back(mention.key.clone());
        Ok(())
    }

    fn may_create(&self, uid: &Arc<str>, now: Instant) -> Result<(), Untold> {
        if !self.creations.has(self.limits.creations, now) {
            return Err(Untold::RateLimited);
        }
        match self.pods.get(uid) {
            Some(bucket) if !bucket.has(self.limits.of_pod, now) => Err(Untold::PodLimited),
            _ => Ok(()),
        }
    }

    /// What is remembered of pods does not grow: a pod is added with a creation, and those are limited.
    fn has_created(&mut self, uid: &Arc<str>, now: Instant) {
        self.creations.take(self.limits.creations, now);
        self.pods.entry(Arc::clone(uid)).or_default().take(self.limits.of_pod, now);
    }

    /// Forgets the series that was silent for longest.
    fn make_room(&mut self) -> Result<(), Untold> {
        let busy = self.busy.as_ref().map(|busy| &busy.key);
        let idle = self.series.iter().filter(|(key, series)| matches!(series.stage, Stage::Written { .. }) && Some(*key) != busy);
        let oldest = idle.min_by_key(|(_, series)| series.active).map(|(key, _)| key.clone()).ok_or(Untold::TableFull)?;
        self.forget(&oldest, Untold::TableFull);
        Ok(())
    }

    fn forget(&mut self, key: &Key, why: Untold) {
        if let Some(series) = self.series.remove(key) {
            self.account.count_untold(why, series.untold);
        }
    }

    /// What is to be asked next, if anything is at this time. [`done`](Table::done) has to be told what came of it first.
    pub(super) fn next(&mut self, now: Instant) -> Option<Job> {
        if self.busy.is_some() {
            return None;
        }
        self.sweep(now);
        self.next_creation(now).or_else(|| self.next_change(now))
    }

    fn next_creation(&mut self, now: Instant) -> Option<Job> {
        while let Some(key) = self.new.front().cloned() {
            let Some(series) = self.series.get(&key) else {
                self.new.pop_front();
                continue;
            };
            let Stage::New(since) = series.stage else {
                self.new.pop_front();
                continue;
            };
            let why_not = self.refusals.creation(&series.namespace, now);
            let why_not = why_not.or_else(|| (now.saturating_duration_since(since) > self.limits.patience).then_some(Untold::Unreachable));
            if let Some(why) = why_not {
                self.new.pop_front();
                self.forget(&key, why);
                continue;
            }
            let mut event = Box::new(series.event.clone());
            event.event_time = Some(MicroTime(series.first));
            event.series = (series.untold > 1).then(|| series_of(series.untold, series.last));
            self.busy = Some(Busy { tells: series.untold, key, creates: true });
            return Some(Job::Create(event));
        }
        None
    }

    fn next_change(&mut self, now: Instant) -> Option<Job> {
        if !self.changes.has(self.limits.changes, now) {
            return None;
        }
        let mut due: Option<(Instant, &Key, &Series)> = None;
        for (key, series) in &self.series {
            let Stage::Written { due: at, .. } = series.stage else { continue };
            let is_due = series.untold > 0 && (self.is_ending || at <= now) && due.is_none_or(|(first, ..)| at < first);
            if is_due && !self.refusals.change(&series.namespace, now) {
                due = Some((at, key, series));
            }
        }
        let (_, key, series) = due?;
        let job = Job::Patch {
            namespace: Arc::clone(&series.namespace),
            name: series.event.metadata.name.clone().unwrap_or_default(),
            // A series is two at least.
            series: series_of((series.told + series.untold).max(2), series.last),
        };
        self.busy = Some(Busy { key: key.clone(), tells: series.untold, creates: false });
        self.changes.take(self.limits.changes, now);
        Some(job)
    }

    /// What came of the request that was asked for.
    pub(super) fn done(&mut self, outcome: &Outcome, now: Instant) {
        let Some(Busy { key, tells, creates }) = self.busy.take() else { return };
        if *outcome != Outcome::Done {
            self.account.count_failed();
        }
        let Some(series) = self.series.get_mut(&key) else { return };
        match (outcome, creates) {
            (Outcome::Done, _) => {
                series.told += tells;
                series.untold -= tells;
                self.account.count_told(tells);
                series.stage = match series.stage {
                    Stage::New(_) => Stage::Written { due: now + self.limits.first_change, pause: self.limits.first_pause },
                    Stage::Written { pause, .. } => {
                        Stage::Written { due: now + pause, pause: pause.saturating_mul(2).min(self.limits.last_pause) }
                    }
                };
                if creates {
                    self.account.count_written();
                } else {
                    self.account.count_patched();
                }
            }
            (Outcome::Missing, false) => self.write_anew(&key, now),
            (Outcome::Forbidden, false) => self.refusals.remember_change(&series.namespace, now),
            (Outcome::Forbidden, true) => self.refuse(&key, Untold::Forbidden, now),
            (Outcome::NamespaceGone | Outcome::Missing, _) => self.refuse(&key, Untold::NamespaceGone, now),
            (Outcome::Refused, _) => self.forget(&key, Untold::Refused),
            (Outcome::Failed, _) => {}
        }
    }

    /// Nothing is to be written in a namespace for some time.
    fn refuse(&mut self, key: &Key, why: Untold, now: Instant) {
        if let Some(series) = self.series.get(key) {
            self.refusals.remember_creation(&series.namespace, why, now);
        }
        self.forget(key, why);
    }

    /// Events expire after an hour: what goes on gets another one.
    fn write_anew(&mut self, key: &Key, now: Instant) {
        if let Err(why) = self.may_create(&key.uid, now) {
            self.forget(key, why);
            return;
        }
        self.has_created(&key.uid, now);
        let Some(series) = self.series.get_mut(key) else { return };
        let pod = series.event.regarding.as_ref().and_then(|pod| pod.name.as_deref()).unwrap_or_default();
        series.event.metadata.name = Some(name(pod));
        // What it tells is what the one that is gone does not.
        series.first = series.last;
        series.told = 0;
        series.stage = Stage::New(now);
        self.new.push_back(key.clone());
    }

    /// Ends what was silent for long, and forgets what is as if it had never been.
    fn sweep(&mut self, now: Instant) {
        let (limits, refusals, account) = (&self.limits, &mut self.refusals, &self.account);
        self.series.retain(|_, series| {
            let is_over =
                matches!(series.stage, Stage::Written { .. }) && now.saturating_duration_since(series.active) >= limits.finished_after;
            if is_over && series.untold > 0 && refusals.change(&series.namespace, now) {
                account.count_untold(Untold::Forbidden, series.untold);
                return false;
            }
            !is_over || series.untold > 0
        });
        self.pods.retain(|_, bucket| !bucket.is_full(now));
        self.refusals.sweep(now);
    }

    /// There will be no more mentions: what is left is written at once, as far as the limits go.
    pub(super) fn end(&mut self) {
        self.is_ending = true;
    }

    /// Gives up what is left.
    pub(super) fn give_up(&mut self) {
        self.busy = None;
        for (_, series) in self.series.drain() {
            self.account.count_untold(Untold::Ended, series.untold);
        }
    }

    /// Mentions that are yet to be written.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> u64 {
        self.series.values().map(|series| series.untold).sum()
    }

    /// What is remembered: series, and pods.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> (usize, usize) {
        (self.series.len(), self.pods.len())
    }
}
