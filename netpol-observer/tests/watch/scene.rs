//! A server, watches on it, and what somebody who reads them knows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use kube::config::{KubeConfigOptions, Kubeconfig};
use netpol_observer::cluster::convert::{self, FieldErrors};
use netpol_observer::cluster::policy_api::v1alpha1;
use netpol_observer::cluster::{ForeignPolicies, Index, Object, ObjectKey};
use netpol_observer::policy::Profile;
use netpol_observer::timeline::{Limits, Timeline};
use netpol_observer::watch::{self, News, Status, StatusReader, Update, WatchOptions, Watching};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use xtask::apiserver::{ADMIN, Options, Server};

/// Long enough for a loaded machine; nothing waits for it to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Watches that lose no time, for tests that wait for them.
pub(crate) fn quick() -> WatchOptions {
    WatchOptions {
        start_jitter: Duration::ZERO,
        page_size: 3,
        answer_timeout: Duration::from_secs(10),
        quiet: Duration::from_secs(10),
        first_retry: Duration::from_millis(20),
        last_retry: Duration::from_millis(300),
        forbidden_retry: Duration::from_millis(100),
        discovery_period: Duration::from_millis(300),
        ..WatchOptions::default()
    }
}

/// What was read so far.
pub(crate) struct Known {
    pub(crate) timeline: Timeline,
    pub(crate) foreign: ForeignPolicies,
    /// Every update, lists without their objects.
    pub(crate) updates: Vec<Update>,
    /// How many objects are otherwise by a list.
    pub(crate) listed: Vec<(ObjectKind, usize)>,
    /// How many objects a list has told of at all.
    pub(crate) told: Vec<(ObjectKind, usize)>,
}

type ObjectKind = netpol_observer::cluster::Kind;

impl Known {
    fn new() -> Self {
        let timeline = Timeline::new(Profile::default(), Limits::default(), Timestamp::now());
        Known { timeline, foreign: ForeignPolicies::default(), updates: Vec::new(), listed: Vec::new(), told: Vec::new() }
    }

    fn learn(&mut self, update: Update) {
        let at = update.at;
        let mut kept = update.clone();
        match update.news {
            News::Listed { kind, objects, since } => {
                kept.news = News::Listed { kind, objects: Vec::new(), since };
                self.told.push((kind, objects.len()));
                let changed = self.timeline.reset(at, &[kind], objects);
                self.listed.push((kind, changed));
            }
            News::Relisted { kind, changed, same, since } => {
                kept.news = News::Listed { kind, objects: Vec::new(), since };
                self.told.push((kind, changed.len()));
                let changed = self.timeline.relist(at, kind, changed, |key| same.has(key));
                self.listed.push((kind, changed));
            }
            News::Applied(object) => _ = self.timeline.apply(at, object),
            News::Deleted(key) => _ = self.timeline.delete(at, &key),
            News::Foreign(foreign) => self.foreign.put(foreign),
            News::ForeignGone { group, kind } => self.foreign.remove(&group, &kind),
            News::Served { .. } => {}
        }
        self.updates.push(kept);
    }

    pub(crate) fn index(&self) -> &Index {
        self.timeline.engine().index()
    }

    /// All objects.
    pub(crate) fn objects(&self) -> BTreeMap<ObjectKey, Object> {
        let index = self.index();
        let mut objects: Vec<Object> = Vec::new();
        objects.extend(index.namespaces().cloned().map(Object::from));
        objects.extend(index.nodes().cloned().map(Object::from));
        objects.extend(index.pods().cloned().map(Object::from));
        objects.extend(index.services().cloned().map(Object::from));
        objects.extend(index.endpoint_slices().cloned().map(Object::from));
        objects.extend(index.policies().cloned().map(Object::from));
        objects.extend(index.cluster_policies().cloned().map(Object::from));
        objects.into_iter().map(|object| (object.key(), object)).collect()
    }
}

/// A server and watches on it.
pub(crate) struct Scene {
    pub(crate) server: Arc<Server>,
    pub(crate) known: Arc<Mutex<Known>>,
    pub(crate) status: StatusReader,
    held: Mutex<Option<Watching>>,
    runtime: tokio::runtime::Runtime,
}

