//! What changes are said to do is what every connection's verdict before and after says.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use netpol_observer::cluster::{
    Cidr, ClusterPeer, ClusterPolicy, Direction, DomainName, Index, Kind, NetworkPolicy, Node, Object, ObjectKey, Peer, Pod, PodPhase,
    Selector, Subject,
};
use netpol_observer::flow::Protocol;
use netpol_observer::identify::{Identity, Party, party};
use netpol_observer::policy::{
    BaselineScope, Bounds, Connection, Difference, Engine, Pair, PairEnd, Pairs, Profile, Ruling, TiedPriorities, Turned, Verdict,
    is_compared,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::clusters::{cluster, connection, policy};
use crate::timeline::changes::{cluster_policy, namespace, object};

/// Ports that policies name, both sides of ranges, and one that none names.
const PORTS: [u16; 8] = [1, 53, 60, 80, 8080, 9000, 9001, 65535];

/// Addresses of which some are outside of the cluster, at least one in every range that policies can name.
const ADDRESSES: [&str; 19] = [
    "1.1.1.1",
    "129.0.0.1",
    "203.0.113.7",
    "203.0.113.8",
    "203.0.113.200",
    "192.168.0.1",
    "192.168.0.77",
    "192.168.200.1",
    "169.254.169.254",
    "169.254.1.1",
    "10.0.0.1",
    "10.0.0.4",
    "10.0.0.5",
    "10.0.0.6",
    "10.0.0.7",
    "10.0.0.99",
    "10.0.0.200",
    "2001:db8::7",
    "fd00::63",
];

/// What becomes of an object; of one that is not there, nothing where it goes.
#[derive(Clone, Debug)]
enum Step {
    Put(Box<Object>),
    Remove(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let put = |object: Object| Step::Put(Box::new(object));
    prop_oneof![
        3 => object().prop_map(put),
        2 => broad_policy().prop_map(Object::from).prop_map(put),
        4 => broad_cluster_policy().prop_map(Object::from).prop_map(put),
        3 => namespace().prop_map(Object::from).prop_map(put),
        2 => any::<prop::sample::Index>().prop_map(Step::Remove),
    ]
}

/// One that selects every pod of its namespace.
fn broad_policy() -> impl Strategy<Value = NetworkPolicy> {
    (policy(), 0..5_u8).prop_map(|(policy, number)| NetworkPolicy {
        name: format!("policy-{number}").into(),
        pod_selector: Selector::default(),
        ..policy
    })
}

/// One for every pod, often with a rule for all of them, and often with the same priority as others.
fn broad_cluster_policy() -> impl Strategy<Value = ClusterPolicy> {
    (cluster_policy(), any::<bool>()).prop_map(|(mut policy, is_for_all)| {
        policy.subject = Subject::Namespaces(Selector::default());
        policy.priority = policy.priority.min(1);
        for rule in policy.ingress.iter_mut().chain(&mut policy.egress).filter(|_| is_for_all) {
            rule.peers = vec![ClusterPeer::Namespaces(Selector::default())];
        }
        policy
    })
}

/// With policies of all tiers, and pods of which some have addresses of one family only.
fn start() -> impl Strategy<Value = Index> {
    (cluster(), vec(prop_oneof![cluster_policy(), broad_cluster_policy()], 0..5)).prop_map(|(mut index, policies)| {
        policies.into_iter().for_each(|policy| index.apply(policy));
        for pod in index.pods().filter(|pod| pod.ips.len() == 2).cloned().collect::<Vec<_>>() {
            match pod.name.trim_start_matches("pod-").parse::<u8>().map(|number| number % 3) {
                Ok(0) => index.apply(Pod { ips: pod.ips[..1].to_vec(), ..(*pod).clone() }),
                Ok(1) => index.apply(Pod { ips: pod.ips[1..].to_vec(), ..(*pod).clone() }),
                _ => {}
            }
        }
        index
    })
}

/// Policies, namespaces, and seldom others.
fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let is_wanted = |step: &Step| match step {
        Step::Put(object) => is_compared(object.key().kind) || object.key().name.ends_with('1'),
        Step::Remove(_) => true,
    };
    let step = || step().prop_filter("mostly what is compared", is_wanted);
    vec(prop_oneof![3 => vec(step(), 1..2), 1 => vec(step(), 2..4)], 1..4)
}

fn profile() -> impl Strategy<Value = Profile> {
    let parts = (any::<bool>(), select(vec![TiedPriorities::Undecided, TiedPriorities::ByName]), any::<bool>());
    parts.prop_map(|(ip_block_matches_pods, tied_priorities, per_pod)| Profile {
        ip_block_matches_pods,
        tied_priorities,
        baseline: if per_pod { BaselineScope::PerPod } else { BaselineScope::PerDirection },
        ..Profile::default()
    })
}

/// Both sides and what the verdict became, and the ports on which it did.
type Expected = BTreeMap<(&'static str, PairEnd, PairEnd), BTreeSet<(String, u16)>>;

/// Every pair of whoever calls and whoever is called, on every port.
fn brute(before: &Engine, after: &Engine, named: &HashSet<IpNet>) -> Expected {
    let index = after.index();
    let everybody = everybody(index, named);
    let mut expected = Expected::new();
    for (source, source_side) in &everybody {
        for (destination, destination_side) in &everybody {
            let calls = source.ip.is_ipv4() == destination.ip.is_ipv4() && !matches!(source.identity, Identity::Special);
            let has_subject = [source, destination].iter().any(|party| party.identity.pod().is_some());
            let is_itself = matches!(
                (&source.identity, &destination.identity),
                (Identity::Pod(a), Identity::Pod(b)) if (&a.namespace, &a.name) == (&b.namespace, &b.name)
            );
            if !calls || !has_subject || is_itself {
                continue;
            }
            for (protocol, port) in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().flat_map(|of| PORTS.map(|port| (of, port))) {
                let (source, destination) = (source.clone(), destination.clone());
                let connection = Connection { source, destination, protocol, port: Some(port), service: None };
                let became = match (before.verdict(&connection), after.verdict(&connection)) {
                    (Verdict::Allow, Verdict::Deny) => "denied",
                    (Verdict::Deny, Verdict::Allow) => "allowed",
                    (one, other) if one != other => "undecided",
                    _ => continue,
                };
                let key = (became, source_side.clone(), destination_side.clone());
                expected.entry(key).or_default().insert((protocol.to_string(), port));
            }
        }
    }
    expected
}

fn everybody(index: &Index, named: &HashSet<IpNet>) -> Vec<(Party, PairEnd)> {
    let mut everybody = Vec::new();
    for pod in index.pods().filter(|pod| pod.phase == PodPhase::Active && !pod.host_network) {
        let side = PairEnd::Workload { namespace: pod.namespace.clone(), workload: pod.workload.clone() };
        let at = |ip: &IpAddr, pod: &Arc<Pod>| Party { ip: ip.to_canonical(), identity: Identity::Pod(pod.clone()) };
        everybody.extend(pod.ips.iter().map(|ip| (at(ip, pod), side.clone())));
        if pod.ips.is_empty() {
            everybody.push((at(&"0.0.0.0".parse().unwrap(), pod), side));
        }
    }
    for node in index.nodes() {
        let at = |ip: &IpAddr, node: &Arc<Node>| Party { ip: *ip, identity: Identity::Node(node.clone()) };
        everybody.extend(node.addresses.iter().map(|ip| (at(ip, node), PairEnd::Nodes)));
    }
    for ip in ADDRESSES {
        let ip: IpAddr = ip.parse().unwrap();
        let party = party(ip, index);
        if matches!(party.identity, Identity::External | Identity::Special) {
            let around = named.iter().filter(|range| range.contains(&ip)).max_by_key(|range| range.prefix_len());
            let all = if ip.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            everybody.push((party, PairEnd::Outside(around.copied().unwrap_or(all.parse().unwrap()))));
        }
    }
    everybody
}

/// Every range that a policy of any of the indices names.
fn named_ranges(indices: [&Index; 2]) -> HashSet<IpNet> {
    let mut ranges = HashSet::new();
    for index in indices {
        for rule in index.policies().flat_map(|policy| Direction::BOTH.into_iter().flat_map(|of| policy.rules(of).unwrap_or_default())) {
            for peer in &rule.peers {
                if let Peer::IpBlock(block) = peer {
                    ranges.extend(block.except.iter().chain([&block.cidr]).map(|cidr: &Cidr| cidr.net.trunc()));
                }
            }
        }
        for rule in index.cluster_policies().flat_map(|policy| Direction::BOTH.into_iter().flat_map(|of| policy.rules(of))) {
            for peer in &rule.peers {
                match peer {
                    ClusterPeer::Networks(networks) => ranges.extend(networks.iter().map(|cidr| cidr.net.trunc())),
                    ClusterPeer::DomainNames(_) => {
                        let addresses = |name: &Arc<DomainName>| name.addresses.iter().copied().map(IpNet::from).collect::<Vec<_>>();
                        ranges.extend(index.domain_names().flat_map(addresses));
                    }
                    _ => {}
                }
            }
        }
    }
    ranges
}

/// Holds what is said against what is expected.
fn compare(turned: &Turned, expected: &Expected) -> Result<(), TestCaseError> {
    let mut left = expected.clone();
    for (became, pairs) in [("denied", &turned.denied), ("allowed", &turned.allowed), ("undecided", &turned.undecided)] {
        let is_workloads = |pair: &&Pair| [&pair.source, &pair.destination].iter().all(|end| matches!(end, PairEnd::Workload { .. }));
        let workloads = pairs.named.iter().filter(is_workloads).count() as u64;
        prop_assert_eq!((workloads, pairs.named.len() as u64), (pairs.workloads, pairs.workloads + pairs.outside));
        for pair in &pairs.named {
            let ports = left.remove(&(became, pair.source.clone(), pair.destination.clone()));
            let Some(ports) = ports else { return Err(TestCaseError::fail(format!("{became} is not true: {pair:#?}"))) };
            for (protocol, port) in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().flat_map(|of| PORTS.map(|port| (of, port))) {
                let is_said = pair.ports.iter().any(|range| range.protocol == protocol && (range.from..=range.to).contains(&port));
                let is_true = ports.contains(&(protocol.to_string(), port));
                prop_assert_eq!(is_said, is_true, "{}/{} of {:#?}", port, protocol, pair);
            }
            explained(became, pair)?;
        }
    }
    prop_assert!(left.is_empty(), "not said: {left:#?}");
    Ok(())
}

/// The causes lead to what is said.
fn explained(became: &str, pair: &Pair) -> Result<(), TestCaseError> {
    let admits = |ruling: &Ruling| match ruling {
        Ruling::Open => Some(true),
        Ruling::Admitted { by } => (!by.is_empty()).then_some(true),
        Ruling::Denied { by, isolating } => (by.is_some() == isolating.is_empty()).then_some(false),
        Ruling::Undecided { .. } => None,
    };
    prop_assert!(!pair.causes.is_empty(), "no cause: {pair:#?}");
    for cause in &pair.causes {
        prop_assert_ne!(admits(&cause.before), admits(&cause.after), "{:#?}", pair);
    }
    let is_one = |of: &dyn Fn(&netpol_observer::policy::Cause) -> bool| pair.causes.iter().any(of);
    match became {
        "denied" => prop_assert!(is_one(&|cause| admits(&cause.after) == Some(false)), "{pair:#?}"),
        "allowed" => {
            prop_assert!(is_one(&|cause| admits(&cause.before) == Some(false)), "{pair:#?}");
            prop_assert!(pair.causes.iter().all(|cause| admits(&cause.after) == Some(true)), "{pair:#?}");
        }
        _ => {}
    }
    Ok(())
}

/// What the steps make of objects that are there.
fn objects(engine: &Engine, steps: &[Step]) -> BTreeMap<ObjectKey, Option<Object>> {
    let mut changes = BTreeMap::new();
    for step in steps {
        match step {
            Step::Put(object) => drop(changes.insert(object.key(), Some((**object).clone()))),
            Step::Remove(which) => {
                let index = engine.index();
                let network = index.policies().map(|policy| Object::from(policy.clone()).key());
                let cluster = index.cluster_policies().map(|policy| Object::from(policy.clone()).key());
                let namespaces = index.namespaces().map(|namespace| Object::from(namespace.clone()).key());
                let keys: Vec<ObjectKey> = network.chain(cluster).chain(namespaces).collect();
                if !keys.is_empty() {
                    changes.insert(which.get(&keys).clone(), None);
                }
            }
        }
    }
    changes
}

/// An index with these changes to the objects of some kinds.
fn changed(index: &Index, changes: &BTreeMap<ObjectKey, Option<Object>>, which: impl Fn(Kind) -> bool) -> Index {
    let mut index = index.clone();
    for (key, object) in changes.iter().filter(|(key, _)| which(key.kind)) {
        match object {
            Some(object) => index.apply(object.clone()),
            None => index.delete(key),
        }
    }
    index
}

const ALL: Bounds = Bounds { verdicts: u64::MAX, named: usize::MAX };

fn turned(difference: Difference) -> Turned {
    match difference {
        Difference::Counted(turned) => *turned,
        Difference::NotCounted(why) => panic!("{why:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// One engine through changes, one by one and several at once, says of each what two engines built afresh show.
    #[test]
    fn a_difference_is_that_of_every_connection(
        start in start(), profile in profile(), steps in steps(), calls in vec(connection(), 1..4),
    ) {
        let mut engine = Engine::over(start, profile);
        for steps in &steps {
            let changes = objects(&engine, steps);
            // Objects of other kinds make no difference: they change before.
            let before = changed(engine.index(), &changes, |kind| !is_compared(kind));
            let after = changed(&before, &changes, is_compared);
            let turned = turned(engine.change(changes.clone(), &ALL));
            let [before, after] = [before, after].map(|index| Engine::over(index, profile));
            let named = named_ranges([before.index(), after.index()]);
            compare(&turned, &brute(&before, &after, &named))?;
            for call in &calls {
                let connection = call.of(after.index());
                prop_assert_eq!(engine.verdict(&connection), after.verdict(&connection), "{:?}", connection);
                prop_assert_eq!(engine.explain(&connection), after.explain(&connection));
            }
        }
    }

    /// What was asked before, and in which order objects came, makes no difference to what is said.
    #[test]
    fn a_difference_does_not_depend_on_history(start in start(), steps in steps(), calls in vec(connection(), 0..8)) {
        let mut engine = Engine::over(start, Profile::default());
        for steps in &steps {
            let changes = objects(&engine, steps);
            let mut fresh = Engine::over(engine.index().clone(), Profile::default());
            for call in &calls {
                engine.verdict(&call.of(engine.index()));
            }
            let bounds = Bounds { named: 2, ..ALL };
            prop_assert_eq!(engine.change(changes.clone(), &bounds), fresh.change(changes, &bounds));
        }
    }

    /// With a bound there is the same answer or none, the engine is changed all the same, and of the pairs the first are named.
    #[test]
    fn bounds_leave_out_and_change_nothing(start in start(), steps in steps(), verdicts in 0..3000_u64, named in 0..4_usize) {
        let mut engine = Engine::over(start, Profile::default());
        for steps in &steps {
            let changes = objects(&engine, steps);
            let mut bounded = engine.clone();
            let all = turned(engine.change(changes.clone(), &ALL));
            let some = bounded.change(changes, &Bounds { verdicts, named });
            prop_assert_eq!(engine.index().counts(), bounded.index().counts());
            let Difference::Counted(some) = some else { continue };
            for (some, all) in [(&some.denied, &all.denied), (&some.allowed, &all.allowed), (&some.undecided, &all.undecided)] {
                let first = Pairs { named: all.named.iter().take(named).cloned().collect(), ..all.clone() };
                prop_assert_eq!(some, &first);
            }
        }
    }
}

/// The tests above would pass if nothing ever turned.
#[test]
fn changes_turn_verdicts_of_every_kind() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut counts, mut outside, mut nodes) = ([0_u64; 3], 0, 0);
    for _ in 0..200 {
        let (start, steps) = (start(), steps()).new_tree(&mut runner).unwrap().current();
        let mut engine = Engine::over(start, Profile::default());
        for steps in &steps {
            let changes = objects(&engine, steps);
            let turned = turned(engine.change(changes, &ALL));
            for (count, pairs) in counts.iter_mut().zip([&turned.denied, &turned.allowed, &turned.undecided]) {
                *count += pairs.workloads;
                outside += pairs.outside;
                nodes += pairs.named.iter().filter(|pair| pair.source == PairEnd::Nodes || pair.destination == PairEnd::Nodes).count();
            }
        }
    }
    println!("pairs denied, allowed and undecided: {counts:?}, with addresses outside {outside}, of them with nodes {nodes}");
    assert!(counts[..2].iter().all(|count| *count > 20) && counts[2] > 2 && outside > 50 && nodes > 10);
}

/// An object that is told again has no effect, and is not looked at.
#[test]
fn what_does_not_change_makes_no_difference() {
    let policy = NetworkPolicy { namespace: "east".into(), name: "policy".into(), ingress: Some(Vec::new()), ..NetworkPolicy::default() };
    let policy = Object::from(policy);
    let mut engine = Engine::new(Profile::default());
    engine.apply(policy.clone());
    let again = engine.change([(policy.key(), Some(policy))], &Bounds { verdicts: 0, named: 1 });
    assert_eq!(again, Difference::none());
}
