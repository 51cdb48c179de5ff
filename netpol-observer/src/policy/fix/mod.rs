//! The smallest change that admits a denied connection, proved by evaluating it.
//!
//! `network` and `cluster` propose changes to policies, `label` to a workload's labels; `gain` counts whom a change admits besides. Of all
//! that are proved, the one that admits the fewest others wins; of equals the one that opens the fewest ports, then the smallest edit,
//! then the one to the nearest rule.

mod cluster;
mod gain;
mod kept;
mod label;
mod labels;
mod manifest;
mod network;
mod other;
mod patch;

use std::sync::Arc;

use crate::cluster::{Direction, NetworkPolicy, PolicyPort, PortNumber};

use super::connection::{Case, Who};
use super::evaluate::{Changed, View};
use super::explanation::{Fix, Manifest, NearMiss, PatchOperation, PolicyRef, RuleRef};

use gain::{Gain, Opened};
pub(super) use kept::Kept;
use other::Other;

/// What is asked: to admit this connection in this direction.
struct Task<'a> {
    view: View<'a>,
    kept: &'a Kept,
    /// All that the connection may be; the change must admit each of them.
    cases: &'a [Case<'a>],
    case: Case<'a>,
    direction: Direction,
    other: Other,
}

/// A change, not yet proved.
struct Candidate<'a> {
    /// The policy that is edited; none where it is new.
    edits: Option<PolicyRef>,
    /// What it opens.
    opened: Opened,
    size: Size,
    change: Written<'a>,
}

/// The change itself. Most are never written: others cost less.
enum Written<'a> {
    Now(Change),
    Later(Box<dyn FnOnce() -> Option<Change> + 'a>),
}

struct Change {
    edit: Edit,
    /// In one line.
    shown: String,
    /// Written when it is the one.
    patch: Box<dyn FnOnce() -> Vec<PatchOperation>>,
}

/// How large an edit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Size {
    /// An entry of a list.
    Entry,
    Rule,
    Policy,
    /// Labels of a workload: every selector of the cluster may look at them.
    Label,
}

/// What is changed.
#[derive(Clone)]
enum Edit {
    Policy(Changed),
    Labels(label::Relabelled),
}

/// The smallest change, and the policy after it, for a second fix to start from.
///
/// # Errors
/// When no change helps; in words for people.
pub(super) fn smallest(
    view: &View<'_>,
    kept: &Kept,
    cases: &[Case<'_>],
    direction: Direction,
    by: Option<&RuleRef>,
    nearest: &[NearMiss],
) -> Result<(Fix, Option<Changed>), String> {
    let Some(case) = cases.first().copied() else { return Err("nothing is known of the connection".to_owned()) };
    let (subject, peer) = case.sides(direction);
    if subject.pod().is_none() {
        return Err("the side that policies deny is no pod".to_owned());
    }
    let Some(port) = case.port.filter(|_| case.protocol.has_ports()) else {
        return Err(format!("policies cannot name {} connections without a port", case.protocol));
    };
    if matches!(peer.who, Who::Unowned) {
        return Err(format!("it is not known which pod has the address {}", peer.ip));
    }
    let other = Other::new(view, kept, &peer, PolicyPort { protocol: case.protocol, port: PortNumber::Number(port) });
    let task = Task { view: *view, kept, cases, case, direction, other };
    let mut search = Search { task: &task, gain: Gain::new(&task), best: None };
    match by {
        Some(rule) => cluster::candidates(&task, rule, &mut |candidate| search.take(candidate)),
        None => network::candidates(&task, &Gain::new(&task), nearest, &mut |candidate| search.take(candidate)),
    }
    if search.best.as_ref().is_none_or(|best| best.cost.admitted > label::WORTH_IT) {
        label::candidates(&task, nearest, &mut |candidate| search.take(candidate));
    }
    let Some(best) = search.best else {
        return Err("no single change to a policy admits it".to_owned());
    };
    let newly_admits = search.gain.names(&best.opened, &best.change.edit);
    let Best { edits, change: Change { edit, shown, patch }, .. } = best;
    let (manifest, changed) = match edit {
        Edit::Policy(Changed::NetworkPolicy(policy)) => (Manifest::NetworkPolicy(policy.clone()), Some(Changed::NetworkPolicy(policy))),
        Edit::Policy(Changed::ClusterPolicy(policy)) => (Manifest::ClusterPolicy(policy.clone()), Some(Changed::ClusterPolicy(policy))),
        Edit::Labels(relabelled) => (relabelled.manifest(), None),
    };
    Ok((Fix { direction, policy: edits, change: shown, manifest, patch: patch(), newly_admits }, changed))
}

/// What a change costs; less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    admitted: usize,
    ports: gain::Breadth,
    size: Size,
}

struct Best {
    cost: Cost,
    edits: Option<PolicyRef>,
    opened: Opened,
    change: Change,
}

/// Keeps the best of the candidates that are proved.
struct Search<'a> {
    task: &'a Task<'a>,
    gain: Gain<'a>,
    best: Option<Best>,
}

impl Search<'_> {
    /// Takes a candidate.
    fn take(&mut self, candidate: Candidate<'_>) {
        let Candidate { edits, opened, size, change } = candidate;
        let ports = opened.breadth();
        let enough = self.best.as_ref().map_or(usize::MAX, |best| best.cost.admitted.saturating_add(1));
        let is_better = |admitted| {
            let cost = Cost { admitted, ports, size };
            self.best.as_ref().is_none_or(|best| cost < best.cost).then_some(cost)
        };
        // A change admits at least who was called.
        let proved = || {
            is_better(1)?;
            match change {
                Written::Now(change) => {
                    let is_proved = self.task.is_proved(&change.edit);
                    let cost = is_proved.then(|| self.gain.count(&opened, Some(&change.edit), enough)).and_then(is_better)?;
                    Some((cost, change))
                }
                Written::Later(write) => {
                    let cost = is_better(self.gain.count(&opened, None, enough))?;
                    let change = write()?;
                    self.task.is_proved(&change.edit).then_some((cost, change))
                }
            }
        };
        if let Some((cost, change)) = proved() {
            self.best = Some(Best { cost, edits, opened, change });
        }
    }
}

impl Task<'_> {
    /// Whether the change admits the connection, whatever it may be.
    fn is_proved(&self, edit: &Edit) -> bool {
        match edit {
            Edit::Policy(changed) => {
                let changed: Vec<Changed> = self.view.changed.iter().chain([changed]).cloned().collect();
                let view = View { changed: &changed, ..self.view };
                self.cases.iter().all(|case| view.judge(case, self.direction).admits() == Some(true))
            }
            Edit::Labels(relabelled) => relabelled.is_proved(self),
        }
    }

    /// A NetworkPolicy as an earlier fix left it, or as it is.
    fn network_policy(&self, namespace: &str, name: &str) -> Option<Arc<NetworkPolicy>> {
        let changed = self.view.changed.iter().rev().find_map(|changed| match changed {
            Changed::NetworkPolicy(policy) if (&*policy.namespace, &*policy.name) == (namespace, name) => Some(policy.clone()),
            _ => None,
        });
        changed.or_else(|| self.view.index.policy(namespace, name).cloned())
    }

    fn peers_field(&self) -> &'static str {
        match self.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        }
    }
}
