//! Tests of policies.

use k8s_openapi::api::networking::v1 as networking;

use super::*;
use crate::cluster::{Cidr, IpBlock, NetworkPolicy, Operator, Peer, PolicyPort, PortNumber, Selector};

fn policy(spec: Value) -> NetworkPolicy {
    let written: networking::NetworkPolicy = from(json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": spec}));
    let mut errors = FieldErrors::new();
    let policy = network_policy(written, &mut errors);
    assert_eq!(policy.invalid, errors.iter().map(ToString::to_string).collect::<Vec<_>>());
    policy
}

/// The policy of one ingress rule.
fn rule(rule: Value) -> NetworkPolicy {
    policy(json!({"podSelector": {}, "ingress": [rule]}))
}

fn peers(policy: &NetworkPolicy) -> &[Peer] {
    &policy.ingress.as_ref().expect("isolates ingress")[0].peers
}

fn ports(policy: &NetworkPolicy) -> &[PolicyPort] {
    &policy.ingress.as_ref().expect("isolates ingress")[0].ports
}

#[test]
fn policy_types_are_defaulted() {
    for (spec, ingress, egress) in [
        (json!({}), Some(0), None),
        (json!({"policyTypes": []}), Some(0), None),
        (json!({"policyTypes": null, "ingress": null, "egress": null}), Some(0), None),
        (json!({"ingress": []}), Some(0), None),
        (json!({"ingress": [{}]}), Some(1), None),
        (json!({"egress": []}), Some(0), None),
        (json!({"egress": [{}, {}]}), Some(0), Some(2)),
        (json!({"policyTypes": ["Egress"]}), None, Some(0)),
        (json!({"policyTypes": ["Egress"], "ingress": [{}]}), None, Some(0)),
        (json!({"policyTypes": ["Ingress"], "egress": [{}]}), Some(0), None),
        (json!({"policyTypes": ["Egress", "Ingress"]}), Some(0), Some(0)),
    ] {
        let policy = policy(spec.clone());
        assert_eq!((policy.ingress.map(|r| r.len()), policy.egress.map(|r| r.len())), (ingress, egress), "{spec}");
        assert_eq!(policy.invalid, [""; 0], "{spec}");
    }
}

#[test]
fn an_unknown_policy_type_is_reported() {
    let policy = policy(json!({"policyTypes": ["Ingress", "egress"], "egress": [{}]}));
    assert_eq!((policy.ingress.is_some(), policy.egress.is_some()), (true, false));
    assert_eq!(policy.invalid, ["spec.policyTypes[1]: Unsupported value: \"egress\": supported values: \"Ingress\", \"Egress\""]);
}

#[test]
fn the_pod_selector_selects_all_when_empty() {
    for spec in [json!({}), json!({"podSelector": {}}), json!({"podSelector": {"matchLabels": null, "matchExpressions": null}})] {
        assert_eq!(policy(spec).pod_selector, Selector::default());
    }
}

#[test]
fn selectors_are_compiled() {
    let policy = policy(json!({"podSelector": {"matchLabels": {"app": "web", "empty": ""}, "matchExpressions": [
        {"key": "a", "operator": "In", "values": ["x", "y"]},
        {"key": "b", "operator": "NotIn", "values": ["x"]},
        {"key": "example.org/c", "operator": "Exists"},
        {"key": "d", "operator": "DoesNotExist", "values": []},
    ]}}));
    assert_eq!(policy.pod_selector.to_string(), "app=web,empty=,a in (x,y),b!=x,example.org/c,!d");
    assert_eq!(policy.invalid, [""; 0]);
}

#[test]
fn invalid_selectors_match_nothing_and_are_reported() {
    let long = "x".repeat(64);
    let cases = [
        (json!({"matchExpressions": [{"key": "a", "operator": "In"}]}), "matchExpressions[0].values: Required value"),
        (json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": []}]}), "matchExpressions[0].values: Required value"),
        (json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}), "matchExpressions[0].values: Forbidden"),
        (json!({"matchExpressions": [{"key": "a", "operator": "DoesNotExist", "values": [""]}]}), "matchExpressions[0].values: Forbidden"),
        (
            json!({"matchExpressions": [{"key": "a", "operator": "in", "values": ["x"]}]}),
            "matchExpressions[0].operator: Invalid value: \"in\"",
        ),
        (json!({"matchExpressions": [{"key": "a"}]}), "matchExpressions[0].operator: Invalid value: \"\""),
        (json!({"matchExpressions": [{"key": "a b", "operator": "Exists"}]}), "matchExpressions[0].key: Invalid value: \"a b\": name part"),
        (json!({"matchExpressions": [{"key": "", "operator": "Exists"}]}), "matchExpressions[0].key: Invalid value: \"\": name part"),
        (
            json!({"matchExpressions": [{"key": "A.B/c", "operator": "Exists"}]}),
            "matchExpressions[0].key: Invalid value: \"A.B/c\": prefix",
        ),
        (json!({"matchExpressions": [{"key": "/c", "operator": "Exists"}]}), "matchExpressions[0].key: Invalid value: \"/c\": prefix"),
        (
            json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["ok", "-x"]}]}),
            "matchExpressions[0].values[1]: Invalid value: \"-x\"",
        ),
        (json!({"matchLabels": {"a/b/c": "x"}}), "matchLabels: Invalid value: \"a/b/c\""),
        (json!({"matchLabels": {"a": long}}), "matchLabels: Invalid value: \"xxx"),
    ];
    for (selector, expected) in cases {
        let policy = policy(json!({"podSelector": selector}));
        let [requirement] = policy.pod_selector.requirements.as_slice() else { panic!("{selector}: not one requirement") };
        assert!(matches!(requirement.operator, Operator::Invalid(_)), "{selector}");
        let Some(message) = policy.invalid.first() else { panic!("{selector}: no message") };
        assert!(message.starts_with(&format!("spec.podSelector.{expected}")), "{selector}: {message}");
    }
}

