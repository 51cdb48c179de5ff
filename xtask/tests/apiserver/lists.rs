//! Lists: pages, revisions, selectors and what is refused in them.

use serde_json::json;

use crate::raw::{Answer, ask, get, pod, server, with_pods};

fn page_token(answer: &Answer) -> String {
    answer.body["metadata"]["continue"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn pages_show_one_state_whatever_happens_between_them() {
    let server = with_pods(&["a", "b", "c", "d", "e"]);
    let first = get(&server, "/api/v1/pods?limit=2");
    assert_eq!(first.names(), ["a", "b"]);
    assert_eq!(first.body["metadata"]["remainingItemCount"], 3);
    let revision = first.body["metadata"]["resourceVersion"].clone();

    server.create(pod("bb")).unwrap();
    server.finish_pod("shop", "d").unwrap();
    server
        .patch(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "e", "labels": {"new": "1"}}}))
        .unwrap();

    let second = get(&server, &format!("/api/v1/pods?limit=2&continue={}", page_token(&first)));
    assert_eq!(second.names(), ["c", "d"]);
    assert_eq!((&second.body["metadata"]["resourceVersion"], &second.body["metadata"]["remainingItemCount"]), (&revision, &json!(1)));
    let third = get(&server, &format!("/api/v1/pods?limit=2&continue={}", page_token(&second)));
    assert_eq!(third.names(), ["e"]);
    assert_eq!(third.body["items"][0]["metadata"]["labels"]["new"], json!(null));
    assert_eq!(page_token(&third), "");
    assert_eq!(third.body["metadata"]["remainingItemCount"], json!(null));
}

#[test]
fn an_expired_token_is_410_and_gives_one_for_the_inconsistent_rest() {
    let server = with_pods(&["a", "b", "c"]);
    let first = get(&server, "/api/v1/namespaces/shop/pods?limit=1");
    server.create(pod("bb")).unwrap();
    server.compact();
    let expired = get(&server, &format!("/api/v1/namespaces/shop/pods?limit=1&continue={}", page_token(&first)));
    assert_eq!((expired.code, expired.reason()), (410, "Expired"));
    assert!(
        expired.message().starts_with("The provided continue parameter is too old to display a consistent list result."),
        "{expired:?}"
    );
    let rest = get(&server, &format!("/api/v1/namespaces/shop/pods?continue={}", page_token(&expired)));
    assert_eq!(rest.names(), ["b", "bb", "c"]);
}

