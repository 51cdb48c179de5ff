use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::diagnose::Agreement;
use crate::flow::FoldId;
use crate::serve::filter::{Filter, Filters};
use crate::serve::testing::{api_service, at, example, example_at, external, innocent, node, policy_change};

fn stream(options: StreamOptions) -> Stream {
    Stream::new(options)
}

fn balanced(stream: &Stream) {
    stream.ledger().balance().unwrap();
}

#[test]
fn one_denial_and_its_repeats() {
    let mut stream = stream(StreamOptions::default());
    assert!(matches!(stream.denial(example_at(1, 0), at(0))[..], [Item::Denial { .. }]));
    assert!(stream.denial(example_at(1, 2), at(2)).is_empty());
    assert!(stream.repeat(FoldId(1), 4, at(3), at(3)).is_empty());
    balanced(&stream);
    assert_eq!(stream.ledger().pending, 5);
    assert!(stream.ledger().balance_final().is_err(), "repeats are still waiting");
    let items = stream.tick(at(6));
    assert!(matches!(&items[..], [Item::Repeats(summary)] if summary.count == 5));
    assert!(stream.repeat(FoldId(9), 2, at(7), at(7)).is_empty());
    stream.finish();
    let ledger = *stream.ledger();
    assert_eq!((ledger.shown, ledger.repeats, ledger.unattributed, ledger.records, ledger.counted), (1, 5, 2, 2, 6));
    ledger.balance_final().unwrap();
}

#[test]
fn changes_of_policies_are_filtered_and_not_counted() {
    let change = || Arc::new(policy_change());
    let everything = stream(StreamOptions::default());
    assert!(matches!(everything.policy_change(change()), Some(Item::PolicyChange(_))));
    assert_eq!(*everything.ledger(), Ledger::default());
    let since = |seconds| stream(StreamOptions { since: Some(at(seconds)), ..StreamOptions::default() });
    assert!(since(0).policy_change(change()).is_some());
    assert!(since(1).policy_change(change()).is_none());
    let mut filters = Filters::default();
    filters.wanted.push(Filter::Port(8080));
    assert!(stream(StreamOptions { filters, ..StreamOptions::default() }).policy_change(change()).is_none());
}

#[test]
fn what_is_hidden_is_counted_with_its_repeats() {
    let mut filters = Filters::default();
    filters.wanted.push(Filter::Port(9999));
    let mut stream = stream(StreamOptions { filters, ..StreamOptions::default() });
    assert!(stream.denial(example_at(1, 0), at(0)).is_empty());
    stream.repeat(FoldId(1), 3, at(1), at(1));
    let mut elsewhere = example();
    elsewhere.event.id = FoldId(2);
    elsewhere.who.client = external("203.0.113.5");
    elsewhere.who.server = external("198.51.100.7");
    elsewhere.who.service = None;
    stream.denial(Arc::new(elsewhere), at(1));
    stream.repeat(FoldId(2), 10, at(1), at(1));
    let mut noise = innocent(Class::Noise, Agreement::NotEnforcement, "");
    noise.event.id = FoldId(3);
    stream.denial(Arc::new(noise), at(1));
    stream.repeat(FoldId(3), 100, at(1), at(1));
    assert!(stream.finish().is_empty());
    let ledger = *stream.ledger();
    assert_eq!((ledger.filtered_out, ledger.elsewhere, ledger.noise), (4, 11, 101));
    ledger.balance_final().unwrap();
}

#[test]
fn noise_is_shown_to_those_who_ask_for_it() {
    let noise = || Arc::new(innocent(Class::Noise, Agreement::NotEnforcement, ""));
    let mut filters = Filters::default();
    filters.wanted.push(Filter::Class("noise".parse().unwrap()));
    assert_eq!(stream(StreamOptions { filters, ..StreamOptions::default() }).denial(noise(), at(0)).len(), 1);
    assert_eq!(stream(StreamOptions { noise: true, ..StreamOptions::default() }).denial(noise(), at(0)).len(), 1);
}

#[test]
fn nodes_and_services_are_part_of_the_cluster() {
    let mut denial = example();
    denial.who.client = external("203.0.113.5");
    denial.who.server = external("198.51.100.7");
    denial.who.service = None;
    assert!(!touches_index(&denial));
    denial.who.server = node("node-2", "192.0.2.2");
    assert!(touches_index(&denial));
    denial.who.server.identity = Identity::Service(api_service());
    assert!(touches_index(&denial));
    denial.who.server.identity = Identity::UnownedPodAddress;
    assert!(touches_index(&denial));
}

