//! Documents → objects, with what is wrong in them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use kube::Resource;
use serde::de::DeserializeOwned;

use super::Loaded;
use super::decode::{DecodeError, decode};
use super::documents::{Document, documents};
use super::problem::{ManifestErrors, Problem, Problems};
use super::sources::Found;
use super::tree::{Node, Value};
use crate::cluster::convert::template::Template;
use crate::cluster::convert::{self, Effect, FieldErrors};
use crate::cluster::policy_api::{v1alpha1, v1alpha2};
use crate::cluster::policy_test::{self, PolicyTest, TestDocument};
use crate::cluster::{ClusterPolicy, ClusterRule, NetworkPolicy, Object, ObjectKey, Origin, Pod, Rule};

/// Lists within lists that are opened.
const MAX_LIST_DEPTH: usize = 8;

/// Where to read about policy tests.
const TEST_HINT: &str = "docs/check.md describes the format; `observer check --schema` prints it for editors";

/// Kinds without a namespace.
const CLUSTER_SCOPED: [&str; 5] = ["Namespace", "Node", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy"];

/// Collects objects and problems over all files.
#[derive(Debug, Default)]
pub(super) struct Reader {
    errors: Problems,
    warnings: Problems,
    objects: Vec<Object>,
    /// Where in `objects` an object is, and where it was read.
    places: HashMap<ObjectKey, (usize, Origin)>,
    stand_ins: Vec<Vec<Pod>>,
    tests: Vec<TestDocument>,
    skipped: BTreeMap<String, usize>,
}

/// An object in a file, before it is known to be one.
struct Item<'a> {
    file: &'a Arc<str>,
    node: &'a Node,
    kind: &'a str,
    api_version: &'a str,
}

impl Reader {
    /// Takes one file.
    pub(super) fn file(&mut self, found: &Found) {
        match found {
            Ok(source) => {
                for document in documents(&source.text) {
                    self.document(&source.file, document);
                }
            }
            Err(problem) => self.errors.push(problem.clone()),
        }
    }

    /// The objects, unless anything was wrong.
    pub(super) fn finish(self) -> Result<Loaded, ManifestErrors> {
        if self.errors.is_empty() {
            let Reader { objects, stand_ins, tests, skipped, warnings, .. } = self;
            Ok(Loaded { objects, stand_ins, tests, skipped, warnings: warnings.into_list() })
        } else {
            Err(ManifestErrors { problems: self.errors.into_list() })
        }
    }

    fn document(&mut self, file: &Arc<str>, document: Document<'_>) {
        match Node::parse(document.text, document.line) {
            Ok(Node { value: Value::Null, .. }) => {}
            Ok(node) => match &node.value {
                // `jq '.items'` and the like print a bare list.
                Value::List(items) => items.iter().for_each(|item| self.object(file, item, None, 0)),
                _ => self.object(file, &node, None, 0),
            },
            Err(error) => {
                let has_template = document.text.contains("{{");
                let problem = Problem { line: Some(error.line), ..Problem::of_file(file.clone(), error.message) };
                self.errors.push(problem.hint(if error.is_too_large {
                    "split the document"
                } else if has_template {
                    "this looks like a template: render it first, for instance with `helm template`"
                } else {
                    "correct the YAML or JSON from this line on"
                }));
            }
        }
    }

