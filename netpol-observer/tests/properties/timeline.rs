//! The past of a timeline is what an engine built from the objects of then says, whatever changed since.

pub(crate) mod changes;
mod naive;

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use netpol_observer::cluster::{Index, Kind, Object, ObjectKey};
use netpol_observer::policy::{Engine, Explanation, Profile, Verdict};
use netpol_observer::timeline::{ChangeKind, Limits, Timeline};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::clusters::{Call, OTHERS, SERVICE, cluster, connection, pod_address, pod_address_6};
use changes::{Step, objects, step};
use naive::{Histories, State};

const KINDS: [Kind; 10] = [
    Kind::Namespace,
    Kind::Node,
    Kind::Pod,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::NetworkPolicy,
    Kind::AdminNetworkPolicy,
    Kind::BaselineAdminNetworkPolicy,
    Kind::ClusterNetworkPolicy,
    Kind::DomainName,
];

/// Seconds after the start.
fn second(seconds: i64) -> Timestamp {
    Timestamp::new(1_800_000_000 + seconds, 0).unwrap()
}

/// A timeline after some changes, and all states that there were.
fn lived(start: &Index, steps: &[(i64, Step)], limits: Limits) -> (Timeline, Histories) {
    let mut timeline = Timeline::new(Profile::default(), limits, second(0));
    timeline.reset(second(0), &KINDS, objects(start));
    let mut histories = Histories::new(second(0), objects(start));
    let mut told = 0;
    for (gap, step) in steps {
        told = (told + gap).max(0);
        let at = second(told);
        match step {
            Step::Apply(object) => {
                let is_other = timeline.apply(at, (**object).clone());
                assert_eq!(is_other, histories.change(at, |state| drop(state.insert(object.key(), (**object).clone()))));
            }
            Step::Delete(which) => {
                let Some(key) = histories.pick(which) else { continue };
                let was_there = timeline.delete(at, &key);
                assert_eq!(was_there, histories.change(at, |state| drop(state.remove(&key))));
            }
            Step::List(kind, kept, new) => {
                let mut list: Vec<Object> = histories.now().values().filter(|object| object.key().kind == *kind).cloned().collect();
                list.retain(|object| *kept || object.key().name.len() % 2 == 0);
                list.extend(new.iter().filter(|object| object.key().kind == *kind).cloned());
                timeline.reset(at, &[*kind], list.clone());
                histories.change(at, |state| {
                    state.retain(|key, _| key.kind != *kind);
                    state.extend(list.into_iter().map(|object| (object.key(), object)));
                });
            }
        }
    }
    (timeline, histories)
}

fn engine(state: &State) -> Engine {
    let mut engine = Engine::new(Profile::default());
    engine.reset(state.values().cloned());
    engine
}

/// All that an engine has to say of a call.
fn answers(engine: &Engine, call: &Call) -> (Verdict, Verdict, Explanation) {
    let connection = call.of(engine.index());
    let between = engine.verdict_between(connection.source.ip, connection.destination.ip, connection.protocol, connection.port);
    (engine.verdict(&connection), between, engine.explain(&connection))
}

fn limits() -> impl Strategy<Value = Limits> {
    let narrow = (1..40_usize, 1..100_i64, 500..40_000_usize);
    let narrow = narrow.prop_map(|(max_changes, keep, max_bytes)| Limits { keep: SignedDuration::from_secs(keep), max_changes, max_bytes });
    prop_oneof![2 => Just(Limits::default()), 1 => narrow]
}

