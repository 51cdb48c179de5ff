//! What a tenant is shown of a drop. Pure; docs/security.md says what is withheld and why.
//!
//! Every structure is taken apart field by field, so that a field that comes to it later does not compile until somebody has decided who may see it.

mod moment;

pub(super) use moment::{Amended, namespace_of as namespace_of_object};

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::{Node, Pod};
use crate::diagnose::{Agreement, Denial, Diagnosis};
use crate::flow::{Conntrack, DropEvent, Flow, FoldId, Location, Tuple};
use crate::identify::{Identity, Party, ServiceCall, Who};
use crate::policy::{Admission, DirectionExplanation, Explanation, Fix, IsolatingPolicy, Remaining, RuleMiss, RuleRef};

/// Namespaces that a fix would admit and that are asked about; those behind count as not readable.
const ADMITTED_NAMESPACES: usize = 16;

const OTHER_END: &str = "the other end is in a namespace that you may not read";
const NOTE: &str =
    "the other end is in a namespace that you may not read: what is known of it, its policies, and what it misses of yours are not shown";
const ADMITS_OTHERS: &str = "the fix admits others besides, in namespaces that you may not read";

/// What a tenant may see.
pub(super) struct Sight<'a> {
    /// Whether they may read the pods of a namespace.
    pub(super) may_read: &'a dyn Fn(&str) -> bool,
    /// The node that the agent is on, whose name they know.
    pub(super) node: &'a str,
    /// What turns ids into ids that tell nothing of the addresses they were made of.
    pub(super) ids: &'a RandomState,
}

/// The namespaces that have to be decided on before a drop can be shown.
pub(super) fn namespaces(denial: &Denial) -> Vec<Arc<str>> {
    let who = &denial.who;
    let mut found = Vec::new();
    for party in [&who.client, &who.server] {
        match &party.identity {
            Identity::Pod(pod) => found.push(Arc::clone(&pod.namespace)),
            Identity::AmbiguousPods(pods) => found.extend(pods.iter().map(|pod| Arc::clone(&pod.namespace))),
            Identity::Service(service) => found.push(Arc::clone(&service.namespace)),
            Identity::Node(_) | Identity::UnownedPodAddress | Identity::Special | Identity::External | Identity::NotShown => {}
        }
    }
    found.extend(who.service.as_ref().map(|call| Arc::clone(&call.service.namespace)));
    found.extend(who.host_network.iter().chain(&who.callers).chain(&who.behind).map(|pod| Arc::clone(&pod.namespace)));
    found.extend(denial.moment.iter().flat_map(moment::namespaces));
    let admitted = denial.explanation.fixes.iter().flat_map(|fix| &fix.newly_admits).filter_map(|admitted| namespace_of(admitted));
    let mut admitted: Vec<Arc<str>> = admitted.map(Arc::from).collect();
    admitted.sort_unstable();
    admitted.dedup();
    admitted.truncate(ADMITTED_NAMESPACES);
    found.extend(admitted);
    found.sort_unstable();
    found.dedup();
    found
}

/// An id as tenants see it.
pub(super) fn id(id: FoldId, ids: &RandomState) -> FoldId {
    FoldId(ids.hash_one(id))
}

