//! The rules, in the order they are asked; the first that applies decides.

use std::net::IpAddr;

use crate::cluster::Direction;
use crate::flow::{DropEvent, Place, Protocol, QUEUE_VERDICT, XDP_VERDICT, is_unspecific, place};
use crate::identify::Who;
use crate::policy::{Admission, Explanation, Verdict};

use super::words::{Words, sentences};
use super::{Agreement, Class, Diagnosis, Moment};

/// Reasons (without `SKB_DROP_REASON_`) by which firewalls and dataplanes drop. SOCKET_FILTER is a program at the receiver's control group
/// as well as a filter that the receiver has put on its own socket: one check, sk_filter_trim_cap().
const ENFORCERS: &[&str] =
    &["NETFILTER_DROP", "TC_INGRESS", "TC_EGRESS", "BPF_CGROUP_EGRESS", "SOCKET_FILTER", "XDP", QUEUE_VERDICT, XDP_VERDICT];

/// The kind of cause, if routing dropped it.
pub(super) fn routing_class(facts: &Facts<'_>) -> Option<&'static Class> {
    ROUTING.iter().find(|(reasons, _)| facts.is_one_of(reasons)).map(|(_, class)| class)
}

/// What routing drops, by reason (`include/net/dropreason-core.h`).
const ROUTING: &[(&[&str], Class)] = &[
    // fib_validate_source(), ip_rcv_finish_core(): martian sources and what strict or loose rp_filter refuses.
    (&["IP_RPFILTER", "IP_INVALID_SOURCE", "IP_LOCAL_SOURCE"], Class::ReversePathFilter),
    // ip_error() and ip6_pkt_drop() with ENETUNREACH, then with EHOSTUNREACH; the last one for locally sent packets. IPv6 has
    // no names of its own.
    (&["IP_INNOROUTES", "IP_INADDRERRORS", "IP_OUTNOROUTES"], Class::NoRoute),
];

/// Whether an enforcer dropped it.
pub(super) fn is_enforced(event: &DropEvent) -> bool {
    is_one_of(event, place_of(event), ENFORCERS)
}

/// Where the reason says nothing: what a free at that place means.
fn place_of(event: &DropEvent) -> Option<&'static Place> {
    let unspecific = is_unspecific(event.reason.number, &event.reason.name);
    let function = event.location.symbol.as_ref().map(|symbol| symbol.base_name());
    function.filter(|_| unspecific).and_then(place)
}

fn is_one_of(event: &DropEvent, place: Option<&Place>, reasons: &[&str]) -> bool {
    match place {
        Some(place) => !place.shared && place.reasons.iter().all(|reason| reasons.contains(reason)),
        None => reasons.contains(&&*event.reason.name),
    }
}

