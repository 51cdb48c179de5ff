//! Devices, addresses and routes of the namespace that the calling thread is in, asked of the kernel directly (rtnetlink(7)). ip(8) does the same; a process for each
//! step is what takes long where the machine is emulated.

use std::ffi::CString;
use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;

use anyhow::{Context as _, Result, anyhow, bail};
use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// Makes something that must not be there yet.
const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// The kernel's ear in one namespace.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// How packets to a destination leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way<'a> {
    /// Device.
    pub(super) by: &'a str,
    /// Gateway; taken to be on the link.
    pub(super) via: Option<IpAddr>,
    /// The address that the kernel itself speaks from.
    pub(super) source: Option<IpAddr>,
}

impl Netlink {
    /// In the namespace of this thread.
    pub(super) fn open() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE).context("cannot open a netlink socket")?;
        socket.bind_auto().and_then(|_| socket.connect(&SocketAddr::new(0, 0))).context("cannot bind a netlink socket")?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// A pair of devices of which the second is in another namespace, under an index of its own.
    pub(super) fn add_veth(&mut self, name: &str, peer: &str, peer_index: u32, peer_namespace: RawFd) -> Result<()> {
        let mut other = LinkMessage::default();
        other.header.index = peer_index;
        other.attributes = vec![LinkAttribute::IfName(peer.to_owned()), LinkAttribute::NetNsFd(peer_namespace)];
        let data = InfoData::Veth(InfoVeth::Peer(other));
        self.add_link(name, InfoKind::Veth, data)
    }

    /// A bridge that floods multicast.
    pub(super) fn add_bridge(&mut self, name: &str) -> Result<()> {
        self.add_link(name, InfoKind::Bridge, InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)]))
    }

    fn add_link(&mut self, name: &str, kind: InfoKind, data: InfoData) -> Result<()> {
        let mut link = LinkMessage::default();
        link.attributes =
            vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)])];
        self.ask(RouteNetlinkMessage::NewLink(link), NEW).with_context(|| format!("cannot add the device {name}"))
    }

    /// Sets a device up, as a port of a bridge where one is given.
    pub(super) fn set_up(&mut self, name: &str, bridge: Option<&str>) -> Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index(name)?;
        if let Some(bridge) = bridge {
            link.attributes.push(LinkAttribute::Controller(index(bridge)?));
        }
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.ask(RouteNetlinkMessage::SetLink(link), 0).with_context(|| format!("cannot set the device {name} up"))
    }

    /// An address that counts at once: nobody looks for duplicates.
    pub(super) fn add_address(&mut self, address: IpNet, device: &str) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.header.index = index(device)?;
        if address.addr().is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        message.attributes = vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
        self.ask(RouteNetlinkMessage::NewAddress(message), NEW).with_context(|| format!("cannot add {address} to {device}"))
    }

    /// A route, in place of one that is there.
    pub(super) fn set_route(&mut self, destination: IpNet, way: Way<'_>) -> Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination.addr());
        message.header.destination_prefix_length = destination.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Boot;
        message.header.kind = RouteType::Unicast;
        message.header.scope = if way.via.is_some() || destination.addr().is_ipv6() { RouteScope::Universe } else { RouteScope::Link };
        if destination.prefix_len() > 0 {
            message.attributes.push(RouteAttribute::Destination(route_address(destination.addr())));
        }
        message.attributes.push(RouteAttribute::Oif(index(way.by)?));
        if let Some(via) = way.via {
            message.header.flags = RouteFlags::Onlink;
            message.attributes.push(RouteAttribute::Gateway(route_address(via)));
        }
        if let Some(source) = way.source {
            message.attributes.push(RouteAttribute::PrefSource(route_address(source)));
        }
        self.ask(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
            .with_context(|| format!("cannot set the route to {destination}: {way:?}"))
    }

    /// Sends one request and waits for what the kernel says of it.
    fn ask(&mut self, request: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).context("cannot write to the netlink socket")?;
        loop {
            let (answer, _) = self.socket.recv_from_full().context("cannot read from the netlink socket")?;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
                .map_err(|error| anyhow!("the kernel's answer cannot be read: {error}"))?;
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            return match answer.payload {
                NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
                NetlinkPayload::Error(error) => Err(error.to_io().into()),
                other => bail!("the kernel answers with {other:?}"),
            };
        }
    }
}

/// The number of a device in this thread's namespace.
fn index(name: &str) -> Result<u32> {
    let terminated = CString::new(name).with_context(|| format!("{name:?} cannot be a device"))?;
    // SAFETY: the string is terminated.
    match unsafe { libc::if_nametoindex(terminated.as_ptr()) } {
        0 => Err(io::Error::last_os_error()).with_context(|| format!("there is no device {name}")),
        index => Ok(index),
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}
