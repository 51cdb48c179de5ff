//! All agents of a cluster as one stream, until somebody or something ends it.

mod changes;
mod crew;
mod news;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep_until};

use self::changes::Changes;
use self::crew::Crew;
use self::news::News;
use super::call::Access;
use super::clean::Cleaner;
use super::frame::Counts;
use super::merge::{self, Merge, Source};
use super::reader::{Query, Told};
use super::roster::{Roster, Sighting};

/// At the start, agents are waited for so long, so that what they have kept comes in one order.
const START: Duration = Duration::from_secs(5);

/// What is told to the loop and not taken yet.
const TOLD: usize = 1024;

/// Taken together before the output is flushed.
const TOGETHER: usize = 256;

/// How to follow.
#[derive(Clone, Debug)]
pub struct FollowOptions {
    /// What to ask the agents.
    pub query: Query,
    /// What may stand in text.
    pub cleaner: Cleaner,
    /// The longest that a frame waits for those of other agents.
    pub delay: Duration,
    /// Only the agents of these nodes; empty for all.
    pub nodes: Vec<String>,
}

/// How much a notice matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// To know.
    Info,
    /// Something is not seen.
    Warning,
}

/// Something about the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How much it matters.
    pub level: Level,
    /// Which node it is about, when it is one.
    pub node: Option<String>,
    /// For people. May quote an agent.
    pub message: String,
}

/// Where everything goes.
pub trait Sink {
    /// Lines of an agent, fit for a terminal.
    fn frame(&mut self, text: &str) -> io::Result<()>;
    /// A notice.
    fn notice(&mut self, notice: &Notice) -> io::Result<()>;
    /// Nothing more is known to come at once.
    fn flush(&mut self) -> io::Result<()>;
}

/// Why it ended with an error.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// This user may not do what is needed.
    #[error("{0}")]
    Forbidden(String),
    /// There is no agent.
    #[error("no agent was found")]
    NoAgents,
    /// The API server did not answer at all.
    #[error("{0}")]
    Unreachable(String),
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Agents that answered.
    pub agents: usize,
    /// Frames printed, and how they stood to each other.
    pub frames: merge::Counts,
    /// Drops that agents did not send, because they were read too slowly.
    pub lost: u64,
    /// Frames that could not be read.
    pub unreadable: u64,
    /// Agents whose account is in `counts`.
    pub accounts: usize,
    /// The accounts of the agents' streams, summed.
    pub counts: Counts,
}

/// A frame that waits for its turn.
#[derive(Debug)]
struct Printed {
    text: String,
    change: Option<String>,
    /// Given back when it is printed.
    _permit: OwnedSemaphorePermit,
}

/// Follows the agents.
pub struct Follow<'a, S> {
    options: FollowOptions,
    sink: &'a mut S,
    merge: Merge<Printed>,
    changes: Changes,
    crew: Crew,
    news: News,
    summary: Summary,
    began: Instant,
    /// The agents' accounts as they wrote them, for after their drops.
    accounts: Vec<String>,
    /// The last trouble with the API server, before the agents were listed.
    trouble: Option<String>,
}

impl<'a, S: Sink> Follow<'a, S> {
    /// Follows what `access` reaches.
    pub fn new(access: Access, options: FollowOptions, sink: &'a mut S) -> Self {
        Follow {
            merge: Merge::new(options.delay.max(START)),
            changes: Changes::default(),
            crew: Crew::new(access, options.query.clone(), options.cleaner.clone(), options.nodes.clone()),
            options,
            sink,
            news: News::default(),
            summary: Summary::default(),
            began: Instant::now(),
            accounts: Vec::new(),
            trouble: None,
        }
    }

