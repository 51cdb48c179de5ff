//! `cargo xtask bench capture`: what it costs to see drops and to explain them, beside bpftrace and NFLOG.

mod cpu;
mod empty;
mod forwarding;
mod latency;
mod program;
mod report;
mod scene;
mod statistics;
mod sustained;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use netpol_observer::capture::is_built_in;
use netpol_observer::capture::permissions::Permissions;
use xtask::machine::Machine;
use xtask::toolchain::bring_network_tools;
use xtask::traffic::cpus;

use report::Report;
use scene::Scene;

/// Measures capture on the running kernel. Exits with 1 when something cannot be measured.
#[derive(Parser)]
struct Options {
    /// Only these parts, with commas between.
    #[arg(long, value_enum, value_name = "PART", value_delimiter = ',')]
    only: Vec<PartName>,
    /// Shorter measurements, below three minutes in all.
    #[arg(long)]
    quick: bool,
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PartName {
    /// Time of the eBPF programs per free.
    Program,
    /// Drops per second without loss, beside bpftrace and ulogd2.
    Sustained,
    /// From the drop to the printed line.
    Latency,
    /// CPU and memory of the agent at a given load.
    Cpu,
    /// Forwarded traffic with the observer and without.
    Forwarding,
}

/// How long things are measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    quick: bool,
}

impl Effort {
    /// The one or the other.
    fn pick<T>(self, whole: T, quick: T) -> T {
        if self.quick { quick } else { whole }
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench capture: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let missing = Permissions::read().missing_for_capture();
    if !missing.is_empty() {
        bail!("capabilities are missing: {missing:?}; run it as root");
    }
    if !is_built_in() {
        bail!("this was built without the eBPF program; run `cargo xtask bench capture`");
    }
    if cfg!(debug_assertions) {
        eprintln!("bench capture: not optimised; the figures mean nothing. Run `cargo xtask bench capture`.");
    }
    bring_network_tools()?;
    let _machine = Machine::take()?;
    let scene = Scene::new()?;
    let effort = Effort { quick: options.quick };
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let observer = observer();
    let mut report = Report { kernel: kernel(), cores: cpus(), quick: options.quick, parts: Vec::new() };
    let parts: [(PartName, &dyn Fn() -> Result<report::Part>); 5] = [
        (PartName::Program, &|| program::measure(&scene, effort)),
        (PartName::Sustained, &|| sustained::measure(&scene, &observer, effort)),
        (PartName::Latency, &|| latency::measure(&scene, &observer, effort)),
        (PartName::Cpu, &|| cpu::measure(&scene, &observer, effort)),
        (PartName::Forwarding, &|| forwarding::measure(&scene, &observer, effort)),
    ];
    for (_, measure) in parts.iter().filter(|(name, _)| wanted(*name)) {
        report.parts.push(measure()?);
    }
    match options.output {
        Format::Text => print!("{}", report.text()),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(())
}

/// The binary of the same build.
fn observer() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_observer")).to_owned()
}

/// What is under way, for who waits.
fn progress(text: &str) {
    eprintln!("bench capture: {text}");
}

/// `6.18` of `6.18.5-distribution`.
fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().split('.').take(2).collect::<Vec<_>>().join(".")
}
