//! What this process may do: capabilities, seccomp, lockdown, as /proc tells.

use std::fs;
use std::io;

use super::CaptureError;
use super::kernel::is_before;

/// A capability that matters to capture (`include/uapi/linux/capability.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Load programs and create maps; since 5.8.
    Bpf,
    /// Attach tracing programs and read kernel memory; since 5.8.
    Perfmon,
    /// See addresses in /proc/kallsyms.
    Syslog,
    /// Stands for BPF and PERFMON.
    SysAdmin,
    /// Raise the memory lock limit, needed for maps before 5.11.
    SysResource,
}

impl Capability {
    /// Bit number.
    pub const fn bit(self) -> u32 {
        match self {
            Capability::SysAdmin => 21,
            Capability::SysResource => 24,
            Capability::Syslog => 34,
            Capability::Perfmon => 38,
            Capability::Bpf => 39,
        }
    }

    /// As capabilities(7) writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Capability::SysAdmin => "CAP_SYS_ADMIN",
            Capability::SysResource => "CAP_SYS_RESOURCE",
            Capability::Syslog => "CAP_SYSLOG",
            Capability::Perfmon => "CAP_PERFMON",
            Capability::Bpf => "CAP_BPF",
        }
    }
}

/// Effective capabilities and confinement of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// `CapEff` of /proc/self/status.
    pub effective: u64,
    /// `Seccomp`: 0 off, 1 strict, 2 filter.
    pub seccomp: u8,
}

impl Permissions {
    /// Of this process.
    pub fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    fn parse(status: &str) -> Self {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        Permissions {
            effective: field("CapEff").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0),
            seccomp: field("Seccomp").and_then(|mode| mode.parse().ok()).unwrap_or(0),
        }
    }

    /// Whether the capability, or CAP_SYS_ADMIN where that stands for it, is effective.
    pub fn has(self, capability: Capability) -> bool {
        let set = |capability: Capability| self.effective >> capability.bit() & 1 == 1;
        set(capability) || (matches!(capability, Capability::Bpf | Capability::Perfmon | Capability::Syslog) && set(Capability::SysAdmin))
    }

    /// Which of those that loading and attaching need are missing.
    pub fn missing_for_capture(self) -> Vec<Capability> {
        [Capability::Bpf, Capability::Perfmon].into_iter().filter(|&capability| !self.has(capability)).collect()
    }
}

/// Who keeps the bpf() system call from doing its work although the capabilities are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuser {
    /// A seccomp filter: the call does not reach the kernel.
    Seccomp,
    /// Kernel lockdown in the mode `confidentiality`, which forbids reading kernel memory.
    Lockdown,
    /// Something else, as a rule a Linux security module.
    SecurityModule,
    /// The kernel was built without the call.
    Kernel,
}

/// Whether anything stands between this process and bpf(); found by a call with a command that does not exist, which the
/// kernel answers with EINVAL (`__sys_bpf` in kernel/bpf/syscall.c).
pub fn refuser() -> Option<Refuser> {
    let attributes = [0u64; 16];
    // SAFETY: the attributes outlive the call, and the command, which is none, makes the kernel do nothing with them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, i32::MAX, attributes.as_ptr(), size_of_val(&attributes)) };
    let error = if result < 0 { io::Error::last_os_error().raw_os_error() } else { None };
    who_refused(error, Permissions::read())
}

fn who_refused(error: Option<i32>, permissions: Permissions) -> Option<Refuser> {
    match error? {
        libc::EINVAL => None,
        // Before 5.16 a process without CAP_BPF gets this from the kernel itself.
        libc::EPERM if !permissions.has(Capability::Bpf) => None,
        _ if permissions.seccomp == SECCOMP_MODE_FILTER => Some(Refuser::Seccomp),
        libc::ENOSYS => Some(Refuser::Kernel),
        _ => Some(Refuser::SecurityModule),
    }
}

