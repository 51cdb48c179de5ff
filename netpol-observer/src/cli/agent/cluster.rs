//! Where the objects of an agent come from: files, or an API server.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::runtime::Runtime;

use super::{AgentArgs, cannot_start, runtime, say};
use crate::agent::{FixedObjects, Judge, Manifests, Objects, Timings, Watched, WatchedJudge};
use crate::cli::CommandError;
use crate::cli::tail::{counted, load, skipped};
use crate::cli::time::parse_duration;
use crate::client::{ClusterError, ClusterOptions};
use crate::cluster::Index;
use crate::pipeline::{Moments, MomentsOptions};
use crate::policy::{Engine, Profile};
use crate::question::profile::profile;
use crate::timeline::{self, Timeline};
use crate::watch::{WatchOptions, connect, start};

/// What is told late has to meet what was there at the time.
const LEAST_REMEMBERED: SignedDuration = SignedDuration::from_mins(1);
const MOST_REMEMBERED: SignedDuration = SignedDuration::from_hours(1);

/// The watches have threads of their own: one may decode a long list while the other reads what comes.
const WATCH_THREADS: usize = 2;

/// The cluster's objects: what judges drops by them, and what answers questions about them.
pub(super) struct Cluster {
    pub(super) judge: Box<dyn Judge>,
    pub(super) objects: Arc<dyn Objects>,
    /// `4 pods, 1 policy`, or whose objects are watched.
    pub(super) summary: String,
    /// What has to be kept for as long.
    pub(super) watches: Option<Watches>,
}

/// Where watches run.
pub(super) struct Watches(Option<Runtime>);

impl Drop for Watches {
    fn drop(&mut self) {
        // Requests that are under way are not waited for.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl AgentArgs {
    /// Where the objects come from.
    pub(super) fn cluster(&self, timings: &Timings) -> Result<Cluster, CommandError> {
        let profile = profile(&self.profile).map_err(CommandError::usage)?;
        if self.manifests.is_empty() {
            return self.watched(profile, timings);
        }
        let loaded = load(&self.manifests)?;
        for warning in loaded.warnings.iter().map(ToString::to_string).chain(skipped(&loaded.skipped)) {
            say(&format!("warning: {warning}"));
        }
        let mut index = Index::default();
        index.reset(loaded.objects);
        let counts = index.counts();
        let summary = format!("{}, {}", counted(counts.pods, "pod", "pods"), counted(counts.network_policies, "policy", "policies"));
        let engine = Arc::new(Engine::over(index, profile));
        Ok(Cluster {
            judge: Box::new(Manifests::new(Arc::clone(&engine))),
            objects: Arc::new(FixedObjects::new(engine, false)),
            summary,
            watches: None,
        })
    }

    /// Which API server.
    pub(super) fn configuration(&self) -> ClusterOptions {
        ClusterOptions { kubeconfig: self.kubeconfig.clone(), context: self.context.clone(), ..ClusterOptions::default() }
    }

    /// The objects of an API server.
    fn watched(&self, profile: Profile, timings: &Timings) -> Result<Cluster, CommandError> {
        let runtime = runtime("watch", WATCH_THREADS)?;
        let _entered = runtime.enter();
        let read = runtime.block_on(self.configuration().read()).map_err(no_cluster)?;
        let client = connect(read.config.clone()).map_err(|error| no_cluster(read.unusable(&error)))?;
        let limits = timeline::Limits { keep: self.remember, ..timeline::Limits::default() };
        let timeline = Timeline::new(profile, limits, Timestamp::now());
        let watched = Watched::new(Moments::new(timeline, MomentsOptions::default()));
        let watching =
            start(client, WatchOptions { start_jitter: self.start_jitter.try_into().unwrap_or_default(), ..WatchOptions::default() });
        Arc::clone(&watched).follow(watching, runtime.handle(), timings.update.clone()).map_err(cannot_start)?;
        Ok(Cluster {
            judge: Box::new(WatchedJudge::new(Arc::clone(&watched))),
            objects: watched,
            summary: format!("watching the objects of {}", read.name),
            watches: Some(Watches(Some(runtime))),
        })
    }
}

fn no_cluster(error: ClusterError) -> CommandError {
    let manifests =
        "or take the objects from files: kubectl get po,svc,endpointslices,netpol,ns,no -A -o yaml > cluster.yaml, and -f cluster.yaml";
    let hint = match &error {
        ClusterError::NoConfiguration => "give --kubeconfig FILE, set KUBECONFIG, or mount the ServiceAccount's token into the pod",
        ClusterError::Unusable { .. } => "`kubectl config view` shows the configuration, `kubectl config get-contexts` the contexts",
    };
    CommandError::failure(error).hint(hint).hint(manifests)
}

/// A time to remember: none would leave nothing to judge by.
pub(super) fn parse_remember(text: &str) -> Result<SignedDuration, String> {
    let duration = parse_duration(text)?;
    if duration < LEAST_REMEMBERED || duration > MOST_REMEMBERED {
        return Err("expected a time from 1m to 1h".to_owned());
    }
    Ok(duration)
}
