//! Tests of the cluster-scoped policies: what is read as what.

use super::*;
use crate::cluster::policy_api::{v1alpha1, v1alpha2};
use crate::cluster::{Action, ClusterPeer, ClusterPolicy, ClusterPolicyKind, ClusterPort, Subject, Tier};

/// A policy of a kind, from its specification.
pub(super) fn policy(kind: ClusterPolicyKind, name: &str, spec: Value) -> ClusterPolicy {
    let object = json!({"metadata": {"name": name, "labels": {"a": "b"}}, "spec": spec});
    let mut errors = FieldErrors::new();
    let policy = match kind {
        ClusterPolicyKind::AdminNetworkPolicy => admin_network_policy(from::<v1alpha1::AdminNetworkPolicy>(object), &mut errors),
        ClusterPolicyKind::BaselineAdminNetworkPolicy => {
            baseline_admin_network_policy(from::<v1alpha1::BaselineAdminNetworkPolicy>(object), &mut errors)
        }
        ClusterPolicyKind::ClusterNetworkPolicy => cluster_network_policy(from::<v1alpha2::ClusterNetworkPolicy>(object), &mut errors),
    };
    assert_eq!(policy.invalid, errors.iter().map(ToString::to_string).collect::<Vec<_>>());
    policy
}

/// An AdminNetworkPolicy.
pub(super) fn admin(spec: Value) -> ClusterPolicy {
    policy(ClusterPolicyKind::AdminNetworkPolicy, "p", spec)
}

/// The baseline.
pub(super) fn baseline(spec: Value) -> ClusterPolicy {
    policy(ClusterPolicyKind::BaselineAdminNetworkPolicy, "default", spec)
}

/// A ClusterNetworkPolicy.
pub(super) fn cluster(spec: Value) -> ClusterPolicy {
    policy(ClusterPolicyKind::ClusterNetworkPolicy, "p", spec)
}

/// As the tests below compare peers.
pub(super) fn told(peer: &ClusterPeer) -> String {
    match peer {
        ClusterPeer::Namespaces(namespaces) => format!("namespaces {namespaces}"),
        ClusterPeer::Pods { namespace, pod } => format!("pods {namespace} {pod}"),
        ClusterPeer::Nodes(nodes) => format!("nodes {nodes}"),
        ClusterPeer::Networks(networks) => {
            format!("networks {}", networks.iter().map(|cidr| format!("{cidr}={}", cidr.net)).collect::<Vec<_>>().join(" "))
        }
        ClusterPeer::DomainNames(names) => format!("domainNames {}", names.join(" ")),
        ClusterPeer::Invalid(why) => format!("invalid {why}"),
    }
}

fn told_ports(ports: &[ClusterPort]) -> Vec<String> {
    ports.iter().map(ToString::to_string).collect()
}

