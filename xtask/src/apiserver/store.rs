//! The objects, in the order of etcd's keys, with one revision for all of them and a bounded history per resource.
//!
//! A list at an older revision is the present one with the history undone, so that paging needs no snapshots.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use hyper::body::Bytes;
use serde_json::Value;
use tokio::sync::watch;

use super::resource::{self, Resource, resource_key};
use super::selector;

/// Namespace (empty in the cluster's scope) and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) String, pub(super) String);

impl Key {
    /// As in etcd: `shop/web`. So `shop-2` comes before `shop`.
    fn bytes(&self) -> impl Iterator<Item = u8> {
        self.0.bytes().chain(*b"/").chain(self.1.bytes())
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

/// One object as it was written once: never changed, only replaced.
#[derive(Debug)]
pub(super) struct Object {
    /// Namespace and name.
    pub(super) key: Key,
    /// `metadata.resourceVersion`.
    pub(super) revision: u64,
    /// `metadata.labels`.
    pub(super) labels: BTreeMap<String, String>,
    /// What field selectors of its kind can ask for.
    pub(super) fields: Vec<(&'static str, String)>,
    /// JSON without `apiVersion` and `kind`, which depend on the version that is asked for.
    pub(super) body: Bytes,
}

impl Object {
    /// `value`, with `revision` written into it. Reads the key from its metadata.
    pub(super) fn new(resource: &Resource, mut value: Value, revision: u64) -> Object {
        value["metadata"]["resourceVersion"] = revision.to_string().into();
        if let Some(fields) = value.as_object_mut() {
            fields.remove("apiVersion");
            fields.remove("kind");
        }
        let metadata = &value["metadata"];
        let text = |name: &str| metadata[name].as_str().unwrap_or_default().to_owned();
        let labels = metadata["labels"].as_object().into_iter().flatten();
        Object {
            key: Key(text("namespace"), text("name")),
            revision,
            labels: labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect(),
            fields: selector::fields_of(resource, &value),
            body: Bytes::from(value.to_string()),
        }
    }

    /// The object without `apiVersion` and `kind`.
    pub(super) fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The object in a version.
    pub(super) fn typed(&self, resource: &Resource, version: &str) -> Value {
        let mut value = self.value();
        value["apiVersion"] = resource.api_version(version).into();
        value["kind"] = resource.kind.as_str().into();
        value
    }

    /// JSON of the object in a version, added to `out`.
    pub(super) fn write_typed(&self, resource: &Resource, version: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", resource.kind, resource.api_version(version)).as_bytes());
        out.extend_from_slice(&self.body[1..]);
    }
}

/// One write.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// What the write counted as.
    pub(super) revision: u64,
    /// The object before, unless it was created.
    pub(super) before: Option<Arc<Object>>,
    /// The object after. For a deletion its last state with the revision of the deletion.
    pub(super) after: Arc<Object>,
    /// The object is gone.
    pub(super) deleted: bool,
}

/// The objects of one resource.
#[derive(Debug)]
pub(super) struct Table {
    /// What is served.
    pub(super) resource: Arc<Resource>,
    /// The present.
    pub(super) objects: BTreeMap<Key, Arc<Object>>,
    history: VecDeque<Change>,
    /// Everything up to this revision has left the history.
    forgotten: u64,
    /// Everything up to this revision is forgotten: a watch may start here, not before.
    pub(super) compacted: u64,
    /// Which table of this name: one whose definition was deleted and created again ends the watches of the former.
    pub(super) generation: u64,
}

impl Table {
    /// Changes after a revision, oldest first. `None` when the history does not reach back that far.
    pub(super) fn since(&self, revision: u64) -> Option<impl Iterator<Item = &Change>> {
        if revision < self.compacted { None } else { self.still_since(revision) }
    }

    /// The same for who has read so far already: a compaction is no harm to watches that run.
    pub(super) fn still_since(&self, revision: u64) -> Option<impl Iterator<Item = &Change>> {
        if revision < self.forgotten {
            return None;
        }
        let from = self.history.partition_point(|change| change.revision <= revision);
        Some(self.history.range(from..))
    }

    /// The objects of a namespace (or all) after a key, as they were at a revision. `None` when that is forgotten.
    pub(super) fn list(&self, namespace: Option<&str>, after: Option<&Key>, revision: u64) -> Option<Vec<Arc<Object>>> {
        let mut undone: BTreeMap<&Key, Option<&Arc<Object>>> = BTreeMap::new();
        for change in self.since(revision)? {
            undone.entry(&change.after.key).or_insert(change.before.as_ref());
        }
        let start = match (after, namespace) {
            (Some(after), _) => Bound::Excluded(after.clone()),
            (None, Some(namespace)) => Bound::Included(Key(namespace.to_owned(), String::new())),
            (None, None) => Bound::Unbounded,
        };
        let inside = |key: &Key| namespace.is_none_or(|namespace| key.0 == namespace);
        let present = self.objects.range((start, Bound::Unbounded)).take_while(|(key, _)| inside(key));
        let mut found: Vec<Arc<Object>> =
            present.filter(|(key, _)| !undone.contains_key(key)).map(|(_, object)| Arc::clone(object)).collect();
        if !undone.is_empty() {
            let past = undone.into_iter().filter(|(key, _)| inside(key) && after.is_none_or(|after| *key > after));
            found.extend(past.filter_map(|(_, object)| object.cloned()));
            found.sort_by(|left, right| left.key.cmp(&right.key));
        }
        Some(found)
    }
}

/// All tables. Writes are announced to whoever waits on [`Store::changes`].
#[derive(Debug)]
pub(super) struct Store {
    tables: HashMap<String, Table>,
    /// Tables of definitions that are gone: what their watches have not sent yet.
    retired: Vec<Table>,
    revision: u64,
    history: usize,
    generations: u64,
    changes: watch::Sender<u64>,
}

impl Store {
    /// An empty store that remembers `history` changes of each resource.
    pub(super) fn new(history: usize) -> Store {
        let mut store =
            Store { tables: HashMap::new(), retired: Vec::new(), revision: 1, history, generations: 0, changes: watch::Sender::new(1) };
        for resource in resource::builtin() {
            store.add_resource(resource);
        }
        store
    }

    /// The revision of the last write: what lists give as their resourceVersion.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Announces each revision, and every [`Store::wake`].
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Lets all watches look again, without a write.
    pub(super) fn wake(&self) {
        self.changes.send_modify(|_| ());
    }

    /// The table of a resource by group and plural.
    pub(super) fn table(&self, group: &str, plural: &str) -> Option<&Table> {
        self.tables.get(&resource_key(group, plural))
    }

    /// The table of a definition that is gone.
    pub(super) fn retired(&self, generation: u64) -> Option<&Table> {
        self.retired.iter().find(|table| table.generation == generation)
    }

    /// Whether a group is served without definitions.
    pub(super) fn has_builtin_group(&self, group: &str) -> bool {
        self.tables.values().any(|table| !table.resource.custom && table.resource.group == group)
    }

    /// All tables, in no order.
    pub(super) fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.values()
    }

    /// Serves a resource. One that exists keeps its objects.
    pub(super) fn add_resource(&mut self, resource: Resource) {
        let (key, resource) = (resource.key(), Arc::new(resource));
        if let Some(table) = self.tables.get_mut(&key) {
            table.resource = resource;
            return;
        }
        self.generations += 1;
        let table = Table {
            resource,
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            forgotten: self.revision,
            compacted: self.revision,
            generation: self.generations,
        };
        self.tables.insert(key, table);
        self.wake();
    }

    /// Ends a resource with all its objects: its watches end, its paths are gone.
    pub(super) fn remove_resource(&mut self, key: &str) {
        self.retired.extend(self.tables.remove(key));
        self.wake();
    }

    /// Writes an object whose name is free or is to be replaced.
    pub(super) fn put(&mut self, group: &str, plural: &str, value: Value) -> Option<Arc<Object>> {
        let table = self.tables.get_mut(&resource_key(group, plural))?;
        self.revision += 1;
        let object = Arc::new(Object::new(&table.resource, value, self.revision));
        let before = table.objects.insert(object.key.clone(), Arc::clone(&object));
        self.record(group, plural, Change { revision: self.revision, before, after: Arc::clone(&object), deleted: false });
        Some(object)
    }

    /// Removes an object. Its last state, with the revision of the deletion.
    pub(super) fn remove(&mut self, group: &str, plural: &str, key: &Key) -> Option<Arc<Object>> {
        let table = self.tables.get_mut(&resource_key(group, plural))?;
        let before = table.objects.remove(key)?;
        self.revision += 1;
        let after = Arc::new(Object::new(&table.resource, before.value(), self.revision));
        let change = Change { revision: self.revision, before: Some(before), after: Arc::clone(&after), deleted: true };
        self.record(group, plural, change);
        Some(after)
    }

    fn record(&mut self, group: &str, plural: &str, change: Change) {
        if let Some(table) = self.tables.get_mut(&resource_key(group, plural)) {
            table.history.push_back(change);
            while table.history.len() > self.history {
                table.forgotten = table.history.pop_front().map_or(table.forgotten, |change| change.revision);
            }
            table.compacted = table.compacted.max(table.forgotten);
        }
        self.changes.send_replace(self.revision);
    }

    /// Forgets the history of all resources for lists and watches to come, as etcd's compaction and a restarted watch cache do.
    pub(super) fn compact(&mut self) {
        for table in self.tables.values_mut() {
            table.compacted = self.revision;
        }
        self.wake();
    }

    /// Counts writes to things that nobody sees here, as other resources of a real cluster cause.
    pub(super) fn skip_revisions(&mut self, count: u64) {
        self.revision += count;
        self.changes.send_replace(self.revision);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// One write to one of a few pods: `None` deletes.
    type Write = (usize, Option<u8>);

    const PODS: [(&str, &str); 4] = [("a", "x"), ("a", "y"), ("a-b", "x"), ("b", "z")];

    fn apply(store: &mut Store, &(pod, label): &Write) {
        let (namespace, name) = PODS[pod];
        match label {
            Some(label) => {
                let metadata = json!({"namespace": namespace, "name": name, "labels": {"l": label.to_string()}});
                store.put("", "pods", json!({"metadata": metadata}));
            }
            None => {
                store.remove("", "pods", &Key(namespace.to_owned(), name.to_owned()));
            }
        }
    }

    fn shown(objects: &[Arc<Object>]) -> Vec<(Key, u64, String)> {
        objects.iter().map(|object| (object.key.clone(), object.revision, object.labels["l"].clone())).collect()
    }

    fn list(store: &Store, namespace: Option<&str>, revision: u64) -> Option<Vec<(Key, u64, String)>> {
        store.table("", "pods").and_then(|table| table.list(namespace, None, revision)).map(|objects| shown(&objects))
    }

    proptest! {
        #[test]
        fn a_list_at_a_revision_is_what_it_was_then(
            writes in prop::collection::vec((0..PODS.len(), prop::option::of(any::<u8>())), 1..40),
            history in 1_usize..50,
        ) {
            let mut store = Store::new(history);
            let mut past = vec![(store.revision(), list(&store, None, store.revision()), list(&store, Some("a"), store.revision()))];
            for write in &writes {
                apply(&mut store, write);
                past.push((store.revision(), list(&store, None, store.revision()), list(&store, Some("a"), store.revision())));
            }
            let compacted = store.table("", "pods").unwrap().compacted;
            for (revision, all, one) in past {
                let expected = (revision >= compacted).then_some((all, one));
                let found = list(&store, None, revision).map(|all| (Some(all), list(&store, Some("a"), revision)));
                prop_assert_eq!(found, expected, "at {}", revision);
            }
        }

        #[test]
        fn changes_from_any_revision_lead_to_the_present(
            writes in prop::collection::vec((0..PODS.len(), prop::option::of(any::<u8>())), 1..40),
            from in 0_usize..40,
        ) {
            let mut store = Store::new(100);
            let (before, after) = writes.split_at(from.min(writes.len()));
            before.iter().for_each(|write| apply(&mut store, write));
            let revision = store.revision();
            let mut state: BTreeMap<Key, Arc<Object>> = store.table("", "pods").unwrap().objects.clone();
            after.iter().for_each(|write| apply(&mut store, write));
            let table = store.table("", "pods").unwrap();
            let mut last = revision;
            for change in table.since(revision).unwrap() {
                prop_assert!(change.revision > last);
                last = change.revision;
                let known = state.get(&change.after.key).map(|object| object.revision);
                prop_assert_eq!(known, change.before.as_ref().map(|object| object.revision));
                if change.deleted {
                    state.remove(&change.after.key);
                } else {
                    state.insert(change.after.key.clone(), Arc::clone(&change.after));
                }
            }
            let revisions = |objects: &BTreeMap<Key, Arc<Object>>| objects.values().map(|object| object.revision).collect::<Vec<_>>();
            prop_assert_eq!(revisions(&state), revisions(&table.objects));
        }
    }

    #[test]
    fn keys_are_ordered_as_in_etcd() {
        let key = |namespace: &str, name: &str| Key(namespace.to_owned(), name.to_owned());
        assert!(key("shop-2", "a") < key("shop", "a"));
        assert!(key("shop", "a") < key("shop", "b"));
        assert!(key("", "a") < key("", "b"));
    }
}
