//! Reading kernel structures at offsets that user space has taken from BTF.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::helpers::{
    bpf_ktime_get_ns,
    generated::{bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel},
};
use netpol_observer_common::{ABSENT, Field, RecordFlags};

/// Byte offsets of [`Field`]s. User space replaces the table before the program is loaded; the map it lies in is then
/// frozen, so that the verifier knows each value, checks each access as a fixed offset and removes what is [`ABSENT`].
#[unsafe(no_mangle)]
static OFFSETS: [u32; Field::COUNT] = [ABSENT; Field::COUNT];

/// Whether the tracepoint has a reason as its third argument (from 5.17, and where distributions brought it earlier). User space
/// reads it off the tracepoint's prototype. Where it is 0, reading the argument is dead code and never verified.
#[unsafe(no_mangle)]
static HAS_REASON: u32 = 0;

/// Addresses of `ip_forward()` and `ip6_forward()`; 0 where user space does not know them.
#[unsafe(no_mangle)]
static FORWARDERS: [u64; 2] = [0; 2];

#[inline(always)]
fn is_forwarder(function: u64) -> bool {
    // SAFETY: a static. Volatile, because user space replaces the initial value.
    let [ip, ip6] = unsafe { ptr::read_volatile(&raw const FORWARDERS) };
    function != 0 && (function == ip || function == ip6)
}

#[inline(always)]
pub(crate) fn has_reason() -> bool {
    // SAFETY: a static. Volatile, because user space replaces the initial value.
    unsafe { ptr::read_volatile(&raw const HAS_REASON) != 0 }
}

/// `SKB_DST_PTRMASK`: bit 0 of `_skb_refdst` is SKB_DST_NOREF.
const DST_PTRMASK: u64 = !1;
/// `NFCT_PTRMASK`: the low three bits of `_nfct` are `enum ip_conntrack_info`.
pub(crate) const NFCT_PTRMASK: u64 = !7;

#[inline(always)]
pub(crate) fn offset(field: Field) -> Option<usize> {
    // SAFETY: the index is a discriminant and so in bounds. Volatile, because user space replaces the initial value.
    let offset = unsafe { ptr::read_volatile(&raw const OFFSETS[field as usize]) };
    if offset == ABSENT { None } else { Some(offset as usize) }
}

/// Loads a field through a pointer whose type the verifier knows; a bad address reads as zero (PROBE_MEM).
///
/// # Safety
/// `base` is a BTF-typed pointer of the structure that `field` belongs to, and `T` has the field's size.
#[inline(always)]
pub(crate) unsafe fn load<T: Copy + Default>(base: *const u8, field: Field) -> T {
    match offset(field) {
        // SAFETY: see above; the verifier checks offset and size against the structure.
        Some(offset) => unsafe { ptr::read_volatile(base.add(offset).cast::<T>()) },
        None => T::default(),
    }
}

/// Reads a field at an address that the verifier knows nothing of. Zero when it cannot be read.
///
/// # Safety
/// `T` is plain old data for which all bits zero is a value.
#[inline(always)]
pub(crate) unsafe fn probe<T: Copy + Default>(base: u64, field: Field) -> T {
    let mut value = T::default();
    if let Some(offset) = offset(field) {
        // SAFETY: the helper checks the source address and writes at most size_of::<T>() bytes.
        unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, (base + offset as u64) as *const _) };
    }
    value
}

/// Reads a field of what a pointer read from a structure leads to. `TYPED`: the pointer comes from a typed structure, so that the verifier knows its
/// type too and the read is a plain load, which costs a twentieth of a helper call.
///
/// # Safety
/// As for [`load`] or [`probe`].
#[inline(always)]
pub(crate) unsafe fn follow<const TYPED: bool, T: Copy + Default>(base: u64, field: Field) -> T {
    // SAFETY: see above.
    unsafe { if TYPED { load(base as *const u8, field) } else { probe(base, field) } }
}

/// As [`probe`], straight into `to`.
///
/// # Safety
/// `to` is writable for the size of a `T`, which is plain old data.
#[inline(always)]
pub(crate) unsafe fn probe_into<T>(to: *mut T, base: u64, field: Field) {
    if let Some(offset) = offset(field) {
        // SAFETY: the helper checks the source address; it fills what it cannot read with zeros.
        unsafe { bpf_probe_read_kernel(to.cast(), size_of::<T>() as u32, (base + offset as u64) as *const _) };
    }
}

