//! Rules of the form that enforcers in use write: chains per pod and per policy, marks for what was admitted, the drop at the end. No
//! policy's name stands on the rule that drops.

use netpol_observer::cluster::Direction;
use netpol_observer::diagnose::Class;

use super::{address, commands, forwarded, frees, web_to_api, xtables, xtables_packets};
use crate::shape::{API, EGRESS, INGRESS, Scene, Shape, WEB};
use crate::support::machine;

/// kube-router: a firewall chain per pod, a chain per policy that marks what it admits, sets for the peers, REJECT for the rest.
fn kube_router(program: &str, ipv6: bool) -> String {
    let (web, api) = (address(WEB, ipv6), address(API, ipv6));
    let (family, of) = if ipv6 { ("inet6", "inet6:") } else { ("inet", "") };
    format!(
        "ipset create {of}KUBE-SRC-1 hash:ip family {family}
         ipset add {of}KUBE-SRC-1 {web}
         ipset create {of}KUBE-DST-1 hash:ip family {family}
         ipset add {of}KUBE-DST-1 {api}
         {program} -N KUBE-ROUTER-FORWARD
         {program} -N KUBE-POD-FW-API
         {program} -N KUBE-NWPLCY-API
         {program} -A FORWARD -m comment --comment kube-router -j KUBE-ROUTER-FORWARD
         {program} -A KUBE-ROUTER-FORWARD -d {api} -j KUBE-POD-FW-API
         {program} -A KUBE-POD-FW-API -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
         {program} -A KUBE-POD-FW-API -d {api} -j KUBE-NWPLCY-API
         {program} -A KUBE-NWPLCY-API -p tcp -m set --match-set {of}KUBE-SRC-1 src -m set --match-set {of}KUBE-DST-1 dst -m tcp --dport 8080 -j MARK --set-xmark 0x10000/0x10000
         {program} -A KUBE-POD-FW-API -m mark ! --mark 0x10000/0x10000 -m limit --limit 10/min --limit-burst 10 -j NFLOG --nflog-group 100
         {program} -A KUBE-POD-FW-API -m mark ! --mark 0x10000/0x10000 -j REJECT
         {program} -A KUBE-POD-FW-API -j MARK --set-xmark 0x0/0x10000
         {program} -A KUBE-POD-FW-API -j MARK --set-xmark 0x20000/0x20000"
    )
}

/// Calico's Felix: dispatch by the pod's device, a chain per device and per policy, DROP where no policy of the tier admitted.
fn calico(program: &str) -> String {
    format!(
        "{program} -N cali-FORWARD
         {program} -N cali-from-wl-dispatch
         {program} -N cali-fw-vethweb
         {program} -N cali-po-web-egress
         {program} -A FORWARD -j cali-FORWARD
         {program} -A cali-FORWARD -i veth+ -j cali-from-wl-dispatch
         {program} -A cali-from-wl-dispatch -i vethweb -g cali-fw-vethweb
         {program} -A cali-fw-vethweb -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
         {program} -A cali-fw-vethweb -m conntrack --ctstate INVALID -j DROP
         {program} -A cali-fw-vethweb -j MARK --set-xmark 0x0/0x30000
         {program} -A cali-fw-vethweb -m mark --mark 0x0/0x20000 -j cali-po-web-egress
         {program} -A cali-po-web-egress -p tcp -m multiport --dports 8080 -j MARK --set-xmark 0x10000/0x10000
         {program} -A cali-fw-vethweb -m mark --mark 0x10000/0x10000 -j RETURN
         {program} -A cali-fw-vethweb -m mark --mark 0x0/0x20000 -m comment --comment end-of-tier -j DROP"
    )
}

