//! Why capture cannot start, and what to do about it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::btf::BtfError;
use super::permissions::Capability;

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
    #[error("the kernel's type information cannot be used: {0}")]
    Btf(#[source] BtfError),
    /// A required field.
    #[error("a kernel field the program needs cannot be found: {0}")]
    Field(#[source] BtfError),
    /// No typed `kfree_skb` tracepoint.
    #[error("kernel {release} offers no BTF for the tracepoint {tracepoint}")]
    NoTracepoint {
        /// `uname -r`
        release: String,
        /// Its name.
        tracepoint: &'static str,
    },
    /// The kernel knows no drop reasons.
    #[error("kernel {release} gives no drop reasons (they came with 5.17), and judging drops by their location alone is not built yet")]
    NoReasons {
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
    /// EPERM although the capabilities are there.
    #[error("the bpf() system call is refused although the capabilities are there")]
    Refused,
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

impl CaptureError {
    /// What the user can do next.
    pub fn hint(&self) -> &'static str {
        match self {
            CaptureError::NoProgram => {
                "build with `cargo xtask build`, which brings the eBPF toolchain; `--replay FILE` works without the program"
            }
            CaptureError::NoBtf { .. } => "the kernel must be built with CONFIG_DEBUG_INFO_BTF and /sys must be mounted",
            CaptureError::Btf(_) | CaptureError::Field(_) | CaptureError::ForeignObject(_) => {
                "please report the kernel release and this message; `observer doctor` shows the rest"
            }
            CaptureError::NoTracepoint { .. } | CaptureError::NoReasons { .. } => {
                "docs/limitations.md lists the kernels that are supported"
            }
            CaptureError::NotPermitted { .. } => {
                "run as root, or give the process CAP_BPF and CAP_PERFMON (kernel 5.8 on), and CAP_SYSLOG for symbol names"
            }
            CaptureError::Refused => {
                "a seccomp profile or kernel lockdown refuses bpf(): in a container use a runtime whose default profile permits it with \
                 CAP_BPF, or a Localhost profile; `observer doctor` shows which"
            }
            CaptureError::Load(_) | CaptureError::Io { .. } => "`observer doctor` shows what this kernel and process can do",
        }
    }
}