/// What the rules are asked about.
pub(super) struct Facts<'a> {
    pub(super) event: &'a DropEvent,
    pub(super) who: &'a Who,
    pub(super) explanation: &'a Explanation,
    /// What is known of the moment.
    moment: Option<&'a Moment>,
    /// Where the reason says nothing: what a free at that place means.
    place: Option<&'static Place>,
    /// An enforcer dropped it: a firewall or a dataplane, of the policies or not.
    pub(super) enforced: bool,
    pub(super) words: Words<'a>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(event: &'a DropEvent, who: &'a Who, explanation: &'a Explanation, moment: Option<&'a Moment>) -> Self {
        Facts { event, who, explanation, moment, place: place_of(event), enforced: is_enforced(event), words: Words { event, who } }
    }

    /// Whether the reason is one of these: named, or meant by the place for certain.
    pub(super) fn is_one_of(&self, reasons: &[&str]) -> bool {
        is_one_of(self.event, self.place, reasons)
    }

    /// Whether the reason can be this one, for all that the place tells.
    fn may_be(&self, reason: &str) -> bool {
        self.place.map_or(&*self.event.reason.name == reason, |place| place.reasons.contains(&reason))
    }

    /// What an enforcer's drop is, measured by the policies.
    fn agreement(&self) -> Agreement {
        match self.explanation.verdict {
            _ if !self.enforced || self.event.tunnel.is_some() => Agreement::NotEnforcement,
            Verdict::Deny => self.agrees(),
            Verdict::Allow => Agreement::PoliciesAllow,
            Verdict::Undecided => Agreement::CannotDecide { why: self.why_undecided() },
        }
    }

    /// The policies deny it, and an enforcer dropped it.
    fn agrees(&self) -> Agreement {
        match self.moment.and_then(Moment::enforced_already) {
            Some(change) => Agreement::PolicyChanged { why: format!("{change}; it was enforced already") },
            None => Agreement::Agrees,
        }
    }

    fn why_undecided(&self) -> String {
        let of = |admission: &Admission| match admission {
            Admission::Undecided { why } => Some(why.clone()),
            _ => None,
        };
        let mut whys: Vec<String> =
            [of(&self.explanation.egress.admission), of(&self.explanation.ingress.admission)].into_iter().flatten().collect();
        whys.dedup();
        if whys.is_empty() { "the policies could not be evaluated for this connection".to_owned() } else { whys.join("; ") }
    }

    /// The directions that deny, egress first.
    fn denied(&self) -> Vec<Direction> {
        [&self.explanation.egress, &self.explanation.ingress]
            .into_iter()
            .filter(|direction| matches!(direction.admission, Admission::Denied { .. }))
            .map(|direction| direction.direction)
            .collect()
    }

    /// A TCP packet that does not open a connection. `None` when the packet does not show its flags.
    fn mid_connection(&self) -> Option<bool> {
        self.event.flow.tcp_flags.map(|flags| !flags.syn)
    }

    /// Whether the connection is older than this packet.
    fn opened_before(&self) -> bool {
        let conntrack = self.event.conntrack.as_ref();
        conntrack.is_some_and(|conntrack| conntrack.seen_reply || self.mid_connection() == Some(true))
    }

    /// The packet went to another address than the caller dialled: whoever translates had an endpoint for it.
    fn translated(&self) -> bool {
        let conntrack = self.event.conntrack.as_ref();
        conntrack.is_some_and(|conntrack| !conntrack.reply && conntrack.original.destination != self.event.flow.destination)
    }
}

