//! Whether a line of `observer tail -o json` says of a call what it should. The only place that knows the JSON's fields,
//! which `docs/json.md` describes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use crate::demo::steps::Denied;

/// A denied call with its addresses, as the kernel sees it.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// Who calls.
    pub(super) client: IpAddr,
    /// Who is called, after translation.
    pub(super) server: IpAddr,
    /// `TCP` or `UDP`.
    pub(super) protocol: &'static str,
    /// The rest.
    pub(super) denied: Denied,
}

impl Expected {
    /// Whether a line is the report of this call.
    pub(super) fn concerns(&self, line: &Value) -> bool {
        text(line, "/type") == Some("denial")
            && address(line, "/client/ip") == Some(self.client)
            && address(line, "/server/ip") == Some(self.server)
            && line.pointer("/server/port").and_then(Value::as_u64) == Some(self.denied.port.into())
            && text(line, "/protocol") == Some(self.protocol)
    }

    /// What a report of this call says otherwise than it should; empty when all is well.
    pub(super) fn differences(&self, line: &Value) -> Vec<String> {
        let denied = &self.denied;
        let mut differences = Vec::new();
        let mut compare = |what: &str, wanted: String, found: String| {
            if wanted != found {
                differences.push(format!("{what}: expected {wanted}, found {found}"));
            }
        };
        compare("class", denied.class.to_owned(), text(line, "/class").unwrap_or_default().to_owned());
        let directions: BTreeSet<&str> = strings(line.pointer("/directions")).collect();
        compare("directions", denied.directions.join(", "), join(&directions));
        let agreement = text(line, "/agreement/verdict").unwrap_or_default();
        if denied.class == "policyDenied" {
            compare("agreement", "agrees".to_owned(), agreement.to_owned());
            compare("policies", denied.policies.join(", "), join(&policies(line, denied.directions)));
            let nearest = nearest_conditions(line, denied.directions);
            if denied.misses.is_empty() != nearest.is_empty() || !denied.misses.iter().all(|miss| nearest.contains(miss)) {
                compare("nearest rule misses", denied.misses.join(", "), join(&nearest));
            }
        } else if agreement == "agrees" {
            compare("agreement", "no policy blamed".to_owned(), agreement.to_owned());
        }
        if let Some(service) = denied.service {
            let found =
                format!("{}/{}", text(line, "/service/namespace").unwrap_or_default(), text(line, "/service/name").unwrap_or_default());
            compare("Service", service.to_owned(), found);
        }
        differences
    }
}

/// Whether a line blames policies.
pub(super) fn blames_policies(line: &Value) -> bool {
    text(line, "/type") == Some("denial") && text(line, "/class") == Some("policyDenied")
}

/// Whether a line comes from one of these network namespaces, or does not tell.
pub(super) fn is_from(line: &Value, namespaces: &[u64]) -> bool {
    line.pointer("/kernel/netns").and_then(Value::as_u64).is_none_or(|netns| namespaces.contains(&netns))
}

/// Who called whom, for messages.
pub(super) fn describe(line: &Value) -> String {
    let party = |side: &str| {
        let ip = text(line, &format!("/{side}/ip")).unwrap_or("?").to_owned();
        match (text(line, &format!("/{side}/namespace")), text(line, &format!("/{side}/name"))) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name} ({ip})"),
            _ => ip,
        }
    };
    let port = line.pointer("/server/port").map(Value::to_string).unwrap_or_default();
    format!("{} → {}:{port}/{}", party("client"), party("server"), text(line, "/protocol").unwrap_or("?"))
}

/// The last account of the run: a sentence, and whether it adds up.
pub(super) fn ledger(lines: &[Value]) -> Option<(String, bool)> {
    let line = lines.iter().rev().find(|line| text(line, "/type") == Some("ledger"))?;
    let number = |pointer: &str| line.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let summary = format!(
        "the kernel saw {} drops: {} reported, {} folded, {} lost; of these {} shown, {} repeats, {} elsewhere on this machine, {} noise",
        number("/kernel/seen"),
        number("/kernel/reported"),
        number("/kernel/folded"),
        number("/kernel/ringFull"),
        number("/shown"),
        number("/repeats"),
        number("/elsewhere"),
        number("/noise"),
    );
    Some((summary, line.pointer("/balanced") == Some(&Value::Bool(true))))
}

