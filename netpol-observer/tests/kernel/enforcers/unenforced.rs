//! What else kills a new connection, and must not be taken for enforcement: nobody listens, no way leads there.

use netpol_observer::diagnose::{Agreement, Class};

use super::address;
use crate::shape::{API, Look, Scene, Shape, tcp_to, udp_to};
use crate::support::machine;

/// Where no route leads. Other addresses than documentation's are not needed: nothing leaves the node.
const NOWHERE: [&str; 2] = ["203.0.113.1", "2001:db8:113::1"];

#[test]
fn nobody_listens() {
    let Some(_machine) = machine("enforcers::unenforced::nobody_listens") else { return };
    for ipv6 in [false, true] {
        for protocol in ["TCP", "UDP"] {
            let scene = Scene::routed();
            let location = match (protocol, ipv6) {
                ("TCP", false) => "tcp_v4_rcv",
                ("TCP", true) => "tcp_v6_rcv",
                // Since 7.0 one is made part of the other.
                (_, false) => "__udp4_lib_rcv|udp_rcv",
                (_, true) => "__udp6_lib_rcv|udpv6_rcv",
            };
            // Without reasons a filter's drop looks the same for TCP, and a damaged packet's for both.
            let agreement = if protocol == "TCP" { Agreement::PoliciesAllow } else { Agreement::NotEnforcement };
            let shape = Shape::new(&format!("nobody listens, {protocol}"), ipv6, "")
                .protocol(protocol)
                .on("eth0")
                .look(Look::of_class("5.10", "reason-0", location, "input", &Class::Undecided, &agreement))
                .look(Look::of_class("5.17", "NO_SOCKET", location, "input", &Class::NoListener, &Agreement::NotEnforcement));
            let (web, api, to) = (scene.ns("web"), scene.ns("api"), address(API, ipv6));
            let traffic: Box<dyn FnOnce() + Send> =
                if protocol == "TCP" { Box::new(tcp_to(web, api, to, to)) } else { Box::new(udp_to(web, api, to, to)) };
            shape.prove(&scene, traffic, None);
        }
    }
}

#[test]
fn no_route() {
    let Some(_machine) = machine("enforcers::unenforced::no_route") else { return };
    for ipv6 in [false, true] {
        let scene = Scene::routed();
        let nowhere = address(NOWHERE, ipv6);
        let look = |since, reason, location| Look::of_class(since, reason, location, "", &Class::NoRoute, &Agreement::NotEnforcement);
        let mut shape =
            Shape::new("no route", ipv6, "").protocol("UDP").between("shop/web", &nowhere.to_string()).on("vethweb").behind("shop/web");
        let location = if ipv6 { "ip6_pkt_drop|ip6_pkt_discard" } else { "ip_error" };
        for (since, reason) in [("5.10", "reason-0"), ("5.17", "NOT_SPECIFIED"), ("5.19", "IP_INNOROUTES")] {
            shape = shape.look(look(since, reason, location));
        }
        shape.prove(&scene, udp_to(scene.ns("web"), scene.ns("api"), address(API, ipv6), nowhere), None);
    }
}
