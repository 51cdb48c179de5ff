//! `cargo xtask bench deploy`: what developers wait for before a deploy. `observer check`, `diff` and `map` as whole processes, on manifests as a team has
//! them in git, beside what would have to be run without them.

#[path = "../policy/cluster/mod.rs"]
#[expect(dead_code, reason = "the benchmark of the engine uses more of it")]
mod cluster;
mod manifests;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;

/// All pairs and all ports of 500 pods under 200 policies through netpol-analyzer, in seconds, on the machine that the aims are for.
const NETPOL_ANALYZER: f64 = 21.5;

/// Measures `observer check`, `diff` and `map`. Exits with 1 when an answer is not the expected one.
#[derive(Parser)]
struct Options {
    /// Runs of each; the median counts.
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench deploy: {error}");
            ExitCode::from(1)
        }
    }
}

/// Minimum, median and maximum.
struct Times([Duration; 3]);

impl Times {
    fn median(&self) -> f64 {
        self.0[1].as_secs_f64()
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let scratch = tempfile::tempdir()?;
    let at = |name: &str| scratch.path().join(name);
    let write = |name: &str, text: &str| fs::write(at(name), text);
    println!("{:<58} {:>9} {:>9} {:>9}", "what (whole process, seconds)", "min", "median", "max");

    // `check`: 1,000 workloads, 1,050 policies, 500 tests.
    let team = manifests::team(1_000, 50);
    write("team.yaml", &team.manifests)?;
    write("tests.yaml", &team.tests(500))?;
    let check = measure(options, &["check", "--no-lints", "--tests"], &[&at("tests.yaml"), &at("team.yaml")], "500 tests passed")?;
    show("check: 500 tests, 1,000 workloads, 1,050 policies", &check);
    let with_lints = measure(options, &["check", "--tests"], &[&at("tests.yaml"), &at("team.yaml")], "500 tests passed")?;
    show("check: the same with all lints", &with_lints);
    let one = measure(
        options,
        &["explain", "--from", "team-00/deploy/app-0", "--to", "team-00/deploy/app-1", "--port", "8080", "-f"],
        &[&at("team.yaml")],
        "",
    )?;
    show("explain: one of these questions, by a process of its own", &one);

    // `diff`: two directories of 2,000 policies, twenty of which are otherwise.
    let large = manifests::team(1_000, 1_000);
    for (directory, text) in [("old", large.manifests.clone()), ("new", large.with_wider_rules(20))] {
        fs::create_dir(at(directory))?;
        write(&format!("{directory}/all.yaml"), &text)?;
    }
    let diff = measure(options, &["diff"], &[&at("old"), &at("new")], "20 newly allowed")?;
    show("diff: two directories of 1,000 workloads, 2,000 policies", &diff);

    // `map`: 500 workloads, and the cluster that others were measured on.
    let medium = manifests::team(500, 25);
    write("medium.yaml", &medium.manifests)?;
    let map = measure(options, &["map", "-o", "html"], &[&at("medium.yaml")], "<html")?;
    show("map -o html: 500 workloads, 525 policies", &map);
    let shape = cluster::SHAPES.first().ok_or("no shape")?;
    fs::create_dir(at("cluster"))?;
    cluster::generate(shape, 1).write(&at("cluster"))?;
    let reach = measure(options, &["map", "-o", "json"], &[&at("cluster")], "\"edges\"")?;
    show("map -o json: 500 pods, 200 policies, all pairs and ports", &reach);

    println!();
    let ratio = |slow: f64, fast: f64| slow / fast.max(1e-6);
    println!("500 tests in one run instead of 500 runs of explain: {:.0} times as fast", ratio(500.0 * one.median(), check.median()));
    println!(
        "all pairs and all ports of 500 pods and 200 policies: {:.0} times as fast as netpol-analyzer ({NETPOL_ANALYZER} s, measured on another day)",
        ratio(NETPOL_ANALYZER, reach.median())
    );
    for (what, times, aim) in [("check", &check, 1.0), ("diff", &diff, 2.0)] {
        let met = if times.median() < aim { "met" } else { "MISSED" };
        println!("aim: {what} in {aim} s: {met} ({:.2} s)", times.median());
    }
    Ok(())
}

fn show(what: &str, times: &Times) {
    let [min, median, max] = times.0.map(|time| time.as_secs_f64());
    println!("{what:<58} {min:>9.3} {median:>9.3} {max:>9.3}");
}

/// Runs the observer several times; its output must hold a text, and it must not fail.
fn measure(options: &Options, arguments: &[&str], paths: &[&Path], expected: &str) -> Result<Times, Failure> {
    let mut times = Vec::new();
    for _ in 0..options.runs.max(3) {
        let begin = Instant::now();
        let output = Command::new(env!("CARGO_BIN_EXE_observer")).args(arguments).args(paths).stdin(Stdio::null()).output()?;
        times.push(begin.elapsed());
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() || !out.contains(expected) {
            return Err(format!("{arguments:?} ended with {} and not with {expected:?}: {err}{}", output.status, tail(&out)).into());
        }
    }
    times.sort_unstable();
    match (times.first(), times.get(times.len() / 2), times.last()) {
        (Some(min), Some(median), Some(max)) => Ok(Times([*min, *median, *max])),
        _ => Err("no run".into()),
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
