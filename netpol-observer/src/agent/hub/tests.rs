use proptest::prelude::*;

use super::*;
use crate::agent::testing::{denial, ids, notice, repeat};
use crate::serve::testing::at;
use netpol_observer_common::Counters;

fn hub(options: HubOptions) -> Arc<Hub> {
    let hub = Hub::new(options);
    hub.start(at(0));
    hub
}

fn small(retain: usize) -> Arc<Hub> {
    hub(HubOptions { retain, ..HubOptions::default() })
}

fn give(hub: &Hub, observations: Vec<Observation>, seconds: i64) {
    hub.give(observations, at(seconds), at(seconds));
}

#[test]
fn from_recent_to_live_without_gap_or_double() {
    let hub = small(100);
    give(&hub, vec![denial(1, 1), denial(2, 1)], 1);
    let mut from_oldest = hub.reader(true).unwrap();
    let mut live = hub.reader(false).unwrap();
    give(&hub, vec![denial(3, 2), repeat(1, 5, 2)], 2);
    // What came after the reader is no history.
    assert_eq!(ids(&from_oldest.take_history(1).unwrap().observations), [1]);
    assert_eq!(ids(&from_oldest.take_history(10).unwrap().observations), [2]);
    assert!(from_oldest.take_history(10).is_none());
    let taken = from_oldest.take(10);
    assert_eq!(ids(&taken.observations), [3, 1]);
    assert_eq!(taken.caught_up.unwrap().watermark, Some(at(2)));
    assert!(live.take_history(10).is_none());
    assert_eq!(ids(&live.take(1).observations), [3]);
    assert!(live.take(0).caught_up.is_none(), "there is one left");
    assert_eq!(ids(&live.take(10).observations), [1]);
    assert!(live.take(10).observations.is_empty());
}

#[test]
fn what_falls_out_is_counted_in_drops() {
    let hub = small(2);
    let mut reader = hub.reader(false).unwrap();
    give(&hub, vec![denial(1, 1)], 1);
    assert_eq!(ids(&reader.take(10).observations), [1]);
    give(&hub, vec![denial(2, 2), repeat(2, 7, 2), notice("n", 2), denial(3, 3), repeat(3, 10, 3)], 3);
    let taken = reader.take(10);
    assert_eq!(taken.lost.map(|lost| lost.count), Some(8), "one denial and seven repeats");
    assert_eq!(ids(&taken.observations), [3, 3]);
    assert_eq!(reader.take(10).lost, None, "told once");
    assert_eq!(hub.status().lost, 8);
    // A notice that is lost is no drop.
    give(&hub, vec![notice("n", 4), denial(4, 4), denial(5, 4)], 4);
    assert_eq!(reader.take(10).lost, None);
}

#[test]
fn bounds_by_number_age_and_bytes() {
    let by_age = hub(HubOptions { retain_for: SignedDuration::from_secs(10), ..HubOptions::default() });
    give(&by_age, vec![denial(1, 1)], 1);
    give(&by_age, vec![denial(2, 8)], 8);
    give(&by_age, vec![], 11);
    assert_eq!(by_age.status().retained, 2);
    assert_eq!(by_age.status().retained_since, Some(at(0)));
    // Also when nothing comes.
    give(&by_age, vec![], 12);
    assert_eq!(by_age.status().retained, 1);
    assert_eq!(by_age.status().retained_since, Some(at(1)));

    let by_bytes = hub(HubOptions { retain_bytes: 50_000, ..HubOptions::default() });
    for id in 0..1000 {
        give(&by_bytes, vec![denial(id, id as i64)], id as i64);
        assert!(by_bytes.status().retained_bytes <= 50_000);
    }
    let status = by_bytes.status();
    assert!((2..50).contains(&status.retained), "{status:?}");
    assert_eq!(by_bytes.status().retained_since, Some(at(999 - status.retained as i64)));
    // One that is larger than everything is lost, and nothing breaks.
    let mut huge = crate::serve::testing::example();
    huge.explanation.notes.push("x".repeat(100_000));
    let mut reader = by_bytes.reader(false).unwrap();
    give(&by_bytes, vec![Observation::Denial(Arc::new(huge)), denial(7, 1000)], 1000);
    let taken = reader.take(10);
    assert_eq!((taken.lost.map(|lost| lost.count), ids(&taken.observations)), (Some(1), vec![7]));
}

