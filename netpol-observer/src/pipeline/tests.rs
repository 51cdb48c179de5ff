//! Tests: a small cluster that lives, and drops in it.

mod changes;
mod owners;
mod waiting;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use netpol_observer_common::FoldValue;

use super::*;
use crate::cluster::{Kind, Labels, Namespace, NetworkPolicy, Node, ObjectKey, Operator, Pod, PodPhase, Requirement, Selector, Workload};
use crate::diagnose::{Attributed, How, Moment};
use crate::flow::testing::{Names, RecordBuilder};
use crate::flow::{Peer, Symbol, decode, fold_key};
use crate::identify::{Identity, Party};
use crate::policy::Profile;
use crate::timeline::{Limits, Timeline};

const KINDS: [Kind; 6] = [Kind::Namespace, Kind::Node, Kind::Pod, Kind::Service, Kind::EndpointSlice, Kind::NetworkPolicy];
/// Of pods.
const A: &str = "10.244.1.5";
const B: &str = "10.244.2.7";
const API: &str = "10.244.2.8";

const OFFSET_MS: i64 = 1_000_000;

/// Milliseconds of the tests' clock.
fn at(milliseconds: i64) -> Timestamp {
    let since_epoch = SignedDuration::from_secs(1_800_000_000) + SignedDuration::from_millis(OFFSET_MS + milliseconds);
    Timestamp::UNIX_EPOCH + since_epoch
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect()
}

