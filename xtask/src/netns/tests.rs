//! On the real kernel, as root; without root each test says that it is skipped.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use std::time::Duration;

const PREFIX: &str = "npo-netns-test";
const SECOND: Duration = Duration::from_secs(1);

fn can_run(test: &str) -> bool {
    let can = is_root() && required_tools().is_empty();
    if !can {
        crate::testing::skipped(test, "needs root, iproute2 and nftables");
    }
    can
}

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

/// One TCP connection: what the server sent, who it says the client was.
fn call(client: &Netns, server: &Netns, address: &str) -> std::io::Result<SocketAddr> {
    // Any port: a program that another test is about to start holds a copy of the last listener for a moment.
    let listener = server.in_ns(|| TcpListener::bind((address.parse::<IpAddr>().unwrap(), 0))).unwrap()?;
    let address = listener.local_addr()?;
    let mut stream = client.in_ns(|| TcpStream::connect_timeout(&address, SECOND)).unwrap()?;
    let (mut accepted, peer) = listener.accept()?;
    accepted.write_all(b"x")?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    assert_eq!(&byte, b"x");
    Ok(peer)
}

#[test]
fn routed_pods_and_an_external_host_reach_each_other() {
    if !can_run("routed_pods_and_an_external_host_reach_each_other") {
        return;
    }
    let mut bed = Bed::new(PREFIX).unwrap();
    let node = bed.node("node", &ips(&["192.0.2.1", "fd00:2::1"])).unwrap();
    let a = node.routed_pod(&mut bed, "a", &ips(&["10.1.0.10", "fd00:1::10"])).unwrap();
    let b = node.routed_pod(&mut bed, "b", &ips(&["10.1.0.11", "fd00:1::11"])).unwrap();
    let out = node.external_host(&mut bed, "out", &ips(&["203.0.113.9", "2001:db8::9"])).unwrap();
    for (client, server, address, source) in [
        (&a, &b, "10.1.0.11", "10.1.0.10"),
        (&a, &b, "fd00:1::11", "fd00:1::10"),
        (&out, &b, "10.1.0.11", "203.0.113.9"),
        (&b, &out, "2001:db8::9", "fd00:1::11"),
        (node.netns(), &a, "10.1.0.10", "192.0.2.1"),
        (node.netns(), &a, "fd00:1::10", "fd00:2::1"),
        (&a, node.netns(), "192.0.2.1", "10.1.0.10"),
    ] {
        let peer = call(client, server, address).unwrap_or_else(|error| panic!("{} → {address}: {error}", client.name()));
        assert_eq!(peer.ip(), source.parse::<IpAddr>().unwrap(), "{} → {address}", client.name());
    }
    let udp = b.in_ns(|| UdpSocket::bind("[fd00:1::11]:53")).unwrap().unwrap();
    udp.set_read_timeout(Some(SECOND)).unwrap();
    a.in_ns(|| UdpSocket::bind("[::]:0").and_then(|socket| socket.send_to(b"q", "[fd00:1::11]:53"))).unwrap().unwrap();
    assert_eq!(udp.recv_from(&mut [0; 4]).unwrap().0, 1);
}

