use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use netpol_observer_common::Counters;
use serde_json::Value;

use super::*;
use crate::capture::KernelLedger;
use crate::cluster::{Kind, ObjectKey, Operator, Origin, Requirement, Service, Tier};
use crate::diagnose::{Attributed, How, Moment, PastKnown, RecentChange, Unevaluated};
use crate::effect::Effect;
use crate::flow::Socket;
use crate::identify::Identity;
use crate::pipeline::Amendment;
use crate::policy::{
    Admission, Cause, Condition, Difference, IsolatingPolicy, NearMiss, NotCounted, PairEnd, Pairs, PatchOperation, PeerMiss, PortMiss,
    Remaining, RuleMiss, RuleRef, Ruling, TierOutcome, TierStep,
};
use crate::question::{Answer, Link, NotReady, Path, ServiceLink, Step};
use crate::serve::testing::{
    api, api_service, at, example, fix, in_tunnel, innocent, ip, key, node, policy, policy_change, repeats, wants, wants_frontend, web,
};
use crate::timeline::{ChangeKind, Holder, Owner};

fn text(line: &Line<'_>) -> String {
    let mut out = Vec::new();
    line.write(&mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.ends_with('\n') && text.matches('\n').count() == 1, "one line each: {text:?}");
    text
}

fn denial(denial: Denial) -> Value {
    let item = Item::Denial { key: key(1), denial: Arc::new(denial) };
    serde_json::from_str(&text(&Line::of(&item, Some("node-2")))).unwrap()
}

fn origin() -> Option<Origin> {
    Some(Origin { file: "policies.yaml".into(), line: 3 })
}

/// Every variant that carries other fields.
fn conditions() -> Vec<Condition> {
    let (ip4, name) = (ip("192.0.2.1"), || "metrics".into());
    vec![
        Condition::NamespaceLabel { wants: wants("team", "a"), namespace: "dev".into(), has: None },
        Condition::SameNamespace { wants: "shop".into(), has: "dev".into() },
        wants_frontend(),
        Condition::PodLabel { wants: Requirement { key: "a".into(), operator: Operator::Exists }, pod: "dev/x".into(), has: None },
        Condition::NotAPod { ip: ip4 },
        Condition::NodeLabel { wants: wants("pool", "a"), node: "node-2".into(), has: None },
        Condition::NotANode { ip: ip4 },
        Condition::OutsideNetworks { networks: vec!["10.0.0.0/8".into()], ip: ip4 },
        Condition::NotTheName { names: vec!["a.example".into()], ip: ip4 },
        Condition::BlockIgnoresPods { cidr: "192.0.0.0/8".into(), ip: ip4 },
        Condition::OutsideBlock { cidr: "10.0.0.0/8".into(), ip: ip4 },
        Condition::Excepted { cidr: "192.0.0.0/8".into(), except: "192.0.2.0/24".into(), ip: ip4 },
        Condition::Family { cidr: "2001:db8::/32".into(), ip: ip4 },
        Condition::PortNumber { has: 8080 },
        Condition::Protocol { has: "TCP".into() },
        Condition::NamedPortNumber { name: name(), stands_for: vec![9090], has: 8080 },
        Condition::NamedPortMissing { name: name(), pod: "shop/api-5c4b".into() },
        Condition::NamedPortNeedsPod { name: name() },
        Condition::NoPort,
        Condition::Invalid { why: "a peer with nothing set".into() },
    ]
}

