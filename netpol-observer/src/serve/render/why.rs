//! Why the policies admit or deny a connection, for readers who do not know them: whole sentences, each rule with its file and line.

use super::command::commands;
use super::condition::{peer_conditions, port_conditions};
use super::explanation::{admits, remaining_sentence};
use super::rule::{does, place, policy, rule};
use super::text::Text;
use crate::cluster::{Direction, Tier};
use crate::policy::{Admission, DirectionExplanation, Explanation, Fix, IsolatingPolicy, NearMiss, RuleRef, TierOutcome, TierStep};

/// Rules shown per direction.
const RULES_SHOWN: usize = 5;
/// Policies without rules named.
const POLICIES_SHOWN: usize = 5;
/// Admitting rules named per direction.
const ADMITTING_SHOWN: usize = 3;

/// Writes both directions, what would mend them with the commands that do it, and what would still be in the way.
pub(super) fn write_why(text: &mut Text, explanation: &Explanation) {
    write(text, explanation, true);
}

/// The same for people who edit files: what would mend it, and in which file, without commands that change a cluster.
pub fn write_reasons(text: &mut Text, explanation: &Explanation) {
    write(text, explanation, false);
}

fn write(text: &mut Text, explanation: &Explanation, with_commands: bool) {
    for direction in [&explanation.egress, &explanation.ingress] {
        write_direction(text, direction);
    }
    for fix in &explanation.fixes {
        write_fix(text, fix, with_commands);
    }
    for remaining in &explanation.remaining {
        text.label("still");
        text.put(&remaining_sentence(remaining));
        text.newline();
    }
    for note in &explanation.notes {
        text.label("note");
        text.put(note);
        text.newline();
    }
}

fn write_direction(text: &mut Text, explained: &DirectionExplanation) {
    let label = match explained.direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    };
    let palette = text.palette();
    let (style, verdict) = match &explained.admission {
        Admission::NotSubject { .. } | Admission::NotIsolated | Admission::Allowed { .. } => (palette.fix, "allowed"),
        Admission::Denied { .. } => (palette.denied, "denied"),
        Admission::Undecided { .. } => (palette.dropped, "undecided"),
    };
    text.label(label);
    text.styled(style, verdict);
    text.put(": ");
    text.put(&sentence(explained));
    text.newline();
    // What leaves it open stands in the sentence already.
    let is_said = |step: &TierStep| match (&explained.admission, &step.outcome) {
        (Admission::Undecided { why }, TierOutcome::Undecided { why: again }) => why == again,
        _ => false,
    };
    for step in walked(&explained.tiers).filter(|step| !is_said(step)) {
        text.label(label);
        text.put(&format!("  {}", tier_sentence(step)));
        text.newline();
    }
    match &explained.admission {
        Admission::Denied { by, isolating, nearest } => {
            if by.is_none() {
                write_rules(text, explained.direction, isolating, nearest);
            } else if !nearest.is_empty() {
                write_misses(text, nearest);
            }
        }
        Admission::Allowed { by } => {
            for by in by.iter().skip(1).take(ADMITTING_SHOWN.saturating_sub(1)) {
                text.label(label);
                text.put(&format!("  so does {}{}", rule(by), place(by.origin.as_ref())));
                text.newline();
            }
            if by.len() > ADMITTING_SHOWN {
                text.label(label);
                text.put(&format!("  and {} more rules", by.len().saturating_sub(ADMITTING_SHOWN)));
                text.newline();
            }
        }
        _ => {}
    }
}

/// What was decided, by whom.
fn sentence(explained: &DirectionExplanation) -> String {
    let subject = explained.subject.as_deref().unwrap_or("the pod");
    let restricts = match explained.direction {
        Direction::Egress => format!("whom {subject} may call"),
        Direction::Ingress => format!("who may call {subject}"),
    };
    match &explained.admission {
        Admission::NotSubject { why } => format!("no policy applies here: {why}"),
        Admission::NotIsolated if walked(&explained.tiers).next().is_some() => {
            format!("no rule decides, and no NetworkPolicy restricts {restricts}; what nothing denies is allowed")
        }
        Admission::NotIsolated => format!("no policy restricts {restricts}"),
        Admission::Allowed { by } => match by.first() {
            Some(first) => format!("{} {}{}", rule(first), does(first), place(first.origin.as_ref())),
            None => format!("a rule admits it among those that restrict {restricts}"),
        },
        Admission::Denied { by: Some(by), .. } => format!("{} {}{}{}", rule(by), does(by), place(by.origin.as_ref()), rank(by, explained)),
        Admission::Denied { by: None, isolating, .. } => match isolating.as_slice() {
            [only] if only.rules.is_empty() => {
                format!(
                    "{}{} restricts {restricts}, and has no {} rule that admits anybody",
                    policy(&only.policy),
                    place(only.policy.origin.as_ref()),
                    explained.direction
                )
            }
            [only] => {
                let rules = if only.rules.len() == 1 {
                    "its only rule does not match".to_owned()
                } else {
                    format!("none of its {} rules matches", only.rules.len())
                };
                format!("{} restricts {restricts}, and {rules}", policy(&only.policy))
            }
            several => format!("{} NetworkPolicies restrict {restricts}, and no rule of theirs matches", several.len()),
        },
        Admission::Undecided { why } => why.clone(),
    }
}

