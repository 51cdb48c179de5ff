//! The maps shared with user space, and the tables user space sets.

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use netpol_observer_common::{
    CGROUPS, CORE_REASONS, CgroupNames, Counter, Counters, DEVICES, DeviceAddress, DeviceKey, FOLD_ENTRIES, FoldKey, FoldValue,
    LOCATION_RANGES, LocationRange, ReasonAction, Surroundings, Way,
};

/// Records on their way to user space. User space sets the size when it loads the program.
#[map]
pub(crate) static RECORDS: RingBuf = RingBuf::with_byte_size(8 * 1024 * 1024, 0);

/// [`Counters`] per CPU.
#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// Whether the kernel skips a program that it has interrupted on the same CPU, so that a second one stands in. Set by user space.
#[unsafe(no_mangle)]
static GUARDED: u32 = 0;

/// Whether a task may be preempted in the middle of a program. Set by user space.
#[unsafe(no_mangle)]
static PREEMPTIBLE: u32 = 0;

/// Per CPU, whether the reader is to be woken; see [`submit_flags`].
#[map]
static WAKE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Per CPU, when a stack was last taken that the hook is not read from.
#[map]
static LAST_STACK: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Between two such stacks: one to two microseconds of every fifty.
const STACK_INTERVAL_NS: u64 = 50_000;

/// Per CPU, the packets that the first program has handled and the second one has not seen yet; see [`Note`].
#[map]
static HANDLED: PerCpuArray<u64> = PerCpuArray::with_max_entries(NOTES, 0);

/// One for interrupts, and one for each thread that may have been preempted, or almost so: some share one.
const NOTES: u32 = 1024;

/// [`ReasonAction`] of the reasons below [`CORE_REASONS`].
#[map]
static CORE_REASON_ACTIONS: Array<u32> = Array::with_max_entries(CORE_REASONS, 0);

/// [`ReasonAction`] of subsystem reasons (the subsystem is in the high 16 bits).
#[map]
static SUBSYSTEM_REASON_ACTIONS: HashMap<u32, u32> = HashMap::with_max_entries(256, 0);

/// Functions for [`ReasonAction::BY_LOCATION`]; the first unused range ends the list.
#[map]
static LOCATIONS: Array<LocationRange> = Array::with_max_entries(LOCATION_RANGES, 0);

/// Which of the two fold tables is in use: bit 0 of the first element. User space flips it, waits until no program can
/// still be using the other table, and then empties that one.
#[map]
static EPOCH: Array<u32> = Array::with_max_entries(1, 0);

#[map]
static FOLD_EVEN: HashMap<FoldKey, FoldValue> = HashMap::with_max_entries(FOLD_ENTRIES, 0);

#[map]
static FOLD_ODD: HashMap<FoldKey, FoldValue> = HashMap::with_max_entries(FOLD_ENTRIES, 0);

/// Where the devices of recent records are.
#[map(name = "DEVICES")]
static DEVICE_ADDRESSES: LruHashMap<DeviceKey, DeviceAddress> = LruHashMap::with_max_entries(DEVICES, 0);

/// Where the kernfs nodes of the cgroups of recent records are, by their ids.
#[map(name = "CGROUPS")]
static CGROUP_NODES: LruHashMap<u64, u64> = LruHashMap::with_max_entries(CGROUPS, 0);

/// Byte offsets for the programs `surroundings` and `cgroup_names`. Not read-only data as [`crate::kernel`]'s: modules bring their types late.
#[map]
static WAYS: Array<u32> = Array::with_max_entries(Way::COUNT as u32, 0);

/// What that program found last. Whoever runs it sees to it that nobody else does at the time.
#[map]
static SURROUNDINGS: Array<Surroundings> = Array::with_max_entries(1, 0);

/// What `cgroup_names` found last, likewise.
#[map]
static CGROUP_NAMES: Array<CgroupNames> = Array::with_max_entries(1, 0);

/// Whether the table says that this free is a drop to speak of.
#[inline(always)]
pub(crate) fn is_candidate(reason: u32, location: u64) -> bool {
    let action = if reason < CORE_REASONS {
        CORE_REASON_ACTIONS.get(reason).copied()
    } else {
        // SAFETY: user space replaces values whole, and a value is one aligned word.
        unsafe { SUBSYSTEM_REASON_ACTIONS.get(reason) }.copied()
    };
    match action {
        Some(ReasonAction::REPORT) => true,
        Some(ReasonAction::BY_LOCATION) => in_locations(location),
        _ => false,
    }
}

