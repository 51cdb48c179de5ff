//! `cargo xtask bench policy`: what the policy engine costs, side by side with a scan through all policies, and whether the two agree.

mod cluster;
mod figures;
mod flows;
mod judge;
mod measure;
mod scan;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use cluster::{SHAPES, Shape, generate};
use figures::Report;
use measure::Part;

/// Measures the policy engine on generated clusters. Exits with 1 when a verdict differs from the scan's, with 2 when it cannot run.
#[derive(Parser)]
struct Options {
    /// Clusters by their number of pods: 500, 2000, 10000, 100000.
    #[arg(long, value_name = "PODS", value_delimiter = ',', default_values_t = [500, 2_000, 10_000], value_parser = parse_shape)]
    pods: Vec<usize>,
    /// Only these parts.
    #[arg(long, value_name = "PARTS", value_delimiter = ',', value_enum)]
    only: Vec<Part>,
    /// Seed of the clusters and of the connections.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds that one measurement may take where more would only make it steadier.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    budget: f64,
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// Only write the manifests of the clusters, each into a directory of its number of pods in this one.
    #[arg(long, value_name = "DIRECTORY")]
    write: Option<PathBuf>,
    /// The child process whose memory is measured.
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    memory: Option<PathBuf>,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Why the benchmark could not run.
type Failure = Box<dyn std::error::Error>;

fn parse_shape(text: &str) -> Result<usize, String> {
    let pods = text.parse().map_err(|_| "not a number".to_owned())?;
    let known = SHAPES.iter().any(|shape| shape.pods == pods);
    if known { Ok(pods) } else { Err("there are clusters of 500, 2000, 10000 and 100000 pods".to_owned()) }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench policy: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, Failure> {
    if let Some(directory) = &options.memory {
        measure::memory::child(directory, options.seed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let shapes: Vec<&Shape> = SHAPES.iter().filter(|shape| options.pods.contains(&shape.pods)).collect();
    if let Some(directory) = &options.write {
        return write(directory, &shapes, options.seed);
    }
    if cfg!(debug_assertions) {
        eprintln!("bench policy: not optimised; the figures mean nothing. Run `cargo xtask bench policy`.");
    }
    let mut report = Report {
        seed: options.seed,
        cores: std::thread::available_parallelism().map_or(1, Into::into),
        kernel: kernel(),
        clusters: Vec::new(),
    };
    let budget = Duration::try_from_secs_f64(options.budget)?;
    for shape in shapes {
        report.clusters.push(measure::cluster(shape, options.seed, budget, &options.only)?);
    }
    match options.output {
        Format::Text => print!("{}", report.text()),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(if report.disagreements() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(directory: &Path, shapes: &[&Shape], seed: u64) -> Result<ExitCode, Failure> {
    for shape in shapes {
        let directory = directory.join(shape.pods.to_string());
        std::fs::create_dir_all(&directory)
            .and_then(|()| generate(shape, seed).write(&directory))
            .map_err(|error| format!("cannot write into {}: {error}", directory.display()))?;
        println!("{}", directory.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// `6.18` of `6.18.5-distribution`.
fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().split('.').take(2).collect::<Vec<_>>().join(".")
}
