//! Who has what at the moment of a drop: what [`identify`](crate::identify::identify) asks when a drop is judged as of its time.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::attribution::{Attribution, Gist, Lateness, attribute};
use super::uids::Uids;
use crate::cluster::{Index, Pod};
use crate::diagnose::{Attributed, How};
use crate::flow::{DropEvent, Hook};
use crate::identify::{Identity, Known, Party, Who, party};
use crate::timeline::{Holder, LookBack, Owner};

/// The objects of a moment, with what was told before and after of the addresses of one drop.
pub(super) struct AtMoment<'a, 'b> {
    look: &'a LookBack<'b>,
    uids: &'a Uids,
    when: Timestamp,
    lateness: Lateness<'a>,
    /// The pod at the other end of the packet's interface, and which of the packet's addresses is its own.
    behind: Option<(IpAddr, Arc<Pod>)>,
    asked: RefCell<Vec<(IpAddr, Attribution)>>,
}

/// What is still open about the ends of a drop.
#[derive(Clone, Debug, Default)]
pub(super) struct Open {
    /// It is worth waiting until then: an end may be somebody's who is not told of yet.
    pub(super) wait_until: Option<Timestamp>,
    /// Until then something may be told that changes who the ends are.
    pub(super) final_at: Option<Timestamp>,
    /// Who had the addresses of the ends, in short.
    pub(super) ends: Vec<(IpAddr, Gist)>,
}

impl<'a, 'b> AtMoment<'a, 'b> {
    /// `look` is at the time of the event.
    pub(super) fn new(look: &'a LookBack<'b>, uids: &'a Uids, event: &DropEvent, lateness: Lateness<'a>) -> Self {
        let known = AtMoment { look, uids, when: event.time, lateness, behind: None, asked: RefCell::default() };
        let behind = known.find_behind(event);
        AtMoment { behind, ..known }
    }

    fn attribution(&self, ip: IpAddr) -> Attribution {
        if let Some((_, known)) = self.asked.borrow().iter().find(|(asked, _)| *asked == ip) {
            return known.clone();
        }
        let found = attribute(self.look, ip, self.when, self.lateness);
        self.asked.borrow_mut().push((ip, found.clone()));
        found
    }

    /// The pod as it was at the moment; where it was not told of by then, as it was told later.
    fn as_it_was(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        let then = self.index().pod(&pod.namespace, &pod.name).filter(|then| then.uid == pod.uid);
        then.unwrap_or(pod).clone()
    }

    /// Whether it is known that somebody else has the address than a pod that has none of its own yet.
    fn is_settled(&self, ip: IpAddr, has_other: bool) -> bool {
        let attribution = self.attribution(ip);
        match party(ip, self.index()).identity {
            Identity::Node(_) | Identity::Service(_) | Identity::Special if attribution.pods.is_empty() => true,
            // In a cluster that gives no ranges for pods, the address of a new one looks like any other.
            Identity::External if attribution.pods.is_empty() => has_other,
            _ => attribution.is_certain,
        }
    }

    /// Which of the packet's addresses is that of the pod behind its interface. A pod that forwards packets of others has none of them.
    fn find_behind(&self, event: &DropEvent) -> Option<(IpAddr, Arc<Pod>)> {
        let uid = event.peer.as_ref()?.pod_uid.as_deref()?;
        let pod = self.uids.get(uid).filter(|pod| !pod.host_network && event.tunnel.is_none())?;
        let [source, destination] = [event.flow.source, event.flow.destination].map(|ip| ip.to_canonical());
        let is_published = |ip: IpAddr| pod.ips.iter().any(|own| own.to_canonical() == ip);
        let has_other = pod.ips.iter().any(|own| own.to_canonical().is_ipv4() == source.is_ipv4());
        let ip = match (is_published(source), is_published(destination)) {
            (true, false) => source,
            (false, true) => destination,
            (true, true) => return None,
            (false, false) => match event.hook {
                _ if event.outgoing => destination,
                Some(Hook::Egress | Hook::Postrouting | Hook::Output) => destination,
                Some(Hook::Ingress | Hook::Prerouting | Hook::Input) => source,
                // A router's device is the one a packet came by, a bridge's the one it leaves by.
                Some(Hook::Forward) | None => match (self.is_settled(source, has_other), self.is_settled(destination, has_other)) {
                    (false, true) => source,
                    (true, false) => destination,
                    _ => return None,
                },
            },
        };
        let is_of_pods = !self.attribution(ip).pods.is_empty() || self.index().in_pod_range(ip);
        let may_be = match party(ip, self.index()).identity {
            Identity::Node(_) | Identity::Service(_) | Identity::Special => is_of_pods && !self.attribution(ip).pods.is_empty(),
            _ => is_of_pods || !has_other,
        };
        may_be.then(|| (ip, self.as_it_was(pod)))
    }

