//! Synthetic drop records and kernel names for tests. Not part of the public interface.
//!
//! Public rather than `cfg(test)` because the integration tests build recordings from it. Nothing else may use it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use etherparse::{Icmpv4Type, Icmpv6Type, IpNumber, PacketBuilder, PacketBuilderStep, TcpHeader};
use netpol_observer_common::{ConntrackTuple, DropRecord, PORT_GENEVE, RecordFlags};
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::fold::address_bytes;
use super::packet::{ETH_P_IP, ETH_P_IPV6};
use super::{KernelNames, Protocol, Symbol, TcpFlags};

/// An opening packet.
pub const SYN: TcpFlags = TcpFlags { syn: true, ack: false, fin: false, rst: false, psh: false };
/// The answer to it.
pub const SYN_ACK: TcpFlags = TcpFlags { ack: true, ..SYN };
/// A packet of an open connection.
pub const ACK: TcpFlags = TcpFlags { syn: false, ..SYN_ACK };
/// A refusal.
pub const RST: TcpFlags = TcpFlags { rst: true, ..ACK };

/// The bytes of a TCP packet from the network header on. Addresses of two families give an IPv4 packet of zeros.
pub fn tcp(source: SocketAddr, destination: SocketAddr, flags: TcpFlags) -> Vec<u8> {
    let mut header = TcpHeader::new(source.port(), destination.port(), 1, 64_000);
    (header.syn, header.ack, header.fin, header.rst, header.psh) = (flags.syn, flags.ack, flags.fin, flags.rst, flags.psh);
    let step = ip(source.ip(), destination.ip()).tcp_header(header);
    let mut bytes = Vec::with_capacity(step.size(0));
    written(step.write(&mut bytes, &[]), bytes)
}

/// The bytes of a UDP packet with four bytes of payload.
pub fn udp(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let step = ip(source.ip(), destination.ip()).udp(source.port(), destination.port());
    let mut bytes = Vec::with_capacity(step.size(4));
    written(step.write(&mut bytes, &[1, 2, 3, 4]), bytes)
}

/// The bytes of an SCTP packet, with nothing in it but ports.
pub fn sctp(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let [[a, b], [c, d]] = [source.port().to_be_bytes(), destination.port().to_be_bytes()];
    let step = ip(source.ip(), destination.ip());
    let mut bytes = Vec::new();
    written(step.write(&mut bytes, IpNumber::SCTP, &[a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0]), bytes)
}

/// The bytes of an ICMP or, between IPv6 addresses, ICMPv6 message.
pub fn icmp(source: IpAddr, destination: IpAddr, kind: u8, code: u8) -> Vec<u8> {
    let step = ip(source, destination);
    let mut bytes = Vec::new();
    let result = if source.is_ipv4() {
        let icmp = Icmpv4Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: [0; 4] };
        step.icmpv4(icmp).write(&mut bytes, &[])
    } else {
        step.icmpv6(Icmpv6Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: [0; 4] }).write(&mut bytes, &[])
    };
    written(result, bytes)
}

/// What stands between the outer IP header and the inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnelled<'a> {
    /// UDP to the port, VXLAN header, Ethernet.
    Vxlan(u16, u32),
    /// UDP to 6081, Geneve header with these options, Ethernet.
    Geneve(u32, &'a [u8]),
    /// Nothing.
    IpInIp,
}

/// The bytes of a tunnel's packet around `inner`.
pub fn tunnelled(source: IpAddr, destination: IpAddr, how: Tunnelled<'_>, inner: &[u8]) -> Vec<u8> {
    let six = inner.first().is_some_and(|first| first >> 4 == 6);
    let inner_type = if six { ETH_P_IPV6 } else { ETH_P_IP }.to_be_bytes();
    let frame = [&[2; 12], inner_type.as_slice(), inner].concat();
    let vni = |vni: u32| vni.wrapping_shl(8).to_be_bytes();
    let (port, payload) = match how {
        Tunnelled::Vxlan(port, id) => (port, [&[8, 0, 0, 0], vni(id).as_slice(), &frame].concat()),
        Tunnelled::Geneve(id, options) => {
            (PORT_GENEVE, [&[(options.len() / 4) as u8, 0, 0x65, 0x58], vni(id).as_slice(), options, &frame].concat())
        }
        Tunnelled::IpInIp => {
            let number = if six { IpNumber::IPV6 } else { IpNumber::IPV4 };
            let mut bytes = Vec::new();
            return written(ip(source, destination).write(&mut bytes, number, inner), bytes);
        }
    };
    let step = ip(source, destination).udp(49_152, port);
    let mut bytes = Vec::with_capacity(step.size(payload.len()));
    written(step.write(&mut bytes, &payload), bytes)
}

