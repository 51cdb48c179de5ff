//! What becomes of the objects of a resource: updates for the index, or a number of policies that are only counted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc};

use super::api;
use super::backlog::{Backlog, Waiting};
use super::decode::{self, Named, NamedMeta};
use super::status::Entry;
use super::{News, Update};
use crate::cluster::convert::FieldErrors;
use crate::cluster::{Foreign, Kind, Object, ObjectKey, Texts};

/// Nobody reads the updates any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed;

/// Lists that wait to be read. Each may be as large as the cluster, so none of a kind is begun before the last one was read.
#[derive(Debug, Default)]
pub(super) struct Lists {
    waiting: Mutex<BTreeMap<Kind, usize>>,
    read: Notify,
}

impl Lists {
    /// A list of the kind was read.
    pub(super) fn read(&self, kind: Kind) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).and_modify(|waiting| *waiting = waiting.saturating_sub(1));
        self.read.notify_waiters();
    }

    fn sent(&self, kind: Kind) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    }

    fn are_read(&self, kind: Kind) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).get(&kind).is_none_or(|waiting| *waiting == 0)
    }

    /// Returns when no list of the kind waits to be read.
    async fn all_read(&self, kind: Kind) {
        loop {
            let mut read = std::pin::pin!(self.read.notified());
            // From here on it is told of, also of what happens before it is waited for.
            read.as_mut().enable();
            if self.are_read(kind) {
                return;
            }
            read.await;
        }
    }
}

/// Where updates go. Whoever reads them slowly slows the watches.
#[derive(Clone, Debug)]
pub(super) struct Sink {
    updates: mpsc::Sender<(Update, Waiting)>,
    lists: Arc<Lists>,
    backlog: Arc<Backlog>,
}

impl Sink {
    pub(super) fn new(updates: mpsc::Sender<(Update, Waiting)>, lists: Arc<Lists>, backlog: Arc<Backlog>) -> Self {
        Sink { updates, lists, backlog }
    }

    pub(super) async fn send(&self, at: Timestamp, news: News) -> Result<(), Closed> {
        if let News::Listed { kind, .. } | News::Relisted { kind, .. } = &news {
            self.lists.sent(*kind);
        }
        // From here on, for it may have to wait for its place in the queue.
        let waiting = self.backlog.add(at);
        self.updates.send((Update { at, news }, waiting)).await.map_err(|_| Closed)
    }

    /// Returns when nobody reads any more.
    pub(super) async fn closed(&self) {
        self.updates.closed().await;
    }
}

/// Takes the objects of one resource.
pub(super) trait Collect: Send + 'static {
    /// What is kept of an object.
    type Item: Send;

    /// How a list is asked for.
    const LIST: &'static str;
    /// How a watch is asked for.
    const WATCH: &'static str;

    /// Reads an object; nothing if it cannot be read, or a list has it as it is known; either is noted.
    fn read(&mut self, named: &NamedMeta, json: &[u8]) -> Option<Self::Item>;

    /// Whether it is the object of this name.
    fn is(&self, item: &Self::Item, named: &NamedMeta) -> bool;

    /// The object of this name is not in the list after all.
    fn is_not_listed(&mut self, named: &NamedMeta);

    /// What is known may not be compared with what comes.
    fn forget(&mut self);

    /// A list may begin.
    fn begin(&mut self) -> impl Future<Output = ()> + Send;

    /// These are all objects.
    fn listed(&mut self, at: Timestamp, items: Vec<Self::Item>) -> impl Future<Output = Result<(), Closed>> + Send;

    /// An object came or changed.
    fn applied(&mut self, at: Timestamp, item: Self::Item) -> impl Future<Output = Result<(), Closed>> + Send;

    /// An object went.
    fn deleted(&mut self, at: Timestamp, named: NamedMeta) -> impl Future<Output = Result<(), Closed>> + Send;

    /// An object changed, and is such that it cannot be read now.
    fn unreadable(&mut self, at: Timestamp, named: NamedMeta) -> impl Future<Output = Result<(), Closed>> + Send;

    /// The objects may not be read.
    fn forbidden(&mut self, at: Timestamp) -> impl Future<Output = Result<(), Closed>> + Send;
}

/// Which revisions of objects there are, in hashes: 17 bytes for each, where names and objects are some hundred.
#[derive(Debug, Default)]
struct Revisions(HashMap<u64, u64>);

