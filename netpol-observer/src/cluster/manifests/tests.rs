//! Tests of reading manifests.

mod conformance;
mod hostile;

use std::path::Path;

use super::*;
use crate::cluster::{Index, Origin};

/// Reads a text as standard input.
fn read(text: &str) -> Result<Loaded, ManifestErrors> {
    load(&[PathBuf::from("-")], &mut text.as_bytes())
}

fn loaded(text: &str) -> Loaded {
    read(text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn names(loaded: &Loaded) -> Vec<String> {
    loaded.objects.iter().map(|object| object.key().to_string()).collect()
}

fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn errors(text: &str) -> Vec<String> {
    lines(&read(text).expect_err("broken").problems)
}

fn warnings(text: &str) -> Vec<String> {
    lines(&loaded(text).warnings)
}

fn in_directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        std::fs::write(path, text).expect("a file");
    }
    directory
}

/// Problems with paths relative to the directory.
fn relative(problems: &[Problem], directory: &Path) -> Vec<String> {
    let prefix = format!("{}/", directory.display());
    lines(problems).into_iter().map(|line| line.replace(&prefix, "")).collect()
}

#[test]
fn documents_of_all_shapes() {
    let text = "\u{feff}# a comment\r\n---\r\n# nothing here\r\n---\r\n\
        kind: Namespace\r\napiVersion: v1\r\nmetadata:\r\n  name: a\r\n...\r\n\
        %YAML 1.2\r\n---\r\n{kind: Namespace, apiVersion: v1, metadata: {name: b}}\r\n--- \r\n--- # c\r\n\
        apiVersion: v1\r\nkind: Node\r\nmetadata: {name: c}\r\n---\r\n";
    assert_eq!(names(&loaded(text)), ["Namespace a", "Namespace b", "Node c"]);
    for empty in ["", "\n", "---\n", "# x\n...\n---\n...\n", "\u{feff}", "null\n", "~"] {
        assert!(loaded(empty).objects.is_empty(), "{empty:?}");
    }
}

#[test]
fn json_of_all_shapes() {
    let namespace =
        |name: &str| format!("{{\n\t\"kind\": \"Namespace\", \"apiVersion\": \"v1\",\n\t\"metadata\": {{\"name\": \"{name}\"}}\n}}");
    let (a, b) = (namespace("a"), namespace("b"));
    for text in [format!("{a}{b}"), format!("{a}\n\n{b}\n"), format!("[{a}, {b}]"), format!("{a}\n---\n{b}")] {
        assert_eq!(names(&loaded(&text)), ["Namespace a", "Namespace b"], "{text}");
    }
    let broken = format!("{a}\n{}", b.replace("\"b\"", "7"));
    assert_eq!(
        errors(&broken),
        ["-:7: Namespace without a name: metadata.name: invalid type: integer `7`, expected a string\n    \
             hint: this field wants text: put the value in quotes"]
    );
    let escaped = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","annotations":{"x":"\ud83d\ude00\/\u0000"}}}"#;
    assert_eq!(names(&loaded(escaped)), ["Pod default/a"]);
}

#[test]
fn lists_are_opened() {
    let text = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: a}}
- apiVersion: v1
  kind: PodList
  items:
  - metadata: {name: p, namespace: a}
  - {apiVersion: v1, kind: Pod, metadata: {name: q, namespace: a}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicyList
items:
- metadata: {name: n, namespace: a}
  spec:
    ingress:
    - from:
      - podSelector: {}
---
{apiVersion: v1, kind: PodList, items: []}
---
{apiVersion: v1, kind: PodList, items: null}
";
    let loaded = loaded(text);
    assert_eq!(names(&loaded), ["Namespace a", "Pod a/p", "Pod a/q", "NetworkPolicy a/n"]);
    let Some(Object::NetworkPolicy(policy)) = loaded.objects.last() else { panic!("no policy") };
    assert_eq!(policy.origin.as_ref().map(|origin| origin.line), Some(15));
    assert_eq!(policy.ingress.as_ref().and_then(|rules| rules[0].origin.as_ref()).map(|origin| origin.line), Some(18));
}

