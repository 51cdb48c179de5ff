//! One object changes: how long until a verdict that depends on it is the new one.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netpol_observer::cluster::{
    Action, ClusterPeer, ClusterPolicy, ClusterRule, Direction, NetworkPolicy, Object, ObjectKey, Pod, Rule, Selector, Tier,
};
use netpol_observer::identify::Identity;
use netpol_observer::policy::{Engine, Verdict};

use super::Bench;
use crate::figures::Figure;
use crate::flows::Flow;
use crate::scan::{Scan, Through};

/// Changes of each kind; each is made and taken back.
const WANTED: usize = 100;
/// Connections in which a change is looked for.
const TRIED: usize = 5_000;
/// Labels that policies ask for.
const KEYS: [&str; 4] = ["tier", "app.kubernetes.io/name", "app.kubernetes.io/component", "team"];

/// A change that turns the verdict on a connection.
struct Change {
    flow: Flow,
    before: Object,
    after: Object,
    verdicts: [Verdict; 2],
}

pub(super) fn measure(bench: &mut Bench<'_>, flows: &[Flow], index_time: f64) {
    bench.progress("changes");
    let mut engine = bench.engine();
    let flows = &flows[..flows.len().min(TRIED)];
    let pods = look(bench, flows, label_changed);
    let policies = look(bench, flows, policy_opened);
    let cluster_policies = look(bench, flows, cluster_policy_closed);
    for (name, changes, aim) in [
        ("a pod's label changes, up to the verdict", pods, None),
        ("a NetworkPolicy changes, up to the verdict", policies, Some(5e-3)),
        ("a cluster-scoped policy changes, the same", cluster_policies, Some(5e-3)),
    ] {
        if changes.is_empty() {
            bench.progress(&format!("{name}: no such change turns a verdict"));
            continue;
        }
        let times = make(bench, &mut engine, &changes);
        let figure = Figure::of_times(name, &times, format!("{} changes; without: all anew", times.len()));
        let worst = times.iter().max().map(Duration::as_secs_f64);
        let figure = Figure { high: worst, ..figure }.against(index_time);
        bench.figures.push(match aim {
            Some(aim) => figure.aim_at_worst(aim),
            None => figure,
        });
    }
    // All changes were taken back.
    let verdicts: Vec<Verdict> = flows.iter().map(|flow| flow.verdict(&engine)).collect();
    bench.judge.all("after changes", &bench.index, flows, &verdicts);
}

/// Changes of one kind, each of another object.
fn look(bench: &Bench<'_>, flows: &[Flow], kind: fn(&Bench<'_>, &Scan<'_>, &Flow, Verdict) -> Option<Change>) -> Vec<Change> {
    let scan = Scan::new(&bench.index);
    let mut seen: HashSet<ObjectKey> = HashSet::new();
    let mut changes = Vec::new();
    for flow in flows {
        let before = scan.verdict(&flow.connection(&bench.index), Through::Namespace);
        if let Some(change) = kind(bench, &scan, flow, before).filter(|change| seen.insert(change.before.key())) {
            changes.push(change);
            if changes.len() == WANTED {
                break;
            }
        }
    }
    changes
}

/// Makes the changes one by one and takes each back; the times of both. The first is not counted.
fn make(bench: &Bench<'_>, engine: &mut Engine, changes: &[Change]) -> Vec<Duration> {
    let mut times = Vec::new();
    for change in changes {
        for (object, expected) in [(&change.after, change.verdicts[1]), (&change.before, change.verdicts[0])] {
            let object = object.clone();
            let begin = Instant::now();
            engine.apply(object);
            let verdict = change.flow.verdict(engine);
            times.push(begin.elapsed());
            bench.judge.compare("after a change", &change.flow.connection(engine.index()), verdict, expected);
        }
    }
    times.drain(..times.len().min(2));
    times
}

/// The destination loses a label, or gets another value.
fn label_changed(bench: &Bench<'_>, scan: &Scan<'_>, flow: &Flow, before: Verdict) -> Option<Change> {
    let mut connection = flow.connection(&bench.index);
    let pod = connection.destination.identity.pod()?.clone();
    for key in KEYS.into_iter().filter(|key| pod.labels.contains_key(*key)) {
        let mut changed = Pod::clone(&pod);
        changed.labels.insert(key.into(), "changed".into());
        let changed = Arc::new(changed);
        connection.destination.identity = Identity::Pod(changed.clone());
        let after = scan.verdict(&connection, Through::Namespace);
        if after != before {
            return Some(Change { flow: *flow, before: pod.into(), after: changed.into(), verdicts: [before, after] });
        }
    }
    None
}

/// A policy that isolates the destination admits everybody.
fn policy_opened(bench: &Bench<'_>, _: &Scan<'_>, flow: &Flow, before: Verdict) -> Option<Change> {
    let connection = flow.connection(&bench.index);
    let pod = connection.destination.identity.pod().filter(|_| before == Verdict::Deny)?;
    let isolates = |policy: &&Arc<NetworkPolicy>| policy.ingress.is_some() && policy.pod_selector.matches(&pod.labels);
    let isolating: Vec<&Arc<NetworkPolicy>> = bench.index.policies_in(&pod.namespace).filter(isolates).collect();
    // Each time another one, so that not all changes are of the first by name.
    let policy = isolating.get(usize::from(flow.port) % isolating.len().max(1))?;
    let everybody = Rule { peers: Vec::new(), ports: Vec::new(), origin: None };
    let opened = NetworkPolicy { ingress: Some(vec![everybody]), ..NetworkPolicy::clone(policy) };
    turned(bench, flow, before, Arc::clone(policy).into(), opened.into())
}

/// A policy of the Admin tier denies its pods all calls from pods.
fn cluster_policy_closed(bench: &Bench<'_>, _: &Scan<'_>, flow: &Flow, before: Verdict) -> Option<Change> {
    if before != Verdict::Allow {
        return None;
    }
    let closed = |policy: &ClusterPolicy| {
        let peers = vec![ClusterPeer::Namespaces(Selector::default())];
        let mut closed = policy.clone();
        closed.ingress.insert(0, ClusterRule { name: None, action: Action::Deny, peers, ports: Vec::new(), origin: None });
        closed
    };
    let admin = bench.index.cluster_policies().filter(|policy| policy.tier == Tier::Admin && !policy.rules(Direction::Ingress).is_empty());
    // Each time other ones first, so that not all changes are of one policy.
    let skipped = usize::from(flow.port) % bench.index.counts().cluster_policies.max(1);
    admin.skip(skipped).take(4).find_map(|policy| turned(bench, flow, before, policy.clone().into(), closed(policy).into()))
}

/// The change, if it turns the verdict.
fn turned(bench: &Bench<'_>, flow: &Flow, before: Verdict, old: Object, new: Object) -> Option<Change> {
    let mut index = bench.index.clone();
    index.apply(new.clone());
    let after = Scan::new(&index).verdict(&flow.connection(&index), Through::Namespace);
    (after != before).then_some(Change { flow: *flow, before: old, after: new, verdicts: [before, after] })
}
