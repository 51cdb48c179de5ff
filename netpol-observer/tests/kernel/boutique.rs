//! The boutique of the examples on the running kernel: every connection among one pod of each workload and some hosts outside is opened for real, under
//! firewall rules that were written by hand from the meaning of the policies (deploy/examples/boutique/enforce.nft), and `observer check`, which reads
//! the policies themselves, has to say the same of each.

mod calls;
mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use xtask::command::is_root;
use xtask::machine::Machine;
use xtask::netns::required_tools;
use xtask::testing::{report, skipped};

use crate::support::is_slow;
use stage::{Connection, Stage};

const TEST: &str = "boutique::the_kernel_and_the_policies_agree_on_every_connection";

/// Where the boutique is.
fn boutique() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/boutique")
}

#[test]
fn the_kernel_and_the_policies_agree_on_every_connection() {
    if is_slow() {
        return skipped(TEST, "guests do not have the examples");
    }
    if !is_root() || !required_tools().is_empty() {
        return skipped(TEST, "needs root, iproute2 and nftables");
    }
    let _machine = Machine::take().unwrap();
    let stage = Stage::build(&boutique());
    let connections = stage.connections();
    let admitted = calls::open(&stage, &connections);
    let denied = connections.len() - admitted.len();
    report(&format!("boutique: {} connections opened, {} admitted and {denied} dropped by the kernel", connections.len(), admitted.len()));
    assert!(admitted.len() >= 150 && denied >= 1000, "{} admitted, {denied} denied", admitted.len());

    let said = verdicts(&boutique(), &connections);
    let differ = differences(&connections, &admitted, &said);
    assert!(differ.is_empty(), "the kernel and the policies differ on {}:\n{}", differ.len(), differ.join("\n"));

    // The comparison sees one wrong number in one policy.
    let directory = tempfile::TempDir::new().unwrap();
    let status = Command::new("cp").arg("-r").arg(boutique()).arg(directory.path().join("boutique")).status().unwrap();
    assert!(status.success());
    let file = directory.path().join("boutique/policies/storefront.yaml");
    let policies = std::fs::read_to_string(&file).unwrap();
    assert_eq!(policies.matches("port: 7000").count(), 1);
    std::fs::write(&file, policies.replace("port: 7000", "port: 7001")).unwrap();
    let said = verdicts(&directory.path().join("boutique"), &connections);
    let wrong: BTreeSet<String> = differences(&connections, &admitted, &said).into_iter().collect();
    let expected = ["checkout", "frontend"]
        .map(|caller| format!("boutique/deploy/{caller} to boutique/deploy/currency:7000/TCP: the kernel admits it, the policies deny it"));
    assert_eq!(wrong, BTreeSet::from(expected));
}

/// Which of the connections the real program says the policies admit: it is asked by a policy test for each.
fn verdicts(directory: &Path, connections: &[Connection]) -> BTreeSet<usize> {
    let tests: Vec<Value> = connections
        .iter()
        .enumerate()
        .map(|(number, Connection { from, to, port, protocol })| {
            json!({"name": number.to_string(), "from": from, "to": to, "port": format!("{port}/{protocol}"), "expect": "allow"})
        })
        .collect();
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let document =
        json!({"apiVersion": "netpol-observer.io/v1alpha1", "kind": "PolicyTest", "metadata": {"name": "kernel"}, "tests": tests});
    std::fs::write(file.path(), document.to_string()).unwrap();

    let mut command = Command::new(env!("CARGO_BIN_EXE_observer"));
    let output = command.arg("check").arg(directory).arg("--tests").arg(file.path()).args(["--no-lints", "-o", "json"]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let results = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut outcomes = BTreeMap::new();
    for result in results.filter(|result| result["type"] == "test" && result["suite"] == "kernel") {
        let number: usize = result["name"].as_str().unwrap().parse().unwrap();
        let is_admitted = match result["outcome"].as_str().unwrap() {
            "passed" => true,
            "failed" => {
                assert_eq!(result["failures"][0]["verdict"], "deny", "{result}");
                false
            }
            _ => panic!("{result}"),
        };
        assert!(outcomes.insert(number, is_admitted).is_none(), "{result}");
    }
    assert_eq!(outcomes.len(), connections.len(), "{errors}");
    outcomes.into_iter().filter(|(_, is_admitted)| *is_admitted).map(|(number, _)| number).collect()
}

/// The connections of which the kernel does something else than the policies say.
fn differences(connections: &[Connection], kernel: &BTreeSet<usize>, policies: &BTreeSet<usize>) -> Vec<String> {
    let differ = kernel.symmetric_difference(policies);
    let tell = |number: &usize| match kernel.contains(number) {
        true => format!("{}: the kernel admits it, the policies deny it", connections[*number]),
        false => format!("{}: the kernel drops it, the policies admit it", connections[*number]),
    };
    differ.map(tell).collect()
}
