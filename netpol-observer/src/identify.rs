//! Addresses of a drop → who they are.
//!
//! Reads the [`Index`](crate::cluster::Index), decides nothing about policies.
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::cluster::{Index, Node, Pod, Service};
use crate::flow::{DropEvent, Hook, Protocol, Tunnel};

/// One side of a connection.
#[derive(Clone, Debug)]
pub struct Party {
    /// The address that was on the packet, or that a person asked about.
    pub ip: IpAddr,
    /// Who has it.
    pub identity: Identity,
}

/// Who an address belongs to.
#[derive(Clone, Debug)]
pub enum Identity {
    /// Exactly one running pod with its own network.
    Pod(Arc<Pod>),
    /// Several pods claim the address, and nothing on the packet tells which.
    AmbiguousPods(Vec<Arc<Pod>>),
    /// A node. Host-network pods are seen as this too: policies see their node's address.
    Node(Arc<Node>),
    /// A Service's virtual address: the packet was dropped before translation.
    Service(Arc<Service>),
    /// Inside a node's pod range, but no pod is known to own it.
    UnownedPodAddress,
    /// Loopback, link-local, multicast or broadcast: nothing a policy speaks of, save that calls to IPv4 link-local addresses
    /// (cloud metadata, node-local DNS) are judged like calls to the outside, since `ipBlock`s name them.
    Special,
    /// Anything else: outside the cluster as far as the objects tell.
    External,
    /// Known, and withheld: the reader may not read the namespace it is in. Nothing here gives it; the agent puts it in for tenants.
    NotShown,
}

/// What the caller dialled, when that was a Service.
#[derive(Clone, Debug)]
pub struct ServiceCall {
    /// The Service.
    pub service: Arc<Service>,
    /// The address dialled.
    pub ip: IpAddr,
    /// The port dialled, where the protocol has ports.
    pub port: Option<u16>,
    /// Name of the Service port it is, if the Service has such a port and it is named.
    pub port_name: Option<Arc<str>>,
    /// Ready backends of that port: address and target port. Empty means the Service has no endpoint to offer.
    pub backends: Vec<(IpAddr, u16)>,
}

/// By which of its addresses a Service was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceAddress {
    /// `spec.clusterIPs`
    Cluster,
    /// `spec.externalIPs`
    External,
    /// `status.loadBalancer.ingress[].ip`
    LoadBalancer,
    /// An address of a node, by a node port.
    NodePort,
}

impl ServiceCall {
    /// By which of its addresses it was called.
    pub fn by(&self) -> ServiceAddress {
        let has = |ips: &[IpAddr]| ips.iter().any(|own| own.to_canonical() == self.ip);
        let service = &self.service;
        if has(&service.cluster_ips) {
            ServiceAddress::Cluster
        } else if has(&service.load_balancer_ips) {
            ServiceAddress::LoadBalancer
        } else if has(&service.external_ips) {
            ServiceAddress::External
        } else {
            ServiceAddress::NodePort
        }
    }
}

/// Both ends of a drop.
#[derive(Clone, Debug)]
pub struct Who {
    /// The side that opened the connection (for a dropped reply: the side the reply was meant for).
    pub client: Party,
    /// The side that was called, after translation where that is known.
    pub server: Party,
    /// The Service the client called, when it called one.
    pub service: Option<ServiceCall>,
    /// Where the server is a node: the pods in its network that declare the port called. One of them may have been meant. Just one if
    /// the socket tells.
    pub host_network: Vec<Arc<Pod>>,
    /// Where the client is a node: the pods in its network that may have called. Just one if the socket tells; otherwise, judged as of a
    /// moment, all.
    pub callers: Vec<Arc<Pod>>,
    /// The ends of the tunnel that the packet was dropped in.
    pub tunnel: Option<TunnelEnds>,
    /// The pod whose network namespace is at the other end of the device the packet was on, whatever its addresses say.
    pub behind: Option<Arc<Pod>>,
}

/// Between whom a tunnel is: nodes, as a rule.
#[derive(Clone, Debug)]
pub struct TunnelEnds {
    /// Who sent the tunnel's packet.
    pub source: Party,
    /// To whom.
    pub destination: Party,
}

impl Identity {
    /// The pod, when it is exactly one with its own network.
    pub fn pod(&self) -> Option<&Arc<Pod>> {
        match self {
            Identity::Pod(pod) => Some(pod),
            _ => None,
        }
    }
}

/// `shop/web`, `node node-1`, `Service shop/api`, or the address of what has no name.
impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.identity {
            Identity::Pod(pod) => write!(f, "{}/{}", pod.namespace, pod.name),
            Identity::Node(node) => write!(f, "node {}", node.name),
            Identity::Service(service) => write!(f, "Service {}/{}", service.namespace, service.name),
            Identity::AmbiguousPods(_) | Identity::UnownedPodAddress | Identity::Special | Identity::External | Identity::NotShown => {
                write!(f, "{}", self.ip)
            }
        }
    }
}

