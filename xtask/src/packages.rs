//! Debian packages, installed when they are missing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

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
    let _turn = turn()?;
    // Whoever was before may have brought some of them.
    let missing: Vec<&str> = missing.into_iter().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("xtask: {purpose}: installing Debian packages {}", missing.join(" "));
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
        command
    };
    run(apt().args(["update", "-qq"]))?;
    run(apt().args(["install", "-y", "-qq", "--no-install-recommends"]).args(&missing))
}

/// apt-get gives up where another one has its lists; tests come here at once, and wait for each other.
fn turn() -> Result<File> {
    let path = std::env::temp_dir().join("npo-packages.lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Unpacks a Debian package without installing it, so that no service of it is started, and returns the directory; what was unpacked before is taken
/// as it is. Its dependencies are the caller's matter.
///
/// # Errors
/// When this is no Debian, or the package cannot be fetched.
pub fn unpacked(root: &Path, package: &str) -> Result<PathBuf> {
    let directory = root.join("target/packages").join(package);
    if directory.is_dir() {
        return Ok(directory);
    }
    if find("apt-get").is_none() || find("dpkg-deb").is_none() {
        bail!("{package} is fetched by apt-get, and there is none");
    }
    let _turn = turn()?;
    if directory.is_dir() {
        return Ok(directory);
    }
    eprintln!("xtask: fetching the Debian package {package}");
    let unfinished = root.join("target/packages").join(format!("unfinished-{package}-{}", std::process::id()));
    fs::create_dir_all(&unfinished)?;
    let fetch = || {
        let mut command = Command::new("apt-get");
        command
            .args(["download", "-qq", package])
            .current_dir(&unfinished)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    };
    if run(&mut fetch()).is_err() {
        // Without lists of packages, or with old ones.
        run(Command::new("apt-get").args(["update", "-qq"]).stdin(Stdio::null()).stdout(Stdio::null()))?;
        run(&mut fetch())?;
    }
    let archive = fs::read_dir(&unfinished)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "deb"));
    let Some(archive) = archive else { bail!("apt-get has fetched no {package}") };
    let tree = unfinished.join("tree");
    run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&tree))?;
    if fs::rename(&tree, &directory).is_err() && !directory.is_dir() {
        bail!("cannot move what was unpacked to {}", directory.display());
    }
    // Only the archive is left in it.
    _ = fs::remove_dir_all(&unfinished);
    Ok(directory)
}
