//! Drops by the state of a connection, and by the way its packets take.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use netpol_observer::diagnose::{Agreement, Class};
use netpol_observer::flow::testing;

use super::beds::{ip, of};
use super::calls::{Allowed, send_raw};
use super::{DENIED_TCP, filter, ingress};
use crate::shape::{API, DENIED, INGRESS, Look, Scene, Shape, WEB, patience};
use crate::support::machine;

/// A segment from the middle of a connection that nobody has seen the opening of, where the node drops what conntrack does not understand.
fn invalid(policies: &str, ipv6: bool) {
    let (agreement, words) = if policies.is_empty() { (Agreement::PoliciesAllow, "allowed") } else { (cannot_decide(), "denied") };
    let shape = Shape::new(&format!("conntrack INVALID, {words} by policies"), ipv6, policies)
        .on("vethweb")
        .behind("shop/web")
        .says("has no record of that connection")
        .dropped_otherwise("forward", &Class::ConnectionState, &agreement);
    let scene = Scene::routed();
    let node = scene.ns("node").clone();
    // This loads connection tracking, where it is a module.
    node.nft(&filter("forward", "ct state invalid")).unwrap();
    // A connection is picked up in its middle otherwise.
    node.sysctl("net.netfilter.nf_conntrack_tcp_loose", "0").unwrap();
    let (web, api) = (of(WEB, ipv6), of(API, ipv6));
    let packets: Vec<_> = DENIED.map(|port| testing::tcp(SocketAddr::new(web, 40_000), SocketAddr::new(api, port), testing::ACK)).collect();
    let from = scene.ns("web").clone();
    let allowed = Allowed::new(scene.ns("web"), scene.ns("api"), api);
    let counter = move || node.counter("denied").unwrap().packets;
    shape.prove(&scene, allowed.beside(move || send_raw(&from, &packets)), Some(&counter));
}

/// The verdict alone counts.
fn cannot_decide() -> Agreement {
    Agreement::CannotDecide { why: String::new() }
}

/// Open connections between two pods, a port each.
struct Open {
    callers: Vec<TcpStream>,
    answerers: Vec<TcpStream>,
}

fn open(scene: &Scene, ipv6: bool) -> Open {
    let api = of(API, ipv6);
    let listeners: Vec<TcpListener> =
        scene.ns("api").in_ns(|| DENIED.map(|port| TcpListener::bind((api, port)).unwrap()).collect()).unwrap();
    let callers: Vec<TcpStream> = scene
        .ns("web")
        .in_ns(|| DENIED.map(|port| TcpStream::connect_timeout(&SocketAddr::new(api, port), patience()).unwrap()).collect())
        .unwrap();
    let mut answerers = Vec::new();
    for (mut caller, listener) in callers.iter().zip(listeners) {
        let (mut answerer, _) = listener.accept().unwrap();
        // There and back: the connection is established for everybody on the way.
        caller.write_all(b"?").unwrap();
        answerer.read_exact(&mut [0]).unwrap();
        answerer.write_all(b"!").unwrap();
        caller.read_exact(&mut [0]).unwrap();
        answerers.push(answerer);
    }
    Open { callers, answerers }
}

/// Segments far outside of the window of an open connection.
fn out_of_window(ipv6: bool) {
    let shape = Shape::new("conntrack INVALID, out of window", ipv6, "").on("vethweb").behind("shop/web").dropped_otherwise(
        "forward",
        &Class::ConnectionState,
        &Agreement::PoliciesAllow,
    );
    let scene = Scene::routed();
    let node = scene.ns("node").clone();
    node.nft(&filter("forward", "ct state invalid")).unwrap();
    let open = open(&scene, ipv6);
    let packets: Vec<_> = open
        .callers
        .iter()
        .map(|caller| {
            let mut packet = testing::tcp(caller.local_addr().unwrap(), caller.peer_addr().unwrap(), testing::ACK);
            // The builder's sequence number is 1, and one in two thousand million is inside a window by chance: move both far off.
            let at = if ipv6 { 40 } else { 20 };
            packet[at + 4] ^= 0x40;
            packet
        })
        .collect();
    let from = scene.ns("web").clone();
    let allowed = Allowed::new(scene.ns("web"), scene.ns("api"), of(API, ipv6));
    let counter = move || node.counter("denied").unwrap().packets;
    shape.prove(&scene, allowed.beside(move || send_raw(&from, &packets)), Some(&counter));
    drop(open);
}

#[test]
fn conntrack_invalid() {
    let Some(_machine) = machine("datapaths::states::conntrack_invalid") else { return };
    for ipv6 in [false, true] {
        invalid("", ipv6);
        invalid(INGRESS, ipv6);
        out_of_window(ipv6);
    }
}

