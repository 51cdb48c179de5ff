//! What the kernel says meanwhile.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result};

const PATH: &str = "/dev/kmsg";

/// `KERN_WARNING`: this and what is worse is not clean.
const WARNING: u64 = 4;

/// Longer ones the kernel does not write (`CONSOLE_EXT_LOG_MAX`).
const RECORD: usize = 8192;

/// From when it was opened on.
pub(super) struct KernelLog {
    file: File,
}

impl KernelLog {
    pub(super) fn open() -> Result<Self> {
        let mut file =
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(PATH).with_context(|| format!("cannot open {PATH}"))?;
        file.seek(SeekFrom::End(0)).with_context(|| format!("cannot go to the end of {PATH}"))?;
        Ok(KernelLog { file })
    }

    /// Warnings and worse.
    pub(super) fn finish(mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut record = [0; RECORD];
        loop {
            match self.file.read(&mut record) {
                Ok(0) => return Ok(lines),
                Ok(length) => lines.extend(bad(&String::from_utf8_lossy(&record[..length]))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(lines),
                // Overwritten before it was read: there was a lot of it.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {
                    lines.push("messages were overwritten before they were read".to_owned());
                }
                Err(error) => return Err(error).with_context(|| format!("cannot read {PATH}")),
            }
        }
    }
}

/// The text of a record (`level,sequence,time,flags;text`) that is a warning or worse.
fn bad(record: &str) -> Option<String> {
    let (head, text) = record.split_once(';')?;
    let level: u64 = head.split(',').next()?.parse().ok()?;
    // The low three bits; the others are the facility, and 0 is the kernel's own.
    (level >> 3 == 0 && level & 7 <= WARNING).then(|| text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_the_kernel_count() {
        assert_eq!(bad("4,700,1000,-;WARNING: CPU: 0\n SUBSYSTEM=net\n").as_deref(), Some("WARNING: CPU: 0"));
        assert_eq!(bad("6,701,1000,-;eth0: link up\n"), None);
        assert_eq!(bad("12,702,1000,-;a program's own warning\n"), None);
    }
}
