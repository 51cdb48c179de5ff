//! Calls to a Service go to one of its endpoints.

use std::net::IpAddr;

use serde_json::Value;

use super::objects::{addresses, label, list, name_of, named_ports, namespace_of, port_number, protocol};
use super::{Call, World, is_active, node_addresses, pod_ips};

/// The endpoints that a call may go to; none where no Service is called.
pub(super) fn called(world: &World, destination: IpAddr, call: &Call) -> Option<Vec<(IpAddr, u16)>> {
    let mut services: Vec<&Value> = world.of_kind("Service").collect();
    services.sort_by_key(|service| (namespace_of(service), name_of(service)));
    let sharing = || services.iter().filter(|service| has_address(service, destination));
    if let Some((service, port)) = sharing().find_map(|service| Some((service, dialled(service, call)?))) {
        return Some(endpoints(world, service, port, destination));
    }
    let is_node = world.of_kind("Node").any(|node| node_addresses(node).contains(&destination));
    if is_node && let Some(number) = call.port {
        for service in &services {
            let of_node = |port: &&Value| port_number(&port["nodePort"]) == Some(number) && is_protocol(port, call);
            if let Some(port) = list(&service["spec"]["ports"]).find(of_node) {
                return Some(endpoints(world, service, port, destination));
            }
        }
    }
    let is_pod = world.of_kind("Pod").any(|pod| super::holds(pod, destination));
    // The address is nobody else's, and the Service has no such port.
    if !is_node && !is_pod && sharing().next().is_some() { Some(Vec::new()) } else { None }
}

pub(super) fn has_address(service: &Value, ip: IpAddr) -> bool {
    let external = addresses(list(&service["spec"]["externalIPs"]));
    let balancer = addresses(list(&service["status"]["loadBalancer"]["ingress"]).map(|at| &at["ip"]));
    [cluster_ips(service), external, balancer].concat().contains(&ip)
}

fn cluster_ips(service: &Value) -> Vec<IpAddr> {
    let many = list(&service["spec"]["clusterIPs"]).next().is_some();
    if many { addresses(list(&service["spec"]["clusterIPs"])) } else { addresses([&service["spec"]["clusterIP"]]) }
}

/// A port without a number is refused.
fn is_protocol(port: &Value, call: &Call) -> bool {
    port_number(&port["port"]).is_some() && protocol(&port["protocol"]) == Some(&call.protocol.to_string())
}

/// The port of a Service that is called; where the packet shows none, the only one it can be.
fn dialled<'a>(service: &'a Value, call: &Call) -> Option<&'a Value> {
    let candidates: Vec<&Value> = list(&service["spec"]["ports"]).filter(|port| is_protocol(port, call)).collect();
    match (call.port, candidates.as_slice()) {
        (Some(number), candidates) => candidates.iter().find(|port| port_number(&port["port"]) == Some(number)).copied(),
        (None, [only]) => Some(only),
        (None, _) => None,
    }
}

/// What the EndpointSlices say, or what the control plane would write into them. Translation keeps the address family.
fn endpoints(world: &World, service: &Value, port: &Value, called: IpAddr) -> Vec<(IpAddr, u16)> {
    let is_of = |slice: &&Value| {
        namespace_of(slice) == namespace_of(service) && label(slice, "kubernetes.io/service-name") == Some(name_of(service))
    };
    let slices: Vec<&Value> = world.of_kind("EndpointSlice").filter(is_of).collect();
    let found = if slices.is_empty() { from_pods(world, service, port) } else { from_slices(&slices, port) };
    found.into_iter().filter(|(ip, _)| ip.is_ipv4() == called.is_ipv4()).collect()
}

fn from_slices(slices: &[&Value], port: &Value) -> Vec<(IpAddr, u16)> {
    let mut found = Vec::new();
    for slice in slices {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let is_it = |slice_port: &&Value| {
            text(&slice_port["name"]) == text(&port["name"]) && protocol(&slice_port["protocol"]) == protocol(&port["protocol"])
        };
        let Some(number) = list(&slice["ports"]).find(is_it).and_then(|port| port_number(&port["port"])) else { continue };
        for endpoint in list(&slice["endpoints"]).filter(|endpoint| endpoint["conditions"]["ready"] != false) {
            found.extend(addresses(list(&endpoint["addresses"])).into_iter().map(|ip| (ip, number)));
        }
    }
    found
}

fn from_pods(world: &World, service: &Value, port: &Value) -> Vec<(IpAddr, u16)> {
    let Some(selector) = service["spec"]["selector"].as_object().filter(|selector| !selector.is_empty()) else { return Vec::new() };
    let mut found = Vec::new();
    for pod in world.of_kind("Pod").filter(|pod| namespace_of(pod) == namespace_of(service) && is_active(pod)) {
        let is_selected = selector.iter().all(|(key, value)| label(pod, key) == value.as_str());
        if !is_selected || !(is_ready(pod) || service["spec"]["publishNotReadyAddresses"] == true) {
            continue;
        }
        let number = match &port["targetPort"] {
            Value::String(name) => named_ports(pod, name, protocol(&port["protocol"]).unwrap_or_default()).first().copied(),
            target => port_number(target).or(port_number(&port["port"])),
        };
        // Slices are written for the address families of the Service.
        let own = cluster_ips(service);
        let is_served = |ip: &IpAddr| own.is_empty() || own.iter().any(|own| own.is_ipv4() == ip.is_ipv4());
        found.extend(pod_ips(pod).into_iter().filter(is_served).filter_map(|ip| Some((ip, number?))));
    }
    found
}

/// A pod in a file has no conditions and is meant to run; one that is being deleted gets no new connections.
fn is_ready(pod: &Value) -> bool {
    let conditions: Vec<&Value> = list(&pod["status"]["conditions"]).collect();
    let says_so = conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    pod["metadata"]["deletionTimestamp"].is_null() && (conditions.is_empty() || says_so)
}
