//! Objects as the Kubernetes API has them → the trimmed objects of the index.
//!
//! Nothing is refused here. What the API server would not have accepted is reported as a [`FieldError`] and left out, or kept as a
//! part that matches nothing, so that files are judged as strictly as the cluster would and one bad field hides no other.

mod cluster_policy;
mod metadata;
pub(super) mod names;

pub use names::{invalid_label, invalid_subdomain};
mod policy;
mod schema;
mod selector;
pub mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub use cluster_policy::{admin_network_policy, baseline_admin_network_policy, cluster_network_policy};
pub use policy::network_policy;

use super::index::NAMESPACE_NAME_LABEL;
use super::{
    Backend, ContainerPort, EndpointSlice, Labels, Namespace, Node, Pod, PodPhase, Service, ServiceDns, ServicePort, SlicePort, TargetPort,
    Workload,
};
use crate::flow::Protocol;

/// Where objects without a namespace are, for kinds that have one.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// A field the API server would have refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Path from the object's root: `spec.ingress[0].ports[0].endPort`.
    pub field: String,
    /// What is wrong with it: `Invalid value: 70000: must be between 1 and 65535, inclusive`.
    pub message: String,
    /// What becomes of it here.
    pub effect: Effect,
}

/// What a part that the API server would have refused means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is left out, or matches nothing.
    MatchesNothing,
    /// A part of a cluster-scoped rule: an Accept rule matches nothing by it, a Deny or Pass rule everything.
    FailsClosed,
    /// What was meant is plain: it counts as it is written.
    AsWritten,
}

/// As the API server words it: `spec.ports[0].port: Invalid value: …`.
impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Reported problems, in the order of the fields.
pub type FieldErrors = Vec<FieldError>;

fn report(errors: &mut FieldErrors, field: impl Into<String>, message: impl Into<String>) {
    report_as(errors, field, message, Effect::MatchesNothing);
}

fn report_as(errors: &mut FieldErrors, field: impl Into<String>, message: impl Into<String>, effect: Effect) {
    errors.push(FieldError { field: field.into(), message: message.into(), effect });
}

/// core/v1 Namespace, with the label the API server adds.
pub fn namespace(namespace: core::Namespace) -> Namespace {
    let name = text(namespace.metadata.name);
    let mut labels = labels(namespace.metadata.labels);
    labels.insert(NAMESPACE_NAME_LABEL.into(), name.clone());
    Namespace { name, labels }
}

/// core/v1 Node.
pub fn node(node: core::Node, errors: &mut FieldErrors) -> Node {
    let spec = node.spec.unwrap_or_default();
    let written = match spec.pod_cidrs {
        Some(ranges) if !ranges.is_empty() => ranges,
        _ => spec.pod_cidr.into_iter().collect(),
    };
    let mut pod_cidrs = Vec::new();
    for (i, range) in written.iter().enumerate().filter(|(_, range)| !range.is_empty()) {
        match parse_cidr(range) {
            Some(range) => pod_cidrs.push(range),
            None => report(errors, format!("spec.podCIDRs[{i}]"), invalid_cidr(range)),
        }
    }
    let mut addresses = Vec::new();
    for (i, address) in node.status.unwrap_or_default().addresses.unwrap_or_default().into_iter().enumerate() {
        match parse_ip(&address.address) {
            Some(ip) if !addresses.contains(&ip) => addresses.push(ip),
            Some(_) => {}
            // A Hostname is an address on some clouds and a name on others.
            None if address.type_.ends_with("IP") => {
                report(errors, format!("status.addresses[{i}].address"), invalid_ip(&address.address));
            }
            None => {}
        }
    }
    Node { name: text(node.metadata.name), labels: labels(node.metadata.labels), addresses, pod_cidrs }
}

