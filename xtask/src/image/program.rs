//! The program of the image: static, stripped, without a path of the machine that built it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use object::Endianness;
use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use xtask::command::run;
use xtask::toolchain;

use super::platform::Platform;
use crate::cargo;

/// See Cargo.toml.
const PROFILE: &str = "image";

/// Compiles it into a target directory of its own.
pub(super) fn build(root: &Path, directory: &Path, platform: Platform) -> Result<PathBuf> {
    toolchain::build_object(root)?;
    let environment = platform.bring_compiler(root)?;
    eprintln!("xtask: building the static program for {platform} (some minutes)");
    let target = directory.join("build");
    let flags = std::iter::once(OsString::from("-Ctarget-feature=+crt-static")).chain(toolchain::without_paths(root));
    let mut command = cargo(root);
    command.args(["build", "--locked", "--package", "netpol-observer", "--bin", "observer", "--profile", PROFILE]);
    command.args(["--target", platform.target(), "--target-dir"]).arg(&target).envs(environment);
    command.env("CARGO_ENCODED_RUSTFLAGS", toolchain::encoded(flags)).env_remove("CARGO_TARGET_DIR");
    run(&mut command)?;
    Ok(target.join(platform.target()).join(PROFILE).join("observer"))
}

/// A program that needs a dynamic linker finds none in an image that has nothing else, and one for another machine does not start.
pub(super) fn check(program: &Path, platform: Platform) -> Result<()> {
    let bytes = std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let shown = program.display();
    let header = FileHeader64::<Endianness>::parse(&*bytes).with_context(|| format!("{shown} is no program of a 64-bit machine"))?;
    let endian = header.endian()?;
    if header.e_machine(endian) != platform.machine() {
        bail!("{shown} is not for {platform}");
    }
    let segments = header.program_headers(endian, &*bytes).with_context(|| format!("{shown} is no whole program"))?;
    if segments.iter().any(|segment| segment.p_type(endian) == PT_INTERP) {
        bail!("{shown} needs a dynamic linker: build it with -C target-feature=+crt-static");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_static_program_of_the_platform_is_taken() {
        // The test itself is linked dynamically.
        let own = std::env::current_exe().unwrap();
        let here = Platform::of_this_machine().unwrap();
        let other = if here == Platform::Amd64 { Platform::Arm64 } else { Platform::Amd64 };
        let said = |program: &Path, platform| format!("{:#}", check(program, platform).unwrap_err());
        assert!(said(&own, here).contains("needs a dynamic linker"));
        assert!(said(&own, other).contains(&format!("is not for {other}")));
        assert!(said(Path::new("/etc/passwd"), here).contains("64-bit"));
    }
}
