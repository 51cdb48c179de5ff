//! An API server for tests: real HTTP, the semantics of kube-apiserver, and no cluster behind it.
//!
//! It is as strict as the real one: what kube-apiserver refuses, this refuses with the same status code, `Status` body, reason and form of
//! message. Versions differ in details; where they do, this follows Kubernetes 1.34 and 1.35, and [`Options`] has the switch.
//!
//! ```text
//! connection -> handle (faults, authn, rbac) -> resources -> list, watch, write, patch -> store
//!                                            -> review, discovery, portforward
//! ```
//!
//! A [`Server`] runs on its own threads, so that tests need no async to use it. What it leaves out: protobuf, Tables, aggregated discovery
//! (406), server-side apply (415), dry runs (400), admission, controllers, TLS. A namespace is deleted with its content at once; a pod that
//! was deleted stays until [`Server::finish_pod`], as its kubelet is the test.

mod authn;
mod connection;
pub mod crd;
mod defaults;
mod discovery;
mod event;
mod fault;
mod handle;
#[cfg(test)]
mod input_tests;
mod labels;
mod list;
mod options;
mod patch;
mod portforward;
mod rbac;
mod resource;
mod resources;
mod review;
mod route;
mod selector;
mod state;
mod stats;
mod status;
mod store;
mod watch;
mod write;

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

pub use self::authn::{API_AUDIENCE, User};
pub use self::fault::{Cut, Fault, Scope};
pub use self::portforward::Connector;
pub use self::state::Options;
pub use self::stats::{Asked, Count, Stats};
pub use self::status::{Cause, Refusal};

use self::connection::Listening;
use self::state::{State, lock};
use self::write::{Deleted, Target};

/// The name of the user who may do everything, present from the start.
pub const ADMIN: &str = "admin";

/// A running server. Dropping it closes its port and all connections.
pub struct Server {
    state: Arc<State>,
    address: SocketAddr,
    listening: tokio::sync::watch::Sender<(u64, Listening)>,
    acknowledged: tokio::sync::watch::Receiver<u64>,
    runtime: Option<Runtime>,
}

