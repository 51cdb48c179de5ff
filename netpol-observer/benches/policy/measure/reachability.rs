//! Who may reach whom: all pods, all ports that policies name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use netpol_observer::cluster::{ClusterPeer, ClusterPort, Direction, Index, Peer, Pod, PodPhase, PolicyPort, PortNumber};
use netpol_observer::flow::Protocol;
use netpol_observer::identify::{Identity, Party};
use netpol_observer::policy::{Connection, Engine, Verdict};

use super::Bench;
use crate::cluster::random::Random;
use crate::figures::{Figure, Unit};
use crate::scan::{Scan, Through};

/// Answers that are compared with the scan's.
const CHECKED: usize = 20_000;

/// Says whether the first pod may reach the second on a port.
type Reaches<'a> = Box<dyn Fn(&Arc<Pod>, &Arc<Pod>, Protocol, u16) -> Verdict + 'a>;

/// The whole cluster's reachability at once, worked out before this returns.
fn at_once(engine: &Engine) -> Reaches<'_> {
    let reachability = engine.reachability();
    let groups = reachability.groups().iter().enumerate();
    let of_pod: HashMap<*const Pod, usize> =
        groups.flat_map(|(at, group)| group.pods.iter().map(move |pod| (Arc::as_ptr(pod), at))).collect();
    Box::new(move |source, destination, protocol, port| {
        let [from, to] = [source, destination].map(|pod| of_pod[&Arc::as_ptr(pod)]);
        let is_itself = Arc::ptr_eq(source, destination);
        if is_itself || reachability.admits(from, to, protocol, port) { Verdict::Allow } else { Verdict::Deny }
    })
}

/// The same, with an explanation for every denial, between any two groups and on every interval of ports; returns how many there are.
fn explained_at_once(engine: &Engine) -> usize {
    let reachability = engine.reachability();
    let groups = reachability.groups();
    let mut explained = 0;
    for (to, destination) in groups.iter().enumerate().filter(|(_, group)| !group.pods.is_empty()) {
        for (ports, sources) in reachability.sources_of(to) {
            let admitted: BTreeSet<usize> = sources.collect();
            for (from, source) in groups.iter().enumerate().filter(|(_, group)| !group.pods.is_empty()) {
                if admitted.contains(&from) || (from == to && source.pods.len() == 1) {
                    continue;
                }
                let mut connection = between(&source.pods[0], destination.pods.last().expect("it has pods"));
                (connection.protocol, connection.port) = (ports.protocol, Some(ports.from));
                black_box(engine.explain(&connection));
                explained += 1;
            }
        }
    }
    explained
}

pub(super) fn measure(bench: &mut Bench<'_>) {
    bench.progress("reachability");
    let ports = named_ports(&bench.index);
    let groups = groups(&bench.index);
    let (aim, explained_aim) = match bench.shape.pods {
        500 => (Some(0.2), Some(2.0)),
        10_000 => (Some(1.0), None),
        _ => (None, None),
    };
    let asked = format!("{} ports, {} kinds of pods", ports.len(), groups.len());

    let brute = estimate(bench, &groups, &ports, |engine, connection| {
        black_box(engine.verdict(connection));
    });
    let engine = bench.engine();
    let begin = Instant::now();
    let reaches = at_once(&engine);
    let time = begin.elapsed().as_secs_f64();
    check(bench, &reaches, &ports);
    let note = format!("{asked}; without: pair by pair{}", brute.note());
    let figure = Figure::new("reachability of all pods", Unit::Seconds, time, note).against(brute.seconds);
    bench.figures.push(match aim {
        Some(aim) => figure.aim(aim),
        None => figure,
    });

    if let Some(aim) = explained_aim {
        let brute = estimate(bench, &groups, &ports, |engine, connection| {
            black_box(engine.explain(connection));
        });
        let engine = bench.engine();
        let begin = Instant::now();
        let explained = explained_at_once(&engine);
        let time = begin.elapsed().as_secs_f64();
        let note = format!("{explained} denials; without: pair by pair and port by port{}", brute.note());
        bench.figures.push(Figure::new("reachability with explanations", Unit::Seconds, time, note).against(brute.seconds).aim(aim));
    }
}

/// Compares answers about pods picked at random.
fn check(bench: &Bench<'_>, reaches: &Reaches<'_>, ports: &[(Protocol, u16)]) {
    let pods: Vec<&Arc<Pod>> = callable(&bench.index).collect();
    let scan = Scan::new(&bench.index);
    let mut random = Random::new(bench.shape.pods as u64);
    for _ in 0..CHECKED {
        let (source, destination, (protocol, port)) = (random.pick(&pods), random.pick(&pods), random.pick(ports));
        let mut connection = between(source, destination);
        (connection.protocol, connection.port) = (protocol, Some(port));
        let expected = scan.verdict(&connection, Through::Namespace);
        bench.judge.compare("reachability", &connection, reaches(source, destination, protocol, port), expected);
    }
}

/// Pods that have an address of their own.
fn callable(index: &Index) -> impl Iterator<Item = &Arc<Pod>> {
    index.pods().filter(|pod| pod.phase == PodPhase::Active && !pod.host_network && !pod.ips.is_empty())
}

fn between(source: &Arc<Pod>, destination: &Arc<Pod>) -> Connection {
    let party = |pod: &Arc<Pod>| Party { ip: pod.ips[0], identity: Identity::Pod(pod.clone()) };
    Connection { source: party(source), destination: party(destination), protocol: Protocol::Tcp, port: None, service: None }
}

