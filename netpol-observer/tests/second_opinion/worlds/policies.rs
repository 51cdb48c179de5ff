//! Policies of every kind.

use serde_json::{Map, Value, json};

use super::{HOMES, KEYS, NAMES, PORT_NAMES, PORTS, Random, VALUES};

/// A policy; of one kind no two numbers have one name.
pub(crate) fn policy(random: &mut Random, kind: &str, number: usize) -> Value {
    match kind {
        "NetworkPolicy" => network_policy(random, number),
        _ => cluster_policy(random, kind, number),
    }
}

fn network_policy(random: &mut Random, number: usize) -> Value {
    let types = random.pick(&[
        Value::Null,
        Value::Null,
        json!([]),
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Ingress", "Egress"]),
        json!(["Ingress", "Egress"]),
        json!(["Ingress", "Nonsense"]),
    ]);
    let pods = if random.chance(15) { Value::Null } else { selector(random) };
    let mut rules = |peers: &str| -> Value {
        if random.chance(20) {
            return Value::Null;
        }
        (0..random.below(4)).map(|_| network_policy_rule(random, peers)).collect()
    };
    let (ingress, egress) = (rules("from"), rules("to"));
    let home = random.pick(&HOMES);
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("n{number}"), "namespace": home},
        "spec": object([("podSelector", pods), ("policyTypes", types), ("ingress", ingress), ("egress", egress)]),
    })
}

/// Without the fields that are null.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let present = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(present.map(|(name, value)| (name.to_owned(), value)).collect())
}

fn network_policy_rule(random: &mut Random, peers: &str) -> Value {
    let from = match random.below(20) {
        0 => Value::Null,
        1 => json!([]),
        _ => (0..1 + random.below(2)).map(|_| peer(random)).collect(),
    };
    let ports = if random.chance(25) { Value::Null } else { (0..random.below(3)).map(|_| port(random)).collect() };
    object([(peers, from), ("ports", ports)])
}

fn peer(random: &mut Random) -> Value {
    match random.below(14) {
        0..4 => json!({"podSelector": selector(random)}),
        4..6 => json!({"namespaceSelector": selector(random)}),
        6..9 => json!({"namespaceSelector": selector(random), "podSelector": selector(random)}),
        9..13 => json!({"ipBlock": block(random)}),
        _ => random.pick(&[json!({}), json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}), json!({"ipBlock": {"cidr": ""}})]),
    }
}

const RANGES: [&str; 15] = [
    "0.0.0.0/0",
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/24",
    "10.1.0.5/29",
    "10.1.0.3/32",
    "203.0.113.0/24",
    "192.168.0.1/32",
    "169.254.0.0/16",
    "::/0",
    "fd00::/16",
    "fd00:1::/64",
    "2001:db8::5/128",
    "::ffff:10.1.0.0/120",
    "10.0.0.0/33",
];

fn block(random: &mut Random) -> Value {
    let mut block = json!({"cidr": random.pick(&RANGES)});
    if random.chance(5) {
        block["cidr"] = json!(random.pick(&["nonsense", "10.1.0.0", "/8"]));
    }
    if random.chance(50) {
        let excepts = [
            "10.1.0.0/24",
            "10.1.0.4/30",
            "10.2.0.0/16",
            "10.1.0.3/32",
            "203.0.113.128/25",
            "fd00:1::/64",
            "fd00:1::3/128",
            "::/0",
            "nonsense",
        ];
        block["except"] = (0..random.below(3)).map(|_| json!(random.pick(&excepts))).collect();
    }
    block
}

fn selector(random: &mut Random) -> Value {
    let mut selector = Map::new();
    if random.chance(45) {
        let key = random.pick(&KEYS);
        selector.insert("matchLabels".into(), json!({key: random.pick(&VALUES)}));
    }
    if random.chance(25) {
        selector.insert("matchExpressions".into(), (0..random.below(3)).map(|_| term(random)).collect());
    }
    if random.chance(1) {
        selector.insert("matchLabels".into(), random.pick(&[json!({"-bad": "x"}), json!({"app": "not a value"}), Value::Null]));
    }
    Value::Object(selector)
}

