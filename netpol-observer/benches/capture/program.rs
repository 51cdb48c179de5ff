//! Nanoseconds per free, from the kernel's statistics of programs.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use netpol_observer::capture::live::{Live, LiveOptions, open};
use netpol_observer::capture::{Attach, Captured, Form};
use xtask::traffic::{Forger, Frames};

use crate::empty::Empty;
use crate::report::{Cell, Part};
use crate::scene::{Scene, all_different, of_flows};
use crate::statistics::median;
use crate::{Effort, progress};

/// Packets of one burst of different flows: they fit into the fold table (32,768) and into the ring (21,845 records).
const DIFFERENT: u64 = 10_000;
const SAME: u64 = 50_000;
/// The fold tables take turns this often, so that each burst finds an empty one.
const TURN: Duration = Duration::from_millis(200);

/// How often the reader looks whether it should be busy.
const NAP: Duration = Duration::from_millis(2);

/// How long the reader may take for a burst.
const PATIENCE: Duration = Duration::from_secs(5);

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Reported,
    /// While the reader is busy with what came before, and need not be woken.
    ReportedToBusyReader,
    Folded,
    Ignored,
}

/// Where it is freed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The FORWARD hook, in the soft interrupt that receives it.
    Interrupt,
    /// The OUTPUT hook, in the system call that sends it.
    Task,
}

pub(crate) fn measure(scene: &Scene, effort: Effort) -> Result<Part> {
    let mut part = Part::new(
        "program",
        "nanoseconds per free, all programs on the tracepoint together, by the kernel's statistics (median of bursts)",
        &["with statistics", "without", "kfree_skb", "…_2nd", "bursts from – to"],
    );
    let _statistics = enable_stats(Stats::RunTime).context("cannot turn the kernel's statistics of programs on")?;
    let bursts = effort.pick(20, 6);
    scene.rules("")?;

    progress("program: what the statistics themselves take");
    let empty = Empty::attach()?;
    let nothing = median(&alone(scene, &empty, bursts)?);
    part.row("an empty program", vec![Cell::Nanoseconds(nothing), Cell::Absent, Cell::Absent, Cell::Absent, Cell::Absent]);
    drop(empty);

    for (form, attach) in [("tp_btf", Attach::Typed), ("raw tracepoint", Attach::Raw)] {
        let observed = match Observed::start(attach) {
            Ok(observed) => observed,
            Err(error) => {
                part.note(format!("{form}: cannot be measured here: {error:#}"));
                continue;
            }
        };
        for (fate, aim) in [(Fate::Reported, 250.0), (Fate::ReportedToBusyReader, 250.0), (Fate::Folded, 80.0), (Fate::Ignored, 30.0)] {
            for place in [Place::Interrupt, Place::Task] {
                // What a task sends to nobody is not freed by the task.
                if fate == Fate::Ignored && place == Place::Task {
                    continue;
                }
                let what = format!("{form}, {}, {}", fate.name(), place.name());
                progress(&format!("program: {what}"));
                let figures = observed.cost(scene, fate, place, bursts)?;
                let programs = observed.programs.len() as f64;
                let sums: Vec<f64> = figures.iter().map(|burst| burst.iter().sum()).collect();
                let each = |at: usize| {
                    let values: Vec<f64> = figures.iter().filter_map(|burst| burst.get(at).copied()).collect();
                    if values.is_empty() { Cell::Absent } else { Cell::Nanoseconds(median(&values)) }
                };
                let sum = median(&sums);
                let net = (sum - programs * nothing).max(0.0);
                let range = sums.iter().fold((f64::MAX, 0.0f64), |(low, high), &value| (low.min(value), high.max(value)));
                let range = Cell::Text(format!("{:.0} – {:.0}", range.0, range.1));
                let cells = vec![Cell::Nanoseconds(sum), Cell::Nanoseconds(net), each(0), each(1), range];
                part.row_with_aim(what, cells, format!("{aim:.0} ns"), net <= aim);
            }
        }
        observed.stop()?;
    }
    part.note("an empty program's time is what the statistics add to each run; *without* is less that, once per program");
    part.note("aims are held against *without*; each program runs for each free, and leaves the other's packets alone");
    Ok(part)
}

