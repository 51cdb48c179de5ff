//! What is known of the moment of a drop, and what amends a drop.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;

use super::DenialObject;
use crate::diagnose::{Attributed, How, Moment, PastKnown, RecentChange, Unevaluated};
use crate::flow::FoldId;
use crate::pipeline::Amendment;
use crate::policy::Verdict;
use crate::timeline::{ChangeKind, Holder, Owner};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MomentObject<'a> {
    exact: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    owners: Vec<OwnerObject>,
    changes: Vec<ChangeObject<'a>>,
    not_evaluated: Vec<UnevaluatedObject<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OwnerObject {
    ip: IpAddr,
    how: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pods: Vec<TenureObject>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TenureObject {
    pod: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChangeObject<'a> {
    object: ChangedObject<'a>,
    change: ChangeKind,
    time: Timestamp,
    seconds_before: f64,
    verdict_before: Verdict,
    verdict_after: Verdict,
}

#[derive(Serialize)]
struct ChangedObject<'a> {
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    name: &'a str,
}

#[derive(Serialize)]
struct UnevaluatedObject<'a> {
    group: &'a str,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
}

/// `type: amendment`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AmendmentObject<'a> {
    id: FoldId,
    time: Timestamp,
    why: &'a str,
    denial: DenialObject<'a>,
}

impl<'a> AmendmentObject<'a> {
    pub(super) fn of(amendment: &'a Amendment, node: Option<&'a str>) -> Self {
        let denial = DenialObject::of(&amendment.denial, node);
        AmendmentObject { id: amendment.id(), time: amendment.time(), why: &amendment.why, denial }
    }
}

impl<'a> MomentObject<'a> {
    pub(super) fn of(moment: &'a Moment) -> Self {
        MomentObject {
            exact: moment.past == PastKnown::Exact,
            why: moment.why_inexact(),
            owners: moment.owners.iter().map(owner).collect(),
            changes: moment.changes.iter().map(change).collect(),
            not_evaluated: moment.unevaluated.iter().map(unevaluated).collect(),
        }
    }
}

fn owner(attributed: &Attributed) -> OwnerObject {
    let alone = |pod: &crate::cluster::Pod| TenureObject { pod: format!("{}/{}", pod.namespace, pod.name), since: None, until: None };
    let (how, seconds, pods) = match &attributed.how {
        How::Interface { pod, published } => ("interface", None, std::iter::once(pod).chain(published).map(|pod| alone(pod)).collect()),
        How::PublishedLater { pod, after } => ("publishedLater", Some(after.as_secs_f64()), vec![alone(pod)]),
        How::Gone { pod, before } => ("gone", Some(before.as_secs_f64()), vec![alone(pod)]),
        How::Several(owners) => ("several", None, owners.iter().map(tenure).collect()),
        How::NotKnown => ("notKnown", None, Vec::new()),
    };
    OwnerObject { ip: attributed.ip, how, seconds, pods }
}

fn tenure(owner: &Owner) -> TenureObject {
    let pod = match &owner.who {
        Holder::Pod(pod) => format!("{}/{}", pod.namespace, pod.name),
        other => other.to_string(),
    };
    TenureObject { pod, since: owner.since, until: owner.until }
}

fn change(change: &RecentChange) -> ChangeObject<'_> {
    let namespace = Some(&*change.key.namespace).filter(|namespace| !namespace.is_empty());
    ChangeObject {
        object: ChangedObject { kind: change.key.kind.to_string(), namespace, name: &change.key.name },
        change: change.kind,
        time: change.when,
        seconds_before: change.before_drop.as_secs_f64(),
        verdict_before: change.verdict_before,
        verdict_after: change.verdict_after,
    }
}

fn unevaluated(kind: &Unevaluated) -> UnevaluatedObject<'_> {
    UnevaluatedObject { group: &kind.group, kind: &kind.kind, count: kind.count }
}
