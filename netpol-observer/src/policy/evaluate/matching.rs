//! Whether a rule's peers and ports match, and what failed when they do not.
//!
//! The verdict and its explanation run through the same functions: they differ only in the [`Sink`] that takes the failed
//! conditions, so that they cannot disagree.

use std::sync::Arc;

use crate::cluster::{Direction, IpBlock, Peer, PolicyPort, PortNumber, Rule, Selector};
use crate::flow::Protocol;

use super::View;
use crate::policy::connection::{Case, End, Who};
use crate::policy::explanation::Condition;

/// How a condition, peer, port or rule came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Match {
    Yes,
    No,
    Unknown(Unknown),
}

/// What is missing to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Unknown {
    /// A pod's address whose owner is not known.
    Owner,
    /// The packet does not show its port.
    Port,
    /// The addresses of a name in a `domainNames` peer.
    Name,
}

impl Match {
    /// Of alternatives, one is enough.
    pub(in crate::policy) fn or(self, other: Match) -> Match {
        match (self, other) {
            (Match::Yes, _) | (_, Match::Yes) => Match::Yes,
            (Match::Unknown(what), _) | (_, Match::Unknown(what)) => Match::Unknown(what),
            (Match::No, Match::No) => Match::No,
        }
    }

    /// Both are needed.
    pub(in crate::policy) fn and(self, other: Match) -> Match {
        match (self, other) {
            (Match::No, _) | (_, Match::No) => Match::No,
            (Match::Unknown(what), _) | (_, Match::Unknown(what)) => Match::Unknown(what),
            (Match::Yes, Match::Yes) => Match::Yes,
        }
    }
}

/// Takes failed conditions.
pub(in crate::policy) trait Sink {
    /// Whether to go on after a failure, to find all of them.
    const ALL: bool;
    fn fail(&mut self, condition: impl FnOnce() -> Condition);
}

/// The verdict needs no reasons.
pub(in crate::policy) struct Ignore;

impl Sink for Ignore {
    const ALL: bool = false;
    fn fail(&mut self, _: impl FnOnce() -> Condition) {}
}

