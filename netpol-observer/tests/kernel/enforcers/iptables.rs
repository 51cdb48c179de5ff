//! iptables-legacy and iptables-nft: DROP, REJECT with a TCP reset or an ICMP error; between pods, to the node and from it.

use netpol_observer::cluster::Direction;
use netpol_observer::diagnose::{Agreement, Class};

use super::{address, commands, forwarded, frees, web_to_api, xtables, xtables_packets};
use crate::shape::{API, INGRESS, NODE, Scene, Shape, tcp};
use crate::support::machine;

const PORTS: &str = "-p tcp --dport 9001:9010";

fn forward(scene: &Scene, variant: &str) {
    let node = scene.node.netns();
    for ipv6 in [false, true] {
        let icmp = if ipv6 { "icmp6-adm-prohibited" } else { "icmp-admin-prohibited" };
        for (name, target, option) in [
            ("DROP", "DROP", String::new()),
            ("REJECT tcp-reset", "REJECT", "--reject-with tcp-reset".to_owned()),
            ("REJECT icmp", "REJECT", format!("--reject-with {icmp}")),
        ] {
            let program = xtables(variant, ipv6);
            let class = Class::PolicyDenied(vec![Direction::Ingress]);
            let shape = forwarded(&format!("iptables-{variant} {name}"), ipv6, INGRESS, frees(variant), &class);
            match commands(node, &format!("{program} -F FORWARD\n{program} -A FORWARD {PORTS} -j {target} {option}")) {
                Ok(()) => {
                    let counter = || xtables_packets(node, &program, "FORWARD", target);
                    shape.prove(scene, web_to_api(scene, ipv6), Some(&counter));
                }
                Err(why) => shape.cannot_run(&why),
            }
        }
    }
}

/// Rules of the node for its own traffic: no policy is to blame.
fn host(scene: &Scene, variant: &str) {
    let node = scene.node.netns();
    for ipv6 in [false, true] {
        for (chain, hook) in [("INPUT", "input"), ("OUTPUT", "output")] {
            let program = xtables(variant, ipv6);
            let shape = Shape::new(&format!("iptables-{variant} DROP, {hook}"), ipv6, "").netfilter(
                frees(variant),
                hook,
                &Class::HostFirewall,
                &Agreement::PoliciesAllow,
            );
            let (shape, traffic): (_, Box<dyn FnOnce() + Send>) = if hook == "input" {
                let shape = shape.between("shop/web", "node node-1").on("vethweb").behind("shop/web");
                (shape, Box::new(tcp(scene.ns("web"), node, address(NODE, ipv6))))
            } else {
                let shape = shape.between("node node-1", "shop/api").leaving_by("vethapi").behind("shop/api");
                (shape, Box::new(tcp(node, scene.ns("api"), address(API, ipv6))))
            };
            match commands(node, &format!("{program} -A {chain} {PORTS} -j DROP")) {
                Ok(()) => shape.prove(scene, traffic, Some(&|| xtables_packets(node, &program, chain, "DROP"))),
                Err(why) => shape.cannot_run(&why),
            }
        }
    }
}

#[test]
fn legacy() {
    let Some(_machine) = machine("enforcers::iptables::legacy") else { return };
    let scene = Scene::routed();
    forward(&scene, "legacy");
    host(&scene, "legacy");
}

#[test]
fn nft() {
    let Some(_machine) = machine("enforcers::iptables::nft") else { return };
    let scene = Scene::routed();
    forward(&scene, "nft");
    host(&scene, "nft");
}
