//! The boutique of the examples on the running kernel: every connection among one pod of each workload and some hosts outside is opened for real, under
//! firewall rules that were written by hand from the meaning of the policies (deploy/examples/boutique/enforce.nft), and `observer check`, which reads
//! the policies themselves, has to say the same of each.

mod calls;
mod stage;

use std::collections::BTreeSet;
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

    let differ = differences(&boutique(), &connections, &admitted);
    assert!(differ.is_empty(), "the kernel and the policies differ on {}:\n{}", differ.len(), differ.join("\n"));

    // The comparison sees one wrong number in one policy.
    let directory = tempfile::TempDir::new().unwrap();
    let status = Command::new("cp").arg("-r").arg(boutique()).arg(directory.path().join("boutique")).status().unwrap();
    assert!(status.success());
    let file = directory.path().join("boutique/policies/storefront.yaml");
    let policies = std::fs::read_to_string(&file).unwrap();
    assert_eq!(policies.matches("port: 7000").count(), 1);
    std::fs::write(&file, policies.replace("port: 7000", "port: 7001")).unwrap();
    let mut wrong = differences(&directory.path().join("boutique"), &connections, &admitted);
    wrong.sort();
    let expected = ["checkout", "frontend"]
        .map(|caller| format!("boutique/deploy/{caller} to boutique/deploy/currency:7000/TCP: the kernel admits it, the policies deny it"));
    assert_eq!(wrong, expected);
}

/// The connections of which the real program says something else than the kernel did. It is asked by a policy test for each, which expects that of the
/// policies in `directory`.
fn differences(directory: &Path, connections: &[Connection], admitted: &BTreeSet<usize>) -> Vec<String> {
    let numbered = connections.iter().enumerate();
    let test = |(number, connection): (usize, &Connection)| {
        let Connection { from, to, port, protocol } = connection;
        let expect = if admitted.contains(&number) { "allow" } else { "deny" };
        json!({"name": number.to_string(), "from": from, "to": to, "port": format!("{port}/{protocol}"), "expect": expect})
    };
    let tests: Vec<Value> = numbered.map(test).collect();
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let document =
        json!({"apiVersion": "netpol-observer.io/v1alpha1", "kind": "PolicyTest", "metadata": {"name": "kernel"}, "tests": tests});
    std::fs::write(file.path(), document.to_string()).unwrap();

    let mut command = Command::new(env!("CARGO_BIN_EXE_observer"));
    let output = command.arg("check").arg(directory).arg("--tests").arg(file.path()).args(["--no-lints", "-o", "json"]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{errors}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let mut judged = BTreeSet::new();
    let mut differ = Vec::new();
    for line in lines.lines() {
        let result: Value = serde_json::from_str(line).unwrap();
        if result["type"] != "test" || result["suite"] != "kernel" {
            continue;
        }
        let number: usize = result["name"].as_str().unwrap().parse().unwrap();
        assert!(judged.insert(number) && result["connections"] != 0, "{result}");
        let connection = &connections[number];
        match (result["outcome"].as_str().unwrap(), result["failures"][0]["verdict"].as_str()) {
            ("passed", None) => {}
            ("failed", Some("deny")) => differ.push(format!("{connection}: the kernel admits it, the policies deny it")),
            ("failed", Some("allow")) => differ.push(format!("{connection}: the kernel drops it, the policies admit it")),
            _ => panic!("{result}"),
        }
    }
    assert_eq!(judged.len(), connections.len(), "{errors}");
    differ
}
