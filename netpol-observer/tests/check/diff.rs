//! `observer diff` as people run it: files, revisions of git, recorded connections, all forms.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use insta::assert_snapshot;
use serde_json::Value;

const WORKLOADS: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {selector: {}, replicas: 1, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: web}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: shop}
spec: {selector: {}, replicas: 1, template: {metadata: {labels: {app: api}}, spec: {containers: [{name: api, image: api, ports: [{name: http, containerPort: 8080}]}]}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: data}
spec: {selector: {}, replicas: 1, serviceName: db, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: db, image: db}]}}}
"#;

const POLICIES: &str = r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{port: http}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: data}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
    - from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}, podSelector: {matchLabels: {app: api}}}]
      ports: [{port: 5432}]
"#;

/// A git repository with the manifests in `deploy`, committed; and what a colleague has made of them since.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        let scene = Scene(tempfile::tempdir().unwrap());
        fs::create_dir(scene.path("deploy")).unwrap();
        scene.write("deploy/workloads.yaml", WORKLOADS);
        scene.write("deploy/policies.yaml", POLICIES);
        for arguments in [
            &["init", "-q", "-b", "main", "."][..],
            &["add", "deploy"],
            &["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "-m", "first"],
        ] {
            assert!(Command::new("git").args(arguments).current_dir(scene.0.path()).status().unwrap().success());
        }
        // The web calls a port that is not admitted any more, the database opens to the web.
        let changed = POLICIES.replace("ports: [{port: http}]", "ports: [{port: 8443}]").replace(
            "podSelector: {matchLabels: {app: api}}}]\n      ports: [{port: 5432}]",
            "podSelector: {matchExpressions: [{key: app, operator: In, values: [api, web]}]}}]\n      ports: [{port: 5432}]",
        );
        scene.write("deploy/policies.yaml", &changed);
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn diff(&self, arguments: &[&str]) -> (i32, String, String) {
        run(self.0.path(), arguments)
    }
}

