//! What a timeline says of the past, case by case. That it says so whatever changes is tested in `tests/properties`.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{core::v1 as core, networking::v1 as networking};
use serde_json::json;

use super::*;
use crate::cluster::{Backend, DomainName, EndpointSlice, NetworkPolicy, Pod, convert};
use crate::flow::Protocol;
use crate::policy::Verdict;

const WEB: &str = "10.0.0.1";
const API: &str = "10.0.0.2";

fn s(seconds: i64) -> Timestamp {
    Timestamp::new(1_800_000_000 + seconds, 0).expect("a time")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn pod(name: &str, address: &str, app: &str) -> Pod {
    let pod: core::Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-of-{name}"), "labels": {"app": app}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": address}]},
    }))
    .expect("a pod");
    convert::pod(pod, &mut Vec::new())
}

/// Lets the pods of one app call those of `api`.
fn policy(from: &str) -> NetworkPolicy {
    let policy: networking::NetworkPolicy = serde_json::from_value(json!({
        "metadata": {"name": "api", "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "api"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": from}}}]}],
        },
    }))
    .expect("a policy");
    convert::network_policy(policy, &mut Vec::new())
}

fn key(object: impl Into<Object>) -> ObjectKey {
    object.into().key()
}

/// Two pods from the start on.
fn shop(limits: Limits) -> Timeline {
    let mut timeline = Timeline::new(Profile::default(), limits, s(0));
    let pods = [pod("web", WEB, "web"), pod("api", API, "api")].map(Object::from);
    timeline.reset(s(0), &[Kind::Pod, Kind::NetworkPolicy], pods);
    timeline
}

fn call(engine: &Engine) -> Verdict {
    engine.verdict_between(ip(WEB), ip(API), Protocol::Tcp, Some(8080))
}

/// `Pod shop/a 3..7`, and `..` at the ends where it is not known or not over.
fn told(owners: &[Owner]) -> Vec<String> {
    let second = |when: Option<Timestamp>| when.map(|when| (when.as_second() - s(0).as_second()).to_string()).unwrap_or_default();
    owners.iter().map(|owner| format!("{} {}..{}", owner.who, second(owner.since), second(owner.until))).collect()
}

#[test]
fn what_is_the_same_need_not_be_told() {
    let (mut told, mut untold) = (shop(Limits::default()), shop(Limits::default()));
    let other = pod("web", "10.0.0.9", "web");
    let new = pod("new", "10.0.0.3", "new");
    let all = [pod("api", API, "api"), other.clone(), new.clone()].map(Object::from);
    assert_eq!(told.reset(s(10), &[Kind::Pod], all), 2);
    let same = key(pod("api", API, "api"));
    assert_eq!(untold.relist(s(10), Kind::Pod, [other.clone().into(), new.into()], |key| *key == same), 2);
    let pods = |timeline: &Timeline| timeline.engine().index().pods().cloned().collect::<Vec<_>>();
    assert_eq!(pods(&told), pods(&untold));
    let times = |timeline: &Timeline| {
        timeline.changes(s(0), s(99), |_| true).map(|change| (change.when, change.key.clone())).collect::<BTreeSet<_>>()
    };
    assert_eq!(times(&told), times(&untold));
    // Who is neither the same nor told is gone.
    assert_eq!(untold.relist(s(20), Kind::Pod, [], |key| *key == same), 2);
    assert_eq!(pods(&untold), [Arc::new(pod("api", API, "api"))]);
}

#[test]
fn a_verdict_is_that_of_its_time() {
    let mut timeline = shop(Limits::default());
    timeline.apply(s(10), policy("frontend"));
    timeline.apply(s(20), policy("web"));
    timeline.delete(s(30), &key(policy("web")));
    for (when, verdict) in [(9, Verdict::Allow), (10, Verdict::Deny), (19, Verdict::Deny), (20, Verdict::Allow), (30, Verdict::Allow)] {
        assert_eq!(timeline.at(s(when), call), Past { value: verdict, exact: true }, "{when}");
        assert_eq!(timeline.at(s(15), call).value, Verdict::Deny);
        assert_eq!(timeline.engine().index().counts().network_policies, 0);
    }
}

