//! Debian packages, installed when they are missing.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::command::{find, is_root, run};

/// Whether a Debian package is installed.
pub fn is_installed(package: &str) -> bool {
    let output = Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]).stderr(Stdio::null()).output();
    output.is_ok_and(|output| output.stdout == b"installed")
}

/// Installs those of `packages` that are missing, and says so.
///
/// # Errors
/// When this is no Debian or not root; the message holds the command to type.
pub fn ensure(purpose: &str, packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if find("apt-get").is_none() {
        bail!("{purpose} needs these Debian packages or what your distribution has instead: {list}");
    }
    if !is_root() {
        bail!("{purpose} needs Debian packages that are not installed; as root: apt-get install {list}");
    }
    eprintln!("xtask: {purpose}: installing Debian packages {list}");
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
        command
    };
    run(apt().args(["update", "-qq"]))?;
    run(apt().args(["install", "-y", "-qq", "--no-install-recommends"]).args(&missing))
}
