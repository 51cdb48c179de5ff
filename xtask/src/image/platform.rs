//! What an image is for, and what compiles for it.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use clap::ValueEnum;
use xtask::command::{find, output, run};
use xtask::packages;

/// As images name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Platform {
    /// x86-64
    #[value(name = "linux/amd64")]
    Amd64,
    /// 64-bit ARM
    #[value(name = "linux/arm64")]
    Arm64,
}

impl Platform {
    /// That of this machine.
    pub(super) fn of_this_machine() -> Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Platform::Amd64),
            "aarch64" => Ok(Platform::Arm64),
            other => bail!("there are images for linux/amd64 and linux/arm64; this machine is {other}: choose with --platform"),
        }
    }

    /// `architecture` in the image's documents.
    pub(super) fn architecture(self) -> &'static str {
        match self {
            Platform::Amd64 => "amd64",
            Platform::Arm64 => "arm64",
        }
    }

    /// As rustc calls it. Naming a target keeps the flags away from build scripts, which need not be static.
    pub(super) fn target(self) -> &'static str {
        match self {
            Platform::Amd64 => "x86_64-unknown-linux-gnu",
            Platform::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// `e_machine` of its programs.
    pub(super) fn machine(self) -> u16 {
        match self {
            Platform::Amd64 => object::elf::EM_X86_64,
            Platform::Arm64 => object::elf::EM_AARCH64,
        }
    }

    /// The C compiler that makes programs for it on other machines, and Debian's packages with that and the C library.
    fn cross_compiler(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Platform::Amd64 => ("x86_64-linux-gnu-gcc", &["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"]),
            Platform::Arm64 => ("aarch64-linux-gnu-gcc", &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]),
        }
    }

    /// Brings what compiles for it on this machine. Returns what cargo is to be told of it in its environment: nothing where it is this machine's own.
    pub(super) fn bring_compiler(self, root: &Path) -> Result<Vec<(String, &'static str)>> {
        if Self::of_this_machine().is_ok_and(|own| own == self) {
            return Ok(Vec::new());
        }
        let (compiler, packages) = self.cross_compiler();
        if find(compiler).is_none() || packages.iter().any(|package| find("dpkg-query").is_some() && !packages::is_installed(package)) {
            packages::ensure(&format!("a program for {self}"), packages)?;
        }
        self.bring_standard_library(root)?;
        Ok(self.environment(compiler))
    }

    /// cargo takes the linker from here, and build scripts (ring's, by the crate cc) the compiler.
    fn environment(self, compiler: &'static str) -> Vec<(String, &'static str)> {
        let name = self.target().replace('-', "_");
        vec![(format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), compiler), (format!("CC_{name}"), compiler)]
    }

    /// Rust's for this target, of the toolchain that builds the workspace.
    fn bring_standard_library(self, root: &Path) -> Result<()> {
        let target = self.target();
        let sysroot = output(Command::new("rustc").current_dir(root).args(["--print", "sysroot"]))?;
        let libraries = Path::new(sysroot.trim()).join("lib/rustlib").join(target).join("lib");
        if libraries.is_dir() {
            return Ok(());
        }
        let command = format!("rustup target add {target}");
        if find("rustup").is_none() {
            bail!("a program for {self} needs Rust's standard library for {target}, and {} is not there: {command}", libraries.display());
        }
        eprintln!("xtask: {command}");
        run(Command::new("rustup").current_dir(root).args(["target", "add", target]))
            .map_err(|error| error.context(format!("a program for {self} needs Rust's standard library for {target}")))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "linux/{}", self.architecture())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_and_build_scripts_are_told_of_the_cross_compiler() {
        let (compiler, _) = Platform::Arm64.cross_compiler();
        let expected = ["CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "CC_aarch64_unknown_linux_gnu"];
        assert_eq!(Platform::Arm64.environment(compiler), expected.map(|name| (name.to_owned(), "aarch64-linux-gnu-gcc")));
    }

    #[test]
    fn platforms_are_written_as_given() {
        for platform in Platform::value_variants() {
            assert_eq!(Platform::from_str(&platform.to_string(), false).as_ref(), Ok(platform));
            assert!(platform.target().ends_with("-unknown-linux-gnu"));
        }
    }
}
