//! Changes to NetworkPolicies: an entry in a rule, a rule, a policy.

use std::sync::Arc;

use crate::cluster::{Direction, NetworkPolicy, Pod, Rule};
use crate::policy::evaluate::matching::Match;
use crate::policy::evaluate::{Changed, View};
use crate::policy::explanation::{NearMiss, PatchOperation, PolicyRef};

use super::gain::{Gain, Opened};
use super::{Candidate, Change, Edit, Size, Task, Written, manifest, other, patch};

/// Longest `metadata.name`: a DNS subdomain (RFC 1123).
const MAX_NAME: usize = 253;

/// Proposes changes. A policy of its own goes first: it is the largest edit and admits the fewest, so
/// that most others need not be looked at for long.
pub(super) fn candidates<'a>(task: &'a Task<'a>, gain: &Gain<'_>, nearest: &'a [NearMiss], take: &mut impl FnMut(Candidate<'a>)) {
    let Some(subject) = task.case.sides(task.direction).0.pod() else { return };
    if let Some(candidate) = new_policy(task, gain, subject) {
        take(candidate);
    }
    for candidate in nearest.iter().filter_map(|miss| entry(task, miss)) {
        take(candidate);
    }
    for policy in task.view.isolating(subject, task.direction) {
        if let Some(policy) = task.network_policy(&policy.namespace, &policy.name).filter(|policy| is_editable(policy)) {
            take(rule(task, policy));
        }
    }
}

/// An entry added to a list of a rule that misses one side only.
fn entry<'a>(task: &'a Task<'a>, miss: &'a NearMiss) -> Option<Candidate<'a>> {
    let (direction, at) = (task.direction, &miss.rule);
    let policy = task.network_policy(&at.policy.namespace, &at.policy.name).filter(|policy| is_editable(policy))?;
    let rule = policy.rules(direction)?.get(at.index)?;
    let (_, peer) = task.case.sides(direction);
    let peer_fits = task.view.peers(rule, &policy.namespace, &peer) == Match::Yes;
    let port_fits = task.view.ports(rule, &task.case) == Match::Yes;
    let mut opens = Rule { peers: Vec::new(), ports: Vec::new(), origin: None };
    match (peer_fits, port_fits) {
        (false, true) => {
            opens.peers = vec![task.other.peer(&policy.namespace).clone()];
            opens.ports.clone_from(&rule.ports);
        }
        (true, false) => {
            opens.peers.clone_from(&rule.peers);
            opens.ports = vec![task.other.port.clone()];
        }
        _ => return None,
    }
    let opened = Opened::network(&policy.namespace, &policy.pod_selector, &opens);
    let edits = Some(PolicyRef::of(&policy));
    let write = move || {
        let mut edited = NetworkPolicy::clone(&policy);
        let before = edited.rules(direction)?.get(at.index)?.clone();
        let changed = rules_mut(&mut edited, direction).get_mut(at.index)?;
        let (path, list) = (format!("/spec/{direction}/{}", at.index), task.peers_field());
        let (shown, field, value) = if peer_fits {
            changed.ports.extend(opens.ports.iter().cloned());
            let shown = format!("{direction}[{}].ports += {}", at.index, task.other.port);
            (shown, format!("{path}/ports/-"), opens.ports.first().and_then(manifest::port)?)
        } else {
            changed.peers.extend(opens.peers.iter().cloned());
            let shown = format!("{direction}[{}].{list} += {}", at.index, task.other.shown(&policy.namespace));
            (shown, format!("{path}/{list}/-"), opens.peers.first().and_then(manifest::peer)?)
        };
        let patch =
            move || vec![PatchOperation::Test { path, value: manifest::rule(&before, list) }, PatchOperation::Add { path: field, value }];
        Some(Change { edit: Edit::Policy(Changed::NetworkPolicy(Arc::new(edited))), shown, patch: Box::new(patch) })
    };
    Some(Candidate { edits, opened, size: Size::Entry, change: Written::Later(Box::new(write)) })
}

