//! What changes are said to do, case by case. That it is true whatever changes is tested in `tests/properties`.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::*;
use crate::cluster::{Namespace, manifests};
use crate::policy::{Cause, PairEnd, Pairs, PortRange, Profile, Ruling};
use crate::timeline::Limits;

fn s(seconds: i64) -> Timestamp {
    Timestamp::new(1_800_000_000 + seconds, 0).expect("a time")
}

fn objects(yaml: &str) -> Vec<Object> {
    manifests::load(&["-".into()], &mut yaml.as_bytes()).unwrap_or_else(|errors| panic!("{errors}")).objects
}

fn object(yaml: &str) -> Object {
    let mut objects = objects(yaml);
    assert_eq!(objects.len(), 1, "{objects:?}");
    objects.remove(0)
}

fn pod(namespace: &str, name: &str, app: &str, ip: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {app}}}, ownerReferences: \
         [{{apiVersion: apps/v1, kind: StatefulSet, name: {app}, uid: u, controller: true}}]}}\n\
         spec: {{nodeName: node-1, containers: [{{name: main, image: example.org/main, ports: [{{name: http, containerPort: 8080}}]}}]}}\n\
         status: {{phase: Running, podIP: {ip}}}\n"
    )
}

fn namespace(name: &str, labels: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n")
}

fn policy(version: u32, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: api, namespace: shop, resourceVersion: '{version}'}}\n\
         spec: {spec}\n"
    )
}

/// Lets the pods of one app call `api`.
fn from(version: u32, app: &str) -> Object {
    object(&policy(
        version,
        &format!("{{podSelector: {{matchLabels: {{app: api}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {app}}}}}}}]}}]}}"),
    ))
}

const KINDS: [Kind; 7] = [
    Kind::Namespace,
    Kind::Node,
    Kind::Pod,
    Kind::NetworkPolicy,
    Kind::AdminNetworkPolicy,
    Kind::BaselineAdminNetworkPolicy,
    Kind::ClusterNetworkPolicy,
];

/// Three workloads of one namespace, one of another, a node.
fn shop() -> Timeline {
    let yaml = [
        namespace("shop", "team: shop"),
        namespace("dev", "team: dev"),
        "---\napiVersion: v1\nkind: Node\nmetadata: {name: node-1}\nspec: {podCIDR: 10.0.0.0/24}\n\
         status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}\n"
            .to_owned(),
        pod("shop", "web-0", "web", "10.0.0.1"),
        pod("shop", "web-1", "web", "10.0.0.2"),
        pod("shop", "api-0", "api", "10.0.0.3"),
        pod("shop", "ops-0", "ops", "10.0.0.4"),
        pod("dev", "job-0", "job", "10.0.0.5"),
    ];
    let mut timeline = Timeline::new(Profile::default(), Limits::default(), s(0));
    timeline.reset(s(0), &KINDS, objects(&yaml.concat()));
    timeline
}

fn effect_of(timeline: &mut Timeline, seconds: i64, object: Object) -> Effect {
    apply(timeline, s(seconds), object, &Bounds::default()).effect.expect("an effect")
}

fn turned(effect: &Effect) -> &Turned {
    match &effect.difference {
        Difference::Counted(turned) => turned,
        Difference::NotCounted(why) => panic!("{why:?}"),
    }
}

/// `shop/web > shop/api 8080-8080/TCP`
fn told(pairs: &Pairs) -> Vec<String> {
    let end = |end: &PairEnd| match end {
        PairEnd::Workload { namespace, workload } => format!("{namespace}/{}", workload.name),
        PairEnd::Nodes => "nodes".to_owned(),
        PairEnd::Outside(range) => range.to_string(),
    };
    let port = |&PortRange { protocol, from, to }: &PortRange| format!("{from}-{to}/{protocol}");
    let pair = |pair: &Pair| {
        let ports: Vec<String> = pair.ports.iter().map(port).collect();
        format!("{} > {} {}", end(&pair.source), end(&pair.destination), ports.join(" "))
    };
    pairs.named.iter().map(pair).collect()
}

