//! Which change is the smallest, and whom it admits.

use serde_json::json;

use super::*;

/// Two labels where one would admit a neighbour, one of them a name: `version: v1` alone is unique by chance.
#[test]
fn labels_name_the_workload() {
    let objects = [
        pod("v1", "app: shop, version: v1, pod-template-hash: abc", "10.0.0.1", None),
        pod("v2", "app: shop, version: v2, pod-template-hash: abd", "10.0.0.2", None),
        pod("other", "app.kubernetes.io/name: other, app: other, env: prod", "10.0.0.3", None),
        pod("api", "app: api", "10.0.0.4", None),
        policy(
            "api",
            "{podSelector: {matchLabels: {app: api}}, ingress: [{from: [{podSelector: {matchLabels: {app: x}}}], ports: [{port: 80}]}]}",
        ),
    ];
    let index = index(&objects.concat());
    assert_eq!(fix(&index, "10.0.0.1", "10.0.0.4", 80).change, "ingress[0].from += podSelector {app: shop, version: v1}");
    assert_eq!(fix(&index, "10.0.0.3", "10.0.0.4", 80).change, "ingress[0].from += podSelector {app.kubernetes.io/name: other}");
}

#[test]
fn a_new_policy_isolates_nobody_else() {
    let objects = [
        pod("api-new", "app: api, tier: back", "10.0.0.1", Some("api")),
        pod("api-old", "app: api", "10.0.0.2", Some("api")),
        pod("db", "app: db, tier: back", "10.0.0.3", None),
        pod("web", "app: web", "10.0.0.4", None),
        policy("back", "{podSelector: {matchLabels: {tier: back}}, policyTypes: [Ingress]}"),
    ];
    let found = fix(&index(&objects.concat()), "10.0.0.4", "10.0.0.1", 80);
    assert_eq!(found.change, "ingress += from podSelector {app: web}, ports 80/TCP");
    assert_eq!(found.newly_admits, ["shop/web", "shop/web → shop/db"]);

    // Once the old pod is gone, a policy for app=api changes nothing but this call.
    let without_old = [&objects[0], &objects[2], &objects[3], &objects[4]].map(String::as_str).concat();
    let found = fix(&index(&without_old), "10.0.0.4", "10.0.0.1", 80);
    assert_eq!(found.policy, None);
    assert_eq!(found.change, "new NetworkPolicy shop/api-from-web for app=api: ingress from podSelector {app: web}, ports 80/TCP");
    assert_eq!(found.newly_admits, ["shop/web"]);
}

#[test]
fn a_new_policy_replaces_none() {
    let objects = [
        pod("api", "app: api", "10.0.0.1", None),
        pod("db", "app: db", "10.0.0.2", None),
        pod("web", "app: web", "10.0.0.3", None),
        policy("deny", "{podSelector: {}, policyTypes: [Ingress]}"),
        policy("api-from-web", "{podSelector: {matchLabels: {app: gone}}, policyTypes: [Egress]}"),
        policy("api-from-web-2", "{podSelector: {matchLabels: {app: gone}}, policyTypes: [Egress]}"),
    ];
    let found = fix(&index(&objects.concat()), "10.0.0.3", "10.0.0.1", 80);
    assert_eq!(found.manifest.to_json()["metadata"], json!({"name": "api-from-web-3", "namespace": "shop"}));
}

/// A replica stands for its workload both as caller and as called, and one that blocks treat differently for itself.
#[test]
fn every_workload_that_gains_is_named() {
    let objects = [
        pod("caller", "", "10.0.0.100", None),
        pod("x-1", "", "10.0.0.1", Some("x")),
        pod("x-2", "", "10.0.0.2", Some("x")),
        policy("deny", "{podSelector: {}, policyTypes: [Ingress]}"),
    ];
    let found = fix(&index(&objects.concat()), "10.0.0.100", "10.0.0.1", 80);
    assert_eq!(found.change, "ingress += from podSelector {}, ports 80/TCP");
    assert_eq!(found.newly_admits, ["shop/caller", "shop/x", "shop/x → shop/caller"]);

    let objects = [
        pod("api", "", "10.0.0.50", None),
        pod("caller", "", "10.0.0.100", None),
        pod("x-1", "", "10.0.0.1", Some("x")),
        pod("x-2", "", "10.0.0.2", Some("x")),
        pod("x-3", "", "10.0.0.9", Some("x")),
        policy("block", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/30}}], ports: [{port: 80}]}]}"),
    ];
    let found = fix(&index(&objects.concat()), "10.0.0.100", "10.0.0.50", 80);
    assert!(found.newly_admits.contains(&"shop/x".to_owned()), "{found:#?}");
}

