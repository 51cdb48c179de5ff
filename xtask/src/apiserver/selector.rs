//! Label and field selectors of lists and watches.

use serde_json::Value;

use super::labels::{self, Requirement};
use super::resource::Resource;
use super::status::Refusal;
use super::store::Object;

/// What a request selects. Empty selects everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, bool, String)>,
}

impl Selector {
    /// Reads both selectors of a request. Refuses with 400 what does not parse and fields that the kind does not offer.
    pub(super) fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Selector, Refusal> {
        let labels = labels::parse(labels).map_err(Refusal::bad_request)?;
        let fields = fields
            .split(',')
            .filter(|term| !term.trim().is_empty())
            .map(|term| field_term(resource, term))
            .collect::<Result<_, _>>()
            .map_err(Refusal::bad_request)?;
        Ok(Selector { labels, fields })
    }

    /// Whether everything is selected: only then does a list count what remains.
    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object is selected.
    pub(super) fn matches(&self, object: &Object) -> bool {
        self.labels.iter().all(|requirement| requirement.matches(&object.labels))
            && self.fields.iter().all(|(name, equal, wanted)| {
                let value = match name.as_str() {
                    "metadata.name" => object.key.1.as_str(),
                    "metadata.namespace" => object.key.0.as_str(),
                    _ => object.fields.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value.as_str()),
                };
                (value == wanted) == *equal
            })
    }
}

fn field_term(resource: &Resource, term: &str) -> Result<(String, bool, String), String> {
    let (name, equal, value) = if let Some((name, value)) = term.split_once("!=") {
        (name, false, value)
    } else if let Some((name, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (name, true, value)
    } else {
        return Err(format!("invalid selector: '{term}'; can't understand '{term}'"));
    };
    let name = name.trim();
    let offered = offered(resource);
    let known = name == "metadata.name"
        || (name == "metadata.namespace" && resource.plural != "nodes")
        || offered.iter().any(|(field, _)| *field == name);
    match (known, offered.is_empty()) {
        (true, _) => Ok((name.to_owned(), equal, value.to_owned())),
        (false, true) => Err(format!("\"{name}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")),
        (false, false) => Err(format!("field label not supported: {name}")),
    }
}

/// The fields beside name and namespace that a kind can be selected by, with their JSON pointers.
fn offered(resource: &Resource) -> &'static [(&'static str, &'static str)] {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => &[
            ("spec.nodeName", "/spec/nodeName"),
            ("spec.restartPolicy", "/spec/restartPolicy"),
            ("spec.schedulerName", "/spec/schedulerName"),
            ("spec.serviceAccountName", "/spec/serviceAccountName"),
            ("spec.hostNetwork", "/spec/hostNetwork"),
            ("status.phase", "/status/phase"),
            ("status.podIP", "/status/podIP"),
            ("status.nominatedNodeName", "/status/nominatedNodeName"),
        ],
        ("", "namespaces") => &[("status.phase", "/status/phase")],
        ("", "nodes") => &[("spec.unschedulable", "/spec/unschedulable")],
        ("", "secrets") => &[("type", "/type")],
        ("", "services") => &[("spec.clusterIP", "/spec/clusterIP"), ("spec.type", "/spec/type")],
        ("events.k8s.io", "events") => &[
            ("regarding.kind", "/regarding/kind"),
            ("regarding.namespace", "/regarding/namespace"),
            ("regarding.name", "/regarding/name"),
            ("regarding.uid", "/regarding/uid"),
            ("reason", "/reason"),
            ("reportingController", "/reportingController"),
            ("type", "/type"),
        ],
        _ => &[],
    }
}

/// The values that field selectors compare. Booleans that are not set count as `false`, as Go's zero values do.
pub(super) fn fields_of(resource: &Resource, value: &Value) -> Vec<(&'static str, String)> {
    let shown = |(name, pointer): &(&'static str, &'static str)| {
        let shown = match value.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Bool(value)) => value.to_string(),
            _ if name.ends_with("hostNetwork") || name.ends_with("unschedulable") => "false".to_owned(),
            _ => String::new(),
        };
        (*name, shown)
    };
    offered(resource).iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::resource;
    use super::*;

    fn selects(labels: &str, fields: &str) -> Result<bool, String> {
        let pods = resource::builtin().into_iter().find(|resource| resource.plural == "pods").unwrap();
        let pod = json!({
            "metadata": {"namespace": "shop", "name": "web", "labels": {"app": "web", "weight": "7"}},
            "spec": {"nodeName": "n1"}, "status": {"phase": "Running"},
        });
        let object = Object::new(&pods, pod, 1);
        Selector::parse(&pods, labels, fields).map(|selector| selector.matches(&object)).map_err(|refusal| refusal.message)
    }

    #[test]
    fn every_operator_of_label_selectors() {
        for (selector, expected) in [
            ("", true),
            ("app", true),
            ("!app", false),
            ("!tier", true),
            ("app=web", true),
            ("app==db", false),
            ("app!=db,tier!=x", true),
            ("app in (db, web),weight>6", true),
            ("app notin (web)", false),
            ("tier notin (web)", true),
            ("weight<7", false),
        ] {
            assert_eq!(selects(selector, ""), Ok(expected), "{selector}");
        }
        for selector in ["app in web", "=x", "app=-x", "weight>many", "app,,tier"] {
            assert!(selects(selector, "").is_err(), "{selector}");
        }
    }

    #[test]
    fn fields_of_pods_and_those_they_do_not_have() {
        assert_eq!(selects("", "spec.nodeName=n1,status.phase!=Failed,metadata.namespace=shop"), Ok(true));
        assert_eq!(selects("", "spec.hostNetwork=false,metadata.name=web"), Ok(true));
        assert_eq!(selects("", "spec.nodeName=n2"), Ok(false));
        assert_eq!(selects("", "spec.priority=1"), Err("field label not supported: spec.priority".to_owned()));
    }
}
