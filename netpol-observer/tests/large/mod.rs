//! Objects as large clusters have them, and an allocator that counts: one test alone may use it, since whatever runs beside it is counted too.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1 as networking;
use netpol_observer::cluster::Object;
use netpol_observer::cluster::convert::{self, FieldErrors};
use serde_json::json;

pub(crate) const NAMESPACES: usize = 200;

/// Pods of one workload.
const REPLICAS: usize = 5;

/// The system's allocator, and how many bytes it has given out.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// Bytes that are in use now.
pub(crate) fn in_use() -> usize {
    LIVE.load(Ordering::Relaxed)
}

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

/// A pod with the labels of a Helm chart, two containers, two addresses; `version` tells it from the same one before and after.
pub(crate) fn pod(number: usize, version: usize) -> Object {
    let workload = number / REPLICAS;
    let namespace = format!("team-{:03}", workload % NAMESPACES);
    let app = format!("service-{:02}", workload / NAMESPACES);
    let [_, a, b, c] = u32::try_from(number).expect("small").to_be_bytes();
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
        "status": {"phase": "Running", "podIPs": [{"ip": format!("10.{a}.{b}.{c}")}, {"ip": format!("fd00::{number:x}")}]},
    });
    let pod: core::Pod = serde_json::from_value(pod).expect("a pod");
    convert::pod(pod, &mut FieldErrors::new()).into()
}

/// A policy of two rules, as it is written for an application.
pub(crate) fn policy(number: usize, version: usize) -> Object {
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
