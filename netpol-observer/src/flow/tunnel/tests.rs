use std::net::{IpAddr, SocketAddr};

use netpol_observer_common::{HEADER_BYTES, TUNNEL_PORTS};
use proptest::prelude::*;

use super::*;
use crate::flow::testing::{self, Names, RecordBuilder, SYN, Tunnelled, tunnelled};
use crate::flow::{FoldId, TcpFlags, decode, decode_record};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

const NODES: [[&str; 2]; 2] = [["192.0.2.1", "192.0.2.2"], ["2001:db8::1", "2001:db8::2"]];
const PODS: [[&str; 2]; 2] = [["10.244.1.5:40000", "10.244.2.7:8080"], ["[fd00:10:244:1::5]:40000", "[fd00:10:244:2::7]:8080"]];

fn ether_type(bytes: &[u8]) -> u16 {
    if bytes[0] >> 4 == 6 { ETH_P_IPV6 } else { ETH_P_IP }
}

fn syn(pods: [&str; 2]) -> Vec<u8> {
    let [a, b] = pods.map(addr);
    testing::tcp(a, b, SYN)
}

fn around(nodes: [&str; 2], how: Tunnelled<'_>, inner: &[u8]) -> Vec<u8> {
    let [a, b] = nodes.map(ip);
    tunnelled(a, b, how, inner)
}

const KINDS: [Tunnelled<'static>; 5] = [
    Tunnelled::Vxlan(4789, 4096),
    Tunnelled::Vxlan(8472, 1),
    Tunnelled::Geneve(0x00ff_ffff, &[]),
    Tunnelled::Geneve(0, &[1, 2, 3, 1, 9, 9, 9, 9]),
    Tunnelled::IpInIp,
];

/// A packet of each kind, of each pair of families.
fn packets() -> Vec<(Tunnelled<'static>, Vec<u8>, Vec<u8>)> {
    let mut packets = Vec::new();
    for how in KINDS {
        for (nodes, pods) in NODES.into_iter().flat_map(|nodes| PODS.map(|pods| (nodes, pods))) {
            let inner = syn(pods);
            packets.push((how, around(nodes, how, &inner), inner));
        }
    }
    packets
}

#[test]
fn the_packet_inside_is_read_in_all_pairs_of_families() {
    for (how, packet, inner) in packets() {
        let (kind, vni) = match how {
            Tunnelled::Vxlan(_, vni) => (TunnelKind::Vxlan, Some(vni)),
            Tunnelled::Geneve(vni, _) => (TunnelKind::Geneve, Some(vni)),
            Tunnelled::IpInIp => (TunnelKind::IpInIp, None),
        };
        let flow = decode(ether_type(&inner), &inner).unwrap();
        assert_eq!((flow.destination_port, flow.tcp_flags), (Some(8080), Some(SYN)));
        assert_eq!(decapsulate(ether_type(&packet), &packet), Some(Inner { kind, vni, flow }), "{how:?}");
        // The packet itself is decoded as before.
        assert!(NODES.concat().contains(&decode(ether_type(&packet), &packet).unwrap().source.to_string().as_str()));
    }
}

/// What of it the kernel side's bytes hold; the module's documentation gives these figures.
#[test]
fn what_is_cut() {
    let inner = syn(PODS[1]);
    let seen = |how| {
        let mut packet = around(NODES[1], how, &inner);
        packet.truncate(HEADER_BYTES);
        decapsulate(ETH_P_IPV6, &packet).map(|inner| (inner.flow.destination_port, inner.flow.tcp_flags))
    };
    let whole = Some((Some(8080), Some(SYN)));
    assert_eq!(seen(Tunnelled::IpInIp), whole);
    assert_eq!(seen(Tunnelled::Vxlan(8472, 1)), whole);
    let options = |len: usize| seen(Tunnelled::Geneve(1, &[0; 252][..len]));
    assert_eq!((options(0), options(4)), (whole, whole));
    assert_eq!((options(8), options(12)), (Some((Some(8080), None)), Some((Some(8080), None))));
    assert_eq!(options(16), Some((None, None)));
    assert_eq!((options(20), options(252)), (None, None));
    let mut tagged = around(NODES[1], Tunnelled::Vxlan(8472, 1), &inner);
    tagged.splice(68..68, [0x81, 0, 0, 7]);
    tagged.truncate(HEADER_BYTES);
    assert_eq!(decapsulate(ETH_P_IPV6, &tagged).map(|inner| (inner.flow.destination_port, inner.flow.tcp_flags)), whole);
}

#[test]
fn vlan_tags_inside_are_looked_through() {
    let untagged = around(NODES[0], Tunnelled::Vxlan(4789, 7), &syn(PODS[0]));
    let flow = decapsulate(ETH_P_IP, &untagged).unwrap().flow;
    let at = 20 + 8 + 8 + 12;
    let tagged = |tags: &[[u8; 4]]| {
        let mut packet = untagged.clone();
        packet.splice(at..at, tags.concat());
        decapsulate(ETH_P_IP, &packet).map(|inner| inner.flow)
    };
    assert_eq!(tagged(&[[0x81, 0, 0, 7]]), Some(flow.clone()));
    assert_eq!(tagged(&[[0x88, 0xa8, 0, 7], [0x81, 0, 0, 8]]), Some(flow));
    assert_eq!(tagged(&[[0x81, 0, 0, 7]; 3]), None, "three");
}

