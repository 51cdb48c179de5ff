//! The objects of a cluster as a stream of updates, from watches on its API server.
//!
//! [`start`] keeps a watch on every kind that explanations need, and on the optional policy kinds while the cluster has them. What it gives
//! is meant for a timeline of the cluster: complete lists, objects that came or changed, objects that went.
//!
//! ```text
//! manage ─┬─ keep (pods) ──────────┬─▶ Update ─▶ who reads them
//!         ├─ keep (…)              │
//!         └─ discover: keep (CRDs) ┘            status, at any time
//! ```
//!
//! Nothing that the API server does ends this. A watch that ends, breaks or falls silent is taken up where it was; where that is not
//! possible any more (410 Gone) the resource is listed anew, and the list replaces what was known. Requests that fail are tried again, less
//! and less often. Whoever reads the updates slowly slows the watches, and memory does not grow: the server's own buffers fill, and it ends
//! the watch.
//!
//! **Times** are those at which the bytes came, by this machine's clock. The API has none that tells when an object changed:
//! `creationTimestamp` and `deletionTimestamp` are of other machines' clocks, in whole seconds, and `deletionTimestamp` lies in the
//! future. How far the updates lie behind what happened is not known; [`ResourceStatus::heard_at`] says when a resource was last heard of, and
//! [`News::Listed`] since when nothing was.

mod api;
mod backlog;
mod backoff;
mod collect;
mod connect;
mod decode;
mod discover;
mod event;
mod keep;
mod manage;
mod problem;
mod resource;
mod split;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cluster::{Foreign, Kind, Object, ObjectKey};

pub(crate) use backoff::Backoff;
pub use collect::Same;
pub use connect::connect;
pub use resource::permissions;
pub use status::{ResourceStatus, State, Status, Use, Warning};

use backlog::{Backlog, Waiting};
use collect::{Lists, Sink};
use manage::Manager;
use status::Board;

/// How to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchOptions {
    /// The first requests wait for a time up to this, by lot: the agents of all nodes may start at once. 10 s.
    pub start_jitter: Duration,
    /// Updates that wait for whoever reads them: 4,096, of up to 3 KB or so; with more, what comes is read late, and taken for later than it was told. A list is one of them, whatever its length; no two of a kind wait.
    pub buffer: usize,
    /// Objects that are asked for at once, where the server heeds it: 500.
    pub page_size: u32,
    /// Whether lists are asked for as streams, where the server has those.
    pub streaming_lists: bool,
    /// How long an answer may take to begin, and from one piece of a list to the next: 60 s.
    pub answer_timeout: Duration,
    /// How long a watch may say nothing before it is taken for dead: 100 s. The server sends bookmarks about every minute.
    pub quiet: Duration,
    /// How long a watch lasts at least before the server is to end it: 5 min; by lot up to twice as long.
    pub watch_timeout: Duration,
    /// The first wait after a failure: 0.5 s. It doubles with each further one.
    pub first_retry: Duration,
    /// The longest wait after a failure: 30 s.
    pub last_retry: Duration,
    /// How long to wait before something that is forbidden is tried again: 1 min.
    pub forbidden_retry: Duration,
    /// How often it is looked which optional kinds there are, on average: 1 min.
    pub discovery_period: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        WatchOptions {
            start_jitter: Duration::from_secs(10),
            buffer: 4096,
            page_size: 500,
            streaming_lists: true,
            answer_timeout: Duration::from_secs(60),
            quiet: Duration::from_secs(100),
            watch_timeout: Duration::from_secs(300),
            first_retry: Duration::from_millis(500),
            last_retry: Duration::from_secs(30),
            forbidden_retry: Duration::from_secs(60),
            discovery_period: Duration::from_secs(60),
        }
    }
}

/// Something about the cluster's objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// When it was received; see the module about times.
    pub at: Timestamp,
    /// What.
    pub news: News,
}

