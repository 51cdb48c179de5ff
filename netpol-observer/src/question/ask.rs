//! A question → the engine's answers.

use super::Question;
use super::answer::{Answer, Link, Path, Step};
use super::error::QuestionError;
use super::find::{Destination, Member};
use super::group::{Connections, common};
use super::plan::{DNS, Plan, plan};
use super::service::called;
use crate::cluster::{Direction, Index, PortNumber};
use crate::flow::Protocol;
use crate::identify::Identity;
use crate::policy::{Admission, DirectionExplanation, Engine, Explanation, Remaining, RuleRef, TierOutcome, Verdict};

/// Whether it works, without reasons: the verdict that [`explain`] gives.
///
/// # Errors
/// The question asks for what is not there.
pub fn verdict(question: &Question, engine: &Engine) -> Result<Verdict, QuestionError> {
    let plan = plan(question, engine.index())?;
    if plan.is_unknown_name {
        return explain(question, engine).map(|answer| answer.verdict);
    }
    let mut verdicts = Vec::with_capacity(3);
    if plan.looks_up
        && let Some(dns) = Dns::of(&plan, engine.index())
        && dns.unchecked.is_none()
    {
        verdicts.extend(dns.connections(&plan.sources, 0).verdict(engine));
    }
    verdicts.extend(plan.aliases.iter().filter_map(alias_verdict));
    if plan.service.as_ref().is_some_and(|service| service.problem.is_some()) {
        verdicts.push(Verdict::Undecided);
    } else {
        verdicts.push(plan.connections().verdict(engine).ok_or_else(|| no_family(question))?);
    }
    Ok(all(verdicts))
}

/// Whether it works, and why: every link of the chain.
///
/// # Errors
/// The question asks for what is not there.
pub fn explain(question: &Question, engine: &Engine) -> Result<Answer, QuestionError> {
    let index = engine.index();
    let plan = plan(question, index)?;
    let mut chain = Vec::new();
    let mut notes: Vec<String> = Vec::new();
    let ends = plan.sources.iter().chain(plan.destinations.iter().map(|(member, _)| member));
    for note in ends.filter_map(|member| member.note.as_ref()) {
        if !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    if plan.looks_up
        && let Some(dns) = Dns::of(&plan, index)
    {
        chain.push(dns.link(&plan.sources, engine, &mut notes)?);
    }
    let has_dns = !chain.is_empty();
    for alias in &plan.aliases {
        chain.push(Link { verdict: alias_verdict(alias).unwrap_or(Verdict::Allow), step: alias.clone() });
    }
    let mut works = true;
    if let Some(service) = &plan.service {
        works = service.problem.is_none();
        chain.push(Link { verdict: if works { Verdict::Allow } else { Verdict::Undecided }, step: Step::Service(service.clone()) });
    }
    if works && !plan.destinations.is_empty() {
        let mut paths = plan.connections().paths(engine)?;
        for path in &mut paths {
            if plan.is_unknown_name {
                without_address(path, index);
            }
            if has_dns {
                // The link before says it better.
                path.explanation.remaining.retain(|remaining| !matches!(remaining, Remaining::DnsDenied { .. }));
            }
        }
        let verdict = common(&paths).ok_or_else(|| no_family(question))?;
        chain.push(Link { verdict, step: Step::Connection { paths } });
    }
    Ok(Answer {
        from: question.from.to_string(),
        to: question.to.to_string(),
        port: plan.port,
        protocol: plan.protocol,
        verdict: all(chain.iter().map(|link| link.verdict)),
        chain,
        notes,
    })
}

impl Plan {
    fn connections(&self) -> Connections<'_> {
        Connections { sources: &self.sources, destinations: &self.destinations, protocol: self.protocol, call: self.call.as_ref() }
    }
}

/// All links must work.
fn all(verdicts: impl IntoIterator<Item = Verdict>) -> Verdict {
    verdicts.into_iter().fold(Verdict::Allow, |all, next| match (all, next) {
        (Verdict::Deny, _) | (_, Verdict::Deny) => Verdict::Deny,
        (Verdict::Undecided, _) | (_, Verdict::Undecided) => Verdict::Undecided,
        _ => Verdict::Allow,
    })
}

/// A name that is known to have no address leads nowhere, and no policy is to blame.
fn alias_verdict(step: &Step) -> Option<Verdict> {
    match step {
        Step::Name { addresses: Some(addresses), .. } if addresses.is_empty() => Some(Verdict::Undecided),
        _ => None,
    }
}

fn no_family(question: &Question) -> QuestionError {
    let message = format!("{} and {} have no address of the same family: one is IPv4, the other IPv6", question.from, question.to);
    QuestionError::new(message).hint("no connection between them is possible")
}

/// The endpoints of the cluster's DNS.
struct Dns {
    service: String,
    unchecked: Option<String>,
    /// Over UDP and over TCP.
    destinations: [(Protocol, Vec<Destination>); 2],
}

