//! Seccomp profiles as container runtimes apply them.

use std::collections::BTreeSet;
use std::path::Path;

use netpol_observer::install::{Options, objects};
use serde_json::{Value, json};
use xtask::testing::skipped;

use super::bundle::capabilities;

/// What podman and CRI-O take for RuntimeDefault, in the form of Docker's: entries with conditions.
pub(super) const OF_THE_DISTRIBUTION: &str = "/usr/share/containers/seccomp.json";

/// That profile for a container with these capabilities, as it stands: of all that the agent has, only CAP_SYS_ADMIN would let it call bpf().
pub(super) fn of_the_distribution(capabilities: &[String]) -> Value {
    compiled(&serde_json::from_str(&std::fs::read_to_string(OF_THE_DISTRIBUTION).unwrap()).unwrap(), capabilities)
}

/// What containerd has had since 1.7 and Docker since 23.0, with the same origin: CAP_BPF and CAP_PERFMON let their calls through, and what is refused fails
/// with EPERM.
pub(super) fn of_newer_runtimes(capabilities: &[String]) -> Value {
    let mut profile = of_the_distribution(capabilities);
    profile["defaultErrnoRet"] = json!(libc::EPERM);
    let rules = profile["syscalls"].as_array_mut().unwrap();
    for (capability, call) in [("CAP_BPF", "bpf"), ("CAP_PERFMON", "perf_event_open")] {
        if capabilities.iter().any(|has| has == capability) {
            for rule in rules.iter_mut() {
                rule["names"].as_array_mut().unwrap().retain(|name| name != call);
            }
            rules.push(json!({"names": [call], "action": ALLOW}));
        }
    }
    profile
}

/// A profile that the kubelet finds by the path in the pod.
pub(super) fn on_the_node(profile: &Value) -> Value {
    assert_eq!(profile["type"], "Localhost");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/seccomp");
    let path = directory.join(profile["localhostProfile"].as_str().unwrap());
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
}

const ALLOW: &str = "SCMP_ACT_ALLOW";

/// The entries whose conditions hold, without them: what the OCI runtime is given.
fn compiled(profile: &Value, capabilities: &[String]) -> Value {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let list = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap_or_default() };
    let holds = |rule: &&Value| {
        let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
        let (wanted, on) = (list(&includes["caps"]), list(&includes["arches"]));
        wanted.iter().all(|capability| capabilities.contains(capability))
            && (on.is_empty() || on.iter().any(|name| name == architecture))
            && !list(&excludes["caps"]).iter().any(|capability| capabilities.contains(capability))
            && !list(&excludes["arches"]).iter().any(|name| name == architecture)
    };
    let rules = profile["syscalls"].as_array().unwrap().iter().filter(holds).map(|rule| {
        let mut kept = json!({"names": rule["names"], "action": rule["action"]});
        for field in ["args", "errnoRet"] {
            if !rule[field].is_null() {
                kept[field] = rule[field].clone();
            }
        }
        kept
    });
    json!({
        "defaultAction": profile["defaultAction"], "defaultErrnoRet": profile["defaultErrnoRet"], "syscalls": rules.collect::<Vec<_>>(),
    })
}

/// The calls that a profile lets through, whatever their arguments.
fn allowed(profile: &Value) -> BTreeSet<String> {
    let rules = profile["syscalls"].as_array().unwrap().iter().filter(|rule| rule["action"] == ALLOW);
    rules.flat_map(|rule| serde_json::from_value::<Vec<String>>(rule["names"].clone()).unwrap()).collect()
}

#[test]
fn the_profile_of_this_repository_allows_a_part_of_what_runtimes_do() {
    let own = on_the_node(&json!({"type": "Localhost", "localhostProfile": "netpol-observer.json"}));
    assert_eq!(own["defaultAction"], "SCMP_ACT_ERRNO");
    for rule in own["syscalls"].as_array().unwrap() {
        let names: Vec<&str> = rule["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once: {names:?}");
    }
    if !Path::new(OF_THE_DISTRIBUTION).exists() {
        let why = "the Debian package golang-github-containers-common is not installed";
        return skipped("container::seccomp::the_profile_of_this_repository_allows_a_part_of_what_runtimes_do", why);
    }
    let options = Options::new("netpol-observer", "observer");
    let objects = objects(&options);
    let set = objects.iter().find(|object| object["kind"] == "DaemonSet").unwrap();
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let (own, theirs) = (allowed(&own), allowed(&of_newer_runtimes(&capabilities(container))));
    assert!(own.is_subset(&theirs), "{:?}", own.difference(&theirs).collect::<Vec<_>>());
    assert!(own.len() * 3 < theirs.len(), "{} of {}", own.len(), theirs.len());
}