/// core/v1 Pod.
pub fn pod(pod: core::Pod, errors: &mut FieldErrors) -> Pod {
    let core::Pod { metadata, spec, status } = pod;
    let spec = spec.unwrap_or_default();
    let status = status.unwrap_or_default();
    let deleting = metadata.deletion_timestamp.is_some();
    let ready = !deleting && is_ready(&status);
    let workload = workload(&metadata);

    let written: Vec<(String, String)> = match status.pod_ips {
        Some(ips) if !ips.is_empty() => ips.into_iter().enumerate().map(|(i, ip)| (format!("status.podIPs[{i}].ip"), ip.ip)).collect(),
        _ => status.pod_ip.map(|ip| ("status.podIP".to_owned(), ip)).into_iter().collect(),
    };
    let ips = addresses(written, errors);

    let mut ports = Vec::new();
    for (i, container) in spec.containers.into_iter().enumerate() {
        container_ports(container.ports, &format!("spec.containers[{i}]"), &mut ports, errors);
    }
    // Init containers that restart are sidecars: they run beside the others. The rest has ended before the pod takes connections.
    let init_containers = spec.init_containers.unwrap_or_default().into_iter().enumerate();
    for (i, container) in init_containers.filter(|(_, container)| container.restart_policy.as_deref() == Some("Always")) {
        container_ports(container.ports, &format!("spec.initContainers[{i}]"), &mut ports, errors);
    }

    Pod {
        namespace: namespace_of(metadata.namespace),
        name: text(metadata.name),
        uid: text(metadata.uid),
        labels: labels(metadata.labels),
        ips,
        node: spec.node_name.filter(|node| !node.is_empty()).map(Arc::from),
        host_network: spec.host_network == Some(true),
        phase: match status.phase.as_deref() {
            Some("Succeeded" | "Failed") => PodPhase::Terminated,
            _ => PodPhase::Active,
        },
        ready,
        deleting,
        ports,
        workload,
        origin: None,
    }
}

/// core/v1 Service.
pub fn service(service: core::Service, errors: &mut FieldErrors) -> Service {
    let spec = service.spec.unwrap_or_default();
    let is_headless = spec.cluster_ip.as_deref() == Some("None") || spec.cluster_ips.iter().flatten().any(|ip| ip == "None");
    let dns = match spec.external_name.filter(|name| !name.is_empty()) {
        Some(name) if spec.type_.as_deref() == Some("ExternalName") => ServiceDns::Name(name.into()),
        _ if is_headless => ServiceDns::Headless,
        _ => ServiceDns::ClusterIp,
    };
    let written = match spec.cluster_ips {
        Some(ips) if !ips.is_empty() => ips.into_iter().enumerate().map(|(i, ip)| (format!("spec.clusterIPs[{i}]"), ip)).collect(),
        _ => spec.cluster_ip.map(|ip| ("spec.clusterIP".to_owned(), ip)).into_iter().collect::<Vec<_>>(),
    };
    let cluster_ips = addresses(written.into_iter().filter(|(_, ip)| ip != "None"), errors);

    let external = spec.external_ips.unwrap_or_default().into_iter().enumerate().map(|(i, ip)| (format!("spec.externalIPs[{i}]"), ip));
    let balancer = service.status.unwrap_or_default().load_balancer.unwrap_or_default().ingress.unwrap_or_default();
    let balancer = balancer.into_iter().enumerate().filter_map(|(i, at)| Some((format!("status.loadBalancer.ingress[{i}].ip"), at.ip?)));
    let (external_ips, load_balancer_ips) = (addresses(external, errors), addresses(balancer, errors));

    let mut ports = Vec::new();
    for (i, port) in spec.ports.unwrap_or_default().into_iter().enumerate() {
        let field = format!("spec.ports[{i}]");
        let number = port_number(port.port.into(), &format!("{field}.port"), errors);
        let protocol = protocol(port.protocol.as_deref(), &format!("{field}.protocol"), errors);
        let (Some(number), Some(protocol)) = (number, protocol) else {
            continue;
        };
        let target_port = match port.target_port {
            None | Some(IntOrString::Int(0)) => Some(TargetPort::Number(number)),
            Some(IntOrString::Int(target)) => port_number(target.into(), &format!("{field}.targetPort"), errors).map(TargetPort::Number),
            Some(IntOrString::String(name)) => Some(TargetPort::Name(name.into())),
        };
        let Some(target_port) = target_port else { continue };
        let node_port = port.node_port.filter(|number| *number != 0);
        let node_port = node_port.and_then(|number| port_number(number.into(), &format!("{field}.nodePort"), errors));
        ports.push(ServicePort {
            name: port.name.filter(|name| !name.is_empty()).map(Arc::from),
            port: number,
            protocol,
            target_port,
            node_port,
        });
    }

    Service {
        namespace: namespace_of(service.metadata.namespace),
        name: text(service.metadata.name),
        cluster_ips,
        external_ips,
        load_balancer_ips,
        ports,
        selector: spec.selector.map(|selector| labels(Some(selector))),
        publish_not_ready: spec.publish_not_ready_addresses == Some(true),
        dns,
    }
}

