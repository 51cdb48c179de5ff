//! Differences between small clusters.

use std::io;

use super::*;
use crate::cluster::manifests;
use crate::connectivity::port_words;
use crate::policy::{Profile, Ruling};

fn engine(yaml: &str) -> Engine {
    let loaded =
        manifests::load(&["-".into()], &mut io::Cursor::new(yaml.to_owned())).unwrap_or_else(|errors| panic!("{errors}")).with_stand_ins();
    let mut index = Index::default();
    index.reset(loaded.objects);
    Engine::over(index, Profile::default())
}

fn deployment(name: &str, labels: &str) -> String {
    format!(
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{selector: {{}}, replicas: 1, template: {{metadata: {{labels: {labels}}}, spec: {{containers: [{{name: c}}]}}}}}}\n"
    )
}

fn policy(name: &str, spec: &str) -> String {
    format!("---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n")
}

fn shop() -> String {
    ["web", "api", "db"].map(|name| deployment(name, &format!("{{app: {name}}}"))).concat()
}

const DENY: &str = "{podSelector: {}, policyTypes: [Ingress, Egress]}";
const API: &str =
    "{podSelector: {matchLabels: {app: api}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}]}]}";

fn shown(changes: &[Pair]) -> Vec<String> {
    changes.iter().map(|change| format!("{} -> {} {}", change.source, change.destination, port_words(&change.ports).join(", "))).collect()
}

#[test]
fn what_a_policy_denies_and_what_a_wider_rule_allows() {
    let (before, after) = (shop(), shop() + &policy("api", API));
    let comparison = compare(&engine(&before), &engine(&after));
    assert_eq!(
        shown(&comparison.denied),
        [
            "shop/deploy/db -> shop/deploy/api every port",
            "shop/deploy/web -> shop/deploy/api 1-8079/TCP, 8081-65535/TCP, every UDP port, every SCTP port",
            "0.0.0.0/0 -> shop/deploy/api every port",
        ]
    );
    assert_eq!((shown(&comparison.allowed), comparison.workloads), (Vec::new(), 3));
    assert_eq!(
        comparison.objects.iter().map(|change| (change.key.to_string(), change.what)).collect::<Vec<_>>(),
        [("NetworkPolicy shop/api".to_owned(), What::Added)]
    );
    let [cause] = comparison.denied[0].causes.as_slice() else { panic!("{:?}", comparison.denied[0].causes) };
    assert!(matches!((&cause.before, &cause.after), (Ruling::Open, Ruling::Denied { isolating, .. }) if isolating.len() == 1), "{cause:?}");
    // The other way round, and with a wider rule.
    let back = compare(&engine(&after), &engine(&before));
    assert_eq!((shown(&back.allowed), back.denied.len()), (shown(&comparison.denied), 0));
    let wider = compare(
        &engine(&after),
        &engine(&after.replace("app: web}}}], ports: [{port: 8080}]", "app: web}}}], ports: [{port: 8080}, {port: 9090}]")),
    );
    assert_eq!(shown(&wider.allowed), ["shop/deploy/web -> shop/deploy/api 9090/TCP"]);
    assert!(compare(&engine(&after), &engine(&after)).is_same());
}

#[test]
fn labels_of_workloads_and_ranges_outside_make_a_difference() {
    let before = shop() + &policy("api", API);
    let after = before.replace("{app: web}}, spec", "{app: webb}}, spec");
    let comparison = compare(&engine(&before), &engine(&after));
    assert_eq!(shown(&comparison.denied), ["shop/deploy/web -> shop/deploy/api 8080/TCP"]);
    assert_eq!(comparison.objects, []);
    let outside = "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.9/32]}}], ports: [{port: 443}]}]}";
    let comparison =
        compare(&engine(&(shop() + &policy("deny", DENY))), &engine(&(shop() + &policy("deny", DENY) + &policy("bank", outside))));
    assert_eq!(
        shown(&comparison.allowed),
        [
            "shop/deploy/api -> 203.0.113.0/24 443/TCP",
            "shop/deploy/db -> 203.0.113.0/24 443/TCP",
            "shop/deploy/web -> 203.0.113.0/24 443/TCP"
        ]
    );
    assert_eq!(comparison.denied, []);
}