impl Server {
    /// Starts a server on a free port of 127.0.0.1, with the namespaces and roles that every cluster has.
    ///
    /// # Errors
    /// No port or no thread to be had.
    pub fn start(options: Options) -> Result<Server> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("apiserver")
            .enable_all()
            .build()
            .context("cannot start the threads of the test API server")?;
        let state = State::new(options);
        lock(&state.tokens).add("admin-token", User::new(ADMIN, &["system:masters"]));
        let listener = {
            let _entered = runtime.enter();
            connection::bind(SocketAddr::from(([127, 0, 0, 1], 0))).context("cannot open a port on 127.0.0.1 for the test API server")?
        };
        let address = listener.local_addr().context("the test API server's port has no address")?;
        let (listening, receiver) = tokio::sync::watch::channel((0, Listening::Here));
        let (acknowledge, acknowledged) = tokio::sync::watch::channel(0);
        runtime.spawn(connection::accept(Arc::clone(&state), listener, address, receiver, acknowledge));
        Ok(Server { state, address, listening, acknowledged, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a user with a static token, which is returned: `NAME-token`.
    pub fn add_user(&self, name: &str, groups: &[&str]) -> String {
        let token = format!("{name}-token");
        lock(&self.state.tokens).add(&token, User::new(name, groups));
        token
    }

    /// Makes a token as a TokenRequest does: for audiences (none: the API server's), for a number of seconds of at least 600.
    ///
    /// # Errors
    /// The ServiceAccount does not exist, or the duration is too short.
    pub fn service_account_token(&self, namespace: &str, name: &str, audiences: &[&str], seconds: u64) -> Result<String, Refusal> {
        let request = json!({"spec": {"audiences": audiences, "expirationSeconds": seconds}});
        let now = self.state.now();
        let answer = lock(&self.state.tokens).issue(&lock(&self.state.store), namespace, name, &request, now)?;
        Ok(answer["status"]["token"].as_str().unwrap_or_default().to_owned())
    }

    /// Forgets a token: 401 from now on, as after its expiry.
    pub fn revoke(&self, token: &str) {
        lock(&self.state.tokens).revoke(token);
    }

    /// A kubeconfig for a user that was added, or [`ADMIN`].
    ///
    /// # Errors
    /// There is no such user.
    pub fn kubeconfig(&self, user: &str) -> Result<String> {
        let token = lock(&self.state.tokens).of_user(user).map(str::to_owned);
        let Some(token) = token else { bail!("the test API server has no user {user}: add it with add_user") };
        Ok(self.kubeconfig_of(user, &token))
    }

    /// A kubeconfig with a token.
    pub fn kubeconfig_of(&self, user: &str, token: &str) -> String {
        // YAML by way of JSON, which it includes: names need no quoting of ours.
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url()}}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user, "namespace": "default"}}],
        })
        .to_string()
    }

    /// Creates an object as it is, status included. The resource follows from its `apiVersion` and `kind`.
    ///
    /// # Errors
    /// What the API server would refuse.
    pub fn create(&self, object: Value) -> Result<Value, Refusal> {
        self.write(&object, |store, target| write::create(store, Target { name: "", ..target }, object.clone()))
    }

    /// Replaces an object, status included.
    ///
    /// # Errors
    /// What the API server would refuse; a conflict if the object has a resourceVersion that is not the present one.
    pub fn replace(&self, object: Value) -> Result<Value, Refusal> {
        self.write(&object, |store, target| write::replace(store, target, object.clone(), false))
    }

    /// Creates or replaces objects, in their order: a cluster's state at once.
    ///
    /// # Errors
    /// The first object that is refused; those before it are there.
    pub fn load(&self, objects: impl IntoIterator<Item = Value>) -> Result<(), Refusal> {
        for mut object in objects {
            let exists = self.write(&object, |store, target| target.existing(store)).is_ok();
            if exists {
                object["metadata"].as_object_mut().map(|metadata| metadata.remove("resourceVersion"));
                self.put_over(object)?;
            } else {
                self.create(object)?;
            }
        }
        Ok(())
    }

    fn put_over(&self, mut object: Value) -> Result<Value, Refusal> {
        self.write(&object.clone(), |store, target| {
            // Custom resources cannot be replaced without the revision that is replaced.
            object["metadata"]["resourceVersion"] = target.existing(store)?.revision.to_string().into();
            write::replace(store, target, object.take(), false)
        })
    }

    /// Applies a merge patch to the object that it names by kind, namespace and name. Status included.
    ///
    /// # Errors
    /// What the API server would refuse.
    pub fn patch(&self, patch: &Value) -> Result<Value, Refusal> {
        self.write(patch, |store, target| {
            let existing = target.existing(store)?;
            let resource =
                store.table(target.group, target.plural).map(|table| Arc::clone(&table.resource)).ok_or_else(Refusal::no_such_resource)?;
            let version = patch["apiVersion"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default();
            let object =
                patch::apply(&resource, "application/merge-patch+json", existing.typed(&resource, version), patch.to_string().as_bytes())?;
            write::replace(store, target, object, false)
        })
    }

    /// Deletes an object as a client does, with the default grace period: a pod on a node is marked, and stays. Whether it is gone.
    ///
    /// # Errors
    /// What the API server would refuse.
    pub fn delete(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Result<bool, Refusal> {
        self.remove(api_version, kind, namespace, name, &Value::Null)
    }

    /// Deletes an object for good, as kubelet deletes a pod whose containers have ended.
    ///
    /// # Errors
    /// There is no such object.
    pub fn delete_now(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Result<bool, Refusal> {
        self.remove(api_version, kind, namespace, name, &json!({"gracePeriodSeconds": 0}))
    }

    /// Ends a pod as its kubelet does: gone, whatever its grace period.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn finish_pod(&self, namespace: &str, name: &str) -> Result<(), Refusal> {
        self.delete_now("v1", "Pod", namespace, name).map(|_| ())
    }

    fn remove(&self, api_version: &str, kind: &str, namespace: &str, name: &str, options: &Value) -> Result<bool, Refusal> {
        let named = json!({"apiVersion": api_version, "kind": kind, "metadata": {"namespace": namespace, "name": name}});
        let mut gone = false;
        self.write(&named, |store, target| {
            Ok(match write::delete(store, target, options)? {
                Deleted::Marked(object) => object,
                Deleted::Gone(object) => {
                    gone = true;
                    object
                }
            })
        })?;
        Ok(gone)
    }

    /// An object as it is now.
    ///
    /// # Errors
    /// 404.
    pub fn get(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Result<Value, Refusal> {
        let named = json!({"apiVersion": api_version, "kind": kind, "metadata": {"namespace": namespace, "name": name}});
        self.write(&named, |store, target| target.existing(store))
    }

    /// All objects of a kind, of all namespaces, in the order of their names.
    pub fn list(&self, api_version: &str, kind: &str) -> Vec<Value> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let store = lock(&self.state.store);
        let of_kind = store.tables().filter(|table| table.resource.group == group && table.resource.kind == kind);
        of_kind.flat_map(|table| table.objects.values().map(|object| object.typed(&table.resource, version))).collect()
    }

    /// Finds the resource that an object is of, and does something there. The object that results.
    fn write(
        &self,
        object: &Value,
        run: impl FnOnce(&mut store::Store, Target<'_>) -> Result<Arc<store::Object>, Refusal>,
    ) -> Result<Value, Refusal> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let mut store = lock(&self.state.store);
        let found = store
            .tables()
            .map(|table| &table.resource)
            .find(|resource| resource.group == group && resource.kind == kind && resource.versions.iter().any(|served| served == version));
        let Some(resource) = found.map(Arc::clone) else {
            let why = format!("no matches for kind \"{kind}\" in version \"{api_version}\"");
            return Err(Refusal::new(404, "NotFound", why));
        };
        let metadata = &object["metadata"];
        let mut namespace = if resource.namespaced { text(&metadata["namespace"]) } else { String::new() };
        if resource.namespaced && namespace.is_empty() {
            "default".clone_into(&mut namespace);
        }
        let name = text(&metadata["name"]);
        let target =
            Target { group, plural: &resource.plural, namespace: &namespace, name: &name, now: self.state.now(), with_status: true };
        run(&mut store, target).map(|object| object.typed(&resource, version))
    }

    /// The revision of the last write.
    pub fn revision(&self) -> u64 {
        lock(&self.state.store).revision()
    }

    /// Forgets the history: lists and watches from before now are too old. Watches that run go on.
    pub fn compact(&self) {
        lock(&self.state.store).compact();
    }

    /// Counts writes that nobody sees here, as other resources of a cluster cause them.
    pub fn skip_revisions(&self, count: u64) {
        lock(&self.state.store).skip_revisions(count);
    }

    /// Lets the next requests in a scope fail.
    pub fn fail_next(&self, scope: Scope, count: usize, fault: Fault) {
        lock(&self.state.faults).add(scope, count, fault);
    }

    /// Forgets faults that are still to come.
    pub fn clear_faults(&self) {
        lock(&self.state.faults).clear();
    }

    /// Ends the watches in a scope that are open now. Later ones are not touched.
    pub fn cut_watches(&self, scope: Scope, cut: Cut) {
        lock(&self.state.faults).cut(scope, cut);
        lock(&self.state.store).wake();
    }

    /// Sets the clock of the server off by seconds: dates of answers, creation times, expiry of tokens.
    pub fn set_clock_skew(&self, seconds: i64) {
        self.state.set_skew(seconds);
    }

    /// Resets all connections and closes the port.
    ///
    /// # Errors
    /// The server's threads do not answer.
    pub fn go_away(&self) -> Result<()> {
        self.listen(Listening::Away)
    }

    /// Resets all connections; new ones are accepted, and no request is ever answered.
    ///
    /// # Errors
    /// The server's threads do not answer.
    pub fn go_deaf(&self) -> Result<()> {
        self.listen(Listening::Deaf)
    }

    /// Is back on the same port.
    ///
    /// # Errors
    /// Another program has taken the port meanwhile.
    pub fn come_back(&self) -> Result<()> {
        self.listen(Listening::Here)
    }

    fn listen(&self, wanted: Listening) -> Result<()> {
        let mut epoch = 0;
        self.listening.send_modify(|(current, listening)| {
            *current += 1;
            (epoch, *listening) = (*current, wanted);
        });
        let patience = Instant::now() + Duration::from_secs(10);
        while *self.acknowledged.borrow() < epoch {
            if Instant::now() > patience {
                bail!("the test API server on {} did not become {wanted:?} within 10 seconds: is its port taken?", self.address);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Connects a pod's port to an address, for port-forward.
    pub fn forward(&self, namespace: &str, pod: &str, port: u16, to: SocketAddr) {
        self.forward_with(namespace, pod, port, Arc::new(move || TcpStream::connect(to)));
    }

    /// Connects a pod's port to whatever a closure connects to, such as an address in another network namespace. The closure runs on a thread
    /// that may block; it leaves that thread's namespace as it was.
    pub fn forward_with(&self, namespace: &str, pod: &str, port: u16, connect: Connector) {
        lock(&self.state.forwards).insert((namespace.to_owned(), pod.to_owned(), port), connect);
    }

    /// What clients asked for since the start.
    pub fn stats(&self) -> Stats {
        lock(&self.state.stats).clone()
    }

    /// Waits until the counters say something, such as that a watch is open.
    ///
    /// # Errors
    /// They do not within the time.
    pub fn wait_for_stats(&self, patience: Duration, what: &str, test: impl Fn(&Stats) -> bool) -> Result<()> {
        let end = Instant::now() + patience;
        while !test(&self.stats()) {
            if Instant::now() > end {
                bail!("the test API server waited {patience:?} in vain for {what}; its counters: {:#?}", self.stats());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Dropping a runtime waits for threads that block, which async tests may not; and a connector may hang.
            runtime.shutdown_background();
        }
    }
}
