//! What policies mean, as data: `tests/cases/<name>` holds `cluster.yaml`, `policies.yaml` (its first lines say the sentence of the
//! API it follows from) and `expect.jsonl`, a query and its verdict per line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

mod explanations;
mod queries;

use netpol_observer::cluster::Pod;
use netpol_observer::identify::{Identity, Party};
use netpol_observer::policy::{Connection, Verdict};
use queries::{Query, load_engine};

/// Fewer would mean that the directory was not found, or that cases were lost.
const AT_LEAST: usize = 50;

fn cases() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= AT_LEAST, "only {} cases in {}", cases.len(), directory.display());
    cases
}

/// What is worked out for everybody at once is what is answered one by one: on every interval of ports, between any two pods.
#[test]
fn reachability_is_all_verdicts_together() {
    let mut compared = 0;
    for case in cases() {
        let engine = load_engine(&case);
        let reachability = engine.reachability();
        // A pod with several addresses is in several groups; which of them a party means shows in its address only.
        let pods = || reachability.groups().iter().enumerate().flat_map(|(at, group)| group.pods.iter().map(move |pod| (at, pod)));
        let pods = || pods().filter(|(_, pod)| pod.ips.len() == 1 && engine.index().pods_at(pod.ips[0]).len() == 1);
        for ((from, source), (to, destination)) in pods().flat_map(|source| pods().map(move |destination| (source, destination))) {
            if Arc::ptr_eq(source, destination) {
                continue;
            }
            for ports in reachability.ports() {
                for port in [ports.from, ports.to] {
                    let party = |pod: &Arc<Pod>| Party { ip: pod.ips[0], identity: Identity::Pod(pod.clone()) };
                    let connection = Connection {
                        source: party(source),
                        destination: party(destination),
                        protocol: ports.protocol,
                        port: Some(port),
                        service: None,
                    };
                    let admits = reachability.admits(from, to, ports.protocol, port);
                    let explained = engine.explain(&connection).verdict;
                    assert_eq!(admits, explained == Verdict::Allow, "{}: {connection:?}", case.display());
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 1000, "only {compared} answers were compared");
}

#[test]
fn every_case_has_the_verdicts_it_expects() {
    let cases = cases();
    let mut problems = Vec::new();
    for case in &cases {
        let name = case.file_name().unwrap().to_string_lossy();
        for file in ["cluster.yaml", "policies.yaml", "expect.jsonl"] {
            assert!(case.join(file).is_file(), "{name}: no {file}");
        }
        let engine = load_engine(case);
        let queries = Query::read(&case.join("expect.jsonl"));
        assert!(!queries.is_empty(), "{name}: expect.jsonl expects nothing");
        problems.extend(queries.iter().filter_map(|query| query.check(&engine).err()).map(|difference| format!("{name}: {difference}")));
    }
    assert!(problems.is_empty(), "{} differences:\n{}", problems.len(), problems.join("\n"));
}
