//! What the search for a fix asks of the ends.

use std::net::IpAddr;
use std::sync::Arc;

use super::rows::{PortKey, port_key};
use super::space::{End, EndId, EndWho, IdentityId};
use super::{Cell, Compiled, PeerKey};
use crate::cluster::{Direction, Index, Pod, PolicyPort, PortNumber};
use crate::flow::Protocol;
use crate::policy::connection::Profile;

impl Compiled {
    /// Namespaces that have pods.
    pub(in crate::policy) fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.space.namespaces()
    }

    /// All ends.
    pub(in crate::policy) fn ends(&self) -> impl Iterator<Item = (EndId, &End)> {
        (0..).zip(&self.space.ends)
    }

    /// The ends of a namespace's pods.
    pub(in crate::policy) fn ends_of_namespace(&self, namespace: &str) -> impl Iterator<Item = (EndId, &End)> {
        let ends = self.space.identities_in(namespace).iter().flat_map(|identity| self.space.ends_of(*identity));
        ends.filter_map(|id| Some((*id, self.space.end(*id)?)))
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

    /// Whether the end is outside of the cluster.
    pub(in crate::policy) fn is_external(&self, end: &End) -> bool {
        matches!(end.who, EndWho::External)
    }

    /// The pods of a namespace that are wanted, by identity.
    pub(in crate::policy) fn pods_in(&self, namespace: &str, mut is_wanted: impl FnMut(&Pod) -> bool) -> Vec<(IdentityId, Vec<&Arc<Pod>>)> {
        let mut found = Vec::new();
        for identity in self.space.identities_in(namespace) {
            let ends = self.space.ends_of(*identity).iter().filter_map(|end| self.space.end(*end));
            let mut pods: Vec<&Arc<Pod>> = ends.flat_map(|end| &end.pods).filter(|pod| is_wanted(pod)).collect();
            // A pod with several addresses may be at several ends.
            pods.sort_by_key(|pod| Arc::as_ptr(pod));
            pods.dedup_by(|a, b| Arc::ptr_eq(a, b));
            if !pods.is_empty() {
                found.push((*identity, pods));
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
        let single = |port: &PolicyPort| matches!(port.port, PortNumber::Number(_)).then_some(());
        let mut keys: Vec<PortKey> = Vec::new();
        // The starts of all intervals are needed for ranges only.
        let starts = if !ports.is_empty() && ports.iter().all(|port| single(port).is_some()) { Vec::new() } else { row.starts() };
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
        let computing = self.computing(identity, direction, index, profile);
        let mut cells: Vec<Cell<'a>> = Vec::new();
        for cell in keys.into_iter().filter_map(|key| computing.cell(row, key)) {
            if !cells.iter().any(|known| known.is(&cell)) {
                cells.push(cell);
            }
        }
        cells
    }
}
