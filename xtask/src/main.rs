//! `cargo xtask …`: builds the eBPF program and its toolchain, and runs what needs them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use xtask::command::run;
use xtask::toolchain;

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
    /// Checks format and lints, and runs all tests, the kernel tests included (those need root).
    Test,
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask lies in the workspace")?;
    match Xtask::parse().task {
        Task::Build { release } => {
            let binary = build(root, release)?;
            println!("{}", binary.display());
            Ok(())
        }
        Task::Test => test::all(root),
    }
}

mod test;

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
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |target| root.join(target));
    Ok(target.join(if release { "release" } else { "debug" }).join("observer"))
}
