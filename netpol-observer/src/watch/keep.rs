//! Keeping one resource: listing it, watching it, and beginning again where that is needed.
//!
//! kube's own `watcher` does this too. It does not serve here: it holds pages as a whole (the API server's cache ignores `limit`), asks etcd
//! instead of the cache where pages are wanted, keeps bookmarks to itself, and lists anew without saying since when nothing was heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::WatchOptions;
use super::api::{Answer, Api};
use super::backoff::{Backoff, jitter};
use super::collect::{Closed, Collect, Sink};
use super::decode::Named;
use super::event::{self, Event};
use super::problem::Problem;
use super::resource::Resource;
use super::split::{Items, Lines, ListMeta};
use super::status::Entry;

/// What a watch may take longer than it was asked to.
const GRACE: Duration = Duration::from_secs(15);

/// A watch that ends earlier, and without a word, is no watch.
const HASTY: Duration = Duration::from_secs(1);

/// Streaming lists that did not come to an end before another way is taken.
const IN_VAIN: u32 = 2;

/// Why keeping a resource ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The cluster does not have it any more.
    Gone,
    /// Nobody reads the updates.
    Closed,
}

/// Why something did not go on.
enum Stop {
    Problem(Problem),
    Closed,
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Stop::Problem(problem)
    }
}

impl From<Closed> for Stop {
    fn from(_: Closed) -> Self {
        Stop::Closed
    }
}

/// How new a list must be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Since {
    /// As new as the API server's cache is.
    Any,
    /// No older than what is known already: another server's cache may lag behind.
    Revision(String),
    /// As new as etcd, which costs more. After a revision was refused.
    Now,
}

/// A watch that runs.
struct Stream {
    answer: Answer,
    lines: Lines,
    /// When the last piece came.
    at: Timestamp,
    opened: Instant,
    /// When it should have ended by itself.
    until: Instant,
}

/// Keeps one resource.
pub(super) struct Keeper<C> {
    api: Api,
    resource: Resource,
    options: Arc<WatchOptions>,
    collect: C,
    sink: Sink,
    entry: Entry,
    /// Whether the API server has streaming lists, as far as any of its watches knows.
    streaming: Arc<AtomicBool>,
    in_vain: u32,
    backoff: Backoff,
    /// Whether a 404 ends it; otherwise it is a failure like others.
    may_go: bool,
}

impl<C: Collect> Keeper<C> {
    pub(super) fn new(
        api: Api,
        resource: Resource,
        collect: C,
        entry: Entry,
        (sink, options, streaming): (Sink, Arc<WatchOptions>, Arc<AtomicBool>),
        may_go: bool,
    ) -> Self {
        let backoff = Backoff::new(options.first_retry, options.last_retry);
        Keeper { api, resource, options, collect, sink, entry, streaming, in_vain: 0, backoff, may_go }
    }

    /// Keeps it until it is gone or nobody reads any more. No failure ends this.
    pub(super) async fn run(mut self) -> Ended {
        let mut since = Since::Any;
        loop {
            self.entry.listing();
            self.collect.begin().await;
            let as_stream = self.streaming.load(Ordering::Relaxed) && self.in_vain < IN_VAIN;
            let problem = match self.list(&since, as_stream).await {
                Ok((position, stream)) => match self.follow(position, stream).await {
                    Ok((position, problem)) => {
                        since = Since::Revision(position);
                        problem
                    }
                    Err(ended) => return ended,
                },
                Err(Stop::Closed) => return Ended::Closed,
                Err(Stop::Problem(Problem::NotFound)) if self.may_go => return Ended::Gone,
                Err(Stop::Problem(Problem::NoStreamingLists(_))) if as_stream => {
                    self.streaming.store(false, Ordering::Relaxed);
                    continue;
                }
                Err(Stop::Problem(problem)) => {
                    if matches!(problem, Problem::Expired(_) | Problem::Future(_)) {
                        since = Since::Now;
                    }
                    // A server that is behind what it was is another one, or was put back: its revisions mean something else.
                    if matches!(problem, Problem::Future(_)) {
                        self.collect.forget();
                    }
                    problem
                }
            };
            if self.pause(&problem).await.is_err() {
                return Ended::Closed;
            }
        }
    }