/// discovery.k8s.io/v1 EndpointSlice. One of type FQDN has no backends: it names none by address.
pub fn endpoint_slice(slice: discovery::EndpointSlice, errors: &mut FieldErrors) -> EndpointSlice {
    let mut backends = Vec::new();
    let endpoints = slice.endpoints.unwrap_or_default();
    for (i, endpoint) in endpoints.into_iter().enumerate().filter(|_| slice.address_type != "FQDN") {
        let ready = endpoint.conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
        let written = endpoint.addresses.into_iter().enumerate().map(|(j, ip)| (format!("endpoints[{i}].addresses[{j}]"), ip));
        backends.extend(addresses(written, errors).into_iter().map(|ip| Backend { ip, ready }));
    }
    let mut ports = Vec::new();
    for (i, port) in slice.ports.unwrap_or_default().into_iter().enumerate() {
        let Some(number) = port.port else { continue };
        let number = port_number(number.into(), &format!("ports[{i}].port"), errors);
        let protocol = protocol(port.protocol.as_deref(), &format!("ports[{i}].protocol"), errors);
        if let (Some(port_number), Some(protocol)) = (number, protocol) {
            ports.push(SlicePort { name: text(port.name), port: port_number, protocol });
        }
    }
    let labels = slice.metadata.labels.unwrap_or_default();
    EndpointSlice {
        namespace: namespace_of(slice.metadata.namespace),
        name: text(slice.metadata.name),
        service: labels.get("kubernetes.io/service-name").map(|name| name.as_str().into()),
        ports,
        backends,
    }
}

/// The controller of a pod. A ReplicaSet made by a Deployment is named as the Deployment: the next rollout makes another one.
fn workload(metadata: &ObjectMeta) -> Workload {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    // The mirror of a static pod is owned by its node, which made no other.
    let owner = owners.iter().find(|owner| owner.controller == Some(true)).or(owners.first()).filter(|owner| owner.kind != "Node");
    let Some(owner) = owner else {
        return Workload { kind: "Pod".into(), name: text(metadata.name.clone()) };
    };
    let hash = metadata.labels.as_ref().and_then(|labels| labels.get("pod-template-hash"));
    let deployment = if owner.kind == "ReplicaSet" { deployment_of(&owner.name, hash.map(String::as_str)) } else { None };
    match deployment {
        Some(name) => Workload { kind: "Deployment".into(), name: name.into() },
        None => Workload { kind: owner.kind.as_str().into(), name: owner.name.as_str().into() },
    }
}

/// The Deployment a ReplicaSet's name speaks of: `web-7d9f8c5b4` belongs to `web`.
fn deployment_of<'a>(replica_set: &'a str, hash: Option<&str>) -> Option<&'a str> {
    let (deployment, suffix) = replica_set.rsplit_once('-')?;
    let is_hash = match hash {
        Some(hash) => suffix == hash,
        // The hash is a decimal number of up to ten digits, each written as one of these letters (`rand.SafeEncodeString`).
        None => (4..=10).contains(&suffix.len()) && suffix.chars().all(|letter| "456789bcdf".contains(letter)),
    };
    (is_hash && !deployment.is_empty()).then_some(deployment)
}

