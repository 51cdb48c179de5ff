//! The objects of a cluster as they are now, from its API server.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::CommandError;
use super::ApiServerArgs;
use crate::client::{ClusterError, ClusterOptions};
use crate::cluster::manifests::Loaded;
use crate::cluster::{Object, ObjectKey};
use crate::watch::{News, WatchOptions, connect, start};

/// How long the API server may take to say something new.
const PATIENCE: Duration = Duration::from_secs(15);

/// Lists all objects that verdicts depend on.
pub(super) fn load(server: &ApiServerArgs) -> Result<Loaded, CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CommandError::failure(format!("cannot start threads: {error}")))?;
    let loaded = runtime.block_on(list(server));
    runtime.shutdown_background();
    loaded
}

async fn list(server: &ApiServerArgs) -> Result<Loaded, CommandError> {
    let options = ClusterOptions { kubeconfig: server.kubeconfig.clone(), context: server.context.clone(), ..ClusterOptions::default() };
    let no_cluster = |error: ClusterError| {
        CommandError::failure(error).hint("give --kubeconfig FILE, set KUBECONFIG, or name files instead of the cluster")
    };
    let read = options.read().await.map_err(no_cluster)?;
    let client = connect(read.config.clone()).map_err(|error| no_cluster(read.unusable(&error)))?;
    let mut watching = start(client, WatchOptions { start_jitter: Duration::ZERO, ..WatchOptions::default() });
    let status = watching.status();
    let mut objects: BTreeMap<ObjectKey, Object> = BTreeMap::new();
    let mut foreign: BTreeMap<String, usize> = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            update = tokio::time::timeout(PATIENCE, watching.next()) => match update {
                Ok(Some(update)) => take(update.news, &mut objects, &mut foreign),
                Ok(None) => break,
                Err(_) => {
                    let missing = status.missing().join("; ");
                    return Err(CommandError::failure(format!("{}: {missing}", read.name))
                        .hint("it takes list and watch on pods, namespaces, nodes, services, endpointslices and networkpolicies; `kubectl get networkpolicies -A` tries the same API server"));
                }
            },
            () = status.synced() => {
                // What was told until then.
                while watching.waiting() > 0 {
                    let Some(update) = watching.next().await else { break };
                    take(update.news, &mut objects, &mut foreign);
                }
                break;
            }
        }
    }
    Ok(Loaded { objects: objects.into_values().collect(), skipped: foreign, ..Loaded::default() })
}

fn take(news: News, objects: &mut BTreeMap<ObjectKey, Object>, foreign: &mut BTreeMap<String, usize>) {
    match news {
        News::Listed { kind, objects: listed, .. } => {
            objects.retain(|key, _| key.kind != kind);
            objects.extend(listed.into_iter().map(|object| (object.key(), object)));
        }
        News::Relisted { changed, .. } => objects.extend(changed.into_iter().map(|object| (object.key(), object))),
        News::Applied(object) => drop(objects.insert(object.key(), object)),
        News::Deleted(key) => drop(objects.remove(&key)),
        News::Foreign(found) => drop(foreign.insert(format!("{} {}", found.group, found.kind), found.count)),
        News::Served { .. } | News::ForeignGone { .. } => {}
    }
}
