//! `cargo xtask soak`: floods for minutes, with readers that come and go, and a verdict: nothing lost unaccounted, nothing left behind.
//!
//! Two floods drop packets at once: one of pods' packets in soft interrupts (FORWARD), one of the node's own in system calls (OUTPUT), each of
//! thousands of flows. In one phase of three the first sends as fast as it can, every packet another flow, so that rings run full.
//!
//! Between phases the floods stand still. Readers that come and go then must have seen, to the packet, what the firewall's counter counted in
//! between. Others come and go in the middle of a flood; theirs must lie between the counter's values just before and just after.

mod flood;
mod kernel_log;
mod reader;
mod verdict;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::loaded::Loaded;
use crate::machine::Machine;
use crate::soak::flood::{Floods, Shape};
use crate::soak::kernel_log::KernelLog;
use crate::soak::reader::{Reader, Scene};
use crate::soak::verdict::Samples;
use crate::usage;

pub use verdict::Verdict;

/// How long packets may be under way after the floods stand still.
const SETTLE: Duration = Duration::from_millis(200);

/// In one phase of so many every packet is another flow. So many phases there are at least, however slow the machine.
const SHAPES: usize = 3;

/// What to do.
#[derive(Clone, Debug)]
pub struct SoakOptions {
    /// The built `observer`.
    pub observer: PathBuf,
    /// How long the floods run.
    pub time: Duration,
    /// How long one phase takes; readers that must be exact come and go between phases.
    pub phase: Duration,
    /// How often to say how it goes.
    pub report: Duration,
    /// How many readers there are at a time, at least three: one stays throughout.
    pub readers: usize,
}

/// Runs to the end and judges. The caller holds the machine ([`Machine`]): other drops and other readers would spoil the account.
///
/// # Errors
/// The floods or a reader cannot be started; `say` gets the lines for people.
pub fn run(options: &SoakOptions, mut say: impl FnMut(&str)) -> Result<Verdict> {
    ensure!(options.readers >= 3, "a soak needs at least three readers");
    let log = KernelLog::open();
    let scene = Scene::new(&options.observer)?;
    let before = Loaded::count()?;
    let own = usage::of(std::process::id())?;
    let mut floods = Floods::start(&scene)?;
    let mut steady = (0..options.readers.div_ceil(2)).map(|_| Reader::start(&scene)).collect::<Result<Vec<_>>>()?;
    let each = Loaded::count()?.less(before).divided(steady.len());
    ensure!(each.programs >= 2 && each.maps > 0, "a reader loads {each:?}: its programs and maps are not found by their names");
    let mut soak = Soak { scene: &scene, before, samples: Samples::default(), verdict: Verdict::default(), began: Instant::now() };
    let mut restless = Vec::new();
    let mut reported = Instant::now();
    let mut phase = 0usize;
    while soak.began.elapsed() < options.time || phase < SHAPES {
        floods.run(if phase % SHAPES == SHAPES - 1 { Shape::AllDifferent } else { Shape::Flows });
        let end = Instant::now() + options.phase;
        // In the flood: one comes or, when there are as many as wanted, the oldest leaves.
        while Instant::now() < end {
            if restless.len() + steady.len() < options.readers {
                restless.push(Reader::start(&scene)?);
            } else {
                soak.judge(restless.remove(0).leave(&scene)?);
            }
            thread::sleep((options.phase / 8).min(end.saturating_duration_since(Instant::now())));
        }
        floods.pause()?;
        thread::sleep(SETTLE);
        let loaded = Loaded::count()?.less(before);
        let expected = each.times(steady.len() + restless.len());
        if loaded != expected {
            soak.verdict
                .problem(format!("{} readers have {loaded:?} loaded, and {expected:?} were expected", steady.len() + restless.len()));
        }
        soak.samples.add(soak.began.elapsed(), usage::settled(steady[0].id())?, usage::of(std::process::id())?);
        if reported.elapsed() >= options.report {
            reported = Instant::now();
            say(&soak.line(&steady, &restless, loaded)?);
        }
        // Of those that must be exact the first stays, and of the others the oldest leaves for a new one.
        soak.judge(steady.remove(1).leave(&scene)?);
        steady.push(Reader::start(&scene)?);
        phase += 1;
    }
    for reader in steady.into_iter().chain(restless) {
        soak.judge(reader.leave(&scene)?);
    }
    let sent = floods.stop()?;
    soak.conclude(own, log, options, sent)
}

