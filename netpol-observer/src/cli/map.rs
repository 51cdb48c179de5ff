//! `observer map`

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::Args;

use super::CommandError;
use super::objects::{Place, SourceArgs, index, read};
use super::tail::{ignore_closed, skipped};
use crate::cluster::Index;
use crate::cluster::manifests::Loaded;
use crate::connectivity::{Connectivity, Drops};
use crate::map::{By, MERMAID_EDGES, Map, MapObject, build, dot, html, lay_over, mermaid, text};
use crate::policy::{Engine, Profile};
use crate::serve::json::write_value;
use crate::serve::render::clean_lines;

/// Show who can talk to whom: as a table, a diagram, or a page that explains every pair.
///
/// Needs no cluster and no kernel. All workloads among the manifests are held against each other, against the nodes and against the addresses outside that
/// policies name, on every port. The page (-o html) is one file that needs no network: it can be attached to a review, or kept with a release.
/// docs/map.md describes it.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct MapArgs {
    #[command(flatten)]
    sources: SourceArgs,

    /// Show only the workloads of this namespace, and those that may talk to them. May be given several times, or with commas.
    #[arg(short, long, value_name = "NAMESPACE", value_delimiter = ',')]
    namespace: Vec<String>,

    /// Lay recorded denials over the map: a file that `observer tail -o json` wrote, or standard input (-).
    #[arg(long, value_name = "FILE|-")]
    drops: Option<PathBuf>,

    /// Draw workloads, or namespaces as a whole: of text, mermaid and dot.
    #[arg(long, value_enum, default_value_t = ByArg::Workload, value_name = "WHAT", help_heading = "Output")]
    by: ByArg,

    /// What stands above the map.
    #[arg(long, value_name = "TEXT", help_heading = "Output")]
    title: Option<String>,

    /// How it is written.
    #[arg(short, long, value_enum, default_value_t = MapForm::Text, value_name = "FORMAT", help_heading = "Output")]
    output: MapForm,

    /// Write to this file instead of standard output.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    output_file: Option<PathBuf>,
}

/// `--by`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ByArg {
    /// Each workload.
    Workload,
    /// All workloads of a namespace as one.
    Namespace,
}

/// `-o`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum MapForm {
    /// A table.
    Text,
    /// A Mermaid flowchart, as READMEs and merge requests show it.
    Mermaid,
    /// For Graphviz.
    Dot,
    /// For programs: one object (described in docs/map.md).
    Json,
    /// A page to look around in, in one file.
    Html,
}

const EXAMPLES: &str = "\
Examples:
  Who can talk to whom in the manifests of a repository:
    observer map deploy/

  A page of the cluster as it is, with what was dropped in it:
    observer tail --no-follow -o json > drops.json
    observer map --cluster --drops drops.json -o html --output-file map.html

  Before policies are applied to it:
    observer map --cluster policies/ -o html --output-file map.html

  A diagram for a README, by namespace:
    observer map deploy/ -o mermaid --by namespace";

/// How many problems of manifests are told.
const WARNINGS: usize = 5;

/// Runs `observer map`.
pub(super) fn run(arguments: MapArgs) -> Result<(), CommandError> {
    let MapArgs { sources, namespace, drops, by, title, output, output_file } = arguments;
    let places = sources.places("map")?;
    if places.iter().any(Place::is_stdin) && drops.as_ref().is_some_and(|drops| drops.as_os_str() == "-") {
        return Err(CommandError::usage("- is given more than once, and standard input can be read only once"));
    }
    if output == MapForm::Html && output_file.is_none() && io::stdout().is_terminal() {
        return Err(CommandError::usage("the page would be written to the terminal").hint("give --output-file map.html"));
    }
    let mut loaded = read(&places, &sources.server)?;
    warn(&loaded)?;
    let index = index(&mut loaded);
    if index.pods().next().is_none() {
        return Err(CommandError::failure("there are no workloads among the manifests, so nobody can talk to anybody")
            .hint("give the manifests of Pods, Deployments or other workloads too, such as those of `kubectl get pods -A -o yaml`"));
    }
    let title = title.unwrap_or_else(|| places.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    let map = map(index, &title, drops.as_ref(), &namespace)?;
    let written = write(&map, output, by, output_file.as_ref())?;
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::failure(format!("standard output: {error}"))),
        // A reader that has gone does not matter.
        _ => Ok(()),
    }
}

