//! From a verdict to its reasons.

use crate::cluster::{Direction, Index, NetworkPolicy, Pod, Rule};
use crate::flow::Protocol;
use crate::identify::{Identity, Party, ServiceCall, party};

use super::connection::{Case, Connection, End, Profile};
use super::evaluate::{Doubt, Exempt, Outcome};
use super::explanation::{
    Admission, DirectionExplanation, Explanation, IsolatingPolicy, PeerMiss, PolicyRef, PortMiss, Remaining, RuleMiss, RuleRef, Verdict,
};
use super::matching::{Context, Match, Unknown};
use super::{fix, near};

/// Name and namespace of the Service that nearly every cluster has its DNS behind, whatever serves it.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");
const DNS_PORT: u16 = 53;

/// Whether a new connection would be admitted.
pub fn verdict(connection: &Connection, index: &Index, profile: &Profile) -> Verdict {
    let context = Context { index, profile };
    let over = |destination: &Party, port: Option<u16>| {
        combine(Direction::BOTH.map(|direction| context.settled(connection, destination, port, direction).admits()))
    };
    match &connection.destination.identity {
        Identity::Service(_) => {
            let call = connection.service.as_ref();
            let verdicts = call.into_iter().flat_map(|call| &call.backends).map(|&(ip, port)| over(&party(ip, index), Some(port)));
            agreed(verdicts).unwrap_or(Verdict::Undecided)
        }
        _ => over(&connection.destination, connection.port),
    }
}

/// Whether a new connection would be admitted, and why.
pub fn explain(connection: &Connection, index: &Index, profile: &Profile) -> Explanation {
    let context = Context { index, profile };
    let mut explanation = match &connection.destination.identity {
        Identity::Service(service) => {
            let name = format!("{}/{}", service.namespace, service.name);
            match &connection.service {
                Some(call) if !call.backends.is_empty() => over_backends(&context, connection, call, &name),
                _ => nothing_behind(&name),
            }
        }
        _ => to_party(&context, connection, &connection.destination, connection.port),
    };
    if let Some(call) = &connection.service {
        if call.backends.is_empty() {
            let service = format!("{}/{}", call.service.namespace, call.service.name);
            let already = |remaining: &Remaining| matches!(remaining, Remaining::ServiceWithoutEndpoints { .. });
            if !explanation.remaining.iter().any(already) {
                explanation.remaining.push(Remaining::ServiceWithoutEndpoints { service });
            }
        }
        if call.service.external_ips.contains(&call.ip) {
            explanation.notes.push(format!(
                "called by the external address {}: the source address may have been rewritten on the way, and then policies see a node's address",
                call.ip
            ));
        }
        explanation.remaining.extend(dns_denied(&context, connection));
    }
    explanation
}

fn combine(directions: [Option<bool>; 2]) -> Verdict {
    match directions {
        [Some(false), _] | [_, Some(false)] => Verdict::Deny,
        [Some(true), Some(true)] => Verdict::Allow,
        _ => Verdict::Undecided,
    }
}

/// The verdict if all are the same; none when there is none.
fn agreed(mut verdicts: impl Iterator<Item = Verdict>) -> Option<Verdict> {
    let first = verdicts.next()?;
    Some(if verdicts.all(|verdict| verdict == first) { first } else { Verdict::Undecided })
}

impl Context<'_> {
    /// One direction over all that the two sides may be: their common outcome.
    fn settled(&self, connection: &Connection, destination: &Party, port: Option<u16>, direction: Direction) -> Outcome {
        let mut result: Option<Outcome> = None;
        for source in End::candidates(&connection.source) {
            for destination in End::candidates(destination) {
                let case = Case { source, destination, protocol: connection.protocol, port };
                let outcome = self.judge(&case, direction);
                match result {
                    Some(before) if before.admits() != outcome.admits() => {
                        return Outcome::Undecided(Doubt::Missing(Unknown::Owner));
                    }
                    Some(_) => {}
                    None => result = Some(outcome),
                }
            }
        }
        result.unwrap_or(Outcome::Undecided(Doubt::Missing(Unknown::Owner)))
    }
}

/// The explanation for one definite destination.
fn to_party(context: &Context<'_>, connection: &Connection, destination: &Party, port: Option<u16>) -> Explanation {
    let mut notes = Vec::new();
    let (Some(source), Some(end)) = (End::candidates(&connection.source).next(), End::candidates(destination).next()) else {
        return undecided("an address is claimed by pods of which none is known");
    };
    let case = Case { source, destination: end, protocol: connection.protocol, port };
    for side in [&connection.source, destination] {
        if let Identity::AmbiguousPods(pods) = &side.identity {
            notes.push(format!("{} is claimed by several pods: {}", side.ip, names(pods.iter().map(|pod| &**pod))));
        }
    }
    let [egress, ingress] = Direction::BOTH.map(|direction| {
        let outcome = context.settled(connection, destination, port, direction);
        direction_explanation(context, &case, direction, outcome, &mut notes)
    });
    let verdict = combine([admits(&egress.admission), admits(&ingress.admission)]);
    if case.is_loop() && connection.service.is_some() {
        notes.push("a pod calling itself through its Service: whether policies apply depends on the CNI plugin".to_owned());
    }
    let (mut fixes, mut remaining) = (Vec::new(), Vec::new());
    for explained in [&egress, &ingress] {
        if let Admission::Denied { nearest, .. } = &explained.admission {
            match fix::smallest(context, &case, explained.direction, nearest) {
                Ok(found) => fixes.push(found),
                Err(why) => remaining.push(Remaining::NoFix { direction: explained.direction, why }),
            }
        }
    }
    Explanation { verdict, egress, ingress, fixes, remaining, notes }
}

