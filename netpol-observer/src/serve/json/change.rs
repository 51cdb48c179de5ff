//! What a change of a policy does, as JSON.

use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use crate::cluster::{Direction, Kind, Workload};
use crate::effect::{ChangeKind, Effect, summary};
use crate::flow::Protocol;
use crate::policy::{Cause, Difference, Pair, PairEnd, Pairs, PolicyRef, PortRange, RuleRef, Ruling};

/// `type: policyChange`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyChangeObject<'a> {
    id: String,
    time: Timestamp,
    change: ChangeKind,
    object: ObjectName<'a>,
    summary: String,
    counted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    denied: Option<PairsObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<PairsObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undecided: Option<PairsObject<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectName<'a> {
    kind: Kind,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PairsObject<'a> {
    workloads: u64,
    outside: u64,
    pairs: Vec<PairObject<'a>>,
}

/// Connections between a caller and a called one that are decided otherwise than before.
#[derive(Serialize)]
pub struct PairObject<'a> {
    from: EndObject<'a>,
    to: EndObject<'a>,
    ports: Vec<PortsObject>,
    causes: Vec<CauseObject<'a>>,
}

/// A side of pairs.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum EndObject<'a> {
    /// Pods of a workload.
    Workload {
        /// Its namespace.
        namespace: &'a str,
        /// What it is.
        workload: &'a Workload,
    },
    /// Nodes.
    Nodes,
    /// Addresses outside of the cluster.
    Outside {
        /// In this range.
        range: IpNet,
    },
}

#[derive(Serialize)]
struct PortsObject {
    protocol: Protocol,
    from: u16,
    to: u16,
}

#[derive(Serialize)]
struct CauseObject<'a> {
    direction: Direction,
    before: RulingObject<'a>,
    after: RulingObject<'a>,
}

/// The outcomes are called as in the explanation of a denial.
#[derive(Serialize)]
#[serde(tag = "outcome", rename_all = "camelCase")]
enum RulingObject<'a> {
    NotIsolated,
    Allowed {
        by: &'a [RuleRef],
    },
    Denied {
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<&'a RuleRef>,
        isolating: Vec<IsolatingObject<'a>>,
    },
    Undecided {
        why: &'a str,
    },
}

#[derive(Serialize)]
struct IsolatingObject<'a> {
    policy: &'a PolicyRef,
}

impl<'a> PolicyChangeObject<'a> {
    pub(super) fn of(effect: &'a Effect) -> Self {
        let turned = match &effect.difference {
            Difference::Counted(turned) => Some(turned),
            Difference::NotCounted(_) => None,
        };
        PolicyChangeObject {
            id: effect.id.to_string(),
            time: effect.when,
            change: effect.change,
            object: ObjectName {
                kind: effect.key.kind,
                namespace: &effect.key.namespace,
                name: &effect.key.name,
                resource_version: effect.resource_version.as_deref(),
            },
            summary: summary(&effect.difference),
            counted: turned.is_some(),
            denied: turned.map(|turned| pairs(&turned.denied)),
            allowed: turned.map(|turned| pairs(&turned.allowed)),
            undecided: turned.map(|turned| pairs(&turned.undecided)),
        }
    }
}

fn pairs(pairs: &Pairs) -> PairsObject<'_> {
    PairsObject { workloads: pairs.workloads, outside: pairs.outside, pairs: pairs.named.iter().map(PairObject::of).collect() }
}

impl<'a> PairObject<'a> {
    /// A pair.
    pub fn of(pair: &'a Pair) -> Self {
        let ports = pair.ports.iter().map(|&PortRange { protocol, from, to }| PortsObject { protocol, from, to });
        PairObject {
            from: EndObject::of(&pair.source),
            to: EndObject::of(&pair.destination),
            ports: ports.collect(),
            causes: pair.causes.iter().map(cause).collect(),
        }
    }
}

impl<'a> EndObject<'a> {
    /// A side of pairs.
    pub fn of(of: &'a PairEnd) -> Self {
        end(of)
    }
}

fn end(end: &PairEnd) -> EndObject<'_> {
    match end {
        PairEnd::Workload { namespace, workload } => EndObject::Workload { namespace, workload },
        PairEnd::Nodes => EndObject::Nodes,
        PairEnd::Outside(range) => EndObject::Outside { range: *range },
    }
}

fn cause(cause: &Cause) -> CauseObject<'_> {
    CauseObject { direction: cause.direction, before: ruling(&cause.before), after: ruling(&cause.after) }
}

fn ruling(ruling: &Ruling) -> RulingObject<'_> {
    match ruling {
        Ruling::Open => RulingObject::NotIsolated,
        Ruling::Admitted { by } => RulingObject::Allowed { by },
        Ruling::Denied { by, isolating } => {
            RulingObject::Denied { by: by.as_ref(), isolating: isolating.iter().map(|policy| IsolatingObject { policy }).collect() }
        }
        Ruling::Undecided { why } => RulingObject::Undecided { why },
    }
}
