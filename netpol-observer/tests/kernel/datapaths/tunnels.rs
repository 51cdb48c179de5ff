//! Two nodes and a tunnel between them: dropped inside, behind the tunnel's end, and outside, by the firewall of a node.

use std::net::SocketAddr;

use netpol_observer::diagnose::{Agreement, Class};

use super::beds::{FAR_API, OTHER_NODE, ip, of, try_ip, two_nodes};
use super::calls::{Allowed, denied};
use super::{DENIED_TCP, filter};
use crate::shape::{INGRESS, NODE, Scene, Shape, WEB};
use crate::support::machine;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Vxlan,
    Geneve,
    IpInIp,
}

/// A kind of tunnel, and the family of its packets.
#[derive(Clone, Copy, Debug)]
struct Tunnel {
    kind: Kind,
    outer_ipv6: bool,
}

impl Tunnel {
    /// What rows call it.
    fn name(self, inner_ipv6: bool) -> String {
        let over = if self.outer_ipv6 == inner_ipv6 {
            ""
        } else if self.outer_ipv6 {
            " over IPv6"
        } else {
            " over IPv4"
        };
        format!("{}{over}", self.words())
    }

    fn words(self) -> &'static str {
        match self.kind {
            Kind::Vxlan => "VXLAN",
            Kind::Geneve => "Geneve",
            Kind::IpInIp => "IP-in-IP",
        }
    }

    /// What the firewall of a node has to know it by.
    fn carrier(self, inner_ipv6: bool) -> &'static str {
        match self.kind {
            Kind::Vxlan => "udp dport 8472",
            Kind::Geneve => "udp dport 6081",
            Kind::IpInIp if inner_ipv6 => "meta l4proto 41",
            Kind::IpInIp => "meta l4proto 4",
        }
    }

    fn told(self, from: &str, to: &str) -> String {
        let vni = if self.kind == Kind::IpInIp { "" } else { " 7" };
        format!("{}{vni} {from} → {to}", self.words())
    }

    /// Device `tun0` on both nodes, and the ways to the pods through it.
    fn lay(self, scene: &Scene, inner_ipv6: bool) -> Result<(), String> {
        let (node, other) = (of(NODE, self.outer_ipv6), of(OTHER_NODE, self.outer_ipv6));
        let (web, api) = (of(WEB, inner_ipv6), of(FAR_API, inner_ipv6));
        for (namespace, own, peer, far, mine, theirs) in
            [(scene.ns("node"), node, other, api, 1, 2), (scene.ns("other"), other, node, web, 2, 1)]
        {
            let device = match (self.kind, self.outer_ipv6) {
                (Kind::Vxlan, _) => format!("vxlan id 7 dstport 8472 local {own} remote {peer} nolearning"),
                (Kind::Geneve, _) => format!("geneve id 7 remote {peer}"),
                (Kind::IpInIp, true) => format!("ip6tnl mode any local {own} remote {peer}"),
                (Kind::IpInIp, false) if inner_ipv6 => format!("sit local {own} remote {peer}"),
                (Kind::IpInIp, false) => format!("ipip local {own} remote {peer}"),
            };
            let ethernet = self.kind != Kind::IpInIp;
            let address = if ethernet { format!("address 02:00:00:00:00:0{mine}") } else { String::new() };
            if let Err(error) = try_ip(namespace, &format!("link add tun0 {address} type {device}")) {
                assert!(["Unknown device type", "Operation not supported"].iter().any(|why| error.contains(why)), "{error}");
                let kind = device.split(' ').next().unwrap_or_default();
                return Err(format!("no device of type {kind} in this kernel"));
            }
            // Nobody but the pods is to send through it: no link-local address, and what the kernel tells multicast routers at once.
            if inner_ipv6 {
                ip(namespace, "link set tun0 addrgenmode none");
                namespace.sysctl("net.ipv6.conf.tun0.mldv2_unsolicited_report_interval", "1").unwrap();
            } else if namespace.has_sysctl("net.ipv6.conf.tun0.disable_ipv6").unwrap() {
                namespace.sysctl("net.ipv6.conf.tun0.disable_ipv6", "1").unwrap();
            }
            ip(namespace, &format!("link set tun0 up mtu 1400\nroute add {far} dev tun0"));
            if ethernet {
                ip(namespace, &format!("neigh add {far} lladdr 02:00:00:00:00:0{theirs} dev tun0 nud permanent"));
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        Ok(())
    }
}

/// What each of the shapes below needs.
struct Laid<'a> {
    scene: &'a Scene,
    tunnel: Tunnel,
    inner_ipv6: bool,
    /// Why there is none.
    lacking: Option<String>,
}

