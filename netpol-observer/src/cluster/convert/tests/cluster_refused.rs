//! What the published definitions of the cluster-scoped policies refuse, word for word, and what becomes of it.

use super::cluster_policies::{admin, baseline, cluster, policy, told};
use super::*;
use crate::cluster::{Action, ClusterPolicyKind, ClusterPort, ClusterRule, Direction, Subject, Tier};

fn merged(mut base: Value, more: Value) -> Value {
    if let (Value::Object(base), Value::Object(more)) = (&mut base, more) {
        base.extend(more);
    }
    base
}

/// An AdminNetworkPolicy with these fields instead of valid ones.
fn with(fields: Value) -> Value {
    merged(json!({"priority": 1, "subject": {"namespaces": {}}}), fields)
}

/// The rule of an AdminNetworkPolicy and what is reported of it, its field cut off.
fn rule_of(direction: Direction, rule: Value) -> (ClusterRule, Vec<String>) {
    let policy = admin(with(json!({direction.to_string(): [rule]})));
    let prefix = format!("spec.{direction}[0]");
    let messages = policy.invalid.iter().map(|message| message.strip_prefix(&prefix).unwrap_or(message).to_owned()).collect();
    (policy.rules(direction)[0].clone(), messages)
}

fn peer_of(peer: Value) -> (String, Vec<String>) {
    let (rule, messages) = rule_of(Direction::Egress, json!({"action": "Deny", "to": [peer]}));
    let messages = messages.into_iter().map(|message| message.strip_prefix(".to[0]").unwrap_or(&message).to_owned()).collect();
    (told(&rule.peers[0]), messages)
}

