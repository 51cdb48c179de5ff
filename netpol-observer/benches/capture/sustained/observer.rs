//! The observer as it is used: `observer tail -o json`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Running, Tool, lines_with};

pub(super) struct Tail {
    name: &'static str,
    observer: PathBuf,
    manifests: PathBuf,
}

impl Tail {
    pub(super) fn new(name: &'static str, observer: &Path, manifests: &Path) -> Self {
        Tail { name, observer: observer.to_owned(), manifests: manifests.to_owned() }
    }
}

impl Tool for Tail {
    fn name(&self) -> &str {
        self.name
    }

    fn start(&self, output: &Path) -> Result<Box<dyn Running>> {
        let arguments = ["-o", "json", "--summary-interval", "1s", "--manifests"].map(PathBuf::from);
        let arguments = arguments.into_iter().chain([self.manifests.clone()]);
        let file = File::create(output).with_context(|| format!("cannot make {}", output.display()))?;
        Ok(Box::new(xtask::tail::Tail::start(&self.observer, arguments, Stdio::from(file))?))
    }

    /// By its own account, which has to agree with what it wrote.
    fn delivered(&self, text: &[u8]) -> Result<u64> {
        let last = text.trim_ascii_end().rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
        let ledger: Value = serde_json::from_slice(last).context("the observer's last line is no ledger")?;
        let count = |name: &str| ledger[name].as_u64().with_context(|| format!("the ledger has no {name}"));
        ensure!(ledger["balanced"] == true, "the observer's ledger is not balanced: {ledger}");
        let shown = count("shown")?;
        ensure!(self.reports(text) == shown, "the ledger says {shown} drops are shown in full, the output has {}", self.reports(text));
        Ok(shown + count("repeats")?)
    }

    fn reports(&self, text: &[u8]) -> u64 {
        lines_with(text, br#"{"type":"denial""#)
    }
}

impl Running for xtask::tail::Tail {
    fn stop(self: Box<Self>) -> Result<Vec<String>> {
        xtask::tail::Tail::stop(*self)
    }
}
