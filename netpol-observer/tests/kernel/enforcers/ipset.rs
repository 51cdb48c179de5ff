//! Rules that look addresses and ports up in sets: ipset with either iptables, and the sets of nftables.

use netpol_observer::cluster::Direction;
use netpol_observer::diagnose::Class;

use super::{address, commands, forwarded, frees, web_to_api, xtables, xtables_packets};
use crate::shape::{API, EGRESS, INGRESS, Scene, WEB};
use crate::support::machine;

#[test]
fn with_iptables() {
    let Some(_machine) = machine("enforcers::ipset::with_iptables") else { return };
    for variant in ["legacy", "nft"] {
        let scene = Scene::routed();
        let node = scene.node.netns();
        for ipv6 in [false, true] {
            let program = xtables(variant, ipv6);
            let family = if ipv6 { "inet6" } else { "inet" };
            let class = Class::PolicyDenied(vec![Direction::Ingress]);
            let shape = forwarded(&format!("ipset with iptables-{variant} DROP"), ipv6, INGRESS, frees(variant), &class);
            // The sources admitted and the ports admitted, and everything else to the pod dropped.
            let rules = format!(
                "ipset create sources-{family} hash:ip family {family}
                 ipset add sources-{family} {web}
                 ipset create ports-{family} bitmap:port range 8000-9999
                 ipset add ports-{family} 8080
                 {program} -N policy
                 {program} -A FORWARD -d {api} -p tcp -j policy
                 {program} -A policy -m set --match-set sources-{family} src -m set --match-set ports-{family} dst -j ACCEPT
                 {program} -A policy -j DROP",
                web = address(WEB, ipv6),
                api = address(API, ipv6),
            );
            match commands(node, &rules) {
                Ok(()) => shape.prove(&scene, web_to_api(&scene, ipv6), Some(&|| xtables_packets(node, &program, "policy", "DROP"))),
                Err(why) => shape.cannot_run(&why),
            }
        }
    }
}

#[test]
fn of_nftables() {
    let Some(_machine) = machine("enforcers::ipset::of_nftables") else { return };
    let scene = Scene::routed();
    let node = scene.node.netns();
    for ipv6 in [false, true] {
        let (kind, ip) = if ipv6 { ("ipv6_addr", "ip6") } else { ("ipv4_addr", "ip") };
        let rules = format!(
            "table inet policies {{
               counter denied {{ }}
               set allowed {{ type {kind} . inet_service; elements = {{ {api} . 8080 }} }}
               chain policies {{
                 type filter hook forward priority 0; policy accept;
                 ct state established,related accept
                 {ip} saddr {web} {ip} daddr . tcp dport != @allowed counter name denied drop
               }}
             }}",
            web = address(WEB, ipv6),
            api = address(API, ipv6),
        );
        scene.enforce(node, &rules);
        let class = Class::PolicyDenied(vec![Direction::Egress]);
        forwarded("nftables set, drop", ipv6, EGRESS, "nft_do_chain", &class).prove(
            &scene,
            web_to_api(&scene, ipv6),
            Some(&|| node.counter("denied").unwrap().packets),
        );
    }
}