/// What a Deny rule means for policies of the other tiers.
fn rank(by: &RuleRef, explained: &DirectionExplanation) -> String {
    let tier = explained.tiers.iter().find_map(|step| match &step.outcome {
        TierOutcome::Deny { by: Some(found) } if found == by => Some(step.tier),
        _ => None,
    });
    match tier {
        Some(Tier::Admin) => "; it comes before every NetworkPolicy, and none can overrule it".to_owned(),
        Some(Tier::Baseline) => {
            "; it is the default where no NetworkPolicy restricts the pod, and a NetworkPolicy would overrule it".to_owned()
        }
        _ => String::new(),
    }
}

/// The tiers that had something to say besides the one that decided.
fn walked(tiers: &[TierStep]) -> impl Iterator<Item = &TierStep> {
    tiers.iter().filter(|step| match &step.outcome {
        TierOutcome::NoMatch { .. } | TierOutcome::Pass { .. } => true,
        TierOutcome::Undecided { .. } => step.tier != Tier::NetworkPolicy,
        TierOutcome::NoPolicy | TierOutcome::Accept { .. } | TierOutcome::Deny { .. } => false,
    })
}

fn tier_sentence(step: &TierStep) -> String {
    let tier = match step.tier {
        Tier::Admin => "Admin tier, asked first",
        Tier::NetworkPolicy => "NetworkPolicies",
        Tier::Baseline => "Baseline tier, asked last",
    };
    match &step.outcome {
        TierOutcome::NoPolicy => format!("{tier}: no policy selects the pod"),
        TierOutcome::NoMatch { policies: 1 } => format!("{tier}: 1 policy selects the pod, and no rule of it matches"),
        TierOutcome::NoMatch { policies } => format!("{tier}: {policies} policies select the pod, and no rule of theirs matches"),
        TierOutcome::Pass { by } | TierOutcome::Accept { by } | TierOutcome::Deny { by: Some(by) } => {
            format!("{tier}: {} {}{}", rule(by), does(by), place(by.origin.as_ref()))
        }
        TierOutcome::Deny { by: None } => format!("{tier}: none admits it"),
        TierOutcome::Undecided { why } => format!("{tier}: {why}"),
    }
}

/// The rules of the policies that restrict the pod, the nearest first, and the policies that have none.
fn write_rules(text: &mut Text, direction: Direction, isolating: &[IsolatingPolicy], nearest: &[NearMiss]) {
    write_misses(text, nearest);
    let without: Vec<&IsolatingPolicy> = isolating.iter().filter(|isolating| isolating.rules.is_empty()).collect();
    // A single policy was named before.
    if isolating.len() == 1 {
        return;
    }
    for empty in without.iter().take(POLICIES_SHOWN) {
        text.label("nearest");
        text.put(&format!("{}{} has no {direction} rule: it admits nobody", policy(&empty.policy), place(empty.policy.origin.as_ref())));
        text.newline();
    }
    if without.len() > POLICIES_SHOWN {
        text.label("nearest");
        text.put(&format!("and {} more policies without {direction} rules", without.len().saturating_sub(POLICIES_SHOWN)));
        text.newline();
    }
}

fn write_misses(text: &mut Text, nearest: &[NearMiss]) {
    for near in nearest.iter().take(RULES_SHOWN) {
        text.label("nearest");
        text.put(&format!("{}{}", rule(&near.rule), place(near.rule.origin.as_ref())));
        text.newline();
        let list = match near.rule.direction {
            Direction::Ingress => "from ",
            Direction::Egress => "to   ",
        };
        if !near.peer.is_empty() {
            text.label("nearest");
            text.put(&format!("  {list} {}", peer_conditions(&near.peer)));
            text.newline();
        }
        if let Some(port) = &near.port {
            text.label("nearest");
            text.put(&format!("  ports {}", port_conditions(port)));
            text.newline();
        }
    }
    if nearest.len() > RULES_SHOWN {
        text.label("nearest");
        text.put(&format!("and {} more rules that are farther off", nearest.len().saturating_sub(RULES_SHOWN)));
        text.newline();
    }
}

fn write_fix(text: &mut Text, fix: &Fix, with_commands: bool) {
    let palette = text.palette();
    text.label("fix");
    let change = match &fix.policy {
        Some(at) if with_commands => format!("{}: {}", policy(at), fix.change),
        Some(at) => format!("{}{}: {}", policy(at), place(at.origin.as_ref()), fix.change),
        None => fix.change.clone(),
    };
    text.styled(palette.fix, &change);
    text.newline();
    let admits = admits(&fix.newly_admits);
    if !admits.is_empty() {
        text.label("fix");
        text.put(&admits);
        text.newline();
    }
    if !with_commands {
        return;
    }
    // As it is, so that it can be copied: no label, no column.
    for line in commands(fix) {
        text.put(&line);
        text.newline();
    }
}
