//! Why capture cannot start, and what to do about it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::btf::BtfError;
use super::permissions::{Capability, Refuser};

/// Why capture cannot start.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The binary carries the stub.
    #[error("this binary was built without the eBPF program, so it cannot watch the kernel")]
    NoProgram,
    /// No /sys/kernel/btf/vmlinux.
    #[error("the kernel's type information is not readable at {}: {error}", path.display())]
    NoBtf {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It is there and not understood.
    #[error("the kernel's type information in {} cannot be used: {error}", path.display())]
    Btf {
        /// Where it was read.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        error: BtfError,
    },
    /// A required field.
    #[error("a kernel field the program needs cannot be found: {0}")]
    Field(#[source] BtfError),
    /// No `kfree_skb` tracepoint.
    #[error("kernel {release} has no tracepoint {tracepoint}, as far as its type information tells")]
    NoTracepoint {
        /// `uname -r`
        release: String,
        /// Its name.
        tracepoint: &'static str,
    },
    /// It is there, but only without types.
    #[error("kernel {release} does not offer the tracepoint {tracepoint} with typed arguments (tp_btf)")]
    NoTypedTracepoint {
        /// `uname -r`
        release: String,
        /// Its name.
        tracepoint: &'static str,
    },
    /// Neither reasons nor symbols: nothing tells a drop from any other free.
    #[error(
        "kernel {release} gives no drop reasons (they came with 5.17), and the addresses of its functions, by which drops are told \
         instead, are hidden from this process"
    )]
    NoPlaces {
        /// `uname -r`
        release: String,
    },
    /// EPERM, told apart.
    #[error("not permitted to {what}: missing {}", list(missing))]
    NotPermitted {
        /// The step.
        what: &'static str,
        /// Capabilities that this process lacks.
        missing: Vec<Capability>,
    },
    /// Refused although the capabilities are there.
    #[error("the bpf() system call is refused although the capabilities are there: {}", refused(*.0))]
    Refused(Refuser),
    /// Before 5.11: maps count against the memory lock limit.
    #[error(
        "the program's maps do not fit the memory lock limit of {} KiB: on kernel {release} they count against it, and this process \
         lacks CAP_SYS_RESOURCE, with which it would raise the limit", limit / 1024
    )]
    MemoryLock {
        /// `uname -r`
        release: String,
        /// RLIMIT_MEMLOCK in bytes.
        limit: u64,
    },
    /// The kernel rejected the program.
    #[error("the kernel does not accept the program: {0}")]
    Load(String),
    /// A map that the object should hold.
    #[error("the eBPF object has no {0}: it does not belong to this binary")]
    ForeignObject(&'static str),
    /// Anything else of the kernel's.
    #[error("cannot {what}: {error}")]
    Io {
        /// The step.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
}

fn list(capabilities: &[Capability]) -> String {
    capabilities.iter().map(|capability| capability.name()).collect::<Vec<_>>().join(", ")
}

fn refused(by: Refuser) -> &'static str {
    match by {
        Refuser::Seccomp => "a seccomp filter does not let it through",
        Refuser::Lockdown => "kernel lockdown (confidentiality) forbids reading kernel memory",
        Refuser::SecurityModule => "a Linux security module forbids it",
        Refuser::Kernel => "this kernel was built without it (CONFIG_BPF_SYSCALL)",
    }
}

impl CaptureError {
    /// What the user can do next.
    pub fn hint(&self) -> &'static str {
        match self {
            CaptureError::NoProgram => {
                "build with `cargo xtask build`, which brings the eBPF toolchain; `--replay FILE` works without the program"
            }
            CaptureError::NoBtf { .. } => {
                "the kernel must be built with CONFIG_DEBUG_INFO_BTF and /sys must be mounted; or give the BTF of this very kernel with \
                 --kernel-btf FILE"
            }
            CaptureError::Btf { .. } => {
                "a file given with --kernel-btf must be the BTF of this very kernel in the form of /sys/kernel/btf/vmlinux; when it is the \
                 kernel's own, please report the kernel release and this message"
            }
            CaptureError::Field(_) | CaptureError::ForeignObject(_) => {
                "please report the kernel release and this message; `observer doctor` shows the rest"
            }
            CaptureError::NoTracepoint { .. } => "docs/kernels.md lists the kernels that were tried",
            CaptureError::NoTypedTracepoint { .. } => "--attach auto uses a raw tracepoint instead",
            CaptureError::NoPlaces { .. } => "give CAP_SYSLOG, and set sysctl kernel.kptr_restrict to 0 or 1",
            CaptureError::NotPermitted { .. } => {
                "run as root, or give the process CAP_BPF and CAP_PERFMON (kernel 5.8 on), and CAP_SYSLOG for symbol names"
            }
            CaptureError::Refused(Refuser::Seccomp) => {
                "in a container use a runtime whose default seccomp profile permits bpf() with CAP_BPF (containerd 1.7, Docker 23.0 or newer), or a \
                 Localhost profile that does, such as deploy/seccomp/netpol-observer.json (docs/install.md)"
            }
            CaptureError::Refused(Refuser::Lockdown) => "boot without lockdown=confidentiality; lockdown=integrity is no obstacle",
            CaptureError::Refused(Refuser::SecurityModule) => "the kernel log or the audit log says which module and why",
            CaptureError::Refused(Refuser::Kernel) => "docs/kernels.md lists the kernels that were tried",
            CaptureError::MemoryLock { .. } => "give CAP_SYS_RESOURCE, or raise the limit (`ulimit -l unlimited`) before the start",
            CaptureError::Load(_) | CaptureError::Io { .. } => "`observer doctor` shows what this kernel and process can do",
        }
    }
}