/// A denial with everything a denial can have.
fn full() -> Denial {
    let mut denial = example();
    let mut policy = policy("api-allow-frontend");
    policy.resource_version = Some("41".into());
    policy.origin = origin();
    let port = PortMiss { index: 0, wants: "9090/TCP".into(), failed: conditions() };
    let rule = RuleRef { policy: policy.clone(), direction: Direction::Ingress, index: 0, name: None, action: None, origin: origin() };
    denial.explanation.ingress.admission = Admission::Denied {
        by: None,
        isolating: vec![IsolatingPolicy {
            policy: policy.clone(),
            rules: vec![RuleMiss {
                index: 0,
                origin: None,
                peers: vec![PeerMiss { index: 0, failed: conditions() }],
                ports: vec![port.clone()],
            }],
        }],
        nearest: vec![NearMiss { rule: rule.clone(), distance: 2, peer: conditions(), port: Some(port) }],
    };
    let named = RuleRef { name: Some("no-db".into()), action: Some(crate::cluster::Action::Deny), ..rule.clone() };
    let tier = |tier, outcome| TierStep { tier, outcome };
    denial.explanation.ingress.tiers = vec![
        tier(Tier::Admin, TierOutcome::Pass { by: named.clone() }),
        tier(Tier::NetworkPolicy, TierOutcome::NoMatch { policies: 2 }),
        tier(Tier::Baseline, TierOutcome::Undecided { why: "?".into() }),
        tier(Tier::Baseline, TierOutcome::Deny { by: None }),
        tier(Tier::Baseline, TierOutcome::Accept { by: named }),
        tier(Tier::Baseline, TierOutcome::NoPolicy),
    ];
    denial.explanation.egress.admission = Admission::Allowed { by: vec![rule] };
    denial.explanation.fixes = vec![fix(Direction::Ingress, Some(policy), "ingress[0].from += podSelector {app: web}", &["shop/web"])];
    denial.explanation.remaining = vec![
        Remaining::ServiceWithoutEndpoints { service: "shop/api".into() },
        Remaining::NoFix { direction: Direction::Egress, why: "?".into() },
        Remaining::DnsDenied { service: "kube-system/kube-dns".into() },
        Remaining::OtherEndpointsDenied { service: "shop/api".into(), endpoints: vec!["shop/api-2 (10.0.0.7):8080".into()] },
    ];
    for fix in &mut denial.explanation.fixes {
        let (path, value) = (|| "/spec".to_owned(), Value::Null);
        fix.patch = vec![PatchOperation::Test { path: path(), value: value.clone() }, PatchOperation::Add { path: path(), value }];
    }
    denial.event.flow.icmp = Some(IcmpKind { kind: 8, code: 0 });
    denial.event.flow.fragment = Some(Fragment { offset: 0, more: true });
    denial.event.socket = Some(Socket { cookie: Some(7), cgroup: Some(9), pod_uid: Some("uid".into()) });
    denial.event.peer.as_mut().expect("the example has one").pod_uid = Some("0c7c1a2e-3e5f-4a4b-9d3e-5f0a6b7c8d9e".into());
    denial.who.behind = denial.who.client.identity.pod().cloned();
    in_tunnel(&mut denial);
    denial.moment = Some(full_moment());
    denial
}

/// A moment with everything there can be to say of one.
fn full_moment() -> Moment {
    let (web, api) = (web(), api());
    let owner = Owner { who: Holder::Pod(web.clone()), since: Some(at(-9)), until: Some(at(-1)) };
    let span = jiff::SignedDuration::from_millis(400);
    let hows = [
        How::Interface { pod: web.clone(), published: vec![api.clone()] },
        How::PublishedLater { pod: web.clone(), after: span },
        How::Gone { pod: web, before: span },
        How::Several(vec![owner.clone(), Owner { who: Holder::Pod(api), since: None, until: None }]),
        How::NotKnown,
    ];
    let change = |kind, verdict_before, verdict_after| RecentChange {
        key: ObjectKey { kind: Kind::NetworkPolicy, namespace: "shop".into(), name: "api".into() },
        kind,
        when: at(-3),
        before_drop: jiff::SignedDuration::from_secs(3),
        verdict_before,
        verdict_after,
    };
    Moment {
        past: PastKnown::Syncing { missing: vec![Kind::Pod] },
        owners: hows.into_iter().map(|how| Attributed { ip: ip("10.244.1.5"), how }).collect(),
        changes: vec![
            change(ChangeKind::Added, Verdict::Allow, Verdict::Deny),
            change(ChangeKind::Changed, Verdict::Deny, Verdict::Undecided),
            change(ChangeKind::Removed, Verdict::Undecided, Verdict::Allow),
        ],
        unevaluated: vec![Unevaluated { group: "cilium.io".into(), kind: "CiliumNetworkPolicy".into(), count: Some(3) }],
    }
}

fn amendment() -> Value {
    let amendment =
        Amendment { before: Arc::new(example()), earlier: Vec::new(), denial: Arc::new(full()), why: "10.244.1.5 was shop/web's".into() };
    let item = Item::Amendment { key: key(1), amendment, is_first: false };
    let mut value: Value = serde_json::from_str(&text(&Line::of(&item, Some("node-2")))).unwrap();
    let mut expected = denial(full());
    expected.as_object_mut().unwrap().remove("type");
    assert_eq!(value["denial"], expected);
    // It is described where a denial is.
    value["denial"] = Value::Bool(true);
    value
}

