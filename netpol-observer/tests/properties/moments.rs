//! Drops while pods come and go and addresses change hands: not one is attributed to a pod that did not have the address.

mod churn;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use netpol_observer::capture::Captured;
use netpol_observer::cluster::{Index, Kind, Namespace, NetworkPolicy, Node, Object, Operator, Peer, Requirement, Rule, Selector};
use netpol_observer::diagnose::{Denial, Moment};
use netpol_observer::flow::testing::{Names, RecordBuilder};
use netpol_observer::flow::{KernelNames, Peer as OtherEnd, Protocol, Symbol};
use netpol_observer::identify::{Identity, Party};
use netpol_observer::pipeline::{Moments, MomentsOptions, Step};
use netpol_observer::policy::{Connection, Engine, Profile, Verdict};
use netpol_observer::timeline::{Limits, Timeline};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use churn::{Life, Plan, STEP_MS, at, is_possible, lives};

const KINDS: [Kind; 6] = [Kind::Namespace, Kind::Node, Kind::Pod, Kind::Service, Kind::EndpointSlice, Kind::NetworkPolicy];
const APPS: [&str; 3] = ["api", "db", "web"];

/// Where the observer sees a drop.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// On no pod's interface.
    Elsewhere,
    /// On the sender's interface.
    AtSource,
    /// On the receiver's, as a bridge has it.
    AtDestination,
    /// On the receiver's, when it is to leave by it.
    IntoDestination,
}

/// A drop between whoever had two addresses then.
#[derive(Clone, Debug)]
struct Drop {
    step: i64,
    source: usize,
    destination: usize,
    place: Place,
}

struct Kernel<'a> {
    names: Names,
    pods: &'a [Life],
}

impl KernelNames for Kernel<'_> {
    fn reason(&self, number: u32) -> Option<Arc<str>> {
        self.names.reason(number)
    }

    fn symbol(&self, address: u64) -> Option<Symbol> {
        self.names.symbol(address)
    }

    fn clock_offset_ns(&self) -> i64 {
        self.names.clock_offset_ns()
    }

    /// Interface 100 and up are those of the pods.
    fn peer(&self, _netns: u32, ifindex: u32) -> Option<OtherEnd> {
        let pod = self.pods.get(usize::try_from(ifindex.checked_sub(100)?).ok()?)?;
        Some(OtherEnd { netns: 1, index: 2, name: "eth0".into(), pod_uid: Some(pod.uid()) })
    }
}

