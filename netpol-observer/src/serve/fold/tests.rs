use proptest::prelude::*;

use super::*;
use crate::serve::testing::{at, example_at, key};

fn fold(capacity: usize) -> Fold {
    Fold::new(FoldOptions { capacity, ..FoldOptions::default() })
}

fn record(fold: &mut Fold, id: u64, seconds: i64) -> Seen {
    fold.record(key(id), Fate::Shown, &example_at(id, seconds), at(seconds))
}

fn repeat(fold: &mut Fold, id: u64, count: u64, seconds: i64) -> Seen {
    fold.repeat(FoldId(id), count, at(seconds), at(seconds), None)
}

fn counts(summaries: &[Summary]) -> Vec<(u64, u64)> {
    summaries.iter().map(|summary| (summary.key.id.0, summary.count)).collect()
}

#[test]
fn the_first_is_shown_and_repeats_wait_for_the_interval() {
    let mut fold = fold(10);
    assert!(record(&mut fold, 1, 0).first);
    assert!(!record(&mut fold, 1, 1).first);
    assert!(!repeat(&mut fold, 1, 4, 3).first);
    assert_eq!(fold.next_due(), Some(at(5)));
    assert!(fold.due(at(4)).is_empty());
    let due = fold.due(at(5));
    assert_eq!(counts(&due), [(1, 5)]);
    assert_eq!((due[0].since, due[0].last, due[0].total), (at(0), at(3), 6));
    assert!(fold.due(at(100)).is_empty());
    repeat(&mut fold, 1, 1, 6);
    assert!(fold.due(at(9)).is_empty(), "two summaries are an interval apart");
    let due = fold.due(at(10));
    assert_eq!((due[0].since, due[0].last, due[0].count, due[0].total), (at(3), at(6), 1, 7));
}

#[test]
fn a_late_count_of_the_kernel_finds_its_key() {
    let mut fold = fold(10);
    record(&mut fold, 1, 0);
    let seen = repeat(&mut fold, 1, 2, 600);
    assert_eq!(seen.fate, Some(Fate::Shown));
    let due = fold.due(at(600));
    assert_eq!((due[0].count, due[0].since), (2, at(0)));
}

#[test]
fn a_key_silent_for_long_is_a_new_drop() {
    let mut fold = fold(10);
    record(&mut fold, 1, 0);
    record(&mut fold, 1, 60);
    let seen = record(&mut fold, 1, 121);
    assert!(seen.first);
    assert_eq!(seen.flushed.map(|summary| summary.count), Some(1), "what was pending is not lost");
    assert!(fold.flush().is_empty());
}

#[test]
fn the_least_recently_seen_key_gives_its_count_away() {
    let mut fold = fold(2);
    record(&mut fold, 1, 0);
    record(&mut fold, 2, 1);
    repeat(&mut fold, 1, 3, 2);
    repeat(&mut fold, 2, 1, 3);
    repeat(&mut fold, 1, 1, 4);
    let seen = record(&mut fold, 3, 4);
    assert_eq!(seen.flushed.map(|summary| (summary.key.id.0, summary.count)), Some((2, 1)));
    assert_eq!(fold.len(), 2);
    assert_eq!(repeat(&mut fold, 2, 1, 4).fate, None, "a forgotten key is unknown");
    assert_eq!(counts(&fold.flush()), [(1, 4)]);
}

#[test]
fn repeats_go_to_the_last_of_several_keys_with_one_kernel_id() {
    let mut fold = fold(10);
    let other = Key { same: 7, ..key(1) };
    record(&mut fold, 1, 0);
    fold.record(other, Fate::Noise, &example_at(1, 1), at(1));
    assert_eq!(repeat(&mut fold, 1, 5, 2).fate, Some(Fate::Noise));
    assert!(fold.flush().is_empty());
    record(&mut fold, 1, 3);
    assert_eq!(repeat(&mut fold, 1, 5, 4).fate, Some(Fate::Shown));
    assert_eq!(counts(&fold.flush()), [(1, 6)]);
}

#[test]
fn an_earlier_drop_that_goes_on_is_shown() {
    let mut fold = fold(10);
    fold.record(key(1), Fate::Earlier, &example_at(1, 0), at(0));
    let since = Some(at(10));
    assert!(fold.repeat(FoldId(1), 2, at(5), at(5), since).revived.is_none());
    let seen = fold.repeat(FoldId(1), 3, at(12), at(12), since);
    assert!(seen.revived.is_some());
    assert_eq!(seen.fate, Some(Fate::Shown));
    assert!(fold.repeat(FoldId(1), 1, at(13), at(13), since).revived.is_none());
    assert_eq!(counts(&fold.flush()), [(1, 4)]);
}

#[test]
fn an_earlier_drop_is_shown_in_full_by_a_record_after_since() {
    let mut fold = fold(10);
    fold.record(key(1), Fate::Earlier, &example_at(1, 0), at(0));
    assert!(record(&mut fold, 1, 12).first);
    assert!(!record(&mut fold, 1, 13).first);
}

#[derive(Clone, Debug)]
enum Act {
    Record(u64, i64),
    Repeat(u64, u64, i64),
    Tick(i64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0..8u64, 0..90i64).prop_map(|(id, pause)| Act::Record(id, pause)),
        (0..8u64, 0..5u64, 0..90i64).prop_map(|(id, count, pause)| Act::Repeat(id, count, pause)),
        (0..9i64).prop_map(Act::Tick),
    ]
}

proptest! {
    #[test]
    fn every_drop_is_shown_summarised_or_unknown(acts in prop::collection::vec(act(), 0..200), capacity in 1..6usize) {
        let mut fold = fold(capacity);
        let (mut now, mut drops, mut accounted) = (0, 0, 0);
        for act in acts {
            match act {
                Act::Record(id, pause) => {
                    now += pause;
                    drops += 1;
                    let seen = record(&mut fold, id, now);
                    accounted += u64::from(seen.first) + seen.flushed.map_or(0, |summary| summary.count);
                }
                Act::Repeat(id, count, pause) => {
                    now += pause;
                    drops += count;
                    if repeat(&mut fold, id, count, now).fate.is_none() {
                        accounted += count;
                    }
                }
                Act::Tick(pause) => {
                    now += pause;
                    accounted += fold.due(at(now)).iter().map(|summary| summary.count).sum::<u64>();
                }
            }
            prop_assert!(fold.len() <= capacity);
            prop_assert_eq!(fold.by_recency.len(), fold.len());
            prop_assert!(fold.latest.len() <= fold.len());
            let pending = fold.entries.values().filter(|entry| entry.pending > 0).count();
            prop_assert_eq!(fold.due.len(), pending, "whatever waits is due some time");
        }
        accounted += fold.flush().iter().map(|summary| summary.count).sum::<u64>();
        prop_assert_eq!(accounted, drops);
    }
}
