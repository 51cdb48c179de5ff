//! What the search for a fix asks of the ends.

use std::net::IpAddr;
use std::sync::Arc;

use super::rows::{PortKey, port_key};
use super::space::{End, EndId, EndWho, IdentityId, Space, WorkloadId};
use super::{Cell, Compiled, PeerKey};
use crate::cluster::{Direction, Index, Node, Pod, PolicyPort, PortNumber, Selector};
use crate::flow::Protocol;
use crate::policy::connection::Profile;

/// Pods of one workload at an end.
#[derive(Clone, Debug)]
pub(in crate::policy) struct Of {
    pub(in crate::policy) workload: WorkloadId,
    /// One of them.
    pub(in crate::policy) pod: Arc<Pod>,
    /// Another, where there are several: a pod and itself are no example of two pods of the workload.
    pub(in crate::policy) other: Option<Arc<Pod>>,
}

impl Of {
    /// Whether there are several.
    pub(in crate::policy) fn has_more(&self) -> bool {
        self.other.is_some()
    }

    /// One or two of them.
    pub(in crate::policy) fn examples(&self) -> impl Iterator<Item = &Arc<Pod>> {
        std::iter::once(&self.pod).chain(&self.other)
    }
}

/// Adds the wanted pods of an end, those of one workload once.
pub(in crate::policy) fn gather(end: &End, mut is_wanted: impl FnMut(&Pod) -> bool, found: &mut Vec<Of>) {
    for (pod, workload) in end.pods.iter().zip(&end.workloads).filter(|(pod, _)| is_wanted(pod)) {
        match found.iter_mut().find(|of| of.workload == *workload) {
            // A pod with several addresses may be at several ends.
            Some(of) if of.other.is_none() && !Arc::ptr_eq(&of.pod, pod) => of.other = Some(pod.clone()),
            Some(_) => {}
            None => found.push(Of { workload: *workload, pod: pod.clone(), other: None }),
        }
    }
}

impl Compiled {
    /// Namespaces that have pods and match.
    pub(in crate::policy) fn namespaces(&self, selector: &Selector, index: &Index) -> Vec<&Arc<str>> {
        self.space.namespaces_matching(selector, index)
    }

    /// All ends.
    pub(in crate::policy) fn ends(&self) -> impl Iterator<Item = (EndId, &End)> {
        (0..).zip(&self.space.ends)
    }

    /// Hands over the ends of a namespace's pods that match, with those pods.
    pub(in crate::policy) fn ends_matching(&self, namespace: &str, pods: Option<&Selector>, mut take: impl FnMut(EndId, Vec<Of>)) {
        let sees = pods.is_none_or(|pods| self.space.sees(pods));
        for identity in self.space.identities_in(namespace) {
            if sees && !self.identity_matches(*identity, pods) {
                continue;
            }
            for id in self.space.ends_of(*identity) {
                let Some(end) = self.space.end(*id) else { continue };
                let mut workloads = Vec::new();
                gather(end, |pod| sees || pods.is_none_or(|pods| pods.matches(&pod.labels)), &mut workloads);
                if !workloads.is_empty() {
                    take(*id, workloads);
                }
            }
        }
    }

    fn identity_matches(&self, identity: IdentityId, pods: Option<&Selector>) -> bool {
        self.space.identity(identity).is_some_and(|of| pods.is_none_or(|pods| pods.matches(&of.labels)))
    }