#[test]
fn kinds_that_are_not_read_are_counted() {
    let text = "
{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: b}, nonsense: 1}
---
{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: b}}
---
{apiVersion: extensions/v1beta1, kind: NetworkPolicy, metadata: {name: b}}
---
{apiVersion: example.org/v1, kind: AllowList, metadata: {name: x}}
";
    let skipped: Vec<_> = loaded(text).skipped.into_iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    assert_eq!(
        skipped,
        ["example.org/v1 AllowList 1", "extensions/v1beta1 NetworkPolicy 1", "serving.knative.dev/v1 Service 1", "v1 ConfigMap 2"]
    );
}

#[test]
fn what_kustomize_is_told_is_no_manifest() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("kustomization.yaml"), "resources: [policy.yaml]\n").expect("written");
    std::fs::write(directory.path().join("policy.yaml"), POLICY).expect("written");
    let loaded = load(&[directory.path().to_owned()], &mut std::io::empty()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(loaded.skipped.keys().collect::<Vec<_>>(), ["kustomize.config.k8s.io/v1beta1 Kustomization"]);
    assert_eq!(loaded.objects.len(), 1);
}

#[test]
fn workloads_have_pods_where_none_of_theirs_is_there() {
    let text = "
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {template: {metadata: {labels: {app: web}}}}}
---
apiVersion: v1
kind: Pod
metadata:
  name: api-7d9f-abcde
  labels: {pod-template-hash: 7d9f}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: api-7d9f, uid: '1', controller: true}]
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: api}, spec: {template: {metadata: {labels: {app: api}}}}}
---
{apiVersion: batch/v1, kind: CronJob, metadata: {name: backup, namespace: ops}, spec: {schedule: '@daily', jobTemplate: {spec: {template: {}}}}}
---
{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db}, spec: {replicas: 3, template: {spec: {containers: [{name: db, ports: [{containerPort: 70000}]}]}}}}
";
    let loaded = loaded(text).with_stand_ins();
    assert_eq!(
        names(&loaded),
        [
            "Pod default/api-7d9f-abcde",
            "Pod default/web-xxxxx",
            "Pod default/web-yyyyy",
            "Pod ops/backup-xxxxx",
            "Pod default/db-0",
            "Pod default/db-1"
        ]
    );
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0]
            .starts_with("-:15: StatefulSet default/db: spec.template.spec.containers[0].ports[0].containerPort: Invalid value: 70000"),
        "{warnings:?}"
    );
}

#[test]
fn policy_tests_know_their_lines_and_are_read_strictly() {
    let text = "
apiVersion: netpol-observer.io/v1alpha1
kind: PolicyTest
metadata: {name: shop}
namespace: shop
tests:
  - {from: deploy/web, to: [deploy/api, 10.0.0.1], port: [8080, 53/UDP], expect: allow}
  - from: '*'
    to: '*'
    expect: deny
    except: [{from: deploy/web}]
";
    let tests = loaded(text).tests;
    assert_eq!(tests.iter().map(|test| (test.origin.line, test.lines.clone())).collect::<Vec<_>>(), [(2, vec![7, 8])]);
    assert_eq!(tests[0].document.tests[0].port.0, ["8080", "53/UDP"]);
    for (wrong, expected) in [
        (("expect: deny", "expect: block"), "-:10: PolicyTest default/shop: tests[1].expect: unknown variant `block`"),
        (
            ("except:", "excepts:"),
            "-:11: PolicyTest default/shop: tests[1].excepts: unknown field: a PolicyTest has none of this name here\n    hint: did you mean except?",
        ),
        (
            ("from: '*'", "from: 1"),
            "-:8: PolicyTest default/shop: tests[1].from: invalid type: integer `1`, expected a text or a list of texts",
        ),
        (("v1alpha1", "v2"), "-:2: PolicyTest default/shop: unknown kind netpol-observer.io/v2 PolicyTest"),
    ] {
        let problems = lines(&read(&text.replacen(wrong.0, wrong.1, 1)).expect_err(wrong.1).problems);
        assert!(problems[0].starts_with(expected), "{problems:?}");
    }
}

const POLICY: &str = "# our policies

---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: api
  namespace: shop
spec:
  podSelector:
    matchLabels: {app: api}
  policyTypes: [Ingress, Egress]
  ingress:
    # the first
    - from:
        - podSelector: {}
      ports:
        - port: 80
    -
      ports:
        - port: 81
  egress:
    - {}
";

