//! Whom a drop concerns, and under which series it goes.

use std::sync::Arc;

use jiff::Timestamp;

use super::Disclosure;
use crate::cluster::{Direction, Pod, Workload};
use crate::diagnose::{Class, Denial};
use crate::flow::Protocol;
use crate::identify::{Identity, Party};
use crate::policy::PolicyRef;
use crate::serve::{Brief, Settled};

/// Which end of the connection an Event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    /// The pod that called, and was blocked.
    Caller,
    /// The pod that was called, whose policies blocked it.
    Called,
}

/// What drops have in common that go under one Event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The uid of the pod that it is about.
    pub(super) uid: Arc<str>,
    role: Role,
    class: Class,
    peer: Peer,
    protocol: Protocol,
    port: Option<u16>,
    /// In its version: what an Event says of a rule cannot change.
    policy: Option<PolicyRef>,
    rule: Option<(Direction, usize)>,
}

/// The other end, so far that a client cannot make up any number of them by forging addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Peer {
    Workload(Arc<str>, Workload),
    Service(Arc<str>, Arc<str>),
    Node(Arc<str>),
    /// A pod's address, and not known of which.
    Unnamed,
    Special,
    Outside,
}

/// Drops, told of one pod.
#[derive(Clone, Debug)]
pub(super) struct Mention {
    pub(super) key: Key,
    pub(super) role: Role,
    pub(super) pod: Arc<Pod>,
    /// The other end, where it is a pod that may be named.
    pub(super) related: Option<Arc<Pod>>,
    /// How many.
    pub(super) count: u64,
    pub(super) last: Timestamp,
    /// One of them in full, where there is one.
    pub(super) denial: Option<Arc<Denial>>,
}

/// The pods that are to be told: who called, unless it is no pod, and whose policies denied it on the way in.
pub(super) fn mentions(settled: &Settled, disclosure: Disclosure) -> Vec<Mention> {
    let Settled { brief, denial, count, last, .. } = settled;
    if brief.is_elsewhere || matches!(brief.route.class, Class::Noise | Class::Undecided) {
        return Vec::new();
    }
    let (client, server) = brief.is_certain;
    let known = |party: &'_ Party, is_certain: bool| party.identity.pod().filter(|pod| is_certain && !pod.uid.is_empty()).cloned();
    let (caller, called) = (known(&brief.route.client, client), known(&brief.route.server, server));
    let of = |role: Role, pod: &Arc<Pod>, other: &Party, named: &Option<Arc<Pod>>| Mention {
        key: key(brief, role, pod, other, disclosure),
        role,
        pod: Arc::clone(pod),
        related: named.as_ref().filter(|named| disclosure.names(&pod.namespace, &named.namespace)).cloned(),
        count: *count,
        last: *last,
        denial: denial.clone(),
    };
    let mut mentions = Vec::new();
    mentions.extend(caller.as_ref().map(|pod| of(Role::Caller, pod, &brief.route.server, &called)));
    if brief.blame.directions.contains(&Direction::Ingress) {
        mentions.extend(called.as_ref().map(|pod| of(Role::Called, pod, &brief.route.client, &caller)));
    }
    mentions
}

fn key(brief: &Brief, role: Role, pod: &Pod, other: &Party, disclosure: Disclosure) -> Key {
    let blame = &brief.blame;
    // An Event says what may be said; what may not must not be read from how many there are.
    let named = blame.policy.as_ref().filter(|policy| disclosure.names_policy(&pod.namespace, policy));
    let says_why = match role {
        Role::Caller => true,
        Role::Called => disclosure.names_party(&pod.namespace, other),
    };
    Key {
        uid: Arc::clone(&pod.uid),
        role,
        class: brief.route.class.clone(),
        peer: Peer::of(other),
        protocol: brief.route.protocol,
        port: brief.route.port,
        policy: named.map(|policy| PolicyRef { origin: None, ..policy.clone() }),
        rule: blame.rule.filter(|_| named.is_some() && says_why),
    }
}

