//! All connections of a test → those that are not as expected.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;

use super::port::{self, Called};
use super::result::{Failure, MAX_FAILURES, Problem};
use super::side::{Key, Side, Unit};
use super::words::{deciding, decision};
use super::{Expect, way};
use crate::cluster::Pod;
use crate::cluster::policy_test::{Exception, Test};
use crate::identify::{Identity, Party};
use crate::policy::{Connection, Engine, PolicyRef, PortRange, Reachability, Verdict};
use crate::question::{Member, QuestionError};

/// Places in a range of ports at which who has decided is looked at.
const MAX_PLACES: usize = 64;

/// What is known of all pods at once, worked out when a test first asks.
pub(super) struct Judge<'a> {
    pub(super) engine: &'a Engine,
    whole: OnceCell<Whole>,
    /// Whether any policy may leave a verdict open.
    has_cluster_policies: bool,
}

struct Whole {
    reachability: Reachability,
    /// The group of each pod that is in just one.
    groups: HashMap<*const Pod, Option<usize>>,
    /// First ports of the intervals within which nothing differs.
    ports: Vec<PortRange>,
}

/// What came of a test.
#[derive(Default)]
pub(super) struct Found {
    pub(super) connections: u64,
    pub(super) failures: Vec<Failure>,
    pub(super) more: u64,
}

impl Found {
    /// Takes a failure; one that is told already, of another pod of the workload, is not told again.
    pub(super) fn push(&mut self, failure: impl FnOnce() -> Failure) {
        if self.failures.len() >= MAX_FAILURES {
            self.more += 1;
            return;
        }
        let failure = failure();
        let is_told = |known: &Failure| {
            (&known.from, &known.to, &known.port, &known.message) == (&failure.from, &failure.to, &failure.port, &failure.message)
        };
        if !self.failures.iter().any(is_told) {
            self.failures.push(failure);
        }
    }
}

/// An exception with those that it stands for; `None`: everybody.
struct Except {
    from: Option<Few>,
    to: Option<Few>,
    ports: Option<Vec<Called>>,
}

/// Those that an exception stands for on one side.
struct Few {
    keys: BTreeSet<Key>,
    ranges: Vec<IpNet>,
}

impl Few {
    fn has(&self, unit: &Unit) -> bool {
        let is_inside = |range: &IpNet| matches!(unit.key, Key::Address(ip) if range.contains(&ip));
        self.keys.contains(&unit.key) || self.ranges.iter().any(is_inside)
    }
}

/// Ports of one pair that have one verdict, and a connection on the first of them.
struct Segment {
    called: Called,
    verdict: Verdict,
    sample: Connection,
}

impl<'a> Judge<'a> {
    pub(super) fn of(engine: &'a Engine) -> Self {
        Judge { engine, whole: OnceCell::new(), has_cluster_policies: engine.index().cluster_policies().next().is_some() }
    }

    fn whole(&self) -> &Whole {
        self.whole.get_or_init(|| {
            let reachability = self.engine.reachability();
            let mut groups: HashMap<*const Pod, Option<usize>> = HashMap::new();
            for (at, group) in reachability.groups().iter().enumerate() {
                for pod in &group.pods {
                    groups.entry(Arc::as_ptr(pod)).and_modify(|known| *known = None).or_insert(Some(at));
                }
            }
            let ports = reachability.ports().collect();
            Whole { reachability, groups, ports }
        })
    }

