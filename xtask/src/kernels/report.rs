//! What a guest tells, line by line, and what that comes to.
//!
//! ```text
//!   BOOTED 6.1.0-57-cloud-amd64
//!   BEGIN nftables::forward
//!   |what the test writes
//!   END nftables::forward 0 12.31
//!   DONE
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use xtask::testing::{ROW, Row, SKIPPED};

/// Lines of a console or of a test that are shown.
const SHOWN: usize = 40;

/// What a kernel says when something is wrong with it.
const FAULTS: &[&str] = &[
    "WARNING: ",
    "BUG: ",
    "kernel BUG at",
    "Oops: ",
    "Oops:",
    "Kernel panic",
    "general protection fault",
    "Out of memory",
    "invoked oom-killer",
    "self-detected stall",
    "blocked for more than",
    "unregister_netdevice: waiting",
    "refcount_t: ",
    "Call Trace:",
];

/// How it went on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
}

/// A test, or another task of a guest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Task {
    pub(crate) name: String,
    /// Exit status; `None` where it never ended.
    pub(crate) status: Option<i32>,
    pub(crate) seconds: f64,
    pub(crate) output: String,
}

impl Task {
    /// `SKIPPED …` lines of it.
    fn skipped(&self) -> impl Iterator<Item = &str> {
        self.output.lines().filter(|line| line.starts_with(SKIPPED))
    }

    fn passed(&self) -> bool {
        self.status == Some(0)
    }

    fn is_test(&self) -> bool {
        self.name.contains("::")
    }
}

/// All that is known of a guest's run.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// See [`Column`](super::column::Column).
    pub(crate) column: &'static str,
    pub(crate) release: String,
    pub(crate) tasks: Vec<Task>,
    /// What went wrong beside the tests.
    pub(crate) faults: Vec<String>,
    pub(crate) time: Duration,
    expected: usize,
    booted: bool,
    done: bool,
    console: PathBuf,
}

impl Report {
    pub(super) fn new(column: &'static str, release: &str, expected: usize) -> Self {
        Report {
            column,
            release: release.to_owned(),
            tasks: Vec::new(),
            faults: Vec::new(),
            time: Duration::ZERO,
            expected,
            booted: false,
            done: false,
            console: PathBuf::new(),
        }
    }

    /// A guest that could not be started.
    pub(super) fn not_run(column: &'static str, error: &anyhow::Error) -> Self {
        let mut report = Report::new(column, column, 0);
        report.fault(format!("could not be started: {error:#}"));
        report
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    pub(super) fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    /// The tests among the tasks.
    pub(crate) fn tests(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().filter(|task| task.is_test())
    }

    /// Takes a line; what of it is worth showing at once.
    pub(super) fn take(&mut self, line: &str) -> Option<String> {
        if let Some(text) = line.strip_prefix('|') {
            if let Some(task) = self.tasks.last_mut() {
                task.output.push_str(text);
                task.output.push('\n');
            }
            return None;
        }
        let mut words = line.split(' ');
        match (words.next()?, words.next()) {
            ("BOOTED", Some(release)) => {
                self.booted = true;
                if release != self.release {
                    self.fault(format!("runs {release} instead of {}", self.release));
                }
                Some(format!("booted {release}"))
            }
            ("BEGIN", Some(name)) => {
                self.tasks.push(Task { name: name.to_owned(), status: None, seconds: 0.0, output: String::new() });
                None
            }
            ("END", Some(name)) => {
                let mut task = self.tasks.pop().filter(|task| task.name == name)?;
                task.status = words.next().and_then(|status| status.parse().ok());
                task.seconds = words.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0);
                self.add(task)
            }
            ("DONE", None) => {
                self.done = true;
                None
            }
            _ => {
                self.fault(format!("said something that is none of the protocol: {line:?}"));
                None
            }
        }
    }

