//! What a run of `observer check` found, and the forms it is told in.

use std::io::{self, Write};
use std::net::Ipv6Addr;

use super::place::Places;
use super::{github, json, junit, sarif, text};
use crate::lint::{self, Finding, Severity};
use crate::policy::Verdict;
use crate::serve::render::clean_lines;
use crate::suite::{self, Expect, Failure, Outcome, TestResult};

/// What a run has found.
#[derive(Clone, Debug, Default)]
pub(super) struct Judged {
    /// Absent with `--no-lints`.
    pub(super) lint: Option<lint::Report>,
    /// Without any result where there are no tests.
    pub(super) tests: suite::Report,
    /// A sentence on objects that play no part.
    pub(super) left_out: Option<String>,
}

impl Judged {
    /// All findings; none without lints.
    pub(super) fn findings(&self) -> &[Finding] {
        self.lint.as_ref().map(|report| report.findings.as_slice()).unwrap_or_default()
    }
}

/// What was found, and how it is to be told.
#[derive(Clone, Copy)]
pub(super) struct Checked<'a> {
    /// Absent with `--no-lints`.
    pub(super) lint: Option<&'a lint::Report>,
    /// Without any result where there are no tests.
    pub(super) tests: &'a suite::Report,
    /// From which severity on a finding fails the run; absent: none does.
    pub(super) fails_from: Option<Severity>,
    /// Where files are for others.
    pub(super) places: &'a Places,
    /// Whether tests that passed are named in text.
    pub(super) show_passed: bool,
}

/// `-o`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Form {
    /// For people.
    Text,
    /// For programs: one object per line.
    Json,
    /// For CI servers: an XML file of JUnit's form.
    Junit,
    /// For code scanning: a SARIF 2.1.0 log.
    Sarif,
    /// For GitHub Actions: workflow commands that annotate the files of a pull request.
    Github,
}

impl Checked<'_> {
    /// Writes it all in a form.
    ///
    /// # Errors
    /// The writer's.
    pub(super) fn write(&self, form: Form, out: &mut impl Write) -> io::Result<()> {
        match form {
            Form::Text => text::write(self, out),
            Form::Json => json::write(self, out),
            Form::Junit => junit::write(self, out),
            Form::Sarif => sarif::write(self, out),
            Form::Github => github::write(self, out),
        }
    }

    /// Whether the run ends with 1.
    pub(super) fn fails(&self) -> bool {
        !self.tests.all_passed() || self.findings().iter().any(|finding| self.is_failure(finding))
    }

    /// All findings; none without lints.
    pub(super) fn findings(&self) -> &[Finding] {
        self.lint.map(|report| report.findings.as_slice()).unwrap_or_default()
    }

    /// Whether a finding fails the run.
    pub(super) fn is_failure(&self, finding: &Finding) -> bool {
        self.fails_from.is_some_and(|from| finding.severity >= from)
    }
}

/// `NetworkPolicy shop/api: spec.egress: the rules in spec.egress are ignored: …`, made fit to be printed.
pub(super) fn finding_words(finding: &Finding) -> String {
    let Finding { object, field, message, .. } = finding;
    let object = object.as_ref().map(|object| format!("{object}: ")).unwrap_or_default();
    let field = field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
    clean_lines(&format!("{object}{field}{message}"))
}

/// `expected allow, but shop/deploy/web → shop/deploy/api:8080/TCP is denied: …`, or why a test could not be judged; empty where it passed. One
/// line, made fit to be printed.
pub(super) fn outcome_words(result: &TestResult) -> String {
    let words = match (result.outcome, &result.problem, result.failures.first()) {
        (Outcome::Passed, ..) => String::new(),
        (_, Some(problem), _) => {
            let hints: String = problem.hints.iter().map(|hint| format!("; {hint}")).collect();
            format!("cannot be judged: {}{hints}", problem.message)
        }
        // As expected, but by other policies: the words say so.
        (_, None, Some(failure)) if is_expected(result, failure) => format!("{}{}", failure_words(failure), others(result)),
        (_, None, Some(failure)) => format!("expected {}, but {}{}", result.expect, failure_words(failure), others(result)),
        (_, None, None) => format!("not every connection is as expected: {}", result.expect),
    };
    one_line(&words)
}

fn is_expected(result: &TestResult, failure: &Failure) -> bool {
    matches!((failure.verdict, result.expect), (Verdict::Allow, Expect::Allow) | (Verdict::Deny, Expect::Deny))
}

/// Of the failures behind the first one.
fn others(result: &TestResult) -> String {
    match all_failures(result) {
        0 | 1 => String::new(),
        2 => "; 1 more is not as expected".to_owned(),
        count => format!("; {} more are not as expected", count.saturating_sub(1)),
    }
}

/// How many pairs of workloads and ports are not as expected.
pub(super) fn all_failures(result: &TestResult) -> u64 {
    result.more_failures.saturating_add(u64::try_from(result.failures.len()).unwrap_or(u64::MAX))
}

/// `shop/deploy/web → shop/deploy/api:8080/TCP is denied: no rule of NetworkPolicy shop/api admits it`
pub(super) fn failure_words(failure: &Failure) -> String {
    format!("{} {}", connection(failure), failure.message)
}

/// `shop/deploy/web → shop/deploy/api:8080/TCP`
fn connection(failure: &Failure) -> String {
    let Failure { from, to, port, .. } = failure;
    if !port.starts_with(|first: char| first.is_ascii_digit()) {
        format!("{from} → {to} {port}")
    } else if to.parse::<Ipv6Addr>().is_ok() {
        format!("{from} → [{to}]:{port}")
    } else if to.contains([' ', ':']) {
        format!("{from} → {to} port {port}")
    } else {
        format!("{from} → {to}:{port}")
    }
}

/// Text of any origin on one line, made fit to be printed.
pub(super) fn one_line(text: &str) -> String {
    clean_lines(text).replace('\n', " ")
}
