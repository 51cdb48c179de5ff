//! Who else a change would admit.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::cluster::{Direction, IpBlock, NetworkPolicy, Peer, Pod, PodPhase, PortNumber, Rule};
use crate::flow::Protocol;

use super::connection::{Case, End, Who};
use super::labels;
use super::matching::{Context, Match};

/// Ports that stand for all that no rule names one by one.
const ORDINARY_PORTS: [u16; 2] = [1, u16::MAX];

/// A policy after an edit.
pub(super) struct Change {
    pub(super) policy: NetworkPolicy,
    /// The rule that was edited or added, as it is afterwards.
    pub(super) rule: Rule,
    /// What of it the edit opens: the peers and the ports that were not there before go with those that were.
    pub(super) opens: Rule,
}

/// The question, with the workloads to ask it for.
pub(super) struct Gain<'a> {
    context: Context<'a>,
    case: Case<'a>,
    direction: Direction,
    subject: &'a Pod,
    peers: Vec<&'a Pod>,
}

impl<'a> Gain<'a> {
    pub(super) fn new(context: &Context<'a>, case: Case<'a>, direction: Direction, subject: &'a Pod) -> Self {
        let pods = context.index.pods().filter(|pod| has_own_network(pod));
        let peers = if names_blocks(context, subject, direction) { pods.map(|pod| &**pod).collect() } else { few_per_workload(pods) };
        Gain { context: *context, case, direction, subject, peers }
    }

    /// The peers that could not reach a pod the policy selects (or be reached by it) on one of the ports that the change opens,
    /// and now can. A peer is named by its workload, with the selected workload where that is another than the one of this
    /// connection.
    pub(super) fn of(&self, change: &Change) -> BTreeSet<String> {
        let mut admitted = BTreeSet::new();
        let policy = &change.policy;
        let here = self.context.index.pods_in(&policy.namespace);
        let selected = few_per_workload(here.filter(|pod| has_own_network(pod) && policy.pod_selector.matches(&pod.labels)));
        let (_, called) = self.case.sides(self.direction);
        admitted.insert(called.pod().map_or_else(|| IpNet::from(called.ip).to_string(), workload));
        for peer in &self.peers {
            for end in self.ends(peer).filter(|end| self.context.peers(&change.opens, &policy.namespace, end) == Match::Yes) {
                for selected in &selected {
                    let name = self.named(workload(peer), selected);
                    if !admitted.contains(&name) && self.gains(change, end, selected) {
                        admitted.insert(name);
                    }
                }
            }
        }
        for (name, end) in self.blocks(&change.opens) {
            let gaining = selected.iter().filter(|selected| self.gains(change, end, selected));
            admitted.extend(gaining.map(|selected| self.named(name.clone(), selected)));
        }
        admitted
    }

    /// The address blocks that the change opens, with an address that stands for each.
    fn blocks(&self, opens: &Rule) -> Vec<(String, End<'a>)> {
        if opens.peers.is_empty() {
            let end = End { ip: self.unspecified(), who: Who::External };
            return vec![("any address".to_owned(), end)];
        }
        let block = |peer: &Peer| match peer {
            Peer::IpBlock(block) => Some((shown(block), End { ip: representative(block), who: Who::External })),
            Peer::Pods { .. } | Peer::Invalid(_) => None,
        };
        opens.peers.iter().filter_map(block).collect()
    }

    fn gains(&self, change: &Change, peer: End<'a>, selected: &'a Pod) -> bool {
        let Some(selected) = self.ends(selected).next() else { return false };
        let (source, destination) = match self.direction {
            Direction::Ingress => (peer, selected),
            Direction::Egress => (selected, peer),
        };
        let namespace = &change.policy.namespace;
        self.ports(&change.opens, &destination).into_iter().any(|(protocol, port)| {
            let case = Case { source, destination, protocol, port: Some(port) };
            self.context.rule(&change.rule, namespace, self.direction, &case) == Match::Yes
                && self.context.judge(&case, self.direction).admits() == Some(false)
        })
    }