    /// Judges a test.
    ///
    /// # Errors
    /// It asks for what is not there.
    pub(super) fn test(&self, test: &Test, namespace: &str) -> Result<Found, Problem> {
        let from = sides(&test.from.0, namespace, false, "from")?;
        let to = sides(&test.to.0, namespace, true, "to")?;
        let by = self.policies(&test.by.0, namespace)?;
        let excepts = test.except.iter().map(|exception| self.except(exception, namespace)).collect::<Result<Vec<_>, _>>()?;
        let sources = self.all(&from)?;
        let (named, plain): (Vec<Side>, Vec<Side>) = to.into_iter().partition(|side| matches!(side, Side::Named(_)));
        let mut found = Found::default();
        for side in &named {
            let Side::Named(callee) = side else { continue };
            if test.except.iter().any(|exception| !exception.to.0.is_empty()) {
                return Err(problem(
                    "except: `to` says nothing of a URL or a Service",
                    "leave `to` out of the exception, or name the pods behind the Service",
                ));
            }
            let ports = if test.port.0.is_empty() { Vec::new() } else { port::parse(&test.port.0).map_err(|error| at("port", error))? };
            let units = sources.iter().filter(|unit| !excepts.iter().any(|except| except.is_of(&except.from, unit)));
            way::judge(self.engine, units, callee, &ports, (test.expect, &by), &mut found)?;
        }
        if plain.is_empty() {
            return Ok(found);
        }
        let ports = port::parse(&test.port.0).map_err(|error| at("port", error))?;
        let destinations = self.all(&plain)?;
        for source in &sources {
            for destination in &destinations {
                let away: Vec<Called> =
                    excepts.iter().filter(|except| except.covers(source, destination)).flat_map(Except::called).collect();
                let left = port::without(ports.clone(), &away);
                if !left.is_empty() {
                    self.pair((source, destination), &left, (test.expect, &by), &mut found);
                }
            }
        }
        if found.connections == 0 {
            return Err(problem(
                "no connection is left to judge",
                "its two sides are one pod, their addresses are of different families, or `except` leaves nothing",
            ));
        }
        Ok(found)
    }

    fn all(&self, sides: &[Side]) -> Result<Vec<Unit>, Problem> {
        let mut units: Vec<Unit> = Vec::new();
        for side in sides {
            let reachability = || &self.whole().reachability;
            for unit in side.units(self.engine.index(), reachability)? {
                match units.iter_mut().find(|known| known.key == unit.key) {
                    // A pod alone, and its workload besides.
                    Some(known) => {
                        let new = unit.members.into_iter().filter(|member| !known.members.iter().any(|known| known.name == member.name));
                        let new: Vec<Member> = new.collect();
                        known.members.extend(new);
                    }
                    None => units.push(unit),
                }
            }
        }
        Ok(units)
    }

    fn except(&self, exception: &Exception, namespace: &str) -> Result<Except, Problem> {
        let keys = |written: &[String], field: &str| -> Result<Option<Few>, Problem> {
            if written.is_empty() {
                return Ok(None);
            }
            let sides = sides(written, namespace, false, field)?;
            let ranges = sides.iter().filter_map(|side| if let Side::Range(range) = side { Some(*range) } else { None }).collect();
            Ok(Some(Few { keys: self.all(&sides)?.into_iter().map(|unit| unit.key).collect(), ranges }))
        };
        let ports = match exception.port.0.as_slice() {
            [] => None,
            written => Some(port::parse(written).map_err(|error| at("except.port", error))?),
        };
        let except = Except { from: keys(&exception.from.0, "except.from")?, to: keys(&exception.to.0, "except.to")?, ports };
        if except.from.is_none() && except.to.is_none() && except.ports.is_none() {
            return Err(problem("an exception without from, to and port leaves nothing of the test", "say which connections are left out"));
        }
        Ok(except)
    }

    /// The policies of `by`.
    fn policies(&self, written: &[String], namespace: &str) -> Result<Vec<(String, String)>, Problem> {
        let index = self.engine.index();
        let mut found = Vec::new();
        for name in written {
            let (of, short) = name.split_once('/').unwrap_or((namespace, name));
            if index.policy(of, short).is_some() {
                found.push((of.to_owned(), short.to_owned()));
            } else if !name.contains('/') && index.cluster_policies().any(|policy| *policy.name == **name) {
                found.push((String::new(), name.clone()));
            } else {
                let there: Vec<String> = index.policies_in(of).map(|policy| format!("{of}/{}", policy.name)).collect();
                let hint =
                    if there.is_empty() { format!("namespace {of} has no policies") } else { format!("there are {}", there.join(", ")) };
                return Err(problem(&format!("by: no policy {name}"), &hint));
            }
        }
        Ok(found)
    }

