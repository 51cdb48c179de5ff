//! Writes: what the API server fills in, what it refuses, and when a deleted object is gone.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::defaults;
use super::resource::Resource;
use super::status::{Cause, Refusal};
use super::store::{Key, Object, Store};

/// Where and as what a write happens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    /// API group.
    pub(super) group: &'a str,
    /// `pods`.
    pub(super) plural: &'a str,
    /// Namespace of the path; empty in the cluster's scope.
    pub(super) namespace: &'a str,
    /// Name of the path; empty for a creation.
    pub(super) name: &'a str,
    /// The server's time.
    pub(super) now: Timestamp,
    /// Keep the status that comes with a creation. Clients cannot; a test's own objects are complete.
    pub(super) with_status: bool,
}

impl Target<'_> {
    fn key(&self) -> Key {
        Key(self.namespace.to_owned(), self.name.to_owned())
    }

    fn resource(&self, store: &Store) -> Result<Arc<Resource>, Refusal> {
        store.table(self.group, self.plural).map(|table| Arc::clone(&table.resource)).ok_or_else(Refusal::no_such_resource)
    }

    /// The object that the path names, or 404.
    pub(super) fn existing(&self, store: &Store) -> Result<Arc<Object>, Refusal> {
        let object = store.table(self.group, self.plural).and_then(|table| table.objects.get(&self.key()));
        object.cloned().ok_or_else(|| Refusal::not_found(self.group, self.plural, self.name))
    }

    fn conflict(&self, why: &str) -> Refusal {
        Refusal::conflict(self.group, self.plural, self.name, why)
    }
}

const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

/// Creates an object.
pub(super) fn create(store: &mut Store, target: Target<'_>, mut value: Value) -> Result<Arc<Object>, Refusal> {
    let resource = target.resource(store)?;
    check_type(&resource, &value)?;
    place(&resource, target.namespace, &mut value)?;
    let metadata = &mut value["metadata"];
    if metadata["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
        return Err(Refusal::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    if metadata["name"].as_str().unwrap_or_default().is_empty() {
        let prefix = metadata["generateName"].as_str().unwrap_or_default();
        if prefix.is_empty() {
            let cause = Cause::required("metadata.name", "name or generateName is required");
            return Err(Refusal::invalid(&resource.group, &resource.kind, "", &[cause]));
        }
        metadata["name"] = format!("{prefix}{}", &uid()[..5]).into();
    }
    let name = metadata["name"].as_str().unwrap_or_default().to_owned();
    if resource.namespaced {
        check_namespace(store, &resource, target.namespace, &name)?;
    }
    let mut causes = name_causes(&resource, &name);
    causes.extend(defaults::refused(&resource, &value));
    if !causes.is_empty() {
        return Err(Refusal::invalid(defaults::validated_group(&resource), &resource.kind, &name, &causes));
    }
    let taken = store
        .table(target.group, target.plural)
        .is_some_and(|table| table.objects.contains_key(&Key(target.namespace.to_owned(), name.clone())));
    if taken {
        return Err(Refusal::already_exists(target.group, target.plural, &name));
    }
    if resource.has_status && !target.with_status {
        value.as_object_mut().map(|fields| fields.remove("status"));
    }
    let metadata = &mut value["metadata"];
    metadata["uid"] = uid().into();
    if !target.with_status || metadata["creationTimestamp"].is_null() {
        metadata["creationTimestamp"] = seconds(target.now).into();
    }
    if value["spec"].is_object() {
        value["metadata"]["generation"] = 1.into();
    }
    if let Some(metadata) = value["metadata"].as_object_mut() {
        for unset in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            if !target.with_status {
                metadata.remove(unset);
            }
        }
    }
    defaults::fill(&resource, &mut value, target.now);
    let definition = definition(&resource, &value);
    let object = store.put(target.group, target.plural, value).ok_or_else(Refusal::no_such_resource)?;
    if let Some(definition) = definition {
        store.add_resource(definition);
    }
    Ok(object)
}

/// Replaces an object, or its status only.
pub(super) fn replace(store: &mut Store, target: Target<'_>, mut value: Value, status: bool) -> Result<Arc<Object>, Refusal> {
    let resource = target.resource(store)?;
    let existing = target.existing(store)?;
    check_type(&resource, &value)?;
    place(&resource, target.namespace, &mut value)?;
    let asked = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if asked != target.name {
        let why = format!("the name of the object ({asked}) does not match the name on the URL ({})", target.name);
        return Err(Refusal::bad_request(why));
    }
    match value["metadata"]["resourceVersion"].as_str().filter(|version| !version.is_empty()) {
        Some(version) if version != existing.revision.to_string() => return Err(target.conflict(MODIFIED)),
        None if resource.custom => {
            let cause = Cause {
                reason: "FieldValueInvalid",
                field: "metadata.resourceVersion".to_owned(),
                message: "Invalid value: 0: must be specified for an update".to_owned(),
            };
            return Err(Refusal::invalid(&resource.group, &resource.kind, target.name, &[cause]));
        }
        _ => {}
    }
    let before = existing.value();
    if value["metadata"]["uid"].is_string() && value["metadata"]["uid"] != before["metadata"]["uid"] {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            value["metadata"]["uid"].as_str().unwrap_or_default(),
            before["metadata"]["uid"].as_str().unwrap_or_default()
        );
        return Err(target.conflict(&why));
    }
    let mut after = before.clone();
    if status {
        after["status"] = value["status"].take();
    } else {
        let kept = before["status"].clone();
        after = value;
        if resource.has_status && !target.with_status {
            after["status"] = kept;
        }
        for name in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
            after["metadata"][name] = before["metadata"][name].clone();
        }
    }
    prune_nulls(&mut after);
    defaults::fill(&resource, &mut after, target.now);
    let causes = defaults::refused_change(&resource, &before, &after);
    if !causes.is_empty() {
        return Err(Refusal::invalid(defaults::validated_group(&resource), &resource.kind, target.name, &causes));
    }
    store_changed(store, &target, &resource, &existing, before, after)
}

