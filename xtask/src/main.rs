//! `cargo xtask …`: builds the eBPF program and its toolchain, and runs what needs them.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use xtask::command::{is_root, run};
use xtask::demo::{self, DemoOptions, pod};
use xtask::{soak, toolchain};

/// Builds netpol-observer with its eBPF program, and runs the demo and the tests.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Xtask {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Brings the eBPF toolchain, compiles the eBPF program and the observer.
    Build {
        /// Optimised.
        #[arg(long)]
        release: bool,
    },
    /// Builds a shop in network namespaces, breaks calls in many ways and has the observer explain each. Needs root.
    Demo {
        /// Run this built observer instead of building one.
        #[arg(long, value_name = "PROGRAM")]
        observer: Option<PathBuf>,
    },
    /// Measures what the program costs; without a name: lists the benchmarks.
    Bench {
        #[command(subcommand)]
        bench: Option<bench::Bench>,
    },
    /// Feeds the parsers and the engine inputs that libFuzzer makes up. Needs a C++ compiler, which it installs on Debian.
    Fuzz {
        /// How long each target runs.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
        seconds: u64,
        /// Only this one.
        #[arg(value_parser = fuzz::TARGETS)]
        target: Option<String>,
    },
    /// Builds the agents' image, FROM scratch and without a container engine: one static program, and what it is made of.
    Image(image::ImageOptions),
    /// Boots distribution kernels under QEMU and runs the kernel tests there. Needs Debian's packages of kernels, which it fetches.
    Kernels(kernels::KernelsOptions),
    /// Floods with readers that come and go: nothing lost without account, no growth, nothing left behind. Needs root.
    Soak {
        /// How long.
        #[arg(long, default_value_t = 20.0, value_name = "MINUTES", value_parser = minutes)]
        minutes: f64,
        /// Run this built observer instead of building an optimised one.
        #[arg(long, value_name = "PROGRAM")]
        observer: Option<PathBuf>,
    },
    /// Checks format and lints, and runs all tests, the kernel tests included (those need root).
    Test,
    /// What runs in the demo's pods.
    #[command(hide = true)]
    PodServe(pod::ServeOptions),
    /// What the demo's pods call with.
    #[command(hide = true)]
    PodCall(pod::CallOptions),
}

fn main() -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    match Xtask::parse().task {
        Task::Build { release } => {
            let binary = build(root, release)?;
            println!("{}", binary.display());
        }
        Task::Demo { observer } => {
            if is_root() {
                toolchain::bring_network_tools()?;
            }
            let observer = observer.map_or_else(|| build(root, false), Ok)?;
            demo::run(DemoOptions { observer })?;
        }
        Task::Bench { bench } => bench::run(root, bench)?,
        Task::Fuzz { seconds, target } => fuzz::conclude(&fuzz::run_targets(root, seconds, target.as_deref())?)?,
        Task::Image(options) => image::run(root, &options)?,
        Task::Kernels(options) => kernels::run(root, &options)?,
        Task::Soak { minutes, observer } => {
            if !is_root() {
                bail!("the soak floods network namespaces: run it as root");
            }
            toolchain::bring_network_tools()?;
            let observer = observer.map_or_else(|| build(root, true), Ok)?;
            soak::run_and_report(observer, minutes)?;
        }
        Task::Test => test::all(root)?,
        Task::PodServe(options) => pod::serve(options)?,
        Task::PodCall(options) => return pod::call(&options),
    }
    Ok(ExitCode::SUCCESS)
}

mod bench;
mod fuzz;
mod image;
mod kernels;
mod test;

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.3..=10_000.0).contains(&minutes) { Ok(minutes) } else { Err("0.3 to 10000 minutes".to_owned()) }
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// Builds the observer with its eBPF program and returns its path.
fn build(root: &Path, release: bool) -> Result<PathBuf> {
    toolchain::build_object(root)?;
    let mut command = cargo(root);
    command.args(["build", "--locked", "--package", "netpol-observer", "--bin", "observer"]);
    if release {
        command.arg("--release");
    }
    run(&mut command)?;
    Ok(observer(root, release))
}

/// Where cargo puts the binary.
fn observer(root: &Path, release: bool) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |target| root.join(target));
    target.join(if release { "release" } else { "debug" }).join("observer")
}
