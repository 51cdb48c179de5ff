//! What whole runs came to, kept in target/kernels/results, so that the table can be written from runs of different days.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use xtask::testing::Row;

use super::column::COLUMNS;
use super::report::{Report, Verdict};

/// A column of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    /// See [`Column`](super::column::Column).
    pub(super) column: String,
    pub(super) release: String,
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: Vec<String>,
    /// Everything went well, what the kernel said included.
    pub(super) is_good: bool,
    pub(super) seconds: f64,
    pub(super) checks: Vec<Check>,
    pub(super) rows: Vec<Row>,
}

/// A check of `observer doctor -o json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) status: String,
    pub(super) found: String,
}

impl Kept {
    fn of(report: &Report) -> Self {
        let (passed, failed, skipped) = report.counts();
        let checks = report.doctor().and_then(|doctor| serde_json::from_value(doctor["checks"].clone()).ok()).unwrap_or_default();
        Kept {
            column: report.column.to_owned(),
            release: report.release.clone(),
            passed,
            failed,
            skipped,
            is_good: report.verdict() == Verdict::Passed,
            seconds: report.time.as_secs_f64(),
            checks,
            rows: report.rows().collect(),
        }
    }
}

/// Keeps a run's results.
pub(super) fn save(directory: &Path, report: &Report) -> Result<()> {
    let directory = directory.join("results");
    fs::create_dir_all(&directory)?;
    let path = directory.join(format!("{}.json", report.column));
    fs::write(&path, serde_json::to_string_pretty(&Kept::of(report))?).with_context(|| format!("cannot write {}", path.display()))
}

/// All that was kept, in the order of the columns.
pub(super) fn load_all(directory: &Path) -> Result<Vec<Kept>> {
    let mut all = Vec::new();
    for column in COLUMNS {
        let path = directory.join("results").join(format!("{}.json", column.name));
        if let Ok(text) = fs::read_to_string(&path) {
            all.push(serde_json::from_str(&text).with_context(|| format!("{} is of another version; remove it", path.display()))?);
        }
    }
    Ok(all)
}
