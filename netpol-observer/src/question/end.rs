//! One end of a connection as people type it.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::QuestionError;
use super::label_selector::parse_selector;
use crate::cluster::Selector;

/// The forms an end may have, for messages.
const FORMS: &str =
    "an end is namespace/pod, namespace/deploy/name (sts, ds, job, cronjob, rs, svc), namespace/label=value, node/name or an IP address";

/// One end of a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// `10.0.0.1`
    Ip(IpAddr),
    /// `shop/web-0`
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// `shop/deploy/web`: all of its pods.
    Workload {
        /// What kind.
        kind: WorkloadKind,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// `shop/svc/api`: as a destination the Service by its name; as a source the pods behind it.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// `shop/app=web`: all pods of the namespace with these labels.
    Labels {
        /// The namespace.
        namespace: String,
        /// What the labels must be.
        selector: Selector,
    },
    /// `node/node-1`
    Node(String),
}

/// Kinds that make pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadKind {
    /// `deploy/`, `deployment/`
    Deployment,
    /// `sts/`, `statefulset/`
    StatefulSet,
    /// `ds/`, `daemonset/`
    DaemonSet,
    /// `job/`
    Job,
    /// `cronjob/`, `cj/`
    CronJob,
    /// `rs/`, `replicaset/`
    ReplicaSet,
}

/// What the word in front of a name says it is.
#[derive(Clone, Copy)]
enum Word {
    Pod,
    Service,
    Node,
    Workload(WorkloadKind),
}

impl Word {
    /// The names kubectl knows the kinds by.
    fn of(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "po" | "pod" | "pods" => Word::Pod,
            "svc" | "service" | "services" => Word::Service,
            "no" | "node" | "nodes" => Word::Node,
            "deploy" | "deployment" | "deployments" => Word::Workload(WorkloadKind::Deployment),
            "sts" | "statefulset" | "statefulsets" => Word::Workload(WorkloadKind::StatefulSet),
            "ds" | "daemonset" | "daemonsets" => Word::Workload(WorkloadKind::DaemonSet),
            "job" | "jobs" => Word::Workload(WorkloadKind::Job),
            "cj" | "cronjob" | "cronjobs" => Word::Workload(WorkloadKind::CronJob),
            "rs" | "replicaset" | "replicasets" => Word::Workload(WorkloadKind::ReplicaSet),
            _ => return None,
        })
    }

    fn named(self, namespace: &str, name: &str) -> End {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        match self {
            Word::Pod => End::Pod { namespace, name },
            Word::Service => End::Service { namespace, name },
            Word::Node => End::Node(name),
            Word::Workload(kind) => End::Workload { kind, namespace, name },
        }
    }
}

impl End {
    /// Reads an end. A name without a namespace is looked for in `namespace`.
    ///
    /// # Errors
    /// What it looks like instead, and the forms there are.
    pub fn parse(text: &str, namespace: &str) -> Result<Self, QuestionError> {
        let text = text.trim();
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(End::Ip(ip.to_canonical()));
        }
        if text.is_empty() {
            return Err(QuestionError::new("an empty end").hint(FORMS));
        }
        if text.parse::<IpNet>().is_ok() {
            return Err(QuestionError::new(format!("{text} is a range of addresses")).hint("ask about one address of it"));
        }
        if text.contains("://") {
            return Err(QuestionError::new(format!("{text} is a URL, and only the side that is called can be one")).hint(FORMS));
        }
        if text.contains(['=', '!', '(']) {
            return labels(text, namespace);
        }
        let parts: Vec<&str> = text.split('/').collect();
        let end = match *parts.as_slice() {
            [name] => Word::Pod.named(namespace, name),
            [first, name] => match Word::of(first) {
                Some(word) => word.named(namespace, name),
                None => Word::Pod.named(first, name),
            },
            [namespace, word, name] => match Word::of(word) {
                Some(word) => word.named(namespace, name),
                None => return Err(QuestionError::new(format!("{text}: {word:?} is no kind that has or makes pods")).hint(FORMS)),
            },
            _ => return Err(QuestionError::new(format!("{text} has too many parts")).hint(FORMS)),
        };
        if let Some(part) = parts.iter().find(|part| !is_name(part)) {
            let error = QuestionError::new(format!("{text}: {part:?} is no name of an object"));
            let has_port = part.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            return Err(error.hint(if has_port { "the port is asked for with --port" } else { FORMS }));
        }
        Ok(end)
    }
}

/// `shop/app=web`, or the labels alone. A label's key may hold a slash too: what stands before it then has a dot, which no namespace has.
fn labels(text: &str, namespace: &str) -> Result<End, QuestionError> {
    let is_namespace = |head: &str| is_name(head) && !head.contains('.');
    let (namespace, terms) = match text.split_once('/') {
        Some((head, rest)) if is_namespace(head) => (head, rest),
        _ => (namespace, text),
    };
    match parse_selector(terms) {
        Ok(selector) => Ok(End::Labels { namespace: namespace.to_owned(), selector }),
        Err(error) => Err(QuestionError::new(error.to_string()).hint(FORMS)),
    }
}

/// What the name of a namespace, pod or node may look like (RFC 1123), told apart from everything else that may be typed.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

impl WorkloadKind {
    /// As in `kind:`.
    pub fn as_str(self) -> &'static str {
        match self {
            WorkloadKind::Deployment => "Deployment",
            WorkloadKind::StatefulSet => "StatefulSet",
            WorkloadKind::DaemonSet => "DaemonSet",
            WorkloadKind::Job => "Job",
            WorkloadKind::CronJob => "CronJob",
            WorkloadKind::ReplicaSet => "ReplicaSet",
        }
    }
}

/// As in messages: `shop/web`, `Deployment shop/web`, `Service shop/api`, `pods of shop with app=web`, `node node-1`.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Ip(ip) => write!(f, "{ip}"),
            End::Pod { namespace, name } => write!(f, "{namespace}/{name}"),
            End::Workload { kind, namespace, name } => write!(f, "{} {namespace}/{name}", kind.as_str()),
            End::Service { namespace, name } => write!(f, "Service {namespace}/{name}"),
            End::Labels { namespace, selector } => write!(f, "pods of {namespace} with {selector}"),
            End::Node(name) => write!(f, "node {name}"),
        }
    }
}
