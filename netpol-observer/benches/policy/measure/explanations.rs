//! Explanations of connections that nobody asked about before.

use std::hint::black_box;
use std::time::{Duration, Instant};

use netpol_observer::policy::{Connection, Engine, Verdict};

use super::Bench;
use crate::figures::Figure;
use crate::flows::Flow;
use crate::scan::{Scan, Through};

/// The most that are explained, and how many before time is looked at.
const MOST: usize = 5_000;
const LEAST: usize = 20;
/// What the first ones cost is not counted: code and tables come into the caches.
const WARM_UP: usize = 10;

pub(super) fn measure(bench: &mut Bench<'_>, flows: &[Flow]) {
    bench.progress("explanations");
    let scan = Scan::new(&bench.index);
    let judged: Vec<(Connection, Verdict)> = flows
        .iter()
        .map(|flow| flow.connection(&bench.index))
        .map(|connection| {
            let verdict = scan.verdict(&connection, Through::Namespace);
            (connection, verdict)
        })
        .collect();
    let engine = bench.engine();
    for (name, wanted) in [("explanation of a denial, with its fix", Verdict::Deny), ("explanation of an admission", Verdict::Allow)] {
        let asked: Vec<&Connection> = judged.iter().filter(|(_, verdict)| *verdict == wanted).map(|(connection, _)| connection).collect();
        let (times, fixed) = explain(bench, &engine, &asked, wanted);
        let note = match wanted {
            Verdict::Deny => format!("{} connections, {fixed} with a fix", times.len()),
            _ => format!("{} connections", times.len()),
        };
        bench.figures.push(Figure::of_times(name, &times, note).aim(20e-6));
    }
}

/// The time of each, and how many have a fix.
fn explain(bench: &Bench<'_>, engine: &Engine, asked: &[&Connection], expected: Verdict) -> (Vec<Duration>, usize) {
    let (mut times, mut fixed) = (Vec::new(), 0);
    let start = Instant::now();
    for (n, connection) in asked.iter().take(MOST + WARM_UP).enumerate() {
        if n >= LEAST + WARM_UP && start.elapsed() > bench.budget {
            break;
        }
        let begin = Instant::now();
        let explanation = black_box(engine.explain(black_box(connection)));
        let time = begin.elapsed();
        bench.judge.compare("explanation", connection, explanation.verdict, expected);
        if n >= WARM_UP {
            times.push(time);
            fixed += usize::from(!explanation.fixes.is_empty());
        }
    }
    (times, fixed)
}
