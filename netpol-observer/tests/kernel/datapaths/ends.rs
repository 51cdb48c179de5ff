//! Ends that are no pods of their own network, and pods on one bridge.

use std::net::SocketAddr;

use netpol_observer::cluster::Direction;
use netpol_observer::diagnose::{Agreement, Class};

use super::beds::{FAR_API, ip, of, two_nodes};
use super::calls::{Allowed, denied};
use super::{DENIED_TCP, filter, ingress};
use crate::shape::{API, EGRESS, GATEWAY, INGRESS, NODE, Scene, Shape, WEB};
use crate::support::machine;

/// A program in the node's network calls a pod of the node: policies cannot forbid it, so a rule that drops it is none of theirs.
fn host_network_client(scene: &Scene, ipv6: bool) {
    let shape = Shape::new("host-network client, own node", ipv6, INGRESS)
        .between("node node-1", "shop/api")
        .leaving_by("vethapi")
        .behind("shop/api")
        .dropped_otherwise("output", &Class::HostFirewall, &Agreement::PoliciesAllow);
    let node = scene.ns("node").clone();
    scene.enforce(&node, &filter("output", DENIED_TCP));
    let api = of(API, ipv6);
    let calls = denied(&node, move |port| SocketAddr::new(api, port));
    let allowed = Allowed::new(&node, scene.ns("api"), api);
    let counter = move || node.counter("denied").unwrap().packets;
    shape.prove(scene, allowed.beside(calls), Some(&counter));
}

/// A pod calls a program in its node's network.
fn host_network_server(scene: &Scene, policies: &str, ipv6: bool) {
    let denied_by_policy = !policies.is_empty();
    let (name, class, agreement) = if denied_by_policy {
        ("host-network server, denied by policies", Class::PolicyDenied(vec![Direction::Egress]), Agreement::Agrees)
    } else {
        ("host-network server, host firewall", Class::HostFirewall, Agreement::PoliciesAllow)
    };
    let shape = Shape::new(name, ipv6, policies)
        .between("shop/web", "node node-1")
        .on("vethweb")
        .behind("shop/web")
        .dropped_otherwise("input", &class, &agreement);
    let node = scene.ns("node").clone();
    scene.enforce(&node, &filter("input", DENIED_TCP));
    let own = of(NODE, ipv6);
    let allowed = Allowed::new(scene.ns("web"), scene.ns("api"), of(API, ipv6));
    let counter = move || node.counter("denied").unwrap().packets;
    shape.prove(scene, allowed.beside(denied(scene.ns("web"), move |port| SocketAddr::new(own, port))), Some(&counter));
}

/// A program in the network of another node calls a pod: for the policies it is that node.
fn host_network_client_elsewhere(scene: &Scene, ipv6: bool) {
    let shape = Shape::new("host-network client, other node", ipv6, INGRESS)
        .between("node node-1", "shop/api")
        .on("eth0")
        .dropped_otherwise("forward", &ingress(), &Agreement::Agrees);
    let (node, other) = (scene.ns("node").clone(), scene.ns("other").clone());
    let api = of(FAR_API, ipv6);
    let (via, own) = (of(super::beds::OTHER_NODE, ipv6), of(NODE, ipv6));
    ip(&node, &format!("route add {api} via {via} src {own}"));
    scene.enforce(&other, &filter("forward", DENIED_TCP));
    let calls = denied(&node, move |port| SocketAddr::new(api, port));
    let allowed = Allowed::new(&node, scene.ns("api"), api);
    let counter = move || other.counter("denied").unwrap().packets;
    shape.prove(scene, allowed.beside(calls), Some(&counter));
}

#[test]
fn host_network() {
    let Some(_machine) = machine("datapaths::ends::host_network") else { return };
    let (scene, of_two_nodes) = (Scene::routed(), two_nodes());
    for ipv6 in [false, true] {
        host_network_client(&scene, ipv6);
        host_network_client_elsewhere(&of_two_nodes, ipv6);
        host_network_server(&scene, "", ipv6);
        host_network_server(&scene, EGRESS, ipv6);
    }
}

/// Two pods on one bridge, in both directions, and a pod that calls the bridge's own address.
#[test]
fn bridge() {
    let Some(_machine) = machine("datapaths::ends::bridge") else { return };
    let scene = Scene::bridged();
    let node = scene.ns("node").clone();
    for ipv6 in [false, true] {
        for (policies, words, class) in
            [(INGRESS, "ingress denied", ingress()), (EGRESS, "egress denied", Class::PolicyDenied(vec![Direction::Egress]))]
        {
            let shape = Shape::new(&format!("bridge with br_netfilter, {words}"), ipv6, policies)
                .on("vethapi")
                .behind("shop/api")
                .dropped_otherwise("forward", &class, &Agreement::Agrees);
            scene.enforce(&node, &filter("forward", DENIED_TCP));
            let api = of(API, ipv6);
            let allowed = Allowed::new(scene.ns("web"), scene.ns("api"), api);
            let counter = || node.counter("denied").unwrap().packets;
            shape.prove(&scene, allowed.beside(denied(scene.ns("web"), move |port| SocketAddr::new(api, port))), Some(&counter));
        }
        // The other way round: api calls web, on whom no policy is.
        let shape = Shape::new("bridge with br_netfilter, host firewall", ipv6, INGRESS)
            .between("shop/api", "shop/web")
            .on("vethweb")
            .behind("shop/web")
            .dropped_otherwise("forward", &Class::HostFirewall, &Agreement::PoliciesAllow);
        scene.enforce(&node, &filter("forward", DENIED_TCP));
        let web = of(WEB, ipv6);
        let allowed = Allowed::new(scene.ns("web"), scene.ns("api"), of(API, ipv6));
        let counter = || node.counter("denied").unwrap().packets;
        shape.prove(&scene, allowed.beside(denied(scene.ns("api"), move |port| SocketAddr::new(web, port))), Some(&counter));

        // The node calls its pods from the bridge's address.
        let shape = Shape::new("host-network client, on the bridge", ipv6, INGRESS)
            .between("node node-1", "shop/api")
            .leaving_by("cni0")
            .dropped_otherwise("output", &Class::HostFirewall, &Agreement::PoliciesAllow);
        scene.enforce(&node, &filter("output", DENIED_TCP));
        let api = of(API, ipv6);
        let allowed = Allowed::new(&node, scene.ns("api"), api);
        let counter = || node.counter("denied").unwrap().packets;
        shape.prove(&scene, allowed.beside(denied(scene.ns("node"), move |port| SocketAddr::new(api, port))), Some(&counter));

        let shape = Shape::new("bridge's own address, host firewall", ipv6, INGRESS)
            .between("shop/web", "node node-1")
            .on("cni0")
            .dropped_otherwise("input", &Class::HostFirewall, &Agreement::PoliciesAllow);
        scene.enforce(&node, &filter("input", DENIED_TCP));
        let gateway = of(GATEWAY, ipv6);
        let allowed = Allowed::new(scene.ns("web"), scene.ns("api"), of(API, ipv6));
        let counter = || node.counter("denied").unwrap().packets;
        shape.prove(&scene, allowed.beside(denied(scene.ns("web"), move |port| SocketAddr::new(gateway, port))), Some(&counter));
    }
}
