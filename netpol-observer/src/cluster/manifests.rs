//! Manifests → objects: files, directories and standard input, YAML and JSON.
//!
//! Strict, because a policy that is read differently here than by the API server gives a wrong verdict: wrong types and duplicate keys
//! are errors, fields the API does not have are warnings, each with file, line, object and field. All problems of all files are
//! collected, so that one run shows them all.

mod decode;
mod documents;
mod problem;
mod read;
mod sources;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use problem::{ManifestErrors, Problem};

use super::policy_test::TestDocument;
use super::{Object, Pod, convert};

/// Stack of the thread that reads. Without optimisation one level of a document takes 40 KiB of it, and there may be 64.
const STACK_BYTES: usize = 32 << 20;

/// What was found in manifests.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// In the order of the files; no two have the same kind, namespace and name.
    pub objects: Vec<Object>,
    /// The pods that stand for those of workload kinds (Deployment, StatefulSet, DaemonSet, Job, CronJob, ReplicaSet), a list for each object.
    pub stand_ins: Vec<Vec<Pod>>,
    /// Policy tests, in the order of the files.
    pub tests: Vec<TestDocument>,
    /// Objects of kinds that are not read, as `apiVersion kind`, and how many.
    pub skipped: BTreeMap<String, usize>,
    /// What is probably not meant as written.
    pub warnings: Vec<Problem>,
}

impl Loaded {
    /// Lets workloads of which no pod is among the objects have pods: those that their templates describe, without an address.
    pub fn with_stand_ins(mut self) -> Self {
        let pods = self.objects.iter().filter_map(|object| match object {
            Object::Pod(pod) => Some(&**pod),
            _ => None,
        });
        let made = convert::template::without_pods(pods, std::mem::take(&mut self.stand_ins));
        self.objects.extend(made.into_iter().map(Object::from));
        self
    }
}

/// Reads manifests. A path is a file of any name, a directory (all `.yaml`, `.yml` and `.json` files in and below it, sorted by name,
/// hidden ones left out), or `-` for `stdin`.
///
/// # Errors
///
/// Whatever could not be read or understood, in all files.
pub fn load(paths: &[PathBuf], stdin: &mut dyn Read) -> Result<Loaded, ManifestErrors> {
    read_all(sources::gather(paths, stdin))
}

/// Reads manifests from texts, each with the name of its file.
///
/// # Errors
///
/// Whatever could not be understood, in all texts.
pub fn load_texts(texts: Vec<(Arc<str>, String)>) -> Result<Loaded, ManifestErrors> {
    read_all(texts.into_iter().map(|(file, text)| Ok(sources::Source { file, text })).collect())
}

/// Whether a file of a directory is read, by its name: it ends in `.yaml`, `.yml` or `.json`, and neither it nor a directory it is in begins with a dot.
pub fn is_manifest(path: &Path) -> bool {
    sources::is_manifest(path)
}

fn read_all(found: Vec<sources::Found>) -> Result<Loaded, ManifestErrors> {
    // Reading is recursive, and the caller's stack may be a small one.
    let work = move || {
        let mut reader = read::Reader::default();
        for found in &found {
            reader.file(found);
        }
        reader.finish()
    };
    match std::thread::Builder::new().name("manifests".into()).stack_size(STACK_BYTES).spawn(work) {
        Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        Err(error) => Err(ManifestErrors::from(Problem::of_file("manifests", format!("cannot start a thread to read them: {error}")))),
    }
}