    /// Until `end` comes, all agents have sent what they had (without `follow`), or it cannot go on.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn run(mut self, mut roster: Roster, end: impl Future<Output = ()>) -> Result<Summary, Stop> {
        let (tell, mut told) = mpsc::channel(TOLD);
        let mut end = pin!(end);
        let mut taken = Vec::with_capacity(TOGETHER);
        let mut watching = true;
        // Whether everything that was told has been taken.
        let mut drained = true;
        let result = loop {
            let due = self.next_due();
            tokio::select! {
                biased;
                () = &mut end => break Ok(()),
                sighting = roster.next(), if watching => match sighting {
                    Some(sighting) => if let Err(stop) = self.see(sighting, &tell) { break Err(stop) },
                    None => watching = false,
                },
                count = told.recv_many(&mut taken, TOGETHER) => {
                    // One sender is held here: there is always somebody who may tell.
                    if count == 0 { break Ok(()) }
                    drained = count < TOGETHER;
                    for (source, told) in taken.drain(..) {
                        self.hear(source, told);
                    }
                }
                // Whoever tells was asked before.
                () = sleep_until(due) => drained = true,
            }
            if let Err(stop) = self.turn(drained) {
                break Err(stop);
            }
            if !self.options.query.follow && self.crew.is_done() && self.merge.is_empty() {
                break Ok(());
            }
        };
        self.crew.dismiss();
        drop(tell);
        if result.is_ok() {
            // What has come is given, though it was not waited for.
            while let Ok((source, told)) = told.try_recv() {
                self.hear(source, told);
            }
            for given in self.merge.finish() {
                self.print(&given.payload)?;
            }
            for account in std::mem::take(&mut self.accounts) {
                self.sink.frame(&account)?;
            }
            for notice in self.news.rest() {
                self.sink.notice(&notice)?;
            }
            self.sink.flush()?;
        }
        self.summary.frames = self.merge.counts();
        self.summary.agents = self.crew.answered();
        result.map(|()| self.summary)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn next_due(&mut self) -> Instant {
        let news = self.news.next_due();
        let start = (!self.crew.has_settled()).then_some(START);
        let due = self.merge.next_due().into_iter().chain(news).chain(start).min();
        // Nothing to wait for: once an hour is often enough to find that out again.
        self.began + due.unwrap_or_else(|| self.now() + Duration::from_secs(3600))
    }

    /// Gives what is due.
    fn turn(&mut self, drained: bool) -> Result<(), Stop> {
        let now = self.now();
        if !self.crew.has_settled() && now >= START {
            self.crew.settle();
        }
        if self.crew.has_settled() {
            self.merge.set_bound(self.options.delay);
        }
        // What a frame waits for may have come already and not been taken: then it is this program that is slow, and no reason to give up the
        // order. Quotas see to it that all is taken some time.
        let clock = if drained { now } else { Duration::ZERO };
        while let Some(given) = self.merge.next(clock) {
            self.print(&given.payload)?;
        }
        for notice in self.news.due(now, &self.crew) {
            self.sink.notice(&notice)?;
        }
        self.sink.flush()?;
        match self.crew.forbidden() {
            Some(why) => Err(Stop::Forbidden(why)),
            None => Ok(()),
        }
    }

    /// Prints a frame, but not what another agent has told of the same change of a policy.
    fn print(&mut self, printed: &Printed) -> io::Result<()> {
        match &printed.change {
            Some(change) if !self.changes.is_new(change) => Ok(()),
            _ => self.sink.frame(&printed.text),
        }
    }

    fn see(&mut self, sighting: Sighting, tell: &mpsc::Sender<(Source, Told)>) -> Result<(), Stop> {
        let now = self.now();
        if !matches!(sighting, Sighting::Trouble(_) | Sighting::AgentsForbidden(_) | Sighting::NodesForbidden(_)) {
            self.news.api_server_answers(now);
        }
        match sighting {
            Sighting::Agent(agent) => {
                if let Some(source) = self.crew.see(agent, tell) {
                    self.merge.join(source);
                }
                self.news.nodes_changed(now);
            }
            Sighting::AgentGone { uid } => {
                if let Some((source, agent)) = self.crew.lose(&uid) {
                    self.merge.leave(source);
                    self.news.gone(&agent, now);
                }
                self.news.nodes_changed(now);
            }
            Sighting::AgentsListed => {
                if self.crew.list() {
                    if self.crew.is_empty() {
                        return Err(Stop::NoAgents);
                    }
                    self.news.listed(&self.crew, now);
                }
            }
            Sighting::Node(name) => {
                self.crew.add_node(name);
                self.news.nodes_changed(now);
            }
            Sighting::NodeGone(name) => {
                self.crew.remove_node(&name);
                self.news.nodes_changed(now);
            }
            Sighting::NodesListed => self.news.nodes_listed(now),
            Sighting::NodesForbidden(why) => self.news.nodes_forbidden(&why, now),
            Sighting::AgentsForbidden(why) if !self.crew.is_listed() => return Err(Stop::Forbidden(why)),
            Sighting::AgentsForbidden(why) => self.news.trouble(why, now),
            Sighting::Trouble(why) => {
                // Before anything was seen, a server that cannot be reached is most likely the wrong one.
                if !self.crew.is_listed() && self.trouble.replace(why.clone()).is_some() {
                    return Err(Stop::Unreachable(why));
                }
                self.news.trouble(why, now);
            }
        }
        Ok(())
    }