fn ip(source: IpAddr, destination: IpAddr) -> PacketBuilderStep<etherparse::IpHeaders> {
    use etherparse::{IpHeaders, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6FlowLabel, Ipv6Header};
    PacketBuilder::ip(match (source, destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => IpHeaders::Ipv6(
            Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 0,
                next_header: IpNumber::IPV6_NO_NEXT_HEADER,
                hop_limit: 63,
                source: source.octets(),
                destination: destination.octets(),
            },
            Ipv6Extensions::default(),
        ),
        (source, destination) => {
            let octets = |address| match address {
                IpAddr::V4(v4) => v4.octets(),
                IpAddr::V6(_) => [0; 4],
            };
            let header = Ipv4Header { time_to_live: 63, source: octets(source), destination: octets(destination), ..Ipv4Header::default() };
            IpHeaders::Ipv4(header, Ipv4Extensions::default())
        }
    })
}

/// Writing a small packet into memory does not fail; if it does, the empty packet fails the test that asked for it.
fn written<E>(result: Result<(), E>, bytes: Vec<u8>) -> Vec<u8> {
    if result.is_ok() { bytes } else { Vec::new() }
}

/// Builds a [`DropRecord`] as the kernel side would write it.
#[derive(Clone, Debug)]
pub struct RecordBuilder {
    record: DropRecord,
}

impl RecordBuilder {
    /// A packet given by its bytes from the network header on, freed in the forward hook of [`Names::linux`] with
    /// `NETFILTER_DROP`, on `veth1a2b` (7) of network namespace 4026531840.
    pub fn packet(bytes: &[u8]) -> Self {
        let names = Names::linux();
        let mut record = DropRecord::new_zeroed();
        let copied = bytes.len().min(record.header.len());
        for (to, from) in record.header.iter_mut().zip(bytes) {
            *to = *from;
        }
        record.header_len = copied as u16;
        record.packet_len = bytes.len() as u32;
        record.ether_type = if bytes.first().is_some_and(|first| first >> 4 == 6) { ETH_P_IPV6 } else { ETH_P_IP };
        record.time_ns = 1_000_000_000;
        record.netns = 4_026_531_840;
        RecordBuilder { record }
            .reason(names.reason_number("NETFILTER_DROP"))
            .location(names.address("nf_hook_slow"))
            .stack(&["nf_hook_slow", "ip_forward", "ip_rcv"].map(|function| names.address(function)))
            .interface(7, "veth1a2b")
    }

    /// A TCP SYN.
    pub fn tcp_syn(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::packet(&tcp(source, destination, SYN))
    }

    /// `DropRecord::time_ns`
    #[must_use]
    pub fn time_ns(mut self, time_ns: u64) -> Self {
        self.record.time_ns = time_ns;
        self
    }

    /// `DropRecord::reason`
    #[must_use]
    pub fn reason(mut self, number: u32) -> Self {
        self.record.reason = number;
        self
    }

    /// `DropRecord::location`
    #[must_use]
    pub fn location(mut self, address: u64) -> Self {
        self.record.location = address;
        self
    }

    /// `DropRecord::stack`, innermost first.
    #[must_use]
    pub fn stack(mut self, addresses: &[u64]) -> Self {
        self.record.stack = Default::default();
        for (to, from) in self.record.stack.iter_mut().zip(addresses) {
            *to = *from;
        }
        self
    }

    /// The device it was on.
    #[must_use]
    pub fn interface(mut self, index: u32, name: &str) -> Self {
        self.record.flags = self.record.flags & !RecordFlags::DEVICE_FROM_ROUTE | RecordFlags::DEVICE;
        self.record.ifindex = index;
        self.record.ifname = Default::default();
        for (to, from) in self.record.ifname.iter_mut().zip(name.bytes().take(15)) {
            *to = from;
        }
        self
    }

    /// The device it was to leave by.
    #[must_use]
    pub fn outgoing(mut self) -> Self {
        self.record.flags = self.record.flags & !RecordFlags::DEVICE | RecordFlags::DEVICE_FROM_ROUTE;
        self
    }

