//! Answers to user space's questions about a drop's surroundings. These programs are attached to nothing: user space runs them
//! (`BPF_PROG_TEST_RUN`) when it wants to know.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use netpol_observer_common::{CGROUP_LEVELS, DeviceKey, HookEntry, MAX_HOOK_ENTRIES, Surroundings, Way};

use crate::maps::{cgroup_names as names_of_cgroup, recall, recall_cgroup, surroundings as answer, way};

/// Arguments: network namespace and interface index of a record, and the offset in `struct net` of the pointer to the
/// `nf_hook_entries` in question, 0 for none. The answer is in the map SURROUNDINGS; its `netns` is 0 when there is none.
#[expect(unreachable_pub, reason = "the macro exports the program under this name")]
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn surroundings(ctx: RawTracePointContext) -> i32 {
    let key = DeviceKey { netns: ctx.arg::<u32>(0), ifindex: ctx.arg::<u32>(1) };
    let hooks: u64 = ctx.arg(2);
    let Some(to) = answer() else { return 0 };
    // SAFETY: `to` points to the map's one element, and everything is written by helpers that check the source.
    unsafe {
        (*to).netns = 0;
        let Some(at) = recall(&key) else { return 0 };
        (*to).netns = read::<u32>(at.net, Way::NetInum);
        (*to).hooks = 0;
        peer(to, at.device);
        if hooks != 0 {
            entries(to, pointer(at.net, hooks));
        }
    }
    0
}

/// Argument: the id of a cgroup v2. The answer is in the map CGROUP_NAMES; its `id` is another when there is none. The names of cgroups are in
/// the kernel for everybody alike; a container sees the tree below its own cgroup only.
#[expect(unreachable_pub, reason = "the macro exports the program under this name")]
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn cgroup_names(ctx: RawTracePointContext) -> i32 {
    let id: u64 = ctx.arg(0);
    let Some(to) = names_of_cgroup() else { return 0 };
    // SAFETY: `to` points to the map's one element, and everything is written by helpers that check the source.
    unsafe {
        (*to).id = 0;
        let Some(mut node) = recall_cgroup(id) else { return 0 };
        (*to).id = read::<u64>(node, Way::KernfsId);
        for level in 0..CGROUP_LEVELS {
            string(&raw mut (*to).names[level], follow(node, Way::KernfsName));
            node = follow(node, Way::KernfsParent);
        }
    }
    0
}

/// The other end of a veth or netkit pair. Both keep the peer as first member of the device's private data; that the peer's
/// peer is the device itself makes sure of it.
#[inline(always)]
unsafe fn peer(to: *mut Surroundings, device: u64) {
    // SAFETY: as for the caller.
    unsafe {
        (*to).peer_netns = 0;
        (*to).peer_ifindex = 0;
        string(&raw mut (*to).kind, 0);
        string(&raw mut (*to).peer_name, 0);
        if device == 0 {
            return;
        }
        let operations = follow(device, Way::DeviceLinkOps);
        string(&raw mut (*to).kind, follow(operations, Way::LinkOpsKind));
        let peer = follow(device, Way::DevicePrivate);
        if peer == 0 || follow(peer, Way::DevicePrivate) != device {
            return;
        }
        let net = follow(peer, Way::DeviceNet);
        (*to).peer_netns = read::<u32>(net, Way::NetInum);
        (*to).peer_ifindex = read::<u32>(peer, Way::DeviceIfindex);
        if let Some(offset) = way(Way::DeviceName) {
            string(&raw mut (*to).peer_name, peer + offset);
        }
    }
}

#[inline(always)]
unsafe fn entries(to: *mut Surroundings, entries: u64) {
    let (Some(count), Some(hooks)) = (way(Way::HookCount), way(Way::Hooks)) else { return };
    if entries == 0 {
        return;
    }
    // SAFETY: as for the caller.
    unsafe {
        let count = u64::from(value::<u16>(entries + count));
        (*to).hooks = count as u32;
        // struct nf_hook_entry { nf_hookfn *hook; void *priv; }, then one pointer to nf_hook_ops for each.
        let first = entries + hooks;
        let operations = first + count * 16;
        for i in 0..MAX_HOOK_ENTRIES {
            if i as u64 >= count {
                break;
            }
            let entry = &raw mut (*to).entries[i];
            let at = first + i as u64 * 16;
            (*entry).function = pointer(at, 0);
            (*entry).priority = read::<i32>(pointer(operations, i as u64 * 8), Way::HookPriority);
            (*entry).reserved = 0;
            filter(entry, pointer(at, 8));
        }
    }
}

/// What the entry's private pointer would be, for a chain of nf_tables and for a table of x_tables; the function tells which.
#[inline(always)]
unsafe fn filter(entry: *mut HookEntry, private: u64) {
    // SAFETY: as for the caller.
    unsafe {
        string(&raw mut (*entry).nft_chain, follow(private, Way::ChainName));
        string(&raw mut (*entry).nft_table, follow(follow(private, Way::ChainTable), Way::TableName));
        let name = match way(Way::XtTableName) {
            Some(offset) if private != 0 => private + offset,
            _ => 0,
        };
        string(&raw mut (*entry).xt_table, name);
    }
}

/// The pointer in a field of the structure at `base`; 0 when there is none.
#[inline(always)]
unsafe fn follow(base: u64, field: Way) -> u64 {
    // SAFETY: plain data.
    unsafe { read::<u64>(base, field) }
}

#[inline(always)]
unsafe fn pointer(base: u64, offset: u64) -> u64 {
    // SAFETY: plain data.
    unsafe { value::<u64>(base + offset) }
}

#[inline(always)]
unsafe fn read<T: Copy + Default>(base: u64, field: Way) -> T {
    match way(field) {
        // SAFETY: plain data.
        Some(offset) if base != 0 => unsafe { value(base + offset) },
        _ => T::default(),
    }
}

#[inline(always)]
unsafe fn value<T: Copy + Default>(address: u64) -> T {
    let mut value = T::default();
    // SAFETY: the helper checks the source and writes at most size_of::<T>() bytes, or zeros.
    unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, address as *const c_void) };
    value
}

/// Copies a NUL-terminated string; an address that cannot be read gives an empty one.
#[inline(always)]
unsafe fn string<const N: usize>(to: *mut [u8; N], address: u64) {
    // SAFETY: the helper writes at most N bytes.
    unsafe {
        (*to)[0] = 0;
        bpf_probe_read_kernel_str(to.cast(), N as u32, address as *const c_void);
    }
}
