//! NetworkPolicy rules that another rule makes superfluous: one of the same policy, or of a policy of the namespace that selects at least
//! the same pods. Told from what is written alone, see `cover`.

use std::collections::BTreeMap;

use crate::cluster::Selector;

use super::Sink;
use super::cover;
use super::facts::Facts;
use super::finding::{Code, Severity};
use super::view::{PolicyView, RuleView};

pub(super) fn lint(facts: &Facts<'_>, sink: &mut Sink<'_>) {
    if !sink.wants(Code::ShadowedRule) {
        return;
    }
    let mut namespaces: BTreeMap<&str, Vec<(&Selector, PolicyView<'_>)>> = BTreeMap::new();
    for policy in facts.index.policies() {
        namespaces.entry(&policy.namespace).or_default().push((&policy.pod_selector, PolicyView::from(&**policy)));
    }
    for policies in namespaces.values() {
        for (i, (selector, policy)) in policies.iter().enumerate().filter(|(_, (_, policy))| policy.subject.is_some()) {
            let wider: Vec<(usize, bool, &PolicyView<'_>)> = policies
                .iter()
                .enumerate()
                .filter(|(_, (other, view))| view.subject.is_some() && cover::selector(selector, other))
                .map(|(j, (other, view))| (j, cover::selector(other, selector), view))
                .collect();
            for (place, rule) in policy.rules.iter().enumerate() {
                let found = wider.iter().find_map(|(j, is_equal, other)| {
                    let by = other.rules.iter().enumerate().find(|(at, by)| {
                        // Of two that say the same the first stays.
                        let is_later = (*j, *at) < (i, place);
                        (*j, *at) != (i, place) && cover::rule(rule, by) && (is_later || !(*is_equal && cover::rule(by, rule)))
                    })?;
                    Some((*j == i, *other, by.1))
                });
                if let Some((is_own, by, with)) = found {
                    say(policy, rule, is_own, by, with, sink);
                }
            }
        }
    }
}

fn say(policy: &PolicyView<'_>, rule: &RuleView<'_>, is_own: bool, by: &PolicyView<'_>, with: &RuleView<'_>, sink: &mut Sink<'_>) {
    let place = with.origin.map(|origin| format!(" ({}:{})", origin.file, origin.line)).unwrap_or_default();
    let (by, which) = if is_own { (String::new(), "") } else { (format!(" of {}", by.about), ", which selects at least the same pods") };
    let message = format!("everything that the rule admits is already admitted by {}{by}{place}{which}", with.field());
    let draft = policy.about.finding(Code::ShadowedRule, Severity::Note, rule.field(), rule.origin);
    draft.say(sink, message, "remove the rule, or narrow the other one if it admits more than was meant");
}
