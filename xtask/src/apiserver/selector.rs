//! Label and field selectors of lists and watches.

use std::collections::BTreeMap;

use serde_json::Value;

use super::resource::Resource;
use super::status::Refusal;
use super::store::Object;

/// What a request selects. Empty selects everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, bool, String)>,
}

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Exists,
    Missing,
    In(Vec<String>),
    /// Also true for objects without the label.
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

impl Selector {
    /// Reads both selectors of a request. Refuses with 400 what does not parse and fields that the kind does not offer.
    pub(super) fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Selector, Refusal> {
        let labels =
            split_outside_parentheses(labels).into_iter().map(requirement).collect::<Result<_, _>>().map_err(Refusal::bad_request)?;
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

impl Requirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Missing => value.is_none(),
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Test::Greater(than) => number().is_some_and(|number| number > *than),
            Test::Less(than) => number().is_some_and(|number| number < *than),
        }
    }
}

fn split_outside_parentheses(selector: &str) -> Vec<&str> {
    let (mut depth, mut start, mut terms) = (0_i32, 0, Vec::new());
    for (at, character) in selector.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                terms.push(&selector[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&selector[start..]);
    if terms.len() == 1 && terms[0].trim().is_empty() { Vec::new() } else { terms }
}

fn requirement(term: &str) -> Result<Requirement, String> {
    let unparsed = |why: String| format!("unable to parse requirement: {why}");
    let term = term.trim();
    let set = |key: &str, values: &str| -> Result<(String, Vec<String>), String> {
        let values = values.trim().strip_prefix('(').and_then(|values| values.strip_suffix(')'));
        let values = values.ok_or_else(|| unparsed(format!("found '{term}', expected: '('")))?;
        Ok((label_key(key)?, values.split(',').map(|value| label_value(value.trim())).collect::<Result<_, _>>()?))
    };
    let numbers = |key: &str, value: &str| -> Result<(String, i64), String> {
        let number = value.trim().parse().map_err(|_| {
            unparsed(format!(
                "values[0][{}]: Invalid value: \"{}\": for 'Gt', 'Lt' operators, the value must be an integer",
                key.trim(),
                value.trim()
            ))
        })?;
        Ok((label_key(key)?, number))
    };
    let (key, test) = if let Some(key) = term.strip_prefix('!') {
        (label_key(key)?, Test::Missing)
    } else if let Some((key, value)) = term.split_once("!=") {
        (label_key(key)?, Test::NotIn(vec![label_value(value.trim())?]))
    } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (label_key(key)?, Test::In(vec![label_value(value.trim())?]))
    } else if let Some((key, values)) =
        term.split_once(" notin ").or_else(|| term.split_once(" notin(").map(|(key, _)| (key, &term[key.len() + 6..])))
    {
        let (key, values) = set(key, values)?;
        (key, Test::NotIn(values))
    } else if let Some((key, values)) =
        term.split_once(" in ").or_else(|| term.split_once(" in(").map(|(key, _)| (key, &term[key.len() + 3..])))
    {
        let (key, values) = set(key, values)?;
        (key, Test::In(values))
    } else if let Some((key, value)) = term.split_once('>') {
        let (key, number) = numbers(key, value)?;
        (key, Test::Greater(number))
    } else if let Some((key, value)) = term.split_once('<') {
        let (key, number) = numbers(key, value)?;
        (key, Test::Less(number))
    } else {
        (label_key(term)?, Test::Exists)
    };
    Ok(Requirement { key, test })
}

fn label_key(key: &str) -> Result<String, String> {
    let key = key.trim();
    let name = key.split_once('/').map_or(key, |(_, name)| name);
    if is_label_value(name) && !name.is_empty() {
        return Ok(key.to_owned());
    }
    Err(format!(
        "unable to parse requirement: <nil>: Invalid value: \"{key}\": name part must consist of alphanumeric characters, '-', '_' or '.', and \
         must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
         '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
    ))
}

fn label_value(value: &str) -> Result<String, String> {
    if is_label_value(value) {
        return Ok(value.to_owned());
    }
    Err(format!(
        "unable to parse requirement: values[0]: Invalid value: \"{value}\": a valid label must be an empty string or consist of alphanumeric \
         characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
         used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
    ))
}

/// Whether text can be a label's value: at most 63 characters, alphanumeric at both ends.
pub(super) fn is_label_value(value: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = [value.as_bytes().first(), value.as_bytes().last()];
    value.len() <= 63 && value.bytes().all(inner) && ends.into_iter().flatten().all(u8::is_ascii_alphanumeric)
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
