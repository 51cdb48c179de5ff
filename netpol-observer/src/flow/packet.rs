//! Packet bytes → [`Flow`].
//!
//! The bytes begin at the network header and may be cut anywhere: the kernel side copies the first
//! [`HEADER_BYTES`](netpol_observer_common::HEADER_BYTES) at most. What the bytes do not hold is absent from the flow, not an error.

use std::net::IpAddr;

use etherparse::{IpAuthHeaderSlice, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice, ip_number};

use super::{Flow, Fragment, IcmpKind, Protocol, TcpFlags};

/// `ETH_P_IP`
pub(super) const ETH_P_IP: u16 = 0x0800;
/// `ETH_P_IPV6`
pub(super) const ETH_P_IPV6: u16 = 0x86dd;

/// Bytes of an IPv4 header without options.
const IPV4_FIXED: usize = 20;

/// Why bytes are no packet with addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// `sk_buff.protocol` is neither IPv4 nor IPv6: ARP, a VLAN tag, …
    #[error("packet of protocol {ether_type:#06x} is neither IPv4 (0x0800) nor IPv6 (0x86dd)")]
    NotIp {
        /// ETH_P_* number.
        ether_type: u16,
    },
    /// The bytes end before the addresses do.
    #[error("{family} header is cut: {have} bytes of at least {needed}")]
    Cut {
        /// `IPv4` or `IPv6`
        family: &'static str,
        /// Bytes there are.
        have: usize,
        /// Bytes the fixed header has.
        needed: usize,
    },
    /// The header's own fields contradict the protocol number: the network header of the packet was not set.
    #[error("malformed {family} header: {why}")]
    Malformed {
        /// `IPv4` or `IPv6`
        family: &'static str,
        /// The field and its value.
        why: String,
    },
}

/// Reads addresses, ports, flags and fragment position from the bytes of a packet.
///
/// `ether_type` is `sk_buff.protocol` in host order; `bytes` start at the network header. When the chain of IPv6 extension
/// headers is cut, or leads through a header that only a later fragment's first part holds, the protocol is the number of
/// the first header that could not be read ([`Protocol::Other`]).
pub fn decode(ether_type: u16, bytes: &[u8]) -> Result<Flow, FlowError> {
    read(ether_type, bytes).map(|packet| packet.flow)
}

/// A packet, read.
pub(super) struct Packet<'a> {
    pub(super) flow: Flow,
    /// What its IP headers are followed by; nothing behind the headers of a later fragment.
    pub(super) payload: &'a [u8],
}

/// As [`decode`].
pub(super) fn read(ether_type: u16, bytes: &[u8]) -> Result<Packet<'_>, FlowError> {
    match ether_type {
        ETH_P_IP => ipv4(bytes),
        ETH_P_IPV6 => ipv6(bytes),
        ether_type => Err(FlowError::NotIp { ether_type }),
    }
}

fn ipv4(bytes: &[u8]) -> Result<Packet<'_>, FlowError> {
    const FAMILY: &str = "IPv4";
    let Some(fixed) = bytes.first_chunk::<IPV4_FIXED>() else {
        return Err(FlowError::Cut { family: FAMILY, have: bytes.len(), needed: IPV4_FIXED });
    };
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    // With its options cut off a header still has its addresses: read it as one without options, and with nothing behind it.
    let mut optionless = *fixed;
    optionless[0] = 0x45;
    let (source, payload) = match bytes.get(header_len..) {
        Some(payload) => (bytes, payload),
        None if fixed[0] >> 4 == 4 => (optionless.as_slice(), [].as_slice()),
        None => (bytes, [].as_slice()),
    };
    let header = Ipv4HeaderSlice::from_slice(source).map_err(|e| FlowError::Malformed { family: FAMILY, why: e.to_string() })?;
    let fragment = fragment(header.fragments_offset().value(), header.more_fragments());
    Ok(packet(
        IpAddr::V4(header.source_addr()),
        IpAddr::V4(header.destination_addr()),
        Protocol::from_number(header.protocol().0),
        fragment,
        payload,
    ))
}