/// In this order. The second half is reached by drops of enforcers only.
const RULES: &[fn(&Facts<'_>) -> Option<Diagnosis>] = &[
    reset,
    super::tunnel::tunnel,
    stray_segment,
    unnamed,
    no_listener,
    routing,
    other_reason,
    service_without_endpoints,
    dropped_reply,
    connection_state,
    undecided,
    policy_denied,
    policy_changed,
    not_known,
];

pub(super) fn decide(facts: &Facts<'_>) -> Diagnosis {
    RULES.iter().find_map(|rule| rule(facts)).unwrap_or_else(|| host_firewall(facts))
}

fn reset(facts: &Facts<'_>) -> Option<Diagnosis> {
    facts.event.flow.tcp_flags.filter(|flags| flags.rst)?;
    Some(Diagnosis {
        class: Class::Noise,
        agreement: facts.agreement(),
        summary: "A TCP reset was dropped: the connection was over or refused already, and nothing new was lost.".to_owned(),
    })
}

fn stray_segment(facts: &Facts<'_>) -> Option<Diagnosis> {
    if !facts.may_be("NO_SOCKET") {
        return None;
    }
    let reply = facts.event.conntrack.as_ref().is_some_and(|conntrack| conntrack.reply);
    let summary = match (facts.event.flow.protocol, facts.event.flow.tcp_flags) {
        (Protocol::Tcp, Some(flags)) if !flags.syn || flags.ack => {
            "A TCP segment arrived for a connection that its receiver has already closed: not the loss of a new connection."
        }
        (Protocol::Udp, _) if reply => "An answer arrived after the program that had asked was gone: not the loss of a new connection.",
        _ => return None,
    };
    Some(Diagnosis { class: Class::Noise, agreement: Agreement::NotEnforcement, summary: summary.to_owned() })
}

/// The kernel does not say why, and the function frees packets for more than one cause.
fn unnamed(facts: &Facts<'_>) -> Option<Diagnosis> {
    let place = facts.place.filter(|place| place.shared)?;
    let causes = match *place.reasons {
        ["TC_INGRESS" | "TC_EGRESS"] => "a traffic-control (eBPF) program denied it, or nobody could take it",
        ["BPF_CGROUP_EGRESS"] => "an eBPF program on the sender's cgroup denied it, or it could not be sent",
        ["NO_SOCKET", ..] if place.reasons.contains(&"SOCKET_FILTER") => {
            "nobody listens there, an eBPF program on the receiver's cgroup denied it, or the packet was damaged"
        }
        ["NO_SOCKET"] => "nobody listens there, or the packet was damaged",
        _ => "its source address does not belong behind that interface (rp_filter), or it has no route or options that are not accepted",
    };
    let why = format!("this kernel does not say why it freed the packet; at this place: {causes}");
    let agreement = match facts.explanation.verdict {
        _ if !place.reasons.iter().any(|reason| ENFORCERS.contains(reason)) => Agreement::NotEnforcement,
        Verdict::Allow => Agreement::PoliciesAllow,
        Verdict::Deny | Verdict::Undecided => Agreement::CannotDecide { why },
    };
    let summary = format!(
        "The packet was {}. This kernel does not say why, and at that place there are several causes: {causes}.",
        facts.words.evidence()
    );
    Some(Diagnosis { class: Class::Undecided, agreement, summary })
}

fn no_listener(facts: &Facts<'_>) -> Option<Diagnosis> {
    let flow = &facts.event.flow;
    let unseen = flow.protocol == Protocol::Tcp && flow.tcp_flags.is_none();
    let no_handler = &*facts.event.reason.name == "IP_NOPROTO";
    if !(no_socket(facts) || no_handler) || unseen || facts.event.is_reply() {
        return None;
    }
    let server = facts.words.server();
    let what = if no_handler {
        format!("{server} does not speak {}: nothing there handles that protocol.", flow.protocol)
    } else {
        format!("Nothing listens on {} at {server}: the packet arrived there and was refused.", facts.words.port())
    };
    let service = facts.who.service.as_ref().map(|call| {
        let service = &call.service;
        format!("Check that the target port of Service {}/{} is the port the program listens on.", service.namespace, service.name)
    });
    let denied = (facts.explanation.verdict == Verdict::Deny).then(|| {
        let change = facts.moment.and_then(|moment| moment.changes.iter().find(|change| change.verdict_after == Verdict::Deny));
        let change = change.map(|change| format!(" ({change})")).unwrap_or_default();
        format!(
            "The policies deny this connection, but the packet got through nevertheless: they are not enforced here, or not yet{change}."
        )
    });
    Some(Diagnosis { class: Class::NoListener, agreement: Agreement::NotEnforcement, summary: sentences([Some(what), service, denied]) })
}

pub(super) fn no_socket(facts: &Facts<'_>) -> bool {
    facts.is_one_of(&["NO_SOCKET"])
}

fn routing(facts: &Facts<'_>) -> Option<Diagnosis> {
    let class = routing_class(facts)?;
    let reason = match (facts.place, &facts.event.location.symbol) {
        (Some(_), Some(symbol)) => format!("in {}", symbol.base_name()),
        _ => facts.event.reason.name.to_string(),
    };
    let destination = facts.event.flow.destination;
    let source = facts.event.flow.source;
    if *class == Class::NoRoute && is_of_one_link(destination) {
        // Every device that comes up reports its multicast groups and asks for its neighbours a moment before it has the routes for that.
        let summary =
            format!("The network stack's own packet to {destination} had no route yet ({reason}): not the loss of a new connection.");
        return Some(Diagnosis { class: Class::Noise, agreement: Agreement::NotEnforcement, summary });
    }
    let summary = if *class == Class::NoRoute {
        format!(
            "The kernel has no route to {destination} ({reason}). Look at the routes of the network the packet was in; no policy is involved."
        )
    } else {
        let interface = facts.words.interface().map_or("that interface".to_owned(), |name| format!("interface {name}"));
        format!(
            "The kernel does not accept source address {source} on {interface} ({reason}): by its routes the address does not belong there. \
             Look for asymmetric routing and at the rp_filter setting; no policy is involved."
        )
    };
    Some(Diagnosis { class: class.clone(), agreement: Agreement::NotEnforcement, summary })
}

/// Multicast that no router forwards (RFC 5771, RFC 4291).
fn is_of_one_link(destination: IpAddr) -> bool {
    match destination {
        IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => address.octets()[..2] == [0xff, 0x02],
    }
}

fn other_reason(facts: &Facts<'_>) -> Option<Diagnosis> {
    if facts.enforced {
        return None;
    }
    let summary = format!(
        "The kernel dropped the packet for a reason of its own, {}, by which no enforcer of policies drops. It does not tell more.",
        facts.words.evidence()
    );
    Some(Diagnosis { class: Class::Undecided, agreement: Agreement::NotEnforcement, summary })
}

/// kube-proxy rejects calls to a Service without endpoints, and so do its replacements. A packet that was translated, or
/// answers one that was, had an endpoint.
fn service_without_endpoints(facts: &Facts<'_>) -> Option<Diagnosis> {
    let call = facts.who.service.as_ref().filter(|call| call.backends.is_empty())?;
    if facts.event.is_reply() || facts.translated() {
        return None;
    }
    let service = &call.service;
    let name = format!("Service {}/{}", service.namespace, service.name);
    let unknown = call.port.filter(|port| !service.ports.iter().any(|known| known.port == *port || known.node_port == Some(*port)));
    let summary = match (unknown, call.port) {
        (Some(port), _) => {
            format!("{name} has no port {port}, so nothing stands behind it. Check the port the caller uses; no policy is to blame.")
        }
        (None, port) => {
            let port = port.map(|port| format!(" on port {port}")).unwrap_or_default();
            let look = if service.selector.is_some() {
                "Check that its selector matches pods and that they are ready"
            } else {
                "It has no selector: check the EndpointSlices that somebody writes for it"
            };
            format!("{name}{port} has no ready endpoint, so the node refuses calls to it. {look}; no policy is to blame.")
        }
    };
    Some(Diagnosis { class: Class::ServiceWithoutEndpoints, agreement: Agreement::NotEnforcement, summary })
}

fn dropped_reply(facts: &Facts<'_>) -> Option<Diagnosis> {
    if !facts.event.is_reply() {
        return None;
    }
    let (client, server) = (facts.words.client(), facts.words.server());
    let what = format!(
        "An answer from {server} to {client} was {}, although its opening had got through. Policies judge only the opening of a \
         connection; answers always pass.",
        facts.words.evidence()
    );
    let look = "Look for a firewall rule that ignores connection state, a stale connection-tracking entry, or an answer that takes another \
                way back than the call came.";
    let denied = (facts.explanation.verdict == Verdict::Deny).then(|| "The policies deny new connections of this kind by now.".to_owned());
    // Whatever they say of the opening.
    Some(Diagnosis {
        class: Class::DroppedReply,
        agreement: Agreement::PoliciesAllow,
        summary: sentences([Some(what), denied, Some(look.to_owned())]),
    })
}

/// Without a connection-tracking entry nobody can tell whether the packet goes with or against the opening, so nobody can
/// tell which policies the opening had to pass.
fn connection_state(facts: &Facts<'_>) -> Option<Diagnosis> {
    if facts.mid_connection() != Some(true) || facts.event.conntrack.is_some() {
        return None;
    }
    let agreement = match facts.explanation.verdict {
        Verdict::Allow => Agreement::PoliciesAllow,
        _ => Agreement::CannotDecide {
            why: "policies judge the opening of a connection, and this packet is from the middle of one that the kernel does not track"
                .to_owned(),
        },
    };
    let summary = format!(
        "A packet from the middle of a TCP connection was {}, and the kernel has no record of that connection. Look for a rule such as \
         \"ct state invalid drop\", for a connection that was idle too long, and for packets that take different ways there and back.",
        facts.words.evidence()
    );
    Some(Diagnosis { class: Class::ConnectionState, agreement, summary })
}

fn undecided(facts: &Facts<'_>) -> Option<Diagnosis> {
    // An explanation that denies without a denying direction would be a defect of the engine; it is no ground for blame.
    let nobody_denies = facts.explanation.verdict == Verdict::Deny && facts.denied().is_empty();
    if facts.explanation.verdict != Verdict::Undecided && !nobody_denies {
        return None;
    }
    let why = facts.why_undecided();
    let summary = format!("The packet was {}. Whether the policies deny it cannot be decided: {why}.", facts.words.evidence());
    Some(Diagnosis { class: Class::Undecided, agreement: Agreement::CannotDecide { why }, summary })
}

fn policy_denied(facts: &Facts<'_>) -> Option<Diagnosis> {
    if facts.explanation.verdict != Verdict::Deny {
        return None;
    }
    let directions = facts.denied();
    let (client, server, port) = (facts.words.client(), facts.words.server(), facts.words.port());
    let sides: Vec<String> = directions
        .iter()
        .map(|direction| match direction {
            Direction::Egress => format!("no egress rule that applies to {client} allows calling {server} on {port}"),
            Direction::Ingress => format!("no ingress rule that applies to {server} allows {client} to call {port}"),
        })
        .collect();
    let what = format!("The policies deny this connection: {}.", sides.join(", and "));
    let before = facts.opened_before().then(|| {
        "The connection was opened before, so the policies or the labels changed since, and this enforcer cuts open connections too."
            .to_owned()
    });
    let icmp = matches!(facts.event.flow.protocol, Protocol::Icmp | Protocol::Icmpv6)
        .then(|| "What policies mean for ICMP is left to each implementation.".to_owned());
    let late = facts.moment.and_then(Moment::enforced_already).map(|change| format!("That is so since a change: {change}."));
    let summary = sentences([Some(what), late, before, icmp]);
    Some(Diagnosis { class: Class::PolicyDenied(directions), agreement: facts.agrees(), summary })
}

/// The policies admit it, but did not a moment before, and what was dropped is what they forbade then: whoever enforces them was behind.
fn policy_changed(facts: &Facts<'_>) -> Option<Diagnosis> {
    let change = facts.moment.and_then(Moment::not_yet_enforced)?;
    let summary = format!(
        "The packet was {}. The policies admit it by now, but they denied it before: {change}, and that was not enforced here yet.",
        facts.words.evidence()
    );
    let why = format!("{change}; before, they denied it");
    Some(Diagnosis { class: Class::PolicyChanged, agreement: Agreement::PolicyChanged { why }, summary })
}

/// The policies that are known admit it, and they may not be all there were.
fn not_known(facts: &Facts<'_>) -> Option<Diagnosis> {
    let moment = facts.moment?;
    let whys: Vec<String> = [moment.not_evaluated(), moment.why_inexact()].into_iter().flatten().collect();
    if whys.is_empty() {
        return None;
    }
    let why = whys.join("; ");
    let summary = format!(
        "The packet was {}. The policies that are known allow it, but whether others deny it cannot be decided: {why}.",
        facts.words.evidence()
    );
    Some(Diagnosis { class: Class::Undecided, agreement: Agreement::CannotDecide { why }, summary })
}

/// What is left: an enforcer dropped what the policies allow.
fn host_firewall(facts: &Facts<'_>) -> Diagnosis {
    Diagnosis { class: Class::HostFirewall, agreement: Agreement::PoliciesAllow, summary: facts.words.host_firewall() }
}
