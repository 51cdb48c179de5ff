//! What is wrong with manifests, and where.

use std::fmt;
use std::sync::Arc;

/// Problems that are kept; more are counted only.
const MAX_KEPT: usize = 1000;

/// Something wrong in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path as the user gave it, or `-` for standard input.
    pub file: Arc<str>,
    /// Line in the file, from 1; absent when it is about the file as a whole.
    pub line: Option<u32>,
    /// `NetworkPolicy shop/api`, as far as it could be read.
    pub object: Option<String>,
    /// `spec.ingress[0].ports[0].port`
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    pub(super) fn of_file(file: impl Into<Arc<str>>, message: impl Into<String>) -> Self {
        Problem { file: file.into(), line: None, object: None, field: None, message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Problem { hint: Some(hint.into()), ..self }
    }
}

/// `shop/policies.yaml:14: NetworkPolicy shop/api: spec.ingress[0].ports[0].port: …`, and the hint on a line of its own.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        for part in [&self.object, &self.field].into_iter().flatten() {
            write!(f, ": {part}")?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n    hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// A list of problems that does not grow without end.
#[derive(Clone, Debug, Default)]
pub(super) struct Problems {
    kept: Vec<Problem>,
    omitted: usize,
}

impl Problems {
    pub(super) fn push(&mut self, problem: Problem) {
        if self.kept.len() < MAX_KEPT {
            self.kept.push(problem);
        } else {
            self.omitted += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The problems, and at the end a word on those that were not kept.
    pub(super) fn into_list(self) -> Vec<Problem> {
        let mut list = self.kept;
        if let (Some(last), 1..) = (list.last(), self.omitted) {
            list.push(Problem::of_file(
                last.file.clone(),
                format!("{} more problems, here or in later files, are not listed", self.omitted),
            ));
        }
        list
    }
}

/// Why manifests could not be read: all problems of all files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestErrors {
    /// At least one, in the order of the files.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ManifestErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ManifestErrors {}

impl From<Problem> for ManifestErrors {
    fn from(problem: Problem) -> Self {
        ManifestErrors { problems: vec![problem] }
    }
}
