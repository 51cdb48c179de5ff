//! Rows: for one identity and direction, what each tier says of every end, by ports.
//!
//! The same walk as `evaluate::walk`, over all ends at once. What a tier says depends on the policies that select the identity only, so
//! that identities under the same policies share it.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use super::cell::{Cell, TierCell};
use super::matchers::{Matchers, World};
use super::rules::{Compiled, Peers};
use super::set::{Bits, Set};
use super::space::{EndId, NamedPort};
use crate::cluster::{Action, ClusterPolicy, ClusterPort, Direction, NetworkPolicy, PolicyPort, PortNumber};
use crate::flow::Protocol;
use crate::policy::connection::TiedPriorities;

/// A protocol and a port in one number, in the order TCP, UDP, SCTP.
pub(in crate::policy) type PortKey = u32;

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
/// Keys per protocol.
const PORTS: u32 = 1 << 16;

/// The key of a port; none for protocols without ports.
pub(super) fn port_key(protocol: Protocol, port: u16) -> Option<PortKey> {
    let at = PROTOCOLS.iter().position(|known| *known == protocol)?;
    Some(u32::try_from(at).ok()? * PORTS + u32::from(port))
}

/// The port of a key.
pub(in crate::policy) fn port_of(key: PortKey) -> (Protocol, u16) {
    let protocol = PROTOCOLS.get((key / PORTS) as usize).copied().unwrap_or(Protocol::Sctp);
    (protocol, u16::try_from(key % PORTS).unwrap_or_default())
}

/// First keys of intervals, beginning with 0, and which of the entries holds there.
type Intervals = [(PortKey, u16)];

/// Something per port.
#[derive(Clone, Debug)]
struct ByPort<T> {
    intervals: Box<Intervals>,
    entries: Box<[T]>,
}

impl<T> ByPort<T> {
    fn get(&self, key: PortKey) -> Option<&T> {
        let interval = self.intervals.partition_point(|(start, _)| *start <= key).checked_sub(1)?;
        let (_, at) = self.intervals.get(interval)?;
        self.entries.get(usize::from(*at))
    }

    fn starts(&self) -> impl Iterator<Item = PortKey> {
        self.intervals.iter().map(|(start, _)| *start)
    }
}

/// For one identity and direction: what each tier says.
#[derive(Clone, Debug)]
pub(super) struct Row {
    tiers: Tiers,
    together: ByPort<Together>,
}

/// The tiers of a row, each shared with all other rows of the same policies.
#[derive(Clone, Debug)]
pub(super) struct Tiers {
    admin: Arc<TierRow>,
    network: Arc<TierRow>,
    /// Absent where the profile ends it for the pod.
    baseline: Option<Arc<TierRow>>,
}

/// What all tiers say together on some ports, once it is asked for: that is all there is to a verdict.
#[derive(Clone, Debug)]
struct Together {
    /// A port that stands for them.
    key: PortKey,
    sum: OnceLock<Sum>,
}

/// The ends that may be admitted, and those that may be denied; every end is in one of them at least.
#[derive(Clone, Debug)]
struct Sum {
    admitted: Set,
    /// Those that are not admitted, where it is certain.
    denied: Option<Set>,
}

/// What one tier says, by ports. Cells are worked out when they are first asked for.
#[derive(Clone, Debug)]
pub(super) struct TierRow {
    policies: Tier,
    ports: ByPort<LateCell>,
}

/// How every rule's ports compare, and the cell that follows, once it is asked for.
type LateCell = (Vec<AtPort>, OnceLock<TierCell>);

/// The policies of a tier that select an identity.
#[derive(Clone, Debug)]
pub(super) enum Tier {
    Network(Arc<[Arc<Compiled<NetworkPolicy>>]>),
    Cluster(Arc<[Arc<Compiled<ClusterPolicy>>]>),
}

/// How a rule's ports compare with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum AtPort {
    No,
    Yes,
    /// For these destinations: named ports of egress rules.
    For(Vec<EndId>),
}