fn steps() -> impl Strategy<Value = Vec<(i64, Step)>> {
    // Some at one time, some with a time that went back.
    vec((prop_oneof![3 => Just(0), 6 => 1..4_i64, 1 => -3..0_i64], step()), 0..40)
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        4 => (0..8_u8).prop_map(pod_address),
        2 => (0..8_u8).prop_map(pod_address_6),
        2 => prop::sample::select(&OTHERS[..2]).prop_map(|text| text.parse().unwrap()),
        1 => Just(SERVICE.parse().unwrap()),
        1 => (0..8_u8).prop_map(|number| match pod_address(number) {
            IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
            ip => ip,
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// What is only supposed is answered as if it were so, and leaves no trace.
    #[test]
    fn what_is_supposed_is_as_if_it_were_so(
        start in cluster(),
        steps in steps(),
        supposed in vec(step(), 1..6),
        call in connection(),
        back in 0..60_i64,
    ) {
        let (mut timeline, histories) = lived(&start, &steps, Limits::default());
        let when = second(back);
        let state = histories.at(when).clone();
        let mut wanted = state.clone();
        let mut objects: Vec<(ObjectKey, Option<Object>)> = Vec::new();
        for step in supposed {
            let (key, object) = match step {
                Step::Apply(object) => (object.key(), Some(*object)),
                Step::Delete(which) => match histories.pick(&which) {
                    Some(key) => (key, None),
                    None => continue,
                },
                Step::List(..) => continue,
            };
            objects.retain(|(known, _)| *known != key);
            match &object {
                Some(object) => drop(wanted.insert(key.clone(), object.clone())),
                None => drop(wanted.remove(&key)),
            }
            objects.push((key, object));
        }
        let before = answers(timeline.engine(), &call);
        let mut look = timeline.look_back();
        look.at(when);
        let then = answers(look.engine(), &call);
        let connection = call.of(look.engine().index());
        let expected = answers(&engine(&wanted), &call);
        prop_assert_eq!(look.supposing(&objects, |engine| answers(engine, &call)), expected);
        prop_assert_eq!(&answers(look.engine(), &call), &then);
        // Policies alone are supposed without telling the engine.
        let is_policy = |kind: Kind| kind == Kind::NetworkPolicy || kind.cluster_policy().is_some();
        objects.retain(|(key, _)| is_policy(key.kind));
        let mut only_policies = state;
        for (key, object) in &objects {
            match object {
                Some(object) => drop(only_policies.insert(key.clone(), object.clone())),
                None => drop(only_policies.remove(key)),
            }
        }
        let expected = engine(&only_policies);
        let now = look.engine();
        prop_assert_eq!(now.verdict_if(&connection, &objects), expected.verdict(&connection));
        let told = |explanation: &Explanation| (explanation.verdict, explanation.egress.admission.clone(), explanation.ingress.admission.clone());
        prop_assert_eq!(told(&now.explain_if(&connection, &objects)), told(&expected.explain(&connection)));
        drop(look);
        prop_assert_eq!(answers(timeline.engine(), &call), before);
    }

    /// Asked about any time, in any order, it answers like an engine built from the objects of that time, or of the horizon where that is
    /// later; and is afterwards like one built from all.
    #[test]
    fn the_past_is_what_it_was(
        start in cluster(), steps in steps(), limits in limits(),
        asked in vec((-5..90_i64, vec(connection(), 1..4)), 1..8),
    ) {
        let (mut timeline, histories) = lived(&start, &steps, limits);
        let horizon = timeline.horizon();
        for (when, calls) in &asked {
            let when = second(*when);
            let then = engine(histories.at(when.max(horizon)));
            let past = timeline.at(when, |engine| {
                let counts = engine.index().counts();
                (counts, calls.iter().map(|call| answers(engine, call)).collect::<Vec<_>>())
            });
            prop_assert_eq!(past.exact, when >= horizon);
            prop_assert_eq!(past.value.0, then.index().counts());
            for (call, said) in calls.iter().zip(&past.value.1) {
                prop_assert_eq!(said, &answers(&then, call), "{:?} at {}, horizon {}: {:?}", call, when, horizon, steps);
            }
        }
        let fresh = engine(histories.now());
        prop_assert_eq!(timeline.engine().index().counts(), fresh.index().counts());
        for (key, object) in histories.now() {
            let live = timeline.engine().index().object(key);
            prop_assert_eq!(live.as_ref(), Some(object));
        }
        for call in asked.iter().flat_map(|(_, calls)| calls) {
            prop_assert_eq!(answers(timeline.engine(), call), answers(&fresh, call));
        }
    }

    /// The same from one time to the next.
    #[test]
    fn a_look_back_is_what_it_was(
        start in cluster(), steps in steps(), limits in limits(),
        asked in vec((-5..90_i64, connection(), address()), 1..12),
    ) {
        let (mut timeline, histories) = lived(&start, &steps, limits);
        let horizon = timeline.horizon();
        let owners = |ip, from, to| histories.owners(ip, from, to, horizon);
        let mut look_back = timeline.look_back();
        for (when, call, ip) in &asked {
            let when = second(*when);
            let then = engine(histories.at(when.max(horizon)));
            let past = look_back.at(when);
            prop_assert_eq!(past.exact, when >= horizon);
            prop_assert_eq!(past.value.index().counts(), then.index().counts());
            prop_assert_eq!(answers(past.value, call), answers(&then, call), "{:?} at {}, horizon {}: {:?}", call, when, horizon, steps);
            // Whoever came and went after the time that was asked about is there too.
            for until in [when, second(90)] {
                prop_assert_eq!(look_back.owners(*ip, second(0), until), owners(*ip, second(0), until));
            }
        }
        drop(look_back);
        let fresh = engine(histories.now());
        prop_assert_eq!(timeline.engine().index().counts(), fresh.index().counts());
        for (_, call, ip) in &asked {
            prop_assert_eq!(answers(timeline.engine(), call), answers(&fresh, call));
            prop_assert_eq!(timeline.owners(*ip, second(0), second(90)), owners(*ip, second(0), second(90)));
        }
    }

    /// Who had an address is what a look at every state says.
    #[test]
    fn owners_are_those_of_every_state(
        start in cluster(), steps in steps(), limits in limits(),
        asked in vec((address(), -5..90_i64, 0..20_i64), 1..8),
    ) {
        let (timeline, histories) = lived(&start, &steps, limits);
        for (ip, from, length) in asked {
            let (from, to) = (second(from), second(from + length));
            let owners = timeline.owners(ip, from, to);
            let naive = histories.owners(ip, from, to, timeline.horizon());
            prop_assert_eq!(&owners, &naive, "{} from {} to {}: {:?}", ip, from, to, steps);
        }
    }

    /// The changes are the differences between states, and they and their bytes stay within the limits.
    #[test]
    fn changes_lead_from_state_to_state(start in cluster(), steps in steps(), limits in limits()) {
        let (timeline, histories) = lived(&start, &steps, limits);
        let status = timeline.status();
        prop_assert!(status.changes <= limits.max_changes && status.bytes <= limits.max_bytes, "{status:?}");
        let mut state = histories.now().clone();
        let mut last = second(1_000);
        for change in timeline.changes(second(0), second(1_000), |_| true) {
            prop_assert!(change.when <= last);
            last = change.when;
            prop_assert_ne!(&change.before, &change.after);
            prop_assert_eq!(state.get(&change.key), change.after.as_ref());
            let kind = match &change.before {
                Some(before) => {
                    state.insert(change.key.clone(), before.clone());
                    if change.after.is_some() { ChangeKind::Changed } else { ChangeKind::Removed }
                }
                None => {
                    state.remove(&change.key);
                    ChangeKind::Added
                }
            };
            prop_assert_eq!(change.kind(), kind);
        }
        if status.expired + status.pushed_out == 0 {
            prop_assert_eq!(status.horizon, second(0));
            // Before all changes, those of the first moment included.
            let first: State = objects(&start).into_iter().map(|object| (object.key(), object)).collect();
            prop_assert_eq!(state, first);
        }
    }
}