#[test]
fn rules_drop_and_count_between_bridged_pods_only_with_bridge_netfilter() {
    if !can_run("rules_drop_and_count_between_bridged_pods_only_with_bridge_netfilter") {
        return;
    }
    for call_iptables in [true, false] {
        let mut bed = Bed::new(PREFIX).unwrap();
        let node = bed.node("node", &ips(&["192.0.2.1"])).unwrap();
        let gateways = ["10.2.0.1/24".parse().unwrap(), "fd00:3::1/64".parse().unwrap()];
        let bridge = node.bridge("cni0", &gateways, call_iptables).unwrap();
        let a = node.bridged_pod(&mut bed, &bridge, "a", &ips(&["10.2.0.10", "fd00:3::10"])).unwrap();
        let b = node.bridged_pod(&mut bed, &bridge, "b", &ips(&["10.2.0.11", "fd00:3::11"])).unwrap();
        let out = node.external_host(&mut bed, "out", &ips(&["203.0.113.9", "2001:db8::9"])).unwrap();
        for (client, server, address) in [(&a, &b, "10.2.0.11"), (&a, &b, "fd00:3::11"), (&out, &b, "10.2.0.11"), (&a, &out, "2001:db8::9")]
        {
            call(client, server, address).unwrap_or_else(|error| panic!("{} → {address}: {error}", client.name()));
        }
        node.netns()
            .nft("table inet t {\n counter denied {}\n chain c { type filter hook forward priority 0; meta l4proto tcp ct state new counter name denied drop\n }\n}")
            .unwrap();
        assert_eq!(node.netns().counter("denied").unwrap().packets, 0);
        for address in ["10.2.0.11", "fd00:3::11"] {
            let outcome = call(&a, &b, address);
            if call_iptables {
                assert_eq!(outcome.unwrap_err().kind(), ErrorKind::TimedOut, "{address}");
            } else {
                outcome.unwrap();
            }
        }
        assert_eq!(node.netns().counter("denied").unwrap().packets > 0, call_iptables);
    }
}

#[test]
fn errors_carry_the_command_its_status_and_what_it_said() {
    if !can_run("errors_carry_the_command_its_status_and_what_it_said") {
        return;
    }
    let mut bed = Bed::new(PREFIX).unwrap();
    let namespace = bed.namespace("plain").unwrap();
    let error = format!("{:#}", namespace.exec(&["ip", "link", "show", "dev", "nowhere"]).unwrap_err());
    for part in ["plain", "ip link show dev nowhere", "exit status: 1", "does not exist"] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
    let error = format!("{:#}", namespace.nft("table inet t { nonsense }").unwrap_err());
    assert!(error.contains("nft -f -") && error.contains("nonsense"), "{error}");
    let error = format!("{:#}", namespace.counter("absent").unwrap_err());
    assert!(error.contains("no counter `absent`"), "{error}");
    assert!(bed.namespace("No Name").is_err());
}

#[test]
fn dropping_a_bed_removes_namespaces_processes_and_files_even_on_panic() {
    if !can_run("dropping_a_bed_removes_namespaces_processes_and_files_even_on_panic") {
        return;
    }
    let mut seen = None;
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let mut bed = Bed::new(PREFIX).unwrap();
        let namespace = bed.namespace("plain").unwrap();
        let mut command = Command::new("sleep");
        command.arg("60").stdout(Stdio::null());
        let process = namespace.spawn(command).unwrap();
        seen = Some((namespace.path(), bed.directory().to_owned(), process.id()));
        // A process nobody holds a guard for must go too.
        std::mem::forget(process);
        panic!("on purpose");
    }));
    assert!(panic.is_err());
    let (namespace, directory, pid) = seen.unwrap();
    assert!(!namespace.exists());
    assert!(!directory.exists());
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z"), "{state}");
}

#[test]
fn leftovers_of_dead_runs_are_removed_and_live_beds_are_not() {
    if !can_run("leftovers_of_dead_runs_are_removed_and_live_beds_are_not") {
        return;
    }
    let prefix = "npo-stale-test";
    let mut bed = Bed::new(prefix).unwrap();
    let live = bed.namespace("live").unwrap();
    // No process has an id this high (PID_MAX_LIMIT is 2^22).
    let dead = format!("{prefix}-4194305-77-0-node");
    process::run(Command::new("ip").args(["netns", "add", &dead]), None).unwrap();
    let directory = env::temp_dir().join(&dead);
    fs::create_dir(&directory).unwrap();
    assert_eq!(Bed::cleanup_stale(prefix).unwrap(), 1);
    assert!(!Path::new(NETNS_DIR).join(&dead).exists());
    assert!(!directory.exists());
    assert!(live.path().exists());
}

#[test]
fn interface_names_fit_the_kernel() {
    assert_eq!(Node::pod_interface("api"), "vethapi");
    assert_eq!(Node::pod_interface("a-very-long-pod-name"), "vetha-very-long");
    assert_eq!(Node::external_interface("client"), "extclient");
}