impl Sight<'_> {
    /// The drop as the tenant may see it; `None` when neither end is theirs.
    pub(super) fn of(&self, denial: &Denial) -> Option<Denial> {
        let Denial { event, who, explanation, diagnosis, moment } = denial;
        if !self.is_theirs(&who.client) && !self.is_theirs(&who.server) {
            return None;
        }
        let client = self.party(&who.client);
        let server = self.party(&who.server);
        let hidden = Hidden { client: is_not_shown(&client), server: is_not_shown(&server) };
        let event = self.event(event, who, hidden);
        let who = self.who(who, client, server, &event, hidden);
        let service_is_shown = who.service.is_some() || denial.who.service.is_none();
        Some(Denial {
            explanation: self.explanation(explanation, &denial.who, hidden, service_is_shown),
            diagnosis: self.diagnosis(diagnosis, &event, hidden, service_is_shown),
            moment: moment.as_ref().map(|moment| self.moment(moment, hidden.any())),
            event,
            who,
        })
    }

    fn may_read(&self, namespace: &str) -> bool {
        (self.may_read)(namespace)
    }

    fn is_theirs(&self, party: &Party) -> bool {
        match &party.identity {
            Identity::Pod(pod) => self.may_read(&pod.namespace),
            // It may have been the one that is not theirs.
            Identity::AmbiguousPods(pods) => !pods.is_empty() && pods.iter().all(|pod| self.may_read(&pod.namespace)),
            Identity::Service(service) => self.may_read(&service.namespace),
            Identity::Node(_) | Identity::UnownedPodAddress | Identity::Special | Identity::External | Identity::NotShown => false,
        }
    }

    fn party(&self, party: &Party) -> Party {
        let identity = match &party.identity {
            Identity::Pod(_) | Identity::AmbiguousPods(_) | Identity::Service(_) => {
                if self.is_theirs(party) {
                    party.identity.clone()
                } else {
                    Identity::NotShown
                }
            }
            // They ask this node's agent, so they know its name; its labels they do not.
            Identity::Node(node) if *node.name == *self.node => Identity::Node(Arc::new(Node {
                name: Arc::clone(&node.name),
                labels: Default::default(),
                addresses: vec![party.ip],
                pod_cidrs: Vec::new(),
            })),
            Identity::Node(_) => Identity::NotShown,
            Identity::UnownedPodAddress | Identity::Special | Identity::External | Identity::NotShown => party.identity.clone(),
        };
        Party { ip: party.ip, identity }
    }

    fn event(&self, event: &DropEvent, who: &Who, hidden: Hidden) -> DropEvent {
        let DropEvent {
            time,
            id: folded_as,
            folded,
            reason,
            location,
            hook,
            interface,
            outgoing,
            netns: _,
            packet_len,
            flow,
            tunnel: _,
            conntrack,
            socket: _,
            filters,
            peer,
        } = event;
        let any = hidden.any();
        let behind_is_theirs = who.behind.as_ref().is_none_or(|pod| self.may_read(&pod.namespace));
        let flow = as_their_end_saw_it(event, flow, hidden);
        let conntrack = conntrack.as_ref().map(|entry| if any { without_others(entry, &flow) } else { entry.clone() });
        DropEvent {
            time: *time,
            id: id(*folded_as, self.ids),
            folded: *folded,
            reason: reason.clone(),
            // Where the kernel lies in memory is not theirs to know.
            location: Location { address: 0, symbol: location.symbol.clone() },
            hook: *hook,
            interface: interface.clone().filter(|_| !any),
            outgoing: *outgoing,
            netns: None,
            packet_len: *packet_len,
            flow,
            tunnel: None,
            conntrack,
            socket: None,
            filters: if any { Vec::new() } else { filters.clone() },
            peer: peer.clone().filter(|_| !any && behind_is_theirs),
        }
    }

    fn who(&self, who: &Who, client: Party, server: Party, event: &DropEvent, hidden: Hidden) -> Who {
        let Who { client: _, server: _, service, host_network, callers, tunnel: _, behind } = who;
        let (from, to) = ends_of(event);
        let theirs = |pod: &&Arc<Pod>| self.may_read(&pod.namespace);
        Who {
            client: if hidden.client { Party { ip: from, ..client } } else { client },
            server: if hidden.server { Party { ip: to, ..server } } else { server },
            service: service.clone().filter(|call: &ServiceCall| self.may_read(&call.service.namespace)),
            host_network: host_network.iter().filter(theirs).cloned().collect(),
            callers: callers.iter().filter(theirs).cloned().collect(),
            tunnel: None,
            behind: behind.clone().filter(|pod| !hidden.any() && self.may_read(&pod.namespace)),
        }
    }

    fn explanation(&self, explanation: &Explanation, who: &Who, hidden: Hidden, service_is_shown: bool) -> Explanation {
        let Explanation { verdict, egress, ingress, fixes, remaining, notes } = explanation;
        let whole = !hidden.any() && service_is_shown;
        let mut shown = Explanation {
            verdict: *verdict,
            egress: self.direction(egress, hidden.client, hidden.server),
            ingress: self.direction(ingress, hidden.server, hidden.client),
            fixes: Vec::new(),
            remaining: remaining.iter().filter_map(|remaining| self.remaining(remaining, whole)).collect(),
            notes: Vec::new(),
        };
        if whole {
            shown.notes.clone_from(notes);
            let theirs = fixes.iter().filter(|fix| match fix.direction {
                crate::cluster::Direction::Egress => self.is_theirs(&who.client),
                crate::cluster::Direction::Ingress => self.is_theirs(&who.server),
            });
            let (fixes, admits_others): (Vec<Fix>, Vec<bool>) = theirs.map(|fix| self.fix(fix)).unzip();
            shown.fixes = fixes;
            if admits_others.contains(&true) {
                shown.notes.push(ADMITS_OTHERS.to_owned());
            }
        } else if hidden.any() {
            shown.notes.push(NOTE.to_owned());
        }
        shown
    }

    /// One direction; `own` is the end whose policies it is about.
    fn direction(&self, explained: &DirectionExplanation, own_is_hidden: bool, other_is_hidden: bool) -> DirectionExplanation {
        let DirectionExplanation { direction, subject, tiers, admission } = explained;
        // The subject is a pod by its name, also where the end is a Service.
        let is_theirs = subject.as_deref().and_then(namespace_of).is_none_or(|namespace| self.may_read(namespace));
        if own_is_hidden || !is_theirs {
            let admission = Admission::NotSubject { why: format!("not shown: {OTHER_END}") };
            return DirectionExplanation { direction: *direction, subject: None, tiers: Vec::new(), admission };
        }
        if !other_is_hidden {
            return explained.clone();
        }
        // What matched or failed tells the other end's labels, name and ports.
        _ = tiers;
        DirectionExplanation {
            direction: *direction,
            subject: subject.clone(),
            tiers: Vec::new(),
            admission: without_conditions(admission),
        }
    }

    fn fix(&self, fix: &Fix) -> (Fix, bool) {
        let Fix { direction, policy, change, manifest, patch, newly_admits } = fix;
        let theirs = |admitted: &&String| match namespace_of(admitted) {
            Some(namespace) => admitted.parse::<ipnet::IpNet>().is_ok() || self.may_read(namespace),
            None => admitted.parse::<IpAddr>().is_ok(),
        };
        let shown: Vec<String> = newly_admits.iter().filter(theirs).cloned().collect();
        let admits_others = shown.len() < newly_admits.len();
        let fix = Fix {
            direction: *direction,
            policy: policy.clone(),
            change: change.clone(),
            manifest: manifest.clone(),
            patch: patch.clone(),
            newly_admits: shown,
        };
        (fix, admits_others)
    }

    fn remaining(&self, remaining: &Remaining, whole: bool) -> Option<Remaining> {
        let is_theirs = |name: &str| namespace_of(name).is_some_and(|namespace| self.may_read(namespace));
        match remaining {
            Remaining::ServiceWithoutEndpoints { service } | Remaining::DnsDenied { service } => {
                is_theirs(service).then(|| remaining.clone())
            }
            Remaining::OtherEndpointsDenied { service, endpoints } if whole && is_theirs(service) => {
                let endpoints: Vec<String> = endpoints.iter().filter(|endpoint| is_theirs(endpoint)).cloned().collect();
                (!endpoints.is_empty()).then(|| Remaining::OtherEndpointsDenied { service: service.clone(), endpoints })
            }
            Remaining::NoFix { .. } if whole => Some(remaining.clone()),
            Remaining::OtherEndpointsDenied { .. } | Remaining::NoFix { .. } => None,
        }
    }

    fn diagnosis(&self, diagnosis: &Diagnosis, event: &DropEvent, hidden: Hidden, service_is_shown: bool) -> Diagnosis {
        let Diagnosis { class, agreement, summary } = diagnosis;
        if !hidden.any() && service_is_shown {
            return diagnosis.clone();
        }
        // Sentences name whoever they are about.
        let agreement = match agreement {
            Agreement::Agrees | Agreement::PoliciesAllow | Agreement::NotEnforcement => agreement.clone(),
            // Which change it was names whoever is concerned.
            Agreement::PolicyChanged { why: _ } => Agreement::PolicyChanged { why: format!("not shown: {OTHER_END}") },
            Agreement::CannotDecide { why: _ } => Agreement::CannotDecide { why: format!("not shown: {OTHER_END}") },
        };
        _ = summary;
        let hook = event.hook.map(|hook| format!(" in the {hook} hook")).unwrap_or_default();
        let summary = format!("The packet was dropped{hook} ({}); {OTHER_END}.", event.reason.name);
        Diagnosis { class: class.clone(), agreement, summary }
    }
}

