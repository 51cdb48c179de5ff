//! Pods that come and go, and what is told of them: when each really had its address, and when an API server said what.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use netpol_observer::cluster::{Labels, Object, ObjectKey, Pod, PodPhase, Workload};
use netpol_observer::pipeline::PUBLISH_LAG;
use netpol_observer::timeline::WATCH_LAG;

/// All times are multiples of this many milliseconds.
pub(crate) const STEP_MS: i64 = 250;

/// In steps.
pub(crate) const PUBLISH: i64 = PUBLISH_LAG.as_millis() as i64 / STEP_MS;
/// In steps: by when an address is told, for that takes up to half a second more.
pub(crate) const TOLD: i64 = PUBLISH + 500 / STEP_MS;
/// In steps.
pub(crate) const LAG: i64 = WATCH_LAG.as_millis() as i64 / STEP_MS;

/// A moment, given in steps.
pub(crate) fn at(step: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_800_001_000) + SignedDuration::from_millis(step * STEP_MS)
}

/// How a pod lives, each number a count of steps.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// From the end of the pod that had the address before.
    pub(crate) gap: i64,
    pub(crate) life: i64,
    /// From its beginning to its publication.
    pub(crate) publish: i64,
    /// From when its object is told to its beginning.
    pub(crate) early: i64,
    /// From when it is asked to end to its end.
    pub(crate) grace: i64,
    /// What a watch is late with that.
    pub(crate) mark_lag: i64,
    /// From its end to when it is told that the object is gone.
    pub(crate) gone: i64,
    /// It ends by itself: nobody asks it to, and its phase is told as late as the mark would be.
    pub(crate) completes: bool,
    pub(crate) app: &'static str,
}

/// A pod: when it really had its address, and when what was told of it. In steps.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) name: Arc<str>,
    pub(crate) ip: IpAddr,
    pub(crate) app: &'static str,
    pub(crate) begins: i64,
    pub(crate) ends: i64,
    told: i64,
    pub(crate) published: i64,
    /// When it was told that it is being deleted, if it was.
    pub(crate) marked: Option<i64>,
    /// From when on it is told that it does not have the address any more.
    pub(crate) until: i64,
    gone: i64,
}

/// The pods that have an address one after the other.
pub(crate) fn lives(address: u8, start: i64, plans: &[Plan]) -> Vec<Life> {
    let ip = IpAddr::from([10, 0, 0, 10 + address]);
    let mut free = start;
    let mut lives = Vec::new();
    for (number, plan) in plans.iter().enumerate() {
        let begins = free + plan.gap;
        let ends = begins + plan.life.max(1);
        // Kubelet publishes the address of a pod that is there.
        let published = begins + plan.publish.clamp(0, TOLD).min(ends - begins - 1);
        let told_end = ends - plan.grace.min(plan.life) + plan.mark_lag;
        let (marked, until) = if plan.completes {
            (None, (ends + plan.mark_lag).max(published + 1))
        } else {
            let gone = (ends + plan.gone).max(told_end).max(published) + 1;
            (Some(told_end), gone)
        };
        let told = (begins - plan.early).min(published);
        let marked = marked.map(|marked| marked.max(told));
        let gone = until + if plan.completes { plan.gone } else { 0 };
        let name = format!("pod-{address}-{number}").into();
        lives.push(Life { name, ip, app: plan.app, begins, ends, told, published, marked, until, gone });
        free = ends;
    }
    lives
}

impl Life {
    pub(crate) fn uid(&self) -> Arc<str> {
        format!("{}#", self.name).into()
    }

    pub(crate) fn key(&self) -> ObjectKey {
        Object::from(self.object(self.gone - 1)).key()
    }

    pub(crate) fn has_address(&self, step: i64) -> bool {
        self.begins <= step && step < self.ends
    }

    /// The object as it was told at a time.
    pub(crate) fn object(&self, step: i64) -> Pod {
        let deleting = self.marked.is_some_and(|marked| marked <= step);
        let ended = self.marked.is_none() && self.until <= step;
        Pod {
            namespace: "shop".into(),
            name: self.name.clone(),
            uid: self.uid(),
            labels: Labels::from([("app".into(), self.app.into())]),
            ips: if self.published <= step { vec![self.ip] } else { Vec::new() },
            node: Some("node-1".into()),
            host_network: false,
            phase: if ended { PodPhase::Terminated } else { PodPhase::Active },
            ready: !deleting,
            deleting,
            ports: Vec::new(),
            workload: Workload { kind: "Pod".into(), name: self.name.clone() },
            origin: None,
        }
    }

    /// When something is told of it: the object then, or none when it is gone.
    pub(crate) fn tellings(&self) -> Vec<(i64, Option<Pod>)> {
        let mut times = vec![self.told, self.published, self.until];
        times.extend(self.marked);
        times.retain(|time| *time < self.gone);
        times.sort_unstable();
        times.dedup();
        let objects = times.into_iter().map(|time| (time, Some(self.object(time))));
        objects.chain([(self.gone, None)]).collect()
    }
}

/// Whether a pod can have had its address at a time, by what is told of all that had it: by trying all that can have been.
///
/// A pod begins up to [`TOLD`] before it is told, and ends at the latest [`LAG`] after its end is told. Of a pod that was published
/// by then it is told within [`LAG`] that it ends.
pub(crate) fn is_possible(pod: &Life, others: &[&Life], step: i64) -> bool {
    let is_certain = |life: &Life| {
        let told_end = life.marked.unwrap_or(life.until).min(life.until);
        life.published <= step && told_end > step + LAG
    };
    if is_certain(pod) || others.iter().any(|other| is_certain(other)) {
        return is_certain(pod);
    }
    if step >= pod.until + LAG || step < pod.published - TOLD {
        return false;
    }
    // It has the address from some time up to then; the others for a moment each, at some time that is not within.
    (pod.published - TOLD..=pod.published.min(step))
        .any(|begins| others.iter().all(|other| (other.published - TOLD..=other.published).any(|moment| moment <= begins || moment > step)))
}
