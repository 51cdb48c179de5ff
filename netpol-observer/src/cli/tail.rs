//! `observer tail`

mod cluster;

use std::fs;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anstream::{AutoStream, ColorChoice};
use clap::Args;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::cluster::ClusterArgs;
use super::filter::FilterArgs;
use super::follow::Follow;
use super::live::LiveArgs;
use super::output::{Form, Output};
use super::record::Recorder;
use super::source::{Source, end_of};
use super::time::{Since, parse_duration, parse_since};
use super::{Colour, CommandError, OutputForm};
use crate::cluster::{Index, manifests};
use crate::pipeline::Pipeline;
use crate::policy::Engine;
use crate::question::profile::{Switch, profile};
use crate::serve::render::{Palette, Renderer};
use crate::serve::{FoldOptions, Recent, Stream, StreamOptions};

/// Show dropped connections as they happen, each with the policy to blame, the nearest rule and the fix.
///
/// The first drop of a connection is shown in full; the same again becomes a count.
///
/// With a kubeconfig (or in a pod of a cluster) it watches the cluster: the agents on its nodes are found and reached through the API server,
/// and what they see is put in one order. With --local, --manifests, --record or --replay, or where no cluster is configured, it watches this
/// machine or a recording, and pods, Services and policies are read from manifests, such as `kubectl get` writes them (see the examples).
///
/// Capturing on this machine needs the capabilities CAP_BPF and CAP_PERFMON (and CAP_SYSLOG for the names of kernel functions); a
/// cluster needs but the permission to reach the agents (docs/tail.md), and replaying a recording nothing.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TailArgs {
    /// Read Kubernetes objects from this file, from all YAML and JSON files of this directory, or from standard input (-).
    /// May be given several times.
    #[arg(short = 'f', long, value_name = "FILE|DIR|-")]
    manifests: Vec<PathBuf>,

    /// Watch this machine alone, though a cluster is configured.
    #[arg(long, help_heading = "Source", conflicts_with = "replay")]
    local: bool,

    /// Take the drops from this recording instead of the running kernel.
    #[arg(long, value_name = "FILE", help_heading = "Source", conflicts_with = "duration")]
    replay: Option<PathBuf>,

    /// Keep everything captured in this file, before any filter, to be replayed later.
    #[arg(long, value_name = "FILE", help_heading = "Source")]
    record: Option<PathBuf>,

    /// Stop after this long, such as 30s or 5m.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, help_heading = "Source")]
    duration: Option<SignedDuration>,

    #[command(flatten)]
    live: LiveArgs,

    /// Name of the node to print; by default that of the recording, or this machine's host name.
    #[arg(long, value_name = "NAME", env = "NODE_NAME", hide_env_values = true, help_heading = "Source")]
    node_name: Option<String>,

    /// Decide what the API leaves open otherwise than by default: ip-block-matches-pods=false,
    /// tied-priorities=by-name, other-protocols=denied or admitted, baseline=per-pod. May be given several times.
    #[arg(long, value_name = "SWITCH=VALUE", value_parser = Switch::parse)]
    profile: Vec<Switch>,

    #[command(flatten)]
    cluster: ClusterArgs,

    /// End when the agents have sent what they had kept, instead of waiting for more.
    #[arg(long, help_heading = "Cluster")]
    no_follow: bool,

    /// Wait for the drops of other nodes at most this long, to print them in the order of their times.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1s", help_heading = "Cluster")]
    delay: SignedDuration,

    #[command(flatten)]
    filters: FilterArgs,

    /// Drops of all namespaces, which is the default: the namespace of the kubeconfig's context is not applied.
    #[arg(short = 'A', long, help_heading = "Filters")]
    all_namespaces: bool,

    /// Show also drops that touch nothing in the manifests, and drops that are not the loss of a new connection.
    #[arg(long, help_heading = "Filters")]
    all: bool,

    /// Show only the last N denials of a recording, with their repeats; in a cluster, begin with the last N that each agent has kept.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Filters")]
    last: Option<u32>,

    /// Show only the drops of a recording since this time, or so long before its end: 5m, 2026-11-23T14:02:00Z. In a cluster, begin with
    /// what the agents have kept since then.
    ///
    /// A drop that began earlier and goes on is shown.
    #[arg(long, value_name = "DURATION|TIME", value_parser = parse_since, help_heading = "Filters")]
    since: Option<Since>,

    /// Print text for people, or one JSON object per line (described in docs/json.md).
    #[arg(short, long, value_enum, default_value_t = OutputForm::Text, value_name = "FORMAT", help_heading = "Output")]
    output: OutputForm,

    /// Print one line per denial: who, the policies to blame, and the nearest rule.
    #[arg(long, help_heading = "Output")]
    oneline: bool,

    /// Print repeats of a drop at most this often; 5 seconds unless given. In a cluster this is the agents' affair.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, help_heading = "Output")]
    summary_interval: Option<SignedDuration>,
}

