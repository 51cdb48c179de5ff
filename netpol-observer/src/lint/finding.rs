//! What a lint found.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::cluster::{ClusterPolicy, Labels, NetworkPolicy, Origin};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; may well be meant.
    Note,
    /// Probably not meant as written.
    Warning,
    /// The API server refuses it, or it certainly does not do what it says.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

macro_rules! codes {
    ($(#[doc = $doc:literal] $code:ident = $name:literal,)*) => {
        /// Which lint. The names are stable: they stand in annotations, scripts and CI configuration. `docs/lints.md` has a section for each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $doc] $code,)*
        }

        impl Code {
            /// All of them, in the order of `docs/lints.md`.
            pub const ALL: &[Code] = &[$(Code::$code,)*];

            /// `peer-matches-nothing`
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Code::$code => $name,)*
                }
            }

            /// What it finds, in one sentence: `A policy whose subject is no pod.`
            pub fn summary(self) -> &'static str {
                match self {
                    $(Code::$code => $doc.trim_ascii(),)*
                }
            }
        }
    };
}

codes! {
    /// A part that the API server refuses; the engine leaves it out.
    InvalidField = "invalid-field",
    /// Rules for a direction that `policyTypes` does not name.
    IgnoredRules = "ignored-rules",
    /// A manifest that is read, though not all of it has the effect it seems to have.
    Manifest = "manifest",
    /// A policy whose subject is no pod.
    SelectsNoPod = "selects-no-pod",
    /// A peer that no pod, namespace, node or address matches.
    PeerMatchesNothing = "peer-matches-nothing",
    /// A policy in a namespace that is not there.
    MissingNamespace = "missing-namespace",
    /// A named port that no destination pod has.
    NamedPortMissing = "named-port-missing",
    /// Named ports for addresses, which have none.
    NamedPortAddress = "named-port-address",
    /// Two peers where one with both selectors was likely meant.
    OrInsteadOfAnd = "or-instead-of-and",
    /// One peer with both selectors where two were likely meant.
    AndInsteadOfOr = "and-instead-of-or",
    /// A rule that another one makes superfluous.
    ShadowedRule = "shadowed-rule",
    /// A Deny rule behind an Accept rule that takes all its connections.
    DenyWithoutEffect = "deny-without-effect",
    /// NetworkPolicy rules behind an Admin rule that takes all their connections.
    OverriddenByAdmin = "overridden-by-admin",
    /// Policies of one priority that decide differently.
    TiedPriorities = "tied-priorities",
    /// A rule for any peer, external addresses included.
    AnyPeer = "any-peer",
    /// A peer that is every pod of every namespace, or pods of any namespace by labels alone.
    AnyNamespace = "any-namespace",
    /// A range of addresses that holds pods.
    IpBlockOverPods = "ip-block-over-pods",
    /// A range of addresses that holds Services, whose addresses policies do not see.
    IpBlockOverService = "ip-block-over-service",
    /// Pods that may open connections, yet cannot look names up.
    EgressWithoutDns = "egress-without-dns",
    /// A direction that is isolated without any rule, beside rules for the other one.
    IsolatesCompletely = "isolates-completely",
    /// Rules for UDP or SCTP alone that isolate TCP too.
    NoTcp = "no-tcp",
    /// A selector by a label that the next roll-out changes.
    PassingLabel = "passing-label",
    /// A range of more than a thousand ports.
    WidePortRange = "wide-port-range",
    /// Pods are not among the manifests, and what needs them was not judged.
    NoPods = "no-pods",
    /// An annotation that ignores a lint that does not exist.
    UnknownCode = "unknown-code",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Code {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = || Code::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>().join(", ");
        Code::ALL.iter().find(|code| code.as_str() == text).copied().ok_or_else(|| format!("no lint has this code; there are {}", known()))
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Something that is wrong, or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Which lint found it.
    pub code: Code,
    /// How much it matters.
    pub severity: Severity,
    /// What it is about; absent when it is about the manifests as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectRef>,
    /// Path from the object's root: `spec.ingress[0].from[1]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// File as the user gave it, `-` for standard input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Arc<str>>,
    /// Line of the field or, where that is not known, of the rule or the object it is in; from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// What is wrong, in one sentence without its end.
    pub message: String,
    /// What to do next.
    pub help: String,
}

/// An object by kind and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// As in `kind:`.
    pub kind: Arc<str>,
    /// Empty, and left out, for kinds without one.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub namespace: Arc<str>,
    /// `metadata.name`
    pub name: Arc<str>,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        if namespace.is_empty() { write!(f, "{kind} {name}") } else { write!(f, "{kind} {namespace}/{name}") }
    }
}

