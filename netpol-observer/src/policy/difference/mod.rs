//! What changes to policies, and to labels of namespaces, do to connections between workloads.
//!
//! `compiled::compare` finds the pairs of ends whose verdict turns, `count` sorts them into pairs of workloads, and `sample` names for
//! some of them a connection and the rules that make the difference.

mod count;
mod sample;

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::compiled::{Change, PortRange, Work};
use super::engine::Engine;
use super::explanation::{PolicyRef, RuleRef};
use crate::cluster::{Direction, Kind, Object, ObjectKey, Workload};

/// How much is looked at, and named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Verdicts on pairs of groups of pods that no rule can tell apart, and what takes as long: 500,000. What would take more is not counted; with 0 nothing
    /// is.
    pub verdicts: u64,
    /// Pairs that are named of each kind: 5.
    pub named: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { verdicts: 500_000, named: 5 }
    }
}

/// Which verdicts on new connections are others after changes.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    /// All of them.
    Counted(Box<Turned>),
    /// They were not worked out.
    NotCounted(NotCounted),
}

/// Why a difference was not worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCounted {
    /// It would have taken more than this many [verdicts](Bounds::verdicts).
    Verdicts(u64),
    /// More than this many objects changed at once.
    Objects(usize),
    /// Changes came faster than their effects could be worked out.
    Busy,
    /// Known, and withheld: the reader may not read all namespaces. Nothing here gives it; the agent puts it in for tenants.
    NotShown,
}

/// The pairs between which a verdict turned, by what it became. A pair can be in several, on different ports or for different pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turned {
    /// Connections that were allowed are denied.
    pub denied: Pairs,
    /// Connections that were denied are allowed.
    pub allowed: Pairs,
    /// It cannot be decided whether connections are allowed, or could not be before.
    pub undecided: Pairs,
}

/// Pairs of a caller and a called one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pairs {
    /// Pairs of two workloads, or of one with itself.
    pub workloads: u64,
    /// Pairs of a workload and of nodes or a range of addresses outside of the cluster.
    pub outside: u64,
    /// The first of them by name, those of two workloads before others.
    pub named: Vec<Pair>,
}

/// A caller and a called one, some of whose connections have another verdict than before.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Who calls.
    pub source: PairEnd,
    /// Who is called.
    pub destination: PairEnd,
    /// On which ports.
    pub ports: Vec<PortRange>,
    /// Why: of one of the connections, on the first of the ports, what is said in the directions in which it is not the same as before.
    pub causes: Vec<Cause>,
}

/// One side of a [`Pair`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PairEnd {
    /// Pods of a workload.
    Workload {
        /// Its namespace.
        namespace: Arc<str>,
        /// What it is.
        workload: Workload,
    },
    /// Nodes, and the pods in their network. That a node may always reach the pods on it is none of their differences.
    Nodes,
    /// Addresses outside of the cluster: in this range, as far as no smaller one that policies name contains them.
    Outside(IpNet),
}

/// What a direction came to, and what it comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// Which direction.
    pub direction: Direction,
    /// Before.
    pub before: Ruling,
    /// Afterwards.
    pub after: Ruling,
}

/// What policies say of a connection in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ruling {
    /// None speaks of it: it is admitted.
    Open,
    /// Rules admit it.
    Admitted {
        /// All NetworkPolicy rules that do, in the order of policies by name and then of rules; or the one rule of the Admin or Baseline tier.
        by: Vec<RuleRef>,
    },
    /// It is denied.
    Denied {
        /// The Deny rule that decides; absent when NetworkPolicies isolate the pod.
        by: Option<RuleRef>,
        /// The NetworkPolicies that isolate the pod, by name. Empty where a Deny rule decides.
        isolating: Vec<PolicyRef>,
    },
    /// It cannot be decided.
    Undecided {
        /// What is missing.
        why: String,
    },
}

impl PairEnd {
    /// The namespace of a workload.
    pub fn namespace(&self) -> Option<&Arc<str>> {
        match self {
            PairEnd::Workload { namespace, .. } => Some(namespace),
            PairEnd::Nodes | PairEnd::Outside(_) => None,
        }
    }
}

impl Turned {
    /// Whether no verdict turned.
    pub fn is_empty(&self) -> bool {
        [&self.denied, &self.allowed, &self.undecided].iter().all(|pairs| pairs.workloads == 0 && pairs.outside == 0)
    }
}

impl Difference {
    /// No verdict turned.
    pub fn none() -> Self {
        Difference::Counted(Box::default())
    }

    /// Whether it is known that no verdict turned.
    pub fn is_none(&self) -> bool {
        matches!(self, Difference::Counted(turned) if turned.is_empty())
    }
}

impl Engine {
    /// Changes objects, and says which verdicts on new connections are others afterwards. For each object it is given what it becomes, or
    /// nothing where it goes; of several with one name the last counts.
    ///
    /// Compared are policies and labels of namespaces, over the pods that there are, on all ports of TCP, UDP and SCTP. Objects of other
    /// kinds are changed too, but before: a pod that comes or goes makes no difference.
    pub fn change(&mut self, objects: impl IntoIterator<Item = (ObjectKey, Option<Object>)>, bounds: &Bounds) -> Difference {
        let objects: BTreeMap<ObjectKey, Option<Object>> = objects.into_iter().collect();
        let (compared, others): (Vec<_>, Vec<_>) = objects.into_iter().partition(|(key, _)| is_compared(key.kind));
        for (key, object) in others {
            self.put(&key, object);
        }
        let changes = compared.into_iter().map(|(key, after)| (self.index().object(&key), after));
        let changes: Vec<Change> = changes.filter(|(before, after)| before != after).collect();
        if changes.is_empty() {
            return Difference::none();
        }
        let mut work = Work::new(bounds.verdicts);
        let (index, turns) = self.compare(&changes, &mut work);
        let counted = turns.and_then(|turns| count::Counting::new(self, [&index, self.index()], &changes).count(&turns, bounds, &mut work));
        self.tidy();
        match counted {
            Some(turned) => Difference::Counted(Box::new(turned)),
            None => Difference::NotCounted(NotCounted::Verdicts(bounds.verdicts)),
        }
    }
}

/// Whether [`Engine::change`] compares what changes of this kind do: policies, and namespaces for their labels.
pub fn is_compared(kind: Kind) -> bool {
    kind == Kind::Namespace || kind == Kind::NetworkPolicy || kind.cluster_policy().is_some()
}
