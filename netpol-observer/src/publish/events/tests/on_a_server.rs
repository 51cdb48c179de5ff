//! Events by real HTTP, and by what the API server makes of them.

use std::time::{Duration, Instant};

use k8s_openapi::api::events::v1::Event;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use xtask::apiserver::{Fault, Options, Scope, Server};

use super::super::testing::{call_across, of, settled, settled_of};
use super::super::{Counters, Disclosure, Events, EventsOptions, Limits, Untold};
use crate::publish::Sink as _;
use crate::serve::testing::at;

struct Writing {
    server: Server,
    runtime: Runtime,
    events: Events,
    task: tokio::task::JoinHandle<()>,
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// With a user who may do with Events what these verbs say, in a namespace or in all.
fn writing(bound_in: Option<&str>, verbs: &[&str], disclosure: Disclosure) -> Writing {
    let server = Server::start(Options::default()).unwrap();
    server.load(["shop", "batch"].map(namespace)).unwrap();
    server.add_user("agent", &[]);
    let rbac = "rbac.authorization.k8s.io/v1";
    let rules = json!([{"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": verbs}]);
    let role = json!({"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": "events"}, "rules": rules});
    let mut binding = json!({
        "apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": "events"},
        "subjects": [{"kind": "User", "name": "agent"}], "roleRef": {"kind": "ClusterRole", "name": "events"},
    });
    if let Some(namespace) = bound_in {
        binding["kind"] = json!("RoleBinding");
        binding["metadata"]["namespace"] = json!(namespace);
    }
    server.load([role, binding]).unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&server.kubeconfig("agent").unwrap()).unwrap();
    let (events, task) = runtime.block_on(async {
        let config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
        let client: Client = crate::watch::connect(config).unwrap();
        let limits = Limits { first_change: Duration::from_millis(100), ..Limits::default() };
        Events::start(client, &EventsOptions { node: "node-1", pod: Some("netpol-observer-x7"), disclosure, limits })
    });
    Writing { server, runtime, events, task }
}

impl Writing {
    fn until(&self, is_so: impl Fn(&Counters) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        let account = self.events.counters();
        while !is_so(&account) {
            assert!(Instant::now() < end, "{account}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it: the account.
    fn end(mut self) -> (Server, std::sync::Arc<Counters>) {
        self.events.finish(at(0));
        self.runtime.block_on(self.task).unwrap();
        (self.server, self.events.counters())
    }
}

/// The Events that there are.
fn written(server: &Server) -> Vec<Event> {
    server.list("events.k8s.io/v1", "Event").into_iter().map(|event| serde_json::from_value(event).unwrap()).collect()
}

#[test]
fn events_are_as_the_api_server_wants_them() {
    let mut writing = writing(None, &["create", "patch"], Disclosure::OwnNamespace);
    writing.events.take(&settled(3), at(5));
    writing.until(|account| account.written() == 2);
    writing.events.take(&settled(2), at(6));
    writing.until(|account| account.patched() == 2);
    let (server, account) = writing.end();
    assert_eq!((account.told(), account.waiting(), account.failed()), (10, 0, 0), "{account}");
    let events = written(&server);
    let mut said: Vec<_> = events
        .iter()
        .map(|event| {
            let regarding = event.regarding.clone().unwrap();
            let series = event.series.clone().unwrap();
            assert_eq!((event.event_time.clone().unwrap().0, series.last_observed_time.0), (at(0), at(0)));
            assert_eq!(event.reporting_controller.as_deref(), Some("netpol-observer.io/agent"));
            assert_eq!(event.reporting_instance.as_deref(), Some("netpol-observer-x7"));
            (regarding.name.unwrap(), event.related.clone().unwrap().name.unwrap(), event.action.clone().unwrap(), series.count)
        })
        .collect();
    said.sort();
    let expected = [("api-5c4b", "web-7d9f", "Accept"), ("web-7d9f", "api-5c4b", "Connect")];
    assert_eq!(said, expected.map(|(regarding, related, action)| (regarding.to_owned(), related.to_owned(), action.to_owned(), 5)));
}

#[test]
fn where_they_may_be_written_they_are() {
    let mut writing = writing(Some("shop"), &["create"], Disclosure::AcrossNamespaces);
    let mut denial = of(1);
    call_across(&mut denial);
    let across = settled_of(denial, 2);
    writing.events.take(&across, at(5));
    writing.until(|account| account.told() == 2 && account.forbidden() == 2);
    // Neither is asked again: not in the other namespace, and no Event is changed where that is forbidden.
    writing.events.take(&across, at(6));
    writing.until(|account| account.forbidden() == 4 && account.failed() == 2);
    writing.events.take(&across, at(7));
    let (server, account) = writing.end();
    assert_eq!((account.mentions(), account.told(), account.failed()), (12, 2, 2), "{account}");
    assert_eq!((account.forbidden(), account.untold(Untold::Ended)), (6, 4), "{account}");
    assert_eq!(written(&server).len(), 1);
    let stats = server.stats();
    assert_eq!((stats.requests("create", "events"), stats.requests("patch", "events")), (2, 1));
}

#[test]
fn what_fails_for_a_while_is_tried_again() {
    let mut writing = writing(None, &["create", "patch"], Disclosure::OwnNamespace);
    writing.server.fail_next(Scope::resource("events"), 1, Fault::Reset);
    writing.server.fail_next(Scope::resource("events"), 1, Fault::TooManyRequests(1));
    writing.events.take(&settled(1), at(5));
    writing.until(|account| account.written() == 2);
    let (server, account) = writing.end();
    assert_eq!((account.failed(), account.told()), (2, 2), "{account}");
    assert_eq!(written(&server).len(), 2);
}

#[test]
fn an_event_that_is_gone_and_a_namespace_that_ends() {
    let mut writing = writing(None, &["create", "patch"], Disclosure::OwnNamespace);
    writing.events.take(&settled(1), at(5));
    writing.until(|account| account.written() == 2);
    for event in written(&writing.server) {
        writing.server.delete_now("events.k8s.io/v1", "Event", "shop", event.metadata.name.as_deref().unwrap()).unwrap();
    }
    writing.events.take(&settled(1), at(6));
    writing.until(|account| account.written() == 4);
    assert_eq!(written(&writing.server).len(), 2);
    // A namespace with finalizers of others is there for some time, and takes nothing new.
    let ending = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "batch", "finalizers": ["example.org/wait"]}});
    writing.server.patch(&ending).unwrap();
    assert!(!writing.server.delete("v1", "Namespace", "", "batch").unwrap());
    let mut denial = of(2);
    call_across(&mut denial);
    writing.events.take(&settled_of(denial, 1), at(7));
    writing.until(|account| account.untold(Untold::NamespaceGone) == 1);
    let (_, account) = writing.end();
    assert_eq!((account.forbidden(), account.waiting()), (0, 0), "{account}");
}

#[test]
fn without_an_api_server_it_ends_in_time() {
    let mut writing = writing(None, &["create", "patch"], Disclosure::OwnNamespace);
    writing.server.go_deaf().unwrap();
    writing.events.take(&settled(1), at(5));
    let begin = Instant::now();
    let (_, account) = writing.end();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!((account.untold(Untold::Ended), account.waiting()), (2, 0), "{account}");
}
