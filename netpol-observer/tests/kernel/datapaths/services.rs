//! Calls to Services: translated as kube-proxy does it, dropped behind the translation and before it, from pods and from outside.

use std::net::SocketAddr;

use netpol_observer::diagnose::{Agreement, Class};
use xtask::netns::Netns;

use super::beds::{OUTSIDE, VIP, of, with_outside, with_service};
use super::calls::{Allowed, denied};
use super::{DENIED_TCP, filter, ingress};
use crate::shape::{API, INGRESS, NODE, Scene, Shape, WEB};
use crate::support::machine;

/// Whose rules translate.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Proxy {
    Nftables,
    IptablesNft,
    IptablesLegacy,
}

const PROXIES: [Proxy; 3] = [Proxy::Nftables, Proxy::IptablesNft, Proxy::IptablesLegacy];

impl Proxy {
    fn name(self) -> &'static str {
        match self {
            Proxy::Nftables => "nftables",
            Proxy::IptablesNft => "iptables-nft",
            Proxy::IptablesLegacy => "iptables-legacy",
        }
    }

    /// What kube-proxy's rules do: the Service's address and the node ports lead to the pod; calls from outside and of a pod to itself
    /// come from the node then.
    fn install(self, node: &Netns, ipv6: bool) {
        let (vip, api, own) = (of(VIP, ipv6), of(API, ipv6), of(NODE, ipv6));
        if self == Proxy::Nftables {
            let ip = if ipv6 { "ip6" } else { "ip" };
            let to = |port: &str| match (ipv6, port) {
                (_, "") => format!("dnat {ip} to {api}"),
                (true, port) => format!("dnat ip6 to [{api}]:{port}"),
                (false, port) => format!("dnat ip to {api}:{port}"),
            };
            let node_ports: String = (9001..=9010)
                .map(|port| format!("{ip} daddr {own} tcp dport {} meta mark set 0x4000 {}\n", port + 22_000, to(&port.to_string())))
                .collect();
            node.nft(&format!(
                "table inet kube-proxy {{
                   chain services {{
                     {ip} daddr {vip} {ip} saddr {api} meta mark set 0x4000
                     {ip} daddr {vip} tcp dport 80 {http}
                     {ip} daddr {vip} tcp dport 9001-9010 {same}
                     {ip} daddr {own} tcp dport 30080 meta mark set 0x4000 {http}
                     {node_ports}
                   }}
                   chain prerouting {{
                     type nat hook prerouting priority -100;
                     jump services
                   }}
                   chain output {{
                     type nat hook output priority -100;
                     jump services
                   }}
                   chain postrouting {{
                     type nat hook postrouting priority 100;
                     meta mark 0x4000 masquerade
                   }}
                 }}",
                http = to("8080"),
                same = to(""),
            ))
            .unwrap();
            return;
        }
        let to = if ipv6 { format!("[{api}]") } else { api.to_string() };
        let mut rules = vec![
            format!("-A PREROUTING -d {vip} -s {api} -j MARK --set-mark 0x4000"),
            format!("-A PREROUTING -d {vip} -p tcp --dport 80 -j DNAT --to-destination {to}:8080"),
            format!("-A PREROUTING -d {vip} -p tcp --dport 9001:9010 -j DNAT --to-destination {api}"),
            format!("-A PREROUTING -d {own} -p tcp --dport 30080 -j MARK --set-mark 0x4000"),
            format!("-A PREROUTING -d {own} -p tcp --dport 30080 -j DNAT --to-destination {to}:8080"),
            format!("-A PREROUTING -d {own} -p tcp --dport 31001:31010 -j MARK --set-mark 0x4000"),
            "-A POSTROUTING -m mark --mark 0x4000 -j MASQUERADE".to_owned(),
        ];
        rules.extend(
            (9001..=9010)
                .map(|port| format!("-A PREROUTING -d {own} -p tcp --dport {} -j DNAT --to-destination {to}:{port}", port + 22_000)),
        );
        for rule in rules {
            self.iptables(node, ipv6, &format!("-t nat {rule}"));
        }
    }

    /// Drops the denied ports behind the translation.
    fn enforce(self, scene: &Scene, ipv6: bool) {
        let node = scene.ns("node");
        match self {
            Proxy::Nftables => scene.enforce(node, &filter("forward", DENIED_TCP)),
            _ => self.iptables(node, ipv6, "-A FORWARD -p tcp --dport 9001:9010 -j DROP"),
        }
    }

    fn iptables(self, node: &Netns, ipv6: bool, rule: &str) {
        let program = format!("{}{}", if ipv6 { "ip6" } else { "ip" }, self.name().trim_start_matches("ip"));
        let words: Vec<&str> = [program.as_str(), "-w"].into_iter().chain(rule.split(' ')).collect();
        node.exec(&words).unwrap();
    }

    /// The function that frees what it drops, from 6.7 on.
    fn frees(self) -> &'static str {
        if self == Proxy::IptablesLegacy { "nf_hook_slow" } else { "nft_do_chain" }
    }
}

