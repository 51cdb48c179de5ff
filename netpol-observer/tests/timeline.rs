//! What the past of a large cluster takes.

mod large;

use jiff::{SignedDuration, Timestamp};
use netpol_observer::cluster::Kind;
use netpol_observer::policy::Profile;
use netpol_observer::timeline::{Limits, Timeline};

use large::{in_use, pod, policy};

fn seconds(seconds: usize) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_800_000_000 + i64::try_from(seconds).expect("small"))
}

fn cluster(pods: usize, policies: usize) -> Timeline {
    let mut timeline = Timeline::new(Profile::default(), Limits::default(), seconds(0));
    let objects = (0..pods).map(|number| pod(number, 0)).chain((0..policies).map(|number| policy(number, 0)));
    timeline.reset(seconds(0), &[Kind::Pod, Kind::NetworkPolicy], objects);
    timeline
}

/// The limit in bytes would be none if the estimate were below what is taken. One test alone: whatever runs beside it would be counted.
#[test]
fn the_estimate_is_no_less_than_what_is_taken() {
    let mut timeline = cluster(500, 100);
    // What the engine and its caches take is the same before and after: the objects are as many, and of the same kinds.
    for version in 1..=2 {
        let before = in_use();
        let known = timeline.status().bytes;
        (0..500).for_each(|number| assert!(timeline.apply(seconds(version), pod(number, version))));
        let pods = (in_use() - before, timeline.status().bytes - known);
        let (before, known) = (in_use(), timeline.status().bytes);
        (0..100).for_each(|number| assert!(timeline.apply(seconds(version), policy(number, version))));
        let policies = (in_use() - before, timeline.status().bytes - known);
        for (what, (taken, estimated), count) in [("pod", pods, 500), ("policy", policies, 100)] {
            println!("a changed {what}: {} bytes taken, {} estimated", taken / count, estimated / count);
            // The first time the objects of the list, which share their texts, are followed by some that do not.
            if version > 1 {
                assert!(estimated >= taken && estimated < 3 * taken, "{what}: {taken} bytes taken, {estimated} estimated");
            }
        }
    }
}