/// Who has an address, and which pod has a uid, as far as it is known: what [`identify`] asks. An [`Index`] answers by its objects; of a
/// moment there is more to know.
pub trait Known {
    /// The objects.
    fn index(&self) -> &Index;

    /// Who has an address.
    fn party(&self, ip: IpAddr) -> Party {
        party(ip, self.index())
    }

    /// Whether all pods in a node's network are named when the node calls and nothing tells which of them it was.
    fn names_callers(&self) -> bool {
        false
    }

    /// The pod with a uid.
    fn pod(&self, uid: &str) -> Option<Arc<Pod>> {
        self.index().pods().find(|pod| *pod.uid == *uid).cloned()
    }
}

impl Known for Index {
    fn index(&self) -> &Index {
        self
    }
}

/// Who has an address. What an object claims goes before what the address looks like; an IPv4-mapped address is taken as IPv4.
pub fn party(ip: IpAddr, index: &Index) -> Party {
    let ip = ip.to_canonical();
    let identity = match index.pods_at(ip) {
        [pod] => Identity::Pod(pod.clone()),
        [] => match (index.node_at(ip), index.service_at(ip)) {
            // Some load balancers hand out the addresses of nodes.
            (Some(node), _) => Identity::Node(node.clone()),
            (None, Some(service)) => Identity::Service(service.clone()),
            (None, None) if is_special(ip) => Identity::Special,
            (None, None) if index.in_pod_range(ip) => Identity::UnownedPodAddress,
            (None, None) => Identity::External,
        },
        several => Identity::AmbiguousPods(several.to_vec()),
    };
    Party { ip, identity }
}

/// Who called whom, and which Service they meant.
///
/// The packet of a reply travels from server to client. Where the kernel tracked the connection, its original tuple tells the client's
/// own address (the packet may already carry the one it is masqueraded as) and what the client dialled (the packet may already carry
/// the backend's). A packet still addressed to a Service was dropped before translation: its server is the backend if there is one
/// only, and otherwise the Service.
pub fn identify(event: &DropEvent, known: &impl Known) -> Who {
    let (flow, index) = (&event.flow, known.index());
    let (source, destination) = ((flow.source.to_canonical(), flow.source_port), (flow.destination.to_canonical(), flow.destination_port));
    let (client, server) = if event.is_reply() { (destination, source) } else { (source, destination) };
    // An ICMP error carries the entry of the connection it is about, whose addresses are not its own.
    let original = event.conntrack.as_ref().map(|conntrack| &conntrack.original).filter(|original| original.protocol == flow.protocol);

    let (client_ip, dialled) = match original {
        Some(tuple) => (tuple.source.to_canonical(), (tuple.destination.to_canonical(), tuple.destination_port)),
        None => (client.0, server),
    };
    let party = |ip| local_party(ip, event, known);
    let service = service_call(dialled, flow.protocol, index);
    let server = match &service {
        Some(call) if call.ip == server.0 => match call.backends.as_slice() {
            [(backend, _)] => party(*backend),
            _ => Party { ip: call.ip, identity: Identity::Service(call.service.clone()) },
        },
        _ => party(server.0),
    };
    let client = party(client_ip);
    let behind = event.peer.as_ref().and_then(|peer| pod_with(peer.pod_uid.as_deref()?, [&client, &server], known));
    let tunnel = event.tunnel.as_ref().map(|tunnel| tunnel_ends(tunnel, index));
    let port = if event.is_reply() { flow.source_port } else { flow.destination_port };
    let [caller, called] = pods_of_socket(event, known);
    let host_network = match called {
        Some(pod) if is_in_network_of(&pod, &server) => vec![pod],
        _ => host_network(&server, port, flow.protocol, index),
    };
    let callers = match (caller, &client.identity) {
        (Some(pod), _) if is_in_network_of(&pod, &client) => vec![pod],
        (_, Identity::Node(_)) if known.names_callers() => index.host_network_pods_at(client.ip).to_vec(),
        _ => Vec::new(),
    };
    Who { client, server, service, host_network, callers, tunnel, behind }
}

/// The pod whose socket sent or would have received the packet, as the client's or the server's.
fn pods_of_socket(event: &DropEvent, known: &impl Known) -> [Option<Arc<Pod>>; 2] {
    let uid = event.socket.as_ref().and_then(|socket| socket.pod_uid.as_deref());
    let Some(pod) = uid.and_then(|uid| known.pod(uid)) else { return [None, None] };
    let sent = event.outgoing || event.hook == Some(Hook::Output);
    if sent != event.is_reply() { [Some(pod), None] } else { [None, Some(pod)] }
}

/// Whether a pod is in the network of the node that an end is.
fn is_in_network_of(pod: &Pod, end: &Party) -> bool {
    pod.host_network && matches!(&end.identity, Identity::Node(node) if pod.node.as_ref() == Some(&node.name))
}

