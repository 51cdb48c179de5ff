//! The toolchain of the eBPF crate: a rustc with `core` for bpfel-unknown-none, and bpf-linker.
//!
//! Two ways, the first that this machine offers:
//!
//! - **rustup**: a rustup toolchain with the component `rust-src`; cargo builds `core` from it (`-Z build-std`).
//! - **debian**: Debian's `rustc-web`, for which Debian has a prebuilt `core` (`libstd-rust-web-dev-bpf`). Installed when missing.
//!
//! bpf-linker comes from crates.io in both, built once against Debian's LLVM and kept in target/.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{output, run};
use crate::netns::{enforcer_tools, required_tools};
use crate::{fingerprint, packages};

/// The target of the object.
const TARGET: &str = "bpfel-unknown-none";
/// Version of bpf-linker; newer ones are tried with the eBPF crate before this moves.
const BPF_LINKER: &str = "0.13.0";
/// The LLVM that bpf-linker is built with. It reads the bitcode of a rustc with this LLVM or an older one.
const LLVM: u32 = 22;
/// Where Debian's LLVM lies.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const LLVM_PACKAGES: &[&str] =
    &["llvm-22-dev", "libpolly-22-dev", "libclang-22-dev", "zlib1g-dev", "libzstd-dev", "libxml2-dev", "gcc", "g++", "libc6-dev"];
/// runc, and the seccomp profile of podman and CRI-O. The latter's package asks for one of two network stacks; this is the smaller one.
const CONTAINER_PACKAGES: &[&str] = &["runc", "golang-github-containers-common", "netavark"];
const RUSTC_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
/// `rustup` or `debian` to take that way.
const CHOICE: &str = "NETPOL_OBSERVER_BPF_TOOLCHAIN";

/// A way to compile for BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// A rustup toolchain with `rust-src`, by its name.
    Rustup(String),
    /// Debian's compiler.
    Debian,
}

impl Toolchain {
    /// Chooses, and installs what is missing.
    ///
    /// # Errors
    /// When neither way is open; the message says what to do for each.
    pub fn bring() -> Result<Self> {
        let choice = env::var(CHOICE).ok();
        let rustup = with_rust_src();
        match (choice.as_deref(), rustup) {
            (None | Some("rustup"), Some(name)) => Ok(Toolchain::Rustup(name)),
            (Some("rustup"), None) => bail!("{CHOICE}=rustup, but no rustup toolchain has rust-src: rustup component add rust-src"),
            (None | Some("debian"), _) => {
                packages::ensure("the eBPF compiler", RUSTC_PACKAGES).context(
                    "the eBPF crate needs a compiler for bpfel-unknown-none: either `rustup component add rust-src`, or Debian's packages",
                )?;
                Ok(Toolchain::Debian)
            }
            (Some(other), _) => bail!("{CHOICE} is {other:?}; it can be rustup or debian"),
        }
    }

    /// In a few words.
    pub fn describe(&self) -> String {
        match self {
            Toolchain::Rustup(name) => format!("rustup toolchain {name} with rust-src (building core)"),
            Toolchain::Debian => "Debian's rustc-web with its prebuilt core for BPF".to_owned(),
        }
    }

    /// A cargo that compiles for BPF.
    fn cargo(&self) -> Command {
        match self {
            Toolchain::Rustup(name) => {
                let mut command = Command::new("rustup");
                command.args(["run", name, "cargo", "build", "-Z", "build-std=core"]);
                command
            }
            Toolchain::Debian => {
                let mut command = Command::new("/usr/bin/cargo");
                command.env("RUSTC", "/usr/bin/rustc").arg("build");
                command
            }
        }
    }

    fn rustc_version(&self) -> Result<String> {
        match self {
            Toolchain::Rustup(name) => output(Command::new("rustup").args(["run", name, "rustc", "-vV"])),
            Toolchain::Debian => output(Command::new("/usr/bin/rustc").arg("-vV")),
        }
    }

    /// bpf-linker must understand the bitcode this compiler writes.
    fn check_llvm(&self) -> Result<()> {
        let version = self.rustc_version()?;
        let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next()?.parse::<u32>().ok());
        match llvm {
            Some(llvm) if llvm > LLVM => bail!(
                "{} uses LLVM {llvm}, newer than the LLVM {LLVM} bpf-linker is built with; set {CHOICE}=debian, or choose an older toolchain",
                self.describe()
            ),
            _ => Ok(()),
        }
    }
}

/// The rustup toolchain to use: the default one if it has rust-src, else the first that has.
fn with_rust_src() -> Option<String> {
    let list = output(Command::new("rustup").args(["toolchain", "list"])).ok()?;
    let mut toolchains: Vec<&str> = list.lines().collect();
    toolchains.sort_by_key(|line| !line.contains("active") && !line.contains("default"));
    toolchains.into_iter().filter_map(|line| line.split_whitespace().next()).find(|name| has_rust_src(name)).map(str::to_owned)
}

