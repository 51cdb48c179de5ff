//! What tests of several crates share.

use std::io::Write as _;

use serde::{Deserialize, Serialize};

/// Says that a test, or a part of it, did not run, and why. Written past the test harness, which keeps the output of tests
/// that pass to itself; `cargo xtask test` counts these lines and lists them at its end.
pub fn skipped(test: &str, why: &str) {
    // Nobody listening is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{SKIPPED}{test}: {why}");
}

/// A figure or a table of a test that passes, past the test harness likewise.
pub fn report(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// How such a line begins.
pub const SKIPPED: &str = "SKIPPED ";

/// How a line with a [`Row`] begins.
pub const ROW: &str = "ROW ";

/// What a kernel test found of one shape of drop on the running kernel: a cell of the table in docs/kernels.md. `cargo xtask kernels`
/// collects these lines from its guests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What dropped the packets, and how: `iptables-legacy REJECT tcp-reset`. The same words on every kernel.
    pub shape: String,
    /// `ipv4`, `ipv6`, or empty where the shape has no family.
    pub family: String,
    /// How it ended.
    pub result: RowResult,
    /// What the drops looked like (`NETFILTER_DROP nft_do_chain forward`), or why it is a gap or cannot run here.
    pub found: String,
}

/// How the test of a shape ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowResult {
    /// Exactly the denied flows, in the right direction and class, the ledger balanced.
    Pass,
    /// Known not to be seen or told apart on this kernel; docs/limitations.md says why. The test holds that it is so.
    Gap,
    /// This kernel or machine cannot make such drops.
    CannotRun,
}

/// Writes a row, past the test harness.
pub fn row(row: &Row) {
    // A row is plain strings: it always serialises.
    report(&format!("{ROW}{}", serde_json::to_string(row).unwrap_or_default()));
}
