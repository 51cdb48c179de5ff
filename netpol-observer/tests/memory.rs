//! What the index of a large cluster takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1 as networking;
use netpol_observer::cluster::convert::{self, FieldErrors};
use netpol_observer::cluster::{Index, Object};
use serde_json::json;

const NAMESPACES: usize = 200;
const PODS: usize = 10_000;
const POLICIES: usize = 2_000;

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

/// A pod with what an API server knows of one: labels of a Helm chart, two containers, two addresses.
fn pod(number: usize) -> Object {
    let workload = number / REPLICAS;
    let namespace = format!("team-{:03}", workload % NAMESPACES);
    let app = format!("service-{:02}", workload / NAMESPACES);
    let hash = format!("{:010x}", workload * 7_919);
    let [_, a, b, c] = u32::try_from(number).expect("small").to_be_bytes();
    let pod = json!({
        "metadata": {
            "name": format!("{app}-{hash}-{number:05x}"), "namespace": namespace,
            "uid": format!("5f0c1d2e-0000-4000-8000-{number:012x}"),
            "labels": {
                "app": app, "app.kubernetes.io/name": app, "app.kubernetes.io/instance": format!("{app}-{namespace}"),
                "app.kubernetes.io/version": "1.2.3", "app.kubernetes.io/managed-by": "Helm", "pod-template-hash": hash,
            },
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-{hash}"), "uid": "x", "controller": true}
            ],
        },
        "spec": {"nodeName": format!("node-{:03}", number % 250), "containers": [
            {"name": "app", "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}]},
            {"name": "proxy", "ports": [{"name": "proxy", "containerPort": 15090}]},
        ]},
        "status": {"phase": "Running", "podIPs": [{"ip": format!("10.{a}.{b}.{c}")}, {"ip": format!("fd00::{number:x}")}]},
    });
    let pod: core::Pod = serde_json::from_value(pod).expect("a pod");
    convert::pod(pod, &mut FieldErrors::new()).into()
}

/// A policy of two rules, as it is written for an application.
fn policy(number: usize) -> Object {
    let app = format!("service-{:02}", number / NAMESPACES);
    let policy = json!({
        "metadata": {
            "name": format!("{app}-{number}"), "namespace": format!("team-{:03}", number % NAMESPACES),
            "labels": {"app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/name": app},
        },
        "spec": {
            "podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"from": [{"podSelector": {"matchLabels": {"app": "gateway"}}}], "ports": [{"port": "http"}, {"port": 8443}]},
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

fn namespace(number: usize) -> Object {
    let namespace = json!({"metadata": {"name": format!("team-{number:03}"), "labels": {"team": format!("{number}")}}});
    convert::namespace(serde_json::from_value(namespace).expect("a namespace")).into()
}

/// Bytes that applying the objects has added.
fn growth(index: &mut Index, objects: impl Iterator<Item = Object>) -> usize {
    let before = LIVE.load(Ordering::Relaxed);
    objects.for_each(|object| index.apply(object));
    LIVE.load(Ordering::Relaxed) - before
}

/// One test alone: whatever runs beside it would be counted.
#[test]
fn a_large_cluster_fits() {
    let mut index = Index::default();
    let namespaces = growth(&mut index, (0..NAMESPACES).map(namespace));
    let pods = growth(&mut index, (0..PODS).map(pod));
    let policies = growth(&mut index, (0..POLICIES).map(policy));
    let total = namespaces + pods + policies;
    println!(
        "{:.1} MiB: {} bytes per pod, {} bytes per policy, {} bytes per namespace",
        total as f64 / f64::from(1 << 20),
        pods / PODS,
        policies / POLICIES,
        namespaces / NAMESPACES
    );
    // With the allocator's own bookkeeping about a tenth more; the rest of the 60 MiB is the engine's.
    assert!(total < 16 << 20, "{total} bytes");
    assert_eq!((index.counts().pods, index.counts().network_policies), (PODS, POLICIES));
}
