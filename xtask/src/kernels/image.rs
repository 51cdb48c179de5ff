//! The guests' initramfs: one part for all kernels, and the modules of each.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use xtask::command::{find, libraries_of, output};

use super::archive::Archive;
use super::binaries::Binaries;
use super::debian::{Kernel, collect};

/// Packages whose programs and plug-ins the tests call; with the libraries that these are linked with.
const PACKAGES: &[&str] = &["iproute2", "nftables", "iptables", "ipset", "kmod"];
/// Further programs, where this machine has them.
const PROGRAMS: &[&str] = &["conntrack", "ethtool"];
/// Names of protocols and services, which the tools look up.
const NAMES: &[&str] = &["/etc/protocols", "/etc/services", "/etc/ethertypes"];
/// Modules by their place below `kernel/`: networking, and what that needs.
const MODULES: &[&str] = &["net", "drivers/net", "lib", "crypto", "arch", "drivers/ptp", "drivers/pps", "kernel"];
/// Hardware that no guest has, and protocols that no test speaks.
const NO_MODULES: &[&str] = &[
    "drivers/net/ethernet",
    "drivers/net/wireless",
    "drivers/net/usb",
    "drivers/net/phy",
    "drivers/net/can",
    "net/bluetooth",
    "net/mac80211",
    "net/wireless",
    "net/sunrpc",
    "net/9p",
    "net/ceph",
    "net/rxrpc",
    "net/smc",
    "net/tipc",
    "net/vmw_vsock",
    "net/batman-adv",
    "net/can",
    "net/nfc",
    "arch/x86/kvm",
];

/// Programs and libraries.
pub(super) fn base(directory: &Path, binaries: &Binaries) -> Result<PathBuf> {
    let path = directory.join("base.cpio");
    let mut archive = Archive::new(create(&path)?);
    for (link, target) in [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("var/run", "../run")] {
        archive.link(Path::new(link), Path::new(target))?;
    }
    for directory in ["proc", "sys", "dev", "run", "tmp", "root", "usr/local/bin", "usr/bin", "usr/sbin", "usr/lib64", "var/lib"] {
        archive.directory(Path::new(directory))?;
    }
    archive.file(Path::new("init"), 0o755, include_bytes!("init.sh"))?;
    let busybox = find("busybox").context("busybox was installed a moment ago")?;
    archive.file(Path::new("usr/bin/busybox"), 0o755, &fs::read(busybox)?)?;
    archive.file(Path::new("etc/passwd"), 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    archive.file(Path::new("etc/group"), 0o644, b"root:x:0:\n")?;
    archive.file(Path::new("tests/kernel"), 0o755, &fs::read(&binaries.tests)?)?;
    // The test binary knows the observer by this path.
    archive.file(&binaries.observer, 0o755, &fs::read(&binaries.observer)?)?;

    let mut programs = BTreeSet::new();
    for package in PACKAGES {
        let files = output(Command::new("dpkg-query").args(["-L", package]))?;
        for file in files.lines().map(Path::new).filter(|file| !file.is_dir() && is_wanted(file)) {
            programs.insert(file.to_owned());
        }
    }
    programs.extend(PROGRAMS.iter().filter_map(|program| find(program)));
    let mut libraries = BTreeSet::new();
    for program in &programs {
        archive.copy(program, &merged(program))?;
        if !program.is_symlink() {
            libraries.extend(libraries_of(program));
        }
    }
    for library in &libraries {
        // The name it is loaded by, with the content of the file that this points to.
        archive.file(&merged(library), 0o755, &fs::read(library)?)?;
    }
    for file in NAMES.iter().map(Path::new).filter(|file| file.is_file()) {
        archive.copy(file, file)?;
    }
    archive.finish()?;
    Ok(path)
}

/// Programs, plug-ins and settings; no manuals.
fn is_wanted(file: &Path) -> bool {
    let unwanted = ["/usr/share", "/usr/lib/systemd", "/lib/systemd", "/etc/init.d", "/etc/systemd"];
    !unwanted.iter().any(|directory| file.starts_with(directory)) && file.symlink_metadata().is_ok()
}

/// Where a path lies once /bin, /sbin and /lib are merged into /usr.
fn merged(path: &Path) -> PathBuf {
    let split = ["/bin", "/sbin", "/lib", "/lib64"];
    if split.iter().any(|directory| path.starts_with(directory)) {
        Path::new("/usr").join(path.strip_prefix("/").unwrap_or(path))
    } else {
        path.to_owned()
    }
}

/// The initramfs for one kernel: what all share, then its modules, then what this run is to do.
pub(super) fn assemble(kernel: &Kernel, base: &Path, path: &Path, orders: &[(&str, String)]) -> Result<()> {
    let mut out = create(path)?;
    io::copy(&mut File::open(base)?, &mut out)?;
    let mut archive = Archive::new(out);
    let from = kernel.modules();
    let to = Path::new("usr/lib/modules").join(&kernel.release);
    let mut files = Vec::new();
    collect(&from, &mut |file| files.push(file.to_owned()))?;
    for file in files {
        let relative = file.strip_prefix(&from)?;
        let is_wanted = match relative.strip_prefix("kernel") {
            Ok(module) => {
                MODULES.iter().any(|wanted| module.starts_with(wanted)) && !NO_MODULES.iter().any(|unwanted| module.starts_with(unwanted))
            }
            // The lists that modprobe reads. The kernel itself may lie here too.
            Err(_) => relative.to_string_lossy().starts_with("modules."),
        };
        if is_wanted {
            archive.copy(&file, &to.join(relative))?;
        }
    }
    for (name, content) in orders {
        archive.file(&Path::new("etc/guest").join(name), 0o644, content.as_bytes())?;
    }
    archive.finish()?;
    Ok(())
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    Ok(BufWriter::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?))
}
