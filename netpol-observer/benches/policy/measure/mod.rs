//! The measurements, one file each.

mod changes;
mod effects;
mod explanations;
pub(crate) mod memory;
mod reachability;
mod verdicts;

use std::time::{Duration, Instant};

use clap::ValueEnum;
use netpol_observer::cluster::manifests::{Loaded, load};
use netpol_observer::cluster::{Index, Object};
use netpol_observer::policy::{Engine, Profile, Verdict};

use crate::Failure;
use crate::cluster::{Shape, generate};
use crate::figures::{Cluster, Figure};
use crate::flows::{Flow, Flows};
use crate::judge::Judge;
use crate::scan::{Scan, Through};

/// What the measurements of one cluster share.
struct Bench<'a> {
    shape: &'a Shape,
    objects: Vec<Object>,
    index: Index,
    judge: Judge,
    /// How long one measurement may take where more would only make it steadier.
    budget: Duration,
    figures: Vec<Figure>,
}

impl Bench<'_> {
    /// An engine that shares nothing with others and was asked nothing.
    fn engine(&self) -> Engine {
        let mut engine = Engine::new(Profile::default());
        engine.reset(self.objects.iter().cloned());
        engine
    }

    /// Says what goes on.
    fn progress(&self, what: &str) {
        eprintln!("bench policy: {} pods: {what}", self.shape.pods);
    }
}

/// What may be measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    Memory,
    Verdicts,
    Explanations,
    Changes,
    Effects,
    Reachability,
}

/// Measures these parts on one cluster.
pub(crate) fn cluster(shape: &Shape, seed: u64, budget: Duration, parts: &[Part]) -> Result<Cluster, Failure> {
    let is_wanted = |part: Part| parts.is_empty() || parts.contains(&part);
    let mut bench = Bench { shape, objects: Vec::new(), index: Index::default(), judge: Judge::default(), budget, figures: Vec::new() };
    bench.progress("making the cluster");
    let manifests = generate(shape, seed);
    let (directory, manifest_bytes) = (tempfile::tempdir()?, manifests.bytes());
    manifests.write(directory.path())?;
    drop(manifests);

    let memory = if is_wanted(Part::Memory) {
        bench.progress("memory");
        memory::measure(directory.path(), seed, shape)?
    } else {
        Vec::new()
    };
    bench.progress("loading and indexing");
    let mut loads = Vec::new();
    let begin = Instant::now();
    while loads.len() < 3 && (loads.is_empty() || begin.elapsed() < 2 * budget) {
        let begin = Instant::now();
        let loaded = load(&[directory.path().to_owned()], &mut std::io::empty())?;
        loads.push(begin.elapsed());
        bench.objects = checked(loaded)?;
    }
    let objects = bench.objects.len();
    bench.figures.push(Figure::of_times("load from YAML", &loads, format!("{objects} objects, {} times", loads.len())));
    bench.index.reset(bench.objects.iter().cloned());
    let index = bench.index.clone();
    let mut flows = Flows::new(&index, seed);
    let index_time = index_time(&mut bench, &flows.draw(1));
    bench.figures.extend(memory);

    bench.progress("drawing connections");
    let pool = flows.draw(verdicts::wanted(shape));
    let others = flows.draw(20_000);
    let calls = flows.service_calls(2_000);
    let admitted_percent = admitted_percent(&bench.index, &pool);
    if is_wanted(Part::Verdicts) {
        verdicts::measure(&mut bench, &pool, &calls);
    }
    if is_wanted(Part::Explanations) {
        explanations::measure(&mut bench, &others);
    }
    if is_wanted(Part::Changes) {
        changes::measure(&mut bench, &others, index_time);
    }
    if is_wanted(Part::Effects) {
        effects::measure(&mut bench);
    }
    if is_wanted(Part::Reachability) {
        reachability::measure(&mut bench);
    }

    let counts = bench.index.counts();
    Ok(Cluster {
        pods: counts.pods,
        namespaces: counts.namespaces,
        network_policies: counts.network_policies,
        cluster_policies: counts.cluster_policies,
        objects,
        manifest_bytes,
        admitted_percent,
        checked: bench.judge.checked(),
        disagreements: bench.judge.wrong(),
        figures: bench.figures,
    })
}

/// The objects, unless any of them is not what it was meant to be.
fn checked(loaded: Loaded) -> Result<Vec<Object>, Failure> {
    if let Some(warning) = loaded.warnings.first() {
        return Err(format!("the generated manifests are not clean: {warning:?}").into());
    }
    if !loaded.skipped.is_empty() {
        return Err(format!("kinds of the generated objects are not read: {:?}", loaded.skipped).into());
    }
    Ok(loaded.objects)
}

/// From the objects to the first verdict: what an engine does late counts too. Returns the median in seconds.
fn index_time(bench: &mut Bench<'_>, first: &[Flow]) -> f64 {
    let mut times = Vec::new();
    let begin = Instant::now();
    while times.len() < 5 && (times.is_empty() || begin.elapsed() < bench.budget) {
        let objects = bench.objects.clone();
        let begin = Instant::now();
        let mut engine = Engine::new(Profile::default());
        engine.reset(objects);
        let verdicts: Vec<Verdict> = first.iter().map(|flow| flow.verdict(&engine)).collect();
        times.push(begin.elapsed());
        bench.judge.all("first verdict", &bench.index, first, &verdicts);
    }
    let figure = Figure::of_times("index, up to the first verdict", &times, format!("{} times", times.len()));
    let median = figure.value;
    bench.figures.push(figure);
    median
}

fn admitted_percent(index: &Index, flows: &[Flow]) -> f64 {
    let scan = Scan::new(index);
    let sample = flows.iter().step_by(1 + flows.len() / 20_000);
    let (mut admitted, mut all) = (0, 0);
    for flow in sample {
        all += 1;
        admitted += u32::from(scan.verdict(&flow.connection(index), Through::Namespace) == Verdict::Allow);
    }
    f64::from(admitted) * 100.0 / f64::from(all.max(1))
}
