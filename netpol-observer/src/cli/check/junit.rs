//! For CI servers: JUnit's XML, as Jenkins' schema for it has it.
//!
//! A suite for each test suite, one for the findings. A finding that does not fail the run is a test that passed with something to say.

use std::io::{self, Write};

use quick_xml::Writer;
use quick_xml::events::BytesText;

use super::report::{Checked, finding_words, one_line, outcome_words};
use super::text::block;
use crate::lint::Finding;
use crate::serve::render::{Palette, clean_lines};
use crate::suite::{Outcome, TestResult};

/// A test case.
struct Case {
    name: String,
    class: String,
    file: Option<String>,
    outcome: Fate,
}

/// What became of it.
enum Fate {
    Passed,
    /// Passed, with something to say.
    Said(String),
    Failed {
        kind: String,
        message: String,
        full: String,
    },
    Broken {
        kind: String,
        message: String,
        full: String,
    },
}

pub(super) fn write(checked: &Checked<'_>, out: &mut impl Write) -> io::Result<()> {
    let mut suites: Vec<(String, Vec<Case>)> = Vec::new();
    if checked.lint.is_some() {
        suites.push(("lints".to_owned(), checked.findings().iter().map(|finding| of_finding(finding, checked)).collect()));
    }
    // Tests of one suite stand in a row, for they are in the order of their files.
    let mut previous = None;
    for result in &checked.tests.results {
        let key = (&result.suite, &result.origin.file);
        if previous != Some(key) {
            suites.push((xml(&one_line(&result.suite)), Vec::new()));
            previous = Some(key);
        }
        if let Some((_, cases)) = suites.last_mut() {
            cases.push(of_test(result, checked));
        }
    }
    let all = || suites.iter().flat_map(|(_, cases)| cases);
    writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    let mut writer = Writer::new_with_indent(&mut *out, b' ', 2);
    let counts = Counts::of(all());
    let root = writer.create_element("testsuites").with_attribute(("name", "observer check")).with_attributes(counts.attributes());
    root.write_inner_content(|writer| {
        for (name, cases) in &suites {
            let counts = Counts::of(cases.iter());
            let suite = writer.create_element("testsuite").with_attribute(("name", name.as_str())).with_attributes(counts.attributes());
            if cases.is_empty() {
                suite.write_empty()?;
                continue;
            }
            suite.write_inner_content(|writer| cases.iter().try_for_each(|case| case.write(writer)))?;
        }
        Ok(())
    })?;
    writeln!(out)
}

fn of_finding(finding: &Finding, checked: &Checked<'_>) -> Case {
    let object = finding.object.as_ref().map(ToString::to_string);
    let parts: Vec<String> = object.into_iter().chain(finding.field.clone()).collect();
    let name = if parts.is_empty() { finding.message.clone() } else { parts.join(": ") };
    let place = match (&finding.file, finding.line) {
        (Some(file), Some(line)) => format!("{file}:{line}: "),
        (Some(file), None) => format!("{file}: "),
        (None, _) => String::new(),
    };
    let severity = finding.severity;
    let full = clean_lines(&format!("{place}{severity}[{}]: {}\nhelp: {}", finding.code, finding_words(finding), finding.help));
    let outcome = if checked.is_failure(finding) {
        Fate::Failed { kind: severity.to_string(), message: one_line(&finding.message), full }
    } else {
        Fate::Said(full)
    };
    Case {
        name: one_line(&name),
        class: finding.code.to_string(),
        file: finding.file.as_ref().and_then(|file| checked.places.in_repository(file)).map(|file| one_line(&file)),
        outcome,
    }
}

fn of_test(result: &TestResult, checked: &Checked<'_>) -> Case {
    let message = outcome_words(result);
    let full = || block(result, Palette::PLAIN).trim_end().to_owned();
    let outcome = match result.outcome {
        Outcome::Passed => Fate::Passed,
        Outcome::Failed => Fate::Failed { kind: format!("expected {}", result.expect), message, full: full() },
        Outcome::Broken => Fate::Broken { kind: "cannot be judged".to_owned(), message, full: full() },
    };
    Case {
        name: one_line(&result.name),
        class: one_line(&result.suite),
        file: checked.places.in_repository(&result.origin.file).map(|file| one_line(&file)),
        outcome,
    }
}

impl Case {
    fn write<W: Write>(&self, writer: &mut Writer<W>) -> io::Result<()> {
        let name = [("name", xml(&self.name)), ("classname", xml(&self.class))];
        let file = self.file.as_ref().map(|file| ("file", xml(file)));
        let attributes: Vec<(&str, String)> = name.into_iter().chain(file).collect();
        let case = writer.create_element("testcase").with_attributes(attributes.iter().map(|(name, value)| (*name, value.as_str())));
        let (element, kind, message, full) = match &self.outcome {
            Fate::Passed => {
                case.write_empty()?;
                return Ok(());
            }
            Fate::Said(words) => {
                case.write_inner_content(|writer| {
                    writer.create_element("system-out").write_text_content(BytesText::new(&xml(words)))?;
                    Ok(())
                })?;
                return Ok(());
            }
            Fate::Failed { kind, message, full } => ("failure", kind, message, full),
            Fate::Broken { kind, message, full } => ("error", kind, message, full),
        };
        case.write_inner_content(|writer| {
            let element = writer.create_element(element).with_attribute(("type", kind.as_str()));
            element.with_attribute(("message", xml(message).as_str())).write_text_content(BytesText::new(&xml(full)))?;
            Ok(())
        })?;
        Ok(())
    }
}

/// Cases counted.
struct Counts {
    tests: String,
    failures: String,
    errors: String,
}

impl Counts {
    fn of<'a>(cases: impl Iterator<Item = &'a Case> + Clone) -> Self {
        let count = |wanted: fn(&Fate) -> bool| cases.clone().filter(|case| wanted(&case.outcome)).count().to_string();
        Counts {
            tests: count(|_| true),
            failures: count(|outcome| matches!(outcome, Fate::Failed { .. })),
            errors: count(|outcome| matches!(outcome, Fate::Broken { .. })),
        }
    }

    fn attributes(&self) -> [(&'static str, &str); 3] {
        [("tests", self.tests.as_str()), ("failures", self.failures.as_str()), ("errors", self.errors.as_str())]
    }
}

/// Characters that XML does not have, escaped or not, are replaced. Controls are gone already.
fn xml(text: &str) -> String {
    text.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}
