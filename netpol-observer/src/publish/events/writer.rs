//! The task that writes: one request at a time, and a pause after what failed.

use std::time::{Duration, Instant};

use k8s_openapi::api::events::v1::Event;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::response::Status;
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};

use super::mention::Mention;
use super::table::{Job, Outcome, Table};
use crate::watch::Backoff;

/// An answer has to come within this time.
const ANSWER: Duration = Duration::from_secs(10);
/// The pause after a request that failed, doubled with each in a row.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often it is looked for what is due.
const TICK: Duration = Duration::from_millis(500);
/// Mentions taken in one go.
const TOGETHER: usize = 64;
/// What was not written so long after the end is not.
const LAST: Duration = Duration::from_secs(3);

/// What is said only once: the account goes on.
#[derive(Default)]
struct Said {
    forbidden: bool,
    refused: bool,
    failed: bool,
}

pub(super) struct Writer {
    client: Client,
    table: Table,
    mentions: mpsc::Receiver<Mention>,
    said: Said,
    backoff: Backoff,
    pause_until: Option<Instant>,
}

impl Writer {
    pub(super) fn new(client: Client, table: Table, mentions: mpsc::Receiver<Mention>) -> Self {
        Writer { client, table, mentions, said: Said::default(), backoff: Backoff::new(PAUSE.0, PAUSE.1), pause_until: None }
    }

    /// Runs until there are no more mentions, and what there was is written or given up.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(TOGETHER);
        let mut ended: Option<Instant> = None;
        loop {
            let now = Instant::now();
            if ended.is_some_and(|at| now.saturating_duration_since(at) >= LAST) {
                break;
            }
            let pauses = self.pause_until.is_some_and(|until| now < until);
            let job = if pauses { None } else { self.table.next(now) };
            let Some(job) = job else {
                if ended.is_some() {
                    break;
                }
                // Whether mentions came or time passed: there is something to look at.
                let taken = timeout(TICK, self.mentions.recv_many(&mut batch, TOGETHER)).await;
                if taken == Ok(0) {
                    ended = Some(Instant::now());
                    self.table.end();
                }
                self.take(&mut batch);
                continue;
            };
            let until = ended.map(|at| at + LAST);
            self.ask(job, &mut batch, &mut ended, until).await;
        }
        self.table.give_up();
    }

    fn take(&mut self, batch: &mut Vec<Mention>) {
        let now = Instant::now();
        for mention in batch.drain(..) {
            self.table.take(&mention, now);
        }
    }

    /// Makes a request, and takes mentions meanwhile.
    async fn ask(&mut self, job: Job, batch: &mut Vec<Mention>, ended: &mut Option<Instant>, until: Option<Instant>) {
        let client = self.client.clone();
        let asking = timeout(ANSWER, request(client, job));
        tokio::pin!(asking);
        let answer = loop {
            tokio::select! {
                answer = &mut asking => break answer,
                taken = self.mentions.recv_many(batch, TOGETHER), if ended.is_none() => {
                    if taken == 0 {
                        *ended = Some(Instant::now());
                        self.table.end();
                    }
                    self.take(batch);
                }
                () = sleep_until(until.or(ended.map(|at| at + LAST)).unwrap_or_else(Instant::now).into()), if until.is_some() || ended.is_some() => return,
            }
        };
        let (outcome, why) = answer.unwrap_or_else(|_| (Outcome::Failed, format!("no answer within {} s", ANSWER.as_secs())));
        let now = Instant::now();
        self.table.done(&outcome, now);
        self.say(&outcome, &why);
        if outcome == Outcome::Failed {
            self.pause_until = Some(now + self.backoff.failed(None));
        } else {
            self.backoff.succeeded();
            self.pause_until = None;
        }
    }

    fn say(&mut self, outcome: &Outcome, why: &str) {
        let (said, what) = match outcome {
            Outcome::Done => {
                if std::mem::take(&mut self.said.failed) {
                    tracing::warn!("Events can be written again");
                }
                return;
            }
            Outcome::Missing | Outcome::NamespaceGone => return,
            Outcome::Forbidden => {
                (&mut self.said.forbidden, "some Events are left out, and it is tried again every few minutes (docs/events.md)")
            }
            Outcome::Refused => (&mut self.said.refused, "an Event is refused, please report this as a bug"),
            Outcome::Failed => (&mut self.said.failed, "no Events can be written at the moment"),
        };
        if !std::mem::replace(said, true) {
            tracing::warn!("{what}: {why}");
        }
    }
}

/// The outcome, and in words what was answered.
async fn request(client: Client, job: Job) -> (Outcome, String) {
    let (result, creates) = match job {
        Job::Create(event) => {
            let api: Api<Event> = Api::namespaced(client, event.metadata.namespace.as_deref().unwrap_or_default());
            (api.create(&PostParams::default(), &event).await, true)
        }
        Job::Patch { namespace, name, series } => {
            let api: Api<Event> = Api::namespaced(client, &namespace);
            let patch = Patch::Merge(json!({"series": series}));
            (api.patch(&name, &PatchParams::default(), &patch).await, false)
        }
    };
    match result {
        Ok(_) => (Outcome::Done, String::new()),
        Err(kube::Error::Api(status)) => (outcome(&status, creates), status.message.clone()),
        Err(error) => (Outcome::Failed, error.to_string()),
    }
}

fn outcome(status: &Status, creates: bool) -> Outcome {
    let is_ending = || {
        let causes = status.details.as_ref().map_or(&[][..], |details| &details.causes);
        causes.iter().any(|cause| cause.reason == "NamespaceTerminating") || status.message.contains("because it is being terminated")
    };
    match status.code {
        // The request before was answered too late, or not at all: names are drawn by lot.
        409 if creates => Outcome::Done,
        403 if is_ending() => Outcome::NamespaceGone,
        403 => Outcome::Forbidden,
        404 if creates => Outcome::NamespaceGone,
        404 => Outcome::Missing,
        // What a token that is read anew, a pause or another try may mend.
        401 | 408 | 409 | 429 => Outcome::Failed,
        400..500 => Outcome::Refused,
        _ => Outcome::Failed,
    }
}

/// Runs a writer on a runtime.
pub(super) fn start(writer: Writer) -> tokio::task::JoinHandle<()> {
    tokio::spawn(writer.run())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let of = |code, message: &str, creates| outcome(&Status { code, message: message.to_owned(), ..Status::default() }, creates);
        let ending = "events.events.k8s.io \"a\" is forbidden: unable to create new content in namespace a because it is being terminated";
        assert_eq!((of(403, "no", true), of(403, ending, true)), (Outcome::Forbidden, Outcome::NamespaceGone));
        assert_eq!((of(404, "", true), of(404, "", false)), (Outcome::NamespaceGone, Outcome::Missing));
        assert_eq!((of(409, "", true), of(409, "", false)), (Outcome::Done, Outcome::Failed));
        assert_eq!([422, 400].map(|code| of(code, "", true)), [Outcome::Refused, Outcome::Refused]);
        assert_eq!([401, 429, 500, 503, 504].map(|code| of(code, "", true)), std::array::from_fn(|_| Outcome::Failed));
    }

    #[test]
    fn a_cause_tells_too_that_a_namespace_ends() {
        let status = json!({"code": 403, "details": {"causes": [{"reason": "NamespaceTerminating", "message": "", "field": ""}]}});
        let status: Status = serde_json::from_value(status).unwrap();
        assert_eq!(outcome(&status, true), Outcome::NamespaceGone);
    }
}