impl Fate {
    fn name(self) -> &'static str {
        match self {
            Fate::Reported => "reported, waking the reader",
            Fate::ReportedToBusyReader => "reported, the reader busy",
            Fate::Folded => "folded",
            Fate::Ignored => "ignored",
        }
    }
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Place::Interrupt => "soft interrupt",
            Place::Task => "task",
        }
    }
}

/// A capture whose items are counted and thrown away.
struct Observed {
    /// Ids of the programs on the tracepoint, the stand-in last.
    programs: Vec<u32>,
    counts: Arc<Counts>,
    reader: thread::JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    records: AtomicU64,
    repeats: AtomicU64,
    stop: AtomicBool,
    /// The reader stands still for as long as this is true.
    busy: AtomicBool,
}

impl Observed {
    fn start(attach: Attach) -> Result<Self> {
        let counts = Arc::new(Counts::default());
        let (opened, is_open) = std::sync::mpsc::channel();
        let reader = {
            let counts = Arc::clone(&counts);
            thread::spawn(move || read(attach, &counts, &opened))
        };
        is_open.recv().context("the capture ended")??;
        let names = match attach {
            Attach::Raw => Form::Raw.programs(),
            _ => Form::Typed.programs(),
        };
        let own = own_programs()?;
        let programs: Vec<u32> = names.iter().filter_map(|name| own.get(*name).copied()).collect();
        ensure!(!programs.is_empty(), "none of the programs {names:?} is loaded");
        Ok(Observed { programs, counts, reader })
    }

    fn stop(self) -> Result<()> {
        self.counts.stop.store(true, Ordering::Relaxed);
        if self.reader.join().is_err() {
            bail!("the thread that reads the capture panicked");
        }
        Ok(())
    }

    /// Per burst: nanoseconds per free of each program.
    fn cost(&self, scene: &Scene, fate: Fate, place: Place, bursts: usize) -> Result<Vec<Vec<f64>>> {
        let mut figures = Vec::new();
        let (mut next, mut disturbed) = (0, String::new());
        // The first one warms up; those that something else disturbed are made again.
        for burst in 0..=bursts * 3 {
            let (records, repeats) = self.read();
            self.counts.busy.store(fate == Fate::ReportedToBusyReader, Ordering::Relaxed);
            // Whatever the reader waits for, by then it sees that it should be busy.
            thread::sleep(NAP * 5);
            let before = statistics(&self.programs)?;
            let sent = send(scene, fate, place, next);
            let after = statistics(&self.programs)?;
            self.counts.busy.store(false, Ordering::Relaxed);
            let sent = sent?;
            next += sent;
            let frees = after[0].0 - before[0].0;
            let came = self.wait_for(fate, (records, repeats), sent);
            if frees * 100 > sent * 105 || frees < sent || !came {
                let (reported, folded) = self.read();
                let (reported, folded) = (reported - records, folded - repeats);
                disturbed = format!("{sent} packets were sent, {frees} freed, {reported} reported and {folded} folded");
                continue;
            }
            if burst > 0 {
                figures.push(before.iter().zip(&after).map(|(before, after)| (after.1 - before.1) as f64 / frees as f64).collect());
            }
            if figures.len() == bursts {
                break;
            }
        }
        ensure!(
            figures.len() * 2 >= bursts,
            "only {} bursts of {bursts} were {} and nothing else ({disturbed}): let the machine become quiet",
            figures.len(),
            fate.name()
        );
        Ok(figures)
    }

    /// Waits until what was sent is read, as what it should be, and the tables are empty for the next burst; whether it came.
    fn wait_for(&self, fate: Fate, (records, repeats): (u64, u64), sent: u64) -> bool {
        let wanted = sent * 98 / 100;
        let mut came = fate == Fate::Ignored;
        let begin = Instant::now();
        while !came && begin.elapsed() < PATIENCE {
            thread::sleep(NAP);
            let (reported, folded) = self.read();
            came = if fate == Fate::Folded { folded - repeats >= wanted } else { reported - records >= wanted };
        }
        thread::sleep(TURN * 2);
        let (reported, folded) = self.read();
        let none = |seen: u64| seen * 50 <= sent;
        came && match fate {
            Fate::Ignored => none(reported - records) && none(folded - repeats),
            Fate::Folded => none(reported - records),
            Fate::Reported | Fate::ReportedToBusyReader => none(folded - repeats),
        }
    }

