//! Every state of all objects that there ever was, and what follows from looking at each.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use netpol_observer::cluster::{Object, ObjectKey, PodPhase};
use netpol_observer::timeline::{Holder, Owner};

pub(crate) type State = BTreeMap<ObjectKey, Object>;

/// The states in the order of their times, each with the time at which it began; there is one for each time.
pub(crate) struct Histories(Vec<(Timestamp, State)>);

impl Histories {
    pub(crate) fn new(start: Timestamp, objects: Vec<Object>) -> Self {
        Histories(vec![(start, objects.into_iter().map(|object| (object.key(), object)).collect())])
    }

    /// Returns whether anything is different afterwards. A time before the last is the last.
    pub(crate) fn change(&mut self, at: Timestamp, change: impl FnOnce(&mut State)) -> bool {
        let (last, before) = self.0.last().unwrap().clone();
        let mut state = before.clone();
        change(&mut state);
        let is_other = state != before;
        if at <= last {
            self.0.pop();
        }
        self.0.push((at.max(last), state));
        is_other
    }

    pub(crate) fn pick(&self, which: &proptest::sample::Index) -> Option<ObjectKey> {
        let keys: Vec<&ObjectKey> = self.now().keys().collect();
        (!keys.is_empty()).then(|| (*which.get(&keys)).clone())
    }

    pub(crate) fn now(&self) -> &State {
        &self.0.last().unwrap().1
    }

    /// The state at a time; before the first, the first.
    pub(crate) fn at(&self, when: Timestamp) -> &State {
        let began = self.0.iter().rev().find(|(began, _)| *began <= when);
        &began.unwrap_or(&self.0[0]).1
    }

    /// Who had the address in an interval, as far as is known from a horizon on.
    pub(crate) fn owners(&self, ip: IpAddr, from: Timestamp, to: Timestamp, horizon: Timestamp) -> Vec<Owner> {
        let (ip, from, to) = (ip.to_canonical(), from.max(horizon), to.max(horizon));
        let later = self.0.iter().filter(|(began, _)| *began > horizon);
        let states = std::iter::once((None, self.at(horizon))).chain(later.map(|(began, state)| (Some(*began), state)));
        let mut owners: Vec<(String, Owner)> = Vec::new();
        for (began, state) in states {
            let here: Vec<(String, Holder)> = state.values().filter_map(|object| holder(object, ip)).collect();
            for (name, owner) in owners.iter_mut().filter(|(_, owner)| owner.until.is_none()) {
                match here.iter().find(|(other, _)| other == name) {
                    None => owner.until = began,
                    Some((_, who)) if began.is_none_or(|began| began <= to) => owner.who = who.clone(),
                    Some(_) => {}
                }
            }
            for (name, who) in here {
                if !owners.iter().any(|(other, owner)| *other == name && owner.until.is_none()) {
                    owners.push((name, Owner { who, since: began, until: None }));
                }
            }
        }
        owners.retain(|(_, owner)| owner.since.is_none_or(|since| since <= to) && owner.until.is_none_or(|until| until > from));
        owners.sort_by_key(|(_, owner)| (owner.since, owner.until, owner.who.key()));
        owners.into_iter().map(|(_, owner)| owner).collect()
    }
}

/// Who an object is at an address, and what tells it from others.
fn holder(object: &Object, ip: IpAddr) -> Option<(String, Holder)> {
    let has = |ips: &[IpAddr]| ips.iter().any(|own| own.to_canonical() == ip);
    let who = match object {
        Object::Pod(pod) if pod.phase == PodPhase::Terminated || !has(&pod.ips) => return None,
        Object::Pod(pod) if pod.host_network => Holder::HostNetworkPod(pod.clone()),
        Object::Pod(pod) => Holder::Pod(pod.clone()),
        Object::Node(node) if has(&node.addresses) => Holder::Node(node.clone()),
        Object::Service(service)
            if [&service.cluster_ips, &service.external_ips, &service.load_balancer_ips].into_iter().any(|ips| has(ips)) =>
        {
            Holder::Service(service.clone())
        }
        _ => return None,
    };
    let uid = match &who {
        Holder::Pod(pod) => format!("own {}", pod.uid),
        Holder::HostNetworkPod(pod) => format!("host {}", pod.uid),
        Holder::Node(_) | Holder::Service(_) => String::new(),
    };
    Some((format!("{} {uid}", who.key()), who))
}
