//! Who may see what, and where the cluster is.

use serde_json::json;
use xtask::apiserver::{Fault, Scope};

use crate::agent::Setup;
use crate::scene::{NAMESPACE, Scene};

fn rule(verbs: &[&str], resource: &str) -> serde_json::Value {
    json!({"verbs": verbs, "apiGroups": [""], "resources": [resource]})
}

#[test]
fn what_is_missing_is_said() {
    let (scene, _agents) = Scene::with(&["node-1", "node-2"]);
    scene.jane(&json!([]));
    for command in [&["tail"][..], &["status"], &["explain", "--from", "a", "--to", "b", "--port", "1"]] {
        let run = scene.run(command);
        assert_eq!(run.code, Some(if command[0] == "explain" { 2 } else { 1 }), "{}", run.err);
        assert!(
            run.err.contains("User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"netpol-observer\""),
            "{}",
            run.err
        );
        assert!(
            run.err.contains(
                "hint: in namespace netpol-observer it takes get, list and watch on pods, and get and create on pods/portforward"
            ),
            "{}",
            run.err
        );
    }
    scene.jane(&json!([rule(&["get", "list", "watch"], "pods"), rule(&["get"], "pods/portforward")]));
    let run = scene.run(&["tail"]);
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("error: this user may not reach the agents: "), "{}", run.err);
    assert!(run.err.contains("User \"jane\" cannot create resource \"pods/portforward\""), "{}", run.err);
    scene.jane(&json!([rule(&["get", "list", "watch"], "pods"), rule(&["get", "create"], "pods/portforward")]));
    let run = scene.run(&["tail", "--no-follow"]);
    assert_eq!(run.code, Some(0), "{}", run.err);
    assert!(run.err.contains("the nodes cannot be listed, so that one without an agent is not noticed: "), "{}", run.err);
}

#[test]
fn the_credential_of_the_kubeconfig_never_goes_to_an_agent() {
    let (scene, agents) = Scene::with(&["node-1"]);
    assert_eq!(scene.run(&["tail", "--no-follow"]).code, Some(0));
    assert_eq!(scene.run(&["status"]).code, Some(0));
    scene.run(&["explain", "--from", "a", "--to", "b", "--port", "1"]);
    assert_eq!(agents[0].requests().len(), 3);
    assert!(agents[0].has_received(b"/v1/status"));
    assert!(!agents[0].has_received(b"admin-token"));
    assert!(!agents[0].has_received(b"uthorization"));
}

#[test]
fn no_agent_and_no_cluster() {
    let scene = Scene::new();
    let run = scene.run(&["tail"]);
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("error: no agent runs in namespace netpol-observer (test)"), "{}", run.err);
    let run = scene.run(&["tail", "--agent-namespace", "elsewhere"]);
    assert!(run.err.contains("no agent runs in namespace elsewhere"), "{}", run.err);
    scene.server.go_away().unwrap();
    let run = scene.run(&["tail"]);
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("error: test does not answer: the API server cannot be reached: "), "{}", run.err);
    assert!(run.err.contains("Connection refused"), "{}", run.err);
    for (arguments, expected) in [
        (&["tail", "--kubeconfig", "none"][..], "error: none: "),
        (&["tail", "--context", "other"], "kubeconfig: failed to load current context: other"),
        (&["status", "--kubeconfig", "/dev/null"], "error: /dev/null: "),
    ] {
        let run = scene.run(arguments);
        assert_eq!(run.code, Some(1), "{arguments:?}: {}", run.err);
        assert!(run.err.contains(expected), "{arguments:?}: {}", run.err);
        assert!(run.err.contains("hint: `kubectl config view`"), "{}", run.err);
    }
}

#[test]
fn kubeconfigs_from_everywhere() {
    let (scene, agents) = Scene::with(&["node-1"]);
    agents[0].saw(1, jiff::Timestamp::now());
    let without = |arguments: &[&str]| {
        let mut command = scene.command(arguments);
        command.env_remove("KUBECONFIG");
        command
    };
    let arguments = ["tail", "--no-follow", "--since", "1h"];
    let output = without(&[&arguments[..], &["--kubeconfig", "kubeconfig", "--context", "test"]].concat()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "DENIED 1 on node-1\n", "{output:?}");
    std::fs::create_dir(scene.path(".kube")).unwrap();
    std::fs::copy(scene.path("kubeconfig"), scene.path(".kube/config")).unwrap();
    let output = without(&arguments).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "DENIED 1 on node-1\n", "{output:?}");
}

#[test]
fn an_expired_credential() {
    let (scene, _agents) = Scene::with(&["node-1"]);
    scene.server.fail_next(Scope::default(), 1000, Fault::Unauthorized);
    let run = scene.run(&["status"]);
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("the API server does not accept the credential of the kubeconfig (401 Unauthorized)"), "{}", run.err);
}

#[test]
fn an_agent_whose_port_nobody_listens_on() {
    let scene = Scene::new();
    let _agent = scene.agent(Setup { node: "node-1".to_owned(), ..Setup::default() });
    let run = scene.run(&["status", "--agent-port", "9999"]);
    assert_eq!(run.code, Some(1));
    assert!(run.out.contains("node-1: cannot be reached: error forwarding port 9999 to pod agent-node-1"), "{}", run.out);
    scene.server.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": NAMESPACE, "name": "other"}, "spec": {"nodeName": "node-1", "containers": [{"name": "c"}]}})).unwrap();
    assert!(!scene.run(&["status"]).out.contains("other"), "only agents are asked");
}
