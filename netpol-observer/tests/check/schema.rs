//! `--schema`: editors accept what is read, and refuse what is not.

use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use serde_json::Value;

use crate::Scene;

fn validator() -> Validator {
    let (code, schema, _) = Scene::new(&[]).check(&["--schema"]);
    assert_eq!(code, 0);
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    jsonschema::draft202012::new(&schema).unwrap()
}

/// The policy tests in a text of YAML documents.
fn documents(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    all.into_iter().filter(|document| document["kind"] == "PolicyTest").collect()
}

fn manifests_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { manifests_below(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect()
}

#[test]
fn examples_are_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let guide = fs::read_to_string(root.join("docs/check.md")).unwrap();
    let blocks = guide.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    let files = manifests_below(&root.join("deploy/examples")).into_iter().map(|path| fs::read_to_string(path).unwrap());
    let validator = validator();
    let mut seen = 0;
    for document in blocks.chain(files.filter(|text| text.contains("PolicyTest"))).flat_map(|text| documents(&text)) {
        let wrong: Vec<String> = validator.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{wrong:#?}\n{document:#}");
        seen += 1;
    }
    assert!(seen >= 2, "{seen}");
}

/// A document with one test, made of the fields that are given.
fn document(fields: &str) -> String {
    format!("{{apiVersion: netpol-observer.io/v1alpha1, kind: PolicyTest, tests: [{{{fields}}}]}}\n")
}

#[test]
fn editors_and_the_program_agree() {
    const PODS: &str = "\
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: default, labels: {app: a}}, spec: {containers: [{name: a, image: a}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: default}, spec: {containers: [{name: b, image: b}]}}
";
    let validator = validator();
    let good = [
        "from: a, to: b, expect: allow",
        "name: x, from: [a, 203.0.113.7], to: [b], port: 80, expect: allow",
        "from: a, to: b, port: [80, 53/UDP, 8000-8100, SCTP], expect: allow",
        "from: '*/*', to: b, expect: allow, except: [{from: b}, {to: a, port: 80}]",
    ];
    let bad = [
        "from: a, to: b, expect: maybe",
        "from: a, to: b",
        "from: a, expect: deny",
        "from: a, to: b, expect: deny, exept: [{from: a}]",
        "from: a, to: b, expect: deny, except: [{form: a}]",
        "from: {pod: a}, to: b, expect: deny",
        "from: a, to: b, port: 70000, expect: allow",
        "from: a, to: b, port: http, expect: allow",
        "from: a, to: b, port: 80/HTTP, expect: allow",
    ];
    for (fields, is_good) in good.map(|fields| (fields, true)).into_iter().chain(bad.map(|fields| (fields, false))) {
        let text = document(fields);
        let valid = validator.is_valid(&documents(&text)[0]);
        let (code, out, err) = Scene::new(&[("pods.yaml", PODS), ("tests.yaml", &text)]).check(&[".", "--no-lints"]);
        assert_eq!((valid, code == 0), (is_good, is_good), "{fields}: {out}{err}");
    }
    let other = document(good[0]).replace("v1alpha1", "v1");
    assert!(!validator.is_valid(&documents(&other)[0]));
    assert_eq!(Scene::new(&[("tests.yaml", &other)]).check(&["."]).0, 2);
}
