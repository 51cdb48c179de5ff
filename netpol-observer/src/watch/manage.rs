//! Which watches there are: always those of the required kinds, and those of the optional ones while the cluster has them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::api::Api;
use super::backoff::{Backoff, jitter};
use super::collect::{Closed, Names, Objects, Sink};
use super::discover::{Discovered, discover};
use super::keep::{Ended, Keeper};
use super::resource::{POLICY_GROUP, Resource, optional, required};
use super::status::{Board, Entry, Use};
use super::{News, WatchOptions};
use crate::cluster::{Foreign, Kind};

/// A watch of an optional kind.
struct Running {
    /// The kind, where the engine reads it; otherwise it is only counted.
    kind: Option<Kind>,
    entry: Entry,
    task: Task,
}

/// A task that ends with whoever holds this.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// All watches.
pub(super) struct Manager {
    client: Client,
    options: Arc<WatchOptions>,
    board: Arc<Board>,
    sink: Sink,
    streaming: Arc<AtomicBool>,
    required: BTreeMap<Kind, Task>,
    optional: BTreeMap<Resource, Running>,
    /// Optional kinds of which it was told whether they are there.
    told: BTreeMap<Kind, bool>,
    /// Watches that ended because their resource is gone.
    ended: mpsc::Sender<Resource>,
    ends: mpsc::Receiver<Resource>,
}

impl Manager {
    pub(super) fn new(client: Client, options: WatchOptions, board: Arc<Board>, sink: Sink) -> Self {
        // One at a time for each resource, of which there are few.
        let (ended, ends) = mpsc::channel(64);
        let streaming = Arc::new(AtomicBool::new(options.streaming_lists));
        Manager {
            client,
            options: Arc::new(options),
            board,
            sink,
            streaming,
            required: BTreeMap::new(),
            optional: BTreeMap::new(),
            told: BTreeMap::new(),
            ended,
            ends,
        }
    }