#[test]
fn metadata() {
    for (name, messages) in [("a.b", 0), ("A", 1)] {
        assert_eq!(policy(ClusterPolicyKind::AdminNetworkPolicy, name, with(json!({}))).invalid.len(), messages);
    }
    let object = from(json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": with(json!({}))}));
    let policy = admin_network_policy(object, &mut FieldErrors::new());
    assert_eq!(policy.invalid, ["metadata.namespace: Forbidden: not allowed on this type"]);
    assert_eq!(policy.subject, Subject::Namespaces(crate::cluster::Selector::default()));
}

#[test]
fn a_baseline_of_another_name_selects_nothing() {
    let policy = policy(ClusterPolicyKind::BaselineAdminNetworkPolicy, "other", json!({"subject": {"namespaces": {}}}));
    let why = "metadata.name: Invalid value: \"other\": Only one baseline admin network policy with metadata.name=\"default\" can be \
               created in the cluster";
    assert_eq!(policy.invalid, [why]);
    assert_eq!(policy.subject, Subject::Invalid(why.into()));
}

#[test]
fn what_is_required() {
    let mut errors = FieldErrors::new();
    let empty = admin_network_policy(from(json!({"metadata": {"name": "p"}})), &mut errors);
    assert_eq!(empty.invalid, ["spec: Required value"]);
    assert_eq!(empty.subject, Subject::Invalid("spec: Required value".into()));

    assert_eq!(admin(json!({})).invalid, ["spec.priority: Required value", "spec.subject: Required value"]);
    assert_eq!(baseline(json!({})).invalid, ["spec.subject: Required value"]);
    let policy = cluster(json!({"ingress": [{}], "egress": [{}]}));
    assert_eq!(
        policy.invalid,
        [
            "spec.tier: Required value",
            "spec.priority: Required value",
            "spec.subject: Required value",
            "spec.ingress[0].action: Required value",
            "spec.ingress[0].from: Required value",
            "spec.egress[0].action: Required value",
            "spec.egress[0].to: Required value",
        ]
    );
    assert_eq!(policy.subject, Subject::Invalid("spec.tier: Required value".into()));
}

#[test]
fn a_tier_that_does_not_exist_selects_nothing() {
    let policy = cluster(json!({"tier": "admin", "priority": 1, "subject": {"namespaces": {}}}));
    let why = "spec.tier: Unsupported value: \"admin\": supported values: \"Admin\", \"Baseline\"";
    assert_eq!((policy.invalid, policy.subject), (vec![why.to_owned()], Subject::Invalid(why.into())));
}

#[test]
fn priorities_keep_their_order() {
    for (priority, expected, bound) in [
        (-1, 0, "greater than or equal to 0"),
        (1001, 1001, "less than or equal to 1000"),
        (i32::MAX, u16::MAX, "less than or equal to 1000"),
        (i32::MIN, 0, "greater than or equal to 0"),
    ] {
        let policy = admin(with(json!({"priority": priority})));
        assert_eq!(policy.priority, expected);
        assert_eq!(policy.invalid, [format!("spec.priority: Invalid value: {priority}: spec.priority in body should be {bound}")]);
    }
}

#[test]
fn a_subject_has_exactly_one_field() {
    let none = "Invalid value: 0: spec.subject in body should have at least 1 properties";
    for (subject, invalid, reason) in [
        (json!({}), vec![format!("spec.subject: {none}")], none),
        (
            json!({"namespaces": {}, "pods": {"namespaceSelector": {}, "podSelector": {}}}),
            vec!["spec.subject: Too many: 2: must have at most 1 items".to_owned()],
            "Too many: 2: must have at most 1 items",
        ),
        (
            json!({"pods": {}}),
            vec![
                "spec.subject.pods.namespaceSelector: Required value".to_owned(),
                "spec.subject.pods.podSelector: Required value".to_owned(),
            ],
            "pods.namespaceSelector: Required value",
        ),
        (
            json!({"namespaces": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}),
            vec!["spec.subject.namespaces.matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator".to_owned()],
            "namespaces.matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator",
        ),
    ] {
        let policy = admin(with(json!({"subject": subject})));
        assert_eq!((policy.invalid, policy.subject), (invalid, Subject::Invalid(reason.into())), "{subject}");
    }
    let alpha2 = cluster(json!({"tier": "Admin", "priority": 1, "subject": {"pods": {}}}));
    assert_eq!(alpha2.invalid, ["spec.subject.pods.podSelector: Required value"]);
}

#[test]
fn actions_are_those_of_the_kind() {
    let rule = |action: &str| json!([{"action": action, "from": [{"namespaces": {}}]}]);
    for (policy, written, supported) in [
        (admin(with(json!({"ingress": rule("Accept")}))), "Accept", "\"Allow\", \"Deny\", \"Pass\""),
        (baseline(json!({"subject": {"namespaces": {}}, "ingress": rule("Pass")})), "Pass", "\"Allow\", \"Deny\""),
        (
            cluster(json!({"tier": "Baseline", "priority": 1, "subject": {"namespaces": {}}, "ingress": rule("Allow")})),
            "Allow",
            "\"Accept\", \"Deny\", \"Pass\"",
        ),
    ] {
        let why = format!("action: Unsupported value: \"{written}\": supported values: {supported}");
        assert_eq!(policy.invalid, [format!("spec.ingress[0].{why}")]);
        // It keeps its place and does nothing.
        let [rule] = policy.ingress.as_slice() else { panic!("not one rule") };
        assert_eq!(rule.action, Action::Accept);
        assert_eq!(rule.peers.iter().map(told).collect::<Vec<_>>(), [format!("invalid {why}")]);
    }
}

#[test]
fn lists_have_limits_and_count_as_they_are_written() {
    let peers = |number: usize| vec![json!({"namespaces": {}}); number];
    let rule = |peers: Vec<Value>, ports: Value| merged(json!({"name": "é".repeat(101), "action": "Deny", "from": peers}), ports);
    let alpha1 = rule(peers(101), json!({"ports": vec![json!({"namedPort": "a"}); 101]}));
    let policy = admin(with(json!({"ingress": vec![alpha1; 101]})));
    assert_eq!(policy.invalid[0], "spec.ingress: Too many: 101: must have at most 100 items");
    assert_eq!(
        policy.invalid[1..4],
        [
            "spec.ingress[0].name: Too long: may not be more than 100 bytes",
            "spec.ingress[0].from: Too many: 101: must have at most 100 items",
            "spec.ingress[0].ports: Too many: 101: must have at most 100 items",
        ]
    );
    assert_eq!((policy.invalid.len(), policy.ingress.len()), (1 + 3 * 101, 101));
    let [first, ..] = policy.ingress.as_slice() else { panic!("no rule") };
    assert_eq!((first.peers.len(), first.ports.len(), first.name.as_deref()), (101, 101, Some(&*"é".repeat(101))));

    let alpha2 = rule(peers(26), json!({"protocols": vec![json!({"destinationNamedPort": "a"}); 26]}));
    let policy = cluster(json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "ingress": vec![alpha2; 26]}));
    assert_eq!(policy.invalid[0], "spec.ingress: Too many: 26: must have at most 25 items");
    assert_eq!(policy.invalid[3], "spec.ingress[0].protocols: Too many: 26: must have at most 25 items");
    assert_eq!(policy.invalid.len(), 1 + 3 * 26);

    for most in [100, 25] {
        let fine = json!({"ingress": vec![json!({"action": "Deny", "from": peers(most)}); most]});
        let policy = if most == 100 {
            admin(with(fine))
        } else {
            cluster(merged(json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}}), fine))
        };
        assert_eq!(policy.invalid, [""; 0]);
    }
}

