use super::*;
use crate::serve::label_selector::parse_selector;
use crate::serve::testing::{example, external, innocent, policy_change, workload_end};

fn group(filters: impl IntoIterator<Item = Filter>) -> Group {
    Group(filters.into_iter().collect())
}

fn one(filter: Filter) -> bool {
    group([filter]).matches(&example())
}

fn pattern(text: &str) -> NamePattern {
    text.parse().unwrap()
}

#[test]
fn each_kind_finds_what_it_names_and_nothing_else() {
    use Filter::*;
    use Side::*;
    let class = |name: &str| Class(name.parse().unwrap());
    let net = |text| parse_ip(text).unwrap();
    for (filter, expected) in [
        (Namespace(Either, "shop".into()), true),
        (Namespace(From, "shop".into()), true),
        (Namespace(To, "dev".into()), false),
        (Pod(Either, pattern("api-5c4b")), true),
        (Pod(From, pattern("api-5c4b")), false),
        (Pod(To, pattern("shop/api-*")), true),
        (Pod(To, pattern("dev/api-*")), false),
        (Pod(To, pattern("api")), false),
        (Selector(parse_selector("app in (web,x)").unwrap()), true),
        (Selector(parse_selector("app=db").unwrap()), false),
        (Ip(Either, net("10.244.2.7")), true),
        (Ip(From, net("10.244.1.0/24")), true),
        (Ip(To, net("10.244.1.0/24")), false),
        (Ip(To, net("10.96.0.10")), true),
        (Ip(From, net("10.96.0.10")), false),
        (Port(8080), true),
        (Port(80), true),
        (Port(41_312), false),
        (Protocol(crate::flow::Protocol::Tcp), true),
        (Protocol(crate::flow::Protocol::Udp), false),
        (Direction(crate::cluster::Direction::Ingress), true),
        (Direction(crate::cluster::Direction::Egress), false),
        (Policy(pattern("shop/api-allow-frontend")), true),
        (Policy(pattern("api-*")), true),
        (Policy(pattern("dev/api-allow-frontend")), false),
        (Reason("netfilter_drop".into()), true),
        (Reason("SKB_DROP_REASON_NETFILTER_DROP".into()), true),
        (Reason("8".into()), true),
        (Reason("TC_INGRESS".into()), false),
        (class("policy-denied"), true),
        (class("policyDenied"), true),
        (class("no-listener"), false),
    ] {
        assert_eq!(one(filter.clone()), expected, "{filter:?}");
    }
}

#[test]
fn a_policy_is_found_only_in_a_direction_that_denies() {
    let allowed = innocent(Class::HostFirewall, crate::diagnose::Agreement::PoliciesAllow, "");
    assert!(!group([Filter::Policy(pattern("*"))]).matches(&allowed));
    assert!(!group([Filter::Direction(Direction::Ingress)]).matches(&allowed));
}

#[test]
fn a_dialled_service_lends_its_namespace_to_the_server_side() {
    let mut denial = example();
    denial.who.server = external("203.0.113.5");
    assert!(group([Filter::Namespace(Side::To, "shop".into())]).matches(&denial));
    denial.who.service = None;
    assert!(!group([Filter::Namespace(Side::To, "shop".into())]).matches(&denial));
}

#[test]
fn one_kind_is_or_and_kinds_are_and() {
    let port = Filter::Port;
    assert!(group([port(1), port(8080)]).matches(&example()));
    assert!(!group([port(1), Filter::Namespace(Side::Either, "shop".into())]).matches(&example()));
    // The sides of a name are kinds of their own.
    let (from, to) = (Filter::Namespace(Side::From, "shop".into()), Filter::Namespace(Side::To, "dev".into()));
    assert!(!group([from, to]).matches(&example()));
    assert!(group([]).matches(&example()));
}

#[test]
fn unwanted_groups_take_away() {
    let wanted = group([Filter::Namespace(Side::Either, "shop".into())]);
    let admit = |unwanted: Vec<Group>| Filters { wanted: wanted.clone(), unwanted }.admit(&example());
    assert!(admit(vec![]));
    assert!(!admit(vec![group([Filter::Port(8080)])]));
    assert!(admit(vec![group([Filter::Port(8080), Filter::Protocol(Protocol::Udp)])]));
    assert!(!admit(vec![group([Filter::Protocol(Protocol::Udp)]), group([Filter::Port(8080)])]));
}

#[test]
fn class_names_are_those_of_json() {
    for class in &CLASSES {
        let name = ClassName(class_name(class));
        assert_eq!(name.to_string().parse(), Ok(name));
        assert_eq!(name.0.parse(), Ok(name));
    }
    assert!("denied".parse::<ClassName>().unwrap_err().contains("policy-denied, policy-changed"));
}

#[test]
fn names_that_are_none_are_refused() {
    for text in ["", "a/", "/b", "a/b/c"] {
        assert!(text.parse::<NamePattern>().is_err(), "{text:?}");
    }
    assert!(parse_ip("10.0.0.0/33").is_err());
    assert!(parse_ip("fd00::1").is_ok());
}

/// A change is found by its policy, its namespace and the namespaces of the pairs that are named; filters of drops leave it out.
#[test]
fn changes_of_policies_are_found_by_what_they_have() {
    use Side::{Either, From, To};
    let mut effect = policy_change();
    if let crate::policy::Difference::Counted(turned) = &mut effect.difference {
        turned.allowed.named[0].source = workload_end("dev", "ops");
    }
    let namespace = |side, name: &str| Filter::Namespace(side, name.into());
    for (filter, expected) in [
        (namespace(Either, "shop"), true),
        (namespace(Either, "dev"), true),
        (namespace(From, "dev"), true),
        (namespace(To, "dev"), false),
        (namespace(To, "shop"), true),
        (namespace(Either, "test"), false),
        (Filter::Policy(pattern("shop/api")), true),
        (Filter::Policy(pattern("ap*")), true),
        (Filter::Policy(pattern("dev/api")), false),
        (Filter::Port(8080), false),
        (Filter::Pod(Either, pattern("web-7d9f")), false),
        (Filter::Class("policy-denied".parse().unwrap()), false),
    ] {
        assert_eq!(group([filter.clone()]).matches_change(&effect), expected, "{filter:?}");
        let filters = Filters { wanted: group([filter.clone()]), unwanted: vec![group([Filter::Port(8080)])] };
        assert_eq!(filters.admit_change(&effect), expected, "{filter:?}");
        let unwanted = Filters { wanted: group([]), unwanted: vec![group([filter.clone()])] };
        assert_eq!(unwanted.admit_change(&effect), !expected, "{filter:?}");
    }
    let both = group([namespace(Either, "test"), namespace(Either, "dev"), Filter::Policy(pattern("web"))]);
    assert!(!both.matches_change(&effect));
    // A policy without a namespace, and a namespace itself.
    effect.key = crate::cluster::ObjectKey { kind: Kind::Namespace, namespace: "".into(), name: "test".into() };
    assert!(group([namespace(Either, "test")]).matches_change(&effect));
    assert!(!group([Filter::Policy(pattern("test"))]).matches_change(&effect));
}
