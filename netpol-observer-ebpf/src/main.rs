//! The eBPF side: a program on the `kfree_skb` tracepoint, and one that stands in for it, in two forms of which one is loaded.
//!
//! It copies and counts, and decides nothing: whether a free is a drop of interest stands in tables that user space fills,
//! where a field lies in a kernel structure user space has looked up, and what the bytes mean is user space's business.
//! The only header fields looked at are those that make the fold key.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the program's macro leaves its comment behind")]
// Inline assembly for BPF, needed for the one atomic instruction; aya-ebpf itself needs an unstable feature too.
#![feature(asm_experimental_arch)]

mod fold;
mod kernel;
mod maps;
mod record;
mod surroundings;

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use aya_log_ebpf::warn;
use netpol_observer_common::{Counter, DropRecord, FoldKey, FoldValue, RecordFlags};

use crate::kernel::SkBuff;
use crate::maps::Note;

/// `-EEXIST` of `bpf_map_update_elem`.
const EEXIST: i32 = -17;
/// `-E2BIG`: the table is full.
const E2BIG: i32 = -7;
/// `-EBUSY`: the bucket is locked by the code this program interrupted.
const EBUSY: i32 = -16;

/// `TP_PROTO(struct sk_buff *skb, void *location, enum skb_drop_reason reason, struct sock *rx_sk)`
/// (include/trace/events/skb.h). `reason` came in 5.17; `rx_sk` in 6.11, and is not needed.
#[expect(unreachable_pub, reason = "the macro exports the program under this name")]
#[btf_tracepoint(function = "kfree_skb")]
pub fn kfree_skb(ctx: BtfTracePointContext) -> i32 {
    let reason = if kernel::has_reason() { ctx.arg::<u32>(2) } else { 0 };
    on_free(&ctx, &SkBuff::<true>(ctx.arg(0)), ctx.arg(1), reason);
    0
}

/// The same once more, for packets that the kernel did not show to the first; see [`Note`].
#[expect(unreachable_pub, reason = "the macro exports the program under this name")]
#[btf_tracepoint(function = "kfree_skb")]
pub fn kfree_skb_2nd(ctx: BtfTracePointContext) -> i32 {
    let reason = if kernel::has_reason() { ctx.arg::<u32>(2) } else { 0 };
    on_free_unless_handled(&ctx, &SkBuff::<true>(ctx.arg(0)), ctx.arg(1), reason);
    0
}

/// The same for kernels that do not give their tracepoints' arguments a type: every read of the packet is a helper call.
#[expect(unreachable_pub, reason = "the macro exports the program under this name")]
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn kfree_skb_raw(ctx: RawTracePointContext) -> i32 {
    let reason = if kernel::has_reason() { ctx.arg::<u32>(2) } else { 0 };
    on_free(&ctx, &SkBuff::<false>(ctx.arg(0)), ctx.arg(1), reason);
    0
}

/// Likewise once more.
#[expect(unreachable_pub, reason = "the macro exports the program under this name")]
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn kfree_raw_2nd(ctx: RawTracePointContext) -> i32 {
    let reason = if kernel::has_reason() { ctx.arg::<u32>(2) } else { 0 };
    on_free_unless_handled(&ctx, &SkBuff::<false>(ctx.arg(0)), ctx.arg(1), reason);
    0
}

#[inline(always)]
fn on_free<const TYPED: bool>(ctx: &impl EbpfContext, skb: &SkBuff<TYPED>, location: u64, reason: u32) {
    if let (true, Some(note)) = (maps::guarded(), Note::of_interrupts()) {
        note.erase();
    }
    if !maps::is_candidate(reason, location) {
        return;
    }
    let note = if maps::guarded() { Note::of(kernel::thread::<TYPED>(ctx.as_ptr())) } else { None };
    if let Some(note) = &note {
        note.erase();
    }
    on_drop(ctx, skb, location, reason);
    if let Some(note) = &note {
        note.write(skb.0);
    }
}

#[inline(always)]
fn on_free_unless_handled<const TYPED: bool>(ctx: &impl EbpfContext, skb: &SkBuff<TYPED>, location: u64, reason: u32) {
    if maps::is_candidate(reason, location)
        && let Some(note) = Note::of(kernel::thread::<TYPED>(ctx.as_ptr()))
    {
        if !note.is(skb.0) {
            on_drop(ctx, skb, location, reason);
        }
        note.erase();
    }
    if let Some(note) = Note::of_interrupts() {
        note.erase();
    }
    maps::wake();
}

/// What is counted and reported of a drop.
#[inline(always)]
fn on_drop<const TYPED: bool>(ctx: &impl EbpfContext, skb: &SkBuff<TYPED>, location: u64, reason: u32) {
    maps::count(Counter::Seen);
    let mut origin = skb.origin();
    origin.flags = kernel::forgotten(u64::from(origin.flags), location) as u32;
    // The record reads it again: kept, it doubles what the verifier has to go through.
    let cgroup = kernel::forgotten(skb.cgroup().id, location);
    let Some(key) = fold::key(skb, origin.netns, reason, cgroup) else {
        report(ctx, skb, &origin, location, reason, None);
        return;
    };
    if let Some(value) = maps::fold_value(&key) {
        fold::add(value, kernel::now());
        maps::count(Counter::Folded);
        return;
    }
    report(ctx, skb, &origin, location, reason, Some(&key));
}

/// Writes a record and, with a key, opens the fold for its repeats. Room in the ring is taken first, so that a key is only
/// ever in the table when its record has been written.
#[inline(always)]
fn report<const TYPED: bool>(
    ctx: &impl EbpfContext,
    skb: &SkBuff<TYPED>,
    origin: &kernel::Origin,
    location: u64,
    reason: u32,
    key: Option<&FoldKey>,
) {
    let Some(mut entry) = maps::RECORDS.reserve::<DropRecord>(0) else {
        maps::count(Counter::RingFull);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is a reserved, aligned DropRecord, and `fill` writes every field of it.
    let now = unsafe { record::fill(record, ctx.as_ptr(), skb, origin, location, reason) };
    let Some(key) = key else {
        maps::count(Counter::Unfolded);
        entry.submit(maps::submit_flags());
        maps::count(Counter::Reported);
        return;
    };
    match maps::fold_insert(key, &FoldValue { count: 0, last_ns: now }, u64::from(BPF_NOEXIST)) {
        Ok(()) => {
            // SAFETY: `fill` has initialised the flags.
            unsafe { (*record).flags |= RecordFlags::FOLDED };
        }
        Err(EEXIST) => {
            // Another CPU reported the same key between our look-up and now; its record stands for this drop.
            if let Some(value) = maps::fold_value(key) {
                fold::add(value, now);
                entry.discard(0);
                maps::count(Counter::Folded);
                return;
            }
            maps::count(Counter::Unfolded);
        }
        Err(error) => {
            if error != E2BIG && error != EBUSY {
                warn!(ctx, "fold table refused a key: error {}", error);
            }
            maps::count(Counter::Unfolded);
        }
    }
    entry.submit(maps::submit_flags());
    maps::count(Counter::Reported);
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lets GPL-compatible programs only call the helpers used here.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
