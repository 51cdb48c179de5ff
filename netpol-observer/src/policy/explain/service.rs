//! Calls to a Service that were not translated yet: every endpoint is judged, one is explained, and what else keeps a Service from
//! answering is said.

use std::sync::Arc;

use crate::cluster::{Direction, Service};
use crate::flow::Protocol;
use crate::identify::{Party, ServiceAddress, ServiceCall, party};

use super::{agreed, to_party, undecided};
use crate::policy::connection::{Case, Connection};
use crate::policy::evaluate::walk::Outcome;
use crate::policy::evaluate::{Changed, View};
use crate::policy::explanation::{Explanation, Manifest, Remaining, Verdict};
use crate::policy::fix::Kept;

/// Name and namespace of the Service that nearly every cluster has its DNS behind, whatever serves it.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");
const DNS_PORT: u16 = 53;

/// Endpoints of a Service that a note names; of more it gives the number only.
const NAMED_ENDPOINTS: usize = 5;

/// Endpoints that are still denied after the fixes and are listed; of more it is said how many.
const LISTED_ENDPOINTS: usize = 20;

/// Explains a call to a Service's address.
pub(in crate::policy) fn explain(view: &View<'_>, kept: &Kept, connection: &Connection, called: &Arc<Service>) -> Explanation {
    match &connection.service {
        Some(call) if !call.backends.is_empty() => over_backends(view, kept, connection, call),
        _ => nothing_behind(connection, &service_name(called)),
    }
}

/// Adds what is to be said of the Service that was called, whether the packet was translated or not.
pub(in crate::policy) fn complete(view: &View<'_>, connection: &Connection, call: &ServiceCall, explanation: &mut Explanation) {
    if call.backends.is_empty() {
        let service = service_name(&call.service);
        let already = |remaining: &Remaining| matches!(remaining, Remaining::ServiceWithoutEndpoints { .. });
        if !explanation.remaining.iter().any(already) {
            explanation.remaining.push(Remaining::ServiceWithoutEndpoints { service });
        }
    }
    let by = match call.by() {
        ServiceAddress::External => Some("external address"),
        ServiceAddress::LoadBalancer => Some("load balancer's address"),
        ServiceAddress::Cluster | ServiceAddress::NodePort => None,
    };
    if let Some(by) = by {
        explanation
            .notes
            .push(format!("called by the {by} {}: source possibly rewritten on the way, and then policies see a node's address", call.ip));
    }
    explanation.remaining.extend(dns_denied(view, connection));
}

/// A call to a Service that was not translated yet: it may go to any backend. All are judged, one is explained.
fn over_backends(view: &View<'_>, kept: &Kept, connection: &Connection, call: &ServiceCall) -> Explanation {
    let name = service_name(&call.service);
    let judged: Vec<(Party, u16, Verdict)> = call
        .backends
        .iter()
        .map(|&(ip, port)| {
            let backend = party(ip, view.index);
            let verdict = view.verdict(connection, &backend, Some(port));
            (backend, port, verdict)
        })
        .collect();
    let of = |wanted: Verdict| judged.iter().filter(move |(_, _, verdict)| *verdict == wanted);
    // Where the endpoints differ, the denied one is what there is to explain.
    let shown = of(Verdict::Deny).chain(of(Verdict::Undecided)).next().or(judged.first());
    let Some((backend, port, _)) = shown else { return nothing_behind(connection, &name) };
    let mut explanation = to_party(view, kept, connection, backend, Some(*port));
    explanation.verdict = agreed(judged.iter().map(|(_, _, verdict)| *verdict)).unwrap_or(explanation.verdict);
    let still = still_denied(view, connection, &judged, (backend, *port), &explanation);
    if !still.is_empty() {
        explanation.remaining.push(Remaining::OtherEndpointsDenied { service: name.clone(), endpoints: still });
    }
    let total = judged.len();
    let (denied, open) = (of(Verdict::Deny).count(), of(Verdict::Undecided).count());
    explanation.notes.extend(match (denied, open) {
        _ if total == 1 => None,
        (0, 0) => Some(format!("all {total} endpoints of Service {name} are admitted; shown is {backend}:{port}")),
        (0, _) => Some(format!("{open} of the {total} endpoints of Service {name} cannot be decided; shown is {backend}:{port}")),
        _ if denied == total => {
            Some(format!("none of the {total} endpoints of Service {name} is admitted; explained, and mended, is {backend}:{port}"))
        }
        _ => {
            let some: Vec<String> = of(Verdict::Deny).take(NAMED_ENDPOINTS).map(|(backend, port, _)| format!("{backend}:{port}")).collect();
            let more = if denied > some.len() { ", …" } else { "" };
            Some(format!(
                "{denied} of the {total} endpoints of Service {name} are denied: {}{more}; which one a call goes to is chosen at random",
                some.join(", ")
            ))
        }
    });
    explanation
}