#[test]
fn without_a_change_since_it_is_the_engine_of_now() {
    let mut timeline = shop(Limits::default());
    timeline.apply(s(10), policy("frontend"));
    let now = std::ptr::from_ref(timeline.engine());
    assert!(timeline.at(s(10), |engine| std::ptr::eq(now, engine)).value);
    // What changed and changed back is no reason to take anything back either: the rows that were worked out stay.
    timeline.delete(s(20), &key(policy("frontend")));
    timeline.apply(s(21), policy("frontend"));
    assert!(timeline.at(s(10), |engine| std::ptr::eq(now, engine)).value);
    assert_eq!(timeline.at(s(10), call), Past { value: Verdict::Deny, exact: true });
}

#[test]
fn a_panic_leaves_the_engine_of_now() {
    let mut timeline = shop(Limits::default());
    timeline.apply(s(10), policy("frontend"));
    timeline.delete(s(11), &key(pod("web", WEB, "web")));
    let outcome = catch_unwind(AssertUnwindSafe(|| timeline.at(s(5), |engine| assert_eq!(call(engine), Verdict::Deny, "allowed then"))));
    assert!(outcome.is_err());
    let counts = timeline.engine().index().counts();
    assert_eq!((counts.network_policies, counts.pods), (1, 1));
    assert_eq!(timeline.at(s(10), call).value, Verdict::Deny);
}

/// From one time to the next only what changed between them is changed, forth and back.
#[test]
fn a_look_back_goes_from_time_to_time() {
    let mut timeline = shop(Limits::default());
    timeline.apply(s(10), policy("frontend"));
    timeline.apply(s(15), pod("web", "10.0.0.9", "web"));
    timeline.apply(s(20), policy("web"));
    let mut look_back = timeline.look_back();
    // At last nobody has the caller's address any more, and strangers are not admitted.
    for (when, verdict) in [(20, Verdict::Deny), (12, Verdict::Deny), (5, Verdict::Allow), (14, Verdict::Deny), (99, Verdict::Deny)] {
        let past = look_back.at(s(when));
        assert_eq!((call(past.value), past.value.index().pods_at(ip(WEB)).len()), (verdict, usize::from(when < 15)), "{when}");
        assert_eq!(told(&look_back.owners(ip("10.0.0.9"), s(0), s(99))), ["Pod shop/web 15.."]);
        assert_eq!(told(&look_back.owners(ip(WEB), s(0), s(99))), ["Pod shop/web ..15"]);
        assert_eq!(look_back.changes(s(0), s(99), |_| true).count(), 3);
    }
    look_back.at(s(5));
    drop(look_back);
    assert_eq!(timeline.engine().index().policy("shop", "api").map(|now| (**now).clone()), Some(policy("web")));
    assert_eq!(timeline.engine().index().pods_at(ip(WEB)), []);
}

#[test]
fn an_address_that_moved_is_that_of_its_owner_then() {
    let mut timeline = shop(Limits::default());
    let moved = "10.0.0.9";
    timeline.apply(s(10), pod("old", moved, "old"));
    timeline.apply(s(15), pod("old", moved, "older"));
    timeline.delete(s(20), &key(pod("old", moved, "older")));
    timeline.apply(s(21), pod("new", moved, "new"));
    let named = |engine: &Engine| engine.index().pods_at(ip(moved)).iter().map(|pod| pod.name.to_string()).collect::<Vec<_>>();
    for (when, names) in [(9, vec![]), (10, vec!["old"]), (19, vec!["old"]), (20, vec![]), (21, vec!["new"])] {
        assert_eq!(timeline.at(s(when), named).value, names, "{when}");
    }
    let owners = |from, to| told(&timeline.owners(ip(moved), s(from), s(to)));
    assert_eq!(owners(18, 22), ["Pod shop/old 10..20", "Pod shop/new 21.."]);
    assert_eq!(owners(18, 20), ["Pod shop/old 10..20"]);
    assert_eq!(owners(20, 20), [""; 0]);
    assert_eq!(owners(30, 40), ["Pod shop/new 21.."]);
    let label = |to| match &timeline.owners(ip(moved), s(0), s(to))[0].who {
        Holder::Pod(pod) => pod.labels["app"].to_string(),
        other => panic!("{other}"),
    };
    assert_eq!((label(14), label(15), label(40)), ("old".to_owned(), "older".to_owned(), "older".to_owned()));
    assert_eq!(told(&timeline.owners(ip("::ffff:10.0.0.1"), s(5), s(6))), ["Pod shop/web .."]);
}

#[test]
fn a_pod_made_anew_under_its_name_is_another_owner() {
    let mut timeline = shop(Limits::default());
    timeline.apply(s(10), Pod { uid: "another".into(), ..pod("web", WEB, "web") });
    assert_eq!(told(&timeline.owners(ip(WEB), s(8), s(12))), ["Pod shop/web ..10", "Pod shop/web 10.."]);
}

