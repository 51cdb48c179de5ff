//! A bundle as a kubelet and containerd make it of a pod, and its container under runc.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use netpol_observer::capture::permissions::Capability;
use serde_json::{Value, json};
use xtask::command::libraries_of;
use xtask::netns::Process;

/// How control groups of these tests are called: directly below the root of each hierarchy.
const GROUP: &str = "npo-test-container";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Groups that a run left which was killed: whoever has the machine is alone with that name. Those that are in use cannot be removed anyway.
pub(super) fn remove_stale_groups() {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in std::iter::once(root.to_owned()).chain(hierarchies) {
        for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(GROUP) {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// A container's capabilities as the OCI runtime calls them.
pub(super) fn capabilities(container: &Value) -> Vec<String> {
    let capabilities = &container["securityContext"]["capabilities"];
    assert_eq!(capabilities["drop"], json!(["ALL"]));
    let added: Vec<String> = serde_json::from_value(capabilities["add"].clone()).unwrap();
    added.iter().map(|name| format!("CAP_{name}")).collect()
}

/// What a kubelet knows of a pod, with one container, and its place in the network.
pub(super) struct Pod<'a> {
    pub(super) spec: &'a Value,
    pub(super) node: &'a str,
    pub(super) name: &'a str,
    pub(super) netns: &'a Path,
    /// Token and certificate.
    pub(super) account: &'a Path,
    pub(super) api_server: SocketAddr,
    /// The filter that the profile of the pod stands for.
    pub(super) seccomp: &'a Value,
}

impl Pod<'_> {
    /// Makes the bundle in a directory, and starts it.
    pub(super) fn start(&self, directory: &Path) -> Container {
        let id = format!("{GROUP}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let bundle = directory.join(&id);
        fill(&bundle.join("rootfs"));
        fs::write(bundle.join("config.json"), serde_json::to_vec_pretty(&self.config(&id)).unwrap()).unwrap();
        let log = bundle.join("log");
        let out = File::create(&log).unwrap();
        let runc = Runc { state: directory.join("runc"), id };
        let mut command = runc.command(&["run", "--bundle"]);
        command.arg(&bundle).arg(&runc.id).stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        Container { process: Process::start(&mut command).unwrap(), runc, log, capabilities: capabilities(&self.spec["containers"][0]) }
    }

    /// config.json of the runtime specification, of what the pod says and what containerd gives every container.
    fn config(&self, id: &str) -> Value {
        let container = &self.spec["containers"][0];
        let context = &container["securityContext"];
        assert_eq!((&context["privileged"], self.spec.get("volumes")), (&json!(false), None));
        let words: Vec<String> = serde_json::from_value(container["args"].clone()).unwrap();
        // The entry point of the image; and nobody waits here for other nodes.
        let mut args = vec!["/observer".to_owned()];
        args.extend(words.into_iter().chain(["--start-jitter", "1ms"].map(str::to_owned)));
        let capabilities = capabilities(container);
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "args": args, "env": self.environment(container), "cwd": "/",
                "user": {"uid": context["runAsUser"], "gid": context["runAsGroup"]},
                "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
                "noNewPrivileges": context["allowPrivilegeEscalation"] == false,
            },
            "root": {"path": "rootfs", "readonly": context["readOnlyRootFilesystem"]},
            "hostname": self.name,
            "mounts": self.mounts(),
            "linux": {
                "namespaces": self.namespaces(),
                "cgroupsPath": format!("/{id}"),
                "resources": {"memory": {"limit": bytes(&container["resources"]["limits"]["memory"])}},
                "maskedPaths": [
                    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                    "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
                ],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
                "seccomp": self.seccomp,
            },
        })
    }

    fn environment(&self, container: &Value) -> Vec<String> {
        let own = container["env"].as_array().unwrap().iter().map(|variable| {
            let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                Some("spec.nodeName") => self.node,
                Some("metadata.name") => self.name,
                other => panic!("{other:?}"),
            };
            format!("{}={value}", variable["name"].as_str().unwrap())
        });
        let (host, port) = (self.api_server.ip(), self.api_server.port());
        let given = [format!("KUBERNETES_SERVICE_HOST={host}"), format!("KUBERNETES_SERVICE_PORT={port}")];
        own.chain(given).chain(["PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned()]).collect()
    }

    fn namespaces(&self) -> Value {
        for host in ["hostNetwork", "hostPID", "hostIPC"] {
            assert_eq!(self.spec[host], false, "{host}");
        }
        json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network", "path": self.netns}])
    }

    fn mounts(&self) -> Value {
        assert_eq!(self.spec["automountServiceAccountToken"], true);
        let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
        json!([
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
            {
                "destination": "/var/run/secrets/kubernetes.io/serviceaccount", "type": "bind", "source": self.account,
                "options": ["rbind", "rprivate", "ro"],
            },
        ])
    }
}