    /// Reads an object or what a list holds. `of_list` is the kind and the API version that the items of a typed list leave out.
    fn object(&mut self, file: &Arc<str>, node: &Node, of_list: Option<(&str, &str)>, depth: usize) {
        let problem = |message: String| Problem { line: Some(node.line), ..Problem::of_file(file.clone(), message) };
        if !matches!(node.value, Value::Map(_)) {
            let hint = "every document must be one object with apiVersion, kind and metadata; leave other files out";
            self.errors.push(problem("expected a Kubernetes object".into()).hint(hint));
            return;
        }
        let (kind, api_version) = match (node.text("kind"), node.text("apiVersion"), of_list) {
            (Some(kind), Some(api_version), _) => (kind, api_version),
            (None, None, Some(of_list)) => of_list,
            // kustomize takes its own file without both.
            (None, None, None) if is_of_kustomize(file) => {
                *self.skipped.entry("kustomize.config.k8s.io/v1beta1 Kustomization".to_owned()).or_default() += 1;
                return;
            }
            (kind, _, _) => {
                let missing = if kind.is_none() { "kind" } else { "apiVersion" };
                let hint = "is it a Kubernetes manifest? Other files must not be among them";
                let object = kind.map(|kind| object_name(kind, node));
                self.errors.push(Problem { object, ..problem(format!("{missing} is missing or no text")) }.hint(hint));
                return;
            }
        };
        let item_kind = kind.strip_suffix("List").filter(|_| node.get("items").is_some());
        let Some(item_kind) = item_kind else {
            self.known(&Item { file, node, kind, api_version });
            return;
        };
        if depth == MAX_LIST_DEPTH {
            self.errors.push(problem(format!("lists are nested more than {MAX_LIST_DEPTH} deep")));
            return;
        }
        if let Some(items) = node.get("items").filter(|items| !matches!(items.value, Value::List(_) | Value::Null)) {
            let problem = Problem { line: Some(items.line), field: Some("items".into()), ..problem("expected a list".into()) };
            self.errors.push(problem.hint("begin every object of the list with a dash"));
        }
        let of_list = (!item_kind.is_empty()).then_some((item_kind, api_version));
        for item in node.get("items").map(Node::items).unwrap_or_default() {
            self.object(file, item, of_list, depth + 1);
        }
    }

    fn known(&mut self, item: &Item<'_>) {
        if item.is::<networking::NetworkPolicy>() {
            self.read(item, |policy, errors| located(convert::network_policy(policy, errors), item));
        } else if item.is::<v1alpha1::AdminNetworkPolicy>() {
            self.read(item, |policy, errors| located_cluster(convert::admin_network_policy(policy, errors), item));
        } else if item.is::<v1alpha1::BaselineAdminNetworkPolicy>() {
            self.read(item, |policy, errors| located_cluster(convert::baseline_admin_network_policy(policy, errors), item));
        } else if item.is::<v1alpha2::ClusterNetworkPolicy>() {
            self.read(item, |policy, errors| located_cluster(convert::cluster_network_policy(policy, errors), item));
        } else if item.is::<core::Pod>() {
            self.read(item, |pod, errors| {
                let pod = convert::pod(pod, errors);
                Pod { origin: Some(item.origin(item.node)), ..pod }
            });
        } else if item.is::<core::Namespace>() {
            self.read(item, |namespace, _| convert::namespace(namespace));
        } else if item.is::<core::Node>() {
            self.read(item, convert::node);
        } else if item.is::<core::Service>() {
            self.read(item, convert::service);
        } else if item.is::<discovery::EndpointSlice>() {
            self.read(item, convert::endpoint_slice);
        } else if item.is::<apps::Deployment>() {
            self.template::<apps::Deployment>(item);
        } else if item.is::<apps::StatefulSet>() {
            self.template::<apps::StatefulSet>(item);
        } else if item.is::<apps::DaemonSet>() {
            self.template::<apps::DaemonSet>(item);
        } else if item.is::<apps::ReplicaSet>() {
            self.template::<apps::ReplicaSet>(item);
        } else if item.is::<batch::Job>() {
            self.template::<batch::Job>(item);
        } else if item.is::<batch::CronJob>() {
            self.template::<batch::CronJob>(item);
        } else if item.api_version.starts_with("netpol-observer.io/") {
            self.policy_test(item);
        } else {
            *self.skipped.entry(format!("{} {}", item.api_version, item.kind)).or_default() += 1;
        }
    }

    fn read<T: DeserializeOwned, O: Into<Object>>(&mut self, item: &Item<'_>, convert: impl FnOnce(T, &mut FieldErrors) -> O) {
        if let Some(object) = self.converted(item, convert) {
            self.add(object.into(), item);
        }
    }