/// Which ends are not shown.
#[derive(Clone, Copy)]
struct Hidden {
    client: bool,
    server: bool,
}

impl Hidden {
    fn any(self) -> bool {
        self.client || self.server
    }
}

fn is_not_shown(party: &Party) -> bool {
    matches!(party.identity, Identity::NotShown)
}

/// Client and server by the packet.
fn ends_of(event: &DropEvent) -> (IpAddr, IpAddr) {
    let flow = &event.flow;
    if event.is_reply() { (flow.destination, flow.source) } else { (flow.source, flow.destination) }
}

/// A client that dialled a Service of others sees its address, not that of the pod behind it.
fn as_their_end_saw_it(event: &DropEvent, flow: &Flow, hidden: Hidden) -> Flow {
    let mut flow = flow.clone();
    let Some(conntrack) = event.conntrack.as_ref().filter(|_| hidden.server && !hidden.client) else { return flow };
    let dialled = (conntrack.original.destination, conntrack.original.destination_port);
    if event.is_reply() {
        (flow.source, flow.source_port) = dialled;
    } else {
        (flow.destination, flow.destination_port) = dialled;
    }
    flow
}

/// An entry that holds no other addresses than the packet that is shown.
fn without_others(entry: &Conntrack, flow: &Flow) -> Conntrack {
    let Conntrack { original: _, reply, seen_reply } = entry;
    let there = Tuple {
        source: flow.source,
        source_port: flow.source_port,
        destination: flow.destination,
        destination_port: flow.destination_port,
        protocol: flow.protocol,
    };
    let original = if *reply {
        Tuple {
            source: there.destination,
            source_port: there.destination_port,
            destination: there.source,
            destination_port: there.source_port,
            protocol: there.protocol,
        }
    } else {
        there
    };
    Conntrack { original, reply: *reply, seen_reply: *seen_reply }
}