    fn hear(&mut self, source: Source, told: Told) {
        let now = self.now();
        // Of one that was dismissed, what was under way still counts.
        match told {
            Told::Item { order, change, text, permit } => self.merge.push(source, order, Printed { text, change, _permit: permit }, now),
            Told::Watermark(order) => {
                self.merge.watermark(source, order);
                self.crew.settled(source);
                if let Some(agent) = self.crew.heard(source) {
                    self.news.heard(agent, now);
                }
            }
            Told::Full => self.merge.hold_back(source),
            Told::Stalled => {
                self.merge.stall(source);
                self.crew.settled(source);
                self.crew.unheard(source);
                if let Some(agent) = self.crew.agent(source) {
                    self.news.broken(agent, "it sends nothing", now);
                }
            }
            Told::Hello { hello, skew, gap } => {
                if self.crew.is_here(source) {
                    self.merge.join(source);
                }
                let came = self.crew.answers(source, hello.time) && self.crew.has_settled();
                if let Some(agent) = self.crew.agent(source) {
                    if came {
                        self.news.came(agent, now);
                    }
                    self.news.skewed(agent, skew, now);
                    if let Some((from, to)) = gap {
                        self.news.gap(agent, from, to, now);
                    }
                }
            }
            Told::Lost(count) => {
                self.summary.lost = self.summary.lost.saturating_add(count);
                if let Some(agent) = self.crew.agent(source) {
                    self.news.lost(agent, count, now);
                }
            }
            Told::Unreadable(error) => {
                self.summary.unreadable += 1;
                if let Some(agent) = self.crew.agent(source) {
                    self.news.unreadable(agent, &error.to_string(), now);
                }
            }
            Told::Account(account) => {
                self.summary.accounts += 1;
                sum(&mut self.summary.counts, &account.counts);
                if self.options.query.json {
                    self.accounts.push(account.text);
                }
            }
            Told::Ended(reason) => {
                self.merge.leave(source);
                self.crew.settled(source);
                if let Some(agent) = self.crew.agent(source) {
                    self.news.ended(agent, &reason, now);
                }
            }
            Told::Broken(why) => {
                self.merge.leave(source);
                self.crew.settled(source);
                self.crew.breaks(source, &why);
                if let Some(agent) = self.crew.agent(source) {
                    self.news.broken(agent, &why.to_string(), now);
                }
            }
            Told::Done => {
                self.merge.leave(source);
                self.crew.settled(source);
                self.crew.done(source);
            }
        }
    }
}

fn sum(all: &mut Counts, one: &Counts) {
    let Counts { records, counted, decoded, undecodable, shown, repeats, pending, filtered_out, earlier, elsewhere, noise, unattributed } =
        one;
    for (sum, count) in [
        (&mut all.records, records),
        (&mut all.counted, counted),
        (&mut all.decoded, decoded),
        (&mut all.undecodable, undecodable),
        (&mut all.shown, shown),
        (&mut all.repeats, repeats),
        (&mut all.pending, pending),
        (&mut all.filtered_out, filtered_out),
        (&mut all.earlier, earlier),
        (&mut all.elsewhere, elsewhere),
        (&mut all.noise, noise),
        (&mut all.unattributed, unattributed),
    ] {
        *sum = sum.saturating_add(*count);
    }
}
