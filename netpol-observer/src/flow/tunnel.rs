//! The packet inside the packet of a tunnel: VXLAN, Geneve, and IP in IP.
//!
//! One tunnel deep. With [`HEADER_BYTES`](netpol_observer_common::HEADER_BYTES) = 128 the flags of a TCP segment are still there in VXLAN whatever
//! the two families are, an inner VLAN tag included (40 + 8 + 8 + 18 + 40 + 14 = 128). Options of Geneve come on top: with an IPv6 packet
//! around an IPv6 packet the flags are lost from 8 bytes of options on, the ports from 16, the addresses from 20; where the addresses are
//! lost the packet is told as that of its outer addresses.

use std::fmt;

use etherparse::ip_number;
use netpol_observer_common::{PORT_GENEVE, PORT_VXLAN, PORT_VXLAN_LINUX};
use serde::Serialize;

use super::packet::{ETH_P_IP, ETH_P_IPV6, read};
use super::{Conntrack, Flow, Protocol};

/// `ETH_P_TEB`: Geneve's payload is an Ethernet frame.
const ETH_P_TEB: u16 = 0x6558;
/// `ETH_P_8021Q`
const ETH_P_8021Q: u16 = 0x8100;
/// `ETH_P_8021AD`
const ETH_P_8021AD: u16 = 0x88a8;

/// How many VLAN tags of an inner frame are looked through: a customer's and a provider's.
const VLAN_TAGS: usize = 2;

/// Kinds of tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TunnelKind {
    /// RFC 7348, with or without Linux's group policy extension.
    Vxlan,
    /// RFC 8926
    Geneve,
    /// An IP packet right behind an IP header, each of either family: the kernel's `ipip`, `sit` and `ip6tnl`.
    IpInIp,
}

impl fmt::Display for TunnelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            TunnelKind::Vxlan => "VXLAN",
            TunnelKind::Geneve => "Geneve",
            TunnelKind::IpInIp => "IP-in-IP",
        })
    }
}

/// The tunnel that a packet was in when it was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Kind.
    pub kind: TunnelKind,
    /// Virtual network identifier of VXLAN and Geneve.
    pub vni: Option<u32>,
    /// Addresses and ports of the tunnel's packet.
    pub outer: Flow,
    /// The kernel's tracking entry of the tunnel's packet.
    pub conntrack: Option<Conntrack>,
}

/// The packet inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Kind of the tunnel.
    pub kind: TunnelKind,
    /// Virtual network identifier of VXLAN and Geneve.
    pub vni: Option<u32>,
    /// Its addresses and ports.
    pub flow: Flow,
}

/// The packet inside a tunnel's packet. Takes what [`decode`](super::decode) takes.
///
/// `None` for everything that is not plainly such a packet. A datagram to a port of VXLAN or Geneve is one if all the bits are as their RFCs
/// demand that have to be, and if an IP packet with its addresses follows, in an Ethernet frame or, in Geneve, without one. What else may be
/// inside (ARP, LLDP) has no addresses to speak of; and what else is sent to such a port is a datagram like any other.
pub fn decapsulate(ether_type: u16, bytes: &[u8]) -> Option<Inner> {
    let packet = read(ether_type, bytes).ok()?;
    match (packet.flow.protocol, packet.flow.destination_port) {
        (Protocol::Udp, Some(PORT_VXLAN | PORT_VXLAN_LINUX)) => vxlan(packet.payload.get(UDP_HEADER..)?),
        (Protocol::Udp, Some(PORT_GENEVE)) => geneve(packet.payload.get(UDP_HEADER..)?),
        (Protocol::Other(number), _) => {
            let inside = match etherparse::IpNumber(number) {
                ip_number::IPV4 => ETH_P_IP,
                ip_number::IPV6 => ETH_P_IPV6,
                _ => return None,
            };
            Some(Inner { kind: TunnelKind::IpInIp, vni: None, flow: read(inside, packet.payload).ok()?.flow })
        }
        _ => None,
    }
}

const UDP_HEADER: usize = 8;

/// Flags (8 bits), reserved (24), VNI (24), reserved (8). With the group policy extension the reserved bits behind the flags hold a group.
fn vxlan(bytes: &[u8]) -> Option<Inner> {
    const VNI_VALID: u8 = 0x08;
    const GROUP_POLICY: u8 = 0x80;
    let ([flags, group @ .., v0, v1, v2, reserved], frame) = bytes.split_first_chunk::<8>()?;
    let plain = *flags == VNI_VALID && *group == [0; 3];
    if !(plain || *flags == VNI_VALID | GROUP_POLICY) || *reserved != 0 {
        return None;
    }
    Some(Inner { kind: TunnelKind::Vxlan, vni: Some(u32::from_be_bytes([0, *v0, *v1, *v2])), flow: ethernet(frame)? })
}

/// Version (2 bits), length of the options in units of four bytes (6), two flags and reserved bits (8), protocol (16), VNI (24), reserved (8),
/// options.
fn geneve(bytes: &[u8]) -> Option<Inner> {
    const RESERVED_BITS: u8 = 0x3f;
    let ([version_and_len, flags, p0, p1, v0, v1, v2, reserved], rest) = bytes.split_first_chunk::<8>()?;
    if version_and_len >> 6 != 0 || flags & RESERVED_BITS != 0 || *reserved != 0 {
        return None;
    }
    let payload = rest.get(usize::from(version_and_len & 0x3f) * 4..)?;
    let flow = match u16::from_be_bytes([*p0, *p1]) {
        ETH_P_TEB => ethernet(payload)?,
        ether_type => read(ether_type, payload).ok()?.flow,
    };
    Some(Inner { kind: TunnelKind::Geneve, vni: Some(u32::from_be_bytes([0, *v0, *v1, *v2])), flow })
}

/// The packet in an Ethernet frame.
fn ethernet(frame: &[u8]) -> Option<Flow> {
    const ADDRESSES: usize = 12;
    let mut rest = frame.get(ADDRESSES..)?;
    for _ in 0..=VLAN_TAGS {
        let (ether_type, behind) = rest.split_first_chunk::<2>()?;
        match u16::from_be_bytes(*ether_type) {
            ETH_P_8021Q | ETH_P_8021AD => rest = behind.get(2..)?,
            ether_type => return Some(read(ether_type, behind).ok()?.flow),
        }
    }
    None
}

#[cfg(test)]
mod tests;