fn run(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = assert_cmd::Command::cargo_bin("observer").unwrap();
    let output = command.arg("diff").args(arguments).current_dir(directory).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn two_revisions_as_text() {
    let scene = Scene::new();
    let (code, out, err) = scene.diff(&["rev:main:deploy", "deploy"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_snapshot!(out, @"
    newly denied
      shop/deploy/web → shop/deploy/api  8080/TCP
        ingress  before admitted by NetworkPolicy shop/api ingress[0] (main:deploy/policies.yaml:7)
                 after  no ingress rule of NetworkPolicy shop/api (deploy/policies.yaml:1) admits it

    newly allowed
      shop/deploy/web → data/sts/db  5432/TCP
        ingress  before no ingress rule of NetworkPolicy data/db (main:deploy/policies.yaml:10) admits it
                 after  admitted by NetworkPolicy data/db ingress[0] (deploy/policies.yaml:16)
      shop/deploy/web → shop/deploy/api  8443/TCP
        ingress  before no ingress rule of NetworkPolicy shop/api (main:deploy/policies.yaml:1) admits it
                 after  admitted by NetworkPolicy shop/api ingress[0] (deploy/policies.yaml:7)

    NetworkPolicy data/db changed
    NetworkPolicy shop/api changed
    rev:main:deploy → deploy: connections between workloads: 1 newly denied, 2 newly allowed
    ");
    // The work is not committed yet: two revisions are the same.
    let (code, out, _) = scene.diff(&["rev:HEAD:deploy", "rev:main:deploy", "--fail-on", "any"]);
    assert_eq!((code, out.as_str()), (0, "rev:HEAD:deploy → rev:main:deploy: no connection is decided otherwise\n"));
    // A file of a revision, beside the workloads on both sides.
    let (code, out, _) = scene.diff(&["rev:HEAD:deploy/policies.yaml", "deploy/policies.yaml", "--with", "deploy/workloads.yaml"]);
    assert_eq!(code, 0);
    assert!(out.contains("1 newly denied, 2 newly allowed"), "{out}");
}

#[test]
fn markdown_for_a_pull_request() {
    let (code, out, _) = Scene::new().diff(&["rev:main:deploy", "deploy", "-o", "markdown"]);
    assert_eq!(code, 0);
    assert_snapshot!(out, @r#"
    ### Network policies: connections between workloads: 1 newly denied, 2 newly allowed

    `rev:main:deploy` → `deploy`

    #### 🚫 Newly denied: 1

    | From | To | Ports | Before | After |
    |---|---|---|---|---|
    | `shop/deploy/web` | `shop/deploy/api` | 8080/TCP | ingress: admitted by NetworkPolicy shop/api ingress\[0\] (main:deploy/policies.yaml:7) | ingress: no ingress rule of NetworkPolicy shop/api (deploy/policies.yaml:1) admits it |

    #### ✅ Newly allowed: 2

    | From | To | Ports | Before | After |
    |---|---|---|---|---|
    | `shop/deploy/web` | `data/sts/db` | 5432/TCP | ingress: no ingress rule of NetworkPolicy data/db (main:deploy/policies.yaml:10) admits it | ingress: admitted by NetworkPolicy data/db ingress\[0\] (deploy/policies.yaml:16) |
    | `shop/deploy/web` | `shop/deploy/api` | 8443/TCP | ingress: no ingress rule of NetworkPolicy shop/api (main:deploy/policies.yaml:1) admits it | ingress: admitted by NetworkPolicy shop/api ingress\[0\] (deploy/policies.yaml:7) |

    <details><summary>What is different</summary>

    - NetworkPolicy data/db changed
    - NetworkPolicy shop/api changed

    </details>
    "#);
}

#[test]
fn json_has_every_change_with_its_causes() {
    let scene = Scene::new();
    scene.write("flows.json", "{\"from\": \"shop/deploy/web\", \"to\": \"shop/deploy/api\", \"port\": 8080, \"count\": 40}\n{\"from\": \"shop/deploy/api\", \"to\": \"data/sts/db\", \"port\": 5432}\n");
    let (code, out, err) = scene.diff(&["rev:main:deploy", "deploy", "-o", "json", "--flows", "flows.json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).collect::<Vec<_>>();
    let denied: Vec<&Value> = of("change").into_iter().filter(|change| change["becomes"] == "denied").collect();
    assert_eq!(denied.len(), 1);
    assert_eq!(denied[0]["to"]["workload"]["name"], "api");
    assert_eq!(denied[0]["ports"][0], serde_json::json!({"protocol": "TCP", "from": 8080, "to": 8080}));
    assert_eq!(denied[0]["causes"][0]["before"]["by"][0]["origin"]["file"], "main:deploy/policies.yaml");
    assert_eq!(denied[0]["causes"][0]["after"]["isolating"][0]["policy"]["name"], "api");
    let seen = of("seen");
    assert_eq!((seen.len(), &seen[0]["becomes"], &seen[0]["count"]), (1, &"denied".into(), &40.into()));
    let summary = of("diff")[0];
    assert_eq!(summary["seen"], serde_json::json!({"denied": 40, "allowed": 0, "same": 1, "unknown": 0}));
    assert_eq!((&summary["newlyDenied"], &summary["newlyAllowed"], &summary["workloads"]), (&1.into(), &2.into(), &3.into()));
    assert_eq!(of("object").len(), 2);
}

#[test]
fn what_fails_a_run_is_chosen() {
    let scene = Scene::new();
    scene.write("seen.json", "{\"from\": \"shop/deploy/web\", \"to\": \"data/sts/db\", \"port\": 5432}\n");
    let code = |more: &[&str]| scene.diff(&[&["rev:main:deploy", "deploy"], more].concat()).0;
    assert_eq!(code(&["--fail-on", "newly-denied"]), 1);
    assert_eq!(code(&["--fail-on", "undecided,newly-allowed"]), 1);
    assert_eq!(code(&["--fail-on", "undecided"]), 0);
    assert_eq!(code(&["--fail-on", "seen-denied", "--flows", "seen.json"]), 0);
    assert_eq!(code(&["--fail-on", "seen-allowed", "--flows", "seen.json"]), 1);
}

#[test]
fn what_cannot_be_compared_is_an_error() {
    let scene = Scene::new();
    scene.write("empty.yaml", "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n");
    scene.write("broken.yaml", "a: [\n");
    scene.write("flows.json", "{\"from\": \"shop/deploy/web\"}\n");
    fs::write(scene.path("drops.npo"), [0xff, 0xfe, 0, 1]).unwrap();
    for (arguments, expected) in [
        (&["deploy", "none"][..], "error: the manifests cannot be used\nnone: cannot open the file"),
        (&["deploy", "broken.yaml"], "error: the manifests cannot be used\nbroken.yaml:1: "),
        (&["deploy", "empty.yaml"], "error: empty.yaml: there are no pods and no workloads, and policies alone connect nobody"),
        (&["rev:none:deploy", "deploy"], "error: git knows no revision none in deploy"),
        (&["rev:main:nowhere", "deploy"], "error: no manifests in nowhere of revision main"),
        (&["rev:--help", "deploy"], "error: invalid value 'rev:--help' for '<OLD>': \"--help\" is no revision of git"),
        (&["-", "-"], "error: standard input (-) is asked for more than once"),
        (&["deploy", "deploy", "--with", "-"], "error: --with is read for both sides"),
        (&["deploy", "deploy", "--context", "x"], "error: --context is about a cluster, and none is compared"),
        (&["deploy", "deploy", "--fail-on", "seen-denied"], "error: --fail-on speaks of connections that were seen, and none are given"),
        (&["deploy", "deploy", "--flows", "flows.json"], "error: flows.json: line 1: missing field `to`"),
        (
            &["deploy", "deploy", "--drops", "drops.npo"],
            "error: drops.npo: not UTF-8 text\nhint: a recording of `observer tail --record` holds raw packets",
        ),
        (&["deploy", "deploy", "--drops", "none"], "error: none: "),
    ] {
        let (code, out, err) = scene.diff(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.starts_with(expected), "{arguments:?}: {err}");
    }
}

/// docs/diff.md names every field of an object's own; those of sides, ports and causes are in docs/json.md.
#[test]
fn the_documentation_names_every_field() {
    let scene = Scene::new();
    scene.write(
        "flows.json",
        "{\"from\": \"shop/deploy/web\", \"to\": \"shop/deploy/api\", \"port\": 8080, \"last\": \"2026-11-30T10:00:00Z\"}\n",
    );
    scene.write("new.yaml", &format!("{}---\n{POLICIES}", WORKLOADS.replace("name: db,", "name: store,")));
    let table = include_str!("../../../docs/diff.md").split("## JSON").nth(1).unwrap();
    let mut types = std::collections::BTreeSet::new();
    for new in ["deploy", "new.yaml"] {
        let (_, out, _) = scene.diff(&["rev:main:deploy", new, "-o", "json", "--flows", "flows.json"]);
        for line in out.lines() {
            let object: Value = serde_json::from_str(line).unwrap();
            let name = object["type"].as_str().unwrap();
            types.insert(name.to_owned());
            let row = table
                .lines()
                .find(|row| row.starts_with(&format!("| `{name}` |")))
                .unwrap_or_else(|| panic!("{name} is not in docs/diff.md"));
            for field in object.as_object().unwrap().keys().filter(|field| *field != "type") {
                assert!(row.contains(&format!("`{field}`")), "{name}.{field} is not in docs/diff.md");
            }
        }
    }
    assert_eq!(types.into_iter().collect::<Vec<_>>(), ["change", "diff", "object", "seen", "workload"]);
}