const EVERY_PORT: &str = "1-65535/TCP 1-65535/UDP 1-65535/SCTP";

/// A rule, as `ingress[0] of shop/api`.
fn ruled(ruling: &Ruling) -> String {
    let rule = |rule: &crate::policy::RuleRef| format!("{}[{}] of {}", rule.direction, rule.index, rule.policy.full_name());
    match ruling {
        Ruling::Open => "open".to_owned(),
        Ruling::Admitted { by } => format!("admitted by {}", by.iter().map(rule).collect::<Vec<_>>().join(", ")),
        Ruling::Denied { by: Some(by), .. } => format!("denied by {}", rule(by)),
        Ruling::Denied { by: None, isolating } => {
            format!("isolated by {}", isolating.iter().map(|policy| policy.full_name()).collect::<Vec<_>>().join(", "))
        }
        Ruling::Undecided { why } => why.clone(),
    }
}

fn causes(pair: &Pair) -> Vec<String> {
    let cause = |Cause { direction, before, after }: &Cause| format!("{direction}: {}, then {}", ruled(before), ruled(after));
    pair.causes.iter().map(cause).collect()
}

#[test]
fn a_policy_that_comes_denies_and_names_itself() {
    let mut timeline = shop();
    let effect = effect_of(&mut timeline, 10, from(1, "web"));
    assert_eq!((effect.when, effect.change, effect.resource_version.as_deref()), (s(10), ChangeKind::Added, Some("1")));
    let denied = &turned(&effect).denied;
    let shown = [
        format!("dev/job > shop/api {EVERY_PORT}"),
        format!("shop/ops > shop/api {EVERY_PORT}"),
        format!("0.0.0.0/0 > shop/api {EVERY_PORT}"),
    ];
    assert_eq!(told(denied), shown);
    // Its own node may still call it, and it is the only one.
    assert_eq!((denied.workloads, denied.outside), (2, 1));
    assert_eq!(causes(&denied.named[0]), ["ingress: open, then isolated by shop/api"]);
    assert_eq!(summary(&effect.difference), "2 workload pairs newly denied; outside: 1 pair newly denied");
}

#[test]
fn a_change_takes_from_some_and_gives_to_others() {
    let mut timeline = shop();
    timeline.apply(s(10), from(1, "web"));
    let effect = effect_of(&mut timeline, 20, from(2, "ops"));
    let Turned { denied, allowed, undecided } = turned(&effect);
    assert_eq!((effect.change, effect.key.to_string()), (ChangeKind::Changed, "NetworkPolicy shop/api".to_owned()));
    assert_eq!(told(denied), [format!("shop/web > shop/api {EVERY_PORT}")]);
    assert_eq!(told(allowed), [format!("shop/ops > shop/api {EVERY_PORT}")]);
    assert_eq!(*undecided, Pairs::default());
    assert_eq!(causes(&denied.named[0]), ["ingress: admitted by ingress[0] of shop/api, then isolated by shop/api"]);
    assert_eq!(causes(&allowed.named[0]), ["ingress: isolated by shop/api, then admitted by ingress[0] of shop/api"]);
    assert_eq!(summary(&effect.difference), "1 workload pair newly denied, 1 newly allowed");

    let gone = delete(&mut timeline, s(30), &from(2, "ops").key(), &Bounds::default()).effect.expect("an effect");
    assert_eq!((gone.change, gone.resource_version.as_deref()), (ChangeKind::Removed, Some("2")));
    assert_eq!(turned(&gone).allowed.workloads, 2);
    assert_eq!(causes(&turned(&gone).allowed.named[0]), ["ingress: isolated by shop/api, then open"]);
    assert_eq!(timeline.engine().index().counts().network_policies, 0);
}

