//! What the engine says in sentences.

use std::sync::Arc;

use crate::cluster::{Action, ClusterPolicy, Direction, NetworkPolicy, Operator, Peer, Pod, Subject, Tier};
use crate::flow::Protocol;
use crate::identify::{Identity, Party};

use crate::policy::connection::{Case, Profile, Who};
use crate::policy::evaluate::View;
use crate::policy::evaluate::matching::Unknown;
use crate::policy::evaluate::walk::{By, Doubt, Exempt, Outcome, Walk};

/// Why policies do not speak of a side.
pub(in crate::policy) fn exempt(exempt: Exempt, direction: Direction) -> &'static str {
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
pub(in crate::policy) fn doubt(doubt: Doubt, protocol: Protocol, sides: [&Party; 2]) -> String {
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
        Doubt::Missing(Unknown::Name) => {
            "rules ask for domain names whose addresses are not known here, so it is open whether they match".to_owned()
        }
        Doubt::Tie(tier, priority) => {
            format!(
                "policies of priority {priority} in the {} tier decide differently, and the API leaves open which of them holds",
                tier_name(tier)
            )
        }
        Doubt::Protocol if matches!(protocol, Protocol::Icmp | Protocol::Icmpv6) => {
            "policies isolate the pod, and what that means for ICMP is not defined by the API: implementations differ".to_owned()
        }
        Doubt::Protocol => "policies isolate the pod, and the API speaks of TCP, UDP and SCTP only: implementations differ".to_owned(),
    }
}

/// What a reader should know about one direction besides its outcome.
pub(in crate::policy) fn notes(view: &View<'_>, case: &Case<'_>, direction: Direction, walk: &Walk<'_>) -> Vec<String> {
    let Ok(subject) = view.subject(case, direction) else { return Vec::new() };
    let mut notes = Vec::new();
    left_out(view, subject, direction, &mut notes);
    ties(view, case, direction, subject, &mut notes);
    let outcome = walk.outcome;
    if asks_for_blocks(view, case, direction, subject) {
        note_on_blocks(view, case, direction, outcome, &mut notes);
    }
    let by_baseline = walk.tiers().any(|said| said.tier == Tier::Baseline && said.by.is_some());
    let other = if direction == Direction::Egress { Direction::Ingress } else { Direction::Egress };
    if by_baseline && !view.isolating(subject, other).is_empty() {
        notes.push(format!(
            "{direction}: NetworkPolicies isolate {}/{} for {other} only, so the Baseline tier still speaks of its {direction}; some \
             implementations leave it out for the whole pod",
            subject.namespace, subject.name
        ));
    }
    if direction == Direction::Egress && case.reaches_own_node(view.index) && outcome.admits() == Some(false) {
        notes.push(format!(
            "egress: {} is the node that the pod runs on; Kubernetes' documentation exempts traffic to a pod's own node, implementations differ",
            case.destination.ip
        ));
    }
    if !case.protocol.has_ports() {
        match outcome {
            Outcome::Allowed(By::Profile) => {
                notes.push(format!("{direction}: policies would deny it; the profile says that they do not speak of {}", case.protocol))
            }
            Outcome::Allowed(_) => notes.push(format!(
                "{direction}: the rule is for every port and protocol; what policies mean for {} is not defined by the API",
                case.protocol
            )),
            Outcome::Denied(_) => {
                notes.push(format!("{direction}: the profile says that policies deny {}; that is not defined by the API", case.protocol))
            }
            _ => {}
        }
    }
    notes
}

/// Whether a block of a NetworkPolicy may meet the address of a pod: whether it matches is left open by the API.
fn asks_for_blocks(view: &View<'_>, case: &Case<'_>, direction: Direction, subject: &Pod) -> bool {
    let is_block = |peer: &Peer| matches!(peer, Peer::IpBlock(_));
    matches!(case.sides(direction).1.who, Who::Pod(_) | Who::Unowned)
        && view
            .isolating(subject, direction)
            .into_iter()
            .any(|policy| policy.rules(direction).unwrap_or_default().iter().any(|rule| rule.peers.iter().any(is_block)))
}