#[test]
fn policies_and_rules_know_their_lines() {
    let loaded = loaded(POLICY);
    let Some(Object::NetworkPolicy(policy)) = loaded.objects.first() else { panic!("no policy") };
    let line = |origin: &Option<Origin>| origin.as_ref().map(|origin| (origin.file.to_string(), origin.line));
    let at = |line: u32| Some(("-".to_owned(), line));
    assert_eq!(line(&policy.origin), at(4));
    let rules: Vec<_> = policy.ingress.iter().chain(&policy.egress).flatten().map(|rule| line(&rule.origin)).collect();
    assert_eq!(rules, [at(15), at(20), at(23)]);
}

#[test]
fn a_policy_without_a_direction_has_no_rules_to_place() {
    let loaded = loaded(&POLICY.replace("[Ingress, Egress]", "[Egress]"));
    let Some(Object::NetworkPolicy(policy)) = loaded.objects.first() else { panic!("no policy") };
    assert_eq!(policy.ingress, None);
    assert_eq!(policy.egress.as_ref().and_then(|rules| rules[0].origin.as_ref()).map(|origin| origin.line), Some(23));
}

#[test]
fn wrong_types_name_line_object_and_field() {
    let quotes = "this field wants text: put the value in quotes";
    let explain = |field: &str| format!("see `kubectl explain networkpolicy.spec.{field}` for the type of the field");
    let (port, rule) = (explain("ingress.ports.port"), explain("egress"));
    for (from, to, line, field, message, hint) in [
        ("port: 80", "port: [80]", 18, "ingress[0].ports[0].port", "invalid type: sequence, expected IntOrString", &*port),
        ("port: 80", "port: true", 18, "ingress[0].ports[0].port", "invalid type: boolean `true`, expected IntOrString", &port),
        (
            "port: 81",
            "port: 99999999999",
            21,
            "ingress[1].ports[0].port",
            "invalid value: integer `99999999999`, expected a 32-bit integer",
            &port,
        ),
        ("{app: api}", "{app: 5}", 11, "podSelector.matchLabels.app", "invalid type: integer `5`, expected a string", quotes),
        ("- {}", "- x", 23, "egress[0]", "invalid type: string \"x\", expected NetworkPolicyEgressRule", &rule),
    ] {
        let expected = format!("-:{line}: NetworkPolicy shop/api: spec.{field}: {message}\n    hint: {hint}");
        assert_eq!(errors(&POLICY.replace(from, to)), [expected], "{to}");
    }
}

#[test]
fn yaml_1_2_words_are_text() {
    let text = POLICY.replace("{app: api}", "{a: y, b: no, c: on, d: 1_000, e: 1.2.3}");
    let Some(Object::NetworkPolicy(policy)) = loaded(&text).objects.pop() else { panic!("no policy") };
    assert_eq!(policy.pod_selector.to_string(), "a=y,b=no,c=on,d=1_000,e=1.2.3");
    assert_eq!(errors(&POLICY.replace("{app: api}", "{app: true}")).len(), 1);
}

#[test]
fn null_is_the_zero_value() {
    let text = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a, labels: , creationTimestamp: null}
spec:
  podSelector:
    matchLabels:
      app:
  ingress:
  -
  - from:
    ports: ~
status: {}
";
    let Some(Object::NetworkPolicy(policy)) = loaded(text).objects.pop() else { panic!("no policy") };
    assert_eq!(policy.pod_selector.to_string(), "app=");
    let rules = policy.ingress.as_ref().expect("isolates");
    assert!(rules.len() == 2 && rules.iter().all(|rule| rule.peers.is_empty() && rule.ports.is_empty()));
}

#[test]
fn fields_the_api_does_not_have_are_warnings() {
    let unknown = "unknown field: NetworkPolicy has none of this name here";
    for (from, to, expected) in [
        (
            "podSelector: {}",
            "podselector: {}",
            format!(
                "-:16: NetworkPolicy shop/api: spec.ingress[0].from[0].podselector: {unknown}\n    \
                 hint: did you mean podSelector? Names are compared letter by letter, case included"
            ),
        ),
        (
            "  egress:\n    - {}",
            "  banana:\n    - {}",
            format!(
                "-:22: NetworkPolicy shop/api: spec.banana: {unknown}\n    \
                 hint: it has no effect; the API server refuses it in strict validation: remove or correct it"
            ),
        ),
    ] {
        let found = warnings(&POLICY.replace(from, to));
        assert_eq!(found[0], expected);
    }
    // A peer whose only field is misspelt has nothing set.
    assert_eq!(warnings(&POLICY.replace("podSelector: {}", "podselector: {}")).len(), 2);
    assert_eq!(warnings(&POLICY.replace("- {}", "- {}\nstatus: {whatever: 1}")), [""; 0]);
}