/// As [`party`], with what the hook tells besides: what a machine receives for itself, or sends itself, has an address of that machine.
///
/// The bridge of a node (`bridge` plugin, flannel) has the first address of the node's pod range, and the node calls its pods from there, the
/// kubelet's probes included. No object says so; but where no pod has that address, and the packet was the machine's own, it is the node.
fn local_party(ip: IpAddr, event: &DropEvent, known: &impl Known) -> Party {
    let local = match event.hook {
        Some(Hook::Input) => Some(event.flow.destination),
        Some(Hook::Output) => Some(event.flow.source),
        _ => None,
    };
    let mut party = known.party(ip);
    if matches!(party.identity, Identity::UnownedPodAddress)
        && local.map(|local| local.to_canonical()) == Some(party.ip)
        && let Some(node) = known.index().nodes().find(|node| node.pod_cidrs.iter().any(|range| is_first(party.ip, range)))
    {
        party.identity = Identity::Node(node.clone());
    }
    party
}

/// Whether it is the address behind that of the network.
fn is_first(ip: IpAddr, range: &IpNet) -> bool {
    match (ip, range) {
        (IpAddr::V4(ip), IpNet::V4(range)) => u32::from(ip).checked_sub(u32::from(range.network())) == Some(1),
        (IpAddr::V6(ip), IpNet::V6(range)) => u128::from(ip).checked_sub(u128::from(range.network())) == Some(1),
        _ => false,
    }
}

fn host_network(server: &Party, port: Option<u16>, protocol: Protocol, index: &Index) -> Vec<Arc<Pod>> {
    if !matches!(server.identity, Identity::Node(_)) {
        return Vec::new();
    }
    let declares = |pod: &&Arc<Pod>| pod.ports.iter().any(|declared| (Some(declared.port), declared.protocol) == (port, protocol));
    index.host_network_pods_at(server.ip).iter().filter(declares).cloned().collect()
}

/// The drop of the connection that policies speak of. A tunnel between nodes carries the connections of their pods. One that a pod has built
/// for itself is a connection of that pod, whatever is inside: policies judge its outside.
pub fn settle_tunnel(event: DropEvent, index: &Index) -> DropEvent {
    let of_pods = event.tunnel.as_ref().is_some_and(|tunnel| {
        let ends = tunnel_ends(tunnel, index);
        [ends.source, ends.destination]
            .iter()
            .any(|end| matches!(end.identity, Identity::Pod(_) | Identity::AmbiguousPods(_) | Identity::Service(_)))
    });
    if of_pods { event.outside() } else { event }
}

fn tunnel_ends(tunnel: &Tunnel, index: &Index) -> TunnelEnds {
    TunnelEnds { source: party(tunnel.outer.source, index), destination: party(tunnel.outer.destination, index) }
}

/// The pod with this uid; as a rule one of the two ends.
fn pod_with(uid: &str, ends: [&Party; 2], known: &impl Known) -> Option<Arc<Pod>> {
    let is_it = |pod: &&Arc<Pod>| *pod.uid == *uid;
    ends.into_iter().filter_map(|end| end.identity.pod()).find(is_it).cloned().or_else(|| known.pod(uid))
}

/// The Service that has this address and port, or whose node port it is.
pub fn service_call((ip, port): (IpAddr, Option<u16>), protocol: Protocol, index: &Index) -> Option<ServiceCall> {
    let ip = ip.to_canonical();
    let sharing = index.services_at(ip);
    let (service, at) = sharing
        .iter()
        .find_map(|service| Some((service, Some(service_port(service, port, protocol)?))))
        .or_else(|| {
            index.node_at(ip)?;
            index.node_port(port?, protocol).map(|(service, at)| (service, Some(at)))
        })
        // A port that the Service does not have; but where a node or a pod has the address too, the call may be for those.
        .or_else(|| {
            let is_virtual = index.node_at(ip).is_none() && index.pods_at(ip).is_empty();
            sharing.first().filter(|_| is_virtual).map(|service| (service, None))
        })?;
    let service_port = at.and_then(|at| service.ports.get(at));
    let backends = service_port.map(|port| index.backends(service, port)).unwrap_or_default();
    Some(ServiceCall {
        service: service.clone(),
        ip,
        port,
        port_name: service_port.and_then(|port| port.name.clone()),
        // Translation does not change the family.
        backends: backends.into_iter().filter(|(backend, _)| backend.is_ipv4() == ip.is_ipv4()).collect(),
    })
}

/// Index of the Service port dialled. A packet that shows no port (a later fragment) can only have meant the single one there is.
fn service_port(service: &Service, port: Option<u16>, protocol: Protocol) -> Option<usize> {
    let mut candidates = service.ports.iter().enumerate().filter(|(_, candidate)| candidate.protocol == protocol);
    match port {
        Some(port) => candidates.find(|(_, candidate)| candidate.port == port).map(|(at, _)| at),
        None => candidates.next().map(|(at, _)| at).filter(|_| candidates.next().is_none()),
    }
}

/// Loopback, link-local, multicast, broadcast, unspecified.
pub(crate) fn is_special(ip: IpAddr) -> bool {
    let of_family = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    of_family || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified()
}
