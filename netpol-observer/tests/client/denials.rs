//! From a drop in the kernel of a node to the line of `observer tail`: the real agent on a node of network namespaces, whose objects the API
//! server has.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xtask::netns::Sandbox;

use crate::PATIENCE;
use crate::node::{API, Node, PORT, cluster, machine, pod, policy, published, start_agent, start_agent_without_objects};
use crate::scene::{Scene, Tail};

const WEB: Ipv4Addr = Ipv4Addr::new(10, 244, 2, 30);

impl Tail {
    /// The next line of a type.
    pub(crate) fn line(&self, kind: &str) -> Value {
        self.find(|line| line["type"] == kind)
    }

    /// The next line that is wanted.
    pub(crate) fn find(&self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.next_line(left).unwrap_or_else(|| panic!("it does not come: {}", self.said()));
            let line: Value = serde_json::from_str(&line).unwrap();
            if is_wanted(&line) {
                return line;
            }
        }
    }
}

/// `shop/web`, or who it is.
pub(crate) fn name(party: &Value) -> String {
    match (party["namespace"].as_str(), party["name"].as_str()) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        (None, Some(name)) => name.to_owned(),
        _ => party["kind"].as_str().unwrap_or_default().to_owned(),
    }
}

pub(crate) fn ends(line: &Value) -> (String, String) {
    (name(&line["client"]), name(&line["server"]))
}

/// A tail whose agent has begun to send.
pub(crate) fn start_tail(scene: &Scene) -> Tail {
    let tail = scene.tail(&[]);
    let end = Instant::now() + PATIENCE;
    let readers = || agent_status(scene)["clients"]["readers"].as_u64();
    while readers() != Some(1) {
        assert!(Instant::now() < end, "no reader: {}", tail.said());
        sleep(Duration::from_millis(50));
    }
    tail
}

/// What the agent of node-1 says of itself.
pub(crate) fn agent_status(scene: &Scene) -> Value {
    let status = scene.run(&["status", "-o", "json", "--node", "node-1"]);
    let mut status: Value = serde_json::from_str(&status.out).unwrap_or_else(|error| panic!("{error}: {}{}", status.out, status.err));
    status["agents"][0]["status"].take()
}

