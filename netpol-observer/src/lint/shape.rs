//! What shows on the policy itself, without any other object.

use std::sync::Arc;

use crate::cluster::manifests::Problem;
use crate::cluster::{ClusterPolicy, Direction, NetworkPolicy, Origin, PolicyPort, PortNumber, Selector};
use crate::flow::Protocol;

use super::Sink;
use super::cover;
use super::facts::Facts;
use super::finding::{About, Code, Draft, Severity};
use super::view::{PolicyView, Ports, Reach, RuleView, Scope};

/// Labels that a controller sets anew for every revision.
const PASSING: &[&str] =
    &["pod-template-hash", "pod-template-generation", "controller-revision-hash", "controller-uid", "batch.kubernetes.io/controller-uid"];

pub(super) fn lint(facts: &Facts<'_>, problems: &[Problem], sink: &mut Sink<'_>) {
    // What conversion reported of policies is told as invalid-field; `told` are those problems.
    let mut told = vec![false; problems.len()];
    for policy in facts.index.policies() {
        let NetworkPolicy { invalid: reasons, origin, ingress, egress, .. } = &**policy;
        let rules = [("spec.ingress[", ingress), ("spec.egress[", egress)].map(|(prefix, rules)| {
            let origins = rules.iter().flatten().map(|rule| rule.origin.as_ref()).collect();
            (prefix, origins)
        });
        invalid((&**policy).into(), reasons, origin.as_ref(), &rules, problems, &mut told, sink);
        let view = PolicyView::from(&**policy);
        codes(view.about, sink);
        passing(&view, &policy.pod_selector, sink);
        directions(facts, policy, &view, sink);
    }
    for policy in facts.index.cluster_policies() {
        let ClusterPolicy { invalid: reasons, origin, ingress, egress, .. } = &**policy;
        let rules = [("spec.ingress[", ingress), ("spec.egress[", egress)].map(|(prefix, rules)| {
            let origins = rules.iter().map(|rule| rule.origin.as_ref()).collect();
            (prefix, origins)
        });
        invalid((&**policy).into(), reasons, origin.as_ref(), &rules, problems, &mut told, sink);
        let view = PolicyView::from(&**policy);
        codes(view.about, sink);
        passing(&view, &Selector::default(), sink);
    }
    for (problem, _) in problems.iter().zip(&told).filter(|(_, told)| !**told) {
        let Problem { file, line, object, field, message, hint } = problem;
        let draft = Draft::named(Code::Manifest, Severity::Warning, object.as_deref(), field.as_deref(), file, *line);
        draft.say(sink, message.as_str(), hint.as_deref().unwrap_or("correct the manifest"));
    }
}

type RuleOrigins<'a> = (&'static str, Vec<Option<&'a Origin>>);

