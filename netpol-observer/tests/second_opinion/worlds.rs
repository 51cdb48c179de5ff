//! Random clusters as manifests, and calls in them. The alphabets are small, so that selectors, ranges, names and ports meet often;
//! whatever the API has can be there, and some of what it refuses.

mod policies;
mod random;
mod reduce;

use std::collections::BTreeMap;
use std::net::IpAddr;

use netpol_observer::flow::Protocol;
use serde_json::{Value, json};

pub(crate) use policies::policy;
pub(crate) use random::{Random, number, seed};
pub(crate) use reduce::reduced;

use crate::naive::{Call, World};

pub(crate) const POLICY_KINDS: [&str; 4] = ["NetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy"];

const NAMESPACES: [&str; 3] = ["a", "b", "c"];
/// Most objects are in one, so that they have to do with each other.
const HOMES: [&str; 5] = ["a", "a", "a", "b", "c"];
const VALUES: [&str; 2] = ["x", "y"];
const KEYS: [&str; 2] = ["app", "tier"];
const PORTS: [u16; 5] = [53, 80, 81, 8080, 9000];
const PORT_NAMES: [&str; 2] = ["http", "dns"];
const NAMES: [&str; 5] = ["api.example.com", "example.com", "a.b.example.com", "cdn.test", "never.learned.test"];
/// Nobody's: outside, in a pod range, link-local, loopback, multicast, IPv4-mapped.
const STRANGERS: [&str; 11] = [
    "203.0.113.5",
    "203.0.113.200",
    "10.1.0.77",
    "169.254.1.1",
    "127.0.0.1",
    "224.0.0.1",
    "2001:db8::5",
    "fd00:1::77",
    "ff02::1",
    "fe80::1",
    "::ffff:203.0.113.5",
];
const NODES: [&str; 4] = ["192.168.0.1", "192.168.0.2", "fd00:ff::1", "fd00:ff::2"];
const SERVICES: [&str; 4] = ["10.96.0.10", "10.96.0.11", "fd00:96::10", "198.51.100.1"];

/// A cluster with policies of these kinds.
pub(crate) fn world(random: &mut Random, kinds: &[&str]) -> World {
    let mut objects = Vec::new();
    // The third namespace is one that no object describes.
    objects.extend(NAMESPACES[..2].iter().map(|name| namespace(random, name)));
    objects.extend((1..=2).map(|number| node(random, number)));
    objects.extend((0..2 + random.below(7)).map(|number| pod(random, number)));
    objects.extend((0..random.below(3)).map(|number| service(random, number)));
    if random.chance(25) {
        objects.push(slice(random));
    }
    let mut of_kind = [0; 4];
    for _ in 0..2 + random.below(11) {
        // NetworkPolicies as often as all others together.
        let at = if random.chance(50) { 0 } else { random.below(kinds.len()) };
        objects.push(policy(random, kinds[at], of_kind[at]));
        of_kind[at] += 1;
    }
    let mut names = BTreeMap::new();
    for name in &NAMES[..4] {
        if random.chance(60) {
            names.insert((*name).to_owned(), learned(random));
        }
    }
    World { objects, names }
}

/// Addresses that a name is known to stand for, perhaps none.
pub(crate) fn learned(random: &mut Random) -> Vec<IpAddr> {
    let addresses = ["203.0.113.5", "203.0.113.200", "2001:db8::5", "10.1.0.3", "169.254.1.1"];
    (0..random.below(3)).map(|_| random.pick(&addresses).parse().expect("an address")).collect()
}

pub(crate) fn name_in_dns(random: &mut Random) -> &'static str {
    random.pick(&NAMES[..4])
}

pub(crate) fn namespace(random: &mut Random, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels(random)}})
}

pub(crate) fn any_namespace(random: &mut Random) -> Value {
    let name = random.pick(&NAMESPACES);
    namespace(random, name)
}

pub(crate) fn node(random: &mut Random, number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("node{number}"), "labels": labels(random)},
        "spec": {"podCIDRs": [format!("10.{number}.0.0/24"), format!("fd00:{number}::/64")]},
        "status": {"addresses": [
            {"type": "InternalIP", "address": format!("192.168.0.{number}")},
            {"type": "InternalIP", "address": format!("fd00:ff::{number}")},
            {"type": "Hostname", "address": format!("node{number}")},
        ]},
    })
}

fn labels(random: &mut Random) -> Value {
    let mut labels = serde_json::Map::new();
    for key in KEYS {
        if random.chance(70) {
            labels.insert(key.to_owned(), json!(random.pick(&VALUES)));
        }
    }
    Value::Object(labels)
}

