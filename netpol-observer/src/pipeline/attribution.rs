//! Which pod had an address at a moment, as far as what was told later and earlier allows to say.
//!
//! A pod has an address from some time within [`PUBLISH_LAG`] before that is told ([`ON_ITS_WAY`] more, for the way here), until some time before its
//! end is told; that it ends (it is being deleted) is told no later than [`WATCH_LAG`] after it began to. An API server that deletes a pod by force tells its end up to
//! [`WATCH_LAG`] too early. At one time an address belongs to one pod. Everybody who can have had it by these rules is named, and nobody else.
//! What happened while pods were not heard of is told with the list that follows, however long after: who is gone or new by then can have
//! gone or come at any time in between.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::cuts::Cuts;
use crate::cluster::{Kind, Object, Pod};
use crate::timeline::{Holder, LookBack, Owner, WATCH_LAG};

/// How long after its first packet the address of a pod may be published: the time in which kubelet reports a new pod's status, in most
/// clusters.
pub const PUBLISH_LAG: SignedDuration = SignedDuration::from_secs(3);

/// How much later than the kubelet tells it a publication may be told here, and how much later than the kubelet this agent may be told of a pod: a pod
/// sends nothing before its kubelet knows of it, so whoever turns up later than this came later.
const ON_ITS_WAY: SignedDuration = SignedDuration::from_millis(500);

/// By when the address of a pod is told here, after its first packet.
const PUBLISHED: SignedDuration = PUBLISH_LAG.saturating_add(ON_ITS_WAY);

/// Who had an address at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attribution {
    /// The pods that had it or may have had it, in the order in which they got it.
    pub(super) pods: Vec<Owner>,
    /// Whether it was told at the moment that the pod has the address, and nothing said that it ends.
    pub(super) is_certain: bool,
    /// Whether it is worth waiting for what is told up to `final_at`: as far as is told now, the owner may be one that nobody has told of yet.
    pub(super) is_open: bool,
    /// Until when that is worth it.
    pub(super) wait_until: Timestamp,
    /// From when on nothing that is told makes a difference.
    pub(super) final_at: Timestamp,
}

/// How much later than it happens something may be told.
#[derive(Clone, Copy)]
pub(super) struct Lateness<'a> {
    /// How much later than [`PUBLISH_LAG`] an owner may still turn up, where there is none.
    pub(super) late: SignedDuration,
    /// When kinds were not heard of.
    pub(super) cuts: &'a Cuts,
}

/// By when what concerns the pods of a moment is told.
struct Told {
    /// The list with which pods were heard of again, if the moment was in a time without news of them.
    listed: Option<Timestamp>,
    /// They are not heard of yet.
    is_cut: bool,
}

impl Told {
    fn of(when: Timestamp, cuts: &Cuts) -> Self {
        let cut = cuts.of(Kind::Pod, when);
        Told { listed: cut.flatten(), is_cut: cut == Some(None) }
    }

    /// What is told `lag` after the moment, or after the list.
    fn later(&self, when: Timestamp, lag: SignedDuration) -> Timestamp {
        later(self.listed.map_or(when, |listed| listed.max(when)), lag)
    }

    /// `time`, or the end of all times where that is not known yet.
    fn last(&self, time: Timestamp) -> Timestamp {
        if self.is_cut { Timestamp::MAX } else { time }
    }
}

/// Who had an address, in short: the uids, and whether that is certain.
pub(super) type Gist = (Vec<Arc<str>>, bool);

impl Attribution {
    /// What makes a difference to a drop: who, and how certain that is.
    pub(super) fn gist(&self) -> Gist {
        let uid = |owner: &Owner| match &owner.who {
            Holder::Pod(pod) if pod.uid.is_empty() => Some(format!("{}/{}", pod.namespace, pod.name).into()),
            Holder::Pod(pod) => Some(pod.uid.clone()),
            _ => None,
        };
        (self.pods.iter().filter_map(uid).collect(), self.is_certain)
    }

    /// Whether there is somebody to name, and no reason to wait for somebody else.
    pub(super) fn is_settled(&self) -> bool {
        !self.pods.is_empty() && !self.is_open
    }
}