fn term(random: &mut Random) -> Value {
    let key = random.pick(&["app", "app", "tier", "kubernetes.io/metadata.name", "nosuch"]);
    let operator = random.pick(&["In", "In", "In", "NotIn", "NotIn", "Exists", "DoesNotExist"]);
    let operator = if random.chance(2) { "Like" } else { operator };
    let values = ["x", "y", "a", "b", "c"];
    let mut values: Vec<&str> = (0..1 + random.below(2)).map(|_| random.pick(&values)).collect();
    // In and NotIn are refused without values, the others with them.
    if operator.ends_with("In") == random.chance(3) {
        values.clear();
    }
    json!({"key": key, "operator": operator, "values": values})
}

fn port(random: &mut Random) -> Value {
    let protocols = [json!(null), json!("TCP"), json!("TCP"), json!("UDP"), json!("SCTP"), json!("")];
    let protocol = if random.chance(3) { json!("ICMP") } else { random.pick(&protocols) };
    let number = match random.below(12) {
        0 | 1 => json!(null),
        2..8 => json!(random.pick(&PORTS)),
        8..11 => json!(random.pick(&["http", "dns", "nosuch"])),
        _ => random.pick(&[json!("UPPER"), json!("80"), json!(0), json!(70000)]),
    };
    let end = if random.chance(20) { random.pick(&[json!(81), json!(8080), json!(65535), json!(65536)]) } else { json!(null) };
    object([("protocol", protocol), ("port", number), ("endPort", end)])
}

