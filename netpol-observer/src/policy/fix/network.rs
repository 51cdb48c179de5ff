//! Changes to NetworkPolicies: an entry in a rule, a rule, a policy.

use std::sync::Arc;

use crate::cluster::{Direction, NetworkPolicy, Pod, Rule};
use crate::policy::evaluate::matching::Match;
use crate::policy::evaluate::{Changed, View};
use crate::policy::explanation::{NearMiss, PatchOperation, PolicyRef};

use super::gain::Opened;
use super::{Candidate, Edit, Size, Task, manifest, other, patch};

/// Longest `metadata.name`: a DNS subdomain (RFC 1123).
const MAX_NAME: usize = 253;

/// Proposes changes, the smallest first, for as long as larger ones may be better.
pub(super) fn candidates(task: &Task<'_>, nearest: &[NearMiss], take: &mut impl FnMut(Candidate) -> bool) {
    for miss in nearest {
        if let Some(candidate) = entry(task, miss)
            && !take(candidate)
        {
            return;
        }
    }
    let Some(subject) = task.case.sides(task.direction).0.pod() else { return };
    for policy in task.view.isolating(subject, task.direction) {
        let editable = task.network_policy(&policy.namespace, &policy.name).filter(|policy| is_editable(policy));
        if let Some(policy) = editable
            && !take(rule(task, &policy))
        {
            return;
        }
    }
    if let Some(candidate) = new_policy(task, subject) {
        take(candidate);
    }
}

/// An entry added to a list of a rule that misses one side only.
fn entry(task: &Task<'_>, miss: &NearMiss) -> Option<Candidate> {
    let (direction, at) = (task.direction, &miss.rule);
    let policy = task.network_policy(&at.policy.namespace, &at.policy.name).filter(|policy| is_editable(policy))?;
    let rule = policy.rules(direction)?.get(at.index)?;
    let (_, peer) = task.case.sides(direction);
    let peer_fits = task.view.peers(rule, &policy.namespace, &peer) == Match::Yes;
    let port_fits = task.view.ports(rule, &task.case) == Match::Yes;
    let (list, path) = (task.peers_field(), format!("/spec/{direction}/{}", at.index));
    let (mut changed, mut opens) = (rule.clone(), rule.clone());
    let shown = match (peer_fits, port_fits) {
        (false, true) => {
            let (new, shown) = task.other.peer(&policy.namespace);
            changed.peers.push(new.clone());
            opens.peers = vec![new];
            format!("{direction}[{}].{list} += {shown}", at.index)
        }
        (true, false) => {
            let port = task.other.port.clone();
            changed.ports.push(port.clone());
            opens.ports = vec![port];
            format!("{direction}[{}].ports += {}", at.index, task.other.port)
        }
        _ => return None,
    };
    let (before, after) = (rule.clone(), changed.clone());
    let patch = move || {
        let add = if peer_fits {
            PatchOperation::Add { path: format!("{path}/ports/-"), value: after.ports.last().and_then(manifest::port).unwrap_or_default() }
        } else {
            PatchOperation::Add { path: format!("{path}/{list}/-"), value: after.peers.last().and_then(manifest::peer).unwrap_or_default() }
        };
        vec![PatchOperation::Test { path, value: manifest::rule(&before, list) }, add]
    };
    let mut edited = NetworkPolicy::clone(&policy);
    *rules_mut(&mut edited, direction).get_mut(at.index)? = changed;
    Some(Candidate {
        edits: Some(PolicyRef::of(&policy)),
        opened: Opened::network(&edited.namespace, &edited.pod_selector, &opens),
        edit: Edit::Policy(Changed::NetworkPolicy(Arc::new(edited))),
        shown,
        patch: Box::new(patch),
        size: Size::Entry,
    })
}

/// A rule added to a policy that isolates the pod.
fn rule(task: &Task<'_>, policy: &Arc<NetworkPolicy>) -> Candidate {
    let direction = task.direction;
    let list = task.peers_field();
    let (rule, shown) = task.other.rule(&policy.namespace);
    let (before, added) = (policy.clone(), rule.clone());
    let patch = move || {
        let rules = before.rules(direction).unwrap_or_default().iter();
        let selects = PatchOperation::Test { path: "/spec/podSelector".into(), value: manifest::selector(&before.pod_selector) };
        patch::add_to_list(
            &format!("/spec/{direction}"),
            rules.map(|rule| manifest::rule(rule, list)),
            manifest::rule(&added, list),
            selects,
        )
    };
    let shown = format!("{direction} += {list} {shown}, ports {}", task.other.port);
    let mut edited = NetworkPolicy::clone(policy);
    rules_mut(&mut edited, direction).push(rule.clone());
    Candidate {
        edits: Some(PolicyRef::of(policy)),
        opened: Opened::network(&edited.namespace, &edited.pod_selector, &rule),
        edit: Edit::Policy(Changed::NetworkPolicy(Arc::new(edited))),
        shown,
        patch: Box::new(patch),
        size: Size::Rule,
    }
}

/// A policy of its own for this connection; none where it would isolate a pod that no policy isolates now, and so deny what
/// is admitted today.
fn new_policy(task: &Task<'_>, subject: &Pod) -> Option<Candidate> {
    let (view, direction) = (&task.view, task.direction);
    let pod_selector = other::selector_of(subject, view);
    let is_isolated = |pod: &Pod| !view.isolating(pod, direction).is_empty();
    let mut selected = view.index.pods_in(&subject.namespace).filter(|pod| pod_selector.matches(&pod.labels));
    if pod_selector.requirements.is_empty() || !selected.all(|pod| is_isolated(pod)) {
        return None;
    }
    let (rule, shown) = task.other.rule(&subject.namespace);
    let peer = task.case.sides(direction).1.pod().map_or("external", |pod| &pod.workload.name);
    let word = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let name = unused_name(view, &subject.namespace, &format!("{}-{word}-{peer}", subject.workload.name));
    let list = task.peers_field();
    let shown =
        format!("new NetworkPolicy {}/{name} for {pod_selector}: {direction} {list} {shown}, ports {}", subject.namespace, task.other.port);
    let mut policy = NetworkPolicy { namespace: subject.namespace.clone(), name: name.into(), pod_selector, ..NetworkPolicy::default() };
    rules_mut(&mut policy, direction).push(rule.clone());
    Some(Candidate {
        edits: None,
        opened: Opened::network(&policy.namespace, &policy.pod_selector, &rule),
        edit: Edit::Policy(Changed::NetworkPolicy(Arc::new(policy))),
        shown,
        patch: Box::new(Vec::new),
        size: Size::Policy,
    })
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
