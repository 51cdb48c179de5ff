//! Packets of kinds that are rarer than a TCP SYN: SCTP, IPv6 with extension headers, both families at once, tunnels of pods.

use std::net::{IpAddr, SocketAddr};

use netpol_observer::flow::testing::{self, Tunnelled, tunnelled};
use xtask::netns::Netns;

use super::beds::of;
use super::calls::{Allowed, denied, send_raw};
use super::{DENIED_TCP, filter};
use crate::shape::{API, DENIED, Ends, INGRESS, Scene, Shape, WEB, brief};
use crate::support::{machine, send_udp};

/// CRC32c, which SCTP's checksum is (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1))))
}

/// The packet that opens an association.
fn init(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut packet = testing::sctp(source, destination);
    let header = if source.is_ipv4() { 20 } else { 40 };
    packet.truncate(header + 8);
    // Verification tag 0; chunk INIT of 20 bytes: tag, window, streams out and in, first number.
    packet.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1]);
    let len = packet.len() as u16;
    if source.is_ipv4() {
        packet[2..4].copy_from_slice(&len.to_be_bytes());
    } else {
        packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
    }
    packet[header + 8..header + 12].copy_from_slice(&[0; 4]);
    let checksum = crc32c(&packet[header..]).to_le_bytes();
    packet[header + 8..header + 12].copy_from_slice(&checksum);
    packet
}

fn sctp_shape(name: &str, ipv6: bool) -> Shape {
    Shape::new(name, ipv6, INGRESS).protocol("SCTP").on("vethweb").behind("shop/web").dropped_by_nft("forward")
}

/// A scene whose node drops what `condition` says, and the counter of that.
fn dropping(condition: &str) -> (Scene, impl Fn() -> u64 + use<>) {
    let scene = Scene::routed();
    let node = scene.ns("node").clone();
    node.nft(&filter("forward", condition)).unwrap();
    (scene, move || node.counter("denied").unwrap().packets)
}

#[test]
fn sctp_openings_made_by_hand() {
    let Some(_machine) = machine("datapaths::packets::sctp_openings_made_by_hand") else { return };
    for ipv6 in [false, true] {
        let (scene, counter) = dropping("sctp dport 9001-9010");
        let (web, api) = (of(WEB, ipv6), of(API, ipv6));
        let packets: Vec<_> = DENIED.map(|port| init(SocketAddr::new(web, 40_000), SocketAddr::new(api, port))).collect();
        let from = scene.ns("web").clone();
        let allowed = Allowed::new(scene.ns("web"), scene.ns("api"), api);
        sctp_shape("SCTP INIT", ipv6).prove(&scene, allowed.beside(move || send_raw(&from, &packets)), Some(&counter));
    }
}

/// A one-to-one style SCTP socket as TCP's types see it; `None` where the kernel has no SCTP.
fn sctp_socket(ipv6: bool) -> Option<std::net::TcpStream> {
    use std::os::fd::FromRawFd as _;
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: a new descriptor, owned by nobody else.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::IPPROTO_SCTP) };
    // SAFETY: as above.
    (fd >= 0).then(|| unsafe { std::net::TcpStream::from_raw_fd(fd) })
}

/// Associates with a server, for as long as one waits for what must not come. The socket does not block: the answer is awaited.
fn associate(to: SocketAddr) -> std::io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let socket = sctp_socket(to.is_ipv6()).expect("SCTP");
    socket.set_nonblocking(true)?;
    let port = to.port().to_be();
    // SAFETY: the address is as long as is said.
    let connecting = unsafe {
        match to.ip() {
            IpAddr::V4(ip) => {
                let to = libc::sockaddr_in {
                    sin_family: libc::AF_INET as u16,
                    sin_port: port,
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                    sin_zero: [0; 8],
                };
                libc::connect(socket.as_raw_fd(), (&raw const to).cast(), size_of_val(&to) as u32)
            }
            IpAddr::V6(ip) => {
                let to = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as u16,
                    sin6_port: port,
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: ip.octets() },
                    sin6_scope_id: 0,
                };
                libc::connect(socket.as_raw_fd(), (&raw const to).cast(), size_of_val(&to) as u32)
            }
        }
    };
    if connecting == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::EINPROGRESS) {
        return Err(error);
    }
    let mut ready = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one entry, as is said.
    let answered = unsafe { libc::poll(&raw mut ready, 1, brief().as_millis() as i32) };
    if answered == 1 && ready.revents & libc::POLLERR == 0 { Ok(()) } else { Err(std::io::ErrorKind::TimedOut.into()) }
}

