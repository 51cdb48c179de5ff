//! What is said about agents and nodes: not every change at once, and not one line for each of a hundred nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::crew::Crew;
use super::{Level, Notice};
use crate::client::roster::Agent;
use crate::client::skew::Skew;
use crate::serve::render::duration;

/// News of one kind are collected for so long.
const COLLECT: Duration = Duration::from_secs(1);

/// A node may be without an agent for so long, as while its agent is replaced, before that is said.
const GRACE: Duration = Duration::from_secs(5);

/// After a change, others are waited for so long before the nodes are looked at.
const SETTLE: Duration = Duration::from_millis(100);

/// Clocks may differ so much.
const SKEW: SignedDuration = SignedDuration::from_secs(1);

/// Nodes that are named in one line.
const NAMED: usize = 3;

/// What is to be said, and what was.
#[derive(Default)]
pub(super) struct News {
    ready: Vec<Notice>,
    /// By what happened: on which nodes.
    collected: BTreeMap<(Kind, String), Nodes>,
    collected_due: Option<Duration>,
    /// Counts by node.
    lost: BTreeMap<String, u64>,
    unreadable: BTreeMap<String, (u64, String)>,
    /// Nodes said to be out of reach, by pod.
    broken: BTreeSet<String>,
    /// Nodes said to be silent, and those that may be.
    silent: BTreeMap<String, &'static str>,
    silent_since: BTreeMap<String, Duration>,
    nodes_known: bool,
    check: Option<Duration>,
    trouble: Option<String>,
    forbidden: bool,
}

type Nodes = Vec<String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Came,
    Gone,
    Ended,
    Broken,
    Again,
    Skewed,
}

impl News {
    fn say(&mut self, level: Level, node: Option<&str>, message: String) {
        self.ready.push(Notice { level, node: node.map(str::to_owned), message });
    }

    fn collect(&mut self, kind: Kind, why: String, node: &str, now: Duration) {
        self.collected.entry((kind, why)).or_default().push(node.to_owned());
        self.collected_due.get_or_insert(now + COLLECT);
    }