/// What computing looks at.
#[derive(Clone, Copy)]
pub(super) struct Computing<'a> {
    pub(super) world: World<'a>,
    pub(super) matchers: &'a Matchers,
    pub(super) direction: Direction,
    /// Named ports of the identity, which is the destination of ingress.
    pub(super) ports: &'a [NamedPort],
}

/// A rule, whichever tier it is of.
struct Rule<'a> {
    peers: &'a Peers,
    ports: Vec<Wanted<'a>>,
    /// An entry of `ports` was there at all.
    has_ports: bool,
    action: Action,
}

/// One entry of a rule's ports.
enum Wanted<'a> {
    Range(PortKey, PortKey),
    /// A name, of one protocol or of any.
    Name(&'a Arc<str>, Option<Protocol>),
}

impl<'a> Computing<'a> {
    /// Where on the ports a tier may differ.
    pub(super) fn tier(&self, policies: Tier) -> TierRow {
        let rules = self.rules(&policies);
        let mut starts = vec![0];
        for wanted in rules.iter().flatten().flat_map(|rule| &rule.ports) {
            self.bounds(wanted, &mut starts);
        }
        starts.sort_unstable();
        starts.dedup();
        starts.retain(|start| *start < PORTS * 3);
        let (mut cells, mut intervals): (Vec<LateCell>, Vec<(PortKey, u16)>) = (Vec::new(), Vec::new());
        for start in &starts {
            let signature: Vec<AtPort> = rules.iter().flatten().map(|rule| self.at_port(rule, *start)).collect();
            let known = cells.iter().position(|(of, _)| *of == signature);
            let cell = known.unwrap_or_else(|| {
                cells.push((signature, OnceLock::new()));
                cells.len() - 1
            });
            intervals.push((*start, u16::try_from(cell).unwrap_or(u16::MAX)));
        }
        drop(rules);
        TierRow { policies, ports: ByPort { intervals: intervals.into(), entries: cells.into() } }
    }