impl Revisions {
    /// Under which an object is known, and its revision; nothing of one without.
    fn of(named: &NamedMeta) -> Option<(u64, u64)> {
        let revision = Some(&named.resource_version).filter(|revision| !revision.is_empty())?;
        Some((hash_of(&named.namespace, &named.name), FIXED.hash_one(revision)))
    }

    fn has(&self, (object, revision): (u64, u64)) -> bool {
        self.0.get(&object) == Some(&revision)
    }

    fn put(&mut self, (object, revision): (u64, u64)) {
        self.0.insert(object, revision);
    }

    fn remove(&mut self, named: &NamedMeta) {
        self.0.remove(&hash_of(&named.namespace, &named.name));
    }
}

/// The same in every place.
const FIXED: BuildHasherDefault<DefaultHasher> = BuildHasherDefault::new();

fn hash_of(namespace: &str, name: &str) -> u64 {
    FIXED.hash_one((namespace, name))
}

/// The objects of a kind that a list has as they were told before: by their names, in hashes of 64 bits, of which no two are expected to be equal
/// among a few hundred thousand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Same(HashSet<u64>);

impl Same {
    /// Whether the object is one of them.
    pub fn has(&self, key: &ObjectKey) -> bool {
        self.0.contains(&hash_of(&key.namespace, &key.name))
    }
}

/// What came of a list so far, besides its objects.
#[derive(Default)]
struct List {
    /// Equal texts of the objects, kept once while it comes. Single objects share theirs with the index when they come to it.
    texts: Texts,
    revisions: Revisions,
    same: Same,
}

/// Objects for the index.
pub(super) struct Objects {
    kind: Kind,
    sink: Sink,
    entry: Entry,
    /// The objects that were told, by which revision.
    known: Revisions,
    /// A list that is coming.
    list: Option<List>,
    /// For policies that may not be read: told to be there in an unknown number, like those of kinds that are not known.
    unknown: Option<Foreign>,
    is_unknown: bool,
}

impl Objects {
    pub(super) fn new(kind: Kind, sink: Sink, entry: Entry, unknown: Option<Foreign>) -> Self {
        Objects { kind, sink, entry, known: Revisions::default(), list: None, unknown, is_unknown: false }
    }
}

impl Collect for Objects {
    type Item = Object;

    const LIST: &'static str = api::JSON;
    const WATCH: &'static str = api::JSON;

    fn read(&mut self, named: &NamedMeta, json: &[u8]) -> Option<Object> {
        let of = Revisions::of(named);
        if let (Some(list), Some(of)) = (&mut self.list, of)
            && self.known.has(of)
        {
            list.revisions.put(of);
            list.same.0.insert(of.0);
            return None;
        }
        let mut errors = FieldErrors::new();
        match decode::object(self.kind, json, &mut errors) {
            Ok(mut object) => {
                // One with mistakes is read from each list, since what was said of it is forgotten before.
                let of = of.filter(|_| errors.is_empty());
                self.entry.board().warn(object.key(), errors.iter().map(ToString::to_string));
                let revisions = match &mut self.list {
                    Some(list) => {
                        list.texts.share(&mut object);
                        &mut list.revisions
                    }
                    None => &mut self.known,
                };
                match of {
                    Some(of) => revisions.put(of),
                    None => revisions.remove(named),
                }
                Some(object)
            }
            Err(error) => {
                let named = serde_json::from_slice::<Named>(json).unwrap_or_default();
                let what = format!("cannot be read, and counts as absent: {error}");
                self.entry.board().warn(named.metadata.key(self.kind), std::iter::once(what));
                self.entry.unreadable();
                None
            }
        }
    }

    fn is(&self, item: &Object, named: &NamedMeta) -> bool {
        item.key() == named.key(self.kind)
    }

    fn is_not_listed(&mut self, named: &NamedMeta) {
        if let Some(list) = &mut self.list {
            list.revisions.remove(named);
            list.same.0.remove(&hash_of(&named.namespace, &named.name));
        }
    }

    fn forget(&mut self) {
        self.known = Revisions::default();
    }

    async fn begin(&mut self) {
        self.sink.lists.all_read(self.kind).await;
        self.list = Some(List::default());
        self.entry.board().forget_warnings(self.kind);
    }

