//! For GitHub Actions: workflow commands, which annotate lines of files in the view of a pull request.
//!
//! <https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions>

use std::io::{self, Write};

use super::place::Places;
use super::report::{Checked, all_failures, failure_words, finding_words, one_line, outcome_words};
use super::text::summaries;
use crate::lint::Severity;
use crate::serve::render::clean_lines;
use crate::suite::{Outcome, TestResult};

/// Connections of a test that an annotation names.
const NAMED: usize = 5;

pub(super) fn write(checked: &Checked<'_>, out: &mut impl Write) -> io::Result<()> {
    for finding in checked.findings() {
        let level = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "notice",
        };
        let message = format!("{}\nhelp: {}", finding_words(finding), clean_lines(&finding.help));
        command(level, checked.places, finding.file.as_deref(), finding.line, finding.code.as_str(), &message, out)?;
    }
    for result in checked.tests.results.iter().filter(|result| result.outcome != Outcome::Passed) {
        let title = one_line(&format!("{}: {}", result.suite, result.name));
        let (file, line) = (&result.origin.file, result.origin.line);
        command("error", checked.places, Some(file), Some(line), &title, &message(result, checked.places), out)?;
    }
    for line in summaries(checked) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// What is wrong with a test: the first connections, a line for each, and where to look and what to change for the first of them.
fn message(result: &TestResult, places: &Places) -> String {
    let mut lines = Vec::new();
    if result.problem.is_some() || result.failures.len() < 2 {
        lines.push(outcome_words(result));
    } else {
        lines.push(format!("expected {}, but", result.expect));
        lines.extend(result.failures.iter().take(NAMED).map(|failure| one_line(&failure_words(failure))));
        let left = all_failures(result).saturating_sub(NAMED.try_into().unwrap_or(u64::MAX));
        if left > 0 {
            lines.push(format!("and {left} more"));
        }
    }
    if let Some(failure) = result.failures.first() {
        let origin = failure.origin.as_ref().or_else(|| failure.policy.as_ref()?.origin.as_ref());
        lines.extend(origin.map(|origin| {
            let file = places.in_repository(&origin.file).unwrap_or_else(|| origin.file.to_string());
            one_line(&format!("see {file}:{}", origin.line))
        }));
        let fixes = failure.explanation.iter().flat_map(|explanation| &explanation.fixes);
        lines.extend(fixes.map(|fix| {
            let policy = fix.policy.as_ref().map(|policy| format!("{} {}: ", policy.kind, policy.full_name())).unwrap_or_default();
            one_line(&format!("fix: {policy}{}", fix.change))
        }));
    }
    lines.join("\n")
}

/// `::error file=policies.yaml,line=12,title=…::…`
fn command(
    level: &str,
    places: &Places,
    file: Option<&str>,
    line: Option<u32>,
    title: &str,
    message: &str,
    out: &mut impl Write,
) -> io::Result<()> {
    let file = file.and_then(|file| places.in_repository(file));
    // A line of an unknown file means nothing.
    let line = line.filter(|_| file.is_some());
    let file = file.map(|file| format!("file={},", property(&one_line(&file)))).unwrap_or_default();
    let line = line.map(|line| format!("line={line},")).unwrap_or_default();
    writeln!(out, "::{level} {file}{line}title={}::{}", property(title), data(message))
}

/// As the runner reads what stands behind `::`.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// As the runner reads the value of a property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