#[test]
fn a_drop_is_explained_on_a_laptop() {
    let Some(_machine) = machine("denials::a_drop_is_explained_on_a_laptop") else { return };
    let (scene, node) = (Scene::new(), Node::new());
    cluster(&scene);
    scene.server.create(pod("web", "node-2", &json!({"app": "web"}), Some(WEB))).unwrap();
    let agent = start_agent(&scene);
    let tail = start_tail(&scene);
    node.send(&[WEB], PORT);
    let line = tail.line("denial");
    assert_eq!(ends(&line), ("shop/web".to_owned(), "shop/api".to_owned()), "{line:#}");
    assert_eq!((&line["class"], &line["node"], &line["verdict"]), (&"policyDenied".into(), &"node-1".into(), &"deny".into()), "{line:#}");
    let isolating = &line["explanation"]["ingress"]["isolating"];
    assert_eq!(isolating[0]["policy"]["name"], "api", "{line:#}");
    assert!(line["moment"]["exact"].as_bool().unwrap(), "{line:#}");

    // The same question without a drop, and the account of the agents.
    let explained = scene.run(&["explain", "--from", "shop/web", "--to", "shop/api", "--port", "9000/UDP"]);
    assert_eq!(explained.code, Some(1), "{}{}", explained.out, explained.err);
    assert!(explained.out.contains("api"), "{}", explained.out);
    let status = agent_status(&scene);
    assert_eq!((&status["objects"]["pods"], &status["sync"]["pods"]["watching"]), (&json!(3), &true.into()), "{status:#}");

    // What the policy is changed to holds for the next drop, and the change has a line with what it does.
    scene.server.replace(policy("api", &json!([{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]))).unwrap();
    let change = tail.line("policyChange");
    assert_eq!((&change["object"]["name"], &change["allowed"]["workloads"]), (&"api".into(), &json!(1)), "{change:#}");
    sleep(Duration::from_secs(1));
    node.send(&[WEB], PORT + 1);
    let line = tail.line("denial");
    assert_eq!(line["verdict"], "allow", "{line:#}");
    assert_eq!(line["moment"]["changes"][0]["object"]["name"], "api", "{line:#}");
    let ended = tail.interrupt();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let said = agent.interrupt();
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(!said.err.contains("warning"), "{}", said.err);
}

/// Pods in the network of the node have its address: by the socket's cgroup each is told apart, and without one all are candidates.
#[test]
fn the_pod_in_the_nodes_network_is_named() {
    let Some(_machine) = machine("denials::the_pod_in_the_nodes_network_is_named") else { return };
    let (scene, node) = (Scene::new(), Node::new());
    cluster(&scene);
    let pods = ["exporter", "proxy"];
    let sandboxes = pods.map(|name| {
        let mut of_node = pod(name, "node-1", &json!({"app": name}), Some(Ipv4Addr::new(192, 0, 2, 1)));
        of_node["spec"]["hostNetwork"] = json!(true);
        let created = scene.server.create(of_node).unwrap();
        Sandbox::start(&node.netns, created["metadata"]["uid"].as_str().unwrap()).unwrap()
    });
    let own =
        format!("table inet own {{ chain sends {{ type filter hook output priority 0; policy accept; udp dport {PORT}-9999 drop; }}; }}");
    node.netns.nft(&own).unwrap();
    let _agent = start_agent(&scene);
    let tail = start_tail(&scene);
    let to = |port| SocketAddr::new(API.into(), port);
    // One after the other, to one port.
    for (sandbox, pod) in sandboxes.iter().zip(pods) {
        sandbox.send_udp(to(PORT)).unwrap();
        let line = tail.line("denial");
        assert_eq!(ends(&line), ("node-1".to_owned(), "shop/api".to_owned()), "{line:#}");
        assert_eq!(line["client"]["candidates"], json!([format!("shop/{pod}")]), "{line:#}");
    }
    // No pod's process.
    node.netns.in_ns(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", to(PORT + 1))).unwrap().unwrap_err();
    let line = tail.line("denial");
    assert_eq!(line["client"]["candidates"], json!(["shop/exporter", "shop/proxy"]), "{line:#}");
}

/// A pod sends before its address is published, 0 to 3 s later as kubelet does it.
#[test]
fn a_newborn_pod_is_named() {
    let Some(_machine) = machine("denials::a_newborn_pod_is_named") else { return };
    let (scene, node) = (Scene::new(), Node::new());
    cluster(&scene);
    let _agent = start_agent(&scene);
    let tail = start_tail(&scene);
    for (number, lag) in [0, 700, 2500].into_iter().enumerate() {
        let (name, address) = (format!("born-{number}"), Ipv4Addr::new(10, 244, 2, 40 + number as u8));
        scene.server.create(pod(&name, "node-2", &json!({"app": "born"}), None)).unwrap();
        node.send(&[address], PORT);
        sleep(Duration::from_millis(lag));
        scene.server.patch(&published(&name, address)).unwrap();
        let line = tail.line("denial");
        assert_eq!(ends(&line), (format!("shop/{name}"), "shop/api".to_owned()), "{line:#}");
        let how = line["moment"]["owners"][0]["how"].as_str();
        assert!(how == Some("publishedLater") || lag == 0, "{line:#}");
    }
    // Later than is waited for: the drop is printed without an owner, and amended.
    let address = Ipv4Addr::new(10, 244, 2, 50);
    scene.server.create(pod("late", "node-2", &json!({"app": "born"}), None)).unwrap();
    node.send(&[address], PORT);
    let line = tail.line("denial");
    assert_eq!(line["moment"]["owners"][0]["how"], "notKnown", "{line:#}");
    assert_eq!(line["client"]["ip"], json!(address));
    scene.server.patch(&published("late", address)).unwrap();
    let amendment = tail.line("amendment");
    assert_eq!(ends(&amendment["denial"]), ("shop/late".to_owned(), "shop/api".to_owned()), "{amendment:#}");
    assert_eq!(amendment["id"], line["id"]);
}

/// Drops go on to be captured, judged by what is known, and marked, while the API server is away; afterwards all is as before.
#[test]
fn the_api_server_may_be_away() {
    let Some(_machine) = machine("denials::the_api_server_may_be_away") else { return };
    let (scene, node) = (Scene::new(), Node::new());
    cluster(&scene);
    scene.server.create(pod("web", "node-2", &json!({"app": "web"}), Some(WEB))).unwrap();
    let _agent = start_agent(&scene);
    let before = node.denied();
    scene.server.go_away().unwrap();
    // `NETPOL_OBSERVER_TEST_AWAY` has another number of seconds.
    let away = std::env::var("NETPOL_OBSERVER_TEST_AWAY").map_or(4, |seconds| seconds.parse().unwrap());
    sleep(Duration::from_secs(away));
    node.send(&[WEB], PORT);
    sleep(Duration::from_millis(300));
    scene.server.come_back().unwrap();
    let new = Ipv4Addr::new(10, 244, 2, 60);
    scene.server.create(pod("new", "node-2", &json!({"app": "new"}), Some(new))).unwrap();
    let tail = scene.tail(&["--since", "1m"]);
    let line = tail.line("denial");
    assert_eq!(ends(&line).0, "shop/web", "{line:#}");
    assert_eq!(line["moment"]["exact"], false, "{line:#}");
    // The agent asks for what it missed when its patience with a server that is away is over: until then the pod is not known, and what it sent is
    // amended afterwards.
    node.send(&[new], PORT + 1);
    let line = tail.find(|line| ends(line).0 == "shop/new" || ends(&line["denial"]).0 == "shop/new");
    let new_line = if line["type"] == "amendment" { &line["denial"] } else { &line };
    assert_eq!(new_line["verdict"], "deny", "{line:#}");
    let status = agent_status(&scene);
    let ledger = &status["ledger"];
    assert_eq!((&ledger["balanced"], &ledger["kernel"]["ringFull"]), (&true.into(), &0.into()), "{ledger:#}");
    assert!(ledger["kernel"]["seen"].as_u64().unwrap() >= node.denied() - before, "{ledger:#}");
}

/// An agent without an API server captures all the same, and says what it does not know.
#[test]
fn an_agent_starts_without_an_api_server() {
    let Some(_machine) = machine("denials::an_agent_starts_without_an_api_server") else { return };
    let (scene, node) = (Scene::new(), Node::new());
    cluster(&scene);
    scene.server.create(pod("web", "node-2", &json!({"app": "web"}), Some(WEB))).unwrap();
    scene.server.go_away().unwrap();
    let agent = start_agent_without_objects(&scene, &["--retain", "1000"]);
    node.send(&[WEB], PORT);
    sleep(Duration::from_secs(4));
    scene.server.come_back().unwrap();
    let tail = scene.tail(&["--since", "1m"]);
    let line = tail.find(|line| line["type"] == "denial" || line["type"] == "amendment");
    let denial = if line["type"] == "denial" { &line } else { &line["denial"] };
    assert_eq!(denial["moment"]["exact"], false, "{line:#}");
    assert_eq!(denial["server"]["ip"], json!(API));
    let amended = tail.line("amendment");
    let amended = &amended["denial"];
    assert_eq!(ends(amended), ("shop/web".to_owned(), "shop/api".to_owned()), "{amended:#}");
    drop(agent);
}