fn samples() -> Vec<Value> {
    let mut samples = vec![denial(full()), amendment()];
    for class in [
        Class::DroppedReply,
        Class::PolicyChanged,
        Class::HostFirewall,
        Class::NoListener,
        Class::ServiceWithoutEndpoints,
        Class::NoRoute,
        Class::ReversePathFilter,
        Class::ConnectionState,
        Class::Noise,
    ] {
        samples.push(denial(innocent(class, Agreement::NotEnforcement, "")));
    }
    let mut balanced = example();
    let call = balanced.who.service.as_mut().unwrap();
    call.service = Arc::new(Service { load_balancer_ips: vec![call.ip], cluster_ips: Vec::new(), ..(*call.service).clone() });
    samples.push(denial(balanced));
    let mut undecided = innocent(Class::Undecided, Agreement::CannotDecide { why: "?".into() }, "");
    undecided.explanation.verdict = Verdict::Undecided;
    undecided.explanation.egress.admission = Admission::Undecided { why: "?".into() };
    undecided.explanation.ingress.admission = Admission::NotSubject { why: "external".into() };
    undecided.event.location.symbol = None;
    undecided.who.client.identity = Identity::AmbiguousPods(vec![web(), api()]);
    undecided.who.server.identity = Identity::Service(api_service());
    samples.push(denial(undecided));
    let why = "NetworkPolicy shop/api changed 3 s before the drop".to_owned();
    samples.push(denial(innocent(Class::PolicyChanged, Agreement::PolicyChanged { why }, "")));
    for identity in [Identity::UnownedPodAddress, Identity::Special, Identity::External, node("node-2", "192.0.2.2").identity] {
        let mut other = innocent(Class::HostFirewall, Agreement::PoliciesAllow, "");
        other.who.client.identity = identity;
        samples.push(denial(other));
    }
    let Item::Repeats(mut summary) = repeats(1, 2, 7) else { unreachable!() };
    let mut route = (*summary.route).clone();
    route.icmp = Some(IcmpKind { kind: 8, code: 0 });
    summary.route = Arc::new(route);
    let kernel = KernelLedger { counters: Counters::default(), received: 1, folded_delivered: 0, program_misses: 0 };
    let ledger = Ledger { kernel: Some(kernel), ..Ledger::default() };
    let others = [
        text(&Line::of(&Item::Repeats(summary), None)),
        text(&Line::ledger(&ledger)),
        text(&Line::Notice(Notice { time: at(0), level: "info", message: "watching" })),
    ];
    samples.extend(others.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    samples.push(answer());
    samples.push(change(&full_change()));
    samples
}

fn change(effect: &Effect) -> Value {
    serde_json::from_str(&text(&Line::of(&Item::PolicyChange(effect.clone().into()), None))).unwrap()
}

/// A change with everything a change can have.
fn full_change() -> Effect {
    let (mut effect, full) = (policy_change(), full());
    let Admission::Denied { isolating, nearest, .. } = full.explanation.ingress.admission else { unreachable!() };
    let (policy, rule) = (isolating[0].policy.clone(), nearest[0].rule.clone());
    let named = RuleRef { name: Some("no-db".into()), action: Some(crate::cluster::Action::Deny), ..rule.clone() };
    let Difference::Counted(turned) = &mut effect.difference else { unreachable!() };
    let causes = |before, after| vec![Cause { direction: Direction::Ingress, before, after }];
    turned.denied.named[0].causes = causes(Ruling::Admitted { by: vec![rule] }, Ruling::Denied { by: Some(named), isolating: Vec::new() });
    turned.denied.named[1].causes = causes(Ruling::Open, Ruling::Denied { by: None, isolating: vec![policy] });
    turned.allowed.named[0].destination = PairEnd::Outside("203.0.113.0/24".parse().unwrap());
    let mut undecided = turned.allowed.named[0].clone();
    undecided.destination = PairEnd::Nodes;
    undecided.causes = causes(Ruling::Undecided { why: "?".into() }, Ruling::Undecided { why: "?".into() });
    turned.undecided = Pairs { workloads: 0, outside: 1, named: vec![undecided] };
    effect
}

/// An answer with every link a chain can have.
fn answer() -> Value {
    let explanation = full().explanation;
    let party = |pod: &Arc<crate::cluster::Pod>| crate::serve::testing::party(pod);
    let path = || Path {
        from: vec!["shop/web-7d9f".into()],
        to: vec!["shop/api-5c4b".into()],
        source: party(&web()),
        destination: party(&api()),
        port: Some(8080),
        protocol: Protocol::Tcp,
        verdict: Verdict::Deny,
        explanation: explanation.clone(),
    };
    let service = ServiceLink {
        service: "shop/api".into(),
        port: Some(80),
        port_name: Some("http".into()),
        headless: false,
        endpoints: vec!["shop/api-5c4b:8080".into()],
        not_ready: vec![NotReady { pod: "shop/api-1".into(), why: "is not ready".into() }],
        problem: Some("?".into()),
    };
    let steps = [
        Step::Dns { service: "kube-system/kube-dns".into(), paths: vec![path()], unchecked: Some("?".into()) },
        Step::Alias { service: "shop/api".into(), name: "api.example".into() },
        Step::Name { name: "api.example".into(), addresses: Some(vec![ip("192.0.2.1")]) },
        Step::Service(service),
        Step::Connection { paths: vec![path()] },
    ];
    let answer = Answer {
        from: "shop/web-7d9f".into(),
        to: "http://api".into(),
        port: Some(80),
        protocol: Protocol::Tcp,
        verdict: Verdict::Deny,
        chain: steps.into_iter().map(|step| Link { verdict: Verdict::Deny, step }).collect(),
        notes: vec!["?".into()],
    };
    let mut value = serde_json::to_value(AnswerObject::of(&answer)).unwrap();
    assert_eq!(value["explanation"], value["chain"][0]["paths"][0]["explanation"]);
    // It is described where a denial is.
    for link in [0, 4] {
        value["chain"][link]["paths"][0]["explanation"] = Value::Bool(true);
    }
    value["explanation"] = Value::Bool(true);
    value
}

/// Adds every field below `value` as `(section, path)`, the objects with a section of their own under that section.
fn collect(value: &Value, section: &str, path: &str, fields: &mut BTreeSet<(String, String)>) {
    match value {
        Value::Array(elements) => {
            for element in elements {
                collect(element, section, &format!("{path}[]"), fields);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                // Objects that hold nothing but objects have no row of their own.
                let only_path = (section, below.as_str());
                if !matches!(only_path, ("denial", "agreement" | "kernel.reason")) {
                    fields.insert((section.to_owned(), below.clone()));
                }
                match name.as_str() {
                    "labels" | "manifest" => {}
                    "denied" | "allowed" | "undecided" if section == "policyChange" => collect(member, "PAIRS", "", fields),
                    "from" | "to" if section == "PAIRS" && path == "pairs[]" => collect(member, "SIDE", "", fields),
                    "before" | "after" if section == "PAIRS" => collect(member, "RULING", "", fields),
                    "client" | "server" | "source" | "destination" => collect(member, "PARTY", "", fields),
                    "egress" | "ingress" => collect(member, "DIRECTION", "", fields),
                    "policy" => collect(member, "POLICY", "", fields),
                    "rule" => collect(member, "RULE", "", fields),
                    "by" => match member.as_array() {
                        Some(rules) => rules.iter().for_each(|rule| collect(rule, "RULE", "", fields)),
                        None => collect(member, "RULE", "", fields),
                    },
                    "failed" | "peer" => {
                        for condition in member.as_array().unwrap() {
                            collect(condition, "CONDITION", "", fields);
                        }
                    }
                    _ => collect(member, section, &below, fields),
                }
            }
        }
        _ => {}
    }
}

const DOCUMENT: &str = include_str!("../../../../docs/json.md");

fn documented() -> BTreeSet<(String, String)> {
    let mut section = "";
    let mut fields = BTreeSet::new();
    for line in DOCUMENT.lines() {
        let quoted = |prefix: &str| line.strip_prefix(prefix).and_then(|rest| rest.split_once('`')).map(|(name, _)| name);
        if let Some(heading) = quoted("## `") {
            section = heading;
        } else if let Some(field) = quoted("| `") {
            assert!(fields.insert((section.to_owned(), field.to_owned())), "{section}: {field} is documented twice");
        }
    }
    fields
}

#[test]
fn the_documented_fields_are_those_written() {
    let mut written = BTreeSet::new();
    for sample in samples() {
        collect(&sample, sample["type"].as_str().unwrap(), "", &mut written);
    }
    // What `observer check` writes is compared in tests/check.
    let documented: BTreeSet<_> =
        documented().into_iter().filter(|(section, _)| !["finding", "test", "check"].contains(&section.as_str())).collect();
    let undocumented: Vec<_> = written.difference(&documented).collect();
    let unwritten: Vec<_> = documented.difference(&written).collect();
    assert!(undocumented.is_empty(), "written, but not in docs/json.md: {undocumented:?}");
    assert!(unwritten.is_empty(), "in docs/json.md, but never written: {unwritten:?}");
}

#[test]
fn the_values_of_enumerations_are_documented() {
    fn strings<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Array(elements) => elements.iter().for_each(|element| strings(element, found)),
            Value::Object(members) => {
                for (name, member) in members {
                    match (name.as_str(), member) {
                        (
                            "class" | "verdict" | "outcome" | "condition" | "hook" | "direction" | "level" | "link" | "says" | "tier"
                            | "action" | "op" | "how",
                            Value::String(text),
                        ) => {
                            found.insert(text);
                        }
                        // Of a fix it is words.
                        ("change", Value::String(text)) if !text.contains(' ') => _ = found.insert(text),
                        ("kind", Value::String(text)) if text.starts_with(char::is_lowercase) => _ = found.insert(text),
                        ("workload" | "manifest", _) => {}
                        _ => strings(member, found),
                    }
                }
            }
            _ => {}
        }
    }
    let samples = samples();
    let mut found = BTreeSet::new();
    samples.iter().for_each(|sample| strings(sample, &mut found));
    assert!(found.len() > 40, "{found:?}");
    for value in found {
        assert!(DOCUMENT.contains(&format!("`{value}`")), "`{value}` is not in docs/json.md");
    }
}

