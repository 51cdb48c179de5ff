//! What a kernel said of a shape, kept for machines that have another one.

use std::collections::BTreeSet;
use std::path::Path;

use netpol_observer::capture::kernel::release;
use netpol_observer::capture::{Captured, RecordingHeader, RecordingReader, RecordingWriter};
use netpol_observer::cluster::manifests;
use netpol_observer::diagnose::Denial;
use netpol_observer::flow::KernelNames;
use netpol_observer::pipeline::{Pipeline, Step};
use netpol_observer::policy::{Engine, Profile};
use netpol_observer_common::DropRecord;
use zerocopy::FromBytes as _;

use super::expectation::{Expectation, version};

/// Names of a fixture's files.
pub(crate) const RECORDING: &str = "drops.npo";
pub(crate) const MANIFESTS: &str = "manifests.yaml";
pub(crate) const EXPECTATION: &str = "expectation.json";

/// One record of each denied flow, in the project's own format, with the names they need.
pub(crate) fn record(captured: &[Captured], names: &dyn KernelNames, expectation: &Expectation) -> Vec<u8> {
    let mut flows = BTreeSet::new();
    let mut kept = Vec::new();
    for captured in captured {
        let Captured::Record(bytes) = captured else { continue };
        let Ok(event) = netpol_observer::flow::decode_record(bytes, names) else { continue };
        let record = DropRecord::read_from_bytes(bytes).unwrap();
        let denied = |port: Option<u16>| expectation.denied.iter().any(|flow| Some(flow.port) == port);
        let ends = (event.flow.source, event.flow.destination, event.flow.destination_port, record.reason);
        // A tunnel of pods is a flow itself.
        let outer = event.tunnel.as_ref().and_then(|tunnel| tunnel.outer.destination_port);
        if [event.flow.destination_port, event.flow.source_port, outer].into_iter().any(denied) && flows.insert(ends) {
            kept.push((captured, record.reason));
        }
    }
    let created = jiff::Timestamp::UNIX_EPOCH;
    let mut header = RecordingHeader::new(release(), std::env::consts::ARCH.to_owned(), created, names);
    header.reasons.retain(|number, _| kept.iter().any(|(_, reason)| reason == number));
    let mut recording = Vec::new();
    let mut writer = RecordingWriter::new(&mut recording, &header).unwrap();
    for (captured, _) in kept {
        writer.write(captured, names).unwrap();
    }
    writer.finish().unwrap();
    recording
}

/// Takes a recording through the pipeline and compares.
pub(crate) fn replay(recording: &[u8], manifests: &str, expectation: &Expectation, release: &str) -> Result<String, String> {
    let loaded = manifests::load(&["-".into()], &mut manifests.as_bytes()).map_err(|errors| errors.to_string())?;
    let mut engine = Engine::new(Profile::default());
    engine.reset(loaded.objects);
    let pipeline = Pipeline::new(engine.into());
    let mut reader = RecordingReader::new(recording).map_err(|error| error.to_string())?;
    let mut denials: Vec<Denial> = Vec::new();
    while let Some(captured) = reader.next().map_err(|error| error.to_string())? {
        match pipeline.step(&captured, &reader).map_err(|error| error.to_string())? {
            Step::Denial(denial) => denials.push((*denial).clone()),
            Step::Repeat { .. } | Step::Amendment(_) | Step::Ledger(_) => {}
        }
    }
    expectation.check(release, &denials)
}

/// Writes a fixture where `NETPOL_OBSERVER_KEEP_SHAPES` asks for them.
pub(crate) fn keep(recording: &[u8], manifests: &str, expectation: &Expectation, release: &str) {
    let Some(to) = std::env::var_os("NETPOL_OBSERVER_KEEP_SHAPES") else { return };
    let (major, minor) = version(release);
    let words = format!("{} {}", expectation.shape, expectation.family);
    let slug: Vec<String> =
        words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
    let directory = Path::new(&to).join(format!("{major}.{minor}")).join(slug.join("-"));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(RECORDING), recording).unwrap();
    std::fs::write(directory.join(MANIFESTS), manifests).unwrap();
    std::fs::write(directory.join(EXPECTATION), serde_json::to_string_pretty(expectation).unwrap() + "\n").unwrap();
}
