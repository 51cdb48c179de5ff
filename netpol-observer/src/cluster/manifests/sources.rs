//! Paths → the texts of the files they stand for.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::problem::Problem;

/// The largest file that is read.
const MAX_FILE_BYTES: u64 = 512 << 20;

/// Directories within directories that are entered.
const MAX_DEPTH: usize = 64;

const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// A file's name and text.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: Arc<str>,
    pub(super) text: String,
}

/// A file that could be read, or why it could not.
pub(super) type Found = Result<Source, Problem>;

/// Reads all files the paths stand for, in the order of the paths and sorted within a directory.
pub(super) fn gather(paths: &[PathBuf], stdin: &mut dyn Read) -> Vec<Found> {
    let mut found = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            found.push(read("-".into(), stdin));
        } else if path.is_dir() {
            let before = found.len();
            walk(path, 0, &mut found);
            if found.len() == before {
                let hint = "files are read whose names end in .yaml, .yml or .json and do not begin with a dot";
                found.push(Err(Problem::of_file(name(path), "no manifests in this directory").hint(hint)));
            }
        } else {
            found.push(read_file(path));
        }
    }
    found
}

fn name(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}

/// Reads files in the order of their names, those of directories where the directory's name stands. Links to files are followed (a
/// mounted ConfigMap has nothing else), links to directories are not: they may lead in circles.
fn walk(directory: &Path, depth: usize, found: &mut Vec<Found>) {
    if depth > MAX_DEPTH {
        found.push(Err(Problem::of_file(name(directory), format!("directories are nested more than {MAX_DEPTH} deep"))));
        return;
    }
    let entries = std::fs::read_dir(directory).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let mut paths: Vec<PathBuf> = match entries {
        Ok(entries) => entries.into_iter().map(|entry| entry.path()).collect(),
        Err(error) => {
            found.push(Err(Problem::of_file(name(directory), format!("cannot list the directory: {error}"))));
            return;
        }
    };
    paths.sort();
    for path in paths {
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_hidden {
            continue;
        }
        if path.is_dir() {
            if !path.is_symlink() {
                walk(&path, depth + 1, found);
            }
        } else if has_ending(&path) {
            found.push(read_file(&path));
        }
    }
}

fn has_ending(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// Whether [`gather`] would read the file when it is asked for the directory that the path begins in.
pub(super) fn is_manifest(path: &Path) -> bool {
    has_ending(path) && !path.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
}

fn read_file(path: &Path) -> Found {
    let mut file = File::open(path).map_err(|error| {
        let problem = Problem::of_file(name(path), format!("cannot open the file: {error}"));
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        if is_missing { problem.hint("give a file, a directory, or - for standard input") } else { problem }
    })?;
    read(name(path), &mut file)
}

fn read(file: Arc<str>, from: &mut dyn Read) -> Found {
    let mut bytes = Vec::new();
    if let Err(error) = from.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes) {
        return Err(Problem::of_file(file, format!("cannot read: {error}")));
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let message = format!("larger than {} MiB", MAX_FILE_BYTES >> 20);
        return Err(Problem::of_file(file, message).hint("split it, for instance by namespace"));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source { file, text }),
        Err(error) => {
            let (valid, _) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
            let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
            let line = u32::try_from(line).ok();
            Err(Problem { line, ..Problem::of_file(file, "not UTF-8 text") }.hint("save the file in UTF-8"))
        }
    }
}
