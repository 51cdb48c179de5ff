//! How the watches stand, readable at any time.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

use super::api::Counters;
use super::problem::Problem;
use super::resource::{Resource, kind_of};
use crate::cluster::{Kind, ObjectKey};

/// Objects of which it is kept what is wrong with them.
const MAX_WARNINGS: usize = 100;

/// What is kept of one object.
const MAX_MESSAGES: usize = 5;

/// How all watches stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Whether the objects were complete once: every required kind was listed, it is known which optional ones the cluster has, and those
    /// were listed or may not be.
    pub synced: bool,
    /// The resources by their kind of use, then in the order in which they were met.
    pub resources: Vec<ResourceStatus>,
    /// When it was last found out which optional kinds the cluster has.
    pub discovered_at: Option<Timestamp>,
    /// Why it could not be found out since.
    pub discovery_problem: Option<String>,
    /// Requests so far, those of discovery included.
    pub requests: u64,
    /// Bytes of answers so far.
    pub bytes: u64,
    /// What is wrong with objects that are there now, of a bounded number of them.
    pub warnings: Vec<Warning>,
    /// How many more objects something was wrong with when they came.
    pub warnings_omitted: u64,
}

impl Status {
    /// A resource by its name in RBAC: `pods`, `networkpolicies.networking.k8s.io`.
    pub fn resource(&self, name: &str) -> Option<&ResourceStatus> {
        self.resources.iter().find(|resource| resource.resource == name)
    }
}

/// What the API server would not have accepted of an object, or why it could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// `NetworkPolicy shop/api`.
    pub object: String,
    /// One line each; the first few.
    pub messages: Vec<String>,
}

/// What a resource is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// Nothing can be explained without it.
    Required,
    /// Policies that the engine reads, where the cluster has them.
    Optional,
    /// Policies that are only counted.
    Counted,
}

/// How the watch of one resource stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceStatus {
    /// As in RBAC: `pods`, `networkpolicies.networking.k8s.io`.
    pub resource: String,
    /// The version that is read.
    pub version: String,
    /// What it is watched for.
    #[serde(rename = "use")]
    pub used: Use,
    /// What goes on now.
    #[serde(flatten)]
    pub state: State,
    /// Objects that there are.
    pub objects: usize,
    /// When the last complete list was there.
    pub listed_at: Option<Timestamp>,
    /// When the server was last heard on it: a list, an event or a bookmark.
    pub heard_at: Option<Timestamp>,
    /// Complete lists.
    pub lists: u64,
    /// Watches that were opened.
    pub watches: u64,
    /// Requests and streams that failed.
    pub failures: u64,
    /// Objects that could not be read, each time they came.
    pub unreadable: u64,
    /// Requests so far.
    pub requests: u64,
    /// Bytes of answers so far.
    pub bytes: u64,
}

/// What goes on with a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "state")]
pub enum State {
    /// Nothing was asked yet.
    Waiting,
    /// Its objects are being listed.
    Listing,
    /// Changes come as they happen.
    Watching,
    /// Something went wrong, and is tried again.
    Retrying {
        /// What.
        problem: String,
    },
    /// It may not be read; tried again from time to time.
    Forbidden {
        /// What the API server says.
        problem: String,
        /// What is missing.
        needs: String,
    },
    /// The cluster does not have it.
    Unserved,
}

#[derive(Debug)]
struct Row {
    resource: Resource,
    used: Use,
    counters: Arc<Counters>,
    state: State,
    objects: usize,
    listed_at: Option<Timestamp>,
    heard_at: Option<Timestamp>,
    lists: u64,
    watches: u64,
    failures: u64,
    unreadable: u64,
}

#[derive(Debug, Default)]
struct Inner {
    rows: Vec<Row>,
    discovered_at: Option<Timestamp>,
    discovery_problem: Option<String>,
    warnings: BTreeMap<ObjectKey, Vec<String>>,
    warnings_omitted: u64,
    synced: bool,
}