/// Which namespaces a selector of pods speaks of.
#[derive(Clone, Copy)]
pub(in crate::policy) enum Namespaces<'a> {
    /// That of the policy.
    Own(&'a str),
    Selected(&'a Selector),
}

impl Sink for Vec<Condition> {
    const ALL: bool = true;
    fn fail(&mut self, condition: impl FnOnce() -> Condition) {
        self.push(condition());
    }
}

impl View<'_> {
    /// Whether a rule of a policy in `namespace` admits the connection.
    pub(in crate::policy) fn rule(&self, rule: &Rule, namespace: &str, direction: Direction, case: &Case<'_>) -> Match {
        let (_, peer) = case.sides(direction);
        let ports = self.ports(rule, case);
        if ports == Match::No {
            return Match::No;
        }
        ports.and(self.peers(rule, namespace, &peer))
    }

    /// Whether any peer of the rule matches.
    pub(in crate::policy) fn peers(&self, rule: &Rule, namespace: &str, end: &End<'_>) -> Match {
        if rule.peers.is_empty() {
            return Match::Yes;
        }
        let mut result = Match::No;
        for peer in &rule.peers {
            result = result.or(self.peer(peer, namespace, end, &mut Ignore));
            if result == Match::Yes {
                break;
            }
        }
        result
    }

    /// Whether any port of the rule matches.
    pub(in crate::policy) fn ports(&self, rule: &Rule, case: &Case<'_>) -> Match {
        if rule.ports.is_empty() {
            return Match::Yes;
        }
        rule.ports.iter().fold(Match::No, |result, port| result.or(self.port(port, case, &mut Ignore)))
    }

    /// Whether a peer matches; `sink` takes every condition that fails.
    pub(in crate::policy) fn peer<S: Sink>(&self, peer: &Peer, namespace: &str, end: &End<'_>, sink: &mut S) -> Match {
        match peer {
            Peer::Pods { namespace: None, pod: pods } => self.pods(Namespaces::Own(namespace), pods.as_ref(), end, sink),
            Peer::Pods { namespace: Some(namespaces), pod: pods } => self.pods(Namespaces::Selected(namespaces), pods.as_ref(), end, sink),
            Peer::IpBlock(block) => self.block(block, end, sink),
            Peer::Invalid(why) => {
                sink.fail(|| Condition::Invalid { why: why.clone() });
                Match::No
            }
        }
    }

    /// Pods of the namespaces; never one in its node's network, which policies see as the node.
    pub(in crate::policy) fn pods<S: Sink>(
        &self,
        namespaces: Namespaces<'_>,
        pods: Option<&Selector>,
        end: &End<'_>,
        sink: &mut S,
    ) -> Match {
        let pod = match end.who {
            Who::Pod(pod) => pod,
            Who::Unowned => return Match::Unknown(Unknown::Owner),
            Who::Node(_) | Who::Special | Who::External => {
                sink.fail(|| Condition::NotAPod { ip: end.ip });
                return Match::No;
            }
        };
        let mut result = Match::Yes;
        match namespaces {
            Namespaces::Own(namespace) if *pod.namespace == *namespace => {}
            Namespaces::Own(namespace) => {
                result = Match::No;
                sink.fail(|| Condition::SameNamespace { wants: namespace.into(), has: pod.namespace.clone() });
            }
            Namespaces::Selected(selector) => {
                let labels = self.index.namespace_labels(&pod.namespace);
                for requirement in selector.failed(&labels) {
                    result = Match::No;
                    sink.fail(|| Condition::NamespaceLabel {
                        wants: requirement.clone(),
                        namespace: pod.namespace.clone(),
                        has: labels.get(&requirement.key).cloned(),
                    });
                    if !S::ALL {
                        break;
                    }
                }
            }
        }
        if result == Match::No && !S::ALL {
            return result;
        }
        for requirement in pods.into_iter().flat_map(|selector| selector.failed(&pod.labels)) {
            result = Match::No;
            sink.fail(|| Condition::PodLabel {
                wants: requirement.clone(),
                pod: format!("{}/{}", pod.namespace, pod.name),
                has: pod.labels.get(&requirement.key).cloned(),
            });
            if !S::ALL {
                break;
            }
        }
        result
    }

    fn block<S: Sink>(&self, block: &IpBlock, end: &End<'_>, sink: &mut S) -> Match {
        let ip = end.ip;
        let cidr = || block.cidr.to_string();
        if !self.profile.ip_block_matches_pods && matches!(end.who, Who::Pod(_) | Who::Unowned) {
            sink.fail(|| Condition::BlockIgnoresPods { cidr: cidr(), ip });
            return Match::No;
        }
        if block.cidr.net.addr().is_ipv4() != ip.is_ipv4() {
            sink.fail(|| Condition::Family { cidr: cidr(), ip });
            return Match::No;
        }
        if !block.cidr.contains(ip) {
            sink.fail(|| Condition::OutsideBlock { cidr: cidr(), ip });
            return Match::No;
        }
        if let Some(except) = block.except.iter().find(|except| except.contains(ip)) {
            sink.fail(|| Condition::Excepted { cidr: cidr(), except: except.to_string(), ip });
            return Match::No;
        }
        Match::Yes
    }

    /// Whether a port matches; `sink` takes every condition that fails. A named port is looked up on the destination, in
    /// both directions.
    pub(in crate::policy) fn port<S: Sink>(&self, wants: &PolicyPort, case: &Case<'_>, sink: &mut S) -> Match {
        let mut result = Match::Yes;
        if wants.protocol != case.protocol {
            result = Match::No;
            sink.fail(|| Condition::Protocol { has: case.protocol.to_string() });
            if !S::ALL {
                return result;
            }
        }
        let range = match &wants.port {
            PortNumber::Any => return result,
            PortNumber::Invalid(why) => {
                sink.fail(|| Condition::Invalid { why: why.clone() });
                return Match::No;
            }
            PortNumber::Number(port) => *port..=*port,
            PortNumber::Range(from, to) => *from..=*to,
            PortNumber::Name(name) => return result.and(self.named_port(name, wants.protocol, case, sink)),
        };
        let Some(has) = case.port else {
            // A protocol without ports has failed above already.
            if case.protocol.has_ports() {
                return result.and(Match::Unknown(Unknown::Port));
            }
            sink.fail(|| Condition::NoPort);
            return Match::No;
        };
        if !range.contains(&has) {
            sink.fail(|| Condition::PortNumber { has });
            return Match::No;
        }
        result
    }

    pub(in crate::policy) fn named_port<S: Sink>(&self, name: &Arc<str>, protocol: Protocol, case: &Case<'_>, sink: &mut S) -> Match {
        let pod = match case.destination.who {
            Who::Pod(pod) => pod,
            Who::Unowned => return Match::Unknown(Unknown::Owner),
            Who::Node(_) | Who::Special | Who::External => {
                sink.fail(|| Condition::NamedPortNeedsPod { name: name.clone() });
                return Match::No;
            }
        };
        let named = || pod.ports.iter().filter(|port| port.protocol == protocol && port.name.as_ref() == Some(name));
        if named().next().is_none() {
            sink.fail(|| Condition::NamedPortMissing { name: name.clone(), pod: format!("{}/{}", pod.namespace, pod.name) });
            return Match::No;
        }
        let Some(has) = case.port else {
            if case.protocol.has_ports() {
                return Match::Unknown(Unknown::Port);
            }
            sink.fail(|| Condition::NoPort);
            return Match::No;
        };
        if named().any(|port| port.port == has) {
            return Match::Yes;
        }
        sink.fail(|| Condition::NamedPortNumber { name: name.clone(), stands_for: named().map(|port| port.port).collect(), has });
        Match::No
    }
}
