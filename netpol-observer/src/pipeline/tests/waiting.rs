//! What waits, in which order it is given, and that nothing is lost.

use super::*;
use crate::serve::filter::{Filter, Filters, Side};
use crate::serve::{Item, Stream, StreamOptions};

#[test]
fn the_drops_and_repeats_of_an_id_keep_their_order() {
    let mut world = world();
    world.apply(-100, pod("web", None));
    let (held, other) = (syn(0, A, API), syn(20, API, API));
    world.take(
        30,
        &[
            Captured::Record(held.bytes()),
            repeat(&held, 3, 10),
            Captured::Record(other.bytes()),
            repeat(&other, 2, 25),
            Captured::Ledger(KernelLedger::default()),
        ],
    );
    assert_eq!(world.given(), ["20 api → api", "+2 until 25", "ledger"]);
    world.take(
        1_100,
        &[Captured::Record(held.clone().time_ns(nanoseconds(1_000)).bytes()), repeat(&held, 5, 1_090), repeat(&held, 1, 1_050)],
    );
    assert!(world.given().is_empty());
    assert_eq!(world.moments.status().held, 2);
    world.apply(1_200, pod("web", Some(A)));
    assert_eq!(world.given(), ["0 web → api", "+3 until 10", "1000 web → api", "+6 until 1090"]);
    assert_eq!(world.moments.status(), MomentsStatus { watched: 3, held_in_all: 2, ..MomentsStatus::default() });
    // Nothing waits any more.
    world.take(1_300, &[repeat(&held, 1, 1_250)]);
    assert_eq!(world.given(), ["+1 until 1250"]);
}

#[test]
fn the_first_of_an_id_is_due_before_the_next() {
    let mut world = world();
    let held = syn(0, A, API);
    world.drop(1, &held);
    world.drop(1_001, &held.clone().time_ns(nanoseconds(1_000)));
    world.take(1_002, &[repeat(&held, 4, 1_001)]);
    world.tick(3_000);
    assert_eq!(world.given(), ["0 ? → api"]);
    assert_eq!(world.moments.next_due(), Some(at(4_000)));
    world.tick(4_000);
    assert_eq!(world.given(), ["1000 ? → api", "+4 until 1001"]);
}

#[test]
fn more_than_can_be_held_are_given_at_once_behind_those_of_their_id() {
    let mut world = world_with(MomentsOptions { max_held: 2, ..MomentsOptions::default() });
    world.apply(-100, pod("web", None));
    let (a, b) = (syn(0, A, API), syn(1, B, API));
    world.take(2, &[Captured::Record(a.bytes()), Captured::Record(b.bytes()), repeat(&a, 2, 2)]);
    assert!(world.given().is_empty());
    world.take(10, &[Captured::Record(syn(5, "10.244.3.3", API).bytes()), Captured::Record(a.clone().time_ns(nanoseconds(6)).bytes())]);
    assert_eq!(world.given(), ["5 ? → api", "0 ? → api", "+2 until 2", "6 ? → api"]);
    assert_eq!(world.moments.status().not_held, 2);
    assert_eq!(world.moments.status().held, 1);
    // They are amended like those that have waited.
    world.apply(500, pod("web", Some(A)));
    assert_eq!(world.given(), ["0 ? → api is 0 web → api", "6 ? → api is 6 web → api"]);
}

#[test]
fn of_those_that_may_be_amended_the_oldest_are_let_go() {
    let mut world = world_with(MomentsOptions { max_held: 0, max_watched: 1, ..MomentsOptions::default() });
    world.apply(-100, pod("web", None));
    world.take(2, &[Captured::Record(syn(0, A, API).bytes()), Captured::Record(syn(1, A, API).with(|record| record.netns = 9).bytes())]);
    assert_eq!(world.given().len(), 2);
    assert_eq!((world.moments.status().not_watched, world.moments.status().watched), (1, 1));
    world.apply(500, pod("web", Some(A)));
    assert_eq!(world.given(), ["1 ? → api is 1 web → api"]);
}

#[test]
fn at_the_end_everything_is_given() {
    let mut world = world();
    let held = syn(0, A, API);
    world.take(1, &[Captured::Record(held.bytes()), repeat(&held, 7, 1)]);
    let steps: Vec<String> = world.moments.finish(at(2)).iter().map(told).collect();
    assert_eq!(steps, ["0 ? → api", "+7 until 1"]);
    assert_eq!((world.moments.status().held, world.moments.next_due()), (0, None));
}

fn stream(world: &mut World, stream: &mut Stream, now: i64) -> Vec<String> {
    let items = std::mem::take(&mut world.steps).into_iter().flat_map(|step| stream.step(Ok(step), at(now))).collect::<Vec<_>>();
    stream.ledger().balance().expect("balanced");
    items
        .iter()
        .map(|item| match item {
            Item::Denial { denial, .. } => told(&Step::Denial(denial.clone())),
            Item::Repeats(summary) => format!("+{} {}", summary.count, party(&summary.route.client)),
            Item::PolicyChange(effect) => effect.id.to_string(),
            Item::Amendment { amendment, is_first, .. } => {
                format!("{}{}", told(&Step::Amendment(amendment.clone())), if *is_first { " first" } else { "" })
            }
        })
        .collect()
}

