//! Who may do what, and how they are told.

use serde_json::{Value, json};
use xtask::apiserver::{API_AUDIENCE, Options, Server};

use crate::raw::{Answer, ask, get, pod, send, server, with_pods};

fn as_token(server: &Server, token: &str, path: &str) -> Answer {
    ask(server, "GET", path, &[("authorization", &format!("Bearer {token}"))], "")
}

fn role(name: &str, rules: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules})
}

fn bind(role: &str, subject: Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": role}, "subjects": [subject],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
    })
}

fn bind_in(namespace: &str, role: &str, subject: Value) -> Value {
    let mut binding = bind(role, subject);
    binding["kind"] = "RoleBinding".into();
    binding["metadata"]["namespace"] = namespace.into();
    binding
}

#[test]
fn refusals_in_the_words_of_the_api_server() {
    let server = with_pods(&["web"]);
    let token = server.add_user("jane", &["dev"]);
    for (path, message) in [
        ("/api/v1/pods", "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" at the cluster scope"),
        (
            "/api/v1/namespaces/shop/pods/web",
            "pods \"web\" is forbidden: User \"jane\" cannot get resource \"pods\" in API group \"\" in the namespace \"shop\"",
        ),
        (
            "/api/v1/namespaces/shop",
            "namespaces \"shop\" is forbidden: User \"jane\" cannot get resource \"namespaces\" in API group \"\" in the namespace \"shop\"",
        ),
        (
            "/apis/networking.k8s.io/v1/networkpolicies?watch=1",
            "networkpolicies.networking.k8s.io is forbidden: User \"jane\" cannot watch resource \"networkpolicies\" in API group \"networking.k8s.io\" at the cluster scope",
        ),
        ("/metrics", "forbidden: User \"jane\" cannot get path \"/metrics\""),
        // What is not there is forbidden all the same.
        (
            "/apis/example.com/v1/things",
            "things.example.com is forbidden: User \"jane\" cannot list resource \"things\" in API group \"example.com\" at the cluster scope",
        ),
    ] {
        let answer = as_token(&server, &token, path);
        assert_eq!((answer.code, answer.reason(), answer.message()), (403, "Forbidden", message));
    }
    assert_eq!(as_token(&server, &token, "/version").code, 200);
    assert_eq!(as_token(&server, &token, "/apis").code, 200);
    // A binding to a role that is not there is told.
    server.create(bind("missing", json!({"kind": "Group", "name": "dev"}))).unwrap();
    let answer = as_token(&server, &token, "/api/v1/pods");
    assert!(
        answer.message().ends_with("at the cluster scope: RBAC: clusterrole.rbac.authorization.k8s.io \"missing\" not found"),
        "{answer:?}"
    );
}

#[test]
fn tokens_and_their_absence() {
    let server = server();
    assert_eq!(ask(&server, "GET", "/readyz", &[], "").code, 200);
    let anonymous = ask(&server, "GET", "/api/v1/pods", &[], "");
    assert!(anonymous.message().starts_with("pods is forbidden: User \"system:anonymous\" cannot list"), "{anonymous:?}");
    let wrong = as_token(&server, "wrong", "/readyz");
    assert_eq!((wrong.code, wrong.reason(), wrong.message()), (401, "Unauthorized", "Unauthorized"));
    let strict = Server::start(Options { anonymous: false, rbac: false, ..Options::default() }).unwrap();
    assert_eq!(ask(&strict, "GET", "/readyz", &[], "").code, 401);
    let token = strict.add_user("jane", &[]);
    assert_eq!(as_token(&strict, &token, "/api/v1/pods").code, 200);
    strict.revoke(&token);
    assert_eq!(as_token(&strict, &token, "/api/v1/pods").code, 401);
}

#[test]
fn rules_of_roles() {
    let server = with_pods(&["web", "db"]);
    let token = server.add_user("jane", &["dev"]);
    let code = |path: &str| as_token(&server, &token, path).code;
    // Resource names, in one namespace, by group.
    let rules = json!([{"verbs": ["get", "watch", "list"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["web"]}]);
    server.create(role("one", rules)).unwrap();
    server.create(bind_in("shop", "one", json!({"kind": "Group", "name": "dev"}))).unwrap();
    assert_eq!((code("/api/v1/namespaces/shop/pods/web"), code("/api/v1/namespaces/shop/pods/db")), (200, 403));
    assert_eq!(code("/api/v1/namespaces/shop/pods"), 403);
    assert_eq!(code("/api/v1/namespaces/shop/pods?fieldSelector=metadata.name%3Dweb"), 200);
    assert_eq!(code("/api/v1/namespaces/default/pods/web"), 403);
    // A resource is not its subresource.
    assert_eq!(code("/api/v1/namespaces/shop/pods/web/status"), 403);
    server.create(role("any-status", json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/status"]}]))).unwrap();
    server.create(bind("any-status", json!({"kind": "User", "name": "jane"}))).unwrap();
    assert_eq!(code("/api/v1/namespaces/shop/pods/web/status"), 200);
    assert_eq!(code("/api/v1/namespaces/shop/pods/db"), 403);
    // Paths: prefixes with a star, and never by a RoleBinding.
    let paths = json!([{"verbs": ["get"], "nonResourceURLs": ["/debug/*"]}]);
    server.create(role("paths", paths)).unwrap();
    server.create(bind_in("shop", "paths", json!({"kind": "User", "name": "jane"}))).unwrap();
    assert_eq!(code("/debug/x"), 403);
    server.create(bind("paths", json!({"kind": "User", "name": "jane"}))).unwrap();
    assert_eq!((code("/debug/x"), code("/debugging")), (404, 403));
}

#[test]
fn service_account_tokens_expire_and_have_an_audience() {
    let server = with_pods(&["web"]);
    server.create(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "shop", "name": "observer"}})).unwrap();
    let rules = json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]);
    server.create(role("lister", rules)).unwrap();
    server.create(bind("lister", json!({"kind": "ServiceAccount", "namespace": "shop", "name": "observer"}))).unwrap();
    let path = "/api/v1/namespaces/shop/serviceaccounts/observer/token";
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}});
    let made = send(&server, "POST", path, &request);
    assert_eq!((made.code, &made.body["spec"]["audiences"]), (201, &json!([API_AUDIENCE])));
    let token = made.body["status"]["token"].as_str().unwrap().to_owned();
    assert_eq!(as_token(&server, &token, "/api/v1/pods").names(), ["web"]);

    let other = server.service_account_token("shop", "observer", &["other"], 600).unwrap();
    assert_eq!(as_token(&server, &other, "/api/v1/pods").code, 401);
    server.set_clock_skew(599);
    assert_eq!(as_token(&server, &token, "/api/v1/pods").code, 200);
    server.set_clock_skew(601);
    assert_eq!(as_token(&server, &token, "/api/v1/pods").code, 401);
    server.set_clock_skew(0);
    server.delete("v1", "ServiceAccount", "shop", "observer").unwrap();
    assert_eq!(as_token(&server, &token, "/api/v1/pods").code, 401);

    assert_eq!(send(&server, "POST", path, &request).message(), "serviceaccounts \"observer\" not found");
    server.create(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "shop", "name": "observer"}})).unwrap();
    let short = send(&server, "POST", path, &json!({"spec": {"expirationSeconds": 60}}));
    assert_eq!((short.code, short.reason()), (422, "Invalid"), "{short:?}");
    // The account of the same name is another one.
    assert_eq!(as_token(&server, &token, "/api/v1/pods").code, 401);
}

