//! Addresses outside of the cluster, by the ranges that policies name.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::rules::{Questions, addresses};
use super::space::{ClassId, End};
use super::{Compiled, PeerKey};
use crate::cluster::{Index, Object};

/// The ranges of the addresses that [`is_special`](crate::identify::is_special) tells.
const SPECIAL: [IpNet; 9] = [
    v4(0, 0, 0, 0, 32),
    v4(127, 0, 0, 0, 8),
    LINK_LOCAL,
    v4(224, 0, 0, 0, 4),
    v4(255, 255, 255, 255, 32),
    v6(0, 0, 128),
    v6(0, 1, 128),
    v6(0xfe80, 0, 10),
    v6(0xff00, 0, 8),
];

/// Cloud metadata and node-local DNS are called there, and policies name them; nobody calls from there.
const LINK_LOCAL: IpNet = v4(169, 254, 0, 0, 16);

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6(first: u16, last: u16, length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last), length))
}

/// All addresses of a family.
const fn all(is_ipv4: bool) -> IpNet {
    if is_ipv4 { v4(0, 0, 0, 0, 0) } else { v6(0, 0, 0) }
}

/// The ranges by which addresses outside are told apart.
#[derive(Debug, Default)]
pub(in crate::policy) struct Ranges(HashSet<IpNet>);

impl Compiled {
    /// The ranges that policies name, and those that these objects, which are no longer there, named.
    pub(in crate::policy) fn ranges<'o>(&self, gone: impl Iterator<Item = &'o Object>, index: &Index) -> Ranges {
        let mut ranges: HashSet<IpNet> = HashSet::new();
        for key in self.matchers.keys() {
            match key {
                PeerKey::Block(block) => ranges.extend(block.except.iter().chain([&block.cidr]).map(|cidr| cidr.net.trunc())),
                PeerKey::Networks(networks) => ranges.extend(networks.iter().map(|cidr| cidr.net.trunc())),
                PeerKey::Names(names) => ranges.extend(names.iter().flat_map(|name| addresses(name, index))),
                PeerKey::Own(..) | PeerKey::Pods(..) | PeerKey::Nodes(_) => {}
            }
        }
        for object in gone {
            let questions = match object {
                Object::NetworkPolicy(policy) => Questions::of_network_policy(policy),
                Object::ClusterPolicy(policy) => Questions::of_cluster_policy(policy, index),
                _ => continue,
            };
            ranges.extend(questions.ranges.iter().map(IpNet::trunc));
        }
        Ranges(ranges)
    }

    /// The smallest of the ranges around the addresses of an end; all of a family where there is none.
    pub(in crate::policy) fn range_at(&self, end: &End, ranges: &Ranges) -> IpNet {
        let whole = all(self.space.is_ipv4(end.class));
        let own = self.space.range(end.class);
        // A range that no policy names any more is a part of the next larger one that one does.
        std::iter::successors(own, IpNet::supernet).find(|range| ranges.0.contains(range)).unwrap_or(whole)
    }

    /// An address of an end outside of the cluster that is outside of the cluster: of no pod, node or Service, and in no node's pod range; or none. `is_called`
    /// where it is the destination.
    pub(in crate::policy) fn outside_address(&self, end: &End, is_called: bool, index: &Index) -> Option<IpAddr> {
        let class = end.class;
        let range = self.space.range(class).unwrap_or(all(self.space.is_ipv4(class)));
        let mut ip = range.network();
        while let Some(last) = self.taken(ip, class, is_called, index) {
            ip = next(last).filter(|ip| range.contains(ip))?;
        }
        Some(ip)
    }

    /// Whether the address is none outside of this class; then the last of those in a row of which that is known.
    fn taken(&self, ip: IpAddr, class: ClassId, is_called: bool, index: &Index) -> Option<IpAddr> {
        let other = self.space.class_of(ip);
        if other != class {
            return Some(self.space.range(other).map_or(ip, |range| range.broadcast()));
        }
        let is_special = |range: &&IpNet| range.contains(&ip) && !(is_called && **range == LINK_LOCAL);
        if let Some(range) = SPECIAL.iter().find(is_special) {
            return Some(range.broadcast());
        }
        if let Some(range) = index.pod_range(ip) {
            return Some(range.broadcast());
        }
        let is_known = !(index.pods_at(ip).is_empty() && index.nodes_at(ip).is_empty() && index.services_at(ip).is_empty());
        is_known.then_some(ip)
    }
}

fn next(ip: IpAddr) -> Option<IpAddr> {
    Some(match ip {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits().checked_add(1)?)),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits().checked_add(1)?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identify::is_special;

    #[test]
    fn special_ranges_are_those_of_special_addresses() {
        for range in SPECIAL {
            assert!(is_special(range.network()) && is_special(range.broadcast()), "{range}");
            let before = match range.network() {
                IpAddr::V4(ip) => ip.to_bits().checked_sub(1).map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
                IpAddr::V6(ip) => ip.to_bits().checked_sub(1).map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
            };
            for ip in before.into_iter().chain(next(range.broadcast())) {
                assert_eq!(is_special(ip), SPECIAL.iter().any(|range| range.contains(&ip)), "{ip} beside {range}");
            }
        }
    }
}
