//! The peers of rules, each compiled once to the set of ends it matches, however many rules name it.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use super::Map;
use super::set::{Bits, Set};
use super::space::{End, EndId, EndWho, Space};
use crate::cluster::{Cidr, ClusterPeer, Index, IpBlock, Peer, Selector};
use crate::policy::connection::Profile;
use crate::policy::evaluate::known_names;

pub(super) type MatcherId = u32;

/// A peer, apart from the policy it stands in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::policy) enum PeerKey {
    /// Pods of one namespace.
    Own(Arc<str>, Option<Selector>),
    /// Pods of the namespaces that match.
    Pods(Selector, Option<Selector>),
    Block(IpBlock),
    Nodes(Selector),
    Networks(Vec<Cidr>),
    Names(Vec<Arc<str>>),
}

impl PeerKey {
    /// The peer of a NetworkPolicy of this namespace; none where it matches nothing.
    pub(in crate::policy) fn of(peer: &Peer, namespace: &Arc<str>) -> Option<Self> {
        match peer {
            Peer::Pods { namespace: None, pod } => Some(PeerKey::Own(namespace.clone(), pod.clone())),
            Peer::Pods { namespace: Some(namespaces), pod } => Some(PeerKey::Pods(namespaces.clone(), pod.clone())),
            Peer::IpBlock(block) => Some(PeerKey::Block(block.clone())),
            Peer::Invalid(_) => None,
        }
    }

    /// The peer of a policy of the Admin or Baseline tier; none of an invalid one.
    pub(in crate::policy) fn of_cluster(peer: &ClusterPeer) -> Option<Self> {
        match peer {
            ClusterPeer::Namespaces(namespaces) => Some(PeerKey::Pods(namespaces.clone(), None)),
            ClusterPeer::Pods { namespace, pod } => Some(PeerKey::Pods(namespace.clone(), Some(pod.clone()))),
            ClusterPeer::Nodes(nodes) => Some(PeerKey::Nodes(nodes.clone())),
            ClusterPeer::Networks(networks) => Some(PeerKey::Networks(networks.clone())),
            ClusterPeer::DomainNames(names) => Some(PeerKey::Names(names.clone())),
            ClusterPeer::Invalid(_) => None,
        }
    }
}

/// Which ends a peer matches.
#[derive(Clone, Debug, Default)]
pub(in crate::policy) struct Matched {
    pub(in crate::policy) yes: Set,
    /// Those of which it is not known, beside the ones in `yes`.
    pub(in crate::policy) maybe: Set,
}

#[derive(Clone, Debug)]
struct Matcher {
    key: PeerKey,
    rules: u32,
    matched: OnceLock<Matched>,
}

/// All peers that rules have.
#[derive(Clone, Debug, Default)]
pub(super) struct Matchers {
    all: Vec<Option<Matcher>>,
    ids: Map<PeerKey, MatcherId>,
    free: Vec<MatcherId>,
}

/// What matching looks at.
#[derive(Clone, Copy)]
pub(super) struct World<'a> {
    pub(super) space: &'a Space,
    pub(super) index: &'a Index,
    pub(super) profile: &'a Profile,
}

impl Matchers {
    /// One more rule has this peer.
    pub(super) fn take(&mut self, key: PeerKey) -> MatcherId {
        if let Some(id) = self.ids.get(&key) {
            if let Some(Some(matcher)) = self.all.get_mut(*id as usize) {
                matcher.rules += 1;
            }
            return *id;
        }
        let matcher = Some(Matcher { key: key.clone(), rules: 1, matched: OnceLock::new() });
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                self.all.push(None);
                u32::try_from(self.all.len() - 1).unwrap_or(u32::MAX)
            }
        };
        if let Some(slot) = self.all.get_mut(id as usize) {
            *slot = matcher;
        }
        self.ids.insert(key, id);
        id
    }

    /// One rule less has it.
    pub(super) fn give(&mut self, id: MatcherId) {
        let Some(slot) = self.all.get_mut(id as usize) else { return };
        let Some(matcher) = slot else { return };
        matcher.rules -= 1;
        if matcher.rules == 0 {
            self.ids.remove(&matcher.key);
            *slot = None;
            self.free.push(id);
        }
    }

    /// The ends it matches.
    pub(super) fn get(&self, id: MatcherId, world: World<'_>) -> Option<&Matched> {
        let matcher = self.all.get(id as usize)?.as_ref()?;
        Some(matcher.matched.get_or_init(|| matched(&matcher.key, world)))
    }

    /// The ends a peer matches that perhaps no rule has.
    pub(super) fn find(&self, key: &PeerKey, world: World<'_>) -> Matched {
        let known = self.ids.get(key).and_then(|id| self.get(*id, world));
        known.cloned().unwrap_or_else(|| matched(key, world))
    }

    /// Ends from `first` on are new.
    pub(super) fn extend(&mut self, first: EndId, world: World<'_>) {
        let len = world.space.len();
        for matcher in self.all.iter_mut().flatten() {
            let Some(old) = matcher.matched.get_mut() else { continue };
            for id in first..u32::try_from(len).unwrap_or(u32::MAX) {
                let Some(end) = world.space.end(id) else { continue };
                let (yes, maybe) = matches_end(&matcher.key, end, world);
                if yes {
                    old.yes = old.yes.with(id, len);
                }
                if maybe {
                    old.maybe = old.maybe.with(id, len);
                }
            }
        }
    }

    /// Something other than the ends changed for these peers: labels of a namespace or a node, addresses of a name.
    pub(super) fn forget(&mut self, mut which: impl FnMut(&PeerKey) -> bool) {
        for matcher in self.all.iter_mut().flatten().filter(|matcher| which(&matcher.key)) {
            matcher.matched = OnceLock::new();
        }
    }

    /// Those of some peers.
    pub(super) fn ids(&self, which: impl Fn(&PeerKey) -> bool) -> HashSet<MatcherId> {
        self.ids.iter().filter(|(key, _)| which(key)).map(|(_, id)| *id).collect()
    }

    /// All peers.
    pub(super) fn keys(&self) -> impl Iterator<Item = &PeerKey> {
        self.ids.keys()
    }
}