    /// An object of a workload kind, for the pods that it makes.
    fn template<T: DeserializeOwned + Template>(&mut self, item: &Item<'_>) {
        let origin = item.origin(item.node);
        if let Some(pods) = self.converted(item, T::stand_ins) {
            self.stand_ins.push(pods.into_iter().map(|pod| Pod { origin: Some(origin.clone()), ..pod }).collect());
        }
    }

    /// A document of this project's own API. Other than of manifests, what is not known of it is an error: a test without its `except` is another test.
    fn policy_test(&mut self, item: &Item<'_>) {
        if (item.api_version, item.kind) != (policy_test::API_VERSION, policy_test::KIND) {
            let problem = item.problem(item.node.line, String::new(), format!("unknown kind {} {}", item.api_version, item.kind));
            self.errors.push(problem.hint(format!("known is {} {}", policy_test::API_VERSION, policy_test::KIND)));
            return;
        }
        match decode::<PolicyTest>(item.node) {
            Ok((document, unknown)) => {
                for field in unknown.into_iter().filter(|field| !field.field.starts_with("metadata.")) {
                    let problem = item.problem(field.line, field.field, "unknown field: a PolicyTest has none of this name here".into());
                    self.errors.push(match field.meant {
                        Some(meant) => problem.hint(format!("did you mean {meant}?")),
                        None => problem.hint(TEST_HINT),
                    });
                }
                let lines = (0..document.tests.len()).map(|at| item.node.line_of(&format!("tests[{at}]"))).collect();
                self.tests.push(TestDocument { document, origin: item.origin(item.node), lines });
            }
            Err(error) => {
                let problem = item.problem(error.line, error.field, error.message);
                self.errors.push(problem.hint(TEST_HINT));
            }
        }
    }

    /// Reads an object, and reports what is wrong in it; none when it cannot be used.
    fn converted<T: DeserializeOwned, O>(&mut self, item: &Item<'_>, convert: impl FnOnce(T, &mut FieldErrors) -> O) -> Option<O> {
        let (decoded, unknown) = match decode::<T>(item.node) {
            Ok(decoded) => decoded,
            Err(error) => {
                self.errors.push(item.decode_problem(error));
                return None;
            }
        };
        for field in unknown {
            let problem = item.problem(field.line, field.field, format!("unknown field: {} has none of this name here", item.kind));
            self.warnings.push(match field.meant {
                Some(meant) => problem.hint(format!("did you mean {meant}? Names are compared letter by letter, case included")),
                None => problem.hint("it has no effect; the API server refuses it in strict validation: remove or correct it"),
            });
        }
        let metadata = item.node.get("metadata");
        if metadata.and_then(|metadata| metadata.text("name")).is_none_or(str::is_empty) {
            let line = item.node.line_of("metadata");
            let problem = item.problem(line, "metadata.name".into(), "Required value".into());
            let generated = metadata.is_some_and(|metadata| metadata.get("generateName").is_some());
            self.errors.push(if generated {
                problem.hint("generateName is filled in by the API server only: give the object a name")
            } else {
                problem.hint("give the object a name")
            });
            return None;
        }
        let mut errors = FieldErrors::new();
        let object = convert(decoded, &mut errors);
        for error in errors {
            let line = item.node.line_of(&error.field);
            let problem = item.problem(line, error.field, error.message);
            self.warnings.push(problem.hint(match error.effect {
                Effect::MatchesNothing => "the API server would refuse the object; here this part matches nothing",
                Effect::FailsClosed => {
                    "the API does not allow it; here an Accept rule matches nothing by it, a Deny or Pass rule everything"
                }
                Effect::AsWritten => "the API does not allow it; here it counts as it is written",
            }));
        }
        Some(object)
    }

