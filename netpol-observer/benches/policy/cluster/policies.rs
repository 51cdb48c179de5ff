//! NetworkPolicies of all shapes that people write.

use serde_json::{Value, json};

use super::plan::{Namespace, Plan, TEAMS, Workload};
use super::random::Random;

/// What a policy's `spec` is made from.
type Template = fn(&Namespace, &Workload, &mut Random) -> Value;

/// For the whole namespace: the first of them stand in every namespace that has policies.
const OF_NAMESPACE: [(&str, Template); 5] = [
    ("default-deny", default_deny),
    ("allow-dns", allow_dns),
    ("allow-same-namespace", allow_same_namespace),
    ("allow-monitoring", allow_monitoring),
    ("allow-ingress-controller", allow_ingress_controller),
];

/// For one workload each.
const OF_WORKLOAD: [(&str, Template); 9] = [
    ("callers", callers),
    ("teams", other_teams),
    ("data", to_data),
    ("internet", to_the_internet),
    ("calls", calls_other_namespaces),
    ("addresses", from_addresses),
    ("open", open_to_all),
    ("stage", from_stage),
    ("protocols", by_protocol),
];

/// Exactly `wanted` policies; one namespace in ten has none.
pub(super) fn network_policies(plan: &Plan, wanted: usize, random: &mut Random) -> Vec<Value> {
    let namespaces: Vec<&Namespace> =
        plan.namespaces.iter().filter(|namespace| !namespace.is_system && !namespace.workloads.is_empty()).collect();
    let isolated: Vec<&Namespace> =
        namespaces.into_iter().enumerate().filter(|(i, _)| i % 10 != 9).map(|(_, namespace)| namespace).collect();
    let mut policies = Vec::with_capacity(wanted);
    for round in 0.. {
        for namespace in &isolated {
            if policies.len() == wanted {
                return policies;
            }
            let workload = &namespace.workloads[round % namespace.workloads.len()];
            let (name, spec) = match OF_NAMESPACE.get(round) {
                Some((name, template)) => ((*name).to_owned(), template(namespace, workload, random)),
                None => {
                    let (what, template) = random.pick(&OF_WORKLOAD);
                    (format!("{}-{what}-{round}", workload.name), template(namespace, workload, random))
                }
            };
            policies.push(json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"namespace": namespace.name, "name": name},
                "spec": spec,
            }));
        }
    }
    policies
}

fn selects(workload: &Workload) -> Value {
    json!({"matchLabels": {"app.kubernetes.io/name": workload.label("app.kubernetes.io/name")}})
}

fn in_namespace(name: &str) -> Value {
    json!({"matchLabels": {"kubernetes.io/metadata.name": name}})
}

/// The port of the workload: by name, by number, or in a range of numbers.
fn port_of(workload: &Workload, random: &mut Random) -> Value {
    let (name, number, protocol) = *workload.port().unwrap_or(&("http", 8080, "TCP"));
    match random.below(4) {
        0 | 1 => json!({"port": name, "protocol": protocol}),
        2 => json!({"port": number, "protocol": protocol}),
        _ => json!({"port": (number / 100 * 100).max(1), "endPort": number / 100 * 100 + 99, "protocol": protocol}),
    }
}

fn default_deny(_: &Namespace, _: &Workload, random: &mut Random) -> Value {
    match random.below(3) {
        0 => json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        1 => json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": []}),
        _ => json!({"podSelector": {}}),
    }
}

fn allow_dns(_: &Namespace, _: &Workload, _: &mut Random) -> Value {
    json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{
        "to": [{"namespaceSelector": in_namespace("kube-system"), "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
        "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
    }]})
}

fn allow_same_namespace(_: &Namespace, _: &Workload, random: &mut Random) -> Value {
    let everyone = json!([{"podSelector": {}}]);
    match random.below(3) {
        0 => json!({"podSelector": {}, "ingress": [{"from": everyone}]}),
        1 => {
            json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{"from": everyone}], "egress": [{"to": everyone}]})
        }
        // Not to the data stores, which have rules of their own.
        _ => json!({
            "podSelector": {"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["data"]}]},
            "policyTypes": ["Ingress", "Egress"], "ingress": [{"from": everyone}], "egress": [{"to": everyone}],
        }),
    }
}

fn allow_monitoring(_: &Namespace, _: &Workload, _: &mut Random) -> Value {
    let prometheus = json!({"matchLabels": {"app.kubernetes.io/name": "prometheus"}});
    json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{
        "from": [{"namespaceSelector": in_namespace("monitoring"), "podSelector": prometheus}],
        "ports": [{"port": "metrics"}],
    }]})
}

fn allow_ingress_controller(_: &Namespace, _: &Workload, _: &mut Random) -> Value {
    json!({"podSelector": {"matchLabels": {"tier": "frontend"}}, "ingress": [{
        "from": [{"namespaceSelector": in_namespace("ingress")}],
        "ports": [{"port": "http", "protocol": "TCP"}],
    }]})
}

/// Some of the namespace's workloads may call this one.
fn callers(namespace: &Namespace, workload: &Workload, random: &mut Random) -> Value {
    let names: Vec<&str> = (0..1 + random.below(3))
        .map(|_| namespace.workloads[random.below(namespace.workloads.len())].label("app.kubernetes.io/name"))
        .collect();
    let peer = json!({"podSelector": {"matchExpressions": [{"key": "app.kubernetes.io/name", "operator": "In", "values": names}]}});
    json!({"podSelector": selects(workload), "ingress": [{"from": [peer], "ports": [port_of(workload, random)]}]})
}

