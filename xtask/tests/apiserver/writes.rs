//! Writes by hand: defaults, conflicts, deletions, and what is refused.

use serde_json::{Value, json};

use crate::raw::{ask, get, pod, send, server, with_pods};

#[test]
fn defaults_that_readers_see() {
    let server = with_pods(&[]);
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"namespace": "shop", "name": "p"},
        "spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]},
    });
    let created = send(&server, "POST", "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies", &policy);
    assert_eq!(created.code, 201);
    assert_eq!(created.body["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(created.body["spec"]["egress"][0]["ports"][0], json!({"port": 53, "protocol": "TCP"}));
    assert_eq!(created.body["metadata"]["generation"], 1);
    // Clients do not set a status; whoever loads a cluster does.
    let created = send(&server, "POST", "/api/v1/namespaces/shop/pods", &pod("new"));
    assert_eq!(created.body["status"], json!({"phase": "Pending"}));
    assert_eq!(server.create(pod("loaded")).unwrap()["status"]["phase"], "Running");
    let generated = json!({"metadata": {"generateName": "web-"}, "spec": {"containers": [{"name": "c"}]}});
    let name = send(&server, "POST", "/api/v1/namespaces/shop/pods", &generated).body["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
}

#[test]
fn refused_creations() {
    let server = with_pods(&["a"]);
    let path = "/api/v1/namespaces/shop/pods";
    let with = |change: &dyn Fn(&mut Value)| {
        let mut pod = pod("b");
        change(&mut pod);
        pod
    };
    for (body, code, message) in [
        (pod("a"), 409, "pods \"a\" already exists"),
        (
            with(&|pod| pod["metadata"]["name"] = "B".into()),
            422,
            "Pod \"B\" is invalid: metadata.name: Invalid value: \"B\": a lowercase RFC 1123 subdomain must",
        ),
        (
            with(&|pod| pod["metadata"]["name"] = "".into()),
            422,
            "Pod \"\" is invalid: metadata.name: Required value: name or generateName is required",
        ),
        (with(&|pod| pod["metadata"]["resourceVersion"] = "1".into()), 500, "resourceVersion should not be set on objects to be created"),
        (
            with(&|pod| pod["metadata"]["namespace"] = "default".into()),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (with(&|pod| pod["kind"] = "Node".into()), 400, "Node in version \"v1\" cannot be handled as a Pod"),
        (with(&|pod| pod["metadata"]["labels"] = "x".into()), 400, "Pod in version \"v1\" cannot be handled as a Pod"),
        (with(&|pod| pod["spec"] = json!({})), 422, "Pod \"b\" is invalid: spec.containers: Required value"),
        (json!([]), 400, "couldn't get version/kind"),
    ] {
        let answer = send(&server, "POST", path, &body);
        assert_eq!(answer.code, code, "{answer:?}");
        assert!(answer.message().starts_with(message), "{answer:?}");
    }
    let mut lost = pod("b");
    lost["metadata"]["namespace"] = "nowhere".into();
    let answer = send(&server, "POST", "/api/v1/namespaces/nowhere/pods", &lost);
    assert_eq!((answer.code, answer.message()), (404, "namespaces \"nowhere\" not found"));
    assert_eq!(get(&server, "/api/v1/namespaces/shop/pods/b").message(), "pods \"b\" not found");
    let yaml = [("authorization", "Bearer admin-token"), ("content-type", "application/x-tar")];
    assert_eq!(ask(&server, "POST", path, &yaml, "x").code, 415);
    let admin = [("authorization", "Bearer admin-token"), ("content-type", "application/json")];
    assert_eq!(ask(&server, "POST", path, &admin, "{").code, 400);
    assert_eq!(ask(&server, "POST", path, &admin, &format!("\"{}\"", "x".repeat(3 << 20))).code, 413);
    assert_eq!(send(&server, "POST", "/api/v1/pods", &pod("b")).code, 405);
}

#[test]
fn a_write_that_changes_nothing_has_no_revision() {
    let server = with_pods(&["a"]);
    let now = server.revision();
    let path = "/api/v1/namespaces/shop/pods/a";
    let same = get(&server, path).body;
    assert_eq!(send(&server, "PUT", path, &same).body, same);
    assert_eq!(server.revision(), now);
}

#[test]
fn status_is_a_resource_of_its_own() {
    let server = with_pods(&["a"]);
    let path = "/api/v1/namespaces/shop/pods/a";
    let mut changed = get(&server, path).body;
    changed["status"]["phase"] = "Failed".into();
    changed["metadata"]["labels"]["new"] = "1".into();
    let spec_only = send(&server, "PUT", path, &changed).body;
    assert_eq!((&spec_only["status"]["phase"], &spec_only["metadata"]["labels"]["new"]), (&json!("Running"), &json!("1")));
    let merge = [("authorization", "Bearer admin-token"), ("content-type", "application/merge-patch+json")];
    let patch = json!({"status": {"phase": "Failed"}, "metadata": {"labels": {"other": "1"}}}).to_string();
    let status_only = ask(&server, "PATCH", &format!("{path}/status"), &merge, &patch).body;
    assert_eq!((&status_only["status"]["phase"], &status_only["metadata"]["labels"]["other"]), (&json!("Failed"), &Value::Null));
    let conflict = send(&server, "PUT", path, &changed);
    assert_eq!((conflict.code, conflict.reason()), (409, "Conflict"));
    let modified = "Operation cannot be fulfilled on pods \"a\": the object has been modified; please apply your changes to the latest version and try again";
    assert_eq!(conflict.message(), modified);
}

#[test]
fn patches_by_their_media_type() {
    let server = with_pods(&["a"]);
    let patch = |media: &str, body: &str| {
        ask(&server, "PATCH", "/api/v1/namespaces/shop/pods/a", &[("authorization", "Bearer admin-token"), ("content-type", media)], body)
    };
    let added = patch("application/json-patch+json", r#"[{"op": "add", "path": "/metadata/labels/x", "value": "1"}]"#);
    assert_eq!(added.body["metadata"]["labels"]["x"], "1");
    let removed = patch("application/strategic-merge-patch+json", r#"{"metadata": {"labels": {"x": null}}}"#);
    assert_eq!(removed.body["metadata"]["labels"], json!({"app": "a"}));
    assert_eq!(patch("application/json-patch+json", r#"[{"op": "remove", "path": "/metadata/labels/x"}]"#).code, 422);
    assert_eq!(patch("application/apply-patch+yaml", "{}").code, 415);
    assert_eq!(patch("application/merge-patch+json", "[]").code, 400);
}

#[test]
fn deletions() {
    let server = with_pods(&["a", "b"]);
    let path = "/api/v1/namespaces/shop/pods/a";
    let wrong = send(&server, "DELETE", path, &json!({"preconditions": {"uid": "x"}}));
    assert_eq!((wrong.code, wrong.reason()), (409, "Conflict"));
    let marked = send(&server, "DELETE", path, &json!({"gracePeriodSeconds": 5}));
    assert_eq!((marked.code, &marked.body["metadata"]["deletionGracePeriodSeconds"]), (200, &json!(5)));
    assert_eq!(get(&server, path).code, 200);
    assert_eq!(ask(&server, "DELETE", &format!("{path}?gracePeriodSeconds=0"), &[("authorization", "Bearer admin-token")], "").code, 200);
    assert_eq!(get(&server, path).code, 404);

    // An object with finalizers goes with the last of them.
    let held = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "shop", "name": "held", "finalizers": ["example.com/x"]}});
    server.create(held).unwrap();
    let path = "/api/v1/namespaces/shop/configmaps/held";
    let mut held = send(&server, "DELETE", path, &json!({})).body;
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    held["metadata"]["finalizers"] = json!([]);
    assert_eq!(send(&server, "PUT", path, &held).code, 200);
    assert_eq!(get(&server, path).code, 404);

    // A namespace takes its content along.
    let gone = send(&server, "DELETE", "/api/v1/namespaces/shop", &json!({}));
    assert_eq!((&gone.body["kind"], &gone.body["metadata"]["name"]), (&json!("Namespace"), &json!("shop")));
    assert_eq!(get(&server, "/api/v1/pods").names(), Vec::<&str>::new());
}

#[test]
fn a_collection_is_deleted_by_selector() {
    let server = with_pods(&["a", "b"]);
    for name in ["x", "y"] {
        server
            .create(
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "shop", "name": name, "labels": {"n": name}}}),
            )
            .unwrap();
    }
    assert_eq!(send(&server, "DELETE", "/api/v1/namespaces/shop/configmaps?labelSelector=n%3Dx", &json!({})).code, 200);
    assert_eq!(get(&server, "/api/v1/configmaps").names(), ["y"]);
}

#[test]
fn events_as_the_new_api_wants_them() {
    let server = with_pods(&["a"]);
    let path = "/apis/events.k8s.io/v1/namespaces/shop/events";
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"generateName": "a-"}, "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "example.com/observer", "reportingInstance": "n1", "action": "Deny", "reason": "Denied", "type": "Warning",
        "note": "denied", "regarding": {"kind": "Pod", "namespace": "shop", "name": "a"},
    });
    assert_eq!(send(&server, "POST", path, &event).code, 201);
    assert_eq!(
        get(&server, &format!("{path}?fieldSelector=regarding.name%3Da,type%3DWarning")).body["items"].as_array().map(Vec::len),
        Some(1)
    );
    for (field, value, cause) in [
        ("eventTime", Value::Null, "eventTime: Required value"),
        ("action", json!(""), "action: Required value"),
        ("note", json!("x".repeat(1025)), "message: Invalid value: \"\": can have at most 1024 characters"),
        ("type", json!("Error"), "type: Invalid value: \"\": has invalid value: Error"),
        ("regarding", json!({"kind": "Node"}), "involvedObject.namespace: Invalid value: \"\": does not match event.namespace"),
    ] {
        let mut event = event.clone();
        event[field] = value;
        let answer = send(&server, "POST", path, &event);
        assert_eq!((answer.code, answer.reason()), (422, "Invalid"), "{field}");
        assert!(answer.message().contains(cause), "{answer:?}");
    }
    // Times without their six digits are not decoded at all.
    let mut wrong = event.clone();
    wrong["eventTime"] = json!("2026-01-01T00:00:00Z");
    let answer = send(&server, "POST", path, &wrong);
    assert_eq!((answer.code, answer.reason()), (400, "BadRequest"), "{answer:?}");
    assert!(answer.message().contains("cannot be handled as a Event: parsing time"), "{answer:?}");
    // Of an Event that is there the series may change, and what is wrong with it is said.
    let made = get(&server, path).body["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let patch = |body: &Value| {
        server.patch(&json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"namespace": "shop", "name": made}, "series": body["series"], "note": body["note"]}))
            .map_err(|refusal| (refusal.code, refusal.message))
    };
    let series = |count: u32, time: &str| json!({"series": {"count": count, "lastObservedTime": time}, "note": "denied"});
    let changed = patch(&series(2, "2026-01-01T00:00:30.000000Z")).unwrap();
    assert_eq!((&changed["series"]["count"], &changed["note"]), (&json!(2), &json!("denied")));
    for (body, code, cause) in [
        (series(1, "2026-01-01T00:01:00.000000Z"), 422, "series.count: Invalid value: \"\": should be at least 2"),
        (series(3, "2026-01-01T00:01:00Z"), 422, "patch: Invalid value: parsing time"),
        (json!({"series": changed["series"], "note": "another"}), 422, "message: Invalid value: \"another\": field is immutable"),
    ] {
        let (refused, message) = patch(&body).unwrap_err();
        assert!(refused == code && message.contains(cause), "{refused} {message}");
    }
}

