//! `observer check`

mod github;
mod json;
mod junit;
mod place;
mod report;
mod sarif;
mod text;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anstream::AutoStream;
use clap::Args;

use self::place::Places;
use self::report::{Checked, Form};
use super::tail::{ignore_closed, load, skipped};
use super::{Colour, CommandError};
use crate::cluster::Index;
use crate::lint::{self, Code, Options, Severity};
use crate::policy::{Engine, Profile};
use crate::serve::render::clean_lines;
use crate::suite;

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

    /// Print text for people, one JSON object per line (described in docs/json.md), JUnit XML, SARIF, or commands of GitHub Actions.
    #[arg(short, long, value_enum, default_value_t = Form::Text, value_name = "FORMAT", help_heading = "Output")]
    output: Form,

    /// Name the tests that passed, too. Of text only; the other forms tell them anyway, or have no place for them.
    #[arg(long, help_heading = "Output")]
    show_passed: bool,
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
    /// From which severity on a finding fails the run.
    fn severity(self) -> Option<Severity> {
        match self {
            FailOn::Error => Some(Severity::Error),
            FailOn::Warning => Some(Severity::Warning),
            FailOn::Note => Some(Severity::Note),
            FailOn::Never => None,
        }
    }
}

/// Runs `observer check`. Unlike other commands it tells findings (1) from errors (2).
pub(super) fn run(arguments: CheckArgs, colour: Colour) -> Result<ExitCode, CommandError> {
    let fails = check(&arguments, colour).map_err(CommandError::instead_of_an_answer)?;
    Ok(if fails { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Whether there are findings or tests that fail the run.
fn check(arguments: &CheckArgs, colour: Colour) -> Result<bool, CommandError> {
    let paths = arguments.paths()?;
    let (lint, tests) = judge(arguments, &paths)?;
    let places = Places::here();
    let CheckArgs { fail_on, output, show_passed, .. } = arguments;
    let checked = Checked { lint: Some(&lint), tests: &tests, fails_from: fail_on.severity(), places: &places, show_passed: *show_passed };
    let mut out = io::BufWriter::new(AutoStream::new(io::stdout().lock(), colour.choice()));
    match checked.write(*output, &mut out).and_then(|()| out.flush()) {
        // A reader that has gone does not matter.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::failure(format!("standard output: {error}"))),
        _ => Ok(checked.fails()),
    }
}

/// Reads what the command line names, and judges it.
fn judge(arguments: &CheckArgs, paths: &[PathBuf]) -> Result<(lint::Report, suite::Report), CommandError> {
    let loaded = load(paths)?.with_stand_ins();
    if let Some(left_out) = skipped(&loaded.skipped) {
        ignore_closed(writeln!(io::stderr(), "warning: {}", clean_lines(&left_out)))?;
    }
    let mut index = Index::default();
    index.reset(loaded.objects);
    let engine = Engine::over(index, Profile::default());
    let CheckArgs { only, ignore, .. } = arguments;
    let options = Options { only: only.iter().copied().collect(), ignore: ignore.iter().copied().collect() };
    Ok((lint::lint(&engine, &loaded.warnings, &options), suite::run(&engine, &loaded.tests)))
}

impl CheckArgs {
    fn paths(&self) -> Result<Vec<PathBuf>, CommandError> {
        let paths: Vec<PathBuf> = self.paths.iter().chain(&self.manifests).cloned().collect();
        if paths.is_empty() {
            return Err(CommandError::usage("nothing to check").hint("name files or directories of manifests, or - for standard input"));
        }
        if paths.iter().filter(|path| path.as_os_str() == "-").count() > 1 {
            return Err(CommandError::usage("- is given more than once, and standard input can be read only once"));
        }
        Ok(paths)
    }
}
