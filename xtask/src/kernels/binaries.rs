//! What is tested: the kernel tests and the observer, as static programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use xtask::command::output;
use xtask::toolchain;

use crate::cargo;

/// Naming a target keeps the flags away from build scripts, which need not be static.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// See Cargo.toml.
const PROFILE: &str = "guest";

/// The static programs.
pub(super) struct Binaries {
    /// The test binary of netpol-observer/tests/kernel.
    pub(super) tests: PathBuf,
    /// Where the test binary looks for the observer.
    pub(super) observer: PathBuf,
}

impl Binaries {
    /// Compiles them into a target directory of their own.
    pub(super) fn build(root: &Path, directory: &Path) -> Result<Self> {
        toolchain::build_object(root)?;
        eprintln!("xtask: building static tests for the guests (some minutes the first time)");
        let mut command = cargo(root);
        command.args(["test", "--locked", "--no-run", "--package", "netpol-observer", "--test", "kernel", "--message-format", "json"]);
        command.args(["--profile", PROFILE, "--target", TARGET, "--target-dir"]).arg(directory.join("build"));
        command.env("RUSTFLAGS", "-C target-feature=+crt-static").env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("CARGO_TARGET_DIR");
        let built = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
        if !built.status.success() {
            bail!("the tests for the guests do not compile: {}", built.status);
        }
        let messages = String::from_utf8_lossy(&built.stdout);
        let executable = |kind: &str, name: &str| {
            let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut of_target = messages.filter(|message| message["target"]["kind"][0] == kind && message["target"]["name"] == name);
            of_target.find_map(|message| message["executable"].as_str().map(PathBuf::from))
        };
        let tests = executable("test", "kernel").context("cargo did not say where the kernel tests are")?;
        let observer = executable("bin", "observer").context("cargo did not say where the observer is")?;
        Ok(Binaries { tests, observer })
    }

    /// Names of the tests that have one of `filters` in them; of all tests without filters.
    pub(super) fn tests(&self, filters: &[String]) -> Result<Vec<String>> {
        let list = output(Command::new(&self.tests).args(["--list", "--format", "terse"]))?;
        let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
        let wanted = |name: &&str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
        Ok(names.filter(wanted).map(str::to_owned).collect())
    }
}