#[test]
fn values_of_a_change() {
    let mut effect = policy_change();
    let value = change(&effect);
    assert_eq!(value["type"], "policyChange");
    assert_eq!(value["id"], "0000000000000007");
    assert_eq!(value["time"].as_str().unwrap().parse::<Timestamp>().unwrap(), at(0));
    let object = serde_json::json!({"kind": "NetworkPolicy", "namespace": "shop", "name": "api", "resourceVersion": "42"});
    assert_eq!((&value["object"], &value["change"]), (&object, &Value::from("changed")));
    assert_eq!(value["summary"], "2 workload pairs newly denied, 1 newly allowed");
    assert_eq!((&value["denied"]["workloads"], &value["allowed"]["workloads"]), (&Value::from(2), &Value::from(1)));
    let pair = &value["denied"]["pairs"][1];
    let api = serde_json::json!({"kind": "workload", "namespace": "shop", "workload": {"kind": "Deployment", "name": "api"}});
    assert_eq!((&pair["to"], &pair["ports"]), (&api, &serde_json::json!([{"protocol": "TCP", "from": 8080, "to": 8080}])));
    let cause = &pair["causes"][0];
    assert_eq!((&cause["before"]["outcome"], &cause["after"]["outcome"]), (&Value::from("allowed"), &Value::from("denied")));
    assert_eq!(
        (&cause["before"]["by"][0]["index"], &cause["after"]["isolating"][0]["policy"]["name"]),
        (&Value::from(0), &Value::from("api"))
    );
    effect.difference = Difference::NotCounted(NotCounted::Verdicts(9));
    for kind in [ChangeKind::Added, ChangeKind::Changed, ChangeKind::Removed] {
        effect.change = kind;
        assert!(DOCUMENT.contains(&format!("`{}`", change(&effect)["change"].as_str().unwrap())));
    }
    let value = change(&effect);
    assert_eq!((&value["counted"], value.get("denied")), (&Value::from(false), None));
}

