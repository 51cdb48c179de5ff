//! The engine on policy sets with expected verdicts from other projects' own tests.
//!
//! They lie outside the repository: `NETPOL_CONFORMANCE` names the directory. Per case `manifests/cluster.yaml`, perhaps
//! `manifests/policies.yaml`, and `expect.jsonl` with a query and its verdict per line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mod queries;

use netpol_observer::cluster::domain_names::parse_domain_names;
use queries::{Query, load_engine};
use xtask::testing::{report, skipped};

#[derive(Default)]
struct Tally {
    cases: usize,
    queries: usize,
    agree: usize,
}

impl Tally {
    fn line(&self, group: &str) -> String {
        let Tally { cases, queries, agree } = self;
        format!("{group:<28} {cases:>6} {queries:>8} {agree:>8} {:>8}\n", queries - agree)
    }
}

#[test]
fn published_verdicts() {
    let Some(directory) = std::env::var_os("NETPOL_CONFORMANCE").map(PathBuf::from) else {
        skipped("published_verdicts", "NETPOL_CONFORMANCE does not name a directory of policy sets, so none of them was run");
        return;
    };
    let mut groups: BTreeMap<String, Tally> = BTreeMap::new();
    let mut differences = Vec::new();
    for group in subdirectories(&directory) {
        let tally = groups.entry(group.file_name().unwrap().to_string_lossy().into_owned()).or_default();
        for case in subdirectories(&group) {
            run(&case, tally, &mut differences);
        }
    }
    let mut table = format!("{:<28} {:>6} {:>8} {:>8} {:>8}\n", "group", "cases", "queries", "agree", "differ");
    let mut total = Tally::default();
    for (group, tally) in &groups {
        table.push_str(&tally.line(group));
        total.cases += tally.cases;
        total.queries += tally.queries;
        total.agree += tally.agree;
    }
    table.push_str(&total.line("all"));
    report(&table);
    assert!(total.queries > 0, "no query found under {}", directory.display());
    assert!(
        differences.is_empty(),
        "{} differences, the first ones:\n{}",
        differences.len(),
        differences[..differences.len().min(10)].join("\n")
    );
}

fn run(case: &Path, tally: &mut Tally, differences: &mut Vec<String>) {
    let manifests = case.join("manifests");
    let mut engine = load_engine(&manifests);
    if let Ok(text) = std::fs::read_to_string(case.join("dns.json")) {
        let names = parse_domain_names(&text).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        names.into_iter().for_each(|name| engine.apply(name));
    }
    tally.cases += 1;
    for query in Query::read(&case.join("expect.jsonl")) {
        tally.queries += 1;
        match query.check(&engine) {
            Ok(()) => tally.agree += 1,
            Err(difference) => differences.push(format!("{}: {difference}", case.display())),
        }
    }
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}
