//! `observer check`

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use clap::Args;
use serde::Serialize;

use super::objects::{ApiServerArgs, Place, index, read};
use super::tail::{ignore_closed, skipped};
use super::{Colour, CommandError, OutputForm};
use crate::cluster::manifests::Loaded;
use crate::lint::{Code, Finding, Options, Report, Severity, lint};
use crate::policy::{Engine, Profile};
use crate::serve::json::write_value;
use crate::serve::render::clean_lines;
use crate::suite;

/// Test policies before they are applied: do they admit and deny what they should, and is anything wrong in them?
///
/// Policy tests (documents of kind PolicyTest, docs/check.md) say which connections must be admitted and which must not. Beside them policies are looked
/// through for selectors that match nothing, rules without effect, isolation without DNS and the like (docs/lints.md). Needs no cluster and no kernel:
/// Deployments and other workloads among the manifests stand for the pods that they make.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArgs {
    /// Read Kubernetes objects from this file, from all YAML and JSON files of this directory, or from standard input (-).
    #[arg(value_name = "FILE|DIR|-")]
    paths: Vec<PathBuf>,

    /// The same, as in `observer tail`. May be given several times.
    #[arg(short = 'f', long, value_name = "FILE|DIR|-")]
    manifests: Vec<PathBuf>,

    /// Read policy tests from this file or directory too. May be given several times.
    #[arg(long, value_name = "FILE|DIR", help_heading = "Sources")]
    tests: Vec<PathBuf>,

    /// Read the files as they are in this revision of their git repository, such as HEAD~1 or origin/main. Files of --tests are read as they are now.
    #[arg(long, value_name = "REV", help_heading = "Sources")]
    rev: Option<String>,

    /// Read the objects of the cluster of the kubeconfig too. Files go before what the cluster has.
    #[arg(long, help_heading = "Sources")]
    cluster: bool,

    #[command(flatten)]
    server: ApiServerArgs,

    /// Only run policy tests.
    #[arg(long, conflicts_with_all = ["only", "ignore"], help_heading = "Findings")]
    no_lints: bool,

    /// Report only these lints, such as selects-no-pod. May be given several times, or with commas.
    #[arg(long, value_name = "CODE", value_delimiter = ',', help_heading = "Findings")]
    only: Vec<Code>,

    /// Do not report these lints. May be given several times, or with commas.
    ///
    /// A policy's annotation `netpol-observer.io/ignore: CODE,CODE` does the same for that policy.
    #[arg(long, value_name = "CODE", value_delimiter = ',', help_heading = "Findings")]
    ignore: Vec<Code>,

    /// Exit with 1 when there is a finding of this severity or a higher one.
    #[arg(long, value_enum, default_value_t = FailOn::Error, value_name = "SEVERITY", help_heading = "Findings")]
    fail_on: FailOn,

    /// Print text for people, or one JSON object per line (described in docs/json.md).
    #[arg(short, long, value_enum, default_value_t = OutputForm::Text, value_name = "FORMAT", help_heading = "Output")]
    output: OutputForm,
}

const EXAMPLES: &str = "\
Examples:
  The manifests, policies and policy tests of a repository:
    observer check deploy/

  A rendered chart, with tests from a file:
    helm template shop ./chart | observer check --tests policy-tests.yaml -

  Policies that are to be deployed, on the cluster as it is:
    observer check --cluster policies/ --tests policy-tests.yaml

  As it was in another revision:
    observer check --rev origin/main deploy/

Exit status:
  0  all policy tests passed, and no finding of the severity of --fail-on or above
  1  a test failed or could not be judged, or there is such a finding
  2  the manifests cannot be read, or the command line is wrong";

/// `--fail-on`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// Errors: what the API server refuses, or what certainly does not do what it says.
    Error,
    /// Warnings and errors.
    Warning,
    /// Any finding.
    Note,
    /// Never.
    Never,
}

impl FailOn {
    fn fails(self, report: &Report) -> bool {
        let from = match self {
            FailOn::Error => Severity::Error,
            FailOn::Warning => Severity::Warning,
            FailOn::Note => Severity::Note,
            FailOn::Never => return false,
        };
        report.findings.iter().any(|finding| finding.severity >= from)
    }
}