#[test]
fn resource_versions_of_lists() {
    let server = with_pods(&["a"]);
    let old = server.revision();
    server.create(pod("b")).unwrap();
    let now = server.revision();

    // Any: the watch cache, which knows no limit.
    let any = get(&server, "/api/v1/pods?resourceVersion=0&limit=1");
    assert_eq!((any.names(), page_token(&any).as_str()), (vec!["a", "b"], ""));
    // A revision with a limit is exact unless it says otherwise; without one, not older than.
    assert_eq!(get(&server, &format!("/api/v1/pods?resourceVersion={old}&limit=5")).names(), ["a"]);
    assert_eq!(get(&server, &format!("/api/v1/pods?resourceVersion={old}")).names(), ["a", "b"]);
    assert_eq!(get(&server, &format!("/api/v1/pods?resourceVersion={old}&resourceVersionMatch=Exact")).names(), ["a"]);
    let newer = get(&server, &format!("/api/v1/pods?resourceVersion={old}&resourceVersionMatch=NotOlderThan&limit=1"));
    assert_eq!(newer.names(), ["a"]);
    assert_eq!(newer.body["metadata"]["resourceVersion"], now.to_string());

    server.compact();
    let gone = get(&server, &format!("/api/v1/pods?resourceVersion={old}&resourceVersionMatch=Exact"));
    assert_eq!((gone.code, gone.reason(), gone.message()), (410, "Expired", "The resourceVersion for the provided list is too old."));
    let future = get(&server, &format!("/api/v1/pods?resourceVersion={}&resourceVersionMatch=Exact", now + 5));
    assert_eq!((future.code, future.reason()), (504, "Timeout"));
    assert_eq!(future.message(), format!("Timeout: Too large resource version: {}, current: {now}", now + 5));
    assert_eq!(future.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[test]
fn options_that_a_list_refuses() {
    let server = with_pods(&["a", "b"]);
    let token = page_token(&get(&server, "/api/v1/pods?limit=1"));
    for (query, code, message) in [
        (
            "resourceVersionMatch=Exact",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            "resourceVersionMatch=Exact&resourceVersion=0",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ),
        (
            "sendInitialEvents=true",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
        ),
        (&format!("continue={token}&resourceVersion=5"), 400, "specifying resource version is not allowed when using continue"),
        ("labelSelector=app%3D-", 400, "unable to parse requirement: values[0][app]: Invalid value: \"-\""),
        ("fieldSelector=spec.priority%3D1", 400, "field label not supported: spec.priority"),
        ("fieldSelector=spec", 400, "invalid selector: 'spec'; can't understand 'spec'"),
        ("continue=nonsense", 400, "invalid continue token: continue key is not valid"),
        ("limit=many", 400, ""),
        ("resourceVersion=new", 400, "invalid resource version: resourceVersion: Invalid value: \"new\""),
    ] {
        let answer = get(&server, &format!("/api/v1/pods?{query}"));
        assert_eq!(answer.code, code, "{query}: {answer:?}");
        assert!(answer.message().starts_with(message), "{query}: {answer:?}");
        assert_eq!(answer.body["status"], "Failure", "{query}");
    }
    let answer = get(&server, "/api/v1/pods?resourceVersionMatch=Newest");
    assert_eq!((answer.code, answer.body["details"]["causes"].as_array().map(Vec::len)), (422, Some(2)), "{answer:?}");
}

#[test]
fn selectors_and_namespaces_and_no_count_of_what_a_selector_leaves() {
    let server = with_pods(&["a", "b", "c"]);
    server.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "default", "name": "a", "labels": {"app": "a"}}, "spec": {"containers": [{"name": "c"}]}})).unwrap();
    assert_eq!(get(&server, "/api/v1/pods?labelSelector=app%3Da").names(), ["a", "a"]);
    assert_eq!(get(&server, "/api/v1/namespaces/shop/pods?labelSelector=app%20in%20(a,b)").names(), ["a", "b"]);
    assert_eq!(get(&server, "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1,metadata.name!%3Db").names(), ["a", "c"]);
    assert_eq!(get(&server, "/api/v1/namespaces/nowhere/pods").names(), Vec::<&str>::new());
    let page = get(&server, "/api/v1/pods?labelSelector=app!%3Dx&limit=1");
    assert_eq!((page_token(&page).is_empty(), &page.body["metadata"]["remainingItemCount"]), (false, &json!(null)));
}

#[test]
fn items_of_builtin_lists_have_no_type_and_those_of_custom_ones_do() {
    let server = with_pods(&["a"]);
    let pods = get(&server, "/api/v1/pods");
    assert_eq!((&pods.body["kind"], &pods.body["apiVersion"]), (&json!("PodList"), &json!("v1")));
    assert_eq!(pods.body["items"][0]["kind"], json!(null));
    server.create(xtask::apiserver::crd::admin_network_policy()).unwrap();
    let policy =
        json!({"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy", "metadata": {"name": "p"}, "spec": {}});
    server.create(policy).unwrap();
    let policies = get(&server, "/apis/policy.networking.k8s.io/v1alpha1/adminnetworkpolicies");
    assert_eq!(policies.body["items"][0]["kind"], "AdminNetworkPolicy");
}

#[test]
fn media_types() {
    let server = with_pods(&["a"]);
    let accept = |accept: &str| ask(&server, "GET", "/api/v1/pods", &[("authorization", "Bearer admin-token"), ("accept", accept)], "");
    let protobuf = accept("application/vnd.kubernetes.protobuf");
    assert_eq!((protobuf.code, protobuf.reason()), (406, "NotAcceptable"));
    assert_eq!(accept("application/vnd.kubernetes.protobuf, application/json").code, 200);
    let partial = accept("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    assert_eq!(partial.body["kind"], "PartialObjectMetadataList");
    assert_eq!(partial.body["items"][0]["kind"], "PartialObjectMetadata");
    assert_eq!(partial.body["items"][0]["metadata"]["name"], "a");
    assert_eq!(partial.body["items"][0]["spec"], json!(null));
}

#[test]
fn a_list_waits_for_a_revision_that_is_about_to_come() {
    let server = server();
    let wanted = server.revision() + 1;
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| get(&server, &format!("/api/v1/namespaces?resourceVersion={wanted}")));
        server.wait_for_stats(crate::raw::PATIENCE, "a list", |stats| stats.requests("list", "namespaces") == 1).unwrap();
        server.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new"}})).unwrap();
        assert!(asked.join().unwrap().names().contains(&"new"));
    });
}
