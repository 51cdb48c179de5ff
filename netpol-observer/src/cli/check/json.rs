//! For programs: one object per line. docs/json.md describes every field; a test holds the two together.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::report::Checked;
use crate::lint::{Finding, Report, Severity};
use crate::serve::json::write_value;
use crate::suite::{Outcome, TestResult};

/// One line.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum Line<'a> {
    Finding(&'a Finding),
    Test(&'a TestResult),
    Check(Summary),
}

/// The last line: all of it counted.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    #[serde(flatten)]
    lints: Option<Lints>,
    tests: usize,
    passed: usize,
    failed: usize,
    broken: usize,
}

/// The findings counted.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Lints {
    policies: usize,
    errors: usize,
    warnings: usize,
    notes: usize,
    suppressed: usize,
    codes: BTreeMap<&'static str, usize>,
}

impl Lints {
    fn of(report: &Report) -> Self {
        let mut codes = BTreeMap::new();
        for finding in &report.findings {
            *codes.entry(finding.code.as_str()).or_default() += 1;
        }
        Lints {
            policies: report.policies,
            errors: report.count(Severity::Error),
            warnings: report.count(Severity::Warning),
            notes: report.count(Severity::Note),
            suppressed: report.suppressed,
            codes,
        }
    }
}

pub(super) fn write(checked: &Checked<'_>, out: &mut impl Write) -> io::Result<()> {
    let tests = checked.tests;
    let summary = Summary {
        lints: checked.lint.map(Lints::of),
        tests: tests.results.len(),
        passed: tests.count(Outcome::Passed),
        failed: tests.count(Outcome::Failed),
        broken: tests.count(Outcome::Broken),
    };
    let findings = checked.findings().iter().map(Line::Finding);
    for line in findings.chain(tests.results.iter().map(Line::Test)).chain([Line::Check(summary)]) {
        write_value(&line, &mut *out)?;
        writeln!(out)?;
    }
    Ok(())
}
