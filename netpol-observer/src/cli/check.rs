//! `observer check`

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use clap::Args;
use serde::Serialize;

use super::tail::{ignore_closed, load, skipped};
use super::{Colour, CommandError, OutputForm};
use crate::cluster::Index;
use crate::lint::{Code, Finding, Options, Report, Severity, lint};
use crate::policy::{Engine, Profile};
use crate::serve::json::write_value;
use crate::serve::render::clean_lines;

/// Find what is wrong in policies before they are applied: selectors that match nothing, rules without effect, isolation without DNS.
///
/// Needs no cluster and no kernel. Policies are judged together with the pods, namespaces, nodes and Services among the manifests; what
/// cannot be judged without them is left out, and that is said. docs/lints.md describes every lint.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArgs {
    /// Read Kubernetes objects from this file, from all YAML and JSON files of this directory, or from standard input (-).
    #[arg(value_name = "FILE|DIR|-")]
    paths: Vec<PathBuf>,

    /// The same, as in `observer tail`. May be given several times.
    #[arg(short = 'f', long, value_name = "FILE|DIR|-")]
    manifests: Vec<PathBuf>,

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
  The policies of a repository, with the pods of the cluster they are for:
    kubectl get pods,namespaces,nodes,services,endpointslices -A -o yaml > cluster.yaml
    observer check policies/ cluster.yaml

  The policies of a running cluster, warnings included:
    kubectl get po,svc,endpointslices,netpol,ns,no -A -o yaml | observer check --fail-on warning -

  A rendered chart, without the notes on rules for any peer:
    helm template shop ./chart | observer check --ignore any-peer -

Exit status:
  0  no finding of the severity of --fail-on or above
  1  at least one
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

/// Whether there are findings that fail the run.
fn check(arguments: CheckArgs, colour: Colour) -> Result<bool, CommandError> {
    let CheckArgs { paths, manifests: more, only, ignore, fail_on, output } = arguments;
    let paths: Vec<PathBuf> = paths.into_iter().chain(more).collect();
    if paths.is_empty() {
        return Err(CommandError::usage("nothing to check").hint("name files or directories of manifests, or - for standard input"));
    }
    if paths.iter().filter(|path| path.as_os_str() == "-").count() > 1 {
        return Err(CommandError::usage("- is given more than once, and standard input can be read only once"));
    }
    let loaded = load(&paths)?.with_stand_ins();
    if let Some(left_out) = skipped(&loaded.skipped) {
        ignore_closed(writeln!(io::stderr(), "warning: {}", clean_lines(&left_out)))?;
    }
    let mut index = Index::default();
    index.reset(loaded.objects);
    let options = Options { only: only.into_iter().collect(), ignore: ignore.into_iter().collect() };
    let report = lint(&Engine::over(index, Profile::default()), &loaded.warnings, &options);
    let stdout = AutoStream::new(io::stdout().lock(), colour.choice());
    let mut out = io::BufWriter::new(stdout);
    let written = match output {
        OutputForm::Text => text(&report, &mut out),
        OutputForm::Json => json(&report, &mut out),
    };
    match written.and_then(|()| out.flush()) {
        // A reader that has gone does not matter.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::failure(format!("standard output: {error}"))),
        _ => Ok(fail_on.fails(&report)),
    }
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

fn json(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let mut codes = BTreeMap::new();
    for finding in &report.findings {
        write_value(&Line::Finding(finding), &mut *out)?;
        writeln!(out)?;
        *codes.entry(finding.code.as_str()).or_default() += 1;
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
