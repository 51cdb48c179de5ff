//! Changes of policies and labels around a drop, and policies that are not evaluated.

use super::*;
use crate::cluster::{Foreign, ForeignPolicies, Object};
use crate::diagnose::{Agreement, Class};
use crate::policy::Verdict;

/// A world in which web may not call api, by a policy that is a minute old.
fn denied() -> World {
    let mut world = world();
    world.apply(-59_000, pod("web", Some(A)));
    world.apply(-58_000, policy("api", &["frontend"]));
    world
}

fn changed(denial: &Denial) -> Vec<String> {
    let changes = moment(denial).changes.iter();
    changes.map(|change| format!("{change}: {:?} {:?}", change.verdict_before, change.verdict_after)).collect()
}

#[test]
fn a_change_that_is_not_enforced_yet_is_the_cause() {
    let mut world = denied();
    world.apply(-3_000, policy("api", &["frontend", "web"]));
    world.drop(1, &syn(0, A, API));
    let denial = world.denial();
    assert_eq!(denial.explanation.verdict, Verdict::Allow);
    assert_eq!(denial.diagnosis.class, Class::PolicyChanged);
    let why = "NetworkPolicy shop/api changed 3 s before the drop; before, they denied it".to_owned();
    assert_eq!(denial.diagnosis.agreement, Agreement::PolicyChanged { why });
    assert!(denial.diagnosis.summary.contains("not enforced here yet"), "{}", denial.diagnosis.summary);
    // Longer ago it is no excuse.
    world.drop(7_002, &syn(7_001, A, API));
    let denial = world.denial();
    assert_eq!((&denial.diagnosis.class, &denial.diagnosis.agreement), (&Class::HostFirewall, &Agreement::PoliciesAllow));
    assert!(moment(&denial).changes.is_empty());
}

#[test]
fn a_policy_that_is_gone_may_still_be_enforced() {
    let mut world = denied();
    world.moments.timeline_mut().delete(at(-500), &Object::from(policy("api", &[])).key());
    world.drop(1, &syn(0, A, API));
    let denial = world.denial();
    assert_eq!(denial.diagnosis.class, Class::PolicyChanged);
    assert_eq!(changed(&denial), ["NetworkPolicy shop/api was removed 0.5 s before the drop: Deny Allow"]);
}

#[test]
fn several_changes_are_taken_back_one_after_the_other() {
    // A denial of all, and what admits web a second later; the node has the first of them.
    let mut world = world();
    world.apply(-59_000, pod("web", Some(A)));
    world.apply(-4_000, policy("deny", &[]));
    world.apply(-3_000, policy("allow", &["web"]));
    world.drop(1, &syn(0, A, API));
    let denial = world.denial();
    assert_eq!(denial.diagnosis.class, Class::PolicyChanged);
    assert_eq!(
        changed(&denial),
        [
            "NetworkPolicy shop/allow was added 3 s before the drop: Deny Allow",
            "NetworkPolicy shop/deny was added 4 s before the drop: Allow Deny"
        ]
    );
}

#[test]
fn a_denial_says_that_its_policy_is_new() {
    let mut world = world();
    world.apply(-59_000, pod("web", Some(A)));
    world.apply(-2_000, policy("api", &["frontend"]));
    world.drop(1, &syn(0, A, API));
    let denial = world.denial();
    assert!(matches!(denial.diagnosis.class, Class::PolicyDenied(_)));
    assert_eq!(denial.diagnosis.agreement, Agreement::Agrees);
    assert_eq!(changed(&denial), ["NetworkPolicy shop/api was added 2 s before the drop: Allow Deny"]);
}

#[test]
fn a_policy_that_is_told_late_amends_what_was_blamed_on_a_firewall() {
    let mut world = world();
    world.apply(-59_000, pod("web", Some(A)));
    world.drop(1, &syn(0, A, API));
    assert_eq!(world.denial().diagnosis.class, Class::HostFirewall);
    world.apply(300, NetworkPolicy { namespace: "other".into(), ..policy("api", &[]) });
    assert!(world.given().is_empty());
    world.apply(400, policy("api", &["frontend"]));
    match std::mem::take(&mut world.steps).as_slice() {
        [Step::Amendment(amendment)] => {
            let denial = &amendment.denial;
            assert_eq!(amendment.why, "NetworkPolicy shop/api was added 0.4 s after the drop");
            assert!(matches!(denial.diagnosis.class, Class::PolicyDenied(_)), "{:?}", denial.diagnosis);
            assert!(matches!(denial.diagnosis.agreement, Agreement::PolicyChanged { .. }), "{:?}", denial.diagnosis);
            assert_eq!((denial.explanation.verdict, denial.explanation.fixes.len()), (Verdict::Deny, 1));
        }
        other => panic!("{other:?}"),
    }
    // The engine is that of now.
    assert_eq!(world.moments.timeline().engine().index().policies().count(), 2);
}

#[test]
fn a_policy_told_too_late_is_innocent() {
    let mut world = world();
    world.apply(-59_000, pod("web", Some(A)));
    world.drop(1, &syn(0, A, API));
    world.steps.clear();
    world.apply(2_001, policy("api", &["frontend"]));
    assert!(world.given().is_empty());
    world.drop(2_100, &syn(0, A, API));
    assert_eq!(world.denial().diagnosis.class, Class::HostFirewall);
}