fn has_rust_src(toolchain: &str) -> bool {
    let sysroot = output(Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]));
    sysroot.is_ok_and(|sysroot| Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file())
}

/// The linker's directory, after installing it if need be.
fn bring_linker(root: &Path) -> Result<PathBuf> {
    let prefix = root.join("target/bpf/tools");
    let linker = prefix.join("bin/bpf-linker");
    let right = |program: &Path| output(Command::new(program).arg("--version")).is_ok_and(|version| version.trim().ends_with(BPF_LINKER));
    if !right(&linker) {
        packages::ensure("bpf-linker", LLVM_PACKAGES)?;
        eprintln!("xtask: building bpf-linker {BPF_LINKER} from crates.io, once (about a minute)");
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["install", "bpf-linker", "--quiet", "--locked", "--version", BPF_LINKER, "--no-default-features"]);
        cargo.args(["--features", &format!("llvm-{LLVM}"), "--force", "--root"]).arg(&prefix);
        cargo.arg("--target-dir").arg(root.join("target/bpf/tools-build"));
        cargo.env("LLVM_PREFIX", LLVM_PREFIX).env_remove("RUSTFLAGS").env_remove("CARGO_TARGET_DIR");
        run(&mut cargo)?;
    }
    Ok(prefix.join("bin"))
}

/// Builds the eBPF object, and that of the kernel tests, where netpol-observer's build script takes them from. Does nothing when they are
/// up to date.
///
/// # Errors
/// When a toolchain cannot be had or the crate does not compile.
pub fn build_object(root: &Path) -> Result<()> {
    let current = fingerprint::of_sources(root)?;
    let object = root.join(fingerprint::OBJECT);
    let test_object = root.join(fingerprint::TEST_OBJECT);
    let stamp = root.join(fingerprint::STAMP);
    if object.is_file() && test_object.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|built| built == current) {
        return Ok(());
    }
    let toolchain = Toolchain::bring()?;
    toolchain.check_llvm()?;
    let linker = bring_linker(root)?;
    eprintln!("xtask: building the eBPF program with {}", toolchain.describe());
    let build = root.join("target/bpf/build");
    let path = env::join_paths(std::iter::once(linker).chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())))?;
    let mut cargo = toolchain.cargo();
    cargo.args(["--quiet", "--release", "--locked", "--package", "netpol-observer-ebpf", "--target", TARGET, "--target-dir"]).arg(&build);
    cargo.current_dir(root).env("PATH", path);
    // aya-ebpf and the one atomic instruction of ours use unstable features of the compiler.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    // --btf has bpf-linker turn the debug information into BTF, which the kernel wants for function and map types.
    let flags = ["-Clinker=bpf-linker", "-Clink-arg=--btf", "-Cdebuginfo=2"].map(OsString::from);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", encoded(flags.into_iter().chain(without_paths(root))));
    for inherited in ["RUSTFLAGS", "CARGO", "RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        cargo.env_remove(inherited);
    }
    run(&mut cargo)?;
    std::fs::create_dir_all(object.parent().context("the object has a directory")?)?;
    // The stamp goes last: a build that was interrupted leaves none that fits.
    let _ = std::fs::remove_file(&stamp);
    std::fs::copy(build.join(TARGET).join("release/netpol-observer"), &object)?;
    std::fs::copy(build.join(TARGET).join("release/enforcers"), &test_object)?;
    std::fs::write(&stamp, current)?;
    Ok(())
}

/// Flags that keep the paths of this machine out of what rustc makes, so that the same sources give the same bytes elsewhere.
pub fn without_paths(root: &Path) -> Vec<OsString> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let remapped = [(Some(root.to_owned()), "/netpol-observer"), (home, "/cargo")].into_iter();
    remapped
        .filter_map(|(from, to)| {
            let mut flag = OsString::from("--remap-path-prefix=");
            flag.push(from?);
            flag.push("=");
            flag.push(to);
            Some(flag)
        })
        .collect()
}

/// Flags as `CARGO_ENCODED_RUSTFLAGS` takes them: paths may hold blanks.
pub fn encoded(flags: impl IntoIterator<Item = OsString>) -> OsString {
    flags.into_iter().collect::<Vec<_>>().join(OsStr::new("\u{1f}"))
}

/// The tools that the demo and the kernel tests use.
///
/// # Errors
/// When they are missing and cannot be installed.
pub fn bring_network_tools() -> Result<()> {
    let missing: Vec<&str> = required_tools().into_iter().chain(enforcer_tools()).map(|tool| tool.package).collect();
    packages::ensure("network namespaces and firewall rules", &missing)
}

/// What runs the agent as a container in tests.
///
/// # Errors
/// As [`bring_network_tools`].
pub fn bring_container_tools() -> Result<()> {
    packages::ensure("the agent as a container", CONTAINER_PACKAGES)
}
