//! What connection tracking and sockets add to a record: the Service a caller meant, replies, cookie and cgroup.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use netpol_observer_common::RecordFlags;
use xtask::testing::skipped;

use crate::observed::observe;
use crate::support::{Pods, call_tcp, machine, send_udp, serve_tcp};

const SERVICE: &str = "10.96.0.10:80";

/// `rule` in the forward hook, behind kube-proxy's translation of the Service.
fn ruleset(rule: &str) -> String {
    format!(
        "table ip test {{
           chain services {{ type nat hook prerouting priority dstnat; ip daddr 10.96.0.10 tcp dport 80 dnat to 10.244.1.20:8080; }}
           chain policies {{ type filter hook forward priority 0; policy accept; {rule}; }}
         }}"
    )
}

#[test]
fn the_service_survives_translation() {
    let Some(_machine) = machine("conntrack::the_service_survives_translation") else { return };
    let pods = Pods::new();
    pods.node.nft(&ruleset("tcp dport 8080 drop")).unwrap();
    let observed = observe(&pods, || {
        pods.web.in_ns(|| call_tcp(SERVICE.parse().unwrap(), Duration::from_millis(300)).expect_err("denied")).unwrap();
    });
    let drops = observed.in_netns(&pods.node);
    let record = &drops.first().expect("a drop").record;
    assert_eq!(drops[0].destination_port(), 8080, "the packet itself is translated");
    assert_ne!(record.flags & RecordFlags::CONNTRACK, 0);
    assert_eq!(record.ct_original.dst[..4], [10, 96, 0, 10], "the address dialled");
    assert_eq!(u16::from_be_bytes(record.ct_original.dst_port), 80);
    assert_eq!(record.ct_original.src[..4], [10, 244, 1, 10]);
    assert_eq!(record.ct_info, 2, "IP_CT_NEW");
    let interface = record.ifname.split(|&byte| byte == 0).next().unwrap();
    assert_eq!(interface, b"vethweb", "the veth the packet came in by");
}

#[test]
fn a_dropped_reply_is_told_from_an_opening() {
    let Some(_machine) = machine("conntrack::a_dropped_reply") else { return };
    let pods = Pods::new();
    pods.node.nft(&ruleset("ct direction reply drop")).unwrap();
    serve_tcp(&pods.api, "10.244.1.20:8080".parse().unwrap());
    let observed = observe(&pods, || {
        pods.web.in_ns(|| call_tcp(SERVICE.parse().unwrap(), Duration::from_millis(300)).expect_err("no answer")).unwrap();
    });
    let drops = observed.in_netns(&pods.node);
    let reply = drops.first().expect("a dropped reply");
    assert_eq!(reply.source_port(), 8080);
    assert!(reply.record.ct_info >= 3, "IP_CT_IS_REPLY: {}", reply.record.ct_info);
    assert_eq!(reply.record.ct_original.dst[..4], [10, 96, 0, 10], "the opener's view, not the reply's");
}

#[test]
fn a_local_sender_is_told_by_cookie_and_cgroup() {
    let Some(_machine) = machine("conntrack::a_local_sender") else { return };
    let pods = Pods::new();
    let rules = "table ip test { chain policies { type filter hook output priority 0; udp dport 9 drop; }; }";
    pods.node.nft(rules).unwrap();
    let mut cookie = 0u64;
    let observed = observe(&pods, || {
        cookie = pods
            .node
            .in_ns(|| {
                let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
                let cookie = cookie_of(&socket);
                let _ = socket.send_to(b"x", "10.244.1.20:9");
                cookie
            })
            .unwrap();
    });
    let drops = observed.in_netns(&pods.node);
    let record = &drops.first().expect("a drop").record;
    assert_ne!(record.flags & RecordFlags::SOCKET, 0);
    assert_eq!(record.socket_cookie, cookie);
    assert_ne!(record.flags & RecordFlags::DEVICE_FROM_ROUTE, 0, "no device in the OUTPUT hook but the route's");
    if let Some(cgroup) = own_cgroup() {
        assert_eq!(record.cgroup_id, cgroup);
    } else {
        skipped("conntrack::a_local_sender (the cgroup)", "no cgroup v2 hierarchy here");
    }
}

/// SO_COOKIE.
fn cookie_of(socket: &UdpSocket) -> u64 {
    let (mut cookie, mut len) = (0u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: value and length are valid for the call.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_COOKIE, (&raw mut cookie).cast(), &raw mut len) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    cookie
}

/// Inode number of this process's cgroup, which is its id.
fn own_cgroup() -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let membership = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let root = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (at, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| at.to_owned())
    })?;
    Some(std::fs::metadata(format!("{root}{path}")).ok()?.ino())
}

#[test]
fn udp_to_a_translated_address() {
    let Some(_machine) = machine("conntrack::udp_to_a_translated_address") else { return };
    let pods = Pods::new();
    let rules = "table ip test {
        chain services { type nat hook prerouting priority dstnat; ip daddr 10.96.0.53 udp dport 53 dnat to 10.244.1.20:5353; }
        chain policies { type filter hook forward priority 0; policy accept; udp dport 5353 drop; }
    }";
    pods.node.nft(rules).unwrap();
    let to: SocketAddr = "10.96.0.53:53".parse().unwrap();
    let observed = observe(&pods, || pods.web.in_ns(|| send_udp(to, b"query")).unwrap());
    let drops = observed.in_netns(&pods.node);
    let record = &drops.first().expect("a drop").record;
    assert_eq!(record.ct_original.dst[..4], [10, 96, 0, 53]);
    assert_eq!((record.ct_original.protocol, u16::from_be_bytes(record.ct_original.dst_port)), (17, 53));
}