    /// Takes a task that has ended; what of it is worth showing at once.
    pub(super) fn add(&mut self, task: Task) -> Option<String> {
        let word = match task.status {
            Some(0) if task.skipped().count() > 0 => "skipped",
            Some(0) => "passed",
            _ => "FAILED",
        };
        let mut text = format!("{} {word} in {:.1} s", task.name, task.seconds);
        if word == "FAILED" {
            text = format!("{text}\n{}", telling_lines(&task.output));
        }
        let is_test = task.is_test();
        self.tasks.push(task);
        if is_test {
            return Some(format!("[{}/{}] {text}", self.tests().count(), self.expected));
        }
        (word == "FAILED").then_some(text)
    }

    /// The end of a run that had no guest.
    pub(super) fn finish(&mut self, time: Duration) {
        (self.time, self.booted, self.done) = (time, true, true);
    }

    /// After its end: looks through what the kernel said.
    pub(super) fn conclude(&mut self, said: &str, console: &Path, time: Duration) {
        self.time = time;
        self.console = console.to_owned();
        let faulty: Vec<&str> = said.lines().filter(|line| FAULTS.iter().any(|fault| line.contains(fault))).collect();
        if !self.booted {
            self.faults.insert(0, "never came to its first process".to_owned());
        }
        if let Some(open) = self.tasks.last().filter(|task| !self.done && task.status.is_none()) {
            self.faults.push(format!("ended within {}; its last lines:\n{}", open.name, last_lines(&open.output, SHOWN)));
        }
        let ran = self.tests().count();
        if self.done && ran != self.expected {
            self.faults.push(format!("{ran} tests ran instead of {}", self.expected));
        }
        if !faulty.is_empty() {
            self.faults.push(format!("the kernel complains:\n    {}", faulty.join("\n    ")));
        }
        if !self.done {
            self.faults.push(format!("the end of its console:\n{}", last_lines(said, SHOWN)));
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        if self.faults.is_empty() && self.done && self.tasks.iter().all(Task::passed) { Verdict::Passed } else { Verdict::Failed }
    }

    /// Numbers of tests that passed, failed, and lines of skipped ones.
    pub(crate) fn counts(&self) -> (u64, u64, Vec<String>) {
        let passed = self.tests().filter(|test| test.passed()).count() as u64;
        let failed = self.tasks.iter().filter(|task| !task.passed()).count() as u64;
        let skipped = self.tests().flat_map(Task::skipped).map(|line| format!("{line} (kernel {})", self.column)).collect();
        (passed, failed, skipped)
    }

    /// The findings that the tests have written as rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row> {
        let lines = self.tests().flat_map(|test| test.output.lines());
        lines.filter_map(|line| serde_json::from_str(line.strip_prefix(ROW)?).ok())
    }

    /// What a task has written.
    pub(super) fn output_of(&self, name: &str) -> Option<&str> {
        self.tasks.iter().find(|task| task.name == name).map(|task| task.output.as_str())
    }

    /// What `observer doctor -o json` says there.
    pub(crate) fn doctor(&self) -> Option<Value> {
        self.output_of("doctor")?.lines().find_map(|line| serde_json::from_str(line).ok())
    }

    /// A few lines for people.
    pub(crate) fn summary(&self) -> String {
        let (passed, failed, skipped) = self.counts();
        let word = if self.verdict() == Verdict::Passed { "passed" } else { "FAILED" };
        let mut text = format!(
            "kernel {} ({}): {word} in {:.0} s ({passed} passed, {failed} failed, {} skipped)",
            self.column,
            self.release,
            self.time.as_secs_f64(),
            skipped.len()
        );
        for task in self.tasks.iter().filter(|task| !task.passed()) {
            text.push_str(&format!("\n  {} failed", task.name));
        }
        for line in &skipped {
            text.push_str(&format!("\n  {line}"));
        }
        for fault in &self.faults {
            text.push_str(&format!("\n  {fault}"));
        }
        if self.verdict() == Verdict::Failed && !self.console.as_os_str().is_empty() {
            text.push_str(&format!("\n  all that the kernel said: {}", self.console.display()));
        }
        text
    }
}