    /// What the tiers say on a port.
    pub(super) fn cell<'r>(&self, tiers: &'r Tiers, key: PortKey) -> Option<Cell<'r>> {
        let of = |row: &'r TierRow| {
            let (signature, cell) = row.ports.get(key)?;
            Some(cell.get_or_init(|| self.tier_cell(&row.policies, &self.rules(&row.policies), signature)))
        };
        let baseline = match &tiers.baseline {
            Some(row) => Some(of(row)?),
            None => None,
        };
        Some(Cell { admin: of(&tiers.admin)?, network: of(&tiers.network)?, baseline })
    }

    /// A copy of a tier in which every cell is worked out: it stays what it is whatever becomes of the peers that its rules name.
    pub(super) fn filled(&self, row: &TierRow) -> TierRow {
        let copy = row.clone();
        let rules = self.rules(&row.policies);
        for (signature, cell) in &copy.ports.entries {
            cell.get_or_init(|| self.tier_cell(&row.policies, &rules, signature));
        }
        copy
    }

    fn rules<'p>(&self, policies: &'p Tier) -> Vec<Vec<Rule<'p>>> {
        match policies {
            Tier::Network(policies) => policies.iter().map(|policy| self.network_rules(policy)).collect(),
            Tier::Cluster(policies) => policies.iter().map(|policy| cluster_rules(policy, self.direction)).collect(),
        }
    }

    fn network_rules<'p>(&self, policy: &'p Compiled<NetworkPolicy>) -> Vec<Rule<'p>> {
        let rules = policy.source.rules(self.direction).unwrap_or_default();
        let wanted = |port: &'p PolicyPort| wanted(port);
        rules
            .iter()
            .zip(policy.peers(self.direction))
            .map(|(rule, peers)| Rule {
                peers,
                ports: rule.ports.iter().filter_map(wanted).collect(),
                has_ports: !rule.ports.is_empty(),
                action: Action::Accept,
            })
            .collect()
    }

    /// The keys at which the rule begins or ends to match.
    fn bounds(&self, wanted: &Wanted<'_>, starts: &mut Vec<PortKey>) {
        match wanted {
            Wanted::Range(from, to) => starts.extend([*from, *to + 1]),
            Wanted::Name(name, protocol) => {
                for (of, number) in self.numbers(name, *protocol) {
                    starts.extend(port_key(of, number).into_iter().flat_map(|key| [key, key + 1]));
                }
            }
        }
    }

    /// What a name stands for: on the identity itself for ingress, on any destination for egress.
    fn numbers(&self, name: &'a str, protocol: Option<Protocol>) -> Vec<(Protocol, u16)> {
        let is_asked = |of: Protocol| protocol.is_none_or(|protocol| protocol == of);
        match self.direction {
            Direction::Ingress => {
                self.ports.iter().filter(|(known, of, _)| **known == *name && is_asked(*of)).map(|(_, of, number)| (*of, *number)).collect()
            }
            Direction::Egress => {
                self.world.space.named(name).filter(|(of, _, _)| is_asked(*of)).map(|(of, number, _)| (of, number)).collect()
            }
        }
    }

    fn at_port(&self, rule: &Rule<'_>, key: PortKey) -> AtPort {
        if !rule.has_ports {
            return AtPort::Yes;
        }
        let (protocol, port) = port_of(key);
        let mut ends = Vec::new();
        for wanted in &rule.ports {
            match wanted {
                Wanted::Range(from, to) if (*from..=*to).contains(&key) => return AtPort::Yes,
                Wanted::Range(..) => {}
                Wanted::Name(name, of) if of.is_none_or(|of| of == protocol) => match self.direction {
                    Direction::Ingress
                        if self.ports.iter().any(|(known, of, number)| known == *name && (*of, *number) == (protocol, port)) =>
                    {
                        return AtPort::Yes;
                    }
                    Direction::Ingress => {}
                    Direction::Egress => {
                        let named = self.world.space.named(name).filter(|(of, number, _)| (*of, *number) == (protocol, port));
                        ends.extend(named.flat_map(|(_, _, ends)| ends));
                    }
                },
                Wanted::Name(..) => {}
            }
        }
        ends.sort_unstable();
        ends.dedup();
        if ends.is_empty() { AtPort::No } else { AtPort::For(ends) }
    }

    fn tier_cell(&self, tier: &Tier, rules: &[Vec<Rule<'_>>], signature: &[AtPort]) -> TierCell {
        let len = self.world.space.len();
        let none = || Bits::none(len);
        let mut signature = signature.iter();
        match tier {
            Tier::Network(policies) if policies.is_empty() => TierCell { silent: Set::All, ..TierCell::default() },
            Tier::Network(_) => {
                // Isolated: what no rule certainly admits may be denied.
                let (mut accept, mut may) = (none(), none());
                for rule in rules.iter().flatten() {
                    let Some(at) = signature.next() else { break };
                    self.matched(rule, at, |yes, maybe| {
                        accept.or_set(yes);
                        may.or_set(maybe);
                    });
                }
                let mut deny = Bits::all(len);
                deny.minus(&accept);
                accept.or(&may);
                TierCell { accept: accept.pack(), deny: deny.pack(), ..TierCell::default() }
            }
            Tier::Cluster(policies) => {
                let (mut accept, mut deny, mut pass) = (none(), none(), none());
                let mut live = Bits::all(len);
                let by_name = self.world.profile.tied_priorities == TiedPriorities::ByName;
                let mut of_policy = rules.iter();
                for tied in policies.chunk_by(|a, b| !by_name && a.source.priority == b.source.priority) {
                    // What one of those with the same priority decides is decided: only what all leave goes on.
                    let mut left_by_all = live.clone();
                    for _ in tied {
                        let mut left = live.clone();
                        for rule in of_policy.next().into_iter().flatten() {
                            let Some(at) = signature.next() else { break };
                            self.matched(rule, at, |yes, maybe| {
                                let target = match rule.action {
                                    Action::Accept => &mut accept,
                                    Action::Deny => &mut deny,
                                    Action::Pass => &mut pass,
                                };
                                target.or_both(&left, yes);
                                target.or_both(&left, maybe);
                            });
                            self.matched(rule, at, |yes, _| left.minus_set(yes));
                        }
                        left_by_all.and(&left);
                    }
                    live = left_by_all;
                    if live.is_empty() {
                        break;
                    }
                }
                TierCell { accept: accept.pack(), deny: deny.pack(), pass: pass.pack(), silent: live.pack() }
            }
        }
    }

    /// Hands over the ends that a rule matches at this port, a set after the other.
    fn matched(&self, rule: &Rule<'_>, at: &AtPort, mut take: impl FnMut(&Set, &Set)) {
        let only = match at {
            AtPort::No => return,
            AtPort::Yes => None,
            AtPort::For(ends) => Some(ends),
        };
        let mut hand_over = |yes: &Set, maybe: &Set| match only {
            None => take(yes, maybe),
            Some(ends) => {
                let within = |set: &Set| Set::few(ends.iter().copied().filter(|end| set.contains(*end)).collect());
                take(&within(yes), &within(maybe));
            }
        };
        match rule.peers {
            Peers::Any => hand_over(&Set::All, &Set::None),
            Peers::Of(ids) => {
                for matched in ids.iter().filter_map(|id| self.matchers.get(*id, self.world)) {
                    hand_over(&matched.yes, &matched.maybe);
                }
            }
        }
    }
}

