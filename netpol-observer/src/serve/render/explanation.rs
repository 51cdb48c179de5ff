//! The engine's answer as lines: who is to blame, what came nearest, what to change.

use super::condition::miss;
use super::rule::{place, rule};
use super::text::Text;
use crate::cluster::Direction;
use crate::diagnose::{Class, Denial};
use crate::policy::{Admission, DirectionExplanation, Explanation, Fix, IsolatingPolicy, NearMiss, Remaining, RuleRef};

/// Near misses shown per direction.
const NEAREST_SHOWN: usize = 3;
/// Newly admitted peers named.
const ADMITTED_SHOWN: usize = 3;
/// Policies named on one line.
const POLICIES_ON_A_LINE: usize = 3;

/// Writes the lines `by`, `nearest`, `fix` and `also` of the denying directions.
pub fn write_explanation(text: &mut Text, explanation: &Explanation) {
    let denying = denying(explanation);
    let policies: usize = denying.iter().map(Denying::policies).sum();
    write_isolating(text, &denying);
    write_nearest(text, &denying, policies > 1);
    write_fixes(text, &explanation.fixes, policies > 1);
    for remaining in &explanation.remaining {
        text.label("also");
        text.put(&remaining_sentence(remaining));
        text.newline();
    }
    for note in &explanation.notes {
        text.label("also");
        text.put(note);
        text.newline();
    }
}

/// The essentials on one line: the policies and the nearest rule per denying direction, or the cause.
pub fn in_short(denial: &Denial) -> String {
    let denying = denying(&denial.explanation);
    if denying.is_empty() || !matches!(denial.diagnosis.class, Class::PolicyDenied(_)) {
        return denial.diagnosis.summary.clone();
    }
    let several = denying.iter().map(Denying::policies).sum::<usize>() > 1;
    let parts: Vec<_> = denying
        .iter()
        .map(|denying| {
            if let Some(by) = denying.by {
                return format!("by {}", rule(by));
            }
            let named: Vec<_> = denying.isolating.iter().take(POLICIES_ON_A_LINE).map(|isolating| isolating.policy.full_name()).collect();
            let more = more(denying.isolating.len().saturating_sub(POLICIES_ON_A_LINE));
            let nearest = match denying.nearest.first() {
                Some(near) => format!("; nearest {}: {}", rule_name(near, several), miss(near)),
                None => String::new(),
            };
            format!("by {}{more}{nearest}", named.join(", "))
        })
        .collect();
    parts.join("; ")
}

/// A direction in which policies deny.
struct Denying<'a> {
    direction: Direction,
    subject: &'a str,
    /// The Deny rule that decided; absent where NetworkPolicies isolate.
    by: Option<&'a RuleRef>,
    isolating: &'a [IsolatingPolicy],
    nearest: &'a [NearMiss],
}

fn denying(explanation: &Explanation) -> Vec<Denying<'_>> {
    [&explanation.egress, &explanation.ingress].into_iter().filter_map(Denying::of).collect()
}

impl<'a> Denying<'a> {
    fn of(direction: &'a DirectionExplanation) -> Option<Self> {
        match &direction.admission {
            Admission::Denied { by, isolating, nearest } => Some(Denying {
                by: by.as_ref(),
                direction: direction.direction,
                subject: direction.subject.as_deref().unwrap_or("the pod"),
                isolating,
                nearest,
            }),
            _ => None,
        }
    }

    /// How many policies have a part in it.
    fn policies(&self) -> usize {
        self.isolating.len() + usize::from(self.by.is_some())
    }
}

