use std::net::SocketAddr;

use netpol_observer_common::{FoldKey, RecordFlags};
use proptest::prelude::*;

use super::super::testing::{self, Names, RecordBuilder, SYN};
use super::super::{Hook, IcmpKind, Symbol, decode_key};
use super::*;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn syn() -> RecordBuilder {
    RecordBuilder::tcp_syn(addr("10.244.1.5:40000"), addr("10.244.2.7:8080"))
}

fn event(record: &RecordBuilder) -> DropEvent {
    decode_record(&record.bytes(), &Names::linux()).unwrap()
}

#[test]
fn every_field_of_a_record() {
    let record = syn()
        .conntrack(addr("10.244.1.5:40000"), addr("10.96.0.20:80"), Protocol::Tcp, 2, 1 << 8)
        .socket(77, 4242)
        .folded()
        .time_ns(5_000_000_007);
    let event = event(&record);
    assert_eq!(event.time.as_nanosecond(), 1_800_000_005_000_000_007);
    assert_eq!(event.reason, Reason { number: 12, name: "NETFILTER_DROP".into() });
    assert_eq!(event.location.symbol, Some(Symbol { name: "nf_hook_slow".into(), offset: 0x42 }));
    assert_eq!(event.hook, Some(Hook::Forward));
    assert_eq!(event.interface, Some(Interface { index: 7, name: "veth1a2b".into() }));
    assert_eq!((event.outgoing, event.folded, event.netns, event.packet_len), (false, true, Some(4_026_531_840), 40));
    assert_eq!(event.flow.tcp_flags, Some(SYN));
    assert_eq!(event.socket, Some(Socket { cookie: Some(77), cgroup: Some(4242), pod_uid: None }));
    let conntrack = event.conntrack.as_ref().unwrap();
    assert_eq!((conntrack.reply, conntrack.seen_reply), (false, false));
    assert_eq!(conntrack.original.destination, addr("10.96.0.20:80").ip());
    assert_eq!((conntrack.original.source_port, conntrack.original.destination_port), (Some(40000), Some(80)));
    assert!(!event.is_reply());
}

#[test]
fn what_the_kernel_did_not_know_is_absent() {
    let record = syn().netns(0).location(0).stack(&[]).interface(0, "").reason(0x2_0003);
    let nothing = event(&record);
    assert_eq!((nothing.netns, nothing.hook, nothing.interface), (None, None, None));
    assert_eq!((nothing.location.symbol, nothing.conntrack, nothing.socket), (None, None, None));
    assert_eq!(&*nothing.reason.name, "reason-131075");
    let with_socket = event(&syn().socket(0, 0));
    assert_eq!(with_socket.socket, Some(Socket { cookie: None, cgroup: None, pod_uid: None }));
}

#[test]
fn outgoing_packets_have_the_device_of_their_route() {
    let event = event(&syn().outgoing());
    assert!(event.outgoing);
    assert_eq!(event.interface.unwrap().index, 7);
}

#[test]
fn conntrack_info_and_status() {
    let with = |info, status| {
        let record = syn().conntrack(addr("10.0.0.1:1"), addr("10.0.0.2:2"), Protocol::Udp, info, status);
        event(&record).conntrack.map(|c| (c.reply, c.seen_reply))
    };
    for (info, expected) in [(0, false), (1, false), (2, false), (3, true), (4, true)] {
        assert_eq!(with(info, 0), Some((expected, false)), "{info}");
    }
    assert_eq!(with(7, 2), None, "untracked");
    assert_eq!(with(0, 2), Some((false, true)));
    assert_eq!(with(0, !2), Some((false, false)));
}

#[test]
fn conntrack_tuples_of_other_families_and_protocols() {
    let base = syn().conntrack(addr("[fd00::1]:1"), addr("[fd00::2]:2"), Protocol::Icmpv6, 0, 0);
    let tuple = event(&base).conntrack.unwrap().original;
    assert_eq!(tuple.source, addr("[fd00::1]:0").ip());
    assert_eq!((tuple.source_port, tuple.destination_port), (None, None), "an ICMP identifier is no port");
    assert_eq!(event(&base.with(|record| record.ct_original.family = 7)).conntrack, None);
    assert_eq!(event(&syn().with(|record| record.ct_original.family = 2)).conntrack, None, "without the flag there is none");
}

