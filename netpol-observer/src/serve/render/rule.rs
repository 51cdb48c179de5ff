//! Rules and policies as a reader finds them again.

use crate::cluster::{Action, Origin};
use crate::policy::{PolicyRef, RuleRef};

/// `rule "no-db" (egress[2]) of AdminNetworkPolicy no-db`, `rule ingress[0] of NetworkPolicy shop/api`
pub(super) fn rule(rule: &RuleRef) -> String {
    format!("{} of {}", title(rule), policy(&rule.policy))
}

/// `rule "no-db" (egress[2])`, `rule ingress[0]`
pub(super) fn title(rule: &RuleRef) -> String {
    let index = format!("{}[{}]", rule.direction, rule.index);
    match &rule.name {
        Some(name) => format!("rule {name:?} ({index})"),
        None => format!("rule {index}"),
    }
}

/// `NetworkPolicy shop/api`
pub(super) fn policy(policy: &PolicyRef) -> String {
    policy.to_string()
}

/// ` (policies.yaml:14)`, or nothing when it was not read from a file.
pub(super) fn place(origin: Option<&Origin>) -> String {
    origin.map(|origin| format!(" ({origin})")).unwrap_or_default()
}

/// What a matching rule does, as in `lets it in`.
pub(super) fn does(rule: &RuleRef) -> &'static str {
    match rule.action {
        Some(Action::Accept) => "accepts it",
        Some(Action::Deny) => "denies it",
        Some(Action::Pass) => "passes it on",
        None => "admits it",
    }
}
