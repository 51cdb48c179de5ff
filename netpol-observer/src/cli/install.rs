//! `observer install`

use std::io::{self, Write as _};

use clap::Args;
use serde_json::{Value, json};

use super::CommandError;
use super::agent::Scope;
use crate::cluster::convert::{invalid_label, invalid_subdomain};
use crate::install::{self, NAME, Options, Otlp};
use crate::publish::otlp::{Endpoint, Protocol};

/// Print the manifests that put an agent on every node of a cluster, or those that remove them.
///
/// Nothing is sent anywhere: kubectl applies what is printed. docs/install.md says what each object is for, and what the agents may do.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct InstallArgs {
    /// The image of the agents, as nodes pull it.
    #[arg(long, value_name = "IMAGE", required_unless_present = "uninstall", value_parser = parse_image)]
    image: Option<String>,

    /// Where the agents run. The namespace is made, unless it is one of the cluster's own.
    #[arg(short, long, value_name = "NAME", default_value = NAME, value_parser = parse_label)]
    namespace: String,

    /// Use this Secret of the namespace for the image's registry. May be given several times.
    #[arg(long, value_name = "NAME", value_parser = parse_subdomain)]
    image_pull_secret: Vec<String>,

    /// Serve callers with tokens over the network, each what it may see: TLS on port 9470 of the agents' pods (docs/security.md).
    #[arg(long)]
    tenant_mode: bool,

    /// Nodes may have kernels before 5.11: the agents get CAP_SYS_RESOURCE too, to raise the limit of locked memory.
    #[arg(long)]
    older_kernels: bool,

    /// Give the agents this PriorityClass, such as system-node-critical.
    #[arg(long, value_name = "NAME", value_parser = parse_subdomain)]
    priority_class: Option<String>,

    /// Confine the agents by this seccomp profile instead of the container runtime's own: a path below /var/lib/kubelet/seccomp on every node, where
    /// deploy/seccomp/netpol-observer.json was put. For runtimes whose own does not let CAP_BPF call bpf() (docs/install.md).
    #[arg(long, value_name = "LOCALHOST_PATH", value_parser = parse_below)]
    seccomp_profile: Option<String>,

    /// Serve metrics over the network, to whoever may get /metrics: TLS on port 9471 of the agents' pods, and a ServiceAccount whose token may do that and
    /// nothing else (docs/metrics.md).
    #[arg(long)]
    metrics: bool,

    /// Print a PodMonitor too, for the Prometheus operator.
    #[arg(long, requires = "metrics")]
    pod_monitor: bool,

    /// Have the agents write Events on pods that are blocked, and what these may name: `observer agent --events` (docs/events.md). --events alone is --events=own-namespace.
    #[arg(long, value_enum, value_name = "SCOPE", num_args = 0..=1, require_equals = true, default_missing_value = "own-namespace")]
    events: Option<Scope>,

    /// Print what removes all of it, for kubectl delete. A namespace stays, unless it is netpol-observer.
    #[arg(long, conflicts_with_all = ["image", "image_pull_secret", "tenant_mode", "older_kernels", "priority_class", "seccomp_profile", "metrics", "otlp_endpoint", "events"])]
    uninstall: bool,

    /// One document for each object (yaml), or a List (json).
    #[arg(short, long, value_enum, default_value_t = Form::Yaml, value_name = "FORMAT")]
    output: Form,

    /// Send drops to a collector of OpenTelemetry there: http://HOST:PORT or https://HOST:PORT (docs/opentelemetry.md).
    #[arg(long, help_heading = "OpenTelemetry", value_name = "URL")]
    otlp_endpoint: Option<String>,

    /// How to speak to it: grpc or http/protobuf.
    #[arg(long, help_heading = "OpenTelemetry", value_name = "PROTOCOL", default_value = "http/protobuf", requires = "otlp_endpoint")]
    otlp_protocol: String,

    /// Send it the headers in the key `headers` of this Secret of the namespace: `Name: value`, one a line.
    #[arg(long, help_heading = "OpenTelemetry", value_name = "NAME", value_parser = parse_subdomain, requires = "otlp_endpoint")]
    otlp_headers_secret: Option<String>,

    /// Trust the certificates in the key `ca.crt` of this ConfigMap of the namespace. The image has none of its own, so https needs it.
    #[arg(long, help_heading = "OpenTelemetry", value_name = "NAME", value_parser = parse_subdomain, requires = "otlp_endpoint")]
    otlp_ca_config_map: Option<String>,
}