    /// When there is something to say.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let ready = (!self.ready.is_empty()).then_some(Duration::ZERO);
        ready.into_iter().chain(self.collected_due).chain(self.check).min()
    }

    /// What is to be said now.
    pub(super) fn due(&mut self, now: Duration, crew: &Crew) -> Vec<Notice> {
        if self.check.is_some_and(|due| due <= now) {
            self.check_nodes(now, crew);
        }
        if self.collected_due.is_some_and(|due| due <= now) {
            self.say_collected();
        }
        std::mem::take(&mut self.ready)
    }

    /// What was not said yet, at the end.
    pub(super) fn rest(&mut self) -> Vec<Notice> {
        self.say_collected();
        std::mem::take(&mut self.ready)
    }

    fn say_collected(&mut self) {
        self.collected_due = None;
        for ((kind, why), nodes) in std::mem::take(&mut self.collected) {
            let nodes_named = named(&nodes);
            let agents = if nodes.len() == 1 { "the agent" } else { "the agents" };
            let (level, message) = match kind {
                Kind::Came => (Level::Info, format!("{nodes_named}: {agents} came")),
                Kind::Gone => (Level::Info, format!("{nodes_named}: {agents} went")),
                Kind::Ended => (Level::Info, format!("{nodes_named}: {agents} ended: {why}")),
                Kind::Broken => (Level::Warning, format!("{nodes_named}: {agents} cannot be reached: {why}; trying again")),
                Kind::Again => (Level::Info, format!("{nodes_named}: {agents} can be reached again")),
                Kind::Skewed => (Level::Warning, format!("{nodes_named}: {why}; times and order are by each node's own clock")),
            };
            let node = if let [node] = nodes.as_slice() { Some(node.as_str()) } else { None };
            self.say(level, node, message);
        }
        for (node, count) in std::mem::take(&mut self.lost) {
            // To tenants agents do not say how many.
            let drops = if count == 0 { "drops".to_owned() } else { format!("{count} drops") };
            let message = format!("{node}: {drops} were not sent, since they were read too slowly");
            self.say(Level::Warning, Some(&node), message);
        }
        for (node, (count, why)) in std::mem::take(&mut self.unreadable) {
            let message = format!("{node}: {count} frames of the agent could not be read, and are left out: {why}");
            self.say(Level::Warning, Some(&node), message);
        }
    }

    /// All agents of the beginning are known.
    pub(super) fn listed(&mut self, crew: &Crew, now: Duration) {
        let nodes: Vec<String> = crew.read_nodes().into_iter().map(str::to_owned).collect();
        let count = nodes.len();
        let agents = if count == 1 { "agent" } else { "agents" };
        let on = if count == 0 { String::new() } else { format!(" on {}", named(&nodes)) };
        self.say(Level::Info, None, format!("watching drops of {count} {agents}{on}"));
        self.check_soon(now);
    }

    /// All nodes of the beginning are known.
    pub(super) fn nodes_listed(&mut self, now: Duration) {
        self.nodes_known = true;
        self.check_soon(now);
    }

    pub(super) fn nodes_forbidden(&mut self, why: &str, now: Duration) {
        if !std::mem::replace(&mut self.forbidden, true) {
            let message = format!("the nodes cannot be listed, so that one without an agent is not noticed: {why}");
            self.say(Level::Info, None, message);
            self.check_soon(now);
        }
    }

    /// An agent or a node came, went or changed.
    pub(super) fn nodes_changed(&mut self, now: Duration) {
        self.check_soon(now);
    }

    fn check_soon(&mut self, now: Duration) {
        // A list of thousands of nodes is looked at once, not once for each.
        let due = now + SETTLE;
        self.check = Some(self.check.map_or(due, |check| check.min(due)));
    }

    fn check_nodes(&mut self, now: Duration, crew: &Crew) {
        self.check = None;
        if !crew.is_listed() || !(self.nodes_known || self.forbidden) {
            return;
        }
        let silent = crew.silent();
        // What is silent from the start is said at once.
        let grace = if self.silent_since.is_empty() && now < GRACE { Duration::ZERO } else { GRACE };
        self.silent_since.retain(|node, _| silent.contains_key(node));
        let spoken: Vec<String> = self.silent.keys().filter(|node| !silent.contains_key(*node)).cloned().collect();
        for node in spoken {
            self.silent.remove(&node);
            self.say(Level::Info, Some(&node), format!("{node} is silent no more"));
        }
        let mut news: BTreeMap<&'static str, Nodes> = BTreeMap::new();
        for (node, why) in &silent {
            let since = *self.silent_since.entry(node.clone()).or_insert(now);
            if self.silent.contains_key(node) {
                continue;
            }
            if since + grace <= now {
                self.silent.insert(node.clone(), why);
                news.entry(why).or_default().push(node.clone());
            } else {
                let due = since + grace;
                self.check = Some(self.check.map_or(due, |check| check.min(due)));
            }
        }
        for (why, nodes) in news {
            let node = if let [node] = nodes.as_slice() { Some(node.clone()) } else { None };
            let (are, why) = if nodes.len() == 1 { ("is", why.to_owned()) } else { ("are", why.replace("its agent", "their agents")) };
            let message = format!("{} {are} silent: {why}; drops there are not seen", named(&nodes));
            self.say(Level::Warning, node.as_deref(), message);
        }
    }

    /// An agent that was not there at the start has answered.
    pub(super) fn came(&mut self, agent: &Agent, now: Duration) {
        self.collect(Kind::Came, String::new(), &agent.node, now);
    }

    /// An agent speaks that did not.
    pub(super) fn heard(&mut self, agent: &Agent, now: Duration) {
        if !self.broken.remove(&agent.uid) {
            return;
        }
        // What was not said need not be taken back.
        let mut unsaid = false;
        self.collected.retain(|(kind, _), nodes| {
            let before = nodes.len();
            if *kind == Kind::Broken {
                nodes.retain(|node| *node != agent.node);
            }
            unsaid |= nodes.len() < before;
            !nodes.is_empty()
        });
        if !unsaid {
            self.collect(Kind::Again, String::new(), &agent.node, now);
        }
    }

    pub(super) fn gone(&mut self, agent: &Agent, now: Duration) {
        self.broken.remove(&agent.uid);
        self.collect(Kind::Gone, String::new(), &agent.node, now);
    }

    pub(super) fn ended(&mut self, agent: &Agent, reason: &str, now: Duration) {
        self.collect(Kind::Ended, reason.to_owned(), &agent.node, now);
    }

    pub(super) fn broken(&mut self, agent: &Agent, why: &str, now: Duration) {
        // That it goes on failing is no news.
        if self.broken.insert(agent.uid.clone()) {
            self.collect(Kind::Broken, why.to_owned(), &agent.node, now);
        }
    }

    pub(super) fn gap(&mut self, agent: &Agent, from: Timestamp, to: Timestamp, _now: Duration) {
        let message = format!("{}: what was dropped from {from} to {to} is not known: its agent has nothing from before", agent.node);
        self.say(Level::Warning, Some(&agent.node), message);
    }

    pub(super) fn skewed(&mut self, agent: &Agent, skew: Skew, now: Duration) {
        if skew.is_beyond(SKEW) {
            let way = if skew.ahead.is_negative() { "behind" } else { "ahead of" };
            let why = format!("its clock is about {} {way} that of this machine", duration(skew.ahead.abs()));
            self.collect(Kind::Skewed, why, &agent.node, now);
        }
    }

    pub(super) fn lost(&mut self, agent: &Agent, count: u64, now: Duration) {
        *self.lost.entry(agent.node.clone()).or_default() += count;
        self.collected_due.get_or_insert(now + COLLECT);
    }

    pub(super) fn unreadable(&mut self, agent: &Agent, why: &str, now: Duration) {
        let entry = self.unreadable.entry(agent.node.clone()).or_insert_with(|| (0, why.to_owned()));
        entry.0 += 1;
        self.collected_due.get_or_insert(now + COLLECT);
    }

    pub(super) fn trouble(&mut self, why: String, _now: Duration) {
        if self.trouble.replace(why.clone()).is_none() {
            self.say(Level::Warning, None, format!("{why}; agents that come and go are not noticed until it answers"));
        }
    }

    pub(super) fn api_server_answers(&mut self, _now: Duration) {
        if self.trouble.take().is_some() {
            self.say(Level::Info, None, "the API server answers again".to_owned());
        }
    }
}

/// The first nodes by name, and how many more.
fn named(nodes: &[String]) -> String {
    let shown = nodes.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match nodes.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
