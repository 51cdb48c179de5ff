use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const BOUND: Duration = Duration::from_secs(1);

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_000_000_000_000 + milliseconds).unwrap()
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// All that is due, as payload and how it stands.
fn due(merge: &mut Merge<&'static str>, now: u64) -> Vec<(&'static str, Turn)> {
    std::iter::from_fn(|| merge.next(ms(now))).map(|given| (given.payload, given.turn)).collect()
}

fn of(sources: u32) -> Merge<&'static str> {
    let mut merge = Merge::new(BOUND);
    (0..sources).for_each(|source| merge.join(source));
    merge
}

#[test]
fn a_frame_is_given_when_everybody_has_passed_it() {
    let mut merge = of(2);
    merge.push(0, at(20), "b", ms(0));
    merge.watermark(0, at(30));
    assert_eq!(due(&mut merge, 0), []);
    merge.push(1, at(10), "a", ms(5));
    merge.watermark(1, at(19));
    assert_eq!(due(&mut merge, 5), [("a", Turn::InOrder)]);
    merge.watermark(1, at(20));
    assert_eq!(due(&mut merge, 5), [("b", Turn::InOrder)]);
    assert!(merge.is_empty());
    assert_eq!(merge.counts(), Counts { in_order: 2, late: 0, ahead: 0 });
}

#[test]
fn no_frame_waits_longer_than_the_bound_and_what_comes_late_is_given_at_once() {
    let mut merge = of(2);
    merge.push(0, at(20), "b", ms(100));
    merge.push(0, at(40), "d", ms(600));
    assert_eq!(merge.next_due(), Some(ms(1100)));
    assert_eq!(due(&mut merge, 1099), []);
    assert_eq!(due(&mut merge, 1100), [("b", Turn::InOrder)]);
    merge.push(1, at(10), "a", ms(1200));
    merge.push(1, at(30), "c", ms(1200));
    assert_eq!(due(&mut merge, 1200), [("a", Turn::Late)]);
    assert_eq!(due(&mut merge, 1600), [("c", Turn::InOrder), ("d", Turn::InOrder)]);
    assert_eq!(merge.counts(), Counts { in_order: 3, late: 1, ahead: 0 });
}

#[test]
fn frames_of_one_time_keep_the_order_they_came_in_and_are_not_late() {
    let mut merge = of(1);
    merge.push(0, at(10), "a", ms(0));
    merge.push(0, at(10), "b", ms(0));
    merge.watermark(0, at(10));
    assert_eq!(due(&mut merge, 0), [("a", Turn::InOrder), ("b", Turn::InOrder)]);
    merge.push(0, at(10), "c", ms(0));
    assert_eq!(due(&mut merge, 0), [("c", Turn::InOrder)]);
}

#[test]
fn who_leaves_or_stalls_is_not_waited_for() {
    let mut merge = of(3);
    merge.push(0, at(10), "a", ms(0));
    merge.watermark(0, at(100));
    merge.leave(1);
    assert_eq!(due(&mut merge, 0), []);
    merge.stall(2);
    assert_eq!(due(&mut merge, 0), [("a", Turn::InOrder)]);
    merge.push(0, at(90), "c", ms(1));
    merge.push(2, at(80), "b", ms(1));
    assert_eq!(due(&mut merge, 1), [], "who speaks again is waited for again");
    merge.watermark(2, at(95));
    assert_eq!(due(&mut merge, 1), [("b", Turn::InOrder), ("c", Turn::InOrder)]);
}

#[test]
fn frames_of_one_that_is_held_back_go_out_as_far_as_the_others_allow() {
    let mut merge = of(2);
    merge.push(0, at(10), "a", ms(0));
    merge.push(0, at(20), "b", ms(0));
    merge.watermark(1, at(15));
    assert_eq!(due(&mut merge, 0), []);
    merge.hold_back(0);
    assert_eq!(due(&mut merge, 0), [("a", Turn::InOrder)]);
    merge.push(0, at(12), "c", ms(0));
    assert_eq!(due(&mut merge, 0), [], "it sends again, and its watermark counts");
}

#[test]
fn a_clock_far_in_front_spoils_the_order_of_its_own_frames_only() {
    let mut merge = of(3);
    merge.push(0, at(3_600_000), "future", ms(0));
    merge.watermark(0, at(3_600_000));
    merge.watermark(1, at(50));
    merge.watermark(2, at(50));
    merge.push(1, at(60), "b", ms(900));
    assert_eq!(due(&mut merge, 1000), [("future", Turn::Ahead)], "b has its time still");
    merge.push(2, at(55), "a", ms(1000));
    merge.watermark(1, at(70));
    merge.watermark(2, at(70));
    assert_eq!(due(&mut merge, 1000), [("a", Turn::InOrder), ("b", Turn::InOrder)]);
    assert_eq!(merge.counts(), Counts { in_order: 2, late: 0, ahead: 1 });
}