#[test]
fn an_amended_drop_is_counted_once_and_its_repeats_have_its_new_name() {
    let mut world = world();
    let mut shown = Stream::new(StreamOptions::default());
    world.apply(-100, pod("web", None));
    let held = syn(0, A, API);
    world.take(1, &[Captured::Record(held.bytes()), repeat(&held, 1, 1)]);
    world.drop(1_000, &held.clone().time_ns(nanoseconds(900)));
    world.tick(5_000);
    assert_eq!(stream(&mut world, &mut shown, 5_000), ["0 ? → api"]);
    world.apply(6_000, pod("web", Some(A)));
    // Two of one id were given; the reader has seen one of them, and is told once.
    assert_eq!(world.steps.len(), 2);
    assert_eq!(stream(&mut world, &mut shown, 6_000), ["0 ? → api is 0 web → api"]);
    world.take(6_500, &[repeat(&held, 4, 6_400)]);
    assert_eq!(stream(&mut world, &mut shown, 6_500), [""; 0]);
    let summaries = shown.finish();
    assert!(
        matches!(&summaries[..], [Item::Repeats(summary)] if summary.count == 6 && party(&summary.route.client) == "web"),
        "{summaries:?}"
    );
    let ledger = *shown.ledger();
    ledger.balance_final().expect("balanced");
    assert_eq!((ledger.records, ledger.counted, ledger.shown, ledger.repeats), (2, 5, 1, 6));
}

#[test]
fn a_drop_that_a_filter_left_out_is_shown_when_it_turns_out_to_be_wanted() {
    let mut world = world();
    let mut filters = Filters::default();
    filters.wanted.push(Filter::Pod(Side::From, "shop/web".parse().expect("a pattern")));
    let mut shown = Stream::new(StreamOptions { filters, ..StreamOptions::default() });
    world.apply(-100, pod("web", None));
    let held = syn(0, A, API);
    world.take(1, &[Captured::Record(held.bytes()), repeat(&held, 2, 1)]);
    world.tick(3_000);
    assert_eq!(stream(&mut world, &mut shown, 3_000), [""; 0]);
    assert_eq!(shown.ledger().filtered_out, 3);
    world.apply(4_000, pod("web", Some(A)));
    assert_eq!(stream(&mut world, &mut shown, 4_000), ["0 ? → api is 0 web → api first"]);
    world.take(5_000, &[repeat(&held, 5, 4_900)]);
    stream(&mut world, &mut shown, 5_000);
    shown.finish();
    let ledger = *shown.ledger();
    ledger.balance_final().expect("balanced");
    // Its repeats are where it is.
    assert_eq!((ledger.filtered_out, ledger.shown, ledger.repeats), (0, 1, 7));
}

#[test]
fn who_began_to_look_later_is_told_nothing_of_what_is_amended() {
    let mut world = world();
    world.apply(-100, pod("web", None));
    world.drop(1, &syn(0, A, API));
    world.tick(3_000);
    world.steps.clear();
    let mut shown = Stream::new(StreamOptions::default());
    world.apply(4_000, pod("web", Some(A)));
    assert_eq!(world.steps.len(), 1);
    assert_eq!(stream(&mut world, &mut shown, 4_000), [""; 0]);
    shown.ledger().balance_final().expect("balanced");
}

#[test]
fn the_line_of_a_time_without_news_is_amended_however_late() {
    let mut world = world();
    let (mut shown, mut later) = (Stream::new(StreamOptions::default()), Stream::new(StreamOptions::default()));
    world.moments.set_unheard([(Kind::Pod, at(-10_000))].into(), at(-10_000));
    world.drop(1, &syn(0, A, API));
    world.tick(3_000);
    assert_eq!(stream(&mut world, &mut shown, 3_000), ["0 ? → api"]);
    // The line and its repeats are settled and forgotten.
    for time in (20_000..300_000).step_by(1_000) {
        assert!(shown.tick(at(time)).is_empty());
    }
    world.moments.timeline_mut().reset(at(300_000), &[Kind::Pod], [pod("web", Some(A)).into(), pod("api", Some(API)).into()]);
    world.moments.heard_again(Kind::Pod, at(-10_000), at(300_000));
    world.tick(300_000);
    let [Step::Amendment(amendment)] = world.steps.as_slice() else { panic!("{:?}", world.given()) };
    // Who began to look later is told nothing.
    assert!(later.amendment(amendment.clone(), at(300_000)).is_empty());
    assert_eq!(stream(&mut world, &mut shown, 300_000), ["0 ? → api is 0 web → api"]);
    shown.finish();
    shown.ledger().balance_final().expect("balanced");
}
