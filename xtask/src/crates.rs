//! Sources of published crates, for tests that need a file which a crate carries and the workspace does not depend on.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::output;

/// The directory of a crate's sources, as Cargo unpacked them; fetched by Cargo, with its own configuration, when they are not there yet.
///
/// # Errors
/// When Cargo cannot fetch the crate, or keeps its sources elsewhere than in `registry/src` of its home.
pub fn source(name: &str, version: &str) -> Result<PathBuf> {
    let home = cargo_home().context("neither CARGO_HOME nor HOME is set, so nobody knows where Cargo keeps crates")?;
    if let Some(found) = unpacked(&home, name, version) {
        return Ok(found);
    }
    eprintln!("xtask: fetching the crate {name} {version}");
    // `cargo info` fetches the crate alone: as a dependency it would bring all of its own.
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    output(Command::new(cargo).args(["info", "--quiet", "--color", "never", &format!("{name}@{version}")]))
        .with_context(|| format!("the crate {name} {version} cannot be fetched"))?;
    match unpacked(&home, name, version) {
        Some(found) => Ok(found),
        None => bail!(
            "Cargo has fetched {name} {version}, but not to {}: is the registry replaced by a directory?",
            home.join("registry/src").display()
        ),
    }
}

/// Where Cargo keeps what it fetches.
fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
}

/// The sources of a crate from any registry, unpacked to their end.
fn unpacked(home: &Path, name: &str, version: &str) -> Option<PathBuf> {
    let registries = home.join("registry/src").read_dir().ok()?;
    let mut found = registries.filter_map(Result::ok).map(|registry| registry.path().join(format!("{name}-{version}")));
    // Cargo writes this file last.
    found.find(|directory| directory.join(".cargo-ok").is_file())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_what_is_unpacked_to_its_end_counts() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("registry/src/index.crates.io-0123456789abcdef/some-crate-1.2.3");
        fs::create_dir_all(&directory).unwrap();
        assert_eq!(unpacked(home.path(), "some-crate", "1.2.3"), None);
        fs::write(directory.join(".cargo-ok"), "{\"v\":1}").unwrap();
        assert_eq!(unpacked(home.path(), "some-crate", "1.2.3"), Some(directory));
        assert_eq!(unpacked(home.path(), "some-crate", "1.2.4"), None);
    }
}
