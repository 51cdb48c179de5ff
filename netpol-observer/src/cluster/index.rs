//! The objects by name and by address.
//!
//! Plain data behind three calls, [`apply`](Index::apply), [`delete`](Index::delete) and [`reset`](Index::reset). All maps are
//! shared until written to, so that a clone costs a handful of reference counts: the proof of a fix clones the index, applies one
//! changed policy and evaluates again, and copies that policy's namespace only.

mod maps;
mod object;
mod share;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

pub use object::{Counts, Kind, Object, ObjectKey};
pub use share::Texts;

use maps::{ByAddress, Namespaced, Ranges};

use super::{
    ClusterPolicy, ClusterPolicyKind, DomainName, EndpointSlice, Labels, Namespace, NetworkPolicy, Node, Pod, PodPhase, Service,
    ServicePort, TargetPort,
};
use crate::flow::Protocol;

/// Label that every namespace carries; its value is the namespace's name.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// By kind and name.
type ClusterPolicies = Arc<BTreeMap<(ClusterPolicyKind, Arc<str>), Arc<ClusterPolicy>>>;

/// What is where, and which policies there are.
#[derive(Clone, Debug, Default)]
pub struct Index {
    namespaces: Arc<BTreeMap<Arc<str>, Arc<Namespace>>>,
    nodes: Arc<BTreeMap<Arc<str>, Arc<Node>>>,
    pods: Namespaced<Pod>,
    services: Namespaced<Service>,
    slices: Namespaced<EndpointSlice>,
    policies: Namespaced<NetworkPolicy>,
    cluster_policies: ClusterPolicies,
    domain_names: Arc<BTreeMap<Arc<str>, Arc<DomainName>>>,
    pod_addresses: ByAddress<Pod>,
    host_network_addresses: ByAddress<Pod>,
    node_addresses: ByAddress<Node>,
    service_addresses: ByAddress<Service>,
    node_ports: Arc<HashMap<(u16, Protocol), Vec<NodePortHolder>>>,
    pod_ranges: Ranges,
    texts: Texts,
}

/// A Service and the index of its port that has the node port. The API server hands out each only once; files may not.
type NodePortHolder = (Arc<Service>, usize);

impl Index {
    /// Inserts the object, or replaces the one of the same kind, namespace and name.
    pub fn apply(&mut self, object: impl Into<Object>) {
        match object.into() {
            Object::Namespace(namespace) => {
                Arc::make_mut(&mut self.namespaces).insert(namespace.name.clone(), namespace);
            }
            Object::Node(node) => self.apply_node(node),
            Object::Pod(pod) => self.apply_pod(pod),
            Object::Service(service) => self.apply_service(service),
            Object::EndpointSlice(slice) => {
                self.slices.insert(&slice.namespace, &slice.name, slice.clone());
            }
            Object::NetworkPolicy(mut policy) => {
                self.texts.share_policy(&mut policy);
                self.policies.insert(&policy.namespace, &policy.name, policy.clone());
            }
            Object::ClusterPolicy(policy) => {
                Arc::make_mut(&mut self.cluster_policies).insert((policy.kind, policy.name.clone()), policy);
            }
            Object::DomainName(name) => {
                Arc::make_mut(&mut self.domain_names).insert(name.name.clone(), name);
            }
        }
    }

    /// Removes an object; nothing happens when it is not there.
    pub fn delete(&mut self, key: &ObjectKey) {
        let (namespace, name) = (&*key.namespace, &*key.name);
        match key.kind {
            Kind::Namespace => {
                Arc::make_mut(&mut self.namespaces).remove(name);
            }
            Kind::Node => {
                if let Some(old) = Arc::make_mut(&mut self.nodes).remove(name) {
                    self.forget_node(&old);
                }
            }
            Kind::Pod => {
                if let Some(old) = self.pods.remove(namespace, name) {
                    self.forget_pod_addresses(&old);
                }
            }
            Kind::Service => {
                if let Some(old) = self.services.remove(namespace, name) {
                    self.forget_service(&old);
                }
            }
            Kind::EndpointSlice => {
                self.slices.remove(namespace, name);
            }
            Kind::NetworkPolicy => {
                self.policies.remove(namespace, name);
            }
            Kind::AdminNetworkPolicy | Kind::BaselineAdminNetworkPolicy | Kind::ClusterNetworkPolicy => {
                if let Some(kind) = key.kind.cluster_policy() {
                    Arc::make_mut(&mut self.cluster_policies).remove(&(kind, key.name.clone()));
                }
            }
            Kind::DomainName => {
                Arc::make_mut(&mut self.domain_names).remove(name);
            }
        }
    }