/// What the API server refuses, each with the line of the field where the manifests' problems tell it.
fn invalid(
    about: About<'_>,
    reasons: &[String],
    origin: Option<&Origin>,
    rules: &[RuleOrigins<'_>],
    problems: &[Problem],
    told: &mut [bool],
    sink: &mut Sink<'_>,
) {
    for reason in reasons {
        let (field, message) = reason.split_once(": ").unwrap_or(("", reason));
        let of_rule = rules.iter().find_map(|(prefix, origins)| {
            let (index, _) = field.strip_prefix(prefix)?.split_once(']')?;
            *origins.get(index.parse::<usize>().ok()?)?
        });
        let problem = origin.and_then(|origin| {
            let is_it = |(at, problem): &(usize, &Problem)| {
                !told.get(*at).copied().unwrap_or_default()
                    && problem.file == origin.file
                    && problem.line >= Some(origin.line)
                    && problem.field.as_deref() == Some(field)
                    && problem.message == message
            };
            problems.iter().enumerate().filter(is_it).min_by_key(|(_, problem)| problem.line)
        });
        if let Some(told) = problem.and_then(|(at, _)| told.get_mut(at)) {
            *told = true;
        }
        let draft =
            about.finding(Code::InvalidField, Severity::Error, field, of_rule).at_line(problem.and_then(|(_, problem)| problem.line));
        let help = "correct the field: the API server refuses the policy as it stands, and verdicts here leave this part out";
        draft.say(sink, message, help);
    }
}

fn codes(about: About<'_>, sink: &mut Sink<'_>) {
    for code in about.ignored() {
        if let Err(why) = code.parse::<Code>() {
            let field = format!("metadata.annotations[{}]", super::IGNORE_ANNOTATION);
            let message = format!("the annotation ignores {code:?}, which is no lint");
            about.finding(Code::UnknownCode, Severity::Warning, field, about.origin()).say(sink, message, why);
        }
    }
}

fn passing(view: &PolicyView<'_>, pod_selector: &Selector, sink: &mut Sink<'_>) {
    let mut say = |field: String, origin: Option<&Origin>, selector: &Selector| {
        for term in selector.requirements.iter().filter(|term| PASSING.contains(&&*term.key)) {
            let message = format!("the selector asks for {term}, a label that changes with every roll-out");
            let draft = view.about.finding(Code::PassingLabel, Severity::Warning, &*field, origin);
            draft.say(sink, message, "select by labels of the workload, such as app.kubernetes.io/name");
        }
    };
    say("spec.podSelector".to_owned(), None, pod_selector);
    let of_subject = view.subject.filter(|pods| matches!(pods.scope, Scope::Matching(_))).and_then(|pods| pods.pod);
    if let Some(selector) = of_subject {
        say("spec.subject.pods.podSelector".to_owned(), None, selector);
    }
    for rule in &view.rules {
        for (index, peer) in &rule.peers {
            if let Reach::Pods(pods) = peer
                && let Some(selector) = pods.pod
            {
                say(format!("{}.podSelector", rule.peer_field(*index)), rule.origin, selector);
            }
        }
    }
}

fn directions(facts: &Facts<'_>, policy: &Arc<NetworkPolicy>, view: &PolicyView<'_>, sink: &mut Sink<'_>) {
    let about = view.about;
    for direction in &policy.ignored_rules {
        let (name, field) = (title(*direction), format!("spec.{direction}"));
        let message =
            format!("the rules in {field} are ignored: policyTypes does not name {name}, so that the policy leaves {direction} alone");
        let help = format!("add {name} to policyTypes, which isolates the pods for {direction}, or remove the rules");
        about.finding(Code::IgnoredRules, Severity::Error, field, None).say(sink, message, help);
    }
    for direction in Direction::BOTH {
        let other = if direction == Direction::Ingress { Direction::Egress } else { Direction::Ingress };
        let is_dns = |rule: &&RuleView<'_>| {
            let to_dns = |port: &Ports<'_>| matches!(port, Ports::Port(PolicyPort { port: PortNumber::Number(53), .. }));
            !rule.ports.is_empty() && rule.ports.iter().all(to_dns)
        };
        // A policy that denies all but DNS is as much meant as one that denies all.
        let has_rules = view.rules.iter().any(|rule| rule.direction == other && !is_dns(&rule));
        if policy.rules(direction).is_some_and(<[_]>::is_empty) && has_rules && !others_isolate(facts, policy, direction) {
            let message = format!(
                "the policy isolates for {direction} too and has no {direction} rules: all {direction} of the selected pods is denied"
            );
            let assumed = if direction == Direction::Ingress { "; Ingress is assumed when there are no policyTypes" } else { "" };
            let help = format!("if {direction} is not to be restricted, set policyTypes: [{}]{assumed}", title(other));
            about.finding(Code::IsolatesCompletely, Severity::Note, "spec.policyTypes", None).say(sink, message, help);
        }
        let rules: Vec<&RuleView<'_>> = view.rules.iter().filter(|rule| rule.direction == direction).collect();
        let is_other = |port: &Ports<'_>| matches!(port, Ports::Port(PolicyPort { protocol, .. }) if *protocol != Protocol::Tcp);
        let without_tcp = |rule: &&RuleView<'_>| !rule.ports.is_empty() && rule.ports.iter().all(is_other);
        if !rules.is_empty() && rules.iter().all(without_tcp) && !rules.iter().all(is_dns) && !others_isolate(facts, policy, direction) {
            let message = format!("no {direction} rule is for TCP, and the policy denies all TCP {direction} of the selected pods");
            about.finding(Code::NoTcp, Severity::Note, format!("spec.{direction}"), None).say(
                sink,
                message,
                "a policy isolates its pods for every protocol: add rules for TCP if it is used",
            );
        }
    }
}

/// Whether another policy isolates at least the same pods, so that isolation is not this one's doing.
fn others_isolate(facts: &Facts<'_>, policy: &Arc<NetworkPolicy>, direction: Direction) -> bool {
    facts.index.policies_in(&policy.namespace).any(|other| {
        !Arc::ptr_eq(other, policy) && other.rules(direction).is_some() && cover::selector(&policy.pod_selector, &other.pod_selector)
    })
}

fn title(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "Egress",
        Direction::Ingress => "Ingress",
    }
}
