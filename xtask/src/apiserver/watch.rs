//! Watches: a stream of changes from a revision on.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::fault::Cut;
use super::list::{View, write};
use super::options::ListOptions;
use super::resource::Resource;
use super::selector::Selector;
use super::state::{State, lock};
use super::stats::Asked;
use super::status::Refusal;
use super::store::{Change, Object, Table};

/// How long a real server waits for a revision it has not reached.
pub(super) const FUTURE_WAIT: Duration = Duration::from_secs(3);

/// A piece of a stream, or how the connection breaks.
pub(super) type Piece = Result<Bytes, Broken>;

/// The connection is to break here, by a fault.
#[derive(Debug)]
pub(super) struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the connection breaks, as a test asked")
    }
}

impl std::error::Error for Broken {}

/// A watch that runs.
pub(super) struct Watch {
    pub(super) state: Arc<State>,
    pub(super) resource: Arc<Resource>,
    pub(super) generation: u64,
    pub(super) version: String,
    pub(super) namespace: Option<String>,
    pub(super) options: ListOptions,
    pub(super) selector: Selector,
    pub(super) view: View,
    pub(super) asked: Asked,
    /// Delay before each batch, a fault.
    pub(super) slow: Option<Duration>,
    /// Sets the connection to be reset when it breaks.
    pub(super) reset: Arc<std::sync::atomic::AtomicBool>,
}

/// Counts an open watch as long as it lives.
struct Open<'a>(&'a Watch);

impl<'a> Open<'a> {
    fn new(watch: &'a Watch) -> Open<'a> {
        lock(&watch.state.stats).count(&watch.asked).open_watches += 1;
        Open(watch)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        lock(&self.0.state.stats).count(&self.0.asked).open_watches -= 1;
    }
}

/// What a look at the table came to.
enum Look {
    /// Events up to this revision.
    Events(Vec<u8>, u64),
    /// The history begins later.
    Expired(u64),
    /// The resource is served no more. What is still to be said.
    Over(Vec<u8>),
}

impl Watch {
    /// Runs until the client leaves, the time is over, or the watch cannot go on.
    pub(super) async fn run(self, pieces: mpsc::Sender<Piece>) {
        let _open = Open::new(&self);
        let opened = lock(&self.state.faults).sequence();
        tokio::select! {
            () = pieces.closed() => {}
            () = self.stream(&pieces, opened) => {}
        }
    }

    async fn stream(&self, pieces: &mpsc::Sender<Piece>, opened: u64) {
        let mut changes = lock(&self.state.store).changes();
        let timeout = self.options.timeout_seconds.map_or(self.state.options.watch_timeout, Duration::from_secs);
        let deadline = Instant::now() + timeout;
        let asked = match self.options.revision() {
            Ok(asked) => asked,
            Err(_) => return,
        };
        let initial = self.options.send_initial_events.unwrap_or(asked == 0);
        if initial && !self.reached(asked).await {
            let current = lock(&self.state.store).revision();
            self.error(pieces, &Refusal::too_large_resource_version(asked, current, Some(1))).await;
            return;
        }
        let mut position = if initial {
            let Some((events, revision)) = self.initial() else { return };
            if !self.send(pieces, events).await {
                return;
            }
            revision
        } else if asked == 0 {
            lock(&self.state.store).revision()
        } else {
            asked
        };
        let mut next_bookmark = Instant::now() + self.state.options.bookmark_period;
        // A real server sends one shortly before it ends a watch, so that the client goes on from there.
        let mut last_bookmark = deadline.checked_sub(Duration::from_secs(2)).filter(|at| *at > Instant::now());
        let mut started = initial;
        loop {
            changes.mark_unchanged();
            let cut = lock(&self.state.faults).cut_of(&self.resource.plural, opened);
            if let Some(cut) = cut {
                return self.cut(pieces, cut).await;
            }
            match self.look(position, started) {
                Look::Over(last) => {
                    self.send(pieces, last).await;
                    return;
                }
                // Too slow: the stream ends, and the client finds out when it comes back.
                Look::Expired(_) if started => return,
                Look::Expired(oldest) => {
                    let message = format!("too old resource version: {position} ({oldest})");
                    return self.error(pieces, &Refusal::expired(message)).await;
                }
                Look::Events(events, revision) => {
                    (position, started) = (revision, true);
                    if !self.send(pieces, events).await {
                        return;
                    }
                }
            }
            let bookmark_at = last_bookmark.map_or(next_bookmark, |last| last.min(next_bookmark));
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = sleep_until(deadline) => return,
                () = sleep_until(bookmark_at) => {
                    last_bookmark = last_bookmark.filter(|last| *last > Instant::now());
                    next_bookmark = Instant::now() + self.state.options.bookmark_period;
                    if self.options.bookmarks && !self.send(pieces, self.bookmark(position, false)).await {
                        return;
                    }
                }
            }
        }
    }

    /// Waits until the server has a revision.
    async fn reached(&self, revision: u64) -> bool {
        self.state.reached(revision, FUTURE_WAIT).await
    }

