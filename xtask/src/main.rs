//! Project tasks: `cargo xtask COMMAND`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::demo::{self, DemoOptions, pod};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Project tasks", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run a small shop in network namespaces, break calls in many ways and watch the observer explain each (needs root).
    Demo {
        /// The built `observer` program.
        #[arg(long)]
        observer: PathBuf,
    },
    /// What runs in the demo's pods.
    #[command(hide = true)]
    PodServe(pod::ServeOptions),
    /// What the demo's pods call with.
    #[command(hide = true)]
    PodCall(pod::CallOptions),
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Task::Demo { observer } => demo::run(DemoOptions { observer })?,
        Task::PodServe(options) => pod::serve(options)?,
        Task::PodCall(options) => return pod::call(&options),
    }
    Ok(ExitCode::SUCCESS)
}
