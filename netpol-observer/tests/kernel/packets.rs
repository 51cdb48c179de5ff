//! Kinds of packets: fragments, ICMP, SCTP, IPv6 with extension headers, and calls to a port where nobody listens.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use netpol_observer_common::RecordFlags;

use crate::observed::{Observed, observe};
use crate::support::{Pods, call_tcp, machine, send_udp};

/// Everything forwarded to the second pod is dropped, without connection tracking (which would put fragments together).
const DENY_ALL: &str = "table inet test { chain policies { type filter hook forward priority 0; policy accept;
    ip daddr 10.244.1.20 drop
    ip6 daddr fd00:10:244:1::20 drop
}; }";

fn denied(test: &str, traffic: impl FnOnce() + Send) -> Option<(Pods, Observed)> {
    let _machine = machine(test)?;
    let pods = Pods::new();
    pods.node.nft(DENY_ALL).unwrap();
    let observed = observe(&pods, || pods.web.in_ns(traffic).unwrap());
    observed.assert_balanced();
    Some((pods, observed))
}

#[test]
fn fragments() {
    let traffic = || send_udp("10.244.1.20:5000".parse().unwrap(), &[7; 4000]);
    let Some((pods, observed)) = denied("packets::fragments", traffic) else { return };
    let drops = observed.in_netns(&pods.node);
    let offsets: Vec<u16> = drops.iter().map(|seen| u16::from_be_bytes([seen.record.header[6], seen.record.header[7]]) & 0x1fff).collect();
    assert!(offsets.contains(&0), "the first fragment: {offsets:?}");
    assert!(offsets.iter().any(|&offset| offset > 0), "a later one: {offsets:?}");
    // The later fragments share one key, without ports.
    let packets: u64 = drops.iter().map(|seen| seen.packets).sum();
    assert_eq!(packets, 3, "4000 bytes over a link of 1500");
}

#[test]
fn icmp() {
    let traffic = || send_raw(libc::AF_INET, libc::IPPROTO_ICMP, "10.244.1.20", &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    let Some((pods, observed)) = denied("packets::icmp", traffic) else { return };
    let drops = observed.in_netns(&pods.node);
    assert_eq!(drops.len(), 1);
    assert_eq!((drops[0].protocol(), drops[0].record.header[20]), (1, 8));
}

#[test]
fn sctp() {
    let traffic = || send_raw(libc::AF_INET, 132, "10.244.1.20", &[0x10, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20]);
    let Some((pods, observed)) = denied("packets::sctp", traffic) else { return };
    let drops = observed.in_netns(&pods.node);
    assert_eq!(drops.len(), 1);
    assert_eq!((drops[0].protocol(), drops[0].destination_port()), (132, 0x2000));
    assert_ne!(drops[0].record.flags & RecordFlags::FOLDED, 0);
}

#[test]
fn ipv6_extension_headers() {
    let traffic = || {
        let socket = UdpSocket::bind("[::]:0").unwrap();
        // A destination-options header with six bytes of padding (PadN).
        let options = [0u8, 0, 1, 4, 0, 0, 0, 0];
        // SAFETY: value and length are valid for the call.
        let result = unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS, options.as_ptr().cast(), options.len() as u32)
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        for _ in 0..3 {
            let _ = socket.send_to(b"x", "[fd00:10:244:1::20]:5000".parse::<SocketAddr>().unwrap());
        }
    };
    let Some((pods, observed)) = denied("packets::ipv6_extension_headers", traffic) else { return };
    let drops: Vec<_> = observed.in_netns(&pods.node).into_iter().filter(|seen| seen.protocol() == 60).collect();
    // No key is made for them: each is reported, with the extension header and the UDP header in the bytes.
    assert_eq!(drops.len(), 3);
    for seen in drops {
        assert_eq!(seen.record.flags & RecordFlags::FOLDED, 0);
        assert_eq!(seen.record.header[40], 17, "UDP follows");
        assert_eq!(seen.record.header[50..52], 5000u16.to_be_bytes());
    }
}

#[test]
fn nobody_listens() {
    let Some(_machine) = machine("packets::nobody_listens") else { return };
    let pods = Pods::new();
    let observed = observe(&pods, || {
        pods.web
            .in_ns(|| {
                call_tcp("10.244.1.20:7000".parse().unwrap(), Duration::from_secs(2)).expect_err("refused");
                send_udp("10.244.1.20:7001".parse().unwrap(), b"x");
            })
            .unwrap();
    });
    let drops = observed.in_netns(&pods.api);
    let mut found: Vec<(u8, u16)> = drops.iter().map(|seen| (seen.protocol(), seen.destination_port())).collect();
    found.sort_unstable();
    assert_eq!(found, [(6, 7000), (17, 7001)]);
    assert!(drops.iter().all(|seen| observed.is_for(seen, "NO_SOCKET")));
    assert!(observed.in_netns(&pods.node).is_empty());
}

#[test]
fn no_route() {
    let Some(_machine) = machine("packets::no_route") else { return };
    let pods = Pods::new();
    let observed = observe(&pods, || pods.web.in_ns(|| send_udp("203.0.113.1:53".parse().unwrap(), b"x")).unwrap());
    let drops = observed.in_netns(&pods.node);
    assert_eq!(drops.len(), 1);
    assert!(observed.is_for(drops[0], "IP_INNOROUTES"));
}

#[test]
fn the_reverse_path_filter() {
    let Some(_machine) = machine("packets::the_reverse_path_filter") else { return };
    let pods = Pods::new();
    // The pod asks for its gateway's link address first: the filter would not let that be answered either.
    pods.web.in_ns(|| send_udp("192.0.2.1:53".parse().unwrap(), b"x")).unwrap();
    pods.node.sysctl("net.ipv4.conf.vethweb.rp_filter", "1").unwrap();
    // An address that the node would look for behind the other pod's link.
    pods.web.exec(&["ip", "address", "add", "10.244.1.20/32", "dev", "eth0"]).unwrap();
    let observed = observe(&pods, || {
        pods.web
            .in_ns(|| {
                let forged = UdpSocket::bind("10.244.1.20:0").unwrap();
                let _ = forged.send_to(b"x", "192.0.2.1:53");
            })
            .unwrap();
    });
    let drops = observed.in_netns(&pods.node);
    assert_eq!(drops.len(), 1);
    assert!(observed.is_for(drops[0], "IP_RPFILTER"));
}

/// Sends `payload` as the body of an IP packet of `protocol`.
fn send_raw(family: i32, protocol: i32, to: &str, payload: &[u8]) {
    let IpAddr::V4(to) = to.parse().unwrap() else { panic!("IPv4") };
    // SAFETY: opens a socket; the descriptor is checked and owned below.
    let raw = unsafe { libc::socket(family, libc::SOCK_RAW, protocol) };
    assert!(raw >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: a descriptor just made, owned by nobody else.
    let raw: std::os::fd::OwnedFd = unsafe { std::os::fd::FromRawFd::from_raw_fd(raw) };
    // SAFETY: plain old data; all zeros is a valid address structure.
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    address.sin_family = libc::AF_INET as u16;
    address.sin_addr.s_addr = u32::from_ne_bytes(to.octets());
    // SAFETY: buffer and address are valid for the lengths given.
    let sent = unsafe {
        libc::sendto(
            raw.as_raw_fd(),
            payload.as_ptr().cast(),
            payload.len(),
            0,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_in>() as u32,
        )
    };
    assert_eq!(sent, payload.len() as isize, "{}", std::io::Error::last_os_error());
}
