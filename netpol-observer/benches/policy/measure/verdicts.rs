//! Verdicts: of connections that were never asked about, and of one that was.

use std::hint::black_box;
use std::time::Instant;

use netpol_observer::policy::{Connection, Engine, Verdict};

use super::Bench;
use crate::cluster::Shape;
use crate::figures::{Figure, Unit, median};
use crate::flows::Flow;
use crate::scan::{Scan, Through};

/// Times that a rate is taken, besides the first that is not counted.
const REPETITIONS: usize = 5;
/// Connections of which the second and later verdicts are timed, and how many of those.
const REMEMBERED: usize = 64;
const AGAIN: u32 = 20_000;

/// Connections of one repetition.
fn chunk(shape: &Shape) -> usize {
    (shape.pods * 20).clamp(10_000, 100_000)
}

/// Connections that the measurement uses up.
pub(super) fn wanted(shape: &Shape) -> usize {
    chunk(shape) * (REPETITIONS + 1)
}

pub(super) fn measure(bench: &mut Bench<'_>, flows: &[Flow], calls: &[Flow]) {
    bench.progress("verdicts of new connections");
    let chunk = chunk(bench.shape).min(flows.len());
    let [scan_addresses, scan_prepared] = scan_rates(bench, &flows[flows.len() - chunk..]);
    let note = format!("{REPETITIONS} times {chunk}");

    let from_addresses = bench.engine();
    let rate = rate(bench, flows, chunk, &from_addresses, |flow, _| *flow, |flow, engine| flow.verdict(engine));
    bench.figures.push(rate_figure("new connections, from addresses", &rate, &note).aim(5e6).against(scan_addresses));

    let prepared = bench.engine();
    let verdict = |connection: &Connection, engine: &Engine| engine.verdict(connection);
    let rate = self::rate(bench, flows, chunk, &prepared, |flow, engine| flow.connection(engine.index()), verdict);
    bench.figures.push(rate_figure("new connections, parties known", &rate, &note).aim(5e6).against(scan_prepared));

    let engine = bench.engine();
    let of_calls = self::rate(bench, calls, calls.len() / (REPETITIONS + 1), &engine, |flow, _| *flow, |flow, engine| flow.verdict(engine));
    bench.figures.push(rate_figure("calls to Services, from addresses", &of_calls, "over their endpoints"));

    remembered(bench, &from_addresses, flows);
}

/// Verdicts per second of each repetition, the first of which is left out. All verdicts are held against the scan's.
fn rate<T>(
    bench: &Bench<'_>,
    flows: &[Flow],
    chunk: usize,
    engine: &Engine,
    prepare: impl Fn(&Flow, &Engine) -> T,
    verdict: impl Fn(&T, &Engine) -> Verdict,
) -> Vec<f64> {
    let mut rates = Vec::new();
    for flows in flows.chunks(chunk.max(1)) {
        let prepared: Vec<T> = flows.iter().map(|flow| prepare(flow, engine)).collect();
        let mut verdicts = Vec::with_capacity(flows.len());
        let begin = Instant::now();
        verdicts.extend(prepared.iter().map(|asked| verdict(black_box(asked), engine)));
        rates.push(flows.len() as f64 / begin.elapsed().as_secs_f64());
        bench.judge.all("new connection", &bench.index, flows, &verdicts);
    }
    if rates.len() > 1 {
        rates.remove(0);
    }
    rates.sort_by(f64::total_cmp);
    rates
}

fn rate_figure(name: &'static str, sorted: &[f64], note: &str) -> Figure {
    Figure { high: sorted.first().copied(), ..Figure::new(name, Unit::PerSecond, median(sorted), note) }
}

/// The scan's verdicts per second, from addresses and with the parties known, as far as the time goes; each is compared with the
/// engine's, since what is compared elsewhere are verdicts of the scan through one namespace.
fn scan_rates(bench: &Bench<'_>, flows: &[Flow]) -> [f64; 2] {
    let scan = Scan::new(&bench.index);
    let engine = bench.engine();
    let mut connections = Vec::new();
    let begin = Instant::now();
    for flow in flows {
        let connection = flow.connection(&bench.index);
        let verdict = scan.verdict(black_box(&connection), Through::All);
        connections.push((connection, verdict));
        if begin.elapsed() > bench.budget / 2 {
            break;
        }
    }
    let from_addresses = connections.len() as f64 / begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    for (connection, _) in &connections {
        black_box(scan.verdict(black_box(connection), Through::All));
    }
    let prepared = connections.len() as f64 / begin.elapsed().as_secs_f64();
    for (connection, expected) in &connections {
        bench.judge.compare("scan through all", connection, engine.verdict(connection), *expected);
    }
    [from_addresses, prepared]
}

/// The same connection again and again.
fn remembered(bench: &mut Bench<'_>, engine: &Engine, flows: &[Flow]) {
    bench.progress("one verdict again");
    let sample: Vec<&Flow> = flows.iter().step_by((flows.len() / REMEMBERED).max(1)).take(REMEMBERED).collect();
    let connections: Vec<Connection> = sample.iter().map(|flow| flow.connection(engine.index())).collect();
    // An engine that is slow at it must not hold up the run.
    let begin = Instant::now();
    connections.iter().for_each(|connection| {
        black_box(engine.verdict(connection));
    });
    let once = begin.elapsed().as_secs_f64() / connections.len().max(1) as f64;
    let again = ((bench.budget.as_secs_f64() / REMEMBERED as f64 / once.max(1e-9)) as u32).clamp(10, AGAIN);
    let time = |ask: &dyn Fn() -> Verdict| {
        black_box(ask());
        let begin = Instant::now();
        for _ in 0..again {
            black_box(ask());
        }
        begin.elapsed() / again
    };
    let known: Vec<_> = connections.iter().map(|connection| time(&|| engine.verdict(black_box(connection)))).collect();
    let addresses: Vec<_> = sample.iter().map(|flow| time(&|| black_box(*flow).verdict(engine))).collect();
    let note = format!("{} connections {again} times", sample.len());
    bench.figures.push(Figure::of_times("the same connection again, parties known", &known, note.clone()).aim(100e-9));
    bench.figures.push(Figure::of_times("the same connection again, from addresses", &addresses, note).aim(100e-9));
    let verdicts: Vec<Verdict> = sample.iter().map(|flow| flow.verdict(engine)).collect();
    let sample: Vec<Flow> = sample.into_iter().copied().collect();
    bench.judge.all("again", &bench.index, &sample, &verdicts);
}
