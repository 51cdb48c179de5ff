//! An API server that forgets everything all the time, and kinds of policies that come and go, while drops are captured and read.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xtask::apiserver::{Cut, Fault, Scope, crd};

use crate::PATIENCE;
use crate::denials::{agent_status, name, start_tail};
use crate::node::{Node, PORT, cluster, machine, pod, policy, start_agent};
use crate::scene::{Scene, Tail};

const WEB: Ipv4Addr = Ipv4Addr::new(10, 244, 2, 30);

/// Drops in a line.
fn count(line: &Value) -> u64 {
    match line["type"].as_str() {
        Some("denial" | "repeat") => line["count"].as_u64().unwrap(),
        _ => 0,
    }
}

#[test]
fn a_storm_of_410s_loses_nothing() {
    let Some(_machine) = machine("storms::a_storm_of_410s_loses_nothing") else { return };
    let (scene, node) = (Scene::new(), Node::new());
    cluster(&scene);
    scene.server.create(pod("web", "node-2", &json!({"app": "web"}), Some(WEB))).unwrap();
    let _agent = start_agent(&scene);
    let tail = start_tail(&scene);
    let before = node.denied();
    let over = AtomicBool::new(false);
    let (mut said, mut wrong) = (0, Vec::new());
    let mut read = |tail: &Tail, patience| {
        while let Some(line) = tail.next_line(patience) {
            let line: Value = serde_json::from_str(&line).unwrap();
            if line["client"]["ip"] == json!(WEB) {
                said += count(&line);
                if name(&line["client"]) != "shop/web" {
                    wrong.push(line);
                }
            }
        }
        said
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut port = 0;
            while !over.load(Ordering::Relaxed) {
                node.send(&[WEB; 20], PORT + port % 900);
                port += 1;
                sleep(Duration::from_millis(10));
            }
        });
        for resource in ["pods", "networkpolicies", "namespaces", "services"] {
            scene.server.fail_next(Scope::verb(resource, "watch"), usize::MAX, Fault::Gone);
            scene.server.cut_watches(Scope::resource(resource), Cut::Gone);
        }
        let begin = Instant::now();
        let mut number = 0;
        while begin.elapsed() < Duration::from_secs(6) {
            let labels = json!({"app": "other", "round": number.to_string()});
            scene.server.load([pod("other", "node-2", &labels, Some(Ipv4Addr::new(10, 244, 2, 31)))]).unwrap();
            scene
                .server
                .load([policy("api", &json!([{"from": [{"podSelector": {"matchLabels": {"round": number.to_string()}}}]}]))])
                .unwrap();
            number += 1;
            read(&tail, Duration::from_millis(20));
        }
        scene.server.clear_faults();
        over.store(true, Ordering::Relaxed);
    });
    let sent = node.denied() - before;
    let end = Instant::now() + PATIENCE;
    while read(&tail, Duration::from_millis(200)) < sent && Instant::now() < end {}
    assert!(wrong.is_empty(), "{} wrong, the first: {:#}", wrong.len(), wrong[0]);
    assert_eq!(said, sent);
    let status = agent_status(&scene);
    assert_eq!((&status["ledger"]["balanced"], &status["ledger"]["kernel"]["ringFull"]), (&true.into(), &0.into()), "{status:#}");
    assert!(status["sync"]["pods"]["restarts"].as_u64().unwrap() > 3, "{:#}", status["sync"]);
    // It has recovered by itself.
    while !["pods", "networkpolicies.networking.k8s.io"].iter().all(|resource| agent_status(&scene)["sync"][resource]["watching"] == true) {
        assert!(Instant::now() < end, "{:#}", agent_status(&scene)["sync"]);
        sleep(Duration::from_millis(100));
    }
}

/// The class and the moment of the next drop to a port.
fn next_drop(node: &Node, tail: &Tail, port: u16) -> Value {
    node.send(&[WEB], port);
    tail.find(|line| line["type"] == "denial" && line["server"]["port"] == json!(port))
}

#[test]
fn kinds_of_policies_come_and_go() {
    let Some(_machine) = machine("storms::kinds_of_policies_come_and_go") else { return };
    let (scene, node) = (Scene::new(), Node::new());
    cluster(&scene);
    let front = pod("web", "node-2", &json!({"app": "front"}), Some(WEB));
    let cilium = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"namespace": "shop", "name": "l7"}, "spec": {"endpointSelector": {}}});
    let admin = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy", "metadata": {"name": "quarantine"},
        "spec": {
            "priority": 10, "subject": {"namespaces": {}},
            "ingress": [{"name": "none", "action": "Deny", "from": [{"namespaces": {}}]}],
        },
    });
    let [cilium_kind, _] = crd::cilium();
    scene.server.load([front, cilium_kind, crd::admin_network_policy(), cilium, admin]).unwrap();
    let _agent = start_agent(&scene);
    let tail = start_tail(&scene);

    let line = next_drop(&node, &tail, PORT);
    assert_eq!(
        (&line["class"], &line["explanation"]["ingress"]["by"]["policy"]["name"]),
        (&"policyDenied".into(), &"quarantine".into()),
        "{line:#}"
    );

    let definition = ["apiextensions.k8s.io/v1", "CustomResourceDefinition"];
    scene.server.delete(definition[0], definition[1], "", "adminnetworkpolicies.policy.networking.k8s.io").unwrap();
    let change = tail.line("policyChange");
    assert_eq!((&change["object"]["name"], &change["change"]), (&"quarantine".into(), &"removed".into()), "{change:#}");
    sleep(Duration::from_secs(11));
    let line = next_drop(&node, &tail, PORT + 1);
    // The policies that are evaluated admit it. Those that are not could be why.
    assert_eq!((&line["class"], &line["verdict"]), (&"undecided".into(), &"allow".into()), "{line:#}");
    assert!(line.to_string().contains("1 CiliumNetworkPolicy is not evaluated"), "{line:#}");
    let explained = scene.run(&["explain", "--from", "shop/web", "--to", "shop/api", "--port", "9000/UDP"]);
    assert!(explained.err.contains("CiliumNetworkPolicy"), "{}{}", explained.out, explained.err);

    scene.server.delete("cilium.io/v2", "CiliumNetworkPolicy", "shop", "l7").unwrap();
    let end = Instant::now() + PATIENCE;
    while agent_status(&scene)["foreign"]["CiliumNetworkPolicy.cilium.io"] != 0 {
        assert!(Instant::now() < end, "{:#}", agent_status(&scene)["foreign"]);
        sleep(Duration::from_millis(50));
    }
    let line = next_drop(&node, &tail, PORT + 2);
    assert_eq!(line["class"], "hostFirewall", "{line:#}");
}