#[test]
fn what_the_api_server_refuses_is_a_warning_with_a_line() {
    let text = POLICY.replace("port: 81", "port: 81\n          endPort: 80");
    let hint = "    hint: the API server would refuse the object; here this part matches nothing";
    let expected =
        "-:22: NetworkPolicy shop/api: spec.ingress[1].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`";
    assert_eq!(warnings(&text), [format!("{expected}\n{hint}")]);
    let Some(Object::NetworkPolicy(policy)) = loaded(&text).objects.pop() else { panic!("no policy") };
    assert_eq!(policy.invalid.len(), 1);
}

#[test]
fn the_later_of_two_is_taken() {
    let text = "
{apiVersion: v1, kind: Pod, metadata: {name: a}, status: {podIP: 10.0.0.1}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: a}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: default}, status: {podIP: 10.0.0.2}}
";
    let loaded = loaded(text);
    assert_eq!(names(&loaded), ["Pod default/a", "Namespace a"]);
    assert_eq!(
        lines(&loaded.warnings),
        ["-:6: Pod default/a: already defined in -:2; this later one is taken\n    hint: remove or rename one of them"]
    );
    let mut index = Index::default();
    index.reset(loaded.objects);
    assert!(index.pods_at("10.0.0.2".parse().expect("an address")).len() == 1);
}

#[test]
fn all_errors_of_all_files_are_collected() {
    let directory = in_directory(&[
        (
            "b.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a\n---\n{apiVersion: v1, kind: Pod, metadata: {name: ok}}\n---\nkind: Pod\n",
        ),
        ("a/z.yml", "just text\n---\napiVersion: v1\nkind: Pod\nmetadata: {}\n---\nname: {{ .Values.name }}: {{ x }}\n"),
        ("a/y.json", "{\"kind\": 1}"),
        ("a/x.yaml", "a: 1\na: 2\n"),
        ("c.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {generateName: x-}\n---\napiVersion: v1\nkind: PodList\nitems: {}\n"),
        ("notes.txt", "a: ["),
        (".hidden.yaml", "a: ["),
        (".git/x.yaml", "a: ["),
    ]);
    let missing = directory.path().join("missing.yaml");
    let found = load(&[directory.path().to_owned(), missing], &mut std::io::empty()).expect_err("broken");
    insta::assert_snapshot!(relative(&found.problems, directory.path()).join("\n"));
}

#[test]
fn directories_are_read_in_order_and_twice_read_files_are_noticed() {
    let namespace = |name: &str| format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}");
    let (a, b, c, d) = (namespace("a"), namespace("b"), namespace("c"), namespace("d"));
    let directory = in_directory(&[("2.yaml", &c), ("1/b.YAML", &b), ("1/a.json", &a), ("3", &d)]);
    let by_itself = directory.path().join("3");
    let found = load(&[directory.path().to_owned(), by_itself.clone()], &mut std::io::empty()).expect("fine");
    assert_eq!(names(&found), ["Namespace a", "Namespace b", "Namespace c", "Namespace d"]);
    let twice = load(&[by_itself.clone(), by_itself], &mut std::io::empty()).expect("fine");
    assert_eq!((twice.objects.len(), twice.warnings.len()), (1, 1));

    let empty = tempfile::tempdir().expect("a directory");
    let found = load(&[empty.path().to_owned()], &mut std::io::empty()).expect_err("nothing there");
    assert!(found.to_string().contains("no manifests in this directory"), "{found}");
}

#[test]
fn text_that_is_not_utf_8_is_named() {
    let found = load(&[PathBuf::from("-")], &mut &b"a: 1\nb: \xff\n"[..]).expect_err("not text");
    assert_eq!(found.to_string(), "-:2: not UTF-8 text\n    hint: save the file in UTF-8");
}

#[test]
fn aliases_and_merge_keys_are_followed() {
    let text = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a}