fn text<'a>(line: &'a Value, pointer: &str) -> Option<&'a str> {
    line.pointer(pointer).and_then(Value::as_str)
}

fn address(line: &Value, pointer: &str) -> Option<IpAddr> {
    text(line, pointer)?.parse().ok()
}

fn strings(value: Option<&Value>) -> impl Iterator<Item = &str> {
    items(value).filter_map(Value::as_str)
}

fn items(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

fn join<T: AsRef<str>>(set: &BTreeSet<T>) -> String {
    set.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

/// Policies that isolate in these directions.
fn policies(line: &Value, directions: &[&str]) -> BTreeSet<String> {
    let isolating = directions.iter().flat_map(|direction| items(line.pointer(&format!("/explanation/{direction}/isolating"))));
    isolating.filter_map(|entry| Some(format!("{}/{}", text(entry, "/policy/namespace")?, text(entry, "/policy/name")?))).collect()
}

/// Conditions the nearest rule of each of these directions misses.
fn nearest_conditions<'a>(line: &'a Value, directions: &[&str]) -> BTreeSet<&'a str> {
    let nearest = directions.iter().filter_map(|direction| line.pointer(&format!("/explanation/{direction}/nearest/0")));
    nearest
        .flat_map(|rule| items(rule.get("peer")).chain(items(rule.pointer("/port/failed"))))
        .filter_map(|condition| text(condition, "/condition"))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn expected() -> Expected {
        Expected {
            client: "10.244.1.11".parse().unwrap(),
            server: "10.244.1.20".parse().unwrap(),
            protocol: "TCP",
            denied: Denied {
                class: "policyDenied",
                server: "shop/api",
                port: 8080,
                directions: &["ingress"],
                policies: &["shop/api", "shop/default-deny"],
                misses: &["podLabel"],
                service: Some("shop/api"),
            },
        }
    }

    fn report() -> Value {
        json!({
            "type": "denial", "class": "policyDenied", "directions": ["ingress"], "agreement": {"verdict": "agrees"},
            "client": {"ip": "10.244.1.11", "port": 40000}, "server": {"ip": "10.244.1.20", "port": 8080}, "protocol": "TCP",
            "service": {"namespace": "shop", "name": "api"}, "kernel": {"netns": 7},
            "explanation": {
                "egress": {"outcome": "notIsolated"},
                "ingress": {
                    "outcome": "denied",
                    "isolating": [
                        {"policy": {"namespace": "shop", "name": "default-deny"}}, {"policy": {"namespace": "shop", "name": "api"}}
                    ],
                    "nearest": [{"peer": [{"condition": "podLabel"}]}, {"peer": [{"condition": "namespaceLabel"}]}]
                }
            }
        })
    }

    #[test]
    fn a_right_report_has_no_differences() {
        assert!(expected().concerns(&report()));
        assert_eq!(expected().differences(&report()), Vec::<String>::new());
        assert!(blames_policies(&report()) && is_from(&report(), &[7]) && !is_from(&report(), &[8]));
    }

    #[test]
    fn each_wrong_field_is_a_difference() {
        for (pointer, wrong, what) in [
            ("/class", json!("hostFirewall"), "class"),
            ("/directions", json!(["egress", "ingress"]), "directions"),
            ("/agreement/verdict", json!("policiesAllow"), "agreement"),
            ("/explanation/ingress/isolating/1/policy/name", json!("other"), "policies"),
            ("/explanation/ingress/nearest/0/peer/0/condition", json!("namespaceLabel"), "nearest"),
            ("/explanation/ingress/nearest", json!([]), "nearest"),
            ("/service/name", json!("web"), "Service"),
        ] {
            let mut line = report();
            *line.pointer_mut(pointer).unwrap() = wrong;
            let differences = expected().differences(&line);
            assert_eq!(differences.len(), 1, "{pointer}: {differences:?}");
            assert!(differences[0].starts_with(what), "{differences:?}");
        }
    }

    #[test]
    fn other_calls_are_not_this_one() {
        for (pointer, other) in [
            ("/type", json!("repeat")),
            ("/client/ip", json!("10.244.1.10")),
            ("/server/ip", json!("10.244.1.21")),
            ("/server/port", json!(9090)),
            ("/protocol", json!("UDP")),
        ] {
            let mut line = report();
            *line.pointer_mut(pointer).unwrap() = other;
            assert!(!expected().concerns(&line), "{pointer}");
        }
    }
}
