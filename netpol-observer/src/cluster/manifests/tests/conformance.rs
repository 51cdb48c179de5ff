//! The manifests of a directory of policy sets, where there is one: `NETPOL_CONFORMANCE` names it.

use super::*;
use crate::cluster::domain_names::parse_domain_names;

/// What the sets hold besides the kinds that are read.
const OTHER_KINDS: [&str; 1] = ["apps/v1 Deployment"];

#[test]
fn every_policy_set_is_read() {
    let Some(root) = std::env::var_os("NETPOL_CONFORMANCE") else {
        xtask::testing::skipped("every_policy_set_is_read", "NETPOL_CONFORMANCE does not name a directory of policy sets");
        return;
    };
    let mut sets = 0;
    let mut objects = 0;
    for group in subdirectories(Path::new(&root)) {
        for case in subdirectories(&group) {
            let loaded = load(&[case.join("manifests")], &mut std::io::empty()).unwrap_or_else(|errors| panic!("{errors}"));
            let unexpected: Vec<_> = loaded.skipped.keys().filter(|kind| !OTHER_KINDS.contains(&kind.as_str())).collect();
            assert!(unexpected.is_empty(), "{}: {unexpected:?}", case.display());
            for warning in &loaded.warnings {
                println!("{warning}");
            }
            let names = case.join("dns.json");
            if names.exists() {
                let text = std::fs::read_to_string(&names).expect("a file");
                let found = parse_domain_names(&text).unwrap_or_else(|error| panic!("{}: {error}", names.display()));
                assert!(!found.is_empty(), "{}", names.display());
            }
            sets += 1;
            objects += loaded.objects.len();
        }
    }
    assert!(sets > 0, "no policy sets in {}", Path::new(&root).display());
    println!("{sets} policy sets, {objects} objects");
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect();
    paths.sort();
    paths
}
