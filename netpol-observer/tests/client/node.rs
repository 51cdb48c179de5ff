//! A node with pods and a firewall in network namespaces, and the real agent on it.

use std::net::Ipv4Addr;
use std::path::Path;

use netpol_observer::capture::is_built_in;
use netpol_observer::capture::permissions::Permissions;
use serde_json::{Value, json};
use xtask::machine::Machine;
use xtask::netns::{Bed, Netns};
use xtask::traffic::{Datagram, Forger};

use crate::scene::{NAMESPACE, Scene, Tail, pod as agent_pod};

/// The pod on the node that everybody calls.
pub(crate) const API: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 20);

/// The first of the ports that the node's firewall drops.
pub(crate) const PORT: u16 = 9000;

/// The machine for one test, or `None` after printing why it cannot run here.
pub(crate) fn machine(test: &str) -> Option<Machine> {
    Machine::for_test(test, &Permissions::read().missing_for_capture(), is_built_in())
}

/// A node, and a host that stands for all other nodes: what it sends has whichever source address.
pub(crate) struct Node {
    pub(crate) netns: Netns,
    others: Netns,
    _bed: Bed,
}

impl Node {
    pub(crate) fn new() -> Self {
        let mut bed = Bed::new("npo-test").unwrap();
        let own = bed.node("node", &["192.0.2.1".parse().unwrap()]).unwrap();
        own.routed_pod(&mut bed, "api", &[API.into()]).unwrap();
        let others = own.external_host(&mut bed, "others", &["192.0.2.2".parse().unwrap()]).unwrap();
        let netns = own.netns().clone();
        netns
            .nft(&format!(
                "table inet test {{
                   counter denied {{ }}
                   chain policies {{ type filter hook forward priority 0; policy accept; udp dport {PORT}-9999 counter name denied drop; }}
                 }}"
            ))
            .unwrap();
        Node { netns, others, _bed: bed }
    }

    /// Datagrams from these addresses to the pod on the node.
    pub(crate) fn send(&self, sources: &[Ipv4Addr], port: u16) {
        let send = || {
            let datagram = |number: u64| Datagram { source: sources[number as usize], destination: API, port };
            Forger::new().unwrap().send(0, sources.len(), datagram).unwrap();
        };
        self.others.in_ns(send).unwrap();
    }

    /// Packets that the firewall has dropped.
    pub(crate) fn denied(&self) -> u64 {
        self.netns.counter("denied").unwrap().packets
    }
}

/// The objects that every test begins with: nodes, namespace shop with its isolated pod api.
pub(crate) fn cluster(scene: &Scene) {
    let node = |name: &str, address: &str, range: &str| {
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"podCIDR": range, "podCIDRs": [range]},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        })
    };
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    let objects = [
        node("node-1", "192.0.2.1", "10.244.1.0/24"),
        node("node-2", "192.0.2.2", "10.244.2.0/24"),
        namespace,
        pod("api", "node-1", &json!({"app": "api"}), Some(API)),
        policy("api", &json!([{"from": [{"podSelector": {"matchLabels": {"app": "front"}}}]}])),
    ];
    scene.server.load(objects).unwrap();
}

/// A NetworkPolicy on the pods with app=api.
pub(crate) fn policy(name: &str, ingress: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"namespace": "shop", "name": name},
        "spec": {"podSelector": {"matchLabels": {"app": "api"}}, "policyTypes": ["Ingress"], "ingress": ingress},
    })
}

/// A pod in namespace shop, as its kubelet has reported it: without an address, as it is scheduled and not started.
pub(crate) fn pod(name: &str, node: &str, labels: &Value, address: Option<Ipv4Addr>) -> Value {
    let status = match address {
        Some(address) => json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}),
        None => json!({"phase": "Pending"}),
    };
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "main"}]}, "status": status,
    })
}

/// What kubelet reports when the pod has started.
pub(crate) fn published(name: &str, address: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": name},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

/// Starts the real agent of node-1, which is reached through the API server, and waits until it has the objects.
pub(crate) fn start_agent(scene: &Scene) -> Tail {
    until_ready(scene, start_agent_without_objects(scene, &[]))
}

/// The same, with a kubeconfig of its own.
pub(crate) fn start_agent_as(scene: &Scene, kubeconfig: &Path) -> Tail {
    until_ready(scene, start_agent_without_objects(scene, &["--kubeconfig", kubeconfig.to_str().unwrap()]))
}

/// The same, with more arguments.
pub(crate) fn start_agent_with(scene: &Scene, arguments: &[&str]) -> Tail {
    until_ready(scene, start_agent_without_objects(scene, arguments))
}

fn until_ready(scene: &Scene, agent: Tail) -> Tail {
    let ready = || scene.run(&["status", "--node", "node-1"]);
    let end = std::time::Instant::now() + crate::PATIENCE;
    loop {
        let run = ready();
        if run.code == Some(0) {
            return agent;
        }
        assert!(std::time::Instant::now() < end, "the agent does not get ready: {}{}\n{}", run.out, run.err, agent.said());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// The same, which has perhaps no objects yet.
pub(crate) fn start_agent_without_objects(scene: &Scene, arguments: &[&str]) -> Tail {
    let mut command = scene.command(&["agent", "--listen", "127.0.0.1:0", "--start-jitter", "1ms"]);
    command.args(arguments).env("NODE_NAME", "node-1").env("POD_NAME", "agent-1");
    let agent = Tail::start(command);
    agent.wait_for("watching drops on");
    let said = agent.said();
    let address = said.lines().find(|line| line.contains("listening on")).unwrap().rsplit('/').next().unwrap().parse().unwrap();
    scene.server.forward(NAMESPACE, "agent-1", 9470, address);
    scene.server.load([agent_pod("node-1", "agent-1", true)]).unwrap();
    agent
}
