//! Which agents there are, and which nodes: watched, so that they come and go.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, Error, Event, watcher};

use super::access::{Cluster, describe};

/// Labels of the agents' pods.
const SELECTOR: &str = "app.kubernetes.io/name=netpol-observer,app.kubernetes.io/component=agent";

/// An agent's pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agent {
    /// UID of the pod: a pod of the same name that comes later is another.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Where it runs; empty when it is not scheduled.
    pub node: String,
    /// Its condition Ready.
    pub ready: bool,
    /// It has started and has not ended.
    pub running: bool,
    /// It is being deleted.
    pub ending: bool,
}

/// What is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// An agent is there, or has changed.
    Agent(Agent),
    /// An agent is there no more.
    AgentGone {
        /// UID of its pod.
        uid: String,
    },
    /// All agents that were there at first have been told.
    AgentsListed,
    /// A node is there.
    Node(String),
    /// A node is there no more.
    NodeGone(String),
    /// All nodes that were there at first have been told.
    NodesListed,
    /// Nodes are not for this user to see.
    NodesForbidden(String),
    /// Agents are not for this user to see.
    AgentsForbidden(String),
    /// The API server does not answer; it is asked again.
    Trouble(String),
}

/// Sightings, as they come.
pub struct Roster(BoxStream<'static, Sighting>);

impl Roster {
    /// Watches a cluster.
    pub fn watch(cluster: &Cluster) -> Roster {
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.options.agent_namespace);
        let nodes: Api<PartialObjectMeta<Node>> = Api::all(cluster.client.clone());
        let agents = {
            let mut known = Known::default();
            let events = watcher(pods, Config::default().labels(SELECTOR).any_semantic()).default_backoff();
            events.flat_map(move |event| {
                let sightings = match event {
                    Ok(event) => {
                        known.take(event, |pod| (pod.uid().unwrap_or_default(), Sighting::Agent(agent(&pod))), gone, Sighting::AgentsListed)
                    }
                    Err(error) => vec![trouble(&error, Sighting::AgentsForbidden)],
                };
                futures_util::stream::iter(sightings)
            })
        };
        let nodes = {
            let mut known = Known::default();
            let events = watcher(nodes, Config::default().any_semantic()).default_backoff();
            events.flat_map(move |event| {
                let node = |node: PartialObjectMeta<Node>| (node.name_any(), Sighting::Node(node.name_any()));
                let sightings = match event {
                    Ok(event) => known.take(event, node, Sighting::NodeGone, Sighting::NodesListed),
                    Err(error) => vec![trouble(&error, Sighting::NodesForbidden)],
                };
                futures_util::stream::iter(sightings)
            })
        };
        Roster(futures_util::stream::select(agents, nodes).boxed())
    }

    /// Agents and nodes that are known already, such as in tests.
    pub fn of(sightings: BoxStream<'static, Sighting>) -> Roster {
        Roster(sightings)
    }

    /// The next one; `None` when nothing more can come.
    pub async fn next(&mut self) -> Option<Sighting> {
        self.0.next().await
    }
}

/// What there is at one moment.
pub(super) struct Listed {
    pub(super) agents: Vec<Agent>,
    /// Or why they are not known.
    pub(super) nodes: Result<Vec<String>, String>,
}

impl Listed {
    pub(super) async fn of(cluster: &Cluster) -> Result<Listed, kube::Error> {
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.options.agent_namespace);
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let agents = pods.list(&ListParams::default().labels(SELECTOR)).await?.items.iter().map(agent).collect();
        let nodes = nodes.list_metadata(&ListParams::default()).await;
        let nodes = nodes.map(|list| list.items.iter().map(ResourceExt::name_any).collect()).map_err(|error| describe(&error));
        Ok(Listed { agents, nodes })
    }
}

fn gone(uid: String) -> Sighting {
    Sighting::AgentGone { uid }
}

/// What a watch has told, to find out what went while it was not watching.
#[derive(Default)]
struct Known {
    /// By what makes them distinct; whether the list that is being read has it.
    listed: HashMap<String, bool>,
}

impl Known {
    fn take<K>(
        &mut self,
        event: Event<K>,
        sighting: impl Fn(K) -> (String, Sighting),
        gone: fn(String) -> Sighting,
        done: Sighting,
    ) -> Vec<Sighting> {
        match event {
            Event::Init => {
                self.listed.values_mut().for_each(|listed| *listed = false);
                Vec::new()
            }
            Event::Apply(object) | Event::InitApply(object) => {
                let (key, sighting) = sighting(object);
                self.listed.insert(key, true);
                vec![sighting]
            }
            Event::Delete(object) => {
                let (key, _) = sighting(object);
                self.listed.remove(&key);
                vec![gone(key)]
            }
            Event::InitDone => {
                let missing: Vec<_> = self.listed.iter().filter(|(_, listed)| !**listed).map(|(key, _)| key.clone()).collect();
                self.listed.retain(|_, listed| *listed);
                missing.into_iter().map(gone).chain([done]).collect()
            }
        }
    }
}

fn trouble(error: &Error, forbidden: fn(String) -> Sighting) -> Sighting {
    match error {
        Error::InitialListFailed(kube::Error::Api(status)) | Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 403 => {
            forbidden(status.message.clone())
        }
        Error::WatchError(status) if status.code == 403 => forbidden(status.message.clone()),
        Error::WatchError(status) => Sighting::Trouble(status.message.clone()),
        Error::InitialListFailed(error) | Error::WatchStartFailed(error) | Error::WatchFailed(error) => Sighting::Trouble(describe(error)),
        Error::NoResourceVersion => Sighting::Trouble(error.to_string()),
    }
}

fn agent(pod: &Pod) -> Agent {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    Agent {
        uid: pod.uid().unwrap_or_default(),
        namespace: pod.namespace().unwrap_or_default(),
        pod: pod.name_any(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        ready,
        running: status.and_then(|status| status.phase.as_deref()) == Some("Running"),
        ending: pod.metadata.deletion_timestamp.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(known: &mut Known, event: Event<&'static str>) -> Vec<Sighting> {
        known.take(event, |name| (name.to_owned(), Sighting::Node(name.to_owned())), Sighting::NodeGone, Sighting::NodesListed)
    }

    #[test]
    fn what_went_while_nobody_watched_is_told_after_the_list() {
        let mut known = Known::default();
        for name in ["a", "b"] {
            take(&mut known, Event::InitApply(name));
        }
        assert_eq!(take(&mut known, Event::InitDone), [Sighting::NodesListed]);
        take(&mut known, Event::Apply("c"));
        assert_eq!(take(&mut known, Event::Delete("a")), [Sighting::NodeGone("a".to_owned())]);
        take(&mut known, Event::Init);
        take(&mut known, Event::InitApply("c"));
        assert_eq!(take(&mut known, Event::InitDone), [Sighting::NodeGone("b".to_owned()), Sighting::NodesListed]);
        take(&mut known, Event::Init);
        assert_eq!(take(&mut known, Event::InitDone), [Sighting::NodeGone("c".to_owned()), Sighting::NodesListed]);
    }
}
