//! networking.k8s.io/v1 NetworkPolicy, defaulted and compiled once.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use super::{Labels, Origin, Selector};
use crate::flow::Protocol;

/// A NetworkPolicy. A direction that `policyTypes` (given or defaulted) does not name is `None`: the policy does not isolate it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// `metadata.namespace`
    pub namespace: Arc<str>,
    /// `metadata.name`
    pub name: Arc<str>,
    /// `metadata.resourceVersion`, when an API server has seen it.
    pub resource_version: Option<Arc<str>>,
    /// `metadata.labels`
    pub labels: Labels,
    /// `metadata.annotations` without what kubectl keeps there for itself (`kubectl.kubernetes.io/last-applied-configuration`).
    pub annotations: Labels,
    /// Pods it selects, in its namespace.
    pub pod_selector: Selector,
    /// Rules for connections to the selected pods; `Some(vec![])` allows nothing.
    pub ingress: Option<Vec<Rule>>,
    /// Rules for connections from the selected pods.
    pub egress: Option<Vec<Rule>>,
    /// Directions for which rules are written that `policyTypes` does not name: these rules are ignored, and not kept.
    pub ignored_rules: Vec<Direction>,
    /// What the API server would have refused, in the words of the field; the parts concerned match nothing.
    pub invalid: Vec<String>,
    /// Where it was read.
    pub origin: Option<Origin>,
}

impl NetworkPolicy {
    /// The rules of one direction, when the policy isolates it.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// The side of a connection a rule speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Leaving the source pod.
    Egress,
    /// Arriving at the destination pod.
    Ingress,
}

impl Direction {
    /// Both, in the order a connection passes them.
    pub const BOTH: [Direction; 2] = [Direction::Egress, Direction::Ingress];
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Egress => "egress",
            Direction::Ingress => "ingress",
        })
    }
}

/// One entry of `spec.ingress` or `spec.egress`: it admits a connection whose peer and port both match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `from` or `to`; empty: any peer, external addresses included.
    pub peers: Vec<Peer>,
    /// `ports`; empty: every port of every protocol.
    pub ports: Vec<PolicyPort>,
    /// Line of the rule in its file.
    pub origin: Option<Origin>,
}

/// One entry of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Pods. `namespace: None` is the policy's own namespace; `pod: None` is every pod of the namespaces.
    Pods {
        /// `namespaceSelector`
        namespace: Option<Selector>,
        /// `podSelector`
        pod: Option<Selector>,
    },
    /// `ipBlock`
    IpBlock(IpBlock),
    /// Nothing set, or something the API server refuses; matches nothing.
    Invalid(Arc<str>),
}

/// `ipBlock`: addresses in `cidr` that are in none of `except`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IpBlock {
    /// Host bits are ignored.
    pub cidr: Cidr,
    /// Vetoes this peer only.
    pub except: Vec<Cidr>,
}

/// An address range, with the text it was written as: a patch that guards a field must quote the field exactly.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// Host bits may be set; they are ignored.
    pub net: IpNet,
    /// As written: `10.0.0.0/8`, `2001:DB8::/32`.
    pub text: Arc<str>,
}

impl Cidr {
    /// Whether the address lies in the range; never for the other family.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.net.contains(&ip)
    }
}

impl From<IpNet> for Cidr {
    fn from(net: IpNet) -> Self {
        Cidr { net, text: net.to_string().into() }
    }
}

impl FromStr for Cidr {
    type Err = ipnet::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Cidr { net: text.parse()?, text: text.into() })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// One entry of `ports`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyPort {
    /// TCP when absent.
    pub protocol: Protocol,
    /// Which ports of it.
    pub port: PortNumber,
}

/// `port` and `endPort`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PortNumber {
    /// No port given: all ports of the protocol.
    Any,
    /// One number.
    Number(u16),
    /// `port..=endPort`
    Range(u16, u16),
    /// The destination pod's container port of this name and protocol.
    Name(Arc<str>),
    /// Refused by the API server, with the reason; matches nothing.
    Invalid(Arc<str>),
}

/// As people write ports: `8080/TCP`, `8000-8999/TCP`, `metrics/TCP`, `UDP`.
impl fmt::Display for PolicyPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol;
        match &self.port {
            PortNumber::Any => write!(f, "{protocol}"),
            PortNumber::Number(port) => write!(f, "{port}/{protocol}"),
            PortNumber::Range(from, to) => write!(f, "{from}-{to}/{protocol}"),
            PortNumber::Name(name) => write!(f, "{name}/{protocol}"),
            PortNumber::Invalid(why) => write!(f, "invalid port ({why})"),
        }
    }
}