/// An object is some kilobytes long; many are written at once when many drops come at once.
const OUTPUT_BYTES: usize = 64 * 1024;

const EXAMPLES: &str = "\
Examples:
  What is dropped in the cluster of the kubeconfig, and what was in the last ten minutes:
    observer tail --since 10m

  Explain what is dropped on this node, with the objects of the cluster:
    kubectl get po,svc,endpointslices,netpol,ns,no -A -o yaml > cluster.yaml
    observer tail -f cluster.yaml

  Only what the policies of namespace shop deny, without DNS:
    observer tail -f cluster.yaml -n shop --class policy-denied --not --port 53

  Record on a node, look at it elsewhere:
    observer tail --record drops.rec --duration 10m
    observer tail --replay drops.rec -f cluster.yaml --since 5m -o json

Exit status:
  0  all went well; also after Ctrl-C, or when the reader of the output has gone
  1  an error
  2  the command line is wrong";

/// Runs `observer tail`.
pub(super) fn run(arguments: TailArgs, colour: Colour) -> Result<(), CommandError> {
    arguments.check()?;
    if arguments.watches_cluster()? {
        return cluster::run(&arguments, colour);
    }
    arguments.check_local()?;
    let profile = profile(&arguments.profile).map_err(CommandError::usage)?;
    let loaded = load(&arguments.manifests)?;
    let mut index = Index::default();
    index.reset(loaded.objects);
    let counts = index.counts();
    let since = arguments.since_time()?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| CommandError::failure(format!("cannot start: {error}")))?;
    // A live capture registers with the runtime.
    let _entered = runtime.enter();
    let source = match &arguments.replay {
        Some(path) => Source::replay(path)?,
        None => Source::live(arguments.live.options())?,
    };
    let mut header = source.header().clone();
    if arguments.node_name.is_some() {
        header.node_name.clone_from(&arguments.node_name);
    }
    let recorder = match &arguments.record {
        Some(path) => Some(Recorder::create(path, &header)?),
        None => None,
    };

    let node = header.node_name;
    let mut output = arguments.output(colour, node.clone());
    for warning in loaded.warnings.iter().map(ToString::to_string).chain(skipped(&loaded.skipped)) {
        ignore_closed(writeln!(output.err, "warning: {}", crate::serve::render::clean_lines(&warning)))?;
    }
    let attached = match &arguments.replay {
        Some(path) => format!("replaying {}", path.display()),
        None => format!("watching drops on {}", node.as_deref().unwrap_or("this node")),
    };
    let chosen = if arguments.asks_for_this_machine().is_none() { "; no cluster is configured, so this machine is watched" } else { "" };
    let what = format!(
        "{attached} (kernel {}, {}, {}){chosen}{}",
        header.kernel_release,
        counted(counts.pods, "pod", "pods"),
        counted(counts.network_policies, "policy", "policies"),
        if source.is_live() { "; Ctrl-C ends" } else { "" }
    );
    let without_objects = arguments.manifests.is_empty();
    let fold = arguments.fold();
    let stream = Stream::new(StreamOptions {
        filters: arguments.filters.filters,
        // Without objects nothing touches them, and everything would be hidden.
        elsewhere: arguments.all || without_objects,
        noise: arguments.all,
        since,
        fold,
    });
    let follow = Follow {
        pipeline: Pipeline::new(Arc::new(Engine::over(index, profile))),
        stream,
        recent: arguments.last.map(|last| Recent::new(usize::try_from(last).unwrap_or(usize::MAX))),
        recorder,
        output,
        duration: arguments.duration.map(SignedDuration::unsigned_abs),
    };
    runtime.block_on(follow.run(source, &what, without_objects))
}

