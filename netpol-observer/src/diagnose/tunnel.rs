//! The packet of a tunnel was dropped, with the connection of a pod inside.
//!
//! Enforcers of policies act where pods are plugged in, on packets that are in no tunnel. Whatever drops the tunnel's packet does so for
//! all that the two nodes send each other through it, and no policy is to blame.

use crate::flow::{Hook, Protocol, Tunnel, TunnelKind};
use crate::identify::TunnelEnds;
use crate::policy::Verdict;

use super::rules::{Facts, no_socket, routing_class};
use super::words::{party, sentences};
use super::{Agreement, Class, Diagnosis};

pub(super) fn tunnel(facts: &Facts<'_>) -> Option<Diagnosis> {
    let (tunnel, ends) = (facts.event.tunnel.as_ref()?, facts.who.tunnel.as_ref()?);
    let (class, what) = if no_socket(facts) || facts.is_one_of(&["IP_NOPROTO"]) {
        (Class::NoListener, nobody_receives(tunnel, ends))
    } else if let Some(class) = routing_class(facts) {
        (class.clone(), routed(facts, tunnel, class))
    } else if facts.enforced {
        (Class::HostFirewall, dropped(facts, tunnel, ends))
    } else {
        return None;
    };
    let inside =
        format!("Inside was a packet from {} to {} on {}.", party(&facts.who.client), party(&facts.who.server), facts.words.port());
    let verdict = match facts.explanation.verdict {
        Verdict::Allow => Some("The policies allow that connection.".to_owned()),
        Verdict::Deny => {
            Some("The policies deny that connection too, but it was not for them that the tunnel's packet was dropped.".to_owned())
        }
        Verdict::Undecided => None,
    };
    Some(Diagnosis { class, agreement: Agreement::NotEnforcement, summary: sentences([Some(what), Some(inside), verdict]) })
}

fn dropped(facts: &Facts<'_>, tunnel: &Tunnel, ends: &TunnelEnds) -> String {
    let (source, destination) = (party(&ends.source), party(&ends.destination));
    let rule = match facts.event.hook {
        Some(Hook::Input | Hook::Output) => "a rule of the node's own firewall",
        _ => facts.words.kind_of_rule(),
    };
    format!(
        "The {} packet from {source} to {destination} was {}: {rule}, by which the pods of the two cannot reach each other. Let {source} and \
         {destination} exchange {}; no policy speaks of tunnels.",
        tunnel.kind,
        facts.words.evidence(),
        carrier(tunnel),
    )
}

fn nobody_receives(tunnel: &Tunnel, ends: &TunnelEnds) -> String {
    let destination = party(&ends.destination);
    format!(
        "Nothing at {destination} receives {} ({}): check that the device of the tunnel is there, and that both ends use the same kind of \
         tunnel and the same port.",
        tunnel.kind,
        carrier(tunnel)
    )
}

fn routed(facts: &Facts<'_>, tunnel: &Tunnel, class: &Class) -> String {
    let reason = &facts.event.reason.name;
    let (source, destination) = (tunnel.outer.source, tunnel.outer.destination);
    if *class == Class::NoRoute {
        return format!(
            "The kernel has no route to {destination}, the other end of the {} tunnel ({reason}). Look at the node's routes; no policy is involved.",
            tunnel.kind
        );
    }
    let interface = facts.words.interface().map_or("that interface".to_owned(), |name| format!("interface {name}"));
    format!(
        "The kernel does not accept source address {source}, the other end of the {} tunnel, on {interface} ({reason}): by its routes the \
         address does not belong there. Look for asymmetric routing and at the rp_filter setting; no policy is involved.",
        tunnel.kind
    )
}

/// What a firewall has to let through: `8472/UDP`, `IP protocol 4`.
fn carrier(tunnel: &Tunnel) -> String {
    match (tunnel.kind, tunnel.outer.destination_port) {
        (TunnelKind::Vxlan | TunnelKind::Geneve, Some(port)) => format!("{port}/{}", Protocol::Udp),
        _ => format!("IP protocol {}", tunnel.outer.protocol.number()),
    }
}
