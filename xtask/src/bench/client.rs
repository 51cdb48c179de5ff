//! `cargo xtask bench client`: starts netpol-observer's benchmark of that name, optimised.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use xtask::command::run as run_command;

use crate::cargo;

/// What the benchmark is started with.
#[derive(Args)]
pub(crate) struct Client {
    /// Agents [default: 100].
    #[arg(long)]
    agents: Option<usize>,
    /// Frames per second of all agents together, for the delay [default: 2000].
    #[arg(long)]
    rate: Option<u64>,
    /// Frames of each agent at full speed [default: 2000].
    #[arg(long)]
    frames: Option<u64>,
    /// Seconds of the measurement of the delay [default: 10].
    #[arg(long)]
    seconds: Option<u64>,
}

pub(crate) fn run(root: &Path, options: &Client) -> Result<()> {
    let mut command = cargo(root);
    command.args(["bench", "--locked", "--package", "netpol-observer", "--bench", "client", "--"]);
    let agents = options.agents.map(|agents| agents as u64);
    for (name, value) in [("--agents", agents), ("--rate", options.rate), ("--frames", options.frames), ("--seconds", options.seconds)] {
        if let Some(value) = value {
            command.args([name, &value.to_string()]);
        }
    }
    run_command(&mut command)
}