fn ipv6(bytes: &[u8]) -> Result<Packet<'_>, FlowError> {
    const FAMILY: &str = "IPv6";
    const LEN: usize = etherparse::Ipv6Header::LEN;
    let Some(fixed) = bytes.first_chunk::<LEN>() else {
        return Err(FlowError::Cut { family: FAMILY, have: bytes.len(), needed: LEN });
    };
    let header = Ipv6HeaderSlice::from_slice(fixed).map_err(|e| FlowError::Malformed { family: FAMILY, why: e.to_string() })?;
    let chain = extensions(header.next_header().0, bytes.get(LEN..).unwrap_or_default());
    Ok(packet(
        IpAddr::V6(header.source_addr()),
        IpAddr::V6(header.destination_addr()),
        Protocol::from_number(chain.next_header),
        chain.fragment,
        chain.rest,
    ))
}

/// Where a chain of extension headers ends.
struct Chain<'a> {
    /// Number of the first header that is no extension header, or could not be read.
    next_header: u8,
    /// Position of the fragment, if it is one.
    fragment: Option<Fragment>,
    /// That header and what follows.
    rest: &'a [u8],
}

/// Walks the headers that `ipv6_ext_hdr()` of the kernel knows. Not etherparse's own walk: that one goes on into the payload
/// of later fragments and stops at a hop-by-hop header that is not the first.
fn extensions(first: u8, bytes: &[u8]) -> Chain<'_> {
    let mut chain = Chain { next_header: first, fragment: None, rest: bytes };
    loop {
        let rest = chain.rest;
        let step = match etherparse::IpNumber(chain.next_header) {
            ip_number::IPV6_HOP_BY_HOP | ip_number::IPV6_ROUTE | ip_number::IPV6_DEST_OPTIONS => {
                Ipv6RawExtHeaderSlice::from_slice(rest).ok().map(|h| (h.next_header().0, h.slice().len()))
            }
            ip_number::AUTH => IpAuthHeaderSlice::from_slice(rest).ok().map(|h| (h.next_header().0, h.slice().len())),
            ip_number::IPV6_FRAG => Ipv6FragmentHeaderSlice::from_slice(rest).ok().map(|h| {
                chain.fragment = fragment(h.fragment_offset().value(), h.more_fragments());
                (h.next_header().0, h.slice().len())
            }),
            _ => return chain,
        };
        let Some((next_header, len)) = step else {
            // Cut inside this header: its number stands for the protocol, and it is none that has ports.
            return chain;
        };
        // Every header is at least eight bytes long, so this comes to an end.
        chain.next_header = next_header;
        chain.rest = rest.get(len..).unwrap_or_default();
        if chain.fragment.is_some_and(|f| f.offset > 0) {
            return chain;
        }
    }
}

/// Offset in units of eight bytes, 13 bits. A packet in one piece is no fragment, whatever headers it has.
fn fragment(units: u16, more: bool) -> Option<Fragment> {
    (units > 0 || more).then_some(Fragment { offset: units.saturating_mul(8), more })
}

fn packet(source: IpAddr, destination: IpAddr, protocol: Protocol, fragment: Option<Fragment>, payload: &[u8]) -> Packet<'_> {
    // Behind the first fragment comes data, which must not be taken for ports.
    let transport = if fragment.is_some_and(|f| f.offset > 0) { &[] } else { payload };
    let ports = protocol.has_ports().then(|| transport.first_chunk::<4>()).flatten();
    let flow = Flow {
        source,
        destination,
        protocol,
        source_port: ports.map(|p| u16::from_be_bytes([p[0], p[1]])),
        destination_port: ports.map(|p| u16::from_be_bytes([p[2], p[3]])),
        tcp_flags: (protocol == Protocol::Tcp).then(|| transport.get(13)).flatten().map(|&bits| TcpFlags {
            fin: bits & 0x01 != 0,
            syn: bits & 0x02 != 0,
            rst: bits & 0x04 != 0,
            psh: bits & 0x08 != 0,
            ack: bits & 0x10 != 0,
        }),
        icmp: matches!(protocol, Protocol::Icmp | Protocol::Icmpv6)
            .then(|| transport.first_chunk::<2>())
            .flatten()
            .map(|&[kind, code]| IcmpKind { kind, code }),
        fragment,
    };
    Packet { flow, payload: transport }
}

#[cfg(test)]
mod tests;
