//! Whose network namespace it is: the pod of the processes in it, as /proc tells where this process may look.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a namespace without a pod counts as that at first, and at the most. A namespace that stays nobody's is looked for less and less often.
const NOBODY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// New processes are looked at so often meanwhile: a pod's network is made before its first process, and the kernel itself sends in between.
const NEWCOMERS: Duration = Duration::from_millis(100);
/// For so long a process is new: it may come into its namespace and its control group some time after it began.
const NEW: Duration = Duration::from_secs(3);
/// Between two walks through /proc so many times as long as the last one took: a whole one takes some tens of milliseconds on a node with
/// thousands of processes.
const REST: u32 = 5;
/// Pods that are remembered, those that are gone among them; beyond that all are forgotten.
const MAX_PODS: usize = 4096;
/// Namespaces without a pod that are remembered; beyond that all are forgotten.
const MAX_NOBODY: usize = 4096;

/// Network namespaces by inode number → the pods in them.
#[derive(Debug)]
pub(super) struct Sandboxes {
    /// `/proc`
    proc: PathBuf,
    pods: HashMap<u32, Sandbox>,
    /// Those that had none.
    nobody: HashMap<u32, Nobody>,
    processes: Processes,
    /// When the last walk ended, and how long it took.
    walked: Option<(Instant, Duration)>,
}

/// A namespace without a pod.
#[derive(Debug)]
struct Nobody {
    /// When that was found.
    when: Instant,
    /// For how long it counts.
    valid: Duration,
}

/// When processes were seen first.
#[derive(Debug, Default)]
struct Processes {
    seen: HashMap<u32, Instant>,
}

impl Processes {
    /// Takes the processes that there are now, and keeps the new ones in the list.
    fn newcomers(&mut self, processes: &mut Vec<u32>, now: Instant) {
        let mut seen = HashMap::with_capacity(processes.len());
        processes.retain(|process| {
            let first = self.seen.get(process).copied().unwrap_or(now);
            seen.insert(*process, first);
            now.saturating_duration_since(first) < NEW
        });
        self.seen = seen;
    }
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

impl Default for Sandboxes {
    fn default() -> Self {
        Sandboxes {
            proc: PathBuf::from("/proc"),
            pods: HashMap::new(),
            nobody: HashMap::new(),
            processes: Processes::default(),
            walked: None,
        }
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
        let is_nobodys = self.nobody.get(&netns).is_some_and(|nobody| nobody.when.elapsed() < nobody.valid);
        let rested = |(when, took): (Instant, Duration)| {
            let rest = took * REST;
            when.elapsed() >= if is_nobodys { rest.max(NEWCOMERS) } else { rest }
        };
        if self.walked.is_none_or(rested) {
            let begin = Instant::now();
            self.walk_to(netns, is_nobodys);
            let end = Instant::now();
            self.walked = Some((end, end - begin));
            if !is_nobodys && !self.pods.contains_key(&netns) {
                if self.nobody.len() >= MAX_NOBODY {
                    self.nobody.clear();
                }
                let valid = patience(self.nobody.get(&netns), begin);
                self.nobody.insert(netns, Nobody { when: end, valid });
            }
        }
        let found = self.pods.get(&netns).map(|sandbox| Arc::clone(&sandbox.pod_uid));
        if found.is_some() {
            self.nobody.remove(&netns);
        }
        found
    }

