//! What the past of a large cluster takes: bytes, and on demand time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1 as networking;
use netpol_observer::cluster::convert::{self, FieldErrors};
use netpol_observer::cluster::{Kind, Object};
use netpol_observer::flow::Protocol;
use netpol_observer::policy::{Engine, Profile};
use netpol_observer::timeline::{Limits, Timeline};
use serde_json::json;

const NAMESPACES: usize = 200;

/// Pods of one workload.
const REPLICAS: usize = 5;

/// The system's allocator, and how many bytes it has given out.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`, and the pointer came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn seconds(seconds: usize) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_800_000_000 + i64::try_from(seconds).expect("small"))
}

fn address(number: usize) -> String {
    let [_, a, b, c] = u32::try_from(number).expect("small").to_be_bytes();
    format!("10.{a}.{b}.{c}")
}

/// A pod with the labels of a Helm chart, two containers, two addresses; `version` tells it from the same one before and after.
fn pod(number: usize, version: usize) -> Object {
    let workload = number / REPLICAS;
    let namespace = format!("team-{:03}", workload % NAMESPACES);
    let app = format!("service-{:02}", workload / NAMESPACES);
    let pod = json!({
        "metadata": {
            "name": format!("{app}-{workload:010x}-{number:05x}"), "namespace": namespace,
            "uid": format!("5f0c1d2e-0000-4000-8000-{number:012x}"),
            "labels": {
                "app": app, "app.kubernetes.io/name": app, "app.kubernetes.io/instance": format!("{app}-{namespace}"),
                "app.kubernetes.io/version": format!("1.2.{version}"), "app.kubernetes.io/managed-by": "Helm",
                "pod-template-hash": format!("{workload:010x}"),
            },
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-{workload:010x}"), "uid": "x", "controller": true}
            ],
        },
        "spec": {"nodeName": format!("node-{:03}", number % 250), "containers": [
            {"name": "app", "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}]},
            {"name": "proxy", "ports": [{"name": "proxy", "containerPort": 15090}]},
        ]},
        "status": {"phase": "Running", "podIPs": [{"ip": address(number)}, {"ip": format!("fd00::{number:x}")}]},
    });
    let pod: core::Pod = serde_json::from_value(pod).expect("a pod");
    convert::pod(pod, &mut FieldErrors::new()).into()
}

/// A policy of two rules, as it is written for an application.
fn policy(number: usize, version: usize) -> Object {
    let app = format!("service-{:02}", number / NAMESPACES);
    let policy = json!({
        "metadata": {
            "name": format!("{app}-{number}"), "namespace": format!("team-{:03}", number % NAMESPACES),
            "resourceVersion": format!("{version}"), "labels": {"app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/name": app},
        },
        "spec": {
            "podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"from": [{"podSelector": {"matchLabels": {"app": "gateway"}}}], "ports": [{"port": "http"}, {"port": 8443 + version}]},
                {"from": [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}], "ports": [{"port": 9090}]},
            ],
            "egress": [
                {"to": [{"namespaceSelector": {}}], "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}]},
                {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]},
            ],
        },
    });
    let policy: networking::NetworkPolicy = serde_json::from_value(policy).expect("a policy");
    convert::network_policy(policy, &mut FieldErrors::new()).into()
}

fn cluster(pods: usize, policies: usize) -> Timeline {
    let mut timeline = Timeline::new(Profile::default(), Limits::default(), seconds(0));
    let objects = (0..pods).map(|number| pod(number, 0)).chain((0..policies).map(|number| policy(number, 0)));
    timeline.reset(seconds(0), &[Kind::Pod, Kind::NetworkPolicy], objects);
    timeline
}

/// The limit in bytes would be none if the estimate were below what is taken. One test alone: whatever runs beside it would be counted.
#[test]
fn the_estimate_is_no_less_than_what_is_taken() {
    let mut timeline = cluster(500, 100);
    // What the engine and its caches take is the same before and after: the objects are as many, and of the same kinds.
    for version in 1..=2 {
        let before = LIVE.load(Ordering::Relaxed);
        let known = timeline.status().bytes;
        (0..500).for_each(|number| assert!(timeline.apply(seconds(version), pod(number, version))));
        let pods = (LIVE.load(Ordering::Relaxed) - before, timeline.status().bytes - known);
        let (before, known) = (LIVE.load(Ordering::Relaxed), timeline.status().bytes);
        (0..100).for_each(|number| assert!(timeline.apply(seconds(version), policy(number, version))));
        let policies = (LIVE.load(Ordering::Relaxed) - before, timeline.status().bytes - known);
        for (what, (taken, estimated), count) in [("pod", pods, 500), ("policy", policies, 100)] {
            println!("a changed {what}: {} bytes taken, {} estimated", taken / count, estimated / count);
            // The first time the objects of the list, which share their texts, are followed by some that do not.
            if version > 1 {
                assert!(estimated >= taken && estimated < 3 * taken, "{what}: {taken} bytes taken, {estimated} estimated");
            }
        }
    }
}

/// Prints how long it takes to ask about the past of a cluster of 10,000 pods and 2,000 policies, by what has changed since:
/// `cargo test -p netpol-observer --release --test timeline -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, for people"]
fn time_of_asking_about_the_past() {
    const PODS: usize = 10_000;
    let mut timeline = cluster(PODS, 2_000);
    let ask = |engine: &Engine| {
        let ip = |number| address(number).parse::<IpAddr>().expect("an address");
        engine.verdict_between(ip(5), ip(1_005), Protocol::Tcp, Some(8080))
    };
    ask(timeline.engine());
    let mut changed = 0;
    for (at, until) in [(10, 0), (20, 1), (30, 10), (40, 100), (50, 1_000), (60, 2_000), (70, 3_000), (80, 10_000)] {
        let began = Instant::now();
        (changed..until).for_each(|number| {
            timeline.apply(seconds(at), pod(number, 1));
        });
        let apply = began.elapsed() / u32::try_from(until - changed).expect("small").max(1);
        changed = until;
        let took = [(); 3].map(|()| {
            let began = Instant::now();
            timeline.at(seconds(5), ask);
            began.elapsed()
        });
        let owners = Instant::now();
        timeline.owners(address(5).parse().expect("an address"), seconds(3), seconds(7));
        println!("{until} changed pods: at {took:.1?}, apply {apply:.1?} each, owners {:.1?}", owners.elapsed());
    }
    // Drops in the order of their times, while pods go on changing.
    for number in 0..1_000 {
        timeline.apply(seconds(85) + SignedDuration::from_millis(i64::try_from(number).expect("small")), pod(number, 2));
    }
    let began = Instant::now();
    let mut look_back = timeline.look_back();
    for number in 0..10_000 {
        ask(look_back.at(seconds(85) + SignedDuration::from_micros(number * 100)).value);
    }
    drop(look_back);
    println!("10,000 times in a row, with 1,000 changed pods between and after them: {:.1?}", began.elapsed());
    for number in 0..500 {
        timeline.apply(seconds(90), policy(number, 1));
    }
    let began = Instant::now();
    timeline.at(seconds(88), ask);
    println!("500 changed policies: at {:.1?}; {:?}", began.elapsed(), timeline.status());
    let began = Instant::now();
    drop(Engine::over(timeline.engine().index().clone(), Profile::default()));
    println!("an engine anew: {:.1?}", began.elapsed());
}