#[test]
fn labels_that_changed_are_named() {
    let mut world = denied();
    world.apply(-1_000, Pod { labels: labels(&[("app", "frontend")]), ..pod("web", Some(A)) });
    world.drop(1, &syn(0, A, API));
    let denial = world.denial();
    assert_eq!(denial.diagnosis.class, Class::PolicyChanged);
    assert_eq!(changed(&denial), ["the labels of Pod shop/web changed 1 s before the drop: Deny Allow"]);
    assert_eq!(denial.who.client.identity.pod().map(|pod| pod.labels.clone()), Some(labels(&[("app", "frontend")])));

    // A namespace's, by a policy that asks for them.
    let mut world = self::world();
    world.apply(-59_000, pod("web", Some(A)));
    let team = Selector { requirements: vec![Requirement { key: "team".into(), operator: Operator::Equals("a".into()) }] };
    let rule = crate::cluster::Rule {
        peers: vec![crate::cluster::Peer::Pods { namespace: Some(team), pod: None }],
        ports: Vec::new(),
        origin: None,
    };
    world.apply(-58_000, NetworkPolicy { ingress: Some(vec![rule]), ..policy("api", &[]) });
    world.apply(-1_000, Namespace { name: "shop".into(), labels: labels(&[("team", "a")]) });
    world.drop(1, &syn(0, A, API));
    assert_eq!(changed(&world.denial()), ["the labels of Namespace shop changed 1 s before the drop: Deny Allow"]);
}

#[test]
fn changes_that_do_not_matter_are_not_named() {
    let mut world = denied();
    // Says the same; another namespace; another pod; another policy that says nothing of this.
    world.apply(-5_000, NetworkPolicy { labels: labels(&[("a", "b")]), ..policy("api", &["frontend"]) });
    world.apply(-4_000, NetworkPolicy { namespace: "dev".into(), ..policy("api", &[]) });
    world.apply(-3_000, Pod { labels: labels(&[("app", "x")]), ..pod("other", Some(B)) });
    world.apply(-2_000, policy("more", &["frontend"]));
    world.drop(1, &syn(0, A, API));
    let denial = world.denial();
    assert_eq!(changed(&denial), [""; 0]);
    assert!(moment(&denial).is_plain());
}

#[test]
fn a_denial_that_was_not_enforced_names_the_change() {
    let mut world = world();
    world.apply(-59_000, pod("web", Some(A)));
    world.apply(-200, policy("api", &[]));
    let names = Names::linux();
    let refused = syn(0, A, API).reason(names.reason_number("NO_SOCKET")).location(names.address("tcp_v4_rcv"));
    world.drop(1, &refused);
    let denial = world.denial();
    assert_eq!(denial.diagnosis.class, Class::NoListener);
    let expected = "or not yet (NetworkPolicy shop/api was added 0.2 s before the drop).";
    assert!(denial.diagnosis.summary.contains(expected), "{}", denial.diagnosis.summary);
}

fn foreign(list: &[(&str, bool, &[&str])]) -> Arc<ForeignPolicies> {
    let mut foreign = ForeignPolicies::default();
    for (kind, namespaced, namespaces) in list {
        let names: Vec<(Arc<str>, Arc<str>)> =
            namespaces.iter().enumerate().map(|(i, namespace)| (Arc::from(*namespace), format!("p{i}").into())).collect();
        foreign.put(Foreign::counted("example.org", kind, *namespaced, names.iter().map(|(namespace, name)| (namespace, name))));
    }
    Arc::new(foreign)
}

#[test]
fn policies_that_are_not_evaluated_leave_open_what_the_others_allow() {
    let mut world = world();
    world.apply(-59_000, pod("web", Some(A)));
    world.moments.set_foreign(foreign(&[("CiliumNetworkPolicy", true, &["shop", "shop", "shop", "dev"])]));
    world.drop(1, &syn(0, A, API));
    let denial = world.denial();
    assert_eq!(denial.diagnosis.class, Class::Undecided);
    let why = "3 CiliumNetworkPolicies are not evaluated".to_owned();
    assert_eq!(denial.diagnosis.agreement, Agreement::CannotDecide { why });
    // In another namespace they concern nobody here; of the whole cluster they always do.
    world.moments.set_foreign(foreign(&[("CiliumNetworkPolicy", true, &["dev"])]));
    world.drop(2, &syn(1, A, API));
    assert_eq!(world.denial().diagnosis.class, Class::HostFirewall);
    world.moments.set_foreign(foreign(&[("CiliumClusterwideNetworkPolicy", false, &[""])]));
    world.drop(3, &syn(2, A, API));
    let why = "1 CiliumClusterwideNetworkPolicy is not evaluated".to_owned();
    assert_eq!(world.denial().diagnosis.agreement, Agreement::CannotDecide { why });
}

#[test]
fn a_denial_that_the_kernel_confirms_stays_one() {
    let mut world = denied();
    world.moments.set_foreign(foreign(&[("CiliumNetworkPolicy", true, &["shop"])]));
    world.drop(1, &syn(0, A, API));
    let denial = world.denial();
    assert!(matches!(denial.diagnosis.class, Class::PolicyDenied(_)));
    assert_eq!(denial.diagnosis.agreement, Agreement::Agrees);
    assert_eq!(moment(&denial).unevaluated.len(), 1);
}
