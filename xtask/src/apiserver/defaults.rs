//! What the API server fills into objects of the kinds that matter here, and fields that it refuses.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::event;
use super::resource::Resource;
use super::status::Cause;
use super::write::seconds;

/// Fills in defaults. They are those that readers can observe, not all.
pub(super) fn fill(resource: &Resource, value: &mut Value, now: Timestamp) {
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    match resource.key().as_str() {
        "namespaces" => {
            value["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
            default(value, &["spec", "finalizers"], json!(["kubernetes"]));
            default(value, &["status", "phase"], "Active".into());
        }
        "pods" => {
            default(value, &["spec", "restartPolicy"], "Always".into());
            default(value, &["spec", "terminationGracePeriodSeconds"], 30.into());
            default(value, &["spec", "serviceAccountName"], "default".into());
            default(value, &["spec", "schedulerName"], "default-scheduler".into());
            default(value, &["status", "phase"], "Pending".into());
            for container in value["spec"]["containers"].as_array_mut().into_iter().flatten() {
                container.get_mut("ports").map(fill_protocols);
            }
        }
        "services" => {
            default(value, &["spec", "type"], "ClusterIP".into());
            value["spec"].get_mut("ports").map(fill_protocols);
        }
        "endpointslices.discovery.k8s.io" => {
            value.get_mut("ports").map(fill_protocols);
        }
        "networkpolicies.networking.k8s.io" => {
            let egress = value["spec"]["egress"].as_array().is_some_and(|rules| !rules.is_empty());
            default(value, &["spec", "policyTypes"], if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
            for direction in ["ingress", "egress"] {
                for rule in value["spec"][direction].as_array_mut().into_iter().flatten() {
                    rule.get_mut("ports").map(fill_protocols);
                }
                if value["spec"][direction].is_null() {
                    value["spec"].as_object_mut().map(|spec| spec.remove(direction));
                }
            }
        }
        "customresourcedefinitions.apiextensions.k8s.io" => fill_definition(value, now),
        _ => {}
    }
}

/// A definition is established as soon as it is there: readers see what a moment later a real one shows.
fn fill_definition(value: &mut Value, now: Timestamp) {
    if let (Some(kind), names) = (value["spec"]["names"]["kind"].as_str().map(str::to_owned), &mut value["spec"]["names"]) {
        default(names, &["singular"], kind.to_lowercase().into());
        default(names, &["listKind"], format!("{kind}List").into());
    }
    if value["status"]["conditions"].is_array() {
        return;
    }
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": seconds(now)});
    let stored: Vec<Value> = value["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .collect();
    value["status"] = json!({
        "acceptedNames": value["spec"]["names"],
        "storedVersions": stored,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
    });
}

fn default(value: &mut Value, path: &[&str], wanted: Value) {
    let mut at = value;
    for name in path {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[*name];
    }
    if at.is_null() {
        *at = wanted;
    }
}

fn fill_protocols(ports: &mut Value) {
    for port in ports.as_array_mut().into_iter().flatten() {
        default(port, &["protocol"], "TCP".into());
    }
}

/// Validation of the kinds that the project writes, and of definitions, without which nothing could be served.
pub(super) fn refused(resource: &Resource, value: &Value) -> Vec<Cause> {
    match resource.key().as_str() {
        "events.events.k8s.io" => event::refused(value),
        "customresourcedefinitions.apiextensions.k8s.io" => refused_definition(value),
        "pods" if value["spec"]["containers"].as_array().is_none_or(Vec::is_empty) => vec![Cause::required("spec.containers", "")],
        _ => Vec::new(),
    }
}

/// What Go's decoder says of an object that it cannot read, of what matters here.
pub(super) fn undecodable(resource: &Resource, value: &Value) -> Option<String> {
    if resource.key() == "events.events.k8s.io" { event::unreadable_time(value) } else { None }
}

/// The group that a refusal names. Events are validated as those of the core group.
pub(super) fn validated_group(resource: &Resource) -> &str {
    if resource.key() == "events.events.k8s.io" { "" } else { &resource.group }
}

/// The same for a change. Of an Event hardly anything may change.
pub(super) fn refused_change(resource: &Resource, before: &Value, after: &Value) -> Vec<Cause> {
    match resource.key().as_str() {
        "events.events.k8s.io" => event::refused_change(before, after),
        _ => refused(resource, after),
    }
}

fn refused_definition(definition: &Value) -> Vec<Cause> {
    let spec = &definition["spec"];
    let mut causes = Vec::new();
    let mut require = |value: &Value, path: &str| {
        if value.as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(path, ""));
        }
    };
    require(&spec["group"], "spec.group");
    require(&spec["scope"], "spec.scope");
    require(&spec["names"]["plural"], "spec.names.plural");
    require(&spec["names"]["kind"], "spec.names.kind");
    let name = definition["metadata"]["name"].as_str().unwrap_or_default();
    let expected = format!("{}.{}", spec["names"]["plural"].as_str().unwrap_or_default(), spec["group"].as_str().unwrap_or_default());
    if name != expected {
        causes.push(Cause::invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group"));
    }
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let message = "Invalid value: must have exactly one version marked as storage version".to_owned();
        causes.push(Cause { reason: "FieldValueInvalid", field: "spec.versions".to_owned(), message });
    }
    for (index, version) in versions.iter().enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            causes.push(Cause::required(&format!("spec.versions[{index}].schema.openAPIV3Schema"), "schemas are required"));
        }
    }
    causes
}