    /// Watches until nobody reads the updates any more.
    pub(super) async fn run(mut self) {
        for (_, resource) in required() {
            self.board.entry(&resource, Use::Required);
        }
        tokio::time::sleep(jitter(self.options.start_jitter)).await;
        // What fails, and what comes and goes all the time, is asked about less and less often.
        let mut backoff = Backoff::new(self.options.first_retry, self.options.discovery_period);
        let api = Api::new(self.client.clone(), self.board.discovery(), self.options.answer_timeout);
        loop {
            self.keep_required();
            let discovered = discover(&api).await;
            let is_known = discovered.is_ok();
            let wait = match discovered {
                Ok(discovered) => {
                    if self.reconcile(discovered).await.is_err() {
                        return;
                    }
                    self.options.discovery_period / 2 + jitter(self.options.discovery_period)
                }
                Err(problem) => {
                    tracing::debug!(%problem, "cannot find out which kinds the cluster has");
                    self.board.not_discovered(&problem);
                    backoff.failed(problem.retry_after())
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => if is_known { backoff.succeeded() },
                () = self.sink.closed() => return,
                Some(resource) = self.ends.recv() => {
                    // Nothing is taken back yet: whether it is gone, or was not found for another reason, discovery tells.
                    self.optional.get(&resource).iter().for_each(|running| running.entry.failed(&super::problem::Problem::NotFound));
                    tokio::time::sleep(backoff.failed(None)).await;
                }
            }
        }
    }

    /// Sees to it that the required kinds are watched. Such a watch never ends; should it fall over a mistake here, it begins again.
    fn keep_required(&mut self) {
        for (kind, resource) in required() {
            if self.required.get(&kind).is_some_and(|task| !task.0.is_finished()) {
                continue;
            }
            let entry = self.board.entry(&resource, Use::Required);
            let collect = Objects::new(kind, self.sink.clone(), entry.clone(), None);
            let shared = (self.sink.clone(), self.options.clone(), self.streaming.clone());
            let keeper = Keeper::new(self.api(&entry), resource, collect, entry, shared, false);
            let task = tokio::spawn(async move {
                keeper.run().await;
            });
            self.required.insert(kind, Task(task));
        }
    }

    fn api(&self, entry: &Entry) -> Api {
        Api::new(self.client.clone(), entry.counters(), self.options.answer_timeout)
    }

    /// Starts and ends watches until there are those of what the cluster has.
    async fn reconcile(&mut self, discovered: Discovered) -> Result<(), Closed> {
        let Discovered { served, unknown } = discovered;
        let missed = unknown.get(POLICY_GROUP).or_else(|| unknown.values().next());
        let read = served.read().into_iter().map(|(kind, resource)| (resource, Some(kind)));
        let wanted: BTreeMap<Resource, Option<Kind>> = read.chain(served.foreign().into_iter().map(|resource| (resource, None))).collect();
        let is_over =
            |resource: &Resource, running: &Running| wanted.get(resource) != Some(&running.kind) && !unknown.contains_key(&resource.group);
        let over: Vec<Resource> =
            self.optional.iter().filter(|(resource, running)| is_over(resource, running)).map(|(resource, _)| resource.clone()).collect();
        for resource in over {
            if let Some(running) = self.optional.remove(&resource) {
                self.end(&resource, running).await?;
            }
        }
        for (resource, kind) in wanted {
            let Some(running) = self.optional.get(&resource) else {
                self.begin(resource, kind).await?;
                continue;
            };
            // Not found, and yet there: another try. It was waited before.
            if running.task.0.is_finished() {
                let task = self.spawn(&resource, kind, &running.entry);
                self.optional.entry(resource).and_modify(|running| running.task = task);
            }
        }
        for (kind, resource) in optional() {
            if !self.told.contains_key(&kind) && !unknown.contains_key(&resource.group) {
                self.board.entry(&resource, Use::Optional).unserved();
                self.tell(kind, false).await?;
            }
        }
        if !unknown.contains_key(POLICY_GROUP) {
            self.board.discovered(Timestamp::now());
        }
        missed.iter().for_each(|problem| self.board.not_discovered(problem));
        Ok(())
    }

    async fn begin(&mut self, resource: Resource, kind: Option<Kind>) -> Result<(), Closed> {
        let entry = self.board.entry(&resource, if kind.is_some() { Use::Optional } else { Use::Counted });
        match kind {
            Some(kind) => {
                self.told.insert(kind, true);
                self.sink.send(Timestamp::now(), News::Served { kind, served: true }).await?;
            }
            None => self.sink.send(Timestamp::now(), News::Foreign(uncounted(&resource))).await?,
        }
        let task = self.spawn(&resource, kind, &entry);
        self.optional.insert(resource, Running { kind, entry, task });
        Ok(())
    }

    fn spawn(&self, resource: &Resource, kind: Option<Kind>, entry: &Entry) -> Task {
        let (resource, entry) = (resource.clone(), entry.clone());
        let foreign = uncounted(&resource);
        let (sink, ended, gone) = (self.sink.clone(), self.ended.clone(), resource.clone());
        let shared = (sink.clone(), self.options.clone(), self.streaming.clone());
        let api = self.api(&entry);
        let task = match kind {
            Some(kind) => {
                let collect = Objects::new(kind, sink, entry.clone(), Some(foreign));
                let keeper = Keeper::new(api, resource, collect, entry, shared, true);
                tokio::spawn(async move { tell_end(keeper.run().await, ended, gone).await })
            }
            None => {
                let collect = Names::new(foreign, sink, entry.clone());
                let keeper = Keeper::new(api, resource, collect, entry, shared, true);
                tokio::spawn(async move { tell_end(keeper.run().await, ended, gone).await })
            }
        };
        Task(task)
    }

    /// The cluster does not have it any more: nor has it its objects.
    async fn end(&mut self, resource: &Resource, mut running: Running) -> Result<(), Closed> {
        // It must have ended before that is told, or an object of it could come after.
        running.task.0.abort();
        _ = (&mut running.task.0).await;
        running.entry.unserved();
        let at = Timestamp::now();
        // Those of a kind that may not be read are told in the same way.
        self.sink.send(at, News::ForeignGone { group: resource.group.as_str().into(), kind: resource.kind.as_str().into() }).await?;
        match running.kind {
            Some(kind) => {
                self.board.forget_warnings(kind);
                self.tell(kind, false).await
            }
            None => Ok(()),
        }
    }

    /// A kind is not there: there are none of it.
    async fn tell(&mut self, kind: Kind, served: bool) -> Result<(), Closed> {
        self.told.insert(kind, served);
        let at = Timestamp::now();
        self.sink.send(at, News::Served { kind, served }).await?;
        self.sink.send(at, News::Listed { kind, objects: Vec::new(), since: None }).await
    }
}

async fn tell_end(ended: Ended, to: mpsc::Sender<Resource>, resource: Resource) {
    if ended == Ended::Gone {
        // Nobody to tell: everything ends.
        _ = to.send(resource).await;
    }
}

fn uncounted(resource: &Resource) -> Foreign {
    Foreign::uncounted(&resource.group, &resource.kind, resource.namespaced)
}