/// The policies come while connections are open, and the enforcer cuts them too.
fn established(ipv6: bool, from_server: bool) {
    let words = if from_server { "answers" } else { "requests" };
    let mut shape = Shape::new(&format!("open connection cut, {words}"), ipv6, INGRESS);
    shape = if from_server {
        shape.on("vethapi").behind("shop/api").says("The policies deny new connections of this kind by now.").dropped_otherwise(
            "forward",
            &Class::DroppedReply,
            &Agreement::PoliciesAllow,
        )
    } else {
        shape
            .on("vethweb")
            .behind("shop/web")
            .says("The connection was opened before, so the policies or the labels changed since")
            .netfilter("nft_do_chain", "forward", &ingress(), &Agreement::Agrees)
    };
    let scene = Scene::routed();
    let node = scene.ns("node").clone();
    // The entries are there from the beginning.
    node.nft("table inet tracking {\nchain forward {\ntype filter hook forward priority -1;\nct state established accept\n}\n}").unwrap();
    let mut open = open(&scene, ipv6);
    node.nft(&filter("forward", if from_server { "tcp sport 9001-9010" } else { DENIED_TCP })).unwrap();
    let allowed = Allowed::new(scene.ns("web"), scene.ns("api"), of(API, ipv6));
    let sends = || {
        let senders = if from_server { &mut open.answerers } else { &mut open.callers };
        for sender in senders.iter_mut() {
            sender.write_all(b"more").unwrap();
        }
        // Sent again by the kernel, which shows repeats.
        std::thread::sleep(Duration::from_millis(500));
    };
    shape.prove(&scene, allowed.beside(sends), None);
    drop(open);
}

#[test]
fn established_connections_after_a_policy() {
    let Some(_machine) = machine("datapaths::states::established_connections_after_a_policy") else { return };
    for ipv6 in [false, true] {
        established(ipv6, false);
        established(ipv6, true);
    }
}

/// Packets from an address that does not belong behind the link they come by.
#[test]
fn reverse_path_filter() {
    let Some(_machine) = machine("datapaths::states::reverse_path_filter") else { return };
    let shape = Shape::new("reverse-path filter, strict", false, INGRESS)
        .between("10.244.1.99", "shop/api")
        .on("vethweb")
        .behind("shop/web")
        .says("rp_filter")
        // Before it has a reason of its own, all that can be said is what drops packets at that place.
        .look(Look::of_class("5.10", "reason-0", "ip_rcv_finish_core", "prerouting", &Class::Undecided, &Agreement::NotEnforcement))
        .look(Look::of_class("5.17", "NOT_SPECIFIED", "ip_rcv_finish_core", "prerouting", &Class::Undecided, &Agreement::NotEnforcement))
        .look(Look::of_class(
            "5.18",
            "IP_RPFILTER",
            "ip_rcv_finish_core",
            "prerouting",
            &Class::ReversePathFilter,
            &Agreement::NotEnforcement,
        ));
    let scene = Scene::routed();
    let node = scene.ns("node").clone();
    node.sysctl("net.ipv4.conf.vethweb.rp_filter", "1").unwrap();
    let (stranger, api) = ("10.244.1.99".parse().unwrap(), of(API, false));
    let packets: Vec<_> =
        DENIED.map(|port| testing::tcp(SocketAddr::new(stranger, 40_000), SocketAddr::new(api, port), testing::SYN)).collect();
    let from = scene.ns("web").clone();
    let allowed = Allowed::new(scene.ns("web"), scene.ns("api"), api);
    shape.prove(&scene, allowed.beside(move || send_raw(&from, &packets)), None);
}

/// Loose filtering by a firewall rule, which is what there is for IPv6: a rule like any other.
#[test]
fn reverse_path_filter_by_a_rule() {
    let Some(_machine) = machine("datapaths::states::reverse_path_filter_by_a_rule") else { return };
    for ipv6 in [false, true] {
        let stranger = if ipv6 { "fd00:10:244:9::99" } else { "10.9.9.99" };
        let shape = Shape::new("reverse-path filter by nftables fib", ipv6, "")
            .between(stranger, "shop/api")
            .on("vethweb")
            .behind("shop/web")
            .dropped_otherwise("prerouting", &Class::HostFirewall, &Agreement::PoliciesAllow);
        let scene = Scene::routed();
        let node = scene.ns("node").clone();
        // A route elsewhere: the address is known, but not behind this link.
        ip(&node, &format!("route add {stranger} dev vethapi"));
        let loaded = node.nft(&filter("prerouting", "fib saddr . iif oif missing").replace("priority 0", "priority -310"));
        if let Err(error) = loaded {
            shape.cannot_run(&format!(
                "no fib expression in nftables: {}",
                error.root_cause().to_string().lines().next().unwrap_or_default()
            ));
            continue;
        }
        let api = of(API, ipv6);
        let packets: Vec<_> = DENIED
            .map(|port| testing::tcp(SocketAddr::new(stranger.parse().unwrap(), 40_000), SocketAddr::new(api, port), testing::SYN))
            .collect();
        let from = scene.ns("web").clone();
        let allowed = Allowed::new(scene.ns("web"), scene.ns("api"), api);
        let counter = move || node.counter("denied").unwrap().packets;
        shape.prove(&scene, allowed.beside(move || send_raw(&from, &packets)), Some(&counter));
    }
}
