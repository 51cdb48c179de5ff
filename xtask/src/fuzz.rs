//! `cargo xtask fuzz`: libFuzzer on the stable toolchain. The instrumentation is LLVM's, which rustc reaches by stable flags; no sanitizer
//! is needed, for what is looked for are panics.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use xtask::command::{find, output, run};
use xtask::packages;

use crate::cargo;

/// The targets: each has a file in `netpol-observer/fuzz/fuzz_targets` and seeds in `corpus`.
pub(crate) const TARGETS: [&str; 3] = ["manifests", "record", "recording"];

/// Where they lie.
const CRATE: &str = "netpol-observer/fuzz";

/// libFuzzer's own part is C++.
const COMPILER_PACKAGE: &str = "g++";

/// Coverage as libFuzzer wants it: a counter per edge, the table of program counters, and what comparisons compare.
const INSTRUMENTATION: &[&str] = &[
    "--cfg",
    "fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// Seconds after which one input has hung, and MiB above which it has leaked.
const TIMEOUT: u32 = 20;
const MEMORY: u32 = 2048;

/// What a run came to.
pub(crate) struct Ran {
    pub(crate) target: &'static str,
    pub(crate) executions: u64,
    pub(crate) seconds: u64,
    /// The input that made it crash, hang or take too much memory.
    pub(crate) reproducer: Option<PathBuf>,
}

/// Builds the targets and runs each for so many seconds, or only the one that is named.
///
/// # Errors
/// When they cannot be built or started, or there is no such target. A crash is no error here.
pub(crate) fn run_targets(root: &Path, seconds: u64, only: Option<&str>) -> Result<Vec<Ran>> {
    let targets: Vec<&'static str> = TARGETS.into_iter().filter(|target| only.is_none_or(|only| only == *target)).collect();
    if targets.is_empty() {
        bail!("no fuzz target {:?}; there are {}", only.unwrap_or_default(), TARGETS.join(", "));
    }
    let programs = build(root)?;
    targets.into_iter().map(|target| run_one(root, &programs, target, seconds)).collect()
}

/// Brings what building needs; says why when it cannot be had.
///
/// # Errors
/// When there is no C++ compiler and none can be installed.
pub(crate) fn bring_compiler() -> Result<()> {
    let is_set = std::env::var_os("CXX").is_some();
    if is_set || ["c++", "g++", "clang++"].iter().any(|program| find(program).is_some()) {
        return Ok(());
    }
    packages::ensure("libFuzzer", &[COMPILER_PACKAGE])
}

/// Builds all targets and returns the directory they are in.
pub(crate) fn build(root: &Path) -> Result<PathBuf> {
    bring_compiler()?;
    let version = output(Command::new("rustc").current_dir(root).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not name its host")?;
    let directory = root.join("target/fuzz");
    eprintln!("xtask: building the fuzz targets");
    let mut command = cargo(root);
    command.args(["build", "--locked", "--quiet", "--release", "--bins", "--manifest-path"]).arg(root.join(CRATE).join("Cargo.toml"));
    // With a target named, the flags are not those of build scripts and macros, which lack libFuzzer's symbols.
    command.args(["--target", host, "--target-dir"]).arg(&directory);
    command.env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTATION.join("\u{1f}"));
    if find("c++").is_none() && std::env::var_os("CXX").is_none() {
        command.env("CXX", if find("g++").is_some() { "g++" } else { "clang++" });
    }
    run(&mut command)?;
    Ok(directory.join(host).join("release"))
}

fn run_one(root: &Path, programs: &Path, target: &'static str, seconds: u64) -> Result<Ran> {
    let (seeds, found, artifacts) = (
        root.join(CRATE).join("corpus").join(target),
        root.join("target/fuzz/corpus").join(target),
        root.join("target/fuzz/artifacts").join(target),
    );
    for directory in [&found, &artifacts] {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    eprintln!("xtask: fuzzing {target} for {seconds} s");
    let mut command = Command::new(programs.join(target));
    command.args([format!("-max_total_time={seconds}"), format!("-timeout={TIMEOUT}"), format!("-rss_limit_mb={MEMORY}")]);
    let mut prefix = OsString::from("-artifact_prefix=");
    prefix.push(artifacts.join(""));
    command.args(["-print_final_stats=1", "-verbosity=1"]).arg(prefix);
    let dictionary = root.join(CRATE).join(format!("{target}.dict"));
    if dictionary.is_file() {
        let mut option = OsString::from("-dict=");
        option.push(dictionary);
        command.arg(option);
    }
    // New inputs go to the first directory; the seeds stay as they are committed.
    command.arg(found).arg(seeds);
    let begin = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().with_context(|| format!("cannot start {target}"))?;
    let (mut executions, mut reproducer, mut last) = (0, None, Vec::new());
    for line in BufReader::new(child.stderr.take().context("piped")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        if let Some(number) = line.strip_prefix("stat::number_of_executed_units:") {
            executions = number.trim().parse().unwrap_or(0);
        }
        // A run that crashes ends without statistics: the number before the last report.
        if let Some(number) = line.strip_prefix('#').and_then(|rest| rest.split_whitespace().next()?.parse().ok()) {
            executions = executions.max(number);
        }
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            reproducer = Some(PathBuf::from(path.trim()));
        }
        last.push(line);
        if last.len() > 60 {
            last.remove(0);
        }
    }
    let status = child.wait()?;
    if !status.success() {
        eprintln!("{}", last.join("\n"));
        if reproducer.is_none() {
            bail!("{target} ended with {status} and left no input that makes it do so again");
        }
    }
    Ok(Ran { target, executions, seconds: begin.elapsed().as_secs(), reproducer })
}

/// Prints what ran.
///
/// # Errors
/// When a run found something.
pub(crate) fn conclude(ran: &[Ran]) -> Result<()> {
    for Ran { target, executions, seconds, reproducer } in ran {
        match reproducer {
            None => println!("xtask: fuzz {target}: {executions} executions in {seconds} s, clean"),
            Some(input) => println!("xtask: fuzz {target}: FAILED after {executions} executions, again with the input {}", input.display()),
        }
    }
    let failed = ran.iter().filter(|ran| ran.reproducer.is_some()).count();
    if failed > 0 {
        bail!("{failed} of {} fuzz targets found an input that breaks the program", ran.len());
    }
    Ok(())
}
