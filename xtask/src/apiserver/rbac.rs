//! Who may do what: the RBAC authorizer, on the Roles and bindings in the store.

use serde_json::{Value, json};

use super::authn::User;
use super::store::{Key, Store};

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    /// `get`, `list`, `watch`, `create`, …
    pub(super) verb: String,
    /// API group.
    pub(super) group: String,
    /// `pods`; empty for a path that is no resource's.
    pub(super) resource: String,
    /// `portforward`, or empty.
    pub(super) subresource: String,
    /// Empty for the cluster's scope and all namespaces.
    pub(super) namespace: String,
    /// Empty for lists and creations.
    pub(super) name: String,
    /// The path of what is no resource.
    pub(super) path: String,
}

impl Attributes {
    /// `pods/portforward`.
    pub(super) fn combined(&self) -> String {
        if self.subresource.is_empty() { self.resource.clone() } else { format!("{}/{}", self.resource, self.subresource) }
    }

    /// Why it is forbidden, in the words of the API server.
    pub(super) fn denied(&self, user: &User, reason: &str) -> String {
        let mut why = if self.resource.is_empty() {
            format!("User \"{}\" cannot {} path \"{}\"", user.name, self.verb, self.path)
        } else {
            let place = if self.namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace \"{}\"", self.namespace)
            };
            format!("User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {place}", user.name, self.verb, self.combined(), self.group)
        };
        if !reason.is_empty() {
            why.push_str(": ");
            why.push_str(reason);
        }
        why
    }
}

/// What the authorizer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// Some rule allows it.
    pub(super) allowed: bool,
    /// Which binding, or which errors were met on the way.
    pub(super) reason: String,
}

/// Decides as RBAC does: ClusterRoleBindings first, then the RoleBindings of the namespace; the first rule that allows counts.
pub(super) fn authorize(store: &Store, user: &User, asked: &Attributes) -> Decision {
    if user.groups.iter().any(|group| group == "system:masters") {
        return Decision { allowed: true, reason: String::new() };
    }
    let mut errors = Vec::new();
    let objects = |plural: &str| store.table("rbac.authorization.k8s.io", plural).into_iter().flat_map(|table| table.objects.values());
    let cluster = objects("clusterrolebindings");
    let local = objects("rolebindings").filter(|binding| !asked.namespace.is_empty() && binding.key.0 == asked.namespace);
    for (cluster_wide, object) in cluster.map(|object| (true, object)).chain(local.map(|object| (false, object))) {
        let binding = object.value();
        let Some(subject) = binding["subjects"].as_array().into_iter().flatten().find(|subject| applies(subject, user, &object.key.0))
        else {
            continue;
        };
        let (kind, name) =
            (binding["roleRef"]["kind"].as_str().unwrap_or_default(), binding["roleRef"]["name"].as_str().unwrap_or_default());
        let (plural, namespace) = if kind == "ClusterRole" { ("clusterroles", "") } else { ("roles", object.key.0.as_str()) };
        let role = store
            .table("rbac.authorization.k8s.io", plural)
            .and_then(|table| table.objects.get(&Key(namespace.to_owned(), name.to_owned())));
        let Some(role) = role else {
            errors.push(format!("{}.rbac.authorization.k8s.io \"{name}\" not found", kind.to_lowercase()));
            continue;
        };
        if rules_allow(&role.value()["rules"], asked, cluster_wide) {
            let place = if cluster_wide {
                format!("ClusterRoleBinding \"{}\"", object.key.1)
            } else {
                format!("RoleBinding \"{}/{}\"", object.key.1, object.key.0)
            };
            let subject = format!("{} \"{}\"", text(subject, "kind"), subject_name(subject));
            return Decision { allowed: true, reason: format!("RBAC: allowed by {place} of {kind} \"{name}\" to {subject}") };
        }
    }
    let reason = match errors.as_slice() {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        many => format!("RBAC: [{}]", many.join(", ")),
    };
    Decision { allowed: false, reason }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn subject_name(subject: &Value) -> String {
    let (namespace, name) = (text(subject, "namespace"), text(subject, "name"));
    if namespace.is_empty() { name.to_owned() } else { format!("{name}/{namespace}") }
}

fn applies(subject: &Value, user: &User, binding_namespace: &str) -> bool {
    let name = text(subject, "name");
    match text(subject, "kind") {
        "User" => name == user.name,
        "Group" => user.groups.iter().any(|group| group == name),
        "ServiceAccount" => {
            let namespace = if text(subject, "namespace").is_empty() { binding_namespace } else { text(subject, "namespace") };
            !namespace.is_empty() && user.name == format!("system:serviceaccount:{namespace}:{name}")
        }
        _ => false,
    }
}

fn rules_allow(rules: &Value, asked: &Attributes, cluster_wide: bool) -> bool {
    rules.as_array().into_iter().flatten().any(|rule| {
        let has =
            |field: &str, test: &dyn Fn(&str) -> bool| rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).any(test);
        if !has("verbs", &|verb| verb == "*" || verb == asked.verb) {
            return false;
        }
        if asked.resource.is_empty() {
            // A Role cannot give what is outside of all namespaces.
            return cluster_wide && has("nonResourceURLs", &|url| url_matches(url, &asked.path));
        }
        let combined = asked.combined();
        let resource = |wanted: &str| {
            wanted == "*"
                || wanted == combined
                || (!asked.subresource.is_empty() && wanted.strip_prefix("*/").is_some_and(|subresource| subresource == asked.subresource))
        };
        let unnamed = rule["resourceNames"].as_array().is_none_or(Vec::is_empty);
        has("apiGroups", &|group| group == "*" || group == asked.group)
            && has("resources", &resource)
            && (unnamed || has("resourceNames", &|name| name == asked.name))
    })
}

