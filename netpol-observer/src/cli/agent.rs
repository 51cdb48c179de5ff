//! `observer agent`

mod capture;
mod cluster;
mod events;
mod otlp;
mod probe;
mod publish;
mod words;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};

use self::capture::{Capturing, Instruments};
use self::cluster::{Cluster, parse_remember};
use self::events::EventsArgs;
pub(super) use self::events::Scope;
use self::otlp::OtlpArgs;
use self::probe::Probe;
use self::publish::MetricsArgs;
use self::words::CommandLine;
use super::live::LiveArgs;
use super::signals::{INTERRUPTED, Signals};
use super::source::{self, Source};
use super::time::parse_duration;
use super::{CommandError, record::Recorder};
use crate::agent::{
    About, Access, Certificate, Health, Hub, HubOptions, Judge, KubeReviews, Limits, Server, SharedPage, Tenants, Timings, loopback_names,
};
use crate::allocator;
use crate::capture::permissions::give_way;
use crate::question::profile::Switch;
use crate::serve::render::clean_lines;

/// Capture the drops of this node and serve them, explained, to any number of readers.
///
/// Runs on every node of a cluster; the API (docs/agent.md) is on the loopback of its pod, where port-forward reaches it. Who may
/// port-forward to the agents sees everything, unless --tenant-mode asks callers who they are (docs/security.md).
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct AgentArgs {
    /// Read Kubernetes objects from this file, from all YAML and JSON files of this directory, or from standard input (-), instead of
    /// watching an API server. May be given several times.
    #[arg(short = 'f', long, value_name = "FILE|DIR|-", conflicts_with_all = ["remember", "start_jitter"])]
    manifests: Vec<PathBuf>,

    /// Watch the cluster of this kubeconfig; by default that of KUBECONFIG, of ~/.kube/config, or the one whose pod this is.
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig to use, instead of its current one.
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    context: Option<String>,

    /// Remember for so long how objects were, to judge drops by the pods and policies of their moment.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_remember, help_heading = "Cluster")]
    remember: SignedDuration,

    /// Wait for a time up to this, by lot, before the API server is asked: the agents of all nodes may start at once.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration, help_heading = "Cluster")]
    start_jitter: SignedDuration,

    /// Listen here. Without --tenant-mode it must be a loopback address.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9470", help_heading = "API")]
    listen: SocketAddr,

    /// Ask the agent that listens there whether it lives, or is ready, and end with 0 or 1: for probes of a kubelet, which does not reach the
    /// loopback of the pod.
    #[arg(long, value_enum, value_name = "PROBE", help_heading = "API")]
    probe: Option<Probe>,

    /// Show callers only what is in namespaces whose pods they may get: TLS, and a bearer token for the audience netpol-observer, which the
    /// API server checks.
    #[arg(long, help_heading = "API")]
    tenant_mode: bool,

    /// The certificate chain of tenant mode and of metrics, PEM. Without it one is made at the start, and its fingerprint printed.
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "API")]
    tls_cert: Option<PathBuf>,

    /// The key of the certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "API")]
    tls_key: Option<PathBuf>,

    /// Keep so many drops and counts of repeats for readers that come later or are slow (in at most 32 MiB).
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1000..=1_000_000), help_heading = "API")]
    retain: u32,

    /// Keep them for so long.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration, help_heading = "API")]
    retain_for: SignedDuration,

    /// Serve so many streams at once.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "API")]
    max_readers: u32,

    /// Keep everything captured in this file, to be replayed later. When the disk is full the recording ends, and the agent goes on.
    #[arg(long, value_name = "FILE", help_heading = "Source")]
    record: Option<PathBuf>,

    /// Take the drops from this recording instead of the running kernel, and serve them until the end.
    #[arg(long, value_name = "FILE", help_heading = "Source", conflicts_with_all = ["record", "attach", "kernel_btf"])]
    replay: Option<PathBuf>,

    #[command(flatten)]
    events: EventsArgs,

    #[command(flatten)]
    live: LiveArgs,

    #[command(flatten)]
    metrics: MetricsArgs,

    #[command(flatten)]
    otlp: OtlpArgs,

    /// Name of the node; by default this machine's host name.
    #[arg(long, value_name = "NAME", env = "NODE_NAME", hide_env_values = true, help_heading = "Source")]
    node_name: Option<String>,

    /// Name of the pod that the agent is.
    #[arg(long, value_name = "NAME", env = "POD_NAME", hide_env_values = true, help_heading = "Source")]
    pod_name: Option<String>,

    /// Decide what the API leaves open otherwise than by default: ip-block-matches-pods=false, tied-priorities=by-name,
    /// other-protocols=denied or admitted, baseline=per-pod. May be given several times.
    #[arg(long, value_name = "SWITCH=VALUE", value_parser = Switch::parse)]
    profile: Vec<Switch>,
}

