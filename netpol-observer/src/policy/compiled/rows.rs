//! Rows: for one identity and direction, which ends are admitted on which ports, through all tiers.
//!
//! The same walk as `evaluate::walk`, over all ends at once. What a tier says depends on the policies that select the identity only, so
//! that identities under the same policies share it.

use std::sync::Arc;

use super::matchers::{Matchers, World};
use super::rules::{Compiled, Peers};
use super::set::{Bits, Set};
use super::space::{EndId, NamedPort};
use crate::cluster::{Action, ClusterPolicy, ClusterPort, Direction, NetworkPolicy, PolicyPort, PortNumber};
use crate::flow::Protocol;
use crate::policy::connection::TiedPriorities;

/// A protocol and a port in one number, in the order TCP, UDP, SCTP.
pub(super) type PortKey = u32;

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
/// Keys per protocol.
const PORTS: u32 = 1 << 16;

/// The key of a port; none for protocols without ports.
pub(super) fn port_key(protocol: Protocol, port: u16) -> Option<PortKey> {
    let at = PROTOCOLS.iter().position(|known| *known == protocol)?;
    Some(u32::try_from(at).ok()? * PORTS + u32::from(port))
}

/// The port of a key.
pub(super) fn port_of(key: PortKey) -> (Protocol, u16) {
    let protocol = PROTOCOLS.get((key / PORTS) as usize).copied().unwrap_or(Protocol::Sctp);
    (protocol, u16::try_from(key % PORTS).unwrap_or_default())
}

/// Something per port. `starts` are the first keys of intervals, beginning with 0; each has its entry in `cells`.
#[derive(Clone, Debug)]
pub(super) struct ByPort<T> {
    pub(super) starts: Box<[PortKey]>,
    at: Box<[u16]>,
    pub(super) cells: Box<[T]>,
}

impl<T> ByPort<T> {
    pub(super) fn get(&self, key: PortKey) -> Option<&T> {
        let interval = self.starts.partition_point(|start| *start <= key).checked_sub(1)?;
        self.cell(interval)
    }

    /// The entries of the intervals that have a key in `from..=to`.
    pub(super) fn between(&self, from: PortKey, to: PortKey) -> impl Iterator<Item = &T> {
        let first = self.starts.partition_point(|start| *start <= from).saturating_sub(1);
        let end = self.starts.partition_point(|start| *start <= to);
        (first..end).filter_map(|interval| self.cell(interval))
    }

    fn index(&self, key: PortKey) -> Option<u16> {
        let interval = self.starts.partition_point(|start| *start <= key).checked_sub(1)?;
        self.at.get(interval).copied()
    }

    /// The entry of an interval.
    pub(super) fn cell(&self, interval: usize) -> Option<&T> {
        self.cells.get(usize::from(*self.at.get(interval)?))
    }
}

/// What is admitted on the ports of an interval.
#[derive(Clone, Debug)]
pub(in crate::policy) struct Cell {
    /// Ends that are certainly admitted.
    pub(in crate::policy) allow: Set,
    /// Ends of which that cannot be decided.
    pub(in crate::policy) open: Set,
    /// Ends that are certainly denied because NetworkPolicies isolate the pod.
    pub(in crate::policy) isolated: Set,
}

pub(super) type Row = ByPort<Cell>;

/// What one tier says of each end: the sets may overlap where it is not certain.
#[derive(Clone, Debug)]
pub(super) struct TierCell {
    accept: Bits,
    deny: Bits,
    /// Goes on to the next tier: by a Pass rule, or because no rule matches.
    rest: Bits,
}

pub(super) type TierRow = ByPort<TierCell>;

