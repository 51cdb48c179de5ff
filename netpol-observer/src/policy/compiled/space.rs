//! The ends of connections as policies can tell them apart.
//!
//! Pods of one namespace whose labels and named ports agree, as far as any policy asks for them, share an *identity*. An *end* is an
//! identity, a kind of node or the outside, together with the *class* of its address: the longest of the ranges that policies name. All
//! ends are alike to every rule, so that one evaluation serves all pods of an end.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::Map;
use crate::cluster::{Index, Labels, NAMESPACE_NAME_LABEL, Node, Operator, Pod, PodPhase, Selector, Workload};
use crate::flow::Protocol;

pub(in crate::policy) type EndId = u32;
pub(in crate::policy) type IdentityId = u32;
pub(super) type ClassId = u32;
pub(in crate::policy) type WorkloadId = u32;

/// A named container port: name, protocol, number.
pub(super) type NamedPort = (Arc<str>, Protocol, u16);

/// Pods that policies cannot tell apart, addresses aside.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) namespace: Arc<str>,
    /// Those labels whose keys some selector asks for.
    pub(super) labels: Labels,
    /// Those ports whose names some policy asks for, sorted.
    pub(super) ports: Vec<NamedPort>,
}

/// Who is at an end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum EndWho {
    Pod(IdentityId),
    /// A node with these labels, as far as some policy asks for them.
    Node(Arc<Labels>),
    External,
}

/// One side of connections, as policies see it.
#[derive(Clone, Debug)]
pub(in crate::policy) struct End {
    pub(super) who: EndWho,
    pub(super) class: ClassId,
    /// The pods at it; a pod with several addresses may be at several.
    pub(in crate::policy) pods: Vec<Arc<Pod>>,
    /// The workload of each of the pods.
    pub(in crate::policy) workloads: Vec<WorkloadId>,
}

/// The ends with a port of some name, by protocol and number.
type Named = BTreeMap<(Protocol, u16), Vec<EndId>>;

/// What is at an address.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// One pod with a network of its own.
    Pod { pod: Arc<Pod>, identity: IdentityId, end: EndId, node: u32 },
    /// One node.
    Node { end: EndId, node: u32 },
    /// A Service, or claimed by several: not for the short way.
    Special,
}

/// What somebody asks for: labels, port names, address ranges. It only grows; a rebuild starts anew.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub(super) pod_keys: HashSet<Arc<str>>,
    pub(super) node_keys: HashSet<Arc<str>>,
    pub(super) port_names: HashSet<Arc<str>>,
}

/// The ends there are, and who is at which address.
#[derive(Clone, Debug, Default)]
pub(super) struct Space {
    pub(super) asked: Asked,
    pub(super) identities: Vec<Arc<Identity>>,
    identity_ids: Map<Arc<Identity>, IdentityId>,
    pub(super) ends: Vec<End>,
    end_ids: Map<(EndWho, ClassId), EndId>,
    /// Identities by namespace.
    namespaces: Map<Arc<str>, Vec<IdentityId>>,
    /// Ends of each identity.
    ends_of: Vec<Vec<EndId>>,
    classes: Classes,
    places: Map<IpAddr, Place>,
    node_numbers: Map<Arc<str>, u32>,
    /// By namespace.
    workload_ids: Map<Arc<str>, Map<Workload, WorkloadId>>,
    workloads: WorkloadId,
    /// Which ends have a port of this name, by protocol and number.
    named: Map<Arc<str>, Named>,
}