/// Says what is wrong with the manifests, as far as it fits on a screen.
fn warn(loaded: &Loaded) -> Result<(), CommandError> {
    let rest = loaded.warnings.len().saturating_sub(WARNINGS);
    let rest = (rest > 0).then(|| format!("{rest} more problems of the manifests: `observer check` names them all"));
    let problems = loaded.warnings.iter().take(WARNINGS).map(ToString::to_string);
    for warning in problems.chain(rest).chain(skipped(&loaded.skipped)) {
        ignore_closed(writeln!(io::stderr(), "warning: {}", clean_lines(&warning)))?;
    }
    Ok(())
}

/// What is drawn.
fn map(index: Index, title: &str, drops: Option<&PathBuf>, namespaces: &[String]) -> Result<Map, CommandError> {
    let engine = Engine::over(index, Profile::default());
    let connectivity = Connectivity::of(&engine);
    let mut map = build(&engine, &connectivity, title);
    if let Some(path) = drops {
        lay_over(&read_drops(path)?, &mut map, &connectivity);
    }
    if namespaces.is_empty() {
        return Ok(map);
    }
    if let Some(unknown) = namespaces.iter().find(|name| !map.parties.iter().any(|party| party.namespace == **name)) {
        return Err(CommandError::usage(format!("there is no workload in the namespace {unknown}")));
    }
    Ok(map.around(namespaces))
}

fn read_drops(path: &PathBuf) -> Result<Drops, CommandError> {
    let shown = if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() };
    let text = if path.as_os_str() == "-" { io::read_to_string(io::stdin().lock()) } else { fs::read_to_string(path) };
    let text = text.map_err(|error| CommandError::failure(format!("cannot read {shown}: {error}")))?;
    Drops::read(&text).map_err(|error| {
        CommandError::failure(format!("{shown}: {error}")).hint("--drops takes what `observer tail -o json` writes: one object per line")
    })
}

/// Writes it; the inner result is standard output's.
fn write(map: &Map, output: MapForm, by: ByArg, file: Option<&PathBuf>) -> Result<io::Result<()>, CommandError> {
    let by = match by {
        ByArg::Workload => By::Workload,
        ByArg::Namespace => By::Namespace,
    };
    let failed = |error: io::Error| CommandError::failure(format!("the map cannot be written as JSON: {error}"));
    let content = match output {
        MapForm::Text => clean_lines(&text(map, by)) + "\n",
        MapForm::Dot => dot(map, by),
        MapForm::Html => html(map).map_err(|error| failed(error.into()))?,
        MapForm::Json => {
            let mut bytes = Vec::new();
            write_value(&MapObject::of(map), &mut bytes).map_err(failed)?;
            bytes.push(b'\n');
            String::from_utf8(bytes).map_err(|error| failed(io::Error::other(error)))?
        }
        MapForm::Mermaid => {
            let (chart, arrows) = mermaid(map, by);
            if arrows > MERMAID_EDGES {
                let warning = format!(
                    "warning: {arrows} arrows, and Mermaid refuses to draw more than {MERMAID_EDGES} unless its maxEdges is raised"
                );
                ignore_closed(writeln!(
                    io::stderr(),
                    "{warning}\nhint: --by namespace or -n NAMESPACE draws fewer, -o dot and -o html any number"
                ))?;
            }
            chart
        }
    };
    match file {
        Some(path) => {
            fs::write(path, content).map_err(|error| CommandError::failure(format!("cannot write {}: {error}", path.display())))?;
            Ok(Ok(()))
        }
        None => {
            let mut out = io::stdout().lock();
            Ok(out.write_all(content.as_bytes()).and_then(|()| out.flush()))
        }
    }
}