/// What an update says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// These are all objects of a kind. They replace what was known of it.
    Listed {
        /// The kind.
        kind: Kind,
        /// Of several with one name the last counts.
        objects: Vec<Object>,
        /// When the kind was last heard of before: what differs changed at some time since then. Absent for a first list, and where the
        /// kind came or went as a whole.
        since: Option<Timestamp>,
    },
    /// The same after a time without news, but that most objects are as they were told before, and are not told again.
    Relisted {
        /// The kind.
        kind: Kind,
        /// Those that are new or otherwise. Of several with one name the last counts.
        changed: Vec<Object>,
        /// Those that are as before. All others of the kind are gone.
        same: Same,
        /// As of a list.
        since: Option<Timestamp>,
    },
    /// An object came or changed.
    Applied(Object),
    /// An object went.
    Deleted(ObjectKey),
    /// An optional kind is there from now on, or is not. When it is not, an empty list follows.
    Served {
        /// The kind.
        kind: Kind,
        /// Whether the API server has it.
        served: bool,
    },
    /// How many policies there are of a kind that is not evaluated, or not known: a kind that is, where it may not be read.
    Foreign(Foreign),
    /// A kind is not there any more, or is evaluated after all.
    ForeignGone {
        /// API group.
        group: Arc<str>,
        /// Kind.
        kind: Arc<str>,
    },
}

/// Watches that run until this is dropped.
#[derive(Debug)]
pub struct Watching {
    updates: mpsc::Receiver<(Update, Waiting)>,
    /// That the last update is being taken in.
    taken: Option<Waiting>,
    lists: Arc<Lists>,
    backlog: Arc<Backlog>,
    board: Arc<Board>,
    manager: JoinHandle<()>,
}

/// Begins to watch, on the runtime of the caller, with a client that [`connect`] made.
pub fn start(client: Client, options: WatchOptions) -> Watching {
    let (sender, updates) = mpsc::channel(options.buffer.max(1));
    let (board, lists, backlog) = (Board::new(), Arc::<Lists>::default(), Arc::<Backlog>::default());
    let manager = Manager::new(client, options, board.clone(), Sink::new(sender, lists.clone(), backlog.clone()));
    Watching { updates, taken: None, lists, backlog, board, manager: tokio::spawn(manager.run()) }
}

impl Watching {
    /// The next update; whoever asks for it has taken in the one before. Can be given up and asked again without loss. Ends never, unless the
    /// program ends.
    pub async fn next(&mut self) -> Option<Update> {
        self.taken = None;
        let (update, waiting) = self.updates.recv().await?;
        self.taken = Some(waiting);
        if let News::Listed { kind, .. } | News::Relisted { kind, .. } = &update.news {
            self.lists.read(*kind);
        }
        Some(update)
    }

    /// How the watches stand, to be asked at any time, also when this is elsewhere.
    pub fn status(&self) -> StatusReader {
        StatusReader { board: self.board.clone(), backlog: self.backlog.clone() }
    }

    /// Updates that wait to be read.
    pub fn waiting(&self) -> usize {
        self.updates.len()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.manager.abort();
    }
}

/// Tells how the watches stand.
#[derive(Clone, Debug)]
pub struct StatusReader {
    board: Arc<Board>,
    backlog: Arc<Backlog>,
}

#[cfg(test)]
impl StatusReader {
    /// Of watches that tell nothing, and an update that came at a time and waits until what is returned is dropped.
    pub(crate) fn with_waiting(at: Timestamp) -> (Self, impl Sized + use<>) {
        let backlog = Arc::<Backlog>::default();
        let waiting = backlog.add(at);
        (StatusReader { board: Board::new(), backlog }, waiting)
    }
}

impl StatusReader {
    /// How they stand now.
    pub fn read(&self) -> Status {
        self.board.status()
    }

    /// Kinds that were listed and are not watched at the moment, as after a watch broke and before it goes on: when each was last heard of.
    pub fn unheard(&self) -> BTreeMap<Kind, Timestamp> {
        self.board.unheard()
    }

    /// When the first of the updates came that were received and are not taken in yet, by whoever reads them: up to then all that was told is
    /// known.
    pub fn oldest_waiting(&self) -> Option<Timestamp> {
        self.backlog.oldest()
    }

    /// What has to be listed before explanations can be relied on, and is not, with the reason: `pods were not listed yet`.
    pub fn missing(&self) -> Vec<String> {
        self.board.missing()
    }

    /// Returns when the objects are complete for the first time: the last of their updates is given, or just about to be. Whoever needs to have read them all waits for
    /// a list of each kind.
    pub async fn synced(&self) {
        // The sender lives as long as the board, which is here.
        _ = self.board.synced().wait_for(|synced| *synced).await;
    }
}