#[test]
fn empty_lists_are_not_everything() {
    let (rule, messages) = rule_of(Direction::Ingress, json!({"action": "Deny", "from": [], "ports": []}));
    let ports = "Invalid value: 0: spec.ingress[0].ports in body should have at least 1 items";
    assert_eq!(
        messages,
        [".from: Invalid value: 0: spec.ingress[0].from in body should have at least 1 items".to_owned(), format!(".ports: {ports}")]
    );
    assert_eq!(rule.peers, []);
    assert_eq!(rule.ports, [ClusterPort::Invalid(ports.into())]);
    let (rule, _) = rule_of(Direction::Ingress, json!({"action": "Deny", "from": [{"namespaces": {}}], "ports": null}));
    assert_eq!(rule.ports, []);
}

#[test]
fn a_peer_has_exactly_one_field() {
    let none = "Invalid value: 0: spec.egress[0].to[0] in body should have at least 1 properties";
    for peer in [json!({}), json!({"namespaces": null}), json!({"sameLabels": ["x"]})] {
        assert_eq!(peer_of(peer), (format!("invalid {none}"), vec![format!(": {none}")]));
    }
    let many = "Too many: 5: must have at most 1 items";
    let peer = json!({
        "namespaces": {}, "nodes": {}, "networks": ["::/0"], "domainNames": ["a.b"], "pods": {"namespaceSelector": {}, "podSelector": {}}
    });
    let (told, messages) = peer_of(peer);
    assert_eq!(told, format!("invalid {many}"));
    assert_eq!(messages, [format!(": {many}"), ".domainNames: Forbidden: supported in Allow rules only".to_owned()]);
    // Ingress rules know pods and namespaces only; other fields are dropped before the rest is looked at.
    let (rule, messages) = rule_of(Direction::Ingress, json!({"action": "Deny", "from": [{"networks": ["::/0"]}]}));
    assert_eq!(messages, [".from[0]: Invalid value: 0: spec.ingress[0].from[0] in body should have at least 1 properties"]);
    assert!(matches!(&*rule.peers, [crate::cluster::ClusterPeer::Invalid(_)]));
}

#[test]
fn a_peer_with_a_broken_selector_is_invalid_as_a_whole() {
    let (told, messages) = peer_of(json!({"nodes": {"matchLabels": {"a": "-"}}}));
    assert!(told.starts_with("invalid nodes.matchLabels: Invalid value: \"-\": a valid label"), "{told}");
    assert!(messages[0].starts_with(".nodes.matchLabels: Invalid value: \"-\": a valid label"), "{messages:?}");
    let (told, messages) = peer_of(json!({"pods": {"podSelector": {}}}));
    assert_eq!((&*told, messages), ("invalid pods.namespaceSelector: Required value", vec![told.replace("invalid ", ".")]));
}

#[test]
fn networks_are_ranges() {
    let invalid = |text: &str, i: usize| format!("networks[{i}]: Invalid value: {text:?}: Invalid CIDR format provided");
    for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/08", "010.0.0.0/8", "10.0.0/8", "::ffff:10.0.0.0/104", "::/129", "::/+1", "", "x/8"] {
        let (told, messages) = peer_of(json!({"networks": ["0.0.0.0/0", text]}));
        let why = invalid(text, 1);
        assert_eq!((told, messages), (format!("invalid {why}"), vec![format!(".{why}")]));
    }
    let long = format!("{}/8", "1".repeat(42));
    let (_, messages) = peer_of(json!({"networks": [long]}));
    assert_eq!(messages, [".networks[0]: Too long: may not be more than 43 bytes".to_owned(), format!(".{}", invalid(&long, 0))]);

    let (told, messages) = peer_of(json!({"networks": []}));
    let why = "networks: Invalid value: 0: spec.egress[0].to[0].networks in body should have at least 1 items";
    assert_eq!((told, messages), (format!("invalid {why}"), vec![format!(".{why}")]));
    let many: Vec<_> = (0..26).map(|i| format!("10.{i}.0.0/16")).collect();
    let (told, messages) = peer_of(json!({"networks": many}));
    assert!(told.starts_with("networks 10.0.0.0/16"), "{told}");
    assert_eq!(messages, [".networks: Too many: 26: must have at most 25 items"]);
    let (told, messages) = peer_of(json!({"networks": ["::/0", "::0/0", "::/0"]}));
    assert_eq!((&*told, messages), ("networks ::/0=::/0 ::0/0=::/0 ::/0=::/0", vec![".networks[2]: Duplicate value: \"::/0\"".to_owned()]));
}