#[test]
fn what_changed_lately_is_told_newest_first() {
    let mut timeline = shop(Limits::default());
    timeline.apply(s(10), policy("frontend"));
    timeline.apply(s(11), pod("web", WEB, "frontend"));
    timeline.apply(s(12), NetworkPolicy { resource_version: Some("7".into()), ..policy("frontend") });
    timeline.apply(s(13), policy("web"));
    timeline.delete(s(14), &key(policy("web")));
    let told = |since, until| -> Vec<String> {
        let changes = timeline.changes(s(since), s(until), Change::is_of_policy);
        let told = changes.map(|change| {
            let metadata = if change.is_of_metadata_only() { " in its metadata" } else { "" };
            format!("{} {}{metadata} at {}", change.key, change.kind(), change.when.as_second() - s(0).as_second())
        });
        told.collect()
    };
    let all = [
        "NetworkPolicy shop/api removed at 14",
        "NetworkPolicy shop/api changed at 13",
        "NetworkPolicy shop/api changed in its metadata at 12",
        "NetworkPolicy shop/api added at 10",
    ];
    assert_eq!(told(0, 100), all);
    assert_eq!(told(11, 13), all[1..3]);
    assert_eq!(told(13, 11), [""; 0]);
    assert_eq!(timeline.changes(s(0), s(100), |_| true).count(), 5);
}

#[test]
fn only_real_changes_are_remembered() {
    let mut timeline = shop(Limits::default());
    assert_eq!(timeline.status(), Status { horizon: s(0), changes: 0, bytes: 0, expired: 0, pushed_out: 0 });
    assert!(!timeline.apply(s(1), pod("web", WEB, "web")));
    assert!(!timeline.delete(s(2), &key(pod("other", WEB, "web"))));
    assert!(timeline.apply(s(3), pod("other", "10.0.0.3", "web")));
    // A list after an interruption: one pod went, one changed, one came, one is as it was. Policies are not spoken of.
    timeline.apply(s(4), policy("web"));
    let list = [pod("web", WEB, "web"), pod("api", API, "new"), pod("third", "10.0.0.4", "web")].map(Object::from);
    assert_eq!(timeline.reset(s(9), &[Kind::Pod], list.clone()), 3);
    let changes = timeline.changes(s(9), s(9), |_| true).map(|change| format!("{} {}", change.key, change.kind()));
    let mut changes: Vec<_> = changes.collect();
    changes.sort();
    assert_eq!(changes, ["Pod shop/api changed", "Pod shop/other removed", "Pod shop/third added"]);
    assert_eq!((timeline.status().changes, timeline.horizon()), (5, s(0)));
    assert_eq!(timeline.engine().index().counts().network_policies, 1);
    assert_eq!(timeline.reset(s(10), &[Kind::Pod], list), 0);
}

#[test]
fn every_kind_can_be_listed_anew() {
    let mut timeline = shop(Limits::default());
    let slice = EndpointSlice {
        namespace: "shop".into(),
        name: "api-x".into(),
        service: Some("api".into()),
        ports: Vec::new(),
        backends: vec![Backend { ip: ip(API), ready: true }],
    };
    timeline.reset(s(1), &[Kind::EndpointSlice], [slice.clone().into()]);
    assert_eq!(timeline.engine().index().counts().endpoint_slices, 1);
    timeline.reset(s(2), &[Kind::EndpointSlice], []);
    assert_eq!(timeline.engine().index().counts().endpoint_slices, 0);
    assert_eq!(timeline.at(s(1), |engine| engine.index().object(&key(slice.clone()))).value, Some(slice.into()));
}

