//! AdminNetworkPolicies, ClusterNetworkPolicies of both tiers, and the baseline. No two of a tier share a priority: what ties mean is
//! undefined, and a benchmark of that would be one of nothing.

use serde_json::{Value, json};

use super::plan::Plan;
use super::random::Random;

/// Makes a policy from what names and orders it.
type Template = fn(usize, &[&str], &mut Random) -> Value;

/// In turn, after the baseline.
const TEMPLATES: [Template; 8] =
    [allow_monitoring, no_metadata, stages_apart, protect_nodes, teams_apart, delegate, baseline_data, admin_ports];

pub(super) fn cluster_policies(plan: &Plan, wanted: usize, random: &mut Random) -> Vec<Value> {
    let mut policies = vec![baseline()];
    for n in 1..wanted {
        policies.push(TEMPLATES[(n - 1) % TEMPLATES.len()](n, plan.teams(), random));
    }
    policies
}

fn v1alpha1(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn v1alpha2(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": name}, "spec": spec})
}

fn stage(stage: &str) -> Value {
    json!({"matchLabels": {"stage": stage}})
}

fn team(team: &str) -> Value {
    json!({"matchLabels": {"team": team}})
}

/// Development reaches production only where a policy of production says so.
fn baseline() -> Value {
    v1alpha1(
        "BaselineAdminNetworkPolicy",
        "default",
        json!({"subject": {"namespaces": stage("prod")}, "ingress": [
            {"name": "metrics", "action": "Allow", "from": [{"namespaces": {"matchLabels": {"purpose": "system"}}}]},
            {"name": "no-dev", "action": "Deny", "from": [{"namespaces": stage("dev")}]},
        ]}),
    )
}

fn allow_monitoring(n: usize, teams: &[&str], random: &mut Random) -> Value {
    let prometheus = json!({"pods": {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
    }});
    let name = format!("allow-monitoring-{n}");
    v1alpha1(
        "AdminNetworkPolicy",
        &name,
        json!({"priority": n, "subject": {"namespaces": team(random.pick(teams))}, "ingress": [
            {"name": "metrics", "action": "Allow", "from": [prometheus], "ports": [{"namedPort": "metrics"}]},
        ]}),
    )
}

fn no_metadata(n: usize, _: &[&str], random: &mut Random) -> Value {
    let private = format!("198.51.{}.0/18", random.pick(&[0, 64]));
    v1alpha1(
        "AdminNetworkPolicy",
        &format!("no-metadata-{n}"),
        json!({"priority": n, "subject": {"namespaces": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}}, "egress": [
            {"name": "metadata", "action": "Deny", "to": [{"networks": ["169.254.169.254/32"]}]},
            {"name": "blocklist", "action": "Deny", "to": [{"networks": [private, "2001:db8:bad::/48"]}]},
            {"name": "proxy", "action": "Pass", "to": [{"networks": ["198.51.100.0/24"]}],
                "ports": [{"portRange": {"protocol": "TCP", "start": 3128, "end": 3140}}]},
        ]}),
    )
}

/// No way from one stage's data users into another's data stores.
fn stages_apart(n: usize, _: &[&str], random: &mut Random) -> Value {
    let (from, to) = random.pick(&[("dev", "prod"), ("staging", "prod"), ("dev", "staging")]);
    let data = json!({"pods": {"namespaceSelector": stage(to), "podSelector": {"matchLabels": {"tier": "data"}}}});
    v1alpha2(
        &format!("stages-apart-{n}"),
        json!({"tier": "Admin", "priority": n, "subject": {"namespaces": stage(from)}, "egress": [
            {"name": "data", "action": "Deny", "to": [data], "protocols": [
                {"tcp": {"destinationPort": {"number": 5432}}}, {"tcp": {"destinationPort": {"range": {"start": 6379, "end": 6380}}}},
                {"destinationNamedPort": "amqp"},
            ]},
            {"name": "legacy", "action": "Deny", "to": [{"pods": {
                "namespaceSelector": {}, "podSelector": {"matchLabels": {"legacy": "true"}}}}]},
        ]}),
    )
}