#[test]
fn domain_names_have_a_pattern() {
    let allow = |names: Value| {
        let (rule, messages) = rule_of(Direction::Egress, json!({"action": "Allow", "to": [{"domainNames": names}]}));
        (told(&rule.peers[0]), messages)
    };
    for name in ["a.b", "*.a.b", "A-1.b_c.D.", "[.b", "x--y.z"] {
        assert_eq!(allow(json!([name])).1, [""; 0], "{name}");
    }
    for name in ["", "a", "*", "*.a", "a.*.b", "a*.b.c", ".a.b", "a..b", "a.b..", "-a.b", "a-.b", "a.b/", "é.b", "*.*.a.b"] {
        let field = "spec.egress[0].to[0].domainNames[0]";
        let why = format!(
            "Invalid value: {name:?}: {field} in body should match \
             '^(\\*\\.)?([a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\\.)+[a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\\.?$'"
        );
        assert_eq!(allow(json!([name])), (format!("invalid domainNames[0]: {why}"), vec![format!(".to[0].domainNames[0]: {why}")]));
    }
    assert_eq!(allow(json!([])).0[..31], *"invalid domainNames: Invalid va");
    let many: Vec<_> = (0..26).map(|i| format!("{i}.b")).collect();
    assert_eq!(allow(json!(many)).1, [".to[0].domainNames: Too many: 26: must have at most 25 items"]);
    assert_eq!(allow(json!(["a.b", "a.b"])).1, [".to[0].domainNames[1]: Duplicate value: \"a.b\""]);
}

#[test]
fn domain_names_outside_of_accept_rules_are_reported_and_kept() {
    for (action, is_reported) in [("Accept", false), ("Deny", true), ("Pass", true)] {
        let rule = json!([{"action": action, "to": [{"domainNames": ["A.b."]}]}]);
        let policy = cluster(json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "egress": rule}));
        assert_eq!(told(&policy.egress[0].peers[0]), "domainNames a.b");
        let expected = "spec.egress[0].to[0].domainNames: Forbidden: supported in Accept rules only";
        assert_eq!(policy.invalid, if is_reported { vec![expected.to_owned()] } else { vec![] });
    }
    // The baseline has no such field.
    let policy = baseline(json!({"subject": {"namespaces": {}}, "egress": [{"action": "Deny", "to": [{"domainNames": ["a.b"]}]}]}));
    assert_eq!(policy.invalid, ["spec.egress[0].to[0]: Invalid value: 0: spec.egress[0].to[0] in body should have at least 1 properties"]);
}

#[test]
fn ports_of_v1alpha1() {
    let none = "Invalid value: 0: spec.ingress[0].ports[0] in body should have at least 1 properties";
    for (port, expected) in [
        (json!({}), vec![format!(": {none}")]),
        (json!({"namedPort": "a", "portNumber": {"port": 1}}), vec![": Too many: 2: must have at most 1 items".to_owned()]),
        (json!({"namedPort": ""}), vec![".namedPort: Required value".to_owned()]),
        (json!({"portNumber": {}}), vec![".portNumber.port: Required value".to_owned()]),
        (
            json!({"portNumber": {"protocol": "tcp", "port": 0}}),
            vec![
                ".portNumber.protocol: Unsupported value: \"tcp\": supported values: \"TCP\", \"UDP\", \"SCTP\"".to_owned(),
                ".portNumber.port: Invalid value: 0: spec.ingress[0].ports[0].portNumber.port in body should be greater than or equal to 1"
                    .to_owned(),
            ],
        ),
        (
            json!({"portRange": {"end": 65536}}),
            vec![
                ".portRange.start: Required value".to_owned(),
                ".portRange.end: Invalid value: 65536: spec.ingress[0].ports[0].portRange.end in body should be less than or equal to 65535"
                    .to_owned(),
            ],
        ),
        (
            json!({"portRange": {"start": 2, "end": 1}}),
            vec![".portRange.end: Invalid value: 1: must be greater than `start`, which is 2".to_owned()],
        ),
    ] {
        let (rule, messages) = rule_of(Direction::Ingress, json!({"action": "Deny", "from": [{"namespaces": {}}], "ports": [port]}));
        let expected: Vec<_> = expected.into_iter().map(|message| format!(".ports[0]{message}")).collect();
        assert_eq!(messages, expected, "{port}");
        assert!(matches!(&*rule.ports, [ClusterPort::Invalid(_)]), "{port}");
    }
}

