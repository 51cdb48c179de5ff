//! networking.k8s.io/v1 NetworkPolicy: what the API server defaults, defaulted; rules compiled.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::names::invalid_port_name;
use super::schema::{REQUIRED, part, unsupported};
use super::selector::selector;
use super::{
    Effect, FieldErrors, annotations, exact, invalid_cidr, known_protocol, labels, metadata, namespace_of, parse_cidr, port_number, report,
    report_as, text,
};
use crate::cluster::{Cidr, Direction, IpBlock, NetworkPolicy, Peer, PolicyPort, PortNumber, Rule};
use crate::flow::Protocol;

/// networking.k8s.io/v1 NetworkPolicy. Its `invalid` says the same as what is added to `errors`.
pub fn network_policy(policy: networking::NetworkPolicy, errors: &mut FieldErrors) -> NetworkPolicy {
    let spec = policy.spec.unwrap_or_default();
    let mut own = FieldErrors::new();
    metadata::check(&policy.metadata, true, &mut own);
    let types = spec.policy_types.unwrap_or_default();
    let egress = spec.egress.unwrap_or_default();
    // Defaulting looks at the length: an empty list is as absent as a missing one.
    let isolates_ingress = types.is_empty() || types.iter().any(|name| name == "Ingress");
    let isolates_egress = if types.is_empty() { !egress.is_empty() } else { types.iter().any(|name| name == "Egress") };

    let pod_selector = selector(spec.pod_selector.unwrap_or_default(), "spec.podSelector", &mut own);
    let ingress: Vec<_> = spec.ingress.unwrap_or_default().into_iter().map(|rule| (rule.from, rule.ports)).collect();
    let egress: Vec<_> = egress.into_iter().map(|rule| (rule.to, rule.ports)).collect();
    let ingress = rules(ingress, "spec.ingress", "from", &mut own);
    let egress = rules(egress, "spec.egress", "to", &mut own);

    policy_types(&types, &mut own);

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

/// One type named twice is one type to the API server.
fn policy_types(types: &[String], errors: &mut FieldErrors) {
    const TYPES: [&str; 2] = ["Ingress", "Egress"];
    if types.len() > TYPES.len() {
        let message = format!("Invalid value: {types:?}: may not specify more than two policyTypes");
        report_as(errors, "spec.policyTypes", message, Effect::AsWritten);
        return;
    }
    for (i, name) in types.iter().enumerate().filter(|(_, name)| !TYPES.contains(&name.as_str())) {
        report(errors, format!("spec.policyTypes[{i}]"), unsupported(name, &TYPES));
    }
}

type WrittenRule = (Option<Vec<networking::NetworkPolicyPeer>>, Option<Vec<networking::NetworkPolicyPort>>);

fn rules(rules: Vec<WrittenRule>, field: &str, peers_field: &str, errors: &mut FieldErrors) -> Vec<Rule> {
    let compile = |(i, (peers, ports)): (usize, WrittenRule)| {
        let ports = ports.unwrap_or_default().into_iter().enumerate();
        let ports = exact(ports.map(|(j, port)| policy_port(port, &format!("{field}[{i}].ports[{j}]"), errors)));
        let peers = peers.unwrap_or_default().into_iter().enumerate();
        let peers = exact(peers.map(|(j, written)| peer(written, &format!("{field}[{i}].{peers_field}[{j}]"), errors)));
        Rule { peers, ports, origin: None }
    };
    exact(rules.into_iter().enumerate().map(compile))
}

fn peer(peer: networking::NetworkPolicyPeer, field: &str, errors: &mut FieldErrors) -> Peer {
    let has_selector = peer.namespace_selector.is_some() || peer.pod_selector.is_some();
    let pod = peer.pod_selector.map(|pod| selector(pod, &format!("{field}.podSelector"), errors));
    let namespace = peer.namespace_selector.map(|namespace| selector(namespace, &format!("{field}.namespaceSelector"), errors));
    let block = peer.ip_block.map(|block| ip_block(block, &format!("{field}.ipBlock"), errors));
    let mut invalid = |why: &str| {
        report(errors, field, why);
        Peer::Invalid(why.into())
    };
    match (block, has_selector) {
        (None, true) => Peer::Pods { namespace, pod },
        (None, false) => invalid("Required value: must specify a peer"),
        (Some(_), true) => invalid("Forbidden: may not specify both ipBlock and another peer"),
        (Some(block), false) => block,
    }
}

/// An exception the API server refuses makes the whole block match nothing: leaving it out would admit what somebody meant to keep out.
fn ip_block(block: networking::IPBlock, field: &str, errors: &mut FieldErrors) -> Peer {
    let compiled = part(field, Effect::MatchesNothing, errors, |errors| {
        if block.cidr.is_empty() {
            report(errors, format!("{field}.cidr"), REQUIRED);
            return Peer::Invalid(REQUIRED.into());
        }
        let Some(cidr) = parse_cidr(&block.cidr) else {
            let why = invalid_cidr(&block.cidr);
            report(errors, format!("{field}.cidr"), &*why);
            return Peer::Invalid(why.into());
        };
        let written = block.except.unwrap_or_default();
        let mut except = Vec::with_capacity(written.len());
        for (i, written) in written.into_iter().enumerate() {
            let field = format!("{field}.except[{i}]");
            match parse_cidr(&written) {
                Some(exception) if is_strict_subset(exception, cidr) => except.push(Cidr { net: exception, text: written.into() }),
                Some(_) => report(errors, field, format!("Invalid value: {written:?}: must be a strict subset of `cidr`")),
                None => report(errors, field, invalid_cidr(&written)),
            }
        }
        Peer::IpBlock(IpBlock { cidr: Cidr { net: cidr, text: block.cidr.into() }, except })
    });
    compiled.unwrap_or_else(Peer::Invalid)
}

fn is_strict_subset(inner: IpNet, outer: IpNet) -> bool {
    let same_family = matches!((inner.addr(), outer.addr()), (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)));
    same_family && inner.prefix_len() > outer.prefix_len() && outer.trunc().contains(&inner.trunc())
}

