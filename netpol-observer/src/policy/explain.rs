//! From a verdict to its reasons.

use crate::cluster::{Direction, Index, NetworkPolicy, Rule, Service};
use crate::flow::Protocol;
use crate::identify::{Identity, Party, ServiceCall, party};

use super::connection::{Case, Connection, Profile};
use super::evaluate::{Doubt, Outcome};
use super::explanation::{
    Admission, DirectionExplanation, Explanation, IsolatingPolicy, PeerMiss, PolicyRef, PortMiss, Remaining, RuleMiss, RuleRef, Verdict,
};
use super::matching::{Context, Match, Unknown};
use super::{fix, near, words};

/// Name and namespace of the Service that nearly every cluster has its DNS behind, whatever serves it.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");
const DNS_PORT: u16 = 53;

/// Denied endpoints of a Service that a note names; of more it gives the number only.
const NAMED_ENDPOINTS: usize = 5;

/// Whether a new connection would be admitted.
pub fn verdict(connection: &Connection, index: &Index, profile: &Profile) -> Verdict {
    let context = Context { index, profile };
    match &connection.destination.identity {
        Identity::Service(_) => {
            let backends = connection.service.iter().flat_map(|call| &call.backends);
            let verdicts = backends.map(|&(ip, port)| context.verdict(connection, &party(ip, index), Some(port)));
            agreed(verdicts).unwrap_or(Verdict::Undecided)
        }
        _ => context.verdict(connection, &connection.destination, connection.port),
    }
}