/// The API server and the DNS port of nodes, and nothing else of them.
fn protect_nodes(n: usize, _: &[&str], random: &mut Random) -> Value {
    let control_plane = json!({"nodes": {"matchLabels": {"node-role": "control-plane"}}});
    v1alpha2(
        &format!("protect-nodes-{n}"),
        json!({"tier": "Admin", "priority": n, "subject": {"namespaces": stage(random.pick(&["prod", "staging"]))}, "egress": [
            {"name": "api-server", "action": "Accept", "to": [control_plane], "protocols": [{"tcp": {"destinationPort": {"number": 6443}}}]},
            {"name": "dns", "action": "Pass", "to": [{"nodes": {}}], "protocols": [{"udp": {"destinationPort": {"number": 53}}}]},
            {"name": "no-nodes", "action": "Deny", "to": [{"nodes": {}}]},
        ]}),
    )
}

/// One team's pods that are not labelled away may not be called by another team.
fn teams_apart(n: usize, teams: &[&str], random: &mut Random) -> Value {
    let (mine, theirs) = (random.pick(teams), random.pick(teams));
    let subject = json!({"pods": {"namespaceSelector": team(mine), "podSelector": {"matchExpressions": [
        {"key": "tier", "operator": "In", "values": ["backend", "data"]}, {"key": "legacy", "operator": "DoesNotExist"},
    ]}}});
    v1alpha1(
        "AdminNetworkPolicy",
        &format!("teams-apart-{n}"),
        json!({"priority": n, "subject": subject, "ingress": [
            {"name": "own", "action": "Pass", "from": [{"namespaces": team(mine)}]},
            {"name": "apart", "action": "Deny", "from": [{"pods": {"namespaceSelector": team(theirs), "podSelector": {}}}]},
        ]}),
    )
}

/// What comes from ingress controllers is left to the teams, and DNS is everyone's.
fn delegate(n: usize, teams: &[&str], random: &mut Random) -> Value {
    let dns = json!({"pods": {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }});
    v1alpha2(
        &format!("delegate-{n}"),
        json!({"tier": "Admin", "priority": n, "subject": {"namespaces": team(random.pick(teams))},
            "ingress": [{"name": "edge", "action": "Pass",
                "from": [{"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}]}],
            "egress": [{"name": "dns", "action": "Accept", "to": [dns], "protocols": [
                {"udp": {"destinationPort": {"number": 53}}}, {"tcp": {"destinationPort": {"number": 53}}},
            ]}],
        }),
    )
}

/// Without policies of its own a data store takes calls from its team only.
fn baseline_data(n: usize, teams: &[&str], random: &mut Random) -> Value {
    let mine = random.pick(teams);
    let subject = json!({"pods": {"namespaceSelector": team(mine), "podSelector": {"matchLabels": {"tier": "data"}}}});
    v1alpha2(
        &format!("baseline-data-{n}"),
        json!({"tier": "Baseline", "priority": n, "subject": subject, "ingress": [
            {"name": "own", "action": "Accept", "from": [{"namespaces": team(mine)}]},
            {"name": "monitoring", "action": "Pass", "from": [{"namespaces": {"matchLabels": {"purpose": "system"}}}]},
            {"name": "others", "action": "Deny", "from": [{"namespaces": {}}]},
        ]}),
    )
}

/// Shells and debuggers are nobody's.
fn admin_ports(n: usize, _: &[&str], random: &mut Random) -> Value {
    v1alpha2(
        &format!("admin-ports-{n}"),
        json!({"tier": "Admin", "priority": n, "subject": {"namespaces": stage(random.pick(&["prod", "dev"]))}, "ingress": [
            {"name": "shells", "action": "Deny", "from": [{"namespaces": {}}], "protocols": [
                {"tcp": {"destinationPort": {"number": 22}}}, {"tcp": {"destinationPort": {"range": {"start": 2345, "end": 2346}}}},
            ]},
        ]}),
    )
}