fn cluster_policy(random: &mut Random, kind: &str, number: usize) -> Value {
    let is_alpha1 = kind != "ClusterNetworkPolicy";
    let name = match kind {
        "BaselineAdminNetworkPolicy" if number == 0 => "default".to_owned(),
        // Refused: there is one only.
        "BaselineAdminNetworkPolicy" => format!("other{number}"),
        "AdminNetworkPolicy" => format!("admin{number}"),
        _ => format!("cluster{number}"),
    };
    let subject = if random.chance(2) { random.pick(&[json!({}), json!({"namespaces": {}, "pods": {}})]) } else { pods(random, is_alpha1) };
    let mut spec = json!({"subject": subject});
    if kind != "BaselineAdminNetworkPolicy" {
        // Few numbers: ties are what nobody defined.
        spec["priority"] = json!(random.pick(&[0, 10, 10, 20, 30, 1000]));
    }
    if kind == "ClusterNetworkPolicy" {
        spec["tier"] = json!(random.pick(&["Admin", "Baseline"]));
    }
    for direction in ["ingress", "egress"] {
        if random.chance(75) {
            spec[direction] = (0..random.below(4)).map(|_| cluster_rule(random, kind, direction)).collect();
        }
    }
    let version = if is_alpha1 { "v1alpha1" } else { "v1alpha2" };
    json!({"apiVersion": format!("policy.networking.k8s.io/{version}"), "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// `namespaces` or `pods`.
fn pods(random: &mut Random, is_alpha1: bool) -> Value {
    if random.chance(50) {
        return json!({"namespaces": selector(random)});
    }
    let mut pods = json!({"namespaceSelector": selector(random), "podSelector": selector(random)});
    // Only the newer version may leave it out.
    if random.chance(if is_alpha1 { 2 } else { 30 }) {
        pods.as_object_mut().expect("an object").remove("namespaceSelector");
    }
    if random.chance(1) {
        pods.as_object_mut().expect("an object").remove("podSelector");
    }
    json!({"pods": pods})
}

fn cluster_rule(random: &mut Random, kind: &str, direction: &str) -> Value {
    let accept = if kind == "ClusterNetworkPolicy" { "Accept" } else { "Allow" };
    let action = random.pick(&[accept, accept, "Deny", "Deny", "Pass"]);
    let action = if random.chance(1) { "Shrug" } else { action };
    let peers: Value = (0..if random.chance(3) { 0 } else { 1 + random.below(2) }).map(|_| cluster_peer(random, kind, direction)).collect();
    let mut rule = json!({"action": action});
    rule[if direction == "egress" { "to" } else { "from" }] = peers;
    if random.chance(55) {
        let number = if random.chance(3) { 0 } else { 1 + random.below(2) };
        if kind == "ClusterNetworkPolicy" {
            rule["protocols"] = (0..number).map(|_| alpha2_port(random)).collect();
        } else {
            rule["ports"] = (0..number).map(|_| alpha1_port(random)).collect();
        }
    }
    if random.chance(20) {
        rule["name"] = json!("named");
    }
    rule
}

fn cluster_peer(random: &mut Random, kind: &str, direction: &str) -> Value {
    // A field of somebody's newer version, or none, or two.
    if random.chance(2) {
        return random.pick(&[
            json!({}),
            json!({"services": {}}),
            json!({"namespaces": {}, "pods": {"namespaceSelector": {}, "podSelector": {}}}),
        ]);
    }
    let is_alpha1 = kind != "ClusterNetworkPolicy";
    let any_field = direction == "egress" || random.chance(2);
    match random.below(if any_field { 10 } else { 5 }) {
        0..5 => pods(random, is_alpha1),
        5 => json!({"nodes": selector(random)}),
        6 | 7 => json!({"networks": (0..1 + random.below(2)).map(|_| random.pick(&RANGES)).collect::<Vec<_>>()}),
        _ if kind == "BaselineAdminNetworkPolicy" => json!({"networks": [random.pick(&RANGES[..13])]}),
        _ => {
            let mut names: Vec<&str> = (0..1 + random.below(2)).map(|_| random.pick(&NAMES)).collect();
            if random.chance(40) {
                names.push(random.pick(&["*.example.com", "*.test", "*.never.test", "API.example.com."]));
            }
            if random.chance(3) {
                names.push(random.pick(&["one", "*", "a..b"]));
            }
            json!({"domainNames": names})
        }
    }
}

fn alpha1_port(random: &mut Random) -> Value {
    let protocol = random.pick(&["TCP", "TCP", "UDP", "SCTP"]);
    match random.below(12) {
        0..6 => json!({"portNumber": {"protocol": protocol, "port": random.pick(&PORTS)}}),
        6..9 => json!({"portRange": {"protocol": protocol, "start": random.pick(&[53, 80, 8080]), "end": random.pick(&[80, 8080, 65535])}}),
        9 | 10 => json!({"namedPort": random.pick(&PORT_NAMES)}),
        _ => random.pick(&[
            json!({}),
            json!({"portNumber": {"port": 80}}),
            json!({"portNumber": {"protocol": "TCP", "port": 0}}),
            json!({"portNumber": {"protocol": "ICMP", "port": 80}}),
            json!({"namedPort": "http", "portNumber": {"protocol": "TCP", "port": 80}}),
        ]),
    }
}

fn alpha2_port(random: &mut Random) -> Value {
    let protocol = random.pick(&["tcp", "tcp", "udp", "sctp"]);
    match random.below(12) {
        0..5 => json!({protocol: {"destinationPort": {"number": random.pick(&PORTS)}}}),
        5..8 => {
            json!({protocol: {"destinationPort": {"range": {"start": random.pick(&[53, 80, 8080]), "end": random.pick(&[80, 8080, 65535])}}}})
        }
        8 => json!({protocol: {}}),
        9 | 10 => json!({"destinationNamedPort": random.pick(&PORT_NAMES)}),
        _ => random.pick(&[
            json!({}),
            json!({"icmp": {}}),
            json!({"tcp": {"destinationPort": {}}}),
            json!({"tcp": {"destinationPort": {"number": 80, "range": {"start": 80, "end": 90}}}}),
            json!({"tcp": {"destinationPort": {"number": 80}}, "udp": {"destinationPort": {"number": 80}}}),
        ]),
    }
}
