//! What stands for a pod's containers: a process in its network namespace, in a control group named as the kubelet names a pod's.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::{Netns, Process};

/// How the control groups end, behind the name of their network namespace.
const GROUP: &str = ".npo";

/// A pod's pause container. Its group goes with it.
pub struct Sandbox {
    process: Option<Process>,
    namespace: Netns,
    pod_uid: String,
    group: String,
}

impl Sandbox {
    /// Starts the process. Several pods may be in one namespace, as those in the network of a node are.
    ///
    /// # Errors
    /// Not root, or a kernel without cgroup version 2.
    pub fn start(namespace: &Netns, pod_uid: &str) -> Result<Self> {
        let mut sleep = Command::new("sleep");
        sleep.arg("infinity");
        let process = namespace.spawn(sleep)?;
        let id = process.id();
        let group = format!("{}{GROUP}/kubepods/pod{pod_uid}", namespace.full_name());
        in_cgroup2(|root| {
            remove_stale(root)?;
            fs::create_dir_all(root.join(&group))?;
            fs::write(root.join(&group).join("cgroup.procs"), id.to_string())
        })
        .with_context(|| format!("control group {group}"))?;
        Ok(Sandbox { process: Some(process), namespace: namespace.clone(), pod_uid: pod_uid.to_owned(), group })
    }

    /// `metadata.uid` of the pod.
    pub fn pod_uid(&self) -> &str {
        &self.pod_uid
    }

    /// The control group, below the root of the version 2 hierarchy.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Sends a datagram from a container of the pod's: a process in a group below its own.
    ///
    /// # Errors
    /// The process cannot be made. Whether the datagram arrives is another matter.
    pub fn send_udp(&self, to: SocketAddr) -> Result<()> {
        let container = Path::new(&self.group).join("cri-containerd-1.scope");
        let mut procs = in_cgroup2(|root| {
            fs::create_dir_all(root.join(&container))?;
            File::options().write(true).open(root.join(&container).join("cgroup.procs"))
        })
        .context("control group of the container")?;
        let from = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let mut command = Command::new("true");
        command.stdin(Stdio::null());
        // SAFETY: between fork and exec: a write and the system calls of a socket, which allocate nothing.
        unsafe {
            command.pre_exec(move || {
                procs.write_all(b"0")?;
                let socket = UdpSocket::bind(from)?;
                match socket.send_to(b"x", to) {
                    // What a filter of the OUTPUT hook says.
                    Err(error) if error.kind() != ErrorKind::PermissionDenied => Err(error),
                    _ => Ok(()),
                }
            });
        }
        let status = self.namespace.in_ns(|| command.status())?.context("a process of the container")?;
        ensure!(status.success(), "the container's process ended with {status}");
        in_cgroup2(|root| fs::remove_dir(root.join(&container))).context("control group of the container")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.process.take();
        let group = PathBuf::from(&self.group);
        let removed = in_cgroup2(|root| {
            fs::remove_dir(root.join(&group))?;
            // Those above are of others too, as long as there are any in the same namespace.
            let above = group.ancestors().skip(1).filter(|part| !part.as_os_str().is_empty());
            let _ = above.map(|part| root.join(part)).try_for_each(fs::remove_dir);
            Ok(())
        });
        if let Err(error) = removed {
            eprintln!("left behind: control group {}: {error}", self.group);
        }
    }
}

/// Removes groups that were left whose namespace is gone: their process was killed.
fn remove_stale(root: &Path) -> io::Result<()> {
    for group in fs::read_dir(root)?.flatten() {
        let name = group.file_name().to_string_lossy().into_owned();
        if name.strip_suffix(GROUP).is_some_and(|namespace| !Path::new("/run/netns").join(namespace).exists()) {
            // Another run may be doing the same.
            let _ = remove_tree(&group.path());
        }
    }
    Ok(())
}

/// Removes a group and those below it. The files in it are no obstacle.
fn remove_tree(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)?.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path())?;
    }
    fs::remove_dir(group)
}

/// Runs `work` with the root of the version 2 hierarchy, mounted for this thread alone: not every machine has it mounted, and some
/// have it elsewhere.
///
/// # Errors
/// Those of `work`, and of a mount.
pub fn in_cgroup2<T: Send>(work: impl FnOnce(&Path) -> io::Result<T> + Send) -> io::Result<T> {
    let mount = || {
        let root = Path::new("/tmp");
        // SAFETY: the strings are terminated, and the mounts are this thread's own.
        let ok = unsafe {
            libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE, std::ptr::null()) == 0
                && libc::mount(c"none".as_ptr(), c"/tmp".as_ptr(), c"cgroup2".as_ptr(), 0, std::ptr::null()) == 0
        };
        if ok { work(root) } else { Err(io::Error::last_os_error()) }
    };
    std::thread::scope(|scope| scope.spawn(mount).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}
