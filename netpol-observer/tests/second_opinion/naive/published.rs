//! The naive evaluator on policy sets with expected verdicts of other projects: how we know that it is right.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use netpol_observer::policy::{Profile, Verdict};
use serde_json::Value;
use xtask::testing::{report, skipped};

use super::{Call, World, name_of, namespace_of, opinion, pod_ips};

#[test]
fn naive_evaluator_agrees_with_published_verdicts() {
    let Some(directory) = std::env::var_os("NETPOL_CONFORMANCE").map(PathBuf::from) else {
        skipped("naive_evaluator_agrees_with_published_verdicts", "NETPOL_CONFORMANCE does not name a directory of policy sets");
        return;
    };
    let (mut cases, mut queries) = (0, 0);
    let mut differences = Vec::new();
    for case in directories(&directory).iter().flat_map(|group| directories(group)) {
        cases += 1;
        let world = load(&case);
        for line in fs::read_to_string(case.join("expect.jsonl")).expect("expectations").lines().filter(|line| !line.is_empty()) {
            let query: Value = serde_json::from_str(line).expect("a query");
            queries += 1;
            let expected = match query["verdict"].as_str() {
                Some("allow") => Verdict::Allow,
                _ => Verdict::Deny,
            };
            for call in calls(&world, &query) {
                let verdict = opinion(&world, &call, &Profile::default()).verdict;
                if verdict != expected {
                    differences.push(format!("{}: {line}: {verdict:?}", case.display()));
                }
            }
        }
    }
    report(&format!("naive evaluator on published verdicts: {cases} cases, {queries} queries, {} differ", differences.len()));
    assert!(queries > 0, "no query found under {}", directory.display());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn directories(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

fn load(case: &Path) -> World {
    let mut world = World::default();
    for file in ["cluster.yaml", "policies.yaml"] {
        let text = fs::read_to_string(case.join("manifests").join(file)).unwrap_or_default();
        world.objects.extend(documents(&text));
    }
    if let Ok(names) = fs::read_to_string(case.join("dns.json")) {
        let names: BTreeMap<String, Vec<IpAddr>> = serde_json::from_str(&names).expect("names and addresses");
        world.names = names;
    }
    world
}

/// The objects of a text of several documents, as they are written.
pub(super) fn documents(text: &str) -> Vec<Value> {
    let parse = |document: &str| serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{error}: {document}"));
    text.split("\n---\n").filter(|document| !document.trim().is_empty()).map(parse).collect()
}

fn calls(world: &World, query: &Value) -> Vec<Call> {
    let ends = |end: &str| -> Vec<IpAddr> {
        let text = query[end].as_str().expect("an end");
        let Some((namespace, name)) = text.split_once('/') else { return vec![text.parse().expect("an address")] };
        let pod = world.of_kind("Pod").find(|pod| namespace_of(pod) == namespace && name_of(pod) == name);
        pod_ips(pod.unwrap_or_else(|| panic!("no pod {text}")))
    };
    let protocol = query["protocol"].as_str().and_then(|name| name.parse().ok()).expect("a protocol");
    let port = query["port"].as_u64().map(|port| u16::try_from(port).expect("a port"));
    let (sources, destinations) = (ends("from"), ends("to"));
    let pairs = sources.iter().flat_map(|source| destinations.iter().map(move |destination| (*source, *destination)));
    pairs
        .filter(|(source, destination)| source.is_ipv4() == destination.is_ipv4())
        .map(|(source, destination)| Call { source, destination, protocol, port })
        .collect()
}
