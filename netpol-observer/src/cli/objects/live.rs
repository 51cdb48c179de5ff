//! The objects of a cluster as they are now, from its API server.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::super::CommandError;
use super::ApiServerArgs;
use crate::client::{ClusterError, ClusterOptions};
use crate::cluster::manifests::Loaded;
use crate::cluster::{Kind, Object, ObjectKey};
use crate::watch::{News, State, Status, Use, WatchOptions, connect, start};

/// How long the API server may take to say something new, as long as nothing has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether something has failed.
const GLANCE: Duration = Duration::from_millis(200);

/// How often a request may fail before it counts: servers are restarted.
const FAILURES: u64 = 3;

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
    let mut listed: BTreeSet<Kind> = BTreeSet::new();
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            biased;
            update = watching.next() => match update {
                Some(update) => {
                    heard = Instant::now();
                    if let News::Listed { kind, .. } | News::Relisted { kind, .. } = &update.news {
                        listed.insert(*kind);
                    }
                    take(update.news, &mut objects, &mut foreign);
                }
                None => break,
            },
            () = tokio::time::sleep(GLANCE) => {
                if heard.elapsed() > PATIENCE || has_failed(&status.read()) {
                    let missing = status.missing().join("; ");
                    return Err(CommandError::failure(format!("{}: {missing}", read.name)).hint(
                        "it takes list and watch on pods, namespaces, nodes, services, endpointslices and networkpolicies; `kubectl get networkpolicies -A` tries the same API server",
                    ));
                }
            }
        }
        let now = status.read();
        // A list counts as listed shortly before its update is there.
        let lists = now.resources.iter().filter(|resource| resource.used != Use::Counted && resource.lists > 0).count();
        if now.synced && listed.len() >= lists && watching.waiting() == 0 {
            break;
        }
    }
    Ok(Loaded { objects: objects.into_values().collect(), skipped: foreign, ..Loaded::default() })
}

/// Whether what is needed cannot be had: it is forbidden, or failed several times.
fn has_failed(status: &Status) -> bool {
    status.resources.iter().filter(|resource| resource.used == Use::Required && resource.listed_at.is_none()).any(|resource| match resource
        .state
    {
        State::Forbidden { .. } => true,
        State::Retrying { .. } => resource.failures >= FAILURES,
        _ => false,
    })
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
