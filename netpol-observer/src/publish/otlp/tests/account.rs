//! Whatever comes, every drop and every record is accounted for.

use proptest::prelude::*;

use super::*;

/// A sink whose queue nobody reads.
fn unread(queue: usize) -> (Otlp, mpsc::Receiver<LogRecord>) {
    let (sender, receiver) = mpsc::channel(queue);
    let (newest, _) = watch::channel(None);
    let (end, _) = watch::channel(None);
    let sink = Otlp {
        interval: Duration::from_secs(30),
        due: None,
        repeats: Repeats::new(3),
        sums: Sums::new(at(0), 2),
        counters: Arc::default(),
        queue: Some(sender),
        newest: Some(newest),
        end,
        tasks: Vec::new(),
    };
    (sink, receiver)
}

fn check(counters: &Counters, given: u64) {
    assert_eq!(counters.taken() + counters.left_out(), given);
    assert_eq!(counters.taken(), counters.reported() + counters.gathered() + counters.overflowed());
    assert_eq!(counters.records(), counters.sent() + counters.waiting() + counters.lost());
}

proptest! {
    #[test]
    fn taken_is_sent_waiting_and_lost(
        steps in prop::collection::vec((0..6_u8, 0..6_u64, 1..50_u64), 0..200),
        queue in 1..20_usize,
    ) {
        let (mut sink, mut receiver) = unread(queue);
        let counters = sink.counters();
        let (mut given, mut clock, mut in_records) = (0, 0, 0);
        let count = |record: &LogRecord| {
            let of = record.attributes.iter().find(|of| of.key == attribute::log::COUNT).unwrap();
            match of.value.as_ref().unwrap().value.as_ref().unwrap() { Value::IntValue(count) => u64::try_from(*count).unwrap(), _ => unreachable!() }
        };
        for (kind, id, number) in steps {
            let drops = match kind {
                0 => Some(full(id, number)),
                1 | 2 => Some(repeats(id, number)),
                3 => Some(settled(innocent(Class::Noise, Agreement::NotEnforcement, ""), number, true)),
                _ => None,
            };
            match drops {
                Some(drops) => {
                    given += number;
                    sink.take(&drops, at(clock));
                }
                None if kind == 4 => {
                    clock += i64::try_from(number).unwrap();
                    sink.tick(at(clock));
                }
                None => {
                    let mut taken = 0;
                    while let Ok(record) = receiver.try_recv() {
                        in_records += count(&record);
                        taken += 1;
                    }
                    let fate = match id {
                        0 => Fate::Refused,
                        1 => Fate::Abandoned,
                        rejected => Fate::Sent { rejected },
                    };
                    counters.settle(taken, fate);
                }
            }
            check(&counters, given);
        }
        sink.finish(at(clock));
        assert_eq!(counters.gathered(), 0);
        while let Ok(record) = receiver.try_recv() {
            in_records += count(&record);
        }
        assert!(in_records <= counters.reported() && (counters.queue_full() > 0 || in_records == counters.reported()));
        counters.abandon_the_rest();
        check(&counters, given);
        assert_eq!(counters.waiting(), 0);
    }
}

#[test]
fn what_does_not_fit_is_counted() {
    let (mut sink, _receiver) = unread(2);
    let counters = sink.counters();
    (0..5).for_each(|id| sink.take(&full(id, 2), at(0)));
    assert_eq!((counters.taken(), counters.records(), counters.waiting(), counters.queue_full()), (10, 5, 2, 3));
    (0..5).for_each(|id| sink.take(&repeats(id, 2), at(0)));
    assert_eq!((counters.gathered(), counters.overflowed()), (6, 4));
    assert_eq!(counters.points_overflowed(), 0);
}

#[test]
fn repeats_go_on_when_the_interval_is_over_or_they_become_others() {
    let (mut sink, mut receiver) = unread(20);
    let mut next = || receiver.try_recv().ok().map(|record| (record.event_name.clone(), attributes(&record.attributes)));
    sink.tick(at(0));
    sink.take(&repeats(1, 2), at(1));
    sink.take(&repeats(1, 3), at(2));
    assert!(next().is_none());
    let mut other = innocent(Class::HostFirewall, Agreement::PoliciesAllow, "");
    other.event.id = FoldId(1);
    sink.take(&settled(other, 7, false), at(3));
    let (name, of) = next().unwrap();
    assert!(name == REPEATS && of.contains("netpol_observer.count = 5") && of.contains("= policyDenied"), "{of}");
    sink.tick(at(29));
    assert!(next().is_none());
    sink.tick(at(30));
    let (_, of) = next().unwrap();
    assert!(of.contains("netpol_observer.count = 7") && of.contains("= hostFirewall"), "{of}");
    // A clock that is set back far does not stop it.
    sink.take(&repeats(1, 1), at(31));
    sink.tick(at(-1000));
    assert!(next().is_some());
}
