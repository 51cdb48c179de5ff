//! What all connections of a server share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use super::authn::Tokens;
use super::fault::Faults;
use super::portforward::Connector;
use super::rbac;
use super::stats::Stats;
use super::store::Store;
use super::write::{self, Target};

/// How a server behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Changes of each resource that are remembered: watches from before them are too old.
    pub history: usize,
    /// Streaming lists, on by default in Kubernetes 1.34 and later. Off: `sendInitialEvents` is refused with 422.
    pub streaming_lists: bool,
    /// How often idle watches get a bookmark. About a minute in a real server.
    pub bookmark_period: Duration,
    /// How long a watch without `timeoutSeconds` runs. 30 to 60 minutes in a real server.
    pub watch_timeout: Duration,
    /// Requests without a token are those of `system:anonymous`. Off: 401.
    pub anonymous: bool,
    /// RBAC decides. Off: everything is allowed, as with `--authorization-mode=AlwaysAllow`.
    pub rbac: bool,
    /// A WebSocket to `pods/portforward` needs `create` beside `get`: AuthorizePodWebsocketUpgradeCreatePermission, on since 1.35.
    pub websocket_needs_create: bool,
    /// Version of `/version`.
    pub git_version: String,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            history: 1000,
            streaming_lists: true,
            bookmark_period: Duration::from_secs(60),
            watch_timeout: Duration::from_secs(45 * 60),
            anonymous: true,
            rbac: true,
            websocket_needs_create: true,
            git_version: "v1.35.0".to_owned(),
        }
    }
}

/// Namespace and name of a pod, and a port of it.
pub(super) type PodPort = (String, String, u16);

/// What all connections share. Each lock is held for short, and never two of one kind; the store's is taken last.
pub(super) struct State {
    pub(super) options: Options,
    pub(super) store: Mutex<Store>,
    pub(super) tokens: Mutex<Tokens>,
    pub(super) faults: Mutex<Faults>,
    pub(super) stats: Mutex<Stats>,
    pub(super) forwards: Mutex<HashMap<PodPort, Connector>>,
    skew: AtomicI64,
}

/// Locks. A test that panicked elsewhere must not make the server panic too.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    pub(super) fn new(options: Options) -> Arc<State> {
        let mut store = Store::new(options.history);
        let now = Timestamp::now();
        let mut objects = rbac::bootstrap();
        for namespace in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            objects.push(("namespaces", serde_json::json!({"metadata": {"name": namespace}})));
        }
        for (plural, object) in objects {
            let group = if plural == "namespaces" { "" } else { "rbac.authorization.k8s.io" };
            let target = Target { group, plural, namespace: "", name: "", now, with_status: true };
            // Names and kinds are right: a test lists them.
            let _ = write::create(&mut store, target, object);
        }
        Arc::new(State {
            options,
            store: Mutex::new(store),
            tokens: Mutex::default(),
            faults: Mutex::default(),
            stats: Mutex::default(),
            forwards: Mutex::default(),
            skew: AtomicI64::new(0),
        })
    }

    /// The server's time.
    pub(super) fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        now.checked_add(SignedDuration::from_secs(self.skew.load(Ordering::Relaxed))).unwrap_or(now)
    }

    pub(super) fn set_skew(&self, seconds: i64) {
        self.skew.store(seconds, Ordering::Relaxed);
    }

    /// Waits until a revision is there. False when it is not in time.
    pub(super) async fn reached(&self, revision: u64, wait: Duration) -> bool {
        let mut changes = lock(&self.store).changes();
        timeout(wait, changes.wait_for(|current| *current >= revision)).await.is_ok_and(|reached| reached.is_ok())
    }
}
