//! Watches: where they start, what they say, how they end.

use std::time::Duration;

use serde_json::{Value, json};
use xtask::apiserver::{Cut, Options, Scope, Server, crd};

use crate::raw::{PATIENCE, get, pod, server, watch, with_pods};

fn label(server: &Server, name: &str, value: Value) -> String {
    let patch = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": name, "labels": {"app": value}}});
    server.patch(&patch).unwrap()["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

fn brief(kind: &str, name: &str, revision: &str) -> Option<(String, String, String)> {
    Some((kind.to_owned(), name.to_owned(), revision.to_owned()))
}

#[test]
fn a_watch_without_revision_begins_with_what_there_is() {
    for query in ["watch=1", "watch=1&resourceVersion=0"] {
        let server = with_pods(&["a", "b"]);
        let mut events = watch(&server, &format!("/api/v1/pods?{query}"));
        assert_eq!(events.next().unwrap()["object"]["kind"], "Pod");
        assert_eq!(events.brief().map(|event| (event.0, event.1)), Some(("ADDED".to_owned(), "b".to_owned())));
        let revision = label(&server, "a", json!("new"));
        assert_eq!(events.brief(), brief("MODIFIED", "a", &revision));
    }
}

#[test]
fn a_watch_from_a_revision_tells_what_came_after_it() {
    let server = with_pods(&["a"]);
    let from = server.revision();
    let created = server.create(pod("b")).unwrap()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut events = watch(&server, &format!("/api/v1/namespaces/shop/pods?watch=true&resourceVersion={from}"));
    assert_eq!(events.brief(), brief("ADDED", "b", &created));
    // A pod on a node is marked first; its kubelet ends it.
    assert!(!server.delete("v1", "Pod", "shop", "b").unwrap());
    let marked = events.next().unwrap();
    assert_eq!((&marked["type"], &marked["object"]["metadata"]["deletionGracePeriodSeconds"]), (&json!("MODIFIED"), &json!(30)));
    assert!(marked["object"]["metadata"]["deletionTimestamp"].is_string());
    server.finish_pod("shop", "b").unwrap();
    let shortened = events.next().unwrap();
    assert_eq!((&shortened["type"], &shortened["object"]["metadata"]["deletionGracePeriodSeconds"]), (&json!("MODIFIED"), &json!(0)));
    let last = events.next().unwrap();
    assert_eq!((&last["type"], &last["object"]["status"]["phase"]), (&json!("DELETED"), &json!("Running")));
    assert_eq!(last["object"]["metadata"]["resourceVersion"], server.revision().to_string());
}

#[test]
fn leaving_a_selection_is_a_deletion_and_entering_it_an_addition() {
    let server = with_pods(&["a"]);
    let mut events = watch(&server, &format!("/api/v1/pods?watch=1&labelSelector=app%3Da&resourceVersion={}", server.revision()));
    let left = label(&server, "a", json!("other"));
    let event = events.next().unwrap();
    assert_eq!((&event["type"], &event["object"]["metadata"]["labels"]["app"]), (&json!("DELETED"), &json!("a")));
    assert_eq!(event["object"]["metadata"]["resourceVersion"], left);
    label(&server, "a", json!("third"));
    let back = label(&server, "a", json!("a"));
    assert_eq!(events.brief(), brief("ADDED", "a", &back));
}

#[test]
fn a_revision_before_the_history_is_an_error_event_and_the_end() {
    let server = Server::start(Options { history: 2, ..Options::default() }).unwrap();
    let old = server.revision();
    for name in ["x", "y", "z"] {
        server.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).unwrap();
    }
    let mut events = watch(&server, &format!("/api/v1/namespaces?watch=1&resourceVersion={old}"));
    let error = events.next().unwrap();
    assert_eq!(error["type"], "ERROR");
    assert_eq!((&error["object"]["code"], &error["object"]["reason"]), (&json!(410), &json!("Expired")));
    assert_eq!(error["object"]["message"], format!("too old resource version: {old} ({})", old + 1));
    assert_eq!(events.next(), None);
    // From the last one that is forgotten on, everything is there.
    assert_eq!(watch(&server, &format!("/api/v1/namespaces?watch=1&resourceVersion={}", old + 1)).brief().unwrap().1, "y");
}

#[test]
fn a_compaction_does_not_disturb_watches_that_run() {
    let server = with_pods(&["a"]);
    let mut events = watch(&server, &format!("/api/v1/pods?watch=1&resourceVersion={}", server.revision()));
    server.wait_for_stats(PATIENCE, "the watch", |stats| stats.open_watches("pods") == 1).unwrap();
    let from = server.revision();
    label(&server, "a", json!("x"));
    server.compact();
    assert_eq!(events.brief().unwrap().0, "MODIFIED");
    assert_eq!(watch(&server, &format!("/api/v1/pods?watch=1&resourceVersion={from}")).next().unwrap()["type"], "ERROR");
}

#[test]
fn streaming_lists_end_in_a_bookmark_and_can_be_switched_off() {
    const QUERY: &str = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let server = with_pods(&["a"]);
    let mut events = watch(&server, &format!("/api/v1/pods?{QUERY}"));
    assert_eq!(events.brief().unwrap().0, "ADDED");
    let end = events.next().unwrap();
    assert_eq!((&end["type"], &end["object"]["kind"]), (&json!("BOOKMARK"), &json!("Pod")));
    assert_eq!(end["object"]["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));
    assert_eq!(end["object"]["metadata"]["resourceVersion"], server.revision().to_string());

    let refused = get(&server, "/api/v1/pods?watch=1&sendInitialEvents=true");
    assert_eq!(refused.code, 422);
    assert!(refused.message().ends_with("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"), "{refused:?}");
    let refused = get(&server, "/api/v1/pods?watch=1&resourceVersionMatch=NotOlderThan");
    assert_eq!(refused.code, 422);

    let older = Server::start(Options { streaming_lists: false, ..Options::default() }).unwrap();
    let refused = get(&older, &format!("/api/v1/pods?{QUERY}"));
    assert_eq!((refused.code, refused.reason()), (422, "Invalid"));
    assert!(refused.message().ends_with("sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"));
}

#[test]
fn bookmarks_carry_the_revision_of_writes_elsewhere() {
    let server = Server::start(Options { bookmark_period: Duration::from_millis(20), ..Options::default() }).unwrap();
    let from = server.revision();
    server.skip_revisions(50);
    let mut events = watch(&server, &format!("/api/v1/pods?watch=1&allowWatchBookmarks=true&resourceVersion={from}"));
    assert_eq!(events.brief(), brief("BOOKMARK", "", &(from + 50).to_string()));
}

#[test]
fn the_time_of_a_watch_ends_it_in_order() {
    let server = server();
    assert_eq!(watch(&server, &format!("/api/v1/pods?watch=1&timeoutSeconds=1&resourceVersion={}", server.revision())).next(), None);
}

#[test]
fn watches_are_cut_as_asked() {
    let server = with_pods(&["a"]);
    let open = || {
        let events = watch(&server, &format!("/api/v1/pods?watch=1&resourceVersion={}", server.revision()));
        server.wait_for_stats(PATIENCE, "the watch", |stats| stats.open_watches("pods") == 1).unwrap();
        events
    };
    let mut events = open();
    server.cut_watches(Scope::resource("nodes"), Cut::End);
    server.cut_watches(Scope::resource("pods"), Cut::End);
    assert_eq!(events.next(), None);
    server.wait_for_stats(PATIENCE, "no watch", |stats| stats.open_watches("pods") == 0).unwrap();

    let mut events = open();
    server.cut_watches(Scope::default(), Cut::Gone);
    assert_eq!(events.next().unwrap()["object"]["code"], 410);
    assert_eq!(events.next(), None);
    server.wait_for_stats(PATIENCE, "no watch", |stats| stats.open_watches("pods") == 0).unwrap();

    let mut events = open();
    server.cut_watches(Scope::default(), Cut::Reset);
    assert!(events.line().unwrap().is_err());
    server.wait_for_stats(PATIENCE, "no watch", |stats| stats.open_watches("pods") == 0).unwrap();

    // Half-open: the stream is there, and says nothing of what happens.
    let _silent = open();
    server.cut_watches(Scope::default(), Cut::Silence);
    let bytes = server.stats().bytes("watch", "pods");
    label(&server, "a", json!("x"));
    let mut later = watch(&server, &format!("/api/v1/pods?watch=1&resourceVersion={}", server.revision() - 1));
    assert_eq!(later.brief().unwrap().0, "MODIFIED");
    let stats = server.stats();
    assert_eq!(stats.open_watches("pods"), 2);
    assert!(stats.bytes("watch", "pods") > bytes);
}

#[test]
fn deleting_a_definition_ends_the_watches_of_its_objects() {
    let server = server();
    server.create(crd::cluster_network_policy()).unwrap();
    let path = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";
    let mut events = watch(&server, &format!("{path}?watch=1"));
    server.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "clusternetworkpolicies.policy.networking.k8s.io").unwrap();
    assert_eq!(events.next(), None);
    assert_eq!(get(&server, path).code, 404);
    // Created again, it is another resource: the former watch does not go on.
    server.create(crd::cluster_network_policy()).unwrap();
    assert_eq!(get(&server, path).names(), Vec::<&str>::new());
}
