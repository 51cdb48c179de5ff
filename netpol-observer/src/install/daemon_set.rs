//! The DaemonSet: an agent on every node, with as few rights as it can do with.

use serde_json::{Value, json};

use super::{METRICS_PORT, NAME, Options, PORT, labels, metadata, metrics, otlp, selector};

/// What the agents have for certain: in a cluster of some thousand pods they take less. The figures are those of docs/benchmarks.md.
const MEMORY: &str = "128Mi";

/// 100,000 pods and 5,000 policies (202 MiB), their past (64 MiB at most), drops that are kept for readers (32 MiB at most) and floods of many flows (115 MiB), all at
/// once, and some to spare.
const MEMORY_LIMIT: &str = "512Mi";

/// Watches of 200 changes per second take 6 % of a CPU; floods take more. There is no limit: an agent that is throttled judges late, and the ring fills.
const CPU: &str = "50m";

/// How long the agent takes to give readers what is left, and some more (docs/agent.md).
const GRACE_SECONDS: u32 = 20;

pub(super) fn daemon_set(options: &Options) -> Value {
    let mut pod = json!({
        "serviceAccountName": NAME,
        "automountServiceAccountToken": true,
        "hostNetwork": false,
        "hostPID": false,
        "hostIPC": false,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        // Drops happen on every node, those of control planes and those that are not ready included.
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "containers": [container(options)],
    });
    if !options.image_pull_secrets.is_empty() {
        pod["imagePullSecrets"] = options.image_pull_secrets.iter().map(|name| json!({"name": name})).collect();
    }
    if let Some(class) = &options.priority_class {
        pod["priorityClassName"] = json!(class);
    }
    let volumes = options.otlp.as_ref().map(|of| otlp::volumes(of).0).unwrap_or_default();
    if !volumes.is_empty() {
        pod["volumes"] = json!(volumes);
    }
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata(options, NAME),
        "spec": {
            "selector": {"matchLabels": selector()},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {"metadata": {"labels": labels()}, "spec": pod},
        },
    })
}

fn container(options: &Options) -> Value {
    let mut args = vec!["agent".to_owned()];
    let mut container = json!({
        "name": "agent",
        "image": options.image,
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "resources": {"requests": {"cpu": CPU, "memory": MEMORY}, "limits": {"memory": MEMORY_LIMIT}},
        "securityContext": security_context(options),
        // What went wrong is in the log, and its end in the status.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    let mut ports = Vec::new();
    if options.tenant_mode {
        args.extend(listen());
        ports.push(json!({"name": "api", "containerPort": PORT, "protocol": "TCP"}));
    }
    if options.metrics {
        args.extend(["--metrics".to_owned(), format!("[::]:{METRICS_PORT}")]);
        ports.push(json!({"name": metrics::PORT_NAME, "containerPort": METRICS_PORT, "protocol": "TCP"}));
    }
    if !ports.is_empty() {
        container["ports"] = json!(ports);
    }
    if let Some(of) = &options.otlp {
        args.extend(otlp::arguments(of));
        let mounts = otlp::volumes(of).1;
        if !mounts.is_empty() {
            container["volumeMounts"] = json!(mounts);
        }
    }
    args.extend(options.events.map(|scope| format!("--events={scope}")));
    // The first lists of a large cluster, and up to ten seconds of waiting before them.
    container["startupProbe"] = probe(options, "healthz", 2, 30);
    container["livenessProbe"] = probe(options, "healthz", 10, 3);
    container["readinessProbe"] = probe(options, "readyz", 5, 2);
    container["args"] = json!(args);
    container
}

fn listen() -> [String; 3] {
    ["--tenant-mode".to_owned(), "--listen".to_owned(), format!("[::]:{PORT}")]
}

/// The agent asks itself: a kubelet does not reach the loopback of a pod.
fn probe(options: &Options, which: &str, period: u32, failures: u32) -> Value {
    let mut command = vec!["/observer".to_owned(), "agent".to_owned(), "--probe".to_owned(), which.to_owned()];
    if options.tenant_mode {
        command.extend(["--tenant-mode".to_owned(), "--listen".to_owned(), format!("127.0.0.1:{PORT}")]);
    }
    json!({"exec": {"command": command}, "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures})
}

/// Root without root's rights: capabilities that are added to a container take effect for user 0 alone (Kubernetes sets no ambient ones). BPF loads the
/// programs, PERFMON lets them read the kernel's memory and be attached, SYSLOG shows where its functions are.
fn security_context(options: &Options) -> Value {
    let mut capabilities = vec!["BPF", "PERFMON", "SYSLOG"];
    if options.older_kernels {
        // To raise the limit of locked memory, which maps are charged to before 5.11.
        capabilities.push("SYS_RESOURCE");
    }
    json!({
        "runAsUser": 0,
        "runAsGroup": 0,
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"], "add": capabilities},
        "seccompProfile": seccomp_profile(options),
    })
}

/// The runtime's own lets containers with CAP_BPF call bpf() on newer runtimes; for others there is deploy/seccomp/netpol-observer.json.
fn seccomp_profile(options: &Options) -> Value {
    match &options.seccomp_profile {
        None => json!({"type": "RuntimeDefault"}),
        Some(path) => json!({"type": "Localhost", "localhostProfile": path}),
    }
}
