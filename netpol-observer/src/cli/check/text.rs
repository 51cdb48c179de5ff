//! For people: findings grouped by file, tests that are not as expected with the reasons, and what it comes to.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::report::{Checked, failure_words, finding_words};
use crate::cli::tail::counted;
use crate::lint::{Finding, Report, Severity};
use crate::serve::render::{Palette, Text, clean_lines, write_reasons};
use crate::suite::{self, Failure, Outcome, TestResult};

/// Failures of a test that are explained; the others are named.
const EXPLAINED: usize = 3;

pub(super) fn write(checked: &Checked<'_>, out: &mut impl Write) -> io::Result<()> {
    findings(checked.findings(), out)?;
    let mut has_block = false;
    for result in &checked.tests.results {
        if result.outcome == Outcome::Passed {
            if checked.show_passed {
                write_passed(result, out)?;
                has_block = true;
            }
        } else {
            out.write_all(block(result, Palette::COLOURED).as_bytes())?;
            writeln!(out)?;
            has_block = false;
        }
    }
    if has_block {
        writeln!(out)?;
    }
    for line in summaries(checked) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// What it comes to: a line for the findings, and one for the tests if there are any.
pub(super) fn summaries(checked: &Checked<'_>) -> Vec<String> {
    let of_tests = (!checked.tests.results.is_empty() || checked.lint.is_none()).then(|| summary_of_tests(checked.tests));
    checked.lint.map(summary).into_iter().chain(of_tests).collect()
}

/// Grouped by file, in the order of lines.
fn findings(findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    let mut file = None;
    for finding in findings {
        if file.is_some_and(|file| file != &finding.file) {
            writeln!(out)?;
        }
        file = Some(&finding.file);
        write_finding(finding, out)?;
    }
    if !findings.is_empty() {
        writeln!(out)?;
    }
    Ok(())
}

/// A finding on one line, and what to do on the next.
pub(super) fn write_finding(finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    let Finding { code, severity, file, line, help, .. } = finding;
    let place = match (file, line) {
        (Some(file), Some(line)) => format!("{file}:{line}: "),
        (Some(file), None) => format!("{file}: "),
        (None, _) => String::new(),
    };
    let style = style(*severity);
    writeln!(out, "{}{style}{severity}[{code}]{style:#}: {}", clean_lines(&place), finding_words(finding))?;
    writeln!(out, "    help: {}", clean_lines(help))
}

/// That a test passed, on one line.
pub(super) fn write_passed(result: &TestResult, out: &mut impl Write) -> io::Result<()> {
    write_head(result, Palette::COLOURED.fix, "passed", out)
}

/// That a test is not there any more.
pub(super) fn write_removed(result: &TestResult, out: &mut impl Write) -> io::Result<()> {
    write_head(result, Palette::COLOURED.dim, "removed", out)
}

fn write_head(result: &TestResult, style: Style, word: &str, out: &mut impl Write) -> io::Result<()> {
    let mut text = Text::new(Palette::COLOURED);
    head(&mut text, result, style, word);
    text.newline();
    out.write_all(text.finish().as_bytes())
}

/// That a finding is not there any more, where it was.
pub(super) fn write_gone(finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    let Finding { code, severity, file, .. } = finding;
    let place = file.as_ref().map(|file| format!("{file}: ")).unwrap_or_default();
    let dim = Palette::COLOURED.dim;
    writeln!(out, "{}{dim}gone{dim:#}: {severity}[{code}] {}", clean_lines(&place), finding_words(finding))
}

/// `policy-tests.yaml:12: FAILED the frontend calls the cart (boutique)`
fn head(text: &mut Text, result: &TestResult, style: Style, word: &str) {
    let TestResult { suite, name, origin, .. } = result;
    text.put(&format!("{}:{}: ", origin.file, origin.line));
    text.styled(style, word);
    text.put(&format!(" {name} ({suite})"));
}

/// A test that is not as expected: what was expected, what the engine says of the first connections and why, and the others by name.
pub(super) fn block(result: &TestResult, palette: Palette) -> String {
    let mut text = Text::new(palette);
    match &result.problem {
        Some(problem) => {
            head(&mut text, result, palette.dropped, "BROKEN");
            text.newline();
            line(&mut text, "problem", &problem.message);
            for hint in &problem.hints {
                line(&mut text, "hint", hint);
            }
        }
        None => {
            head(&mut text, result, palette.denied, "FAILED");
            text.newline();
            line(&mut text, "expected", &expectation(result));
        }
    }
    let (explained, named) = result.failures.split_at(result.failures.len().min(EXPLAINED));
    for failure in explained {
        explain(&mut text, failure);
    }
    text.end_block();
    for failure in named {
        line(&mut text, "also", &failure_words(failure));
    }
    if result.more_failures > 0 {
        line(&mut text, "also", &format!("{} more", result.more_failures));
    }
    text.finish()
}

/// `allow`, `deny, for each of 12 connections`
fn expectation(result: &TestResult) -> String {
    match result.connections {
        0 | 1 => result.expect.to_string(),
        count => format!("{}, for each of {count} connections", result.expect),
    }
}

/// What the engine says of a connection, and why.
fn explain(text: &mut Text, failure: &Failure) {
    text.end_block();
    line(text, "but", &failure_words(failure));
    if let Some(explanation) = &failure.explanation {
        write_reasons(text, explanation);
    }
}

fn line(text: &mut Text, label: &'static str, words: &str) {
    for part in words.lines() {
        text.label(label);
        text.put(part);
        text.newline();
    }
}

/// `3 errors, 2 warnings in 14 policies (1 suppressed by annotations)`
fn summary(report: &Report) -> String {
    let severities = [(Severity::Error, "error", "errors"), (Severity::Warning, "warning", "warnings"), (Severity::Note, "note", "notes")];
    let mut counts: Vec<String> = severities
        .into_iter()
        .map(|(severity, one, many)| (report.count(severity), one, many))
        .filter(|(count, ..)| *count > 0)
        .map(|(count, one, many)| counted(count, one, many))
        .collect();
    if counts.is_empty() {
        counts.push("nothing found".to_owned());
    }
    let suppressed = match report.suppressed {
        0 => String::new(),
        count => format!(" ({count} suppressed by annotations)"),
    };
    format!("{} in {}{suppressed}", counts.join(", "), counted(report.policies, "policy", "policies"))
}

/// `21 tests passed`, `2 of 21 tests failed, 1 cannot be judged`, `1 of 21 tests cannot be judged`
fn summary_of_tests(report: &suite::Report) -> String {
    let all = report.results.len();
    let (failed, broken) = (report.count(Outcome::Failed), report.count(Outcome::Broken));
    match (failed, broken) {
        (0, 0) => format!("{} passed", counted(all, "test", "tests")),
        (0, broken) => format!("{broken} of {} cannot be judged", counted(all, "test", "tests")),
        (failed, 0) => format!("{failed} of {} failed", counted(all, "test", "tests")),
        (failed, broken) => format!("{failed} of {} failed, {broken} cannot be judged", counted(all, "test", "tests")),
    }
}

fn style(severity: Severity) -> Style {
    let colour = match severity {
        Severity::Error => AnsiColor::Red,
        Severity::Warning => AnsiColor::Yellow,
        Severity::Note => AnsiColor::Cyan,
    };
    Style::new().fg_color(Some(colour.into())).bold()
}
