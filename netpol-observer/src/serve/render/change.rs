//! What a change of a policy does, as lines.

use super::explanation::more;
use super::rule::{does, policy, rule, title};
use super::text::Text;
use crate::cluster::{Direction, ObjectKey};
use crate::effect::{ChangeKind, Effect, summary};
use crate::policy::{Cause, Difference, Pair, PairEnd, Pairs, PolicyRef, PortRange, RuleRef, Ruling};

/// Ranges of ports on a line.
const PORTS_SHOWN: usize = 3;
/// Policies on a line.
const POLICIES_SHOWN: usize = 2;

/// `CHANGED NetworkPolicy shop/api: 2 workload pairs newly denied, 1 newly allowed`
pub(super) fn write_headline(text: &mut Text, effect: &Effect) {
    let verb = match effect.change {
        ChangeKind::Added => "ADDED",
        ChangeKind::Changed => "CHANGED",
        ChangeKind::Removed => "REMOVED",
    };
    let style = text.palette().changed;
    text.styled(style, verb);
    text.put(&format!(" {}: {}", effect.key, summary(&effect.difference)));
    text.newline();
}

/// The pairs that are named, those newly denied first, each with its ports and the reason.
pub(super) fn write_pairs(text: &mut Text, effect: &Effect) {
    let Difference::Counted(turned) = &effect.difference else { return };
    let kinds = [("denied", &turned.denied), ("allowed", &turned.allowed), ("open", &turned.undecided)];
    let columns = |pair: &Pair| (sides(pair), ports(&pair.ports));
    let all: Vec<(String, String)> = kinds.iter().flat_map(|(_, pairs)| &pairs.named).map(columns).collect();
    let widths = all.iter().map(|(sides, ports)| (sides.chars().count(), ports.chars().count()));
    let (first, second) = widths.fold((0, 0), |(a, b), (c, d)| (a.max(c), b.max(d)));
    for (label, pairs) in kinds {
        for pair in &pairs.named {
            let (sides, ports) = columns(pair);
            text.label(label);
            text.padded(&sides, first);
            text.put("  ");
            let causes: Vec<String> = pair.causes.iter().map(|of| cause(of, pair, &effect.key)).collect();
            if causes.is_empty() {
                text.put(&ports);
            } else {
                text.padded(&ports, second);
                text.gap();
                text.put(&causes.join("; "));
            }
            text.newline();
        }
        let left = left(pairs);
        if left > 0 {
            text.label(label);
            text.put(&format!("and {left} more"));
            text.newline();
        }
    }
}

fn left(pairs: &Pairs) -> u64 {
    (pairs.workloads + pairs.outside).saturating_sub(pairs.named.len() as u64)
}

/// `shop/web → shop/api`
fn sides(pair: &Pair) -> String {
    format!("{} → {}", side(&pair.source), side(&pair.destination))
}

fn side(side: &PairEnd) -> String {
    match side {
        PairEnd::Workload { namespace, workload } => format!("{namespace}/{}", workload.name),
        PairEnd::Nodes => "nodes".to_owned(),
        PairEnd::Outside(range) => range.to_string(),
    }
}

/// `8080/TCP, 9000-9099/UDP`, `TCP`, `every port`
fn ports(ranges: &[PortRange]) -> String {
    let is_whole = |range: &PortRange| range.from <= 1 && range.to == u16::MAX;
    if ranges.len() == 3 && ranges.iter().all(is_whole) {
        return "every port".to_owned();
    }
    let one = |range: &PortRange| match range {
        PortRange { protocol, .. } if is_whole(range) => protocol.to_string(),
        PortRange { protocol, from, to } if from == to => format!("{from}/{protocol}"),
        PortRange { protocol, from, to } => format!("{from}-{to}/{protocol}"),
    };
    let shown: Vec<String> = ranges.iter().take(PORTS_SHOWN).map(one).collect();
    format!("{}{}", shown.join(", "), more(ranges.len().saturating_sub(PORTS_SHOWN)))
}

/// What makes the difference in a direction. The object that changed stands in the headline, and its name is not repeated.
fn cause(cause: &Cause, pair: &Pair, changed: &ObjectKey) -> String {
    let direction = cause.direction;
    let subject = match direction {
        Direction::Egress => side(&pair.source),
        Direction::Ingress => side(&pair.destination),
    };
    let rule = |of: &RuleRef| if is(&of.policy, changed) { title(of) } else { rule(of) };
    let who = |by: &[PolicyRef]| {
        let named = by.iter().take(POLICIES_SHOWN).map(|of| if is(of, changed) { "the policy".to_owned() } else { policy(of) });
        format!("{}{}", named.collect::<Vec<_>>().join(", "), more(by.len().saturating_sub(POLICIES_SHOWN)))
    };
    let isolates = |by: &[PolicyRef]| {
        let verb = if by.len() == 1 { "isolates" } else { "isolate" };
        format!("{} {verb} {subject} for {direction}, and no rule admits it", who(by))
    };
    match (&cause.before, &cause.after) {
        (_, Ruling::Denied { by: Some(by), .. }) => format!("{} {}", rule(by), does(by)),
        (Ruling::Admitted { by }, Ruling::Denied { by: None, isolating }) => match by.first() {
            Some(by) => format!("{} no longer admits it", rule(by)),
            None => isolates(isolating),
        },
        (_, Ruling::Denied { by: None, isolating }) => isolates(isolating),
        (_, Ruling::Admitted { by }) => match by.first() {
            Some(by) => format!("{} {}", rule(by), does(by)),
            None => format!("admitted for {direction}"),
        },
        (Ruling::Denied { by: Some(by), .. }, Ruling::Open) => format!("{} no longer {}", rule(by), does(by)),
        (Ruling::Denied { by: None, isolating }, Ruling::Open) => {
            let verb = if isolating.len() == 1 { "no longer isolates" } else { "no longer isolate" };
            format!("{} {verb} {subject} for {direction}", who(isolating))
        }
        (_, Ruling::Undecided { why }) => format!("{direction}: {why}"),
        (_, Ruling::Open) => format!("no policy speaks of it for {direction}"),
    }
}

fn is(of: &PolicyRef, changed: &ObjectKey) -> bool {
    of.kind == changed.kind.to_string() && of.namespace == changed.namespace && of.name == changed.name
}
