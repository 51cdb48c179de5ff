//! Who had an address, and when.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::change::Change;
use super::log::Log;
use crate::cluster::{Index, Node, Object, ObjectKey, Pod, PodPhase, Service};

/// Somebody who had an address in an interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Who, as it was when it last had the address within the interval.
    pub who: Holder,
    /// Since when; absent when it had it already at the horizon of what is known.
    pub since: Option<Timestamp>,
    /// The moment from which on it did not have it any more; absent when it still has it.
    pub until: Option<Timestamp>,
}

/// Who can have an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A pod with a network of its own that has not terminated.
    Pod(Arc<Pod>),
    /// A pod in the network of its node, which has the node's addresses.
    HostNetworkPod(Arc<Pod>),
    /// A node.
    Node(Arc<Node>),
    /// A Service, as its cluster, external or load balancer address.
    Service(Arc<Service>),
}

/// As in messages: `Pod shop/web`, `Node node-1`.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key().fmt(f)
    }
}

impl Holder {
    /// Names the object.
    pub fn key(&self) -> ObjectKey {
        match self {
            Holder::Pod(pod) | Holder::HostNetworkPod(pod) => Object::Pod(pod.clone()),
            Holder::Node(node) => Object::Node(node.clone()),
            Holder::Service(service) => Object::Service(service.clone()),
        }
        .key()
    }

    fn of(object: &Object, ip: IpAddr) -> Option<Self> {
        if !addresses(object).any(|has| has == ip) {
            return None;
        }
        match object {
            Object::Pod(pod) if pod.host_network => Some(Holder::HostNetworkPod(pod.clone())),
            Object::Pod(pod) => Some(Holder::Pod(pod.clone())),
            Object::Node(node) => Some(Holder::Node(node.clone())),
            Object::Service(service) => Some(Holder::Service(service.clone())),
            _ => None,
        }
    }

    /// Whether it is the same one in another version. A pod that was made anew under its old name is another.
    fn is_same(&self, other: &Holder) -> bool {
        match (self, other) {
            (Holder::Pod(a), Holder::Pod(b)) | (Holder::HostNetworkPod(a), Holder::HostNetworkPod(b)) => a.uid == b.uid,
            (Holder::Node(_), Holder::Node(_)) | (Holder::Service(_), Holder::Service(_)) => true,
            _ => false,
        }
    }
}

/// The addresses that an object has, IPv4-mapped ones as IPv4; those of a pod that has terminated may be another's already.
pub(super) fn addresses(object: &Object) -> impl Iterator<Item = IpAddr> {
    let lists: [&[IpAddr]; 3] = match object {
        Object::Pod(pod) if pod.phase == PodPhase::Active => [&pod.ips, &[], &[]],
        Object::Node(node) => [&node.addresses, &[], &[]],
        Object::Service(service) => [&service.cluster_ips, &service.external_ips, &service.load_balancer_ips],
        _ => [&[], &[], &[]],
    };
    lists.into_iter().flatten().map(IpAddr::to_canonical)
}

/// Everybody who had the address at some time from `from` to `to`, both included, in the order in which they got it. `now` are those who
/// have it now.
pub(super) fn owners(log: &Log, now: Vec<Tenure>, ip: IpAddr, from: Timestamp, to: Timestamp) -> Vec<Owner> {
    let ip = ip.to_canonical();
    // Before the horizon nothing is known but what was there at the horizon.
    let [from, to] = [from, to].map(|when| when.max(log.horizon()));
    let mut walk = Walk { from, to, horizon: log.horizon(), open: now, found: Vec::new() };
    // From now backwards.
    for change in moments(log, ip).into_iter().rev() {
        walk.back(change, ip);
    }
    for Tenure { key, who, until } in std::mem::take(&mut walk.open) {
        walk.close(key, Owner { who, since: None, until });
    }
    walk.found.sort_by(|(a, of_a), (b, of_b)| (of_a.since, of_a.until, a).cmp(&(of_b.since, of_b.until, b)));
    walk.found.into_iter().map(|(_, owner)| owner).collect()
}

/// What a moment made of an object.
struct Moment<'a> {
    when: Timestamp,
    key: &'a ObjectKey,
    before: Option<&'a Object>,
    after: Option<&'a Object>,
}

/// The changes at an address, several of one object at one time as one: nobody sees what was in between.
fn moments(log: &Log, ip: IpAddr) -> Vec<Moment<'_>> {
    let mut moments: Vec<Moment<'_>> = Vec::new();
    for change in log.at_address(ip) {
        let simultaneous = moments.iter_mut().rev().take_while(|moment| moment.when == change.when);
        match simultaneous.into_iter().find(|moment| *moment.key == change.key) {
            Some(moment) => moment.after = change.after.as_ref(),
            None => {
                let Change { when, key, before, after } = change;
                moments.push(Moment { when: *when, key, before: before.as_ref(), after: after.as_ref() });
            }
        }
    }
    moments
}

/// The time in which somebody has an address, its beginning not yet found.
pub(super) struct Tenure {
    pub(super) key: ObjectKey,
    who: Holder,
    until: Option<Timestamp>,
}

impl Tenure {
    /// That of an object which has the address now.
    pub(super) fn of(object: &Object, ip: IpAddr) -> Option<Self> {
        Holder::of(object, ip).map(Tenure::now)
    }

    fn now(who: Holder) -> Self {
        Tenure { key: who.key(), who, until: None }
    }
}

struct Walk {
    from: Timestamp,
    to: Timestamp,
    horizon: Timestamp,
    open: Vec<Tenure>,
    found: Vec<(ObjectKey, Owner)>,
}

impl Walk {
    fn back(&mut self, moment: Moment<'_>, ip: IpAddr) {
        let [before, after] = [moment.before, moment.after].map(|object| object.and_then(|object| Holder::of(object, ip)));
        let tenure = self.open.iter().position(|tenure| tenure.key == *moment.key);
        match (before, after, tenure) {
            (Some(before), Some(after), Some(at)) if before.is_same(&after) => {
                if moment.when > self.to
                    && let Some(tenure) = self.open.get_mut(at)
                {
                    tenure.who = before;
                }
            }
            (before, _, tenure) => {
                if let Some(at) = tenure {
                    let Tenure { key, who, until } = self.open.swap_remove(at);
                    self.close(key, Owner { who, since: Some(moment.when), until });
                }
                let key = moment.key.clone();
                self.open.extend(before.map(|who| Tenure { key, who, until: Some(moment.when) }));
            }
        }
    }

    fn close(&mut self, key: ObjectKey, mut owner: Owner) {
        owner.since = owner.since.filter(|since| *since > self.horizon);
        let began = owner.since.is_none_or(|since| since <= self.to);
        if began && owner.until.is_none_or(|until| until > self.from) {
            self.found.push((key, owner));
        }
    }
}

/// Who has the address in an index. The address is no IPv4-mapped one.
pub(super) fn holders(index: &Index, ip: IpAddr) -> Vec<Tenure> {
    let pods = index.pods_at(ip).iter().cloned().map(Holder::Pod);
    let host_network = index.host_network_pods_at(ip).iter().cloned().map(Holder::HostNetworkPod);
    let nodes = index.nodes_at(ip).iter().cloned().map(Holder::Node);
    let services = index.services_at(ip).iter().cloned().map(Holder::Service);
    let all = pods.chain(host_network).chain(nodes).chain(services);
    all.map(Tenure::now).collect()
}
