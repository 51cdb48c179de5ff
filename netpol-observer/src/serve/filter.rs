//! Which denials a reader wants to see.

use std::fmt;
use std::mem::{Discriminant, discriminant};
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::class_name;
use crate::cluster::{Direction, Kind, Pod, Selector};
use crate::diagnose::{Class, Denial};
use crate::effect::Effect;
use crate::flow::Protocol;
use crate::identify::{Identity, Party};
use crate::pipeline::server_port;
use crate::policy::{Admission, DirectionExplanation, PairEnd};

/// What to show and what not: a denial is shown when it is in `wanted` and in none of `unwanted`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filters {
    /// Filters before the first `--not`.
    pub wanted: Group,
    /// One group per `--not`: the filters behind it, up to the next.
    pub unwanted: Vec<Group>,
}

/// Filters that hold together: of each kind at least one must match. None at all match everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group(Vec<Filter>);

/// One filter.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Namespace of a pod or Service on that side.
    Namespace(Side, String),
    /// A pod on that side.
    Pod(Side, NamePattern),
    /// Labels of a pod on either side.
    Selector(Selector),
    /// Address on that side; for the server also the Service address dialled.
    Ip(Side, IpNet),
    /// Port of the server, or of the Service dialled.
    Port(u16),
    /// Transport protocol.
    Protocol(Protocol),
    /// A direction in which policies deny.
    Direction(Direction),
    /// A policy that isolates in a direction in which policies deny.
    Policy(NamePattern),
    /// Kernel drop reason, by name or number.
    Reason(String),
    /// Kind of cause.
    Class(ClassName),
}

/// Which end of the connection a filter speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Either.
    Either,
    /// The client.
    From,
    /// The server.
    To,
}

impl Filters {
    /// Whether a denial is to be shown.
    pub fn admit(&self, denial: &Denial) -> bool {
        self.wanted.matches(denial) && !self.unwanted.iter().any(|group| group.matches(denial))
    }

    /// Whether a change of a policy is to be shown. Filters of what only a drop has leave it out.
    pub fn admit_change(&self, effect: &Effect) -> bool {
        self.wanted.matches_change(effect) && !self.unwanted.iter().any(|group| group.matches_change(effect))
    }

    /// Whether the reader asks for the class of drops that is hidden otherwise.
    pub fn asks_for_noise(&self) -> bool {
        self.wanted.0.iter().any(|filter| matches!(filter, Filter::Class(ClassName("noise"))))
    }
}

impl Group {
    /// Adds one more filter.
    pub fn push(&mut self, filter: Filter) {
        self.0.push(filter);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether of each kind of filter in the group at least one matches.
    pub fn matches(&self, denial: &Denial) -> bool {
        self.each_kind(|filter| filter.matches(denial))
    }

    /// The same for a change of a policy.
    pub fn matches_change(&self, effect: &Effect) -> bool {
        self.each_kind(|filter| filter.matches_change(effect))
    }

    fn each_kind(&self, matches: impl Fn(&Filter) -> bool) -> bool {
        // A handful of filters: quadratic is fine.
        self.0.iter().all(|filter| {
            let kind = filter.kind();
            self.0.iter().any(|other| other.kind() == kind && matches(other))
        })
    }
}

impl Filter {
    /// Filters of one kind are alternatives. `--from-pod` and `--pod` are two kinds.
    fn kind(&self) -> (Discriminant<Filter>, Option<Side>) {
        let side = match self {
            Filter::Namespace(side, _) | Filter::Pod(side, _) | Filter::Ip(side, _) => Some(*side),
            _ => None,
        };
        (discriminant(self), side)
    }