/// Zeros `N` words. Word by word: a memset would become a call that loops over bytes.
///
/// # Safety
/// `to` is aligned and writable for `N` words.
#[inline(always)]
pub(crate) unsafe fn zero<const N: usize>(to: *mut u64) {
    for i in 0..N {
        // SAFETY: see above. Volatile, so that the compiler does not make it a memset again.
        unsafe { to.add(i).write_volatile(0) };
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Bytes of a task's stack, at least (THREAD_SIZE; 16 KiB on x86-64 and arm64, more with KASAN). A frame beyond, on a bigger stack, is
/// taken for an interrupt's, which does no harm.
const STACK_BYTES: u64 = 16 * 1024;

/// The thread that frees the packet, or `None` when an interrupt does: whose stack this program runs on, on which its context lies
/// (`bpf_trace_run4()` in kernel/trace/bpf_trace.c).
#[inline(always)]
pub(crate) fn thread<const TYPED: bool>(ctx: *mut c_void) -> Option<u32> {
    // SAFETY: the helpers have no preconditions; a typed pointer may be loaded from, another is probed.
    let stack = unsafe {
        if TYPED {
            load::<u64>(bpf_get_current_task_btf() as *const u8, Field::TaskStack)
        } else {
            probe::<u64>(bpf_get_current_task(), Field::TaskStack)
        }
    };
    // The verifier lets the context be compared, but not be calculated with, which the compiler would make of a range check.
    let mut end = stack;
    // SAFETY: an addition, out of the compiler's sight.
    unsafe { core::arch::asm!("{end} += {bytes}", end = inout(reg) end, bytes = in(reg) STACK_BYTES) };
    if ctx as u64 >= stack && (ctx as u64) < end {
        // SAFETY: no preconditions. The lower half is the thread, the upper the process.
        Some(unsafe { bpf_get_current_pid_tgid() } as u32)
    } else {
        None
    }
}

/// The packet: `struct sk_buff *`. `TYPED` says that the verifier knows the pointer's type (`tp_btf`), so that fields are loaded
/// directly; otherwise (raw tracepoint) each read is a helper call.
pub(crate) struct SkBuff<const TYPED: bool>(pub(crate) *const u8);

/// TCP_TIME_WAIT and TCP_NEW_SYN_RECV (include/net/tcp_states.h): sockets in these states are small structures without a
/// cgroup (`sk_fullsock()`).
const TCP_TIME_WAIT: u8 = 6;
const TCP_NEW_SYN_RECV: u8 = 12;

/// A number of which the verifier knows nothing any more, whatever it knew of it. Ways that differ in what is known of a number are gone
/// through to their ends one by one; those that do not are once. `by` is a number that it knows nothing of.
#[inline(always)]
pub(crate) fn forgotten(value: u64, by: u64) -> u64 {
    let mut value = value;
    // SAFETY: an addition and a subtraction.
    unsafe { core::arch::asm!("{value} += {by}", "{value} -= {by}", value = inout(reg) value, by = in(reg) by) };
    value
}

/// A socket's cgroup v2.
pub(crate) struct Cgroup {
    /// Its kernfs id, 0 without one.
    pub(crate) id: u64,
    /// Address of its `kernfs_node`.
    pub(crate) node: u64,
}

/// Where a packet was: its device and network namespace.
pub(crate) struct Origin {
    /// Address of the `net_device`, 0 without one.
    pub(crate) device: u64,
    /// Address of the `net`, 0 when unknown.
    pub(crate) net: u64,
    pub(crate) netns: u32,
    /// [`RecordFlags`] that tell where these come from.
    pub(crate) flags: u32,
    /// Index and name of the device, where they come at no cost; 0 otherwise.
    pub(crate) ifindex: u32,
    pub(crate) ifname: [u64; 2],
}

impl<const TYPED: bool> SkBuff<TYPED> {
    /// # Safety
    /// As for [`load`].
    #[inline(always)]
    pub(crate) unsafe fn get<T: Copy + Default>(&self, field: Field) -> T {
        // SAFETY: the tracepoint's first argument is a trusted `struct sk_buff *`; what the verifier does not know to be one is
        // read by the checking helper.
        unsafe { if TYPED { load(self.0, field) } else { probe(self.0 as u64, field) } }
    }

    /// Address of the socket, or 0.
    #[inline(always)]
    pub(crate) fn socket(&self) -> u64 {
        // SAFETY: pointer-sized.
        unsafe { self.get(Field::SkbSk) }
    }

    /// The cgroup of the socket.
    #[inline(always)]
    pub(crate) fn cgroup(&self) -> Cgroup {
        let none = Cgroup { id: 0, node: 0 };
        let socket = self.socket();
        if socket == 0 {
            return none;
        }
        // SAFETY: a byte, pointers and a number, by typed loads or checked helpers.
        unsafe {
            let state = follow::<TYPED, u8>(socket, Field::SockState);
            if state == TCP_TIME_WAIT || state == TCP_NEW_SYN_RECV {
                return none;
            }
            let cgroup = follow::<TYPED, u64>(socket, Field::SockCgroup);
            let node = if cgroup == 0 { 0 } else { follow::<TYPED, u64>(cgroup, Field::CgroupKn) };
            if node == 0 { none } else { Cgroup { id: follow::<TYPED, u64>(node, Field::KernfsId), node } }
        }
    }

    /// Address and length of the linear data from the network header on.
    #[inline(always)]
    pub(crate) fn network(&self) -> (u64, u32) {
        // SAFETY: fields of sk_buff with the sizes of `unsigned char *`, `__u16`, `sk_buff_data_t` (u32 on 64 bit).
        let (head, network_header, tail) =
            unsafe { (self.get::<u64>(Field::SkbHead), self.get::<u16>(Field::SkbNetworkHeader), self.get::<u32>(Field::SkbTail)) };
        let start = u32::from(network_header);
        // Unset (0xffff) or beyond the data: nothing to copy.
        let len = if tail > start { tail - start } else { 0 };
        (head + u64::from(start), len)
    }

    /// Whether the packet is to be forwarded and still on the device it came in by; see [`RecordFlags::FORWARDED`].
    #[inline(always)]
    pub(crate) fn is_being_forwarded(&self, origin: &Origin, ifindex: u32) -> bool {
        if origin.flags & RecordFlags::DEVICE == 0 || offset(Field::SkbIif).is_none() {
            return false;
        }
        // SAFETY: a number and an int of sk_buff; pointers of the route, which is read with checks.
        unsafe {
            let route = self.get::<u64>(Field::SkbRefdst) & DST_PTRMASK;
            route != 0
                && self.get::<u32>(Field::SkbIif) == ifindex
                && is_forwarder(probe::<u64>(route, Field::DstInput))
                && probe::<u64>(route, Field::DstDev) != origin.device
        }
    }

    /// In the OUTPUT hook the packet has no device yet: then the route has one, and without a route the socket knows the
    /// namespace.
    #[inline(always)]
    pub(crate) fn origin(&self) -> Origin {
        // SAFETY: pointer-sized fields of sk_buff.
        let (device, refdst) = unsafe { (self.get::<u64>(Field::SkbDev), self.get::<u64>(Field::SkbRefdst)) };
        if device != 0 {
            return at_device::<TYPED>(device, RecordFlags::DEVICE);
        }
        let route = refdst & DST_PTRMASK;
        if route != 0 {
            // SAFETY: pointer-sized; an address that cannot be read gives zero. Of a masked number the verifier knows no type.
            let device = unsafe { probe::<u64>(route, Field::DstDev) };
            if device != 0 {
                return at_device::<false>(device, RecordFlags::DEVICE_FROM_ROUTE);
            }
        }
        let socket = self.socket();
        if socket != 0 {
            // SAFETY: a pointer, and an unsigned int behind it.
            let (net, netns) = unsafe {
                let net = follow::<TYPED, u64>(socket, Field::SockNet);
                (net, if net == 0 { 0 } else { follow::<TYPED, u32>(net, Field::NetInum) })
            };
            return Origin { device: 0, net, netns, flags: RecordFlags::NETNS_FROM_SOCKET, ifindex: 0, ifname: [0; 2] };
        }
        Origin { device: 0, net: 0, netns: 0, flags: 0, ifindex: 0, ifname: [0; 2] }
    }
}

#[inline(always)]
fn at_device<const TYPED: bool>(device: u64, flags: u32) -> Origin {
    // SAFETY: a pointer, unsigned ints, and sixteen characters.
    unsafe {
        let net = follow::<TYPED, u64>(device, Field::DevNet);
        let netns = if net == 0 { 0 } else { follow::<TYPED, u32>(net, Field::NetInum) };
        let mut origin = Origin { device, net, netns, flags, ifindex: 0, ifname: [0; 2] };
        if TYPED {
            origin.ifindex = load(device as *const u8, Field::DevIfindex);
            if let Some(offset) = offset(Field::DevName) {
                let name = (device as *const u8).add(offset).cast::<u64>();
                origin.ifname = [ptr::read_volatile(name), ptr::read_volatile(name.add(1))];
            }
        }
        origin
    }
}