    /// Ports to ask about: the one that was called and those that the change opens.
    fn ports(&self, opens: &Rule, destination: &End<'_>) -> Vec<(Protocol, u16)> {
        let mut ports: Vec<(Protocol, u16)> = self.case.port.map(|number| (self.case.protocol, number)).into_iter().collect();
        if opens.ports.is_empty() {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                ports.extend(ORDINARY_PORTS.map(|number| (protocol, number)));
            }
        }
        for port in &opens.ports {
            match &port.port {
                PortNumber::Any => ports.extend(ORDINARY_PORTS.map(|number| (port.protocol, number))),
                PortNumber::Number(number) => ports.push((port.protocol, *number)),
                PortNumber::Range(from, to) => ports.extend([(port.protocol, *from), (port.protocol, *to)]),
                PortNumber::Name(name) => {
                    let named = destination.pod().into_iter().flat_map(|pod| &pod.ports);
                    let named = named.filter(|named| named.protocol == port.protocol && named.name.as_ref() == Some(name));
                    ports.extend(named.map(|named| (named.protocol, named.port)));
                }
                PortNumber::Invalid(_) => {}
            }
        }
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    fn named(&self, peer: String, selected: &Pod) -> String {
        let (own, other) = (workload(self.subject), workload(selected));
        match self.direction {
            _ if own == other => peer,
            Direction::Ingress => format!("{peer} → {other}"),
            Direction::Egress => format!("{other} → {peer}"),
        }
    }

    /// A pod as a side of connections, by each of its addresses: blocks may treat them differently. In files many pods have none.
    fn ends(&self, pod: &'a Pod) -> impl Iterator<Item = End<'a>> + use<'a> {
        let none = pod.ips.is_empty().then(|| self.unspecified());
        pod.ips.iter().map(IpAddr::to_canonical).chain(none).map(|ip| End { ip, who: Who::Pod(pod) })
    }

    fn unspecified(&self) -> IpAddr {
        if self.case.source.ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
    }
}

/// The first address of the block that no exception takes out, as far as exceptions begin where the block does.
fn representative(block: &IpBlock) -> IpAddr {
    let edges = [block.cidr.net.network(), block.cidr.net.broadcast()];
    let kept = edges.into_iter().find(|ip| !block.except.iter().any(|except| except.contains(*ip)));
    kept.unwrap_or(block.cidr.net.addr())
}

/// `10.0.0.0/8 except 10.1.0.0/16`
fn shown(block: &IpBlock) -> String {
    if block.except.is_empty() {
        return block.cidr.to_string();
    }
    let except: Vec<String> = block.except.iter().map(ToString::to_string).collect();
    format!("{} except {}", block.cidr, except.join(", "))
}

fn workload(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace, pod.workload.name)
}

fn has_own_network(pod: &Pod) -> bool {
    !pod.host_network && pod.phase == PodPhase::Active
}

/// Whether an address may decide what is admitted today: then pods of one workload may differ.
fn names_blocks(context: &Context<'_>, subject: &Pod, direction: Direction) -> bool {
    let here = context.index.policies_in(&subject.namespace);
    let rules = here.flat_map(|policy| policy.rules(direction).unwrap_or_default());
    rules.flat_map(|rule| &rule.peers).any(|peer| matches!(peer, Peer::IpBlock(_)))
}

/// Pods of one workload with the same labels and ports are the same to selectors. Two of them stand for all: one to call, and
/// one to be called, for a pod may always call itself.
fn few_per_workload<'a>(pods: impl Iterator<Item = &'a Arc<Pod>>) -> Vec<&'a Pod> {
    let mut seen: HashMap<_, u8> = HashMap::new();
    let ports = |pod: &'a Pod| pod.ports.iter().map(|port| (&port.name, port.port, port.protocol)).collect::<Vec<_>>();
    let is_new = |pod: &&'a Pod| {
        let count = seen.entry((&pod.namespace, &pod.workload, labels::lasting(pod), ports(pod))).or_default();
        *count = count.saturating_add(1);
        *count <= 2
    };
    pods.map(|pod| &**pod).filter(is_new).collect()
}