/// What an error of bpf() means when it is not about the program itself. `release` is `uname -r`, `what` the step.
pub(super) fn refusal(what: &'static str, release: &str, error: i32) -> Option<CaptureError> {
    let permissions = Permissions::read();
    let missing = permissions.missing_for_capture();
    let refuser = refuser();
    // EACCES is what the verifier answers too.
    if error == libc::EPERM && !missing.is_empty() {
        return Some(CaptureError::NotPermitted { what, missing });
    }
    if let Some(refuser) = refuser {
        return Some(CaptureError::Refused(refuser));
    }
    if error != libc::EPERM {
        return None;
    }
    if let Some(limit) = memory_lock(release).filter(|_| !permissions.has(Capability::SysResource)) {
        return Some(CaptureError::MemoryLock { release: release.to_owned(), limit });
    }
    Some(CaptureError::Refused(if lockdown_hides_memory() { Refuser::Lockdown } else { Refuser::SecurityModule }))
}

/// The memory lock limit in bytes where maps count against it: before 5.11, unless it is unlimited.
pub fn memory_lock(release: &str) -> Option<u64> {
    if !charges_memlock(release) {
        return None;
    }
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to an rlimit that outlives the call.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    (result == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Before 5.11 maps are charged to RLIMIT_MEMLOCK, since then to the memory cgroup.
pub fn charges_memlock(release: &str) -> bool {
    is_before(release, (5, 11))
}

fn lockdown_hides_memory() -> bool {
    fs::read_to_string("/sys/kernel/security/lockdown").is_ok_and(|modes| modes.contains("[confidentiality]"))
}

/// `Seccomp:` in /proc/self/status when a filter is installed.
const SECCOMP_MODE_FILTER: u8 = 2;

/// Lets the capture go first: the calling thread, and those it makes, get less of a busy CPU than others.
pub fn give_way() {
    // SAFETY: no memory is passed. On Linux the value is the thread's own; a kernel that refuses leaves it as it was.
    unsafe { libc::nice(5) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_status_file() {
        let permissions = Permissions::parse("Name:\tobserver\nCapEff:\t000000c000000000\nSeccomp:\t2\nSeccomp_filters:\t1\n");
        assert!(permissions.has(Capability::Bpf) && permissions.has(Capability::Perfmon));
        assert!(!permissions.has(Capability::Syslog));
        assert_eq!(permissions.seccomp, 2);
        assert!(permissions.missing_for_capture().is_empty());
    }

    #[test]
    fn sys_admin_stands_for_the_newer_ones_but_not_for_all() {
        let permissions = Permissions { effective: 1 << 21, seccomp: 0 };
        assert!(permissions.missing_for_capture().is_empty());
        assert!(!permissions.has(Capability::SysResource));
        let none = Permissions { effective: 0, seccomp: 0 };
        assert_eq!(none.missing_for_capture(), [Capability::Bpf, Capability::Perfmon]);
    }

    #[test]
    fn a_refused_system_call_is_told_from_a_missing_capability() {
        let all = Permissions { effective: u64::MAX, seccomp: 0 };
        let confined = Permissions { seccomp: 2, ..all };
        let none = Permissions { effective: 0, seccomp: 2 };
        assert_eq!(who_refused(Some(libc::EINVAL), confined), None, "the kernel's own answer");
        assert_eq!(who_refused(Some(libc::EPERM), confined), Some(Refuser::Seccomp));
        assert_eq!(who_refused(Some(libc::ENOSYS), none), Some(Refuser::Seccomp));
        assert_eq!(who_refused(Some(libc::EPERM), none), None, "may be the kernel's answer to one without the capability");
        assert_eq!(who_refused(Some(libc::EPERM), all), Some(Refuser::SecurityModule));
        assert_eq!(who_refused(Some(libc::ENOSYS), all), Some(Refuser::Kernel));
        assert_eq!(who_refused(None, confined), None);
    }

    #[test]
    fn maps_count_against_the_memory_lock_limit_before_5_11() {
        assert!(charges_memlock("5.10.0-33-cloud-amd64"));
        assert!(charges_memlock("4.18.0-553.el8_10.x86_64"));
        assert!(!charges_memlock("5.11.0"));
        assert!(!charges_memlock("6.1.0-28-amd64"));
        assert!(!charges_memlock("7.0-rc1"));
        assert!(!charges_memlock("unknown"));
    }
}
