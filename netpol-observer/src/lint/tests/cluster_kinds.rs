//! The lints on the order of the tiers.

use super::{CLUSTER, findings, policy};
use crate::lint::{Code, Severity};

/// An AdminNetworkPolicy for all pods of namespaces with these labels.
fn admin(name: &str, priority: u16, namespaces: &str, ingress: &str) -> String {
    let spec = format!("{{priority: {priority}, subject: {{namespaces: {{matchLabels: {namespaces}}}}}, ingress: [{ingress}]}}");
    format!("{{apiVersion: policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy, metadata: {{name: {name}}}, spec: {spec}}}\n---\n")
}

const ANYBODY: &str = "[{namespaces: {}}]";
const OPS: &str = "[{namespaces: {matchLabels: {team: ops}}}]";
const SHOP: &str = "{team: shop}";

fn rule(action: &str, from: &str, ports: &str) -> String {
    format!("{{action: {action}, from: {from}, ports: [{ports}]}}")
}

fn port(number: u16) -> String {
    format!("{{portNumber: {{protocol: TCP, port: {number}}}}}")
}

/// Object, field, severity and message of what a lint finds.
fn found(code: Code, policies: &[String]) -> Vec<(String, String, Severity, String)> {
    let of_code = findings(&format!("{CLUSTER}{}", policies.concat())).into_iter().filter(|finding| finding.code == code);
    of_code
        .map(|finding| {
            let object = finding.object.map(|object| object.to_string()).unwrap_or_default();
            (object, finding.field.unwrap_or_default(), finding.severity, finding.message)
        })
        .collect()
}

#[test]
fn a_deny_behind_an_accept() {
    let both = |first: &str, second: &str| [admin("a", 10, SHOP, &[first, second].join(", "))];
    let (allow, deny) = (rule("Allow", ANYBODY, &port(80)), rule("Deny", OPS, &port(80)));
    let found_one = found(Code::DenyWithoutEffect, &both(&allow, &deny));
    assert!(
        matches!(&found_one[..], [(object, field, Severity::Error, _)] if object == "AdminNetworkPolicy a" && field == "spec.ingress[1]"),
        "{found_one:?}"
    );
    assert!(found_one[0].3.starts_with("the Deny rule has no effect: the Accept rule spec.ingress[0] of the same policy"), "{found_one:?}");
    assert_eq!(found(Code::DenyWithoutEffect, &both(&deny, &allow)), []);
    assert_eq!(found(Code::DenyWithoutEffect, &both(&allow, &rule("Deny", OPS, &port(81)))), []);
    assert_eq!(found(Code::DenyWithoutEffect, &both(&rule("Allow", OPS, &port(80)), &rule("Deny", ANYBODY, &port(80)))), []);
    // In another policy: the lower number goes first, and it must select at least the same pods.
    let separate = |priority, subject| [admin("a", priority, subject, &allow), admin("b", 10, SHOP, &deny)];
    let earlier = found(Code::DenyWithoutEffect, &separate(9, "{}"));
    assert!(matches!(&earlier[..], [(object, ..)] if object == "AdminNetworkPolicy b"), "{earlier:?}");
    assert!(earlier[0].3.contains("of AdminNetworkPolicy a (priority 9)"), "{earlier:?}");
    assert_eq!(found(Code::DenyWithoutEffect, &separate(11, "{}")), []);
    assert_eq!(found(Code::DenyWithoutEffect, &separate(9, "{team: shop, zone: a}")), []);
}

#[test]
fn rules_behind_others() {
    let of = |first: &str, second: &str| {
        let rules = [rule(first, ANYBODY, &port(80)), rule(second, OPS, &port(80))].join(", ");
        found(Code::ShadowedRule, &[admin("a", 10, SHOP, &rules)]).into_iter().map(|(.., severity, _)| severity).collect::<Vec<_>>()
    };
    assert_eq!(of("Allow", "Allow"), [Severity::Note]);
    assert_eq!(of("Deny", "Allow"), [Severity::Warning]);
    assert_eq!(of("Pass", "Deny"), [Severity::Warning]);
    assert_eq!(of("Allow", "Deny"), []);
}

