//! What the program is made of: an SPDX 2.3 document of the crates in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde_json::{Value, json};
use xtask::command::output;

use super::platform::Platform;
use crate::cargo;

/// Of the crates that the observer is built from, by Cargo.lock.
pub(super) fn of(root: &Path, platform: Platform, created: i64) -> Result<Value> {
    let mut command = cargo(root);
    command.args(["metadata", "--locked", "--format-version", "1", "--filter-platform", platform.target()]);
    let metadata: Value = serde_json::from_str(&output(&mut command)?).context("cargo metadata gave no JSON")?;
    document(&metadata, created)
}

fn document(metadata: &Value, created: i64) -> Result<Value> {
    let packages = list(&metadata["packages"]);
    let by_id: BTreeMap<&str, &Value> = packages.iter().map(|package| (text(&package["id"]), package)).collect();
    let needs: BTreeMap<&str, Vec<&str>> =
        list(&metadata["resolve"]["nodes"]).iter().map(|node| (text(&node["id"]), needed(node))).collect();
    let own = packages.iter().find(|package| package["name"] == "netpol-observer").context("cargo metadata knows no netpol-observer")?;
    let (mut found, mut next) = (BTreeSet::new(), vec![text(&own["id"])]);
    while let Some(id) = next.pop() {
        if found.insert(id) {
            next.extend(needs.get(id).into_iter().flatten().copied());
        }
    }
    let mut entries: Vec<Value> = found.iter().filter_map(|id| by_id.get(id)).map(|package| entry(package)).collect();
    entries.sort_by_key(|entry| text(&entry["SPDXID"]).to_owned());
    let own = text(&entry(own)["SPDXID"]).to_owned();
    let contains = entries.iter().filter(|entry| entry["SPDXID"] != *own);
    let relation = |kind: &str, from: &str, to: &str| json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to});
    let relations = contains.map(|entry| relation("CONTAINS", &own, text(&entry["SPDXID"])));
    let relations: Vec<Value> = std::iter::once(relation("DESCRIBES", "SPDXRef-DOCUMENT", &own)).chain(relations).collect();
    let created = Timestamp::from_second(created).context("the time of the sources is no time")?.to_string();
    let version = env!("CARGO_PKG_VERSION");
    Ok(json!({
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": format!("netpol-observer-{version}"),
        "documentNamespace": format!("https://spdx.org/spdxdocs/netpol-observer-{version}-{created}"),
        "creationInfo": {"created": created, "creators": ["Tool: cargo-xtask-image"]},
        "packages": entries, "relationships": relations,
    }))
}

/// What goes into the program: no build scripts' and no tests' crates.
fn needed(node: &Value) -> Vec<&str> {
    let is_linked = |dependency: &&Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
    list(&node["deps"]).iter().filter(is_linked).map(|dependency| text(&dependency["pkg"])).collect()
}

fn entry(package: &Value) -> Value {
    let (name, version) = (text(&package["name"]), text(&package["version"]));
    let is_of_registry = package["source"].is_string();
    let location =
        if is_of_registry { format!("https://crates.io/api/v1/crates/{name}/{version}/download") } else { "NOASSERTION".to_owned() };
    // crates.io still holds some of the time when "/" stood for "OR".
    let license = package["license"].as_str().map_or_else(|| "NOASSERTION".to_owned(), |license| license.replace('/', " OR "));
    json!({
        "SPDXID": format!("SPDXRef-{}-{}", name.replace('_', "-"), version.replace('+', "-")),
        "name": name, "versionInfo": version, "downloadLocation": location, "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION", "licenseDeclared": license, "copyrightText": "NOASSERTION",
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": format!("pkg:cargo/{name}@{version}")}],
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_and_nothing_else() {
        let package = |name: &str, source: Option<&str>| json!({"id": name, "name": name, "version": "1.0.0", "source": source, "license": "MIT/Apache-2.0"});
        let dependency = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [package("netpol-observer", None), package("a", Some("registry")), package("b_c", Some("registry")), package("build", Some("registry"))],
            "resolve": {"nodes": [
                {"id": "netpol-observer", "deps": [dependency("a", Value::Null), dependency("build", json!("build"))]},
                {"id": "a", "deps": [dependency("b_c", Value::Null), dependency("netpol-observer", json!("dev"))]},
                {"id": "b_c", "deps": []}, {"id": "build", "deps": []},
            ]},
        });
        let document = document(&metadata, 0).unwrap();
        let names: Vec<&str> = list(&document["packages"]).iter().map(|package| text(&package["name"])).collect();
        assert_eq!(names, ["a", "b_c", "netpol-observer"]);
        assert_eq!(document["packages"][1]["licenseDeclared"], "MIT OR Apache-2.0");
        assert_eq!(document["packages"][0]["externalRefs"][0]["referenceLocator"], "pkg:cargo/a@1.0.0");
        assert_eq!(list(&document["relationships"]).len(), 3);
    }
}