#[test]
fn the_same_addresses_with_another_cause_are_another_drop() {
    let mut stream = stream(StreamOptions::default());
    stream.denial(Arc::new(example()), at(0));
    assert_eq!(stream.denial(Arc::new(innocent(Class::HostFirewall, Agreement::PoliciesAllow, "")), at(1)).len(), 1);
    let mut renamed = example();
    renamed.who.server.identity = Identity::Pod(crate::serve::testing::pod("shop", "api-6d5c", "10.244.2.7", &[]));
    assert_eq!(stream.denial(Arc::new(renamed), at(1)).len(), 1);
    assert_eq!(stream.denial(Arc::new(example()), at(1)).len(), 0);
    balanced(&stream);
}

#[test]
fn a_drop_that_goes_on_past_since_is_shown() {
    let mut stream = stream(StreamOptions { since: Some(at(10)), ..StreamOptions::default() });
    assert!(stream.denial(example_at(1, 0), at(0)).is_empty());
    assert!(stream.repeat(FoldId(1), 2, at(4), at(4)).is_empty());
    assert_eq!(stream.ledger().earlier, 3);
    assert!(matches!(stream.repeat(FoldId(1), 5, at(11), at(11))[..], [Item::Denial { .. }]));
    balanced(&stream);
    assert!(matches!(&stream.finish()[..], [Item::Repeats(summary)] if summary.count == 5));
    let ledger = *stream.ledger();
    assert_eq!((ledger.earlier, ledger.shown, ledger.repeats), (2, 1, 5));
    ledger.balance_final().unwrap();
}

proptest! {
    #[test]
    fn the_ledger_balances_after_every_step(
        steps in prop::collection::vec((0..6u64, 0..4u64, 0..80i64, 0..7u8), 0..120),
        capacity in 1..5usize,
        since in prop::option::of(0..2000i64),
    ) {
        let fold = FoldOptions { capacity, interval: SignedDuration::from_secs(5), idle: SignedDuration::from_secs(60) };
        let mut filters = Filters::default();
        filters.wanted.push(Filter::Port(8080));
        let mut stream = stream(StreamOptions { filters, since: since.map(at), fold, ..StreamOptions::default() });
        let mut now = 0;
        let (mut full, mut summed) = (0, 0);
        // Each with what it was before.
        let mut given: Vec<Vec<Arc<Denial>>> = Vec::new();
        for (id, count, pause, what) in steps {
            now += pause;
            let mut items = stream.tick(at(now));
            items.extend(match what {
                0 => stream.repeat(FoldId(id), count, at(now), at(now)),
                1 => {
                    let mut noise = innocent(Class::Noise, Agreement::NotEnforcement, "");
                    noise.event.id = FoldId(id);
                    noise.event.time = at(now);
                    stream.denial(Arc::new(noise), at(now))
                }
                2 => {
                    let mut other = example();
                    other.event.id = FoldId(id);
                    other.event.time = at(now);
                    other.event.flow.destination_port = Some(1);
                    let denial = Arc::new(other);
                    given.push(vec![denial.clone()]);
                    stream.denial(denial, at(now))
                }
                5 | 6 if !given.is_empty() => {
                    let at_hand = (id as usize * 7 + count as usize) % given.len();
                    let versions = &mut given[at_hand];
                    let before = versions.last().unwrap().clone();
                    // Wanted or not, by the port, and by another pod.
                    let mut other = (*before).clone();
                    other.event.flow.destination_port = Some(if what == 5 { 8080 } else { 1 });
                    other.who.client = crate::serve::testing::party(&crate::serve::testing::pod("shop", &format!("web-{count}"), "10.244.1.5", &[]));
                    let denial = Arc::new(other);
                    let earlier = versions[..versions.len() - 1].to_vec();
                    versions.push(denial.clone());
                    stream.amendment(Amendment { before, earlier, denial, why: "?".into() }, at(now))
                }
                _ => {
                    let denial = example_at(id, now);
                    given.push(vec![denial.clone()]);
                    stream.denial(denial, at(now))
                }
            });
            prop_assert_eq!(stream.ledger().balance(), Ok(()));
            for item in items {
                match item {
                    Item::Denial { .. } => full += 1,
                    Item::Repeats(summary) => summed += summary.count,
                    Item::PolicyChange(_) => unreachable!("none came"),
                    Item::Amendment { is_first, .. } => full += u64::from(is_first),
                }
            }
        }
        for item in stream.finish() {
            if let Item::Repeats(summary) = item { summed += summary.count }
        }
        prop_assert_eq!(stream.ledger().balance_final(), Ok(()));
        prop_assert_eq!((stream.ledger().shown, stream.ledger().repeats), (full, summed));
    }
}

