//! `cargo xtask bench`: what the program costs.

mod capture;
mod client;
mod deploy;
mod policy;

use std::path::Path;

use anyhow::Result;
use clap::Subcommand;

pub(crate) use capture::Capture;
pub(crate) use client::Client;
pub(crate) use deploy::Deploy;
pub(crate) use policy::Policy;

/// The benchmarks there are. A new one is a file beside this one and a line in each of the two lists.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Capture on the running kernel: cost per drop, rates beside bpftrace and NFLOG, latency, CPU, forwarded traffic. Needs root.
    Capture(Capture),
    /// Many agents read at once: frames per second, delay, memory.
    Client(Client),
    /// `observer check`, `diff` and `map` as developers run them before a deploy.
    Deploy(Deploy),
    /// The policy engine on generated clusters: load, verdicts, explanations, changes, reachability, memory.
    Policy(Policy),
}

/// Names of the benchmarks and what they measure.
const ALL: &[(&str, &str)] = &[
    ("capture", "capture and explanation of drops on the running kernel, side by side with bpftrace and with NFLOG and ulogd2; needs root"),
    ("client", "the drops of many agents put in one order, as `observer tail` on a cluster does"),
    ("deploy", "observer check, diff and map as developers run them before a deploy"),
    ("policy", "the policy engine on generated clusters, side by side with a scan through all policies"),
];

/// Runs a benchmark, or lists them.
///
/// # Errors
/// When it cannot be built or run, or says that a result is wrong.
pub(crate) fn run(root: &Path, bench: Option<Bench>) -> Result<()> {
    match bench {
        Some(Bench::Capture(options)) => capture::run(root, &options),
        Some(Bench::Client(options)) => client::run(root, &options),
        Some(Bench::Deploy(options)) => deploy::run(root, &options),
        Some(Bench::Policy(options)) => policy::run(root, &options),
        None => {
            println!(
                "Benchmarks (`cargo xtask bench NAME`, and `--help` after it; what they measure and the last figures: docs/benchmarks.md):"
            );
            for (name, what) in ALL {
                println!("  {name:<8} {what}");
            }
            Ok(())
        }
    }
}
