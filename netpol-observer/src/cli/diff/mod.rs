//! `observer diff`

mod json;
mod markdown;
mod text;
mod words;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::AutoStream;
use clap::Args;

use super::objects::{ApiServerArgs, Place, index, read};
use super::tail::ignore_closed;
use super::{Colour, CommandError};
use crate::compare::{Comparison, Flow, Seen, compare_with, read_flows, seen};
use crate::connectivity::Connectivity;
use crate::policy::{Engine, Profile};
use crate::serve::render::clean_lines;

/// Say which connections a change of policies, labels or workloads newly allows and newly denies, and which rule makes the difference.
///
/// OLD and NEW are each a file or a directory of manifests, `-` for standard input, `rev:REV:PATH` for files of a revision of a git repository, or `cluster`
/// for the objects of the cluster of the kubeconfig. Workloads stand for their pods; those that are in one of the two only are named, and their connections
/// are not compared. With recorded connections it is told which of those that were really seen change.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DiffArgs {
    /// The objects before: FILE, DIR, -, rev:REV[:PATH] or cluster.
    #[arg(value_name = "OLD")]
    old: Place,

    /// The objects after.
    #[arg(value_name = "NEW")]
    new: Place,

    /// Read these objects on both sides too, such as the namespaces and pods of the cluster that policies are for. May be given several times.
    #[arg(long = "with", value_name = "FILE|DIR|cluster", help_heading = "Sources")]
    with: Vec<Place>,

    #[command(flatten)]
    server: ApiServerArgs,

    /// Tell which of these recorded drops change: lines of `observer tail -o json`. May be given several times.
    #[arg(long, value_name = "FILE|-", help_heading = "Recorded connections")]
    drops: Vec<PathBuf>,

    /// Tell which of these connections that were seen change: lines of `hubble observe -o jsonpb`, or objects with from, to, port, protocol and count (as
    /// described in docs/diff.md). May be given several times.
    #[arg(long, value_name = "FILE|-", help_heading = "Recorded connections")]
    flows: Vec<PathBuf>,

    /// Exit with 1 when there are such connections. May be given several times, or with commas.
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',', help_heading = "Output")]
    fail_on: Vec<FailOn>,

    /// Print text for people, one JSON object per line (described in docs/diff.md), or Markdown for the comment of a pull request.
    #[arg(short, long, value_enum, default_value_t = Form::Text, value_name = "FORMAT", help_heading = "Output")]
    output: Form,

    /// Print all changes, however many there are. Of JSON all are printed anyway.
    #[arg(long, help_heading = "Output")]
    all: bool,
}

const EXAMPLES: &str = "\
Examples:
  What does the work in this checkout change?
    observer diff rev:HEAD:deploy deploy

  What would a branch change on the cluster as it is?
    observer diff cluster deploy/policies --with cluster

  In CI: fail when anything is newly denied, and comment on the pull request:
    observer diff rev:origin/main:deploy deploy --fail-on newly-denied -o markdown

  Would connections break that were seen in the last hour?
    observer diff rev:HEAD:deploy deploy --flows flows.json --fail-on seen-denied

Exit status:
  0  compared, and nothing of --fail-on is there
  1  there are connections of a kind of --fail-on
  2  the objects cannot be read, or the command line is wrong";

/// `--fail-on`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// Connections that were allowed and are denied.
    NewlyDenied,
    /// Connections that were denied and are allowed.
    NewlyAllowed,
    /// Connections of which it cannot be decided, or could not be.
    Undecided,
    /// Recorded connections that are newly denied.
    SeenDenied,
    /// Recorded connections that are newly allowed.
    SeenAllowed,
    /// Any of these.
    Any,
}

/// `-o`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people.
    Text,
    /// For programs: one object per line.
    Json,
    /// For the comment of a pull request.
    Markdown,
}

/// What there is to show.
struct Compared {
    old: String,
    new: String,
    comparison: Comparison,
    /// Of recorded connections, where there are any.
    seen: Option<Seen>,
    /// Changes of a kind that are shown.
    shown: usize,
}

impl Compared {
    fn has(&self, kind: FailOn) -> bool {
        let Comparison { denied, allowed, undecided, .. } = &self.comparison;
        let any_seen = |is_allowed: bool| self.seen.iter().flat_map(|seen| &seen.changes).any(|change| change.allowed == is_allowed);
        match kind {
            FailOn::NewlyDenied => !denied.is_empty(),
            FailOn::NewlyAllowed => !allowed.is_empty(),
            FailOn::Undecided => !undecided.is_empty(),
            FailOn::SeenDenied => any_seen(false),
            FailOn::SeenAllowed => any_seen(true),
            FailOn::Any => !self.comparison.is_same() || any_seen(true) || any_seen(false),
        }
    }
}

/// Changes of a kind in text and Markdown.
const SHOWN: usize = 50;

/// Runs `observer diff`.
pub(super) fn run(arguments: &DiffArgs, colour: Colour) -> Result<ExitCode, CommandError> {
    diff(arguments, colour).map_err(CommandError::instead_of_an_answer)
}

