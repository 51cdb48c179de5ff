//! Clusters to map.

use std::path::PathBuf;

use assert_cmd::Command;
use tempfile::TempDir;

/// A shop with two namespaces, an address outside, and denials of every kind.
pub(crate) const SHOP: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: data}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, replicas: 2, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: shop}
spec: {selector: {matchLabels: {app: api}}, replicas: 1, template: {metadata: {labels: {app: api}}, spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}, {name: metrics, containerPort: 9090}]}]}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: data}
spec: {selector: {matchLabels: {app: db}}, serviceName: db, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, image: i, ports: [{name: pg, containerPort: 5432}]}]}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  policyTypes: [Ingress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{port: http}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: data}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}, podSelector: {matchLabels: {app: api}}}]
      ports: [{port: pg}]
  egress:
    - to: [{ipBlock: {cidr: 203.0.113.0/24}}]
      ports: [{port: 443}]
"#;

/// What `observer tail -o json` wrote in it: the web pods tried the database, 42 times; somebody called what is not there any more.
pub(crate) const DROPS: &str = r#"{"type":"denial","id":"0000000000000001","time":"2026-11-30T10:00:00Z","first":"2026-11-30T10:00:00Z","last":"2026-11-30T10:00:00Z","count":1,"class":"policyDenied","summary":"Denied by ingress policies on data/db-0.","client":{"ip":"10.0.0.1","port":40000,"kind":"pod","namespace":"shop","name":"web-5d9-x","workload":{"kind":"Deployment","name":"web"}},"server":{"ip":"10.0.0.9","port":5432,"kind":"pod","namespace":"data","name":"db-0","workload":{"kind":"StatefulSet","name":"db"}},"protocol":"TCP","explanation":{"egress":{"outcome":"notIsolated"},"ingress":{"outcome":"denied","isolating":[{"policy":{"kind":"NetworkPolicy","namespace":"data","name":"db"},"rules":[]}]},"fixes":[{"direction":"ingress","change":"let app=web in by a peer of ingress[0]"}]}}
{"type":"repeat","id":"0000000000000001","time":"2026-11-30T10:02:00Z","first":"2026-11-30T10:00:00Z","last":"2026-11-30T10:02:00Z","count":41,"class":"policyDenied","client":{"ip":"10.0.0.1","kind":"pod","namespace":"shop","name":"web-5d9-x"},"server":{"ip":"10.0.0.9","port":5432,"kind":"pod","namespace":"data","name":"db-0"},"protocol":"TCP"}
{"type":"denial","id":"0000000000000002","time":"2026-11-30T10:01:00Z","first":"2026-11-30T10:01:00Z","last":"2026-11-30T10:01:00Z","count":1,"class":"policyDenied","summary":"Denied.","client":{"ip":"10.0.0.1","port":40000,"kind":"pod","namespace":"shop","name":"web-5d9-x","workload":{"kind":"Deployment","name":"web"}},"server":{"ip":"10.0.0.7","port":80,"kind":"pod","namespace":"gone","name":"gone"},"protocol":"TCP","explanation":{}}
{"type":"denial","id":"0000000000000003","time":"2026-11-30T10:01:00Z","count":1,"class":"noRoute","client":{"ip":"10.0.0.1","kind":"external"},"server":{"ip":"10.0.0.7","kind":"external"},"protocol":"TCP"}
{"type":"ledger","records":3}
"#;

/// Names that are markup, scripts and diagrams of their own. The API server would refuse them; files hold anything.
pub(crate) const HOSTILE: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: "<img src=x onerror=window.pwned=1>", namespace: "</script><script>window.pwned=2</script>"}
spec: {selector: {}, template: {metadata: {labels: {app: "<!--<script>", note: "\"];end;click n0 href \"javascript:window.pwned=3\""}}, spec: {containers: [{name: c, image: i}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: "\"];\nn9 -> n8 [label=\"\\", namespace: "{{data}}' & subgraph #quot;"}
spec: {selector: {}, template: {metadata: {labels: {app: b}}, spec: {containers: [{name: c, image: i, ports: [{name: "<b>", containerPort: 80}]}]}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: "<svg onload=window.pwned=4>", namespace: "{{data}}' & subgraph #quot;"}
spec: {podSelector: {}, policyTypes: [Ingress]}
"#;

/// 25 workloads in each of some namespaces, with some policies.
pub(crate) fn large(namespaces: usize) -> String {
    let mut text = String::new();
    for namespace in 0..namespaces {
        let tier = ["front", "middle", "back"][namespace % 3];
        let namespace = format!("team-{namespace:02}");
        text += &format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}, labels: {{tier: {tier}}}}}}}\n---\n");
        for workload in 0..25 {
            let role = ["api", "db", "web", "job", "job"][workload % 5];
            text += &format!(
                "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {role}-{workload:02}, namespace: {namespace}}}, spec: {{selector: {{}}, replicas: 2, template: \
                 {{metadata: {{labels: {{role: {role}}}}}, spec: {{containers: [{{name: c, image: i, ports: [{{name: http, containerPort: 8080}}]}}]}}}}}}}}\n---\n"
            );
        }
        for (name, from) in
            [("db", "{podSelector: {matchLabels: {role: api}}}"), ("api", "{namespaceSelector: {matchLabels: {tier: front}}}")]
        {
            text += &format!(
                "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{podSelector: {{matchLabels: {{role: {name}}}}}, \
                 ingress: [{{from: [{from}], ports: [{{port: http}}]}}]}}}}\n---\n"
            );
        }
    }
    text
}

/// Files in a directory of their own.
pub(crate) struct Scene {
    directory: TempDir,
}

impl Scene {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let scene = Scene { directory: TempDir::new().unwrap() };
        for (name, text) in files {
            std::fs::write(scene.path(name), text).unwrap();
        }
        scene
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Exit code, standard output and standard error of `observer map`.
    pub(crate) fn map(&self, arguments: &[&str]) -> (i32, String, String) {
        self.run(&[&["map"], arguments].concat(), "")
    }

    /// And of any command.
    pub(crate) fn run(&self, arguments: &[&str], input: &str) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_observer"));
        let output = command.current_dir(&self.directory).env_remove("RUST_LOG").args(arguments).write_stdin(input).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// The page of some manifests; to a file, which it gives.
    pub(crate) fn page(&self, manifests: &str, arguments: &[&str]) -> PathBuf {
        let name = format!("{manifests}.html");
        let (code, _, err) = self.map(&[&[manifests, "-o", "html", "--output-file", &name], arguments].concat());
        assert_eq!(code, 0, "{err}");
        self.path(&name)
    }
}
