//! `cargo xtask bench capture`: builds the eBPF program and starts netpol-observer's benchmark of that name, optimised.

use std::path::Path;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use xtask::command::{is_root, run as run_command};
use xtask::toolchain;

use crate::cargo;

/// What the benchmark is started with.
#[derive(Args)]
pub(crate) struct Capture {
    /// Only these parts, with commas between. All when not given.
    #[arg(long, value_enum, value_name = "PART", value_delimiter = ',')]
    only: Vec<Part>,
    /// Shorter measurements, below three minutes in all.
    #[arg(long)]
    quick: bool,
    /// A table for people, or JSON; progress goes to standard error.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// What there is to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(crate) fn run(root: &Path, options: &Capture) -> Result<()> {
    if !is_root() {
        bail!("capture is measured on the running kernel, in network namespaces: run this as root");
    }
    toolchain::build_object(root)?;
    toolchain::bring_network_tools()?;
    let mut command = cargo(root);
    command.args(["bench", "--locked", "--package", "netpol-observer", "--bench", "capture", "--", "--output", &name(options.output)]);
    if options.quick {
        command.arg("--quick");
    }
    if !options.only.is_empty() {
        command.arg("--only").arg(options.only.iter().map(|&part| name(part)).collect::<Vec<_>>().join(","));
    }
    run_command(&mut command)
}

/// As it is written on the command line.
fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