/// Who is to blame, without what failed.
fn without_conditions(admission: &Admission) -> Admission {
    match admission {
        Admission::NotSubject { why: _ } => Admission::NotSubject { why: format!("not shown: {OTHER_END}") },
        Admission::NotIsolated => Admission::NotIsolated,
        // Which rule admits it tells what the rule asks for.
        Admission::Allowed { by: _ } => Admission::Allowed { by: Vec::new() },
        Admission::Denied { by, isolating, nearest: _ } => Admission::Denied {
            by: by.as_ref().map(|rule| RuleRef { name: None, ..rule.clone() }),
            isolating: isolating
                .iter()
                .map(|IsolatingPolicy { policy, rules }| IsolatingPolicy {
                    policy: policy.clone(),
                    rules: rules
                        .iter()
                        .map(|RuleMiss { index, origin, peers: _, ports: _ }| RuleMiss {
                            index: *index,
                            origin: origin.clone(),
                            peers: Vec::new(),
                            ports: Vec::new(),
                        })
                        .collect(),
                })
                .collect(),
            nearest: Vec::new(),
        },
        Admission::Undecided { why: _ } => Admission::Undecided { why: format!("not shown: {OTHER_END}") },
    }
}

/// The namespace of `namespace/name`.
fn namespace_of(name: &str) -> Option<&str> {
    name.split_once('/').map(|(namespace, _)| namespace)
}

#[cfg(test)]
mod tests;
