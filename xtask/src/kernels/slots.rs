//! How many guests run on a machine: emulation takes whole processors while a test computes, and none while it waits, which is most of the time.

use std::fs::File;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Guests at a time: five on two processors.
pub(super) fn count() -> u16 {
    std::thread::available_parallelism().map_or(2, |cpus| u16::try_from(cpus.get() * 5 / 2).unwrap_or(u16::MAX))
}

/// The right to run a guest, over all processes of the machine; given back by dropping it, or when the process ends.
pub(super) struct Slot {
    _locked: File,
}

impl Slot {
    /// Waits for one of the slots.
    pub(super) fn take(who: &str) -> Result<Self> {
        let mut waiting = false;
        loop {
            for number in 0..count() {
                let path = std::env::temp_dir().join(format!("npo-kernels-slot-{number}"));
                let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
                if file.try_lock().is_ok() {
                    return Ok(Slot { _locked: file });
                }
            }
            if !waiting {
                eprintln!("xtask: {who}: waiting for guests of other runs on this machine");
                waiting = true;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}
