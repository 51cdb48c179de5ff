//! What a run found otherwise than the one before it.

use std::collections::BTreeMap;

use super::report::Judged;
use crate::lint::Finding;
use crate::suite::{Outcome, TestResult};

/// What changed, each in the order of the reports.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Change<'a> {
    /// Tests that came, went, or turned.
    pub(super) tests: Vec<(Turn, &'a TestResult)>,
    /// Findings that were not there before.
    pub(super) came: Vec<&'a Finding>,
    /// Findings that are gone.
    pub(super) went: Vec<&'a Finding>,
}

/// How a test turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It passed, or was not there, and does not pass now.
    Fails,
    /// It did not pass and does not pass now, but otherwise.
    FailsOtherwise,
    /// It did not pass, and passes now.
    Passes,
    /// It was not there, and passes.
    Came,
    /// It is not there any more.
    Went,
}

impl Change<'_> {
    /// Whether everything is as it was.
    pub(super) fn is_empty(&self) -> bool {
        *self == Change::default()
    }
}

/// What the later run found otherwise. A test is the same one by its suite, its name, and which of these it is; a finding by what it says of which
/// object in which file. Lines do not matter: they move.
pub(super) fn between<'a>(before: &'a Judged, after: &'a Judged) -> Change<'a> {
    let mut tests = Vec::new();
    let mut old = by_key(&before.tests.results, test_key);
    for result in &after.tests.results {
        let turn = match (take(&mut old, &test_key(result)), result.outcome) {
            (None, Outcome::Passed) => Some(Turn::Came),
            (None, _) => Some(Turn::Fails),
            (Some(was), Outcome::Passed) => (was.outcome != Outcome::Passed).then_some(Turn::Passes),
            (Some(was), _) if was.outcome == Outcome::Passed => Some(Turn::Fails),
            (Some(was), _) => (reasons(was) != reasons(result)).then_some(Turn::FailsOtherwise),
        };
        tests.extend(turn.map(|turn| (turn, result)));
    }
    let left = |result: &&'a TestResult| take(&mut old, &test_key(result)).is_some();
    let gone: Vec<&TestResult> = before.tests.results.iter().rev().filter(left).collect();
    tests.extend(gone.into_iter().rev().map(|result| (Turn::Went, result)));
    let (were, are) = (before.findings(), after.findings());
    Change { tests, came: not_in(are, were), went: not_in(were, are) }
}

fn test_key(result: &TestResult) -> (&str, &str) {
    (&result.suite, &result.name)
}

/// What is wrong with a test, without where the rules stand.
fn reasons(result: &TestResult) -> impl PartialEq + use<'_> {
    let failures: Vec<_> =
        result.failures.iter().map(|failure| (&failure.from, &failure.to, &failure.port, failure.verdict, &failure.message)).collect();
    (result.outcome, result.expect, failures, result.more_failures, &result.problem)
}

/// Those of `these` that have no counterpart in `others`.
fn not_in<'a>(these: &'a [Finding], others: &'a [Finding]) -> Vec<&'a Finding> {
    let key = |finding: &'a Finding| {
        let Finding { code, severity, object, field, file, message, .. } = finding;
        (file, object, field, code, severity, message)
    };
    let mut there = by_key(others, key);
    these.iter().filter(|finding| take(&mut there, &key(finding)).is_none()).collect()
}

/// Items by their key; those of one key in their order.
fn by_key<'a, T, K: Ord>(items: &'a [T], key: impl Fn(&'a T) -> K) -> BTreeMap<K, Vec<&'a T>> {
    let mut found: BTreeMap<K, Vec<&'a T>> = BTreeMap::new();
    // From the end, so that the first one is the last of its list.
    for item in items.iter().rev() {
        found.entry(key(item)).or_default().push(item);
    }
    found
}

/// The next one of a key, which is then taken.
fn take<'a, T, K: Ord>(items: &mut BTreeMap<K, Vec<&'a T>>, key: &K) -> Option<&'a T> {
    items.get_mut(key)?.pop()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Origin;
    use crate::lint::{self, Code, Severity};
    use crate::suite::{self, Expect, Problem};

    fn test(name: &str, outcome: Outcome, line: u32) -> TestResult {
        let problem = (outcome == Outcome::Broken).then(|| Problem { message: format!("nobody, line {}", line / 100), hints: Vec::new() });
        let origin = Origin { file: "tests.yaml".into(), line };
        let (suite, name) = ("shop".into(), name.to_owned());
        TestResult { suite, name, origin, outcome, expect: Expect::Allow, connections: 1, failures: Vec::new(), more_failures: 0, problem }
    }

    fn finding(message: &str, line: u32) -> Finding {
        Finding {
            code: Code::AnyPeer,
            severity: Severity::Note,
            object: None,
            field: None,
            file: Some("policies.yaml".into()),
            line: Some(line),
            message: message.to_owned(),
            help: String::new(),
        }
    }

    fn judged(results: Vec<TestResult>, findings: Vec<Finding>) -> Judged {
        let lint = Some(lint::Report { findings, suppressed: 0, policies: 1 });
        Judged { lint, tests: suite::Report { results }, left_out: None }
    }

    fn turns(before: &Judged, after: &Judged) -> Vec<(Turn, String)> {
        between(before, after).tests.into_iter().map(|(turn, result)| (turn, format!("{}:{}", result.name, result.origin.line))).collect()
    }

    #[test]
    fn tests_turn_come_and_go() {
        use Outcome::{Broken, Failed, Passed};
        let before = vec![
            test("a", Passed, 1),
            test("b", Failed, 2),
            test("c", Broken, 3),
            test("d", Broken, 4),
            test("e", Passed, 5),
            test("z", Failed, 6),
        ];
        let after = vec![
            test("a", Failed, 11),
            test("b", Passed, 12),
            test("c", Broken, 13),
            test("d", Broken, 104),
            test("x", Passed, 15),
            test("y", Broken, 16),
        ];
        let (before, after) = (judged(before, Vec::new()), judged(after, Vec::new()));
        let turned = [
            (Turn::Fails, "a:11"),
            (Turn::Passes, "b:12"),
            (Turn::FailsOtherwise, "d:104"),
            (Turn::Came, "x:15"),
            (Turn::Fails, "y:16"),
            (Turn::Went, "e:5"),
            (Turn::Went, "z:6"),
        ];
        assert_eq!(turns(&before, &after), turned.map(|(turn, name)| (turn, name.to_owned())));
        assert!(between(&before, &before).is_empty() && between(&after, &after).is_empty());
    }

    /// Two tests of one name are two tests.
    #[test]
    fn equal_names_are_told_apart_by_their_order() {
        use Outcome::{Failed, Passed};
        let before = judged(vec![test("a", Passed, 1), test("a", Failed, 2), test("a", Passed, 3)], Vec::new());
        let after = judged(vec![test("a", Passed, 1), test("a", Passed, 2)], Vec::new());
        assert_eq!(turns(&before, &after), [(Turn::Passes, "a:2".to_owned()), (Turn::Went, "a:3".to_owned())]);
    }

    #[test]
    fn findings_come_and_go_and_may_move() {
        let before = judged(Vec::new(), vec![finding("one", 1), finding("two", 2), finding("two", 3)]);
        let after = judged(Vec::new(), vec![finding("two", 20), finding("three", 30)]);
        let change = between(&before, &after);
        assert_eq!(change.came, [&finding("three", 30)]);
        assert_eq!(change.went, [&finding("one", 1), &finding("two", 3)]);
        assert!(!change.is_empty());
    }
}