/// What is known so far.
struct Soak<'a> {
    scene: &'a Scene,
    /// What was loaded by others before.
    before: Loaded,
    samples: Samples,
    verdict: Verdict,
    began: Instant,
}

impl Soak<'_> {
    fn judge(&mut self, left: reader::Left) {
        self.verdict.readers += 1;
        self.verdict.seen += left.seen;
        self.verdict.ring_full += left.ring_full;
        self.verdict.missing += left.missing;
        for problem in left.problems {
            self.verdict.problem(problem);
        }
    }

    fn line(&self, steady: &[Reader], restless: &[Reader], loaded: Loaded) -> Result<String> {
        let first = usage::of(steady[0].id())?;
        Ok(format!(
            "{:>5.0} s: {} packets dropped; {} readers there, {} have left, {} of their drops accounted for, {} of these lost in full rings; \
             resident {:.1} MiB and {} descriptors of the one that stays, {:.1} MiB of this; {} programs, {} maps; {} problems",
            self.began.elapsed().as_secs_f64(),
            self.scene.dropped()?,
            steady.len() + restless.len(),
            self.verdict.readers,
            self.verdict.seen,
            self.verdict.ring_full,
            mebibytes(first.resident),
            first.descriptors,
            mebibytes(usage::of(std::process::id())?.resident),
            loaded.programs,
            loaded.maps,
            self.verdict.problems.len()
        ))
    }

    fn conclude(mut self, own: usage::Usage, log: Result<KernelLog>, options: &SoakOptions, sent: u64) -> Result<Verdict> {
        self.verdict.dropped = self.scene.dropped()?;
        if self.verdict.dropped != sent {
            self.verdict.problem(format!("{sent} packets were sent, and the firewall counted {}", self.verdict.dropped));
        }
        // The kernel frees programs and maps after a grace period.
        let end = Instant::now() + Duration::from_secs(5);
        let mut left = Loaded::count()?;
        while left != self.before && Instant::now() < end {
            thread::sleep(Duration::from_millis(100));
            left = Loaded::count()?;
        }
        if left != self.before {
            self.verdict.problem(format!("programs and maps are left: {:?} before, {left:?} after", self.before));
        }
        let now = usage::of(std::process::id())?;
        // The kernel log is open.
        let open = own.descriptors;
        if now.descriptors > open {
            self.verdict.problem(format!("this process had {open} descriptors open before and {} after", now.descriptors));
        }
        self.samples.judge(options.time, &mut self.verdict);
        match log.and_then(KernelLog::finish) {
            Ok(lines) => lines.into_iter().for_each(|line| self.verdict.problem(format!("kernel log: {line}"))),
            Err(error) => self.verdict.notes.push(format!("the kernel log was not looked at: {error:#}")),
        }
        Ok(self.verdict)
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

impl Verdict {
    /// Whether all is well.
    ///
    /// # Errors
    /// Lists what is not.
    pub fn conclude(&self) -> Result<()> {
        ensure!(self.problems.is_empty(), "the soak failed:\n  {}", self.problems.join("\n  "));
        Ok(())
    }
}

/// A soak as `cargo xtask soak` runs it.
///
/// # Errors
/// Those of [`run`], and everything that is not as it should be.
pub fn run_and_report(observer: PathBuf, minutes: f64) -> Result<()> {
    let _machine = Machine::take()?;
    let time = Duration::try_from_secs_f64(minutes * 60.0).context("--minutes")?;
    let options = SoakOptions { observer, time, phase: Duration::from_secs(10), report: Duration::from_secs(30), readers: 10 };
    let verdict = run(&options, |line| eprintln!("xtask: soak: {line}"))?;
    println!("{verdict}");
    verdict.conclude()
}