#[inline(always)]
fn in_locations(location: u64) -> bool {
    for i in 0..LOCATION_RANGES {
        let Some(range) = LOCATIONS.get(i) else { return false };
        if range.end == 0 {
            return false;
        }
        if location >= range.start && location < range.end {
            return true;
        }
    }
    false
}

/// What the first of two equal programs leaves to the second.
///
/// From 6.2 on the kernel skips a program that it has interrupted on the same CPU: when the packets that an interrupt brings are dropped
/// in the middle of a run for a packet that a task sends, they are not shown to that program. They are shown to the other one, since only one
/// of the two can have been interrupted. So each free is shown to both, to one after the other; the first handles it and says so here, and the
/// second handles what it does not find here. From 7.0 on a task may be preempted in the middle of a run, and then this goes for the packets of
/// other tasks too.
///
/// A note that is left over, because its packet came in the middle of a run of the second, could be taken for one about the next packet at the
/// same address. So both programs erase the interrupts' note whenever they run; what remains is an interrupt between the second one's
/// erasing and its end, and another one, with no free of a packet between the two, between the first one's beginning and its
/// erasing: a few instructions each.
pub(crate) struct Note(*mut u64);

impl Note {
    /// What is freed in interrupts. `None` never happens, but the verifier does not know.
    #[inline(always)]
    pub(crate) fn of_interrupts() -> Option<Self> {
        HANDLED.get_ptr_mut(0).map(Note)
    }

    /// What this thread frees, or an interrupt.
    #[inline(always)]
    pub(crate) fn of(thread: Option<u32>) -> Option<Self> {
        let slot = match thread {
            None => 0,
            Some(thread) => 1 + thread % (NOTES - 1),
        };
        HANDLED.get_ptr_mut(slot).map(Note)
    }

    /// Whether it is about this packet.
    #[inline(always)]
    pub(crate) fn is(&self, packet: *const u8) -> bool {
        // SAFETY: an element of this CPU, valid for this run of the program. Volatile here and below: interrupts change it.
        unsafe { self.0.read_volatile() == packet as u64 }
    }

    #[inline(always)]
    pub(crate) fn write(&self, packet: *const u8) {
        // SAFETY: as above.
        unsafe { self.0.write_volatile(packet as u64) };
    }

    #[inline(always)]
    pub(crate) fn erase(&self) {
        // SAFETY: as above.
        unsafe { self.0.write_volatile(0) };
    }
}

/// See [`GUARDED`].
#[inline(always)]
pub(crate) fn guarded() -> bool {
    // SAFETY: a static. Volatile, because user space replaces the initial value.
    unsafe { core::ptr::read_volatile(&raw const GUARDED) != 0 }
}

/// How records are submitted. Waking the reader is the likeliest cause of a task's being preempted: the reader wants the CPU at once. Where that
/// can happen in the middle of a program, the second program wakes it as the last thing it does, so that nobody is kept out of the first.
#[inline(always)]
pub(crate) fn submit_flags() -> u64 {
    // SAFETY: a static. Volatile, because user space replaces the initial value.
    if unsafe { core::ptr::read_volatile(&raw const PREEMPTIBLE) } == 0 {
        return 0;
    }
    if let Some(wake) = WAKE.get_ptr_mut(0) {
        // SAFETY: this CPU's element.
        unsafe { wake.write_volatile(1) };
    }
    u64::from(BPF_RB_NO_WAKEUP)
}

/// Wakes the reader if that was put off. Without room in the ring it is awake.
#[inline(always)]
pub(crate) fn wake() {
    // SAFETY: a static, as above.
    if unsafe { core::ptr::read_volatile(&raw const PREEMPTIBLE) } == 0 {
        return;
    }
    let Some(wake) = WAKE.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's element.
    unsafe {
        if wake.read_volatile() == 0 {
            return;
        }
        wake.write_volatile(0);
    }
    if let Some(nothing) = RECORDS.reserve::<u64>(0) {
        nothing.discard(u64::from(BPF_RB_FORCE_WAKEUP));
    }
}

/// Whether a stack may be taken that the hook is not read from. In a flood of new flows only now and then.
#[inline(always)]
pub(crate) fn may_take_stack(now: u64) -> bool {
    let Some(last) = LAST_STACK.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's element. Whoever interrupts takes one stack more.
    unsafe {
        if now - last.read_volatile() < STACK_INTERVAL_NS {
            return false;
        }
        last.write_volatile(now);
    }
    true
}