fn policy_port(port: networking::NetworkPolicyPort, field: &str, errors: &mut FieldErrors) -> PolicyPort {
    let protocol = known_protocol(port.protocol.as_deref());
    let number = part(field, Effect::MatchesNothing, errors, |errors| {
        if protocol.is_none() {
            let message = unsupported(port.protocol.as_deref().unwrap_or_default(), &["TCP", "UDP", "SCTP"]);
            report(errors, format!("{field}.protocol"), message);
        }
        port_and_end(port.port, port.end_port, field, errors)
    });
    PolicyPort { protocol: protocol.unwrap_or(Protocol::Tcp), port: number.unwrap_or_else(PortNumber::Invalid) }
}

fn port_and_end(port: Option<IntOrString>, end: Option<i32>, field: &str, errors: &mut FieldErrors) -> PortNumber {
    let refuse_end = |end: i32, why: &str, errors: &mut FieldErrors| {
        report(errors, format!("{field}.endPort"), format!("Invalid value: {end}: {why}"));
    };
    match (port, end) {
        (None, None) => PortNumber::Any,
        (None, Some(end)) => {
            refuse_end(end, "may not be specified when `port` is not specified", errors);
            PortNumber::Any
        }
        (Some(IntOrString::String(name)), end) => {
            if let Some(end) = end {
                refuse_end(end, "may not be specified when `port` is non-numeric", errors);
            }
            for problem in invalid_port_name(&name) {
                report(errors, format!("{field}.port"), format!("Invalid value: {name:?}: {problem}"));
            }
            PortNumber::Name(name.into())
        }
        (Some(IntOrString::Int(port)), None) => {
            port_number(port.into(), &format!("{field}.port"), errors).map_or(PortNumber::Any, PortNumber::Number)
        }
        (Some(IntOrString::Int(port)), Some(end)) => {
            let first = port_number(port.into(), &format!("{field}.port"), errors);
            if end < port {
                refuse_end(end, "must be greater than or equal to `port`", errors);
            }
            let last = port_number(end.into(), &format!("{field}.endPort"), errors);
            first.zip(last).map_or(PortNumber::Any, |(first, last)| PortNumber::Range(first, last))
        }
    }
}