impl ObjectRef {
    /// From the way problems of manifests name an object.
    fn parse(text: &str) -> Self {
        let (kind, name) = text.split_once(' ').unwrap_or(("", text));
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        ObjectRef { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }
}

/// A policy as lints speak of it, whatever its kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    kind: &'static str,
    namespace: &'a str,
    name: &'a str,
    annotations: &'a Labels,
    origin: Option<&'a Origin>,
}

impl<'a> From<&'a NetworkPolicy> for About<'a> {
    fn from(policy: &'a NetworkPolicy) -> Self {
        let NetworkPolicy { namespace, name, annotations, origin, .. } = policy;
        About { kind: "NetworkPolicy", namespace, name, annotations, origin: origin.as_ref() }
    }
}

impl<'a> From<&'a ClusterPolicy> for About<'a> {
    fn from(policy: &'a ClusterPolicy) -> Self {
        let ClusterPolicy { kind, name, annotations, origin, .. } = policy;
        About { kind: kind.as_str(), namespace: "", name, annotations, origin: origin.as_ref() }
    }
}

impl fmt::Display for About<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.object().fmt(f)
    }
}

impl<'a> About<'a> {
    fn object(&self) -> ObjectRef {
        ObjectRef { kind: self.kind.into(), namespace: self.namespace.into(), name: self.name.into() }
    }

    /// Where the policy begins.
    pub(super) fn origin(&self) -> Option<&'a Origin> {
        self.origin
    }

    /// The codes that the policy's annotation names, as written.
    pub(super) fn ignored(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let list = self.annotations.get(super::IGNORE_ANNOTATION).map(|list| &**list).unwrap_or_default();
        list.split(',').map(str::trim).filter(|code| !code.is_empty())
    }

    /// A finding about a field of the policy; `origin` is where the field is, as far as that is known.
    pub(super) fn finding(&self, code: Code, severity: Severity, field: impl Into<String>, origin: Option<&Origin>) -> Draft<'a> {
        let origin = origin.or(self.origin);
        let field = field.into();
        let finding = Finding {
            code,
            severity,
            object: Some(self.object()),
            field: (!field.is_empty()).then_some(field),
            file: origin.map(|origin| origin.file.clone()),
            line: origin.map(|origin| origin.line),
            message: String::new(),
            help: String::new(),
        };
        Draft { finding, about: Some(*self) }
    }
}

/// A finding that lacks its words yet, and is reported with them.
#[must_use]
pub(super) struct Draft<'a> {
    pub(super) finding: Finding,
    pub(super) about: Option<About<'a>>,
}

impl Draft<'_> {
    /// About the manifests as a whole.
    pub(super) fn general(code: Code, severity: Severity) -> Self {
        let finding =
            Finding { code, severity, object: None, field: None, file: None, line: None, message: String::new(), help: String::new() };
        Draft { finding, about: None }
    }

    /// About an object, or a part of it, that is named in text only.
    pub(super) fn named(
        code: Code,
        severity: Severity,
        object: Option<&str>,
        field: Option<&str>,
        file: &Arc<str>,
        line: Option<u32>,
    ) -> Self {
        let mut draft = Draft::general(code, severity);
        draft.finding.object = object.map(ObjectRef::parse);
        draft.finding.field = field.map(str::to_owned);
        draft.finding.file = Some(file.clone());
        draft.finding.line = line;
        draft
    }

    /// With the line of the field itself.
    pub(super) fn at_line(mut self, line: Option<u32>) -> Self {
        self.finding.line = line.or(self.finding.line);
        self
    }

    /// Reports it.
    pub(super) fn say(mut self, sink: &mut super::Sink<'_>, message: impl Into<String>, help: impl Into<String>) {
        self.finding.message = message.into();
        self.finding.help = help.into();
        sink.take(self);
    }
}
