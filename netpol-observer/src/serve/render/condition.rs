//! Conditions that failed, as sentences: what the policy wants, and what is there.

use std::net::IpAddr;

use crate::cluster::{Operator, Requirement};
use crate::policy::{Condition, NearMiss, PortMiss};

/// Why a rule does not match: `peer differs: …; port differs: …`.
pub fn miss(near: &NearMiss) -> String {
    let mut parts = Vec::new();
    if !near.peer.is_empty() {
        parts.push(format!("peer differs: {}", peer_conditions(&near.peer)));
    }
    if let Some(port) = &near.port {
        parts.push(format!("port differs: {}", port_conditions(port)));
    }
    parts.join("; ")
}

/// The failed conditions of a peer.
pub fn peer_conditions(failed: &[Condition]) -> String {
    failed.iter().map(sentence).collect::<Vec<_>>().join("; ")
}

/// What an entry of `ports` wants, and why the port called is not that.
pub fn port_conditions(port: &PortMiss) -> String {
    let mut wants = format!("wants {}", port.wants);
    let mut there = Vec::new();
    for condition in &port.failed {
        match condition {
            Condition::NamedPortNumber { name, stands_for, .. } => {
                let numbers: Vec<_> = stands_for.iter().map(u16::to_string).collect();
                let protocol = port.wants.rsplit_once('/').map_or("", |(_, protocol)| protocol);
                wants = format!("wants {}/{protocol} (named {name:?})", numbers.join(" or "));
            }
            // The number called stands in the headline already.
            Condition::PortNumber { .. } => {}
            Condition::Protocol { has } => there.push(format!("this is {has}")),
            Condition::NamedPortMissing { pod, .. } => there.push(format!("{pod} has no port of that name and protocol")),
            // The entry says so itself.
            Condition::Invalid { why } if port.wants.contains(&**why) => {}
            other => there.push(sentence(other)),
        }
    }
    if there.is_empty() { wants } else { format!("{wants}, {}", there.join(", ")) }
}

fn sentence(condition: &Condition) -> String {
    match condition {
        // A pod or a name whose address nobody knows was asked about.
        Condition::OutsideBlock { cidr, ip } | Condition::Excepted { cidr, ip, .. } | Condition::Family { cidr, ip }
            if ip.is_unspecified() =>
        {
            format!("whether ipBlock {cidr} contains its address is not known")
        }
        Condition::OutsideNetworks { networks, ip } if ip.is_unspecified() => {
            format!("whether networks {} contain its address is not known", networks.join(", "))
        }
        Condition::NotAPod { ip } if ip.is_unspecified() => "selectors match pods only, and this is none".to_owned(),
        Condition::NotANode { ip } if ip.is_unspecified() => "it is not known as a node".to_owned(),
        Condition::NotTheName { names, ip } if ip.is_unspecified() => format!("it is none of {}, as far as known", names.join(", ")),
        Condition::NamespaceLabel { wants: Requirement { key, operator: Operator::Invalid(why) }, .. } => {
            format!("the term {key} of namespaceSelector is invalid: {why}")
        }
        Condition::PodLabel { wants: Requirement { key, operator: Operator::Invalid(why) }, .. } => {
            format!("the term {key} of podSelector is invalid: {why}")
        }
        Condition::NamespaceLabel { wants, namespace, has } => {
            format!("namespaceSelector wants {wants}, namespace {namespace} {}", has_label(&wants.key, has.as_deref()))
        }
        Condition::SameNamespace { wants, has } => {
            format!("podSelector without namespaceSelector wants a pod of namespace {wants}, this one is in {has}")
        }
        Condition::PodLabel { wants, pod, has } => {
            format!("podSelector wants {wants}, {pod} {}", has_label(&wants.key, has.as_deref()))
        }
        Condition::NotAPod { ip } => format!("{ip} is no pod, and selectors match pods only"),
        Condition::NodeLabel { wants, node, has } => format!("nodes wants {wants}, node {node} {}", has_label(&wants.key, has.as_deref())),
        Condition::NotANode { ip } => format!("{ip} is no node's address"),
        Condition::OutsideNetworks { networks, ip } => format!("networks {} do not contain {ip}", networks.join(", ")),
        Condition::NotTheName { names, ip } => format!("{ip} is not known as an address of {}", names.join(", ")),
        Condition::OutsideBlock { cidr, ip } => format!("ipBlock {cidr} does not contain {ip}"),
        Condition::Excepted { cidr, except, ip } => format!("ipBlock {cidr} excepts {except}, which contains {ip}"),
        Condition::Family { cidr, ip } => {
            let family = |v6| if v6 { "IPv6" } else { "IPv4" };
            let peer_is_v6 = matches!(ip, IpAddr::V6(_));
            format!("ipBlock {cidr} is {}, {ip} is {}", family(!peer_is_v6), family(peer_is_v6))
        }
        Condition::BlockIgnoresPods { cidr, ip } => {
            format!("ipBlock {cidr} does not match pods on this dataplane, and {ip} is a pod's")
        }
        Condition::PortNumber { has } => format!("the port is {has}"),
        Condition::Protocol { has } => format!("the protocol is {has}"),
        Condition::NamedPortNumber { name, stands_for, has } => {
            let numbers: Vec<_> = stands_for.iter().map(u16::to_string).collect();
            format!("port {name:?} stands for {}, the port is {has}", numbers.join(" or "))
        }
        Condition::NamedPortMissing { name, pod } => format!("{pod} has no port named {name:?}"),
        Condition::NamedPortNeedsPod { name } => format!("a named port ({name:?}) means nothing where the destination is no pod"),
        Condition::NoPort => "the packet shows no port".to_owned(),
        Condition::Invalid { why } => format!("invalid: {why}"),
    }
}

fn has_label(key: &str, value: Option<&str>) -> String {
    match value {
        Some(value) => format!("has {key}={value}"),
        None => format!("has no label {key}"),
    }
}
