//! Objects as a large cluster has them, as long as a real API server's: most of a pod is what nobody here reads.

use serde_json::{Value, json};

/// Pods of one workload, and behind one Service.
const REPLICAS: usize = 10;
const PODS_PER_NODE: usize = 50;
const NAMESPACES: usize = 500;

/// Which workload a pod belongs to: its namespace and its name.
fn workload(number: usize) -> (String, String) {
    let workload = number / REPLICAS;
    (format!("team-{:03}", workload % NAMESPACES), format!("service-{:03}", workload / NAMESPACES))
}

/// All objects of a cluster, in an order in which they can be made.
pub(crate) fn cluster(pods: usize, policies: usize) -> impl Iterator<Item = Value> {
    let workloads = pods.div_ceil(REPLICAS);
    let namespaces = (0..NAMESPACES).map(|number| {
        let name = format!("team-{number:03}");
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": name, "tier": (number % 5).to_string()}}})
    });
    let nodes = (0..pods.div_ceil(PODS_PER_NODE)).map(node);
    namespaces
        .chain(nodes)
        .chain((0..workloads).map(service))
        .chain((0..workloads).map(|workload| slice(workload, 0)))
        .chain((0..policies).map(|number| policy(number, 0)))
        .chain((0..pods).map(|number| pod(number, 0, "0")))
}

fn node(number: usize) -> Value {
    let image = |image: usize| json!({"names": [format!("registry.example.com/images/image-{image}@sha256:{image:064x}")], "sizeBytes": 123_456_789});
    let [_, a, b, c] = u32::try_from(number + 1).unwrap_or_default().to_be_bytes();
    let range = u32::from_be_bytes([10, 0, 0, 0]) + u32::try_from(number).unwrap_or_default() * 256;
    let range = format!("{}/24", std::net::Ipv4Addr::from(range));
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("node-{number:04}"), "labels": {"kubernetes.io/os": "linux", "zone": (number % 3).to_string()}, "managedFields": managed()},
        "spec": {"podCIDR": range, "podCIDRs": [range]},
        "status": {"addresses": [{"type": "InternalIP", "address": format!("172.{}.{b}.{c}", 16 + a)}], "images": (0..50).map(image).collect::<Vec<_>>()},
    })
}

fn service(workload: usize) -> Value {
    let (namespace, name) = self::workload(workload * REPLICAS);
    let [_, a, b, c] = u32::try_from(workload).unwrap_or_default().to_be_bytes();
    let ip = format!("192.{}.{b}.{c}", 168 + a);
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace, "managedFields": managed()},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    })
}

/// The endpoints of a workload; `version` tells it from the same one before and after.
pub(crate) fn slice(workload: usize, version: usize) -> Value {
    let (namespace, name) = self::workload(workload * REPLICAS);
    let endpoint = |number: usize| {
        json!({
            "addresses": [address(number)], "conditions": {"ready": number % 7 != version % 7, "serving": true, "terminating": false},
            "nodeName": format!("node-{:04}", number / PODS_PER_NODE), "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod_name(number)},
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{name}-x"), "namespace": namespace, "labels": {"kubernetes.io/service-name": name}, "managedFields": managed()},
        "endpoints": (workload * REPLICAS..(workload + 1) * REPLICAS).map(endpoint).collect::<Vec<_>>(), "ports": [{"name": "http", "port": 8080}],
    })
}

/// A policy of an application; `version` tells it from the same one before and after.
pub(crate) fn policy(number: usize, version: usize) -> Value {
    let (namespace, app) = workload(number * REPLICAS);
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("policy-{number}"), "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "Helm"}, "managedFields": managed()},
        "spec": {
            "podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"from": [{"podSelector": {"matchLabels": {"app": "service-001"}}}], "ports": [{"port": "http"}, {"port": 8443 + version % 100}]},
                {"from": [{"namespaceSelector": {"matchLabels": {"team": "team-001"}}}], "ports": [{"port": 9090}]},
            ],
            "egress": [
                {"to": [{"namespaceSelector": {}}], "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}]},
                {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]},
            ],
        },
    })
}

fn pod_name(number: usize) -> String {
    let (_, app) = workload(number);
    format!("{app}-{:010x}-{number:05x}", number / REPLICAS)
}

/// Namespace and name of a pod.
pub(crate) fn pod_key(number: usize) -> (String, String) {
    (workload(number).0, pod_name(number))
}

fn address(number: usize) -> String {
    // 50 pods in the 256 addresses of each node.
    let address =
        u32::from_be_bytes([10, 0, 0, 0]) + u32::try_from(number / PODS_PER_NODE * 256 + number % PODS_PER_NODE + 2).unwrap_or_default();
    std::net::Ipv4Addr::from(address).to_string()
}

/// A pod with what kubelet, the scheduler and admission write into it. `written_at` is a label that changes with each write.
pub(crate) fn pod(number: usize, version: usize, written_at: &str) -> Value {
    let (namespace, app) = workload(number);
    let hash = format!("{:010x}", number / REPLICAS);
    let condition =
        |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let conditions = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    let variable = |number: usize| json!({"name": format!("VARIABLE_{number}"), "valueFrom": {"configMapKeyRef": {"name": app, "key": format!("key-{number}")}}});
    let container = |name: &str| {
        json!({
            "name": name, "image": format!("registry.example.com/{app}/{name}:1.2.3"), "imagePullPolicy": "IfNotPresent",
            "ports": [{"name": if name == "app" { "http" } else { "proxy" }, "containerPort": if name == "app" { 8080 } else { 15090 }, "protocol": "TCP"}],
            "env": (0..8).map(variable).collect::<Vec<_>>(),
            "resources": {"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http", "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 1},
            "volumeMounts": [{"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}],
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        })
    };
    let status = |name: &str| {
        json!({
            "name": name, "ready": true, "started": true, "restartCount": version, "image": format!("registry.example.com/{app}/{name}:1.2.3"),
            "imageID": format!("registry.example.com/{app}/{name}@sha256:{number:064x}"), "containerID": format!("containerd://{number:064x}"),
            "lastState": {}, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        })
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": pod_name(number), "namespace": namespace, "generateName": format!("{app}-{hash}-"),
            "labels": {
                "app": app, "app.kubernetes.io/name": app, "app.kubernetes.io/instance": format!("{app}-{namespace}"), "app.kubernetes.io/version": "1.2.3",
                "app.kubernetes.io/managed-by": "Helm", "pod-template-hash": hash, "written-at": written_at,
            },
            "annotations": {"kubernetes.io/config.seen": "2026-01-01T00:00:00Z", "prometheus.io/scrape": "true"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-{hash}"), "uid": "x", "controller": true, "blockOwnerDeletion": true}],
            "managedFields": managed(),
        },
        "spec": {
            "nodeName": format!("node-{:04}", number / PODS_PER_NODE), "serviceAccountName": app, "containers": [container("app"), container("proxy")],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            "volumes": [{"name": "kube-api-access", "projected": {"sources": [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}], "defaultMode": 420}}],
        },
        "status": {
            "phase": "Running", "podIP": address(number), "podIPs": [{"ip": address(number)}], "hostIP": "172.16.0.1", "qosClass": "Burstable",
            "conditions": conditions,
            "containerStatuses": [status("app"), status("proxy")],
        },
    })
}

/// Who wrote which fields, as the API server keeps it: a third of many objects.
fn managed() -> Value {
    let fields = |number: usize| (format!("f:field-of-an-object-{number}"), json!({".": {}, "f:value": {}, "f:other": {}}));
    let fields: serde_json::Map<String, Value> = (0..16).map(fields).collect();
    json!([{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": fields}}])
}
