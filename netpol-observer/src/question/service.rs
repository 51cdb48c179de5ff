//! A Service that is called: its port, the endpoints behind it, and the pods that are none.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::answer::{NotReady, ServiceLink};
use super::find::{Destination, Member, selected};
use crate::cluster::{Index, Pod, PodPhase, Service, ServiceDns, ServicePort, TargetPort};
use crate::flow::Protocol;
use crate::identify::{Identity, ServiceCall};

/// Ports named in a message.
const PORTS_NAMED: usize = 10;

/// What a call to a Service comes to.
pub(super) struct Called {
    pub(super) link: ServiceLink,
    pub(super) call: ServiceCall,
    /// Each endpoint with the port that is called there.
    pub(super) destinations: Vec<Destination>,
}

/// A call to a Service by its name, or by one of its addresses.
pub(super) fn called(service: &Arc<Service>, by: Option<IpAddr>, port: Option<u16>, protocol: Protocol, index: &Index) -> Called {
    let headless = service.dns == ServiceDns::Headless && by.is_none();
    let found = service.ports.iter().find(|candidate| Some(candidate.port) == port && candidate.protocol == protocol);
    let (backends, at_port) = match found {
        _ if headless => (addresses(service, index), port),
        Some(found) => {
            let backends = index.backends(service, found);
            let at = backends.first().map(|(_, port)| *port);
            (backends, at)
        }
        None => (Vec::new(), None),
    };
    // Translation does not change the family.
    let of_family = |ip: &IpAddr| by.is_none_or(|by| by.is_ipv4() == ip.is_ipv4());
    let backends: Vec<(IpAddr, u16)> = backends.into_iter().filter(|(ip, _)| of_family(ip)).collect();
    let mut destinations = endpoints(&backends, headless.then_some(port), index);
    if destinations.is_empty() && (found.is_some() || headless) {
        destinations = without_addresses(service, found, port, headless, index);
    }
    // Where the port is not there, readiness explains nothing.
    let not_ready =
        if found.is_some() || headless { not_ready(service, &destinations, found.filter(|_| !headless), index) } else { Vec::new() };
    let problem = problem(service, port, protocol, found.is_some() || headless, destinations.is_empty());
    let name_of = |(member, port): &Destination| match port {
        Some(port) => format!("{}:{port}", member.name),
        None => member.name.clone(),
    };
    let link = ServiceLink {
        service: format!("{}/{}", service.namespace, service.name),
        port,
        port_name: found.and_then(|found| found.name.as_ref()).map(ToString::to_string),
        headless,
        endpoints: destinations.iter().map(name_of).collect(),
        not_ready,
        problem,
    };
    let dialled = by.or(service.cluster_ips.first().copied()).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let call = ServiceCall {
        service: service.clone(),
        ip: dialled,
        port: if headless { at_port } else { port },
        port_name: found.and_then(|found| found.name.clone()),
        backends,
    };
    Called { link, call, destinations }
}

/// The port to call when none was named: the only one there is.
pub(super) fn only_port(service: &Service, protocol: Protocol) -> Option<u16> {
    let mut ports = service.ports.iter().filter(|port| port.protocol == protocol);
    ports.next().map(|port| port.port).filter(|_| ports.next().is_none())
}

/// `80/TCP (http), 443/TCP`
pub(super) fn ports_of(service: &Service) -> String {
    let named = service.ports.iter().take(PORTS_NAMED).map(|port| match &port.name {
        Some(name) => format!("{}/{} ({name})", port.port, port.protocol),
        None => format!("{}/{}", port.port, port.protocol),
    });
    named.collect::<Vec<_>>().join(", ")
}

/// The backends, those of one pod together.
fn endpoints(backends: &[(IpAddr, u16)], dialled: Option<Option<u16>>, index: &Index) -> Vec<Destination> {
    let mut found: Vec<Destination> = Vec::new();
    // Both families of a pod stand for one endpoint.
    let mut places: BTreeMap<(String, Option<u16>), usize> = BTreeMap::new();
    for (ip, port) in backends {
        let port = dialled.unwrap_or(Some(*port));
        let member = match index.pods_at(*ip) {
            [pod] => Member::of_pod(pod, index),
            _ => Member::of_ip(*ip, index),
        };
        let is_pod = matches!(member.identity, Identity::Pod(_));
        let place = places.entry((member.name.clone(), port)).or_insert(found.len());
        match found.get_mut(*place) {
            Some((known, _)) if !known.ips.contains(ip) => known.ips.push(*ip),
            Some(_) => {}
            None => {
                let ips = if is_pod { vec![*ip] } else { member.ips };
                found.push((Member { ips, ..member }, port));
            }
        }
    }
    found
}