impl Dns {
    /// None where no lookup is made by a pod, or where it is the DNS itself that is called.
    fn of(plan: &Plan, index: &Index) -> Option<Self> {
        let (namespace, name, port) = DNS;
        let service = format!("{namespace}/{name}");
        let is_pod = |member: &Member| matches!(member.identity, Identity::Pod(_));
        if !plan.sources.iter().any(is_pod) || plan.service.as_ref().is_some_and(|called| called.service == service) {
            return None;
        }
        let mut dns = Dns { service, unchecked: None, destinations: [(Protocol::Udp, Vec::new()), (Protocol::Tcp, Vec::new())] };
        match index.service(namespace, name) {
            Some(found) => {
                for (protocol, destinations) in &mut dns.destinations {
                    *destinations = called(found, None, Some(port), *protocol, index).destinations;
                }
                if dns.destinations.iter().any(|(protocol, found)| *protocol == Protocol::Udp && found.is_empty()) {
                    dns.unchecked = Some(format!("the manifests hold no ready pod behind Service {}", dns.service));
                }
            }
            None => dns.unchecked = Some(format!("the manifests hold no Service {}", dns.service)),
        }
        Some(dns)
    }

    fn connections<'a>(&'a self, sources: &'a [Member], at: usize) -> Connections<'a> {
        let (protocol, destinations) = match self.destinations.get(at) {
            Some((protocol, destinations)) => (*protocol, destinations.as_slice()),
            None => (Protocol::Udp, [].as_slice()),
        };
        Connections { sources, destinations, protocol, call: None }
    }

    /// Lookups go over UDP; only answers that are too long for it are asked for again over TCP.
    fn link(&self, sources: &[Member], engine: &Engine, notes: &mut Vec<String>) -> Result<Link, QuestionError> {
        if let Some(why) = &self.unchecked {
            let step = Step::Dns { service: self.service.clone(), paths: Vec::new(), unchecked: Some(why.clone()) };
            return Ok(Link { verdict: Verdict::Allow, step });
        }
        let mut paths = self.connections(sources, 0).paths(engine)?;
        let verdict = common(&paths).unwrap_or(Verdict::Allow);
        let over_tcp = self.connections(sources, 1).paths(engine)?;
        if verdict == Verdict::Allow && common(&over_tcp).is_some_and(|verdict| verdict != Verdict::Allow) {
            notes.push(format!(
                "the cluster's DNS (Service {}) may be asked over UDP and not over TCP: lookups whose answers are too long for UDP fail",
                self.service
            ));
        }
        paths.extend(over_tcp);
        Ok(Link { verdict, step: Step::Dns { service: self.service.clone(), paths, unchecked: None } })
    }
}

/// The engine was asked about a name without knowing its addresses: its answer holds where no rule looks at the address.
fn without_address(path: &mut Path, index: &Index) {
    let explanation = &mut path.explanation;
    if explanation.egress.subject.is_none() && matches!(explanation.egress.admission, Admission::NotSubject { .. }) {
        return;
    }
    let name = path.to.first().cloned().unwrap_or_default();
    let unknown = format!("the addresses of {name} are not known, and rules for its connections name addresses");
    if holds_for_any_address(&explanation.egress, index) {
        if explanation.verdict == Verdict::Deny {
            explanation.fixes.clear();
            explanation.remaining = vec![Remaining::NoFix {
                direction: Direction::Egress,
                why: format!("the addresses of {name} are not known; give them with --domain-names"),
            }];
        }
        return;
    }
    let direction = |old: &DirectionExplanation, admission| DirectionExplanation { admission, ..old.clone() };
    *explanation = Explanation {
        verdict: Verdict::Undecided,
        egress: direction(&explanation.egress, Admission::Undecided { why: unknown }),
        ingress: explanation.ingress.clone(),
        fixes: Vec::new(),
        remaining: Vec::new(),
        notes: vec![format!("give the addresses with --domain-names FILE, a JSON object such as {{\"{name}\": [\"203.0.113.7\"]}}")],
    };
    path.verdict = Verdict::Undecided;
}

fn holds_for_any_address(egress: &DirectionExplanation, index: &Index) -> bool {
    let no_other_tier = match egress.tiers.as_slice() {
        [] => index.cluster_policies().next().is_none(),
        tiers => tiers.iter().all(|step| step.tier == crate::cluster::Tier::NetworkPolicy || step.outcome == TierOutcome::NoPolicy),
    };
    no_other_tier
        && match &egress.admission {
            Admission::NotSubject { .. } | Admission::NotIsolated => true,
            Admission::Allowed { by } => by.iter().any(|rule| takes_any_peer(rule, index)),
            Admission::Denied { by: None, isolating, .. } => isolating.iter().flat_map(|isolating| &isolating.rules).all(|rule| {
                let selects_pods = |failed: &[crate::policy::Condition]| {
                    failed.iter().any(|condition| matches!(condition, crate::policy::Condition::NotAPod { .. }))
                };
                !rule.ports.is_empty() || rule.peers.iter().all(|peer| selects_pods(&peer.failed))
            }),
            Admission::Denied { .. } | Admission::Undecided { .. } => false,
        }
}

fn takes_any_peer(rule: &RuleRef, index: &Index) -> bool {
    let policy = index.policy(&rule.policy.namespace, &rule.policy.name);
    let found = policy.and_then(|policy| policy.rules(rule.direction)).and_then(|rules| rules.get(rule.index));
    found.is_some_and(|rule| rule.peers.is_empty() && !rule.ports.iter().any(|port| matches!(port.port, PortNumber::Invalid(_))))
}