    fn pair(&self, (source, destination): (&Unit, &Unit), ports: &[Called], expected: (Expect, &[(String, String)]), found: &mut Found) {
        let mut judged: BTreeSet<(usize, usize)> = BTreeSet::new();
        let mut wrong: Vec<Segment> = Vec::new();
        let mut blamed: Option<(String, Segment)> = None;
        for from in &source.members {
            for to in &destination.members {
                if from.name == to.name {
                    continue;
                }
                let groups = self.group(from).zip(self.group(to));
                // All pods of a group are alike.
                if groups.is_some_and(|groups| !judged.insert(groups)) {
                    continue;
                }
                for (from, to) in from.pairs(to) {
                    for segment in self.segments((&from, &to), groups, ports) {
                        found.connections += 1;
                        if !is_expected(segment.verdict, expected.0) {
                            wrong.push(segment);
                        } else if !expected.1.is_empty() && blamed.is_none() {
                            blamed = self.blame(&segment, expected.1).map(|message| (message, segment));
                        }
                    }
                }
            }
        }
        let names = (source.name(), destination.name());
        // One failure for each verdict.
        for verdict in [Verdict::Deny, Verdict::Allow, Verdict::Undecided] {
            let alike: Vec<&Segment> = wrong.iter().filter(|segment| segment.verdict == verdict).collect();
            if !alike.is_empty() {
                found.push(|| self.failure(&names, &alike));
            }
        }
        if let Some((message, segment)) = blamed.filter(|_| wrong.is_empty()) {
            found.push(|| Failure { message, ..self.failure(&names, &[&segment]) });
        }
    }

    fn failure(&self, (from, to): &(String, String), alike: &[&Segment]) -> Failure {
        let mut ports: Vec<String> = Vec::new();
        for segment in alike {
            let words = segment.called.words();
            if !ports.contains(&words) {
                ports.push(words);
            }
        }
        let explanation = alike.first().map(|segment| self.engine.explain(&segment.sample));
        let decided = explanation.as_ref().map(decision);
        let verdict = alike.first().map_or(Verdict::Undecided, |segment| segment.verdict);
        let (message, policy, origin) = decided.map_or_else(Default::default, |decided| (decided.message, decided.policy, decided.origin));
        Failure { from: from.clone(), to: to.clone(), port: ports.join(", "), verdict, message, policy, origin, explanation }
    }

    /// That none of the policies that were to decide did; nothing where one has.
    fn blame(&self, segment: &Segment, by: &[(String, String)]) -> Option<String> {
        let Called::Ports(range) = segment.called else { return self.blame_at(&segment.sample, segment.verdict, by) };
        let starts =
            self.whole().ports.iter().filter(|port| port.protocol == range.protocol && range.from < port.from && port.from <= range.to);
        let places = std::iter::once(range.from).chain(starts.map(|port| port.from)).take(MAX_PLACES);
        places.into_iter().find_map(|port| {
            let sample = Connection { port: Some(port), ..segment.sample.clone() };
            self.blame_at(&sample, segment.verdict, by)
        })
    }

    fn blame_at(&self, connection: &Connection, verdict: Verdict, by: &[(String, String)]) -> Option<String> {
        let rulings = self.engine.rulings(connection);
        let decided: Vec<&PolicyRef> = rulings.as_ref().map(|rulings| deciding(rulings, verdict)).unwrap_or_default();
        blame(&decided, verdict, by)
    }

