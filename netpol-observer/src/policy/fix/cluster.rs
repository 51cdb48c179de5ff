//! Changes to the Admin or Baseline tier where one of its Deny rules decided: an exception before the rule, in its policy or in one of
//! its own that goes before it.

use std::sync::Arc;

use serde_json::Value;

use crate::cluster::{Action, ClusterPeer, ClusterPolicy, ClusterPolicyKind, ClusterRule, Direction, Labels, Pod, Subject};
use crate::policy::evaluate::Changed;
use crate::policy::explanation::{PatchOperation, PolicyRef, RuleRef};

use super::gain::Opened;
use super::network::free_name;
use super::{Candidate, Change, Edit, Size, Task, Written, manifest, other};

/// Rules that a policy may have in one direction: in v1alpha1, and in v1alpha2.
const MAX_RULES: usize = 100;
const MAX_RULES_V1ALPHA2: usize = 25;

/// Proposes changes; a policy of its own first, since it admits the fewest and others then need not be looked at for long. Pass goes before Accept: it leaves the last word to the NetworkPolicies.
pub(super) fn candidates<'a>(task: &'a Task<'a>, rule: &RuleRef, take: &mut impl FnMut(Candidate<'a>)) {
    let Some(subject) = task.case.sides(task.direction).0.pod() else { return };
    let Some(policy) = denying(task, rule).filter(|policy| policy.invalid.is_empty()) else { return };
    let actions: &[Action] = match policy.kind {
        // v1alpha1's baseline knows Allow and Deny only.
        ClusterPolicyKind::BaselineAdminNetworkPolicy => &[Action::Accept],
        _ => &[Action::Pass, Action::Accept],
    };
    for action in actions {
        own_policy(task, &policy, subject, *action).into_iter().for_each(&mut *take);
    }
    for action in actions {
        exception(task, &policy, rule.index, *action).into_iter().for_each(&mut *take);
    }
}

/// The policy of the rule, as an earlier fix left it or as it is.
fn denying(task: &Task<'_>, rule: &RuleRef) -> Option<Arc<ClusterPolicy>> {
    let is_it = |policy: &ClusterPolicy| policy.kind.as_str() == rule.policy.kind && policy.name == rule.policy.name;
    let changed = task.view.changed.iter().rev().find_map(|changed| match changed {
        Changed::ClusterPolicy(policy) if is_it(policy) => Some(policy.clone()),
        _ => None,
    });
    changed.or_else(|| task.view.index.cluster_policies().find(|policy| is_it(policy)).cloned())
}

fn excepting(task: &Task<'_>, action: Action) -> (ClusterRule, String) {
    let (peer, shown) = task.other.cluster_peer();
    (ClusterRule { name: None, action, peers: vec![peer], ports: vec![task.other.cluster_port()], origin: None }, shown)
}