/// On other ports, and for a pair in which the ports are those of one pod.
#[test]
fn a_pair_can_be_denied_and_allowed_at_once() {
    let mut timeline = shop();
    let on = |version, port: &str| {
        object(&policy(version, &format!("{{podSelector: {{matchLabels: {{app: api}}}}, ingress: [{{ports: [{{port: {port}}}]}}]}}")))
    };
    timeline.apply(s(10), on(1, "http"));
    let effect = effect_of(&mut timeline, 20, on(2, "8081"));
    let Turned { denied, allowed, .. } = turned(&effect);
    assert_eq!((denied.workloads, allowed.workloads), (3, 3));
    assert_eq!(told(denied)[0], "dev/job > shop/api 8080-8080/TCP");
    assert_eq!(told(allowed)[0], "dev/job > shop/api 8081-8081/TCP");
}

/// Both sides have a say: what the caller's egress denies is not newly denied.
#[test]
fn what_was_denied_by_the_other_side_is_no_news() {
    let mut timeline = shop();
    let egress = "{podSelector: {matchLabels: {app: ops}}, policyTypes: [Egress]}";
    let closed = policy(1, egress).replace("name: api", "name: closed");
    timeline.apply(s(10), object(&closed));
    let effect = effect_of(&mut timeline, 20, from(1, "web"));
    assert_eq!(told(&turned(&effect).denied), [format!("dev/job > shop/api {EVERY_PORT}"), format!("0.0.0.0/0 > shop/api {EVERY_PORT}")]);
}

/// The pods of a workload with several may call each other; that of a workload with one may always call itself.
#[test]
fn a_workload_calls_itself_if_it_has_two_pods() {
    let mut timeline = shop();
    let closed = "{podSelector: {matchExpressions: [{key: app, operator: In, values: [web, api]}]}}";
    let effect = effect_of(&mut timeline, 10, object(&policy(1, closed)));
    let pairs: Vec<String> = told(&apply_all(&effect).denied);
    assert!(pairs.contains(&format!("shop/web > shop/web {EVERY_PORT}")), "{pairs:?}");
    assert!(!pairs.iter().any(|pair| pair.starts_with("shop/api > shop/api")), "{pairs:?}");
    assert_eq!(turned(&effect).denied.workloads, 7);
}

/// The same change with every pair named.
fn apply_all(effect: &Effect) -> Turned {
    let mut timeline = shop();
    let closed = "{podSelector: {matchExpressions: [{key: app, operator: In, values: [web, api]}]}}";
    let bounds = Bounds { named: usize::MAX, ..Bounds::default() };
    let all = apply(&mut timeline, s(10), object(&policy(1, closed)), &bounds).effect.expect("an effect");
    assert_eq!(turned(&all).denied.workloads, turned(effect).denied.workloads);
    turned(&all).clone()
}

/// Another node than the pod's own is a caller like any other.
#[test]
fn nodes_are_told_of_where_they_are_not_the_pods_own() {
    let mut timeline = shop();
    let other = "apiVersion: v1\nkind: Node\nmetadata: {name: node-2}\nstatus: {addresses: [{type: InternalIP, address: 192.168.0.2}]}\n";
    timeline.apply(s(1), object(other));
    let effect = effect_of(&mut timeline, 10, from(1, "web"));
    assert!(told(&turned(&effect).denied).contains(&format!("nodes > shop/api {EVERY_PORT}")), "{effect:#?}");
}

