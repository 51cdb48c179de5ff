//! The agents that are read, and the nodes there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::client::call::{Access, Unreached};
use crate::client::clean::Cleaner;
use crate::client::merge::Source;
use crate::client::reader::{Query, Reader, Told};
use crate::client::roster::Agent;

/// Everybody who is read.
pub(super) struct Crew {
    access: Access,
    query: Arc<Query>,
    cleaner: Arc<Cleaner>,
    /// Only these nodes; empty for all.
    wanted: Vec<String>,
    members: HashMap<String, Member>,
    /// The pod of each source that is there.
    sources: BTreeMap<Source, String>,
    nodes: BTreeSet<String>,
    next: Source,
    listed: bool,
    /// Those who were there at first and have not spoken, nor failed.
    unsettled: BTreeSet<Source>,
    settled: bool,
    /// When the first agent answered, by its clock: agents that come later are asked from then on.
    opened: Option<Timestamp>,
    answered: BTreeSet<String>,
}

struct Member {
    agent: Agent,
    reading: Option<Reading>,
}

struct Reading {
    source: Source,
    task: JoinHandle<()>,
    ending: Arc<AtomicBool>,
    answered: bool,
    /// It has said something since its connection was made, or since it fell silent.
    heard: bool,
    forbidden: Option<String>,
    done: bool,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Crew {
    pub(super) fn new(access: Access, query: Query, cleaner: Cleaner, wanted: Vec<String>) -> Self {
        Crew {
            access,
            query: Arc::new(query),
            cleaner: Arc::new(cleaner),
            wanted,
            members: HashMap::new(),
            sources: BTreeMap::new(),
            nodes: BTreeSet::new(),
            next: 0,
            listed: false,
            unsettled: BTreeSet::new(),
            settled: false,
            opened: None,
            answered: BTreeSet::new(),
        }
    }

    fn wants(&self, node: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| wanted == node)
    }

    /// An agent is there, or has changed. The source that is read from now on, when one begins.
    pub(super) fn see(&mut self, agent: Agent, tell: &mpsc::Sender<(Source, Told)>) -> Option<Source> {
        if !self.wants(&agent.node) || agent.node.is_empty() {
            return None;
        }
        let uid = agent.uid.clone();
        let member = self.members.entry(uid.clone()).or_insert_with(|| Member { agent: agent.clone(), reading: None });
        member.agent = agent;
        if let Some(reading) = &member.reading {
            reading.ending.store(member.agent.ending, Ordering::Relaxed);
            return None;
        }
        if !member.agent.running || member.agent.ending {
            return None;
        }
        let source = self.next;
        self.next = self.next.wrapping_add(1);
        let ending = Arc::new(AtomicBool::new(false));
        let reader = Reader {
            source,
            agent: member.agent.clone(),
            access: self.access.clone(),
            query: Arc::clone(&self.query),
            cleaner: Arc::clone(&self.cleaner),
            begin: self.opened.filter(|_| self.query.follow && self.query.last.is_none() && self.query.since.is_none()),
            ending: Arc::clone(&ending),
            tell: tell.clone(),
        };
        let task = tokio::spawn(reader.run());
        member.reading = Some(Reading { source, task, ending, answered: false, heard: false, forbidden: None, done: false });
        self.sources.insert(source, uid);
        if !self.listed {
            self.unsettled.insert(source);
        }
        Some(source)
    }

    /// An agent's pod is there no more: whatever it still says comes too late.
    pub(super) fn lose(&mut self, uid: &str) -> Option<(Source, Agent)> {
        let member = self.members.remove(uid)?;
        let source = member.reading.as_ref()?.source;
        self.sources.remove(&source);
        self.settled(source);
        Some((source, member.agent))
    }

    /// Nobody is read any more.
    pub(super) fn dismiss(&mut self) {
        for member in self.members.values_mut() {
            member.reading = None;
        }
    }

    /// All agents that were there at first are known. Whether that is news.
    pub(super) fn list(&mut self) -> bool {
        !std::mem::replace(&mut self.listed, true)
    }