/// How long all would take, one by one.
struct Estimate {
    seconds: f64,
    /// Of how many pairs that was measured, when not of all.
    sample: Option<usize>,
}

impl Estimate {
    fn note(&self) -> String {
        self.sample.map(|sample| format!(", estimated from {sample} pairs")).unwrap_or_default()
    }
}

/// Asks about every pair of kinds and every port, one pod for each kind, as far as the time goes.
fn estimate(bench: &Bench<'_>, groups: &[Group<'_>], ports: &[(Protocol, u16)], ask: impl Fn(&Engine, &Connection)) -> Estimate {
    let engine = bench.engine();
    // Not in the order of names: a namespace's pods have the same policies.
    let mut order: Vec<usize> = (0..groups.len()).collect();
    let mut random = Random::new(7);
    (1..order.len()).rev().for_each(|i| order.swap(i, random.below(i + 1)));
    let begin = Instant::now();
    let mut pairs = 0;
    'all: for shift in 0..order.len() {
        // Each round every caller once, so that a part of the rounds has seen all of them.
        for (at, from) in order.iter().enumerate() {
            let to = &order[(at + shift) % order.len()];
            // A pod reaches itself whatever the policies say: of a kind with itself it takes two.
            let source = groups[*from].first;
            let destination = if from == to { groups[*from].last } else { groups[*to].first };
            let mut connection = between(source, destination);
            for (protocol, port) in ports {
                (connection.protocol, connection.port) = (*protocol, Some(*port));
                ask(&engine, &connection);
            }
            pairs += 1;
            if begin.elapsed() > 2 * bench.budget {
                break 'all;
            }
        }
    }
    let all = groups.len() * groups.len();
    let seconds = begin.elapsed().as_secs_f64() * all as f64 / pairs.max(1) as f64;
    Estimate { seconds, sample: (pairs < all).then_some(pairs) }
}

/// Pods between which no policy can tell.
struct Group<'a> {
    first: &'a Arc<Pod>,
    last: &'a Arc<Pod>,
}

/// Pods of one namespace with the same labels and ports, and whose addresses lie in the same networks that policies name.
fn groups(index: &Index) -> Vec<Group<'_>> {
    let networks = networks(index);
    let mut groups: HashMap<_, Group<'_>> = HashMap::new();
    for pod in callable(index) {
        let inside: Vec<bool> = networks.iter().map(|network| network.contains(&pod.ips[0])).collect();
        let ports: Vec<_> = pod.ports.iter().map(|port| (&port.name, port.port, port.protocol)).collect();
        groups
            .entry((&pod.namespace, &pod.labels, ports, inside))
            .and_modify(|group| group.last = pod)
            .or_insert(Group { first: pod, last: pod });
    }
    let mut groups: Vec<Group<'_>> = groups.into_values().collect();
    groups.sort_by_key(|group| (&group.first.namespace, &group.first.name));
    groups
}

/// Every network that a policy names.
fn networks(index: &Index) -> BTreeSet<IpNet> {
    let mut networks = BTreeSet::new();
    for rule in index.policies().flat_map(|policy| Direction::BOTH.into_iter().flat_map(|d| policy.rules(d).unwrap_or_default())) {
        for peer in &rule.peers {
            if let Peer::IpBlock(block) = peer {
                networks.insert(block.cidr.net);
                networks.extend(block.except.iter().map(|except| except.net));
            }
        }
    }
    for rule in index.cluster_policies().flat_map(|policy| Direction::BOTH.into_iter().flat_map(|d| policy.rules(d))) {
        for peer in &rule.peers {
            if let ClusterPeer::Networks(listed) = peer {
                networks.extend(listed.iter().map(|network| network.net));
            }
        }
    }
    networks
}

/// Every port that a policy names: numbers, both ends of ranges, the numbers that names stand for; and for every protocol one more, which
/// stands for all that are not named.
fn named_ports(index: &Index) -> Vec<(Protocol, u16)> {
    let mut numbers: BTreeMap<&str, BTreeSet<(Protocol, u16)>> = BTreeMap::new();
    for pod in index.pods() {
        for port in &pod.ports {
            if let Some(name) = &port.name {
                numbers.entry(name).or_default().insert((port.protocol, port.port));
            }
        }
    }
    let mut ports = BTreeSet::from([Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| (protocol, 1)));
    let mut add = |port: &PolicyPort| match &port.port {
        PortNumber::Number(number) => drop(ports.insert((port.protocol, *number))),
        PortNumber::Range(from, to) => ports.extend([(port.protocol, *from), (port.protocol, *to)]),
        PortNumber::Name(name) => {
            ports.extend(numbers.get(&**name).into_iter().flatten().filter(|(protocol, _)| *protocol == port.protocol));
        }
        PortNumber::Any | PortNumber::Invalid(_) => {}
    };
    let rules = index.policies().flat_map(|policy| Direction::BOTH.into_iter().flat_map(|d| policy.rules(d).unwrap_or_default()));
    rules.flat_map(|rule| &rule.ports).for_each(&mut add);
    let rules = index.cluster_policies().flat_map(|policy| Direction::BOTH.into_iter().flat_map(|d| policy.rules(d)));
    let mut by_name = BTreeSet::new();
    for port in rules.flat_map(|rule| &rule.ports) {
        match port {
            ClusterPort::Port(port) => add(port),
            ClusterPort::Named(name) => by_name.extend(numbers.get(&**name).into_iter().flatten().copied()),
            ClusterPort::Invalid(_) => {}
        }
    }
    ports.extend(by_name);
    ports.into_iter().collect()
}