#[test]
fn sctp_associations() {
    let Some(_machine) = machine("datapaths::packets::sctp_associations") else { return };
    for ipv6 in [false, true] {
        let shape = sctp_shape("SCTP association", ipv6);
        if sctp_socket(ipv6).is_none() {
            shape.cannot_run(&format!("no SCTP sockets: {}", std::io::Error::last_os_error()));
            continue;
        }
        let (scene, counter) = dropping("sctp dport 9001-9010");
        let api = of(API, ipv6);
        let from = scene.ns("web").clone();
        let calls = move || {
            let associations = || {
                std::thread::scope(|scope| {
                    for port in DENIED {
                        scope.spawn(move || associate(SocketAddr::new(api, port)).expect_err("denied"));
                    }
                });
            };
            from.in_ns(associations).unwrap();
        };
        let allowed = Allowed::new(scene.ns("web"), scene.ns("api"), api);
        shape.prove(&scene, allowed.beside(calls), Some(&counter));
    }
}

/// Hop-by-hop and destination options in front of the TCP header; the kernel does not fold such packets.
#[test]
fn ipv6_extension_headers() {
    let Some(_machine) = machine("datapaths::packets::ipv6_extension_headers") else { return };
    let shape = Shape::new("IPv6 extension headers", true, INGRESS).on("vethweb").behind("shop/web").dropped_by_nft("forward");
    let (scene, counter) = dropping(DENIED_TCP);
    let (web, api) = (of(WEB, true), of(API, true));
    let packets: Vec<_> = DENIED
        .map(|port| {
            let mut packet = testing::tcp(SocketAddr::new(web, 40_000), SocketAddr::new(api, port), testing::SYN);
            let tcp = packet[6];
            packet[6] = 0;
            // PadN of four bytes each.
            packet.splice(40..40, [60, 0, 1, 4, 0, 0, 0, 0, tcp, 0, 1, 4, 0, 0, 0, 0]);
            let len = (packet.len() - 40) as u16;
            packet[4..6].copy_from_slice(&len.to_be_bytes());
            packet
        })
        .collect();
    let from = scene.ns("web").clone();
    let allowed = Allowed::new(scene.ns("web"), scene.ns("api"), api);
    shape.prove(&scene, allowed.beside(move || send_raw(&from, &packets)), Some(&counter));
}

/// The same two pods, half of the calls over each family.
#[test]
fn dual_stack() {
    let Some(_machine) = machine("datapaths::packets::dual_stack") else { return };
    let mut shape = Shape::new("dual stack", false, INGRESS).on("vethweb").behind("shop/web").dropped_by_nft("forward");
    shape.expectation.family = String::new();
    let (scene, counter) = dropping(DENIED_TCP);
    let calls = denied(scene.ns("web"), |port| SocketAddr::new(of(API, port % 2 == 0), port));
    let allowed = Allowed::new(scene.ns("web"), scene.ns("api"), of(API, true));
    shape.prove(&scene, allowed.beside(calls), Some(&counter));
}

/// One flow from pod to pod, on a port that tunnels have.
fn to_tunnel_port(name: &str, ipv6: bool, calls: impl FnOnce(Netns, IpAddr, IpAddr) + Send) {
    let mut shape = Shape::new(name, ipv6, INGRESS).on("vethweb").behind("shop/web").dropped_by_nft("forward");
    shape.expectation.denied = vec![Ends { client: "shop/web".into(), server: "shop/api".into(), port: 4789, protocol: "UDP".into() }];
    let (scene, counter) = dropping("udp dport 4789");
    let (web, api) = (of(WEB, ipv6), of(API, ipv6));
    let from = scene.ns("web").clone();
    let allowed = Allowed::new(scene.ns("web"), scene.ns("api"), api);
    shape.prove(&scene, allowed.beside(move || calls(from, web, api)), Some(&counter));
}

/// A pod that builds a tunnel of its own to another pod: policies judge the outside of it.
#[test]
fn tunnels_of_pods() {
    let Some(_machine) = machine("datapaths::packets::tunnels_of_pods") else { return };
    for ipv6 in [false, true] {
        to_tunnel_port("VXLAN between pods", ipv6, |from, web, api| {
            let inside = |last, port| SocketAddr::new([10, 99, 0, last].into(), port);
            let packets: Vec<_> = (1..=5)
                .map(|n| tunnelled(web, api, Tunnelled::Vxlan(4789, 7), &testing::tcp(inside(1, 40_000), inside(2, n), testing::SYN)))
                .collect();
            send_raw(&from, &packets);
        });
        to_tunnel_port("UDP to VXLAN's port that is none", ipv6, |from, _, api| {
            from.in_ns(|| (0..20).for_each(|_| send_udp(SocketAddr::new(api, 4789), b"not a VXLAN header"))).unwrap();
        });
    }
}
