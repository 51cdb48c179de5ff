//! From a verdict to its reasons: `misses` names every condition that failed, `near` orders the rules, `service` looks at all endpoints,
//! `words` says in sentences what is no rule's doing.

mod misses;
mod near;
mod ruling;
mod service;
mod words;

pub(in crate::policy) use ruling::ruling;

use std::collections::BTreeSet;

use crate::cluster::Direction;
use crate::identify::{Identity, Party, party};

use super::connection::{Case, Connection};
use super::evaluate::matching::{Match, Unknown};
use super::evaluate::walk::{By, Doubt, Outcome, Possible, RuleOf, Said, Walk};
use super::evaluate::{Changed, View};
use super::explanation::{Admission, DirectionExplanation, Explanation, Fix, Remaining, RuleRef, TierOutcome, TierStep, Verdict};
use super::fix::{self, Kept};

/// Whether a new connection would be admitted.
pub(in crate::policy) fn verdict(view: &View<'_>, connection: &Connection) -> Verdict {
    match &connection.destination.identity {
        Identity::Service(_) => {
            let backends = connection.service.iter().flat_map(|call| &call.backends);
            let verdicts = backends.map(|&(ip, port)| view.verdict(connection, &party(ip, view.index), Some(port)));
            agreed(verdicts).unwrap_or(Verdict::Undecided)
        }
        _ => view.verdict(connection, &connection.destination, connection.port),
    }
}

/// Whether a new connection would be admitted, and why.
pub(in crate::policy) fn explain(view: &View<'_>, kept: &Kept, connection: &Connection) -> Explanation {
    let mut explanation = match &connection.destination.identity {
        Identity::Service(called) => service::explain(view, kept, connection, called),
        _ => to_party(view, kept, connection, &connection.destination, connection.port),
    };
    if let Some(call) = &connection.service {
        service::complete(view, connection, call, &mut explanation);
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
pub(in crate::policy) fn agreed(mut verdicts: impl Iterator<Item = Verdict>) -> Option<Verdict> {
    let first = verdicts.next()?;
    Some(if verdicts.all(|verdict| verdict == first) { first } else { Verdict::Undecided })
}

impl View<'_> {
    /// Both directions towards one definite destination. Where an address may belong to several, every pair of readings is judged.
    pub(in crate::policy) fn verdict(&self, connection: &Connection, destination: &Party, port: Option<u16>) -> Verdict {
        let each = |case: Case<'_>| combine(Direction::BOTH.map(|direction| self.judge(&case, direction).admits()));
        agreed(Case::all(connection, destination, port).map(each)).unwrap_or(Verdict::Undecided)
    }

    /// One direction over all that the two sides may be: their common outcome, with the walk of the first.
    fn settled<'a>(&'a self, cases: &[Case<'a>], direction: Direction) -> Option<Walk<'a>> {
        let mut walks = cases.iter().map(|case| self.walk(case, direction));
        let mut settled = walks.next()?;
        if walks.any(|walk| walk.outcome.admits() != settled.outcome.admits()) {
            settled.outcome = Outcome::Undecided(Doubt::Missing(Unknown::Owner));
        }
        Some(settled)
    }
}

/// The explanation for one definite destination.
pub(in crate::policy) fn to_party(
    view: &View<'_>,
    kept: &Kept,
    connection: &Connection,
    destination: &Party,
    port: Option<u16>,
) -> Explanation {
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
        let (subject, peer) = match direction {
            Direction::Egress => (&connection.source, destination),
            Direction::Ingress => (destination, &connection.source),
        };
        let mut explained = DirectionExplanation {
            direction,
            subject: subject.identity.pod().map(|pod| format!("{}/{}", pod.namespace, pod.name)),
            tiers: Vec::new(),
            admission: Admission::NotIsolated,
        };
        if let Some(walk) = view.settled(&cases, direction) {
            let sides = [subject, peer];
            explained.tiers = walk.tiers().map(|said| step(said, case, direction, sides)).collect();
            explained.admission = admission(view, case, direction, walk.outcome, sides);
            notes.extend(words::notes(view, case, direction, &walk));
        }
        explained
    });
    if case.is_loop() && connection.service.is_some() {
        notes.push("a pod calling itself through its Service: whether policies apply depends on the CNI plugin".to_owned());
    }
    let (fixes, remaining) = fixes(view, kept, &cases, [&egress, &ingress]);
    let verdict = match cases.as_slice() {
        [_] => combine([admits(&egress.admission), admits(&ingress.admission)]),
        _ => view.verdict(connection, destination, port),
    };
    let is_open = |explained: &DirectionExplanation| matches!(explained.admission, Admission::Undecided { .. });
    if verdict == Verdict::Deny && is_open(&egress) && is_open(&ingress) {
        notes.push("whoever has the address, the call is denied: in one direction or in the other".to_owned());
    }
    // One policy may isolate both sides, or the same side in both directions.
    let mut told = BTreeSet::new();
    notes.retain(|note| told.insert(note.clone()));
    Explanation { verdict, egress, ingress, fixes, remaining, notes }
}

