//! What is said of drops, and how much of it.

use std::collections::BTreeSet;

use super::*;
use crate::cluster::Direction;
use crate::serve::testing::{external, node, policy};

fn shown(record: &LogRecord) -> String {
    let Some(Value::StringValue(body)) = record.body.as_ref().and_then(|any| any.value.as_ref()) else { panic!("no body") };
    let LogRecord { event_name, severity_text, severity_number, time_unix_nano, observed_time_unix_nano, .. } = record;
    format!(
        "{event_name} {severity_text} {severity_number} {time_unix_nano} {observed_time_unix_nano}\n{body}\n{}",
        attributes(&record.attributes)
    )
}

fn of_drop(settled: &Settled) -> LogRecord {
    record::of_drop(settled, settled.denial.as_ref().unwrap(), at(5))
}

#[test]
fn a_drop_in_full() {
    insta::assert_snapshot!(shown(&of_drop(&full(1, 3))), @r#"
    netpol_observer.drop WARN 13 1795442531482000000 1795442536482000000
    DENIED ingress shop/web-7d9f → shop/api-5c4b:8080/TCP (3 times): Policies deny ingress to shop/api-5c4b.
    client.address = 10.244.1.5
    client.port = 41312
    destination.address = 10.244.2.7
    destination.port = 8080
    k8s.deployment.name = api
    k8s.namespace.name = shop
    k8s.pod.name = api-5c4b
    netpol_observer.agreement = agrees
    netpol_observer.class = policyDenied
    netpol_observer.count = 3
    netpol_observer.direction = ingress
    netpol_observer.fix = ingress[0].from += podSelector {app: web}
    netpol_observer.fold_id = 0000000000000001
    netpol_observer.nearest_miss = peer differs: podSelector wants app=frontend, shop/web-7d9f has app=web
    netpol_observer.peer.namespace = shop
    netpol_observer.peer.pod = web-7d9f
    netpol_observer.peer.workload = Deployment/web
    netpol_observer.policy.kind = NetworkPolicy
    netpol_observer.policy.name = shop/api-allow-frontend
    netpol_observer.reason = NETFILTER_DROP
    netpol_observer.reply = false
    netpol_observer.rule = ingress[0]
    netpol_observer.service.name = shop/api
    netpol_observer.service.port = 80
    netpol_observer.verdict = deny
    netpol_observer.workload = Deployment/api
    network.interface.name = veth1a2b
    network.transport = tcp
    network.type = ipv4
    server.address = 10.244.2.7
    server.port = 8080
    source.address = 10.244.1.5
    source.port = 41312
    "#);
}

#[test]
fn a_drop_that_no_policy_is_to_blame_for() {
    let mut denial = innocent(Class::NoListener, Agreement::NotEnforcement, "Nobody listens on shop/api-5c4b:8080.");
    denial.who.client = external("2001:db8::1");
    denial.who.service = None;
    denial.event.interface = None;
    insta::assert_snapshot!(shown(&of_drop(&settled(denial, 1, true))), @r#"
    netpol_observer.drop INFO 9 1795442531482000000 1795442536482000000
    REFUSED no listener 2001:db8::1 → shop/api-5c4b:8080/TCP: Nobody listens on shop/api-5c4b:8080.
    client.address = 2001:db8::1
    client.port = 41312
    destination.address = 10.244.2.7
    destination.port = 8080
    k8s.deployment.name = api
    k8s.namespace.name = shop
    k8s.pod.name = api-5c4b
    netpol_observer.agreement = notEnforcement
    netpol_observer.class = noListener
    netpol_observer.count = 1
    netpol_observer.fold_id = 0000000000000001
    netpol_observer.reason = NETFILTER_DROP
    netpol_observer.reply = false
    netpol_observer.verdict = allow
    netpol_observer.workload = Deployment/api
    network.transport = tcp
    network.type = ipv4
    server.address = 10.244.2.7
    server.port = 8080
    source.address = 10.244.1.5
    source.port = 41312
    "#);
}

#[test]
fn repeats_of_a_drop() {
    let gathered = repeats(1, 12);
    insta::assert_snapshot!(shown(&record::of_repeats("0000000000000001", &gathered.brief, 12, at(3), at(5))), @r#"
    netpol_observer.repeats WARN 13 1795442534482000000 1795442536482000000
    DENIED ingress shop/web-7d9f → shop/api-5c4b:8080/TCP: 12 more like it
    client.address = 10.244.1.5
    k8s.deployment.name = api
    k8s.namespace.name = shop
    k8s.pod.name = api-5c4b
    netpol_observer.class = policyDenied
    netpol_observer.count = 12
    netpol_observer.direction = ingress
    netpol_observer.fold_id = 0000000000000001
    netpol_observer.peer.namespace = shop
    netpol_observer.peer.pod = web-7d9f
    netpol_observer.peer.workload = Deployment/web
    netpol_observer.policy.kind = NetworkPolicy
    netpol_observer.policy.name = shop/api-allow-frontend
    netpol_observer.reason = NETFILTER_DROP
    netpol_observer.rule = ingress[0]
    netpol_observer.service.name = shop/api
    netpol_observer.service.port = 80
    netpol_observer.workload = Deployment/api
    network.transport = tcp
    network.type = ipv4
    server.address = 10.244.2.7
    server.port = 8080
    "#);
}

#[test]
fn severities() {
    let of = |class: Class| of_drop(&settled(innocent(class, Agreement::PoliciesAllow, ""), 1, true)).severity_text;
    assert_eq!(of(Class::HostFirewall), "WARN");
    assert_eq!(of(Class::Undecided), "WARN");
    assert_eq!(of(Class::NoListener), "INFO");
}

#[test]
fn a_pod_is_named_where_there_is_one() {
    let mut denial = example();
    denial.diagnosis.class = Class::PolicyDenied(vec![Direction::Egress]);
    let egress = attributes(&of_drop(&settled(denial.clone(), 1, true)).attributes);
    assert!(egress.contains("k8s.pod.name = web-7d9f") && egress.contains("netpol_observer.peer.pod = api-5c4b"), "{egress}");
    denial.who.client = node("node-1", "192.0.2.1");
    let of_node = attributes(&of_drop(&settled(denial, 1, true)).attributes);
    assert!(!of_node.contains("k8s.pod.name") && !of_node.contains("k8s.namespace.name"), "{of_node}");
}

#[test]
fn sums_and_the_rest() {
    let mut sums = Sums::new(at(-60), 1);
    assert!(sums.metric(at(0)).is_none());
    assert!(sums.add(&full(1, 3).brief, 3) && sums.add(&repeats(2, 4).brief, 4));
    let other = settled(innocent(Class::HostFirewall, Agreement::PoliciesAllow, ""), 1, true);
    assert!(!sums.add(&other.brief, 5) && sums.add(&full(3, 1).brief, 1));
    let (metric, points) = sums.metric(at(9)).unwrap();
    assert_eq!((metric.name.as_str(), metric.unit.as_str(), points), (DROPS, UNIT, 2));
    let Some(metric::Data::Sum(sum)) = metric.data else { panic!("no sum") };
    assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
    let mut shown = String::new();
    for point in sum.data_points {
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (record::nanoseconds(at(-60)), record::nanoseconds(at(9))));
        let Some(number_data_point::Value::AsInt(value)) = point.value else { panic!("no number") };
        shown += &format!("{value}\n{}\n", attributes(&point.attributes));
    }
    insta::assert_snapshot!(shown, @r#"
    8
    class = policyDenied
    direction = ingress
    namespace = shop
    peer_namespace = shop
    policy = NetworkPolicy shop/api-allow-frontend
    reason = NETFILTER_DROP
    rule = ingress[0]
    workload = Deployment/api
    5
    class = hostFirewall
    otel.metric.overflow = true
    "#);
}

#[test]
fn the_resource_is_the_agent() {
    let resource = of_agent(&about(), Some("host-2"), &[("k8s.cluster.name".into(), "blue".into()), ("service.name".into(), "x".into())]);
    let shown = attributes(&resource.attributes);
    let (instance, rest): (Vec<_>, Vec<_>) = shown.lines().partition(|line| line.starts_with("service.instance.id"));
    insta::assert_snapshot!(rest.join("\n"), @r#"
    host.name = host-2
    k8s.cluster.name = blue
    k8s.node.name = node-2
    k8s.pod.name = netpol-observer-x7k2p
    service.name = netpol-observer
    service.version = 0.1.0
    "#);
    let uuid = instance[0].rsplit(' ').next().unwrap();
    assert!(uuid.len() == 36 && uuid.as_bytes()[14] == b'4' && b"89ab".contains(&uuid.as_bytes()[19]), "{uuid}");
    assert_ne!(super::super::instance(&about()), uuid);
}

/// The tables of docs/opentelemetry.md name what is sent, and nothing else.
#[test]
fn the_documentation_lists_everything() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/opentelemetry.md");
    let text = std::fs::read_to_string(path).unwrap();
    let tables: [(&str, Vec<&str>); 4] = [
        ("Resource", attribute::resource::ALL.to_vec()),
        ("Log records", attribute::log::ALL.to_vec()),
        ("Events", vec![DROP, REPEATS]),
        ("The metric", attribute::point::ALL.to_vec()),
    ];
    for (title, sent) in tables {
        let section = text.split(&format!("\n## {title}\n")).nth(1).unwrap_or_else(|| panic!("no section {title}"));
        let section = section.split("\n## ").next().unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        assert_eq!(rows.collect::<BTreeSet<_>>(), sent.into_iter().collect(), "{title}");
    }
    assert!(text.contains(DROPS) && text.contains(UNIT) && text.contains(SCHEMA) && text.contains(&format!("{MAX_VALUE} bytes")));
    // What is in a record has a name of the list.
    let mut denial = example();
    denial.diagnosis.class = Class::PolicyDenied(vec![Direction::Ingress]);
    denial.explanation.fixes[0].policy = Some(policy("x"));
    let record = of_drop(&settled(denial, 1, true));
    let keys: BTreeSet<&str> = record.attributes.iter().map(|KeyValue { key, .. }| key.as_str()).collect();
    assert!(keys.iter().all(|key| attribute::log::ALL.contains(key)));
    assert_eq!(keys.len(), record.attributes.len(), "a key twice");
}

#[test]
fn a_record_is_small_whatever_is_said_of_it() {
    let mut denial = example();
    denial.explanation.fixes[0].change = "x".repeat(100_000);
    denial.diagnosis.summary = "é".repeat(100_000);
    denial.event.reason.name = "R".repeat(100_000).into();
    assert!(of_drop(&settled(denial, 1, true)).encoded_len() < 8 * 1024);
}
