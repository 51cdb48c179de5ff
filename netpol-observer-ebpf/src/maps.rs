//! The maps shared with user space, and the tables user space sets.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use netpol_observer_common::{
    CORE_REASONS, Counter, Counters, FOLD_ENTRIES, FoldKey, FoldValue, LOCATION_RANGES, LocationRange, ReasonAction,
};

/// Records on their way to user space. User space sets the size when it loads the program.
#[map]
pub(crate) static RECORDS: RingBuf = RingBuf::with_byte_size(8 * 1024 * 1024, 0);

/// One [`Counters`] per CPU.
#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

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

/// Adds one to a counter of this CPU. The kernel does not run the program while it is running on the same CPU, so that a
/// plain addition is enough.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: the pointer is this CPU's element, and nobody else writes it while the program runs.
        unsafe {
            let field = match counter {
                Counter::Seen => &mut (*counters).seen,
                Counter::Reported => &mut (*counters).reported,
                Counter::Folded => &mut (*counters).folded,
                Counter::RingFull => &mut (*counters).ring_full,
                Counter::Unfolded => &mut (*counters).unfolded,
            };
            *field += 1;
        }
    }
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