#[test]
fn a_vxlan_with_a_group_policy_is_one() {
    let mut packet = around(NODES[0], Tunnelled::Vxlan(4789, 7), &syn(PODS[0]));
    packet[28..32].copy_from_slice(&[0x88, 0x08, 1, 2]);
    assert_eq!(decapsulate(ETH_P_IP, &packet).map(|inner| (inner.kind, inner.vni)), Some((TunnelKind::Vxlan, Some(7))));
}

#[test]
fn a_geneve_without_ethernet_is_one() {
    let inner = syn(PODS[1]);
    let mut packet = around(NODES[0], Tunnelled::Geneve(9, &[1; 4]), &inner);
    packet[30..32].copy_from_slice(&ETH_P_IPV6.to_be_bytes());
    packet.drain(40..54);
    assert_eq!(decapsulate(ETH_P_IP, &packet).map(|found| found.flow), decode(ETH_P_IPV6, &inner).ok());
}

/// Each byte that a datagram has to have for a tunnel's, set wrong: it is a datagram like any other.
#[test]
fn what_is_not_plainly_a_tunnel_is_none() {
    let inner = syn(PODS[0]);
    let [a, b] = NODES[0].map(ip);
    for port in TUNNEL_PORTS {
        let datagram = testing::udp(SocketAddr::new(a, 5353), SocketAddr::new(b, port));
        assert_eq!(decapsulate(ETH_P_IP, &datagram), None, "a datagram to port {port}");
    }
    let wrong = |how, at: usize, value: u8| {
        let mut packet = around(NODES[0], how, &inner);
        packet[at] ^= value;
        assert_eq!(decapsulate(ETH_P_IP, &packet), None, "{how:?} at {at}");
    };
    let vxlan = Tunnelled::Vxlan(8472, 7);
    for (at, bits) in [(28, 0x08), (28, 0x01), (29, 1), (30, 1), (31, 1), (35, 1), (48, 1), (49, 1), (50, 0x20)] {
        wrong(vxlan, at, bits);
    }
    let geneve = Tunnelled::Geneve(7, &[0; 4]);
    for (at, bits) in [(28, 0x40), (28, 0x3f), (29, 0x01), (30, 1), (31, 1), (35, 1), (52, 1), (54, 0x10)] {
        wrong(geneve, at, bits);
    }
    // To another port, and over TCP.
    wrong(vxlan, 23, 1);
    wrong(vxlan, 9, 17 ^ 6);
    // A version that is not what the protocol number says.
    wrong(Tunnelled::IpInIp, 20, 0x20);
    // ARP inside.
    let mut arp = around(NODES[0], vxlan, &[0, 1, 8, 0, 6, 4, 0, 1, 2, 2, 2, 2, 2, 2, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
    arp[48..50].copy_from_slice(&[8, 6]);
    assert_eq!(decapsulate(ETH_P_IP, &arp), None);
    // A later fragment has no header of a tunnel, whatever its bytes look like.
    let mut fragment = around(NODES[0], vxlan, &inner);
    fragment[7] = 185;
    assert_eq!(decapsulate(ETH_P_IP, &fragment), None);
}

#[test]
fn a_record_of_a_tunnel_has_the_flow_inside_and_the_tunnel_around() {
    let packet = around(NODES[0], Tunnelled::Vxlan(8472, 1), &syn(PODS[0]));
    let outer = decode(ETH_P_IP, &packet).unwrap();
    let [a, b] = [addr("192.0.2.1:49152"), addr("192.0.2.2:8472")];
    let record = RecordBuilder::packet(&packet).conntrack(a, b, Protocol::Udp, 0, 0);
    let event = decode_record(&record.bytes(), &Names::linux()).unwrap();
    assert_eq!(event.flow.destination_port, Some(8080));
    assert_eq!(event.conntrack, None, "the entry is the tunnel's");
    assert!(!event.is_reply());
    let tunnel = event.tunnel.clone().unwrap();
    assert_eq!((&tunnel.outer, tunnel.conntrack.as_ref().map(|entry| entry.original.source)), (&outer, Some(a.ip())));

    // Another tunnel, another id; and none is that of the same packet outside of a tunnel.
    let id = |packet: &[u8]| decode_record(&RecordBuilder::packet(packet).bytes(), &Names::linux()).unwrap().id;
    let ids: Vec<FoldId> = [
        packet,
        syn(PODS[0]),
        around(NODES[0], Tunnelled::Vxlan(8472, 2), &syn(PODS[0])),
        around([NODES[0][1], NODES[0][0]], Tunnelled::Vxlan(8472, 1), &syn(PODS[0])),
        around(NODES[0], Tunnelled::Vxlan(4789, 1), &syn(PODS[0])),
        around(NODES[0], Tunnelled::Vxlan(8472, 1), &syn(["10.244.1.5:40000", "10.244.2.7:8081"])),
        around(NODES[0], Tunnelled::IpInIp, &syn(PODS[0])),
    ]
    .iter()
    .map(|packet| id(packet))
    .collect();
    assert_eq!(ids[0], event.id);
    assert!((1..ids.len()).all(|i| !ids[..i].contains(&ids[i])), "{ids:?}");

    let outside = event.outside();
    assert_eq!((outside.flow, outside.conntrack, outside.tunnel), (outer, tunnel.conntrack, None));
    let plain = testing::udp(a, b);
    assert_eq!(outside.id, id(&plain), "the id of any datagram between these addresses");
}

/// What a longer piece of the same packet may add to, never change.
fn agrees(shorter: &Flow, longer: &Flow) -> bool {
    fn adds<T: PartialEq>(shorter: Option<T>, longer: Option<T>) -> bool {
        shorter.is_none() || shorter == longer
    }
    (shorter.source, shorter.destination) == (longer.source, longer.destination)
        && adds(shorter.destination_port, longer.destination_port)
        && adds(shorter.tcp_flags, longer.tcp_flags)
}

#[test]
fn a_packet_cut_at_any_length_tells_less_but_nothing_else() {
    for (how, packet, _) in packets() {
        let whole = decapsulate(ether_type(&packet), &packet).unwrap();
        for len in 0..packet.len() {
            if let Some(cut) = decapsulate(ether_type(&packet), &packet[..len]) {
                assert_eq!((cut.kind, cut.vni), (whole.kind, whole.vni), "{how:?} at {len}");
                assert!(agrees(&cut.flow, &whole.flow), "{how:?} at {len}: {cut:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes(ether_type in prop_oneof![Just(ETH_P_IP), Just(ETH_P_IPV6), any::<u16>()], bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(inner) = decapsulate(ether_type, &bytes) {
            prop_assert!(decode(ether_type, &bytes).is_ok());
            prop_assert_eq!(inner.vni.is_none(), inner.kind == TunnelKind::IpInIp);
        }
    }

    #[test]
    fn flipped_bytes(which in 0..20_usize, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>()) {
        let (_, mut packet, _) = packets().swap_remove(which);
        let family = ether_type(&packet);
        for (at, value) in flips {
            let at = at.index(packet.len());
            packet[at] ^= value;
        }
        packet.truncate(cut.index(packet.len() + 1));
        if let Some(inner) = decapsulate(family, &packet) {
            prop_assert!(inner.vni.is_none_or(|vni| vni < 1 << 24));
        }
        let mut record = RecordBuilder::packet(&packet).build();
        record.ether_type = family;
        _ = decode_record(zerocopy::IntoBytes::as_bytes(&record), &Names::linux()).map(crate::flow::DropEvent::outside);
    }

    /// A datagram whose payload somebody chose is taken for a tunnel's only if it is one, bit by bit.
    #[test]
    fn any_payload_to_a_port_of_tunnels(port in prop::sample::select(TUNNEL_PORTS.to_vec()), payload in prop::collection::vec(any::<u8>(), 0..100)) {
        let [a, b] = NODES[0].map(ip);
        let mut packet = testing::udp(SocketAddr::new(a, 4000), SocketAddr::new(b, port));
        packet.truncate(28);
        packet.extend_from_slice(&payload);
        // Random bits hold the 26 that VXLAN asks for, or the 16 + 14 of Geneve, next to never.
        prop_assert_eq!(decapsulate(ETH_P_IP, &packet), None);
    }

    #[test]
    fn what_was_put_in_comes_out(a in any::<[u8; 16]>(), b in any::<[u8; 16]>(), ports in any::<[u16; 2]>(), six in any::<bool>(), vni in 0..1_u32 << 24, which in 0..3_usize, options in 0..64_usize) {
        let ends: [SocketAddr; 2] = [(a, ports[0]), (b, ports[1])].map(|(ip, port)| {
            let ip = if six { IpAddr::from(ip) } else { IpAddr::from([ip[0], ip[1], ip[2], ip[3]]) };
            SocketAddr::new(ip, port)
        });
        let inner = testing::tcp(ends[0], ends[1], TcpFlags { psh: true, ..SYN });
        let options = vec![0xa5; options * 4];
        let how = [Tunnelled::Vxlan(4789, vni), Tunnelled::Geneve(vni, &options), Tunnelled::IpInIp][which];
        let found = decapsulate(ETH_P_IP, &around(NODES[0], how, &inner)).expect("a tunnel");
        prop_assert_eq!(Ok(found.flow), decode(ether_type(&inner), &inner));
        prop_assert_eq!(found.vni, (which < 2).then_some(vni));
    }
}