/// Runs `observer check`. Unlike other commands it tells findings (1) from errors (2).
pub(super) fn run(arguments: CheckArgs, colour: Colour) -> Result<ExitCode, CommandError> {
    let fails = check(arguments, colour).map_err(CommandError::instead_of_an_answer)?;
    Ok(if fails { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Whether anything fails the run.
fn check(arguments: CheckArgs, colour: Colour) -> Result<bool, CommandError> {
    let mut loaded = arguments.load()?;
    if let Some(left_out) = skipped(&loaded.skipped) {
        ignore_closed(writeln!(io::stderr(), "warning: {}", clean_lines(&left_out)))?;
    }
    let engine = Engine::over(index(&mut loaded), Profile::default());
    let options = Options { only: arguments.only.iter().copied().collect(), ignore: arguments.ignore.iter().copied().collect() };
    let report = if arguments.no_lints { Report::default() } else { lint(&engine, &loaded.warnings, &options) };
    let tests = suite::run(&engine, &loaded.tests);
    let stdout = AutoStream::new(io::stdout().lock(), colour.choice());
    let mut out = io::BufWriter::new(stdout);
    let written = match arguments.output {
        OutputForm::Text => text(&report, &mut out).and_then(|()| tests_text(&tests, &mut out)),
        OutputForm::Json => json(&report, &tests, &mut out),
    };
    match written.and_then(|()| out.flush()) {
        // A reader that has gone does not matter.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::failure(format!("standard output: {error}"))),
        _ => Ok(arguments.fail_on.fails(&report) || !tests.all_passed()),
    }
}

impl CheckArgs {
    /// Reads the manifests and the tests.
    fn load(&self) -> Result<Loaded, CommandError> {
        let paths = self.paths.iter().chain(&self.manifests);
        let mut places: Vec<Place> = match &self.rev {
            None => paths.cloned().map(Place::Path).collect(),
            Some(_) if paths.clone().any(|path| path.as_os_str() == "-") => {
                return Err(CommandError::usage("standard input has no revisions").hint("leave out --rev, or name files instead of -"));
            }
            Some(revision) => {
                let of_revision: Result<Vec<Place>, String> = paths.map(|path| Place::revision(revision, path.clone())).collect();
                of_revision.map_err(CommandError::usage)?
            }
        };
        if self.cluster || self.server.given().is_some() {
            places.push(Place::Cluster);
        }
        if places.is_empty() {
            return Err(
                CommandError::usage("nothing to check").hint("name files or directories of manifests, - for standard input, or --cluster")
            );
        }
        places.extend(self.tests.iter().cloned().map(Place::Path));
        read(&places, &self.server)
    }
}

/// The tests that did not pass.
fn tests_text(tests: &suite::Report, out: &mut impl Write) -> io::Result<()> {
    for result in tests.results.iter().filter(|result| result.outcome != suite::Outcome::Passed) {
        writeln!(out, "{}:{}: {}", result.origin.file, result.origin.line, clean_lines(&result.name))?;
        for failure in &result.failures {
            writeln!(out, "    {}", clean_lines(&format!("{} → {} on {} {}", failure.from, failure.to, failure.port, failure.message)))?;
        }
        if let Some(problem) = &result.problem {
            writeln!(out, "    {}", clean_lines(&problem.message))?;
        }
    }
    if !tests.results.is_empty() {
        writeln!(out, "{} of {} tests passed", tests.count(suite::Outcome::Passed), tests.results.len())?;
    }
    Ok(())
}

/// For people: grouped by file, in the order of lines, with a summary at the end.
fn text(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let mut file = None;
    for finding in &report.findings {
        let Finding { code, severity, object, field, line, message, help, .. } = finding;
        if file.is_some_and(|file| file != &finding.file) {
            writeln!(out)?;
        }
        file = Some(&finding.file);
        let place = match (&finding.file, line) {
            (Some(file), Some(line)) => format!("{file}:{line}: "),
            (Some(file), None) => format!("{file}: "),
            (None, _) => String::new(),
        };
        let style = style(*severity);
        let object = object.as_ref().map(|object| format!("{object}: ")).unwrap_or_default();
        let field = field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
        let (place, rest) = (clean_lines(&place), clean_lines(&format!("{object}{field}{message}")));
        writeln!(out, "{place}{style}{severity}[{code}]{style:#}: {rest}")?;
        writeln!(out, "    help: {}", clean_lines(help))?;
    }
    if !report.findings.is_empty() {
        writeln!(out)?;
    }
    writeln!(out, "{}", summary(report))
}

/// `3 errors, 2 warnings in 14 policies (1 suppressed by annotations)`
fn summary(report: &Report) -> String {
    let counted = |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
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

fn style(severity: Severity) -> Style {
    let colour = match severity {
        Severity::Error => AnsiColor::Red,
        Severity::Warning => AnsiColor::Yellow,
        Severity::Note => AnsiColor::Cyan,
    };
    Style::new().fg_color(Some(colour.into())).bold()
}

/// One line of `-o json`.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum Line<'a> {
    Finding(&'a Finding),
    Test(&'a suite::TestResult),
    Check(Summary),
}

/// The last line: the findings counted.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    policies: usize,
    errors: usize,
    warnings: usize,
    notes: usize,
    suppressed: usize,
    codes: BTreeMap<&'static str, usize>,
}

fn json(report: &Report, tests: &suite::Report, out: &mut impl Write) -> io::Result<()> {
    let mut codes = BTreeMap::new();
    for finding in &report.findings {
        write_value(&Line::Finding(finding), &mut *out)?;
        writeln!(out)?;
        *codes.entry(finding.code.as_str()).or_default() += 1;
    }
    for result in &tests.results {
        write_value(&Line::Test(result), &mut *out)?;
        writeln!(out)?;
    }
    let summary = Summary {
        policies: report.policies,
        errors: report.count(Severity::Error),
        warnings: report.count(Severity::Warning),
        notes: report.count(Severity::Note),
        suppressed: report.suppressed,
        codes,
    };
    write_value(&Line::Check(summary), &mut *out)?;
    writeln!(out)
}