/// The program as `/observer`, and the libraries that one for tests needs besides.
fn fill(root: &Path) {
    let program = Path::new(env!("CARGO_BIN_EXE_observer"));
    fs::create_dir_all(root).unwrap();
    fs::copy(program, root.join("observer")).unwrap();
    let libraries: BTreeSet<PathBuf> = libraries_of(program).into_iter().collect();
    for library in libraries {
        let to = root.join(library.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&library, to).unwrap();
    }
}

/// `512Mi`
fn bytes(quantity: &Value) -> u64 {
    quantity.as_str().unwrap().strip_suffix("Mi").unwrap().parse::<u64>().unwrap() << 20
}

struct Runc {
    /// Where it keeps what it knows of its containers.
    state: PathBuf,
    id: String,
}

impl Runc {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(&self.state).args(words);
        command
    }

    /// Runs it to its end: whether that was a success, and what it said.
    fn output(&self, words: &[&str]) -> (bool, String) {
        let output = self.command(words).stdin(Stdio::null()).output().unwrap();
        (output.status.success(), [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat())
    }
}

/// One that runs. Nothing of it is left when this value is dropped.
pub(super) struct Container {
    runc: Runc,
    process: Process,
    log: PathBuf,
    capabilities: Vec<String>,
}

impl Container {
    /// What it has printed.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Runs a program in it, as an `exec` probe does.
    pub(super) fn exec(&self, words: &[String]) -> (bool, String) {
        let words: Vec<&str> = ["exec", &self.runc.id].into_iter().chain(words.iter().map(String::as_str)).collect();
        self.runc.output(&words)
    }

    /// That the kernel holds it to what was asked for.
    pub(super) fn assert_confined(&self) {
        let (_, state) = self.runc.output(&["state", &self.runc.id]);
        let state: Value = serde_json::from_str(&state).unwrap_or_else(|error| panic!("{error}: {state}"));
        let of = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", state["pid"])).unwrap();
        let status = of("status");
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t")).unwrap().to_owned();
        let known = [Capability::Bpf, Capability::Perfmon, Capability::Syslog, Capability::SysResource];
        let bit = |name: &String| 1u64 << known.iter().find(|capability| capability.name() == name).unwrap().bit();
        let set = format!("{:016x}", self.capabilities.iter().map(bit).sum::<u64>());
        assert_eq!([field("CapEff"), field("CapPrm"), field("CapBnd")], [set.clone(), set.clone(), set]);
        assert_eq!([field("NoNewPrivs"), field("Seccomp")], ["1", "2"]);
        let mounts = of("mountinfo");
        let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
        assert!(root.split(' ').nth(5).unwrap().split(',').any(|option| option == "ro"), "{root}");
    }

    /// Waits until it ends: how, if in time, and what it printed.
    pub(super) fn wait(&mut self, patience: Duration) -> (Option<ExitStatus>, String) {
        let status = self.process.wait_timeout(patience).unwrap();
        (status, self.log())
    }

    /// Ends it as a kubelet does.
    pub(super) fn stop(&mut self, patience: Duration) -> (Option<ExitStatus>, String) {
        let (sent, said) = self.runc.output(&["kill", &self.runc.id, "TERM"]);
        assert!(sent, "{said}");
        self.wait(patience)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Its processes, its control groups and its state. `run` has done that already where the container ended by itself.
        self.runc.output(&["delete", "--force", &self.runc.id]);
    }
}
