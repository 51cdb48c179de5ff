//! Whatever a client sends, the server refuses it or takes it; it does not panic.

use hyper::Method;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::options::ListOptions;
use super::resource::builtin;
use super::route::Route;
use super::selector::Selector;
use super::store::Store;
use super::write::{self, Target};
use super::{list, patch};

/// Names that the server looks at, in places where they do not belong too.
const NAMES: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "name",
    "namespace",
    "labels",
    "finalizers",
    "deletionTimestamp",
    "resourceVersion",
    "generation",
    "uid",
    "spec",
    "status",
    "ports",
    "containers",
    "ingress",
    "egress",
    "names",
    "versions",
    "group",
    "scope",
    "plural",
    "conditions",
    "regarding",
    "subjects",
    "roleRef",
    "rules",
    "nodeName",
    "phase",
];

/// Places that the server reads or fills in.
const PLACES: &[&str] = &[
    "/kind",
    "/apiVersion",
    "/metadata",
    "/metadata/name",
    "/metadata/namespace",
    "/metadata/labels",
    "/metadata/annotations",
    "/metadata/finalizers",
    "/metadata/resourceVersion",
    "/metadata/uid",
    "/metadata/generation",
    "/spec",
    "/spec/names",
    "/spec/versions",
    "/spec/ingress",
    "/spec/ports",
    "/spec/containers",
    "/spec/nodeName",
    "/status",
    "/status/conditions",
    "/ports",
    "/regarding",
    "/rules",
];

/// Kinds with defaults or a validation of their own.
const KINDS: &[&str] =
    &["Namespace", "Pod", "Service", "EndpointSlice", "NetworkPolicy", "CustomResourceDefinition", "Event", "ClusterRole"];

/// Writes a value at a place, whatever is on the way.
fn put(object: &mut Value, place: &str, value: Value) {
    let mut at = object;
    for name in place.split('/').skip(1) {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[name];
    }
    *at = value;
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec!["v1", "Pod", "Namespace", "default", "a", "", "2026-01-01T00:00:00Z"]).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        let field = (prop::sample::select(NAMES), inner.clone()).prop_map(|(name, value)| (name.to_owned(), value));
        let object = prop::collection::vec(field, 0..8).prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>()));
        prop_oneof![2 => object, 1 => prop::collection::vec(inner, 0..3).prop_map(Value::from)]
    })
}

proptest! {
    #[test]
    fn objects_of_any_form(
        kind in prop::sample::select(KINDS),
        parts in prop::collection::vec((prop::sample::select(PLACES), any_json()), 0..6),
        changed in any_json(),
    ) {
        let resource = builtin().into_iter().find(|resource| resource.kind == kind).unwrap();
        let mut store = Store::new(10);
        let namespace = if resource.namespaced { "default" } else { "" };
        let now = Timestamp::UNIX_EPOCH;
        let in_cluster = Target { group: "", plural: "namespaces", namespace: "", name: "", now, with_status: true };
        write::create(&mut store, in_cluster, json!({"metadata": {"name": "default"}})).unwrap();
        let target = Target { group: &resource.group, plural: &resource.plural, namespace, name: "a", now, with_status: false };
        let mut object = json!({"metadata": {"name": "a"}, "spec": {"containers": [{}]}});
        for (place, value) in parts {
            put(&mut object, place, value);
        }
        let _ = write::create(&mut store, target, object.clone());
        let _ = write::replace(&mut store, target, object.clone(), false);
        let _ = write::replace(&mut store, target, changed.clone(), true);
        if let Ok(existing) = target.existing(&store) {
            let typed = existing.typed(&resource, &resource.versions[0]);
            if let Ok(patched) = patch::apply(&resource, "application/merge-patch+json", typed, changed.to_string().as_bytes()) {
                let _ = write::replace(&mut store, target, patched, false);
            }
        }
        let _ = write::delete(&mut store, target, &changed);
        super::rbac::authorize(&store, &super::User::new("a", &["a"]), &super::rbac::Attributes { resource: "pods".to_owned(), ..Default::default() });
    }

    #[test]
    fn queries_and_paths_of_any_form(path in "(/(api|apis|v1|namespaces|pods|%2F|\\PC{0,4})){0,8}", query in "((limit|continue|watch|labelSelector|fieldSelector|resourceVersion|\\PC{0,3})=\\PC{0,12}&?){0,5}") {
        Route::parse(&Method::GET, &path, &query);
        let pods = builtin().into_iter().find(|resource| resource.plural == "pods").unwrap();
        if let Ok(options) = ListOptions::parse(&query, true)
            && let Ok(selector) = Selector::parse(&pods, &options.labels, &options.fields)
        {
            let store = Store::new(10);
            let _ = list::list(&store, store.table("", "pods").unwrap(), None, &options, &selector);
        }
    }

    #[test]
    fn pages_add_up_to_the_list(names in prop::collection::btree_set("[a-c]{1,2}/[a-d]{1,3}", 0..30), limit in 1_usize..8, one in any::<bool>()) {
        let mut store = Store::new(100);
        for name in &names {
            let (namespace, name) = name.split_once('/').unwrap();
            store.put("", "pods", json!({"metadata": {"namespace": namespace, "name": name}}));
        }
        let namespace = one.then_some("a");
        let everything = Selector::default();
        let keys = |options: &ListOptions| {
            let page = list::list(&store, store.table("", "pods").unwrap(), namespace, options, &everything).unwrap();
            (page.items.iter().map(|object| object.key.clone()).collect::<Vec<_>>(), page.continue_token, page.remaining)
        };
        let (all, ..) = keys(&ListOptions::default());
        let mut options = ListOptions { limit, ..ListOptions::default() };
        let mut read = Vec::new();
        loop {
            let (page, token, remaining) = keys(&options);
            prop_assert!(page.len() <= limit);
            read.extend(page);
            prop_assert_eq!(remaining.unwrap_or(0), all.len() - read.len());
            let Some(token) = token else { break };
            options.continue_token = token;
        }
        prop_assert_eq!(read, all);
    }
}
