//! What the engine says in sentences.

use std::sync::Arc;

use crate::cluster::{Direction, NetworkPolicy, Operator, Pod};
use crate::flow::Protocol;
use crate::identify::{Identity, Party};

use super::connection::{Case, Profile};
use super::evaluate::{Doubt, Exempt, Outcome};
use super::matching::{Context, Unknown};

/// Why policies do not speak of a side.
pub(super) fn exempt(exempt: Exempt, direction: Direction) -> &'static str {
    match (exempt, direction) {
        (Exempt::External, Direction::Egress) => "the source is outside the cluster",
        (Exempt::External, Direction::Ingress) => "the destination is outside the cluster",
        (Exempt::Node, Direction::Egress) => "the source is a node or a pod in its node's network, which NetworkPolicies do not select",
        (Exempt::Node, Direction::Ingress) => {
            "the destination is a node or a pod in its node's network, which NetworkPolicies do not select"
        }
        (Exempt::Special, _) => "loopback, multicast, broadcast and IPv6 link-local addresses are no peers of NetworkPolicies",
        (Exempt::Itself, _) => "a pod may always reach itself",
        (Exempt::OwnNode, _) => "a pod's own node may always reach it",
    }
}

/// What is missing to decide. `sides` are those of the connection.
pub(super) fn doubt(doubt: Doubt, protocol: Protocol, sides: [&Party; 2]) -> String {
    match doubt {
        Doubt::Missing(Unknown::Owner) => {
            let of = |side: &Party| match &side.identity {
                Identity::AmbiguousPods(pods) => {
                    Some(format!("{} is claimed by several pods, which policies may treat differently: {}", side.ip, names(pods)))
                }
                Identity::UnownedPodAddress => Some(format!("the owner of {} is not yet known", side.ip)),
                _ => None,
            };
            let open: Vec<String> = sides.into_iter().filter_map(of).collect();
            if open.is_empty() { "it is not known which pod has the address".to_owned() } else { open.join("; ") }
        }
        Doubt::Missing(Unknown::Port) => "the packet does not show its port (a later fragment), and the rules ask for ports".to_owned(),
        Doubt::Protocol if matches!(protocol, Protocol::Icmp | Protocol::Icmpv6) => {
            "policies isolate the pod, and what that means for ICMP is not defined by the API: implementations differ".to_owned()
        }
        Doubt::Protocol => "policies isolate the pod, and the API speaks of TCP, UDP and SCTP only: implementations differ".to_owned(),
    }
}

/// What a reader should know about one direction besides its outcome.
pub(super) fn notes(context: &Context<'_>, case: &Case<'_>, direction: Direction, outcome: Outcome) -> Vec<String> {
    let Ok(subject) = context.subject(case, direction) else { return Vec::new() };
    let mut notes = Vec::new();
    for policy in context.index.policies_in(&subject.namespace).filter(|policy| policy.rules(direction).is_some()) {
        let name = || format!("NetworkPolicy {}/{}", policy.namespace, policy.name);
        if selects_nothing(policy) {
            notes.push(format!("{} selects no pod: its podSelector is one that the API server would refuse", name()));
        } else if !policy.invalid.is_empty() && policy.pod_selector.matches(&subject.labels) {
            let parts = policy.invalid.join("; ");
            notes.push(format!("{} has parts that the API server would refuse and that match nothing: {parts}", name()));
        }
    }
    let other_profile = Profile { ip_block_matches_pods: !context.profile.ip_block_matches_pods, ..*context.profile };
    let otherwise = Context { index: context.index, profile: &other_profile }.judge(case, direction);
    if outcome.admits().is_some() && outcome.admits() != otherwise.admits() {
        let (_, peer) = case.sides(direction);
        let (does, others) = if context.profile.ip_block_matches_pods { ("matches", "do not") } else { ("does not match", "do") };
        notes.push(format!(
            "{direction}: an ipBlock {does} the pod address {}; the API leaves that open, and some implementations {others}",
            peer.ip
        ));
    }
    if outcome == Outcome::Allowed && !case.protocol.has_ports() {
        notes.push(format!(
            "{direction}: the rule is for every port and protocol; what policies mean for {} is not defined by the API",
            case.protocol
        ));
    }
    notes
}

fn selects_nothing(policy: &NetworkPolicy) -> bool {
    policy.pod_selector.requirements.iter().any(|requirement| matches!(requirement.operator, Operator::Invalid(_)))
}

/// `shop/a, shop/b`
pub(super) fn names(pods: &[Arc<Pod>]) -> String {
    pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect::<Vec<_>>().join(", ")
}
