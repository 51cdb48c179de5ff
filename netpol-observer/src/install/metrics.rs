//! What Prometheus needs to scrape the agents: somebody who may get their metrics and nothing else, and where to find them.

use serde_json::{Value, json};

use super::{NAME, Options, labels, metadata, selector};

/// Whose token scrapes.
pub(super) const READER: &str = "netpol-observer-metrics";

/// The name of the port, by which a PodMonitor finds it.
pub(super) const PORT_NAME: &str = "metrics";

/// A ServiceAccount, a Secret with its token, and a role that lets it get `/metrics`: no agent is given the token of a Prometheus that may do more.
pub(super) fn reader(options: &Options) -> [Value; 4] {
    let mut secret = metadata(options, READER);
    secret["annotations"] = json!({"kubernetes.io/service-account.name": READER});
    let of_cluster = json!({"name": READER, "labels": labels()});
    [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(options, READER), "automountServiceAccountToken": false}),
        // The API server puts the token in.
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": secret, "type": "kubernetes.io/service-account-token"}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": of_cluster,
            "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": of_cluster,
            "subjects": [{"kind": "ServiceAccount", "name": READER, "namespace": options.namespace}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": READER},
        }),
    ]
}

/// For the Prometheus operator. Each agent makes its own certificate, which no authority vouches for; the token that it is given is good for nothing else.
pub(super) fn pod_monitor(options: &Options) -> Value {
    json!({
        "apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor", "metadata": metadata(options, NAME),
        "spec": {
            // The alert rules and the dashboard know the job by this name.
            "jobLabel": "app.kubernetes.io/name",
            "selector": {"matchLabels": selector()},
            "podMetricsEndpoints": [{
                "port": PORT_NAME,
                "path": "/metrics",
                "scheme": "https",
                "authorization": {"type": "Bearer", "credentials": {"name": READER, "key": "token"}},
                "tlsConfig": {"insecureSkipVerify": true},
                "relabelings": [{"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}],
            }],
        },
    })
}
