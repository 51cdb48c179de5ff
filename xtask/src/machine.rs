//! The machine for oneself: the tracepoint is the machine's, so that kernel tests, benchmarks of capture and the soak run one at a time.

use std::fmt::Debug;
use std::fs::{File, TryLockError};
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::netns::required_tools;
use crate::testing::skipped;

/// The machine, for as long as this value lives. Given back also when the process is killed.
#[derive(Debug)]
pub struct Machine {
    _locked: File,
}

impl Machine {
    /// Waits until nobody else has it, and says so when that takes time.
    ///
    /// # Errors
    /// The file that is locked cannot be made.
    pub fn take() -> Result<Self> {
        let (path, file) = file()?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("waiting for kernel tests or a benchmark that run on this machine ({})", path.display());
                file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
        Ok(Self { _locked: file })
    }

    /// For one test with real drops, or `None` after printing why it cannot run here. `missing` are the capabilities that capture needs and the process
    /// lacks; `is_built_in`: the observer has its eBPF program.
    ///
    /// # Panics
    /// As [`take`](Machine::take) fails.
    pub fn for_test(test: &str, missing: &[impl Debug], is_built_in: bool) -> Option<Self> {
        let why = if !missing.is_empty() {
            format!("missing {missing:?}; run as root")
        } else if !is_built_in {
            "built without the eBPF program; run `cargo xtask test`".to_owned()
        } else if let Some(tool) = required_tools().first() {
            format!("the Debian package {} is not installed", tool.package)
        } else {
            // Each has a handle of its own: tests of one process, too, wait for each other.
            let (path, file) = file().expect("a directory for temporary files");
            file.lock().unwrap_or_else(|error| panic!("cannot lock {}: {error}", path.display()));
            return Some(Self { _locked: file });
        };
        skipped(test, &why);
        None
    }
}

fn file() -> Result<(PathBuf, File)> {
    let path = std::env::temp_dir().join("npo-test.lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok((path, file))
}