#[test]
fn an_admin_network_policy_is_read() {
    let policy = admin(json!({
        "priority": 7,
        "subject": {"pods": {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {}}},
        "ingress": [
            {"name": "first", "action": "Pass", "from": [
                {"namespaces": {}},
                {"pods": {"namespaceSelector": {}, "podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]}}},
            ]},
            {"action": "Deny", "name": "", "from": [{"namespaces": {"matchLabels": {"env": "dev"}}}], "ports": [
                {"portNumber": {"protocol": "UDP", "port": 53}}, {"portNumber": {"port": 80}},
                {"portRange": {"start": 8000, "end": 8999}}, {"portRange": {"protocol": "SCTP", "start": 9, "end": 9}},
                {"namedPort": "metrics"},
            ]},
        ],
        "egress": [{"action": "Allow", "to": [
            {"nodes": {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}},
            {"networks": ["10.1.2.3/8", "2001:DB8::/32", "0.0.0.0/0"]},
            {"domainNames": ["API.Example.com.", "*.Example.org"]},
        ]}],
    }));
    assert_eq!(policy.invalid, [""; 0]);
    assert_eq!((policy.kind, policy.tier, policy.priority), (ClusterPolicyKind::AdminNetworkPolicy, Tier::Admin, 7));
    assert_eq!((&*policy.name, policy.labels.len()), ("p", 1));
    let Subject::Pods { namespace, pod } = &policy.subject else { panic!("{:?}", policy.subject) };
    assert_eq!((namespace.to_string(), pod.to_string()), ("team=a".to_owned(), "<all>".to_owned()));

    let [pass, deny] = policy.ingress.as_slice() else { panic!("not two rules") };
    assert_eq!((pass.name.as_deref(), pass.action, pass.ports.len()), (Some("first"), Action::Pass, 0));
    assert_eq!(pass.peers.iter().map(told).collect::<Vec<_>>(), ["namespaces <all>", "pods <all> app!=x"]);
    assert_eq!((deny.name.as_deref(), deny.action), (None, Action::Deny));
    assert_eq!(deny.peers.iter().map(told).collect::<Vec<_>>(), ["namespaces env=dev"]);
    assert_eq!(told_ports(&deny.ports), ["53/UDP", "80/TCP", "8000-8999/TCP", "9-9/SCTP", "metrics"]);
    assert!(matches!(deny.ports.last(), Some(ClusterPort::Named(_))));

    let [allow] = policy.egress.as_slice() else { panic!("not one rule") };
    assert_eq!(allow.action, Action::Accept);
    assert_eq!(
        allow.peers.iter().map(told).collect::<Vec<_>>(),
        [
            "nodes gpu",
            "networks 10.1.2.3/8=10.1.2.3/8 2001:DB8::/32=2001:db8::/32 0.0.0.0/0=0.0.0.0/0",
            "domainNames api.example.com *.example.org"
        ]
    );
}

#[test]
fn a_baseline_admin_network_policy_is_read() {
    let policy = baseline(json!({
        "subject": {"namespaces": {}},
        "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}],
        "egress": [{"action": "Allow", "to": [{"networks": ["fd00::/8"]}, {"nodes": {}}], "ports": [{"portNumber": {"port": 443}}]}],
    }));
    assert_eq!(policy.invalid, [""; 0]);
    assert_eq!((policy.kind, policy.tier, policy.priority), (ClusterPolicyKind::BaselineAdminNetworkPolicy, Tier::Baseline, 0));
    assert_eq!(policy.subject, Subject::Namespaces(crate::cluster::Selector::default()));
    assert_eq!((policy.ingress[0].action, policy.egress[0].action), (Action::Deny, Action::Accept));
    assert_eq!(policy.egress[0].peers.iter().map(told).collect::<Vec<_>>(), ["networks fd00::/8=fd00::/8", "nodes <all>"]);
}

#[test]
fn a_cluster_network_policy_is_read() {
    for (tier, expected) in [("Admin", Tier::Admin), ("Baseline", Tier::Baseline)] {
        let policy = cluster(json!({
            "tier": tier,
            "priority": 1000,
            "subject": {"pods": {"podSelector": {"matchLabels": {"app": "x"}}}},
            "ingress": [{"action": "Accept", "from": [{"pods": {"podSelector": {}}}], "protocols": [
                {"tcp": {"destinationPort": {"number": 80}}}, {"udp": {"destinationPort": {"range": {"start": 5, "end": 6}}}},
                {"sctp": {"destinationPort": {"number": 1}}}, {"destinationNamedPort": "web"},
            ]}],
            "egress": [{"action": "Pass", "to": [{"namespaces": {}}]}, {"action": "Deny", "to": [{"networks": ["::/0"]}]}],
        }));
        assert_eq!(policy.invalid, [""; 0]);
        assert_eq!((policy.kind, policy.tier, policy.priority), (ClusterPolicyKind::ClusterNetworkPolicy, expected, 1000));
        assert_eq!(told_ports(&policy.ingress[0].ports), ["80/TCP", "5-6/UDP", "1/SCTP", "web"]);
        assert_eq!(told(&policy.ingress[0].peers[0]), "pods <all> <all>");
        assert_eq!(policy.egress.iter().map(|rule| rule.action).collect::<Vec<_>>(), [Action::Pass, Action::Deny]);
    }
}

#[test]
fn a_protocol_without_a_port_is_every_port_of_it() {
    let policy = cluster(json!({"tier": "Admin", "priority": 0, "subject": {"namespaces": {}}, "ingress": [
        {"action": "Deny", "from": [{"namespaces": {}}], "protocols": [{"tcp": {}}, {"sctp": {"destinationPort": null}}]},
    ]}));
    assert_eq!(told_ports(&policy.ingress[0].ports), ["TCP", "SCTP"]);
    let expected = |i: usize, name: &str| {
        let field = format!("spec.ingress[0].protocols[{i}].{name}");
        format!("{field}: Invalid value: 0: {field} in body should have at least 1 properties")
    };
    assert_eq!(policy.invalid, [expected(0, "tcp"), expected(1, "sctp")]);
}
