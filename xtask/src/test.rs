//! `cargo xtask test`: everything CI checks.

use std::path::Path;

use anyhow::{Result, bail};
use xtask::command::{is_root, run};
use xtask::toolchain;

use crate::cargo;

/// Format, lints, all tests; ends by printing what ran.
pub(crate) fn all(root: &Path) -> Result<()> {
    toolchain::build_object(root)?;
    if is_root() {
        toolchain::bring_network_tools()?;
    }
    let mut ran: Vec<(&str, Result<()>)> = Vec::new();
    let mut step = |name: &'static str, args: &[&str]| {
        eprintln!("\nxtask: {name}");
        ran.push((name, run(cargo(root).args(args))));
    };
    step("format", &["fmt", "--all", "--check"]);
    step("lints", &["clippy", "--locked", "--all-targets", "--", "-D", "warnings"]);
    step("tests", &["test", "--locked", "--no-fail-fast"]);
    // They share the machine's one tracepoint, and some count every drop there is: one at a time.
    step(
        "kernel tests",
        &[
            "test",
            "--locked",
            "--package",
            "netpol-observer",
            "--test",
            "kernel",
            "--",
            "--test-threads=1",
            "--ignored",
        ],
    );
    eprintln!();
    for (name, result) in &ran {
        eprintln!("xtask: {name}: {}", if result.is_ok() { "passed" } else { "FAILED" });
    }
    let failed = ran.iter().filter(|(_, result)| result.is_err()).count();
    println!("{} passed, {failed} failed", ran.len() - failed);
    if failed > 0 {
        bail!("{failed} of {} steps failed", ran.len());
    }
    Ok(())
}