const EXAMPLES: &str = "\
Examples:
  In a pod of a DaemonSet, or on a node with a kubeconfig:
    observer agent

  On a single machine, with the cluster's objects from a file:
    observer agent -f cluster.yaml
    curl -N 'http://127.0.0.1:9470/v1/drops?follow=true&form=text'

Exit status:
  0  it was ended by SIGTERM or SIGINT; with --probe: yes
  1  an error; with --probe: no
  2  the command line is wrong";

/// The API is served by threads of its own, which give way to the capture's: that has nothing to do with readers.
const API_THREADS: usize = 2;
const API: &str = "api";

/// Runs `observer agent`.
pub(super) fn run(arguments: AgentArgs) -> Result<(), CommandError> {
    if let Some(probe) = arguments.probe {
        return probe.ask(arguments.listen, arguments.tenant_mode);
    }
    arguments.check()?;
    allocator::keep_small();
    let live = arguments.replay.is_none();
    let started = Timestamp::now();
    let timings = Timings::default();
    let Cluster { judge, objects, summary, watches } = arguments.cluster(&timings)?;
    let host = source::host_name();
    let node = arguments.node_name.clone().or_else(|| host.clone()).unwrap_or_else(|| "unknown".to_owned());
    let about = About { version: env!("CARGO_PKG_VERSION"), node: node.clone(), pod: arguments.pod_name.clone(), started };

    let api = runtime(API, API_THREADS)?;
    let certificate = arguments.certificate(&node)?;
    let (access, metrics_access) = arguments.access(&api, &node, host)?;
    let hub = Hub::new(HubOptions {
        retain: usize::try_from(arguments.retain).unwrap_or(usize::MAX),
        retain_for: arguments.retain_for,
        readers: usize::try_from(arguments.max_readers).unwrap_or(usize::MAX),
        ..HubOptions::default()
    });
    let health = Arc::new(Health::default());
    let listener = Server::bind(arguments.listen).map_err(|error| {
        CommandError::failure(format!("cannot listen on {}: {error}", arguments.listen)).hint("--listen takes another address or port")
    })?;
    let address = listener.local_addr().unwrap_or(arguments.listen);
    let publishing = arguments.publish(&api, &hub, &about, &timings)?;
    let server = Arc::new(Server::new(
        about,
        Arc::clone(&hub),
        Arc::clone(&health),
        objects,
        Arc::new(CommandLine),
        access,
        certificate.as_ref().filter(|_| arguments.tenant_mode),
        Limits::default(),
    ));
    server.set_metrics(Arc::clone(&publishing.metrics) as SharedPage);

    let mut signals = {
        let _entered = api.enter();
        Signals::new().map_err(|error| CommandError::failure(format!("cannot catch signals: {error}")))?
    };
    let (stop_serving, serve_until) = watch::channel(false);
    let serving_metrics = arguments.serve_metrics(&api, &server, metrics_access, certificate.as_ref(), serve_until.clone())?;
    let serving = api.spawn({
        let server = Arc::clone(&server);
        async move { server.serve(listener, serve_until).await }
    });
    let scheme = if arguments.tenant_mode { "https" } else { "http" };
    say(&format!("agent on {node} ({summary}), listening on {scheme}://{address}"));
    if let Some(certificate) = &certificate {
        say(&format!("certificate SHA-256 {}", certificate.fingerprint()));
    }

    // The capture has a thread of its own, from what the ring's reader hands on to the hub.
    let (stop_capture, capture_until) = watch::channel(false);
    let (ended, mut capture_ended) = oneshot::channel();
    let capture = thread::Builder::new().name("capture".to_owned()).spawn({
        let (hub, server) = (Arc::clone(&hub), Arc::clone(&server));
        move || {
            let result = arguments.capture(judge, &node, &hub, &server, Instruments { health, timings }, capture_until);
            // Whoever waits for it may have gone.
            _ = ended.send(result);
        }
    });
    let capture = capture.map_err(|error| CommandError::failure(format!("cannot start a thread: {error}")))?;

    let result = api.block_on(async {
        let early = tokio::select! {
            () = signals.next() => None,
            result = &mut capture_ended => Some(result),
        };
        // From here on a second signal does not wait for anything.
        tokio::spawn(async move {
            signals.next().await;
            std::process::exit(INTERRUPTED);
        });
        _ = stop_capture.send(true);
        let result = match early {
            Some(result) => result,
            None => capture_ended.await,
        };
        hub.close("shutting down");
        _ = stop_serving.send(true);
        publishing.ended().await;
        if let Some(serving) = serving_metrics {
            // Scrapers come again; there is nothing to tell of those that were cut off.
            _ = serving.await;
        }
        let served = serving.await;
        match result {
            Ok(result) => result.map(|()| served),
            Err(_) => Err(CommandError::failure("the capture ended unexpectedly; please report this as a bug")),
        }
    });
    // It has said how it ended.
    _ = capture.join();
    match result? {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(CommandError::failure(format!("cannot serve: {error}"))),
        Err(error) => return Err(CommandError::failure(format!("the server ended unexpectedly: {error}"))),
    }
    let ledger = hub.ledger();
    if let Err(imbalance) = if live { ledger.balance_final() } else { ledger.balance() } {
        say(&format!("warning: {imbalance}"));
    }
    say(&ledger.to_string());
    drop(watches);
    // Streams that were cut off at the end, and questions that still run, are not waited for.
    api.shutdown_background();
    Ok(())
}