    /// Forgets everything and takes these objects instead; of several with one name the last stays.
    pub fn reset(&mut self, objects: impl IntoIterator<Item = Object>) {
        *self = Index::default();
        for object in objects {
            self.apply(object);
        }
    }

    /// The object of this kind and name.
    pub fn object(&self, key: &ObjectKey) -> Option<Object> {
        let (namespace, name) = (&*key.namespace, &*key.name);
        match key.kind {
            Kind::Namespace => self.namespace(name).cloned().map(Object::Namespace),
            Kind::Node => self.node(name).cloned().map(Object::Node),
            Kind::Pod => self.pod(namespace, name).cloned().map(Object::Pod),
            Kind::Service => self.service(namespace, name).cloned().map(Object::Service),
            Kind::EndpointSlice => self.slices.get(namespace, name).cloned().map(Object::EndpointSlice),
            Kind::NetworkPolicy => self.policy(namespace, name).cloned().map(Object::NetworkPolicy),
            Kind::AdminNetworkPolicy | Kind::BaselineAdminNetworkPolicy | Kind::ClusterNetworkPolicy => {
                self.cluster_policy(key.kind.cluster_policy()?, name).cloned().map(Object::ClusterPolicy)
            }
            Kind::DomainName => self.domain_name(name).cloned().map(Object::DomainName),
        }
    }

    /// A namespace that some object describes.
    pub fn namespace(&self, name: &str) -> Option<&Arc<Namespace>> {
        self.namespaces.get(name)
    }

    /// The namespaces that some object describes, by name. Pods and policies may lie in others too.
    pub fn namespaces(&self) -> impl Iterator<Item = &Arc<Namespace>> {
        self.namespaces.values()
    }

