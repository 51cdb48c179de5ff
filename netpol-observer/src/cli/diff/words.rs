//! What makes a difference, and how many there are, in words.

use crate::cluster::{Direction, Origin};
use crate::compare::{Comparison, ObjectChange, SeenChange, What};
use crate::policy::{Cause, PolicyRef, RuleRef, Ruling};

/// Rules and policies that are named of one ruling.
const NAMED: usize = 3;

/// A cause, as what was and what is.
pub(super) struct CauseWords {
    pub(super) direction: Direction,
    pub(super) before: String,
    pub(super) after: String,
}

pub(super) fn cause(cause: &Cause) -> CauseWords {
    CauseWords { direction: cause.direction, before: ruling(&cause.before, cause.direction), after: ruling(&cause.after, cause.direction) }
}

fn ruling(ruling: &Ruling, direction: Direction) -> String {
    match ruling {
        Ruling::Open => "no policy speaks of it".to_owned(),
        Ruling::Admitted { by } if by.is_empty() => "admitted by the profile".to_owned(),
        Ruling::Admitted { by } => format!("admitted by {}", listed(by.iter().map(rule))),
        Ruling::Denied { by: Some(by), .. } => format!("denied by {}", rule(by)),
        Ruling::Denied { by: None, isolating } => format!("no {direction} rule of {} admits it", listed(isolating.iter().map(policy))),
        Ruling::Undecided { why } => format!("cannot be decided: {why}"),
    }
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let shown: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMED);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

/// `NetworkPolicy shop/api ingress[0] (deploy/api.yaml:12)`
fn rule(rule: &RuleRef) -> String {
    format!("{rule}{}", at(rule.place()))
}

fn policy(policy: &PolicyRef) -> String {
    format!("{policy}{}", at(policy.origin.as_ref()))
}

fn at(origin: Option<&Origin>) -> String {
    origin.map(|origin| format!(" ({origin})")).unwrap_or_default()
}

/// `2 newly denied, 1 newly allowed`, or that there is none.
pub(super) fn counts(comparison: &Comparison) -> String {
    let kinds = [(&comparison.denied, "newly denied"), (&comparison.allowed, "newly allowed"), (&comparison.undecided, "undecided")];
    let counted: Vec<String> =
        kinds.iter().filter(|(changes, _)| !changes.is_empty()).map(|(changes, what)| format!("{} {what}", changes.len())).collect();
    if counted.is_empty() {
        "no connection is decided otherwise".to_owned()
    } else {
        format!("connections between workloads: {}", counted.join(", "))
    }
}

/// `NetworkPolicy shop/api changed`
pub(super) fn object(change: &ObjectChange) -> String {
    format!("{} {}", change.key, what(change.what))
}

pub(super) fn what(what: What) -> &'static str {
    match what {
        What::Added => "added",
        What::Removed => "removed",
        What::Changed => "changed",
    }
}

/// `7 times, the last at 2026-11-30T10:00:00Z`
pub(super) fn times(change: &SeenChange) -> String {
    let count = if change.count == 1 { "once".to_owned() } else { format!("{} times", change.count) };
    match &change.last {
        Some(last) => format!("{count}, the last at {last}"),
        None => count,
    }
}
