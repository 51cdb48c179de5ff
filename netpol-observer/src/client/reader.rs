//! One agent's stream: connects, reads frames, and connects again when it breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use super::call::{Access, Called, Unreached};
use super::clean::Cleaner;
use super::frame::{Account, Frame, Hello, Unreadable};
use super::merge::Source;
use super::resume::Resume;
use super::roster::Agent;
use super::skew::Skew;

/// The longest frame that is read. A denial has some kilobytes.
const MAX_FRAME: usize = 1024 * 1024;

/// What of one agent may wait to be given: then it is read no further, until something is.
const QUOTA: usize = 512 * 1024;

/// An agent that sends nothing for so long is not waited for. It sends a watermark every 250 ms.
const STALL: Duration = Duration::from_secs(2);

/// After so long without anything the connection is held to be dead.
const DEAD: Duration = Duration::from_secs(15);

/// Time between attempts: doubled with each that fails.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// So often an agent is asked for what it has kept.
const ATTEMPTS: u32 = 3;

/// A connection that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(5);

/// What is asked of every agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Words of `observer tail`'s filter options.
    pub words: Vec<String>,
    /// Go on after what the agent has kept.
    pub follow: bool,
    /// The last so many denials that the agent has kept.
    pub last: Option<u32>,
    /// What the agent has kept since then.
    pub since: Option<Timestamp>,
    /// Noise too, and what touches nothing in the cluster.
    pub all: bool,
    /// Objects instead of text.
    pub json: bool,
    /// One line per denial.
    pub oneline: bool,
    /// With colours.
    pub colour: bool,
    /// Of the local time, in seconds east.
    pub utc_offset: i32,
}

impl Query {
    /// The path and query to ask for; from `since` on when a stream goes on.
    fn path(&self, since: Option<Timestamp>) -> String {
        const PATH: &str = "/v1/drops?";
        let mut query = form_urlencoded::Serializer::for_suffix(PATH.to_owned(), PATH.len());
        let flag = |on: bool| if on { "true" } else { "false" };
        query.append_pair("follow", flag(self.follow));
        match (since, self.last) {
            (Some(since), _) => _ = query.append_pair("since", &since.to_string()),
            (None, Some(last)) => _ = query.append_pair("last", &last.to_string()),
            (None, None) => {}
        }
        for word in &self.words {
            query.append_pair("arg", word);
        }
        query.append_pair("all", flag(self.all));
        query.append_pair("form", if self.json { "json" } else { "text" });
        if !self.json {
            query.append_pair("oneline", flag(self.oneline));
            query.append_pair("colour", flag(self.colour));
            query.append_pair("utcOffset", &self.utc_offset.to_string());
        }
        query.finish()
    }
}

/// What a reader tells.
#[derive(Debug)]
pub(super) enum Told {
    /// The agent has answered.
    Hello {
        hello: Hello,
        skew: Skew,
        /// What was dropped between these times, by the agent's clock, it does not know any more.
        gap: Option<(Timestamp, Timestamp)>,
    },
    Item {
        order: Timestamp,
        change: Option<String>,
        text: String,
        /// Given back when the item is printed.
        permit: OwnedSemaphorePermit,
    },
    Watermark(Timestamp),
    /// Too much of it waits: it is not read before something is given.
    Full,
    Stalled,
    Lost(u64),
    Unreadable(Unreadable),
    Account(Account),
    /// The agent ended the stream on purpose.
    Ended(String),
    /// The stream broke, or did not begin.
    Broken(Unreached),
    /// Nothing more comes.
    Done,
}

/// Reads one agent.
pub(super) struct Reader {
    pub(super) source: Source,
    pub(super) agent: Agent,
    pub(super) access: Access,
    pub(super) query: Arc<Query>,
    pub(super) cleaner: Arc<Cleaner>,
    /// From when on the first connection asks, if it is later than that of others.
    pub(super) begin: Option<Timestamp>,
    /// The pod is ending: when the stream ends there is none after it.
    pub(super) ending: Arc<AtomicBool>,
    pub(super) tell: mpsc::Sender<(Source, Told)>,
}

/// Nobody listens any more.
struct Unheard;

