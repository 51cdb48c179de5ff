//! What this process may do: capabilities, seccomp, lockdown, as /proc tells.

use std::fs;

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
}