fn admits(admission: &Admission) -> Option<bool> {
    match admission {
        Admission::NotSubject { .. } | Admission::NotIsolated | Admission::Allowed { .. } => Some(true),
        Admission::Denied { .. } => Some(false),
        Admission::Undecided { .. } => None,
    }
}

/// A call to a Service that was not translated yet: all backends that it may go to.
fn over_backends(context: &Context<'_>, connection: &Connection, call: &ServiceCall, name: &str) -> Explanation {
    let explained: Vec<(Party, u16, Explanation)> = call
        .backends
        .iter()
        .map(|&(ip, port)| {
            let backend = party(ip, context.index);
            let explanation = to_party(context, connection, &backend, Some(port));
            (backend, port, explanation)
        })
        .collect();
    let total = explained.len();
    let common = agreed(explained.iter().map(|(_, _, explanation)| explanation.verdict));
    let of = |verdict: Verdict| explained.iter().filter(move |(_, _, explanation)| explanation.verdict == verdict);
    let note = match common {
        Some(Verdict::Allow) if total > 1 => Some(format!("all {total} endpoints of Service {name} are admitted; this is the first")),
        Some(Verdict::Deny) if total > 1 => Some(format!("none of the {total} endpoints of Service {name} is admitted; this is the first")),
        Some(Verdict::Undecided) if of(Verdict::Deny).next().is_some() => Some(format!(
            "{} of the {total} endpoints of Service {name} are denied: {}; which one a call goes to is chosen at random",
            of(Verdict::Deny).count(),
            of(Verdict::Deny).map(|(backend, port, _)| format!("{backend}:{port}")).collect::<Vec<_>>().join(", ")
        )),
        _ => None,
    };
    // Where the endpoints differ, the denied one is what there is to explain.
    let shown = of(Verdict::Deny).next().or_else(|| explained.first()).map(|(_, _, explanation)| explanation.clone());
    let Some(mut explanation) = shown else { return nothing_behind(name) };
    explanation.verdict = common.unwrap_or(explanation.verdict);
    explanation.notes.extend(note);
    explanation
}

fn nothing_behind(service: &str) -> Explanation {
    let mut explanation = undecided(&format!("Service {service} has no ready endpoint, so there is no pod whose policies could be asked"));
    explanation.remaining.push(Remaining::ServiceWithoutEndpoints { service: service.to_owned() });
    explanation
}

fn undecided(why: &str) -> Explanation {
    let [egress, ingress] = Direction::BOTH.map(|direction| DirectionExplanation {
        direction,
        subject: None,
        admission: Admission::Undecided { why: why.to_owned() },
    });
    Explanation { verdict: Verdict::Undecided, egress, ingress, fixes: Vec::new(), remaining: Vec::new(), notes: Vec::new() }
}

fn direction_explanation(
    context: &Context<'_>,
    case: &Case<'_>,
    direction: Direction,
    outcome: Outcome,
    notes: &mut Vec<String>,
) -> DirectionExplanation {
    let subject = context.subject(case, direction).ok();
    let isolating: Vec<&NetworkPolicy> =
        subject.map(|pod| context.isolating(pod, direction).map(|policy| &**policy).collect()).unwrap_or_default();
    for policy in &isolating {
        if !policy.invalid.is_empty() {
            notes.push(format!(
                "NetworkPolicy {}/{} has parts that the API server would refuse and that match nothing: {}",
                policy.namespace,
                policy.name,
                policy.invalid.join("; ")
            ));
        }
    }
    let admission = match outcome {
        Outcome::NotSubject(exempt) => Admission::NotSubject { why: exempt_text(exempt, direction).to_owned() },
        Outcome::NotIsolated => Admission::NotIsolated,
        Outcome::Allowed => Admission::Allowed { by: admitting(context, case, direction, &isolating) },
        Outcome::Denied => {
            let explained: Vec<IsolatingPolicy> = isolating.iter().map(|policy| why_not(context, case, direction, policy)).collect();
            let nearest = near::order(&explained, direction, &isolating);
            Admission::Denied { isolating: explained, nearest }
        }
        Outcome::Undecided(doubt) => Admission::Undecided { why: doubt_text(doubt, case.protocol).to_owned() },
    };
    let subject = case.sides(direction).0.pod().map(|pod| format!("{}/{}", pod.namespace, pod.name));
    DirectionExplanation { direction, subject, admission }
}