/// The other endpoints that the fixes for the one explained leave denied.
fn still_denied(
    view: &View<'_>,
    connection: &Connection,
    judged: &[(Party, u16, Verdict)],
    (shown, shown_port): (&Party, u16),
    explanation: &Explanation,
) -> Vec<String> {
    let changed = explanation.fixes.iter().filter_map(|fix| match &fix.manifest {
        Manifest::NetworkPolicy(policy) => Some(Changed::NetworkPolicy(policy.clone())),
        Manifest::ClusterPolicy(policy) => Some(Changed::ClusterPolicy(policy.clone())),
        Manifest::Labels { .. } => None,
    });
    let changed: Vec<Changed> = view.changed.iter().cloned().chain(changed).collect();
    let after = View { changed: &changed, ..*view };
    let others = judged.iter().filter(|(backend, port, verdict)| {
        *verdict == Verdict::Deny
            && (backend.ip, *port) != (shown.ip, shown_port)
            && after.verdict(connection, backend, Some(*port)) == Verdict::Deny
    });
    let mut named: Vec<String> = others.map(|(backend, port, _)| format!("{backend} ({}):{port}", backend.ip)).collect();
    if named.len() > LISTED_ENDPOINTS {
        let more = named.len() - LISTED_ENDPOINTS;
        named.truncate(LISTED_ENDPOINTS);
        named.push(format!("{more} more"));
    }
    named
}

fn nothing_behind(connection: &Connection, service: &str) -> Explanation {
    let missing = connection.service.as_ref().and_then(|call| {
        let has = call.service.ports.iter().any(|port| Some(port.port) == call.port && port.protocol == connection.protocol);
        call.port.filter(|_| !has)
    });
    let mut explanation = match missing {
        Some(port) => undecided(&format!(
            "Service {service} has no port {port}/{}, so there is no pod whose policies could be asked",
            connection.protocol
        )),
        None => undecided(&format!("Service {service} has no ready endpoint, so there is no pod whose policies could be asked")),
    };
    explanation.remaining.push(Remaining::ServiceWithoutEndpoints { service: service.to_owned() });
    explanation
}

fn service_name(service: &Service) -> String {
    format!("{}/{}", service.namespace, service.name)
}

/// Whoever calls a Service looks its name up first: does the source reach the cluster's DNS?
fn dns_denied(view: &View<'_>, connection: &Connection) -> Option<Remaining> {
    let service = view.index.service(DNS_SERVICE.0, DNS_SERVICE.1)?;
    if connection.service.as_ref().is_some_and(|call| call.port == Some(DNS_PORT)) {
        return None;
    }
    let port = service.ports.iter().find(|port| port.port == DNS_PORT && port.protocol == Protocol::Udp)?;
    let mut backends = view.index.backends(service, port).into_iter().peekable();
    backends.peek()?;
    let all_denied = backends.all(|(ip, port)| {
        let question = Connection {
            destination: party(ip, view.index),
            protocol: Protocol::Udp,
            port: Some(port),
            service: None,
            ..connection.clone()
        };
        Case::all(&question, &question.destination, Some(port))
            .all(|case| matches!(view.judge(&case, Direction::Egress), Outcome::Denied(_)))
    });
    all_denied.then(|| Remaining::DnsDenied { service: service_name(service) })
}
