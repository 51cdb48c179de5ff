//! Named namespaces, as ip-netns(8) makes and removes them, without a process for each.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::ptr::null;
use std::thread;

use anyhow::{Context as _, Result};

use crate::netns::NETNS_DIR;

/// Makes a namespace and binds it to its name.
pub(super) fn add(name: &str) -> Result<()> {
    share_directory().with_context(|| format!("cannot prepare {NETNS_DIR}"))?;
    let path = Path::new(NETNS_DIR).join(name);
    File::options().write(true).create_new(true).open(&path).with_context(|| format!("cannot make {}", path.display()))?;
    // A thread of its own, which leaves its namespace behind when it ends.
    let made = thread::scope(|scope| {
        let made = scope.spawn(|| {
            // SAFETY: takes an integer; other threads keep their namespace.
            checked(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
            bind(Path::new("/proc/thread-self/ns/net"), &path)
        });
        made.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    made.inspect_err(|_| drop(fs::remove_file(&path))).with_context(|| format!("cannot make network namespace {name}"))
}

/// Takes the name away; the namespace goes with its last process and its last open file.
pub(super) fn delete(name: &str) -> Result<()> {
    let path = Path::new(NETNS_DIR).join(name);
    let target = c_path(&path)?;
    // SAFETY: the string is terminated.
    match checked(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) }) {
        // Not mounted: what a run leaves that was killed in the middle of making it.
        Err(error) if error.raw_os_error() != Some(libc::EINVAL) => {
            return Err(error).with_context(|| format!("cannot unmount {}", path.display()));
        }
        _ => {}
    }
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
}

/// Mounts of names reach all mount namespaces, and so does their removal: elsewhere a name would keep its namespace alive.
fn share_directory() -> io::Result<()> {
    let directory = Path::new(NETNS_DIR);
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    if share(directory).is_ok() {
        return Ok(());
    }
    // It is no mount yet.
    bind(directory, directory)?;
    share(directory)
}

fn share(directory: &Path) -> io::Result<()> {
    let target = c_path(directory)?;
    // SAFETY: the strings are terminated; the others are not looked at for this kind of mount.
    checked(unsafe { libc::mount(c"".as_ptr(), target.as_ptr(), c"none".as_ptr(), libc::MS_SHARED | libc::MS_REC, null()) })
}

fn bind(source: &Path, target: &Path) -> io::Result<()> {
    let (source, target) = (c_path(source)?, c_path(target)?);
    // SAFETY: the strings are terminated.
    checked(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), c"none".as_ptr(), libc::MS_BIND | libc::MS_REC, null()) })
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