impl Space {
    /// Where a pod without an address is taken to be.
    pub(super) const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    /// Ends there are, dead ones included.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Identities of a namespace.
    pub(super) fn identities_in(&self, namespace: &str) -> &[IdentityId] {
        self.namespaces.get(namespace).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether identities hold all that a selector asks for.
    pub(super) fn sees(&self, pods: &Selector) -> bool {
        pods.requirements.iter().all(|requirement| self.asked.pod_keys.contains(&requirement.key))
    }

    /// Namespaces that have pods and match. Most selectors name one.
    pub(super) fn namespaces_matching(&self, selector: &Selector, index: &Index) -> Vec<&Arc<str>> {
        let name = selector.requirements.iter().find_map(|requirement| match &requirement.operator {
            Operator::Equals(name) if *requirement.key == *NAMESPACE_NAME_LABEL => Some(name),
            _ => None,
        });
        let is_match = |namespace: &&Arc<str>| selector.matches(&index.namespace_labels(namespace));
        match name {
            Some(name) => self.namespaces.get_key_value(name).map(|(name, _)| name).filter(is_match).into_iter().collect(),
            None => self.namespaces.keys().filter(is_match).collect(),
        }
    }

    pub(super) fn ends_of(&self, identity: IdentityId) -> &[EndId] {
        self.ends_of.get(identity as usize).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn identity(&self, id: IdentityId) -> Option<&Arc<Identity>> {
        self.identities.get(id as usize)
    }

    pub(super) fn end(&self, id: EndId) -> Option<&End> {
        self.ends.get(id as usize)
    }

    /// The ends with a port of this name, by protocol and number.
    pub(super) fn named(&self, name: &str) -> impl Iterator<Item = (Protocol, u16, &[EndId])> {
        self.named.get(name).into_iter().flatten().map(|(&(protocol, number), ends)| (protocol, number, ends.as_slice()))
    }

    pub(super) fn place(&self, ip: IpAddr) -> Option<&Place> {
        self.places.get(&ip)
    }

    /// The range of a class; none for addresses that no policy's range contains.
    pub(super) fn range(&self, class: ClassId) -> Option<IpNet> {
        self.classes.ranges.get(class as usize).copied().flatten()
    }

    /// The class of an address.
    pub(super) fn class_of(&self, ip: IpAddr) -> ClassId {
        self.classes.of(ip)
    }

    /// Whether the addresses of a class are IPv4 addresses.
    pub(super) fn is_ipv4(&self, class: ClassId) -> bool {
        self.range(class).map_or(class == Classes::IPV4, |range| range.addr().is_ipv4())
    }

    /// The end of an address outside of the cluster.
    pub(super) fn external(&self, ip: IpAddr) -> Option<EndId> {
        self.end_ids.get(&(EndWho::External, self.classes.of(ip))).copied()
    }

    /// What policies see of a pod; none of one that holds no address of its own.
    pub(super) fn identity_of(&self, pod: &Pod) -> Option<IdentityId> {
        self.identity_ids.get(&self.project(pod)).copied()
    }

    fn project(&self, pod: &Pod) -> Identity {
        let labels = pod.labels.iter().filter(|(key, _)| self.asked.pod_keys.contains(*key));
        let ports = pod.ports.iter().filter_map(|port| {
            let name = port.name.as_ref().filter(|name| self.asked.port_names.contains(*name))?;
            Some((name.clone(), port.protocol, port.port))
        });
        let mut ports: Vec<NamedPort> = ports.collect();
        ports.sort();
        ports.dedup();
        Identity { namespace: pod.namespace.clone(), labels: labels.map(|(key, value)| (key.clone(), value.clone())).collect(), ports }
    }

    /// Puts a pod at its ends. Returns whether any of them is new.
    pub(super) fn add_pod(&mut self, pod: &Arc<Pod>) -> bool {
        if !holds_addresses(pod) {
            return false;
        }
        let before = self.len();
        let identity = self.intern(self.project(pod));
        let workload = self.workload(pod);
        for class in self.classes_of(pod) {
            let end = self.intern_end(EndWho::Pod(identity), class);
            if let Some(end) = self.ends.get_mut(end as usize) {
                end.pods.push(pod.clone());
                end.workloads.push(workload);
            }
        }
        self.len() > before
    }

    /// Takes a pod from its ends. `pod` is as it was when it was added.
    pub(super) fn remove_pod(&mut self, pod: &Arc<Pod>) {
        let Some(identity) = self.identity_of(pod).filter(|_| holds_addresses(pod)) else { return };
        for end in self.ends_of.get(identity as usize).into_iter().flatten() {
            if let Some(end) = self.ends.get_mut(*end as usize)
                && let Some(at) = end.pods.iter().position(|at| Arc::ptr_eq(at, pod))
            {
                end.pods.swap_remove(at);
                end.workloads.swap_remove(at);
            }
        }
    }

    fn workload(&mut self, pod: &Pod) -> WorkloadId {
        let known = self.workload_ids.entry(pod.namespace.clone()).or_default();
        if let Some(id) = known.get(&pod.workload) {
            return *id;
        }
        self.workloads += 1;
        known.insert(pod.workload.clone(), self.workloads);
        self.workloads
    }

    /// Classes of the pod's addresses. One without any stands where no range speaks of it.
    fn classes_of(&self, pod: &Pod) -> Vec<ClassId> {
        let ips: &[IpAddr] = if pod.ips.is_empty() { &[Space::NO_ADDRESS] } else { &pod.ips };
        let mut classes: Vec<ClassId> = ips.iter().map(|ip| self.classes.of(ip.to_canonical())).collect();
        classes.sort_unstable();
        classes.dedup();
        classes
    }

    /// Works out anew what is at an address. Returns whether that made a new end.
    pub(super) fn refresh(&mut self, ip: IpAddr, index: &Index) -> bool {
        let ip = ip.to_canonical();
        let before = self.len();
        let nodes = index.nodes_at(ip);
        let place = match index.pods_at(ip) {
            [] if !nodes.is_empty() => match nodes {
                [node] if index.services_at(ip).is_empty() => {
                    let end = self.node_end(node, ip);
                    Some(Place::Node { end, node: self.node_number(&node.name) })
                }
                _ => Some(Place::Special),
            },
            [] => (!index.services_at(ip).is_empty()).then_some(Place::Special),
            [pod] if nodes.is_empty() && index.services_at(ip).is_empty() => {
                let identity = self.intern(self.project(pod));
                let end = self.intern_end(EndWho::Pod(identity), self.classes.of(ip));
                let node = pod.node.as_ref().map_or(u32::MAX, |name| self.node_number(name));
                Some(Place::Pod { pod: pod.clone(), identity, end, node })
            }
            _ => Some(Place::Special),
        };
        // Nodes are peers even where their address is special.
        for node in nodes {
            self.node_end(node, ip);
        }
        match place {
            Some(place) => drop(self.places.insert(ip, place)),
            None => drop(self.places.remove(&ip)),
        }
        self.len() > before
    }

    fn node_end(&mut self, node: &Node, ip: IpAddr) -> EndId {
        let (who, class) = self.project_node(node, ip);
        self.intern_end(who, class)
    }

    /// The end of a node under one of its addresses.
    pub(super) fn end_of_node(&self, node: &Node, ip: IpAddr) -> Option<EndId> {
        self.end_ids.get(&self.project_node(node, ip.to_canonical())).copied()
    }

    fn project_node(&self, node: &Node, ip: IpAddr) -> (EndWho, ClassId) {
        let labels = node.labels.iter().filter(|(key, _)| self.asked.node_keys.contains(*key));
        let labels: Labels = labels.map(|(key, value)| (key.clone(), value.clone())).collect();
        (EndWho::Node(Arc::new(labels)), self.classes.of(ip))
    }

    fn node_number(&mut self, name: &Arc<str>) -> u32 {
        let next = u32::try_from(self.node_numbers.len()).unwrap_or(u32::MAX);
        *self.node_numbers.entry(name.clone()).or_insert(next)
    }

    /// Takes note of a range that a policy names. Returns whether it is new: then the addresses in it change their class.
    pub(super) fn add_range(&mut self, range: IpNet) -> bool {
        let Some(class) = self.classes.insert(range) else { return false };
        self.intern_end(EndWho::External, class);
        true
    }

    /// The outside without any range, once per family.
    pub(super) fn begin(&mut self) {
        self.classes = Classes::default();
        for class in [Classes::IPV4, Classes::IPV6] {
            self.intern_end(EndWho::External, class);
        }
    }

    fn intern(&mut self, identity: Identity) -> IdentityId {
        if let Some(id) = self.identity_ids.get(&identity) {
            return *id;
        }
        let id = u32::try_from(self.identities.len()).unwrap_or(u32::MAX);
        let identity = Arc::new(identity);
        self.namespaces.entry(identity.namespace.clone()).or_default().push(id);
        self.identity_ids.insert(identity.clone(), id);
        self.identities.push(identity);
        self.ends_of.push(Vec::new());
        id
    }

    fn intern_end(&mut self, who: EndWho, class: ClassId) -> EndId {
        let key = (who, class);
        if let Some(id) = self.end_ids.get(&key) {
            return *id;
        }
        let id = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
        if let EndWho::Pod(identity) = key.0 {
            if let Some(ends) = self.ends_of.get_mut(identity as usize) {
                ends.push(id);
            }
            for (name, protocol, number) in self.identities.get(identity as usize).into_iter().flat_map(|identity| &identity.ports) {
                self.named.entry(name.clone()).or_default().entry((*protocol, *number)).or_default().push(id);
            }
        }
        self.ends.push(End { who: key.0.clone(), class, pods: Vec::new(), workloads: Vec::new() });
        self.end_ids.insert(key, id);
        id
    }
}

/// Whether the pod is a side of connections under addresses of its own.
pub(super) fn holds_addresses(pod: &Pod) -> bool {
    pod.phase == PodPhase::Active && !pod.host_network
}

/// The ranges that policies name, and which is the longest around an address. Who is in one is in all that contain it.
#[derive(Clone, Debug)]
struct Classes {
    /// By class; the first two stand for addresses in none.
    ranges: Vec<Option<IpNet>>,
    /// By prefix length, longest first.
    ipv4: Vec<(u8, Map<u32, ClassId>)>,
    ipv6: Vec<(u8, Map<u128, ClassId>)>,
}

impl Default for Classes {
    fn default() -> Self {
        Classes { ranges: vec![None, None], ipv4: Vec::new(), ipv6: Vec::new() }
    }
}

impl Classes {
    const IPV4: ClassId = 0;
    const IPV6: ClassId = 1;

    fn of(&self, ip: IpAddr) -> ClassId {
        match ip {
            IpAddr::V4(ip) => {
                let bits = ip.to_bits();
                let found = self.ipv4.iter().find_map(|(length, ranges)| ranges.get(&first_v4(bits, *length)));
                found.copied().unwrap_or(Classes::IPV4)
            }
            IpAddr::V6(ip) => {
                let bits = ip.to_bits();
                let found = self.ipv6.iter().find_map(|(length, ranges)| ranges.get(&first_v6(bits, *length)));
                found.copied().unwrap_or(Classes::IPV6)
            }
        }
    }

    /// The class of a range that is new.
    fn insert(&mut self, range: IpNet) -> Option<ClassId> {
        let class = u32::try_from(self.ranges.len()).unwrap_or(u32::MAX);
        let range = range.trunc();
        let is_new = match range {
            IpNet::V4(net) => add(&mut self.ipv4, net.prefix_len(), Ipv4Addr::to_bits(net.network()), class),
            IpNet::V6(net) => add(&mut self.ipv6, net.prefix_len(), Ipv6Addr::to_bits(net.network()), class),
        };
        is_new.then(|| {
            self.ranges.push(Some(range));
            class
        })
    }
}

fn add<T: std::hash::Hash + Eq>(by_length: &mut Vec<(u8, Map<T, ClassId>)>, length: u8, first: T, class: ClassId) -> bool {
    let at = by_length.partition_point(|(other, _)| *other > length);
    if by_length.get(at).is_none_or(|(other, _)| *other != length) {
        by_length.insert(at, (length, Map::default()));
    }
    let Some((_, ranges)) = by_length.get_mut(at) else { return false };
    let is_new = !ranges.contains_key(&first);
    ranges.entry(first).or_insert(class);
    is_new
}

fn first_v4(bits: u32, length: u8) -> u32 {
    bits & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

fn first_v6(bits: u128, length: u8) -> u128 {
    bits & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}