fn admitting(context: &Context<'_>, case: &Case<'_>, direction: Direction, isolating: &[&NetworkPolicy]) -> Vec<RuleRef> {
    let mut by = Vec::new();
    for policy in isolating {
        for (index, rule) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
            if context.rule(rule, &policy.namespace, direction, case) == Match::Yes {
                by.push(RuleRef { policy: reference(policy), direction, index, origin: rule.origin.clone() });
            }
        }
    }
    by
}

fn why_not(context: &Context<'_>, case: &Case<'_>, direction: Direction, policy: &NetworkPolicy) -> IsolatingPolicy {
    let rules = policy.rules(direction).unwrap_or_default();
    let rules = rules.iter().enumerate().map(|(index, rule)| rule_miss(context, case, direction, policy, index, rule)).collect();
    IsolatingPolicy { policy: reference(policy), rules }
}

fn rule_miss(context: &Context<'_>, case: &Case<'_>, direction: Direction, policy: &NetworkPolicy, index: usize, rule: &Rule) -> RuleMiss {
    let (_, peer_end) = case.sides(direction);
    let mut miss = RuleMiss { index, peers: Vec::new(), ports: Vec::new() };
    if context.peers(rule, &policy.namespace, &peer_end) == Match::No {
        for (index, peer) in rule.peers.iter().enumerate() {
            let mut failed = Vec::new();
            context.peer(peer, &policy.namespace, &peer_end, &mut failed);
            miss.peers.push(PeerMiss { index, failed });
        }
    }
    if context.ports(rule, case) == Match::No {
        for (index, port) in rule.ports.iter().enumerate() {
            let mut failed = Vec::new();
            context.port(port, case, &mut failed);
            miss.ports.push(PortMiss { index, wants: port.to_string(), failed });
        }
    }
    miss
}

/// How a reader finds a policy.
pub(super) fn reference(policy: &NetworkPolicy) -> PolicyRef {
    PolicyRef {
        kind: "NetworkPolicy",
        namespace: policy.namespace.clone(),
        name: policy.name.clone(),
        resource_version: policy.resource_version.clone(),
        origin: policy.origin.clone(),
    }
}

fn exempt_text(exempt: Exempt, direction: Direction) -> &'static str {
    match (exempt, direction) {
        (Exempt::External, Direction::Egress) => "the source is outside the cluster",
        (Exempt::External, Direction::Ingress) => "the destination is outside the cluster",
        (Exempt::Node, Direction::Egress) => "the source is a node or a pod in its node's network, which NetworkPolicies do not select",
        (Exempt::Node, Direction::Ingress) => {
            "the destination is a node or a pod in its node's network, which NetworkPolicies do not select"
        }
        (Exempt::Special, _) => "loopback, link-local, multicast and broadcast addresses are no peers of NetworkPolicies",
        (Exempt::Itself, _) => "a pod may always reach itself",
        (Exempt::OwnNode, _) => "a pod's own node may always reach it",
    }
}

fn doubt_text(doubt: Doubt, protocol: Protocol) -> &'static str {
    match doubt {
        Doubt::Missing(Unknown::Owner) => "it is not known, or not certain, which pod has the address",
        Doubt::Missing(Unknown::Port) => "the packet does not show its port (a later fragment), and the rules ask for ports",
        Doubt::Protocol if matches!(protocol, Protocol::Icmp | Protocol::Icmpv6) => {
            "policies isolate the pod, and what that means for ICMP is not defined by the API: implementations differ"
        }
        Doubt::Protocol => "policies isolate the pod, and the API speaks of TCP, UDP and SCTP only: implementations differ",
    }
}

fn names<'a>(pods: impl Iterator<Item = &'a Pod>) -> String {
    pods.map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect::<Vec<_>>().join(", ")
}

/// Whoever calls a Service looks its name up first: does the source reach the cluster's DNS?
fn dns_denied(context: &Context<'_>, connection: &Connection) -> Option<Remaining> {
    let service = context.index.service(DNS_SERVICE.0, DNS_SERVICE.1)?;
    if connection.service.as_ref().is_some_and(|call| call.port == Some(DNS_PORT)) {
        return None;
    }
    let port = service.ports.iter().find(|port| port.port == DNS_PORT && port.protocol == Protocol::Udp)?;
    let mut backends = context.index.backends(service, port).into_iter().peekable();
    backends.peek()?;
    let all_denied = backends.all(|(ip, port)| {
        let question = Connection {
            destination: party(ip, context.index),
            protocol: Protocol::Udp,
            port: Some(port),
            service: None,
            ..connection.clone()
        };
        context.settled(&question, &question.destination, Some(port), Direction::Egress) == Outcome::Denied
    });
    all_denied.then(|| Remaining::DnsDenied { service: format!("{}/{}", service.namespace, service.name) })
}
