//! Policy tests in every form of output, read by programs that are not ours.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use insta::assert_snapshot;
use serde_json::Value;
use xtask::testing::skipped;

use crate::Scene;

/// One test passes, one fails, one is about nobody; of the policies one has a port that the API server refuses.
const POLICIES: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
    - from:
        - podSelector: {matchLabels: {app: web}}
      ports: [{port: 8080}]
    - from:
        - podSelector: {matchLabels: {app: web}}
      ports: [{port: 99999}]
---
apiVersion: netpol-observer.io/v1alpha1
kind: PolicyTest
metadata: {name: shop}
namespace: shop
tests:
  - {name: the web calls the API, from: deploy/web, to: deploy/api, port: 8080, expect: allow}
  - {name: metrics are scraped, from: deploy/web, to: deploy/api, port: 9090, expect: allow}
  - {name: 'nobody calls, or does: 100%', from: shop/*, to: deploy/api, expect: deny}
  - {from: deploy/wbe, to: deploy/api, expect: deny}
";

const WORKLOADS: &str = "\
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: api, namespace: shop}, spec: {selector: {matchLabels: {app: api}}, template: {metadata: {labels: {app: api}}, spec: {containers: [{name: a, image: a, ports: [{name: http, containerPort: 8080}]}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}, spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: a, image: a}]}}}}
";

/// What would break a form that is put together without care.
const HOSTILE: &str = "a\"b'c]]><d>&amp; %0A::error file=x::e, f: g\n::warning::h\r\u{1b}[31m\u{202e}i\u{0}\u{feff}\u{ffff}";

/// How it is shown: on one line, with nothing a terminal acts on or hides.
const SHOWN: &str = r#"a"b'c]]><d>&amp; %0A::error file=x::e, f: g ::warning::h\r\u{1b}[31m\u{202e}i\u{0}\u{feff}"#;

fn shop() -> Scene {
    Scene::new(&[("policies.yaml", POLICIES), ("workloads.yaml", WORKLOADS)])
}

/// A suite, tests and a file with hostile names.
fn hostile() -> Scene {
    let name = quoted(HOSTILE);
    let (before, after) = POLICIES.split_once("metadata: {name: shop}").unwrap();
    let policies = format!("{before}metadata: {{name: {name}}}{after}");
    let policies = policies.replace("metrics are scraped", "NAME").replace("name: NAME", &format!("name: {name}"));
    let policies = policies.replace("from: deploy/wbe", &format!("from: {}", quoted(&format!("deploy/{HOSTILE}"))));
    Scene::new(&[(HOSTILE_FILE, &policies), ("workloads.yaml", WORKLOADS)])
}

/// As YAML and JSON take any text.
fn quoted(text: &str) -> String {
    let ascii = |c: char| if c.is_ascii() { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) };
    serde_json::to_string(text).unwrap().chars().map(ascii).collect()
}

const HOSTILE_FILE: &str = "pol, icies: 100% <&\"'>.yaml";

#[test]
fn as_text() {
    let (code, out, err) = shop().check(&["."]);
    assert_eq!((code, err.as_str()), (1, ""));
    assert_snapshot!(out, @"
    ./policies.yaml:12: error[invalid-field]: NetworkPolicy shop/api: spec.ingress[1].ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive
        help: correct the field: the API server refuses the policy as it stands, and verdicts here leave this part out

    ./policies.yaml:20: FAILED metrics are scraped (shop)
      expected allow
      but      shop/deploy/web → shop/deploy/api:9090/TCP is denied: no ingress rule of NetworkPolicy shop/api admits it
      egress   allowed: no policy restricts whom shop/web-xxxxx may call
      ingress  denied: NetworkPolicy shop/api restricts who may call shop/api-xxxxx, and none of its 2 rules matches
      nearest  rule ingress[0] of NetworkPolicy shop/api (./policies.yaml:7)
                 ports wants 8080/TCP
               rule ingress[1] of NetworkPolicy shop/api (./policies.yaml:10)
                 ports wants invalid port (port: Invalid value: 99999: must be between 1 and 65535, inclusive)
      fix      new NetworkPolicy shop/api-from-web for app=api: ingress from podSelector {app: web}, ports 9090/TCP
               admits 1 more workload: shop/web
      note     NetworkPolicy shop/api has parts that the API server would refuse and that match nothing: spec.ingress[1].ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive

    ./policies.yaml:21: FAILED nobody calls, or does: 100% (shop)
      expected deny, for each of 8 connections
      but      shop/deploy/web → shop/deploy/api:8080/TCP is admitted: no policy isolates shop/web-xxxxx for egress; by NetworkPolicy shop/api ingress[0]
      egress   allowed: no policy restricts whom shop/web-xxxxx may call
      ingress  allowed: rule ingress[0] of NetworkPolicy shop/api admits it (./policies.yaml:7)
      note     NetworkPolicy shop/api has parts that the API server would refuse and that match nothing: spec.ingress[1].ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive

    ./policies.yaml:22: BROKEN deploy/wbe to deploy/api (shop)
      problem  no pod of Deployment shop/wbe
      hint     did you mean shop/deploy/web?

    1 error in 1 policy
    2 of 4 tests failed, 1 cannot be judged
    ");
}

#[test]
fn passed_tests_are_named_when_asked_for() {
    let scene = shop();
    let line = "./policies.yaml:19: passed the web calls the API (shop)\n";
    assert!(!scene.check(&["."]).1.contains(line));
    let (_, out, _) = scene.check(&[".", "--show-passed"]);
    assert!(out.contains(line), "{out}");
}

#[test]
fn the_exit_code_tells_of_tests() {
    let passing = POLICIES.split("  - {name: metrics").next().unwrap().replace("99999", "9999");
    let scene = Scene::new(&[("policies.yaml", &passing), ("workloads.yaml", WORKLOADS)]);
    let (code, out, _) = scene.check(&["."]);
    assert_eq!((code, out.as_str()), (0, "nothing found in 1 policy\n1 test passed\n"));
    // A test that fails is no finding whose severity could be too low.
    assert_eq!(shop().check(&[".", "--fail-on", "never"]).0, 1);
    let broken = passing.replace("deploy/web", "deploy/wbe");
    let scene = Scene::new(&[("policies.yaml", &broken), ("workloads.yaml", WORKLOADS)]);
    let (code, out, _) = scene.check(&[".", "--fail-on", "never"]);
    assert_eq!(code, 1);
    assert!(out.ends_with("nothing found in 1 policy\n1 of 1 test cannot be judged\n"), "{out}");
}

fn json_lines(scene: &Scene) -> Vec<Value> {
    let (code, out, _) = scene.check(&[".", "-o", "json"]);
    assert_eq!(code, 1);
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn json_is_as_documented() {
    let lines: Vec<Value> = json_lines(&shop());
    let document = include_str!("../../../docs/json.md");
    for section in ["finding", "test", "check"] {
        let (_, text) = document.split_once(&format!("## `{section}`")).unwrap();
        let rows = text.split("\n## ").next().unwrap().lines();
        let documented: BTreeSet<&str> = rows.filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name).collect();
        let mut written = BTreeSet::new();
        for line in lines.iter().filter(|line| line["type"] == section) {
            fields(line, "", &mut written);
        }
        assert_eq!(documented, written.iter().map(String::as_str).collect(), "{section}");
    }
    let summary = lines.last().unwrap();
    assert_eq!(["tests", "passed", "failed", "broken"].map(|field| summary[field].as_u64()), [Some(4), Some(1), Some(2), Some(1)]);
    let scraped = lines.iter().find(|line| line["name"] == "metrics are scraped").unwrap();
    assert_eq!((&scraped["outcome"], &scraped["expect"], &scraped["origin"]["line"]), (&"failed".into(), &"allow".into(), &20.into()));
    assert_eq!(scraped["failures"][0]["explanation"]["verdict"], "deny");
}

/// The fields of an object, those of objects in it by their path; what other sections describe is left to them.
fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (name, member) in value.as_object().unwrap() {
        let inner = format!("{path}{name}");
        match member {
            _ if matches!(name.as_str(), "explanation" | "policy" | "codes") || inner == "failures[].origin" => {}
            Value::Object(_) => fields(member, &format!("{inner}."), found),
            Value::Array(elements) => {
                for element in elements.iter().filter(|element| element.is_object()) {
                    fields(element, &format!("{inner}[]."), found);
                }
            }
            _ => {}
        }
        found.insert(inner);
    }
}

/// An annotation as the runner reads it.
#[derive(Debug, PartialEq)]
struct Annotation {
    level: String,
    properties: Vec<(String, String)>,
    message: String,
}

impl Annotation {
    fn property(&self, wanted: &str) -> Option<&str> {
        self.properties.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }
}

/// Reads a log as GitHub's runner does: a line that begins with `::` is a command, its properties are separated by commas, and the second `::` ends
/// them. <https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions>
fn annotations(log: &str) -> (Vec<Annotation>, Vec<&str>) {
    let data = |text: &str| text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%");
    let property = |text: &str| data(&text.replace("%3A", ":").replace("%2C", ","));
    let (mut read, mut others) = (Vec::new(), Vec::new());
    for line in log.split(['\n', '\r']).filter(|line| !line.is_empty()) {
        let Some(command) = line.trim_start().strip_prefix("::") else {
            others.push(line);
            continue;
        };
        let (head, message) = command.split_once("::").unwrap();
        let (level, properties) = head.split_once(' ').unwrap();
        let properties = properties.split(',').map(|pair| pair.split_once('=').unwrap());
        let properties = properties.map(|(name, value)| (name.to_owned(), property(value))).collect();
        read.push(Annotation { level: level.to_owned(), properties, message: data(message) });
    }
    (read, others)
}

#[test]
fn github_annotates_the_lines() {
    let (code, out, err) = shop().check(&[".", "-o", "github"]);
    assert_eq!((code, err.as_str()), (1, ""));
    assert_snapshot!(out, @"
    ::error file=policies.yaml,line=12,title=invalid-field::NetworkPolicy shop/api: spec.ingress[1].ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive%0Ahelp: correct the field: the API server refuses the policy as it stands, and verdicts here leave this part out
    ::error file=policies.yaml,line=20,title=shop%3A metrics are scraped::expected allow, but shop/deploy/web → shop/deploy/api:9090/TCP is denied: no ingress rule of NetworkPolicy shop/api admits it%0Asee policies.yaml:7%0Afix: new NetworkPolicy shop/api-from-web for app=api: ingress from podSelector {app: web}, ports 9090/TCP
    ::error file=policies.yaml,line=21,title=shop%3A nobody calls%2C or does%3A 100%25::expected deny, but shop/deploy/web → shop/deploy/api:8080/TCP is admitted: no policy isolates shop/web-xxxxx for egress; by NetworkPolicy shop/api ingress[0]%0Asee policies.yaml:7
    ::error file=policies.yaml,line=22,title=shop%3A deploy/wbe to deploy/api::cannot be judged: no pod of Deployment shop/wbe; did you mean shop/deploy/web?
    1 error in 1 policy
    2 of 4 tests failed, 1 cannot be judged
    ");
    let (read, others) = annotations(&out);
    let places: Vec<_> = read.iter().map(|annotation| (annotation.property("file"), annotation.property("line"))).collect();
    assert_eq!(places, ["12", "20", "21", "22"].map(|line| (Some("policies.yaml"), Some(line))));
    assert_eq!(read[2].property("title"), Some("shop: nobody calls, or does: 100%"));
    assert_eq!(others, ["1 error in 1 policy", "2 of 4 tests failed, 1 cannot be judged"]);
}

#[test]
fn names_cannot_make_commands_of_github() {
    let (_, out, _) = hostile().check(&[".", "-o", "github"]);
    let (read, others) = annotations(&out);
    assert_eq!(read.len(), 4, "{out}");
    assert!(read.iter().all(|annotation| annotation.level == "error" && annotation.property("file") == Some(HOSTILE_FILE)), "{read:#?}");
    let title = format!("{SHOWN}\u{ffff}: {SHOWN}\u{ffff}");
    assert_eq!(read[1].property("title"), Some(title.as_str()));
    assert_eq!(others.len(), 2, "{others:?}");
}

#[test]
fn in_a_directory_of_the_repository() {
    let scene = shop();
    let directory = scene.path().join("deploy/policies");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::create_dir(scene.path().join(".git")).unwrap();
    std::fs::rename(scene.path().join("policies.yaml"), directory.join("policies.yaml")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_observer"));
    command.current_dir(scene.path().join("deploy")).env_remove("GITHUB_WORKSPACE");
    let output = command.args(["check", "policies", "../workloads.yaml", "-o", "github"]).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let (read, _) = annotations(&out);
    assert!(read.iter().all(|annotation| annotation.property("file") == Some("deploy/policies/policies.yaml")), "{out}");
    // As a runner says where it has checked out.
    let mut command = Command::new(env!("CARGO_BIN_EXE_observer"));
    command.current_dir(&directory).env("GITHUB_WORKSPACE", scene.path().join("deploy"));
    let output = command.args(["check", "policies.yaml", "../../workloads.yaml", "-o", "github"]).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.contains("file=policies/policies.yaml,line=20,"), "{out}");
}

/// A file that a published crate carries; `None`, and a word on it, where crates cannot be had.
fn of_crate(test: &str, name: &str, version: &str, file: &str) -> Option<PathBuf> {
    match xtask::crates::source(name, version) {
        Ok(source) => Some(source.join(file)),
        Err(error) => {
            skipped(test, &format!("{error:#}"));
            None
        }
    }
}

#[test]
fn sarif_is_valid() {
    const TEST: &str = "check::forms::sarif_is_valid";
    let Some(schema) = of_crate(TEST, "serde-sarif", "0.8.0", "src/schema.json") else { return };
    let mut schema: Value = serde_json::from_slice(&std::fs::read(schema).unwrap()).unwrap();
    // It has a bracket too many for a validator that reads patterns strictly. There is no such field in what is written here.
    for part in ["run", "toolComponent"] {
        let language = schema["definitions"][part]["properties"]["language"].as_object_mut().unwrap();
        assert_eq!(language.remove("pattern"), Some("^[a-zA-Z]{2}|^[a-zA-Z]{2}-[a-zA-Z]{2}]?$".into()));
    }
    let validator = jsonschema::validator_for(&schema).unwrap();
    for (scene, file) in [(shop(), "policies.yaml"), (hostile(), "pol%2C%20icies%3A%20100%25%20%3C%26%22%27%3E.yaml")] {
        let (code, out, _) = scene.check(&[".", "-o", "sarif"]);
        assert_eq!(code, 1);
        let log: Value = serde_json::from_str(&out).unwrap();
        let wrong: Vec<String> = validator.iter_errors(&log).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{wrong:#?}\n{out}");
        let run = &log["runs"][0];
        let results = run["results"].as_array().unwrap();
        assert_eq!(results.len(), 4);
        let mut prints = BTreeSet::new();
        for result in results {
            let rule = &run["tool"]["driver"]["rules"][usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()];
            assert_eq!(rule["id"], result["ruleId"]);
            assert_eq!(result["level"], "error");
            let place = &result["locations"][0]["physicalLocation"];
            assert_eq!(place["artifactLocation"]["uri"], file);
            assert_eq!(run["originalUriBaseIds"].as_object().unwrap().keys().collect::<Vec<_>>(), ["SRCROOT"]);
            assert!(prints.insert(result["partialFingerprints"]["netpolObserver/v1"].as_str().unwrap().to_owned()), "{result}");
        }
        // Where the policy stands that denies what should be admitted.
        let related = &results[1]["relatedLocations"][0];
        assert_eq!(related["message"]["text"], "NetworkPolicy shop/api");
        assert_eq!(related["physicalLocation"]["artifactLocation"]["uri"], file);
        let root = scene.path().canonicalize().unwrap();
        assert!(!out.contains(root.to_str().unwrap()), "{out}");
    }
    // What has no place in the repository is told of the run: code scanning takes no results without one.
    let scene = Scene::new(&[("policies.yaml", POLICIES.split("---").next().unwrap())]);
    let log: Value = serde_json::from_str(&scene.check(&["--only", "no-pods", "-o", "sarif", "policies.yaml"]).1).unwrap();
    assert!(validator.is_valid(&log), "{log:#}");
    let run = &log["runs"][0];
    assert_eq!(run["results"], serde_json::json!([]));
    let told = &run["invocations"][0]["toolExecutionNotifications"][0];
    assert_eq!((&told["level"], &told["associatedRule"]["id"]), (&"note".into(), &"no-pods".into()), "{log:#}");
    // The validator takes not everything.
    assert!(!validator.is_valid(&serde_json::json!({ "version": "2.1.0", "runs": [{ "results": [{}] }] })));
}

/// A result stays the same one when lines are added above it.
#[test]
fn fingerprints_do_not_depend_on_lines() {
    let prints = |text: &str| -> Vec<String> {
        let scene = Scene::new(&[("policies.yaml", text), ("workloads.yaml", WORKLOADS)]);
        let log: Value = serde_json::from_str(&scene.check(&[".", "-o", "sarif"]).1).unwrap();
        let results = log["runs"][0]["results"].as_array().unwrap().clone();
        results.iter().map(|result| result["partialFingerprints"]["netpolObserver/v1"].as_str().unwrap().to_owned()).collect()
    };
    let before = prints(POLICIES);
    assert_eq!(before, prints(&format!("# One more line.\n\n{POLICIES}")));
    assert_ne!(before, prints(&POLICIES.replace("metrics are scraped", "metrics are read")));
}

#[test]
fn junit_is_valid() {
    const TEST: &str = "check::forms::junit_is_valid";
    let Some(schema) = of_crate(TEST, "junit-report", "0.9.1", "tests/JUnit.xsd") else { return };
    if let Err(error) = xtask::packages::ensure("the test of JUnit files", &["libxml2-utils", "python3-junitparser"]) {
        skipped(TEST, &format!("{error:#}"));
        return;
    }
    for (scene, suite, test) in [(shop(), "shop", "metrics are scraped"), (hostile(), SHOWN, SHOWN)] {
        let (code, out, _) = scene.check(&[".", "-o", "junit"]);
        assert_eq!(code, 1);
        let file = scene.path().join("report.xml");
        std::fs::write(&file, &out).unwrap();
        let checked = Command::new("xmllint").arg("--noout").arg("--schema").args([&schema, &file]).output().unwrap();
        assert!(checked.status.success(), "{}\n{out}", String::from_utf8_lossy(&checked.stderr));
        // As a program of others reads it. The module is Debian's, and so must be the interpreter.
        let read = Command::new("/usr/bin/python3").args(["-c", READ_JUNIT]).arg(&file).output().unwrap();
        assert!(read.status.success(), "{}\n{out}", String::from_utf8_lossy(&read.stderr));
        let read: Value = serde_json::from_slice(&read.stdout).unwrap();
        let replaced = |text: &str| if text == SHOWN { format!("{text}\u{fffd}") } else { text.to_owned() };
        assert_eq!(read["counts"], serde_json::json!([5, 3, 1]), "{read:#}");
        let case = &read["cases"][2];
        assert_eq!((case["suite"].as_str().unwrap(), case["name"].as_str().unwrap()), (&*replaced(suite), &*replaced(test)), "{read:#}");
        assert_eq!(case["result"], "Failure");
        let message = case["message"].as_str().unwrap();
        assert!(message.starts_with("expected allow, but shop/deploy/web → shop/deploy/api:9090/TCP is denied"), "{message}");
        let text = case["text"].as_str().unwrap();
        assert!(text.contains(":20: FAILED") && text.contains("fix      new NetworkPolicy shop/api-from-web"), "{text}");
    }
    // The schema takes not everything.
    let scene = shop();
    let file = scene.path().join("report.xml");
    std::fs::write(&file, scene.check(&[".", "-o", "junit"]).1.replace("classname", "class")).unwrap();
    let checked = Command::new("xmllint").arg("--noout").arg("--schema").args([&schema, &file]).output().unwrap();
    assert!(!checked.status.success());
}

const READ_JUNIT: &str = r"
import json, sys
from junitparser import JUnitXml
report = JUnitXml.fromfile(sys.argv[1])
cases = []
for suite in report:
    for case in suite:
        result = case.result[0] if case.result else None
        cases.append({
            'suite': suite.name, 'name': case.name, 'class': case.classname, 'file': case._elem.get('file'),
            'result': type(result).__name__, 'message': getattr(result, 'message', None), 'text': getattr(result, 'text', None),
        })
json.dump({'counts': [report.tests, report.failures, report.errors], 'cases': cases}, sys.stdout)
";

/// Nothing of a name that a terminal acts on gets out, whatever the form.
#[test]
fn names_are_made_fit() {
    let scene = hostile();
    for form in ["text", "json", "junit", "sarif", "github"] {
        let (code, out, err) = scene.check(&[".", "-o", form, "--show-passed"]);
        assert_eq!((code, err.as_str()), (1, ""), "{form}");
        let wrong: Vec<char> = out.chars().filter(|c| (c.is_control() && *c != '\n') || matches!(c, '\u{202e}' | '\u{feff}')).collect();
        assert!(wrong.is_empty(), "{form}: {wrong:?}\n{out}");
    }
}
