//! `cargo xtask bench policy`: starts netpol-observer's benchmark of that name, optimised.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use xtask::command::run as run_command;

use crate::cargo;

/// What the benchmark is started with.
#[derive(Args)]
pub(crate) struct Policy {
    /// Clusters by their number of pods, with commas between: 500, 2000, 10000, 100000. 500,2000,10000 when not given.
    #[arg(long, value_name = "PODS", value_delimiter = ',')]
    pods: Vec<usize>,
    /// Only these parts of the measurements, with commas between: the benchmark's help lists them.
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<String>,
    /// Seed of the clusters and of the connections [default: 1].
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds that one measurement may take where more would only make it steadier [default: 2].
    #[arg(long, value_name = "SECONDS")]
    budget: Option<f64>,
    /// A table for people, or JSON; progress goes to standard error.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// Only write the manifests of the clusters, each into a directory of its number of pods in this one: to try another engine on them.
    #[arg(long, value_name = "DIRECTORY")]
    write: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(crate) fn run(root: &Path, options: &Policy) -> Result<()> {
    let mut command = cargo(root);
    command.args(["bench", "--locked", "--package", "netpol-observer", "--bench", "policy", "--"]);
    command.args(arguments(options)?);
    run_command(&mut command)
}

fn arguments(options: &Policy) -> Result<Vec<OsString>> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |name: &str, value: OsString| arguments.extend([name.into(), value]);
    if !options.pods.is_empty() {
        add("--pods", options.pods.iter().map(usize::to_string).collect::<Vec<_>>().join(",").into());
    }
    if !options.only.is_empty() {
        add("--only", options.only.join(",").into());
    }
    if let Some(seed) = options.seed {
        add("--seed", seed.to_string().into());
    }
    if let Some(budget) = options.budget {
        add("--budget", budget.to_string().into());
    }
    if options.output == Format::Json {
        add("--output", "json".into());
    }
    if let Some(directory) = &options.write {
        // Cargo starts benchmarks in the directory of their package.
        let directory = std::path::absolute(directory).with_context(|| format!("cannot find {}", directory.display()))?;
        add("--write", directory.into());
    }
    Ok(arguments)
}