/// Workloads of other teams may call, two lists of peers in one rule and a rule for the same team.
fn other_teams(namespace: &Namespace, workload: &Workload, random: &mut Random) -> Value {
    let teams = [random.pick(&TEAMS), random.pick(&TEAMS)];
    let team = namespace.labels.iter().find(|(key, _)| *key == "team").map_or("", |(_, team)| team);
    let of_teams = json!({"matchExpressions": [{"key": "team", "operator": "In", "values": teams}]});
    let clients = json!({"matchExpressions": [
        {"key": "tier", "operator": "In", "values": ["frontend", "backend"]}, {"key": "legacy", "operator": "DoesNotExist"},
    ]});
    json!({"podSelector": selects(workload), "policyTypes": ["Ingress"], "ingress": [
        {"from": [{"namespaceSelector": of_teams, "podSelector": clients}], "ports": [port_of(workload, random)]},
        {"from": [{"namespaceSelector": {"matchLabels": {"team": team}}}], "ports": [port_of(workload, random), {"port": "metrics"}]},
    ]})
}

/// The namespace's data stores take calls from its backends.
fn to_data(_: &Namespace, _: &Workload, _: &mut Random) -> Value {
    let backends = json!({"matchLabels": {"tier": "backend"}, "matchExpressions": [{"key": "version", "operator": "Exists"}]});
    json!({"podSelector": {"matchLabels": {"tier": "data"}}, "policyTypes": ["Ingress"], "ingress": [{
        "from": [{"podSelector": backends}],
        "ports": [{"port": "postgres"}, {"port": 6379, "protocol": "TCP"}, {"port": 5671, "endPort": 5672}],
    }]})
}

/// Out of the cluster, and not into private networks.
fn to_the_internet(_: &Namespace, workload: &Workload, random: &mut Random) -> Value {
    let block = json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]}});
    let partner = json!({"ipBlock": {"cidr": format!("203.0.{}.0/24", random.below(114))}});
    json!({"podSelector": selects(workload), "policyTypes": ["Egress"], "egress": [
        {"to": [block], "ports": [{"port": 443, "protocol": "TCP"}]},
        {"to": [partner], "ports": [{"port": 8000, "endPort": 8999}]},
    ]})
}

/// This workload may call frontends and APIs of other namespaces; the port's name is looked up there.
fn calls_other_namespaces(_: &Namespace, workload: &Workload, random: &mut Random) -> Value {
    let namespaces = json!({"matchExpressions": [
        {"key": "team", "operator": "NotIn", "values": [random.pick(&TEAMS)]}, {"key": "stage", "operator": "In", "values": ["prod", "staging"]},
    ]});
    json!({"podSelector": selects(workload), "policyTypes": ["Egress"], "egress": [
        {"to": [{"namespaceSelector": namespaces, "podSelector": {"matchExpressions": [
            {"key": "app.kubernetes.io/component", "operator": "In", "values": ["web", "api", "grpc"]},
        ]}}], "ports": [{"port": "http"}, {"port": "grpc"}]},
        {"to": [{"podSelector": {}}]},
    ]})
}

/// From nodes and from a partner's network.
fn from_addresses(_: &Namespace, workload: &Workload, random: &mut Random) -> Value {
    let third = random.below(114);
    json!({"podSelector": selects(workload), "policyTypes": ["Ingress"], "ingress": [{
        "from": [
            {"ipBlock": {"cidr": "192.168.0.0/16"}},
            {"ipBlock": {"cidr": format!("203.0.{third}.0/24"), "except": [format!("203.0.{third}.128/25")]}},
        ],
        "ports": [port_of(workload, random), {"port": 9102}],
    }]})
}

/// Anyone, on the serving port or on any.
fn open_to_all(_: &Namespace, workload: &Workload, random: &mut Random) -> Value {
    let rule = if random.percent(30) { json!({}) } else { json!({"ports": [port_of(workload, random)]}) };
    json!({"podSelector": selects(workload), "ingress": [rule]})
}

/// Frontends of namespaces of some stage.
fn from_stage(_: &Namespace, workload: &Workload, random: &mut Random) -> Value {
    let stage = random.pick(&["prod", "staging", "dev"]);
    json!({"podSelector": {"matchLabels": {"app.kubernetes.io/component": workload.label("app.kubernetes.io/component")}}, "ingress": [{
        "from": [{"namespaceSelector": {"matchLabels": {"stage": stage}}, "podSelector": {"matchLabels": {"tier": "frontend"}}}],
        "ports": [port_of(workload, random), {"port": 5000}, {"port": 9000}],
    }]})
}

/// Whole protocols.
fn by_protocol(_: &Namespace, workload: &Workload, _: &mut Random) -> Value {
    json!({"podSelector": selects(workload), "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": {}}], "ports": [{"protocol": "TCP"}]}],
        "egress": [{"ports": [{"protocol": "UDP"}, {"protocol": "SCTP"}]}, {"to": [{"namespaceSelector": {}}], "ports": [{"port": "metrics"}]}],
    })
}