/// The denied calls of a pod to the Service, and allowed ones.
fn calls_to_service(scene: &Scene, caller: &str, ipv6: bool) -> impl FnOnce() + Send + use<> {
    let vip = of(VIP, ipv6);
    let allowed = Allowed::new(scene.ns("web"), scene.ns("api"), of(API, ipv6)).dialled(vip, 80);
    allowed.beside(denied(scene.ns(caller), move |port| SocketAddr::new(vip, port)))
}

fn behind_translation(scene: &Scene, proxy: Proxy, ipv6: bool) {
    let shape = Shape::new(&format!("Service, translated by {}, dropped behind", proxy.name()), ipv6, INGRESS)
        .service("shop/api")
        .on("vethweb")
        .behind("shop/web")
        .netfilter(proxy.frees(), "forward", &ingress(), &Agreement::Agrees);
    proxy.install(scene.ns("node"), ipv6);
    proxy.enforce(scene, ipv6);
    shape.prove(scene, calls_to_service(scene, "web", ipv6), None);
}

#[test]
fn dropped_behind_the_translation() {
    let Some(_machine) = machine("datapaths::services::dropped_behind_the_translation") else { return };
    for proxy in PROXIES {
        let scene = with_service(Scene::routed());
        for ipv6 in [false, true] {
            behind_translation(&scene, proxy, ipv6);
        }
    }
}

/// At the device the packet comes in by, or in the hook before the translation: it still has the Service's address.
fn before_translation(scene: &Scene, hook: &str, ipv6: bool) {
    let shape = Shape::new(&format!("Service, dropped before translation in {hook}"), ipv6, INGRESS)
        .service("shop/api")
        .on("vethweb")
        .behind("shop/web")
        .dropped_by_nft(hook);
    let node = scene.ns("node").clone();
    Proxy::Nftables.install(&node, ipv6);
    let (family, at) =
        if hook == "ingress" { ("netdev", "ingress device vethweb priority 0") } else { ("inet", "prerouting priority -300") };
    node.nft(&format!(
        "table {family} policies {{ }}
         delete table {family} policies
         table {family} policies {{
           counter denied {{ }}
           chain drops {{
             type filter hook {at}; policy accept;
             {DENIED_TCP} counter name denied drop
           }}
         }}"
    ))
    .unwrap();
    let counter = move || node.counter("denied").unwrap().packets;
    shape.prove(scene, calls_to_service(scene, "web", ipv6), Some(&counter));
}

#[test]
fn dropped_before_the_translation() {
    let Some(_machine) = machine("datapaths::services::dropped_before_the_translation") else { return };
    for hook in ["ingress", "prerouting"] {
        let scene = with_service(Scene::routed());
        for ipv6 in [false, true] {
            before_translation(&scene, hook, ipv6);
        }
    }
}

/// A call from outside to a node port. Behind the masquerade the packet comes from the node; the connection's entry knows the caller.
fn node_port(scene: &Scene, masqueraded: bool, ipv6: bool) {
    let place = if masqueraded { "masqueraded" } else { "not masqueraded yet" };
    let mut shape = Shape::new(&format!("NodePort, {place}"), ipv6, INGRESS)
        .between(OUTSIDE[usize::from(ipv6)], "shop/api")
        .service("shop/api")
        .dropped_by_nft(if masqueraded { "postrouting" } else { "forward" });
    shape = if masqueraded { shape.on("vethapi").behind("shop/api") } else { shape.on("extoutside") };
    let node = scene.ns("node").clone();
    let rules = filter(if masqueraded { "postrouting" } else { "forward" }, DENIED_TCP);
    scene.enforce(&node, &rules.replace("priority 0", if masqueraded { "priority 200" } else { "priority 0" }));
    let own = of(NODE, ipv6);
    let allowed = Allowed::new(scene.ns("outside"), scene.ns("api"), of(API, ipv6)).dialled(own, 30080);
    let calls = allowed.beside(denied(scene.ns("outside"), move |port| SocketAddr::new(own, port + 22_000)));
    let counter = move || node.counter("denied").unwrap().packets;
    shape.prove(scene, calls, Some(&counter));
}