#[test]
fn readers_are_bounded_and_make_room() {
    let hub = hub(HubOptions { readers: 2, ..HubOptions::default() });
    let first = hub.reader(false).unwrap();
    let _second = hub.reader(true).unwrap();
    let error = hub.reader(false).err().unwrap();
    assert!(error.to_string().contains("2 readers"), "{error}");
    assert_eq!((hub.readers(), hub.status().refused), (2, 1));
    drop(first);
    assert!(hub.reader(false).is_ok());
}

#[test]
fn the_end_and_the_last_counters_are_known_to_those_who_have_everything() {
    let hub = small(10);
    let mut reader = hub.reader(false).unwrap();
    let counters = |seen| {
        Observation::Ledger(crate::capture::KernelLedger { counters: Counters { seen, ..Counters::default() }, ..Default::default() })
    };
    give(&hub, vec![counters(1), denial(1, 1), counters(2)], 1);
    hub.close("shutting down");
    let taken = reader.take(0);
    assert!(taken.caught_up.is_none());
    assert_eq!(taken.closed.as_deref(), Some("shutting down"));
    let mut hasty = hub.reader(true).unwrap();
    assert_eq!((hasty.skip().count, hasty.skip().count), (1, 0), "what is given up is counted once");
    assert!(hasty.take(10).caught_up.is_some());
    let taken = reader.take(10);
    assert!(taken.caught_up.is_some());
    assert_eq!(taken.kernel.unwrap().counters.seen, 2);
    assert_eq!(hub.status().retained, 1, "counters take no room");
}

#[tokio::test]
async fn a_reader_is_woken_by_what_comes() {
    let hub = small(10);
    let mut reader = hub.reader(false).unwrap();
    give(&hub, vec![denial(1, 1)], 1);
    reader.changed().await;
    reader.take(10);
    // Nothing new: whoever waited for it would wait for ever.
    let waited = tokio::time::timeout(std::time::Duration::from_millis(20), reader.changed()).await;
    assert!(waited.is_err());
    // A watermark alone is no news.
    give(&hub, vec![], 2);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(20), reader.changed()).await.is_err());
    let other = Arc::clone(&hub);
    let giver = tokio::spawn(async move { give(&other, vec![denial(2, 2)], 2) });
    reader.changed().await;
    giver.await.unwrap();
    assert_eq!(ids(&reader.take(10).observations), [2]);
}

proptest! {
    /// Whatever is given in whatever batches, and however slow readers are: what a reader got and what it was told it lost is everything.
    #[test]
    fn nothing_is_lost_uncounted(
        steps in prop::collection::vec((prop::collection::vec((0u64..5, 0u64..9), 0..6), prop::collection::vec(0usize..4, 3)), 1..60),
        retain in 1usize..8,
    ) {
        let hub = small(retain);
        let mut readers: Vec<Reader> = (0..3).map(|_| hub.reader(true).unwrap()).collect();
        let mut got = [0u64; 3];
        let mut given = 0u64;
        let mut seconds = 0;
        let take = |reader: &mut Reader, got: &mut u64, limit| {
            let taken = reader.take(limit);
            *got += taken.lost.map_or(0, |lost| lost.count);
            *got += taken.observations.iter().map(|(_, observation)| observation.drops()).sum::<u64>();
            taken.caught_up.is_some()
        };
        for (batch, limits) in steps {
            seconds += 1;
            let batch: Vec<Observation> = batch
                .into_iter()
                .map(|(id, count)| if count == 0 { denial(id, seconds) } else { repeat(id, count, seconds) })
                .collect();
            given += batch.iter().map(Observation::drops).sum::<u64>();
            give(&hub, batch, seconds);
            prop_assert!(hub.status().retained <= retain);
            for ((reader, got), limit) in readers.iter_mut().zip(&mut got).zip(limits) {
                take(reader, got, limit);
            }
        }
        for (reader, got) in readers.iter_mut().zip(&mut got) {
            while !take(reader, got, 3) {}
            prop_assert_eq!(*got, given);
        }
        let ledger = hub.ledger();
        prop_assert_eq!(ledger.records + ledger.counted, given);
        ledger.balance().unwrap();
    }
}
