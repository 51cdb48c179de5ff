//! What the engine is asked, and how it decides what the API leaves open.

use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::{Direction, Index, Node, Pod};
use crate::flow::Protocol;
use crate::identify::{Identity, Party, ServiceCall, party, service_call};

/// A new connection: would it be admitted?
#[derive(Clone, Debug)]
pub struct Connection {
    /// Who opens it.
    pub source: Party,
    /// Who is called, after translation. May be a Service's address when the packet was dropped before it was translated.
    pub destination: Party,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Destination port after translation; absent for protocols without ports and for later fragments.
    pub port: Option<u16>,
    /// The Service that was called, if one was.
    pub service: Option<ServiceCall>,
}

impl Connection {
    /// A connection as somebody would open it: a Service's address is taken as a call to that Service.
    pub fn between(source: IpAddr, destination: IpAddr, protocol: Protocol, port: Option<u16>, index: &Index) -> Self {
        let service = service_call((destination, port), protocol, index);
        let called = match &service {
            Some(call) => Party { ip: call.ip, identity: Identity::Service(call.service.clone()) },
            None => party(destination, index),
        };
        Connection { source: party(source, index), destination: called, protocol, port, service }
    }
}

/// Switches for behaviour that the API leaves to implementations. The default is what upstream's own tests expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Whether an `ipBlock` matches the addresses of pods. Upstream's tests and most implementations say yes; Cilium says no.
    pub ip_block_matches_pods: bool,
    /// What holds where policies of one tier and the same priority decide differently.
    pub tied_priorities: TiedPriorities,
    /// What isolation means for protocols that the API does not speak of, such as ICMP.
    pub other_protocols: OtherProtocols,
    /// Which directions of a pod that NetworkPolicies isolate the Baseline tier still speaks of.
    pub baseline: BaselineScope,
}

/// Policies of one tier and the same priority: the API says that the behaviour is undefined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TiedPriorities {
    /// Where they decide differently, nobody can tell what holds.
    #[default]
    Undecided,
    /// The first by name goes first, as kube-network-policies and others sort them.
    ByName,
}

/// Protocols other than TCP, UDP and SCTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OtherProtocols {
    /// Isolation that would deny them leaves it open: implementations differ.
    #[default]
    Undecided,
    /// Denied like the others.
    Denied,
    /// Always admitted.
    Admitted,
}

/// Where the Baseline tier ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BaselineScope {
    /// A direction that NetworkPolicies isolate gets its final answer there; the other direction is still the Baseline tier's.
    #[default]
    PerDirection,
    /// A pod that NetworkPolicies isolate in any direction is not the Baseline tier's at all.
    PerPod,
}

impl Default for Profile {
    fn default() -> Self {
        Profile {
            ip_block_matches_pods: true,
            tied_priorities: TiedPriorities::default(),
            other_protocols: OtherProtocols::default(),
            baseline: BaselineScope::default(),
        }
    }
}

/// One side of a connection as rules see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'a> {
    pub(super) ip: IpAddr,
    pub(super) who: Who<'a>,
}

/// What selectors can make of a side.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who<'a> {
    /// A pod with a network of its own.
    Pod(&'a Pod),
    /// A node, or a pod in its network; which one, where more tells it than the address.
    Node(Option<&'a Node>),
    /// A pod's address without a known owner.
    Unowned,
    /// Multicast, loopback and the like.
    Special,
    /// Outside the cluster.
    External,
}

impl<'a> End<'a> {
    /// All that `party` may be: one, or several where the address has several owners. A Service is none; see `explain`.
    pub(super) fn candidates(party: &'a Party) -> impl Iterator<Item = End<'a>> {
        let ip = party.ip.to_canonical();
        let (pods, other): (&'a [Arc<Pod>], Option<Who<'a>>) = match &party.identity {
            Identity::Pod(pod) => (std::slice::from_ref(pod), None),
            Identity::AmbiguousPods(pods) => (pods, None),
            Identity::Node(node) => (&[], Some(Who::Node(Some(node)))),
            Identity::UnownedPodAddress | Identity::NotShown => (&[], Some(Who::Unowned)),
            Identity::Special => (&[], Some(Who::Special)),
            Identity::Service(_) | Identity::External => (&[], Some(Who::External)),
        };
        pods.iter().map(|pod| Who::of(pod)).chain(other).map(move |who| End { ip, who })
    }

    /// Whether no policy speaks of calls to this address. IPv4 link-local addresses are called like any other: cloud metadata
    /// and node-local DNS live there, and `ipBlock`s name them.
    pub(super) fn is_beyond_policies(&self) -> bool {
        let is_called = matches!(self.ip, IpAddr::V4(ip) if ip.is_link_local());
        matches!(self.who, Who::Special) && !is_called
    }

    /// Whether it is the node that the pod runs on, by its addresses or because it is known to be that node.
    fn is_node_of(&self, pod: &Pod, index: &Index) -> bool {
        let Some(node) = pod.node.as_deref().and_then(|name| index.node(name)) else { return false };
        let is_it = matches!(self.who, Who::Node(Some(known)) if known.name == node.name);
        is_it || node.addresses.contains(&self.ip)
    }

    pub(super) fn pod(&self) -> Option<&'a Pod> {
        match self.who {
            Who::Pod(pod) => Some(pod),
            _ => None,
        }
    }
}

impl<'a> Who<'a> {
    fn of(pod: &'a Pod) -> Self {
        if pod.host_network { Who::Node(None) } else { Who::Pod(pod) }
    }
}

/// A connection between two definite sides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case<'a> {
    pub(super) source: End<'a>,
    pub(super) destination: End<'a>,
    pub(super) protocol: Protocol,
    pub(super) port: Option<u16>,
    /// A Service was called, whose translation led to this destination.
    pub(super) by_service: bool,
}

impl<'a> Case<'a> {
    /// All that a connection to `destination` may be: one, or several where an address has several owners.
    pub(super) fn all(connection: &'a Connection, destination: &'a Party, port: Option<u16>) -> impl Iterator<Item = Case<'a>> {
        let (protocol, by_service) = (connection.protocol, connection.service.is_some());
        End::candidates(&connection.source).flat_map(move |source| {
            End::candidates(destination).map(move |destination| Case { source, destination, protocol, port, by_service })
        })
    }

    /// The side whose policies a direction speaks of, and the other one.
    pub(super) fn sides(&self, direction: Direction) -> (End<'a>, End<'a>) {
        match direction {
            Direction::Egress => (self.source, self.destination),
            Direction::Ingress => (self.destination, self.source),
        }
    }

    /// Whether the source is the node that the destination runs on: its kubelet must reach it.
    pub(super) fn comes_from_own_node(&self, index: &Index) -> bool {
        self.destination.pod().is_some_and(|pod| self.source.is_node_of(pod, index))
    }

    /// Whether the destination is the node that the source runs on.
    pub(super) fn reaches_own_node(&self, index: &Index) -> bool {
        self.source.pod().is_some_and(|pod| self.destination.is_node_of(pod, index))
    }

    /// Whether both sides are the same pod.
    pub(super) fn is_loop(&self) -> bool {
        match (self.source.pod(), self.destination.pod()) {
            (Some(source), Some(destination)) => (&source.namespace, &source.name) == (&destination.namespace, &destination.name),
            _ => false,
        }
    }
}