impl AgentArgs {
    /// What `clap` cannot say of the arguments.
    fn check(&self) -> Result<(), CommandError> {
        if !self.tenant_mode && !self.listen.ip().to_canonical().is_loopback() {
            return Err(CommandError::usage(format!(
                "--listen {} is no loopback address, and whoever reached it would see everything",
                self.listen
            ))
            .hint("leave --listen out: port-forward reaches the loopback of the pod; or ask callers who they are, with --tenant-mode"));
        }
        if !self.asks_who() && self.tls_cert.is_some() {
            return Err(CommandError::usage("--tls-cert is about --tenant-mode, and --metrics on an address that is no loopback")
                .hint("leave it out, or add one of them"));
        }
        self.events.check(!self.manifests.is_empty() || self.replay.is_some())?;
        if self.replay.is_some() && self.manifests.is_empty() {
            return Err(CommandError::usage("--replay needs --manifests: what a cluster was when it was recorded, its API server does not know")
                .hint("kubectl get po,svc,endpointslices,netpol,ns,no -A -o yaml > cluster.yaml, at the time of the recording, and -f cluster.yaml"));
        }
        if self.manifests.iter().filter(|path| path.as_os_str() == "-").count() > 1 {
            return Err(CommandError::usage("--manifests - is given more than once, and standard input can be read only once"));
        }
        Ok(())
    }