fn cluster_rules(policy: &Compiled<ClusterPolicy>, direction: Direction) -> Vec<Rule<'_>> {
    let rules = policy.source.rules(direction).iter().zip(policy.peers(direction));
    rules
        .map(|(rule, peers)| {
            // A port that cannot be read fails closed: Deny and Pass rules match every port.
            let is_open = rule.action != Action::Accept && rule.ports.iter().any(|port| matches!(port, ClusterPort::Invalid(_)));
            let ports = rule.ports.iter().filter_map(|port| match port {
                ClusterPort::Port(port) => wanted(port),
                ClusterPort::Named(name) => Some(Wanted::Name(name, None)),
                ClusterPort::Invalid(_) => None,
            });
            Rule { peers, ports: ports.collect(), has_ports: !rule.ports.is_empty() && !is_open, action: rule.action }
        })
        .collect()
}

fn wanted(port: &PolicyPort) -> Option<Wanted<'_>> {
    let range = |from: u16, to: u16| Some(Wanted::Range(port_key(port.protocol, from)?, port_key(port.protocol, to)?));
    match &port.port {
        PortNumber::Any => range(0, u16::MAX),
        PortNumber::Number(number) => range(*number, *number),
        PortNumber::Range(from, to) => range(*from, *to),
        PortNumber::Name(name) => Some(Wanted::Name(name, Some(port.protocol))),
        PortNumber::Invalid(_) => None,
    }
}

impl Row {
    pub(super) fn new(admin: Arc<TierRow>, network: Arc<TierRow>, baseline: Option<Arc<TierRow>>) -> Self {
        let tiers = Tiers { admin, network, baseline };
        let together = together(&tiers);
        Row { tiers, together }
    }

    /// Whether an end may be admitted on a port, and whether it may be denied.
    pub(super) fn possible<'a>(&self, key: PortKey, end: EndId, computing: impl FnOnce() -> Computing<'a>) -> Option<(bool, bool)> {
        let together = self.together.get(key)?;
        let sum = match together.sum.get() {
            Some(sum) => sum,
            None => {
                let computing = computing();
                let cell = computing.cell(&self.tiers, together.key)?;
                together.sum.get_or_init(|| Sum::of(&cell, computing.world.space.len()))
            }
        };
        let is_admitted = sum.admitted.contains(end);
        Some((is_admitted, sum.denied.as_ref().map_or(!is_admitted, |denied| denied.contains(end))))
    }

    /// What is shared with all other rows of the same policies.
    pub(super) fn tiers(&self) -> &Tiers {
        &self.tiers
    }
}

