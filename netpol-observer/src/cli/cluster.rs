//! Options of commands that speak to the agents of a cluster, and what to do when that fails.

use std::path::PathBuf;

use clap::Args;

use super::CommandError;
use crate::client::{Cluster, ClusterError, ClusterOptions, Pin, Stop, TenantOptions};

/// Which cluster, and which agents.
#[derive(Args, Clone, Debug)]
pub(super) struct ClusterArgs {
    /// Read the configuration of the cluster from this file instead of KUBECONFIG or ~/.kube/config.
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig to use, instead of its current one.
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    context: Option<String>,

    /// Only the agent of this node. May be given several times.
    #[arg(long = "node", value_name = "NAME", help_heading = "Cluster")]
    pub(super) nodes: Vec<String>,

    /// The namespace that the agents run in.
    #[arg(
        long,
        value_name = "NAMESPACE",
        default_value = "netpol-observer",
        env = "OBSERVER_AGENT_NAMESPACE",
        hide_env_values = true,
        help_heading = "Cluster"
    )]
    agent_namespace: String,

    /// The port of the agents' API in their pods.
    #[arg(long, value_name = "PORT", default_value_t = 9470, value_parser = clap::value_parser!(u16).range(1..), help_heading = "Cluster")]
    agent_port: u16,

    /// For agents in tenant mode: speak to them as this ServiceAccount. A token for them, good for ten minutes, is made for it; the
    /// credential of the kubeconfig goes to the API server only.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = parse_account, help_heading = "Tenant mode")]
    as_service_account: Option<(String, String)>,

    /// The audience of the token.
    #[arg(long, value_name = "AUDIENCE", default_value = "netpol-observer", help_heading = "Tenant mode")]
    token_audience: String,

    /// The agents' certificate in PEM, or that of the authority which has signed it.
    #[arg(long, value_name = "FILE", conflicts_with = "agent_fingerprint", help_heading = "Tenant mode")]
    agent_ca: Option<PathBuf>,

    /// The SHA-256 fingerprint of the agents' certificate.
    #[arg(long, value_name = "SHA256", value_parser = Pin::fingerprint, help_heading = "Tenant mode")]
    agent_fingerprint: Option<Pin>,
}

fn parse_account(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("expected NAMESPACE/NAME of a ServiceAccount".to_owned()),
    }
}

impl ClusterArgs {
    /// The first option that only makes sense with a cluster, if one was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        let given = [
            (self.kubeconfig.is_some(), "--kubeconfig"),
            (self.context.is_some(), "--context"),
            (!self.nodes.is_empty(), "--node"),
            (self.as_service_account.is_some(), "--as-service-account"),
            (self.agent_ca.is_some(), "--agent-ca"),
            (self.agent_fingerprint.is_some(), "--agent-fingerprint"),
        ];
        given.into_iter().find(|(given, _)| *given).map(|(_, option)| option)
    }

    /// Whether there is a cluster to ask.
    pub(super) fn is_configured(&self) -> bool {
        self.given().is_some() || self.plain_options().is_configured()
    }

    fn plain_options(&self) -> ClusterOptions {
        ClusterOptions {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            agent_namespace: self.agent_namespace.clone(),
            agent_port: self.agent_port,
            tenant: None,
        }
    }

    fn options(&self) -> Result<ClusterOptions, CommandError> {
        let pin = self.agent_ca.clone().map(Pin::File).or_else(|| self.agent_fingerprint.clone());
        let tenant = match (&self.as_service_account, pin) {
            (Some((namespace, name)), Some(pin)) => {
                Some(TenantOptions { namespace: namespace.clone(), name: name.clone(), audience: self.token_audience.clone(), pin })
            }
            (Some(_), None) => {
                let error = CommandError::usage("--as-service-account sends a token to the agents, and nothing says how to know them");
                return Err(error.hint("name their certificate with --agent-fingerprint SHA256 or --agent-ca FILE"));
            }
            (None, Some(pin)) => {
                let error = CommandError::usage(format!("{pin} is about agents in tenant mode, which want a token"));
                return Err(error.hint("name a ServiceAccount with --as-service-account NAMESPACE/NAME"));
            }
            (None, None) => None,
        };
        Ok(ClusterOptions { tenant, ..self.plain_options() })
    }

    /// Reads the configuration.
    pub(super) async fn cluster(&self) -> Result<Cluster, CommandError> {
        Cluster::configure(self.options()?).await.map_err(|error| {
            let hint = match &error {
                ClusterError::NoConfiguration => "give --kubeconfig FILE, or set KUBECONFIG",
                ClusterError::Unusable { .. } => {
                    "`kubectl config view` shows the configuration, `kubectl config get-contexts` the contexts"
                }
            };
            CommandError::failure(error).hint(hint)
        })
    }

    /// Why the agents could not be asked, and what to do.
    pub(super) fn failed(&self, stop: Stop, cluster: &Cluster) -> CommandError {
        let namespace = cluster.agent_namespace();
        match stop {
            Stop::Output(error) => CommandError::failure(format!("cannot write the output: {error}")),
            Stop::Forbidden(why) => CommandError::failure(format!("this user may not reach the agents: {why}")).hint(format!(
                "in namespace {namespace} it takes get, list and watch on pods, and get and create on pods/portforward; and get, list and watch on nodes, to \
                 notice those without an agent"
            )),
            Stop::NoAgents => {
                let nodes = if self.nodes.is_empty() { String::new() } else { format!(" on {}", self.nodes.join(", ")) };
                CommandError::failure(format!("no agent runs in namespace {namespace}{nodes} ({})", cluster.name()))
                    .hint(
                        "`kubectl get pods -A -l app.kubernetes.io/component=agent` shows where agents run; --agent-namespace names another namespace",
                    )
                    .hint("to watch this machine alone, give --local")
            }
            Stop::Unreachable(why) => CommandError::failure(format!("{} does not answer: {why}", cluster.name()))
                .hint("`kubectl version` tries the same API server; to watch this machine alone, give --local"),
        }
    }
}
