//! The agent as a container, under Debian's runc: the root, the capabilities, the user and the seccomp filter of the DaemonSet that `observer install`
//! prints, in a network namespace of its own, with the API server and a ServiceAccount as a pod has them.

mod bundle;
mod front;
mod seccomp;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xtask::command::find;
use xtask::machine::Machine;
use xtask::netns::{Bed, Netns};
use xtask::testing::skipped;

use self::bundle::{Container, Pod};
use self::front::Front;
use crate::PATIENCE;
use crate::denials::{ends, start_tail};
use crate::node::{Node, PORT, cluster, machine, pod};
use crate::scene::{NAMESPACE, Scene, pod as agent_pod};

const WEB: Ipv4Addr = Ipv4Addr::new(10, 244, 2, 10);

/// The machine for one test, or `None` after printing why it cannot run here.
fn machine_with_runc(test: &str) -> Option<Machine> {
    let has_groups = ["cgroup.controllers", "devices/tasks"].iter().any(|file| Path::new("/sys/fs/cgroup").join(file).exists());
    let why = if find("runc").is_none() {
        "the Debian package runc is not installed"
    } else if !Path::new(seccomp::OF_THE_DISTRIBUTION).exists() {
        "the Debian package golang-github-containers-common is not installed"
    } else if !has_groups {
        "no control groups are mounted at /sys/fs/cgroup"
    } else {
        let machine = machine(test)?;
        // What a run left that was killed: first its processes, then the groups they were in.
        Bed::cleanup_stale("npo-test").unwrap();
        bundle::remove_stale_groups();
        return Some(machine);
    };
    skipped(test, why);
    None
}

/// A node with its API server, and the network namespace of the agent's pod. They are what they are in a cluster, but that the API server is on the pod's
/// own loopback.
struct Stage {
    objects: Vec<Value>,
    account: PathBuf,
    front: Front,
    scene: Scene,
    node: Node,
    own: Netns,
    bed: Bed,
}

impl Stage {
    /// With what `observer install` prints for these arguments.
    fn new(arguments: &[&str]) -> Stage {
        let mut bed = Bed::new("npo-test").unwrap();
        let own = bed.namespace("agent").unwrap();
        let (scene, front) = own
            .in_ns(|| {
                let scene = Scene::new();
                let front = Front::before(scene.server.address());
                (scene, front)
            })
            .unwrap();
        cluster(&scene);
        let printed = scene.run(&[&["install", "-o", "json", "--image", "registry.example/netpol-observer:0.1.0"], arguments].concat());
        assert_eq!(printed.code, Some(0), "{}", printed.err);
        let mut list: Value = serde_json::from_str(&printed.out).unwrap();
        let objects: Vec<Value> = serde_json::from_value(list["items"].take()).unwrap();
        scene.server.load(objects.clone()).unwrap();
        scene.server.load([agent_pod("node-1", "agent-1", true)]).unwrap();
        scene.server.forward(NAMESPACE, "agent-1", 9470, (Ipv4Addr::LOCALHOST, 9470).into());

        // What the kubelet mounts.
        let account = bed.directory().join("account");
        std::fs::create_dir(&account).unwrap();
        let token = scene.server.service_account_token(NAMESPACE, "netpol-observer", &[], 3600).unwrap();
        for (name, content) in [("token", &*token), ("ca.crt", &front.ca), ("namespace", NAMESPACE)] {
            std::fs::write(account.join(name), content).unwrap();
        }
        Stage { objects, account, front, scene, node: Node::new(), own, bed }
    }

    fn pod_spec(&self) -> &Value {
        let set = self.objects.iter().find(|object| object["kind"] == "DaemonSet").unwrap();
        &set["spec"]["template"]["spec"]
    }

    fn container(&self) -> &Value {
        &self.pod_spec()["containers"][0]
    }

    fn start(&self, seccomp: &Value) -> Container {
        let pod = Pod {
            spec: self.pod_spec(),
            node: "node-1",
            name: "agent-1",
            netns: &self.own.path(),
            account: &self.account,
            api_server: self.front.address,
            seccomp,
        };
        pod.start(self.bed.directory())
    }

