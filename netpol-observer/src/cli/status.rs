//! `observer status`

mod table;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anstream::AutoStream;
use clap::Args;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::cluster::ClusterArgs;
use super::{Colour, CommandError, OutputForm};
use crate::client::{AgentStatus, ClusterStatus};

/// Show the agents of a cluster: on which nodes they run, whether they know the cluster, and what they have seen and lost.
///
/// Ends with 0 when every node has an agent that is ready and answers, with 1 when one has not, or when there is an error.
#[derive(Args)]
pub(super) struct StatusArgs {
    /// A table for people (text), or one object for programs (json).
    #[arg(short, long, value_enum, default_value_t = OutputForm::Text, value_name = "FORMAT")]
    output: OutputForm,

    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Clocks may differ so much.
const SKEW: SignedDuration = SignedDuration::from_secs(1);

/// Runs `observer status`.
pub(super) fn run(arguments: &StatusArgs, colour: Colour) -> Result<ExitCode, CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| CommandError::failure(format!("cannot start: {error}")))?;
    let status = runtime.block_on(async {
        let cluster = arguments.cluster.cluster().await?;
        let status = cluster.status(&arguments.cluster.nodes).await;
        let status = status.map_err(|stop| arguments.cluster.failed(stop, &cluster))?;
        if status.agents.is_empty() && status.without_agent.is_empty() {
            return Err(arguments.cluster.failed(crate::client::Stop::NoAgents, &cluster));
        }
        Ok(status)
    })?;
    let text = match arguments.output {
        OutputForm::Text => table::write(&status),
        OutputForm::Json => {
            let mut line = Vec::new();
            // A value always serialises, and a vector takes everything.
            _ = crate::serve::json::write_value(&object(&status), &mut line);
            String::from_utf8_lossy(&line).into_owned() + "\n"
        }
    };
    let mut out = AutoStream::new(io::stdout(), colour.choice());
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(CommandError::failure(format!("standard output: {error}")));
        }
        _ => {}
    }
    let well = status.without_agent.is_empty() && status.agents.iter().all(AgentStatus::is_ready);
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn object(status: &ClusterStatus) -> Value {
    let agents: Vec<Value> = status.agents.iter().map(agent).collect();
    let mut object = json!({"type": "status", "agents": agents, "silentNodes": status.without_agent});
    if let Some(why) = &status.nodes_unknown {
        object["nodesUnknown"] = why.as_str().into();
    }
    object
}

fn agent(status: &AgentStatus) -> Value {
    let agent = &status.agent;
    let mut object = json!({
        "node": agent.node, "namespace": agent.namespace, "pod": agent.pod, "ready": status.is_ready(),
        "podReady": agent.ready, "running": agent.running, "ending": agent.ending,
    });
    match &status.status {
        Ok(said) => object["status"] = said.clone(),
        Err(why) => object["error"] = why.to_string().into(),
    }
    if let Some(skew) = status.skew {
        object["clockAheadSeconds"] = skew.ahead.as_secs_f64().into();
        object["clockWithinSeconds"] = skew.within.as_secs_f64().into();
    }
    object
}