/// Adds one to a counter of this CPU. Interrupts, and from 7.0 on other tasks, may do so in the middle of it.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: the pointer is this CPU's element.
        unsafe {
            add_one(match counter {
                Counter::Seen => &raw mut (*counters).seen,
                Counter::Reported => &raw mut (*counters).reported,
                Counter::Folded => &raw mut (*counters).folded,
                Counter::RingFull => &raw mut (*counters).ring_full,
                Counter::Unfolded => &raw mut (*counters).unfolded,
            });
        }
    }
}

/// Adds one, whoever else does so at the same time.
///
/// # Safety
/// `to` is a writable, aligned word of a map.
#[inline(always)]
pub(crate) unsafe fn add_one(to: *mut u64) {
    // The target has no compare-and-swap as far as rustc knows, so core offers no fetch_add; every BPF has this one.
    // SAFETY: see above.
    unsafe { core::arch::asm!("lock *(u64 *)({to} + 0) += {one}", to = in(reg) to, one = in(reg) 1u64) };
}

#[inline(always)]
fn odd_epoch() -> bool {
    match EPOCH.get_ptr(0) {
        // SAFETY: an aligned word that user space writes whole. Volatile, so that a flip during the program is seen or not
        // seen, but not half.
        Some(epoch) => (unsafe { core::ptr::read_volatile(epoch) }) & 1 == 1,
        None => false,
    }
}

/// The count behind `key` in the table in use.
#[inline(always)]
pub(crate) fn fold_value(key: &FoldKey) -> Option<*mut FoldValue> {
    if odd_epoch() { FOLD_ODD.get_ptr_mut(key) } else { FOLD_EVEN.get_ptr_mut(key) }
}

/// Puts `key` into the table in use.
#[inline(always)]
pub(crate) fn fold_insert(key: &FoldKey, value: &FoldValue, flags: u64) -> Result<(), i32> {
    if odd_epoch() { FOLD_ODD.insert(key, value, flags) } else { FOLD_EVEN.insert(key, value, flags) }
}

/// Remembers where a device is, for questions that user space may have.
#[inline(always)]
pub(crate) fn remember(key: &DeviceKey, address: &DeviceAddress) {
    let known = DEVICE_ADDRESSES.get_ptr(key);
    // SAFETY: a pointer to a map value, valid for this run of the program; torn reads cost one more update.
    if !known.is_some_and(|known| unsafe { (*known).device == address.device && (*known).net == address.net }) {
        // Full buckets and interrupted updates leave the question without an answer, that is all.
        let _ = DEVICE_ADDRESSES.insert(key, address, 0);
    }
}

/// Remembers where a cgroup is, likewise.
#[inline(always)]
pub(crate) fn remember_cgroup(id: u64, node: u64) {
    let known = CGROUP_NODES.get_ptr(id);
    // SAFETY: a pointer to an aligned word of a map, valid for this run of the program.
    if !known.is_some_and(|known| unsafe { known.read_volatile() } == node) {
        let _ = CGROUP_NODES.insert(id, node, 0);
    }
}

/// Where a cgroup was.
#[inline(always)]
pub(crate) fn recall_cgroup(id: u64) -> Option<u64> {
    // SAFETY: an aligned word; the program checks what it leads to.
    unsafe { CGROUP_NODES.get(id) }.copied()
}

/// Where a device was.
#[inline(always)]
pub(crate) fn recall(key: &DeviceKey) -> Option<DeviceAddress> {
    // SAFETY: what is copied is plain data; the program checks what it leads to.
    unsafe { DEVICE_ADDRESSES.get(key) }.copied()
}

/// Offset of a field, if this kernel has it.
#[inline(always)]
pub(crate) fn way(way: Way) -> Option<u64> {
    match WAYS.get(way as u32).copied() {
        None | Some(netpol_observer_common::ABSENT) => None,
        Some(offset) => Some(u64::from(offset)),
    }
}

/// Where the answer goes.
#[inline(always)]
pub(crate) fn surroundings() -> Option<*mut Surroundings> {
    SURROUNDINGS.get_ptr_mut(0)
}

/// Where the names of a cgroup go.
#[inline(always)]
pub(crate) fn cgroup_names() -> Option<*mut CgroupNames> {
    CGROUP_NAMES.get_ptr_mut(0)
}