    fn with_table<T>(&self, read: impl FnOnce(&Table, u64) -> T) -> Option<T> {
        let store = lock(&self.state.store);
        let table = store.table(&self.resource.group, &self.resource.plural)?;
        (table.generation == self.generation).then(|| read(table, store.revision()))
    }

    /// What there is, as events; with streaming lists the bookmark that ends it.
    fn initial(&self) -> Option<(Vec<u8>, u64)> {
        let (objects, revision) = self.with_table(|table, revision| (table.list(self.namespace.as_deref(), None, revision), revision))?;
        let mut events = Vec::new();
        for object in objects?.iter().filter(|object| self.selector.matches(object)) {
            self.event("ADDED", object, &mut events);
        }
        if self.options.bookmarks && self.options.send_initial_events == Some(true) {
            events.extend(self.bookmark(revision, true));
        }
        Some((events, revision))
    }

    fn look(&self, position: u64, started: bool) -> Look {
        let look = |table: &Table, revision: u64| {
            if !started && table.since(position).is_none() {
                return Look::Expired(table.compacted);
            }
            let Some(changes) = table.still_since(position) else {
                return Look::Expired(table.compacted);
            };
            let mut events = Vec::new();
            for change in changes.filter(|change| self.namespace.as_ref().is_none_or(|namespace| *namespace == change.after.key.0)) {
                self.change(change, &mut events);
            }
            Look::Events(events, revision.max(position))
        };
        if let Some(looked) = self.with_table(look) {
            return looked;
        }
        let store = lock(&self.state.store);
        match store.retired(self.generation).map(|table| look(table, store.revision())) {
            Some(Look::Events(events, _)) => Look::Over(events),
            _ => Look::Over(Vec::new()),
        }
    }

    /// A change as this watch sees it: leaving the selection is a deletion, entering it an addition.
    fn change(&self, change: &Change, out: &mut Vec<u8>) {
        let before = change.before.as_ref().filter(|before| self.selector.matches(before));
        let after = !change.deleted && self.selector.matches(&change.after);
        match (before, after) {
            (None, true) => self.event("ADDED", &change.after, out),
            (Some(_), true) => self.event("MODIFIED", &change.after, out),
            (Some(_), false) if change.deleted => self.event("DELETED", &change.after, out),
            // The last state that was selected, at the revision that took it out.
            (Some(before), false) => self.event("DELETED", &Object::new(&self.resource, before.value(), change.revision), out),
            (None, false) => {}
        }
    }

    fn event(&self, kind: &str, object: &Object, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
        write(object, &self.resource, &self.version, self.view, out);
        out.extend_from_slice(b"}\n");
    }

    /// An object of the kind with nothing but a revision. Go prints the required fields of its empty types.
    fn bookmark(&self, revision: u64, initial_events_end: bool) -> Vec<u8> {
        let mut object = match self.view {
            View::Full => json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(&self.version)}),
            View::Metadata => json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}),
        };
        object["metadata"] = json!({"resourceVersion": revision.to_string()});
        if initial_events_end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        if self.view == View::Full && !self.resource.custom {
            match self.resource.plural.as_str() {
                "pods" => (object["spec"], object["status"]) = (json!({"containers": Value::Null}), json!({})),
                "namespaces" | "services" | "nodes" => (object["spec"], object["status"]) = (json!({}), json!({})),
                "networkpolicies" => object["spec"] = json!({"podSelector": {}}),
                "endpointslices" => (object["addressType"], object["endpoints"], object["ports"]) = ("".into(), Value::Null, Value::Null),
                "events" => object["eventTime"] = Value::Null,
                _ => {}
            }
        }
        let mut out = json!({"type": "BOOKMARK", "object": object}).to_string().into_bytes();
        out.push(b'\n');
        out
    }

    async fn error(&self, pieces: &mpsc::Sender<Piece>, refusal: &Refusal) {
        let mut out = json!({"type": "ERROR", "object": refusal.body()}).to_string().into_bytes();
        out.push(b'\n');
        self.send(pieces, out).await;
    }

    async fn cut(&self, pieces: &mpsc::Sender<Piece>, cut: Cut) {
        match cut {
            Cut::End => {}
            Cut::Gone => self.error(pieces, &Refusal::expired("The resourceVersion for the provided watch is too old.")).await,
            Cut::Silence => std::future::pending().await,
            Cut::Reset => {
                self.reset.store(true, std::sync::atomic::Ordering::Relaxed);
                let _ = pieces.send(Err(Broken)).await;
            }
        }
    }

    /// False when the client is gone.
    async fn send(&self, pieces: &mpsc::Sender<Piece>, events: Vec<u8>) -> bool {
        if events.is_empty() {
            return true;
        }
        if let Some(delay) = self.slow {
            sleep(delay).await;
        }
        lock(&self.state.stats).count(&self.asked).bytes += events.len() as u64;
        pieces.send(Ok(Bytes::from(events))).await.is_ok()
    }
}