    /// The ends that a peer matches.
    pub(in crate::policy) fn ends_in<'a>(
        &'a self,
        key: &PeerKey,
        index: &Index,
        profile: &Profile,
    ) -> impl Iterator<Item = (EndId, &'a End)> {
        let matched = self.matchers.find(key, self.world(index, profile));
        self.ends().filter(move |(id, _)| matched.yes.contains(*id))
    }

    /// The end of an address outside of the cluster.
    pub(in crate::policy) fn external_end(&self, ip: IpAddr) -> Option<EndId> {
        self.space.external(ip.to_canonical())
    }

    /// An end.
    pub(in crate::policy) fn end(&self, id: EndId) -> Option<&End> {
        self.space.end(id)
    }

    /// The end of a node under one of its addresses.
    pub(in crate::policy) fn end_of_node(&self, node: &Node, ip: IpAddr) -> Option<EndId> {
        self.space.end_of_node(node, ip)
    }

    /// The address that a pod has at an end; of one without addresses the one that stands for that.
    pub(in crate::policy) fn address_at(&self, pod: &Pod, end: EndId) -> IpAddr {
        let class = self.space.end(end).map(|end| end.class);
        let mut ips = pod.ips.iter().map(IpAddr::to_canonical);
        ips.find(|ip| Some(self.space.class_of(*ip)) == class).unwrap_or(Space::NO_ADDRESS)
    }

    /// Whether the end is one of nodes.
    pub(in crate::policy) fn is_of_nodes(&self, end: &End) -> bool {
        matches!(end.who, EndWho::Node(_))
    }

    /// Whether the end is outside of the cluster.
    pub(in crate::policy) fn is_external(&self, end: &End) -> bool {
        matches!(end.who, EndWho::External)
    }

    /// The pods of a namespace that match, by identity and workload.
    pub(in crate::policy) fn pods_in(&self, namespace: &str, pods: Option<&Selector>) -> Vec<(IdentityId, Vec<Of>)> {
        let sees = pods.is_none_or(|pods| self.space.sees(pods));
        let mut found = Vec::new();
        for identity in self.space.identities_in(namespace) {
            if sees && !self.identity_matches(*identity, pods) {
                continue;
            }
            let mut workloads = Vec::new();
            for end in self.space.ends_of(*identity).iter().filter_map(|end| self.space.end(*end)) {
                gather(end, |pod| sees || pods.is_none_or(|pods| pods.matches(&pod.labels)), &mut workloads);
            }
            if !workloads.is_empty() {
                found.push((*identity, workloads));
            }
        }
        found
    }

    /// What is admitted for an identity on these ports; all ports where none is given.
    pub(in crate::policy) fn cells<'a>(
        &'a self,
        identity: IdentityId,
        direction: Direction,
        ports: &[PolicyPort],
        index: &Index,
        profile: &Profile,
    ) -> Vec<Cell<'a>> {
        let Some(row) = self.row(identity, direction, index, profile) else { return Vec::new() };
        let computing = self.computing(identity, direction, index, profile);
        if let [PolicyPort { protocol, port: PortNumber::Number(number) }] = ports {
            return port_key(*protocol, *number).and_then(|key| computing.cell(row.tiers(), key)).into_iter().collect();
        }
        let single = |port: &PolicyPort| matches!(port.port, PortNumber::Number(_)).then_some(());
        let mut keys: Vec<PortKey> = Vec::new();
        // The starts of all intervals are needed for ranges only.
        let starts = if !ports.is_empty() && ports.iter().all(|port| single(port).is_some()) { Vec::new() } else { row.tiers().starts() };
        let mut between = |protocol: Protocol, from: u16, to: u16| {
            let Some((from, to)) = port_key(protocol, from).zip(port_key(protocol, to)) else { return };
            keys.push(from);
            keys.extend(starts.iter().filter(|start| (from..=to).contains(*start)));
        };
        for wanted in ports {
            match &wanted.port {
                PortNumber::Any => between(wanted.protocol, 0, u16::MAX),
                PortNumber::Number(number) => between(wanted.protocol, *number, *number),
                PortNumber::Range(from, to) => between(wanted.protocol, *from, *to),
                PortNumber::Name(name) => {
                    for (protocol, number, _) in self.space.named(name).filter(|(protocol, ..)| *protocol == wanted.protocol) {
                        between(protocol, number, number);
                    }
                }
                PortNumber::Invalid(_) => {}
            }
        }
        if ports.is_empty() {
            keys.clone_from(&starts);
        }
        let mut cells: Vec<Cell<'a>> = Vec::new();
        for cell in keys.into_iter().filter_map(|key| computing.cell(row.tiers(), key)) {
            if !cells.iter().any(|known| known.is(&cell)) {
                cells.push(cell);
            }
        }
        cells
    }
}
