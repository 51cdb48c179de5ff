//! The real client: kube's watcher in both ways to begin, metadata watches, writes.

use std::collections::BTreeSet;
use std::pin::pin;

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, ListParams, PartialObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::time::timeout;
use xtask::apiserver::{ADMIN, Cut, Fault, Options, Scope, Server, crd};

use crate::raw::{PATIENCE, pod, with_pods};

pub(crate) async fn client(server: &Server, user: &str) -> Client {
    let config = Kubeconfig::from_yaml(&server.kubeconfig(user).unwrap()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Reads events until `done` says that the names which they add up to are right.
async fn follow<S>(events: &mut S, names: &mut BTreeSet<String>, done: impl Fn(&BTreeSet<String>) -> bool) -> Vec<watcher::Error>
where
    S: Stream<Item = watcher::Result<Event<Pod>>> + Unpin,
{
    let mut errors = Vec::new();
    let mut fresh = BTreeSet::new();
    while !done(names) {
        match timeout(PATIENCE, events.next()).await.expect("no event in time").expect("a watcher never ends") {
            Ok(Event::Init) => fresh.clear(),
            Ok(Event::InitApply(pod)) => {
                fresh.insert(pod.name_any());
            }
            Ok(Event::InitDone) => *names = std::mem::take(&mut fresh),
            Ok(Event::Apply(pod)) => {
                names.insert(pod.name_any());
            }
            Ok(Event::Delete(pod)) => {
                names.remove(&pod.name_any());
            }
            Err(error) => errors.push(error),
        }
    }
    errors
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

async fn watcher_survives(config: Config) {
    let server = with_pods(&["a", "b", "c"]);
    let api: Api<Pod> = Api::all(client(&server, ADMIN).await);
    let mut events = pin!(watcher(api, config));
    let mut names = BTreeSet::new();
    let follow_to = |expected: BTreeSet<String>| move |names: &BTreeSet<String>| *names == expected;
    assert!(follow(&mut events, &mut names, follow_to(set(&["a", "b", "c"]))).await.is_empty());
    server.create(pod("d")).unwrap();
    server.finish_pod("shop", "a").unwrap();
    assert!(follow(&mut events, &mut names, follow_to(set(&["b", "c", "d"]))).await.is_empty());

    // The stream ends in order: the watcher goes on from where it was, without an error.
    server.cut_watches(Scope::resource("pods"), Cut::End);
    server.create(pod("e")).unwrap();
    assert!(follow(&mut events, &mut names, follow_to(set(&["b", "c", "d", "e"]))).await.is_empty());

    // What it missed is forgotten: it lists again.
    server.go_away().unwrap();
    server.finish_pod("shop", "b").unwrap();
    server.create(pod("f")).unwrap();
    server.compact();
    server.come_back().unwrap();
    let errors = follow(&mut events, &mut names, follow_to(set(&["c", "d", "e", "f"]))).await;
    assert!(!errors.is_empty(), "a reset connection and an expired watch are errors");
    assert!(errors.iter().any(|error| matches!(error, watcher::Error::WatchError(status) if status.code == 410)), "{errors:?}");
}

#[tokio::test]
async fn a_watcher_that_lists_page_by_page() {
    watcher_survives(Config::default().page_size(2)).await;
}

#[tokio::test]
async fn a_watcher_that_lists_from_the_cache() {
    watcher_survives(Config::default().any_semantic()).await;
}

#[tokio::test]
async fn a_watcher_with_streaming_lists() {
    watcher_survives(Config::default().streaming_lists()).await;
}

#[tokio::test]
async fn streaming_lists_of_a_server_without_them() {
    let server = Server::start(Options { streaming_lists: false, ..Options::default() }).unwrap();
    let api: Api<Pod> = Api::all(client(&server, ADMIN).await);
    let mut events = pin!(watcher(api, Config::default().streaming_lists()));
    loop {
        match timeout(PATIENCE, events.next()).await.unwrap().unwrap() {
            Ok(Event::Init) => {}
            Ok(event) => panic!("{event:?}"),
            Err(
                watcher::Error::WatchStartFailed(kube::Error::Api(status)) | watcher::Error::InitialListFailed(kube::Error::Api(status)),
            ) => {
                assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
                return;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn metadata_watches() {
    let server = with_pods(&["a"]);
    let api: Api<PartialObjectMeta<Pod>> = Api::all(client(&server, ADMIN).await);
    let mut events = pin!(watcher(api, Config::default()));
    let mut next = async || -> Event<PartialObjectMeta<Pod>> { timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap() };
    assert!(matches!(next().await, Event::Init));
    let Event::InitApply(first) = next().await else { panic!("no object") };
    assert_eq!(first.name_any(), "a");
    assert!(matches!(next().await, Event::InitDone));
    server.create(pod("b")).unwrap();
    let Event::Apply(second) = next().await else { panic!("no change") };
    assert_eq!((second.name_any().as_str(), second.labels()["app"].as_str()), ("b", "b"));
}

#[tokio::test]
async fn typed_writes_and_their_refusals() {
    let server = with_pods(&[]);
    let namespaces: Api<Namespace> = Api::all(client(&server, ADMIN).await);
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "new"}})).unwrap();
    let mut created = namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    assert_eq!(created.labels()["kubernetes.io/metadata.name"], "new");
    let Err(kube::Error::Api(status)) = namespaces.create(&PostParams::default(), &namespace).await else { panic!("created twice") };
    assert_eq!((status.code, status.reason.as_str(), status.message.as_str()), (409, "AlreadyExists", "namespaces \"new\" already exists"));
    created.labels_mut().insert("team".to_owned(), "a".to_owned());
    let replaced = namespaces.replace("new", &PostParams::default(), &created).await.unwrap();
    assert_ne!(replaced.resource_version(), created.resource_version());
    created.labels_mut().insert("team".to_owned(), "b".to_owned());
    let Err(kube::Error::Api(status)) = namespaces.replace("new", &PostParams::default(), &created).await else { panic!("no conflict") };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    namespaces.delete("new", &kube::api::DeleteParams::default()).await.unwrap();
    assert!(namespaces.get_opt("new").await.unwrap().is_none());
}

#[tokio::test]
async fn faults_reach_the_client_as_what_they_are() {
    let server = with_pods(&["a"]);
    let api: Api<Pod> = Api::all(client(&server, ADMIN).await);
    for (fault, code) in [(Fault::Gone, 410), (Fault::Internal, 500), (Fault::Unauthorized, 401), (Fault::NotFound, 404)] {
        server.fail_next(Scope::verb("pods", "list"), 1, fault);
        let Err(kube::Error::Api(status)) = api.list(&ListParams::default()).await else { panic!("no error for {code}") };
        assert_eq!(status.code, code);
    }
    // The client itself tries again after these.
    for fault in [Fault::Unavailable, Fault::TooManyRequests(1)] {
        server.fail_next(Scope::verb("pods", "list"), 1, fault);
        let before = server.stats().requests("list", "pods");
        assert!(api.list(&ListParams::default()).await.is_ok());
        assert_eq!(server.stats().requests("list", "pods"), before + 2);
    }
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 1);
    server.fail_next(Scope::verb("pods", "list"), 1, Fault::Reset);
    assert!(!matches!(api.list(&ListParams::default()).await, Ok(_) | Err(kube::Error::Api(_))));
    let agents: Vec<_> = server.stats().by.into_keys().filter(|asked| asked.verb == "list" && asked.resource == "pods").collect();
    assert_eq!(agents.len(), 1);
    assert_eq!(agents[0].user, ADMIN);
}

#[tokio::test]
async fn discovery_of_resources_that_come_and_go() {
    let server = with_pods(&[]);
    let client = client(&server, ADMIN).await;
    let has = async |kind: &str| {
        let discovery = kube::Discovery::new(client.clone()).run().await.unwrap();
        discovery.groups().any(|group| group.recommended_resources().iter().any(|(resource, _)| resource.kind == kind))
    };
    assert!(has("NetworkPolicy").await);
    assert!(!has("AdminNetworkPolicy").await);
    server.create(crd::admin_network_policy()).unwrap();
    assert!(has("AdminNetworkPolicy").await);
    server.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "adminnetworkpolicies.policy.networking.k8s.io").unwrap();
    assert!(!has("AdminNetworkPolicy").await);
}

/// Not a bound on time: that a cluster of this size can be loaded, listed and watched at all.
#[tokio::test]
async fn many_pods() {
    let server = with_pods(&[]);
    let names: BTreeSet<String> = (0..5000).map(|number| format!("pod-{number}")).collect();
    server.load(names.iter().map(|name| pod(name))).unwrap();
    for config in [Config::default(), Config::default().streaming_lists()] {
        let api: Api<Pod> = Api::all(client(&server, ADMIN).await);
        let mut seen = BTreeSet::new();
        let errors = follow(&mut pin!(watcher(api, config)), &mut seen, |seen| seen.len() == names.len()).await;
        assert!(errors.is_empty(), "{errors:?}");
    }
    assert_eq!(server.stats().requests("list", "pods"), 10);
}