#[test]
fn ranges_are_named_as_policies_name_them() {
    let mut timeline = shop();
    let block = |version, cidr: &str| {
        let spec = "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: CIDR}}]}]}";
        object(&policy(version, &spec.replace("CIDR", cidr)))
    };
    timeline.apply(s(10), block(1, "203.0.113.0/24"));
    let effect = effect_of(&mut timeline, 20, block(2, "198.51.100.0/24"));
    assert_eq!(told(&turned(&effect).denied), [format!("shop/web > 203.0.113.0/24 {EVERY_PORT}")]);
    assert_eq!(told(&turned(&effect).allowed), [format!("shop/web > 198.51.100.0/24 {EVERY_PORT}")]);
    // Nobody names the first any more: it is a part of all the rest.
    let effect = effect_of(&mut timeline, 30, block(3, "192.0.2.1/32"));
    assert_eq!(told(&turned(&effect).denied), [format!("shop/web > 198.51.100.0/24 {EVERY_PORT}")]);
    // The addresses of a pod and of a node are theirs, and nobody's outside.
    let effect = effect_of(&mut timeline, 40, block(4, "10.0.0.3/32"));
    assert_eq!(told(&turned(&effect).allowed), [format!("shop/web > shop/api {EVERY_PORT}")]);
    assert_eq!(told(&turned(&effect).denied), [format!("shop/web > 192.0.2.1/32 {EVERY_PORT}")]);
    let effect = effect_of(&mut timeline, 50, block(5, "192.168.0.1/32"));
    assert_eq!(told(&turned(&effect).allowed), [format!("shop/web > nodes {EVERY_PORT}")]);
    // Cloud metadata is called, though nobody calls from there.
    let effect = effect_of(&mut timeline, 60, block(6, "169.254.169.254/32"));
    assert_eq!(told(&turned(&effect).allowed), [format!("shop/web > 169.254.169.254/32 {EVERY_PORT}")]);
}

const DENY_DEV: &str = "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: deny-dev}\n\
    spec: {priority: 10, subject: {namespaces: {matchLabels: {team: shop}}}, \
    ingress: [{name: no-dev, action: Deny, from: [{namespaces: {matchLabels: {team: dev}}}]}]}\n";

#[test]
fn cluster_scoped_policies_deny_by_rule() {
    let mut timeline = shop();
    let effect = effect_of(&mut timeline, 10, object(DENY_DEV));
    let denied = &turned(&effect).denied;
    assert_eq!((denied.workloads, denied.outside), (3, 0));
    assert_eq!(causes(&denied.named[0]), ["ingress: open, then denied by ingress[0] of deny-dev"]);
    assert_eq!(effect.key.to_string(), "AdminNetworkPolicy deny-dev");
    assert_eq!(effect.resource_version, None);
}

/// The pods of a namespace change sides with its labels: as callers and as subjects.
#[test]
fn labels_of_a_namespace_have_an_effect_if_they_make_a_difference() {
    let mut timeline = shop();
    timeline.apply(s(5), object(DENY_DEV));
    let effect = effect_of(&mut timeline, 10, object(&namespace("dev", "team: other")));
    assert_eq!((effect.key.to_string(), effect.change), ("Namespace dev".to_owned(), ChangeKind::Changed));
    assert_eq!(turned(&effect).allowed.workloads, 3);
    assert_eq!(causes(&turned(&effect).allowed.named[0]), ["ingress: denied by ingress[0] of deny-dev, then open"]);
    let effect = effect_of(&mut timeline, 20, object(&namespace("dev", "team: dev")));
    assert_eq!(turned(&effect).denied.workloads, 3);
    let effect = effect_of(&mut timeline, 30, object(&namespace("shop", "team: dev")));
    // Dev may call shop, and nobody is a subject any more.
    assert_eq!((turned(&effect).allowed.workloads, turned(&effect).denied.workloads), (3, 0));
    let without = apply(&mut timeline, s(40), object(&namespace("shop", "team: dev, tier: x")), &Bounds::default());
    assert_eq!(without, Applied { is_changed: true, effect: None });
    // One that goes is as if it had no labels.
    let gone = delete(&mut timeline, s(50), &object(&namespace("shop", "")).key(), &Bounds::default());
    assert_eq!(gone, Applied { is_changed: true, effect: None });
}

