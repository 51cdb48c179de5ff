//! nftables in the forward, input and output hooks, dropping and rejecting, routed and bridged, IPv4 and IPv6.

use netpol_observer::capture::kernel::release;
use netpol_observer::cluster::Direction;
use netpol_observer::diagnose::{Agreement, Class};

use crate::shape::{API, DENIED, EGRESS, INGRESS, NODE, Scene, Shape, tcp, version};
use crate::support::machine;

const VERDICTS: [&str; 3] = ["drop", "reject with tcp reset", "reject"];

/// The rules of one table with a counter beside the verdict.
fn rules(hook: &str, verdict: &str) -> String {
    format!(
        "table inet policies {{
           counter denied {{ }}
           chain policies {{
             type filter hook {hook} priority 0; policy accept;
             tcp dport {}-{} counter name denied {verdict}
           }}
         }}",
        DENIED.start(),
        DENIED.end()
    )
}

fn scene(bridged: bool) -> Scene {
    if bridged { Scene::bridged() } else { Scene::routed() }
}

fn name(verdict: &str, hook: &str, bridged: bool) -> String {
    format!("nftables {verdict}, {hook}{}", if bridged { ", bridged" } else { "" })
}

/// Chains of a device, which run beside tc: before everything else on the way in, after everything on the way out.
#[test]
fn netdev() {
    let Some(_machine) = machine("nftables::netdev") else { return };
    for (hook, device, policies, direction, behind) in
        [("ingress", "vethweb", EGRESS, Direction::Egress, "shop/web"), ("egress", "vethapi", INGRESS, Direction::Ingress, "shop/api")]
    {
        let scene = Scene::routed();
        let node = scene.node.netns();
        for ipv6 in [false, true] {
            let shape = Shape::new(&format!("nftables netdev {hook}, drop"), ipv6, policies)
                .netfilter("nft_do_chain", hook, &Class::PolicyDenied(vec![direction]), &Agreement::Agrees)
                .on(device)
                .behind(behind);
            let rules = format!(
                "table netdev test {{ }}
                 delete table netdev test
                 table netdev test {{
                   counter denied {{ }}
                   chain policies {{
                     type filter hook {hook} device {device} priority 0; policy accept;
                     tcp dport {}-{} counter name denied drop
                   }}
                 }}",
                DENIED.start(),
                DENIED.end()
            );
            match node.nft(&rules) {
                Ok(()) => shape.prove(
                    &scene,
                    tcp(scene.ns("web"), scene.ns("api"), API[usize::from(ipv6)].parse().unwrap()),
                    Some(&|| node.counter("denied").unwrap().packets),
                ),
                Err(error) if version(&release()) < (5, 16) && hook == "egress" => {
                    shape.cannot_run("the egress hook of devices came with 5.16");
                    assert!(format!("{error:#}").contains("not supported"), "{error:#}");
                }
                Err(error) => panic!("{error:#}"),
            }
        }
    }
}

/// Bridged, IPv6, verdict; at other places than between pods the bridge with one verdict alone.
fn each(between_pods: bool, mut case: impl FnMut(&Scene, bool, bool, &str)) {
    for bridged in [false, true] {
        let scene = scene(bridged);
        for ipv6 in [false, true] {
            for verdict in VERDICTS.into_iter().take(if bridged && !between_pods { 1 } else { VERDICTS.len() }) {
                case(&scene, bridged, ipv6, verdict);
            }
        }
    }
}

#[test]
fn forward() {
    let Some(_machine) = machine("nftables::forward") else { return };
    each(true, |scene, bridged, ipv6, verdict| {
        let directions = [("", INGRESS, Direction::Ingress), (", egress denied", EGRESS, Direction::Egress)];
        for (word, policies, direction) in directions.into_iter().take(if verdict == "drop" { 2 } else { 1 }) {
            scene.enforce(scene.node.netns(), &rules("forward", verdict));
            // Between two ports of a bridge the packet is on the one it leaves by, between two links on the one it came in by.
            let (interface, behind) = if bridged { ("vethapi", "shop/api") } else { ("vethweb", "shop/web") };
            Shape::new(&format!("{}{word}", name(verdict, "forward", bridged)), ipv6, policies)
                .netfilter("nft_do_chain", "forward", &Class::PolicyDenied(vec![direction]), &Agreement::Agrees)
                .on(interface)
                .behind(behind)
                .prove(
                    scene,
                    tcp(scene.ns("web"), scene.ns("api"), API[usize::from(ipv6)].parse().unwrap()),
                    Some(&|| scene.node.netns().counter("denied").unwrap().packets),
                );
        }
    });
}

#[test]
fn input() {
    let Some(_machine) = machine("nftables::input") else { return };
    each(false, |scene, bridged, ipv6, verdict| {
        scene.enforce(scene.node.netns(), &rules("input", verdict));
        let (interface, behind) = if bridged { ("cni0", None) } else { ("vethweb", Some("shop/web")) };
        let mut shape = Shape::new(&name(verdict, "input", bridged), ipv6, "")
            .between("shop/web", "node node-1")
            .netfilter("nft_do_chain", "input", &Class::HostFirewall, &Agreement::PoliciesAllow)
            .on(interface);
        shape.expectation.behind = behind.map(str::to_owned);
        let address = NODE[usize::from(ipv6)].parse().unwrap();
        let counter = || scene.node.netns().counter("denied").unwrap().packets;
        shape.prove(scene, tcp(scene.ns("web"), scene.ns("node"), address), Some(&counter));
    });
}

#[test]
fn output() {
    let Some(_machine) = machine("nftables::output") else { return };
    each(false, |scene, bridged, ipv6, verdict| {
        scene.enforce(scene.node.netns(), &rules("output", verdict));
        let family = usize::from(ipv6);
        let (interface, behind) = match (verdict, ipv6, bridged) {
            // nf_send_unreach6() lends the packet the loopback device, for want of another.
            ("reject", true, _) => ("lo", None),
            (_, _, true) => ("cni0", None),
            (_, _, false) => ("vethapi", Some("shop/api")),
        };
        let mut shape = Shape::new(&name(verdict, "output", bridged), ipv6, "")
            .between("node node-1", "shop/api")
            .netfilter("nft_do_chain", "output", &Class::HostFirewall, &Agreement::PoliciesAllow)
            .on(interface);
        shape.expectation.outgoing = interface != "lo";
        shape.expectation.behind = behind.map(str::to_owned);
        let counter = || scene.node.netns().counter("denied").unwrap().packets;
        shape.prove(scene, tcp(scene.ns("node"), scene.ns("api"), API[family].parse().unwrap()), Some(&counter));
    });
}
