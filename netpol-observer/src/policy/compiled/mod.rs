//! What is worked out from the objects once instead of for every question.
//!
//! `space` sorts pods, nodes and addresses into ends that no rule can tell apart, `matchers` holds which ends each peer matches, `rows`
//! says per identity, direction and port which ends are admitted. All of it is filled in when it is first asked for and forgotten as far
//! as a changed object touches it. `evaluate` remains the definition: it judges a single connection and names the reasons; rows are the
//! same walk over all ends at once.

mod cell;
mod compare;
mod lookup;
mod matchers;
mod outside;
mod reach;
mod rows;
mod rules;
mod set;
mod space;
mod update;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::cluster::{ClusterPolicy, ClusterPolicyKind, Direction, Index, NetworkPolicy, Pod, Tier};
use crate::flow::Protocol;
use crate::identify::is_special;

use super::connection::{BaselineScope, Case, Profile, Who};
use super::evaluate::selects;
use super::explanation::Verdict;

pub(super) use cell::Cell;
pub(super) use compare::{Becomes, Change, Turn, Work};
pub(super) use lookup::{Of, gather};
pub(super) use matchers::PeerKey;
pub(super) use outside::Ranges;
pub(super) use reach::port_ranges;
pub use reach::{Group, GroupKind, PortRange, Reachability};
pub(super) use rows::{PortKey, port_of};
pub(super) use space::{End, EndId, IdentityId};

use matchers::{Matchers, World};
use rows::{Computing, Row, TierRow, port_key};
use rules::{Compiled as CompiledPolicy, slot};
use space::{Place, Space};

/// Maps of small keys; nobody outside chooses them in order to make them collide.
type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Tier rows that are kept; more are worked out again.
const MAX_TIER_ROWS: usize = 1 << 14;

/// The compiled side of an [`Engine`](super::Engine).
#[derive(Debug, Default)]
pub(super) struct Compiled {
    space: Space,
    matchers: Matchers,
    /// By namespace and name.
    network: Map<Arc<str>, ByName>,
    /// In the order in which they are asked.
    cluster: BTreeMap<ClusterOrder, Arc<CompiledPolicy<ClusterPolicy>>>,
    /// By identity.
    subjects: Vec<Subject>,
    tier_rows: Mutex<Map<TierKey, Arc<TierRow>>>,
    next_serial: u32,
    /// Policies that went or changed since everything was built: ranges and keys that only they asked for are still here.
    outdated: usize,
}

type ByName = BTreeMap<Arc<str>, Arc<CompiledPolicy<NetworkPolicy>>>;

/// Tier, priority, name, kind.
type ClusterOrder = (Tier, u16, Arc<str>, ClusterPolicyKind);

/// What the identities of a tier row have in common: the policies by serial, the direction, their named ports.
type TierKey = (Tier, Box<[u32]>, Direction, Box<[space::NamedPort]>);

/// What is known of an identity as the subject of policies.
#[derive(Debug, Default)]
struct Subject {
    policies: OnceLock<Box<SubjectPolicies>>,
    rows: [OnceLock<Row>; 2],
}

/// The policies that select an identity.
#[derive(Debug)]
struct SubjectPolicies {
    /// Those that isolate it for egress and for ingress, by name.
    network: [Arc<[Arc<CompiledPolicy<NetworkPolicy>>]>; 2],
    /// By priority and name.
    admin: Arc<[Arc<CompiledPolicy<ClusterPolicy>>]>,
    baseline: Arc<[Arc<CompiledPolicy<ClusterPolicy>>]>,
}

/// One side of a connection, found by its address.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) end: EndId,
    pub(super) identity: Option<IdentityId>,
    pub(super) pod: Option<&'a Arc<Pod>>,
    /// A pod's node, or the node itself.
    node: Option<u32>,
}

impl At<'_> {
    /// Whether it is a node.
    pub(super) fn is_node(&self) -> bool {
        self.pod.is_none() && self.node.is_some()
    }
}