/// A rule added to a policy that isolates the pod.
fn rule<'a>(task: &'a Task<'a>, policy: Arc<NetworkPolicy>) -> Candidate<'a> {
    let rule = task.other.rule(&policy.namespace);
    let opened = Opened::network(&policy.namespace, &policy.pod_selector, &rule);
    let edits = Some(PolicyRef::of(&policy));
    let write = move || {
        let (direction, list) = (task.direction, task.peers_field());
        let shown = format!("{direction} += {list} {}, ports {}", task.other.shown(&policy.namespace), task.other.port);
        let mut edited = NetworkPolicy::clone(&policy);
        rules_mut(&mut edited, direction).push(rule.clone());
        let patch = move || {
            let rules = policy.rules(direction).unwrap_or_default().iter().map(|rule| manifest::rule(rule, list));
            let selects = PatchOperation::Test { path: "/spec/podSelector".into(), value: manifest::selector(&policy.pod_selector) };
            patch::add_to_list(&format!("/spec/{direction}"), rules, manifest::rule(&rule, list), selects)
        };
        Some(Change { edit: Edit::Policy(Changed::NetworkPolicy(Arc::new(edited))), shown, patch: Box::new(patch) })
    };
    Candidate { edits, opened, size: Size::Rule, change: Written::Later(Box::new(write)) }
}

/// A policy of its own for this connection; none where it would isolate a pod that no policy isolates now, and so deny what
/// is admitted today.
fn new_policy<'a>(task: &'a Task<'a>, gain: &Gain<'_>, subject: &'a Pod) -> Option<Candidate<'a>> {
    let direction = task.direction;
    let pod_selector = other::selector_of(subject, &task.view, task.kept);
    let rule = task.other.rule(&subject.namespace);
    let opened = Opened::network(&subject.namespace, &pod_selector, &rule);
    let selected = gain.subjects(&opened.subjects);
    let mut selected = selected.iter().flat_map(|(_, pods)| pods);
    if pod_selector.requirements.is_empty() || !selected.all(|of| task.view.is_isolated(&of.pod, direction)) {
        return None;
    }
    let write = move || {
        let peer = task.case.sides(direction).1.pod().map_or("external", |pod| &pod.workload.name);
        let word = match direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        let name = unused_name(&task.view, &subject.namespace, &format!("{}-{word}-{peer}", subject.workload.name));
        let shown = format!(
            "new NetworkPolicy {}/{name} for {pod_selector}: {direction} {} {}, ports {}",
            subject.namespace,
            task.peers_field(),
            task.other.shown(&subject.namespace),
            task.other.port
        );
        let mut policy =
            NetworkPolicy { namespace: subject.namespace.clone(), name: name.into(), pod_selector, ..NetworkPolicy::default() };
        rules_mut(&mut policy, direction).push(rule);
        Some(Change { edit: Edit::Policy(Changed::NetworkPolicy(Arc::new(policy))), shown, patch: Box::new(Vec::new) })
    };
    Some(Candidate { edits: None, opened, size: Size::Policy, change: Written::Later(Box::new(write)) })
}

/// A name that no policy of the namespace has: applying the manifest must not replace one.
fn unused_name(view: &View<'_>, namespace: &str, wanted: &str) -> String {
    free_name(wanted, |name| view.index.policy(namespace, name).is_some())
}

/// `wanted`, or with a number where that is taken.
pub(super) fn free_name(wanted: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let with = |suffix: &str| {
        let base: String = wanted.chars().take(MAX_NAME.saturating_sub(suffix.len())).collect();
        format!("{}{suffix}", base.trim_end_matches(['-', '.']))
    };
    let mut name = with("");
    let mut number = 2_usize;
    while is_taken(&name) {
        name = with(&format!("-{number}"));
        number += 1;
    }
    name
}

/// Editing a policy that the API server refuses would not get it applied.
fn is_editable(policy: &NetworkPolicy) -> bool {
    policy.invalid.is_empty()
}

fn rules_mut(policy: &mut NetworkPolicy, direction: Direction) -> &mut Vec<Rule> {
    match direction {
        Direction::Ingress => policy.ingress.get_or_insert_default(),
        Direction::Egress => policy.egress.get_or_insert_default(),
    }
}