/// Says where the other reading of blocks would decide otherwise.
fn note_on_blocks(view: &View<'_>, case: &Case<'_>, direction: Direction, outcome: Outcome<'_>, notes: &mut Vec<String>) {
    let other_profile = Profile { ip_block_matches_pods: !view.profile.ip_block_matches_pods, ..*view.profile };
    let otherwise = View { profile: &other_profile, ..*view }.judge(case, direction);
    if outcome.admits().is_some() && outcome.admits() != otherwise.admits() {
        let (_, peer) = case.sides(direction);
        let (does, others) = if view.profile.ip_block_matches_pods { ("matches", "do not") } else { ("does not match", "do") };
        notes.push(format!(
            "{direction}: an ipBlock {does} the pod address {}; the API leaves that open, and some implementations {others}",
            peer.ip
        ));
    }
}

/// Policies of which the engine left something out because the API server would refuse it.
fn left_out(view: &View<'_>, subject: &Pod, direction: Direction, notes: &mut Vec<String>) {
    for policy in view.index.policies_in(&subject.namespace).filter(|policy| policy.rules(direction).is_some()) {
        let name = || format!("NetworkPolicy {}/{}", policy.namespace, policy.name);
        if selects_nothing(policy) {
            notes.push(format!("{} selects no pod: its podSelector is one that the API server would refuse", name()));
        } else if !policy.invalid.is_empty() && policy.pod_selector.matches(&subject.labels) {
            let parts = policy.invalid.join("; ");
            notes.push(format!("{} has parts that the API server would refuse and that match nothing: {parts}", name()));
        }
    }
    for policy in view.index.cluster_policies().filter(|policy| !policy.rules(direction).is_empty() && !policy.invalid.is_empty()) {
        let name = || format!("{} {}", policy.kind, policy.name);
        if let Subject::Invalid(why) = &policy.subject {
            notes.push(format!("{} selects no pod: its subject is one that the API server would refuse: {why}", name()));
        } else if view.is_subject(&policy.subject, subject) {
            let parts = policy.invalid.join("; ");
            notes.push(format!(
                "{} has parts that the API server would refuse; they match nothing in Accept rules and everything in others: {parts}",
                name()
            ));
        }
    }
}

/// Policies of the same priority that decide differently: the API says that what holds is undefined.
fn ties(view: &View<'_>, case: &Case<'_>, direction: Direction, subject: &Pod, notes: &mut Vec<String>) {
    for tier in [Tier::Admin, Tier::Baseline] {
        let policies = view.cluster_policies(subject, tier);
        for tied in policies.chunk_by(|a, b| a.priority == b.priority).filter(|tied| tied.len() > 1) {
            let says = |policy: &&ClusterPolicy| view.first_action(policy, direction, case).map(|action| (policy.name.clone(), action));
            let said: Vec<(Arc<str>, Action)> = tied.iter().filter_map(says).collect();
            if let [(_, first), ..] = said.as_slice()
                && said.iter().any(|(_, action)| action != first)
            {
                let each: Vec<String> = said.iter().map(|(name, action)| format!("{name} says {action}")).collect();
                let priority = tied.first().map_or(0, |policy| policy.priority);
                notes.push(format!(
                    "{direction}: policies of priority {priority} disagree, and the API leaves open which holds: {}",
                    each.join(", ")
                ));
            }
        }
    }
}

fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Admin => "Admin",
        Tier::NetworkPolicy => "NetworkPolicy",
        Tier::Baseline => "Baseline",
    }
}

fn selects_nothing(policy: &NetworkPolicy) -> bool {
    policy.pod_selector.requirements.iter().any(|requirement| matches!(requirement.operator, Operator::Invalid(_)))
}

/// `shop/a, shop/b`
pub(in crate::policy) fn names(pods: &[Arc<Pod>]) -> String {
    pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect::<Vec<_>>().join(", ")
}
