//! What kernels said of every enforcer's drops, replayed: decoder and classifier come to the same on any machine, without root.
//!
//! The fixtures are written by the kernel tests (`NETPOL_OBSERVER_KEEP_SHAPES=DIR cargo xtask test`), on each kernel that shows a shape
//! otherwise than the others.

#[path = "kernel/shape/expectation.rs"]
#[expect(dead_code, reason = "the kernel tests make expectations, here they are read")]
mod expectation;

use std::fs;
use std::path::{Path, PathBuf};

use netpol_observer::capture::RecordingReader;
use netpol_observer::cluster::manifests;
use netpol_observer::diagnose::Denial;
use netpol_observer::pipeline::{Pipeline, Step};
use netpol_observer::policy::{Engine, Profile};

use expectation::Expectation;

fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/shapes");
    let directories = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    };
    let mut found: Vec<PathBuf> = directories(&root).iter().flat_map(|kernel| directories(kernel)).collect();
    found.sort();
    found
}

/// The denials in a recording, and the kernel it is of.
fn replay(recording: &[u8], manifests: &Path) -> (String, Vec<Denial>) {
    let loaded = manifests::load(&[manifests.to_owned()], &mut std::io::empty()).unwrap_or_else(|errors| panic!("{errors}"));
    let mut engine = Engine::new(Profile::default());
    engine.reset(loaded.objects);
    let pipeline = Pipeline::new(engine.into());
    let mut reader = RecordingReader::new(recording).unwrap();
    let mut denials = Vec::new();
    while let Some(captured) = reader.next().unwrap() {
        if let Step::Denial(denial) = pipeline.step(&captured, &reader).unwrap() {
            denials.push((*denial).clone());
        }
    }
    (reader.header().kernel_release.clone(), denials)
}

#[test]
fn every_recorded_shape_is_told_right() {
    let mut problems = Vec::new();
    let fixtures = fixtures();
    assert!(fixtures.len() > 20, "{} fixtures", fixtures.len());
    for fixture in fixtures {
        let expectation = fs::read_to_string(fixture.join("expectation.json")).unwrap();
        let expectation: Expectation = serde_json::from_str(&expectation).unwrap_or_else(|error| panic!("{}: {error}", fixture.display()));
        let (release, denials) = replay(&fs::read(fixture.join("drops.npo")).unwrap(), &fixture.join("manifests.yaml"));
        if let Err(found) = expectation.check(&release, &denials) {
            problems.push(format!("{} ({release}):\n{found}", fixture.display()));
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n\n"));
}