    fn read(&self) -> (u64, u64) {
        (self.counts.records.load(Ordering::Relaxed), self.counts.repeats.load(Ordering::Relaxed))
    }
}

/// The life of a capture, on a runtime like the binary's.
fn read(attach: Attach, counts: &Arc<Counts>, opened: &std::sync::mpsc::Sender<Result<()>>) {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(opened.send(Err(error.into()))),
    };
    runtime.block_on(async {
        let mut live: Live = match open(LiveOptions { attach, fold_interval: TURN, ..LiveOptions::default() }) {
            Ok(live) => live,
            Err(error) => return drop(opened.send(Err(error.into()))),
        };
        let _ = opened.send(Ok(()));
        // The ring is read on the runtime's one worker: what blocks that one keeps it from being read.
        let busy = Arc::clone(counts);
        tokio::spawn(async move {
            loop {
                while busy.busy.load(Ordering::Relaxed) {
                    thread::sleep(NAP);
                }
                tokio::time::sleep(NAP).await;
            }
        });
        while !counts.stop.load(Ordering::Relaxed) {
            match tokio::time::timeout(TURN, live.next()).await {
                Ok(Some(Captured::Record(_))) => drop(counts.records.fetch_add(1, Ordering::Relaxed)),
                Ok(Some(Captured::Repeat { value, .. })) => drop(counts.repeats.fetch_add(value.count, Ordering::Relaxed)),
                Ok(Some(Captured::Ledger(_))) | Err(_) => {}
                Ok(None) => break,
            }
        }
        live.finish().await;
    });
}

/// Sends one burst; returns how many packets.
fn send(scene: &Scene, fate: Fate, place: Place, first: u64) -> Result<u64> {
    let (from, count) = match (fate, place) {
        (Fate::Reported | Fate::ReportedToBusyReader, Place::Interrupt) => (&scene.sender, DIFFERENT),
        (Fate::Reported | Fate::ReportedToBusyReader, Place::Task) => (&scene.node, DIFFERENT),
        (_, Place::Interrupt) => (&scene.sender, SAME),
        (_, Place::Task) => (&scene.node, SAME),
    };
    if fate == Fate::Ignored {
        let address = scene.hardware_address()?;
        return from.in_ns(|| {
            let frames = Frames::new("eth0", address)?;
            (0..count).try_for_each(|_| frames.send())?;
            Ok(count)
        })?;
    }
    from.in_ns(|| {
        let mut forger = Forger::new()?;
        match fate {
            Fate::Folded => forger.send(0, count as usize, of_flows(1)),
            _ => forger.send(first, count as usize, all_different),
        }
    })?
}

/// The empty program's time per run.
fn alone(scene: &Scene, empty: &Empty, bursts: usize) -> Result<Vec<f64>> {
    let id = program_id(empty.descriptor()).context("the empty program has no id")?;
    let mut figures = Vec::new();
    for _ in 0..bursts {
        let before = statistics(&[id])?;
        send(scene, Fate::Folded, Place::Interrupt, 0)?;
        let after = statistics(&[id])?;
        figures.push((after[0].1 - before[0].1) as f64 / (after[0].0 - before[0].0).max(1) as f64);
    }
    Ok(figures)
}

/// Names and ids of the programs this process holds.
fn own_programs() -> Result<BTreeMap<String, u32>> {
    let mut own = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").context("cannot list /proc/self/fd")?.flatten() {
        own.extend(entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(program_id));
    }
    let programs = loaded_programs().flatten().filter(|program| own.contains(&program.id()));
    Ok(programs.filter_map(|program| Some((program.name_as_str()?.to_owned(), program.id()))).collect())
}

/// Of the program behind a descriptor, if it is one. Links name their program likewise.
fn program_id(descriptor: i32) -> Option<u32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).ok()?;
    info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
}

/// Runs and nanoseconds of programs.
fn statistics(ids: &[u32]) -> Result<Vec<(u64, u64)>> {
    let all: BTreeMap<u32, (u64, u64)> = loaded_programs()
        .flatten()
        .map(|program| (program.id(), (program.run_count(), u64::try_from(program.run_time().as_nanos()).unwrap_or(u64::MAX))))
        .collect();
    ids.iter().map(|id| all.get(id).copied().with_context(|| format!("the program {id} is gone"))).collect()
}