#[test]
fn length_counts_from_the_network_header() {
    let len = |offset, len| {
        event(&syn().with(|record| {
            record.network_offset = offset;
            record.packet_len = len;
        }))
        .packet_len
    };
    assert_eq!(len(0, 60), 60);
    assert_eq!(len(14, 74), 60);
    assert_eq!(len(-20, 40), 60);
    assert_eq!(len(100, 60), 0);
    assert_eq!(len(i32::MIN, u32::MAX), u32::MAX);
}

#[test]
fn a_header_length_beyond_the_record_is_clamped() {
    assert_eq!(event(&syn().with(|record| record.header_len = u16::MAX)), event(&syn()));
    let error = decode_record(&syn().with(|record| record.header_len = 4).bytes(), &Names::linux()).unwrap_err();
    assert_eq!(error.to_string(), "packet dropped with reason NETFILTER_DROP: IPv4 header is cut: 4 bytes of at least 20");
}

#[test]
fn another_length_is_another_version() {
    let bytes = syn().bytes();
    for wrong in [&bytes[..383], &[bytes.as_ref(), &[0]].concat(), &[]] {
        let error = decode_record(wrong, &Names::linux()).unwrap_err();
        assert_eq!(error, RecordError::Length { expected: 384, got: wrong.len() });
    }
}

fn id(record: &RecordBuilder) -> FoldId {
    event(record).id
}

#[test]
fn the_id_is_of_what_repeats_share() {
    let base = id(&syn());
    let other_port = RecordBuilder::tcp_syn(addr("10.244.1.5:40001"), addr("10.244.2.7:8080"));
    assert_eq!(id(&other_port), base, "retries use new source ports");
    assert_eq!(id(&syn().time_ns(9).interface(8, "veth2").socket(1, 2)), base);
    let different = [
        id(&syn().netns(1)),
        id(&syn().reason(2)),
        id(&RecordBuilder::tcp_syn(addr("10.244.1.6:40000"), addr("10.244.2.7:8080"))),
        id(&RecordBuilder::tcp_syn(addr("10.244.1.5:40000"), addr("10.244.2.8:8080"))),
        id(&RecordBuilder::tcp_syn(addr("10.244.1.5:40000"), addr("10.244.2.7:8081"))),
        id(&RecordBuilder::packet(&testing::udp(addr("10.244.1.5:40000"), addr("10.244.2.7:8080")))),
    ];
    for (i, other) in different.iter().enumerate() {
        assert_ne!(*other, base, "{i}");
    }
}

#[test]
fn the_id_never_changes() {
    // Computed apart from this code: FNV-1a over the fields of the key. A new value would rename every drop in stored reports.
    assert_eq!(id(&syn()).to_string(), FROZEN_ID);
    let zero = FoldKey {
        netns: 0,
        reason: 0,
        src: [0; 16],
        dst: [0; 16],
        dst_port: [0; 2],
        ether_type: 0,
        protocol: 0,
        later_fragment: 0,
        cgroup: 0,
    };
    let mut fnv = 0xcbf2_9ce4_8422_2325_u64;
    for _ in 0..46 {
        fnv = fnv.wrapping_mul(0x0000_0100_0000_01b3);
    }
    assert_eq!(FoldId::of(&zero).0, fnv);
}

/// See `the_id_never_changes`.
const FROZEN_ID: &str = "3f0a2a598a2cf0ed";

#[track_caller]
fn key_of(bytes: &[u8]) -> FoldKey {
    let record = RecordBuilder::packet(bytes).build();
    let flow = decode(record.ether_type, bytes).unwrap();
    fold_key(&record, &flow)
}

