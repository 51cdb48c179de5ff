//! What is wrong with a connection, in a sentence.

use crate::cluster::{Direction, Origin};
use crate::policy::{Admission, DirectionExplanation, Explanation, PolicyRef, RuleRef, Ruling, Verdict};

/// What decided on a connection.
pub(super) struct Decision {
    /// `is denied: no ingress rule of NetworkPolicy shop/api admits it`
    pub(super) message: String,
    pub(super) policy: Option<PolicyRef>,
    pub(super) origin: Option<Origin>,
}

/// What decided, from an explanation.
pub(super) fn decision(explanation: &Explanation) -> Decision {
    let directions = [&explanation.egress, &explanation.ingress];
    match explanation.verdict {
        Verdict::Deny => denied(directions),
        Verdict::Allow => admitted(directions),
        Verdict::Undecided => {
            let why = directions.iter().find_map(|direction| match &direction.admission {
                Admission::Undecided { why } => Some(why.as_str()),
                _ => None,
            });
            let message = format!("cannot be decided: {}", why.unwrap_or("the pods that may be meant differ"));
            Decision { message, policy: None, origin: None }
        }
    }
}

fn denied(directions: [&DirectionExplanation; 2]) -> Decision {
    let mut parts = Vec::new();
    let (mut policy, mut origin) = (None, None);
    for explained in directions {
        let Admission::Denied { by, isolating, nearest } = &explained.admission else { continue };
        let direction = explained.direction;
        match by {
            Some(rule) => {
                parts.push(format!("{rule} denies it"));
                policy = policy.or_else(|| Some(rule.policy.clone()));
                origin = origin.or_else(|| rule.place().cloned());
            }
            None => {
                let names: Vec<String> = isolating.iter().map(|isolating| isolating.policy.to_string()).collect();
                parts.push(format!("no {direction} rule of {} admits it", names.join(", ")));
                let first = nearest.first().map(|near| &near.rule.policy).or(isolating.first().map(|isolating| &isolating.policy));
                policy = policy.or_else(|| first.cloned());
                let near = nearest.first().and_then(|near| near.rule.origin.clone());
                origin = origin.or(near).or_else(|| first.and_then(|policy| policy.origin.clone()));
            }
        }
    }
    Decision { message: format!("is denied: {}", parts.join("; ")), policy, origin }
}

fn admitted(directions: [&DirectionExplanation; 2]) -> Decision {
    let mut parts = Vec::new();
    let mut rules: Vec<&RuleRef> = Vec::new();
    for explained in directions {
        match &explained.admission {
            Admission::Allowed { by } if !by.is_empty() => {
                let names: Vec<String> = by.iter().map(ToString::to_string).collect();
                parts.push(format!("by {}", names.join(", ")));
                rules.extend(by);
            }
            Admission::NotSubject { why } => parts.push(format!("for {}: {why}", explained.direction)),
            _ => parts.push(format!(
                "no policy isolates {} for {}",
                explained.subject.as_deref().unwrap_or("the other side"),
                explained.direction
            )),
        }
    }
    // Those of the side that is called say who may call.
    let rule = rules.iter().rev().find(|rule| rule.direction == Direction::Ingress).or(rules.first()).copied();
    Decision {
        message: format!("is admitted: {}", parts.join("; ")),
        policy: rule.map(|rule| rule.policy.clone()),
        origin: rule.and_then(|rule| rule.place().cloned()),
    }
}

/// The policies that decided: those that admit, or those that deny.
pub(super) fn deciding(rulings: &[Ruling; 2], verdict: Verdict) -> Vec<&PolicyRef> {
    let mut found: Vec<&PolicyRef> = Vec::new();
    for ruling in rulings {
        match (ruling, verdict) {
            (Ruling::Admitted { by }, Verdict::Allow) => found.extend(by.iter().map(|rule| &rule.policy)),
            (Ruling::Denied { by, isolating }, Verdict::Deny) => {
                found.extend(by.iter().map(|rule| &rule.policy));
                found.extend(isolating);
            }
            _ => {}
        }
    }
    found.dedup();
    found
}
