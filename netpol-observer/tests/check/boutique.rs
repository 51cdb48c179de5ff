//! The boutique of the examples is without a mistake, and a mistake that somebody makes in it is found where it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// A copy of the boutique, as `manifests` in a directory of its own.
pub(crate) struct Boutique {
    directory: TempDir,
}

impl Boutique {
    pub(crate) fn new() -> Self {
        let boutique = Boutique { directory: TempDir::new().unwrap() };
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/boutique");
        let copied = Command::new("cp").arg("-r").arg(example).arg(boutique.directory().join("manifests")).status().unwrap();
        assert!(copied.success());
        boutique
    }

    /// What holds `manifests`.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory().join("manifests").join(name)
    }

    /// Replaces what is exactly once in a file.
    pub(crate) fn replace(&self, file: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.file(file)).unwrap();
        assert_eq!(text.matches(old).count(), 1, "{file}: {old}");
        fs::write(self.file(file), text.replace(old, new)).unwrap();
    }

    /// The number of the line that is `content` but for white space, and is so once.
    pub(crate) fn line(&self, file: &str, content: &str) -> u64 {
        let text = fs::read_to_string(self.file(file)).unwrap();
        let mut lines = (1..).zip(text.lines()).filter(|(_, line)| line.trim() == content).map(|(number, _)| number);
        let line = lines.next().unwrap_or_else(|| panic!("{file}: {content}"));
        assert_eq!(lines.next(), None, "{file}: {content}");
        line
    }

    /// Exit code and lines of `observer check manifests -o json`.
    fn check(&self) -> (i32, Vec<Value>) {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_observer"));
        let output = command.current_dir(self.directory()).args(["check", "manifests", "-o", "json"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let lines = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap(), lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// Findings above notes, and tests that did not pass: code or name, file and line.
    fn complaints(&self) -> Vec<(String, String, u64)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (code, lines) = self.check();
        let mut complaints = Vec::new();
        for line in &lines {
            let what = match line["type"].as_str().unwrap() {
                "finding" if line["severity"] != "note" => &line["code"],
                "test" if line["outcome"] != "passed" => &line["name"],
                _ => continue,
            };
            let place = if line["origin"].is_object() { &line["origin"] } else { line };
            complaints.push((text(what), text(&place["file"]), place["line"].as_u64().unwrap()));
        }
        let fails = lines.iter().any(|line| line["severity"] == "error" || (line["type"] == "test" && line["outcome"] != "passed"));
        assert_eq!(code, i32::from(fails));
        complaints
    }
}

/// The tests of the boutique by name.
const DNS: &str = "everybody in the shop finds names";

#[test]
fn it_is_without_a_mistake() {
    let boutique = Boutique::new();
    let (code, lines) = boutique.check();
    assert_eq!((code, boutique.complaints()), (0, vec![]));
    let tests: Vec<&Value> = lines.iter().filter(|line| line["type"] == "test").collect();
    assert!(tests.len() >= 25, "{}", tests.len());
    let connections: u64 = tests.iter().map(|test| test["connections"].as_u64().unwrap()).sum();
    assert!(connections >= 1000, "{connections}");
}

/// A mistake, and what is said of it: the code of a lint with a line and how many lines before it the policy or rule begins, and tests by name.
fn finds(file: &str, old: &str, new: &str, lint: Option<(&str, &str, u64)>, tests: &[&str]) {
    let boutique = Boutique::new();
    boutique.replace(file, old, new);
    let mut expected: Vec<(String, String, u64)> = Vec::new();
    if let Some((code, line, before)) = lint {
        expected.push((code.to_owned(), format!("manifests/{file}"), boutique.line(file, line) - before));
    }
    for test in tests {
        let line = boutique.line("policy-tests.yaml", &format!("- name: {test}"));
        expected.push(((*test).to_owned(), "manifests/policy-tests.yaml".to_owned(), line));
    }
    let mut found = boutique.complaints();
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "{old} → {new}");
}

#[test]
fn a_label_with_a_typing_error_is_found() {
    finds("policies/data.yaml", "values: [orders-schema, settlement]", "values: [order-schema, settlement]", None, &["who writes orders"]);
    finds(
        "policies/data.yaml",
        "      app: redis\n  policyTypes",
        "      app: rediss\n  policyTypes",
        Some(("selects-no-pod", "name: redis", 3)),
        &["the cart keeps its carts in Redis"],
    );
}

#[test]
fn a_wrong_port_is_found() {
    finds("policies/data.yaml", "port: 6379", "port: 6380", None, &["the cart keeps its carts in Redis"]);
    finds(
        "policies/checkout.yaml",
        "        - port: redis\n",
        "        - port: resp\n",
        Some(("named-port-missing", "- port: resp", 5)),
        &["the cart keeps its carts in Redis"],
    );
}

#[test]
fn a_rule_for_dns_that_is_gone_is_found() {
    let boutique = Boutique::new();
    boutique.replace("policies/defaults.yaml", "k8s-app: kube-dns", "k8s-app: coredns");
    let found = boutique.complaints();
    let codes: Vec<&str> = found.iter().map(|(what, ..)| what.as_str()).collect();
    assert!(codes.contains(&"egress-without-dns") && codes.contains(&DNS), "{found:?}");
}

#[test]
fn an_exception_that_is_gone_is_found() {
    finds("policies/checkout.yaml", "            except: [198.51.100.128/25]\n", "", None, &["nobody reaches the bank's test system"]);
}
