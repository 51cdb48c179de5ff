//! What policies mean, as data: `tests/cases/<name>` holds `cluster.yaml`, `policies.yaml` (its first lines say the sentence of the
//! API it follows from) and `expect.jsonl`, a query and its verdict per line.

use std::path::{Path, PathBuf};

mod explanations;
mod queries;

use queries::{Query, load_engine};

/// Fewer would mean that the directory was not found, or that cases were lost.
const AT_LEAST: usize = 50;

#[test]
fn every_case_has_the_verdicts_it_expects() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= AT_LEAST, "only {} cases in {}", cases.len(), directory.display());
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
