//! A program that does nothing, on the same tracepoint: what the kernel's statistics themselves add to each run.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_long = 17;
/// `enum bpf_prog_type`.
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;

/// `r0 = 0; exit`: `struct bpf_insn` twice.
const INSTRUCTIONS: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];

/// The first members of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// Likewise for BPF_RAW_TRACEPOINT_OPEN.
#[repr(C)]
struct RawTracepointOpen {
    name: u64,
    prog_fd: u32,
    padding: u32,
}

/// Attached until it is dropped.
pub(crate) struct Empty {
    program: OwnedFd,
    _link: OwnedFd,
}

impl Empty {
    pub(crate) fn attach() -> Result<Self> {
        let mut load = ProgLoad {
            prog_type: BPF_PROG_TYPE_RAW_TRACEPOINT,
            insn_cnt: INSTRUCTIONS.len() as u32,
            insns: INSTRUCTIONS.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            ..ProgLoad::default()
        };
        load.prog_name[..12].copy_from_slice(b"bench_empty\0");
        let program = bpf(BPF_PROG_LOAD, &load).context("cannot load an empty program")?;
        let open = RawTracepointOpen { name: c"kfree_skb".as_ptr() as u64, prog_fd: program.as_raw_fd() as u32, padding: 0 };
        let link = bpf(BPF_RAW_TRACEPOINT_OPEN, &open).context("cannot attach an empty program")?;
        Ok(Empty { program, _link: link })
    }

    pub(crate) fn descriptor(&self) -> i32 {
        self.program.as_raw_fd()
    }
}

/// A command that gives a descriptor. `T` is the part of `union bpf_attr` that the command reads; the kernel takes the rest for zeros.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the pointer is valid for the size given, and what it points to lives longer than the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: a descriptor just made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