#[test]
fn keys_are_those_of_the_kernel() {
    let key = key_of(&testing::tcp(addr("10.244.1.5:40000"), addr("10.244.2.7:8080"), SYN));
    let expected = FoldKey {
        netns: 4_026_531_840,
        reason: 12,
        src: [10, 244, 1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        dst: [10, 244, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        dst_port: [0x1f, 0x90],
        ether_type: 0x0800,
        protocol: 6,
        later_fragment: 0,
        cgroup: 0,
    };
    assert_eq!(key, expected);
    let key = key_of(&testing::icmp(addr("10.0.0.1:0").ip(), addr("10.0.0.2:0").ip(), 8, 1));
    assert_eq!((key.protocol, key.dst_port), (1, [8, 1]));
    let mut fragment = testing::udp(addr("10.0.0.1:1"), addr("10.0.0.2:2"));
    fragment[6] = 0x20;
    assert_eq!((key_of(&fragment).later_fragment, key_of(&fragment).dst_port), (0, [0, 2]));
    fragment[7] = 9;
    assert_eq!((key_of(&fragment).later_fragment, key_of(&fragment).dst_port), (1, [0, 0]));
}

#[test]
fn pods_with_one_address_have_keys_of_their_own() {
    let of = |cgroup: u64| {
        let mut record = syn().socket(1, cgroup).build();
        record.flags |= RecordFlags::KEYED_BY_CGROUP;
        let flow = decode(record.ether_type, &record.header[..usize::from(record.header_len)]).unwrap();
        fold_key(&record, &flow)
    };
    assert_eq!(of(0x0001_0020_0300_4000).cgroup, 0x4321);
    assert_ne!(FoldId::of(&of(11)), FoldId::of(&of(12)));
    assert_eq!(FoldId::of(&of(0)), id(&syn()), "no cgroup to speak of");
    assert_eq!(id(&syn().socket(1, 11)), id(&syn()), "recorded before keys told them apart");
}

#[test]
fn keys_read_back() {
    let (a, b) = (addr("[fd00::1]:5"), addr("[fd00::2]:6"));
    let back = decode_key(&key_of(&testing::sctp(a, b))).unwrap();
    assert_eq!((back.netns, back.reason, back.later_fragment), (Some(4_026_531_840), 12, false));
    assert_eq!((back.flow.source, back.flow.destination), (a.ip(), b.ip()));
    assert_eq!((back.flow.source_port, back.flow.destination_port), (None, Some(6)));
    let back = decode_key(&key_of(&testing::icmp(a.ip(), b.ip(), 128, 0))).unwrap();
    assert_eq!((back.flow.icmp, back.flow.destination_port), (Some(IcmpKind { kind: 128, code: 0 }), None));
    let key = FoldKey { later_fragment: 1, ..key_of(&testing::udp(a, b)) };
    let back = decode_key(&key).unwrap();
    assert_eq!((back.later_fragment, back.flow.destination_port), (true, None));
    assert_ne!(FoldId::of(&key), FoldId::of(&FoldKey { later_fragment: 0, ..key }));
    assert_eq!(decode_key(&FoldKey { ether_type: 0x0806, ..key }), Err(FlowError::NotIp { ether_type: 0x0806 }));
}

proptest! {
    #[test]
    fn any_record(bytes in prop::collection::vec(any::<u8>(), 384), ether_type in prop::sample::select(vec![0x0800_u16, 0x86dd])) {
        let _ = decode_record(&bytes, &Names::linux());
        // And one that gets past the protocol number and the version.
        let mut record = DropRecord::read_from_bytes(&bytes).unwrap();
        record.ether_type = ether_type;
        record.header[0] = if ether_type == 0x0800 { 0x45 } else { 0x60 };
        record.header_len |= 64;
        let bytes = zerocopy::IntoBytes::as_bytes(&record);
        let event = decode_record(bytes, &Names::linux()).unwrap();
        // Of a tunnel's packet the event shows the flow inside.
        prop_assume!(event.tunnel.is_none());
        let key = fold_key(&record, &event.flow);
        prop_assert_eq!(event.id, FoldId::of(&key));
        let back = decode_key(&key).unwrap();
        prop_assert_eq!(back.flow.source, event.flow.source);
        prop_assert_eq!(back.flow.destination, event.flow.destination);
        prop_assert_eq!(back.flow.protocol, event.flow.protocol);
        if let Some(port) = event.flow.destination_port {
            prop_assert_eq!(back.flow.destination_port, Some(port));
        }
    }

    #[test]
    fn any_length(bytes in prop::collection::vec(any::<u8>(), 0..800)) {
        prop_assert_eq!(matches!(decode_record(&bytes, &Names::linux()), Err(RecordError::Length { .. })), bytes.len() != 384);
    }
}
