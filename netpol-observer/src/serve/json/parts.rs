//! The objects inside a line.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::cluster::{Labels, Pod, Workload};
use crate::diagnose::Denial;
use crate::flow::{Conntrack, Hook, HookFunction, Interface, Protocol, Reason, Socket, TunnelKind, Tuple};
use crate::identify::{Identity, Party, ServiceAddress, Who};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PartyObject<'a> {
    ip: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<&'a Workload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a Labels>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidates: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceObject<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backends: Option<Vec<BackendObject>>,
}

#[derive(Serialize)]
pub(super) struct BackendObject {
    ip: IpAddr,
    port: u16,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KernelObject<'a> {
    reason: &'a Reason,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<LocationObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<Hook>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    filters: &'a [HookFunction],
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<&'a Interface>,
    #[serde(skip_serializing_if = "Option::is_none")]
    other_end: Option<OtherEndObject<'a>>,
    outgoing: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    packet_length: u32,
    folded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<&'a Socket>,
}

/// `peer` is what conditions of rules have.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OtherEndObject<'a> {
    netns: u32,
    index: u32,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
}

/// The function where the kernel's symbols name it, otherwise the address; not both, for the address of a known function
/// would tell where the kernel lies in memory.
#[derive(Serialize)]
#[serde(rename_all = "camelCase", untagged)]
pub(super) enum LocationObject<'a> {
    Symbol { symbol: &'a str, offset: u64 },
    Address { address: String },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConntrackObject<'a> {
    original: &'a Tuple,
    reply: bool,
    seen_reply: bool,
}

#[derive(Serialize)]
pub(super) struct TunnelObject<'a> {
    kind: TunnelKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    vni: Option<u32>,
    protocol: Protocol,
    source: PartyObject<'a>,
    destination: PartyObject<'a>,
}

impl<'a> PartyObject<'a> {
    pub(super) fn of(party: &'a Party, port: Option<u16>) -> Self {
        let anonymous =
            |kind| PartyObject { ip: party.ip, port, kind, namespace: None, name: None, workload: None, labels: None, candidates: None };
        match &party.identity {
            Identity::Pod(pod) => PartyObject {
                namespace: Some(&pod.namespace),
                name: Some(&pod.name),
                workload: Some(&pod.workload),
                labels: Some(&pod.labels),
                ..anonymous("pod")
            },
            Identity::AmbiguousPods(pods) => PartyObject {
                candidates: Some(pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect()),
                ..anonymous("ambiguousPods")
            },
            Identity::Node(node) => PartyObject { name: Some(&node.name), labels: Some(&node.labels), ..anonymous("node") },
            Identity::Service(service) => {
                PartyObject { namespace: Some(&service.namespace), name: Some(&service.name), ..anonymous("service") }
            }
            Identity::UnownedPodAddress => anonymous("unownedPodAddress"),
            Identity::Special => anonymous("special"),
            Identity::External => anonymous("external"),
            Identity::NotShown => anonymous("notShown"),
        }
    }
}

impl PartyObject<'_> {
    /// A node, with the pods in its network that may be meant.
    pub(super) fn running(mut self, pods: &[Arc<Pod>]) -> Self {
        if !pods.is_empty() {
            self.candidates = Some(pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect());
        }
        self
    }
}

pub(super) fn service(who: &Who) -> Option<ServiceObject<'_>> {
    who.service.as_ref().map(|call| ServiceObject {
        namespace: &call.service.namespace,
        name: &call.service.name,
        ip: Some(call.ip),
        port: call.port,
        by: match call.by() {
            ServiceAddress::LoadBalancer => Some("loadBalancer"),
            // As it always was: by the address alone.
            ServiceAddress::Cluster | ServiceAddress::External | ServiceAddress::NodePort => None,
        },
        port_name: call.port_name.as_deref(),
        backends: Some(call.backends.iter().map(|(ip, port)| BackendObject { ip: *ip, port: *port }).collect()),
    })
}

pub(super) fn kernel<'a>(denial: &'a Denial, node: Option<&'a str>) -> KernelObject<'a> {
    let event = &denial.event;
    let pod = denial.who.behind.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name));
    let other_end = event.peer.as_ref().map(|peer| OtherEndObject {
        netns: peer.netns,
        index: peer.index,
        name: &peer.name,
        pod_uid: peer.pod_uid.as_deref(),
        pod,
    });
    let location = match &event.location.symbol {
        Some(symbol) => Some(LocationObject::Symbol { symbol: &symbol.name, offset: symbol.offset }),
        None if event.location.address != 0 => Some(LocationObject::Address { address: format!("{:#x}", event.location.address) }),
        None => None,
    };
    KernelObject {
        reason: &event.reason,
        location,
        hook: event.hook,
        filters: &event.filters,
        interface: event.interface.as_ref(),
        other_end,
        outgoing: event.outgoing,
        netns: event.netns,
        node,
        packet_length: event.packet_len,
        folded: event.folded,
        socket: event.socket.as_ref(),
    }
}

pub(super) fn conntrack(conntrack: &Conntrack) -> ConntrackObject<'_> {
    ConntrackObject { original: &conntrack.original, reply: conntrack.reply, seen_reply: conntrack.seen_reply }
}

pub(super) fn tunnel(denial: &Denial) -> Option<TunnelObject<'_>> {
    let (tunnel, ends) = (denial.event.tunnel.as_ref()?, denial.who.tunnel.as_ref()?);
    Some(TunnelObject {
        kind: tunnel.kind,
        vni: tunnel.vni,
        protocol: tunnel.outer.protocol,
        source: PartyObject::of(&ends.source, tunnel.outer.source_port),
        destination: PartyObject::of(&ends.destination, tunnel.outer.destination_port),
    })
}
