//! What the ends of a connection, its route and its fate are called.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::cluster::{Direction, Pod};
use crate::diagnose::Class;
use crate::flow::Tunnel;
use crate::identify::{Identity, Party, TunnelEnds};
use crate::serve::Route;

/// `DENIED` and `ingress`, `DROPPED` and `host firewall`, …
pub fn heading(class: &Class) -> (&'static str, String) {
    match class {
        Class::PolicyDenied(denying) => ("DENIED", directions(denying)),
        Class::DroppedReply => ("DROPPED", "reply".to_owned()),
        Class::PolicyChanged => ("DROPPED", "policy changed".to_owned()),
        Class::HostFirewall => ("DROPPED", "host firewall".to_owned()),
        Class::NoListener => ("REFUSED", "no listener".to_owned()),
        Class::ServiceWithoutEndpoints => ("DROPPED", "no endpoints".to_owned()),
        Class::NoRoute => ("DROPPED", "no route".to_owned()),
        Class::ReversePathFilter => ("DROPPED", "reverse-path filter".to_owned()),
        Class::ConnectionState => ("DROPPED", "connection state".to_owned()),
        Class::Noise => ("DROPPED", "noise".to_owned()),
        Class::Undecided => ("DROPPED", "undecided".to_owned()),
    }
}

/// `egress+ingress`
pub fn directions(directions: &[Direction]) -> String {
    let mut sorted: Vec<_> = directions.to_vec();
    sorted.sort_unstable();
    sorted.iter().map(Direction::to_string).collect::<Vec<_>>().join("+")
}

/// `shop/web-7d9f`, `node node-2`, `Service shop/api`, or the address with what is known of it.
pub fn party(party: &Party) -> String {
    let ip = party.ip;
    match &party.identity {
        Identity::Pod(pod) => format!("{}/{}", pod.namespace, pod.name),
        Identity::AmbiguousPods(pods) => format!("{ip} ({} pods claim it)", pods.len()),
        Identity::Node(node) => format!("node {}", node.name),
        Identity::Service(service) => format!("Service {}/{}", service.namespace, service.name),
        Identity::UnownedPodAddress => format!("{ip} (pod not known)"),
        Identity::NotShown => format!("{ip} (not shown to you)"),
        Identity::Special | Identity::External => ip.to_string(),
    }
}

/// `shop/web-7d9f → shop/api-5c4b:8080/TCP`
pub fn route(route: &Route) -> String {
    let client = party(&route.client);
    let server = party(&route.server);
    let protocol = route.protocol;
    let bare_address = matches!(route.server.identity, Identity::Special | Identity::External);
    match (route.port, route.icmp) {
        (Some(port), _) if bare_address && route.server.ip.is_ipv6() => format!("{client} → [{server}]:{port}/{protocol}"),
        (Some(port), _)
            if matches!(route.server.identity, Identity::AmbiguousPods(_) | Identity::UnownedPodAddress | Identity::NotShown) =>
        {
            format!("{client} → {server} port {port}/{protocol}")
        }
        (Some(port), _) => format!("{client} → {server}:{port}/{protocol}"),
        (None, Some(icmp)) => format!("{client} → {server} {protocol} type {} code {}", icmp.kind, icmp.code),
        (None, None) if route.fragment => format!("{client} → {server} {protocol} fragment without ports"),
        (None, None) => format!("{client} → {server} {protocol}"),
    }
}

/// `Service shop/api:80`, when the server itself is not that Service.
pub fn dialled(route: &Route) -> Option<String> {
    let dialled = route.service.as_ref()?;
    if matches!(route.server.identity, Identity::Service(_)) {
        return None;
    }
    let (namespace, name) = (&dialled.service.namespace, &dialled.service.name);
    let by = if dialled.by_load_balancer { " by its load balancer" } else { "" };
    Some(match dialled.port {
        Some(port) => format!("Service {namespace}/{name}:{port}{by}"),
        None => format!("Service {namespace}/{name}{by}"),
    })
}

/// `VXLAN 1 (8472/UDP) from node node-1 to node node-2`
pub(super) fn tunnel(tunnel: &Tunnel, ends: &TunnelEnds) -> String {
    let mut words = tunnel.kind.to_string();
    // Writing to a String does not fail.
    if let Some(vni) = tunnel.vni {
        _ = write!(words, " {vni}");
    }
    if let Some(port) = tunnel.outer.destination_port {
        _ = write!(words, " ({port}/{})", tunnel.outer.protocol);
    }
    _ = write!(words, " from {} to {}", party(&ends.source), party(&ends.destination));
    words
}

/// `monitoring/exporter-7x declares that port in the network of node node-1`
pub(super) fn host_network(pods: &[Arc<Pod>], node: &Party) -> String {
    let names: Vec<String> = pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
    let declare = if pods.len() == 1 { "declares" } else { "declare" };
    format!("{} {declare} that port in the network of {}", names.join(", "), party(node))
}

/// Callers from a node's network that are named; of more it is said how many.
const CALLERS_SHOWN: usize = 5;

/// `kube-system/proxy-x in the network of node node-1 called`
pub(super) fn callers(pods: &[Arc<Pod>], node: &Party) -> String {
    let names: Vec<String> = pods.iter().take(CALLERS_SHOWN).map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
    let more = super::explanation::more(pods.len().saturating_sub(CALLERS_SHOWN));
    let (names, node) = (names.join(", "), party(node));
    match pods {
        [_] => format!("{names} in the network of {node} called"),
        _ => format!("{node} called, or one of the pods in its network: {names}{more}"),
    }
}
