//! `cargo xtask bench deploy`: starts netpol-observer's benchmark of that name, optimised.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use xtask::command::run as run_command;

use crate::cargo;

/// What the benchmark is started with.
#[derive(Args)]
pub(crate) struct Deploy {
    /// Runs of each; the median counts [default: 7].
    #[arg(long)]
    runs: Option<usize>,
}

pub(crate) fn run(root: &Path, options: &Deploy) -> Result<()> {
    let mut command = cargo(root);
    command.args(["bench", "--locked", "--package", "netpol-observer", "--bench", "deploy", "--"]);
    if let Some(runs) = options.runs {
        command.args(["--runs", &runs.to_string()]);
    }
    run_command(&mut command)
}
