//! Which groups, versions and resources there are now.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::resource::Resource;
use super::status::Refusal;
use super::store::Store;

/// Resources that only answer a POST: group, plural, kind, namespaced.
pub(super) const REVIEWS: &[(&str, &str, &str)] = &[
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
    ("authentication.k8s.io", "tokenreviews", "TokenReview"),
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    ("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview"),
];

/// Answers a path that is no resource's. `None`: there is no such path.
pub(super) fn answer(store: &Store, path: &str, git_version: &str) -> Option<Result<Value, Refusal>> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let answer = match parts.as_slice() {
        ["version"] => version(git_version),
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        ["api", "v1"] => resource_list(store, "", "v1")?,
        ["apis"] => {
            let groups: Vec<Value> = groups(store).iter().map(|(group, versions)| group_object(group, versions)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["apis", group] => {
            let versions = groups(store).remove(*group)?;
            let mut object = group_object(group, &versions);
            (object["kind"], object["apiVersion"]) = ("APIGroup".into(), "v1".into());
            object
        }
        ["apis", group, version] => resource_list(store, group, version)?,
        _ => return None,
    };
    Some(Ok(answer))
}

fn version(git_version: &str) -> Value {
    let mut numbers = git_version.trim_start_matches('v').split('.');
    json!({
        "major": numbers.next().unwrap_or_default(), "minor": numbers.next().unwrap_or_default(), "gitVersion": git_version,
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "gc",
        "platform": "linux/amd64",
    })
}

/// Groups with a name, and their versions, the preferred one first.
fn groups(store: &Store) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (group, ..) in REVIEWS {
        groups.insert((*group).to_owned(), vec!["v1".to_owned()]);
    }
    for table in store.tables().filter(|table| !table.resource.group.is_empty()) {
        let versions = groups.entry(table.resource.group.clone()).or_default();
        for version in &table.resource.versions {
            if !versions.contains(version) {
                versions.push(version.clone());
            }
        }
    }
    for versions in groups.values_mut() {
        versions.sort_by_key(|version| super::resource::version_rank(version));
    }
    groups
}

fn group_object(group: &str, versions: &[String]) -> Value {
    let shown: Vec<Value> =
        versions.iter().map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version})).collect();
    json!({"name": group, "preferredVersion": shown.first(), "versions": shown})
}

fn resource_list(store: &Store, group: &str, version: &str) -> Option<Value> {
    let mut resources: Vec<Value> = Vec::new();
    for table in store.tables() {
        let resource = &table.resource;
        if resource.group == group && resource.versions.iter().any(|served| served == version) {
            resources.extend(entries(resource));
        }
    }
    for (_, plural, kind) in REVIEWS.iter().filter(|(of, ..)| *of == group && version == "v1") {
        resources
            .push(json!({"name": plural, "singularName": kind.to_lowercase(), "namespaced": false, "kind": kind, "verbs": ["create"]}));
    }
    resources.sort_by_key(|resource| resource["name"].as_str().map(str::to_owned));
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
    // The core group's list names no version of its own.
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    list["resources"].as_array().is_some_and(|resources| !resources.is_empty()).then_some(list)
}

fn entries(resource: &Resource) -> Vec<Value> {
    let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    let mut entry = json!({
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced, "kind": resource.kind, "verbs": verbs,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    let subresource = |name: &str, kind: &str, verbs: &[&str]| {
        json!({
            "name": format!("{}/{name}", resource.plural), "singularName": "", "namespaced": resource.namespaced, "kind": kind, "verbs": verbs,
        })
    };
    let mut entries = vec![entry];
    if resource.has_status {
        entries.push(subresource("status", &resource.kind, &["get", "patch", "update"]));
    }
    match resource.key().as_str() {
        "pods" => entries.push(subresource("portforward", "PodPortForwardOptions", &["create", "get"])),
        "serviceaccounts" => {
            let mut token = subresource("token", "TokenRequest", &["create"]);
            (token["group"], token["version"]) = ("authentication.k8s.io".into(), "v1".into());
            entries.push(token);
        }
        _ => {}
    }
    entries
}
