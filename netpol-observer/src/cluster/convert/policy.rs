//! networking.k8s.io/v1 NetworkPolicy: what the API server defaults, defaulted; rules compiled.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::names::invalid_port_name;
use super::selector::selector;
use super::{
    FieldErrors, annotations, invalid_cidr, known_protocol, labels, namespace_of, out_of_range, parse_cidr, report, text,
    unsupported_protocol,
};
use crate::cluster::{Cidr, Direction, IpBlock, NetworkPolicy, Peer, PolicyPort, PortNumber, Rule};
use crate::flow::Protocol;

/// networking.k8s.io/v1 NetworkPolicy. Its `invalid` says the same as what is added to `errors`.
pub fn network_policy(policy: networking::NetworkPolicy, errors: &mut FieldErrors) -> NetworkPolicy {
    let spec = policy.spec.unwrap_or_default();
    let mut own = FieldErrors::new();
    let types = spec.policy_types.unwrap_or_default();
    for (i, name) in types.iter().enumerate().filter(|(_, name)| !matches!(name.as_str(), "Ingress" | "Egress")) {
        report(
            &mut own,
            format!("spec.policyTypes[{i}]"),
            format!("Unsupported value: {name:?}: supported values: \"Egress\", \"Ingress\""),
        );
    }
    let egress = spec.egress.unwrap_or_default();
    // Defaulting looks at the length: an empty list is as absent as a missing one.
    let isolates_ingress = types.is_empty() || types.iter().any(|name| name == "Ingress");
    let isolates_egress = if types.is_empty() { !egress.is_empty() } else { types.iter().any(|name| name == "Egress") };

    let pod_selector = selector(spec.pod_selector.unwrap_or_default(), "spec.podSelector", &mut own);
    let ingress: Vec<_> = spec.ingress.unwrap_or_default().into_iter().map(|rule| (rule.from, rule.ports)).collect();
    let egress: Vec<_> = egress.into_iter().map(|rule| (rule.to, rule.ports)).collect();
    let ingress = rules(ingress, "spec.ingress", "from", &mut own);
    let egress = rules(egress, "spec.egress", "to", &mut own);

    let invalid = own.iter().map(ToString::to_string).collect();
    errors.append(&mut own);
    let written = [(Direction::Egress, isolates_egress, &egress), (Direction::Ingress, isolates_ingress, &ingress)];
    let ignored = written.into_iter().filter(|(_, isolates, rules)| !isolates && !rules.is_empty());
    let ignored_rules = ignored.map(|(direction, ..)| direction).collect();
    NetworkPolicy {
        namespace: namespace_of(policy.metadata.namespace),
        name: text(policy.metadata.name),
        resource_version: policy.metadata.resource_version.map(Arc::from),
        labels: labels(policy.metadata.labels),
        annotations: annotations(policy.metadata.annotations),
        pod_selector,
        ingress: isolates_ingress.then_some(ingress),
        egress: isolates_egress.then_some(egress),
        ignored_rules,
        invalid,
        origin: None,
    }
}

type WrittenRule = (Option<Vec<networking::NetworkPolicyPeer>>, Option<Vec<networking::NetworkPolicyPort>>);

fn rules(rules: Vec<WrittenRule>, field: &str, peers_field: &str, errors: &mut FieldErrors) -> Vec<Rule> {
    let compile = |(i, (peers, ports)): (usize, WrittenRule)| {
        let ports = ports.unwrap_or_default().into_iter().enumerate();
        let ports = ports.map(|(j, port)| policy_port(port, &format!("{field}[{i}].ports[{j}]"), errors)).collect();
        let peers = peers.unwrap_or_default().into_iter().enumerate();
        let peers = peers.map(|(j, written)| peer(written, &format!("{field}[{i}].{peers_field}[{j}]"), errors)).collect();
        Rule { peers, ports, origin: None }
    };
    rules.into_iter().enumerate().map(compile).collect()
}

fn peer(peer: networking::NetworkPolicyPeer, field: &str, errors: &mut FieldErrors) -> Peer {
    let invalid = |errors: &mut FieldErrors, why: &str| {
        report(errors, field, why);
        Peer::Invalid(why.into())
    };
    match (peer.namespace_selector, peer.pod_selector, peer.ip_block) {
        (None, None, None) => invalid(errors, "Required value: must specify a peer"),
        (None, None, Some(block)) => ip_block(block, field, errors),
        (_, _, Some(_)) => invalid(errors, "Forbidden: may not specify both ipBlock and another peer"),
        (namespace, pod, None) => Peer::Pods {
            namespace: namespace.map(|namespace| selector(namespace, &format!("{field}.namespaceSelector"), errors)),
            pod: pod.map(|pod| selector(pod, &format!("{field}.podSelector"), errors)),
        },
    }
}