impl Peer {
    fn of(party: &Party) -> Self {
        match &party.identity {
            Identity::Pod(pod) => Peer::Workload(Arc::clone(&pod.namespace), pod.workload.clone()),
            Identity::Service(service) => Peer::Service(Arc::clone(&service.namespace), Arc::clone(&service.name)),
            Identity::Node(node) => Peer::Node(Arc::clone(&node.name)),
            Identity::AmbiguousPods(_) | Identity::UnownedPodAddress => Peer::Unnamed,
            Identity::Special => Peer::Special,
            Identity::External | Identity::NotShown => Peer::Outside,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::{Agreement, Attributed, How, Moment, PastKnown};
    use crate::publish::events::testing::{call_across, of, settled, settled_of, with_uid};
    use crate::serve::testing::{external, innocent, node, party, pod};

    fn told(settled: &Settled) -> Vec<(Role, String)> {
        let mentions = mentions(settled, Disclosure::AcrossNamespaces);
        mentions.into_iter().map(|mention| (mention.role, mention.pod.name.to_string())).collect()
    }

    fn both() -> Vec<(Role, String)> {
        vec![(Role::Caller, "web-7d9f".to_owned()), (Role::Called, "api-5c4b".to_owned())]
    }

    #[test]
    fn who_called_is_told_and_whose_policies_denied_it_on_the_way_in() {
        assert_eq!(told(&settled(1)), both());
        let mut denial = of(1);
        denial.diagnosis.class = Class::PolicyDenied(vec![Direction::Egress]);
        assert_eq!(told(&settled_of(denial, 1)), both()[..1]);
        let mut firewall = innocent(Class::HostFirewall, Agreement::PoliciesAllow, "");
        with_uid(&mut firewall);
        assert_eq!(told(&settled_of(firewall, 1)), both()[..1]);
    }

    #[test]
    fn only_pods_that_are_known_exactly_are_told() {
        let with = |change: &dyn Fn(&mut Denial)| {
            let mut denial = of(1);
            change(&mut denial);
            told(&settled_of(denial, 1))
        };
        assert_eq!(with(&|denial| denial.who.client = external("203.0.113.5")), both()[1..]);
        assert_eq!(with(&|denial| denial.who.client = node("node-1", "192.0.2.1")), both()[1..]);
        let several = Identity::AmbiguousPods(vec![pod("shop", "a-1", "10.244.1.5", &[])]);
        assert_eq!(with(&|denial| denial.who.client.identity = several.clone()), both()[1..]);
        assert_eq!(with(&|denial| denial.who.client = party(&pod("shop", "no-uid", "10.244.1.5", &[]))), both()[1..]);
        for class in [Class::Noise, Class::Undecided] {
            assert_eq!(with(&|denial| denial.diagnosis.class = class.clone()), []);
        }
        let of_moment = |moment: Moment| with(&|denial| denial.moment = Some(moment.clone()));
        assert_eq!(of_moment(Moment::default()), both());
        let syncing = Moment { past: PastKnown::Syncing { missing: Vec::new() }, ..Moment::default() };
        assert_eq!(of_moment(syncing.clone()), []);
        // Nor do its repeats go under the series of another drop.
        let mut denial = of(1);
        denial.moment = Some(syncing);
        assert_eq!(told(&Settled { denial: None, ..settled_of(denial, 3) }), []);
        let gone = How::Gone { pod: pod("shop", "web-7d9f", "10.244.1.5", &[]), before: jiff::SignedDuration::from_secs(1) };
        let owners = vec![Attributed { ip: "10.244.1.5".parse().unwrap(), how: gone }];
        assert_eq!(of_moment(Moment { owners, ..Moment::default() }), both()[1..]);
    }

    #[test]
    fn repeats_and_pods_of_the_same_workload_go_under_one_series() {
        let key = |settled: &Settled| mentions(settled, Disclosure::AcrossNamespaces).pop().unwrap().key;
        let first = settled(1);
        let repeats = Settled { denial: None, ..first.clone() };
        assert_eq!(key(&first), key(&repeats));
        let with = |change: &dyn Fn(&mut Denial)| {
            let mut denial = of(2);
            change(&mut denial);
            key(&settled_of(denial, 2))
        };
        assert_eq!(with(&|denial| denial.who.client = party(&pod("shop", "web-9c1d", "10.244.1.6", &[]))), key(&first));
        assert_ne!(with(&|denial| denial.who.client = party(&pod("shop", "job-1", "10.244.1.6", &[]))), key(&first));
        assert_ne!(with(&|denial| denial.event.flow.destination_port = Some(81)), key(&first));
        let outside = with(&|denial| denial.who.client = external("203.0.113.5"));
        assert_eq!(with(&|denial| denial.who.client = external("203.0.113.77")), outside);
    }

    #[test]
    fn what_may_not_be_said_makes_no_difference() {
        let of_policy = |name: &str, index: usize| {
            let mut denial = of(1);
            call_across(&mut denial);
            let crate::policy::Admission::Denied { nearest, .. } = &mut denial.explanation.ingress.admission else { unreachable!() };
            nearest.truncate(1);
            nearest[0].rule.policy.name = name.into();
            nearest[0].rule.index = index;
            let settled = settled_of(denial, 1);
            let keys = |disclosure| mentions(&settled, disclosure).into_iter().map(|mention| mention.key).collect::<Vec<_>>();
            (keys(Disclosure::OwnNamespace), keys(Disclosure::AcrossNamespaces))
        };
        let ((own, across), (own_other, across_other)) = (of_policy("a", 0), of_policy("b", 1));
        assert_eq!(own[0], own_other[0], "the policies of another namespace");
        assert_ne!(own[1], own_other[1], "its own");
        assert!(across[0] != across_other[0] && across[1] != across_other[1]);
        let ((own, _), (own_other, _)) = (of_policy("a", 0), of_policy("a", 1));
        assert_eq!(own, own_other, "which rule came nearest tells the other end's labels");
    }
}
