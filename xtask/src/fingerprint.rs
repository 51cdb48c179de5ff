//! Tells whether the eBPF object fits its sources. Shared with netpol-observer's build script, so std only.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Where the object lies, from the workspace's root.
pub const OBJECT: &str = "target/bpf/observer.bpf.o";
/// Likewise the enforcers of the kernel tests.
pub const TEST_OBJECT: &str = "target/bpf/enforcers.bpf.o";
/// The fingerprint of the sources they were built from.
pub const STAMP: &str = "target/bpf/observer.bpf.stamp";
/// What it is built from.
pub const SOURCES: &[&str] = &["netpol-observer-ebpf", "netpol-observer-common"];

/// Changes when they are built in another way.
const RECIPE: &[u8] = b"2: without paths";

/// A hash over names and contents of all sources (FNV-1a, 64 bits: it only has to notice edits).
///
/// # Errors
/// When a source cannot be read.
pub fn of_sources(root: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&root.join(source), &mut files)?;
    }
    files.sort();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for &byte in bytes.iter().chain([0].iter()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    add(RECIPE);
    for file in &files {
        add(file.strip_prefix(root).unwrap_or(file).as_os_str().as_encoded_bytes());
        add(&fs::read(file)?);
    }
    Ok(format!("{hash:016x}"))
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "toml") {
            files.push(path);
        }
    }
    Ok(())
}