#[test]
fn a_source_that_hangs_does_not_make_the_others_look_ahead() {
    let mut merge = of(2);
    merge.watermark(1, at(0));
    merge.push(0, at(2000), "a", ms(0));
    assert_eq!(due(&mut merge, 1000), [("a", Turn::InOrder)]);
}

#[test]
fn at_the_end_everything_is_given() {
    let mut merge = of(2);
    merge.push(0, at(20), "b", ms(0));
    merge.push(1, at(10), "a", ms(0));
    let end: Vec<_> = merge.finish().into_iter().map(|given| given.payload).collect();
    assert_eq!(end, ["a", "b"]);
}

#[derive(Clone, Debug)]
enum Step {
    /// A source sends a frame so far behind its watermark.
    Frame(u32, i64),
    /// A source's watermark moves on.
    Watermark(u32, i64),
    Join(u32),
    Leave(u32),
    Stall(u32),
    HoldBack(u32),
    /// Time passes, and what is due is taken.
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let source = 0..4u32;
    let step = prop_oneof![
        6 => (source.clone(), 0..2000i64).prop_map(|(source, after)| Step::Frame(source, after)),
        4 => (source.clone(), 0..500i64).prop_map(|(source, by)| Step::Watermark(source, by)),
        1 => source.clone().prop_map(Step::Join),
        1 => source.clone().prop_map(Step::Leave),
        1 => source.clone().prop_map(Step::Stall),
        1 => source.prop_map(Step::HoldBack),
        4 => (0..700u64).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever sources do: what is given in order is sorted, every frame is given once, none waits beyond the bound, and the counts are
    /// right. Sources that keep to their watermarks, are not left out and answer in time make no frame late.
    #[test]
    fn sorted_but_for_what_is_counted(steps in steps()) {
        let mut merge = Merge::new(BOUND);
        let mut watermarks = BTreeMap::new();
        let mut now = Duration::ZERO;
        let (mut sent, mut given) = (Vec::new(), Vec::new());
        let mut arrived = Vec::new();
        let mut exempt = false;
        for step in &steps {
            match step {
                Step::Frame(source, after) => {
                    let order = at(watermarks.get(source).copied().unwrap_or(0) + after);
                    // A source that never joined, or was not waited for, makes no promise.
                    exempt |= !watermarks.contains_key(source);
                    merge.push(*source, order, sent.len(), now);
                    sent.push(order);
                    arrived.push(now);
                }
                Step::Watermark(source, by) => {
                    if let Some(watermark) = watermarks.get_mut(source) {
                        *watermark += by;
                        merge.watermark(*source, at(*watermark));
                    }
                }
                Step::Join(source) => {
                    watermarks.insert(*source, 0);
                    merge.join(*source);
                    // It may speak of a time that the others have left behind.
                    exempt |= !sent.is_empty();
                }
                Step::Leave(source) => {
                    watermarks.remove(source);
                    merge.leave(*source);
                }
                Step::Stall(source) => {
                    merge.stall(*source);
                    exempt = true;
                }
                Step::HoldBack(source) => {
                    merge.hold_back(*source);
                    exempt = true;
                }
                Step::Pass(by) => {
                    now += ms(*by);
                    exempt |= merge.next_due().is_some_and(|due| due <= now);
                    while let Some(next) = merge.next(now) {
                        given.push(next);
                    }
                    prop_assert!(merge.next_due().is_none_or(|due| due > now));
                    for (number, arrived) in arrived.iter().enumerate() {
                        let waits = !given.iter().any(|given| given.payload == number);
                        prop_assert!(!waits || *arrived + BOUND > now, "{number} waits too long");
                    }
                }
            }
        }
        given.extend(merge.finish());
        prop_assert!(merge.is_empty());
        let mut numbers: Vec<_> = given.iter().map(|given| given.payload).collect();
        numbers.sort_unstable();
        prop_assert_eq!(numbers, (0..sent.len()).collect::<Vec<_>>(), "nothing lost, nothing doubled");
        prop_assert!(given.iter().all(|given| given.order == sent[given.payload]));
        let in_order: Vec<_> = given.iter().filter(|given| given.turn == Turn::InOrder).map(|given| given.order).collect();
        prop_assert!(in_order.is_sorted());
        let count = |turn| u64::try_from(given.iter().filter(|given| given.turn == turn).count()).unwrap();
        prop_assert_eq!(merge.counts(), Counts { in_order: count(Turn::InOrder), late: count(Turn::Late), ahead: count(Turn::Ahead) });
        if !exempt {
            prop_assert_eq!(merge.counts().late + merge.counts().ahead, 0, "nobody broke a promise");
        }
    }
}
