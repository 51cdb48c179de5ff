//! The generator, the connections and the judge of `cargo xtask bench policy`: a benchmark of a wrong answer is worth nothing, nor is
//! one in which everything is denied.

#[path = "../benches/policy/cluster/mod.rs"]
mod cluster;
#[path = "../benches/policy/flows.rs"]
mod flows;
#[path = "../benches/policy/scan.rs"]
mod scan;

use netpol_observer::cluster::Object;
use netpol_observer::cluster::manifests::{Loaded, load};
use netpol_observer::policy::{Engine, Profile, Verdict};

use xtask::testing::skipped;

use cluster::{Manifests, SHAPES, generate};
use flows::Flows;
use scan::{Scan, Through};

fn read(manifests: &Manifests) -> Loaded {
    let directory = tempfile::tempdir().unwrap();
    manifests.write(directory.path()).unwrap();
    load(&[directory.path().to_owned()], &mut std::io::empty()).unwrap()
}

fn engine(seed: u64) -> Engine {
    let mut engine = Engine::new(Profile::default());
    engine.reset(read(&generate(&SHAPES[0], seed)).objects);
    engine
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let shape = &SHAPES[0];
    let once = generate(shape, 1);
    assert_eq!(once, generate(shape, 1));
    assert_ne!(once, generate(shape, 2));
    assert!(once.bytes() > shape.pods * 500, "{} bytes", once.bytes());
}

/// Nothing in the manifests is invalid or misspelt, and there is as much of everything as was asked for.
#[test]
fn the_cluster_is_what_the_shape_says() {
    for shape in &SHAPES[..2] {
        let loaded = read(&generate(shape, 1));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings.first());
        let mut engine = Engine::new(Profile::default());
        engine.reset(loaded.objects);
        let counts = engine.index().counts();
        let skipped: usize = loaded.skipped.values().sum();
        assert_eq!((counts.pods, counts.namespaces, counts.nodes), (shape.pods, shape.namespaces, shape.nodes()));
        assert_eq!(counts.network_policies, shape.policies - shape.cluster_policies());
        assert_eq!(counts.cluster_policies + skipped, shape.cluster_policies());
    }
}

#[test]
fn the_engine_agrees_with_the_scan_and_both_admit_and_deny() {
    let engine = engine(1);
    let index = engine.index();
    let scan = Scan::new(index);
    let mut source = Flows::new(index, 1);
    let mut flows = source.draw(20_000);
    assert_eq!(flows.len(), 20_000);
    flows.extend(source.service_calls(500));
    let mut admitted = 0;
    for (i, flow) in flows.iter().enumerate() {
        let connection = flow.connection(index);
        let verdict = flow.verdict(&engine);
        assert_eq!(verdict, engine.verdict(&connection), "{flow:?}");
        assert_eq!(verdict, scan.verdict(&connection, Through::Namespace), "{flow:?}");
        if i % 20 == 0 {
            assert_eq!(verdict, scan.verdict(&connection, Through::All), "{flow:?}");
        }
        admitted += usize::from(verdict == Verdict::Allow);
    }
    let share = admitted * 100 / flows.len();
    assert!((30..=70).contains(&share), "{share} % admitted");
}

/// The tiers above and below the NetworkPolicies decide some of the connections, or nothing of them would be measured.
#[test]
fn cluster_scoped_policies_matter() {
    let engine = engine(1);
    let with = engine.index();
    let mut without = with.clone();
    for policy in with.cluster_policies() {
        without.delete(&Object::from(policy.clone()).key());
    }
    if with.counts().cluster_policies == 0 {
        skipped("cluster_scoped_policies_matter", "manifests of these kinds are not read yet");
        return;
    }
    let flows = Flows::new(with, 1).draw(10_000);
    let [with, without] = [with, &without].map(|index| {
        let scan = Scan::new(index);
        flows.iter().map(|flow| scan.verdict(&flow.connection(index), Through::Namespace)).collect::<Vec<_>>()
    });
    let changed = |from, to| with.iter().zip(&without).filter(|(with, without)| (**without, **with) == (from, to)).count();
    assert!(changed(Verdict::Allow, Verdict::Deny) >= 40, "{} denied by them", changed(Verdict::Allow, Verdict::Deny));
    assert!(changed(Verdict::Deny, Verdict::Allow) >= 10, "{} admitted by them", changed(Verdict::Deny, Verdict::Allow));
}