/// Condition Ready. A pod in a file that somebody wrote has no conditions, and is meant to run.
fn is_ready(status: &core::PodStatus) -> bool {
    match status.conditions.as_deref() {
        None | Some([]) => true,
        Some(conditions) => conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
    }
}

fn container_ports(written: Option<Vec<core::ContainerPort>>, container: &str, ports: &mut Vec<ContainerPort>, errors: &mut FieldErrors) {
    for (i, port) in written.unwrap_or_default().into_iter().enumerate() {
        let field = format!("{container}.ports[{i}]");
        let number = port_number(port.container_port.into(), &format!("{field}.containerPort"), errors);
        let protocol = protocol(port.protocol.as_deref(), &format!("{field}.protocol"), errors);
        if let (Some(number), Some(protocol)) = (number, protocol) {
            ports.push(ContainerPort { name: port.name.filter(|name| !name.is_empty()).map(Arc::from), port: number, protocol });
        }
    }
}

/// A list without spare capacity. `collect` may keep the room of the larger items that a list is made from.
fn exact<T>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut list: Vec<T> = items.collect();
    list.shrink_to_fit();
    list
}

fn text(text: Option<String>) -> Arc<str> {
    text.unwrap_or_default().into()
}

fn namespace_of(namespace: Option<String>) -> Arc<str> {
    namespace.filter(|namespace| !namespace.is_empty()).map_or_else(|| DEFAULT_NAMESPACE.into(), Arc::from)
}

fn labels(labels: Option<BTreeMap<String, String>>) -> Labels {
    labels.unwrap_or_default().into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}

/// What people and tools wrote beside the object; not kubectl's own copy of the object.
fn annotations(annotations: Option<BTreeMap<String, String>>) -> Labels {
    let mut annotations = annotations.unwrap_or_default();
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    labels(Some(annotations))
}

/// Addresses with the fields they stand in; empty ones are as good as absent.
fn addresses(written: impl IntoIterator<Item = (String, String)>, errors: &mut FieldErrors) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for (field, ip) in written.into_iter().filter(|(_, ip)| !ip.is_empty()) {
        match parse_ip(&ip) {
            Some(ip) if !addresses.contains(&ip) => addresses.push(ip),
            Some(_) => {}
            None => report(errors, field, invalid_ip(&ip)),
        }
    }
    addresses
}

fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// A range of addresses, one of IPv4-mapped addresses as the IPv4 range it stands for.
fn parse_cidr(text: &str) -> Option<IpNet> {
    let range: IpNet = text.parse().ok()?;
    match (range.addr().to_canonical(), range.prefix_len().checked_sub(96)) {
        (IpAddr::V4(ip), Some(length)) if range.addr().is_ipv6() => IpNet::new(ip.into(), length).ok(),
        _ => Some(range),
    }
}

fn invalid_ip(text: &str) -> String {
    format!("Invalid value: {text:?}: must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
}

fn invalid_cidr(text: &str) -> String {
    format!("Invalid value: {text:?}: must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
}

/// A port from 1 to 65535.
fn port_number(number: i64, field: &str, errors: &mut FieldErrors) -> Option<u16> {
    let valid = u16::try_from(number).ok().filter(|number| *number != 0);
    if valid.is_none() {
        report(errors, field, out_of_range(number));
    }
    valid
}

fn out_of_range(number: i64) -> String {
    format!("Invalid value: {number}: must be between 1 and 65535, inclusive")
}

/// TCP when absent. The names are those of the API, in capitals.
fn protocol(name: Option<&str>, field: &str, errors: &mut FieldErrors) -> Option<Protocol> {
    let known = known_protocol(name);
    if known.is_none() {
        report(errors, field, unsupported_protocol(name));
    }
    known
}

fn known_protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        // Go's zero value: defaulting looks at the text, not at its presence.
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

fn unsupported_protocol(name: Option<&str>) -> String {
    format!("Unsupported value: {:?}: supported values: \"SCTP\", \"TCP\", \"UDP\"", name.unwrap_or_default())
}
