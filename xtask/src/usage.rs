//! What a process uses, from /proc.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// A process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// `VmRSS`, bytes.
    pub resident: u64,
    /// Open descriptors.
    pub descriptors: usize,
    /// Time on a CPU in user mode since it began.
    pub user: Duration,
    /// Likewise in the kernel.
    pub system: Duration,
}

/// Looks at a process.
///
/// # Errors
/// There is none of that id, or it is another user's.
pub fn of(pid: u32) -> Result<Usage> {
    let directory = PathBuf::from(format!("/proc/{pid}"));
    let read = |name: &str| fs::read_to_string(directory.join(name)).with_context(|| format!("no process {pid}"));
    let (status, stat) = (read("status")?, read("stat")?);
    let descriptors = fs::read_dir(directory.join("fd")).with_context(|| format!("cannot list the descriptors of process {pid}"))?.count();
    let (user, system) = times(&stat).with_context(|| format!("/proc/{pid}/stat is not as expected: {stat}"))?;
    Ok(Usage { resident: resident(&status).unwrap_or(0), descriptors, user, system })
}

/// Looks at a process ten times within a fifth of a second, for the descriptors that stay open: a file that is read just then is none of them. The rest
/// is that of the last look.
///
/// # Errors
/// As [`of`].
pub fn settled(pid: u32) -> Result<Usage> {
    let mut looks = vec![of(pid)?];
    for _ in 1..10 {
        std::thread::sleep(Duration::from_millis(20));
        looks.push(of(pid)?);
    }
    Ok(settle(&looks))
}

fn settle(looks: &[Usage]) -> Usage {
    let descriptors = looks.iter().map(|look| look.descriptors).min().unwrap_or_default();
    Usage { descriptors, ..looks.last().copied().unwrap_or_default() }
}

fn resident(status: &str) -> Option<u64> {
    let kib: u64 = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// Fields 14 and 15 (proc_pid_stat(5)). The second field, the program's name, may hold spaces and parentheses.
fn times(stat: &str) -> Option<(Duration, Duration)> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let mut ticks = || Some(Duration::from_secs_f64(fields.next()?.parse::<u64>().ok()? as f64 / clock_ticks()));
    Some((ticks()?, ticks()?))
}

/// Clock ticks of /proc in a second.
fn clock_ticks() -> f64 {
    // SAFETY: no memory is passed.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks as f64 } else { 100.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_open_for_a_moment_is_no_descriptor_that_stays() {
        let look = |resident, descriptors| Usage { resident, descriptors, ..Usage::default() };
        assert_eq!(settle(&[look(1, 42), look(2, 41), look(3, 43)]), look(3, 41));
        assert_eq!(settle(&[look(1, 42), look(2, 42)]), look(2, 42), "one that stays");
    }

    #[test]
    fn this_process_has_memory_descriptors_and_time() -> Result<()> {
        let usage = of(std::process::id())?;
        assert!(usage.resident > 100 * 1024 && usage.descriptors >= 3, "{usage:?}");
        Ok(())
    }

    #[test]
    fn a_name_with_parentheses_is_no_field() {
        let stat = "7 (a) b (c) R 1 2 3 4 5 6 7 8 9 10 250 125 0";
        let (user, system) = times(stat).unwrap();
        assert_eq!(user.as_secs_f64() * clock_ticks(), 250.0);
        assert_eq!(system.as_secs_f64() * clock_ticks(), 125.0);
    }
}
