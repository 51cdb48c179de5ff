//! A small cluster to ask about, and the real program.

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

/// Namespace shop: web (a Deployment of two, one of them with another label), api (a Service over two pods that policies treat
/// differently, and two that take no calls), db (a StatefulSet behind a headless Service), invoice (a Job's pod, egress to the db only).
pub(crate) const CLUSTER: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: kube-system}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}
---
apiVersion: v1
kind: Pod
metadata:
  {name: web-7d9f-a, namespace: shop, labels: {app: web, app.kubernetes.io/name: web, pod-template-hash: 7d9f}, ownerReferences: [{kind: ReplicaSet, name: web-7d9f, apiVersion: apps/v1, uid: u, controller: true}]}
status: {phase: Running, podIP: 10.0.1.1, podIPs: [{ip: 10.0.1.1}, {ip: "fd00::1"}]}
---
apiVersion: v1
kind: Pod
metadata:
  {name: web-7d9f-b, namespace: shop, labels: {app: web, app.kubernetes.io/name: web, pod-template-hash: 7d9f}, ownerReferences: [{kind: ReplicaSet, name: web-7d9f, apiVersion: apps/v1, uid: u, controller: true}]}
status: {phase: Running, podIP: 10.0.1.2}
---
apiVersion: v1
kind: Pod
metadata:
  {name: web-8c8c-c, namespace: shop, labels: {app: web, canary: "true", pod-template-hash: 8c8c}, ownerReferences: [{kind: ReplicaSet, name: web-8c8c, apiVersion: apps/v1, uid: u, controller: true}]}
status: {phase: Running, podIP: 10.0.1.3}
---
apiVersion: v1
kind: Pod
metadata: {name: api-1, namespace: shop, labels: {app: api}}
spec: {containers: [{name: api, image: api, ports: [{name: http, containerPort: 8080}]}]}
status: {phase: Running, podIP: 10.0.1.11}
---
apiVersion: v1
kind: Pod
metadata: {name: api-2, namespace: shop, labels: {app: api, locked: "true"}}
spec: {containers: [{name: api, image: api, ports: [{name: http, containerPort: 8080}]}]}
status: {phase: Running, podIP: 10.0.1.12}
---
apiVersion: v1
kind: Pod
metadata: {name: api-3, namespace: shop, labels: {app: api}}
spec: {containers: [{name: api, image: api, ports: [{name: http, containerPort: 8080}]}]}
status: {phase: Running, podIP: 10.0.1.13, conditions: [{type: Ready, status: "False"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: api-4, namespace: shop, labels: {app: api}}
status: {phase: Failed, podIP: 10.0.1.14}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: shop, labels: {app: db}, ownerReferences: [{kind: StatefulSet, name: db, apiVersion: apps/v1, uid: u, controller: true}]}
status: {phase: Running, podIP: 10.0.1.21}
---
apiVersion: v1
kind: Pod
metadata: {name: invoice-100-x, namespace: shop, labels: {app: invoice}, ownerReferences: [{kind: Job, name: invoice-100, apiVersion: batch/v1, uid: u, controller: true}]}
status: {phase: Running, podIP: 10.0.1.31}
---
apiVersion: v1
kind: Pod
metadata: {name: fresh, namespace: shop, labels: {app: fresh}}
---
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: shop, labels: {app: agent}, ownerReferences: [{kind: DaemonSet, name: agent, apiVersion: apps/v1, uid: u, controller: true}]}
spec: {nodeName: n1, hostNetwork: true, containers: []}
status: {phase: Running, podIP: 192.0.2.1}
---
apiVersion: v1
kind: Pod
metadata: {name: coredns, namespace: kube-system, labels: {k8s-app: kube-dns}}
status: {phase: Running, podIP: 10.0.2.1}
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec: {clusterIP: 10.96.0.10, selector: {k8s-app: kube-dns}, ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {clusterIP: 10.96.0.20, selector: {app: api}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: locked, namespace: shop}
spec: {clusterIP: 10.96.0.21, selector: {locked: "true"}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: open, namespace: shop}
spec: {clusterIP: 10.96.0.22, selector: {app: agent}, ports: [{port: 80, targetPort: 9100}, {port: 443, targetPort: 9100}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: reports, namespace: shop}
spec: {clusterIP: 10.96.0.24, selector: {app: reports}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: fresh, namespace: shop}
spec: {selector: {app: fresh}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: payments, namespace: shop}
spec: {type: ExternalName, externalName: api.bank.example.}
---
apiVersion: v1
kind: Service
metadata: {name: old-api, namespace: shop}
spec: {type: ExternalName, externalName: locked.shop.svc.cluster.local}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: locked, namespace: shop}
spec:
  podSelector: {matchLabels: {locked: "true"}}
  policyTypes: [Ingress]
  ingress:
    - from: [{podSelector: {matchLabels: {canary: "true"}}}]
      ports: [{port: http}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: invoice, namespace: shop}
spec:
  podSelector: {matchLabels: {app: invoice}}
  policyTypes: [Egress]
  egress:
    - to: [{podSelector: {matchLabels: {app: db}}}]
      ports: [{port: 5432}]
    - to: [{ipBlock: {cidr: 198.51.100.0/24}}]
      ports: [{port: 443}]
    - to: [{ipBlock: {cidr: 10.0.2.0/24}}]
      ports: [{port: 9153}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: invoice}}}, {podSelector: {matchLabels: {app: fresh}}}]
      ports: [{port: 5432}]
"#;

/// A directory with manifests in it.
pub(crate) struct Scene {
    directory: TempDir,
}

/// What a run gave.
pub(crate) struct Run {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(CLUSTER)
    }

    pub(crate) fn with(manifests: &str) -> Self {
        let scene = Scene { directory: TempDir::new().unwrap() };
        scene.file("cluster.yaml", manifests);
        scene
    }

    pub(crate) fn file(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    /// `observer explain` on the cluster.
    pub(crate) fn explain(&self, arguments: &[&str]) -> Run {
        self.explain_with(&[&["-f", "cluster.yaml"], arguments].concat(), "")
    }

    pub(crate) fn explain_with(&self, arguments: &[&str], stdin: &str) -> Run {
        run(self.directory.path(), arguments, stdin)
    }

    /// The answer as an object.
    pub(crate) fn json(&self, arguments: &[&str]) -> (Value, i32) {
        let run = self.explain(&[arguments, &["-o", "json"]].concat());
        let value = serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}: {}{}", run.out, run.err));
        (value, run.code)
    }

    /// What it says of a question that has no answer.
    pub(crate) fn error(&self, arguments: &[&str]) -> String {
        let run = self.explain(arguments);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{}", run.err);
        run.err
    }
}

pub(crate) fn run(directory: &Path, arguments: &[&str], stdin: &str) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_observer"));
    command.current_dir(directory).env_remove("RUST_LOG").env_remove("NO_COLOR").arg("explain").args(arguments).write_stdin(stdin);
    // No cluster, whatever this machine has.
    command.env("HOME", directory).env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST");
    let output = command.output().unwrap();
    Run {
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code().unwrap(),
    }
}
