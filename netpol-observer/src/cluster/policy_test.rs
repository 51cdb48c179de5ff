//! `PolicyTest`: what people expect of connections, as a document beside the manifests.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::Origin;

/// `apiVersion`
pub const API_VERSION: &str = "netpol-observer.io/v1alpha1";

/// `kind`
pub const KIND: &str = "PolicyTest";

/// Policy tests: connections that must be admitted, and connections that must not be.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct PolicyTest {
    /// netpol-observer.io/v1alpha1
    #[schemars(extend("const" = API_VERSION))]
    pub api_version: String,
    /// PolicyTest
    #[schemars(extend("const" = KIND))]
    pub kind: String,
    /// The name of the suite, for reports. The file's name where there is none.
    #[serde(default)]
    pub metadata: Metadata,
    /// The namespace of names that are given without one.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The tests, in the order in which they are reported.
    pub tests: Vec<Test>,
}

/// `metadata`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The name of the suite.
    #[serde(default)]
    pub name: Option<String>,
}

/// One test: all connections that it speaks of must be as expected.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Test {
    /// What the test is called in reports.
    #[serde(default)]
    pub name: Option<String>,
    /// Who opens the connection: namespace/pod, namespace/deploy/name (also sts, ds, job, cronjob, rs, svc), namespace/label=value, node/name, an IP
    /// address or a range of addresses outside the cluster; with * in place of names for all that match, such as team-a/* for all workloads of a
    /// namespace. A list stands for all of its items.
    pub from: Texts,
    /// Who is called: as in `from`, where svc/name is the Service by its name; or a URL such as http://api.shop:8080/.
    pub to: Texts,
    /// The port called: 8080, 53/UDP, 8000-8100, or a list of these. Without it every port of TCP, UDP and SCTP is meant; of a Service its only port.
    #[serde(default)]
    pub port: Ports,
    /// What must come of every one of the connections.
    pub expect: Expect,
    /// The policy that must be the one that decides: a NetworkPolicy as namespace/name, a cluster-scoped policy by its name. Of a list any.
    #[serde(default)]
    pub by: Texts,
    /// Connections that this test does not speak of.
    #[serde(default)]
    pub except: Vec<Exception>,
}

/// Connections that a test does not speak of: those that fit all fields that are given.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Exception {
    /// As in a test; left out: whoever calls.
    #[serde(default)]
    pub from: Texts,
    /// As in a test, but no URL and no Service; left out: whoever is called.
    #[serde(default)]
    pub to: Texts,
    /// As in a test; left out: every port.
    #[serde(default)]
    pub port: Ports,
}

/// What a test expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// Every connection is admitted.
    Allow,
    /// None is.
    Deny,
}

/// As in messages: `allow`, `deny`.
impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Expect::Allow => "allow",
            Expect::Deny => "deny",
        })
    }
}

/// One text, or a list of texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts(pub Vec<String>);

/// Ports as they are written: a number, a text, or a list of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(pub Vec<String>);

/// Reads one item or a list of items.
struct OneOrMany {
    expected: &'static str,
    takes_numbers: bool,
}

impl<'de> Visitor<'de> for OneOrMany {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<String>, E> {
        Ok(vec![text.to_owned()])
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Vec<String>, E> {
        if self.takes_numbers { Ok(vec![number.to_string()]) } else { Err(E::invalid_type(de::Unexpected::Unsigned(number), &self)) }
    }

    fn visit_unit<E: de::Error>(self) -> Result<Vec<String>, E> {
        Ok(Vec::new())
    }

    fn visit_none<E: de::Error>(self) -> Result<Vec<String>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<String>, A::Error> {
        let mut texts = Vec::new();
        if self.takes_numbers {
            while let Some(Ports(item)) = items.next_element()? {
                texts.extend(item);
            }
        } else {
            while let Some(item) = items.next_element()? {
                texts.push(item);
            }
        }
        Ok(texts)
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMany { expected: "a text or a list of texts", takes_numbers: false }).map(Texts)
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a port such as 8080, 53/UDP or 8000-8100, or a list of ports";
        deserializer.deserialize_any(OneOrMany { expected, takes_numbers: true }).map(Ports)
    }
}

impl JsonSchema for Texts {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Texts".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "string", "minLength": 1}}]})
    }
}

impl JsonSchema for Ports {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ports".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let port = serde_json::json!({"anyOf": [
            {"type": "integer", "minimum": 1, "maximum": 65535},
            {"type": "string", "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?(/([Tt][Cc][Pp]|[Uu][Dd][Pp]|[Ss][Cc][Tt][Pp]))?$|^([Tt][Cc][Pp]|[Uu][Dd][Pp]|[Ss][Cc][Tt][Pp]|ICMP|ICMPv6)$"},
        ]});
        json_schema!({"anyOf": [port.clone(), {"type": "array", "items": port}]})
    }
}

/// A document with where it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct TestDocument {
    /// The document.
    pub document: PolicyTest,
    /// Where it begins.
    pub origin: Origin,
    /// The line on which each of its tests begins.
    pub lines: Vec<u32>,
}

/// The JSON Schema (draft 2020-12) of [`PolicyTest`], for editors.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(PolicyTest);
    schema.insert("$id".into(), "https://netpol-observer.io/schema/policy-test.schema.json".into());
    schema.to_value()
}
