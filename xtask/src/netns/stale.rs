//! Who owns a namespace, and removing those whose owner is dead.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::netns::{NETNS_DIR, named};

/// The process that made a bed. Process ids are used again, so the start time belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pid: u32,
    /// `starttime` of `/proc/PID/stat`: clock ticks since boot.
    start: u64,
}

impl Owner {
    pub(super) fn this_process() -> Result<Self> {
        let pid = std::process::id();
        let start = start_time(pid).with_context(|| format!("cannot read the start time from /proc/{pid}/stat"))?;
        Ok(Self { pid, start })
    }

    /// `PID-START-…`, what [`fmt::Display`] wrote and anything behind it.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let pid = parts.next()?.parse().ok()?;
        let start = parts.next()?.parse().ok()?;
        parts.next()?;
        Some(Self { pid, start })
    }

    fn is_alive(self) -> bool {
        start_time(self.pid) == Some(self.start)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.pid, self.start)
    }
}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)); none when there is no such process.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name, may hold spaces and parentheses; the fields behind it are counted from its end.
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Removes namespaces and temporary directories of dead owners.
pub(super) fn cleanup(prefix: &str) -> Result<usize> {
    let namespaces = stale_entries(Path::new(NETNS_DIR), prefix)?;
    for name in &namespaces {
        remove_namespace(name)?;
    }
    let temporary = std::env::temp_dir();
    for name in stale_entries(&temporary, prefix)? {
        let path = temporary.join(name);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}, left by an earlier run", path.display()));
            }
            _ => {}
        }
    }
    Ok(namespaces.len())
}

/// Names of the form `PREFIX-PID-START-…` in a directory whose process is gone.
fn stale_entries(directory: &Path, prefix: &str) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot list {}", directory.display())),
    };
    let mut stale = Vec::new();
    for entry in entries {
        let name = entry.with_context(|| format!("cannot list {}", directory.display()))?.file_name();
        let Some(name) = name.to_str() else { continue };
        let owner = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-')).and_then(Owner::parse);
        if owner.is_some_and(|owner| !owner.is_alive()) {
            stale.push(name.to_owned());
        }
    }
    Ok(stale)
}

/// Kills what runs in a namespace, then removes its name. One that is gone already is fine: another run may clean up too.
pub(super) fn remove_namespace(name: &str) -> Result<()> {
    let path = Path::new(NETNS_DIR).join(name);
    if !path.exists() {
        return Ok(());
    }
    let end = Instant::now() + PATIENCE;
    loop {
        let processes = processes_in(&path)?;
        if processes.is_empty() {
            break;
        }
        if Instant::now() >= end {
            bail!("processes {processes:?} in network namespace {name} do not end");
        }
        for pid in processes {
            // SAFETY: kill takes two integers and touches no memory of this process.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        // They end when they are next on a processor.
        std::thread::sleep(Duration::from_millis(1));
    }
    match named::delete(name) {
        Err(_) if !path.exists() => Ok(()),
        outcome => outcome,
    }
}

/// Processes whose network namespace is the one at `path`, without this process itself.
fn processes_in(path: &Path) -> Result<Vec<i32>> {
    let wanted = fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    let own = i32::try_from(std::process::id()).ok();
    let processes = fs::read_dir("/proc").context("cannot list /proc")?;
    Ok(processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| Some(*pid) != own)
        // A process that ends meanwhile has no link any more, which is what is wanted of it.
        .filter(|pid| {
            fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|found| found.ino() == wanted.ino() && found.dev() == wanted.dev())
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_is_alive_and_its_namesake_of_another_time_is_not() -> Result<()> {
        let own = Owner::this_process()?;
        assert!(own.is_alive());
        assert!(!Owner { start: own.start + 1, ..own }.is_alive());
        assert_eq!(Owner::parse(&format!("{own}-0-node")), Some(own));
        Ok(())
    }

    #[test]
    fn names_of_others_are_not_owners() {
        for name in ["", "1", "1-2", "x-2-node", "1-y-node", "-1-2-node"] {
            assert_eq!(Owner::parse(name), None, "{name}");
        }
    }
}
