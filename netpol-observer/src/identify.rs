//! Addresses of a drop → who they are.
//!
//! Reads the [`Index`](crate::cluster::Index), decides nothing about policies.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::{Node, Pod, Service};

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
    /// Loopback, link-local, multicast or broadcast: nothing a policy speaks of.
    Special,
    /// Anything else: outside the cluster as far as the objects tell.
    External,
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

/// Both ends of a drop.
#[derive(Clone, Debug)]
pub struct Who {
    /// The side that opened the connection (for a dropped reply: the side the reply was meant for).
    pub client: Party,
    /// The side that was called, after translation where that is known.
    pub server: Party,
    /// The Service the client called, when it called one.
    pub service: Option<ServiceCall>,
}
