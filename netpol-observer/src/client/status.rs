//! What the agents of a cluster say of themselves, asked once.

use std::time::Instant;

use futures_util::StreamExt as _;
use hyper::Method;
use jiff::Timestamp;
use serde_json::Value;

use super::access::{Cluster, describe};
use super::call::{Unreached, refusal};
use super::follow::Stop;
use super::roster::{Agent, Listed};
use super::skew::Skew;

/// Agents that are asked at once.
const AT_ONCE: usize = 16;

/// The cluster's agents.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// By node.
    pub agents: Vec<AgentStatus>,
    /// Nodes without an agent's pod.
    pub without_agent: Vec<String>,
    /// Why the nodes are not known, when they are not.
    pub nodes_unknown: Option<String>,
}

/// One agent.
#[derive(Clone, Debug)]
pub struct AgentStatus {
    /// Its pod.
    pub agent: Agent,
    /// What `/v1/status` says.
    pub status: Result<Value, Unreached>,
    /// Its clock.
    pub skew: Option<Skew>,
}

impl AgentStatus {
    /// Whether the pod is ready, and has answered.
    pub fn is_ready(&self) -> bool {
        self.agent.ready && self.status.is_ok()
    }
}

/// What a command on an agent answers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Answer {
    /// Its exit status.
    pub exit: u8,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Cluster {
    /// Asks all agents, or those of some nodes.
    ///
    /// # Errors
    /// The agents cannot be listed.
    pub async fn status(&self, nodes: &[String]) -> Result<ClusterStatus, Stop> {
        let Listed { agents, nodes: all_nodes } = self.list().await?;
        let wanted = |node: &str| nodes.is_empty() || nodes.iter().any(|wanted| wanted == node);
        let asked = agents.into_iter().filter(|agent| wanted(&agent.node)).map(|agent| self.ask_status(agent));
        let mut agents: Vec<AgentStatus> = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
        agents.sort_by(|one, other| (&one.agent.node, &one.agent.pod).cmp(&(&other.agent.node, &other.agent.pod)));
        let (known, nodes_unknown) = match all_nodes {
            Ok(known) => (known, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        let mut without_agent: Vec<String> = known.into_iter().chain(nodes.iter().cloned()).filter(|node| wanted(node)).collect();
        without_agent.retain(|node| !agents.iter().any(|agent| agent.agent.node == *node));
        without_agent.sort();
        without_agent.dedup();
        Ok(ClusterStatus { agents, without_agent, nodes_unknown })
    }

    async fn ask_status(&self, agent: Agent) -> AgentStatus {
        if !agent.running {
            return AgentStatus { agent, status: Err(Unreached::Failed("the pod does not run".to_owned())), skew: None };
        }
        let access = self.access();
        let answer = async {
            let began = Instant::now();
            // A token that was revoked meanwhile is made anew once.
            let mut called = access.call(&agent, Method::GET, "/v1/status", None).await?;
            if called.status == 401 {
                access.forget_token().await;
                called = access.call(&agent, Method::GET, "/v1/status", None).await?;
            }
            let took = began.elapsed();
            let now = Timestamp::now();
            let (status, body) = called.whole().await?;
            if status != 200 {
                return Err(refusal(status, &body));
            }
            let value: Value =
                serde_json::from_slice(&body).map_err(|error| Unreached::Failed(format!("its status is no JSON: {error}")))?;
            let time = value["time"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
            Ok((value, time.map(|time| Skew::measured(time, now, took))))
        };
        let (status, skew) = match answer.await {
            Ok((value, skew)) => (Ok(value), skew),
            Err(why) => (Err(why), None),
        };
        AgentStatus { agent, status, skew }
    }

    /// Has an agent answer `observer explain`: the first one that can.
    ///
    /// # Errors
    /// None can, and why the last one could not.
    pub async fn explain(&self, nodes: &[String], words: &[String], json: bool, colour: bool) -> Result<Answer, Stop> {
        let body = serde_json::json!({"args": words, "form": if json { "json" } else { "text" }, "colour": colour}).to_string();
        let mut agents = self.list().await?.agents;
        agents.retain(|agent| agent.running && !agent.ending && (nodes.is_empty() || nodes.contains(&agent.node)));
        // Who is ready knows the whole cluster.
        agents.sort_by(|one, other| (!one.ready, &one.node).cmp(&(!other.ready, &other.node)));
        let mut last = Stop::NoAgents;
        for agent in agents {
            let answered = self.access().ask(&agent, Method::POST, "/v1/explain", Some(body.clone())).await;
            let why = match answered {
                Ok((status, body)) if status == 200 => match serde_json::from_slice::<Answer>(&body) {
                    Ok(answer) => return Ok(answer),
                    Err(error) => Unreached::Failed(format!("its answer cannot be read: {error}")),
                },
                Ok((status, body)) => refusal(status, &body),
                Err(why) => why,
            };
            match why {
                Unreached::Forbidden(why) => return Err(Stop::Forbidden(why)),
                // Another agent would say the same.
                Unreached::Refused { status: 400 | 403, .. } => return Err(Stop::Unreachable(format!("{}: {why}", agent.node))),
                why => last = Stop::Unreachable(format!("{}: {why}", agent.node)),
            }
        }
        Err(last)
    }

    async fn list(&self) -> Result<Listed, Stop> {
        Listed::of(self).await.map_err(|error| match &error {
            kube::Error::Api(status) if status.code == 403 => Stop::Forbidden(status.message.clone()),
            error => Stop::Unreachable(describe(error)),
        })
    }
}