/// The policy on app=api after each change: whom it admits, or none.
type Policies = Vec<(i64, Option<Vec<&'static str>>)>;

fn policy(admits: &[&str]) -> NetworkPolicy {
    let app = |app: &str| Selector { requirements: vec![Requirement { key: "app".into(), operator: Operator::Equals(app.into()) }] };
    let rule = |name: &&str| Rule { peers: vec![Peer::Pods { namespace: None, pod: Some(app(name)) }], ports: Vec::new(), origin: None };
    NetworkPolicy {
        namespace: "shop".into(),
        name: "api".into(),
        pod_selector: app("api"),
        ingress: Some(admits.iter().map(rule).collect()),
        ..NetworkPolicy::default()
    }
}

/// What happens, in the order of time: what is told before what is dropped.
enum Event<'a> {
    Told(Option<Object>, netpol_observer::cluster::ObjectKey),
    Dropped(usize, &'a Drop),
}

/// What was said of each drop, first and last.
struct Said {
    first: Arc<Denial>,
    last: Arc<Denial>,
}

/// Lives through it, with the clock of the events.
fn live(pods: &[Life], policies: &Policies, drops: &[Drop]) -> (BTreeMap<usize, Said>, Moments) {
    let start = at(-1000);
    let mut timeline = Timeline::new(Profile::default(), Limits::default(), start);
    let node = Node {
        name: "node-1".into(),
        labels: Default::default(),
        addresses: vec!["192.168.0.1".parse().unwrap()],
        pod_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
    };
    let shop = Namespace { name: "shop".into(), labels: Default::default() };
    timeline.reset(start, &KINDS, [node.into(), shop.into()]);
    let mut moments = Moments::new(timeline, MomentsOptions::default());
    let kernel = Kernel { names: Names::linux(), pods };

    let mut events: Vec<(i64, u8, Event<'_>)> = Vec::new();
    for pod in pods {
        events.extend(pod.tellings().into_iter().map(|(step, object)| (step, 0, Event::Told(object.map(Object::from), pod.key()))));
    }
    for (step, admits) in policies {
        let key = Object::from(policy(&[])).key();
        events.push((*step, 0, Event::Told(admits.as_ref().map(|admits| policy(admits).into()), key)));
    }
    events.extend(drops.iter().enumerate().map(|(number, drop)| (drop.step, 1, Event::Dropped(number, drop))));
    events.sort_by_key(|(step, order, _)| (*step, *order));

    let mut said: BTreeMap<usize, Said> = BTreeMap::new();
    let mut note = |step: Step| {
        let number = |denial: &Denial| usize::from(denial.event.flow.source_port.unwrap()) - 1000;
        match step {
            Step::Denial(denial) => {
                let before = said.insert(number(&denial), Said { first: denial.clone(), last: denial });
                assert!(before.is_none(), "given twice");
            }
            Step::Amendment(amendment) => {
                let said = said.get_mut(&number(&amendment.denial)).expect("given before it is amended");
                assert!(Arc::ptr_eq(&said.last, &amendment.before));
                said.last = amendment.denial;
            }
            Step::Repeat { .. } | Step::Ledger(_) => unreachable!("there are none"),
        }
    };
    let (mut end, mut told_at) = (0, None);
    for (step, _, event) in events {
        let now = at(step);
        // All that is told at a time is told before anything is due then.
        if told_at != Some(step) {
            if let Some(told_at) = told_at.take() {
                moments.tick(at(told_at)).into_iter().for_each(&mut note);
            }
            while let Some(due) = moments.next_due().filter(|due| *due < now) {
                moments.tick(due).into_iter().for_each(&mut note);
            }
        }
        match event {
            Event::Told(object, key) => {
                match object {
                    Some(object) => moments.timeline_mut().apply(now, object),
                    None => moments.timeline_mut().delete(now, &key),
                };
                told_at = Some(step);
            }
            Event::Dropped(number, drop) => {
                let record = record(number, drop, pods);
                let steps = moments.take(&[Captured::Record(record.bytes())], &kernel, now);
                steps.into_iter().for_each(|step| note(step.unwrap()));
            }
        }
        end = end.max(step);
    }
    moments.finish(at(end + 100)).into_iter().for_each(&mut note);
    (said, moments)
}

fn record(number: usize, drop: &Drop, pods: &[Life]) -> RecordBuilder {
    let [source, destination] = [drop.source, drop.destination].map(|pod| pods[pod].ip);
    let port = u16::try_from(1000 + number).expect("few drops");
    let since_boot = u64::try_from(1_000_000 + drop.step * STEP_MS).unwrap() * 1_000_000;
    let record = RecordBuilder::tcp_syn(SocketAddr::new(source, port), SocketAddr::new(destination, 8080)).time_ns(since_boot);
    let interface = |pod: usize| u32::try_from(100 + pod).unwrap();
    match drop.place {
        Place::Elsewhere => record.interface(7, "eth0"),
        Place::AtSource => record.interface(interface(drop.source), "veth"),
        Place::AtDestination => record.interface(interface(drop.destination), "veth"),
        Place::IntoDestination => record.interface(interface(drop.destination), "veth").outgoing(),
    }
}

/// The uids of the pods that an end is said to be.
fn named(party: &Party) -> Vec<Arc<str>> {
    match &party.identity {
        Identity::Pod(pod) => vec![pod.uid.clone()],
        Identity::AmbiguousPods(pods) => pods.iter().map(|pod| pod.uid.clone()).collect(),
        _ => Vec::new(),
    }
}

/// The engine by all that was told up to a time.
fn engine(policies: &Policies, step: i64) -> Engine {
    let mut index = Index::default();
    let last = policies.iter().rev().find(|(since, _)| *since <= step);
    if let Some((_, Some(admits))) = last {
        index.apply(policy(admits));
    }
    Engine::over(index, Profile::default())
}

/// What the policies of a time say of a connection between pods with these labels.
fn verdict(policies: &Policies, step: i64, denial: &Denial) -> Verdict {
    let connection = Connection {
        source: denial.who.client.clone(),
        destination: denial.who.server.clone(),
        protocol: Protocol::Tcp,
        port: Some(8080),
        service: None,
    };
    engine(policies, step).verdict(&connection)
}

/// How it went, by number of ends.
#[derive(Debug, Default)]
struct Outcome {
    alone: usize,
    several: usize,
    amended: usize,
}

/// Holds what was said of each drop against what was. `prompt`: what ends is told at once, so that nobody is named wrongly even for a moment.
fn check(pods: &[Life], policies: &Policies, drops: &[Drop], prompt: bool) -> Outcome {
    let (said, moments) = live(pods, policies, drops);
    assert_eq!(said.len(), drops.len(), "every drop is given");
    assert_eq!(moments.status().held, 0);
    assert_eq!(moments.status().not_held + moments.status().not_watched, 0);
    let mut by_address: HashMap<IpAddr, Vec<&Life>> = HashMap::new();
    pods.iter().for_each(|pod| by_address.entry(pod.ip).or_default().push(pod));
    let mut outcome = Outcome::default();
    for (number, drop) in drops.iter().enumerate() {
        let Said { first, last } = &said[&number];
        outcome.amended += usize::from(!Arc::ptr_eq(first, last));
        for (was, said) in [(drop.source, (&first.who.client, &last.who.client)), (drop.destination, (&first.who.server, &last.who.server))]
        {
            let truth = &pods[was];
            assert!(truth.has_address(drop.step));
            let final_names = named(said.1);
            let context =
                || format!("drop {number} at {}: it was {truth:?}, and is said to be {final_names:?}; {:?}", drop.step, last.moment);
            assert!(final_names.contains(&truth.uid()), "{}", context());
            if prompt {
                assert!(named(said.0).contains(&truth.uid()), "for a moment: {:?}; {}", named(said.0), context());
            }
            if final_names.len() == 1 {
                outcome.alone += 1;
                continue;
            }
            outcome.several += 1;
            for name in &final_names {
                let (ones, others): (Vec<&Life>, Vec<&Life>) = by_address[&truth.ip].iter().partition(|life| life.uid() == *name);
                assert!(is_possible(ones[0], &others, drop.step), "{name} cannot have been it; {}", context());
            }
        }
        let expected = verdict(policies, drop.step, last);
        let later = last.moment.as_ref().and_then(Moment::enforced_already);
        match (expected, last.explanation.verdict) {
            // What was told a little later denies it.
            (Verdict::Allow, Verdict::Deny) => {
                let step = drop.step..=drop.step + churn::LAG;
                assert!(later.is_some_and(|change| step.clone().any(|step| at(step) == change.when)), "drop {number}: {:?}", last.moment);
                assert!(step.clone().any(|step| verdict(policies, step, last) == Verdict::Deny));
            }
            (expected, said) => assert_eq!(said, expected, "drop {number} at {}", drop.step),
        }
    }
    outcome
}

fn plan() -> impl Strategy<Value = Plan> {
    let times = (0..8_i64, 4..60_i64, 0..=churn::TOLD, 0..8_i64, 0..12_i64, 0..9_i64, 0..24_i64);
    (times, prop::bool::weighted(0.2), select(&APPS[..])).prop_map(
        |((gap, life, publish, early, grace, mark_lag, gone), completes, app)| Plan {
            gap,
            life,
            publish,
            early,
            grace,
            mark_lag,
            gone,
            completes,
            app,
        },
    )
}

fn policies() -> impl Strategy<Value = Policies> {
    let admits = prop::option::of(prop::sample::subsequence(&APPS[..], 0..3));
    vec((1..40_i64, admits), 0..8).prop_map(|changes| {
        let mut step = 0;
        let mut next = |gap| {
            step += gap;
            step
        };
        changes.into_iter().map(|(gap, admits)| (next(gap), admits)).collect()
    })
}

/// Drops between pods that live at the time; of the wishes those that can be.
fn drops(pods: &[Life], wishes: &[(i64, usize, usize, Place)]) -> Vec<Drop> {
    let there = |step: i64, which: usize, but: Option<IpAddr>| {
        let there: Vec<usize> = (0..pods.len()).filter(|pod| pods[*pod].has_address(step) && Some(pods[*pod].ip) != but).collect();
        (!there.is_empty()).then(|| there[which % there.len()])
    };
    let wishes = wishes.iter().filter_map(|(step, source, destination, place)| {
        let source = there(*step, *source, None)?;
        let destination = there(*step, *destination, Some(pods[source].ip))?;
        Some(Drop { step: *step, source, destination, place: *place })
    });
    wishes.collect()
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        4 => Just(Place::Elsewhere),
        1 => Just(Place::AtSource),
        1 => Just(Place::AtDestination),
        1 => Just(Place::IntoDestination),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_drop_is_attributed_to_a_pod_that_did_not_have_the_address(
        addresses in vec(vec(plan(), 1..5), 2..4),
        policies in policies(),
        wishes in vec((0..160_i64, any::<usize>(), any::<usize>(), place()), 1..40),
        prompt in any::<bool>(),
    ) {
        let plans = addresses.into_iter().map(|mut plans| {
            plans.iter_mut().filter(|_| prompt).for_each(|plan| {
                plan.mark_lag = 0;
                plan.publish = plan.publish.min(churn::PUBLISH);
            });
            plans
        });
        let pods: Vec<Life> = plans.enumerate().flat_map(|(address, plans)| lives(address as u8, 0, &plans)).collect();
        check(&pods, &policies, &drops(&pods, &wishes), prompt);
    }
}

/// A thousand pods a minute.
#[test]
fn a_thousand_pods_a_minute_and_not_one_wrong() {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |bound: i64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % bound as u64) as i64
    };
    const SECONDS: i64 = 60;
    let steps = SECONDS * 1000 / STEP_MS;
    let mut pods = Vec::new();
    for address in 0..100_u8 {
        let mut plans = Vec::new();
        let mut used = 0;
        while used < steps {
            let plan = Plan {
                gap: below(4),
                life: 12 + below(20),
                publish: below(13),
                early: below(8),
                grace: below(12),
                mark_lag: below(5),
                gone: below(24),
                completes: below(5) == 0,
                app: APPS[below(3) as usize],
            };
            used += plan.gap + plan.life;
            plans.push(plan);
        }
        pods.extend(lives(address, 0, &plans));
    }
    let policies: Policies =
        (1..20).map(|number| (number * 20, (number % 3 != 0).then(|| APPS[..(number % 4) as usize].to_vec()))).collect();
    let places = [Place::Elsewhere, Place::Elsewhere, Place::AtSource, Place::AtDestination, Place::IntoDestination];
    let wishes: Vec<_> =
        (0..2000).map(|_| (below(steps), below(1 << 20) as usize, below(1 << 20) as usize, places[below(5) as usize])).collect();
    let drops = drops(&pods, &wishes);
    let outcome = check(&pods, &policies, &drops, false);
    println!("{} pods in {SECONDS} s, {} drops: {outcome:?}", pods.len(), drops.len());
    assert!(pods.len() as i64 > 1000 * SECONDS / 60, "{} pods", pods.len());
    assert!(outcome.alone > outcome.several, "{outcome:?}");
}