    async fn list(&mut self, since: &Since, as_stream: bool) -> Result<(String, Option<Stream>), Stop> {
        if as_stream {
            let listed = self.list_as_stream(since).await;
            match &listed {
                Err(Stop::Problem(Problem::Silent(_) | Problem::Truncated)) => self.in_vain += 1,
                Ok(_) => self.in_vain = 0,
                Err(_) => {}
            }
            return listed.map(|(position, stream)| (position, Some(stream)));
        }
        self.in_vain = 0;
        Ok((self.list_by_pages(since).await?, None))
    }

    /// A watch that begins with all objects there are, and goes on with what changes.
    async fn list_as_stream(&mut self, since: &Since) -> Result<(String, Stream), Stop> {
        let revision = match since {
            Since::Any => "&resourceVersion=0".to_owned(),
            Since::Revision(revision) => format!("&resourceVersion={}", escaped(revision)),
            Since::Now => String::new(),
        };
        let mut stream = self.open(&format!("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan{revision}")).await?;
        let mut items: Vec<C::Item> = Vec::new();
        loop {
            while let Some(line) = stream.lines.next() {
                match event::read(line, &mut self.collect)? {
                    Event::Applied { item, .. } => items.extend(item),
                    // Not to be expected before the initial events are complete.
                    Event::Deleted(named) => {
                        items.retain(|item| !self.collect.is(item, &named));
                        self.collect.is_not_listed(&named);
                    }
                    Event::Bookmark { revision, ends_initial_events: true } => {
                        self.collect.listed(stream.at, items).await?;
                        return Ok((revision, stream));
                    }
                    Event::Bookmark { .. } => {}
                    Event::Error(problem) => return Err(problem.into()),
                }
            }
            let patience = self.api.patience();
            if !stream.more(patience).await? {
                return Err(Problem::Truncated.into());
            }
        }
    }

    async fn list_by_pages(&mut self, since: &Since) -> Result<String, Stop> {
        // What is asked of a revision comes from the cache only without a limit; the cache ignores it for revision 0.
        let mut query = match since {
            Since::Any => format!("resourceVersion=0&limit={}", self.options.page_size),
            Since::Revision(revision) => format!("resourceVersion={}&resourceVersionMatch=NotOlderThan", escaped(revision)),
            Since::Now => format!("limit={}", self.options.page_size),
        };
        let mut items: Vec<C::Item> = Vec::new();
        loop {
            let meta = self.page(&query, &mut items).await?;
            if meta.continue_token.is_empty() {
                if meta.resource_version.is_empty() {
                    return Err(Problem::Unreadable("the list has no resourceVersion".to_owned()).into());
                }
                self.collect.listed(Timestamp::now(), items).await?;
                return Ok(meta.resource_version);
            }
            query = format!("limit={}&continue={}", self.options.page_size, escaped(&meta.continue_token));
        }
    }

    async fn page(&mut self, query: &str, items: &mut Vec<C::Item>) -> Result<ListMeta, Problem> {
        let mut answer = self.api.get(&format!("{}?{query}", self.resource.path()), C::LIST).await?;
        let mut list = Items::new();
        while let Some(piece) = answer.piece(self.api.patience()).await? {
            let read = list.take(&piece, |json| {
                // What has no name is not read either.
                let Named { metadata } = serde_json::from_slice(json).unwrap_or_default();
                items.extend(self.collect.read(&metadata, json));
            });
            read.map_err(|error| Problem::Unreadable(error.to_string()))?;
        }
        list.finish().ok_or(Problem::Truncated)
    }