impl Reader {
    /// Until nothing more comes, or nobody listens.
    pub(super) async fn run(self) {
        let mut resume = Resume::new();
        if let Some(begin) = self.begin.or(self.query.since) {
            resume.begins(begin);
        }
        let quota = Arc::new(Semaphore::new(QUOTA));
        let mut wait = BACKOFF.0;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let began = Instant::now();
            let told = match self.read(&mut resume, &quota).await {
                Ok(Ok(Some(reason))) => Told::Ended(reason),
                Ok(Ok(None)) => Told::Done,
                Ok(Err(why)) => Told::Broken(why),
                Err(Unheard) => return,
            };
            // Who wants but what is kept does not wait for an agent to come back.
            let given_up = !self.query.follow && (attempts == ATTEMPTS || matches!(told, Told::Ended(_)));
            let over = given_up || matches!(told, Told::Done) || self.ending.load(Ordering::Relaxed);
            let token = matches!(&told, Told::Broken(Unreached::Refused { status: 401, .. }));
            let done = matches!(told, Told::Done);
            if self.tell(told).await.is_err() {
                return;
            }
            if over {
                if !done {
                    _ = self.tell(Told::Done).await;
                }
                return;
            }
            if token {
                self.access.forget_token().await;
            }
            if began.elapsed() > GOOD {
                wait = BACKOFF.0;
            }
            // Agents of a cluster whose API server was away do not all come back in one moment.
            sleep(wait.mul_f64(0.5 + 0.5 * spread(&self.agent.uid, began))).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    /// One connection. The reason that the agent gave for its end; `None` when it has sent all it was asked for.
    async fn read(&self, resume: &mut Resume, quota: &Arc<Semaphore>) -> Result<Result<Option<String>, Unreached>, Unheard> {
        let asked = Instant::now();
        resume.connect();
        let expected = resume.since();
        let mut called = match self.access.call(&self.agent, Method::GET, &self.query.path(expected), None).await {
            Ok(called) if called.status == 200 => called,
            Ok(called) => return Ok(Err(called.refusal().await)),
            Err(why) => return Ok(Err(why)),
        };
        let mut lines = Lines::default();
        let mut greeted = false;
        let mut account = false;
        loop {
            let line = match lines.next(&mut called, || self.tell(Told::Stalled)).await? {
                Ok(Next::Line(line)) => line,
                Ok(Next::TooLong) => {
                    self.tell(Told::Unreadable(Unreadable::TooLong)).await?;
                    continue;
                }
                Ok(Next::End) if account && !self.query.follow => return Ok(Ok(None)),
                Ok(Next::End) => return Ok(Err(called.broken("the stream ended without a word").await)),
                Err(what) => return Ok(Err(called.broken(&what).await)),
            };
            let frame = match Frame::parse(&line, &self.agent.node, &self.cleaner) {
                Ok(Frame::Hello(_)) if greeted => continue,
                Ok(Frame::Hello(hello)) => {
                    greeted = true;
                    let skew = Skew::measured(hello.time, Timestamp::now(), asked.elapsed());
                    let gap = expected.zip(hello.retained_since).filter(|(expected, kept)| expected < kept);
                    if self.query.follow && self.query.last.is_none() {
                        // What is dropped from the question on is owed, by the agent's clock.
                        let took = SignedDuration::try_from(asked.elapsed()).unwrap_or(SignedDuration::ZERO);
                        resume.begins(hello.time.checked_sub(took).unwrap_or(hello.time));
                    }
                    self.tell(Told::Hello { hello, skew, gap }).await?;
                    continue;
                }
                Ok(_) if !greeted => {
                    return Ok(Err(Unreached::Failed("what answers there is no agent: its first frame is no hello".to_owned())));
                }
                Err(error) if !greeted => return Ok(Err(Unreached::Failed(format!("what answers there is no agent: {error}")))),
                Ok(frame) => frame,
                Err(error) => {
                    self.tell(Told::Unreadable(error)).await?;
                    continue;
                }
            };
            match frame {
                Frame::Item { order, change, text } => {
                    if resume.is_new(order, &text) {
                        self.item(order, change, text, quota).await?;
                    }
                }
                Frame::Watermark(order) => {
                    resume.received(order);
                    self.tell(Told::Watermark(order)).await?;
                }
                Frame::Lost(count) => self.tell(Told::Lost(count)).await?,
                Frame::Ledger(found) => {
                    account = true;
                    self.tell(Told::Account(found)).await?;
                }
                Frame::End(reason) => return Ok(Ok(Some(reason))),
                Frame::Hello(_) | Frame::Unknown => {}
            }
        }
    }

    async fn item(&self, order: Timestamp, change: Option<String>, text: String, quota: &Arc<Semaphore>) -> Result<(), Unheard> {
        let size = u32::try_from(text.len().clamp(1, QUOTA)).unwrap_or(1);
        let permit = match Arc::clone(quota).try_acquire_many_owned(size) {
            Ok(permit) => permit,
            Err(_) => {
                self.tell(Told::Full).await?;
                Arc::clone(quota).acquire_many_owned(size).await.map_err(|_| Unheard)?
            }
        };
        self.tell(Told::Item { order, change, text, permit }).await
    }

    async fn tell(&self, told: Told) -> Result<(), Unheard> {
        self.tell.send((self.source, told)).await.map_err(|_| Unheard)
    }
}

/// A number from 0 to 1 that differs between agents and attempts.
fn spread(uid: &str, began: Instant) -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    f64::from(u32::try_from(RandomState::new().hash_one((uid, began)) >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

/// Lines of a body.
#[derive(Default)]
struct Lines {
    buffer: BytesMut,
    /// Bytes of the buffer that hold no newline.
    searched: usize,
    /// The rest of a line that is too long is passed over.
    skipping: bool,
}

enum Next {
    Line(Bytes),
    TooLong,
    End,
}

impl Lines {
    /// The next one. `stalled` is called when none comes for a while.
    async fn next<F: Future<Output = Result<(), Unheard>>>(
        &mut self,
        called: &mut Called,
        stalled: impl Fn() -> F,
    ) -> Result<Result<Next, String>, Unheard> {
        let mut waited = Duration::ZERO;
        loop {
            if let Some(next) = self.take() {
                return Ok(Ok(next));
            }
            // Only waiting for the agent counts: a reader that is held back itself does not call it dead.
            match timeout(STALL, called.body.frame()).await {
                Err(_) => {
                    waited += STALL;
                    if waited >= DEAD {
                        return Ok(Err(format!("nothing came for {} s", waited.as_secs())));
                    }
                    stalled().await?;
                }
                Ok(None) if self.buffer.is_empty() => return Ok(Ok(Next::End)),
                Ok(None) => return Ok(Err("the stream ended in the middle of a frame".to_owned())),
                Ok(Some(Err(error))) => return Ok(Err(super::access::chain(&error))),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    fn take(&mut self) -> Option<Next> {
        loop {
            match self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                Some(at) => {
                    let line = self.buffer.split_to(self.searched + at).freeze();
                    self.buffer.advance(1);
                    self.searched = 0;
                    if std::mem::take(&mut self.skipping) {
                        continue;
                    }
                    if line.len() > MAX_FRAME {
                        return Some(Next::TooLong);
                    }
                    return Some(Next::Line(line));
                }
                None if self.skipping => {
                    self.buffer.clear();
                    self.searched = 0;
                    return None;
                }
                None if self.buffer.len() > MAX_FRAME => {
                    self.buffer.clear();
                    self.searched = 0;
                    self.skipping = true;
                    return Some(Next::TooLong);
                }
                None => {
                    self.searched = self.buffer.len();
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_query_of_the_api() {
        let since: Timestamp = "2026-11-23T14:02:11.5Z".parse().unwrap();
        let query = Query {
            words: vec!["--namespace=shop".to_owned(), "--not".to_owned(), "--selector=app in (a,b)".to_owned()],
            follow: true,
            last: Some(5),
            utc_offset: -3600,
            ..Query::default()
        };
        assert_eq!(
            query.path(None),
            "/v1/drops?follow=true&last=5&arg=--namespace%3Dshop&arg=--not&arg=--selector%3Dapp+in+%28a%2Cb%29&all=false&form=text&oneline=false&colour=false&utcOffset=-3600"
        );
        let query = Query { json: true, last: Some(5), ..Query::default() };
        assert_eq!(query.path(Some(since)), "/v1/drops?follow=false&since=2026-11-23T14%3A02%3A11.5Z&all=false&form=json");
    }

    proptest! {
        /// However the bytes are cut: the lines are those between newlines, and what is longer than a frame may be is told once.
        #[test]
        fn lines_do_not_depend_on_how_bytes_come(
            lines in proptest::collection::vec(prop_oneof![9 => 0..200usize, 1 => MAX_FRAME - 1..MAX_FRAME + 3], 0..6),
            piece in prop_oneof![1..100usize, Just(MAX_FRAME / 3), Just(usize::MAX)],
        ) {
            prop_assume!(piece > 50 || lines.iter().sum::<usize>() < 10_000);
            let sent: Vec<u8> = lines.iter().flat_map(|length| [vec![b'x'; *length], vec![b'\n']].concat()).collect();
            let mut reader = Lines::default();
            let mut found = Vec::new();
            for bytes in sent.chunks(piece) {
                reader.buffer.extend_from_slice(bytes);
                while let Some(next) = reader.take() {
                    found.push(match next {
                        Next::Line(line) => Some(line.len()),
                        _ => None,
                    });
                }
                prop_assert!(reader.buffer.len() <= MAX_FRAME);
            }
            let expected: Vec<_> = lines.iter().map(|length| Some(*length).filter(|length| *length <= MAX_FRAME)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
