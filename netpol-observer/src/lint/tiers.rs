//! The order of the cluster-scoped policies: what earlier rules leave to later ones, and to the NetworkPolicies.

use std::sync::Arc;

use crate::cluster::{Action, ClusterPolicy, Direction, NetworkPolicy, Selector, Tier};

use super::Sink;
use super::cover;
use super::facts::Facts;
use super::finding::{Code, Severity};
use super::view::{Pods, PolicyView, Reach, RuleView, Scope};

struct Ranked<'a> {
    policy: &'a ClusterPolicy,
    view: PolicyView<'a>,
}

pub(super) fn lint(facts: &Facts<'_>, sink: &mut Sink<'_>) {
    for tier in [Tier::Admin, Tier::Baseline] {
        let of_tier = facts.index.cluster_policies().filter(|policy| policy.tier == tier);
        let mut ranked: Vec<_> = of_tier.map(|policy| Ranked { policy, view: PolicyView::from(&**policy) }).collect();
        ranked.retain(|ranked| ranked.view.subject.is_some());
        ranked.sort_by_key(|ranked| ranked.policy.priority);
        covered(&ranked, sink);
        tied(facts, &ranked, sink);
        if tier == Tier::Admin {
            overridden(facts, &ranked, sink);
        }
    }
}

/// Rules that never get a connection, since an earlier rule of the tier takes all of them.
fn covered(ranked: &[Ranked<'_>], sink: &mut Sink<'_>) {
    for (i, Ranked { policy, view }) in ranked.iter().enumerate() {
        let Some(subject) = view.subject else { continue };
        let earlier = |(j, other): &(usize, &Ranked<'_>)| {
            *j == i || (other.policy.priority < policy.priority && other.view.subject.is_some_and(|other| cover::pods(&subject, &other)))
        };
        let before: Vec<(usize, &Ranked<'_>)> = ranked.iter().enumerate().filter(earlier).collect();
        for rule in &view.rules {
            let found = before.iter().find_map(|(j, other)| {
                let by = other.view.rules.iter().find(|by| (*j != i || by.index < rule.index) && cover::rule(rule, by))?;
                Some((*other, by))
            });
            if let Some((other, by)) = found {
                say_covered(view, rule, other, by, sink);
            }
        }
    }
}

fn say_covered(view: &PolicyView<'_>, rule: &RuleView<'_>, other: &Ranked<'_>, by: &RuleView<'_>, sink: &mut Sink<'_>) {
    let (action, taker) = (rule.action, by.action);
    let whose = if other.view.about.to_string() == view.about.to_string() {
        "of the same policy".to_owned()
    } else {
        format!("of {} (priority {})", other.view.about, other.policy.priority)
    };
    let (code, severity) = match (action, taker) {
        (Action::Deny, Action::Accept) => (Code::DenyWithoutEffect, Severity::Error),
        (action, taker) if action == taker => (Code::ShadowedRule, Severity::Note),
        _ => (Code::ShadowedRule, Severity::Warning),
    };
    let place = by.origin.map(|origin| format!(" ({}:{})", origin.file, origin.line)).unwrap_or_default();
    let message = format!(
        "the {action} rule has no effect: the {taker} rule {} {whose}{place} comes first and matches everything it matches",
        by.field()
    );
    let help = "put the rule before the other one (rules go in order, policies by priority, the lower number first), or remove it";
    view.about.finding(code, severity, rule.field(), rule.origin).say(sink, message, help);
}

/// Policies of one priority whose rules decide differently on connections that both match: the API leaves open what holds.
fn tied(facts: &Facts<'_>, ranked: &[Ranked<'_>], sink: &mut Sink<'_>) {
    for same in ranked.chunk_by(|one, other| one.policy.priority == other.policy.priority) {
        for (i, one) in same.iter().enumerate() {
            for other in same.iter().skip(i + 1) {
                let Some((rule, against)) = disagreement(facts, &one.view, &other.view) else { continue };
                let priority = other.policy.priority;
                let message = format!(
                    "{} has priority {priority} too, and on pods that both select its rule {} says {} where this rule says {}: the API leaves open which holds",
                    one.view.about,
                    rule.field(),
                    rule.action,
                    against.action
                );
                let draft = other.view.about.finding(Code::TiedPriorities, Severity::Warning, against.field(), against.origin);
                draft.say(sink, message, "give the policies different priorities; the lower number goes first");
            }
        }
    }
}

fn disagreement<'a, 'b>(
    facts: &Facts<'_>,
    one: &'b PolicyView<'a>,
    other: &'b PolicyView<'a>,
) -> Option<(&'b RuleView<'a>, &'b RuleView<'a>)> {
    let (a, b) = (one.subject?, other.subject?);
    if !pods_meet(facts, &a, &b) {
        return None;
    }
    // A rule that an earlier one of its own policy covers decides nothing.
    let decides =
        |rules: &[RuleView<'_>], rule: &RuleView<'_>| !rules.iter().any(|before| before.index < rule.index && cover::rule(rule, before));
    one.rules.iter().filter(|rule| decides(&one.rules, rule)).find_map(|rule| {
        let against = other.rules.iter().filter(|against| against.direction == rule.direction && against.action != rule.action);
        let against = against.filter(|against| !rule.is_invalid() && !against.is_invalid());
        let mut against = against.filter(|against| cover::ports_meet(rule, against) && peers_meet(facts, rule, against));
        Some((rule, against.find(|against| decides(&other.rules, against))?))
    })
}

fn peers_meet(facts: &Facts<'_>, one: &RuleView<'_>, other: &RuleView<'_>) -> bool {
    one.peers.iter().any(|(_, a)| {
        other.peers.iter().any(|(_, b)| match (a, b) {
            (Reach::Pods(a), Reach::Pods(b)) => pods_meet(facts, a, b),
            (Reach::Addresses { cidr: a, .. }, Reach::Addresses { cidr: b, .. }) => cover::intersect(a.net, b.net),
            (a, b) => cover::reach(a, b) || cover::reach(b, a),
        })
    })
}

/// Whether there certainly are pods, now or later, that both speak of.
fn pods_meet(facts: &Facts<'_>, one: &Pods<'_>, other: &Pods<'_>) -> bool {
    let follows = cover::pods(one, other) || cover::pods(other, one);
    follows
        || facts.groups(one).any(|group| {
            let Some(area) = facts.areas.get(&*group.pod.namespace) else { return false };
            let namespace = match other.scope {
                Scope::Own(own) => *own == area.name,
                Scope::Matching(selector) => selector.matches(&area.labels),
            };
            namespace && other.pod.is_none_or(|selector| selector.matches(&group.pod.labels))
        })
}

/// NetworkPolicies that are not asked, since Admin rules have decided before.
fn overridden(facts: &Facts<'_>, ranked: &[Ranked<'_>], sink: &mut Sink<'_>) {
    if ranked.is_empty() {
        return;
    }
    for policy in facts.index.policies() {
        let view = PolicyView::from(&**policy);
        let Some(subject) = view.subject else { continue };
        for direction in Direction::BOTH.into_iter().filter(|direction| policy.rules(*direction).is_some()) {
            // Before a Pass rule that may hand some of the connections on to NetworkPolicies nothing is certain any more.
            let until_pass = ranked.iter().take_while(|ranked| !passes(ranked, direction));
            let covering: Vec<_> = until_pass.filter(|ranked| selects(facts, ranked, &subject, policy)).collect();
            override_of(&view, direction, &covering, sink);
        }
    }
}

fn passes(ranked: &Ranked<'_>, direction: Direction) -> bool {
    ranked.view.rules.iter().any(|rule| rule.direction == direction && rule.action == Action::Pass)
}

/// Whether the cluster-scoped policy selects all pods of the NetworkPolicy, by what is written or by the labels of the namespace.
fn selects(facts: &Facts<'_>, ranked: &Ranked<'_>, subject: &Pods<'_>, policy: &NetworkPolicy) -> bool {
    let Some(wider) = ranked.view.subject else { return false };
    let namespace = facts.areas.get(&*policy.namespace);
    let in_scope = match (wider.scope, namespace) {
        (Scope::Matching(selector), Some(area)) => selector.matches(&area.labels),
        (Scope::Matching(_), None) => cover::pods(&Pods { pod: None, ..*subject }, &Pods { pod: None, ..wider }),
        (Scope::Own(own), _) => *own == policy.namespace,
    };
    let all = Selector::default();
    in_scope && wider.pod.is_none_or(|wider| cover::selector(subject.pod.unwrap_or(&all), wider))
}

fn override_of(view: &PolicyView<'_>, direction: Direction, covering: &[&Ranked<'_>], sink: &mut Sink<'_>) {
    let rules =
        || covering.iter().flat_map(|ranked| ranked.view.rules.iter().filter(|by| by.direction == direction).map(move |by| (*ranked, by)));
    let all = rules().find(|(_, by)| by.ports.is_empty() && !by.is_invalid() && by.peers.iter().any(|(_, peer)| is_every_pod(peer)));
    if let Some((ranked, by)) = all {
        let (verb, rest) = match by.action {
            Action::Deny => ("denies", "cannot admit any"),
            Action::Accept | Action::Pass => ("accepts", "restricts only addresses that are no pods'"),
        };
        let message = format!(
            "{} (priority {}, {}) {verb} {direction} from or to every pod before NetworkPolicies are asked: for {direction} this policy {rest}",
            ranked.view.about,
            ranked.policy.priority,
            by.field()
        );
        let message = message.replace("from or to", if direction == Direction::Ingress { "from" } else { "to" });
        let help = "if NetworkPolicies are to decide, let the Admin rule Pass, or make it one of the Baseline tier";
        view.about.finding(Code::OverriddenByAdmin, Severity::Warning, format!("spec.{direction}"), None).say(sink, message, help);
        return;
    }
    for rule in view.rules.iter().filter(|rule| rule.direction == direction) {
        let Some((ranked, by)) = rules().find(|(_, by)| by.action == Action::Deny && cover::rule(rule, by)) else { continue };
        let message = format!(
            "the rule admits nothing: {} (priority {}, {}) denies all that it speaks of before NetworkPolicies are asked",
            ranked.view.about,
            ranked.policy.priority,
            by.field()
        );
        let help = "remove the rule, or have the Admin policy Pass or Accept these connections in an earlier rule";
        view.about.finding(Code::OverriddenByAdmin, Severity::Warning, rule.field(), rule.origin).say(sink, message, help);
    }
}

fn is_every_pod(peer: &Reach<'_>) -> bool {
    let every: Arc<Selector> = Arc::default();
    let every = Pods { scope: Scope::Matching(&every), pod: None };
    matches!(peer, Reach::Pods(pods) if cover::pods(&every, pods))
}
