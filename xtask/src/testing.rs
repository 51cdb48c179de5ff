//! What tests of several crates share.

use std::io::Write as _;

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