/// Of what a failed test has written: from its panic on, or else the end. Of a long message the beginning and the end.
fn telling_lines(output: &str) -> String {
    let Some(at) = output.find(" panicked at ") else { return last_lines(output, SHOWN) };
    let begin = output[..at].rfind('\n').map_or(0, |end| end + 1);
    let lines: Vec<&str> = output[begin..].lines().collect();
    let shown = |lines: &[&str]| lines.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n");
    if lines.len() <= SHOWN {
        return shown(&lines);
    }
    let (first, last) = (SHOWN / 4, SHOWN - SHOWN / 4);
    let left_out = lines.len() - first - last;
    format!("{}\n    … {left_out} lines …\n{}", shown(&lines[..first]), shown(&lines[lines.len() - last..]))
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: &str = "6.1.0-57-cloud-amd64";

    /// A run of two tests, of which the guest says these lines and the kernel that.
    fn report(lines: &[&str], said: &str) -> Report {
        let mut report = Report::new("6.1", RELEASE, 2);
        for line in lines {
            report.take(line);
        }
        report.conclude(said, Path::new("console.log"), Duration::from_secs(9));
        report
    }

    const GOOD: &[&str] = &[
        "BOOTED 6.1.0-57-cloud-amd64",
        "BEGIN packets::sctp",
        r#"|ROW {"shape":"SCTP","family":"ipv4","result":"pass","found":"NETFILTER_DROP"}"#,
        "END packets::sctp 0 12.31",
        "BEGIN forms::both",
        "|SKIPPED forms::both: this kernel shows no types",
        "END forms::both 0 0.2",
        "BEGIN doctor",
        r#"|{"type":"doctor","checks":[]}"#,
        "END doctor 0 3",
        "DONE",
    ];

    #[test]
    fn a_good_run() {
        let report = report(GOOD, "[ 0.0] Linux version 6.1\n");
        assert_eq!(report.verdict(), Verdict::Passed, "{}", report.summary());
        let (passed, failed, skipped) = report.counts();
        assert_eq!((passed, failed, skipped.len()), (2, 0, 1));
        assert_eq!(report.rows().map(|row| row.shape).collect::<Vec<_>>(), ["SCTP"]);
        assert!(report.doctor().is_some());
        assert_eq!(report.tests().next().map(|test| test.seconds), Some(12.31));
    }

    #[test]
    fn what_the_kernel_complains_of_fails_the_run() {
        for said in
            ["[ 9.1] WARNING: CPU: 0 PID: 7 at net/core/skbuff.c:1", "[ 9.1] Out of memory: Killed process 7", "[ 9] BUG: unable to handle"]
        {
            let report = report(GOOD, said);
            assert_eq!(report.verdict(), Verdict::Failed);
            assert!(report.summary().contains(said), "{}", report.summary());
        }
    }

    #[test]
    fn a_test_that_failed_or_was_not_there() {
        let mut lines = GOOD.to_vec();
        lines[3] = "END packets::sctp 101 12.31";
        assert!(report(&lines, "").summary().contains("packets::sctp failed"));
        // The harness is content with no test at all.
        let lines = [&GOOD[..1], &GOOD[4..]].concat();
        assert!(report(&lines, "").summary().contains("1 tests ran instead of 2"));
    }

    #[test]
    fn an_early_end_says_where() {
        let ended = report(&GOOD[..3], "[ 1.0] Run /init as init process\n[ 2.0] Kernel panic - not syncing: x\n");
        assert_eq!(ended.verdict(), Verdict::Failed);
        let summary = ended.summary();
        for part in ["ended within packets::sctp", "Kernel panic - not syncing: x", "console.log"] {
            assert!(summary.contains(part), "{summary}");
        }
        let never = report(&[], "");
        assert!(never.summary().contains("never came to its first process"));
    }

    #[test]
    fn another_kernel_than_the_one_asked_for() {
        let mut lines = GOOD.to_vec();
        lines[0] = "BOOTED 5.4.0";
        assert!(report(&lines, "").summary().contains("runs 5.4.0"));
    }
}
