//! What the API server refuses of a NetworkPolicy, word for word.

use k8s_openapi::api::networking::v1 as networking;

use super::*;

const KEY: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
                   (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                   '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                     with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
                     '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
                         and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an \
                     alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

/// What is reported, with what becomes of it.
fn refused(metadata: Value, spec: Value) -> Vec<(String, Effect)> {
    let mut errors = FieldErrors::new();
    let policy: networking::NetworkPolicy = from(json!({"metadata": metadata, "spec": spec}));
    let policy = network_policy(policy, &mut errors);
    assert_eq!(policy.invalid, errors.iter().map(ToString::to_string).collect::<Vec<_>>());
    errors.into_iter().map(|error| (error.to_string(), error.effect)).collect()
}

fn messages(spec: Value) -> Vec<String> {
    let refused = refused(json!({"name": "p"}), spec);
    refused.into_iter().map(|(message, _)| message).collect()
}

#[test]
fn metadata() {
    for (metadata, expected) in [
        (json!({"name": "a.b-c.1", "namespace": "shop", "labels": {"a/b": ""}, "annotations": {"A_b.C": "anything at all"}}), vec![]),
        (json!({"name": "Web"}), vec![format!("metadata.name: Invalid value: \"Web\": {SUBDOMAIN}")]),
        (json!({"name": "a..b"}), vec![format!("metadata.name: Invalid value: \"a..b\": {SUBDOMAIN}")]),
        (
            json!({"name": "x".repeat(254)}),
            vec![format!("metadata.name: Invalid value: \"{}\": must be no more than 253 bytes", "x".repeat(254))],
        ),
        (json!({"name": "p", "namespace": "a.b"}), vec!["metadata.namespace: Invalid value: \"a.b\": must not contain dots".to_owned()]),
        (json!({"name": "p", "namespace": "-"}), vec![format!("metadata.namespace: Invalid value: \"-\": {LABEL}")]),
        (
            json!({"name": "p", "namespace": "n".repeat(64)}),
            vec![format!("metadata.namespace: Invalid value: \"{}\": must be no more than 63 bytes", "n".repeat(64))],
        ),
        (
            json!({"name": "p", "labels": {"a b": "-"}}),
            vec![
                format!("metadata.labels: Invalid value: \"a b\": name part {KEY}"),
                format!("metadata.labels: Invalid value: \"-\": {VALUE}"),
            ],
        ),
        (
            json!({"name": "p", "annotations": {"a/b/c": ""}}),
            vec![format!(
                "metadata.annotations: Invalid value: \"a/b/c\": a valid label key {KEY} with an optional DNS subdomain prefix and '/' \
                 (e.g. 'example.com/MyName')"
            )],
        ),
        (
            json!({"name": "p", "annotations": {"a": "x".repeat(256 << 10)}}),
            vec!["metadata.annotations: Too long: may not be more than 262144 bytes".to_owned()],
        ),
    ] {
        let found = refused(metadata.clone(), json!({}));
        assert!(found.iter().all(|(_, effect)| *effect == Effect::AsWritten), "{found:?}");
        assert_eq!(found.into_iter().map(|(message, _)| message).collect::<Vec<_>>(), expected, "{metadata}");
    }
}

#[test]
fn selectors() {
    let at = "spec.podSelector.matchExpressions[0]";
    for (selector, expected) in [
        (
            json!({"matchLabels": {"/": "-"}}),
            vec![
                "spec.podSelector.matchLabels: Invalid value: \"/\": prefix part must be non-empty".to_owned(),
                "spec.podSelector.matchLabels: Invalid value: \"/\": name part must be non-empty".to_owned(),
                format!("spec.podSelector.matchLabels: Invalid value: \"/\": name part {KEY}"),
                format!("spec.podSelector.matchLabels: Invalid value: \"-\": {VALUE}"),
            ],
        ),
        (
            json!({"matchExpressions": [{"key": "A/b", "operator": "in", "values": ["a", "é"]}]}),
            vec![
                format!("{at}.operator: Invalid value: \"in\": not a valid selector operator"),
                format!("{at}.key: Invalid value: \"A/b\": prefix part {SUBDOMAIN}"),
                format!("{at}.values[1]: Invalid value: \"é\": {VALUE}"),
            ],
        ),
        (
            json!({"matchExpressions": [{"key": "x".repeat(64), "operator": "NotIn"}]}),
            vec![
                format!("{at}.values: Required value: must be specified when `operator` is 'In' or 'NotIn'"),
                format!("{at}.key: Invalid value: \"{}\": name part must be no more than 63 bytes", "x".repeat(64)),
            ],
        ),
        (
            json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x".repeat(64)]}]}),
            vec![
                format!("{at}.values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
                format!("{at}.values[0]: Invalid value: \"{}\": must be no more than 63 bytes", "x".repeat(64)),
            ],
        ),
    ] {
        assert_eq!(messages(json!({"podSelector": selector})), expected, "{selector}");
    }
}

#[test]
fn policy_types() {
    let types = |types: Value| messages(json!({"policyTypes": types}));
    assert_eq!(types(json!(["Ingress", "Ingress"])), [""; 0]);
    assert_eq!(types(json!(["", "Egress"])), ["spec.policyTypes[0]: Unsupported value: \"\": supported values: \"Ingress\", \"Egress\""]);
    // Too many hide what else is wrong with them.
    assert_eq!(
        types(json!(["Ingress", "Egress", "x"])),
        ["spec.policyTypes: Invalid value: [\"Ingress\", \"Egress\", \"x\"]: may not specify more than two policyTypes"]
    );
}

#[test]
fn every_mistake_of_a_peer() {
    let at = "spec.egress[1].to[0]";
    for (peer, expected) in [
        (
            json!({"podSelector": {"matchLabels": {"a": "-"}}, "namespaceSelector": {"matchLabels": {"": ""}}, "ipBlock": {}}),
            vec![
                format!("{at}.podSelector.matchLabels: Invalid value: \"-\": {VALUE}"),
                format!("{at}.namespaceSelector.matchLabels: Invalid value: \"\": name part must be non-empty"),
                format!("{at}.namespaceSelector.matchLabels: Invalid value: \"\": name part {KEY}"),
                format!("{at}.ipBlock.cidr: Required value"),
                format!("{at}: Forbidden: may not specify both ipBlock and another peer"),
            ],
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8", "", "10.0.0.0/08", "10.1.0.0/16"]}}),
            vec![
                format!("{at}.ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`"),
                format!("{at}.ipBlock.except[1]: Invalid value: \"\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
                format!("{at}.ipBlock.except[2]: Invalid value: \"10.0.0.0/08\": must be a strict subset of `cidr`"),
            ],
        ),
    ] {
        assert_eq!(messages(json!({"policyTypes": ["Egress"], "egress": [{}, {"to": [peer]}]})), expected, "{peer}");
    }
}

#[test]
fn every_mistake_of_a_port() {
    let at = "spec.ingress[0].ports[0]";
    for (port, expected) in [
        (
            json!({"protocol": "ICMP", "port": 70000, "endPort": 0}),
            vec![
                format!("{at}.protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\""),
                format!("{at}.port: Invalid value: 70000: must be between 1 and 65535, inclusive"),
                format!("{at}.endPort: Invalid value: 0: must be greater than or equal to `port`"),
                format!("{at}.endPort: Invalid value: 0: must be between 1 and 65535, inclusive"),
            ],
        ),
        (
            json!({"port": "-0--1-2-3-4-5-6-7-", "endPort": 1}),
            vec![
                format!("{at}.endPort: Invalid value: 1: may not be specified when `port` is non-numeric"),
                format!("{at}.port: Invalid value: \"-0--1-2-3-4-5-6-7-\": must be no more than 15 bytes"),
                format!("{at}.port: Invalid value: \"-0--1-2-3-4-5-6-7-\": must contain at least one letter (a-z)"),
                format!("{at}.port: Invalid value: \"-0--1-2-3-4-5-6-7-\": must not contain consecutive hyphens"),
                format!("{at}.port: Invalid value: \"-0--1-2-3-4-5-6-7-\": must not begin or end with a hyphen"),
            ],
        ),
    ] {
        assert_eq!(messages(json!({"ingress": [{"ports": [port]}]})), expected, "{port}");
    }
}