#[test]
fn protocols_of_v1alpha2() {
    let field = "spec.ingress[0].protocols[0]";
    let at_least = |part: &str| format!("{part}: Invalid value: 0: {field}{part} in body should have at least 1 properties");
    for (port, expected) in [
        (json!({}), vec![at_least("")]),
        (
            json!({"tcp": {"destinationPort": {"number": 1}}, "destinationNamedPort": "a"}),
            vec![": Too many: 2: must have at most 1 items".to_owned()],
        ),
        (json!({"destinationNamedPort": ""}), vec![".destinationNamedPort: Required value".to_owned()]),
        (json!({"udp": {"destinationPort": {}}}), vec![at_least(".udp.destinationPort")]),
        (
            json!({"udp": {"destinationPort": {"number": 1, "range": {"start": 1, "end": 2}}}}),
            vec![".udp.destinationPort: Too many: 2: must have at most 1 items".to_owned()],
        ),
        (
            json!({"sctp": {"destinationPort": {"number": 65536}}}),
            vec![format!(
                ".sctp.destinationPort.number: Invalid value: 65536: {field}.sctp.destinationPort.number in body should be less than or \
                 equal to 65535"
            )],
        ),
        (
            json!({"tcp": {"destinationPort": {"range": {"start": 7, "end": 7}}}}),
            vec![".tcp.destinationPort.range: Invalid value: \"object\": Start port must be less than End port".to_owned()],
        ),
        (
            json!({"tcp": {"destinationPort": {"range": {"end": 0}}}}),
            vec![
                ".tcp.destinationPort.range.start: Required value".to_owned(),
                format!(
                    ".tcp.destinationPort.range.end: Invalid value: 0: {field}.tcp.destinationPort.range.end in body should be greater \
                     than or equal to 1"
                ),
            ],
        ),
    ] {
        let rule = json!([{"action": "Accept", "from": [{"namespaces": {}}], "protocols": [port]}]);
        let policy = cluster(json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "ingress": rule}));
        assert_eq!(policy.tier, Tier::Admin);
        assert_eq!(policy.invalid, expected.iter().map(|message| format!("{field}{message}")).collect::<Vec<_>>(), "{port}");
        assert!(matches!(&*policy.ingress[0].ports, [ClusterPort::Invalid(_)]), "{port}");
    }
}

#[test]
fn named_ports_do_not_go_with_addresses() {
    let ports = json!([{"namedPort": "web"}, {"portNumber": {"port": 80}}]);
    let message = |peers: &str| {
        let why = format!("{peers} peer cannot be set with namedPorts since there are no namedPorts for {peers}");
        (format!("spec.egress[0]: Invalid value: \"object\": {why}"), ClusterPort::Invalid(why.into()))
    };
    for peer in [json!({"networks": ["::/0"]}), json!({"nodes": {}}), json!({"domainNames": ["a.b"]})] {
        let rule = json!([{"action": "Allow", "to": [{"namespaces": {}}, peer], "ports": ports}]);
        let policy = admin(with(json!({"egress": rule})));
        let (message, port) = message("networks/nodes/domainNames");
        assert_eq!(policy.invalid, [message]);
        assert_eq!(policy.egress[0].ports[0], port);
        assert_eq!(policy.egress[0].ports[1].to_string(), "80/TCP");
        assert_eq!(told(&policy.egress[0].peers[0]), "namespaces <all>");
    }
    let rule = json!([{"action": "Allow", "to": [{"nodes": {}}], "ports": ports}]);
    let policy = baseline(json!({"subject": {"namespaces": {}}, "egress": rule}));
    assert_eq!(policy.invalid, [message("networks/nodes").0]);
    let rule = json!([{"action": "Accept", "to": [{"nodes": {}}], "protocols": [{"destinationNamedPort": "web"}]}]);
    let policy = cluster(json!({"tier": "Baseline", "priority": 1, "subject": {"namespaces": {}}, "egress": rule}));
    assert_eq!(policy.invalid, [message("networks/nodes/domainNames").0]);
    let fine = json!([{"action": "Allow", "to": [{"namespaces": {}}], "ports": ports}]);
    assert_eq!(admin(with(json!({"egress": fine}))).invalid, [""; 0]);
}
