//! A drop and an engine → its [`Denial`]; by one engine for all times, or as of the time of the drop.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::attribution::{Gist, Lateness, PUBLISH_LAG, later};
use super::changes::Changes;
use super::cuts::Cuts;
use super::known::AtMoment;
use super::uids::Uids;
use crate::cluster::{ForeignPolicies, Kind, Pod};
use crate::diagnose::{Agreement, Denial, Moment, PastKnown, Unevaluated, diagnose, is_enforced};
use crate::flow::DropEvent;
use crate::identify::{Identity, Party, Who, identify, settle_tunnel};
use crate::policy::{Connection, Engine, Verdict};
use crate::timeline::{LookBack, WATCH_LAG};

/// Judges a drop by an engine: who it was, what the policies say, and what dropped it.
pub fn judge(event: DropEvent, engine: &Engine) -> Denial {
    let event = settle_tunnel(event, engine.index());
    let who = identify(&event, engine.index());
    let explanation = engine.explain(&connection(&event, &who));
    let diagnosis = diagnose(&event, &who, &explanation, None);
    Denial { event, who, explanation, diagnosis, moment: None }
}

/// The connection that a dropped packet belongs to.
pub(super) fn connection(event: &DropEvent, who: &Who) -> Connection {
    Connection {
        source: who.client.clone(),
        destination: who.server.clone(),
        protocol: event.flow.protocol,
        port: server_port(event, who),
        service: who.service.clone(),
    }
}

/// The port of the server's own address: that of the packet, or, when the packet still carries a Service's address, the port
/// of the backend that `who.server` names.
pub fn server_port(event: &DropEvent, who: &Who) -> Option<u16> {
    let flow = &event.flow;
    if event.is_reply() {
        return flow.source_port;
    }
    if let Some(call) = &who.service
        && call.ip == flow.destination.to_canonical()
        && who.server.ip != call.ip
        && let Some((_, port)) = call.backends.iter().find(|(ip, _)| *ip == who.server.ip)
    {
        return Some(*port);
    }
    flow.destination_port
}

/// What drops are judged by as of their time, besides the timeline.
pub(super) struct AsOf<'a> {
    pub(super) uids: &'a Uids,
    pub(super) foreign: &'a ForeignPolicies,
    /// Kinds that must have been listed.
    pub(super) required: &'a [Kind],
    /// How much later than a publication takes an owner may still turn up.
    pub(super) late: SignedDuration,
    /// Changes of policies and labels.
    pub(super) changes: &'a Changes,
    /// When kinds were not heard of.
    pub(super) cuts: &'a Cuts,
    pub(super) now: Timestamp,
}

/// What became of a drop.
pub(super) enum Judged {
    /// It is worth waiting: who an end is may be told by then.
    Wait(Box<DropEvent>, Timestamp),
    /// It is judged.
    Given {
        denial: Box<Denial>,
        /// Where something that is told may change it.
        watch: Option<Watch>,
    },
}

/// What may change a drop that was given, and until when.
pub(super) struct Watch {
    pub(super) until: Timestamp,
    /// It was judged without all objects.
    pub(super) is_without_lists: bool,
    /// Who had the addresses of its ends, by what was known when it was judged.
    pub(super) ends: Vec<(IpAddr, Gist)>,
}

impl AsOf<'_> {
    /// Judges a drop. `must` leaves no choice to wait.
    pub(super) fn judge(&self, look: &mut LookBack<'_>, event: DropEvent, must: bool) -> Judged {
        let when = event.time;
        look.at(when);
        let past = self.past(look, when);
        let event = settle_tunnel(event, look.engine().index());
        let known = AtMoment::new(look, self.uids, &event, Lateness { late: self.late, cuts: self.cuts });
        let who = identify(&event, &known);
        let (owners, open) = known.conclude(&event, &who);
        let syncing = matches!(&past, PastKnown::Syncing { missing } if !missing.is_empty()).then(|| later(when, PUBLISH_LAG));
        let wait_until = open.wait_until.max(syncing).filter(|until| *until > self.now && !must);
        if let Some(until) = wait_until {
            return Judged::Wait(Box::new(event), until);
        }
        let connection = connection(&event, &who);
        let mut explanation = look.engine().explain(&connection);
        let enforces = is_enforced(&event) && event.tunnel.is_none() && !event.is_reply();
        let mut moment = Moment { past, owners, changes: Vec::new(), unevaluated: self.unevaluated(&who) };
        if enforces || explanation.verdict == Verdict::Deny {
            let meaning = self.changes.mean(look, &connection, when, explanation.verdict);
            moment.changes = meaning.changes;
            if enforces
                && let (Some(denied), Some(after)) = (meaning.denied_after, moment.enforced_already())
                && moment.not_yet_enforced().is_none_or(|before| after.before_drop.abs() < before.before_drop)
            {
                explanation = denied;
            }
        }
        let diagnosis = diagnose(&event, &who, &explanation, Some(&moment));
        // The policy that forbids it may be told yet.
        let is_against = enforces && !matches!(diagnosis.agreement, Agreement::Agrees);
        let lag_end = is_against.then(|| later(when, WATCH_LAG));
        // What was judged without all objects is judged again when they are there, however long that takes.
        let sync_end = syncing.map(|_| Timestamp::MAX);
        let until = open.final_at.max(lag_end).max(sync_end).filter(|until| *until >= self.now);
        let watch = until.map(|until| Watch { until, is_without_lists: syncing.is_some(), ends: open.ends });
        Judged::Given { denial: Box::new(Denial { event, who, explanation, diagnosis, moment: Some(moment) }), watch }
    }

    fn past(&self, look: &LookBack<'_>, when: Timestamp) -> PastKnown {
        let missing: Vec<Kind> = self.required.iter().copied().filter(|kind| !look.is_listed(*kind)).collect();
        if !missing.is_empty() || when < look.listed_at() {
            PastKnown::Syncing { missing }
        } else if when < look.horizon() {
            PastKnown::BeforeHorizon { horizon: look.horizon() }
        } else if let Some((kinds, since)) = self.cuts.at(when) {
            PastKnown::Behind { kinds, since }
        } else {
            PastKnown::Exact
        }
    }

    /// The policies that are not evaluated and may concern an end.
    fn unevaluated(&self, who: &Who) -> Vec<Unevaluated> {
        let pods = [&who.client, &who.server].into_iter().flat_map(pods);
        let mut namespaces: Vec<&Arc<str>> = pods.map(|pod| &pod.namespace).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let kinds = self.foreign.kinds().filter_map(|foreign| {
            let count =
                if foreign.namespaced { namespaces.iter().map(|namespace| foreign.concerning(namespace)).sum() } else { foreign.count };
            let may_concern = if foreign.counted { count > 0 } else { !foreign.namespaced || !namespaces.is_empty() };
            may_concern.then(|| Unevaluated {
                group: foreign.group.clone(),
                kind: foreign.kind.clone(),
                count: foreign.counted.then_some(count),
            })
        });
        kinds.collect()
    }
}

fn pods(party: &Party) -> &[Arc<Pod>] {
    match &party.identity {
        Identity::Pod(pod) => std::slice::from_ref(pod),
        Identity::AmbiguousPods(pods) => pods,
        _ => &[],
    }
}