impl Sum {
    fn of(cell: &Cell<'_>, len: usize) -> Self {
        let (accept, deny) = cell.sums(len);
        // Together they are all.
        let is_certain = accept.count() + deny.count() == len;
        Sum { admitted: accept.pack(), denied: (!is_certain).then(|| deny.pack()) }
    }
}

impl Tiers {
    /// One after the other, in the order in which they are asked.
    pub(super) fn each(&self) -> impl Iterator<Item = &Arc<TierRow>> {
        [&self.admin, &self.network].into_iter().chain(&self.baseline)
    }

    /// Lets every tier be replaced.
    pub(super) fn each_mut(&mut self) -> impl Iterator<Item = &mut Arc<TierRow>> {
        [&mut self.admin, &mut self.network].into_iter().chain(&mut self.baseline)
    }

    /// Whether the tiers are those of another row because they are the same.
    pub(super) fn is(&self, other: &Tiers) -> bool {
        let baseline = match (&self.baseline, &other.baseline) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        baseline && Arc::ptr_eq(&self.admin, &other.admin) && Arc::ptr_eq(&self.network, &other.network)
    }

    /// Adds the first keys of the intervals within which nothing differs.
    pub(super) fn add_starts(&self, starts: &mut Vec<PortKey>) {
        starts.extend(self.each().flat_map(|row| row.ports.starts()));
    }

    /// First keys of the intervals within which nothing differs.
    pub(super) fn starts(&self) -> Vec<PortKey> {
        let mut starts = Vec::new();
        self.add_starts(&mut starts);
        starts.sort_unstable();
        starts.dedup();
        starts
    }
}

/// The intervals of all tiers, laid over each other.
fn together(tiers: &Tiers) -> ByPort<Together> {
    let tiers: Vec<&Intervals> = tiers.each().map(|row| &*row.ports.intervals).collect();
    let mut known: Vec<Vec<u16>> = Vec::new();
    let (mut intervals, mut entries): (Vec<(PortKey, u16)>, Vec<Together>) = (Vec::new(), Vec::new());
    let mut next = vec![0; tiers.len()];
    // The start that comes next in any of them.
    while let Some(key) = tiers.iter().zip(&next).filter_map(|(tier, at)| tier.get(*at)).map(|(start, _)| *start).min() {
        for (tier, at) in tiers.iter().zip(&mut next) {
            *at += usize::from(tier.get(*at).is_some_and(|(start, _)| *start == key));
        }
        let here: Vec<u16> =
            tiers.iter().zip(&next).filter_map(|(tier, at)| tier.get(at.checked_sub(1)?)).map(|(_, entry)| *entry).collect();
        let entry = known.iter().position(|of| *of == here).unwrap_or_else(|| {
            known.push(here);
            entries.push(Together { key, sum: OnceLock::new() });
            entries.len() - 1
        });
        intervals.push((key, u16::try_from(entry).unwrap_or(u16::MAX)));
    }
    ByPort { intervals: intervals.into(), entries: entries.into() }
}

impl TierRow {
    pub(super) fn starts(&self) -> impl Iterator<Item = PortKey> {
        self.ports.starts()
    }

    /// Whether one of these, by serial number, is among its policies.
    pub(super) fn has_any(&self, serials: &HashSet<u32>) -> bool {
        match &self.policies {
            Tier::Network(policies) => policies.iter().any(|policy| serials.contains(&policy.serial)),
            Tier::Cluster(policies) => policies.iter().any(|policy| serials.contains(&policy.serial)),
        }
    }

    /// How many cells there are to work out.
    pub(super) fn size(&self) -> usize {
        self.ports.entries.len()
    }
}
