//! Filling a record.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_stack, bpf_probe_read_kernel};
use netpol_observer_common::{DeviceAddress, DeviceKey, DropRecord, FEW_STACK_FRAMES, Field, HEADER_BYTES, RecordFlags, STACK_FRAMES};

use crate::kernel::{NFCT_PTRMASK, Origin, SkBuff, follow, forgotten, now, offset, probe, probe_into, zero};
use crate::maps::{may_take_stack, remember, remember_cgroup};

/// Frames left out: this program and the function that runs it.
const SKIP_FRAMES: u64 = 2;

/// Writes every field of `record` and returns its time.
///
/// # Safety
/// `record` points to writable memory of a `DropRecord`; `ctx` is the program's context.
#[inline(always)]
pub(crate) unsafe fn fill<const TYPED: bool>(
    record: *mut DropRecord,
    ctx: *mut c_void,
    skb: &SkBuff<TYPED>,
    origin: &Origin,
    location: u64,
    reason: u32,
) -> u64 {
    let now = now();
    // SAFETY: see above; each field is written once, reads of kernel memory are checked by the helpers.
    unsafe {
        (*record).time_ns = now;
        (*record).location = location;
        (*record).reason = reason;
        (*record).netns = origin.netns;
        (*record).reserved = [0; 7];
        let mut flags = origin.flags;

        let name = (&raw mut (*record).ifname).cast::<u64>();
        name.write(origin.ifname[0]);
        name.add(1).write(origin.ifname[1]);
        (*record).ifindex = origin.ifindex;
        if origin.device != 0 && origin.ifindex == 0 {
            (*record).ifindex = probe::<u32>(origin.device, Field::DevIfindex);
            probe_into(&raw mut (*record).ifname, origin.device, Field::DevName);
        }
        remember(&DeviceKey { netns: origin.netns, ifindex: (*record).ifindex }, &DeviceAddress { device: origin.device, net: origin.net });
        flags |= conntrack(record, skb);
        flags |= socket(record, skb);
        flags = forgotten(u64::from(flags), now) as u32;
        packet(record, skb);
        if skb.is_being_forwarded(origin, (*record).ifindex) {
            flags |= RecordFlags::FORWARDED;
        }
        stack(record, ctx, now, flags & (RecordFlags::FORWARDED | RecordFlags::DEVICE_FROM_ROUTE) != 0);
        (*record).flags = flags;
    }
    now
}

/// The original tuple: what the opener sent, before any translation.
#[inline(always)]
unsafe fn conntrack<const TYPED: bool>(record: *mut DropRecord, skb: &SkBuff<TYPED>) -> u32 {
    // SAFETY: `_nfct` is an unsigned long; the entry is read by checked helpers.
    unsafe {
        let nfct = skb.get::<u64>(Field::SkbNfct);
        let entry = nfct & NFCT_PTRMASK;
        (*record).ct_info = (nfct & 7) as u8;
        (*record).ct_status = 0;
        zero::<5>((&raw mut (*record).ct_original).cast());
        if entry == 0 || offset(Field::NfConnOriginal).is_none() {
            return 0;
        }
        (*record).ct_status = probe::<u64>(entry, Field::NfConnStatus) as u32;
        probe_into(&raw mut (*record).ct_original, entry, Field::NfConnOriginal);
    }
    RecordFlags::CONNTRACK
}

#[inline(always)]
unsafe fn socket<const TYPED: bool>(record: *mut DropRecord, skb: &SkBuff<TYPED>) -> u32 {
    let socket = skb.socket();
    let cgroup = skb.cgroup();
    // SAFETY: fields are read by typed loads or checked helpers.
    unsafe {
        (*record).socket_cookie = 0;
        (*record).cgroup_id = cgroup.id;
        if socket == 0 {
            return 0;
        }
        (*record).socket_cookie = follow::<TYPED, u64>(socket, Field::SockCookie);
    }
    if cgroup.id == 0 {
        return RecordFlags::SOCKET;
    }
    remember_cgroup(cgroup.id, cgroup.node);
    RecordFlags::SOCKET | RecordFlags::KEYED_BY_CGROUP
}

#[inline(always)]
unsafe fn packet<const TYPED: bool>(record: *mut DropRecord, skb: &SkBuff<TYPED>) {
    let (network, available) = skb.network();
    // SAFETY: fields of sk_buff with their sizes; the helper copies at most HEADER_BYTES into the record.
    unsafe {
        (*record).packet_len = skb.get::<u32>(Field::SkbLen);
        (*record).network_offset = network.wrapping_sub(skb.get::<u64>(Field::SkbData)) as i32;
        (*record).ether_type = u16::from_be(skb.get::<u16>(Field::SkbProtocol));
        zero::<{ HEADER_BYTES / 8 }>((&raw mut (*record).header).cast());
        let len = if available > HEADER_BYTES as u32 { HEADER_BYTES as u32 } else { available };
        let header = (&raw mut (*record).header).cast::<c_void>();
        let copied = bpf_probe_read_kernel(header, len, network as *const _);
        (*record).header_len = if copied == 0 { len as u16 } else { 0 };
    }
}

#[inline(always)]
unsafe fn stack(record: *mut DropRecord, ctx: *mut c_void, now: u64, hook_is_known: bool) {
    // SAFETY: the helper writes at most the array's size.
    unsafe {
        let frames = (&raw mut (*record).stack).cast::<u64>();
        zero::<STACK_FRAMES>(frames);
        if hook_is_known {
            if may_take_stack(now) {
                bpf_get_stack(ctx, frames.cast(), (FEW_STACK_FRAMES * 8) as u32, SKIP_FRAMES);
            }
        } else {
            bpf_get_stack(ctx, frames.cast(), (STACK_FRAMES * 8) as u32, SKIP_FRAMES);
        }
    }
}
