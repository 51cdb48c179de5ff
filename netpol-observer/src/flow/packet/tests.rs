use std::net::SocketAddr;

use etherparse::{Ipv4Options, PacketBuilder};
use proptest::prelude::*;

use super::super::testing::{self, ACK, RST, SYN, SYN_ACK};
use super::*;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

const V4: [&str; 2] = ["10.244.1.5:40000", "10.96.0.10:53"];
const V6: [&str; 2] = ["[fd00:10:244::5]:40000", "[fd00:10:96::a]:53"];

fn expected(ends: [&str; 2], protocol: Protocol) -> Flow {
    let [source, destination] = ends.map(addr);
    Flow {
        source: source.ip(),
        destination: destination.ip(),
        protocol,
        source_port: protocol.has_ports().then_some(source.port()),
        destination_port: protocol.has_ports().then_some(destination.port()),
        tcp_flags: None,
        icmp: None,
        fragment: None,
    }
}

fn ether_type(bytes: &[u8]) -> u16 {
    if bytes[0] >> 4 == 6 { ETH_P_IPV6 } else { ETH_P_IP }
}

#[test]
fn tcp_udp_sctp_of_both_families() {
    for ends in [V4, V6] {
        let [a, b] = ends.map(addr);
        for flags in [SYN, SYN_ACK, ACK, RST, TcpFlags { fin: true, psh: true, ..ACK }] {
            let bytes = testing::tcp(a, b, flags);
            let flow = Flow { tcp_flags: Some(flags), ..expected(ends, Protocol::Tcp) };
            assert_eq!(decode(ether_type(&bytes), &bytes), Ok(flow));
        }
        let bytes = testing::udp(a, b);
        assert_eq!(decode(ether_type(&bytes), &bytes), Ok(expected(ends, Protocol::Udp)));
        let bytes = testing::sctp(a, b);
        assert_eq!(decode(ether_type(&bytes), &bytes), Ok(expected(ends, Protocol::Sctp)));
    }
}

#[test]
fn icmp_of_both_families() {
    for (ends, protocol, kind, code) in [(V4, Protocol::Icmp, 3, 3), (V6, Protocol::Icmpv6, 135, 0)] {
        let [a, b] = ends.map(addr);
        let bytes = testing::icmp(a.ip(), b.ip(), kind, code);
        let flow = Flow { icmp: Some(IcmpKind { kind, code }), ..expected(ends, protocol) };
        assert_eq!(decode(ether_type(&bytes), &bytes), Ok(flow));
    }
}