    async fn listed(&mut self, at: Timestamp, objects: Vec<Object>) -> Result<(), Closed> {
        let List { revisions, same, .. } = self.list.take().unwrap_or_default();
        self.known = revisions;
        let since = self.entry.heard_at();
        self.entry.listed(at, objects.len() + same.0.len());
        let kind = self.kind;
        // Nothing is the same of a first list.
        let news = if same == Same::default() {
            News::Listed { kind, objects, since }
        } else {
            News::Relisted { kind, changed: objects, same, since }
        };
        self.sink.send(at, news).await?;
        match self.unknown.as_ref().filter(|_| std::mem::take(&mut self.is_unknown)) {
            Some(kind) => self.sink.send(at, News::ForeignGone { group: kind.group.clone(), kind: kind.kind.clone() }).await,
            None => Ok(()),
        }
    }

    async fn applied(&mut self, at: Timestamp, object: Object) -> Result<(), Closed> {
        self.sink.send(at, News::Applied(object)).await
    }

    async fn deleted(&mut self, at: Timestamp, named: NamedMeta) -> Result<(), Closed> {
        self.known.remove(&named);
        let key = named.key(self.kind);
        self.entry.board().warn(key.clone(), std::iter::empty());
        self.sink.send(at, News::Deleted(key)).await
    }

    async fn unreadable(&mut self, at: Timestamp, named: NamedMeta) -> Result<(), Closed> {
        self.known.remove(&named);
        self.sink.send(at, News::Deleted(named.key(self.kind))).await
    }

    async fn forbidden(&mut self, at: Timestamp) -> Result<(), Closed> {
        match &self.unknown {
            Some(unknown) if !std::mem::replace(&mut self.is_unknown, true) => self.sink.send(at, News::Foreign(unknown.clone())).await,
            _ => Ok(()),
        }
    }
}

/// The names of policies that are only counted.
pub(super) struct Names {
    /// The kind without its policies.
    kind: Foreign,
    names: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Whether it was told how many there are.
    is_counted: bool,
    sink: Sink,
    entry: Entry,
}

impl Names {
    pub(super) fn new(kind: Foreign, sink: Sink, entry: Entry) -> Self {
        Names { kind, names: BTreeSet::new(), is_counted: false, sink, entry }
    }

    async fn tell(&self, at: Timestamp) -> Result<(), Closed> {
        let Foreign { group, kind, namespaced, .. } = &self.kind;
        let names = self.names.iter().map(|(namespace, name)| (namespace, name));
        self.sink.send(at, News::Foreign(Foreign::counted(group, kind, *namespaced, names))).await
    }
}

impl Collect for Names {
    type Item = (Arc<str>, Arc<str>);

    const LIST: &'static str = api::METADATA_LIST;
    const WATCH: &'static str = api::METADATA;

    fn read(&mut self, _: &NamedMeta, json: &[u8]) -> Option<Self::Item> {
        let named = serde_json::from_slice::<Named>(json).inspect_err(|_| self.entry.unreadable()).ok()?;
        Some((named.metadata.namespace.into(), named.metadata.name.into()))
    }

    fn is_not_listed(&mut self, _: &NamedMeta) {}

    fn forget(&mut self) {}

    fn is(&self, (namespace, name): &Self::Item, named: &NamedMeta) -> bool {
        (&**namespace, &**name) == (&*named.namespace, &*named.name)
    }

    async fn begin(&mut self) {}

    async fn listed(&mut self, at: Timestamp, names: Vec<Self::Item>) -> Result<(), Closed> {
        self.entry.listed(at, names.len());
        self.names = names.into_iter().collect();
        self.is_counted = true;
        self.tell(at).await
    }

    async fn applied(&mut self, at: Timestamp, name: Self::Item) -> Result<(), Closed> {
        if self.names.insert(name) { self.tell(at).await } else { Ok(()) }
    }

    async fn deleted(&mut self, at: Timestamp, named: NamedMeta) -> Result<(), Closed> {
        let removed = self.names.remove(&(named.namespace.into(), named.name.into()));
        if removed { self.tell(at).await } else { Ok(()) }
    }

    async fn unreadable(&mut self, _: Timestamp, _: NamedMeta) -> Result<(), Closed> {
        Ok(())
    }

    async fn forbidden(&mut self, at: Timestamp) -> Result<(), Closed> {
        if !std::mem::take(&mut self.is_counted) {
            return Ok(());
        }
        self.names.clear();
        self.sink.send(at, News::Foreign(self.kind.clone())).await
    }
}
