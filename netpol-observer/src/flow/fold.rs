//! What repeats are folded under: [`FoldKey`], its short name [`FoldId`], and what a key alone still tells.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netpol_observer_common::{DropRecord, FoldKey, RecordFlags, cgroup_of_key};

use super::packet::{ETH_P_IP, ETH_P_IPV6};
use super::{Flow, FlowError, FoldId, IcmpKind, Protocol, Tunnel};

impl FoldId {
    /// The id of a key: FNV-1a (64 bit) over its fields, numbers as little-endian, so that a recording gets the same ids on
    /// every machine and in every version of the program.
    pub fn of(key: &FoldKey) -> FoldId {
        let FoldKey { netns, reason, src, dst, dst_port, ether_type, protocol, later_fragment, cgroup } = key;
        let id = FoldId(0xcbf2_9ce4_8422_2325).with(&[
            netns.to_le_bytes().as_slice(),
            reason.to_le_bytes().as_slice(),
            src,
            dst,
            dst_port,
            ether_type.to_le_bytes().as_slice(),
            &[*protocol, *later_fragment],
        ]);
        // Most have none, and have the ids that they had before keys told cgroups apart.
        if *cgroup == 0 { id } else { id.with(&[cgroup.to_le_bytes().as_slice()]) }
    }

    /// The id of a connection's packet that was dropped inside a tunnel packet; `self` is the id of the same packet outside of one.
    pub(super) fn through(self, tunnel: &Tunnel) -> FoldId {
        self.with(&[
            address_bytes(tunnel.outer.source).as_slice(),
            &address_bytes(tunnel.outer.destination),
            &[tunnel.outer.protocol.number()],
            &tunnel.outer.destination_port.unwrap_or_default().to_le_bytes(),
            &tunnel.vni.unwrap_or_default().to_le_bytes(),
        ])
    }

    /// Further bytes put into the hash.
    fn with(self, parts: &[&[u8]]) -> FoldId {
        FoldId(parts.iter().copied().flatten().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)))
    }
}

/// The key the kernel folds repeats of `record` under. `flow` is what its bytes decode to.
///
/// IPv6 packets with extension headers and datagrams to the ports of tunnels ([`TUNNEL_PORTS`](netpol_observer_common::TUNNEL_PORTS)) are
/// not folded by the kernel; they get a key of their decoded protocol and ports all the same, so that user space has an id for them.
pub fn fold_key(record: &DropRecord, flow: &Flow) -> FoldKey {
    let cgroup = if record.flags & RecordFlags::KEYED_BY_CGROUP == 0 { 0 } else { cgroup_of_key(record.cgroup_id) };
    FoldKey { cgroup, ..key(record.netns, record.reason, flow) }
}

/// The key of a packet in a network namespace, dropped for a reason, of no socket.
pub(super) fn key(netns: u32, reason: u32, flow: &Flow) -> FoldKey {
    let later_fragment = flow.fragment.is_some_and(|fragment| fragment.offset > 0);
    let dst_port = match (flow.destination_port, flow.icmp) {
        (Some(port), _) => port.to_be_bytes(),
        (None, Some(icmp)) => [icmp.kind, icmp.code],
        (None, None) => [0; 2],
    };
    FoldKey {
        netns,
        reason,
        src: address_bytes(flow.source),
        dst: address_bytes(flow.destination),
        dst_port,
        ether_type: if flow.source.is_ipv4() { ETH_P_IP } else { ETH_P_IPV6 },
        protocol: flow.protocol.number(),
        later_fragment: u8::from(later_fragment),
        cgroup: 0,
    }
}

/// What a [`FoldKey`] alone tells: enough to describe repeats whose record was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFlow {
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    /// The kernel's number of the drop reason.
    pub reason: u32,
    /// Addresses, protocol, destination port or ICMP kind. Never a source port, flags or fragment offset: keys do not hold them.
    pub flow: Flow,
    /// These were fragments behind the first, whose ports nobody saw.
    pub later_fragment: bool,
}

/// Reads a key back. Fails for keys that are neither IPv4 nor IPv6, which the kernel side does not write.
pub fn decode_key(key: &FoldKey) -> Result<KeyFlow, FlowError> {
    let (source, destination) = match key.ether_type {
        ETH_P_IP => (ipv4_of(&key.src), ipv4_of(&key.dst)),
        ETH_P_IPV6 => (ipv6_of(&key.src), ipv6_of(&key.dst)),
        ether_type => return Err(FlowError::NotIp { ether_type }),
    };
    let protocol = Protocol::from_number(key.protocol);
    let later_fragment = key.later_fragment != 0;
    let icmp = matches!(protocol, Protocol::Icmp | Protocol::Icmpv6);
    let [first, second] = key.dst_port;
    Ok(KeyFlow {
        netns: (key.netns != 0).then_some(key.netns),
        reason: key.reason,
        flow: Flow {
            source,
            destination,
            protocol,
            source_port: None,
            destination_port: (protocol.has_ports() && !later_fragment).then(|| u16::from_be_bytes(key.dst_port)),
            tcp_flags: None,
            icmp: (icmp && !later_fragment).then_some(IcmpKind { kind: first, code: second }),
            fragment: None,
        },
        later_fragment,
    })
}

/// An address in sixteen bytes, IPv4 in the first four.
pub(super) fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

pub(super) fn ipv4_of(bytes: &[u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = *bytes;
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

pub(super) fn ipv6_of(bytes: &[u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(*bytes))
}
