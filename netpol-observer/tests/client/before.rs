//! Commands that judge before a deploy, on the objects of an API server.

use serde_json::json;

use crate::scene::Scene;

const POLICY: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{port: 8080}]
";

const TESTS: &str = "apiVersion: netpol-observer.io/v1alpha1
kind: PolicyTest
metadata: {name: shop}
namespace: shop
tests:
  - {from: deploy/web, to: deploy/api, port: 8080, expect: allow}
  - {from: deploy/web, to: deploy/api, port: 9090, expect: deny}
";

/// A shop whose pods run, without policies.
fn shop() -> Scene {
    let scene = Scene::new();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    let pods = ["web", "api"].iter().zip(1..).map(|(app, number)| {
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-7d9f"), "uid": "1", "controller": true});
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": format!("{app}-7d9f-abcde"), "labels": {"app": app, "pod-template-hash": "7d9f"}, "ownerReferences": [owner]},
            "spec": {"containers": [{"name": app, "image": app}]},
            "status": {"phase": "Running", "podIPs": [{"ip": format!("10.0.0.{number}")}], "podIP": format!("10.0.0.{number}")},
        })
    });
    scene.server.load(std::iter::once(namespace).chain(pods)).unwrap();
    std::fs::write(scene.path("policies.yaml"), POLICY).unwrap();
    std::fs::write(scene.path("tests.yaml"), TESTS).unwrap();
    scene
}

#[test]
fn policies_that_are_to_be_deployed_on_the_cluster_as_it_is() {
    let scene = shop();
    // As it is, everything is admitted.
    let run = scene.run(&["check", "--no-lints", "--cluster", "--tests", "tests.yaml"]);
    assert_eq!(run.code, Some(1), "{}{}", run.out, run.err);
    assert!(run.out.contains("1 of 2 tests failed"), "{}", run.out);
    let run = scene.run(&["check", "--no-lints", "--cluster", "policies.yaml", "--tests", "tests.yaml"]);
    assert_eq!(run.code, Some(0), "{}{}", run.out, run.err);
    // And what they would change.
    let run = scene.run(&["diff", "cluster", "policies.yaml", "--with", "cluster", "--fail-on", "newly-allowed"]);
    assert_eq!(run.code, Some(0), "{}{}", run.out, run.err);
    assert!(
        run.out.contains("shop/deploy/web → shop/deploy/api  1-8079/TCP, 8081-65535/TCP, every UDP port, every SCTP port"),
        "{}",
        run.out
    );
    let run = scene.run(&["map", "--cluster", "policies.yaml", "-o", "json"]);
    assert_eq!(run.code, Some(0), "{}", run.err);
    assert!(run.out.contains("8080/TCP"), "{}", run.out);
}

#[test]
fn a_cluster_that_cannot_be_read_is_an_error() {
    let scene = shop();
    scene.jane(&json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]));
    let run = scene.run(&["check", "--cluster"]);
    assert_eq!(run.code, Some(2), "{}", run.out);
    assert!(run.err.contains("networkpolicies") && run.err.contains("hint: it takes list and watch"), "{}", run.err);
    // Nobody listens there.
    let here = std::fs::read_to_string(scene.path("kubeconfig")).unwrap();
    let (head, rest) = here.split_once("127.0.0.1:").unwrap();
    let rest = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
    std::fs::write(scene.path("kubeconfig"), format!("{head}127.0.0.1:1{rest}")).unwrap();
    let run = scene.run(&["diff", "cluster", "cluster"]);
    assert_eq!(run.code, Some(2), "{}", run.out);
    assert!(run.err.starts_with("error: "), "{}", run.err);
}
