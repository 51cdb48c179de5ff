//! For code scanning: SARIF 2.1.0 (OASIS).
//!
//! Files are told by URIs relative to the root of the repository; results are told apart by what they are about rather than by their lines, so
//! that a result stays the same one when lines are added above it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::place::Places;
use super::report::{Checked, finding_words, one_line, outcome_words};
use crate::cluster::Origin;
use crate::lint::{Code, Finding, Severity};
use crate::serve::json::write_value;
use crate::serve::render::clean_lines;
use crate::suite::{Outcome, TestResult};

/// The rule that stands for all policy tests.
const POLICY_TEST: &str = "policy-test";

/// What `uriBaseId` names: the root of the repository.
const ROOT: &str = "SRCROOT";

/// What stays as it is in the path of a URI (RFC 3986: unreserved, and `/`).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

pub(super) fn write(checked: &Checked<'_>, out: &mut impl Write) -> io::Result<()> {
    let mut fingerprints = Fingerprints::default();
    let findings = checked.findings().iter().map(|finding| of_finding(finding, checked.places, &mut fingerprints));
    let mut told: Vec<Told> = findings.collect();
    let tests = checked.tests.results.iter().filter(|result| result.outcome != Outcome::Passed);
    told.extend(tests.map(|result| of_test(result, checked.places, &mut fingerprints)));
    let (results, notifications): (Vec<Told>, Vec<Told>) = told.into_iter().partition(|told| told.location.is_some());
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "netpol-observer",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules(),
            } },
            "invocations": [{
                "executionSuccessful": true,
                "toolExecutionNotifications": notifications.into_iter().map(Told::notification).collect::<Vec<_>>(),
            }],
            "originalUriBaseIds": { ROOT: { "description": { "text": "The root of the repository." } } },
            "results": results.into_iter().map(Told::result).collect::<Vec<_>>(),
        }],
    });
    write_value(&log, &mut *out)?;
    writeln!(out)
}

/// A result; or a notification about the run, where it has no place in the repository: code scanning refuses results without one.
struct Told {
    rule: &'static str,
    level: &'static str,
    text: String,
    location: Option<Value>,
    related: Vec<Value>,
    fingerprint: String,
}

impl Told {
    fn result(self) -> Value {
        let mut result = json!({
            "ruleId": self.rule,
            "ruleIndex": self.index(),
            "level": self.level,
            "message": { "text": self.text },
            "locations": self.location.into_iter().collect::<Vec<_>>(),
            "partialFingerprints": { "netpolObserver/v1": self.fingerprint },
        });
        if !self.related.is_empty() {
            result["relatedLocations"] = self.related.into();
        }
        result
    }

    fn notification(self) -> Value {
        json!({ "level": self.level, "message": { "text": self.text }, "associatedRule": { "id": self.rule, "index": self.index() } })
    }

    /// The rules are in this order.
    fn index(&self) -> usize {
        Code::ALL.iter().position(|code| code.as_str() == self.rule).unwrap_or(Code::ALL.len())
    }
}

/// Every lint, and the tests.
fn rules() -> Vec<Value> {
    let lints = Code::ALL.iter().map(|code| {
        rule(
            code.as_str(),
            code.summary(),
            &format!("The section `{code}` of docs/lints.md says what it means and what to do, with an example."),
        )
    });
    let tests = rule(
        POLICY_TEST,
        "A policy test that is not as expected.",
        "A test of kind PolicyTest failed or could not be judged; docs/check.md describes such tests. Correct the policy that is named, or the test.",
    );
    lints.chain([tests]).collect()
}

fn rule(id: &str, summary: &str, help: &str) -> Value {
    json!({ "id": id, "shortDescription": { "text": summary }, "help": { "text": format!("{summary} {help}") } })
}

fn of_finding(finding: &Finding, places: &Places, fingerprints: &mut Fingerprints) -> Told {
    let Finding { code, severity, object, field, file, line, message, help } = finding;
    let level = match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let about = object.as_ref().map(ToString::to_string).unwrap_or_default();
    // What is about no object is told apart by its words.
    let words = if about.is_empty() { message.as_str() } else { "" };
    Told {
        rule: code.as_str(),
        level,
        text: format!("{}\n\nhelp: {}", finding_words(finding), clean_lines(help)),
        location: file.as_ref().and_then(|file| location(file, *line, places)),
        related: Vec::new(),
        fingerprint: fingerprints.of(&[code.as_str(), &about, field.as_deref().unwrap_or_default(), words]),
    }
}

fn of_test(test: &TestResult, places: &Places, fingerprints: &mut Fingerprints) -> Told {
    let TestResult { suite, name, origin, failures, .. } = test;
    let mut told = BTreeSet::new();
    let related = failures.iter().filter_map(|failure| {
        let policy = failure.policy.as_ref()?;
        let origin = failure.origin.as_ref().or(policy.origin.as_ref())?;
        if !told.insert((origin.file.clone(), origin.line)) {
            return None;
        }
        let mut related = of_origin(origin, places)?;
        related["message"] = json!({ "text": one_line(&format!("{} {}", policy.kind, policy.full_name())) });
        Some(related)
    });
    Told {
        rule: POLICY_TEST,
        level: "error",
        text: one_line(&format!("{suite}: {name}: {}", outcome_words(test))),
        location: of_origin(origin, places),
        related: related.collect(),
        fingerprint: fingerprints.of(&[POLICY_TEST, suite, name]),
    }
}

fn of_origin(origin: &Origin, places: &Places) -> Option<Value> {
    location(&origin.file, Some(origin.line), places)
}

/// Nothing for what is not in the repository: an absolute path would mean nothing elsewhere, and tell of this machine.
fn location(file: &str, line: Option<u32>, places: &Places) -> Option<Value> {
    let path = places.in_repository(file)?;
    let uri = utf8_percent_encode(&path, ESCAPED).to_string();
    let mut physical = json!({ "artifactLocation": { "uri": uri, "uriBaseId": ROOT } });
    if let Some(line) = line.filter(|line| *line > 0) {
        physical["region"] = json!({ "startLine": line });
    }
    Some(json!({ "physicalLocation": physical }))
}

/// Tells results apart; equal ones by how many came before.
#[derive(Default)]
struct Fingerprints(BTreeMap<String, usize>);

impl Fingerprints {
    fn of(&mut self, parts: &[&str]) -> String {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        for part in parts {
            context.update(part.as_bytes());
            // No text has this byte, so that parts cannot run into one another.
            context.update(&[0xff]);
        }
        let digest = context.finish();
        let hex: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let number = self.0.entry(hex.clone()).or_insert(0);
        *number += 1;
        format!("{hex}:{number}")
    }
}