/// What a first list names was there before, nobody knows since when.
#[test]
fn a_first_list_is_no_change() {
    let mut timeline = shop(Limits::default());
    timeline.apply(s(1), pod("third", "10.0.0.3", "web"));
    timeline.reset(s(5), &[Kind::Namespace], []);
    assert_eq!(timeline.horizon(), s(5));
    // What is known of other kinds stays known.
    assert_eq!(timeline.at(s(0), |engine| engine.index().counts().pods), Past { value: 2, exact: false });
    assert!(timeline.at(s(5), |_| ()).exact);
    timeline.reset(s(7), &[Kind::Namespace, Kind::NetworkPolicy], [policy("frontend").into()]);
    assert_eq!(timeline.changes(s(0), s(9), Change::is_of_policy).count(), 1, "policies were listed at the start");
    // But what was told before the first list and is otherwise in it has changed.
    let name = |addresses: &[&str]| DomainName { name: "a.test".into(), addresses: addresses.iter().map(|text| ip(text)).collect() };
    timeline.apply(s(8), name(&[API]));
    timeline.delete(s(9), &key(name(&[])));
    timeline.reset(s(10), &[Kind::DomainName], [name(&[WEB]).into(), DomainName { name: "b.test".into(), addresses: Vec::new() }.into()]);
    assert_eq!(
        timeline.changes(s(8), s(10), |_| true).map(Change::kind).collect::<Vec<_>>(),
        [ChangeKind::Added, ChangeKind::Removed, ChangeKind::Added]
    );
    let known = |engine: &Engine| engine.index().domain_names().count();
    assert_eq!([8, 9, 10].map(|when| timeline.at(s(when), known).value), [2, 1, 2]);
}

#[test]
fn a_time_before_the_last_is_taken_for_the_last() {
    let mut timeline = shop(Limits::default());
    timeline.apply(s(10), policy("frontend"));
    timeline.apply(s(7), policy("web"));
    assert_eq!(timeline.at(s(9), call).value, Verdict::Allow);
    assert_eq!(timeline.changes(s(10), s(10), |_| true).count(), 2);
}

#[test]
fn what_is_too_old_is_forgotten() {
    let mut timeline = shop(Limits { keep: SignedDuration::from_secs(60), ..Limits::default() });
    timeline.apply(s(10), policy("frontend"));
    timeline.apply(s(40), policy("web"));
    timeline.expire(s(69));
    assert_eq!((timeline.status().changes, timeline.horizon()), (2, s(0)));
    timeline.apply(s(70), pod("third", "10.0.0.3", "web"));
    // Nothing happened between the change that was forgotten and the next.
    assert_eq!((timeline.status().changes, timeline.horizon(), timeline.status().expired), (2, s(10), 1));
    assert_eq!(timeline.at(s(10), call), Past { value: Verdict::Deny, exact: true });
    assert_eq!(timeline.at(s(9), call), Past { value: Verdict::Deny, exact: false });
    timeline.expire(s(1_000));
    assert_eq!((timeline.status().changes, timeline.status().bytes, timeline.horizon()), (0, 0, s(70)));
    assert!(timeline.log.is_empty());
}

/// A flood of changes leaves the newest; nothing is lost silently.
#[test]
fn bounds_hold_under_a_flood_of_changes() {
    let versions: Vec<Arc<Pod>> = (0..600)
        .map(|number| pod(&format!("pod-{}", number % 50), &format!("10.1.0.{}", number % 200), ["web", "api", "db"][number % 3]).into())
        .collect();
    let few = Limits { max_changes: 5_000, max_bytes: usize::MAX, ..Limits::default() };
    let small = Limits { max_changes: usize::MAX, max_bytes: 1 << 20, ..few };
    for (limits, changes) in [(few, 100_000), (small, 20_000)] {
        let mut timeline = shop(limits);
        for (number, version) in (1..=changes).zip(versions.iter().cycle()) {
            assert!(timeline.apply(s(0) + SignedDuration::from_millis(number), version.clone()));
            let status = timeline.status();
            assert!(status.changes <= limits.max_changes && status.bytes <= limits.max_bytes, "{status:?}");
            assert_eq!((status.expired, status.pushed_out + status.changes as u64), (0, number.unsigned_abs()));
        }
        let status = timeline.status();
        assert!((500..=5_000).contains(&status.changes), "{status:?}");
        // What was forgotten last was the last but so many.
        let last = changes - i64::try_from(status.changes).expect("few");
        assert_eq!(status.horizon, s(0) + SignedDuration::from_millis(last));
        assert!(timeline.log.addresses() <= 200);
    }
}

/// Some changes of a moment are forgotten, some not: of its time all is known, of the time before nothing is told by half.
#[test]
fn a_moment_is_not_taken_back_by_half() {
    let mut timeline = shop(Limits { max_changes: 3, ..Limits::default() });
    let pods = |count: i32| (0..count).map(|number| pod(&format!("p{number}"), &format!("10.1.0.{number}"), "web").into());
    timeline.reset(s(5), &[Kind::Pod], pods(3));
    let status = timeline.status();
    assert_eq!((status.changes, status.pushed_out, status.horizon), (3, 2, s(5)));
    assert_eq!(timeline.at(s(4), |engine| engine.index().counts().pods), Past { value: 3, exact: false });
}