    pub(super) fn is_listed(&self) -> bool {
        self.listed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A source of the beginning has spoken, or will not.
    pub(super) fn settled(&mut self, source: Source) {
        self.unsettled.remove(&source);
    }

    /// Those that have not spoken are not waited for any longer.
    pub(super) fn settle(&mut self) {
        self.settled = true;
    }

    /// Whether all agents of the beginning have spoken.
    pub(super) fn has_settled(&mut self) -> bool {
        self.settled |= self.listed && self.unsettled.is_empty();
        self.settled
    }

    fn reading(&mut self, source: Source) -> Option<&mut Reading> {
        let uid = self.sources.get(&source)?;
        self.members.get_mut(uid)?.reading.as_mut()
    }

    pub(super) fn agent(&self, source: Source) -> Option<&Agent> {
        Some(&self.members.get(self.sources.get(&source)?)?.agent)
    }

    /// Whether a source is one of a pod that is still there.
    pub(super) fn is_here(&self, source: Source) -> bool {
        self.sources.contains_key(&source)
    }

    /// A source has answered. Whether it is the first time.
    pub(super) fn answers(&mut self, source: Source, time: Timestamp) -> bool {
        self.opened.get_or_insert(time);
        if let Some(uid) = self.sources.get(&source) {
            self.answered.insert(uid.clone());
        }
        self.reading(source).is_some_and(|reading| {
            reading.forbidden = None;
            reading.heard = false;
            !std::mem::replace(&mut reading.answered, true)
        })
    }

    /// A source speaks. The agent, when it did not before.
    pub(super) fn heard(&mut self, source: Source) -> Option<&Agent> {
        let spoke = std::mem::replace(&mut self.reading(source)?.heard, true);
        if spoke { None } else { self.agent(source) }
    }

    /// A source has fallen silent.
    pub(super) fn unheard(&mut self, source: Source) {
        if let Some(reading) = self.reading(source) {
            reading.heard = false;
        }
    }

    pub(super) fn breaks(&mut self, source: Source, why: &Unreached) {
        if let Some(reading) = self.reading(source) {
            reading.forbidden = match why {
                Unreached::Forbidden(why) => Some(why.clone()),
                _ => None,
            };
        }
    }

    pub(super) fn done(&mut self, source: Source) {
        if let Some(reading) = self.reading(source) {
            reading.done = true;
        }
    }

    /// Whether all have sent what they had.
    pub(super) fn is_done(&self) -> bool {
        self.listed && self.members.values().filter_map(|member| member.reading.as_ref()).all(|reading| reading.done)
    }

    /// Agents that have answered.
    pub(super) fn answered(&self) -> usize {
        self.answered.len()
    }

    /// Why this user reaches no agent at all, if that is for want of permissions.
    pub(super) fn forbidden(&self) -> Option<String> {
        if !self.listed {
            return None;
        }
        let mut readings = self.members.values().filter_map(|member| member.reading.as_ref()).peekable();
        let first = readings.peek().and_then(|reading| reading.forbidden.clone())?;
        readings.all(|reading| reading.forbidden.is_some()).then_some(first)
    }

    pub(super) fn add_node(&mut self, name: String) {
        self.nodes.insert(name);
    }

    pub(super) fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Nodes whose agents are read.
    pub(super) fn read_nodes(&self) -> BTreeSet<&str> {
        self.members.values().filter(|member| member.reading.is_some()).map(|member| member.agent.node.as_str()).collect()
    }

    /// Nodes that are known and have no agent that is ready, and what is the matter with each.
    pub(super) fn silent(&self) -> BTreeMap<String, &'static str> {
        let mut silent: BTreeMap<String, &'static str> = BTreeMap::new();
        for node in self.nodes.iter().chain(&self.wanted).filter(|node| self.wants(node)) {
            silent.insert(node.clone(), "no agent runs there");
        }
        for member in self.members.values() {
            // Between its end and the next one a node is silent too.
            let state = if member.agent.ending || !member.agent.running { "its agent does not run" } else { "its agent is not ready" };
            silent.insert(member.agent.node.clone(), state);
        }
        for member in self.members.values().filter(|member| member.agent.ready && member.agent.running && !member.agent.ending) {
            silent.remove(&member.agent.node);
        }
        silent
    }
}