/// Azure NPM: policies put marks, one chain looks at them in the end.
fn azure(program: &str, ipv6: bool) -> String {
    let (web, api) = (address(WEB, ipv6), address(API, ipv6));
    let (family, of) = if ipv6 { ("inet6", "6") } else { ("inet", "") };
    format!(
        "ipset create azure-npm{of}-1 hash:net family {family}
         ipset add azure-npm{of}-1 {api}
         ipset create azure-npm{of}-2 hash:net family {family}
         ipset add azure-npm{of}-2 {web}
         {program} -N AZURE-NPM
         {program} -N AZURE-NPM-INGRESS
         {program} -N AZURE-NPM-INGRESS-1
         {program} -N AZURE-NPM-ACCEPT
         {program} -A FORWARD -m conntrack --ctstate NEW -j AZURE-NPM
         {program} -A AZURE-NPM -j AZURE-NPM-INGRESS
         {program} -A AZURE-NPM -m mark --mark 0x2000 -j AZURE-NPM-ACCEPT
         {program} -A AZURE-NPM-INGRESS -m set --match-set azure-npm{of}-1 dst -j AZURE-NPM-INGRESS-1
         {program} -A AZURE-NPM-INGRESS -m mark --mark 0x4000 -j DROP
         {program} -A AZURE-NPM-INGRESS-1 -p tcp --dport 8080 -m set --match-set azure-npm{of}-2 src -j MARK --set-mark 0x2000
         {program} -A AZURE-NPM-INGRESS-1 -m mark ! --mark 0x2000 -j MARK --set-mark 0x4000
         {program} -A AZURE-NPM-ACCEPT -j ACCEPT"
    )
}

/// One product's rules for both families.
fn try_rules(
    name: &str,
    variant: &str,
    policies: &str,
    direction: Direction,
    rules: impl Fn(&str, bool) -> String,
    (chain, target): (&str, &str),
) {
    let scene = Scene::routed();
    let node = scene.node.netns();
    for ipv6 in [false, true] {
        let program = xtables(variant, ipv6);
        let class = Class::PolicyDenied(vec![direction]);
        let shape = forwarded(&format!("{name}, iptables-{variant}"), ipv6, policies, frees(variant), &class);
        match commands(node, &rules(&program, ipv6)) {
            Ok(()) => shape.prove(&scene, web_to_api(&scene, ipv6), Some(&|| xtables_packets(node, &program, chain, target))),
            Err(why) => shape.cannot_run(&why),
        }
    }
}

#[test]
fn iptables() {
    let Some(_machine) = machine("enforcers::products::iptables") else { return };
    for variant in ["legacy", "nft"] {
        try_rules("kube-router's rules", variant, INGRESS, Direction::Ingress, kube_router, ("KUBE-POD-FW-API", "REJECT"));
        try_rules("Calico's rules", variant, EGRESS, Direction::Egress, |program, _| calico(program), ("cali-fw-vethweb", "DROP"));
    }
    try_rules("Azure NPM's rules", "nft", INGRESS, Direction::Ingress, azure, ("AZURE-NPM-INGRESS", "DROP"));
}

/// Felix in nftables mode: one table, dispatch by a map of devices.
#[test]
fn nftables() {
    let Some(_machine) = machine("enforcers::products::nftables") else { return };
    for ipv6 in [false, true] {
        let scene = Scene::routed();
        let node = scene.node.netns();
        let family = if ipv6 { "ip6" } else { "ip" };
        node.nft(&format!(
            "table {family} calico {{
               counter denied {{ }}
               map from-workload {{ type ifname : verdict; elements = {{ \"vethweb\" : goto filter-cali-fw-vethweb }} }}
               chain filter-FORWARD {{ type filter hook forward priority 0; policy accept; jump filter-cali-from-wl-dispatch; }}
               chain filter-cali-from-wl-dispatch {{ iifname vmap @from-workload; }}
               chain filter-cali-fw-vethweb {{
                 ct state established,related accept
                 ct state invalid drop
                 meta mark set meta mark & 0xfffcffff
                 jump filter-cali-po-web-egress
                 meta mark & 0x00010000 == 0x00010000 return
                 meta mark & 0x00020000 == 0 counter name denied drop
               }}
               chain filter-cali-po-web-egress {{ tcp dport 8080 meta mark set meta mark | 0x00010000; }}
             }}"
        ))
        .unwrap();
        let class = Class::PolicyDenied(vec![Direction::Egress]);
        let shape: Shape = forwarded("Calico's rules, nftables", ipv6, EGRESS, "nft_do_chain", &class);
        shape.prove(&scene, web_to_api(&scene, ipv6), Some(&|| node.counter("denied").unwrap().packets));
    }
}
