//! `cargo xtask test`: everything CI checks.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use xtask::command::{is_root, output};
use xtask::demo::{self, DemoOptions};
use xtask::testing::SKIPPED;
use xtask::toolchain;

use crate::kernels::{self, Verdict};
use crate::{build, cargo, fuzz};

/// Seconds of each fuzz target: enough to notice what broke, not to look for what is rare.
const FUZZ_SECONDS: u64 = 12;

/// What a step came to.
#[derive(Default)]
struct Outcome {
    succeeded: bool,
    passed: u64,
    failed: u64,
    skipped: Vec<String>,
}

/// Format, lints, all tests, the demo; ends by printing what ran.
pub(crate) fn all(root: &Path) -> Result<()> {
    warn_of_space(root);
    toolchain::build_object(root)?;
    if is_root() {
        toolchain::bring_network_tools()?;
        // Where they cannot be had, the steps say so.
        let _ = fuzz::bring_compiler();
        let _ = toolchain::bring_container_tools();
    }
    let mut ran: Vec<(&str, Outcome, Duration)> = Vec::new();
    let mut step = |name: &'static str, work: &dyn Fn() -> Result<Outcome>| {
        eprintln!("\nxtask: {name}");
        let begin = Instant::now();
        let outcome = work().unwrap_or_else(|error| {
            eprintln!("xtask: {name}: {error:#}");
            Outcome { failed: 1, ..Outcome::default() }
        });
        ran.push((name, outcome, begin.elapsed()));
    };
    step("format", &|| check(cargo(root).args(["fmt", "--all", "--check"])));
    step("lints", &|| check(cargo(root).args(["clippy", "--locked", "--quiet", "--all-targets", "--", "-D", "warnings"])));
    // A test prints the reason of its failure; of its machinery nobody wants thirty frames.
    step("tests", &|| {
        // Tests that do not compile did not pass.
        let compiled = check(cargo(root).args(["test", "--locked", "--no-run"]))?;
        if !compiled.succeeded {
            return Ok(compiled);
        }
        thread::scope(|scope| {
            scope.spawn(|| build_ahead(root));
            tests(cargo(root).args(["test", "--locked", "--no-fail-fast"]).env("RUST_BACKTRACE", "0"))
        })
    });
    step("kernels", &|| other_kernels(root));
    step("fuzz", &|| the_fuzz_targets(root));
    step("demo", &|| the_demo(root));

    println!();
    for (name, outcome, time) in &ran {
        let word = if outcome.succeeded { "passed" } else { "FAILED" };
        println!("xtask: {name:<8} {word} in {:.0} s ({} passed, {} failed)", time.as_secs_f64(), outcome.passed, outcome.failed);
    }
    let skipped: Vec<&String> = ran.iter().flat_map(|(_, outcome, _)| &outcome.skipped).collect();
    for line in &skipped {
        println!("xtask: {line}");
    }
    let sum = |count: fn(&Outcome) -> u64| ran.iter().map(|(_, outcome, _)| count(outcome)).sum::<u64>();
    let failed = ran.iter().filter(|(_, outcome, _)| !outcome.succeeded).count();
    println!("{} passed, {} failed, {} skipped", sum(|o| o.passed), sum(|o| o.failed), skipped.len());
    if failed > 0 {
        bail!("{failed} of {} steps failed", ran.len());
    }
    Ok(())
}

/// What a run from scratch takes of the disk, in GiB: the tests, those for the guests, the fuzz targets, kernels and their modules.
const SPACE: u64 = 10;

/// A disk that fills up makes errors of everything, and of none of them what it is.
fn warn_of_space(root: &Path) {
    let free = output(Command::new("df").args(["--output=avail", "-BG"]).arg(root)).unwrap_or_default();
    let gibibytes = free.lines().nth(1).and_then(|line| line.trim().trim_end_matches('G').parse::<u64>().ok());
    if let Some(free) = gibibytes.filter(|free| *free < SPACE) {
        eprintln!("xtask: warning: {free} GiB are free on the disk of {}; a run from scratch takes about {SPACE}", root.display());
    }
}