/// A pod of namespace shop whose uid is its name with a `#` behind it.
fn pod(name: &str, address: Option<&str>) -> Pod {
    Pod {
        namespace: "shop".into(),
        name: name.into(),
        uid: format!("{name}#").into(),
        labels: labels(&[("app", name)]),
        ips: address.map(ip).into_iter().collect(),
        node: Some("node-1".into()),
        host_network: false,
        phase: PodPhase::Active,
        ready: true,
        deleting: false,
        ports: Vec::new(),
        workload: Workload { kind: "Pod".into(), name: name.into() },
        origin: None,
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey { kind: Kind::Pod, namespace: "shop".into(), name: name.into() }
}

/// Isolates app=api for ingress, but for what `from` says.
fn policy(name: &str, from: &[&str]) -> NetworkPolicy {
    let selects = |app: &str| Selector { requirements: vec![Requirement { key: "app".into(), operator: Operator::Equals(app.into()) }] };
    let rule = |app: &&str| crate::cluster::Rule {
        peers: vec![crate::cluster::Peer::Pods { namespace: None, pod: Some(selects(app)) }],
        ports: Vec::new(),
        origin: None,
    };
    NetworkPolicy {
        namespace: "shop".into(),
        name: name.into(),
        pod_selector: selects("api"),
        ingress: Some(from.iter().map(rule).collect()),
        ..NetworkPolicy::default()
    }
}

/// The kernel's names, and which pods are behind which interfaces.
struct Kernel {
    names: Names,
    behind: HashMap<u32, Arc<str>>,
}

impl KernelNames for Kernel {
    fn reason(&self, number: u32) -> Option<Arc<str>> {
        self.names.reason(number)
    }

    fn symbol(&self, address: u64) -> Option<Symbol> {
        self.names.symbol(address)
    }

    fn clock_offset_ns(&self) -> i64 {
        self.names.clock_offset_ns()
    }

    fn peer(&self, _netns: u32, ifindex: u32) -> Option<Peer> {
        let pod_uid = Some(self.behind.get(&ifindex)?.clone());
        Some(Peer { netns: 1, index: 2, name: "eth0".into(), pod_uid })
    }
}

struct World {
    moments: Moments,
    kernel: Kernel,
    steps: Vec<Step>,
}

/// A node, the namespace and the pod api, since a minute ago; nothing is denied.
fn world() -> World {
    world_with(MomentsOptions::default())
}

fn world_with(options: MomentsOptions) -> World {
    let mut timeline = Timeline::new(Profile::default(), Limits::default(), at(-60_000));
    let node = Node {
        name: "node-1".into(),
        labels: Labels::new(),
        addresses: vec![ip("192.168.0.1")],
        pod_cidrs: vec!["10.244.0.0/16".parse().expect("a range")],
    };
    let shop = Namespace { name: "shop".into(), labels: labels(&[("kubernetes.io/metadata.name", "shop")]) };
    timeline.reset(at(-60_000), &KINDS, [node.into(), shop.into(), pod("api", Some(API)).into()]);
    let kernel = Kernel { names: Names::linux(), behind: HashMap::new() };
    World { moments: Moments::new(timeline, options), kernel, steps: Vec::new() }
}

fn nanoseconds(milliseconds: i64) -> u64 {
    u64::try_from((OFFSET_MS + milliseconds) * 1_000_000).expect("after the start")
}

/// A SYN that netfilter drops in the forward hook.
fn syn(milliseconds: i64, from: &str, to: &str) -> RecordBuilder {
    let end = |address: &str, port| SocketAddr::new(ip(address), port);
    RecordBuilder::tcp_syn(end(from, 40_000), end(to, 8080)).time_ns(nanoseconds(milliseconds))
}

impl World {
    fn apply(&mut self, milliseconds: i64, object: impl Into<crate::cluster::Object>) {
        self.moments.timeline_mut().apply(at(milliseconds), object);
        self.tick(milliseconds);
    }

    fn delete(&mut self, milliseconds: i64, name: &str) {
        assert!(self.moments.timeline_mut().delete(at(milliseconds), &key(name)));
        self.tick(milliseconds);
    }

    fn tick(&mut self, milliseconds: i64) {
        let steps = self.moments.tick(at(milliseconds));
        self.steps.extend(steps);
    }

    fn drop(&mut self, now: i64, record: &RecordBuilder) {
        self.take(now, &[Captured::Record(record.bytes())]);
    }

    fn take(&mut self, now: i64, batch: &[Captured]) {
        let steps = self.moments.take(batch, &self.kernel, at(now));
        self.steps.extend(steps.into_iter().map(|step| step.expect("a record")));
    }

    /// What was given since the last time, a line each.
    fn given(&mut self) -> Vec<String> {
        std::mem::take(&mut self.steps).iter().map(told).collect()
    }

    /// The only thing given since the last time, a drop or an amendment.
    fn denial(&mut self) -> Arc<Denial> {
        match std::mem::take(&mut self.steps).as_slice() {
            [Step::Denial(denial) | Step::Amendment(Amendment { denial, .. })] => denial.clone(),
            other => panic!("{:?}", other.iter().map(told).collect::<Vec<_>>()),
        }
    }
}

fn repeat(record: &RecordBuilder, count: u64, last: i64) -> Captured {
    let built = record.build();
    let flow = decode(built.ether_type, &built.header[..usize::from(built.header_len)]).expect("a packet");
    Captured::Repeat { key: fold_key(&built, &flow), value: FoldValue { count, last_ns: nanoseconds(last) } }
}

fn told(step: &Step) -> String {
    let drop = |denial: &Denial| {
        let when = denial.event.time.duration_since(at(0)).as_millis();
        format!("{when} {} → {}", party(&denial.who.client), party(&denial.who.server))
    };
    match step {
        Step::Denial(denial) => drop(denial),
        Step::Repeat { count, last, .. } => format!("+{count} until {}", last.duration_since(at(0)).as_millis()),
        Step::Amendment(Amendment { before, denial, .. }) => format!("{} is {}", drop(before), drop(denial)),
        Step::Ledger(_) => "ledger".to_owned(),
    }
}

fn party(party: &Party) -> String {
    match &party.identity {
        Identity::Pod(pod) => pod.name.to_string(),
        Identity::AmbiguousPods(pods) => pods.iter().map(|pod| &*pod.name).collect::<Vec<_>>().join("|"),
        Identity::UnownedPodAddress => "?".to_owned(),
        other => format!("{other:?}").chars().take_while(|c| c.is_alphabetic()).collect(),
    }
}

fn moment(denial: &Denial) -> &Moment {
    denial.moment.as_ref().expect("judged as of its moment")
}

fn how(denial: &Denial) -> Vec<&How> {
    moment(denial).owners.iter().map(|Attributed { how, .. }| how).collect()
}

#[test]
fn where_nothing_changes_a_drop_is_judged_as_by_the_objects() {
    let mut world = world();
    world.apply(-20_000, pod("web", Some(A)));
    world.apply(-15_000, policy("api", &["frontend"]));
    let record = syn(0, A, API);
    world.drop(1, &record);
    let denial = world.denial();
    assert!(moment(&denial).is_plain(), "{:?}", denial.moment);
    let plain = judge(decode_record(&record.bytes(), &world.kernel).expect("a record"), world.moments.timeline().engine());
    let told = |denial: &Denial| format!("{:?} {:?} {:?}", denial.who, denial.explanation, denial.diagnosis);
    assert_eq!(told(&denial), told(&plain));
    assert!(plain.moment.is_none());
}

#[test]
fn what_cannot_be_decoded_is_told_where_it_was() {
    let mut world = world();
    let batch = [Captured::Record(bytes::Bytes::from_static(b"short")), Captured::Record(syn(0, API, API).bytes())];
    let steps = world.moments.take(&batch, &world.kernel, at(0));
    assert!(matches!(steps.as_slice(), [Err(RecordError::Length { .. }), Ok(Step::Denial(_))]), "{steps:?}");
}