/// A client with the credentials of a kubeconfig.
pub(crate) async fn client(kubeconfig: &str) -> kube::Client {
    let config = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    watch::connect(config).unwrap()
}

impl Scene {
    /// Watches of the administrator, read at once.
    pub(crate) fn new(server: Server, options: WatchOptions) -> Scene {
        let kubeconfig = server.kubeconfig(ADMIN).unwrap();
        Scene::of(server, &kubeconfig, options, true)
    }

    /// Watches with a kubeconfig. Unless they are to be read, nobody reads them before [`Scene::read`].
    pub(crate) fn of(server: Server, kubeconfig: &str, options: WatchOptions, reading: bool) -> Scene {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let watching = runtime.block_on(async { watch::start(client(kubeconfig).await, options) });
        let known = Arc::new(Mutex::new(Known::new()));
        let status = watching.status();
        let scene = Scene { server: Arc::new(server), status, known, held: Mutex::new(Some(watching)), runtime };
        if reading {
            scene.read();
        }
        scene
    }

    /// From now on updates are read as they come.
    pub(crate) fn read(&self) {
        let mut watching = self.held.lock().unwrap().take().expect("not read before");
        let known = self.known.clone();
        self.runtime.spawn(async move {
            while let Some(update) = watching.next().await {
                known.lock().unwrap().learn(update);
            }
        });
    }

    /// Updates that nobody has read.
    pub(crate) fn waiting(&self) -> usize {
        self.held.lock().unwrap().as_ref().map_or(0, Watching::waiting)
    }

    pub(crate) fn with<R>(&self, read: impl FnOnce(&Known) -> R) -> R {
        read(&self.known.lock().unwrap())
    }

    pub(crate) fn status(&self) -> Status {
        self.status.read()
    }

    /// How often the watches have asked; the test asks too.
    pub(crate) fn asked(&self, verb: &str, resource: &str) -> u64 {
        let stats = self.server.stats();
        let of_watches = stats.by.iter().filter(|(asked, _)| asked.user_agent.starts_with("netpol-observer/"));
        of_watches.filter(|(asked, _)| asked.verb == verb && asked.resource == resource).map(|(_, count)| count.requests).sum()
    }

    /// Waits for the first complete set of objects.
    pub(crate) fn synced(&self) {
        let status = self.status.clone();
        let waited = self.runtime.block_on(async move { tokio::time::timeout(PATIENCE, status.synced()).await });
        assert!(waited.is_ok(), "not synced: {:#?}", self.status());
    }

    /// Waits until what is known is what the server has, object by object.
    #[track_caller]
    pub(crate) fn settles(&self) {
        let mut last = String::new();
        let settled = until(|| {
            let expected = expected(&self.server);
            let found = self.with(Known::objects);
            last = difference(&expected, &found);
            last.is_empty()
        });
        assert!(settled, "{last}\n{:#?}", self.status());
    }

    /// Waits until something is so.
    #[track_caller]
    pub(crate) fn becomes(&self, what: &str, is: impl Fn(&Scene) -> bool) {
        assert!(until(|| is(self)), "it never came to this: {what}\n{:#?}", self.status());
    }
}