fn url_matches(rule: &str, path: &str) -> bool {
    rule == "*" || rule == path || rule.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

/// The roles and bindings that every server has, as far as clients of this project meet them.
pub(super) fn bootstrap() -> Vec<(&'static str, Value)> {
    let role = |name: &str, rules: Value| {
        let labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
        ("clusterroles", json!({"metadata": {"name": name, "labels": labels}, "rules": rules}))
    };
    let bind = |name: &str, groups: &[&str]| {
        let subjects: Vec<Value> =
            groups.iter().map(|group| json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": group})).collect();
        let role = json!({"kind": "ClusterRole", "apiGroup": "rbac.authorization.k8s.io", "name": name});
        ("clusterrolebindings", json!({"metadata": {"name": name}, "subjects": subjects, "roleRef": role}))
    };
    let urls = |urls: &[&str]| json!([{"verbs": ["get"], "nonResourceURLs": urls}]);
    let create = |group: &str, resources: &[&str]| json!({"verbs": ["create"], "apiGroups": [group], "resources": resources});
    let discovery =
        ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"];
    vec![
        role(
            "cluster-admin",
            json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, {"verbs": ["*"], "nonResourceURLs": ["*"]}]),
        ),
        role("system:discovery", urls(&discovery)),
        role("system:public-info-viewer", urls(&["/healthz", "/livez", "/readyz", "/version", "/version/"])),
        role(
            "system:basic-user",
            json!([
                create("authorization.k8s.io", &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
                create("authentication.k8s.io", &["selfsubjectreviews"]),
            ]),
        ),
        role(
            "system:auth-delegator",
            json!([create("authentication.k8s.io", &["tokenreviews"]), create("authorization.k8s.io", &["subjectaccessreviews"])]),
        ),
        bind("cluster-admin", &["system:masters"]),
        bind("system:discovery", &["system:authenticated"]),
        bind("system:basic-user", &["system:authenticated"]),
        bind("system:public-info-viewer", &["system:authenticated", "system:unauthenticated"]),
    ]
}