spec:
  podSelector: &all {matchLabels: &labels {app: web}}
  ingress:
  - &rule
    from: [{podSelector: *all}]
  - *rule
  - from: [{podSelector: {matchLabels: {<<: *labels, tier: x}}}]
";
    let Some(Object::NetworkPolicy(policy)) = loaded(text).objects.pop() else { panic!("no policy") };
    let rules = policy.ingress.as_ref().expect("isolates");
    assert_eq!(rules[0].peers, rules[1].peers);
    assert_eq!(rules.iter().map(|rule| rule.origin.as_ref().map_or(0, |origin| origin.line)).collect::<Vec<_>>(), [9, 10, 11]);
    assert!(format!("{:?}", rules[2].peers).contains("tier"));
}

#[test]
fn cluster_scoped_policies_and_their_rules_know_their_lines() {
    let text = "
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: a}
spec:
  priority: 1
  subject: {namespaces: {}}
  ingress:
  - {action: Deny, from: [{namespaces: {}}]}
  egress:
  # a comment
  - action: Allow
    to:
    - networks: [10.0.0.0/8]
      sameLabels: [x]
status: {whatever: 1}
---
{apiVersion: policy.networking.k8s.io/v1alpha1, kind: BaselineAdminNetworkPolicy, metadata: {name: default}, spec: {subject: {namespaces: {}}}}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicyList
items:
- metadata: {name: a}
  spec:
    tier: Baseline
    priority: 1
    subject: {namespaces: {}}
    ingress:
    - action: Accept
      from: []
      ports: []
";
    let loaded = loaded(text);
    assert_eq!(names(&loaded), ["AdminNetworkPolicy a", "BaselineAdminNetworkPolicy default", "ClusterNetworkPolicy a"]);
    let lines_of = |object: &Object| {
        let Object::ClusterPolicy(policy) = object else { panic!("{object:?}") };
        let line = |origin: &Option<Origin>| origin.as_ref().map_or(0, |origin| origin.line);
        let rules = policy.ingress.iter().chain(&policy.egress).map(|rule| line(&rule.origin));
        std::iter::once(line(&policy.origin)).chain(rules).collect::<Vec<_>>()
    };
    assert_eq!(loaded.objects.iter().map(lines_of).collect::<Vec<_>>(), [vec![2, 9, 12], vec![18], vec![23, 29]]);
    let no_effect = "hint: it has no effect; the API server refuses it in strict validation: remove or correct it";
    assert_eq!(
        lines(&loaded.warnings),
        [
            format!(
                "-:15: AdminNetworkPolicy a: spec.egress[0].to[0].sameLabels: unknown field: AdminNetworkPolicy has none of this name \
                 here\n    {no_effect}"
            ),
            format!(
                "-:31: ClusterNetworkPolicy a: spec.ingress[0].ports: unknown field: ClusterNetworkPolicy has none of this name \
                 here\n    {no_effect}"
            ),
            "-:30: ClusterNetworkPolicy a: spec.ingress[0].from: Invalid value: 0: spec.ingress[0].from in body should have at least 1 \
             items\n    hint: the API server would refuse the object; here this part matches nothing"
                .to_owned(),
        ]
    );
}

#[test]
fn a_warning_says_what_becomes_of_the_part() {
    let text = "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: a}
spec:
  tier: Adm1n
  priority: 1001
  subject: {namespaces: {}}
  egress:
  - action: Deny
    to:
    - networks: [10.0.0.0/40]
";
    let at = "ClusterNetworkPolicy a: spec";
    assert_eq!(
        warnings(text),
        [
            format!(
                "-:6: {at}.tier: Unsupported value: \"Adm1n\": supported values: \"Admin\", \"Baseline\"\n    hint: the API server would \
                 refuse the object; here this part matches nothing"
            ),
            format!(
                "-:7: {at}.priority: Invalid value: 1001: spec.priority in body should be less than or equal to 1000\n    hint: the API \
                 does not allow it; here it counts as it is written"
            ),
            format!(
                "-:12: {at}.egress[0].to[0].networks[0]: Invalid value: \"10.0.0.0/40\": Invalid CIDR format provided\n    hint: the API \
                 does not allow it; here an Accept rule matches nothing by it, a Deny or Pass rule everything"
            ),
        ]
    );
}