/// The ends a peer matches. Pods are looked for in the namespaces that match, not in all.
fn matched(key: &PeerKey, world: World<'_>) -> Matched {
    let space = world.space;
    let in_namespace = |namespace: &Arc<str>, pods: Option<&Selector>, found: &mut Vec<EndId>| {
        for identity in space.identities_in(namespace) {
            let is_match = space.identity(*identity).is_some_and(|of| pods.is_none_or(|pods| pods.matches(&of.labels)));
            if is_match {
                found.extend(space.ends_of(*identity));
            }
        }
    };
    let mut yes = Vec::new();
    match key {
        PeerKey::Own(namespace, pods) => in_namespace(namespace, pods.as_ref(), &mut yes),
        PeerKey::Pods(namespaces, pods) => {
            for namespace in space.namespaces_matching(namespaces, world.index) {
                in_namespace(namespace, pods.as_ref(), &mut yes);
            }
        }
        PeerKey::Block(_) | PeerKey::Nodes(_) | PeerKey::Networks(_) | PeerKey::Names(_) => {
            let mut maybe = Vec::new();
            for (id, end) in (0_u32..).zip(&space.ends) {
                let (is_match, may) = matches_end(key, end, world);
                if is_match {
                    yes.push(id);
                }
                if may {
                    maybe.push(id);
                }
            }
            return Matched { yes: pack(yes, space.len()), maybe: pack(maybe, space.len()) };
        }
    }
    yes.sort_unstable();
    Matched { yes: pack(yes, space.len()), maybe: Set::None }
}

fn pack(sorted: Vec<EndId>, len: usize) -> Set {
    if sorted.len() <= len.div_ceil(64) {
        return Set::few(sorted);
    }
    let mut bits = Bits::none(len);
    sorted.iter().for_each(|end| bits.insert(*end));
    match bits.pack() {
        // Ends that are still to come need not match.
        Set::All | Set::AllBut(_) => Set::Many(bits.words().into()),
        packed => packed,
    }
}

/// Whether the end matches, and whether it may.
fn matches_end(key: &PeerKey, end: &End, world: World<'_>) -> (bool, bool) {
    let space = world.space;
    let identity = match &end.who {
        EndWho::Pod(identity) => space.identity(*identity),
        EndWho::Node(_) | EndWho::External => None,
    };
    let in_range = |range: &Cidr| space.range(end.class).is_some_and(|class| range.net.trunc().contains(&class));
    let yes = match key {
        PeerKey::Own(namespace, pods) => {
            identity.is_some_and(|of| of.namespace == *namespace && pods.as_ref().is_none_or(|pods| pods.matches(&of.labels)))
        }
        PeerKey::Pods(namespaces, pods) => identity.is_some_and(|of| {
            pods.as_ref().is_none_or(|pods| pods.matches(&of.labels)) && namespaces.matches(&world.index.namespace_labels(&of.namespace))
        }),
        PeerKey::Block(block) => {
            let is_ignored = identity.is_some() && !world.profile.ip_block_matches_pods;
            !is_ignored && in_range(&block.cidr) && !block.except.iter().any(in_range)
        }
        PeerKey::Nodes(nodes) => matches!(&end.who, EndWho::Node(labels) if nodes.matches(labels)),
        PeerKey::Networks(networks) => networks.iter().any(in_range),
        PeerKey::Names(names) => {
            let Some(class) = space.range(end.class) else {
                return (false, matches!(end.who, EndWho::External) && is_open(names, world.index));
            };
            let is = |ip: &IpAddr| class.addr() == ip.to_canonical() && class.prefix_len() == class.max_prefix_len();
            let known = names.iter().any(|name| known_names(name, world.index).any(|known| known.addresses.iter().any(is)));
            if !known {
                return (false, matches!(end.who, EndWho::External) && is_open(names, world.index));
            }
            true
        }
    };
    (yes, false)
}

/// Whether of one of the names nothing is known.
fn is_open(names: &[Arc<str>], index: &Index) -> bool {
    names.iter().any(|name| known_names(name, index).next().is_none())
}