    /// Labels of a namespace. One that nobody described has `kubernetes.io/metadata.name` alone, as the API server sets it.
    pub fn namespace_labels(&self, name: &str) -> Cow<'_, Labels> {
        match self.namespaces.get(name) {
            Some(namespace) => Cow::Borrowed(&namespace.labels),
            None => Cow::Owned(Namespace::undescribed(name)),
        }
    }

    /// A pod by name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Arc<Pod>> {
        self.pods.get(namespace, name)
    }

    /// All pods, by namespace and name.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter()
    }

    /// The pods of a namespace, by name.
    pub fn pods_in(&self, namespace: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter_in(namespace)
    }

    /// The pods that hold an address of their own: neither terminated nor in the host's network. By namespace and name.
    pub fn pods_at(&self, ip: IpAddr) -> &[Arc<Pod>] {
        self.pod_addresses.get(ip)
    }

    /// The running pods in the network of the node that has an address.
    pub fn host_network_pods_at(&self, ip: IpAddr) -> &[Arc<Pod>] {
        self.host_network_addresses.get(ip)
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// The node with this address; the first by name if several claim it.
    pub fn node_at(&self, ip: IpAddr) -> Option<&Arc<Node>> {
        self.node_addresses.get(ip).first()
    }

    /// All nodes with this address, by name: an address should have one.
    pub fn nodes_at(&self, ip: IpAddr) -> &[Arc<Node>] {
        self.node_addresses.get(ip)
    }

    /// Whether the address lies in the pod range of any node.
    pub fn in_pod_range(&self, ip: IpAddr) -> bool {
        self.pod_ranges.around(ip).is_some()
    }

    /// The pod range of a node that the address lies in; of several the largest.
    pub fn pod_range(&self, ip: IpAddr) -> Option<IpNet> {
        self.pod_ranges.around(ip)
    }

    /// A policy by name.
    pub fn policy(&self, namespace: &str, name: &str) -> Option<&Arc<NetworkPolicy>> {
        self.policies.get(namespace, name)
    }

    /// All policies, by namespace and name.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<NetworkPolicy>> {
        self.policies.iter()
    }

    /// The policies of a namespace, by name.
    pub fn policies_in(&self, namespace: &str) -> impl Iterator<Item = &Arc<NetworkPolicy>> {
        self.policies.iter_in(namespace)
    }

    /// A policy of the Admin or the Baseline tier by kind and name.
    pub fn cluster_policy(&self, kind: ClusterPolicyKind, name: &str) -> Option<&Arc<ClusterPolicy>> {
        self.cluster_policies.get(&(kind, Arc::from(name)))
    }

    /// All policies of the Admin and the Baseline tier, by kind and name.
    pub fn cluster_policies(&self) -> impl Iterator<Item = &Arc<ClusterPolicy>> {
        self.cluster_policies.values()
    }

    /// The names in the DNS of which something is known, by name.
    pub fn domain_names(&self) -> impl Iterator<Item = &Arc<DomainName>> {
        self.domain_names.values()
    }

    /// What is known of a name in the DNS.
    pub fn domain_name(&self, name: &str) -> Option<&Arc<DomainName>> {
        self.domain_names.get(name)
    }

    /// A Service by name.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Arc<Service>> {
        self.services.get(namespace, name)
    }

    /// All Services, by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.iter()
    }

    /// All EndpointSlices, by namespace and name.
    pub fn endpoint_slices(&self) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.slices.iter()
    }

    /// The Service with this cluster, external or load balancer address; the first by name if several share it.
    pub fn service_at(&self, ip: IpAddr) -> Option<&Arc<Service>> {
        self.services_at(ip).first()
    }

    /// All Services with this address. External and load balancer addresses may be shared: the port tells them apart.
    pub fn services_at(&self, ip: IpAddr) -> &[Arc<Service>] {
        self.service_addresses.get(ip)
    }

    /// The Service a node port belongs to, and the index of its port in [`Service::ports`].
    pub fn node_port(&self, port: u16, protocol: Protocol) -> Option<(&Arc<Service>, usize)> {
        self.node_ports.get(&(port, protocol))?.first().map(|(service, index)| (service, *index))
    }

    /// The ready endpoints of a Service's port, address and target port, sorted.
    ///
    /// The Service's EndpointSlices tell where there are any. Otherwise the endpoints are what the control plane would write: the
    /// active pods its selector matches that are ready (or all, with `publishNotReadyAddresses`). A named target port is looked up
    /// on each pod by name and protocol. Both IP families are listed where the Service has both.
    pub fn backends(&self, service: &Service, port: &ServicePort) -> Vec<(IpAddr, u16)> {
        let mut slices = self.slices.iter_in(&service.namespace).filter(|slice| slice.service.as_ref() == Some(&service.name)).peekable();
        let mut backends: Vec<_> = match slices.peek() {
            Some(_) => slices.flat_map(|slice| slice_backends(slice, port)).collect(),
            None => self.derived_backends(service, port),
        };
        backends.sort_unstable();
        backends.dedup();
        backends
    }

    /// How many objects of each kind there are.
    pub fn counts(&self) -> Counts {
        Counts {
            namespaces: self.namespaces.len(),
            pods: self.pods.len(),
            nodes: self.nodes.len(),
            services: self.services.len(),
            endpoint_slices: self.slices.len(),
            network_policies: self.policies.len(),
            cluster_policies: self.cluster_policies.len(),
        }
    }

    fn apply_node(&mut self, node: Arc<Node>) {
        if let Some(old) = Arc::make_mut(&mut self.nodes).insert(node.name.clone(), node.clone()) {
            self.forget_node(&old);
        }
        self.node_addresses.insert(&node, &node.addresses);
        node.pod_cidrs.iter().for_each(|cidr| self.pod_ranges.insert(*cidr));
    }

    fn forget_node(&mut self, node: &Arc<Node>) {
        self.node_addresses.remove(node, &node.addresses);
        node.pod_cidrs.iter().for_each(|cidr| self.pod_ranges.remove(*cidr));
    }

    fn apply_pod(&mut self, mut pod: Arc<Pod>) {
        self.texts.share_pod(&mut pod);
        if let Some(old) = self.pods.insert(&pod.namespace, &pod.name, pod.clone()) {
            self.forget_pod_addresses(&old);
        }
        if pod.phase == PodPhase::Active {
            let addresses = if pod.host_network { &mut self.host_network_addresses } else { &mut self.pod_addresses };
            addresses.insert(&pod, &pod.ips);
        }
    }

    fn forget_pod_addresses(&mut self, pod: &Arc<Pod>) {
        let addresses = if pod.host_network { &mut self.host_network_addresses } else { &mut self.pod_addresses };
        addresses.remove(pod, &pod.ips);
    }

    fn apply_service(&mut self, service: Arc<Service>) {
        if let Some(old) = self.services.insert(&service.namespace, &service.name, service.clone()) {
            self.forget_service(&old);
        }
        self.service_addresses.insert(&service, &service.cluster_ips);
        self.service_addresses.insert(&service, &service.external_ips);
        self.service_addresses.insert(&service, &service.load_balancer_ips);
        for (index, port) in service.ports.iter().enumerate() {
            if let Some(node_port) = port.node_port {
                let holders = Arc::make_mut(&mut self.node_ports).entry((node_port, port.protocol)).or_default();
                holders.push((service.clone(), index));
                holders.sort_by(|(a, i), (b, j)| (&a.namespace, &a.name, i).cmp(&(&b.namespace, &b.name, j)));
            }
        }
    }

    fn forget_service(&mut self, service: &Arc<Service>) {
        self.service_addresses.remove(service, &service.cluster_ips);
        self.service_addresses.remove(service, &service.external_ips);
        self.service_addresses.remove(service, &service.load_balancer_ips);
        for port in &service.ports {
            let Some(key) = port.node_port.map(|node_port| (node_port, port.protocol)) else {
                continue;
            };
            let node_ports = Arc::make_mut(&mut self.node_ports);
            if let Some(holders) = node_ports.get_mut(&key) {
                holders.retain(|(holder, _)| !Arc::ptr_eq(holder, service));
                if holders.is_empty() {
                    node_ports.remove(&key);
                }
            }
        }
    }

    fn derived_backends(&self, service: &Service, port: &ServicePort) -> Vec<(IpAddr, u16)> {
        let Some(selector) = service.selector.as_ref().filter(|selector| !selector.is_empty()) else {
            return Vec::new();
        };
        let serves_family = |ip: &IpAddr| {
            service.cluster_ips.is_empty() || service.cluster_ips.iter().any(|cluster_ip| cluster_ip.is_ipv4() == ip.is_ipv4())
        };
        let mut backends = Vec::new();
        for pod in self.pods_in(&service.namespace) {
            let selected = selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value));
            if !selected || pod.phase != PodPhase::Active || !(pod.ready || service.publish_not_ready) {
                continue;
            }
            let Some(number) = pod_port(pod, port) else { continue };
            backends.extend(pod.ips.iter().map(IpAddr::to_canonical).filter(serves_family).map(|ip| (ip, number)));
        }
        backends
    }
}

fn slice_backends<'a>(slice: &'a EndpointSlice, port: &ServicePort) -> impl Iterator<Item = (IpAddr, u16)> + 'a {
    let wanted = port.name.as_deref().unwrap_or_default();
    let number = slice.ports.iter().find(|candidate| &*candidate.name == wanted && candidate.protocol == port.protocol).map(|p| p.port);
    number.into_iter().flat_map(|number| slice.backends.iter().filter(|b| b.ready).map(move |backend| (backend.ip.to_canonical(), number)))
}

/// The number a pod serves a Service port on; none when the target port is a name that the pod does not have for that protocol.
fn pod_port(pod: &Pod, port: &ServicePort) -> Option<u16> {
    match &port.target_port {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => {
            pod.ports.iter().find(|p| p.name.as_ref() == Some(name) && p.protocol == port.protocol).map(|container| container.port)
        }
    }
}
