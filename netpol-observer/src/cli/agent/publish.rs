//! Where an agent's drops go besides its readers.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::AgentArgs;
use crate::agent::{About, Hub};
use crate::cli::CommandError;
use crate::publish::{Progress, Publisher, Sink};

/// What was not sent by then, at the end, is not sent.
const PATIENCE: Duration = Duration::from_secs(5);

/// Drops on their way to the sinks.
pub(super) struct Publishing(Option<JoinHandle<()>>);

impl AgentArgs {
    /// Begins to give drops to what they are wanted for.
    pub(super) fn publish(&self, api: &Runtime, hub: &Arc<Hub>, about: &About) -> Result<Publishing, CommandError> {
        let progress = Arc::new(Progress::default());
        let sinks = self.sinks(api, about)?;
        let publishing = (!sinks.is_empty()).then(|| api.spawn(Publisher::new(hub.part(), sinks, progress).run()));
        Ok(Publishing(publishing))
    }

    fn sinks(&self, api: &Runtime, about: &About) -> Result<Vec<Box<dyn Sink>>, CommandError> {
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        if let Some(sink) = self.otlp.sink(api, about)? {
            sinks.push(Box::new(sink));
        }
        Ok(sinks)
    }
}

impl Publishing {
    /// Waits until everything was given that the hub had when it was closed.
    pub(super) async fn ended(self) {
        let Some(publishing) = self.0 else { return };
        if timeout(PATIENCE, publishing).await.is_err() {
            tracing::warn!("drops were left that could not be counted or sent in time");
        }
    }
}
