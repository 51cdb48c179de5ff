//! The objects that put agents on the nodes of a cluster, and what they may do there.
//!
//! Everything that is granted is named here once, with what it is for: the role by [`permissions`], the container's rights in `daemon_set.rs`.
#![forbid(unsafe_code)]

mod daemon_set;
mod metrics;
mod otlp;

use serde_json::{Value, json};

use crate::watch::permissions;

/// What the objects are called, and the value of `app.kubernetes.io/name`.
pub const NAME: &str = "netpol-observer";

/// Namespaces that are a cluster's own: they are there, and are not to be removed.
const OF_THE_CLUSTER: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];

/// The port of the agents' API.
const PORT: u16 = 9470;

/// The port of their metrics.
const METRICS_PORT: u16 = 9471;
/// What lets the agents write Events.
const EVENTS: &str = "netpol-observer-events";

/// [`Options::events`]: nothing of one namespace is named in another.
pub const OWN_NAMESPACE: &str = "own-namespace";
/// [`Options::events`]: both ends of a connection are named, wherever they are.
pub const ACROSS_NAMESPACES: &str = "across-namespaces";

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the agents run.
    pub namespace: String,
    /// The image of the agents.
    pub image: String,
    /// Secrets of the namespace with credentials for the image's registry.
    pub image_pull_secrets: Vec<String>,
    /// The API is reached over the network by callers whose tokens it checks.
    pub tenant_mode: bool,
    /// Nodes may have kernels before 5.11, which charge maps to a limit of locked memory (`RLIMIT_MEMLOCK`).
    pub older_kernels: bool,
    /// A PriorityClass for the agents.
    pub priority_class: Option<String>,
    /// A seccomp profile on the nodes, by its path below the kubelet's directory of them, instead of the container runtime's own.
    pub seccomp_profile: Option<String>,
    /// The agents serve metrics over the network, to those who may get them.
    pub metrics: bool,
    /// The Prometheus operator is told of them.
    pub pod_monitor: bool,
    /// The agents send drops to a collector of OpenTelemetry.
    pub otlp: Option<Otlp>,
    /// The agents write Events, and what these may name: a value of their `--events`.
    pub events: Option<&'static str>,
}

impl Options {
    /// An installation in that namespace, with nothing that has to be asked for.
    pub fn new(namespace: &str, image: &str) -> Self {
        Options {
            namespace: namespace.to_owned(),
            image: image.to_owned(),
            image_pull_secrets: Vec::new(),
            tenant_mode: false,
            older_kernels: false,
            priority_class: None,
            seccomp_profile: None,
            metrics: false,
            pod_monitor: false,
            otlp: None,
            events: None,
        }
    }
}

/// Where agents send drops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// `--otlp-endpoint` of the agents.
    pub endpoint: String,
    /// `--otlp-protocol` of the agents.
    pub protocol: String,
    /// A Secret of the namespace whose key `headers` is a file of headers.
    pub headers_secret: Option<String>,
    /// A ConfigMap of the namespace whose key `ca.crt` holds the certificates to trust.
    pub ca_config_map: Option<String>,
}

/// The objects, in the order in which they are to be made.
pub fn objects(options: &Options) -> Vec<Value> {
    let mut objects = Vec::new();
    objects.extend(namespace(options));
    objects.push(service_account(options));
    objects.push(cluster_role());
    objects.push(cluster_role_binding(options, NAME, NAME));
    if options.tenant_mode || options.metrics {
        // TokenReview and SubjectAccessReview.
        objects.push(cluster_role_binding(options, "netpol-observer-auth-delegator", "system:auth-delegator"));
    }
    if options.metrics {
        objects.extend(metrics::reader(options));
    }
    if options.pod_monitor {
        objects.push(metrics::pod_monitor(options));
    }
    if options.events.is_some() {
        objects.push(events_role());
        objects.push(cluster_role_binding(options, EVENTS, EVENTS));
    }
    objects.push(network_policy(options));
    objects.push(daemon_set::daemon_set(options));
    objects
}