/// What all watches write into.
#[derive(Debug)]
pub(super) struct Board {
    inner: Mutex<Inner>,
    discovery: Arc<Counters>,
    synced: tokio::sync::watch::Sender<bool>,
}

impl Board {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Board { inner: Mutex::default(), discovery: Arc::default(), synced: tokio::sync::watch::Sender::new(false) })
    }

    /// Counts what discovery asks.
    pub(super) fn discovery(&self) -> Arc<Counters> {
        self.discovery.clone()
    }

    /// Tells when everything was there once.
    pub(super) fn synced(&self) -> tokio::sync::watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// The line of a resource: a new one, or the one it had.
    pub(super) fn entry(self: &Arc<Self>, resource: &Resource, used: Use) -> Entry {
        let mut inner = self.lock();
        let place = inner.rows.iter().position(|row| row.resource == *resource).unwrap_or_else(|| {
            inner.rows.push(Row {
                resource: resource.clone(),
                used,
                counters: Arc::default(),
                state: State::Waiting,
                objects: 0,
                listed_at: None,
                heard_at: None,
                lists: 0,
                watches: 0,
                failures: 0,
                unreadable: 0,
            });
            inner.rows.len() - 1
        });
        inner.rows[place].used = used;
        Entry { board: self.clone(), place, counters: inner.rows[place].counters.clone() }
    }

    pub(super) fn discovered(&self, at: Timestamp) {
        let mut inner = self.lock();
        inner.discovered_at = Some(at);
        inner.discovery_problem = None;
        self.look(inner);
    }

    pub(super) fn not_discovered(&self, problem: &Problem) {
        self.lock().discovery_problem = Some(problem.to_string());
    }

    /// What is wrong with an object now; nothing takes back what was.
    pub(super) fn warn(&self, object: ObjectKey, messages: impl Iterator<Item = String>) {
        let messages: Vec<String> = messages.take(MAX_MESSAGES).collect();
        let mut inner = self.lock();
        if messages.is_empty() {
            inner.warnings.remove(&object);
        } else if inner.warnings.len() < MAX_WARNINGS || inner.warnings.contains_key(&object) {
            inner.warnings.insert(object, messages);
        } else {
            inner.warnings_omitted += 1;
        }
    }

    /// All objects of a kind are told anew, or gone.
    pub(super) fn forget_warnings(&self, kind: Kind) {
        self.lock().warnings.retain(|object, _| object.kind != kind);
    }

    pub(super) fn status(&self) -> Status {
        let inner = self.lock();
        let mut resources: Vec<_> = inner.rows.iter().map(shown).collect();
        resources.sort_by_key(|resource| resource.used);
        let warnings = inner.warnings.iter().map(|(object, messages)| Warning { object: object.to_string(), messages: messages.clone() });
        Status {
            synced: inner.synced,
            discovered_at: inner.discovered_at,
            discovery_problem: inner.discovery_problem.clone(),
            requests: resources.iter().map(|r| r.requests).sum::<u64>() + self.discovery.requests.load(Ordering::Relaxed),
            bytes: resources.iter().map(|r| r.bytes).sum::<u64>() + self.discovery.bytes.load(Ordering::Relaxed),
            warnings: warnings.collect(),
            warnings_omitted: inner.warnings_omitted,
            resources,
        }
    }

    /// Kinds that were listed once and are not watched now: when each was last heard of.
    pub(super) fn unheard(&self) -> BTreeMap<Kind, Timestamp> {
        let inner = self.lock();
        let rows = inner.rows.iter().filter(|row| !matches!(row.state, State::Watching | State::Unserved));
        rows.filter_map(|row| Some((kind_of(&row.resource)?, row.heard_at?))).collect()
    }

    /// Kinds of which there is no list, and why, for people; nothing once everything was there.
    pub(super) fn missing(&self) -> Vec<String> {
        let inner = self.lock();
        if inner.synced {
            return Vec::new();
        }
        let rows = inner.rows.iter().filter(|row| row.used != Use::Counted && row.lists == 0);
        let rows = rows.filter_map(|row| match &row.state {
            State::Waiting | State::Listing => Some(format!("{} were not listed yet", row.resource)),
            // Without it answers are wrong; an optional kind that may not be read is counted among those that are not evaluated.
            State::Retrying { problem } => Some(format!("{} cannot be listed: {problem}", row.resource)),
            State::Forbidden { problem, needs } if row.used == Use::Required => {
                Some(format!("{} may not be listed: {problem}; it takes {needs}", row.resource))
            }
            State::Forbidden { .. } | State::Watching | State::Unserved => None,
        });
        let mut missing: Vec<String> = rows.collect();
        if inner.discovered_at.is_none() {
            let why = inner.discovery_problem.as_ref().map_or_else(String::new, |problem| format!(": {problem}"));
            missing.push(format!("it is not known yet which kinds of policies the cluster has{why}"));
        }
        missing
    }

    /// Whether everything was there once.
    fn look(&self, mut inner: MutexGuard<'_, Inner>) {
        if inner.synced || inner.discovered_at.is_none() {
            return;
        }
        let settled = |row: &Row| match row.used {
            Use::Required => row.lists > 0,
            Use::Optional => row.lists > 0 || matches!(row.state, State::Forbidden { .. } | State::Unserved),
            Use::Counted => true,
        };
        if inner.rows.iter().any(|row| row.used == Use::Required) && inner.rows.iter().all(settled) {
            inner.synced = true;
            self.synced.send_replace(true);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whoever panicked left figures, as good as any.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shown(row: &Row) -> ResourceStatus {
    ResourceStatus {
        resource: row.resource.to_string(),
        version: row.resource.version.clone(),
        used: row.used,
        state: row.state.clone(),
        objects: row.objects,
        listed_at: row.listed_at,
        heard_at: row.heard_at,
        lists: row.lists,
        watches: row.watches,
        failures: row.failures,
        unreadable: row.unreadable,
        requests: row.counters.requests.load(Ordering::Relaxed),
        bytes: row.counters.bytes.load(Ordering::Relaxed),
    }
}

/// The line of one resource.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    board: Arc<Board>,
    place: usize,
    counters: Arc<Counters>,
}

impl Entry {
    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    pub(super) fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    pub(super) fn listing(&self) {
        self.with(|row| row.state = State::Listing);
    }

    pub(super) fn listed(&self, at: Timestamp, objects: usize) {
        self.with(|row| {
            row.lists += 1;
            (row.listed_at, row.heard_at, row.objects) = (Some(at), Some(at), objects);
        });
    }

    pub(super) fn watching(&self) {
        self.with(|row| {
            row.state = State::Watching;
            row.watches += 1;
        });
    }

    pub(super) fn heard(&self, at: Timestamp) {
        self.with(|row| row.heard_at = Some(at));
    }

    pub(super) fn count(&self, added: usize, removed: usize) {
        self.with(|row| row.objects = (row.objects + added).saturating_sub(removed));
    }

    pub(super) fn unreadable(&self) {
        self.with(|row| row.unreadable += 1);
    }

    /// When the server was last heard.
    pub(super) fn heard_at(&self) -> Option<Timestamp> {
        self.board.lock().rows[self.place].heard_at
    }

    pub(super) fn failed(&self, problem: &Problem) {
        let text = problem.to_string();
        self.with(|row| {
            row.failures += 1;
            row.state = match problem {
                Problem::Forbidden(_) => State::Forbidden { problem: text, needs: needs(&row.resource) },
                _ => State::Retrying { problem: text },
            };
        });
    }

    pub(super) fn unserved(&self) {
        self.with(|row| {
            row.state = State::Unserved;
            (row.objects, row.listed_at, row.heard_at) = (0, None, None);
        });
    }

    fn with(&self, change: impl FnOnce(&mut Row)) {
        let mut inner = self.board.lock();
        change(&mut inner.rows[self.place]);
        self.board.look(inner);
    }
}

/// What a ClusterRole must allow.
fn needs(resource: &Resource) -> String {
    let group = &resource.group;
    format!("a ClusterRole with verbs list and watch on {} in API group \"{group}\"", resource.plural)
}
