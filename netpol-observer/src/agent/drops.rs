//! `/v1/drops`: one reader's stream, from the hub to the connection.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until, timeout};

use super::access::Scope;
use super::feed::Feed;
use super::query::DropsQuery;
use super::reader::{Lost, Reader, Taken};
use super::reply::{Cut, Reply, frames};
use super::routes::Context;
use super::{Observation, reply};

/// Observations that are looked at in one go.
const TOGETHER: usize = 64;
/// Frames that are handed on in one go.
const CHUNK: usize = 64 * 1024;
/// At least this often a reader is told how far it has everything.
const WATERMARK: Duration = Duration::from_millis(200);

/// Answers the request: the stream itself is written by a task of its own.
pub(super) fn answer(context: &Arc<Context>, scope: Scope, query: DropsQuery) -> Reply {
    let follow = query.follow;
    // History is read for those who ask for it, and for those who ask for nothing else.
    let from_oldest = query.last.is_some() || query.since.is_some() || !follow;
    let reader = match context.hub.reader(from_oldest) {
        Ok(reader) => reader,
        Err(error) => return reply::error(http::StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    };
    let everything = scope.is_everything();
    let mut feed = Feed::new(query, context.about.node.as_str().into(), reader.watermark(), context.objects.is_without(), !everything);
    let kernel = context.kernel.get().map_or("", |kernel| &kernel.release);
    feed.hello(context.about.version, kernel, Timestamp::now(), reader.retained_since());
    let (sender, body) = Channel::new(1);
    let seen_to = reader.watermark();
    let (stall, catch_up) = (context.limits.stall, context.limits.catch_up);
    let session = Session { reader, scope, feed, sender, stall, everything, seen_to, catch_up, give_up: None };
    tokio::spawn(session.run(follow));
    frames(body.boxed_unsync())
}

struct Session {
    reader: Reader,
    scope: Scope,
    feed: Feed,
    sender: Sender<Bytes, Cut>,
    stall: Duration,
    everything: bool,
    /// Up to when the reader has everything, or was told that it has not.
    seen_to: Timestamp,
    /// How long it may take what is left at the end.
    catch_up: Duration,
    /// Until when.
    give_up: Option<Instant>,
}

/// Why a stream ends early.
enum Stop {
    /// The reader has gone: there is nobody to tell.
    Gone,
    /// It takes nothing for too long, or the agent gives up.
    Cut,
    /// The reader is told why.
    Told(String),
}

impl Session {
    async fn run(mut self, follow: bool) {
        let ended = match self.stream(follow).await {
            Ok(()) | Err(Stop::Gone) => return,
            Err(Stop::Cut) => Err(Cut),
            Err(Stop::Told(reason)) => {
                self.feed.end(Timestamp::now(), Some(&reason));
                self.flush().await.map_err(|_| Cut)
            }
        };
        if ended.is_err() {
            self.sender.abort(Cut);
        }
    }

    async fn stream(&mut self, follow: bool) -> Result<(), Stop> {
        self.flush().await?;
        self.check().await?;
        while let Some(taken) = self.reader.take_history(TOGETHER) {
            self.observe(taken).await?;
            // A history is long; others want to be served too.
            tokio::task::yield_now().await;
        }
        self.feed.history_ends();
        self.flush().await?;
        let mut told = Instant::now();
        loop {
            self.check().await?;
            let taken = self.reader.take(if follow { TOGETHER } else { 0 });
            let caught_up = taken.caught_up;
            let took = !taken.observations.is_empty();
            self.observe(taken).await?;
            if !follow {
                self.feed.end(Timestamp::now(), None);
                return self.flush().await;
            }
            let Some(caught_up) = caught_up else {
                self.feed.tick(Timestamp::now());
                self.flush().await?;
                tokio::task::yield_now().await;
                continue;
            };
            self.feed.tick(Timestamp::now());
            let due = told + WATERMARK;
            if took || Instant::now() >= due {
                told = Instant::now();
                self.seen_to = self.seen_to.max(caught_up.watermark.unwrap_or(self.seen_to));
                self.feed.watermark(self.seen_to);
            }
            self.flush().await?;
            self.wait(told + WATERMARK).await;
        }
    }

    /// Until there is more to take, or something to say.
    async fn wait(&mut self, told: Instant) {
        let summary = self.feed.next_due().map(|due| Instant::now() + until(due));
        let wake = summary.map_or(told, |summary| summary.min(told));
        let changed = pin!(self.reader.changed());
        tokio::select! {
            () = changed => {}
            () = sleep_until(wake) => {}
        }
    }

    async fn observe(&mut self, taken: Taken) -> Result<(), Stop> {
        if let Some(lost) = taken.lost {
            self.lost(lost);
        }
        if let Some(kernel) = taken.kernel {
            self.feed.kernel(kernel);
        }
        for (at, observation) in taken.observations {
            self.feed.tick(at);
            if let Some(observation) = self.admit(observation).await? {
                self.feed.take(observation, at);
            }
            if self.feed.len() >= CHUNK {
                self.flush().await?;
            }
        }
        let Some(reason) = taken.closed else { return Ok(()) };
        let until = *self.give_up.get_or_insert_with(|| Instant::now() + self.catch_up);
        if taken.caught_up.is_none() {
            if Instant::now() < until {
                return Ok(());
            }
            let lost = self.reader.skip();
            self.lost(lost);
        }
        Err(Stop::Told(reason.to_string()))
    }

    fn lost(&mut self, lost: Lost) {
        // How much others were dropped is not for tenants.
        let count = if self.everything { lost.count } else { 0 };
        self.feed.lost(count, self.seen_to);
    }

    async fn admit(&self, observation: Observation) -> Result<Option<Observation>, Stop> {
        match &self.scope {
            Scope::All => Ok(Some(observation)),
            Scope::Tenant(scope) => scope.admit(observation, |id| self.feed.knows(id)).await.map_err(Stop::Told),
        }
    }

    /// Whether the caller may still see this.
    async fn check(&self) -> Result<(), Stop> {
        match &self.scope {
            Scope::All => Ok(()),
            Scope::Tenant(scope) => scope.check().await.map_err(Stop::Told),
        }
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        if self.feed.len() == 0 {
            return Ok(());
        }
        let frames = Bytes::from(self.feed.frames());
        match timeout(self.stall, self.sender.send_data(frames)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Stop::Gone),
            Err(_) => {
                tracing::warn!("a reader has taken nothing for {} s, and is cut off", self.stall.as_secs());
                Err(Stop::Cut)
            }
        }
    }
}

/// How long from now until `due`, by the wall clock.
fn until(due: Timestamp) -> Duration {
    due.duration_since(Timestamp::now()).try_into().unwrap_or(Duration::ZERO)
}