/// Compiles what later steps run, beside the tests, which leave a CPU idle for half of their time: kernel tests take turns, others wait for clocks. The
/// steps themselves say what is wrong with it.
fn build_ahead(root: &Path) {
    // SAFETY: no memory is passed. 0 is this thread alone, and what it starts.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
    // Without root there are no guests.
    let guests = if is_root() { kernels::build_ahead(root) } else { Ok(()) };
    for error in [guests, fuzz::build(root).map(drop)].into_iter().filter_map(Result::err) {
        eprintln!("xtask: not built ahead: {error:#}");
    }
}

/// A command that is one check.
fn check(command: &mut Command) -> Result<Outcome> {
    let succeeded = command.status().context("cannot start cargo")?.success();
    Ok(Outcome { succeeded, passed: u64::from(succeeded), failed: u64::from(!succeeded), ..Outcome::default() })
}

/// Runs cargo's tests, shows what they print, and counts.
fn tests(command: &mut Command) -> Result<Outcome> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start cargo")?;
    let (out, err) = (child.stdout.take().context("piped")?, child.stderr.take().context("piped")?);
    let (mut outcome, more) = thread::scope(|scope| {
        let err = scope.spawn(|| follow(err, &mut std::io::stderr()));
        let out = follow(out, &mut std::io::stdout());
        (out, err.join().unwrap_or_default())
    });
    outcome.skipped.extend(more.skipped);
    outcome.succeeded = child.wait()?.success();
    // Tests that did not compile did not pass.
    if !outcome.succeeded && outcome.failed == 0 {
        outcome.failed = 1;
    }
    Ok(outcome)
}

/// Passes lines on and counts what they say.
fn follow(from: impl Read, to: &mut impl Write) -> Outcome {
    let mut outcome = Outcome::default();
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        let _ = writeln!(to, "{line}");
        if let Some(counts) = line.strip_prefix("test result: ") {
            let count = |what: &str| {
                let words: Vec<&str> = counts.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
                words.windows(2).find(|pair| pair[1] == what).and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
            };
            outcome.passed += count("passed");
            outcome.failed += count("failed");
            let ignored: u64 = count("ignored");
            outcome.skipped.extend((0..ignored).map(|_| format!("{SKIPPED}a test marked ignored")));
        } else if line.starts_with(SKIPPED) {
            outcome.skipped.push(line);
        }
    }
    outcome
}

/// The kernel tests on the oldest and the newest kernel, in guests.
fn other_kernels(root: &Path) -> Result<Outcome> {
    let reports = match kernels::oldest_and_newest(root)? {
        Ok(reports) => reports,
        Err(why) => {
            let why = format!("{SKIPPED}the tests on other kernels: {why}");
            return Ok(Outcome { succeeded: true, skipped: vec![why], ..Outcome::default() });
        }
    };
    let mut outcome = Outcome { succeeded: true, ..Outcome::default() };
    for report in &reports {
        println!("{}", report.summary());
        let (passed, failed, skipped) = report.counts();
        outcome.passed += passed;
        outcome.skipped.extend(skipped);
        if report.verdict() == Verdict::Failed {
            outcome.succeeded = false;
            // A kernel that complained failed, too, when no test did.
            outcome.failed += failed.max(1);
        }
    }
    Ok(outcome)
}

/// Each fuzz target for a short time.
fn the_fuzz_targets(root: &Path) -> Result<Outcome> {
    if let Err(error) = fuzz::bring_compiler() {
        let why = format!("{SKIPPED}the fuzz targets: {error:#}");
        return Ok(Outcome { succeeded: true, skipped: vec![why], ..Outcome::default() });
    }
    let ran = fuzz::run_targets(root, FUZZ_SECONDS, None)?;
    let failed = ran.iter().filter(|ran| ran.reproducer.is_some()).count();
    let passed = ran.len() - failed;
    let succeeded = fuzz::conclude(&ran).is_ok();
    Ok(Outcome { succeeded, passed: passed as u64, failed: failed as u64, ..Outcome::default() })
}

/// The README's main job, with the binary that the tests have built: alone it would be built again, with fewer features of its dependencies.
fn the_demo(root: &Path) -> Result<Outcome> {
    if !is_root() {
        return Ok(Outcome {
            succeeded: true,
            skipped: vec![format!("{SKIPPED}the demo: network namespaces need root")],
            ..Outcome::default()
        });
    }
    let built = crate::observer(root, false);
    let observer = if built.is_file() { built } else { build(root, false)? };
    demo::run(DemoOptions { observer })?;
    Ok(Outcome { succeeded: true, passed: 1, ..Outcome::default() })
}
