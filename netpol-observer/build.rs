//! Puts the eBPF object where the library includes it from: the one that `cargo xtask` has built, or nothing.
//!
//! The object is built by its own toolchain, which this build must not depend on: without it everything but live capture
//! works, and live capture says what is missing.

use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "../xtask/src/fingerprint.rs"]
#[expect(unreachable_pub, reason = "xtask, whose module this is, exports it")]
mod fingerprint;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let object = root.join(fingerprint::OBJECT);
    let test_object = root.join(fingerprint::TEST_OBJECT);
    let stamp = root.join(fingerprint::STAMP);
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rerun-if-changed={}", test_object.display());
    println!("cargo::rerun-if-changed={}", stamp.display());
    for source in fingerprint::SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let built = fs::read(&object).ok().zip(fs::read_to_string(&stamp).ok());
    let current = fingerprint::of_sources(&root).expect("the eBPF sources are part of the workspace");
    let (bytes, test_bytes) = match built {
        Some((bytes, stamp)) if stamp == current => (bytes, fs::read(&test_object).unwrap_or_default()),
        Some(_) => {
            println!("cargo::warning=the eBPF object is older than its sources: built without it; run `cargo xtask build`");
            (Vec::new(), Vec::new())
        }
        None => {
            println!(
                "cargo::warning=built without the eBPF program, so live capture will not work; `cargo xtask build` brings its toolchain"
            );
            (Vec::new(), Vec::new())
        }
    };
    fs::write(out.join("observer.bpf.o"), bytes).expect("OUT_DIR is writable");
    // Included by the kernel tests, never by the library.
    fs::write(out.join("enforcers.bpf.o"), test_bytes).expect("OUT_DIR is writable");
}