/// What the name of a headless Service stands for. The port tells nothing: none is translated.
fn addresses(service: &Service, index: &Index) -> Vec<(IpAddr, u16)> {
    if service.ports.is_empty() {
        let pods = selected(service, index).filter(|pod| takes_calls(pod, service));
        return pods.flat_map(|pod| pod.ips.iter().map(|ip| (*ip, 0))).collect();
    }
    let mut found: Vec<_> = service.ports.iter().flat_map(|port| index.backends(service, port)).map(|(ip, _)| (ip, 0)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Manifests that no cluster has seen have pods without addresses; where no endpoint has any, these are the endpoints.
fn without_addresses(
    service: &Service,
    found: Option<&ServicePort>,
    dialled: Option<u16>,
    headless: bool,
    index: &Index,
) -> Vec<Destination> {
    let pods = selected(service, index).filter(|pod| pod.ips.is_empty() && takes_calls(pod, service));
    let with_port = pods.filter_map(|pod| {
        let port = if headless { dialled } else { Some(target_port(pod, found?)?) };
        Some((Member::of_pod(pod, index), port))
    });
    with_port.collect()
}

fn takes_calls(pod: &Pod, service: &Service) -> bool {
    pod.phase == PodPhase::Active && (pod.ready || service.publish_not_ready)
}

fn target_port(pod: &Pod, port: &ServicePort) -> Option<u16> {
    match &port.target_port {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => {
            let named =
                |candidate: &&crate::cluster::ContainerPort| candidate.name.as_ref() == Some(name) && candidate.protocol == port.protocol;
            pod.ports.iter().find(named).map(|found| found.port)
        }
    }
}

/// The pods that the Service selects and that are none of its endpoints.
fn not_ready(service: &Service, destinations: &[Destination], port: Option<&ServicePort>, index: &Index) -> Vec<NotReady> {
    let is_endpoint = |name: &str| destinations.iter().any(|(member, _)| member.name == name);
    let mut found = Vec::new();
    for pod in selected(service, index) {
        let name = format!("{}/{}", pod.namespace, pod.name);
        if is_endpoint(&name) {
            continue;
        }
        let why = match pod.phase {
            PodPhase::Terminated => "has ended (phase Succeeded or Failed)".to_owned(),
            PodPhase::Active if pod.ips.is_empty() => "has no address yet (it does not run)".to_owned(),
            PodPhase::Active if !pod.ready => "is not ready".to_owned(),
            PodPhase::Active => match port.map(|port| (port, target_port(pod, port))) {
                Some((ServicePort { target_port: TargetPort::Name(name), protocol, .. }, None)) => {
                    format!("has no {protocol} port named {name:?}, which is the Service's targetPort")
                }
                _ => "is not among the endpoints in the manifests".to_owned(),
            },
        };
        found.push(NotReady { pod: name, why });
    }
    found
}

fn problem(service: &Service, port: Option<u16>, protocol: Protocol, has_port: bool, empty: bool) -> Option<String> {
    let name = format!("{}/{}", service.namespace, service.name);
    if !has_port {
        let called = port.map_or_else(|| protocol.to_string(), |port| format!("{port}/{protocol}"));
        if service.ports.is_empty() {
            return Some(format!("Service {name} has no ports"));
        }
        let behind =
            service.ports.iter().find(|candidate| port.is_some() && candidate.target_port == TargetPort::Number(port.unwrap_or_default()));
        let hint = match behind {
            Some(behind) => format!("; {called} is the port of the pods behind it, and callers dial {}", behind.port),
            None => String::new(),
        };
        return Some(format!("Service {name} has no port {called}, only {}{hint}", ports_of(service)));
    }
    if !empty {
        return None;
    }
    Some(match &service.selector {
        Some(selector) if !selector.is_empty() => {
            let labels: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("Service {name} has no ready endpoint: no ready pod of namespace {} has {}", service.namespace, labels.join(" and "))
        }
        _ => format!("Service {name} has no ready endpoint: it has no selector, and no EndpointSlice of the manifests names an address"),
    })
}
