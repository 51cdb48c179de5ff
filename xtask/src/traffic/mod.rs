//! Packets for benchmarks and the soak: UDP datagrams with forged sources, frames that nobody takes, at a given rate.

pub mod cluster;
mod forger;
mod frames;
mod pace;
mod segments;

pub use forger::{Datagram, Forger};
pub use frames::Frames;
pub use pace::{Sent, paced};
pub use segments::{SEGMENTS, Segments};

use std::io;

/// Keeps the calling thread on one CPU.
///
/// # Errors
/// There is no such CPU.
pub fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: plain old data, empty when all bits are zero; the pointer outlives the call.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many CPUs this process may use.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