    /// What there is to say of the ends, and what is open about them.
    pub(super) fn conclude(&self, event: &DropEvent, who: &Who) -> (Vec<Attributed>, Open) {
        let (mut owners, mut open) = (Vec::<Attributed>::new(), Open::default());
        for end in [&who.client, &who.server] {
            if open.ends.iter().any(|(known, _)| *known == end.ip) {
                continue;
            }
            let attribution = self.attribution(end.ip);
            open.ends.push((end.ip, attribution.gist()));
            let (how, is_open) = match &end.identity {
                Identity::Pod(pod) if self.behind.as_ref().is_some_and(|(ip, _)| *ip == end.ip) => {
                    owners.extend(by_interface(end.ip, pod, &attribution));
                    continue;
                }
                Identity::Pod(pod) => (self.how_alone(pod, &attribution), attribution.is_open),
                Identity::AmbiguousPods(_) => (Some(How::Several(attribution.pods.clone())), attribution.is_open),
                Identity::UnownedPodAddress => (Some(How::NotKnown), true),
                Identity::External if self.is_of_unknown_pod(end.ip, event) => (Some(How::NotKnown), true),
                // Somebody who is no pod: the hook may have told.
                _ => continue,
            };
            if is_open {
                // Who turns up later than that amends what was said.
                open.wait_until = open.wait_until.max(Some(attribution.wait_until));
            }
            open.final_at = open.final_at.max(Some(attribution.final_at));
            owners.extend(how.map(|how| Attributed { ip: end.ip, how }));
        }
        (owners, open)
    }

    /// Of one pod that has the address.
    fn how_alone(&self, pod: &Arc<Pod>, attribution: &Attribution) -> Option<How> {
        let owner = attribution.pods.first()?;
        if let Some(after) = owner.since.map(|since| since.duration_since(self.when)).filter(|after| after.is_positive()) {
            return Some(How::PublishedLater { pod: pod.clone(), after });
        }
        let before = owner.until.map(|until| self.when.duration_since(until)).filter(|before| !before.is_negative())?;
        Some(How::Gone { pod: pod.clone(), before })
    }

    /// Whether a pod that nobody has told of yet is at the other end of the interface, and the address is its own.
    fn is_of_unknown_pod(&self, ip: IpAddr, event: &DropEvent) -> bool {
        let unknown = |uid: &Arc<str>| self.uids.get(uid).is_none();
        let is_behind = event.peer.as_ref().and_then(|peer| peer.pod_uid.as_ref()).is_some_and(unknown);
        let own = match event.hook {
            _ if event.outgoing => Some(event.flow.destination),
            Some(Hook::Egress | Hook::Postrouting | Hook::Output) => Some(event.flow.destination),
            Some(Hook::Ingress | Hook::Prerouting | Hook::Input) => Some(event.flow.source),
            Some(Hook::Forward) | None => None,
        };
        is_behind && own.map(|own| own.to_canonical()) == Some(ip)
    }
}

/// Of a pod that its interface tells; nothing where that is what everybody was told.
fn by_interface(ip: IpAddr, pod: &Arc<Pod>, attribution: &Attribution) -> Option<Attributed> {
    let is_it = |owner: &&Owner| matches!(&owner.who, Holder::Pod(other) if other.uid == pod.uid);
    if attribution.is_certain && attribution.pods.iter().all(|owner| is_it(&owner)) {
        return None;
    }
    let others = attribution.pods.iter().filter(|owner| !is_it(owner));
    let published = others.filter_map(|owner| match &owner.who {
        Holder::Pod(pod) => Some(pod.clone()),
        _ => None,
    });
    Some(Attributed { ip, how: How::Interface { pod: pod.clone(), published: published.collect() } })
}

impl Known for AtMoment<'_, '_> {
    fn index(&self) -> &Index {
        self.look.engine().index()
    }

    fn party(&self, ip: IpAddr) -> Party {
        let ip = ip.to_canonical();
        if let Some((_, pod)) = self.behind.as_ref().filter(|(own, _)| *own == ip) {
            return Party { ip, identity: Identity::Pod(pod.clone()) };
        }
        let pods = self.attribution(ip).pods.into_iter().filter_map(|owner| match owner.who {
            Holder::Pod(pod) => Some(self.as_it_was(&pod)),
            _ => None,
        });
        let pods: Vec<Arc<Pod>> = pods.collect();
        let identity = match pods.as_slice() {
            [pod] => Identity::Pod(pod.clone()),
            [] => match party(ip, self.index()).identity {
                // The objects have it as a pod's still, which must have been gone by then.
                Identity::Pod(_) | Identity::AmbiguousPods(_) => Identity::UnownedPodAddress,
                other => other,
            },
            _ => Identity::AmbiguousPods(pods),
        };
        Party { ip, identity }
    }

    fn names_callers(&self) -> bool {
        true
    }

    fn pod(&self, uid: &str) -> Option<Arc<Pod>> {
        self.uids.get(uid).map(|pod| self.as_it_was(pod))
    }
}