#[test]
fn what_changes_nothing_has_no_effect() {
    let mut timeline = shop();
    timeline.apply(s(5), from(1, "web"));
    assert_eq!(apply(&mut timeline, s(10), from(1, "web"), &Bounds::default()), Applied { is_changed: false, effect: None });
    // Another version that says the same, as a change of the status makes.
    assert_eq!(apply(&mut timeline, s(11), from(2, "web"), &Bounds::default()), Applied { is_changed: true, effect: None });
    let gone = delete(&mut timeline, s(12), &object(DENY_DEV).key(), &Bounds::default());
    assert_eq!(gone, Applied { is_changed: false, effect: None });
    // Pods come and go under the policies that there are.
    let came = apply(&mut timeline, s(13), object(&pod("shop", "web-2", "web", "10.0.0.9")), &Bounds::default());
    assert_eq!(came, Applied { is_changed: true, effect: None });
    // A policy that selects nobody is told of all the same.
    let nobody = object(&policy(3, "{podSelector: {matchLabels: {app: nobody}}}").replace("name: api", "name: nobody"));
    let effect = effect_of(&mut timeline, 14, nobody);
    assert!(effect.difference.is_none());
    assert_eq!(summary(&effect.difference), "no verdict changes");
}

/// A second policy beside one that isolates already only adds rules.
#[test]
fn each_change_is_compared_with_just_before() {
    let mut timeline = shop();
    let first = effect_of(&mut timeline, 10, object(&policy(1, "{podSelector: {}}")));
    let named = policy(2, "{podSelector: {matchLabels: {app: api}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}");
    let second = effect_of(&mut timeline, 10, object(&named.replace("name: api", "name: web")));
    assert!(turned(&first).denied.workloads > 0 && turned(&first).allowed.workloads == 0);
    assert_eq!((turned(&second).denied.workloads, told(&turned(&second).allowed)), (0, vec![format!("shop/web > shop/api {EVERY_PORT}")]));
    assert_ne!(first.id, second.id);
}

/// After a watch was interrupted a list tells what became of policies meanwhile.
#[test]
fn a_list_has_the_effects_of_what_changed_meanwhile() {
    let mut timeline = shop();
    timeline.apply(s(5), from(1, "web"));
    let named = |name: &str, spec: &str| object(&policy(7, spec).replace("name: api", &format!("name: {name}")));
    timeline.apply(s(6), named("gone", "{podSelector: {matchLabels: {app: ops}}}"));
    let list = vec![from(2, "ops"), named("new", "{podSelector: {matchLabels: {app: web}}}")];
    let (changed, effects) = reset(&mut timeline, s(10), &[Kind::NetworkPolicy], list.clone(), &Bounds::default());
    assert_eq!(changed, 3);
    let summaries: BTreeMap<String, String> =
        effects.iter().map(|effect| (format!("{} {}", effect.key, effect.change), summary(&effect.difference))).collect();
    let expected = [
        ("NetworkPolicy shop/api changed", "1 workload pair newly denied, 1 newly allowed"),
        ("NetworkPolicy shop/gone removed", "3 workload pairs newly allowed; outside: 1 pair newly allowed"),
        ("NetworkPolicy shop/new added", "4 workload pairs newly denied; outside: 1 pair newly denied"),
    ];
    assert_eq!(summaries, expected.map(|(key, summary)| (key.to_owned(), summary.to_owned())).into());
    // Again there is nothing new, and the first list of a kind is none.
    assert_eq!(reset(&mut timeline, s(20), &[Kind::NetworkPolicy], list, &Bounds::default()), (0, Vec::new()));
    let mut fresh = Timeline::new(Profile::default(), Limits::default(), s(0));
    assert_eq!(reset(&mut fresh, s(0), &[Kind::NetworkPolicy], [from(1, "web")], &Bounds::default()), (1, Vec::new()));
}

