//! The program of the image: static, stripped, without a path of the machine that built it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use xtask::command::run;
use xtask::toolchain;

use crate::cargo;
use crate::kernels::libraries_of;

/// Naming a target keeps the flags away from build scripts, which need not be static.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// See Cargo.toml.
const PROFILE: &str = "image";

/// Compiles it into a target directory of its own.
pub(super) fn build(root: &Path, directory: &Path) -> Result<PathBuf> {
    toolchain::build_object(root)?;
    eprintln!("xtask: building the static program (some minutes)");
    let target = directory.join("build");
    let flags = std::iter::once(OsString::from("-Ctarget-feature=+crt-static")).chain(toolchain::without_paths(root));
    let mut command = cargo(root);
    command.args(["build", "--locked", "--package", "netpol-observer", "--bin", "observer", "--profile", PROFILE, "--target", TARGET]);
    command.arg("--target-dir").arg(&target).env("CARGO_ENCODED_RUSTFLAGS", toolchain::encoded(flags)).env_remove("CARGO_TARGET_DIR");
    run(&mut command)?;
    Ok(target.join(TARGET).join(PROFILE).join("observer"))
}

/// A program that needs a dynamic linker finds none in an image that has nothing else.
pub(super) fn check_static(program: &Path) -> Result<()> {
    let needed = libraries_of(program);
    if !needed.is_empty() {
        bail!("{} needs libraries, such as {}: build it with -C target-feature=+crt-static", program.display(), needed[0].display());
    }
    Ok(())
}