    /// The words of a probe.
    fn probe(&self, name: &str) -> Vec<String> {
        serde_json::from_value(self.container()[name]["exec"]["command"].clone()).unwrap()
    }

    /// Waits until the readiness probe says yes, as a kubelet asks it.
    fn wait_until_ready(&self, container: &mut Container) {
        let end = Instant::now() + PATIENCE;
        loop {
            let (answer, said) = container.exec(&self.probe("readinessProbe"));
            if answer {
                break;
            }
            assert!(container.is_running() && Instant::now() < end, "it does not get ready: {said}\n{}", container.log());
            sleep(Duration::from_millis(100));
        }
        for probe in ["startupProbe", "livenessProbe"] {
            let (answer, said) = container.exec(&self.probe(probe));
            assert!(answer, "{probe}: {said}");
        }
    }
}

/// From the start to the end of an agent that does its work.
fn it_works(stage: &Stage, seccomp: &Value) {
    let mut container = stage.start(seccomp);
    stage.wait_until_ready(&mut container);
    container.assert_confined();

    stage.scene.server.create(pod("web", "node-2", &json!({"app": "web"}), Some(WEB))).unwrap();
    let line = stage
        .own
        .in_ns(|| {
            let tail = start_tail(&stage.scene);
            stage.node.send(&[WEB], PORT);
            tail.line("denial")
        })
        .unwrap();
    assert_eq!(ends(&line), ("shop/web".to_owned(), "shop/api".to_owned()), "{line:#}");
    assert_eq!((&line["class"], stage.node.denied()), (&json!("policyDenied"), 1), "{line:#}");

    let (works, said) = container.exec(&["/observer", "doctor", "--color", "never"].map(str::to_owned));
    assert!(works && said.contains("its record has arrived") && !said.contains("FAILS"), "{said}");

    let grace = Duration::from_secs(stage.pod_spec()["terminationGracePeriodSeconds"].as_u64().unwrap());
    let (status, log) = container.stop(grace);
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{log}");
}

#[test]
fn under_the_profile_of_newer_runtimes_it_works() {
    let Some(_machine) = machine_with_runc("container::under_the_profile_of_newer_runtimes_it_works") else { return };
    let stage = Stage::new(&[]);
    assert_eq!(stage.container()["securityContext"]["seccompProfile"], json!({"type": "RuntimeDefault"}));
    it_works(&stage, &seccomp::of_newer_runtimes(&bundle::capabilities(stage.container())));
}

#[test]
fn under_the_profile_of_this_repository_it_works() {
    let Some(_machine) = machine_with_runc("container::under_the_profile_of_this_repository_it_works") else { return };
    let stage = Stage::new(&["--seccomp-profile", "netpol-observer.json"]);
    it_works(&stage, &seccomp::on_the_node(&stage.container()["securityContext"]["seccompProfile"]));
}

#[test]
fn so_it_does_with_tls_of_its_own() {
    let Some(_machine) = machine_with_runc("container::so_it_does_with_tls_of_its_own") else { return };
    let stage = Stage::new(&["--seccomp-profile", "netpol-observer.json", "--tenant-mode"]);
    let mut container = stage.start(&seccomp::on_the_node(&stage.container()["securityContext"]["seccompProfile"]));
    stage.wait_until_ready(&mut container);
    let (status, log) = container.stop(PATIENCE);
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{log}");
}

/// As podman and CRI-O ship it: bpf() takes CAP_SYS_ADMIN.
#[test]
fn under_a_profile_without_bpf_it_says_that_it_was_seccomp() {
    let Some(_machine) = machine_with_runc("container::under_a_profile_without_bpf_it_says_that_it_was_seccomp") else { return };
    let stage = Stage::new(&[]);
    let mut container = stage.start(&seccomp::of_the_distribution(&bundle::capabilities(stage.container())));
    let (status, log) = container.wait(PATIENCE);
    assert_eq!(status.and_then(|status| status.code()), Some(1), "{log}");
    assert!(log.contains("a seccomp filter does not let it through"), "{log}");
    assert!(!log.contains("missing CAP_"), "{log}");
}
