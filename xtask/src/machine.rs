//! The machine for oneself: the tracepoint is the machine's, so that kernel tests, benchmarks of capture and the soak run one at a time.

use std::fs::{File, TryLockError};

use anyhow::{Context as _, Result};

/// The machine, for as long as this value lives. Given back also when the process is killed.
#[derive(Debug)]
pub struct Machine {
    _locked: File,
}

impl Machine {
    /// Waits until nobody else has it, and says so when that takes time. The kernel tests of `netpol-observer` take the same lock.
    ///
    /// # Errors
    /// The file that is locked cannot be made.
    pub fn take() -> Result<Self> {
        let path = std::env::temp_dir().join("npo-test.lock");
        let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
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
}