impl TailArgs {
    /// The option that asks for this machine or a recording, if one does.
    fn asks_for_this_machine(&self) -> Option<&'static str> {
        let asks = [
            (self.local, "--local"),
            (!self.manifests.is_empty(), "--manifests"),
            (self.replay.is_some(), "--replay"),
            (self.record.is_some(), "--record"),
            (self.live.is_given(), "--attach or --kernel-btf"),
        ];
        asks.into_iter().find(|(asks, _)| *asks).map(|(_, option)| option)
    }

    /// Whether the drops are those of a cluster.
    fn watches_cluster(&self) -> Result<bool, CommandError> {
        let here = self.asks_for_this_machine();
        if let (Some(here), Some(there)) = (here, self.cluster.given()) {
            return Err(CommandError::usage(format!("{here} is about this machine or a recording, and {there} about a cluster"))
                .hint("leave one of them out"));
        }
        if here.is_some() || !self.cluster.is_configured() {
            return Ok(false);
        }
        let agents = [(!self.profile.is_empty(), "--profile"), (self.summary_interval.is_some(), "--summary-interval")];
        if let Some((_, option)) = agents.iter().find(|(given, _)| *given) {
            return Err(CommandError::usage(format!("{option} is decided by the agents of the cluster"))
                .hint("leave it out, or watch this machine with --local"));
        }
        Ok(true)
    }

    fn fold(&self) -> FoldOptions {
        let default = FoldOptions::default();
        FoldOptions { interval: self.summary_interval.unwrap_or(default.interval), ..default }
    }

    /// What `clap` cannot say of the arguments.
    fn check(&self) -> Result<(), CommandError> {
        let wanted = self.filters.words.iter().take_while(|word| *word != "--not");
        if self.all_namespaces && wanted.into_iter().any(|word| word.starts_with("--namespace=")) {
            return Err(CommandError::usage("-A asks for all namespaces and -n for one").hint("leave one of them out"));
        }
        if self.oneline && self.output == OutputForm::Json {
            return Err(CommandError::usage("--oneline is about text, and -o json was asked for").hint("leave one of them out"));
        }
        Ok(())
    }

    /// And of those about this machine or a recording.
    fn check_local(&self) -> Result<(), CommandError> {
        if self.no_follow {
            return Err(CommandError::usage("--no-follow is about what the agents of a cluster have kept")
                .hint("give --duration for a capture on this machine; a replay ends by itself"));
        }
        let history = [(self.last.is_some(), "--last"), (self.since.is_some(), "--since")];
        if self.replay.is_none()
            && let Some((_, option)) = history.iter().find(|(given, _)| *given)
        {
            return Err(CommandError::usage(format!("{option} looks back, and a live capture has no history"))
                .hint("history comes from --replay FILE, or from the agents of a cluster (--kubeconfig); durations count back from the end of the recording"));
        }
        if let (Some(replay), Some(record)) = (&self.replay, &self.record)
            && same_file(replay, record)
        {
            return Err(CommandError::usage(format!("--record would overwrite the recording {} while it is replayed", replay.display()))
                .hint("give --record another file"));
        }
        if self.replay.is_some() && self.live.is_given() {
            return Err(CommandError::usage("--attach and --kernel-btf are about the running kernel, and --replay reads a recording")
                .hint("leave them out"));
        }
        if self.manifests.iter().filter(|path| path.as_os_str() == "-").count() > 1 {
            return Err(CommandError::usage("--manifests - is given more than once, and standard input can be read only once"));
        }
        Ok(())
    }

    /// `--since` as a point in time.
    fn since_time(&self) -> Result<Option<Timestamp>, CommandError> {
        let (Some(since), Some(replay)) = (self.since, &self.replay) else {
            return Ok(None);
        };
        Ok(match since {
            Since::At(time) => Some(time),
            Since::Ago(_) => end_of(replay)?.map(|end| since.before(end)),
        })
    }

    fn output(&self, colour: Colour, node: Option<String>) -> Output<BufWriter<io::Stdout>, io::Stderr> {
        let form = match self.output {
            OutputForm::Json => Form::Json { node },
            OutputForm::Text => Form::Text(Renderer {
                palette: if is_coloured(colour) { Palette::COLOURED } else { Palette::PLAIN },
                time_zone: TimeZone::system(),
                node: node.map(Into::into),
                oneline: self.oneline,
            }),
        };
        Output { out: BufWriter::with_capacity(OUTPUT_BYTES, io::stdout()), err: io::stderr(), form }
    }
}

/// Whether standard output is to be coloured.
pub(super) fn is_coloured(colour: Colour) -> bool {
    let stdout = io::stdout();
    match colour {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => stdout.is_terminal() && AutoStream::choice(&stdout) != ColorChoice::Never,
    }
}

pub(super) fn load(paths: &[PathBuf]) -> Result<manifests::Loaded, CommandError> {
    if paths.is_empty() {
        return Ok(manifests::Loaded::default());
    }
    manifests::load(paths, &mut io::stdin().lock())
        .map_err(|errors| CommandError::failure(format!("the manifests cannot be used\n{errors}")))
}

/// One line for all objects of kinds that are not read.
pub(super) fn skipped(kinds: &std::collections::BTreeMap<String, usize>) -> Option<String> {
    if kinds.is_empty() {
        return None;
    }
    let kinds: Vec<_> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    Some(format!("objects of kinds that play no part here are left out: {}", kinds.join(", ")))
}

pub(super) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Standard error may be closed; that ends nothing.
pub(super) fn ignore_closed(result: io::Result<()>) -> Result<(), CommandError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::failure(format!("standard error: {error}"))),
        _ => Ok(()),
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}