/// A rule before the one that denies.
fn exception(task: &Task<'_>, policy: &Arc<ClusterPolicy>, index: usize, action: Action) -> Option<Candidate<'static>> {
    let (direction, list) = (task.direction, task.peers_field());
    let rules = policy.rules(direction);
    let most = if policy.kind == ClusterPolicyKind::ClusterNetworkPolicy { MAX_RULES_V1ALPHA2 } else { MAX_RULES };
    if rules.len() >= most {
        return None;
    }
    let before = policy.clone();
    let (rule, peer) = excepting(task, action);
    let value = manifest::cluster_rule(policy.kind, &rule, task.peers_field());
    let shown = format!(
        "{direction}: before [{index}] insert {} {} {peer}, ports {}",
        manifest::action(policy.kind, action),
        task.peers_field(),
        task.other.port
    );
    let mut edited = ClusterPolicy::clone(policy);
    let opened = Opened::cluster(&edited.subject, rule.peers.first()?, task.other.port.clone());
    rules_mut(&mut edited, direction).insert(index, rule);
    let change = Change {
        edit: Edit::Policy(Changed::ClusterPolicy(Arc::new(edited))),
        shown,
        patch: Box::new(move || insert_before(&before, direction, index, list, value)),
    };
    Some(Candidate { edits: Some(PolicyRef::of_cluster(policy)), opened, size: Size::Rule, change: Written::Now(change) })
}

/// Inserts a rule before the one at `index`, which must still be the one it was. The API server stores these objects as they were written:
/// of a rule that could have been written in two ways only what leaves no choice is compared.
fn insert_before(policy: &ClusterPolicy, direction: Direction, index: usize, list: &str, value: Value) -> Vec<PatchOperation> {
    let path = format!("/spec/{direction}/{index}");
    let mut patch = Vec::new();
    if let Some(rule) = policy.rules(direction).get(index) {
        let has_a_choice = |peer: &ClusterPeer| match peer {
            ClusterPeer::Pods { namespace, .. } => namespace.requirements.is_empty(),
            ClusterPeer::DomainNames(_) => true,
            _ => false,
        };
        let written = manifest::cluster_rule(policy.kind, rule, list);
        match &written {
            Value::Object(fields) if rule.peers.iter().any(has_a_choice) => {
                let definite = fields.iter().filter(|(field, _)| *field != list);
                let test =
                    |(field, value): (&String, &Value)| PatchOperation::Test { path: format!("{path}/{field}"), value: value.clone() };
                patch.extend(definite.map(test));
            }
            _ => patch.push(PatchOperation::Test { path: path.clone(), value: written }),
        }
    }
    patch.push(PatchOperation::Add { path, value });
    patch
}

/// A policy for the pod's workload alone, with a priority of its own before the one that denies.
fn own_policy(task: &Task<'_>, policy: &ClusterPolicy, subject: &Pod, action: Action) -> Option<Candidate<'static>> {
    // There is one BaselineAdminNetworkPolicy only.
    if policy.kind == ClusterPolicyKind::BaselineAdminNetworkPolicy {
        return None;
    }
    let (view, direction) = (&task.view, task.direction);
    let is_taken = |priority: &u16| view.index.cluster_policies().any(|other| other.tier == policy.tier && other.priority == *priority);
    let priority = (0..policy.priority).rev().find(|priority| !is_taken(priority))?;
    let pods = other::selector_of(subject, view, task.kept);
    if pods.requirements.is_empty() {
        return None;
    }
    let (rule, peer) = excepting(task, action);
    let word = if direction == Direction::Ingress { "from" } else { "to" };
    let peer_name = task.case.sides(direction).1.pod().map_or("external", |pod| &pod.workload.name);
    let wanted = format!("{}-{}-{word}-{peer_name}", subject.namespace, subject.workload.name);
    let name = free_name(&wanted, |name| view.index.cluster_policy(policy.kind, name).is_some());
    let shown = format!(
        "new {} {name}, priority {priority}, for pods {} of namespace {}: {direction} {} {} {peer}, ports {}",
        policy.kind,
        other::braces(&pods),
        subject.namespace,
        manifest::action(policy.kind, action),
        task.peers_field(),
        task.other.port
    );
    let mut new = ClusterPolicy {
        kind: policy.kind,
        name: name.into(),
        resource_version: None,
        labels: Labels::new(),
        annotations: Labels::new(),
        tier: policy.tier,
        priority,
        subject: Subject::Pods { namespace: other::named(&subject.namespace), pod: pods },
        ingress: Vec::new(),
        egress: Vec::new(),
        invalid: Vec::new(),
        origin: None,
    };
    let opened = Opened::cluster(&new.subject, rule.peers.first()?, task.other.port.clone());
    rules_mut(&mut new, direction).push(rule);
    let change = Change { edit: Edit::Policy(Changed::ClusterPolicy(Arc::new(new))), shown, patch: Box::new(Vec::new) };
    Some(Candidate { edits: None, opened, size: Size::Policy, change: Written::Now(change) })
}

fn rules_mut(policy: &mut ClusterPolicy, direction: Direction) -> &mut Vec<ClusterRule> {
    match direction {
        Direction::Ingress => &mut policy.ingress,
        Direction::Egress => &mut policy.egress,
    }
}