    fn add(&mut self, object: Object, item: &Item<'_>) {
        let key = object.key();
        let origin = item.origin(item.node);
        if let Some((place, first)) = self.places.get_mut(&key) {
            let message = format!("already defined in {}:{}; this later one is taken", first.file, first.line);
            let problem =
                Problem { object: Some(key.to_string()), line: Some(origin.line), ..Problem::of_file(item.file.clone(), message) };
            self.warnings.push(problem.hint("remove or rename one of them"));
            *first = origin;
            if let Some(earlier) = self.objects.get_mut(*place) {
                *earlier = object;
            }
            return;
        }
        self.places.insert(key, (self.objects.len(), origin));
        self.objects.push(object);
    }
}

impl Item<'_> {
    fn is<T: Resource<DynamicType = ()>>(&self) -> bool {
        self.kind == T::kind(&()) && self.api_version == T::api_version(&())
    }

    fn origin(&self, node: &Node) -> Origin {
        Origin { file: self.file.clone(), line: node.line }
    }

    /// Where the rules of `spec.ingress` or `spec.egress` begin.
    fn rule_origins(&self, field: &str) -> impl Iterator<Item = Origin> {
        let rules = self.node.get("spec").and_then(|spec| spec.get(field));
        rules.map(Node::items).unwrap_or_default().iter().map(|rule| self.origin(rule))
    }

    fn problem(&self, line: u32, field: String, message: String) -> Problem {
        Problem {
            line: Some(line),
            object: Some(object_name(self.kind, self.node)),
            field: (!field.is_empty()).then_some(field),
            ..Problem::of_file(self.file.clone(), message)
        }
    }

    fn decode_problem(&self, error: DecodeError) -> Problem {
        let hint = if error.wants_quotes {
            "this field wants text: put the value in quotes".to_owned()
        } else {
            format!("see `kubectl explain {}` for the type of the field", explain_path(self.kind, &error.field))
        };
        self.problem(error.line, error.field, error.message).hint(hint)
    }
}

/// Whether a file is what kustomize is told what to do by.
fn is_of_kustomize(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    matches!(name, "kustomization.yaml" | "kustomization.yml")
}

/// `NetworkPolicy shop/api` as far as the document tells, even when the rest of it is broken.
fn object_name(kind: &str, node: &Node) -> String {
    let metadata = node.get("metadata");
    let of = |field| metadata.and_then(|metadata| metadata.text(field)).filter(|text: &&str| !text.is_empty());
    match (of("namespace"), of("name")) {
        (Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
        (None, Some(name)) if CLUSTER_SCOPED.contains(&kind) => format!("{kind} {name}"),
        (None, Some(name)) => format!("{kind} {}/{name}", convert::DEFAULT_NAMESPACE),
        (_, None) => format!("{kind} without a name"),
    }
}

/// A field as `kubectl explain` takes it: `networkpolicy.spec.ingress.ports`.
fn explain_path(kind: &str, field: &str) -> String {
    let mut path = kind.to_ascii_lowercase();
    for segment in field.split('.').filter(|segment| !segment.is_empty()) {
        path.push('.');
        path.push_str(segment.split('[').next().unwrap_or_default());
    }
    path
}

/// The policy with the lines of itself and of its rules.
fn located(mut policy: NetworkPolicy, item: &Item<'_>) -> NetworkPolicy {
    policy.origin = Some(item.origin(item.node));
    for (field, rules) in [("ingress", &mut policy.ingress), ("egress", &mut policy.egress)] {
        for (Rule { origin, .. }, place) in rules.iter_mut().flatten().zip(item.rule_origins(field)) {
            *origin = Some(place);
        }
    }
    policy
}

/// The same for a policy of the cluster's scope.
fn located_cluster(mut policy: ClusterPolicy, item: &Item<'_>) -> ClusterPolicy {
    policy.origin = Some(item.origin(item.node));
    for (field, rules) in [("ingress", &mut policy.ingress), ("egress", &mut policy.egress)] {
        for (ClusterRule { origin, .. }, place) in rules.iter_mut().zip(item.rule_origins(field)) {
            *origin = Some(place);
        }
    }
    policy
}