#[test]
fn values_of_the_example() {
    let value = denial(example());
    assert_eq!(value["type"], "denial");
    assert_eq!(value["id"], "0000000000000001");
    assert_eq!(value["time"].as_str().unwrap().parse::<Timestamp>().unwrap(), at(0));
    assert_eq!(value["class"], "policyDenied");
    assert_eq!(value["directions"], serde_json::json!(["ingress"]));
    assert_eq!(value["client"]["port"], 41_312);
    assert_eq!(value["server"]["port"], 8080);
    assert_eq!(value["server"]["workload"]["name"], "api");
    assert_eq!(value["service"]["port"], 80);
    assert_eq!(value["kernel"]["location"], serde_json::json!({"symbol": "nft_do_chain.isra.0", "offset": 26}));
    assert_eq!(value["conntrack"]["original"]["destination"], "10.96.0.10");
    assert_eq!(value["explanation"]["ingress"]["nearest"][0]["peer"][0]["wants"], "app=frontend");
}

#[test]
fn strings_cannot_reach_the_terminal_and_survive() {
    let name = "x\u{7f}\u{9b}31m\u{202e}\u{e0041}ü\u{1b}\"\\";
    let line = text(&Line::Notice(Notice { time: at(0), level: "info", message: name }));
    assert!(!line.trim_end().chars().any(is_unprintable), "{line:?}");
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["message"], name);
}