#[test]
fn node_ports() {
    let Some(_machine) = machine("datapaths::services::node_ports") else { return };
    let scene = with_outside(with_service(Scene::routed()));
    for ipv6 in [false, true] {
        Proxy::Nftables.install(scene.ns("node"), ipv6);
        node_port(&scene, false, ipv6);
        node_port(&scene, true, ipv6);
    }
}

/// A pod calls its own Service, whose only endpoint it is. Policies cannot keep a pod from itself.
fn hairpin(scene: &Scene, ipv6: bool) {
    let shape = Shape::new("hairpin, to itself", ipv6, INGRESS)
        .between("shop/api", "shop/api")
        .service("shop/api")
        .on("vethapi")
        .behind("shop/api")
        .dropped_otherwise("forward", &Class::HostFirewall, &Agreement::PoliciesAllow);
    let node = scene.ns("node").clone();
    scene.enforce(&node, &filter("forward", DENIED_TCP));
    let counter = move || node.counter("denied").unwrap().packets;
    shape.prove(scene, calls_to_service(scene, "api", ipv6), Some(&counter));
}

/// A pod calls a Service and lands on another pod of its bridge.
fn on_one_bridge(scene: &Scene, ipv6: bool) {
    let shape =
        Shape::new("Service, on one bridge", ipv6, INGRESS).service("shop/api").on("vethapi").behind("shop/api").dropped_by_nft("forward");
    let node = scene.ns("node").clone();
    scene.enforce(&node, &filter("forward", DENIED_TCP));
    let counter = move || node.counter("denied").unwrap().packets;
    shape.prove(scene, calls_to_service(scene, "web", ipv6), Some(&counter));
}

#[test]
fn on_a_bridge() {
    let Some(_machine) = machine("datapaths::services::on_a_bridge") else { return };
    let scene = with_service(Scene::bridged());
    let node = scene.ns("node");
    for ipv6 in [false, true] {
        Proxy::Nftables.install(node, ipv6);
        on_one_bridge(&scene, ipv6);
    }
    node.exec(&["bridge", "link", "set", "dev", "vethapi", "hairpin", "on"]).unwrap();
    for ipv6 in [false, true] {
        hairpin(&scene, ipv6);
    }
}

/// A pod that calls out of the cluster, behind the masquerade: the packet comes from the node.
fn masqueraded(scene: &Scene, ipv6: bool) {
    let shape = Shape::new("masqueraded source", ipv6, crate::shape::EGRESS)
        .between("shop/web", OUTSIDE[usize::from(ipv6)])
        .on("extoutside")
        .netfilter(
            "nft_do_chain",
            "postrouting",
            &Class::PolicyDenied(vec![netpol_observer::cluster::Direction::Egress]),
            &Agreement::Agrees,
        );
    let node = scene.ns("node").clone();
    let family = if ipv6 { "ip6" } else { "ip" };
    node.nft(&format!(
        "table inet nat {{
           chain postrouting {{
             type nat hook postrouting priority 100;
             {family} saddr {} {family} daddr {} masquerade
           }}
         }}",
        of(WEB, ipv6),
        of(OUTSIDE, ipv6)
    ))
    .unwrap();
    scene.enforce(&node, &filter("postrouting", &format!("oifname extoutside {DENIED_TCP}")).replace("priority 0", "priority 200"));
    let outside = of(OUTSIDE, ipv6);
    let allowed = Allowed::new(scene.ns("web"), scene.ns("api"), of(API, ipv6));
    let counter = move || node.counter("denied").unwrap().packets;
    shape.prove(scene, allowed.beside(denied(scene.ns("web"), move |port| SocketAddr::new(outside, port))), Some(&counter));
}

#[test]
fn masqueraded_sources() {
    let Some(_machine) = machine("datapaths::services::masqueraded_sources") else { return };
    let scene = with_outside(Scene::routed());
    for ipv6 in [false, true] {
        masqueraded(&scene, ipv6);
    }
}
