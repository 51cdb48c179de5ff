//! `observer check` as people run it: the real program on manifests.

mod boutique;
mod ci;
mod cluster_kinds;
mod diff;
mod forms;
mod schema;
mod tutorial;
mod watch;

use assert_cmd::Command;
use insta::assert_snapshot;
use serde_json::Value;
use tempfile::TempDir;

/// A shop whose policies have an error, warnings and notes.
const POLICIES: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  policyTypes: [Ingress]
  ingress:
    - from:
        - podSelector: {matchLabels: {app: frontend}}
      ports: [{port: http}]
    - ports: [{port: 99999}]
  egress:
    - {}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: wbe, namespace: shop}
spec:
  podSelector: {matchLabels: {app: wbe}}
";

const CLUSTER: &str = "\
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Pod, metadata: {name: api-1, namespace: shop, labels: {app: api}}, spec: {containers: [{name: a, image: a, ports: [{name: web, containerPort: 8080}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop, labels: {app: web}}, spec: {containers: [{name: a, image: a}]}}
";

pub(crate) struct Scene {
    directory: TempDir,
}

impl Scene {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let scene = Scene { directory: TempDir::new().unwrap() };
        for (name, text) in files {
            std::fs::write(scene.directory.path().join(name), text).unwrap();
        }
        scene
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Exit code, standard output and standard error.
    pub(crate) fn check(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_observer"));
        let output = command.current_dir(&self.directory).env_remove("RUST_LOG").arg("check").args(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

fn shop() -> Scene {
    Scene::new(&[("policies.yaml", POLICIES), ("pods.yaml", CLUSTER)])
}

#[test]
fn findings_as_text() {
    let (code, out, err) = shop().check(&["."]);
    assert_eq!((code, err.as_str()), (1, ""));
    assert_snapshot!(out, @r#"
    ./policies.yaml:1: error[ignored-rules]: NetworkPolicy shop/api: spec.egress: the rules in spec.egress are ignored: policyTypes does not name Egress, so that the policy leaves egress alone
        help: add Egress to policyTypes, which isolates the pods for egress, or remove the rules
    ./policies.yaml:8: warning[peer-matches-nothing]: NetworkPolicy shop/api: spec.ingress[0].from[0]: the peer matches no pod: no pod of namespace shop has app=frontend; 1 has app=web, 1 has app=api
        help: correct the labels, or remove the peer if what it was for is gone
    ./policies.yaml:8: warning[named-port-missing]: NetworkPolicy shop/api: spec.ingress[0].ports[0]: no pod that the policy selects has a port named http for TCP, so that the entry matches nothing: it has web (8080/TCP)
        help: give the number, or the name of the container port, which may differ from that of the Service's port
    ./policies.yaml:11: error[invalid-field]: NetworkPolicy shop/api: spec.ingress[1].ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive
        help: correct the field: the API server refuses the policy as it stands, and verdicts here leave this part out
    ./policies.yaml:11: note[any-peer]: NetworkPolicy shop/api: spec.ingress[1]: the rule has no `from`: everybody may connect on the ports of the rule, addresses outside the cluster included
        help: name peers in `from`, or `from: [{namespaceSelector: {}}]` for the pods of the cluster only
    ./policies.yaml:15: warning[selects-no-pod]: NetworkPolicy shop/wbe: spec.podSelector: the policy selects no pod: no pod of namespace shop has app=wbe; 1 has app=web, 1 has app=api
        help: correct the labels, or remove the policy if what it was for is gone

    2 errors, 3 warnings, 1 note in 2 policies
    "#);
}

#[test]
fn findings_as_json() {
    let (code, out, _) = shop().check(&["-o", "json", "policies.yaml", "-f", "pods.yaml"]);
    assert_eq!(code, 1);
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = lines.last().unwrap();
    assert_eq!((&summary["type"], &summary["policies"], &summary["errors"]), (&"check".into(), &2.into(), &2.into()));
    assert_eq!(summary["codes"]["selects-no-pod"], 1);
    let first = &lines[0];
    assert_eq!((&first["type"], &first["code"], &first["severity"]), (&"finding".into(), &"ignored-rules".into(), &"error".into()));
    assert_eq!((&first["object"]["namespace"], &first["object"]["name"], &first["line"]), (&"shop".into(), &"api".into(), &1.into()));
}

#[test]
fn the_exit_code_follows_the_severity() {
    let scene = shop();
    let code = |arguments: &[&str]| scene.check(&[&["."], arguments].concat()).0;
    let without_errors = ["--ignore", "ignored-rules,invalid-field"];
    assert_eq!(code(&[]), 1);
    assert_eq!(code(&without_errors), 0);
    assert_eq!(code(&[&without_errors[..], &["--fail-on", "warning"]].concat()), 1);
    assert_eq!(code(&["--only", "any-peer", "--fail-on", "warning"]), 0);
    assert_eq!(code(&["--only", "any-peer", "--fail-on", "note"]), 1);
    assert_eq!(code(&["--fail-on", "never"]), 0);
}

#[test]
fn what_cannot_be_checked_is_an_error() {
    let scene = Scene::new(&[("broken.yaml", "apiVersion: v1\nkind: [\n")]);
    for (arguments, says) in [
        (&["broken.yaml"][..], "broken.yaml:"),
        (&["missing.yaml"], "cannot open the file"),
        (&[], "nothing to check"),
        (&["-", "-"], "standard input can be read only once"),
        (&["broken.yaml", "--only", "selects-no-pods"], "no lint has this code"),
    ] {
        let (code, out, err) = scene.check(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains(says), "{arguments:?}: {err}");
    }
}

#[test]
fn nothing_wrong_is_said_too() {
    let policy = POLICIES.split("---").nth(1).unwrap().replace("wbe", "web");
    let scene = Scene::new(&[("policies.yaml", &policy), ("pods.yaml", CLUSTER)]);
    assert_eq!(scene.check(&["."]), (0, "nothing found in 1 policy\n".into(), String::new()));
}

/// Names of other people's objects cannot act on the terminal.
#[test]
fn nothing_reaches_the_terminal() {
    let policy = POLICIES
        .replace("app: wbe", r#""app\e]0;x": wbe"#)
        .replace("{matchLabels: {app: frontend}}", r#"{matchLabels: {app: "a\u202e\e[31m"}}"#);
    let scene = Scene::new(&[("policies.yaml", &policy), ("pods.yaml", CLUSTER)]);
    for form in ["text", "json"] {
        let (_, out, err) = scene.check(&[".", "-o", form]);
        assert!(!out.chars().chain(err.chars()).any(|c| c == '\u{1b}' || c == '\u{202e}'), "{out:?}");
        assert!(out.contains("invalid-field"), "{out}");
    }
}