fn diff(arguments: &DiffArgs, colour: Colour) -> Result<ExitCode, CommandError> {
    arguments.check()?;
    let flows = arguments.flows()?;
    // Reading takes most of the time, and one side does not wait for the other.
    let (old, new) = std::thread::scope(|scope| {
        let new = scope.spawn(|| arguments.side(&arguments.new));
        let old = arguments.side(&arguments.old);
        (old, new.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let ((old, of_old, warnings), (new, of_new, more)) = (old?, new?);
    for warning in warnings.iter().chain(&more) {
        ignore_closed(writeln!(io::stderr(), "warning: {}", clean_lines(warning)))?;
    }
    let sides = [of_old, of_new];
    let compared = Compared {
        old: arguments.old.to_string(),
        new: arguments.new.to_string(),
        comparison: compare_with(&old, &new, [&sides[0], &sides[1]]),
        seen: flows.map(|flows| seen(&flows, [&sides[0], &sides[1]])),
        shown: if arguments.all { usize::MAX } else { SHOWN },
    };
    let mut out = io::BufWriter::new(AutoStream::new(io::stdout().lock(), colour.choice()));
    let written = match arguments.output {
        Form::Text => text::write(&compared, &mut out),
        Form::Json => json::write(&compared, &mut out),
        Form::Markdown => markdown::write(&compared, &mut out),
    };
    match written.and_then(|()| out.flush()) {
        // A reader that has gone does not matter.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::failure(format!("standard output: {error}"))),
        _ => {
            let fails = arguments.fail_on.iter().any(|kind| compared.has(*kind));
            Ok(if fails { ExitCode::from(1) } else { ExitCode::SUCCESS })
        }
    }
}

impl DiffArgs {
    /// What `clap` cannot say of the arguments.
    fn check(&self) -> Result<(), CommandError> {
        let is_stdin = |path: &&PathBuf| path.as_os_str() == "-";
        let places = [&self.old, &self.new].into_iter().chain(&self.with).filter(|place| place.is_stdin()).count();
        if places + self.drops.iter().chain(&self.flows).filter(is_stdin).count() > 1 {
            return Err(CommandError::usage("standard input (-) is asked for more than once, and it can be read only once")
                .hint("put one of them in a file"));
        }
        if self.with.iter().any(Place::is_stdin) {
            return Err(
                CommandError::usage("--with is read for both sides, and standard input can be read only once").hint("put it in a file")
            );
        }
        let is_of_cluster = [&self.old, &self.new].into_iter().chain(&self.with).any(|place| *place == Place::Cluster);
        if let Some(option) = self.server.given().filter(|_| !is_of_cluster) {
            return Err(CommandError::usage(format!("{option} is about a cluster, and none is compared"))
                .hint("name cluster as OLD, NEW or --with"));
        }
        let needs_seen = self.fail_on.iter().any(|kind| matches!(kind, FailOn::SeenDenied | FailOn::SeenAllowed));
        if needs_seen && self.drops.is_empty() && self.flows.is_empty() {
            return Err(CommandError::usage("--fail-on speaks of connections that were seen, and none are given")
                .hint("give them with --flows FILE or --drops FILE"));
        }
        Ok(())
    }

    /// The objects of one side and who can talk to whom by them, with what is wrong with the manifests.
    fn side(&self, place: &Place) -> Result<(Engine, Connectivity, Vec<String>), CommandError> {
        // What is compared goes before what is there on both sides.
        let places: Vec<Place> = self.with.iter().chain([place]).cloned().collect();
        let server = if places.contains(&Place::Cluster) { self.server.clone() } else { ApiServerArgs::default() };
        let mut loaded = read(&places, &server)?;
        let engine = Engine::over(index(&mut loaded), Profile::default());
        if engine.index().counts().pods == 0 {
            return Err(CommandError::failure(format!("{place}: there are no pods and no workloads, and policies alone connect nobody"))
                .hint("add the manifests of the workloads, or read them from the cluster with --with cluster"));
        }
        let connectivity = Connectivity::of(&engine);
        Ok((engine, connectivity, loaded.warnings.iter().map(ToString::to_string).collect()))
    }

    /// The recorded connections; none where no file is given.
    fn flows(&self) -> Result<Option<Vec<Flow>>, CommandError> {
        let mut flows = Vec::new();
        for path in self.drops.iter().chain(&self.flows) {
            flows.extend(flows_of(path)?);
        }
        let is_given = !(self.drops.is_empty() && self.flows.is_empty());
        Ok(is_given.then_some(flows))
    }
}

fn flows_of(path: &Path) -> Result<Vec<Flow>, CommandError> {
    let shown = if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() };
    let failed = |error: &dyn std::fmt::Display| CommandError::failure(format!("{shown}: {error}"));
    let bytes = if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::stdin().lock(), &mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    let bytes = bytes.map_err(|error| failed(&error))?;
    let Ok(text) = String::from_utf8(bytes) else {
        return Err(failed(&"not UTF-8 text").hint(format!(
            "a recording of `observer tail --record` holds raw packets: explain it first, with `observer tail --replay {shown} --manifests cluster.yaml -o json`"
        )));
    };
    read_flows(&text).map_err(|error| failed(&error).hint("docs/diff.md says what is read"))
}