fn write_isolating(text: &mut Text, denying: &[Denying<'_>]) {
    let lines: Vec<(String, String)> = denying
        .iter()
        .flat_map(|denying| {
            let rule = denying.by.map(|by| {
                let title = by.name.as_ref().map(|name| format!("rule {name:?}, ")).unwrap_or_default();
                let why = format!("{title}{}[{}]{}, denies it for {}", by.direction, by.index, place(by.origin.as_ref()), denying.subject);
                (format!("{} {}", by.policy.kind, by.policy.full_name()), why)
            });
            rule.into_iter().chain(denying.isolating.iter().map(|isolating| {
                let policy = &isolating.policy;
                let rules = match isolating.rules.len() {
                    0 => format!("has no {} rule", denying.direction),
                    1 => "its only rule does not match".to_owned(),
                    count => format!("none of its {count} rules match"),
                };
                (
                    format!("{} {}", policy.kind, policy.full_name()),
                    format!("isolates {} for {}, {rules}", denying.subject, denying.direction),
                )
            }))
        })
        .collect();
    let width = lines.iter().map(|(policy, _)| policy.chars().count()).max().unwrap_or(0);
    for (policy, why) in lines {
        text.label("by");
        text.padded(&policy, width);
        text.gap();
        text.put(&why);
        text.newline();
    }
}

fn write_nearest(text: &mut Text, denying: &[Denying<'_>], several: bool) {
    let groups: Vec<(Vec<(String, String)>, usize)> = denying
        .iter()
        .map(|denying| {
            let shown = denying.nearest.iter().take(NEAREST_SHOWN).map(|near| (rule_name(near, several), miss(near))).collect();
            (shown, denying.nearest.len().saturating_sub(NEAREST_SHOWN))
        })
        .collect();
    let width = groups.iter().flat_map(|(shown, _)| shown).map(|(rule, _)| rule.chars().count()).max().unwrap_or(0);
    for ((shown, left), denying) in groups.iter().zip(denying) {
        for (rule, why) in shown {
            text.label("nearest");
            text.padded(rule, width);
            text.put("  ");
            text.put(why);
            text.newline();
        }
        if *left > 0 {
            text.label("nearest");
            text.put(&format!("and {left} more {} {}", denying.direction, if *left == 1 { "rule" } else { "rules" }));
            text.newline();
        }
    }
}

fn write_fixes(text: &mut Text, fixes: &[Fix], several: bool) {
    let lines: Vec<(String, String)> = fixes
        .iter()
        .map(|fix| {
            let change = match &fix.policy {
                Some(policy) if several => format!("{}: {}", policy.full_name(), fix.change),
                _ => fix.change.clone(),
            };
            (change, admits(&fix.newly_admits))
        })
        .collect();
    let width = lines.iter().map(|(change, _)| change.chars().count()).max().unwrap_or(0);
    for (change, admits) in lines {
        text.label("fix");
        let missing = width.saturating_sub(change.chars().count());
        let style = text.palette().fix;
        text.styled(style, &change);
        if !admits.is_empty() {
            text.put(&" ".repeat(missing));
            text.gap();
            text.put(&admits);
        }
        text.newline();
    }
}

/// Whom a fix admits besides: `admits 2 more: shop/web, shop/job`; nothing when that is nobody.
pub fn admits(newly: &[String]) -> String {
    let named = newly.iter().take(ADMITTED_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = more(newly.len().saturating_sub(ADMITTED_SHOWN));
    match newly.len() {
        0 => String::new(),
        // A block of addresses is no workload.
        1 if newly.iter().all(|peer| peer.parse::<ipnet::IpNet>().is_ok() || peer.parse::<std::net::IpAddr>().is_ok()) => {
            format!("admits {named}")
        }
        1 => format!("admits 1 more workload: {named}"),
        count => format!("admits {count} more: {named}{more}"),
    }
}

pub(super) fn more(left: usize) -> String {
    if left > 0 { format!(" and {left} more") } else { String::new() }
}

/// `ingress[0]`, behind the policy's name where several are to blame.
fn rule_name(near: &NearMiss, several: bool) -> String {
    let rule = &near.rule;
    if several {
        format!("{} {}[{}]", rule.policy.full_name(), rule.direction, rule.index)
    } else {
        format!("{}[{}]", rule.direction, rule.index)
    }
}

pub(super) fn remaining_sentence(remaining: &Remaining) -> String {
    match remaining {
        Remaining::OtherEndpointsDenied { service, endpoints } => {
            format!("other endpoints of Service {service} are denied too: {}", endpoints.join(", "))
        }
        Remaining::ServiceWithoutEndpoints { service } => format!("Service {service} has no ready endpoint"),
        Remaining::DnsDenied { service } => {
            format!("its egress policies do not let it ask the cluster's DNS (Service {service}, port 53), so it cannot look up names")
        }
        Remaining::NoFix { direction, why } => format!("no fix found for {direction}: {why}"),
    }
}
