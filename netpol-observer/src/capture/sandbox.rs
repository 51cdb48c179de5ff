//! Whose network namespace it is: the pod of the processes in it, as /proc tells where this process may look.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How soon /proc is gone through again for a namespace that was not found: pods start all the time.
const AGAIN: Duration = Duration::from_secs(5);

/// Network namespaces by inode number → `metadata.uid` of their pods.
#[derive(Debug, Default)]
pub(super) struct Sandboxes {
    pods: HashMap<u32, Arc<str>>,
    read: Option<Instant>,
}

impl Sandboxes {
    /// The pod in a network namespace. Needs the host's process ids and CAP_SYS_PTRACE, as root on the node has them; without, nobody
    /// is found.
    pub(super) fn pod_uid(&mut self, netns: u32) -> Option<Arc<str>> {
        if !self.pods.contains_key(&netns) && self.read.is_none_or(|read| read.elapsed() >= AGAIN) {
            self.pods = read();
            self.read = Some(Instant::now());
        }
        self.pods.get(&netns).cloned()
    }
}

fn read() -> HashMap<u32, Arc<str>> {
    let mut pods = HashMap::new();
    let Ok(processes) = fs::read_dir("/proc") else { return pods };
    for process in processes.flatten() {
        if !process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let path = process.path();
        let Some(netns) = fs::read_link(path.join("ns/net")).ok().and_then(|link| inode(link.to_str()?)) else { continue };
        if pods.contains_key(&netns) {
            continue;
        }
        if let Some(uid) = fs::read_to_string(path.join("cgroup")).ok().and_then(|text| pod_uid(&text)) {
            pods.insert(netns, uid.into());
        }
    }
    pods
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
