//! A node and what hangs on it: pods by a routed link or on a bridge, and hosts outside the cluster.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;

use crate::netns::{Bed, Netns, process};

/// Interface names have 15 characters (IFNAMSIZ without its NUL).
const INTERFACE_NAME: usize = 15;

/// A namespace that forwards for its pods, as a node does.
#[derive(Clone, Debug)]
pub struct Node {
    namespace: Netns,
    addresses: Vec<IpAddr>,
}

/// A bridge that pods are plugged into (the layout of the `bridge` CNI plugin).
#[derive(Clone, Debug)]
pub struct Bridge {
    name: String,
    gateways: Vec<IpNet>,
}

impl Node {
    pub(super) fn prepare(namespace: Netns, addresses: &[IpAddr]) -> Result<Self> {
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("net.ipv4.conf.{scope}.forwarding"), "1")?;
            namespace.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0")?;
            namespace.sysctl(&format!("net.ipv6.conf.{scope}.forwarding"), "1")?;
        }
        namespace.ip(&own_addresses(addresses, "lo"))?;
        Ok(Self { namespace, addresses: addresses.to_vec() })
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.namespace
    }

    /// Its own addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Name of the node's end of a pod's link: `veth` and the pod's name, cut to what the kernel allows.
    pub fn pod_interface(pod: &str) -> String {
        interface_name("veth", pod)
    }

    /// Name of the node's end of an external host's link: `ext` and the host's name, cut likewise.
    pub fn external_interface(host: &str) -> String {
        interface_name("ext", host)
    }

    /// A pod on a routed link, as the `ptp` plugin and Calico make it: the pod has its addresses as /32 and /128 and a
    /// default route via 169.254.1.1 and fe80::1, which the node's end answers for; the node has a route per address.
    ///
    /// # Errors
    /// As [`Bed::namespace`]; two pods' interface names are the same.
    pub fn routed_pod(&self, bed: &mut Bed, pod: &str, addresses: &[IpAddr]) -> Result<Netns> {
        self.routed(bed, pod, &Self::pod_interface(pod), addresses).with_context(|| format!("cannot attach pod {pod}"))
    }

    /// A host outside the cluster, on a link of its own, that has its default route through the node.
    ///
    /// # Errors
    /// As [`Node::routed_pod`].
    pub fn external_host(&self, bed: &mut Bed, host: &str, addresses: &[IpAddr]) -> Result<Netns> {
        self.routed(bed, host, &Self::external_interface(host), addresses).with_context(|| format!("cannot attach host {host}"))
    }

    /// A bridge with the pods' gateway addresses. With `call_iptables`, bridged packets also pass netfilter's IP hooks
    /// (`net.bridge.bridge-nf-call-iptables` and `…-ip6tables`), which policies between pods on one node need.
    ///
    /// # Errors
    /// `br_netfilter` is wanted and neither built in nor loadable; `ip` failed.
    pub fn bridge(&self, name: &str, gateways: &[IpNet], call_iptables: bool) -> Result<Bridge> {
        let mut commands = format!("link add {name} type bridge mcast_snooping 0\nlink set {name} up\n");
        for gateway in gateways {
            let _ = writeln!(commands, "addr add {gateway} dev {name}{}", nodad(gateway.addr()));
        }
        self.namespace.ip(&commands)?;
        self.bridge_netfilter(call_iptables)?;
        Ok(Bridge { name: name.to_owned(), gateways: gateways.to_vec() })
    }

    /// A pod plugged into a bridge: its addresses have the gateways' prefix lengths, its default routes go to the gateways.
    ///
    /// # Errors
    /// As [`Node::routed_pod`]; an address lies in no gateway's network.
    pub fn bridged_pod(&self, bed: &mut Bed, bridge: &Bridge, pod: &str, addresses: &[IpAddr]) -> Result<Netns> {
        let interface = Self::pod_interface(pod);
        let mut commands = String::new();
        for address in addresses {
            let gateway = bridge.gateways.iter().find(|gateway| gateway.contains(address));
            let Some(gateway) = gateway else { bail!("{address} of pod {pod} is in no network of bridge {}", bridge.name) };
            let _ = writeln!(commands, "addr add {address}/{} dev eth0{}", gateway.prefix_len(), nodad(*address));
            let _ = writeln!(commands, "route replace default via {} dev eth0", gateway.addr());
        }
        let attach = format!("link set {interface} master {}\nlink set {interface} up\n", bridge.name);
        let namespace = self.link(bed, pod, &interface, &attach, &commands).with_context(|| format!("cannot attach pod {pod}"))?;
        self.namespace.wait_for_link(&bridge.name)?;
        Ok(namespace)
    }

    fn routed(&self, bed: &mut Bed, name: &str, interface: &str, addresses: &[IpAddr]) -> Result<Netns> {
        let mut inside = own_addresses(addresses, "eth0");
        let mut outside =
            format!("link set {interface} up\naddr add 169.254.1.1/32 dev {interface}\naddr add fe80::1/64 dev {interface} nodad\n");
        for address in addresses {
            let gateway = if address.is_ipv4() { "169.254.1.1" } else { "fe80::1" };
            let _ = writeln!(inside, "route replace {gateway} dev eth0\nroute replace default via {gateway} dev eth0 onlink");
            let _ = write!(outside, "route add {address} dev {interface}");
            // Without it the kernel would speak to pods from 169.254.1.1, which is no node's address.
            if let Some(source) = self.addresses.iter().find(|own| own.is_ipv4() == address.is_ipv4()) {
                let _ = write!(outside, " src {source}");
            }
            outside.push('\n');
        }
        self.link(bed, name, interface, &outside, &inside)
    }

    /// A new namespace whose `eth0` is the other end of the node's `interface`, both up after these commands at either end.
    fn link(&self, bed: &mut Bed, name: &str, interface: &str, outside: &str, inside: &str) -> Result<Netns> {
        let namespace = bed.namespace(name)?;
        self.namespace.ip(&format!("link add {interface} type veth peer name eth0 netns {}\n{outside}", namespace.full_name()))?;
        namespace.ip(&format!("link set eth0 up\n{inside}"))?;
        namespace.wait_for_link("eth0")?;
        self.namespace.wait_for_link(interface)?;
        Ok(namespace)
    }

    fn bridge_netfilter(&self, on: bool) -> Result<()> {
        const SWITCHES: [&str; 2] = ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"];
        if !self.namespace.has_sysctl(SWITCHES[0])? {
            if !on {
                return Ok(());
            }
            process::run(Command::new("modprobe").arg("br_netfilter"), None)
                .context("netfilter on bridged packets needs br_netfilter, which is neither built into this kernel nor loadable")?;
        }
        for switch in SWITCHES {
            self.namespace.sysctl(switch, if on { "1" } else { "0" })?;
        }
        Ok(())
    }
}

fn own_addresses(addresses: &[IpAddr], interface: &str) -> String {
    let mut commands = String::new();
    for address in addresses {
        let _ = writeln!(commands, "addr add {} dev {interface}{}", IpNet::from(*address), nodad(*address));
    }
    commands
}

/// An IPv6 address is used at once only when nobody checks it for duplicates.
fn nodad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}

fn interface_name(prefix: &str, name: &str) -> String {
    prefix.chars().chain(name.chars()).take(INTERFACE_NAME).collect()
}
