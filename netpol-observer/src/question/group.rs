//! Many connections, few answers: what the policies treat the same way is explained once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::answer::Path;
use super::error::QuestionError;
use super::find::{Destination, Member};
use crate::flow::Protocol;
use crate::identify::{Identity, Party, ServiceCall};
use crate::policy::{Admission, Connection, DirectionExplanation, Engine, Explanation, PolicyRef, RuleRef, Verdict};

/// Connections asked for one question; beyond, nobody could read the answer.
const MAX_CONNECTIONS: usize = 1_000_000;

/// Answers that are explained.
const MAX_EXPLAINED: usize = 32;

/// Connections from every source to every destination.
pub(super) struct Connections<'a> {
    pub(super) sources: &'a [Member],
    pub(super) destinations: &'a [Destination],
    pub(super) protocol: Protocol,
    pub(super) call: Option<&'a ServiceCall>,
}

/// What makes two ends alike for every policy that names no address.
type Class = usize;

/// Those connections of a kind that have one verdict.
struct Bucket<'a> {
    first: (Party, Party, Option<u16>),
    verdict: Verdict,
    from: Vec<&'a str>,
    to: Vec<&'a str>,
}

impl<'a> Connections<'a> {
    /// Hands every connection to `with`, which says whether to go on.
    fn each(&self, mut with: impl FnMut((usize, &'a Member), (usize, &'a Member), Party, Party, Option<u16>) -> bool) {
        for source in self.sources.iter().enumerate() {
            for (at, (destination, port)) in self.destinations.iter().enumerate() {
                for (from, to) in source.1.pairs(destination) {
                    if !with(source, (at, destination), from, to, *port) {
                        return;
                    }
                }
            }
        }
    }

    fn connection(&self, source: Party, destination: Party, port: Option<u16>) -> Connection {
        Connection { source, destination, protocol: self.protocol, port, service: self.call.cloned() }
    }

    /// The verdict all of them have, undecided where they differ; none when there are none.
    pub(super) fn verdict(&self, engine: &Engine) -> Option<Verdict> {
        let mut common: Option<Verdict> = None;
        self.each(|_, _, source, destination, port| {
            let verdict = engine.verdict(&self.connection(source, destination, port));
            let agreed = common.is_none_or(|common| common == verdict);
            common = Some(if agreed { verdict } else { Verdict::Undecided });
            agreed
        });
        common
    }

    /// All of them, put together where the policies treat them the same way. Denied ones first.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn paths(&self, engine: &Engine) -> Result<Vec<Path>, QuestionError> {
        let count = self.sources.len().saturating_mul(self.destinations.len());
        if count > MAX_CONNECTIONS {
            return Err(QuestionError::new(format!("{count} connections are more than one question may be about"))
                .hint(format!("at most {MAX_CONNECTIONS}: ask about fewer pods, or with --queries")));
        }
        let sources = classes(self.sources.iter());
        let destinations = classes(self.destinations.iter().map(|(member, _)| member));
        let mut buckets: Vec<Bucket<'a>> = Vec::new();
        let mut places: HashMap<(Class, Class, Option<u16>, bool, u8), usize> = HashMap::new();
        self.each(|(i, from), (j, to), source, destination, port| {
            let verdict = engine.verdict(&self.connection(source.clone(), destination.clone(), port));
            let class = |classes: &[Class], at: usize| classes.get(at).copied().unwrap_or(at);
            let key = (class(&sources, i), class(&destinations, j), port, from.name == to.name, rank(verdict));
            match places.entry(key) {
                Entry::Occupied(place) => {
                    if let Some(bucket) = buckets.get_mut(*place.get()) {
                        add(&mut bucket.from, &from.name);
                        add(&mut bucket.to, &to.name);
                    }
                }
                Entry::Vacant(place) => {
                    place.insert(buckets.len());
                    buckets.push(Bucket { first: (source, destination, port), verdict, from: vec![&from.name], to: vec![&to.name] });
                }
            }
            true
        });
        let mut paths: Vec<Path> = Vec::new();
        for bucket in buckets {
            let known = |path: &&mut Path| path.verdict == bucket.verdict && path.port == bucket.first.2;
            if paths.len() >= MAX_EXPLAINED
                && let Some(path) = paths.iter_mut().find(known)
            {
                merge(path, &bucket);
                continue;
            }
            let (source, destination, port) = bucket.first.clone();
            let explanation = engine.explain(&self.connection(source.clone(), destination.clone(), port));
            if let Some(path) = paths.iter_mut().find(|path| known(path) && decided_alike(&path.explanation, &explanation)) {
                merge(path, &bucket);
                continue;
            }
            paths.push(Path {
                from: bucket.from.iter().map(|name| (*name).to_owned()).collect(),
                to: bucket.to.iter().map(|name| (*name).to_owned()).collect(),
                source,
                destination,
                port,
                protocol: self.protocol,
                verdict: bucket.verdict,
                explanation,
            });
        }
        paths.sort_by_key(|path| rank(path.verdict));
        Ok(paths)
    }
}

/// The verdict of several connections of which nobody knows which one it will be.
pub(super) fn common(paths: &[Path]) -> Option<Verdict> {
    let first = paths.first()?.verdict;
    Some(if paths.iter().all(|path| path.verdict == first) { first } else { Verdict::Undecided })
}

/// What a reader wants to see first.
fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Deny => 0,
        Verdict::Undecided => 1,
        Verdict::Allow => 2,
    }
}

fn merge(path: &mut Path, bucket: &Bucket<'_>) {
    for (names, more) in [(&mut path.from, &bucket.from), (&mut path.to, &bucket.to)] {
        for name in more {
            if !names.iter().any(|known| known == name) {
                names.push((*name).to_owned());
            }
        }
    }
}

/// Members come in order, so that one that is known is mostly the last.
fn add<'a>(names: &mut Vec<&'a str>, name: &'a str) {
    if names.last() != Some(&name) && !names.contains(&name) {
        names.push(name);
    }
}

/// For each end the first one that is like it.
fn classes<'a>(members: impl Iterator<Item = &'a Member>) -> Vec<Class> {
    let mut firsts = HashMap::new();
    members
        .enumerate()
        .map(|(at, member)| match &member.identity {
            Identity::Pod(pod) => {
                let mut ports: Vec<_> = pod.ports.iter().map(|port| (port.name.as_deref(), port.port, port.protocol)).collect();
                ports.sort_unstable();
                *firsts.entry((pod.namespace.clone(), &pod.labels, ports, pod.host_network)).or_insert(at)
            }
            _ => at,
        })
        .collect()
}

/// Whether the same rules decided, so that one explanation does for both.
fn decided_alike(one: &Explanation, other: &Explanation) -> bool {
    let alike = |one: &DirectionExplanation, other: &DirectionExplanation| decided_by(&one.admission) == decided_by(&other.admission);
    alike(&one.egress, &other.egress) && alike(&one.ingress, &other.ingress)
}

fn decided_by(admission: &Admission) -> (u8, Vec<&RuleRef>, Vec<&PolicyRef>, &str) {
    match admission {
        Admission::NotSubject { why } => (0, Vec::new(), Vec::new(), why),
        Admission::NotIsolated => (1, Vec::new(), Vec::new(), ""),
        Admission::Allowed { by } => (2, by.iter().collect(), Vec::new(), ""),
        Admission::Denied { by, isolating, .. } => {
            (3, by.iter().collect(), isolating.iter().map(|isolating| &isolating.policy).collect(), "")
        }
        Admission::Undecided { why } => (4, Vec::new(), Vec::new(), why),
    }
}
