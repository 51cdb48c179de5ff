//! `observer check`

mod change;
mod github;
mod json;
mod junit;
mod place;
mod report;
mod sarif;
mod text;
mod watch;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anstream::AutoStream;
use clap::Args;

use self::place::Places;
use self::report::{Checked, Form, Judged};
use super::objects::{Place, SourceArgs, index, read};
use super::tail::{ignore_closed, skipped};
use super::{Colour, CommandError};
use crate::cluster::manifests::Loaded;
use crate::lint::{self, Code, Options, Severity};
use crate::policy::{Engine, Profile};
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
    #[command(flatten)]
    sources: SourceArgs,

    /// Read policy tests from this file or directory too, also with --rev as they are now. May be given several times.
    #[arg(long, value_name = "FILE|DIR", help_heading = "Sources")]
    tests: Vec<PathBuf>,

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

    /// Print text for people, one JSON object per line (described in docs/json.md), JUnit XML, SARIF, or commands of GitHub Actions.
    #[arg(short, long, value_enum, default_value_t = Form::Text, value_name = "FORMAT", help_heading = "Output")]
    output: Form,

    /// Name the tests that passed, too, in text. JSON and JUnit XML name them anyway.
    #[arg(long, help_heading = "Output")]
    show_passed: bool,

    /// Check again whenever a file is saved, and say what changed. Ctrl-C ends it.
    #[arg(long, help_heading = "Output")]
    watch: bool,

    /// Print the JSON Schema of policy tests, for editors, and do nothing else.
    #[arg(long, exclusive = true, help_heading = "Output")]
    schema: bool,
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
    if arguments.schema {
        return print_schema().map(|()| ExitCode::SUCCESS).map_err(CommandError::instead_of_an_answer);
    }
    if arguments.watch {
        return watch::run(&arguments, colour).map(|()| ExitCode::SUCCESS).map_err(CommandError::instead_of_an_answer);
    }
    let fails = check(&arguments, colour).map_err(CommandError::instead_of_an_answer)?;
    Ok(if fails { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Whether anything fails the run.
fn check(arguments: &CheckArgs, colour: Colour) -> Result<bool, CommandError> {
    let judged = arguments.judge()?;
    if let Some(left_out) = &judged.left_out {
        ignore_closed(writeln!(io::stderr(), "warning: {}", clean_lines(left_out)))?;
    }
    let places = Places::here(arguments.sources.rev.as_deref());
    let checked = arguments.checked(&judged, &places);
    let mut out = io::BufWriter::new(AutoStream::new(io::stdout().lock(), colour.choice()));
    match checked.write(arguments.output, &mut out).and_then(|()| out.flush()) {
        // A reader that has gone does not matter.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::failure(format!("standard output: {error}"))),
        _ => Ok(checked.fails()),
    }
}

fn print_schema() -> Result<(), CommandError> {
    // A value is always written.
    let text = serde_json::to_string_pretty(&suite::schema()).unwrap_or_default();
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::failure(format!("standard output: {error}"))),
        _ => Ok(()),
    }
}

impl CheckArgs {
    /// Reads what there is to be judged, and judges it.
    fn judge(&self) -> Result<Judged, CommandError> {
        let mut loaded = self.load()?;
        let left_out = skipped(&loaded.skipped);
        let engine = Engine::over(index(&mut loaded), Profile::default());
        let options = Options { only: self.only.iter().copied().collect(), ignore: self.ignore.iter().copied().collect() };
        let lint = (!self.no_lints).then(|| lint::lint(&engine, &loaded.warnings, &options));
        Ok(Judged { lint, tests: suite::run(&engine, &loaded.tests), left_out })
    }

    fn checked<'a>(&self, judged: &'a Judged, places: &'a Places) -> Checked<'a> {
        let CheckArgs { fail_on, show_passed, .. } = self;
        Checked { lint: judged.lint.as_ref(), tests: &judged.tests, fails_from: fail_on.severity(), places, show_passed: *show_passed }
    }

    /// Reads the manifests and the tests.
    fn load(&self) -> Result<Loaded, CommandError> {
        let mut places = self.sources.places("check")?;
        places.extend(self.tests.iter().cloned().map(Place::Path));
        read(&places, &self.sources.server)
    }
}
