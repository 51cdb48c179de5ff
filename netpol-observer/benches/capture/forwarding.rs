//! What traffic that is forwarded, or partly dropped, gets through with the observer and without, in turn.

mod streams;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use xtask::tail::Tail;

use crate::report::{Cell, Part};
use crate::scene::Scene;
use crate::statistics::{Random, median, ratio};
use crate::{Effort, progress};
use streams::{Stream, datagrams};

/// What is sent.
#[derive(Clone, Copy)]
enum Traffic {
    /// One TCP stream.
    Stream,
    /// Small datagrams, of which so many in a hundred are dropped.
    Datagrams { dropped: u64 },
}

pub(crate) fn measure(scene: &Scene, observer: &Path, effort: Effort) -> Result<Part> {
    let mut part = Part::new(
        "forwarding",
        "what gets through a node with the observer as against without, in turn (95 % confidence interval)",
        &["rounds", "without", "with", "with/without", "from", "to"],
    );
    scene.rules("")?;
    let stream = Stream::new(scene)?;
    for (name, traffic) in [
        ("one TCP stream", Traffic::Stream),
        ("small UDP packets, none dropped", Traffic::Datagrams { dropped: 0 }),
        ("small UDP packets, 10 % dropped", Traffic::Datagrams { dropped: 10 }),
        ("small UDP packets, 50 % dropped", Traffic::Datagrams { dropped: 50 }),
        ("small UDP packets, all dropped", Traffic::Datagrams { dropped: 100 }),
    ] {
        progress(&format!("forwarding: {name}"));
        let clean = !matches!(traffic, Traffic::Datagrams { dropped: 1.. });
        let rounds = if clean { effort.pick(24, 5) } else { effort.pick(12, 4) };
        let pairs =
            rounds_of(scene, &stream, observer, traffic, rounds, effort.pick(Duration::from_millis(700), Duration::from_millis(300)))?;
        let cell = |value: f64| match traffic {
            Traffic::Stream => Cell::BitsPerSecond(value * 8.0),
            Traffic::Datagrams { .. } => Cell::PerSecond(value),
        };
        let (with, without): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        let ratio = ratio(&pairs);
        let cells = vec![
            Cell::Count(pairs.len() as u64),
            cell(median(&without)),
            cell(median(&with)),
            Cell::Times(ratio.mean),
            Cell::Times(ratio.low),
            Cell::Times(ratio.high),
        ];
        if clean {
            part.row_with_aim(name, cells, "no measurable cost: 1 inside the interval, or above", ratio.high >= 1.0);
        } else {
            part.row(name, cells);
        }
    }
    part.note("one pair is one measurement with and one without, right after one another, in an order drawn by lot; the interval is by bootstrap over the pairs");
    part.note("dropped packets are counted as sent; their cost is that of *program*, and of reading and explaining them where the CPUs are shared");
    Ok(part)
}

/// Pairs of bytes or packets per second: with the observer, and without.
fn rounds_of(scene: &Scene, stream: &Stream, observer: &Path, traffic: Traffic, rounds: usize, time: Duration) -> Result<Vec<(f64, f64)>> {
    let without = || match traffic {
        Traffic::Stream => stream.rate(time),
        Traffic::Datagrams { dropped } => datagrams(scene, dropped, time),
    };
    let with = || -> Result<f64> {
        let arguments = ["-o".into(), "json".into(), "--manifests".into(), scene.manifests().to_owned()];
        let tail = Tail::start::<PathBuf>(observer, arguments, Stdio::null())?;
        let rate = without()?;
        tail.stop()?;
        Ok(rate)
    };
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let mut pairs = Vec::new();
    // The first pair warms up.
    for round in 0..=rounds {
        let pair = if random.below(2) == 0 {
            let without = without()?;
            (with()?, without)
        } else {
            (with()?, without()?)
        };
        if round > 0 {
            pairs.push(pair);
        }
    }
    Ok(pairs)
}