pub(crate) fn pod(random: &mut Random, number: usize) -> Value {
    let at = 1 + random.below(2);
    let on_host = random.chance(10);
    // Few numbers: some addresses have several pods that claim them.
    let host = 1 + random.below(12);
    let (v4, v6) = if on_host {
        (format!("192.168.0.{at}"), format!("fd00:ff::{at}"))
    } else {
        (format!("10.{at}.0.{host}"), format!("fd00:{at}::{host}"))
    };
    let ips = match random.below(4) {
        0 => vec![json!({"ip": v6})],
        1 => vec![json!({"ip": format!("::ffff:{v4}")})],
        _ => vec![json!({"ip": v4}), json!({"ip": v6})],
    };
    let ports = |random: &mut Random| -> Value { (0..random.below(3)).map(|_| container_port(random)).collect() };
    let mut spec = json!({"containers": [{"name": "main", "ports": ports(random)}]});
    if random.chance(20) {
        let mut init = json!({"name": "init", "ports": ports(random)});
        if random.chance(60) {
            init["restartPolicy"] = json!("Always");
        }
        spec["initContainers"] = json!([init]);
    }
    if random.chance(75) {
        spec["nodeName"] = json!(format!("node{at}"));
    }
    if on_host {
        spec["hostNetwork"] = json!(true);
    }
    let phase = random.pick(&["Running", "Running", "Running", "Running", "Running", "Running", "Pending", "Succeeded", "Failed"]);
    let mut status = json!({"phase": phase, "podIPs": ips});
    if random.chance(10) {
        status["conditions"] = json!([{"type": "Ready", "status": random.pick(&["True", "False"])}]);
    }
    let home = random.pick(&HOMES);
    let mut metadata = json!({"name": format!("p{number}"), "namespace": home, "labels": labels(random)});
    if random.chance(40) {
        let owner = random.pick(&["StatefulSet", "ReplicaSet"]);
        let name = if owner == "ReplicaSet" { "deploy-6d4cf56db6" } else { "set" };
        metadata["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": owner, "name": name, "uid": "1", "controller": true}]);
    }
    if random.chance(5) {
        metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status})
}

fn container_port(random: &mut Random) -> Value {
    random.pick(&[
        json!({"name": "http", "containerPort": 80}),
        json!({"name": "http", "containerPort": 8080, "protocol": "TCP"}),
        json!({"name": "http", "containerPort": 80, "protocol": "UDP"}),
        json!({"name": "dns", "containerPort": 53, "protocol": "UDP"}),
        json!({"name": "dns", "containerPort": 53, "protocol": "TCP"}),
        json!({"name": "dns", "containerPort": 80, "protocol": "SCTP"}),
        json!({"containerPort": 81}),
    ])
}

pub(crate) fn service(random: &mut Random, number: usize) -> Value {
    let mut spec = json!({"ports": (0..1 + random.below(2)).map(|number| service_port(random, number)).collect::<Vec<_>>()});
    match random.below(4) {
        0 => spec["clusterIP"] = json!("None"),
        1 => spec["clusterIPs"] = json!([SERVICES[number % 2], SERVICES[2]]),
        _ => spec["clusterIPs"] = json!([SERVICES[number % 2]]),
    }
    if random.chance(30) {
        // Two Services may share it.
        spec["externalIPs"] = json!([SERVICES[3]]);
    }
    if random.chance(80) {
        let key = random.pick(&KEYS);
        spec["selector"] = json!({key: random.pick(&VALUES)});
    }
    if random.chance(20) {
        spec["publishNotReadyAddresses"] = json!(true);
    }
    let home = random.pick(&HOMES);
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s{number}"), "namespace": home}, "spec": spec})
}

fn service_port(random: &mut Random, number: usize) -> Value {
    let mut port = json!({"port": random.pick(&PORTS), "name": format!("port{number}")});
    match random.below(4) {
        0 => {}
        1 => port["targetPort"] = json!(random.pick(&PORT_NAMES)),
        _ => port["targetPort"] = json!(random.pick(&PORTS)),
    }
    if random.chance(40) {
        port["protocol"] = json!(random.pick(&["TCP", "UDP", "SCTP"]));
    }
    if random.chance(30) {
        port["nodePort"] = json!(random.pick(&PORTS));
    }
    port
}

pub(crate) fn slice(random: &mut Random) -> Value {
    let addresses = ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.2.0.4", "203.0.113.5", "10.1.0.77"];
    let endpoint = |random: &mut Random| {
        let mut endpoint = json!({"addresses": [random.pick(&addresses)]});
        if random.chance(30) {
            endpoint["conditions"] = json!({"ready": random.chance(50)});
        }
        endpoint
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "slice0", "namespace": "a", "labels": {"kubernetes.io/service-name": random.pick(&["s0", "s1"])}},
        "endpoints": (0..random.below(4)).map(|_| endpoint(random)).collect::<Vec<_>>(),
        "ports": [{"name": "port0", "port": random.pick(&PORTS), "protocol": random.pick(&["TCP", "TCP", "UDP"])}],
    })
}

/// A call between addresses that mean something in the world, mostly those of its pods.
pub(crate) fn call(random: &mut Random, pods: &[IpAddr]) -> Call {
    let source = address(random, pods);
    let mut destination = address(random, pods);
    for _ in 0..20 {
        if destination.to_canonical().is_ipv4() == source.to_canonical().is_ipv4() {
            break;
        }
        destination = address(random, pods);
    }
    let protocol = random.pick(&[Protocol::Tcp, Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp]);
    let port = (protocol.has_ports() && random.chance(92)).then(|| random.pick(&PORTS));
    Call { source, destination, protocol, port }
}

fn address(random: &mut Random, pods: &[IpAddr]) -> IpAddr {
    let other = match random.below(24) {
        0 => random.pick(&STRANGERS),
        1 => random.pick(&NODES),
        2 => random.pick(&SERVICES),
        _ if pods.is_empty() => random.pick(&STRANGERS),
        _ => return random.pick(pods),
    };
    other.parse().expect("an address")
}

/// Addresses that pods claim, those of terminated ones included.
pub(crate) fn pod_addresses(world: &World) -> Vec<IpAddr> {
    let pods = world.objects.iter().filter(|object| object["kind"] == "Pod");
    let ips = pods.flat_map(|pod| pod["status"]["podIPs"].as_array().into_iter().flatten());
    ips.filter_map(|ip| ip["ip"].as_str()?.parse().ok()).collect()
}
