//! `--watch` on files that change.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::Scene;

/// A change is shown long before that.
const PATIENCE: Duration = Duration::from_secs(60);

const POLICY: &str = "\
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: api, namespace: shop}, spec: {podSelector: {matchLabels: {app: api}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}]}]}}
";

const WORKLOADS: &str = "\
{apiVersion: v1, kind: Pod, metadata: {name: api, namespace: shop, labels: {app: api}}, spec: {containers: [{name: a, image: a}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {containers: [{name: a, image: a}]}}
";

const TESTS: &str = "\
{apiVersion: netpol-observer.io/v1alpha1, kind: PolicyTest, metadata: {name: shop}, namespace: shop, tests: [
  {name: web calls api, from: web, to: api, port: 8080, expect: allow},
  {name: api calls nobody, from: api, to: web, expect: allow}]}
";

/// The program, watching. It ends when this is dropped.
struct Watching {
    child: Child,
    lines: Receiver<String>,
    directory: PathBuf,
}

impl Watching {
    fn start(scene: &Scene, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_observer"));
        command.current_dir(scene.path()).args(["check", "--watch"]).args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Watching { child, lines, directory: scene.path().to_owned() }
    }

    /// What it prints up to a line that holds `last`.
    fn until(&self, last: &str) -> String {
        let end = Instant::now() + PATIENCE;
        let mut printed = String::new();
        loop {
            let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) else {
                panic!("no line with {last:?} after {PATIENCE:?}:\n{printed}");
            };
            printed.push_str(&line);
            printed.push('\n');
            if line.contains(last) {
                return printed;
            }
        }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.join(name), text).unwrap();
    }

    /// As editors save: a new file over the old one.
    fn replace(&self, name: &str, text: &str) {
        let new = self.directory.join(format!(".{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.directory.join(name)).unwrap();
    }

    fn interrupt(mut self) -> Option<i32> {
        let killed = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn scene() -> Scene {
    Scene::new(&[("policy.yaml", POLICY), ("workloads.yaml", WORKLOADS), ("tests.yaml", TESTS)])
}

#[test]
fn what_turned_is_shown() {
    let scene = scene();
    let watching = Watching::start(&scene, &["."]);
    let first = watching.until("watching for changes");
    assert!(first.contains("nothing found in 1 policy\n2 tests passed\n"), "{first}");

    // In place.
    watching.write("policy.yaml", &POLICY.replace("8080", "9090"));
    let failing = watching.until("1 of 2 tests failed");
    assert!(failing.contains(" policy.yaml changed\n"), "{failing}");
    assert!(failing.contains("./tests.yaml:2: FAILED web calls api (shop)\n"), "{failing}");
    assert!(failing.contains("  fix      NetworkPolicy shop/api (./policy.yaml:1): ingress[0].ports += 8080/TCP\n"), "{failing}");
    assert!(!failing.contains("api calls nobody"), "{failing}");

    // Renamed over it.
    watching.replace("policy.yaml", &POLICY.replace("app: web", "app: wbe"));
    let otherwise = watching.until("1 of 2 tests failed");
    assert!(otherwise.contains("warning[peer-matches-nothing]"), "{otherwise}");

    watching.replace("policy.yaml", "{apiVersion: v1, kind: [\n");
    let broken = watching.until("hint: ");
    assert!(broken.contains("policy.yaml:") && broken.contains("error: the manifests cannot be used"), "{broken}");

    // Against the last run that was judged.
    watching.replace("policy.yaml", POLICY);
    let mended = watching.until("2 tests passed");
    assert!(mended.contains("./policy.yaml: gone: warning[peer-matches-nothing]"), "{mended}");
    assert!(mended.contains("./tests.yaml:2: passed web calls api (shop)\n"), "{mended}");

    watching.write("policy.yaml", &format!("# A word.\n{POLICY}"));
    let same = watching.until("2 tests passed");
    assert!(same.contains("no test and no finding is otherwise than before\n"), "{same}");
    assert_eq!(watching.interrupt(), Some(0));
}

/// A file that is named by itself, with others beside it that are not read.
#[test]
fn a_single_file_is_watched_through_its_directory() {
    let scene = scene();
    let watching = Watching::start(&scene, &["policy.yaml", "workloads.yaml", "--tests", "tests.yaml"]);
    watching.until("watching for changes");
    watching.write("other.yaml", POLICY);
    watching.replace(
        "tests.yaml",
        &TESTS.replace("api calls nobody, from: api, to: web, expect: allow", "new, from: api, to: web, expect: deny"),
    );
    let changed = watching.until("1 of 2 tests failed");
    assert!(changed.contains(" tests.yaml changed\n") && !changed.contains("other.yaml"), "{changed}");
    assert!(changed.contains("\ntests.yaml:3: FAILED new (shop)\n"), "{changed}");
    assert!(changed.contains("\ntests.yaml:3: removed api calls nobody (shop)"), "{changed}");
    // Removed, and made anew.
    std::fs::remove_file(scene.path().join("tests.yaml")).unwrap();
    watching.until("cannot open the file");
    watching.write("tests.yaml", TESTS);
    watching.until("2 tests passed");
}

/// As `git checkout` may leave it.
#[test]
fn a_directory_may_be_made_anew() {
    let scene = scene();
    let policies = scene.path().join("policies");
    std::fs::create_dir(&policies).unwrap();
    std::fs::rename(scene.path().join("policy.yaml"), policies.join("policy.yaml")).unwrap();
    let watching = Watching::start(&scene, &["policies", "workloads.yaml", "tests.yaml"]);
    watching.until("watching for changes");
    std::fs::remove_dir_all(&policies).unwrap();
    watching.until("error: the manifests cannot be used");
    std::fs::create_dir_all(policies.join("more")).unwrap();
    watching.write("policies/more/policy.yaml", &POLICY.replace("8080", "9090"));
    watching.until("1 of 2 tests failed");
    watching.write("policies/more/policy.yaml", POLICY);
    watching.until("2 tests passed");
}

#[test]
fn what_cannot_be_watched_is_refused() {
    let scene = scene();
    for (arguments, says) in [
        (&["--watch", "-"][..], "--watch watches files, not standard input"),
        (&["--watch", "--rev", "HEAD", "."], "not a revision"),
        (&["--watch", "--cluster", "."], "not a cluster"),
        (&["--watch", "-o", "json", "."], "--watch writes text only"),
        (&["--watch"], "nothing to watch"),
    ] {
        let (code, out, err) = scene.check(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains(says), "{arguments:?}: {err}");
    }
}
