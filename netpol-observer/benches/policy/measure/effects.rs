//! One policy changes, or the labels of a namespace: how long until it is known which pairs of workloads are newly denied and newly allowed.

use std::collections::HashSet;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netpol_observer::cluster::{
    Action, ClusterPeer, ClusterPolicy, ClusterRule, NAMESPACE_NAME_LABEL, Namespace, NetworkPolicy, Object, ObjectKey, Operator, Pod,
    PolicyPort, PortNumber, Requirement, Rule, Selector, Workload,
};
use netpol_observer::flow::Protocol;
use netpol_observer::policy::{Bounds, Difference, Engine, GroupKind, PortRange, Reachability};

use super::Bench;
use crate::cluster::random::Random;
use crate::figures::{Figure, median};

/// Changes of each kind; each is made and taken back.
const WANTED: usize = 200;
/// Changes of each kind that are also worked out from all that can be reached before and after.
const COMPARED: usize = 20;
/// Pods up to which that is done.
const COMPARED_PODS: usize = 10_000;

/// An object before and after.
type Change = (ObjectKey, Option<Object>, Option<Object>);

pub(super) fn measure(bench: &mut Bench<'_>) {
    bench.progress("effects");
    let mut random = Random::new(bench.shape.pods as u64 + 1);
    let network = (0..WANTED).map(|_| network_policy(bench, &mut random)).collect();
    let cluster = (0..WANTED).map(|_| cluster_policy(bench, &mut random)).collect();
    let namespaces = (0..WANTED).map(|_| namespace(bench, &mut random)).collect();
    for (name, changes) in [
        ("effect of a NetworkPolicy's change", network),
        ("effect of a cluster-scoped policy's change", cluster),
        ("effect of a namespace's other labels", namespaces),
    ] {
        let figure = effects(bench, name, changes);
        bench.figures.push(figure);
    }
}

fn effects(bench: &Bench<'_>, name: &'static str, changes: Vec<Change>) -> Figure {
    let mut engine = bench.engine();
    let (mut times, mut not_counted, mut pairs) = (Vec::new(), 0, Vec::new());
    for (key, before, after) in &changes {
        for object in [after, before] {
            let change = [(key.clone(), object.clone())];
            let begin = Instant::now();
            let difference = black_box(engine.change(change, &Bounds::default()));
            times.push(begin.elapsed());
            match difference {
                Difference::Counted(turned) => {
                    let counts = [&turned.denied, &turned.allowed, &turned.undecided].map(|pairs| pairs.workloads + pairs.outside);
                    pairs.push(counts.iter().sum::<u64>() as f64);
                }
                Difference::NotCounted(_) => not_counted += 1,
            }
        }
    }
    pairs.sort_by(f64::total_cmp);
    let most = pairs.last().copied().unwrap_or_default();
    let note = format!("{} changes, {not_counted} not counted; pairs: median {}, most {most}", times.len(), median(&pairs));
    let figure = Figure::of_times(name, &times, note);
    if bench.shape.pods > COMPARED_PODS {
        return figure;
    }
    let naive = naive(bench, &changes);
    Figure { note: format!("{}; without: all reachability after, compared", figure.note), ..figure }.against(naive)
}

/// The median time of working out everything that can be reached after a change, and comparing it with that of before, which is kept. Both
/// have to come to the same pairs of workloads.
fn naive(bench: &Bench<'_>, changes: &[Change]) -> f64 {
    let mut times = Vec::new();
    let mut engine = bench.engine();
    for (key, before, after) in changes.iter().take(COMPARED) {
        let mut other = bench.engine();
        let bounds = Bounds { verdicts: u64::MAX, named: 0 };
        // Once there and back, so that both know all that is asked for and have the same groups.
        put(&mut engine, key, after.clone());
        put(&mut engine, key, before.clone());
        let then = engine.reachability();
        let begin = Instant::now();
        put(&mut engine, key, after.clone());
        let now = engine.reachability();
        let (denied, allowed) = compared(&then, &now);
        times.push(begin.elapsed());
        put(&mut engine, key, before.clone());
        if let Difference::Counted(turned) = other.change([(key.clone(), after.clone())], &bounds)
            && turned.undecided.workloads == 0
        {
            bench.judge.counts("effects", &key.to_string(), [turned.denied.workloads, turned.allowed.workloads], [denied, allowed]);
        }
    }
    let mut seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    seconds.sort_by(f64::total_cmp);
    median(&seconds)
}

