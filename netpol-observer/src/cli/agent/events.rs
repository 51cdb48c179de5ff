//! `observer agent --events`

use clap::Args;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::agent::About;
use crate::cli::CommandError;
use crate::client::ClusterOptions;
use crate::install::{ACROSS_NAMESPACES, OWN_NAMESPACE};
use crate::publish::events::{Disclosure, Events, EventsOptions, Limits};
use crate::watch::connect;

/// What Events may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scope {
    /// What is in the namespace of the pod that an Event is about; of the other end the address alone, where it is in another one.
    OwnNamespace,
    /// Pods, labels and policies of other namespaces too, to whoever may read Events in one of both (docs/security.md).
    AcrossNamespaces,
}

impl Scope {
    /// As it is written on the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Scope::OwnNamespace => OWN_NAMESPACE,
            Scope::AcrossNamespaces => ACROSS_NAMESPACES,
        }
    }
}

#[derive(Args)]
pub(super) struct EventsArgs {
    /// Write Events of Kubernetes: on pods that were blocked, and on those whose policies blocked them (docs/events.md). It needs the right to create and
    /// patch them, which `observer install --events` gives. --events alone is --events=own-namespace.
    #[arg(long, value_enum, value_name = "SCOPE", num_args = 0..=1, require_equals = true, default_missing_value = "own-namespace", help_heading = "Events")]
    events: Option<Scope>,
}

impl EventsArgs {
    /// `has_no_cluster`: the drops or the objects are from files.
    pub(super) fn check(&self, has_no_cluster: bool) -> Result<(), CommandError> {
        if self.events.is_some() && has_no_cluster {
            return Err(CommandError::usage(
                "--events needs a cluster: with --manifests or --replay there is none whose pods could be told",
            )
            .hint("leave --events out, or take the objects and the drops from where they are"));
        }
        Ok(())
    }

    /// Begins to write them, if they are wanted.
    pub(super) fn start(
        &self,
        api: &Runtime,
        configuration: &ClusterOptions,
        about: &About,
    ) -> Result<Option<(Events, JoinHandle<()>)>, CommandError> {
        let Some(scope) = self.events else { return Ok(None) };
        let _entered = api.enter();
        let read = api.block_on(configuration.read());
        let client = read.and_then(|read| connect(read.config.clone()).map_err(|error| read.unusable(&error)));
        let client = client.map_err(|error| {
            CommandError::failure(format!("--events needs an API server to write to, and none is known: {error}"))
                .hint("in a pod, the ServiceAccount's token has to be mounted; elsewhere KUBECONFIG names a file")
        })?;
        let disclosure = match scope {
            Scope::OwnNamespace => Disclosure::OwnNamespace,
            Scope::AcrossNamespaces => Disclosure::AcrossNamespaces,
        };
        let options = EventsOptions { node: &about.node, pod: about.pod.as_deref(), disclosure, limits: Limits::default() };
        Ok(Some(Events::start(client, &options)))
    }
}