/// Where most objects are others, an engine is built for the time; the one of now is not touched.
#[test]
fn many_changes_are_taken_back_at_once() {
    let mut timeline = shop(Limits::default());
    timeline.apply(s(1), policy("web"));
    let pods = |app: &str| -> Vec<Object> {
        let many = (0..400).map(|number| pod(&format!("p{number}"), &format!("10.1.{}.{}", number / 200, number % 200), app).into());
        many.chain([pod("web", WEB, "web").into(), pod("api", API, "api").into()]).collect()
    };
    assert_eq!(timeline.reset(s(2), &[Kind::Pod], pods("web")), 400);
    assert_eq!(timeline.reset(s(3), &[Kind::Pod], pods("other")), 400);
    let from_first = |engine: &Engine| engine.verdict_between(ip("10.1.0.0"), ip(API), Protocol::Tcp, Some(1));
    let now = std::ptr::from_ref(timeline.engine());
    assert!(!timeline.at(s(2), |engine| std::ptr::eq(now, engine)).value);
    assert_eq!(timeline.at(s(2), from_first).value, Verdict::Allow);
    assert_eq!(timeline.at(s(3), from_first).value, Verdict::Deny);
    assert_eq!(timeline.at(s(1), |engine| engine.index().counts().pods).value, 2);
    assert_eq!(timeline.engine().index().counts().pods, 402);
    // Few before and after many, in one go.
    timeline.delete(s(4), &key(policy("web")));
    timeline.apply(s(5), pod("web", "10.2.0.1", "web"));
    let mut look_back = timeline.look_back();
    for (when, verdict, pods) in [
        (4, Verdict::Allow, 402),
        (2, Verdict::Allow, 402),
        (0, Verdict::Allow, 2),
        (1, Verdict::Deny, 2),
        (3, Verdict::Deny, 402),
        (5, Verdict::Allow, 402),
    ] {
        let engine = look_back.at(s(when)).value;
        assert_eq!((from_first(engine), engine.index().counts().pods), (verdict, pods), "{when}");
        assert_eq!(told(&look_back.owners(ip(WEB), s(0), s(9))), ["Pod shop/web ..5"]);
    }
    drop(look_back);
    assert_eq!((timeline.engine().index().counts().pods, from_first(timeline.engine())), (402, Verdict::Allow));
    assert_eq!(timeline.engine().index().pods_at(ip(WEB)), []);
}

#[test]
fn a_panic_while_supposing_leaves_the_engine_of_now() {
    let mut timeline = shop(Limits::default());
    timeline.apply(s(10), policy("frontend"));
    let supposed = [(key(policy("web")), Some(policy("web").into())), (key(pod("api", API, "api")), None)];
    let mut ask = |must_be: Verdict| {
        catch_unwind(AssertUnwindSafe(|| {
            let mut look = timeline.look_back();
            look.at(s(20));
            look.supposing(&supposed, |engine| assert_eq!(engine.index().counts().pods, 1));
            look.supposing(&supposed[..1], |engine| assert_eq!(call(engine), must_be));
            assert_eq!(look.owners(ip(API), s(0), s(20)).len(), 1);
        }))
    };
    assert!(ask(Verdict::Allow).is_ok());
    assert!(ask(Verdict::Deny).is_err());
    assert_eq!(call(timeline.engine()), Verdict::Deny);
    assert_eq!(timeline.engine().index().counts().pods, 2);
}

#[test]
fn what_is_new_to_a_reader_has_numbers() {
    let mut timeline = shop(Limits { max_changes: 2, ..Limits::default() });
    let start = timeline.next_change();
    assert_eq!(timeline.changes_from(start).count(), 0);
    for (second, app) in [(1, "a"), (2, "b"), (3, "c")] {
        timeline.apply(s(second), policy(app));
    }
    assert_eq!(timeline.next_change(), start + 3);
    // Of three there are two left.
    let seconds = |from| timeline.changes_from(from).map(|change| change.when.as_second() - s(0).as_second()).collect::<Vec<_>>();
    assert_eq!((seconds(start), seconds(start + 2), seconds(start + 3)), (vec![2, 3], vec![3], vec![]));
    assert!(timeline.is_listed(Kind::Pod) && !timeline.is_listed(Kind::Node));
    assert_eq!(timeline.listed_at(), s(0));
}