/// The policies of a tier that select an identity.
pub(super) enum Tier<'a> {
    Network(&'a [Arc<Compiled<NetworkPolicy>>]),
    Cluster(&'a [Arc<Compiled<ClusterPolicy>>]),
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
    /// What a tier says.
    pub(super) fn tier(&self, tier: &Tier<'_>) -> TierRow {
        let rules: Vec<Vec<Rule<'_>>> = match tier {
            Tier::Network(policies) => policies.iter().map(|policy| self.network_rules(policy)).collect(),
            Tier::Cluster(policies) => policies.iter().map(|policy| cluster_rules(policy, self.direction)).collect(),
        };
        let mut starts = vec![0];
        for wanted in rules.iter().flatten().flat_map(|rule| &rule.ports) {
            self.bounds(wanted, &mut starts);
        }
        starts.sort_unstable();
        starts.dedup();
        starts.retain(|start| *start < PORTS * 3);
        let (mut cells, mut at): (Vec<(Vec<AtPort>, TierCell)>, Vec<u16>) = (Vec::new(), Vec::new());
        for start in &starts {
            let signature: Vec<AtPort> = rules.iter().flatten().map(|rule| self.at_port(rule, *start)).collect();
            let known = cells.iter().position(|(of, _)| *of == signature);
            let cell = known.unwrap_or_else(|| {
                let cell = self.tier_cell(tier, &rules, &signature);
                cells.push((signature, cell));
                cells.len() - 1
            });
            at.push(u16::try_from(cell).unwrap_or(u16::MAX));
        }
        ByPort { starts: starts.into(), at: at.into(), cells: cells.into_iter().map(|(_, cell)| cell).collect() }
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

    fn tier_cell(&self, tier: &Tier<'_>, rules: &[Vec<Rule<'_>>], signature: &[AtPort]) -> TierCell {
        let len = self.world.space.len();
        let mut cell = TierCell { accept: Bits::none(len), deny: Bits::none(len), rest: Bits::all(len) };
        let mut signature = signature.iter();
        match tier {
            Tier::Network([]) => {}
            Tier::Network(_) => {
                // Isolated: what no rule certainly admits may be denied.
                let mut may = Bits::none(len);
                for rule in rules.iter().flatten() {
                    let Some(at) = signature.next() else { break };
                    self.matched(rule, at, |yes, maybe| {
                        cell.accept.or_set(yes);
                        may.or_set(maybe);
                    });
                }
                cell.deny = Bits::all(len);
                cell.deny.minus(&cell.accept);
                cell.accept.or(&may);
                cell.rest = Bits::none(len);
            }
            Tier::Cluster(policies) => {
                let mut live = Bits::all(len);
                let mut passed = Bits::none(len);
                let by_name = self.world.profile.tied_priorities == TiedPriorities::ByName;
                let mut of_policy = rules.iter();
                for tied in policies.chunk_by(|a, b| !by_name && a.source.priority == b.source.priority) {
                    let before = live.clone();
                    let mut silent = Bits::none(len);
                    for _ in tied {
                        let mut left = before.clone();
                        for rule in of_policy.next().into_iter().flatten() {
                            let Some(at) = signature.next() else { break };
                            self.matched(rule, at, |yes, maybe| {
                                let target = match rule.action {
                                    Action::Accept => &mut cell.accept,
                                    Action::Deny => &mut cell.deny,
                                    Action::Pass => &mut passed,
                                };
                                target.or_both(&left, yes);
                                target.or_both(&left, maybe);
                            });
                            self.matched(rule, at, |yes, _| left.minus_set(yes));
                        }
                        if tied.len() == 1 {
                            silent = left;
                        } else {
                            // What one of them decides is decided: only what all leave goes on.
                            let mut decided = before.clone();
                            decided.minus(&left);
                            silent.or(&decided);
                        }
                    }
                    if tied.len() > 1 {
                        let mut left = before;
                        left.minus(&silent);
                        silent = left;
                    }
                    live = silent;
                    if live.is_empty() {
                        break;
                    }
                }
                live.or(&passed);
                cell.rest = live;
            }
        }
        cell
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

/// The tiers one after the other. `baseline` is absent where the profile ends it for the pod.
pub(super) fn through(admin: &TierRow, network: &TierRow, baseline: Option<&TierRow>) -> Row {
    let mut starts: Vec<PortKey> = admin.starts.iter().chain(&network.starts).copied().collect();
    starts.extend(baseline.into_iter().flat_map(|row| &row.starts));
    starts.sort_unstable();
    starts.dedup();
    let (mut cells, mut at): (Vec<([u16; 3], Cell)>, Vec<u16>) = (Vec::new(), Vec::new());
    for start in &starts {
        let of = |row: &TierRow| row.index(*start).unwrap_or(u16::MAX);
        let signature = [of(admin), of(network), baseline.map_or(u16::MAX, of)];
        let known = cells.iter().position(|(of, _)| *of == signature);
        let cell = known.unwrap_or_else(|| {
            let cell = combined(admin.get(*start), network.get(*start), baseline.and_then(|row| row.get(*start)));
            cells.push((signature, cell));
            cells.len() - 1
        });
        at.push(u16::try_from(cell).unwrap_or(u16::MAX));
    }
    ByPort { starts: starts.into(), at: at.into(), cells: cells.into_iter().map(|(_, cell)| cell).collect() }
}

fn combined(admin: Option<&TierCell>, network: Option<&TierCell>, baseline: Option<&TierCell>) -> Cell {
    let (Some(admin), Some(network)) = (admin, network) else {
        return Cell { allow: Set::None, open: Set::All, isolated: Set::None };
    };
    let (mut accept, mut deny) = (admin.accept.clone(), admin.deny.clone());
    let mut live = admin.rest.clone();
    let within = |set: &Bits, live: &Bits| {
        let mut both = set.clone();
        both.and(live);
        both
    };
    accept.or(&within(&network.accept, &live));
    let mut isolated = within(&network.deny, &live);
    deny.or(&isolated);
    live.and(&network.rest);
    if let Some(baseline) = baseline {
        accept.or(&within(&baseline.accept, &live));
        deny.or(&within(&baseline.deny, &live));
        live.and(&baseline.rest);
    }
    accept.or(&live);
    let open = within(&accept, &deny);
    accept.minus(&open);
    isolated.minus(&open);
    Cell { allow: accept.pack(), open: open.pack(), isolated: isolated.pack() }
}