#[test]
fn the_terminated_gain_nothing() {
    let done = pod("done", "", "10.0.0.1", None).replace("Running", "Succeeded");
    let objects =
        [done, pod("a", "", "10.0.0.2", None), pod("b", "", "10.0.0.3", None), policy("deny", "{podSelector: {}, policyTypes: [Ingress]}")];
    assert_eq!(fix(&index(&objects.concat()), "10.0.0.2", "10.0.0.3", 80).newly_admits, ["shop/a", "shop/b → shop/a"]);
}

/// Opening a port to sixteen million addresses is not smaller than a rule for one; the called one is not counted twice.
#[test]
fn a_block_is_more_than_an_address() {
    let spec = "{podSelector: {matchLabels: {app: api}}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 443}]}]}";
    let index = index(&[pod("api", "app: api", "172.16.0.1", None), policy("api", spec)].concat());
    let found = fix(&index, "10.1.2.3", "172.16.0.1", 80);
    assert_eq!(found.change, "ingress += from ipBlock 10.1.2.3/32, ports 80/TCP");
    assert_eq!(found.newly_admits, ["10.1.2.3/32"]);
    assert_eq!(fix(&index, "11.1.2.3", "172.16.0.1", 443).change, "ingress[0].from += ipBlock 11.1.2.3/32");
}

/// A rule without ports is for every port: an entry in it would open them all to the new peer.
#[test]
fn every_port_is_more_than_one() {
    let rules = |ports: &str| {
        format!(
            "{{podSelector: {{matchLabels: {{app: api}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: x}}}}}}]{ports}}}]}}"
        )
    };
    let fixed = |ports: &str| {
        let objects = [pod("api", "app: api", "10.0.0.1", None), pod("web", "app: web", "10.0.0.2", None), policy("api", &rules(ports))];
        fix(&index(&objects.concat()), "10.0.0.2", "10.0.0.1", 80).change
    };
    assert_eq!(fixed(", ports: [{port: 80}, {port: 443}]"), "ingress[0].from += podSelector {app: web}");
    assert_eq!(fixed(""), "ingress += from podSelector {app: web}, ports 80/TCP");
    assert_eq!(fixed(", ports: [{protocol: TCP}]"), "ingress += from podSelector {app: web}, ports 80/TCP");
}

/// The exception stays; the address is let in beside it.
#[test]
fn an_exception_is_not_removed() {
    let spec = "{podSelector: {matchLabels: {app: api}}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/28]}}], ports: [{port: 80}]}]}";
    let index = index(&[pod("api", "app: api", "10.0.0.1", None), policy("api", spec)].concat());
    let found = fix(&index, "192.0.2.7", "10.0.0.1", 80);
    assert_eq!(
        found.manifest.to_json()["spec"]["ingress"][0]["from"],
        json!([{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.0/28"]}}, {"ipBlock": {"cidr": "192.0.2.7/32"}}])
    );
}

/// Two terms for one key cannot both be matchLabels, nor may one be lost.
#[test]
fn a_manifest_keeps_every_term() {
    let spec = "{podSelector: {matchLabels: {app: api}, matchExpressions: [{key: app, operator: In, values: [api]}, \
                {key: app, operator: Exists}, {key: old, operator: DoesNotExist}, {key: app, operator: NotIn, values: [x]}]}, \
                ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 81}]}]}";
    let objects = [pod("api", "app: api", "10.0.0.1", None), pod("web", "app: web", "10.0.0.2", None), policy("api", spec)];
    let found = fix(&index(&objects.concat()), "10.0.0.2", "10.0.0.1", 80);
    assert_eq!(
        found.manifest.to_json()["spec"]["podSelector"],
        json!({
            "matchLabels": {"app": "api"},
            "matchExpressions": [
                {"key": "app", "operator": "In", "values": ["api"]},
                {"key": "app", "operator": "Exists"},
                {"key": "old", "operator": "DoesNotExist"},
                {"key": "app", "operator": "NotIn", "values": ["x"]},
            ],
        })
    );
}

/// A fix is for all that the caller may be, or there is none.
#[test]
fn a_fix_suits_every_candidate() {
    let objects = [
        pod("api", "app: api", "10.0.0.1", None),
        pod("left", "app: left", "10.0.0.9", None),
        pod("right", "app: right", "10.0.0.9", None),
        policy("api", "{podSelector: {matchLabels: {app: api}}, policyTypes: [Ingress]}"),
    ];
    let explanation = explained(&index(&objects.concat()), "10.0.0.9", "10.0.0.1", 80);
    assert_eq!(explanation.verdict, Verdict::Deny);
    assert_eq!(explanation.fixes, []);
    assert!(matches!(explanation.remaining.as_slice(), [Remaining::NoFix { .. }]), "{explanation:#?}");
}