#[test]
fn nothing_is_created_in_a_namespace_that_ends() {
    let server = server();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ends", "finalizers": ["example.org/wait"]}});
    server.create(namespace).unwrap();
    assert!(!server.delete("v1", "Namespace", "", "ends").unwrap());
    let answer = send(&server, "POST", "/api/v1/namespaces/ends/configmaps", &json!({"metadata": {"name": "a"}}));
    assert_eq!((answer.code, answer.reason()), (403, "Forbidden"), "{answer:?}");
    assert_eq!(answer.body["details"]["causes"][0]["reason"], "NamespaceTerminating", "{answer:?}");
}

#[test]
fn loading_twice_replaces() {
    let server = server();
    let namespace = |label: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": {"l": label}}});
    server.create(xtask::apiserver::crd::cluster_network_policy()).unwrap();
    let policy = |tier: &str| json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "p"}, "spec": {"tier": tier}});
    server.load([namespace("1"), policy("Admin")]).unwrap();
    server.load([namespace("2"), policy("Baseline")]).unwrap();
    assert_eq!(server.get("v1", "Namespace", "", "n").unwrap()["metadata"]["labels"]["l"], "2");
    let loaded = server.get("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "", "p").unwrap();
    assert_eq!((&loaded["spec"]["tier"], &loaded["metadata"]["generation"]), (&json!("Baseline"), &json!(2)));
    let refusal = server
        .create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "nowhere", "name": "p"}, "spec": {"containers": [{}]}}))
        .unwrap_err();
    assert_eq!(refusal.code, 404);
}