    fn matches(&self, denial: &Denial) -> bool {
        match self {
            Filter::Namespace(side, namespace) => side.any(denial, |party, dialled| {
                pods(party).iter().any(|pod| *pod.namespace == **namespace)
                    || matches!(&party.identity, Identity::Service(service) if *service.namespace == **namespace)
                    || dialled && denial.who.service.as_ref().is_some_and(|call| *call.service.namespace == **namespace)
            }),
            Filter::Pod(side, pattern) => {
                side.any(denial, |party, _| pods(party).iter().any(|pod| pattern.matches(&pod.namespace, &pod.name)))
            }
            Filter::Selector(selector) => Side::Either.any(denial, |party, _| pods(party).iter().any(|pod| selector.matches(&pod.labels))),
            Filter::Ip(side, net) => side.any(denial, |party, dialled| {
                net.contains(&party.ip) || dialled && denial.who.service.as_ref().is_some_and(|call| net.contains(&call.ip))
            }),
            Filter::Port(port) => {
                server_port(&denial.event, &denial.who) == Some(*port)
                    || denial.who.service.as_ref().is_some_and(|call| call.port == Some(*port))
            }
            Filter::Protocol(protocol) => denial.event.flow.protocol == *protocol,
            Filter::Direction(direction) => {
                matches!(&denial.diagnosis.class, Class::PolicyDenied(directions) if directions.contains(direction))
            }
            Filter::Policy(pattern) => isolating(&denial.explanation.egress, pattern) || isolating(&denial.explanation.ingress, pattern),
            Filter::Reason(wanted) => {
                let reason = &denial.event.reason;
                reason.name.eq_ignore_ascii_case(wanted.strip_prefix("SKB_DROP_REASON_").unwrap_or(wanted))
                    || wanted.parse() == Ok(reason.number)
            }
            Filter::Class(class) => class.0 == class_name(&denial.diagnosis.class),
        }
    }
}

impl Filter {
    /// The namespaces of a change are that of the policy, or the namespace itself, and those of the pairs that are named.
    fn matches_change(&self, effect: &Effect) -> bool {
        let key = &effect.key;
        match self {
            Filter::Namespace(side, wanted) => {
                let of_object = if key.kind == Kind::Namespace { &key.name } else { &key.namespace };
                let is_of = |end: &PairEnd| matches!(end, PairEnd::Workload { namespace, .. } if **namespace == **wanted);
                let is_source = || effect.pairs().any(|pair| is_of(&pair.source));
                let is_destination = || effect.pairs().any(|pair| is_of(&pair.destination));
                match side {
                    Side::Either => **of_object == **wanted || is_source() || is_destination(),
                    Side::From => is_source(),
                    Side::To => is_destination(),
                }
            }
            Filter::Policy(pattern) => key.kind != Kind::Namespace && pattern.matches(&key.namespace, &key.name),
            _ => false,
        }
    }
}

impl Side {
    /// Whether one of the parties of this side passes the test, which is also told whether it is the one dialled.
    fn any(self, denial: &Denial, test: impl Fn(&Party, bool) -> bool) -> bool {
        let client = || test(&denial.who.client, false);
        let server = || test(&denial.who.server, true);
        match self {
            Side::Either => client() || server(),
            Side::From => client(),
            Side::To => server(),
        }
    }
}

fn pods(party: &Party) -> &[std::sync::Arc<Pod>] {
    match &party.identity {
        Identity::Pod(pod) => std::slice::from_ref(pod),
        Identity::AmbiguousPods(pods) => pods,
        _ => &[],
    }
}

fn isolating(direction: &DirectionExplanation, pattern: &NamePattern) -> bool {
    match &direction.admission {
        Admission::Denied { isolating, .. } => {
            isolating.iter().any(|isolating| pattern.matches(&isolating.policy.namespace, &isolating.policy.name))
        }
        _ => false,
    }
}

/// `[namespace/]name`; a `*` at the end of either stands for any ending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    namespace: Option<String>,
    name: String,
}

impl NamePattern {
    fn matches(&self, namespace: &str, name: &str) -> bool {
        self.namespace.as_ref().is_none_or(|pattern| ends_open(pattern, namespace)) && ends_open(&self.name, name)
    }
}

fn ends_open(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => text.starts_with(prefix),
        None => text == pattern,
    }
}

impl FromStr for NamePattern {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = match s.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, s),
        };
        if name.is_empty() || namespace.is_some_and(str::is_empty) || name.contains('/') {
            return Err("expected NAME or NAMESPACE/NAME".to_owned());
        }
        Ok(NamePattern { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}

/// The name of a [`Class`], as in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassName(&'static str);

/// All classes; the directions of a denial do not matter here.
static CLASSES: [Class; 11] = [
    Class::PolicyDenied(Vec::new()),
    Class::PolicyChanged,
    Class::DroppedReply,
    Class::HostFirewall,
    Class::NoListener,
    Class::ServiceWithoutEndpoints,
    Class::NoRoute,
    Class::ReversePathFilter,
    Class::ConnectionState,
    Class::Noise,
    Class::Undecided,
];

impl fmt::Display for ClassName {
    /// With hyphens, as on the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_ascii_uppercase() {
                write!(f, "-{}", c.to_ascii_lowercase())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for ClassName {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let names = || CLASSES.iter().map(|class| ClassName(class_name(class)));
        names().find(|name| name.0 == s || name.to_string() == s).ok_or_else(|| {
            let known: Vec<_> = names().map(|name| name.to_string()).collect();
            format!("expected one of {}", known.join(", "))
        })
    }
}

/// An address, or a block of them in CIDR notation.
///
/// # Errors
/// Neither of both.
pub fn parse_ip(s: &str) -> Result<IpNet, String> {
    s.parse::<IpNet>()
        .or_else(|_| s.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "expected an IP address or a CIDR such as 10.0.0.0/8".to_owned())
}

/// `ingress` or `egress`.
///
/// # Errors
/// Neither of both.
pub fn parse_direction(s: &str) -> Result<Direction, String> {
    match s {
        "ingress" => Ok(Direction::Ingress),
        "egress" => Ok(Direction::Egress),
        _ => Err("expected ingress or egress".to_owned()),
    }
}

#[cfg(test)]
mod tests;
