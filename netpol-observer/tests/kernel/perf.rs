//! Firewall drops as the kernel's own perf events count them: by the same tracepoint, but without any eBPF program.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

/// `struct perf_event_attr` in its first published size (PERF_ATTR_SIZE_VER0), include/uapi/linux/perf_event.h.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    rest: [u64; 6],
}

const PERF_TYPE_TRACEPOINT: u32 = 2;
/// `_IOW('$', 6, char *)`
const PERF_EVENT_IOC_SET_FILTER: libc::c_ulong = 0x4008_2406;

/// Counts drops by netfilter that happen while one of some tasks runs, whether or not the packet is that task's own.
pub(crate) struct InTasks(Vec<OwnedFd>);

impl InTasks {
    /// Starts counting. `None` where the kernel offers no trace events.
    pub(crate) fn count(tasks: &[u32]) -> Option<Self> {
        let (id, reason) = trace_event()?;
        let of_tasks = tasks.iter().map(|task| format!("common_pid=={task}")).collect::<Vec<_>>().join("||");
        let filter = CString::new(format!("reason=={reason}&&({of_tasks})")).unwrap();
        let attributes =
            Attributes { kind: PERF_TYPE_TRACEPOINT, size: size_of::<Attributes>() as u32, config: id, ..Attributes::default() };
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let events = (0..cpus).map(|cpu| {
            // SAFETY: the attributes outlive the call; the descriptor is checked, and owned from here on.
            let event = unsafe {
                let fd = libc::syscall(libc::SYS_perf_event_open, &raw const attributes, -1, cpu, -1, 0);
                assert!(fd >= 0, "perf_event_open: {}", io::Error::last_os_error());
                OwnedFd::from_raw_fd(fd as i32)
            };
            // SAFETY: the filter is a terminated string that outlives the call.
            let set = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&event), PERF_EVENT_IOC_SET_FILTER, filter.as_ptr()) };
            assert_eq!(set, 0, "PERF_EVENT_IOC_SET_FILTER: {}", io::Error::last_os_error());
            event
        });
        Some(InTasks(events.collect()))
    }

    /// How many so far.
    pub(crate) fn read(&self) -> u64 {
        let read = |event: &OwnedFd| {
            let mut count = [0; 8];
            // SAFETY: the buffer is valid for its length.
            let got = unsafe { libc::read(std::os::fd::AsRawFd::as_raw_fd(event), count.as_mut_ptr().cast(), 8) };
            assert_eq!(got, 8, "{}", io::Error::last_os_error());
            u64::from_ne_bytes(count)
        };
        self.0.iter().map(read).sum()
    }
}

/// The threads of a process.
pub(crate) fn tasks_of(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
    tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
}

/// Number of the trace event `skb:kfree_skb`, and the number by which it calls a drop of netfilter.
fn trace_event() -> Option<(u64, u32)> {
    // A thread of its own, which takes its mounts with it.
    let read = || {
        let directory = tempfile::tempdir().ok()?;
        let at = CString::new(directory.path().to_str()?).ok()?;
        // SAFETY: the strings are terminated, and the mounts are this thread's own.
        unsafe {
            let flags = libc::MS_REC | libc::MS_PRIVATE;
            let mounted = libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), flags, std::ptr::null()) == 0
                && libc::mount(c"tracefs".as_ptr(), at.as_ptr(), c"tracefs".as_ptr(), 0, std::ptr::null()) == 0;
            if !mounted {
                return None;
            }
        }
        let event = directory.path().join("events/skb/kfree_skb");
        let id = fs::read_to_string(event.join("id")).ok()?.trim().parse().ok()?;
        // SAFETY: a path of this thread's mount namespace.
        unsafe { libc::umount(at.as_ptr()) };
        Some(id)
    };
    let id = std::thread::spawn(read).join().unwrap()?;
    let kernel = netpol_observer::capture::kernel::Kernel::read(None).ok()?;
    let reason = kernel.reasons().into_iter().find(|(_, name)| name == "SKB_DROP_REASON_NETFILTER_DROP").map(|(number, _)| number)?;
    Some((id, reason))
}