/// Works out who had an address at `when`.
pub(super) fn attribute(look: &LookBack<'_>, ip: IpAddr, when: Timestamp, lateness: Lateness<'_>) -> Attribution {
    let told = Told::of(when, lateness.cuts);
    // A list says what is gone by then.
    let lag_end = later(when, WATCH_LAG).max(told.listed.unwrap_or(when));
    let publish_end = told.later(when, PUBLISHED);
    let wait_until = later(when, PUBLISH_LAG);
    // Whoever had it all the time from the moment to the end of the lag without a word of its end.
    let certain: Vec<Owner> = pods(look, ip, when, lag_end)
        .into_iter()
        .filter(|(owner, pod)| !pod.deleting && had_at(owner, when) && owner.until.is_none_or(|until| until > lag_end))
        .map(|(owner, _)| owner)
        .collect();
    if !certain.is_empty() {
        return Attribution { pods: each_once(certain), is_certain: true, is_open: false, wait_until, final_at: told.last(lag_end) };
    }
    let mut possible: Vec<Owner> = pods(look, ip, earlier(when, WATCH_LAG), publish_end)
        .into_iter()
        .filter(|(owner, pod)| had_at(owner, when) || existed(look, pod, when, &told))
        .map(|(owner, _)| owner)
        .collect();
    // Also those that are long gone: who had it before them is gone all the more.
    let published: Vec<Timestamp> = pods(look, ip, Timestamp::MIN, when).into_iter().filter_map(|(owner, _)| owner.since).collect();
    // One that is known since the horizon got it then or earlier.
    let since = |owner: &Owner| owner.since.unwrap_or_else(|| look.horizon());
    possible.retain(|owner| !published.iter().any(|next| is_displaced(since(owner), *next)));
    if possible.is_empty() {
        return turned_up_late(look, ip, when, &told, lateness.late);
    }
    let possible = each_once(possible);
    let is_open = possible.iter().all(|owner| had_at(owner, when));
    Attribution { pods: possible, is_certain: false, is_open, wait_until, final_at: told.last(publish_end) }
}

/// Nobody had it, and nobody got it in the time that a publication may take. Who gets it a little later is the owner that was told late, if
/// it was there at the time; the first one to get it.
fn turned_up_late(look: &LookBack<'_>, ip: IpAddr, when: Timestamp, told: &Told, late: SignedDuration) -> Attribution {
    let publish_end = told.later(when, PUBLISHED);
    let end = later(publish_end, late);
    // One that has it from before is not among those that can have had it, or there would be somebody.
    let came_late = |owner: &Owner| owner.since.is_some_and(|since| since > when);
    let mut found = pods(look, ip, publish_end, end).into_iter().filter(|(owner, pod)| came_late(owner) && existed(look, pod, when, told));
    let first = found.next().map(|(owner, _)| owner);
    let wait_until = later(when, PUBLISH_LAG);
    Attribution { is_open: first.is_none(), pods: first.into_iter().collect(), is_certain: false, wait_until, final_at: told.last(end) }
}

/// The pods with networks of their own that had the address within an interval.
fn pods(look: &LookBack<'_>, ip: IpAddr, from: Timestamp, to: Timestamp) -> Vec<(Owner, Arc<Pod>)> {
    let owners = look.owners(ip, from, to).into_iter();
    owners
        .filter_map(|owner| {
            let Holder::Pod(pod) = &owner.who else { return None };
            let pod = pod.clone();
            Some((owner, pod))
        })
        .collect()
}

/// One that lost the address and got it back is one owner all the time.
fn each_once(owners: Vec<Owner>) -> Vec<Owner> {
    let mut each: Vec<Owner> = Vec::with_capacity(owners.len());
    for owner in owners {
        let is_it = |known: &&mut Owner| matches!((&known.who, &owner.who), (Holder::Pod(a), Holder::Pod(b)) if is_same(a, b));
        match each.iter_mut().find(is_it) {
            Some(known) => (known.who, known.until) = (owner.who, owner.until),
            None => each.push(owner),
        }
    }
    each
}

/// Whether it was told by then that it has the address.
fn had_at(owner: &Owner, when: Timestamp) -> bool {
    owner.since.is_none_or(|since| since <= when)
}

/// Whether another pod to which the address was published at `next` must have come after one that has it `since`: that one was gone by `next`,
/// whatever is told of it. Which of two came first is certain if more lies between them than a publication takes.
fn is_displaced(since: Timestamp, next: Timestamp) -> bool {
    next.duration_since(since) > PUBLISHED
}

/// Whether the pod was there: not told of for the first time so late after the moment that it cannot have sent anything by then. One that a list
/// tells of after a time without news can have come at any time of it.
fn existed(look: &LookBack<'_>, pod: &Pod, when: Timestamp, told: &Told) -> bool {
    let came = |object: &Option<Object>| matches!(object, Some(Object::Pod(other)) if is_same(other, pod));
    let after_list = told.listed.map(|listed| later(listed, SignedDuration::from_nanos(1)));
    let too_late = later(when, ON_ITS_WAY).max(after_list.unwrap_or(when));
    let mut appearances = look.changes(too_late, Timestamp::MAX, |change| came(&change.after) && !came(&change.before));
    appearances.next().is_none()
}

fn is_same(a: &Pod, b: &Pod) -> bool {
    (&a.uid, &a.namespace, &a.name) == (&b.uid, &b.namespace, &b.name)
}

pub(super) fn later(when: Timestamp, by: SignedDuration) -> Timestamp {
    when.checked_add(by).unwrap_or(Timestamp::MAX)
}

pub(super) fn earlier(when: Timestamp, by: SignedDuration) -> Timestamp {
    when.checked_sub(by).unwrap_or(Timestamp::MIN)
}