/// Whether something becomes so within patience.
pub(crate) fn until(mut is: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while !is() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

fn difference(expected: &BTreeMap<ObjectKey, Object>, found: &BTreeMap<ObjectKey, Object>) -> String {
    let missing = expected.iter().filter(|(key, object)| found.get(key) != Some(object)).map(|(key, _)| format!("missing or other: {key}"));
    let surplus = found.keys().filter(|key| !expected.contains_key(key)).map(|key| format!("should not be there: {key}"));
    missing.chain(surplus).collect::<Vec<_>>().join("\n")
}

/// What the server has, read as whole objects with the types of the API: another way than that of the watches.
fn expected(server: &Server) -> BTreeMap<ObjectKey, Object> {
    let mut objects: Vec<Object> = Vec::new();
    let mut errors = FieldErrors::new();
    fn items<T: DeserializeOwned>(server: &Server, path: &str) -> Vec<T> {
        let list: Value = get(server, path);
        let items = list["items"].as_array().into_iter().flatten();
        items.map(|item| serde_json::from_value(item.clone()).unwrap()).collect()
    }
    objects.extend(items::<core::Namespace>(server, "/api/v1/namespaces").into_iter().map(|o| convert::namespace(o).into()));
    objects.extend(items::<core::Node>(server, "/api/v1/nodes").into_iter().map(|o| convert::node(o, &mut errors).into()));
    objects.extend(items::<core::Pod>(server, "/api/v1/pods").into_iter().map(|o| convert::pod(o, &mut errors).into()));
    objects.extend(items::<core::Service>(server, "/api/v1/services").into_iter().map(|o| convert::service(o, &mut errors).into()));
    let slices = items::<discovery::EndpointSlice>(server, "/apis/discovery.k8s.io/v1/endpointslices");
    objects.extend(slices.into_iter().map(|o| convert::endpoint_slice(o, &mut errors).into()));
    let policies = items::<networking::NetworkPolicy>(server, "/apis/networking.k8s.io/v1/networkpolicies");
    objects.extend(policies.into_iter().map(|o| convert::network_policy(o, &mut errors).into()));
    let admin = items::<v1alpha1::AdminNetworkPolicy>(server, "/apis/policy.networking.k8s.io/v1alpha1/adminnetworkpolicies");
    objects.extend(admin.into_iter().map(|o| convert::admin_network_policy(o, &mut errors).into()));
    objects.into_iter().map(|object| (object.key(), object)).collect()
}

/// A GET of the administrator, by plain HTTP. Null where there is no such path.
pub(crate) fn get(server: &Server, path: &str) -> Value {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = std::net::TcpStream::connect(server.address()) else { return Value::Null };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: test\r\nAuthorization: Bearer admin-token\r\nUser-Agent: the-test\r\n\r\n");
    let mut answer = Vec::new();
    if stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_end(&mut answer)).is_err() {
        return Value::Null;
    }
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    if head.contains(" 200 ") { serde_json::from_str(body).unwrap() } else { Value::Null }
}

/// A pod that runs and has an address.
pub(crate) fn pod(name: &str, number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "shop", "labels": {"app": name, "tier": "web"},
            "managedFields": [{"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {}}}],
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "app", "image": "i", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {
            "phase": "Running", "podIPs": [{"ip": format!("10.0.{}.{}", number / 250, number % 250 + 1)}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

/// A policy that isolates pods by a label.
pub(crate) fn policy(name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 8080}]}]},
    })
}

/// A server with some objects of every kind.
pub(crate) fn server(options: Options) -> Server {
    let server = Server::start(options).unwrap();
    server.load([json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "shop"}}})]).unwrap();
    server.load((0..8).map(|number| pod(&format!("pod-{number}"), number))).unwrap();
    server.load((0..4).map(|number| policy(&format!("policy-{number}"), &format!("pod-{number}")))).unwrap();
    server
        .load([
            json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}, "spec": {"podCIDR": "10.0.0.0/24"},
                "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
            }),
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "selector": {"tier": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
            }),
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}], "ports": [{"name": "", "port": 8080}],
            }),
        ])
        .unwrap();
    server
}

/// Changes of several kinds; each number other ones.
pub(crate) fn change(server: &Server, number: usize) {
    server.create(pod(&format!("new-{number}"), 100 + number)).unwrap();
    server.finish_pod("shop", &format!("pod-{}", number % 8)).unwrap();
    server.create(pod(&format!("pod-{}", number % 8), 200 + number)).unwrap();
    server.patch(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("new-{number}"), "namespace": "shop", "labels": {"app": "other"}}})).unwrap();
    let mut changed = policy(&format!("policy-{}", number % 4), &format!("other-{number}"));
    changed["metadata"]["labels"] = json!({"round": number.to_string()});
    server.load([changed]).unwrap();
    server.create(policy(&format!("new-{number}"), "pod-1")).unwrap();
    if number > 0 {
        server.delete("networking.k8s.io/v1", "NetworkPolicy", "shop", &format!("new-{}", number - 1)).unwrap();
    }
}