    /// Watches until it is to be listed anew: from where, and why.
    async fn follow(&mut self, mut position: String, mut stream: Option<Stream>) -> Result<(String, Problem), Ended> {
        loop {
            match self.watch(&mut position, stream.take()).await {
                Ok(()) => {}
                Err(Stop::Closed) => return Err(Ended::Closed),
                // What may not be read is not known any more, and is listed when it may be.
                Err(Stop::Problem(problem @ (Problem::Expired(_) | Problem::Forbidden(_)))) => return Ok((position, problem)),
                Err(Stop::Problem(Problem::NotFound)) if self.may_go => return Err(Ended::Gone),
                Err(Stop::Problem(problem)) => {
                    if self.pause(&problem).await.is_err() {
                        return Err(Ended::Closed);
                    }
                }
            }
        }
    }

    /// One watch, from `position` on, which moves along.
    async fn watch(&mut self, position: &mut String, stream: Option<Stream>) -> Result<(), Stop> {
        let mut stream = match stream {
            Some(stream) => stream,
            None => self.open(&format!("&resourceVersion={}", escaped(position))).await?,
        };
        self.entry.watching();
        let mut heard = false;
        loop {
            while let Some(line) = stream.lines.next() {
                let revision = match event::read(line, &mut self.collect)? {
                    Event::Applied { item: Some(item), named, is_new } => {
                        self.entry.count(usize::from(is_new), 0);
                        self.collect.applied(stream.at, item).await?;
                        named.resource_version
                    }
                    // Whatever was known of it is not so any more.
                    Event::Applied { item: None, mut named, is_new } => {
                        let revision = std::mem::take(&mut named.resource_version);
                        self.entry.count(0, usize::from(!is_new));
                        self.collect.unreadable(stream.at, named).await?;
                        revision
                    }
                    Event::Deleted(mut named) => {
                        let revision = std::mem::take(&mut named.resource_version);
                        self.entry.count(0, 1);
                        self.collect.deleted(stream.at, named).await?;
                        revision
                    }
                    Event::Bookmark { revision, .. } => revision,
                    Event::Error(problem) => return Err(problem.into()),
                };
                if !revision.is_empty() {
                    *position = revision;
                }
                // An error is not heard of the objects: it says that something was missed.
                self.entry.heard(stream.at);
                // The next of the same piece came behind it: who had an address between the two had it.
                stream.at += Duration::from_nanos(1);
                heard = true;
                self.backoff.succeeded();
            }
            if !stream.more(self.options.quiet).await? {
                break;
            }
        }
        // The server ends each watch after a while, and closes those that are too slow. That is no failure, unless there was nothing at all.
        if !heard && stream.opened.elapsed() < HASTY {
            return Err(Problem::Hasty.into());
        }
        self.backoff.succeeded();
        Ok(())
    }

    async fn open(&self, query: &str) -> Result<Stream, Problem> {
        // By lot, so that the watches of a thousand agents do not all end at once.
        let lasts = self.options.watch_timeout + jitter(self.options.watch_timeout);
        let path = format!("{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={}{query}", self.resource.path(), lasts.as_secs().max(1));
        let answer = self.api.get(&path, C::WATCH).await?;
        let opened = Instant::now();
        Ok(Stream { answer, lines: Lines::default(), at: Timestamp::now(), opened, until: opened + lasts + GRACE })
    }

    /// Waits before the next try.
    async fn pause(&mut self, problem: &Problem) -> Result<(), Closed> {
        let mut wait = self.backoff.failed(problem.retry_after());
        self.entry.failed(problem);
        if matches!(problem, Problem::Forbidden(_)) {
            self.collect.forbidden(Timestamp::now()).await?;
            // Nobody grants a permission within a second.
            wait = wait.max(self.options.forbidden_retry + jitter(self.options.forbidden_retry / 4));
        }
        tracing::debug!(resource = %self.resource, %problem, ?wait, "trying again");
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = self.sink.closed() => Err(Closed),
        }
    }
}

impl Stream {
    /// Waits for the next piece. False at the end.
    async fn more(&mut self, quiet: Duration) -> Result<bool, Problem> {
        let left = self.until.saturating_duration_since(Instant::now());
        let Some(piece) = self.answer.piece(quiet.min(left)).await? else { return Ok(false) };
        self.at = Timestamp::now();
        self.lines.push(&piece).map_err(|error| Problem::Unreadable(error.to_string()))?;
        Ok(true)
    }
}

/// A text as a value in a query.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