/// What is needed of the objects to remove them, the last one first. A namespace that others may use stays.
pub fn removal(options: &Options) -> Vec<Value> {
    // What other options would have made is there perhaps. Of a PodMonitor the cluster may not know the kind, and then kubectl would fail.
    let all = objects(&Options { tenant_mode: true, metrics: true, events: Some(OWN_NAMESPACE), ..options.clone() });
    let is_ours = |object: &Value| object["kind"] != "Namespace" || options.namespace == NAME;
    let named = all.into_iter().rev().filter(is_ours).map(|object| {
        let mut metadata = json!({"name": object["metadata"]["name"]});
        if let Some(namespace) = object["metadata"].get("namespace") {
            metadata["namespace"] = namespace.clone();
        }
        json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": metadata})
    });
    named.collect()
}

/// On every object, and on the pods.
fn labels() -> Value {
    json!({
        "app.kubernetes.io/name": NAME,
        "app.kubernetes.io/component": "agent",
        "app.kubernetes.io/version": env!("CARGO_PKG_VERSION"),
    })
}

/// What selects the agents' pods; it can never be changed.
fn selector() -> Value {
    json!({"app.kubernetes.io/name": NAME, "app.kubernetes.io/component": "agent"})
}

fn metadata(options: &Options, name: &str) -> Value {
    json!({"name": name, "namespace": options.namespace, "labels": labels()})
}

/// Capabilities beyond those of the Pod Security Standard "baseline" make the namespace one of privileged pods.
fn namespace(options: &Options) -> Option<Value> {
    if OF_THE_CLUSTER.contains(&options.namespace.as_str()) {
        return None;
    }
    let mut labels = labels();
    labels["pod-security.kubernetes.io/enforce"] = json!("privileged");
    labels["pod-security.kubernetes.io/warn"] = json!("privileged");
    labels["pod-security.kubernetes.io/audit"] = json!("privileged");
    Some(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": options.namespace, "labels": labels}}))
}

/// Its token is mounted by the pod's own wish, and into no other pod.
fn service_account(options: &Options) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(options, NAME), "automountServiceAccountToken": false})
}

/// To list and to watch what explanations need, and nothing else. A kind that the cluster does not have does no harm in it.
fn cluster_role() -> Value {
    let rule = |(group, resources): (&str, Vec<&str>)| json!({"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]});
    let rules: Vec<Value> = permissions().into_iter().map(rule).collect();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": NAME, "labels": labels()}, "rules": rules,
    })
}

/// To write Events and nothing else. A role of its own, so that it can be bound in some namespaces alone.
fn events_role() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": EVENTS, "labels": labels()},
        "rules": [{"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}],
    })
}

fn cluster_role_binding(options: &Options, name: &str, role: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name, "labels": labels()},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": options.namespace}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
    })
}

/// Nothing reaches the agents but port-forward, which comes by way of the node's own container runtime; in tenant mode callers reach the API, and Prometheus the
/// metrics where they are wanted. They reach the
/// API server, wherever it is: no selector names it, and its port differs from cluster to cluster. Some clusters name it by a name.
fn network_policy(options: &Options) -> Value {
    let open = [(options.tenant_mode, PORT), (options.metrics, METRICS_PORT)].into_iter().filter(|(is_open, _)| *is_open);
    let ports: Vec<Value> = open.map(|(_, port)| json!({"port": port, "protocol": "TCP"})).collect();
    let ingress = if ports.is_empty() { json!([]) } else { json!([{"ports": ports}]) };
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata(options, NAME),
        "spec": {
            "podSelector": {"matchLabels": selector()},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": [{"ports": [{"port": 1, "endPort": 65535, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}],
        },
    })
}

#[cfg(test)]
mod tests;