impl Compiled {
    fn world<'a>(&'a self, index: &'a Index, profile: &'a Profile) -> World<'a> {
        World { space: &self.space, index, profile }
    }

    /// Who is at an address, if that is as simple as one pod, one node or the outside.
    pub(super) fn at(&self, ip: IpAddr, index: &Index) -> Option<At<'_>> {
        let ip = ip.to_canonical();
        match self.space.place(ip) {
            Some(Place::Pod { pod, identity, end, node }) => {
                Some(At { end: *end, identity: Some(*identity), pod: Some(pod), node: Some(*node) })
            }
            Some(Place::Node { end, node }) => Some(At { end: *end, identity: None, pod: None, node: Some(*node) }),
            Some(Place::Special) => None,
            None if is_special(ip) || index.in_pod_range(ip) => None,
            None => Some(At { end: self.space.external(ip)?, identity: None, pod: None, node: None }),
        }
    }

    /// The verdict for two sides and a port of TCP, UDP or SCTP.
    pub(super) fn verdict(&self, index: &Index, profile: &Profile, sides: [At<'_>; 2], protocol: Protocol, port: u16) -> Option<Verdict> {
        let key = port_key(protocol, port)?;
        let [source, destination] = sides;
        if let (Some(a), Some(b)) = (source.pod, destination.pod)
            && Arc::ptr_eq(a, b)
        {
            return Some(Verdict::Allow);
        }
        let mut verdict = Verdict::Allow;
        let comes_from_own_node =
            source.pod.is_none() && destination.pod.is_some() && source.node.is_some() && source.node == destination.node;
        let directions = [(source, destination, Direction::Egress), (destination, source, Direction::Ingress)];
        for (subject, peer, direction) in directions {
            let Some(identity) = subject.identity else { continue };
            if direction == Direction::Ingress && comes_from_own_node {
                continue;
            }
            let row = self.row(identity, direction, index, profile)?;
            match row.possible(key, peer.end, || self.computing(identity, direction, index, profile))? {
                (true, false) => {}
                (false, _) => return Some(Verdict::Deny),
                (true, true) => verdict = Verdict::Undecided,
            }
        }
        Some(verdict)
    }

    /// What the tiers say for an identity on a port.
    fn cell<'a>(&'a self, identity: IdentityId, direction: Direction, key: PortKey, index: &Index, profile: &Profile) -> Option<Cell<'a>> {
        self.computing(identity, direction, index, profile).cell(self.row(identity, direction, index, profile)?.tiers(), key)
    }

    fn computing<'a>(&'a self, identity: IdentityId, direction: Direction, index: &'a Index, profile: &'a Profile) -> Computing<'a> {
        let ports = self.space.identity(identity).map(|identity| identity.ports.as_slice()).unwrap_or_default();
        Computing { world: self.world(index, profile), matchers: &self.matchers, direction, ports }
    }

    fn row(&self, identity: IdentityId, direction: Direction, index: &Index, profile: &Profile) -> Option<&Row> {
        let subject = self.subjects.get(identity as usize)?;
        let policies = self.policies(identity, index)?;
        Some(subject.rows[slot(direction)].get_or_init(|| {
            let computing = self.computing(identity, direction, index, profile);
            let is_isolated = policies.network.iter().any(|policies| !policies.is_empty());
            let is_beyond = profile.baseline == BaselineScope::PerPod && is_isolated;
            let network = &policies.network[slot(direction)];
            let serials = network.iter().map(|policy| policy.serial).collect();
            let network = self.tier_row((Tier::NetworkPolicy, serials), &computing, rows::Tier::Network(network.clone()));
            let cluster = |tier, policies: &Arc<[Arc<CompiledPolicy<ClusterPolicy>>]>| {
                let serials = policies.iter().map(|policy| policy.serial).collect();
                self.tier_row((tier, serials), &computing, rows::Tier::Cluster(policies.clone()))
            };
            let baseline = (!is_beyond).then(|| cluster(Tier::Baseline, &policies.baseline));
            Row::new(cluster(Tier::Admin, &policies.admin), network, baseline)
        }))
    }

    /// What a tier says; worked out once for all identities under the same policies.
    fn tier_row(&self, (tier, serials): (Tier, Box<[u32]>), computing: &Computing<'_>, policies: rows::Tier) -> Arc<TierRow> {
        // Named ports are those of the destination: of ingress, this identity.
        let ports = if computing.direction == Direction::Ingress { computing.ports } else { &[] };
        let key = (tier, serials, computing.direction, ports.into());
        let mut known = self.tier_rows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = known.get(&key) {
            return row.clone();
        }
        let row = Arc::new(computing.tier(policies));
        if known.len() >= MAX_TIER_ROWS {
            known.clear();
        }
        known.insert(key, row.clone());
        row
    }

    fn policies(&self, identity: IdentityId, index: &Index) -> Option<&SubjectPolicies> {
        let subject = self.subjects.get(identity as usize)?;
        let of = self.space.identity(identity)?;
        Some(subject.policies.get_or_init(|| {
            let here = self.network.get(&of.namespace);
            let selecting = here.into_iter().flat_map(BTreeMap::values).filter(|policy| policy.source.pod_selector.matches(&of.labels));
            let selecting: Vec<_> = selecting.collect();
            let isolating = |direction| {
                let isolating = selecting.iter().filter(|policy| policy.source.rules(direction).is_some());
                isolating.map(|policy| Arc::clone(policy)).collect()
            };
            let namespace = index.namespace_labels(&of.namespace);
            let of_tier = |tier| {
                let tier = self.cluster.iter().filter(|((of, ..), _)| *of == tier).map(|(_, policy)| policy);
                let selecting = tier.filter(|policy| selects(&policy.source.subject, &namespace, &of.labels));
                selecting.cloned().collect()
            };
            Box::new(SubjectPolicies {
                network: Direction::BOTH.map(isolating),
                admin: of_tier(Tier::Admin),
                baseline: of_tier(Tier::Baseline),
            })
        }))
    }

    /// What policies see of a pod, if any of its addresses is kept.
    fn identity_of(&self, pod: &Pod) -> Option<IdentityId> {
        let ip = pod.ips.first().map(IpAddr::to_canonical);
        match ip.and_then(|ip| self.space.place(ip)) {
            Some(Place::Pod { pod: here, identity, .. }) if std::ptr::eq(&**here, pod) => Some(*identity),
            _ => self.space.identity_of(pod),
        }
    }

    /// Whether a tier of cluster-scoped policies certainly has no rule that matches, as far as that is known without looking at rules.
    pub(super) fn is_silent(&self, tier: Tier, case: &Case<'_>, direction: Direction, index: &Index, profile: &Profile) -> bool {
        let (own, other) = case.sides(direction);
        let quick = || {
            let identity = self.identity_of(own.pod()?)?;
            let at = self.at(other.ip, index)?;
            let is_it = match (other.who, at.pod) {
                (Who::Pod(pod), Some(here)) => std::ptr::eq(&**here, pod),
                (Who::Node(_), None) => at.is_node(),
                (Who::External, None) => !at.is_node(),
                _ => false,
            };
            let key = port_key(case.protocol, case.port?)?;
            is_it.then(|| self.cell(identity, direction, key, index, profile))?.map(|cell| cell.is_silent(tier, at.end))
        };
        quick().unwrap_or(false)
    }

    /// How many policies of a tier with rules for the direction select a pod.
    pub(super) fn tier_size(&self, pod: &Pod, tier: Tier, direction: Direction, index: &Index) -> usize {
        let policies = self.cluster_policies(pod, tier, index).into_iter().flatten();
        policies.filter(|policy| !policy.rules(direction).is_empty()).count()
    }

    /// The NetworkPolicies that isolate a pod, by name; none known for a pod that no address is kept of.
    pub(super) fn isolating(&self, pod: &Pod, direction: Direction, index: &Index) -> Option<impl Iterator<Item = &NetworkPolicy>> {
        let policies = self.policies(self.identity_of(pod)?, index)?;
        Some(policies.network[slot(direction)].iter().map(|policy| &*policy.source))
    }

    /// The policies of a tier that have the pod among their subjects, in the order in which they are asked.
    pub(super) fn cluster_policies(&self, pod: &Pod, tier: Tier, index: &Index) -> Option<impl Iterator<Item = &ClusterPolicy>> {
        let policies = self.policies(self.identity_of(pod)?, index)?;
        let of_tier = if tier == Tier::Admin { &policies.admin } else { &policies.baseline };
        Some(of_tier.iter().map(|policy| &*policy.source))
    }
}

impl Clone for Compiled {
    fn clone(&self) -> Self {
        Compiled {
            space: self.space.clone(),
            matchers: self.matchers.clone(),
            network: self.network.clone(),
            cluster: self.cluster.clone(),
            // What was worked out is worked out again when it is asked for.
            subjects: self.subjects.iter().map(|_| Subject::default()).collect(),
            tier_rows: Mutex::default(),
            next_serial: self.next_serial,
            outdated: self.outdated,
        }
    }
}