#[test]
fn peers_keep_absent_and_empty_selectors_apart() {
    let policy = rule(json!({"from": [
        {"podSelector": {}},
        {"namespaceSelector": {}},
        {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {"matchLabels": {"app": "web"}}},
    ]}));
    let told: Vec<_> = peers(&policy)
        .iter()
        .map(|peer| match peer {
            Peer::Pods { namespace, pod } => (namespace.as_ref().map(ToString::to_string), pod.as_ref().map(ToString::to_string)),
            other => panic!("{other:?}"),
        })
        .collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(told, [(None, text("<all>")), (text("<all>"), None), (text("team=a"), text("app=web"))]);
}

#[test]
fn invalid_peers_match_nothing_and_are_reported() {
    for (peer, expected) in [
        (json!({}), ": Required value: must specify a peer"),
        (json!({"podSelector": null}), ": Required value: must specify a peer"),
        (json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}), ": Forbidden: may not specify both ipBlock and another peer"),
        (json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "namespaceSelector": {}}), ": Forbidden: may not specify both ipBlock and another peer"),
        (json!({"ipBlock": {"cidr": ""}}), ".ipBlock.cidr: Required value"),
        (json!({"ipBlock": {"cidr": "10.0.0.0/33"}}), ".ipBlock.cidr: Invalid value: \"10.0.0.0/33\": must be a valid CIDR value"),
        (json!({"ipBlock": {"cidr": "10.0.0.1"}}), ".ipBlock.cidr: Invalid value: \"10.0.0.1\": must be a valid CIDR value"),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "x"]}}),
            ".ipBlock.except[1]: Invalid value: \"x\": must be a valid",
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}),
            ".ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset",
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}),
            ".ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset",
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["0.0.0.0/0"]}}),
            ".ipBlock.except[0]: Invalid value: \"0.0.0.0/0\": must be a strict subset",
        ),
        (
            json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["fd00::/8"]}}),
            ".ipBlock.except[0]: Invalid value: \"fd00::/8\": must be a strict subset",
        ),
    ] {
        let policy = rule(json!({"from": [peer]}));
        assert!(matches!(peers(&policy), [Peer::Invalid(_)]), "{peer}");
        let [message] = policy.invalid.as_slice() else { panic!("{peer}: not one message: {:?}", policy.invalid) };
        assert!(message.starts_with(&format!("spec.ingress[0].from[0]{expected}")), "{peer}: {message}");
    }
}

