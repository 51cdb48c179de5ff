//! The bytes of a [`DropRecord`] → [`DropEvent`].

use std::sync::Arc;

use netpol_observer_common::{ConntrackTuple, DropRecord, RecordFlags};
use zerocopy::FromBytes as _;

use super::fold::{fold_key, ipv4_of, ipv6_of};
use super::{
    Conntrack, DropEvent, FlowError, FoldId, HookPoint, Inner, Interface, KernelNames, Location, Protocol, Reason, Socket, Symbol, Tunnel,
    Tuple, decapsulate, decode, hook, surroundings,
};

/// Why a record could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not the length of a record: written by another version of the kernel side.
    #[error("record of {got} bytes, expected {expected}: it comes from another version of the program")]
    Length {
        /// `size_of::<DropRecord>()`
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// The packet in it has no addresses to speak of.
    #[error("packet dropped with reason {reason}: {source}")]
    Packet {
        /// Name of the reason.
        reason: Arc<str>,
        /// What is wrong with its bytes.
        source: FlowError,
    },
}

/// Decodes the bytes of one record. Nothing in them is trusted but their number.
pub fn decode_record(bytes: &[u8], names: &dyn KernelNames) -> Result<DropEvent, RecordError> {
    let record =
        DropRecord::read_from_bytes(bytes).map_err(|_| RecordError::Length { expected: size_of::<DropRecord>(), got: bytes.len() })?;
    let has = |flag| record.flags & flag != 0;

    let reason =
        Reason { number: record.reason, name: names.reason(record.reason).unwrap_or_else(|| format!("reason-{}", record.reason).into()) };
    let copied = record.header.get(..usize::from(record.header_len)).unwrap_or(&record.header);
    let flow = decode(record.ether_type, copied).map_err(|source| RecordError::Packet { reason: Arc::clone(&reason.name), source })?;
    let conntrack = if has(RecordFlags::CONNTRACK) { conntrack(&record) } else { None };
    // What the kernel tracks of a tunnel's packet is the tunnel.
    let (flow, conntrack, tunnel) = match decapsulate(record.ether_type, copied) {
        Some(Inner { kind, vni, flow: inner }) => (inner, None, Some(Tunnel { kind, vni, outer: flow, conntrack })),
        None => (flow, conntrack, None),
    };
    let id = FoldId::of(&fold_key(&record, &flow));
    let id = tunnel.as_ref().map_or(id, |tunnel| id.through(tunnel));
    let symbol = if record.location == 0 { None } else { names.symbol(record.location) };
    let frames: Vec<Symbol> = stack(&record, names).collect();
    let hook = hook::find(&reason.name, symbol.as_ref(), record.flags, frames.iter().cloned());
    let point = surroundings::point(record.netns, record.ether_type, symbol.as_ref(), hook, frames.iter().cloned());
    let filters = match (point, &symbol) {
        (Some(at), Some(location)) => surroundings::suspects(&names.hook_functions(at, record.ifindex), location, frames.iter().cloned()),
        _ => Vec::new(),
    };
    let interface = interface(&record);
    let peer = interface.as_ref().and_then(|interface| names.peer(record.netns, interface.index));
    Ok(DropEvent {
        time: wall_clock(record.time_ns, names.clock_offset_ns()),
        id,
        folded: has(RecordFlags::FOLDED),
        reason,
        location: Location { address: record.location, symbol },
        hook,
        interface,
        outgoing: has(RecordFlags::DEVICE_FROM_ROUTE),
        netns: (record.netns != 0).then_some(record.netns),
        packet_len: packet_len(record.packet_len, record.network_offset),
        flow,
        tunnel,
        conntrack,
        socket: has(RecordFlags::SOCKET).then(|| Socket {
            cookie: (record.socket_cookie != 0).then_some(record.socket_cookie),
            cgroup: (record.cgroup_id != 0).then_some(record.cgroup_id),
            pod_uid: if record.cgroup_id == 0 { None } else { names.pod_of_cgroup(record.cgroup_id) },
        }),
        filters,
        peer,
    })
}

/// The functions on a record's stack, innermost first, without those that have no name.
fn stack<'a>(record: &'a DropRecord, names: &'a dyn KernelNames) -> impl Iterator<Item = Symbol> + 'a {
    record.stack.iter().take_while(|address| **address != 0).filter_map(|address| names.symbol(*address))
}

/// The netfilter hook a record's packet was dropped at: what [`KernelNames::hook_functions`] will be asked about.
pub fn hook_point(record: &DropRecord, names: &dyn KernelNames) -> Option<HookPoint> {
    let reason = names.reason(record.reason);
    let symbol = if record.location == 0 { None } else { names.symbol(record.location) };
    let hook = hook::find(reason.as_deref().unwrap_or(""), symbol.as_ref(), record.flags, stack(record, names));
    surroundings::point(record.netns, record.ether_type, symbol.as_ref(), hook, stack(record, names))
}

/// 64 bits of nanoseconds on either side of 1970 are well inside what a `Timestamp` holds, so the fallback is never taken.
fn wall_clock(monotonic_ns: u64, offset_ns: i64) -> jiff::Timestamp {
    let nanoseconds = i128::from(monotonic_ns) + i128::from(offset_ns);
    jiff::Timestamp::from_nanosecond(nanoseconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// `sk_buff.len` counts from `data` on, which may lie before the network header (a link header) or behind it (pulled).
fn packet_len(from_data: u32, network_offset: i32) -> u32 {
    let from_network = i64::from(from_data) - i64::from(network_offset);
    u32::try_from(from_network.max(0)).unwrap_or(u32::MAX)
}

fn interface(record: &DropRecord) -> Option<Interface> {
    let device = RecordFlags::DEVICE | RecordFlags::DEVICE_FROM_ROUTE;
    if record.ifindex == 0 || record.flags & device == 0 {
        return None;
    }
    let name = record.ifname.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(Interface { index: record.ifindex, name: String::from_utf8_lossy(name).into() })
}

/// `enum ip_conntrack_info` (uapi/linux/netfilter/nf_conntrack_common.h): values from here on go against the original direction.
const IP_CT_IS_REPLY: u8 = 3;
/// The packet was exempted from tracking; the tuple is not its own.
const IP_CT_UNTRACKED: u8 = 7;
/// Linux's numbers, whatever system a recording is read on (linux/socket.h).
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// Bit of `enum ip_conntrack_status`.
const IPS_SEEN_REPLY: u32 = 1 << 1;

fn conntrack(record: &DropRecord) -> Option<Conntrack> {
    let info = record.ct_info & 7;
    if info == IP_CT_UNTRACKED {
        return None;
    }
    Some(Conntrack {
        original: tuple(&record.ct_original)?,
        reply: info >= IP_CT_IS_REPLY,
        seen_reply: record.ct_status & IPS_SEEN_REPLY != 0,
    })
}

fn tuple(raw: &ConntrackTuple) -> Option<Tuple> {
    let address = match raw.family {
        AF_INET => ipv4_of,
        AF_INET6 => ipv6_of,
        _ => return None,
    };
    let protocol = Protocol::from_number(raw.protocol);
    let port = |bytes| protocol.has_ports().then(|| u16::from_be_bytes(bytes));
    Some(Tuple {
        source: address(&raw.src),
        source_port: port(raw.src_port),
        destination: address(&raw.dst),
        destination_port: port(raw.dst_port),
        protocol,
    })
}

#[cfg(test)]
mod tests;