/// How many pairs of workloads are denied and allowed that were not.
fn compared(then: &Reachability, now: &Reachability) -> (u64, u64) {
    let groups = now.groups();
    assert_eq!(groups.len(), then.groups().len(), "the same groups before and after");
    let (mut denied, mut allowed) = (HashSet::new(), HashSet::new());
    for (to, destination) in groups.iter().enumerate().filter(|(_, group)| group.kind == GroupKind::Pods) {
        let [before, after] =
            [then, now].map(|of| of.sources_of(to).map(|(ports, of)| (ports, of.collect::<HashSet<_>>())).collect::<Vec<_>>());
        for (ports, sources) in &after {
            let overlaps = |others: &PortRange| others.protocol == ports.protocol && others.from.max(ports.from) <= others.to.min(ports.to);
            for (_, sources_before) in before.iter().filter(|(others, _)| overlaps(others)) {
                let turned = sources.symmetric_difference(sources_before).filter(|from| groups[**from].kind == GroupKind::Pods);
                for from in turned {
                    let into = if sources.contains(from) { &mut allowed } else { &mut denied };
                    for source in &groups[*from].pods {
                        for called in destination.pods.iter().filter(|called| !Arc::ptr_eq(called, source)) {
                            let side = |pod: &Arc<Pod>| (pod.namespace.clone(), pod.workload.clone());
                            let pair: ((Arc<str>, Workload), (Arc<str>, Workload)) = (side(source), side(called));
                            into.insert(pair);
                        }
                    }
                }
            }
        }
    }
    (denied.len() as u64, allowed.len() as u64)
}

fn put(engine: &mut Engine, key: &ObjectKey, object: Option<Object>) {
    match object {
        Some(object) => engine.apply(object),
        None => engine.delete(key),
    }
}

fn changed(before: Option<Object>, after: Option<Object>) -> Change {
    let key = before.as_ref().or(after.as_ref()).expect("one of them is there").key();
    (key, before, after)
}

/// One goes, loses a rule, gets another port, admits everybody; or a default deny comes.
fn network_policy(bench: &Bench<'_>, random: &mut Random) -> Change {
    let policies: Vec<&Arc<NetworkPolicy>> = bench.index.policies().collect();
    let policy = random.pick(&policies);
    let mut after = NetworkPolicy::clone(policy);
    let rules = |policy: &mut NetworkPolicy| if policy.ingress.is_some() { policy.ingress.take() } else { policy.egress.take() };
    match random.below(5) {
        0 => return changed(Some(policy.clone().into()), None),
        1 => {
            let deny = NetworkPolicy {
                namespace: policy.namespace.clone(),
                name: "another-default-deny".into(),
                ingress: Some(Vec::new()),
                ..NetworkPolicy::default()
            };
            return changed(None, Some(deny.into()));
        }
        2 => {
            let is_ingress = after.ingress.is_some();
            let mut of = rules(&mut after).unwrap_or_default();
            if of.pop().is_none() {
                of.push(Rule { peers: Vec::new(), ports: Vec::new(), origin: None });
            }
            *(if is_ingress { &mut after.ingress } else { &mut after.egress }) = Some(of);
        }
        3 => {
            let port = PolicyPort { protocol: Protocol::Tcp, port: PortNumber::Number(9999) };
            let all = after.ingress.iter_mut().chain(&mut after.egress).flatten();
            all.for_each(|rule| rule.ports.push(port.clone()));
        }
        _ => {
            let everybody = Rule { peers: Vec::new(), ports: Vec::new(), origin: None };
            after.ingress.iter_mut().chain(&mut after.egress).for_each(|rules| rules.push(everybody.clone()));
        }
    }
    if after == **policy { changed(Some(policy.clone().into()), None) } else { changed(Some(policy.clone().into()), Some(after.into())) }
}

/// One goes, loses a rule, or denies a namespace first.
fn cluster_policy(bench: &Bench<'_>, random: &mut Random) -> Change {
    let policies: Vec<&Arc<ClusterPolicy>> = bench.index.cluster_policies().collect();
    let policy = random.pick(&policies);
    let mut after = ClusterPolicy::clone(policy);
    match random.below(3) {
        0 => return changed(Some(policy.clone().into()), None),
        1 => drop(if after.ingress.is_empty() { after.egress.pop() } else { after.ingress.pop() }),
        _ => {
            let namespaces: Vec<&Arc<Namespace>> = bench.index.namespaces().collect();
            let operator = Operator::Equals(random.pick(&namespaces).name.clone());
            let name = Requirement { key: NAMESPACE_NAME_LABEL.into(), operator };
            let peers = vec![ClusterPeer::Namespaces(Selector { requirements: vec![name] })];
            let rule = ClusterRule { name: None, action: Action::Deny, peers, ports: Vec::new(), origin: None };
            let rules = if random.percent(50) { &mut after.ingress } else { &mut after.egress };
            rules.insert(0, rule);
        }
    }
    changed(Some(policy.clone().into()), Some(after.into()))
}

/// A namespace gets the labels of another.
fn namespace(bench: &Bench<'_>, random: &mut Random) -> Change {
    let namespaces: Vec<&Arc<Namespace>> = bench.index.namespaces().collect();
    loop {
        let (namespace, other) = (random.pick(&namespaces), random.pick(&namespaces));
        let mut after = Namespace::clone(namespace);
        after.labels.clone_from(&other.labels);
        after.labels.insert(NAMESPACE_NAME_LABEL.into(), namespace.name.clone());
        if after != **namespace {
            return changed(Some(namespace.clone().into()), Some(after.into()));
        }
    }
}