impl<'a> Laid<'a> {
    fn lay(scene: &'a Scene, tunnel: Tunnel, inner_ipv6: bool) -> Self {
        Laid { scene, tunnel, inner_ipv6, lacking: tunnel.lay(scene, inner_ipv6).err() }
    }

    fn calls(&self) -> impl FnOnce() + Send + use<> {
        let ipv6 = self.inner_ipv6;
        denied(self.scene.ns("web"), move |port| SocketAddr::new(of(FAR_API, ipv6), port))
    }

    /// Behind the end of the tunnel the packet is what the pod sent: the policies' enforcement drops it like any other.
    fn inside(&self) {
        let Laid { scene, tunnel, inner_ipv6: ipv6, lacking } = self;
        let shape = Shape::new(&format!("{}, dropped inside", tunnel.name(*ipv6)), *ipv6, INGRESS).on("tun0").dropped_by_nft("forward");
        if let Some(why) = lacking {
            return shape.cannot_run(why);
        }
        let other = scene.ns("other").clone();
        scene.enforce(&other, &filter("forward", DENIED_TCP));
        let allowed = Allowed::new(scene.ns("web"), scene.ns("api"), of(FAR_API, *ipv6));
        let counter = move || other.counter("denied").unwrap().packets;
        shape.prove(scene, allowed.beside(self.calls()), Some(&counter));
    }

    /// A firewall that knows of the nodes' own services and not of the tunnel.
    fn outside(&self, at_sender: bool) {
        let Laid { scene, tunnel, inner_ipv6: ipv6, lacking } = self;
        let (at, hook) = if at_sender { ("node", "output") } else { ("other", "input") };
        let name = format!("{}, dropped outside by the {}", tunnel.name(*ipv6), if at_sender { "sender" } else { "receiver" });
        // At the sender the packet still is on the device of the tunnel.
        let shape = Shape::new(&name, *ipv6, "")
            .tunnel(&tunnel.told("node node-1", "node node-2"))
            .says("no policy speaks of tunnels. Inside was a packet from shop/web to shop/api on 90")
            .on(if at_sender { "tun0" } else { "eth0" })
            .dropped_otherwise(hook, &Class::HostFirewall, &Agreement::NotEnforcement);
        if let Some(why) = lacking {
            return shape.cannot_run(why);
        }
        scene.enforce(scene.ns(at), &filter(hook, tunnel.carrier(*ipv6)));
        let allowed = Allowed::new(scene.ns("node"), scene.ns("other"), of(OTHER_NODE, tunnel.outer_ipv6));
        shape.prove(scene, allowed.beside(self.calls()), None);
    }

    fn take_up(self) {
        if self.lacking.is_none() {
            for namespace in ["node", "other"] {
                ip(self.scene.ns(namespace), "link del tun0");
            }
        }
    }
}

fn all_of(kind: Kind, test: &str) {
    let Some(_machine) = machine(test) else { return };
    let scene = two_nodes();
    for ipv6 in [false, true] {
        let laid = Laid::lay(&scene, Tunnel { kind, outer_ipv6: ipv6 }, ipv6);
        laid.inside();
        laid.outside(false);
        laid.outside(true);
        laid.take_up();
        // And of the other family than what is inside.
        let laid = Laid::lay(&scene, Tunnel { kind, outer_ipv6: !ipv6 }, ipv6);
        laid.outside(false);
        laid.take_up();
    }
}

#[test]
fn vxlan() {
    all_of(Kind::Vxlan, "datapaths::tunnels::vxlan");
}

#[test]
fn geneve() {
    all_of(Kind::Geneve, "datapaths::tunnels::geneve");
}

#[test]
fn ip_in_ip() {
    all_of(Kind::IpInIp, "datapaths::tunnels::ip_in_ip");
}