#[test]
fn a_token_of_a_pod_ends_with_it() {
    let server = with_pods(&["web"]);
    server.create(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "shop", "name": "default"}})).unwrap();
    server.create(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "shop", "name": "observer"}})).unwrap();
    let request = json!({"spec": {"expirationSeconds": 600, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web"}}});
    // Only the pod's own account has tokens of the pod.
    assert_eq!(send(&server, "POST", "/api/v1/namespaces/shop/serviceaccounts/observer/token", &request).code, 400);
    let made = send(&server, "POST", "/api/v1/namespaces/shop/serviceaccounts/default/token", &request);
    assert_eq!((&made.body["metadata"]["name"], &made.body["metadata"]["namespace"]), (&json!("default"), &json!("shop")));
    let token = made.body["status"]["token"].as_str().unwrap().to_owned();
    let whoami = |token: &str| {
        let headers = [("authorization", format!("Bearer {token}")), ("content-type", "application/json".to_owned())];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        ask(&server, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &headers, "{}")
    };
    let user = whoami(&token).body["status"]["userInfo"].clone();
    assert_eq!(
        (&user["username"], &user["extra"]["authentication.kubernetes.io/pod-name"]),
        (&json!("system:serviceaccount:shop:default"), &json!(["web"]))
    );
    server.finish_pod("shop", "web").unwrap();
    server.create(pod("web")).unwrap();
    assert_eq!(whoami(&token).code, 401);
}

#[test]
fn token_reviews() {
    let server = with_pods(&[]);
    server.add_user("jane", &["dev"]);
    server.create(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "shop", "name": "observer"}})).unwrap();
    let token = server.service_account_token("shop", "observer", &["agents"], 600).unwrap();
    let review = |spec: Value| {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
        let answer = send(&server, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", &review);
        assert_eq!(answer.code, 201, "{answer:?}");
        answer.body["status"].clone()
    };
    let user = review(json!({"token": "jane-token"}));
    assert_eq!(
        (&user["authenticated"], &user["user"]),
        (&json!(true), &json!({"username": "jane", "groups": ["dev", "system:authenticated"]}))
    );
    let account = review(json!({"token": token, "audiences": ["agents", "others"]}));
    assert_eq!((&account["authenticated"], &account["audiences"]), (&json!(true), &json!(["agents"])));
    assert_eq!(account["user"]["groups"], json!(["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"]));
    for (spec, why) in [
        (
            json!({"token": token}),
            "[invalid bearer token, token audiences [\"agents\"] is invalid for the target audiences [\"https://kubernetes.default.svc.cluster.local\"]]",
        ),
        (json!({"token": "wrong"}), "invalid bearer token"),
    ] {
        let refused = review(spec);
        assert_eq!((&refused["authenticated"], refused["error"].as_str()), (&json!(null), Some(why)));
    }
    let jane = [("authorization", "Bearer jane-token"), ("content-type", "application/json")];
    let forbidden = ask(&server, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", &jane, "{}");
    assert!(
        forbidden.message().starts_with("tokenreviews.authentication.k8s.io is forbidden: User \"jane\" cannot create"),
        "{forbidden:?}"
    );
    assert_eq!(get(&server, "/apis/authentication.k8s.io/v1/tokenreviews").code, 405);
}

#[test]
fn access_reviews() {
    let server = with_pods(&[]);
    server.add_user("jane", &[]);
    let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods/portforward"]}]);
    server.create(role("forward", rules)).unwrap();
    server.create(bind_in("shop", "forward", json!({"kind": "User", "name": "jane"}))).unwrap();
    let attributes = json!({"verb": "get", "resource": "pods", "subresource": "portforward", "namespace": "shop"});
    let review = |kind: &str, plural: &str, token: &str, spec: Value| {
        let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}).to_string();
        let headers = [("authorization", format!("Bearer {token}")), ("content-type", "application/json".to_owned())];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        ask(&server, "POST", &format!("/apis/authorization.k8s.io/v1/{plural}"), &headers, &body)
    };
    let own = review("SelfSubjectAccessReview", "selfsubjectaccessreviews", "jane-token", json!({"resourceAttributes": attributes}));
    assert_eq!(own.body["status"]["allowed"], true, "{own:?}");
    assert_eq!(own.body["status"]["reason"], "RBAC: allowed by RoleBinding \"forward/shop\" of ClusterRole \"forward\" to User \"jane\"");
    let of = |user: &str, spec: Value| {
        let mut spec = spec;
        spec["user"] = user.into();
        review("SubjectAccessReview", "subjectaccessreviews", "admin-token", spec).body["status"]["allowed"].clone()
    };
    assert_eq!(of("jane", json!({"resourceAttributes": attributes})), true);
    assert_eq!(of("joe", json!({"resourceAttributes": attributes})), false);
    assert_eq!(of("jane", json!({"nonResourceAttributes": {"verb": "get", "path": "/metrics"}})), false);
    let unclear = review("SubjectAccessReview", "subjectaccessreviews", "admin-token", json!({"user": "jane"}));
    assert_eq!(unclear.code, 422);
}