#[test]
fn of_very_many_changes_at_once_not_all_are_counted() {
    let mut timeline = shop();
    let one = |number: usize| object(&policy(1, "{podSelector: {}}").replace("name: api", &format!("name: policy-{number:03}")));
    let (changed, effects) = reset(&mut timeline, s(10), &[Kind::NetworkPolicy], (0..120).map(one), &Bounds::default());
    assert_eq!((changed, effects.len(), timeline.engine().index().counts().network_policies), (120, 120, 120));
    assert!(matches!(effects[99].difference, Difference::Counted(_)));
    assert_eq!(summary(&effects[100].difference), "not counted: more than 100 objects changed at once");
}

#[test]
fn too_much_work_is_not_done_and_the_change_is_made() {
    let mut timeline = shop();
    let bounds = Bounds { verdicts: 5, named: 3 };
    let effect = apply(&mut timeline, s(10), from(1, "web"), &bounds).effect.expect("an effect");
    assert_eq!(summary(&effect.difference), "not counted: more than 5 verdicts would have to be compared");
    assert_eq!(timeline.engine().index().counts().network_policies, 1);
    assert_eq!(effect.pairs().count(), 0);
}

/// Every so many changes the engine builds everything anew, in the middle of which nothing is compared.
#[test]
fn the_thousandth_change_is_told_like_the_first() {
    let mut timeline = shop();
    let bounds = Bounds { named: 1, ..Bounds::default() };
    let block = |number: u32| {
        let spec = format!(
            "{{podSelector: {{matchLabels: {{app: api}}}}, ingress: [{{from: [{{ipBlock: {{cidr: 10.{}.{}.0/24}}}}]}}]}}",
            1 + number / 256,
            number % 256
        );
        object(&policy(number, &spec))
    };
    apply(&mut timeline, s(1), block(0), &bounds);
    for number in 1..1_200 {
        let effect = apply(&mut timeline, s(1), block(number), &bounds).effect.expect("an effect");
        let expected = "outside: 1 pair newly denied, 1 newly allowed";
        assert_eq!(summary(&effect.difference), expected, "{number}");
    }
}

/// Agents that saw the same have the same id for it.
#[test]
fn the_same_change_has_the_same_id_everywhere() {
    let change = |from_version: u32, to_version: u32| {
        let mut timeline = shop();
        timeline.apply(s(from_version.into()), from(from_version, "web"));
        effect_of(&mut timeline, 100, from(to_version, "ops")).id
    };
    assert_eq!(change(1, 2), change(1, 2));
    assert_ne!(change(1, 2), change(1, 3));
    assert_ne!(change(1, 3), change(2, 3));
    let namespaces = ["team: a", "team: b"].map(|labels| {
        let before = object(&namespace("dev", ""));
        id(&Change { when: s(0), key: before.key(), before: Some(before), after: Some(object(&namespace("dev", labels))) })
    });
    assert_ne!(namespaces[0], namespaces[1]);
    let described = Namespace { name: "dev".into(), labels: Default::default() };
    let key = Object::from(described).key();
    assert_eq!(EffectId(0x0a).to_string(), "000000000000000a");
    assert_eq!(key.to_string(), "Namespace dev");
}

/// Changes that come faster than their effects can be worked out are known all the same, and said.
#[test]
fn what_there_is_no_time_for_is_not_counted() {
    let mut timeline = shop();
    let none = Bounds { verdicts: 0, ..Bounds::default() };
    let applied = apply(&mut timeline, s(1), from(1, "web"), &none);
    let effect = applied.effect.expect("a policy came");
    assert!(applied.is_changed && matches!(effect.difference, Difference::NotCounted(NotCounted::Busy)));
    assert_eq!(summary(&effect.difference), "not counted: changes come too fast");
    assert_eq!(timeline.engine().index().counts().network_policies, 1);
    assert_eq!(apply(&mut timeline, s(2), from(1, "web"), &none), Applied { is_changed: false, effect: None });
    let applied = apply(&mut timeline, s(3), object(&namespace("dev", "team: other")), &none);
    assert_eq!(applied, Applied { is_changed: true, effect: None });
    assert!(delete(&mut timeline, s(4), &effect.key, &none).effect.is_some());
}