    /// What comes of each of the ports.
    fn segments(&self, (from, to): (&Party, &Party), groups: Option<(usize, usize)>, ports: &[Called]) -> Vec<Segment> {
        let connection = |protocol, port| Connection { source: from.clone(), destination: to.clone(), protocol, port, service: None };
        let mut segments = Vec::new();
        for called in ports {
            let range = match called {
                Called::Ports(range) => *range,
                Called::Protocol(protocol) => {
                    let sample = connection(*protocol, None);
                    segments.push(Segment { called: *called, verdict: self.engine.verdict(&sample), sample });
                    continue;
                }
            };
            let mut push = |from: u16, to: u16, verdict: Option<Verdict>| {
                let sample = connection(range.protocol, Some(from));
                let verdict = verdict.unwrap_or_else(|| self.engine.verdict(&sample));
                let called = Called::Ports(PortRange { from, to, ..range });
                match segments.last_mut() {
                    Some(Segment { called: Called::Ports(last), verdict: of_last, .. })
                        if *of_last == verdict && last.protocol == range.protocol && u32::from(last.to) + 1 == u32::from(from) =>
                    {
                        last.to = to;
                    }
                    _ => segments.push(Segment { called, verdict, sample }),
                }
            };
            match groups {
                // Where only NetworkPolicies speak, what is not admitted between two definite pods is denied.
                Some((source, destination)) if !self.has_cluster_policies => {
                    let mut next = u32::from(range.from);
                    for admitted in self.whole().reachability.ports_between(source, destination) {
                        if admitted.protocol != range.protocol || admitted.to < range.from || range.to < admitted.from {
                            continue;
                        }
                        let (first, last) = (admitted.from.max(range.from), admitted.to.min(range.to));
                        if next < u32::from(first) {
                            push(u16::try_from(next).unwrap_or(first), first - 1, Some(Verdict::Deny));
                        }
                        push(first, last, Some(Verdict::Allow));
                        next = u32::from(last) + 1;
                    }
                    if let Ok(next) = u16::try_from(next)
                        && next <= range.to
                    {
                        push(next, range.to, Some(Verdict::Deny));
                    }
                }
                _ if range.from == range.to => push(range.from, range.to, None),
                _ => {
                    for port in self.whole().ports.iter().filter(|port| port.protocol == range.protocol) {
                        let (first, last) = (port.from.max(range.from), port.to.min(range.to));
                        if first <= last {
                            push(first, last, None);
                        }
                    }
                }
            }
        }
        segments
    }

    /// The group of a pod, where it is in just one and policies see it.
    fn group(&self, member: &Member) -> Option<usize> {
        match &member.identity {
            Identity::Pod(pod) => self.whole().groups.get(&Arc::as_ptr(pod)).copied().flatten(),
            _ => None,
        }
    }
}

/// That none of the policies that were to decide is among those that did.
pub(super) fn blame(decided: &[&PolicyRef], verdict: Verdict, by: &[(String, String)]) -> Option<String> {
    let is_meant = |policy: &&PolicyRef| by.iter().any(|(namespace, name)| *policy.namespace == **namespace && *policy.name == **name);
    if decided.iter().any(is_meant) {
        return None;
    }
    let what = if verdict == Verdict::Allow { "admitted" } else { "denied" };
    let wanted: Vec<String> =
        by.iter().map(|(namespace, name)| if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") }).collect();
    let wanted = wanted.join(" or ");
    Some(match decided {
        [] => format!("is {what} as expected, but no policy decides it, and {wanted} was to"),
        _ => {
            let names: Vec<String> = decided.iter().map(ToString::to_string).collect();
            format!("is {what} as expected, but by {}, and not by {wanted}", names.join(", "))
        }
    })
}

/// Whether a verdict is what is expected. What cannot be decided is neither.
pub(super) fn is_expected(verdict: Verdict, expect: Expect) -> bool {
    matches!((verdict, expect), (Verdict::Allow, Expect::Allow) | (Verdict::Deny, Expect::Deny))
}

impl Except {
    fn is_of(&self, side: &Option<Few>, unit: &Unit) -> bool {
        side.as_ref().is_none_or(|few| few.has(unit))
    }

    fn covers(&self, source: &Unit, destination: &Unit) -> bool {
        self.is_of(&self.from, source) && self.is_of(&self.to, destination)
    }

    fn called(&self) -> Vec<Called> {
        self.ports.clone().unwrap_or_else(|| {
            let mut all = port::parse(&[]).unwrap_or_default();
            all.extend(["ICMP", "ICMPv6"].iter().filter_map(|protocol| protocol.parse().ok()).map(Called::Protocol));
            all
        })
    }
}

fn sides(written: &[String], namespace: &str, is_called: bool, field: &str) -> Result<Vec<Side>, Problem> {
    if written.is_empty() {
        return Err(problem(&format!("{field} names nobody"), "name a workload, labels, an address or a wildcard"));
    }
    written.iter().map(|text| Side::parse(text, namespace, is_called).map_err(|error| at(field, error))).collect()
}

pub(super) fn at(field: &str, error: QuestionError) -> Problem {
    Problem { message: format!("{field}: {}", error.message), hints: error.hints }
}

pub(super) fn problem(message: &str, hint: &str) -> Problem {
    Problem { message: message.to_owned(), hints: vec![hint.to_owned()] }
}