#[test]
fn an_ip_block_may_have_host_bits_and_mapped_addresses() {
    let block = |cidr: &str, except: &[&str]| {
        let policy = rule(json!({"from": [{"ipBlock": {"cidr": cidr, "except": except}}]}));
        assert_eq!(policy.invalid, [""; 0]);
        peers(&policy)[0].clone()
    };
    // A range and its text.
    let expected = |cidr: (&str, &str), except: &[&str]| {
        let range = |net: &str, text: &str| Cidr { net: net.parse().expect("a range"), text: text.into() };
        Peer::IpBlock(IpBlock { cidr: range(cidr.0, cidr.1), except: except.iter().map(|text| range(text, text)).collect() })
    };
    assert_eq!(block("10.1.2.3/8", &["10.9.9.9/16"]), expected(("10.1.2.3/8", "10.1.2.3/8"), &["10.9.9.9/16"]));
    assert_eq!(block("::ffff:10.0.0.0/104", &["10.1.0.0/16"]), expected(("10.0.0.0/8", "::ffff:10.0.0.0/104"), &["10.1.0.0/16"]));
    assert_eq!(block("::/0", &["fd00::/8"]), expected(("::/0", "::/0"), &["fd00::/8"]));
}

#[test]
fn ports_are_compiled() {
    let policy = rule(json!({"ports": [
        {}, {"protocol": "UDP"}, {"port": 80}, {"port": 80, "protocol": "SCTP"}, {"port": "metrics"},
        {"port": 8000, "endPort": 8999}, {"port": 1, "endPort": 1}, {"port": 65535, "protocol": ""},
    ]}));
    let told: Vec<_> = ports(&policy).iter().map(ToString::to_string).collect();
    assert_eq!(told, ["TCP", "UDP", "80/TCP", "80/SCTP", "metrics/TCP", "8000-8999/TCP", "1-1/TCP", "65535/TCP"]);
    assert_eq!(policy.invalid, [""; 0]);
}

#[test]
fn invalid_ports_match_nothing_and_are_reported() {
    for (port, expected) in [
        (json!({"port": 0}), "port: Invalid value: 0: must be between 1 and 65535, inclusive"),
        (json!({"port": -1}), "port: Invalid value: -1: must be between 1 and 65535, inclusive"),
        (json!({"port": 65536}), "port: Invalid value: 65536: must be between 1 and 65535, inclusive"),
        (json!({"port": ""}), "port: Invalid value: \"\": must contain only alpha-numeric characters"),
        (json!({"port": "80"}), "port: Invalid value: \"80\": must contain at least one letter"),
        (json!({"port": "Http"}), "port: Invalid value: \"Http\": must contain only alpha-numeric characters"),
        (json!({"port": "a-very-long-name"}), "port: Invalid value: \"a-very-long-name\": must be no more than 15"),
        (json!({"endPort": 80}), "endPort: Invalid value: 80: may not be specified when `port` is not specified"),
        (json!({"port": "http", "endPort": 80}), "endPort: Invalid value: 80: may not be specified when `port` is non-numeric"),
        (json!({"port": 80, "endPort": 79}), "endPort: Invalid value: 79: must be greater than or equal to `port`"),
        (json!({"port": 80, "endPort": 65536}), "endPort: Invalid value: 65536: must be between 1 and 65535, inclusive"),
        (json!({"protocol": "tcp"}), "protocol: Unsupported value: \"tcp\": supported values: \"TCP\", \"UDP\", \"SCTP\""),
        (json!({"port": 80, "protocol": "ICMP"}), "protocol: Unsupported value: \"ICMP\""),
    ] {
        let policy = rule(json!({"ports": [port]}));
        assert!(matches!(ports(&policy), [PolicyPort { port: PortNumber::Invalid(_), .. }]), "{port}");
        let Some(message) = policy.invalid.first() else { panic!("{port}: no message") };
        assert!(message.starts_with(&format!("spec.ingress[0].ports[0].{expected}")), "{port}: {message}");
    }
}

#[test]
fn rules_keep_their_places() {
    let policy =
        policy(json!({"policyTypes": ["Ingress", "Egress"], "ingress": [{}, {"from": []}], "egress": [{"to": [{}]}, {"ports": [{}]}]}));
    let (ingress, egress) = (policy.ingress.expect("ingress"), policy.egress.expect("egress"));
    assert_eq!((ingress.len(), egress.len()), (2, 2));
    assert!(ingress.iter().all(|rule| rule.peers.is_empty() && rule.ports.is_empty()));
    assert_eq!((egress[0].peers.len(), egress[1].ports.len()), (1, 1));
    assert_eq!(policy.invalid, ["spec.egress[0].to[0]: Required value: must specify a peer"]);
}
