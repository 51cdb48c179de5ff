//! A node and what hangs on it: pods by a routed link or on a bridge, and hosts outside the cluster.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::netns::netlink::{Netlink, Way};
use crate::netns::{Bed, Netns, process};

/// Interface names have 15 characters (IFNAMSIZ without its NUL).
const INTERFACE_NAME: usize = 15;

/// What routed pods have for gateways: the node's end answers for them.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Another number than the node's end has: a device whose number is that of the device it is linked to is taken for one that is linked to
/// nothing, and it comes up a second later (`linkwatch_urgent_event`).
const INDEX_IN_POD: u32 = 100;

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
        namespace.netlink(|netlink| {
            netlink.set_up("lo", None)?;
            addresses.iter().try_for_each(|address| netlink.add_address(IpNet::from(*address), "lo"))
        })?;
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
        self.namespace.netlink(|netlink| {
            netlink.add_bridge(name)?;
            netlink.set_up(name, None)?;
            gateways.iter().try_for_each(|gateway| netlink.add_address(*gateway, name))
        })?;
        self.bridge_netfilter(call_iptables)?;
        Ok(Bridge { name: name.to_owned(), gateways: gateways.to_vec() })
    }

    /// A pod plugged into a bridge: its addresses have the gateways' prefix lengths, its default routes go to the gateways.
    ///
    /// # Errors
    /// As [`Node::routed_pod`]; an address lies in no gateway's network.
    pub fn bridged_pod(&self, bed: &mut Bed, bridge: &Bridge, pod: &str, addresses: &[IpAddr]) -> Result<Netns> {
        let interface = Self::pod_interface(pod);
        let gateways: Vec<(IpAddr, IpNet)> = addresses
            .iter()
            .map(|address| {
                let gateway = bridge.gateways.iter().find(|gateway| gateway.contains(address));
                let gateway = gateway.with_context(|| format!("{address} of pod {pod} is in no network of bridge {}", bridge.name))?;
                Ok((*address, *gateway))
            })
            .collect::<Result<_>>()?;
        let outside = |netlink: &mut Netlink| netlink.set_up(&interface, Some(&bridge.name));
        let inside = |netlink: &mut Netlink| {
            for (address, gateway) in gateways {
                netlink.add_address(IpNet::new(address, gateway.prefix_len())?, "eth0")?;
                netlink.set_route(everywhere(address), Way { by: "eth0", via: Some(gateway.addr()), source: None })?;
            }
            Ok(())
        };
        let namespace = self.link(bed, pod, &interface, outside, inside).with_context(|| format!("cannot attach pod {pod}"))?;
        self.namespace.wait_for_link(&bridge.name)?;
        Ok(namespace)
    }

    fn routed(&self, bed: &mut Bed, name: &str, interface: &str, addresses: &[IpAddr]) -> Result<Netns> {
        let outside = |netlink: &mut Netlink| {
            netlink.set_up(interface, None)?;
            netlink.add_address(IpNet::from(IpAddr::V4(GATEWAY)), interface)?;
            netlink.add_address(IpNet::new(GATEWAY6.into(), 64)?, interface)?;
            for address in addresses {
                // Without it the kernel would speak to pods from 169.254.1.1, which is no node's address.
                let source = self.addresses.iter().find(|own| own.is_ipv4() == address.is_ipv4()).copied();
                netlink.set_route(IpNet::from(*address), Way { by: interface, via: None, source })?;
            }
            Ok(())
        };
        let inside = |netlink: &mut Netlink| {
            for address in addresses {
                let gateway = if address.is_ipv4() { IpAddr::V4(GATEWAY) } else { IpAddr::V6(GATEWAY6) };
                netlink.add_address(IpNet::from(*address), "eth0")?;
                netlink.set_route(IpNet::from(gateway), Way { by: "eth0", via: None, source: None })?;
                netlink.set_route(everywhere(*address), Way { by: "eth0", via: Some(gateway), source: None })?;
            }
            Ok(())
        };
        self.link(bed, name, interface, outside, inside)
    }

    /// A new namespace whose `eth0` is the other end of the node's `interface`, both up after this was done at either end.
    fn link(
        &self,
        bed: &mut Bed,
        name: &str,
        interface: &str,
        outside: impl FnOnce(&mut Netlink) -> Result<()> + Send,
        inside: impl FnOnce(&mut Netlink) -> Result<()> + Send,
    ) -> Result<Netns> {
        let namespace = bed.bare(name)?;
        let file = namespace.open()?;
        self.namespace.netlink(|netlink| {
            netlink.add_veth(interface, "eth0", INDEX_IN_POD, file.as_raw_fd())?;
            outside(netlink)
        })?;
        namespace.netlink(|netlink| {
            netlink.set_up("lo", None)?;
            netlink.set_up("eth0", None)?;
            inside(netlink)
        })?;
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

/// All addresses of a family.
fn everywhere(address: IpAddr) -> IpNet {
    if address.is_ipv4() { Ipv4Net::default().into() } else { Ipv6Net::default().into() }
}

fn interface_name(prefix: &str, name: &str) -> String {
    prefix.chars().chain(name.chars()).take(INTERFACE_NAME).collect()
}