/// A drop of a pod that is not certain, under an id that the pods share.
fn of_pod(name: u64, id: u64, time: i64) -> Denial {
    let mut denial = example();
    (denial.event.id, denial.event.time) = (FoldId(id), at_ms(time));
    denial.who.client = crate::serve::testing::party(&crate::serve::testing::pod("shop", &format!("pod-{name}"), "10.244.1.5", &[]));
    denial.moment = Some(crate::diagnose::Moment::default());
    denial
}

fn at_ms(milliseconds: i64) -> Timestamp {
    at(0) + SignedDuration::from_millis(milliseconds)
}

fn pod_of(party: &Party) -> String {
    party.to_string()
}

proptest! {
    /// Whose drops they are: what is printed and amended adds up to what was known of each in the end, its repeats included; also where all of it is
    /// given late, by an agent that has much to do.
    #[test]
    fn amendments_move_the_drops_that_they_are_about(
        steps in prop::collection::vec((0..2u64, 0..3u64, 1..1500i64, 0..8u8), 0..100),
        capacity in prop::sample::select(vec![1000usize, 3]),
        (late, amended_for) in prop::sample::select(vec![(0, 3_000), (6_000, 1_500)]),
    ) {
        let mut stream = stream(StreamOptions { fold: FoldOptions { capacity, ..FoldOptions::default() }, ..StreamOptions::default() });
        let mut now = 0;
        // As they are known by now: id, time, versions, drops.
        let mut known: Vec<(u64, i64, Vec<Arc<Denial>>, u64)> = Vec::new();
        let mut items = Vec::new();
        for (id, pod, pause, what) in steps {
            now += pause;
            items.extend(stream.tick(at_ms(now)));
            let open = known.iter().position(|(of, time, ..)| *of == id && now - late - time < amended_for);
            match (what, open) {
                (0..=2, _) => {
                    let denial = Arc::new(of_pod(pod, id, now - late));
                    known.push((id, now - late, vec![denial.clone()], 1));
                    items.extend(stream.denial(denial, at_ms(now)));
                }
                (3..=4, _) => {
                    // However much later.
                    let Some(latest) = known.iter_mut().rev().find(|(of, ..)| *of == id) else { continue };
                    latest.3 += pod + 1;
                    items.extend(stream.repeat(FoldId(id), pod + 1, at_ms(now - late), at_ms(now)));
                }
                (5.., Some(place)) => {
                    let (_, time, versions, _) = &mut known[place];
                    let denial = Arc::new(of_pod(pod, id, *time));
                    let (before, earlier) = versions.split_last().unwrap();
                    let amendment = Amendment { before: before.clone(), earlier: earlier.to_vec(), denial: denial.clone(), why: "?".into() };
                    versions.push(denial);
                    items.extend(stream.amendment(amendment, at_ms(now)));
                }
                _ => {}
            }
            prop_assert_eq!(stream.ledger().balance(), Ok(()));
        }
        items.extend(stream.finish());
        prop_assert_eq!(stream.ledger().balance_final(), Ok(()));
        let mut said = std::collections::BTreeMap::<String, i64>::new();
        for item in items {
            match item {
                Item::Denial { denial, .. } => *said.entry(pod_of(&denial.who.client)).or_default() += 1,
                Item::Repeats(summary) => *said.entry(pod_of(&summary.route.client)).or_default() += i64::try_from(summary.count).unwrap(),
                Item::Amendment { amendment, is_first, .. } => {
                    prop_assert!(!is_first, "all of them are shown");
                    *said.entry(pod_of(&amendment.before.who.client)).or_default() -= 1;
                    *said.entry(pod_of(&amendment.denial.who.client)).or_default() += 1;
                }
                Item::PolicyChange(_) => unreachable!("none came"),
            }
        }
        let mut expected = std::collections::BTreeMap::<String, i64>::new();
        for (_, _, versions, drops) in &known {
            *expected.entry(pod_of(&versions.last().unwrap().who.client)).or_default() += i64::try_from(*drops).unwrap();
        }
        said.retain(|_, count| *count != 0);
        if stream.ledger().unattributed == 0 {
            prop_assert_eq!(said, expected);
        } else {
            prop_assert!(capacity < 1000, "nothing is forgotten where there is room");
        }
    }
}
