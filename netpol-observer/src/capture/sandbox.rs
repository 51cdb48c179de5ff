//! Whose network namespace it is: the pod of the processes in it, as /proc tells where this process may look.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two walks through /proc for namespaces that are not known: pods start all the time.
const AGAIN: Duration = Duration::from_millis(100);
/// And so many times as long as the last walk took, which on a node with thousands of processes is some tens of milliseconds.
const REST: u32 = 20;

/// Network namespaces by inode number → the pods in them.
#[derive(Debug, Default)]
pub(super) struct Sandboxes {
    pods: HashMap<u32, Sandbox>,
    /// When the last walk ended, and how long it took.
    walked: Option<(Instant, Duration)>,
}

/// One process of a pod.
#[derive(Debug)]
struct Sandbox {
    process: PathBuf,
    /// `metadata.uid`
    pod_uid: Arc<str>,
}

impl Sandbox {
    fn of(process: PathBuf) -> Option<(u32, Self)> {
        let netns = netns(&process)?;
        let pod_uid = fs::read_to_string(process.join("cgroup")).ok().and_then(|text| pod_uid(&text))?.into();
        Some((netns, Sandbox { process, pod_uid }))
    }
}

impl Sandboxes {
    /// The pod in a network namespace. Needs the host's process ids and CAP_SYS_PTRACE, as root on the node has them; without, nobody
    /// is found.
    pub(super) fn pod_uid(&mut self, netns: u32) -> Option<Arc<str>> {
        // Numbers of namespaces, and of processes, are given again to others.
        if let Some(known) = self.pods.remove(&netns)
            && let Some((same, sandbox)) = Sandbox::of(known.process)
            && same == netns
        {
            let pod_uid = Arc::clone(&sandbox.pod_uid);
            self.pods.insert(netns, sandbox);
            return Some(pod_uid);
        }
        if self.walked.is_none_or(|(when, took)| when.elapsed() >= AGAIN.max(took * REST)) {
            let begin = Instant::now();
            self.pods = walk();
            self.walked = Some((Instant::now(), begin.elapsed()));
        }
        self.pods.get(&netns).map(|sandbox| Arc::clone(&sandbox.pod_uid))
    }
}

fn walk() -> HashMap<u32, Sandbox> {
    let mut pods = HashMap::new();
    let Ok(processes) = fs::read_dir("/proc") else { return pods };
    for process in processes.flatten() {
        if !process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let path = process.path();
        if netns(&path).is_some_and(|netns| !pods.contains_key(&netns))
            && let Some((netns, sandbox)) = Sandbox::of(path)
        {
            pods.insert(netns, sandbox);
        }
    }
    pods
}

fn netns(process: &Path) -> Option<u32> {
    inode(fs::read_link(process.join("ns/net")).ok()?.to_str()?)
}

/// `net:[4026531840]`
fn inode(link: &str) -> Option<u32> {
    link.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// The kubelet names the cgroup of a pod `pod<uid>` (cgroupfs driver) or `…-pod<uid with underscores>.slice` (systemd driver); the
/// uid of a static pod is a hash without dashes.
fn pod_uid(cgroups: &str) -> Option<String> {
    cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(|path| {
        path.split('/').find_map(|segment| {
            let name = segment.strip_suffix(".slice").unwrap_or(segment);
            let uid = name.rsplit_once("-pod").filter(|(before, _)| before.starts_with("kubepods")).map(|(_, uid)| uid);
            let uid = uid.or_else(|| name.strip_prefix("pod"))?.replace('_', "-");
            let plausible = uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
            plausible.then_some(uid)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_uid_from_either_driver() {
        let uid = Some("0c7c1a2e-3e5f-4a4b-9d3e-5f0a6b7c8d9e".to_owned());
        assert_eq!(pod_uid("0::/kubepods/burstable/pod0c7c1a2e-3e5f-4a4b-9d3e-5f0a6b7c8d9e/4f1e\n"), uid);
        let slice = "0::/kubepods.slice/kubepods-burstable.slice/\
                     kubepods-burstable-pod0c7c1a2e_3e5f_4a4b_9d3e_5f0a6b7c8d9e.slice/cri-containerd-4f1e.scope\n";
        assert_eq!(pod_uid(slice), uid);
        assert_eq!(pod_uid("12:memory:/kubepods/pod0c7c1a2e-3e5f-4a4b-9d3e-5f0a6b7c8d9e/x\n0::/\n"), uid, "version 1");
        assert_eq!(
            pod_uid("0::/kubepods/besteffort/poda1b2c3d4e5f60718293a4b5c6d7e8f90\n"),
            Some("a1b2c3d4e5f60718293a4b5c6d7e8f90".to_owned())
        );
    }

    #[test]
    fn others_are_nobodys() {
        assert_eq!(pod_uid("0::/user.slice/user-1000.slice/session-3.scope\n"), None);
        assert_eq!(pod_uid("0::/podman/pod-of-mine\n"), None);
        assert_eq!(pod_uid(""), None);
        assert_eq!(inode("net:[4026531840]"), Some(4_026_531_840));
        assert_eq!(inode("mnt:[1]"), None);
    }
}