/// A UDP packet with eight bytes of IPv4 options: 28 bytes of header.
fn with_options() -> Vec<u8> {
    let mut header = etherparse::Ipv4Header::new(0, 63, ip_number::UDP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
    header.options = Ipv4Options::try_from(&[1_u8, 1, 1, 1, 1, 1, 1, 0][..]).unwrap();
    let step = PacketBuilder::ip(etherparse::IpHeaders::Ipv4(header, Default::default())).udp(7, 9);
    let mut bytes = Vec::new();
    step.write(&mut bytes, &[]).unwrap();
    bytes
}

#[test]
fn ipv4_options_are_skipped_and_may_be_cut() {
    let bytes = with_options();
    let flow = decode(ETH_P_IP, &bytes).unwrap();
    assert_eq!((flow.source_port, flow.destination_port), (Some(7), Some(9)));
    for len in 20..32 {
        let cut = decode(ETH_P_IP, &bytes[..len]).unwrap();
        assert_eq!(cut, Flow { source_port: None, destination_port: None, ..flow.clone() }, "cut at {len}");
    }
    assert_eq!(decode(ETH_P_IP, &bytes[..32]).unwrap(), flow);
    assert_eq!(decode(ETH_P_IP, &bytes[..19]), Err(FlowError::Cut { family: "IPv4", have: 19, needed: 20 }));
}

#[test]
fn ipv4_fragments() {
    let mut bytes = testing::udp(addr(V4[0]), addr(V4[1]));
    let whole = expected(V4, Protocol::Udp);
    bytes[6] = 0x40;
    assert_eq!(decode(ETH_P_IP, &bytes).unwrap(), whole, "don't fragment is no fragment");
    bytes[6] = 0x20;
    let first = Flow { fragment: Some(Fragment { offset: 0, more: true }), ..whole.clone() };
    assert_eq!(decode(ETH_P_IP, &bytes).unwrap(), first);
    bytes[6] = 0x1f;
    bytes[7] = 0xff;
    let last = Flow { fragment: Some(Fragment { offset: 65_528, more: false }), source_port: None, destination_port: None, ..whole };
    assert_eq!(decode(ETH_P_IP, &bytes).unwrap(), last);
}

/// An IPv6 packet with the given headers (number and bytes without the first, the next header) before `last`.
fn with_extensions(headers: &[(u8, &[u8])], last: u8, payload: &[u8]) -> Vec<u8> {
    let numbers: Vec<u8> = headers.iter().map(|(number, _)| *number).chain([last]).collect();
    let [a, b] = V6.map(addr);
    let mut bytes = testing::sctp(a, b)[..40].to_vec();
    bytes[6] = numbers[0];
    for ((_, rest), next) in headers.iter().zip(&numbers[1..]) {
        bytes.push(*next);
        bytes.extend_from_slice(rest);
    }
    bytes.extend_from_slice(payload);
    let len = (bytes.len() - 40) as u16;
    bytes[4..6].copy_from_slice(&len.to_be_bytes());
    bytes
}

const HOP_BY_HOP: (u8, &[u8]) = (0, &[0, 5, 2, 0, 0, 1, 0]);
const ROUTING: (u8, &[u8]) = (43, &[2, 4, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
const OPTIONS: (u8, &[u8]) = (60, &[0, 1, 4, 0, 0, 0, 0]);
const AUTH: (u8, &[u8]) = (51, &[4, 0, 0, 1, 1, 1, 1, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
const FIRST: (u8, &[u8]) = (44, &[0, 0, 1, 7, 7, 7, 7]);
const LATER: (u8, &[u8]) = (44, &[0, 0x05, 0xa8, 7, 7, 7, 7]);
const ATOMIC: (u8, &[u8]) = (44, &[0, 0, 0, 7, 7, 7, 7]);
/// 40000 → 53, SYN
const TCP: &[u8] = &[0x9c, 0x40, 0, 53, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0];

#[test]
fn chains_of_ipv6_extension_headers() {
    let whole = Flow { tcp_flags: Some(SYN), ..expected(V6, Protocol::Tcp) };
    for chain in [
        &[HOP_BY_HOP][..],
        &[HOP_BY_HOP, ROUTING, OPTIONS],
        &[OPTIONS, ROUTING, AUTH, OPTIONS],
        &[ROUTING, HOP_BY_HOP],
        &[HOP_BY_HOP, ATOMIC],
    ] {
        let bytes = with_extensions(chain, 6, TCP);
        assert_eq!(decode(ETH_P_IPV6, &bytes), Ok(whole.clone()), "{chain:?}");
    }
    let first = Flow { fragment: Some(Fragment { offset: 0, more: true }), ..whole };
    assert_eq!(decode(ETH_P_IPV6, &with_extensions(&[HOP_BY_HOP, FIRST, OPTIONS], 6, TCP)), Ok(first));
    let later = Flow {
        fragment: Some(Fragment { offset: 1448, more: false }),
        source_port: None,
        destination_port: None,
        ..expected(V6, Protocol::Tcp)
    };
    assert_eq!(decode(ETH_P_IPV6, &with_extensions(&[HOP_BY_HOP, LATER], 6, TCP)), Ok(later.clone()));
    // Behind the first fragment nothing is a header, even where the fragment header names one.
    let hidden = Flow { protocol: Protocol::Other(60), ..later };
    assert_eq!(decode(ETH_P_IPV6, &with_extensions(&[LATER], 60, &[6, 0, 1, 4, 0, 0, 0, 0])), Ok(hidden));
}

#[test]
fn a_cut_chain_names_the_header_that_is_cut() {
    let bytes = with_extensions(&[HOP_BY_HOP, ROUTING], 6, TCP);
    let protocol = |len: usize| decode(ETH_P_IPV6, &bytes[..len]).unwrap().protocol;
    assert_eq!(protocol(47), Protocol::Other(0));
    assert_eq!(protocol(48), Protocol::Other(43));
    assert_eq!(protocol(71), Protocol::Other(43));
    let cut = decode(ETH_P_IPV6, &bytes[..75]).unwrap();
    assert_eq!((cut.protocol, cut.destination_port), (Protocol::Tcp, None));
    let cut = decode(ETH_P_IPV6, &bytes[..76]).unwrap();
    assert_eq!((cut.destination_port, cut.tcp_flags), (Some(53), None));
}

#[test]
fn what_is_no_ip_packet_is_an_error_that_says_so() {
    assert_eq!(decode(0x0806, &[0; 28]), Err(FlowError::NotIp { ether_type: 0x0806 }));
    let v6 = testing::udp(addr(V6[0]), addr(V6[1]));
    let v4 = testing::udp(addr(V4[0]), addr(V4[1]));
    assert!(matches!(decode(ETH_P_IP, &v6), Err(FlowError::Malformed { family: "IPv4", .. })));
    assert!(matches!(decode(ETH_P_IPV6, &[v4.as_slice(), &[0; 40]].concat()), Err(FlowError::Malformed { family: "IPv6", .. })));
    assert!(matches!(decode(ETH_P_IP, &[0x44; 20]), Err(FlowError::Malformed { .. })), "header length of 16 bytes");
    assert!(matches!(decode(ETH_P_IPV6, &v6[..39]), Err(FlowError::Cut { needed: 40, .. })));
}

/// One valid packet of each kind.
fn packets() -> Vec<Vec<u8>> {
    let mut packets = vec![with_options(), with_extensions(&[HOP_BY_HOP, ROUTING, AUTH, FIRST, OPTIONS], 6, TCP)];
    for ends in [V4, V6] {
        let [a, b] = ends.map(addr);
        packets.extend([testing::tcp(a, b, SYN), testing::udp(a, b), testing::sctp(a, b), testing::icmp(a.ip(), b.ip(), 8, 0)]);
    }
    packets
}

/// What of a flow a longer piece of the same packet may add to, never change.
fn agrees(shorter: &Flow, longer: &Flow) -> bool {
    fn adds<T: PartialEq>(shorter: Option<T>, longer: Option<T>) -> bool {
        shorter.is_none() || shorter == longer
    }
    (shorter.source, shorter.destination) == (longer.source, longer.destination)
        && adds(shorter.source_port, longer.source_port)
        && adds(shorter.destination_port, longer.destination_port)
        && adds(shorter.tcp_flags, longer.tcp_flags)
        && adds(shorter.icmp, longer.icmp)
        && adds(shorter.fragment, longer.fragment)
}

#[test]
fn a_packet_cut_at_any_length_tells_less_but_nothing_else() {
    for packet in packets() {
        let whole = decode(ether_type(&packet), &packet).unwrap();
        let fixed = if packet[0] >> 4 == 6 { 40 } else { 20 };
        for len in 0..packet.len() {
            match decode(ether_type(&packet), &packet[..len]) {
                Ok(cut) => assert!(len >= fixed && agrees(&cut, &whole), "{cut:?} at {len} of {whole:?}"),
                Err(e) => assert!(len < fixed && matches!(e, FlowError::Cut { .. }), "{e} at {len}"),
            }
        }
    }
}

fn check_sanity(flow: &Flow) {
    assert_eq!(flow.source_port.is_some(), flow.destination_port.is_some());
    assert!(flow.source_port.is_none() || flow.protocol.has_ports());
    if flow.fragment.is_some_and(|f| f.offset > 0) {
        assert!(flow.source_port.is_none() && flow.icmp.is_none() && flow.tcp_flags.is_none());
    }
    assert_ne!(flow.fragment, Some(Fragment { offset: 0, more: false }));
}

proptest! {
    #[test]
    fn any_bytes(ether_type in prop_oneof![Just(ETH_P_IP), Just(ETH_P_IPV6), any::<u16>()], bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(flow) = decode(ether_type, &bytes) {
            check_sanity(&flow);
        }
    }

    #[test]
    fn any_bytes_behind_a_version(
        six in any::<bool>(),
        next in prop::sample::select(vec![0_u8, 6, 17, 43, 44, 51, 58, 60, 132]),
        mut bytes in prop::collection::vec(prop::sample::select(vec![0_u8, 1, 6, 17, 43, 44, 51, 60, 255]), 40..160),
    ) {
        bytes[0] = if six { 0x60 } else { 0x45 };
        bytes[if six { 6 } else { 9 }] = next;
        let flow = decode(ether_type(&bytes), &bytes).unwrap();
        check_sanity(&flow);
    }

    #[test]
    fn flipped_bytes(which in 0..10_usize, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>()) {
        let mut packet = packets().swap_remove(which);
        let family = ether_type(&packet);
        for (at, value) in flips {
            let at = at.index(packet.len());
            packet[at] ^= value;
        }
        packet.truncate(cut.index(packet.len() + 1));
        if let Ok(flow) = decode(family, &packet) {
            check_sanity(&flow);
        }
    }

    #[test]
    fn ports_and_addresses_come_back(a in any::<[u8; 16]>(), b in any::<[u8; 16]>(), ports in any::<[u16; 2]>(), six in any::<bool>()) {
        let ends: [SocketAddr; 2] = [(a, ports[0]), (b, ports[1])].map(|(ip, port)| {
            let ip = if six { IpAddr::from(ip) } else { IpAddr::from([ip[0], ip[1], ip[2], ip[3]]) };
            SocketAddr::new(ip, port)
        });
        for (bytes, protocol) in [(testing::udp(ends[0], ends[1]), Protocol::Udp), (testing::tcp(ends[0], ends[1], ACK), Protocol::Tcp)] {
            let flow = decode(if six { ETH_P_IPV6 } else { ETH_P_IP }, &bytes).unwrap();
            prop_assert_eq!(flow.protocol, protocol);
            prop_assert_eq!((flow.source, flow.destination), (ends[0].ip(), ends[1].ip()));
            prop_assert_eq!((flow.source_port, flow.destination_port), (Some(ports[0]), Some(ports[1])));
        }
    }
}
