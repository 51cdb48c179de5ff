//! A Service without endpoints is refused by kube-proxy, in netfilter as policies are: no policy is to blame, though one would deny.

use std::net::IpAddr;

use netpol_observer::diagnose::{Agreement, Class};

use super::{address, commands, frees, xtables, xtables_packets};
use crate::shape::{API, DENIED, EGRESS, Look, Scene, Shape, tcp_to};
use crate::support::machine;

const SERVICE: [&str; 2] = ["10.96.0.10", "fd00:10:96::10"];

/// The Service, beside a policy that admits none of its ports.
fn manifests() -> String {
    let ports: Vec<String> = DENIED.map(|port| format!("{{ name: p{port}, port: {port} }}")).collect();
    format!(
        "{EGRESS}---
apiVersion: v1
kind: Service
metadata: {{ name: empty, namespace: shop }}
spec:
  clusterIP: {}
  clusterIPs: [{}, \"{}\"]
  selector: {{ app: nobody }}
  ports: [{}]
",
        SERVICE[0],
        SERVICE[0],
        SERVICE[1],
        ports.join(", ")
    )
}

/// A node with a way out, on which calls to Services would go astray if nobody refused them.
fn scene() -> Scene {
    let mut scene = Scene::routed();
    let uplink: [IpAddr; 2] = ["198.51.100.1".parse().unwrap(), "2001:db8:100::1".parse().unwrap()];
    scene.node.external_host(&mut scene.bed, "uplink", &uplink).unwrap();
    for via in uplink {
        let via = via.to_string();
        scene.node.netns().exec(&["ip", "route", "add", "default", "via", &via, "dev", "extuplink", "onlink"]).unwrap();
    }
    scene
}

fn shape(name: &str, ipv6: bool, frees: &str) -> Shape {
    let mut shape = Shape::new(name, ipv6, &manifests())
        .between("shop/web", "Service shop/empty")
        .on("vethweb")
        .behind("shop/web")
        .service("shop/empty");
    let (class, agreement) = (Class::ServiceWithoutEndpoints, Agreement::NotEnforcement);
    shape = shape.netfilter(frees, "forward", &class, &agreement);
    debug_assert!(shape.expectation.looks.iter().all(|look: &Look| look.gap.is_none()));
    shape
}

#[test]
fn iptables_mode() {
    let Some(_machine) = machine("enforcers::services::iptables_mode") else { return };
    for variant in ["legacy", "nft"] {
        let scene = scene();
        let node = scene.node.netns();
        for ipv6 in [false, true] {
            let program = xtables(variant, ipv6);
            let shape = shape(&format!("Service without endpoints, kube-proxy with iptables-{variant}"), ipv6, frees(variant));
            let service = address(SERVICE, ipv6);
            let mut rules = format!(
                "{program} -N KUBE-SERVICES
                 {program} -N KUBE-FORWARD
                 {program} -A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES\n"
            );
            for port in DENIED {
                rules += &format!("{program} -A KUBE-SERVICES -p tcp -d {service} --dport {port} -j REJECT\n");
            }
            let traffic = tcp_to(scene.ns("web"), scene.ns("api"), address(API, ipv6), service);
            match commands(node, &rules) {
                Ok(()) => shape.prove(&scene, traffic, Some(&|| xtables_packets(node, &program, "KUBE-SERVICES", "REJECT"))),
                Err(why) => shape.cannot_run(&why),
            }
        }
    }
}

#[test]
fn nftables_mode() {
    let Some(_machine) = machine("enforcers::services::nftables_mode") else { return };
    for ipv6 in [false, true] {
        let scene = scene();
        let node = scene.node.netns();
        let (family, kind, service) = if ipv6 { ("ip6", "ipv6_addr", SERVICE[1]) } else { ("ip", "ipv4_addr", SERVICE[0]) };
        let elements: Vec<String> = DENIED.map(|port| format!("{service} . tcp . {port} : goto reject-chain")).collect();
        node.nft(&format!(
            "table {family} kube-proxy {{
               counter denied {{ }}
               map no-endpoint-services {{
                 type {kind} . inet_proto . inet_service : verdict
                 elements = {{ {} }}
               }}
               chain filter-forward {{ type filter hook forward priority -110; policy accept; ct state new jump service-endpoints-check; }}
               chain service-endpoints-check {{ {family} daddr . meta l4proto . th dport vmap @no-endpoint-services; }}
               chain reject-chain {{ counter name denied reject; }}
             }}",
            elements.join(", ")
        ))
        .unwrap();
        let traffic = tcp_to(scene.ns("web"), scene.ns("api"), address(API, ipv6), service.parse().unwrap());
        shape("Service without endpoints, kube-proxy with nftables", ipv6, "nft_do_chain").prove(
            &scene,
            traffic,
            Some(&|| node.counter("denied").unwrap().packets),
        );
    }
}
