//! `observer install`

use std::io::{self, Write as _};

use clap::Args;
use serde_json::{Value, json};

use super::CommandError;
use super::agent::Scope;
use crate::cluster::convert::{invalid_label, invalid_subdomain};
use crate::install::{self, NAME, Options};

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

    /// Have the agents write Events on pods that are blocked, and what these may name: `observer agent --events` (docs/events.md). --events alone is --events=own-namespace.
    #[arg(long, value_enum, value_name = "SCOPE", num_args = 0..=1, require_equals = true, default_missing_value = "own-namespace")]
    events: Option<Scope>,

    /// Print what removes all of it, for kubectl delete. A namespace stays, unless it is netpol-observer.
    #[arg(long, conflicts_with_all = ["image", "image_pull_secret", "tenant_mode", "older_kernels", "priority_class", "events"])]
    uninstall: bool,

    /// One document for each object (yaml), or a List (json).
    #[arg(short, long, value_enum, default_value_t = Form::Yaml, value_name = "FORMAT")]
    output: Form,
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
    let InstallArgs { image, namespace, image_pull_secret, tenant_mode, older_kernels, priority_class, events, uninstall, output } =
        arguments;
    let options = Options {
        namespace,
        // Nothing that is removed is asked for by its image.
        image: image.unwrap_or_default(),
        image_pull_secrets: image_pull_secret,
        tenant_mode,
        older_kernels,
        priority_class,
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