/// The smallest fix of each direction that denies. Both may edit one policy: the second starts from the first, so that applying it does
/// not undo that one.
fn fixes(view: &View<'_>, kept: &Kept, cases: &[Case<'_>], directions: [&DirectionExplanation; 2]) -> (Vec<Fix>, Vec<Remaining>) {
    let (mut fixes, mut remaining) = (Vec::new(), Vec::new());
    let mut changed: Vec<Changed> = view.changed.to_vec();
    for explained in directions {
        if let Admission::Denied { by, nearest, .. } = &explained.admission {
            match fix::smallest(&View { changed: &changed, ..*view }, kept, cases, explained.direction, by.as_ref(), nearest) {
                Ok((fix, edit)) => {
                    fixes.push(fix);
                    changed.extend(edit);
                }
                Err(why) => remaining.push(Remaining::NoFix { direction: explained.direction, why }),
            }
        }
    }
    (fixes, remaining)
}

pub(in crate::policy) fn undecided(why: &str) -> Explanation {
    let [egress, ingress] = Direction::BOTH.map(|direction| DirectionExplanation {
        direction,
        subject: None,
        tiers: Vec::new(),
        admission: Admission::Undecided { why: why.to_owned() },
    });
    Explanation { verdict: Verdict::Undecided, egress, ingress, fixes: Vec::new(), remaining: Vec::new(), notes: Vec::new() }
}

fn step(said: &Said<'_>, case: &Case<'_>, direction: Direction, sides: [&Party; 2]) -> TierStep {
    let by = said.by.map(|by| match by {
        RuleOf::NetworkPolicy(policy, index) => RuleRef::of(policy, direction, index),
        RuleOf::Cluster(policy, index) => RuleRef::of_cluster(policy, direction, index),
    });
    let outcome = match (said.possible, by) {
        (Possible::NONE, _) if said.policies == 0 => TierOutcome::NoPolicy,
        (Possible::NONE, _) => TierOutcome::NoMatch { policies: said.policies },
        (Possible::PASS, Some(by)) => TierOutcome::Pass { by },
        (Possible::ACCEPT, Some(by)) => TierOutcome::Accept { by },
        (Possible::DENY, by) => TierOutcome::Deny { by },
        _ => {
            let doubt = said.doubt.unwrap_or(Doubt::Missing(Unknown::Owner));
            TierOutcome::Undecided { why: words::doubt(doubt, case.protocol, sides) }
        }
    };
    TierStep { tier: said.tier, outcome }
}

fn admits(admission: &Admission) -> Option<bool> {
    match admission {
        Admission::NotSubject { .. } | Admission::NotIsolated | Admission::Allowed { .. } => Some(true),
        Admission::Denied { .. } => Some(false),
        Admission::Undecided { .. } => None,
    }
}

fn admission(view: &View<'_>, case: &Case<'_>, direction: Direction, outcome: Outcome<'_>, sides: [&Party; 2]) -> Admission {
    match outcome {
        Outcome::NotSubject(exempt) => Admission::NotSubject { why: words::exempt(exempt, direction).to_owned() },
        Outcome::NotIsolated => Admission::NotIsolated,
        Outcome::Allowed(By::Profile) => Admission::Allowed { by: Vec::new() },
        Outcome::Allowed(By::Rule(policy, index)) => Admission::Allowed { by: vec![RuleRef::of_cluster(policy, direction, index)] },
        Outcome::Allowed(By::NetworkPolicies) => Admission::Allowed { by: admitting(view, case, direction) },
        Outcome::Denied(By::Rule(policy, index)) => Admission::Denied {
            by: Some(RuleRef::of_cluster(policy, direction, index)),
            isolating: Vec::new(),
            nearest: near::before(view, case, direction, (policy, index)),
        },
        Outcome::Denied(By::NetworkPolicies | By::Profile) => {
            let isolating = misses::isolating(view, case, direction);
            let nearest = near::order(&isolating, direction);
            Admission::Denied { by: None, isolating, nearest }
        }
        Outcome::Undecided(doubt) => Admission::Undecided { why: words::doubt(doubt, case.protocol, sides) },
    }
}

/// All NetworkPolicy rules that admit the connection.
fn admitting(view: &View<'_>, case: &Case<'_>, direction: Direction) -> Vec<RuleRef> {
    let Some(subject) = case.sides(direction).0.pod() else { return Vec::new() };
    let mut by = Vec::new();
    for policy in view.isolating(subject, direction) {
        for (index, rule) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
            if view.rule(rule, &policy.namespace, direction, case) == Match::Yes {
                by.push(RuleRef::of(policy, direction, index));
            }
        }
    }
    by
}