    /// Goes through the processes, or the new ones alone, those with the highest numbers first, which mostly are the newest, until one is in the
    /// namespace; keeps all that it finds on the way.
    fn walk_to(&mut self, wanted: u32, new_ones: bool) {
        let Ok(entries) = fs::read_dir(&self.proc) else { return };
        let mut processes: Vec<u32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        let all = processes.clone();
        self.processes.newcomers(&mut processes, Instant::now());
        if !new_ones {
            processes = all;
        }
        processes.sort_unstable_by(|a, b| b.cmp(a));
        if self.pods.len() >= MAX_PODS {
            self.pods.clear();
        }
        // Not by what was known before: its number may be another's by now.
        let mut met = HashSet::new();
        for process in processes {
            let process = self.proc.join(process.to_string());
            if netns(&process).is_some_and(|netns| !met.contains(&netns))
                && let Some((found, sandbox)) = Sandbox::of(process)
            {
                met.insert(found);
                self.pods.insert(found, sandbox);
                if found == wanted {
                    return;
                }
            }
        }
    }
}

/// How long a namespace that was found to be nobody's at `now` counts as that, after it was so `before`. What was asked for long ago may have been another
/// namespace of the same number.
fn patience(before: Option<&Nobody>, now: Instant) -> Duration {
    let recent = before.filter(|before| now.saturating_duration_since(before.when) < before.valid * 3);
    recent.map_or(NOBODY[0], |before| (before.valid * 2).min(NOBODY[1]))
}

fn netns(process: &Path) -> Option<u32> {
    inode(fs::read_link(process.join("ns/net")).ok()?.to_str()?)
}

/// `net:[4026531840]`
fn inode(link: &str) -> Option<u32> {
    link.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// The uid in the path of a process's cgroup, or of one of its cgroups.
fn pod_uid(cgroups: &str) -> Option<String> {
    cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(|path| path.split('/').find_map(pod_uid_in))
}

/// The uid in the name of a pod's cgroup. The kubelet names it `pod<uid>` (cgroupfs driver) or `…-pod<uid with underscores>.slice` (systemd
/// driver); the uid of a static pod is a hash without dashes.
pub(super) fn pod_uid_in(segment: &str) -> Option<String> {
    let name = segment.strip_suffix(".slice").unwrap_or(segment);
    // A kubelet that has a cgroup of its own as the root puts its name in front, as in kind: `kubelet-kubepods-…`.
    let is_kubelets = |before: &str| before.split('-').any(|part| part == "kubepods");
    let uid = name.rsplit_once("-pod").filter(|(before, _)| is_kubelets(before)).map(|(_, uid)| uid);
    let uid = uid.or_else(|| name.strip_prefix("pod"))?.replace('_', "-");
    let plausible = uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    plausible.then_some(uid)
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
        let nested = "kubelet-kubepods-burstable-pod0c7c1a2e_3e5f_4a4b_9d3e_5f0a6b7c8d9e.slice";
        assert_eq!(pod_uid_in(nested), uid, "kind");
        assert_eq!(pod_uid("12:memory:/kubepods/pod0c7c1a2e-3e5f-4a4b-9d3e-5f0a6b7c8d9e/x\n0::/\n"), uid, "version 1");
        assert_eq!(
            pod_uid("0::/kubepods/besteffort/poda1b2c3d4e5f60718293a4b5c6d7e8f90\n"),
            Some("a1b2c3d4e5f60718293a4b5c6d7e8f90".to_owned())
        );
    }

    #[test]
    fn a_namespace_that_stays_nobodys_is_looked_for_less_and_less_often() {
        let now = Instant::now();
        let after = |milliseconds, valid| patience(Some(&Nobody { when: now, valid }), now + Duration::from_millis(milliseconds));
        let [first, last] = NOBODY;
        assert_eq!(patience(None, now), first);
        assert_eq!(after(150, first), first * 2);
        assert_eq!(after(299, first), first * 2);
        assert_eq!(after(300, first), first, "another of the same number");
        assert_eq!(after(1100, last), last);
        assert_eq!(after(1100, last / 2 + first), last);
    }

    #[test]
    fn a_process_is_new_for_a_while() {
        let mut processes = Processes::default();
        let begin = Instant::now();
        let mut newcomers = |seconds: u64, there: &[u32]| {
            let mut there = there.to_vec();
            processes.newcomers(&mut there, begin + Duration::from_secs(seconds));
            there
        };
        assert_eq!(newcomers(0, &[1, 2]), [1, 2], "nobody was seen before");
        assert_eq!(newcomers(2, &[1, 2, 3]), [1, 2, 3]);
        assert_eq!(newcomers(3, &[1, 3, 4]), [3, 4]);
        assert_eq!(newcomers(5, &[1, 2, 4]), [2, 4], "a number that was given again");
        assert_eq!(newcomers(9, &[1, 2, 4]), [] as [u32; 0]);
    }

    #[test]
    fn a_number_that_was_given_again_is_its_new_pods_after_any_walk() {
        let proc = tempfile::tempdir().unwrap();
        let process = |id: u32, netns: u32, group: &str| {
            let directory = proc.path().join(id.to_string());
            fs::create_dir_all(directory.join("ns")).unwrap();
            std::os::unix::fs::symlink(format!("net:[{netns}]"), directory.join("ns/net")).unwrap();
            fs::write(directory.join("cgroup"), format!("0::/{group}\n")).unwrap();
        };
        let [first, second] = ["0c7c1a2e-3e5f-4a4b-9d3e-5f0a6b7c8d9e", "1c7c1a2e-3e5f-4a4b-9d3e-5f0a6b7c8d9e"];
        let mut sandboxes = Sandboxes { proc: proc.path().to_owned(), ..Sandboxes::default() };
        process(10, 7, &format!("kubepods/pod{first}"));
        assert_eq!(sandboxes.pod_uid(7).as_deref(), Some(first));
        fs::remove_dir_all(proc.path().join("10")).unwrap();
        process(11, 7, &format!("kubepods/pod{second}"));
        // A walk for a namespace that is nobody's; no other may begin soon after it.
        sandboxes.walked = None;
        assert_eq!(sandboxes.pod_uid(8), None);
        sandboxes.walked = Some((Instant::now(), Duration::from_secs(60)));
        assert_eq!(sandboxes.pod_uid(7).as_deref(), Some(second));
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
