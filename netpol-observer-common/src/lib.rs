//! What the kernel side writes and user space reads.
//!
//! Everything here is plain old data with a fixed layout, shared by `netpol-observer-ebpf` (which fills it) and
//! `netpol-observer` (which decodes it). The crate is `no_std` and knows neither aya nor aya-ebpf, so that both worlds can
//! depend on it.
#![no_std]

mod field;
mod ledger;
mod surroundings;

pub use field::{ABSENT, Field, FieldSpec};
pub use ledger::{Counter, Counters};
pub use surroundings::{
    CGROUP_LEVELS, CGROUP_NAME_BYTES, CGROUPS, CgroupNames, DEVICES, DeviceAddress, DeviceKey, HookEntry, MAX_HOOK_ENTRIES, NAME_BYTES,
    Surroundings, Way,
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of packet copied from the network header on.
///
/// IPv6 (40) + hop-by-hop, routing, fragment and destination options (8 + 24 + 8 + 8) + TCP without options (20) = 108.
pub const HEADER_BYTES: usize = 128;

/// VXLAN by IANA (RFC 7348): what Calico uses.
pub const PORT_VXLAN: u16 = 4789;
/// VXLAN of Linux, which is older than IANA's number: what flannel and Cilium use.
pub const PORT_VXLAN_LINUX: u16 = 8472;
/// Geneve (RFC 8926).
pub const PORT_GENEVE: u16 = 6081;
/// Destination ports of datagrams that have packets of many connections inside and are not folded for that reason.
pub const TUNNEL_PORTS: [u16; 3] = [PORT_VXLAN, PORT_VXLAN_LINUX, PORT_GENEVE];

/// Return addresses kept of the kernel stack, innermost first.
///
/// The netfilter hook is 2 to 9 frames above `nft_do_chain` on the kernels measured; the frames of the tracepoint and of
/// the program itself come first.
pub const STACK_FRAMES: usize = 16;

/// Frames taken where the hook is known without: enough to tell whose filter it was. In a flood none is taken then: a stack costs more than
/// all the rest of the record.
pub const FEW_STACK_FRAMES: usize = 6;

/// One dropped packet, as copied by the eBPF program. All integers are in host order unless a field says otherwise.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DropRecord {
    /// `bpf_ktime_get_ns()`: nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// `location` argument of the tracepoint: the address the packet was freed from.
    pub location: u64,
    /// `sk->__sk_common.skc_cookie` of the packet's socket (what SO_COOKIE returns); 0 without a socket and until somebody has
    /// asked the kernel for the cookie, which this program must not: it only reads.
    pub socket_cookie: u64,
    /// Kernfs id of the socket's cgroup v2 (`sk_cgrp_data.cgroup.kn.id`, what `bpf_get_current_cgroup_id` would say), 0 without one.
    pub cgroup_id: u64,
    /// Kernel return addresses, innermost first; 0 behind the last one.
    pub stack: [u64; STACK_FRAMES],
    /// `enum skb_drop_reason`; the numbers differ between kernels and are named by BTF.
    pub reason: u32,
    /// Inode number of the network namespace (`net.ns.inum`, the number in `/proc/PID/ns/net`), 0 when unknown.
    pub netns: u32,
    /// Interface index inside that namespace, 0 when the packet had no device.
    pub ifindex: u32,
    /// `sk_buff.len`: bytes from `data` on.
    pub packet_len: u32,
    /// [`RecordFlags`] bits.
    pub flags: u32,
    /// `nf_conn.status`: IPS_* bits of `uapi/linux/netfilter/nf_conntrack_common.h`.
    pub ct_status: u32,
    /// Where the network header begins relative to `sk_buff.data`; negative once the header has been pulled.
    pub network_offset: i32,
    /// `sk_buff.protocol` in host order: an ETH_P_* number.
    pub ether_type: u16,
    /// How many bytes of `header` were copied.
    pub header_len: u16,
    /// `enum ip_conntrack_info`, the low three bits of `sk_buff._nfct`. Meaningful with [`RecordFlags::CONNTRACK`].
    pub ct_info: u8,
    /// Zero.
    pub reserved: [u8; 7],
    /// `net_device.name`, NUL padded; empty without a device.
    pub ifname: [u8; 16],
    /// The connection's original tuple, before any address translation. Meaningful with [`RecordFlags::CONNTRACK`].
    pub ct_original: ConntrackTuple,
    /// The packet from its network header on; see `header_len`.
    pub header: [u8; HEADER_BYTES],
}

/// Bits of [`DropRecord::flags`].
#[derive(Clone, Copy, Debug)]
pub struct RecordFlags;