/// An exception the API server refuses makes the whole block match nothing: leaving it out would admit what somebody meant to keep out.
fn ip_block(block: networking::IPBlock, field: &str, errors: &mut FieldErrors) -> Peer {
    let invalid = |errors: &mut FieldErrors, part: String, why: String| {
        let peer = Peer::Invalid(why.as_str().into());
        report(errors, format!("{field}.ipBlock.{part}"), why);
        peer
    };
    if block.cidr.is_empty() {
        return invalid(errors, "cidr".into(), "Required value".into());
    }
    let Some(cidr) = parse_cidr(&block.cidr) else {
        return invalid(errors, "cidr".into(), invalid_cidr(&block.cidr));
    };
    let mut except = Vec::new();
    let mut refused = None;
    for (i, written) in block.except.unwrap_or_default().into_iter().enumerate() {
        match parse_cidr(&written) {
            Some(exception) if is_strict_subset(exception, cidr) => except.push(Cidr { net: exception, text: written.into() }),
            Some(_) => {
                let why = format!("Invalid value: {written:?}: must be a strict subset of `cidr`");
                refused = Some(invalid(errors, format!("except[{i}]"), why));
            }
            None => refused = Some(invalid(errors, format!("except[{i}]"), invalid_cidr(&written))),
        }
    }
    refused.unwrap_or(Peer::IpBlock(IpBlock { cidr: Cidr { net: cidr, text: block.cidr.into() }, except }))
}

fn is_strict_subset(inner: IpNet, outer: IpNet) -> bool {
    let same_family = matches!((inner.addr(), outer.addr()), (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)));
    same_family && inner.prefix_len() > outer.prefix_len() && outer.trunc().contains(&inner.trunc())
}

fn policy_port(port: networking::NetworkPolicyPort, field: &str, errors: &mut FieldErrors) -> PolicyPort {
    let protocol = known_protocol(port.protocol.as_deref());
    let number = port_and_end(port.port, port.end_port, field, errors);
    match protocol {
        Some(protocol) => PolicyPort { protocol, port: number },
        None => {
            let why = unsupported_protocol(port.protocol.as_deref());
            let number = PortNumber::Invalid(why.as_str().into());
            report(errors, format!("{field}.protocol"), why);
            PolicyPort { protocol: Protocol::Tcp, port: number }
        }
    }
}

fn port_and_end(port: Option<IntOrString>, end: Option<i32>, field: &str, errors: &mut FieldErrors) -> PortNumber {
    let invalid = |errors: &mut FieldErrors, part: &str, why: String| {
        let number = PortNumber::Invalid(why.as_str().into());
        report(errors, format!("{field}.{part}"), why);
        number
    };
    let end_refused = |end: i32, why: &str| format!("Invalid value: {end}: {why}");
    match (port, end) {
        (None, None) => PortNumber::Any,
        (None, Some(end)) => invalid(errors, "endPort", end_refused(end, "may not be specified when `port` is not specified")),
        (Some(IntOrString::String(name)), end) => {
            if let Some(why) = invalid_port_name(&name) {
                invalid(errors, "port", format!("Invalid value: {name:?}: {why}"))
            } else if let Some(end) = end {
                invalid(errors, "endPort", end_refused(end, "may not be specified when `port` is non-numeric"))
            } else {
                PortNumber::Name(name.into())
            }
        }
        (Some(IntOrString::Int(port)), end) => match (valid_port(port), end) {
            (None, _) => invalid(errors, "port", out_of_range(port.into())),
            (Some(port), None) => PortNumber::Number(port),
            (Some(port), Some(end)) => match valid_port(end) {
                None => invalid(errors, "endPort", out_of_range(end.into())),
                Some(end) if end < port => invalid(errors, "endPort", end_refused(end.into(), "must be greater than or equal to `port`")),
                Some(end) => PortNumber::Range(port, end),
            },
        },
    }
}

fn valid_port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number != 0)
}
