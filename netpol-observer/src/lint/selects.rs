//! Policies whose subject is nobody.

use crate::cluster::{Subject, Tier};

use super::Sink;
use super::facts::{Area, Facts};
use super::finding::{About, Code, Severity};
use super::near::{self, Labelled};
use super::view::{Pods, Scope, selected, subject};

pub(super) fn lint(facts: &Facts<'_>, sink: &mut Sink<'_>) {
    for policy in facts.index.policies() {
        let about = About::from(&**policy);
        missing_namespace(facts, about, &policy.namespace, sink);
        let pods = selected(policy);
        if pods.is_invalid() || !facts.knows_pods_of(&policy.namespace) || facts.any(&pods) {
            continue;
        }
        let draft = about.finding(Code::SelectsNoPod, Severity::Warning, "spec.podSelector", None);
        draft.say(sink, format!("the policy selects no pod: {}", nobody(facts, &pods)), HELP);
    }
    for policy in facts.index.cluster_policies() {
        let Some(pods) = subject(policy) else { continue };
        if !facts.has_pods || facts.any(&pods) {
            continue;
        }
        // A tier's policy for namespaces to come is common; one for namespaces that are there without any pod is not judged.
        let found: Vec<&Area<'_>> = facts.areas(pods.scope).collect();
        if found.iter().any(|area| !area.has_pods()) || (found.is_empty() && !facts.is_whole) {
            continue;
        }
        let field = if matches!(policy.subject, Subject::Namespaces(_)) { "spec.subject.namespaces" } else { "spec.subject.pods" };
        let severity = if policy.tier == Tier::Baseline { Severity::Note } else { Severity::Warning };
        let draft = About::from(&**policy).finding(Code::SelectsNoPod, severity, field, None);
        draft.say(sink, format!("the policy selects no pod: {}", nobody(facts, &pods)), HELP);
    }
}

const HELP: &str = "correct the labels, or remove the policy if what it was for is gone";

fn missing_namespace(facts: &Facts<'_>, about: About<'_>, namespace: &str, sink: &mut Sink<'_>) {
    let describes_any = facts.index.namespaces().next().is_some();
    let is_built_in = namespace == "default" || namespace.starts_with("kube-");
    if !describes_any || is_built_in || facts.areas.contains_key(namespace) {
        return;
    }
    // A part of a cluster may well leave out the namespace.
    let severity = if facts.is_whole { Severity::Warning } else { Severity::Note };
    let names: Vec<Labelled<'_>> = facts.areas.values().map(Labelled::from).collect();
    let near = names.iter().map(|one| one.name.as_str()).min_by_key(|name| near::distance(name, namespace));
    let near = near.map(|near| format!("; the nearest name is {near}")).unwrap_or_default();
    let message = format!("there is no namespace {namespace} among the manifests{near}");
    about.finding(Code::MissingNamespace, severity, "metadata.namespace", None).say(
        sink,
        message,
        "correct metadata.namespace, or add the Namespace",
    );
}

/// Why no pod matches.
pub(super) fn nobody(facts: &Facts<'_>, pods: &Pods<'_>) -> String {
    if let Some(pod) = facts.in_host_network(pods) {
        return format!(
            "{}/{} would match, but it is in its node's network, and policies do not select such pods",
            pod.namespace, pod.name
        );
    }
    let areas: Vec<&Area<'_>> = facts.areas(pods.scope).collect();
    let none = match (pods.scope, &areas[..]) {
        (Scope::Own(name), _) => format!("no pod of namespace {name}"),
        (Scope::Matching(selector), []) => {
            let all: Vec<Labelled<'_>> = facts.areas.values().map(Labelled::from).collect();
            return near::miss(selector, &all, "no namespace");
        }
        (Scope::Matching(_), [one]) => format!("no pod of namespace {}", one.name),
        (Scope::Matching(selector), several) if selector.requirements.is_empty() => format!("no pod of all {} namespaces", several.len()),
        (Scope::Matching(selector), several) => format!("no pod of the {} namespaces with {selector}", several.len()),
    };
    let all: Vec<Labelled<'_>> = areas.iter().flat_map(|area| &area.groups).map(Labelled::from).collect();
    match pods.pod {
        Some(selector) if !all.is_empty() => near::miss(selector, &all, &none),
        _ => format!("{none} is one that policies can select"),
    }
}