/// Writes what changed. A write that changes nothing has no revision and no event, as in etcd's storage.
fn store_changed(
    store: &mut Store,
    target: &Target<'_>,
    resource: &Resource,
    existing: &Arc<Object>,
    before: Value,
    mut after: Value,
) -> Result<Arc<Object>, Refusal> {
    for name in ["apiVersion", "kind"] {
        after.as_object_mut().map(|fields| fields.remove(name));
    }
    after["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
    if after == before {
        return Ok(Arc::clone(existing));
    }
    if after["spec"] != before["spec"]
        && let Some(generation) = before["metadata"]["generation"].as_u64()
    {
        after["metadata"]["generation"] = (generation + 1).into();
    }
    let finished = after["metadata"]["deletionTimestamp"].is_string()
        && after["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(0) == 0
        && after["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
    // What takes the last finalizer away is not written: the object goes as it was, and the answer is what would have been.
    if finished && store.remove(target.group, target.plural, &target.key()).is_some() {
        return Ok(Arc::new(Object::new(resource, after, existing.revision)));
    }
    let definition = definition(resource, &after);
    let object = store.put(target.group, target.plural, after).ok_or_else(Refusal::no_such_resource)?;
    if let Some(definition) = definition {
        store.add_resource(definition);
    }
    Ok(object)
}

/// What a deletion came to.
#[derive(Debug)]
pub(super) enum Deleted {
    /// Marked, and there until its grace period is over or its finalizers are gone.
    Marked(Arc<Object>),
    /// Gone. The last state.
    Gone(Arc<Object>),
}

/// Deletes an object: `options` is the DeleteOptions of the request.
pub(super) fn delete(store: &mut Store, target: Target<'_>, options: &Value) -> Result<Deleted, Refusal> {
    let resource = target.resource(store)?;
    let existing = target.existing(store)?;
    let mut value = existing.value();
    let preconditions = &options["preconditions"];
    for (field, shown) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        if let (Some(wanted), found) = (preconditions[field].as_str(), value["metadata"][field].as_str().unwrap_or_default())
            && wanted != found
        {
            let mut why = format!("the {shown} in the precondition ({wanted}) does not match the {shown} in record ({found}). ");
            why.push_str(if field == "uid" {
                "The object might have been deleted and then recreated"
            } else {
                "The object might have been modified"
            });
            // Here the message names the kind, not the resource.
            return Err(Refusal::conflict(&resource.group, &resource.kind, target.name, &why));
        }
    }
    let finalizers = value["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
    let marked = value["metadata"]["deletionTimestamp"].as_str().and_then(|due| due.parse::<Timestamp>().ok());
    let pending = value["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    let asked = options["gracePeriodSeconds"].as_i64().map(|seconds| if seconds < 0 { 1 } else { seconds });
    let after = |from: Timestamp, seconds: i64| from.saturating_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(from);
    let graceful = resource.key() == "pods" && (marked.is_none() || pending > 0);
    let (due, grace) = match (marked, asked) {
        // Only a shorter grace period than the one that runs changes anything. It counts from when that one began.
        (Some(due), Some(asked)) if graceful && asked < pending => {
            let shortened = after(due, asked - pending);
            if shortened < target.now { (target.now, asked.min(1)) } else { (shortened, asked) }
        }
        (Some(_), _) if graceful || finalizers => return Ok(Deleted::Marked(existing)),
        (None, _) if graceful => {
            let grace = grace(&value, asked);
            (after(target.now, grace), grace)
        }
        _ if finalizers => (target.now, 0),
        _ => return gone(store, &target, &resource).map(Deleted::Gone),
    };
    value["metadata"]["deletionTimestamp"] = seconds(due).into();
    value["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    if marked.is_none()
        && let Some(generation) = value["metadata"]["generation"].as_u64()
    {
        value["metadata"]["generation"] = (generation + 1).into();
    }
    let object = store.put(target.group, target.plural, value).ok_or_else(Refusal::no_such_resource)?;
    // A pod without a grace period is marked all the same, and gone right after: watchers see both.
    if grace == 0 && !finalizers { gone(store, &target, &resource).map(Deleted::Gone) } else { Ok(Deleted::Marked(object)) }
}

/// Removes an object and what cannot be without it. Of a namespace its content goes first, at once: there is no controller to wait for.
fn gone(store: &mut Store, target: &Target<'_>, resource: &Resource) -> Result<Arc<Object>, Refusal> {
    if resource.key() == "namespaces" {
        let content: Vec<(String, String, Key)> = store
            .tables()
            .filter(|table| table.resource.namespaced)
            .flat_map(|table| table.objects.keys().map(|key| (table.resource.group.clone(), table.resource.plural.clone(), key.clone())))
            .filter(|(_, _, key)| key.0 == target.name)
            .collect();
        for (group, plural, key) in content {
            store.remove(&group, &plural, &key);
        }
    }
    if resource.key() == "customresourcedefinitions.apiextensions.k8s.io" {
        // Its objects go first, and watchers see them go.
        let content: Vec<(String, String, Key)> = store
            .tables()
            .filter(|table| table.resource.key() == target.name)
            .flat_map(|table| table.objects.keys().map(|key| (table.resource.group.clone(), table.resource.plural.clone(), key.clone())))
            .collect();
        for (group, plural, key) in content {
            store.remove(&group, &plural, &key);
        }
        store.remove_resource(target.name);
    }
    store.remove(target.group, target.plural, &target.key()).ok_or_else(|| Refusal::not_found(target.group, target.plural, target.name))
}

/// Seconds that a deleted pod stays: none if it runs nowhere.
fn grace(pod: &Value, asked: Option<i64>) -> i64 {
    let unscheduled = pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if unscheduled || ended {
        return 0;
    }
    asked.or(pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30).max(0)
}

/// The resource that a CustomResourceDefinition adds.
fn definition(resource: &Resource, value: &Value) -> Option<Resource> {
    (resource.key() == "customresourcedefinitions.apiextensions.k8s.io").then(|| Resource::of_definition(value)).flatten()
}

fn check_type(resource: &Resource, value: &Value) -> Result<(), Refusal> {
    if !value.is_object() {
        let why = "couldn't get version/kind; json parse error: json: cannot unmarshal into Go value of type struct { APIVersion string; Kind string }";
        return Err(Refusal::bad_request(why));
    }
    // Go's decoder refuses these for any type; what follows relies on it.
    for pointer in ["/metadata", "/metadata/labels", "/metadata/annotations", "/spec", "/status"] {
        if value.pointer(pointer).is_some_and(|field| !field.is_null() && !field.is_object()) {
            let field = pointer[1..].replace('/', ".");
            let why = format!(
                "{} in version \"{}\" cannot be handled as a {}: json: cannot unmarshal into Go struct field .{field}",
                resource.kind, resource.versions[0], resource.kind
            );
            return Err(Refusal::bad_request(why));
        }
    }
    let kind = value["kind"].as_str().unwrap_or_default();
    let api_version = value["apiVersion"].as_str().unwrap_or_default();
    if let Some(why) = defaults::undecodable(resource, value) {
        return Err(Refusal::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: {why}",
            resource.kind, resource.versions[0], resource.kind
        )));
    }
    let known = resource.versions.iter().any(|version| resource.api_version(version) == api_version);
    // Go's typed decoders take the type from the path when the body names none.
    let ours = |text: &str, right: bool| right || (text.is_empty() && !resource.custom);
    if ours(kind, kind == resource.kind) && ours(api_version, known) {
        return Ok(());
    }
    Err(Refusal::bad_request(format!("{kind} in version \"{api_version}\" cannot be handled as a {}", resource.kind)))
}

/// Puts the object into the namespace of the path, which it may not contradict.
fn place(resource: &Resource, namespace: &str, value: &mut Value) -> Result<(), Refusal> {
    if !value["metadata"].is_object() {
        value["metadata"] = json!({});
    }
    let named = value["metadata"]["namespace"].as_str().unwrap_or_default();
    if !named.is_empty() && named != namespace {
        return Err(Refusal::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
    }
    if resource.namespaced {
        value["metadata"]["namespace"] = namespace.into();
    }
    Ok(())
}

fn check_namespace(store: &Store, resource: &Resource, namespace: &str, name: &str) -> Result<(), Refusal> {
    let found = store.table("", "namespaces").and_then(|table| table.objects.get(&Key(String::new(), namespace.to_owned())));
    let Some(found) = found else {
        return Err(Refusal::not_found("", "namespaces", namespace));
    };
    if found.value()["metadata"]["deletionTimestamp"].is_string() {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        return Err(Refusal::forbidden(&resource.group, &resource.plural, name, &why).of_terminating(namespace));
    }
    Ok(())
}

fn name_causes(resource: &Resource, name: &str) -> Vec<Cause> {
    // Names of RBAC objects are only path segments; a namespace's is a label.
    if resource.group == "rbac.authorization.k8s.io" {
        return Vec::new();
    }
    let label = matches!(resource.key().as_str(), "namespaces" | "services");
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = |part: &str| !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-');
    let right = if label { name.len() <= 63 && is_label(name) } else { name.len() <= 253 && name.split('.').all(is_label) };
    let why = if label {
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric \
         character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
    } else {
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an \
         alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    };
    if right { Vec::new() } else { vec![Cause::invalid("metadata.name", name, why)] }
}

/// Removes the nulls that unset fields became.
fn prune_nulls(value: &mut Value) {
    for part in ["metadata", ""] {
        let fields = if part.is_empty() { value.as_object_mut() } else { value[part].as_object_mut() };
        if let Some(fields) = fields {
            fields.retain(|_, field| !field.is_null());
        }
    }
}

/// A time as metav1.Time prints it.
pub(super) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Random as `metadata.uid` is: version 4, from the process's own random keys.
pub(super) fn uid() -> String {
    let bits = [RandomState::new().build_hasher().finish(), RandomState::new().hash_one(0_u8)];
    let [high, low] = bits;
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | ((low >> 48) & 0x3fff),
        low & 0xffff_ffff_ffff
    )
}