/// `-o`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    Yaml,
    Json,
}

const EXAMPLES: &str = "\
Examples:
  observer install --image registry.example/netpol-observer:0.1.0 | kubectl apply -f -
  kubectl -n netpol-observer rollout status daemonset/netpol-observer
  observer tail -A

  observer install --uninstall | kubectl delete --ignore-not-found -f -";

/// Runs `observer install`.
pub(super) fn run(arguments: InstallArgs) -> Result<(), CommandError> {
    let otlp = arguments.otlp()?;
    let InstallArgs {
        image,
        namespace,
        image_pull_secret,
        tenant_mode,
        older_kernels,
        priority_class,
        seccomp_profile,
        metrics,
        pod_monitor,
        events,
        uninstall,
        output,
        ..
    } = arguments;
    let options = Options {
        namespace,
        // Nothing that is removed is asked for by its image.
        image: image.unwrap_or_default(),
        image_pull_secrets: image_pull_secret,
        tenant_mode,
        older_kernels,
        priority_class,
        seccomp_profile,
        metrics,
        pod_monitor,
        otlp,
        events: events.map(Scope::word),
    };
    let objects = if uninstall { install::removal(&options) } else { install::objects(&options) };
    let text = match output {
        Form::Yaml => yaml(&objects),
        Form::Json => {
            serde_json::to_string_pretty(&json!({"apiVersion": "v1", "kind": "List", "items": objects})).map_err(io::Error::other)
        }
    };
    let written = text.and_then(|text| {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush())
    });
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::failure(format!("standard output: {error}"))),
        _ => Ok(()),
    }
}

impl InstallArgs {
    /// What agents would refuse is refused here.
    fn otlp(&self) -> Result<Option<Otlp>, CommandError> {
        let Some(url) = &self.otlp_endpoint else { return Ok(None) };
        let protocol = Protocol::parse(&self.otlp_protocol).map_err(|error| CommandError::usage(format!("--otlp-protocol: {error}")))?;
        let endpoint = Endpoint::parse(url, protocol).map_err(|error| CommandError::usage(format!("--otlp-endpoint: {error}")))?;
        if !endpoint.is_plain() && self.otlp_ca_config_map.is_none() {
            return Err(CommandError::usage("https needs --otlp-ca-config-map: the image of the agents has no certificates to trust")
                .hint("kubectl create configmap NAME --from-file=ca.crt, with those that signed the collector's"));
        }
        Ok(Some(Otlp {
            endpoint: url.clone(),
            protocol: protocol.to_string(),
            headers_secret: self.otlp_headers_secret.clone(),
            ca_config_map: self.otlp_ca_config_map.clone(),
        }))
    }
}

fn yaml(objects: &[Value]) -> io::Result<String> {
    let documents: Result<Vec<String>, _> = objects.iter().map(serde_saphyr::to_string).collect();
    Ok(documents.map_err(io::Error::other)?.join("---\n"))
}

/// What a namespace may be called.
fn parse_label(text: &str) -> Result<String, String> {
    named(text, &invalid_label(text))
}

/// What other objects may be called.
fn parse_subdomain(text: &str) -> Result<String, String> {
    named(text, &invalid_subdomain(text))
}

fn named(text: &str, problems: &[String]) -> Result<String, String> {
    if problems.is_empty() { Ok(text.to_owned()) } else { Err(problems.join("; ")) }
}

/// What the API server takes as `localhostProfile`.
fn parse_below(text: &str) -> Result<String, String> {
    let is_below = !text.is_empty() && !text.starts_with('/') && text.split('/').all(|part| part != "..");
    if is_below {
        Ok(text.to_owned())
    } else {
        Err("expected a path below the kubelet's directory of profiles, such as netpol-observer.json".to_owned())
    }
}

/// An image has no blanks and no upper-case letters before its tag; the rest is the registry's.
fn parse_image(text: &str) -> Result<String, String> {
    let name = text.split('@').next().unwrap_or_default();
    let path = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        _ => name,
    };
    let is_image = !path.is_empty() && text.chars().all(|c| c.is_ascii_graphic()) && !path.chars().any(|c| c.is_ascii_uppercase());
    if is_image { Ok(text.to_owned()) } else { Err("expected an image such as registry.example/netpol-observer:0.1.0".to_owned()) }
}
