//! `cargo xtask bench client`: what it costs to read many agents at once.
//!
//! Agents are tasks of this process that speak the API over pipes in memory; everything behind that is what `observer tail` runs: HTTP, frames,
//! the merge, and the printing into a sink that measures. The way through an API server is not measured: it is the API server's.

mod agents;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use netpol_observer::client::{Access, Cleaner, Follow, FollowOptions, Notice, Query, Roster, Sighting, Sink, Summary};

use agents::{Load, Piped};

/// Measures the merge of many agents. Exits with 1 when a frame was lost or out of order.
#[derive(Parser)]
struct Options {
    /// Agents.
    #[arg(long, default_value_t = 100)]
    agents: usize,
    /// Frames per second of all agents together, for the delay.
    #[arg(long, default_value_t = 2000)]
    rate: u64,
    /// Frames of each agent at full speed.
    #[arg(long, default_value_t = 2000)]
    frames: u64,
    /// Seconds of the measurement of the delay.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Counts, and measures the time from an item's time to here.
struct Measure {
    frames: u64,
    bytes: u64,
    delays: Vec<Duration>,
    last: Option<String>,
    unsorted: u64,
    notices: u64,
}

impl Sink for Measure {
    fn frame(&mut self, text: &str) -> io::Result<()> {
        if text.contains("\"type\":\"ledger\"") {
            return Ok(());
        }
        self.frames += 1;
        self.bytes += text.len() as u64;
        // The first field behind the node: the time of the drop.
        let time = text.split("\"time\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        let order: Timestamp = time.parse().map_err(io::Error::other)?;
        self.delays.push(Timestamp::now().duration_since(order).try_into().unwrap_or_default());
        // Times are written with nanoseconds, always, so that they compare as text.
        if self.last.as_deref().is_some_and(|last| time < last) {
            self.unsorted += 1;
        }
        self.last = Some(time.to_owned());
        Ok(())
    }

    fn notice(&mut self, _: &Notice) -> io::Result<()> {
        self.notices += 1;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn follow(agents: usize, load: Load, measure: &mut Measure) -> Result<Summary, String> {
    let piped = Piped::new(load);
    let sightings: Vec<Sighting> = (0..agents).map(agents::sighting).chain([Sighting::AgentsListed]).collect();
    let roster = Roster::of(futures_util::stream::iter(sightings).chain(futures_util::stream::pending()).boxed());
    let query = Query { json: true, follow: matches!(load, Load::Rate { .. }), ..Query::default() };
    let options = FollowOptions { query, cleaner: Cleaner::plain(), delay: Duration::from_secs(1), nodes: Vec::new() };
    let access = Access::new(Arc::new(piped), None);
    let end = async {
        match load {
            Load::Rate { seconds, .. } => tokio::time::sleep(Duration::from_secs(seconds)).await,
            Load::Burst { .. } => std::future::pending().await,
        }
    };
    Follow::new(access, options, measure).run(roster, end).await.map_err(|stop| stop.to_string())
}

fn measure() -> Measure {
    Measure { frames: 0, bytes: 0, delays: Vec::new(), last: None, unsorted: 0, notices: 0 }
}

/// Peak of the resident memory, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kilobytes| kilobytes.parse::<u64>().ok()).unwrap_or_default() / 1024
}

fn at(delays: &[Duration], percent: usize) -> Duration {
    delays.get((delays.len() * percent / 100).min(delays.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn main() -> ExitCode {
    let options = Options::parse();
    let _ = options.bench;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads can be had");
    let mut wrong = false;

    let mut steady = measure();
    let load = Load::Rate { per_agent: (options.rate as f64 / options.agents as f64), seconds: options.seconds };
    match runtime.block_on(follow(options.agents, load, &mut steady)) {
        Ok(summary) => {
            steady.delays.sort_unstable();
            println!(
                "{} agents, {} frames per second of all: {} frames in {} s, {} late, {} out of order; delay p50 {:?}, p99 {:?}, most {:?}; {} MiB",
                options.agents,
                options.rate,
                steady.frames,
                options.seconds,
                summary.frames.late,
                steady.unsorted,
                at(&steady.delays, 50),
                at(&steady.delays, 99),
                at(&steady.delays, 100),
                peak()
            );
            wrong |= steady.unsorted > summary.frames.late + summary.frames.ahead;
        }
        Err(why) => {
            eprintln!("{why}");
            wrong = true;
        }
    }

    let mut burst = measure();
    let began = Instant::now();
    match runtime.block_on(follow(options.agents, Load::Burst { frames: options.frames }, &mut burst)) {
        Ok(summary) => {
            let took = began.elapsed().as_secs_f64();
            let expected = options.frames * options.agents as u64;
            let frames = burst.frames;
            println!(
                "{} agents at full speed: {frames} of {expected} frames of {} bytes in {took:.2} s: {:.0} per second, {} late, {} out of order; {} MiB",
                options.agents,
                burst.bytes / frames.max(1),
                frames as f64 / took,
                summary.frames.late,
                burst.unsorted,
                peak()
            );
            wrong |= frames != expected || burst.unsorted > summary.frames.late + summary.frames.ahead;
        }
        Err(why) => {
            eprintln!("{why}");
            wrong = true;
        }
    }
    if wrong {
        eprintln!("frames were lost, or out of order without being counted");
    }
    ExitCode::from(u8::from(wrong))
}
