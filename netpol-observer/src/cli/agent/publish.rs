//! Where an agent's drops go besides its readers.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{AgentArgs, say};
use crate::agent::{About, Hub};
use crate::cli::CommandError;
use crate::publish::events::Counters;
use crate::publish::{Progress, Publisher, Sink};

/// What was not sent by then, at the end, is not sent.
const PATIENCE: Duration = Duration::from_secs(5);

/// Drops on their way to the sinks.
pub(super) struct Publishing {
    /// Gives them to the sinks.
    publisher: Option<JoinHandle<()>>,
    /// What sinks have handed on, on its way; each ends by itself after the publisher.
    tasks: Vec<JoinHandle<()>>,
    /// What became of Events, where some were wanted.
    events: Option<Arc<Counters>>,
}

impl AgentArgs {
    /// Begins to give drops to what they are wanted for.
    pub(super) fn publish(&self, api: &Runtime, hub: &Arc<Hub>, about: &About) -> Result<Publishing, CommandError> {
        let progress = Arc::new(Progress::default());
        let mut publishing = Publishing { publisher: None, tasks: Vec::new(), events: None };
        let sinks = self.sinks(api, about, &mut publishing)?;
        publishing.publisher = (!sinks.is_empty()).then(|| api.spawn(Publisher::new(hub.part(), sinks, progress).run()));
        Ok(publishing)
    }

    fn sinks(&self, api: &Runtime, about: &About, publishing: &mut Publishing) -> Result<Vec<Box<dyn Sink>>, CommandError> {
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        if let Some((events, task)) = self.events.start(api, &self.configuration(), about)? {
            publishing.events = Some(events.counters());
            publishing.tasks.push(task);
            sinks.push(Box::new(events));
        }
        Ok(sinks)
    }
}

impl Publishing {
    /// Waits until everything was given that the hub had when it was closed.
    pub(super) async fn ended(self) {
        let all = async {
            for task in self.publisher.into_iter().chain(self.tasks) {
                // Whatever became of it, the others are waited for.
                _ = task.await;
            }
        };
        if timeout(PATIENCE, all).await.is_err() {
            tracing::warn!("drops were left that could not be counted or sent in time");
        }
        if let Some(events) = self.events {
            say(&format!("Events: {events}"));
        }
    }
}