impl RecordFlags {
    /// The packet carried a connection-tracking entry.
    pub const CONNTRACK: u32 = 1 << 0;
    /// The packet carried a socket.
    pub const SOCKET: u32 = 1 << 1;
    /// `ifindex`, `ifname` and `netns` come from `sk_buff.dev`.
    pub const DEVICE: u32 = 1 << 2;
    /// They come from the route (`dst_entry.dev`), as in the OUTPUT hook, where the packet has no device yet: it was leaving.
    pub const DEVICE_FROM_ROUTE: u32 = 1 << 3;
    /// The namespace comes from the socket.
    pub const NETNS_FROM_SOCKET: u32 = 1 << 4;
    /// Repeats of this record are counted under its [`FoldKey`].
    pub const FOLDED: u32 = 1 << 5;
    /// The packet is to be forwarded, by its route, and is still on the device it came in by: where it was dropped by a filter, that was in the
    /// FORWARD hook.
    pub const FORWARDED: u32 = 1 << 6;
    /// The record's [`FoldKey`] tells cgroups apart: [`FoldKey::cgroup`] is [`cgroup_of_key`] of `cgroup_id`. Recordings of format version 2 do not have it.
    pub const KEYED_BY_CGROUP: u32 = 1 << 7;
}

/// `struct nf_conntrack_tuple` (`include/net/netfilter/nf_conntrack_tuple.h`), bytes as the kernel has them.
///
/// User space compares this layout with the running kernel's BTF before it asks for the tuple.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConntrackTuple {
    /// `src.u3`: IPv4 in the first four bytes, or IPv6.
    pub src: [u8; 16],
    /// `src.u`: port in network order, or the ICMP identifier.
    pub src_port: [u8; 2],
    /// `src.l3num`: AF_INET or AF_INET6, host order.
    pub family: u16,
    /// `dst.u3`.
    pub dst: [u8; 16],
    /// `dst.u`: port in network order, or ICMP type and code.
    pub dst_port: [u8; 2],
    /// `dst.protonum`: IP protocol number.
    pub protocol: u8,
    /// `dst.dir`: 0 for the original tuple.
    pub direction: u8,
}

/// What makes two drops "the same": repeats are counted under this key instead of being reported one by one.
///
/// The source port is left out on purpose: every retry of a connection uses a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FoldKey {
    /// As in [`DropRecord::netns`].
    pub netns: u32,
    /// As in [`DropRecord::reason`].
    pub reason: u32,
    /// Source address; IPv4 in the first four bytes.
    pub src: [u8; 16],
    /// Destination address of the packet itself (after translation, where that came first).
    pub dst: [u8; 16],
    /// Destination port in network order; ICMP type and code; zero for a later fragment.
    pub dst_port: [u8; 2],
    /// `sk_buff.protocol`, host order.
    pub ether_type: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// 1 for a packet that is not the first fragment.
    pub later_fragment: u8,
    /// [`cgroup_of_key`] of the socket's cgroup: pods that share the node's network have its address, and nothing else tells them apart. 0
    /// without a socket.
    pub cgroup: u16,
}

/// What [`FoldKey::cgroup`] holds of a cgroup's id ([`DropRecord::cgroup_id`]): its four 16-bit words, combined.
pub const fn cgroup_of_key(id: u64) -> u16 {
    (id ^ (id >> 16) ^ (id >> 32) ^ (id >> 48)) as u16
}

/// How often a [`FoldKey`] was dropped again after its record, within one epoch of the fold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FoldValue {
    /// Further drops.
    pub count: u64,
    /// Monotonic time of the last of them, nanoseconds.
    pub last_ns: u64,
}

/// Entries a fold table holds; two of them take turns. Keys beyond this are reported packet by packet.
pub const FOLD_ENTRIES: u32 = 32_768;

/// Reasons below this are looked up in an array, others (subsystem reasons, see `enum skb_drop_reason_subsys`) in a hash.
pub const CORE_REASONS: u32 = 512;

/// Location ranges the program compares for reasons that do not say enough by themselves.
pub const LOCATION_RANGES: u32 = 32;

/// What the candidate table says of a reason.
#[derive(Clone, Copy, Debug)]
pub struct ReasonAction;

impl ReasonAction {
    /// Not a drop this program speaks of.
    pub const IGNORE: u32 = 0;
    /// Report wherever it happens.
    pub const REPORT: u32 = 1;
    /// Report when the location lies in one of the [`LocationRange`]s.
    pub const BY_LOCATION: u32 = 2;
}

/// A function's code, `start <= location < end`; both zero: unused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LocationRange {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
}

const _: () = assert!(size_of::<ConntrackTuple>() == 40);
const _: () = assert!(size_of::<FoldKey>() == 48);
const _: () = assert!(size_of::<DropRecord>() == 384);