/// Two halves that one side tells apart are the whole that the other side speaks of.
#[test]
fn a_range_that_smaller_ones_cover_is_compared_by_these() {
    let bank = |ranges: &str| {
        let rules = ranges.split(' ').map(|range| format!("{{to: [{{ipBlock: {{cidr: {range}}}}}], ports: [{{port: 443}}]}}"));
        let rules = rules.collect::<Vec<_>>().join(", ");
        shop() + &policy("bank", &format!("{{podSelector: {{}}, policyTypes: [Egress], egress: [{rules}]}}"))
    };
    let [halves, whole, half] =
        ["198.51.100.0/25 198.51.100.128/25", "198.51.100.0/24", "198.51.100.0/25"].map(|ranges| engine(&bank(ranges)));
    assert!(compare(&halves, &whole).is_same() && compare(&whole, &halves).is_same());
    // The one but for the half that is there already is the other half.
    for (all, range) in [(&halves, "198.51.100.128/25"), (&whole, "198.51.100.0/24")] {
        let comparison = compare(&half, all);
        let allowed = ["api", "db", "web"].map(|name| format!("shop/deploy/{name} -> {range} 443/TCP"));
        assert_eq!((shown(&comparison.allowed), shown(&comparison.denied)), (allowed.to_vec(), vec![]));
    }
}

#[test]
fn workloads_that_come_and_go_are_named() {
    let after = shop().replace("name: db,", "name: store,");
    let comparison = compare(&engine(&shop()), &engine(&after));
    let names = |kinds: &[PartyKind]| kinds.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        (names(&comparison.added), names(&comparison.removed)),
        (vec!["shop/deploy/store".to_owned()], vec!["shop/deploy/db".to_owned()])
    );
    assert!(comparison.is_same());
}

#[test]
fn which_of_the_connections_seen_change() {
    let [before, after] = [shop(), shop() + &policy("api", API)].map(|yaml| engine(&yaml));
    let sides = [Connectivity::of(&before), Connectivity::of(&after)];
    let flows = r#"
{"from": "shop/deploy/web", "to": "shop/deploy/api", "port": 8080, "count": 7}
{"from": "shop/deploy/web", "to": "shop/deploy/api", "port": 9090, "count": 2, "last": "2026-11-30T10:00:00Z"}
{"from": "203.0.113.9", "to": "shop/deploy/api", "port": 8080, "protocol": "TCP"}
{"from": "shop/deploy/old", "to": "shop/deploy/api", "port": 8080}
{"type":"denial","id":"a","time":"2026-11-30T09:00:00Z","class":"policyDenied","client":{"ip":"10.0.0.9","kind":"pod","namespace":"shop","name":"db-1","workload":{"kind":"Deployment","name":"db"}},"server":{"ip":"10.0.0.8","port":9090,"kind":"pod","namespace":"shop","name":"api-1","workload":{"kind":"Deployment","name":"api"}},"protocol":"TCP","count":4,"last":"2026-11-30T09:00:00Z"}
{"type":"ledger"}
{"flow":{"time":"2026-11-30T11:00:00Z","verdict":"FORWARDED","IP":{"source":"10.0.0.9","destination":"10.0.0.8"},"l4":{"TCP":{"destination_port":9090}},"source":{"namespace":"shop","pod_name":"db-1","workloads":[{"name":"db","kind":"Deployment"}]},"destination":{"namespace":"shop","pod_name":"api-1","workloads":[{"name":"api","kind":"Deployment"}]}}}
{"flow":{"IP":{"source":"10.0.0.8","destination":"10.0.0.9"},"l4":{"TCP":{"destination_port":40000}},"is_reply":true}}
"#;
    let found = seen(&read_flows(flows).expect("flows"), [&sides[0], &sides[1]]);
    let changes: Vec<String> = found
        .changes
        .iter()
        .map(|change| {
            format!(
                "{} -> {} {}/{} {} {:?} {}",
                change.from, change.to, change.port, change.protocol, change.count, change.last, change.allowed
            )
        })
        .collect();
    assert_eq!(
        changes,
        [
            "shop/deploy/db -> shop/deploy/api 9090/TCP 5 Some(\"2026-11-30T11:00:00Z\") false",
            "shop/deploy/web -> shop/deploy/api 9090/TCP 2 Some(\"2026-11-30T10:00:00Z\") false",
            "0.0.0.0/0 -> shop/deploy/api 8080/TCP 1 None false",
        ]
    );
    assert_eq!((found.same, found.unknown), (7, 1));
    for (wrong, expected) in [
        ("{", "line 1: no JSON"),
        ("\n{\"a\": 1}", "line 2: neither written by"),
        ("{\"from\": \"a\", \"to\": \"b\", \"ports\": 1}", "line 1: unknown field `ports`"),
        ("{\"type\": \"denial\"}", "line 1: not as `observer tail -o json` writes it"),
    ] {
        let error = read_flows(wrong).expect_err(wrong).to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}