/// Whether a new connection would be admitted, and why.
pub fn explain(connection: &Connection, index: &Index, profile: &Profile) -> Explanation {
    let context = Context { index, profile };
    let mut explanation = match &connection.destination.identity {
        Identity::Service(service) => match &connection.service {
            Some(call) if !call.backends.is_empty() => over_backends(&context, connection, call),
            _ => nothing_behind(connection, &service_name(service)),
        },
        _ => to_party(&context, connection, &connection.destination, connection.port),
    };
    if let Some(call) = &connection.service {
        if call.backends.is_empty() {
            let service = service_name(&call.service);
            let already = |remaining: &Remaining| matches!(remaining, Remaining::ServiceWithoutEndpoints { .. });
            if !explanation.remaining.iter().any(already) {
                explanation.remaining.push(Remaining::ServiceWithoutEndpoints { service });
            }
        }
        if call.service.external_ips.contains(&call.ip) {
            explanation.notes.push(format!(
                "called by the external address {}: source possibly rewritten on the way, and then policies see a node's address",
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
    /// Both directions towards one definite destination.
    fn verdict(&self, connection: &Connection, destination: &Party, port: Option<u16>) -> Verdict {
        combine(Direction::BOTH.map(|direction| self.settled(connection, destination, port, direction).admits()))
    }

    /// One direction over all that the two sides may be: their common outcome.
    fn settled(&self, connection: &Connection, destination: &Party, port: Option<u16>, direction: Direction) -> Outcome {
        let mut result: Option<Outcome> = None;
        for case in Case::all(connection, destination, port) {
            let outcome = self.judge(&case, direction);
            match result {
                Some(before) if before.admits() != outcome.admits() => return Outcome::Undecided(Doubt::Missing(Unknown::Owner)),
                Some(_) => {}
                None => result = Some(outcome),
            }
        }
        result.unwrap_or(Outcome::Undecided(Doubt::Missing(Unknown::Owner)))
    }
}

/// The explanation for one definite destination.
fn to_party(context: &Context<'_>, connection: &Connection, destination: &Party, port: Option<u16>) -> Explanation {
    let cases: Vec<Case<'_>> = Case::all(connection, destination, port).collect();
    let Some(case) = cases.first() else {
        return undecided("an address is claimed by pods of which none is known");
    };
    let mut notes = Vec::new();
    for side in [&connection.source, destination] {
        if let Identity::AmbiguousPods(pods) = &side.identity {
            notes.push(format!("{} is claimed by several pods: {}", side.ip, words::names(pods)));
        }
    }
    let [egress, ingress] = Direction::BOTH.map(|direction| {
        let outcome = context.settled(connection, destination, port, direction);
        notes.extend(words::notes(context, case, direction, outcome));
        let (subject, peer) = match direction {
            Direction::Egress => (&connection.source, destination),
            Direction::Ingress => (destination, &connection.source),
        };
        DirectionExplanation {
            direction,
            subject: subject.identity.pod().map(|pod| format!("{}/{}", pod.namespace, pod.name)),
            tiers: Vec::new(),
            admission: admission(context, case, direction, outcome, [subject, peer]),
        }
    });
    if case.is_loop() && connection.service.is_some() {
        notes.push("a pod calling itself through its Service: whether policies apply depends on the CNI plugin".to_owned());
    }
    let (mut fixes, mut remaining) = (Vec::new(), Vec::new());
    // Both fixes may edit one policy. The second starts from the first, so that applying it does not undo that one.
    let mut fixed = context.index.clone();
    for explained in [&egress, &ingress] {
        if let Admission::Denied { nearest, .. } = &explained.admission {
            let found = fix::smallest(&Context { index: &fixed, profile: context.profile }, &cases, explained.direction, nearest);
            match found {
                Ok((fix, policy)) => {
                    fixes.push(fix);
                    fixed.apply(policy);
                }
                Err(why) => remaining.push(Remaining::NoFix { direction: explained.direction, why }),
            }
        }
    }
    let verdict = combine([admits(&egress.admission), admits(&ingress.admission)]);
    // One policy may isolate both sides, or the same side in both directions.
    let mut told = std::collections::BTreeSet::new();
    notes.retain(|note| told.insert(note.clone()));
    Explanation { verdict, egress, ingress, fixes, remaining, notes }
}

fn admits(admission: &Admission) -> Option<bool> {
    match admission {
        Admission::NotSubject { .. } | Admission::NotIsolated | Admission::Allowed { .. } => Some(true),
        Admission::Denied { .. } => Some(false),
        Admission::Undecided { .. } => None,
    }
}

/// A call to a Service that was not translated yet: it may go to any backend. All are judged, one is explained.
fn over_backends(context: &Context<'_>, connection: &Connection, call: &ServiceCall) -> Explanation {
    let name = service_name(&call.service);
    let judged: Vec<(Party, u16, Verdict)> = call
        .backends
        .iter()
        .map(|&(ip, port)| {
            let backend = party(ip, context.index);
            let verdict = context.verdict(connection, &backend, Some(port));
            (backend, port, verdict)
        })
        .collect();
    let of = |wanted: Verdict| judged.iter().filter(move |(_, _, verdict)| *verdict == wanted);
    // Where the endpoints differ, the denied one is what there is to explain.
    let shown = of(Verdict::Deny).chain(of(Verdict::Undecided)).next().or(judged.first());
    let Some((backend, port, _)) = shown else { return nothing_behind(connection, &name) };
    let mut explanation = to_party(context, connection, backend, Some(*port));
    explanation.verdict = agreed(judged.iter().map(|(_, _, verdict)| *verdict)).unwrap_or(explanation.verdict);
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

fn undecided(why: &str) -> Explanation {
    let [egress, ingress] = Direction::BOTH.map(|direction| DirectionExplanation {
        direction,
        subject: None,
        tiers: Vec::new(),
        admission: Admission::Undecided { why: why.to_owned() },
    });
    Explanation { verdict: Verdict::Undecided, egress, ingress, fixes: Vec::new(), remaining: Vec::new(), notes: Vec::new() }
}

fn admission(context: &Context<'_>, case: &Case<'_>, direction: Direction, outcome: Outcome, sides: [&Party; 2]) -> Admission {
    let subject = context.subject(case, direction).ok();
    let isolating = || -> Vec<&NetworkPolicy> {
        subject.map(|pod| context.isolating(pod, direction).map(|policy| &**policy).collect()).unwrap_or_default()
    };
    match outcome {
        Outcome::NotSubject(exempt) => Admission::NotSubject { why: words::exempt(exempt, direction).to_owned() },
        Outcome::NotIsolated => Admission::NotIsolated,
        Outcome::Allowed => Admission::Allowed { by: admitting(context, case, direction, &isolating()) },
        Outcome::Denied => {
            let isolating = isolating();
            let explained: Vec<IsolatingPolicy> = isolating.iter().map(|policy| why_not(context, case, direction, policy)).collect();
            let nearest = near::order(&explained, direction, &isolating);
            Admission::Denied { by: None, isolating: explained, nearest }
        }
        Outcome::Undecided(doubt) => Admission::Undecided { why: words::doubt(doubt, case.protocol, sides) },
    }
}

fn admitting(context: &Context<'_>, case: &Case<'_>, direction: Direction, isolating: &[&NetworkPolicy]) -> Vec<RuleRef> {
    let mut by = Vec::new();
    for policy in isolating {
        for (index, rule) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
            if context.rule(rule, &policy.namespace, direction, case) == Match::Yes {
                by.push(RuleRef::of(policy, direction, index));
            }
        }
    }
    by
}

fn why_not(context: &Context<'_>, case: &Case<'_>, direction: Direction, policy: &NetworkPolicy) -> IsolatingPolicy {
    let rules = policy.rules(direction).unwrap_or_default();
    let rules = rules.iter().enumerate().map(|(index, rule)| rule_miss(context, case, direction, policy, index, rule)).collect();
    IsolatingPolicy { policy: PolicyRef::of(policy), rules }
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
    all_denied.then(|| Remaining::DnsDenied { service: service_name(service) })
}
