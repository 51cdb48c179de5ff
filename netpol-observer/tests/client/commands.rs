//! `observer status` and `observer explain`, and which command lines make sense.

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::agent::{Mode, Setup};
use crate::scene::{NAMESPACE, Scene, pod};

fn status(seen: u64) -> Value {
    let watched = json!({"listedAt": "2026-11-23T14:00:00Z", "lastEventAt": "2026-11-23T14:00:00Z", "watching": true, "restarts": 0});
    let not = json!({"watching": false, "why": "the CustomResourceDefinition is not there", "restarts": 0});
    json!({
        "time": "2026-11-23T14:00:03Z",
        "kernel": {"release": "6.18.0", "problems": ["no CAP_SYSLOG: functions have no names\u{1b}[2J"]},
        "ledger": {"kernel": {"seen": seen, "reported": 20, "folded": 5, "ringFull": 1}},
        "sync": {"Pods": watched, "ClusterNetworkPolicies": not},
        "foreign": {"CiliumNetworkPolicies": 3},
        "clients": {"readers": 2, "max": 64, "lost": 0, "refused": 0},
        "missing": ["Pods were not listed yet"],
    })
}

#[test]
fn the_status_of_every_node() {
    let scene = Scene::new();
    let well = scene.agent(Setup { node: "node-1".to_owned(), ..Setup::default() });
    let run = scene.run(&["status"]);
    assert_eq!(run.code, Some(0), "{}{}", run.out, run.err);
    insta::assert_snapshot!(run.out, @"
    NODE    POD           VERSION  READY  SYNC  LAG  SEEN  REPORTED  RING FULL  CLIENTS
    node-1  agent-node-1  0.1.0    yes    -     -    -     -         -          -
    ");
    drop(well);
    scene.agent(Setup { node: "node-2".to_owned(), status: status(26), ..Setup::default() });
    scene
        .agent(Setup { node: "node-3".to_owned(), skew: SignedDuration::from_secs(-3700), ..Setup::default() })
        .becomes(Mode::Refusing(503, "the agent is starting".to_owned()));
    scene.agent(Setup { node: "node-5".to_owned(), skew: SignedDuration::from_secs(-3700), ..Setup::default() });
    scene.node("node-4");
    let run = scene.run(&["status"]);
    assert_eq!(run.code, Some(1), "{}", run.err);
    let lines: Vec<&str> = run.out.lines().filter(|line| !line.contains("its clock is about")).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    NODE    POD           VERSION  READY        SYNC  LAG  SEEN  REPORTED  RING FULL  CLIENTS
    node-1  agent-node-1  0.1.0    yes          -     -    -     -         -          -
    node-2  agent-node-2  0.1.0    yes          1/2   3 s  26    20        1          2
    node-3  agent-node-3  -        unreachable  -     -    -     -         -          -
    node-5  agent-node-5  0.1.0    yes          -     -    -     -         -          -
    node-4  -             -        no agent     -     -    -     -         -          -
    node-2: kernel: no CAP_SYSLOG: functions have no names\u{1b}[2J
    node-2: ClusterNetworkPolicies are not watched: the CustomResourceDefinition is not there
    node-2: 3 CiliumNetworkPolicies are not evaluated
    node-2: not ready: Pods were not listed yet
    node-3: cannot be reached: the agent answers 503: the agent is starting
    node-4: no agent runs there; drops there are not seen
    ");
    assert!(run.out.contains("node-5: its clock is about 1 h 1 m behind that of this machine"), "{}", run.out);
    assert_eq!(scene.run(&["status", "--node", "node-1", "--node", "node-2"]).code, Some(0));
    assert_eq!(scene.run(&["status", "--node", "node-1", "--node", "node-9"]).code, Some(1), "a node that was named and has no agent");
    scene.server.create(pod("node-4", "agent-4", false)).unwrap();
    let run = scene.run(&["status", "--node", "node-4", "-o", "json"]);
    assert_eq!(run.code, Some(1));
    let object: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((&object["type"], &object["agents"][0]["ready"], &object["silentNodes"]), (&"status".into(), &false.into(), &json!([])));
    let run = scene.run(&["status", "--node", "node-2", "-o", "json"]);
    let object: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(object["agents"][0]["status"]["ledger"]["kernel"]["seen"], 26);
    assert!(!run.out.contains('\u{1b}'));
}

#[test]
fn an_agent_explains() {
    let scene = Scene::new();
    let explained = json!({"exit": 1, "out": "DENIED\u{1b}]0;x\u{7}\n  by x\n", "err": "warning: y\n"});
    let agent = scene.agent(Setup { node: "node-2".to_owned(), explained, ..Setup::default() });
    // One that is not ready is asked last, and one that does not answer is passed over.
    scene.server.create(pod("node-1", "agent-1", false)).unwrap();
    scene.agent(Setup { node: "node-0".to_owned(), ..Setup::default() }).becomes(Mode::Refusing(503, "starting".to_owned()));
    let run = scene.run(&["explain", "--from", "shop/web", "--to", "shop/api", "--port", "8080", "-p", "53/UDP", "-n", "shop"]);
    assert_eq!((run.code, run.out.as_str()), (Some(1), "DENIED\\u{1b}]0;x\\u{7}\n  by x\n"), "{}", run.err);
    assert_eq!(run.err, "warning: y\n");
    let request: Value = serde_json::from_str(&agent.requests()[0].body).unwrap();
    let args = ["--from=shop/web", "--to=shop/api", "--port=8080", "--port=53/UDP", "--namespace=shop"];
    assert_eq!(request, json!({"args": args, "form": "text", "colour": false}));

    let explained = json!({"exit": 0, "out": "{\"type\":\"answer\",\"verdict\":\"allow\"}\n", "err": ""});
    let agent = scene.agent(Setup { node: "node-3".to_owned(), explained, ..Setup::default() });
    let run = scene.run(&["explain", "--node", "node-3", "--from", "shop/web", "http://api.shop/", "-o", "yaml"]);
    assert_eq!((run.code, run.out.as_str()), (Some(0), "type: answer\nverdict: allow\n"), "{}", run.err);
    let request: Value = serde_json::from_str(&agent.requests()[0].body).unwrap();
    assert_eq!(
        request,
        json!({"args": ["--from=shop/web", "--namespace=default", "--", "http://api.shop/"], "form": "json", "colour": false})
    );

    agent.becomes(Mode::Refusing(400, "no such pod".to_owned()));
    let run = scene.run(&["explain", "--node", "node-3", "--from", "shop/web", "http://api.shop/"]);
    assert_eq!(run.code, Some(2));
    assert!(run.err.contains("node-3: the agent answers 400: no such pod"), "{}", run.err);
}

#[test]
fn command_lines_that_make_no_sense() {
    let scene = Scene::new();
    for (arguments, expected) in [
        (&["tail", "--local", "--context", "test"][..], "--local is about this machine or a recording, and --context about a cluster"),
        (&["tail", "-f", "x.yaml", "--node", "node-1"], "--manifests is about this machine or a recording, and --node about a cluster"),
        (&["tail", "--local", "--replay", "x"], "cannot be used with"),
        (&["tail", "-f", "x.yaml", "--no-follow"], "--no-follow is about what the agents of a cluster have kept"),
        (&["tail", "--summary-interval", "1s"], "--summary-interval is decided by the agents of the cluster"),
        (&["tail", "--profile", "baseline=per-pod"], "--profile is decided by the agents of the cluster"),
        (&["tail", "-A", "-n", "shop"], "-A asks for all namespaces and -n for one"),
        (&["tail", "--oneline", "-o", "json"], "--oneline is about text"),
        (&["tail", "--as-service-account", "shop/viewer"], "nothing says how to know them"),
        (&["tail", "--as-service-account", "viewer"], "expected NAMESPACE/NAME"),
        (&["status", "--agent-fingerprint", "abc"], "expected a SHA-256 fingerprint"),
        (&["status", "--agent-ca", "x.pem"], "is about agents in tenant mode, which want a token"),
        (&["explain", "--from", "a", "http://b", "--profile", "baseline=per-pod"], "--profile is decided by the agents"),
        (&["explain", "--queries", "-"], "--queries needs the cluster's objects in files"),
        (&["explain", "-f", "x.yaml", "--from", "a", "http://b", "--node", "c"], "--node is about a cluster, and --manifests are files"),
        (&["completion", "tcsh"], "possible values: bash, zsh, fish"),
    ] {
        let run = scene.run(arguments);
        assert_eq!(run.code, Some(2), "{arguments:?}: {}", run.err);
        assert!(run.err.contains(expected), "{arguments:?}: {}", run.err);
    }
    // Without any cluster.
    let output = scene.command(&["explain", "--from", "a", "http://b"]).env_remove("KUBECONFIG").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no cluster is configured, and no manifests are given"));
    let output = scene.command(&["tail", "--last", "5"]).env_remove("KUBECONFIG").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "this machine has no history");
    // All namespaces, and some of them left out.
    scene.agent(Setup { node: "node-1".to_owned(), ..Setup::default() });
    assert_eq!(scene.run(&["tail", "--no-follow", "-A", "--not", "-n", "kube-system"]).code, Some(0));
    assert_eq!(scene.server.get("v1", "Pod", NAMESPACE, "agent-node-1").unwrap()["spec"]["nodeName"], "node-1");
}