#[test]
fn network_policies_that_are_not_asked() {
    let network = policy("{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: ops}}}], ports: [{port: 80}]}]}");
    let with = |rules: &str| found(Code::OverriddenByAdmin, &[admin("a", 10, SHOP, rules), network.clone()]);
    let all = "{action: Allow, from: [{namespaces: {}}]}";
    let message = "AdminNetworkPolicy a (priority 10, spec.ingress[0]) accepts ingress from every pod before NetworkPolicies are asked: for ingress this \
                   policy restricts only addresses that are no pods'";
    assert_eq!(with(all), [("NetworkPolicy shop/p".into(), "spec.ingress".into(), Severity::Warning, message.into())]);
    let denied = with(&rule("Deny", OPS, &port(80)));
    assert!(matches!(&denied[..], [(_, field, ..)] if field == "spec.ingress[0]"), "{denied:?}");
    assert_eq!(with(&rule("Deny", OPS, &port(81))), []);
    assert_eq!(with(&format!("{}, {all}", rule("Pass", OPS, &port(81)))), [], "what is passed on, NetworkPolicies decide");
    assert_eq!(found(Code::OverriddenByAdmin, &[admin("a", 10, "{team: ops}", all), network.clone()]), [], "for other pods");
}

#[test]
fn ties() {
    let two = |priority, subject: &str, action: &str| {
        [admin("a", 10, SHOP, &rule("Allow", ANYBODY, &port(80))), admin("b", priority, subject, &rule(action, OPS, &port(80)))]
    };
    let tied = found(Code::TiedPriorities, &two(10, SHOP, "Deny"));
    assert!(
        matches!(&tied[..], [(object, field, Severity::Warning, _)] if object == "AdminNetworkPolicy b" && field == "spec.ingress[0]"),
        "{tied:?}"
    );
    for others in [two(11, SHOP, "Deny"), two(10, SHOP, "Allow"), two(10, "{team: ops}", "Deny")] {
        assert_eq!(found(Code::TiedPriorities, &others), []);
    }
}

#[test]
fn subjects_and_peers() {
    let of = |subject: &str, from: &str| [admin("a", 10, subject, &rule("Deny", from, ""))];
    let nobody = found(Code::SelectsNoPod, &of("{team: shpo}", ANYBODY));
    assert!(nobody[0].3.ends_with("no namespace has team=shpo; 1 has team=shop, 1 has team=ops"), "{nobody:?}");
    assert_eq!(found(Code::SelectsNoPod, &of(SHOP, ANYBODY)), []);
    assert_eq!(found(Code::PeerMatchesNothing, &of(SHOP, "[{namespaces: {matchLabels: {team: dev}}}]")).len(), 1);
    assert_eq!(found(Code::PeerMatchesNothing, &of(SHOP, OPS)), []);
    let nodes = |labels: &str| {
        let egress = format!("egress: [{{action: Deny, to: [{{nodes: {{matchLabels: {labels}}}}}]}}]");
        found(Code::PeerMatchesNothing, &[admin("a", 10, SHOP, "").replace("ingress: []", &egress)])
    };
    assert!(nodes("{zone: b}")[0].3.ends_with("no node has zone=b; 1 has zone=a"));
    assert_eq!(nodes("{zone: a}"), []);
    let named = |name: &str| {
        found(Code::NamedPortMissing, &of(SHOP, ANYBODY).map(|text| text.replace("ports: []", &format!("ports: [{{namedPort: {name}}}]"))))
    };
    assert_eq!((named("htpt").len(), named("dns").len()), (1, 0));
}

/// A cluster-scoped Deny that keeps pods from DNS, where something else is let through.
#[test]
fn dns_behind_a_deny() {
    let deny = "{action: Deny, to: [{namespaces: {}}]}";
    let of = |egress: &str| {
        let policy = admin("a", 10, SHOP, "").replace("ingress: []", &format!("egress: [{egress}]"));
        found(Code::EgressWithoutDns, &[policy]).into_iter().map(|(object, ..)| object).collect::<Vec<_>>()
    };
    let web = "{action: Allow, to: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}]}";
    assert_eq!(of(&format!("{web}, {deny}")), ["AdminNetworkPolicy a"]);
    let to_dns = "{action: Allow, to: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]}";
    assert_eq!(of(&format!("{to_dns}, {web}, {deny}")), Vec::<String>::new());
    assert_eq!(of(deny), Vec::<String>::new(), "who may call nobody needs no names");
}