    /// Whether callers have to say who they are, at one listener at least.
    fn asks_who(&self) -> bool {
        self.tenant_mode || self.metrics.is_open()
    }

    fn certificate(&self, node: &str) -> Result<Option<Certificate>, CommandError> {
        if !self.asks_who() {
            return Ok(None);
        }
        let certificate = match (&self.tls_cert, &self.tls_key) {
            (Some(chain), Some(key)) => Certificate::from_files(chain, key),
            _ => {
                let names = ["localhost", "127.0.0.1", node].into_iter().chain(self.pod_name.as_deref());
                Certificate::self_signed(names.map(str::to_owned).collect())
            }
        };
        certificate.map(Some).map_err(|error| CommandError::failure(format!("no TLS: {error}")))
    }

    /// Who may ask, and who for metrics by their own listener.
    fn access(&self, api: &Runtime, node: &str, host: Option<String>) -> Result<(Access, Access), CommandError> {
        let loopback = loopback_names(self.pod_name.iter().cloned().chain(host));
        if !self.asks_who() {
            return Ok((loopback.clone(), loopback));
        }
        let _entered = api.enter();
        let read = api.block_on(self.configuration().read());
        let client = read.and_then(|read| kube::Client::try_from(read.config.clone()).map_err(|error| read.unusable(&error)));
        let client = client.map_err(|error| {
            let option = if self.tenant_mode { "--tenant-mode" } else { "--metrics on an address that is no loopback" };
            CommandError::failure(format!("{option} needs an API server to ask about callers, and none is known: {error}"))
                .hint("in a pod, the ServiceAccount's token has to be mounted; elsewhere KUBECONFIG names a file")
        })?;
        let tenants = Access::Tenant(Arc::new(Tenants::new(Box::new(KubeReviews::new(client)), node)));
        let or_loopback = |asked: bool| if asked { tenants.clone() } else { loopback.clone() };
        Ok((or_loopback(self.tenant_mode), or_loopback(self.metrics.is_open())))
    }

    /// Attaches and captures, until it is told to stop.
    fn capture(
        &self,
        judge: Box<dyn Judge>,
        node: &str,
        hub: &Arc<Hub>,
        server: &Server,
        instruments: Instruments,
        stop: watch::Receiver<bool>,
    ) -> Result<(), CommandError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(cannot_start)?;
        let source = match &self.replay {
            Some(path) => Source::replay(path)?,
            None => Source::live(self.live.options())?,
        };
        let mut header = source.header().clone();
        header.node_name = Some(node.to_owned());
        let recorder = match &self.record {
            Some(path) => Some(Recorder::create(path, &header)?),
            None => None,
        };
        let kernel = source.about();
        say(&match (&self.replay, kernel.attach) {
            (None, Some(form)) => format!("watching drops on {node} (kernel {}, {form})", kernel.release),
            (Some(path), _) => format!("watching drops of {} (kernel {})", path.display(), kernel.release),
            (None, None) => format!("watching drops on {node} (kernel {})", kernel.release),
        });
        for problem in &kernel.problems {
            say(&format!("warning: {problem}"));
        }
        server.set_kernel(kernel);
        hub.start(Timestamp::now());
        runtime.block_on(Capturing { source, judge, hub: Arc::clone(hub), recorder, instruments }.run(stop))
    }
}

fn runtime(name: &str, threads: usize) -> Result<Runtime, CommandError> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads).thread_name(name).enable_all();
    if name == API {
        builder.on_thread_start(give_way);
    }
    builder.build().map_err(cannot_start)
}

fn cannot_start(error: io::Error) -> CommandError {
    CommandError::failure(format!("cannot start: {error}"))
}

/// A line on standard error; when that is closed there is nobody to tell.
fn say(text: &str) {
    _ = writeln!(io::stderr(), "{}", clean_lines(text));
}
