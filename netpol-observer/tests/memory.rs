//! What the index of a large cluster takes.

mod large;

use netpol_observer::cluster::{Index, Object, convert};
use serde_json::json;

use large::{NAMESPACES, in_use, pod, policy};

const PODS: usize = 10_000;
const POLICIES: usize = 2_000;

fn namespace(number: usize) -> Object {
    let namespace = json!({"metadata": {"name": format!("team-{number:03}"), "labels": {"team": format!("{number}")}}});
    convert::namespace(serde_json::from_value(namespace).expect("a namespace")).into()
}

/// Bytes that applying the objects has added.
fn growth(index: &mut Index, objects: impl Iterator<Item = Object>) -> usize {
    let before = in_use();
    objects.for_each(|object| index.apply(object));
    in_use() - before
}

/// One test alone: whatever runs beside it would be counted.
#[test]
fn a_large_cluster_fits() {
    let mut index = Index::default();
    let namespaces = growth(&mut index, (0..NAMESPACES).map(namespace));
    let pods = growth(&mut index, (0..PODS).map(|number| pod(number, 0)));
    let policies = growth(&mut index, (0..POLICIES).map(|number| policy(number, 0)));
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
