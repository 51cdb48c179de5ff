//! The same tests on this machine's own kernel: a column to hold the guests' against.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use xtask::command::is_root;

use super::Plan;
use super::guest::KEEP_SHAPES;
use super::report::{Report, Task};

/// Runs them one after the other, each in a process of its own, as in the guests.
pub(super) fn run(plan: &Plan<'_>) -> Result<Report> {
    if !is_root() {
        bail!("the kernel tests need root");
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("which kernel this is")?;
    let mut report = Report::new("host", release.trim(), plan.tests.len());
    let begin = Instant::now();
    for test in plan.tests {
        let mut task = task(plan, test, &plan.binaries.tests, &["--exact", test, "--nocapture"])?;
        // The harness ends well, too, when it found no test of the name.
        if task.status == Some(0) && !task.output.contains("1 passed") {
            task.status = None;
            task.output.push_str("the test did not run\n");
        }
        if let Some(progress) = report.add(task) {
            eprintln!("xtask: host {progress}");
        }
    }
    report.add(task(plan, "doctor", &plan.binaries.observer, &["doctor", "-o", "json"])?);
    report.finish(begin.elapsed());
    Ok(report)
}

fn task(plan: &Plan<'_>, name: &str, program: &Path, arguments: &[&str]) -> Result<Task> {
    let path = plan.directory.join("host.out");
    let out = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", &plan.test_timeout.as_secs().to_string()]).arg(program).args(arguments);
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).env("RUST_BACKTRACE", "0");
    if let Some(directory) = plan.keep_shapes {
        command.env(KEEP_SHAPES, std::path::absolute(directory)?);
    }
    let begin = Instant::now();
    let status = command.status().context("cannot start timeout")?;
    let output = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
    Ok(Task { name: name.to_owned(), status: status.code(), seconds: begin.elapsed().as_secs_f64(), output })
}