    /// `DropRecord::netns`
    #[must_use]
    pub fn netns(mut self, netns: u32) -> Self {
        self.record.netns = netns;
        self
    }

    /// The original tuple, `enum ip_conntrack_info` and IPS_* bits.
    #[must_use]
    pub fn conntrack(mut self, source: SocketAddr, destination: SocketAddr, protocol: Protocol, info: u8, status: u32) -> Self {
        self.record.flags |= RecordFlags::CONNTRACK;
        self.record.ct_info = info;
        self.record.ct_status = status;
        self.record.ct_original = ConntrackTuple {
            src: address_bytes(source.ip()),
            src_port: source.port().to_be_bytes(),
            family: if source.is_ipv4() { 2 } else { 10 },
            dst: address_bytes(destination.ip()),
            dst_port: destination.port().to_be_bytes(),
            protocol: protocol.number(),
            direction: 0,
        };
        self
    }

    /// The socket's cookie and cgroup.
    #[must_use]
    pub fn socket(mut self, cookie: u64, cgroup: u64) -> Self {
        self.record.flags |= RecordFlags::SOCKET;
        self.record.socket_cookie = cookie;
        self.record.cgroup_id = cgroup;
        self
    }

    /// Repeats are counted.
    #[must_use]
    pub fn folded(mut self) -> Self {
        self.record.flags |= RecordFlags::FOLDED;
        self
    }

    /// Anything the other methods do not reach.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut DropRecord)) -> Self {
        change(&mut self.record);
        self
    }

    /// The record.
    pub fn build(&self) -> DropRecord {
        self.record
    }

    /// Its bytes, as they come out of the ring.
    pub fn bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.record.as_bytes())
    }
}

/// Kernel names made up from lists.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Number → name of reasons.
    pub reasons: BTreeMap<u32, Arc<str>>,
    /// Start address → function; each reaches to the next.
    pub functions: BTreeMap<u64, Arc<str>>,
    /// Monotonic to wall-clock time.
    pub clock_offset_ns: i64,
}

impl Names {
    /// Reasons numbered as by Linux 6.18, and the functions packets are commonly freed in or under, 4 KiB each.
    pub fn linux() -> Self {
        let reasons = [
            (2, "NOT_SPECIFIED"),
            (3, "NO_SOCKET"),
            (12, "NETFILTER_DROP"),
            (16, "IP_RPFILTER"),
            (54, "IP_OUTNOROUTES"),
            (55, "BPF_CGROUP_EGRESS"),
            (62, "TC_EGRESS"),
            (73, "TC_INGRESS"),
            (88, "IP_INNOROUTES"),
        ];
        let functions = [
            "nf_hook_slow",
            "nft_do_chain",
            "nfqnl_reinject",
            "ip_rcv",
            "ip_forward",
            "ip_local_deliver",
            "__ip_local_out",
            "ip_output",
            "__netif_receive_skb_core.constprop.0",
            "__dev_queue_xmit",
            "tcp_v4_rcv",
            "__udp4_lib_rcv",
        ];
        Names {
            reasons: reasons.into_iter().map(|(number, name)| (number, name.into())).collect(),
            functions: functions.into_iter().zip(1_u64..).map(|(name, i)| (0xffff_ffff_8100_0000 + i * 0x1000, name.into())).collect(),
            clock_offset_ns: 1_800_000_000_000_000_000,
        }
    }

    /// An address inside a function; 0 when there is none of that name.
    pub fn address(&self, function: &str) -> u64 {
        self.functions.iter().find(|(_, name)| ***name == *function).map_or(0, |(start, _)| start + 0x42)
    }

    /// Number of a reason; 0 when there is none of that name.
    pub fn reason_number(&self, reason: &str) -> u32 {
        self.reasons.iter().find(|(_, name)| ***name == *reason).map_or(0, |(number, _)| *number)
    }
}

impl KernelNames for Names {
    fn reason(&self, number: u32) -> Option<Arc<str>> {
        self.reasons.get(&number).cloned()
    }

    fn symbol(&self, address: u64) -> Option<Symbol> {
        let (start, name) = self.functions.range(..=address).next_back()?;
        Some(Symbol { name: Arc::clone(name), offset: address - start })
    }

    fn clock_offset_ns(&self) -> i64 {
        self.clock_offset_ns
    }
}
