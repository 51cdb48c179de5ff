//! The examples for CI: every command of deploy/ci on a repository with the boutique, without a mistake and with one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::boutique::Boutique;

const MISTAKE: (&str, &str, &str) = ("policies/data.yaml", "port: 6379", "port: 6380");
/// What it breaks.
const TEST: &str = "the cart keeps its carts in Redis";

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/ci").join(name)
}

fn parse(name: &str) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(example(name)).unwrap()).unwrap()
}

/// A repository with the boutique on `main`, and a branch for a change, which is checked out.
struct Repository {
    boutique: Boutique,
}

impl Repository {
    fn new() -> Self {
        let repository = Repository { boutique: Boutique::new() };
        for arguments in [
            &["init", "--quiet", "--initial-branch", "main"][..],
            &["add", "."],
            &["commit", "--quiet", "--message", "The boutique"],
            // What a checkout in CI has of the branch that a pull request is for.
            &["update-ref", "refs/remotes/origin/main", "main"],
            &["switch", "--quiet", "--create", "change"],
        ] {
            let output = repository.git(arguments);
            assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        }
        repository
    }

    fn with_mistake() -> Self {
        let repository = Repository::new();
        let (file, old, new) = MISTAKE;
        repository.boutique.replace(file, old, new);
        repository
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        git_settings(&mut command);
        command.current_dir(self.boutique.directory());
        command
    }

    fn git(&self, arguments: &[&str]) -> Output {
        self.command("git").args(arguments).output().unwrap()
    }

    /// A step as CI runs it.
    fn step(&self, script: &str, variables: &[(&str, &str)]) -> Output {
        self.command("bash").args(["-e", "-c", script]).envs(variables.iter().copied()).output().unwrap()
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.boutique.directory().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// `manifests/policy-tests.yaml` and the line of the test that the mistake breaks.
    fn line_of_test(&self) -> u64 {
        self.boutique.line("policy-tests.yaml", &format!("- name: {TEST}"))
    }
}

/// With `observer` in PATH, and no settings of whoever runs the tests.
pub(crate) fn git_settings(command: &mut Command) {
    let observer = Path::new(env!("CARGO_BIN_EXE_observer")).parent().unwrap();
    command.env("PATH", format!("{}:{}", observer.display(), std::env::var("PATH").unwrap())).env_remove("RUST_LOG");
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "Somebody").env(format!("GIT_{role}_EMAIL"), "somebody@boutique.example");
        command.env(format!("GIT_{role}_DATE"), "2026-01-01T00:00:00Z");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs all steps of the workflow: by name, what they printed and how they ended.
fn workflow(repository: &Repository) -> Vec<(String, Output)> {
    let workflow = parse("github-actions.yaml");
    let variables = workflow["env"].as_object().unwrap();
    let mut variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
    let temporary = repository.boutique.directory().to_str().unwrap();
    variables.extend([
        ("GITHUB_BASE_REF", "main"),
        ("GITHUB_STEP_SUMMARY", "summary.md"),
        ("GITHUB_PATH", "path"),
        ("RUNNER_TEMP", temporary),
    ]);
    let steps = workflow["jobs"]["check"]["steps"].as_array().unwrap();
    let mut ran: Vec<(String, Output)> = Vec::new();
    for step in steps.iter().filter(|step| step["run"].is_string()) {
        // After a failure those are left out that do not say otherwise.
        let goes_on = step["if"].as_str().is_some_and(|condition| condition.contains("always()"));
        if goes_on || ran.iter().all(|(_, output)| output.status.success()) {
            let output = repository.step(step["run"].as_str().unwrap(), &variables);
            ran.push((step["name"].as_str().unwrap().to_owned(), output));
        }
    }
    assert_eq!(ran.len(), 4);
    // What is uploaded is there.
    repository.read(steps.iter().find_map(|step| step["with"]["sarif_file"].as_str()).unwrap());
    assert!(!repository.boutique.directory().join("path").exists(), "the program in PATH is taken");
    ran
}

#[test]
fn the_workflow_passes_without_a_mistake() {
    let repository = Repository::new();
    for (name, output) in workflow(&repository) {
        assert!(output.status.success(), "{name}: {}{}", text(&output.stdout), text(&output.stderr));
    }
    assert!(repository.read("network-policies.xml").contains(TEST));
    let sarif: Value = serde_json::from_str(&repository.read("network-policies.sarif")).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    assert_eq!(repository.read("summary.md"), repository.read("network-policies.md"));
}

#[test]
fn the_workflow_annotates_a_mistake() {
    let repository = Repository::with_mistake();
    let ran = workflow(&repository);
    let failed: Vec<&str> = ran.iter().filter(|(_, output)| !output.status.success()).map(|(name, _)| name.as_str()).collect();
    assert_eq!(failed, ["Check the policies"]);
    let annotations = text(&ran.iter().find(|(name, _)| name == failed[0]).unwrap().1.stdout);
    let place = format!("file=manifests/policy-tests.yaml,line={}", repository.line_of_test());
    assert!(annotations.lines().any(|line| line.starts_with("::error ") && line.contains(&place)), "{annotations}");

    assert!(repository.read("network-policies.xml").contains("<failure"));
    let sarif: Value = serde_json::from_str(&repository.read("network-policies.sarif")).unwrap();
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    let is_of_test = |result: &&Value| {
        let place = &result["locations"][0]["physicalLocation"];
        place["artifactLocation"]["uri"] == "manifests/policy-tests.yaml" && place["region"]["startLine"] == repository.line_of_test()
    };
    assert!(results.iter().any(|result| is_of_test(&result)), "{results:#?}");
    let summary = repository.read("summary.md");
    assert!(summary.contains("boutique/deploy/cart") && summary.contains("6379"), "{summary}");
}

/// Runs the script of the job to its first command that fails.
fn job(repository: &Repository) -> Output {
    let job = &parse("gitlab-ci.yaml")["network-policies"];
    let base = text(&repository.git(&["rev-parse", "main"]).stdout);
    let mut variables: Vec<(&str, &str)> =
        job["variables"].as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
    variables.push(("CI_MERGE_REQUEST_DIFF_BASE_SHA", base.trim()));
    let commands: Vec<&str> = job["script"].as_array().unwrap().iter().map(|command| command.as_str().unwrap()).collect();
    let output = repository.step(&commands.join("\n"), &variables);
    repository.read(job["artifacts"]["reports"]["junit"].as_str().unwrap());
    output
}

#[test]
fn the_job_passes_without_a_mistake() {
    let repository = Repository::new();
    let output = job(&repository);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(repository.read("network-policies.xml").contains(TEST));
    repository.read("network-policies.md");
}

#[test]
fn the_job_fails_with_a_mistake() {
    let repository = Repository::with_mistake();
    let output = job(&repository);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert!(printed.contains(&format!("manifests/policy-tests.yaml:{}", repository.line_of_test())), "{printed}");
    assert!(repository.read("network-policies.xml").contains("<failure"));
    assert!(repository.read("network-policies.md").contains("boutique/deploy/cart"));
}

#[test]
fn the_hook_refuses_what_is_wrong_and_takes_what_is_not() {
    let repository = Repository::new();
    let hook = repository.boutique.directory().join(".git/hooks/pre-commit");
    fs::copy(example("pre-commit"), hook).unwrap();
    let commits = || text(&repository.git(&["rev-list", "--count", "HEAD"]).stdout).trim().to_owned();
    let (file, old, new) = MISTAKE;

    repository.boutique.replace(file, old, new);
    let output = repository.git(&["commit", "--quiet", "--all", "--message", "A mistake"]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(!output.status.success() && said.contains(&format!("manifests/policy-tests.yaml:{}", repository.line_of_test())), "{said}");
    assert_eq!(commits(), "1");

    // What is committed is looked at, not what lies beside it.
    repository.git(&["reset", "--quiet"]);
    repository.boutique.replace("README.md", "# The boutique", "# Our boutique");
    repository.git(&["add", "manifests/README.md"]);
    let output = repository.git(&["commit", "--quiet", "--message", "Words"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(commits(), "2");
}

/// The entry for the tool pre-commit, which calls it as it stands in the document.
#[test]
fn the_entry_for_pre_commit_is_what_the_hook_does() {
    let document = fs::read_to_string(example("README.md")).unwrap();
    let block = document.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let settings: Value = serde_saphyr::from_str(block).unwrap();
    let hook = &settings["repos"][0]["hooks"][0];
    for (repository, status) in [(Repository::new(), 0), (Repository::with_mistake(), 1)] {
        let output = repository.step(hook["entry"].as_str().unwrap(), &[]);
        assert_eq!(output.status.code(), Some(status), "{}", text(&output.stderr));
    }
}

/// A change of a connection as words: `denied: boutique/recommendation to boutique/catalogue 3550-3550/TCP`.
fn words(change: &Value) -> String {
    let end = |end: &Value| match end["kind"].as_str().unwrap() {
        "workload" => format!("{}/{}", end["namespace"].as_str().unwrap(), end["workload"]["name"].as_str().unwrap()),
        _ => end["range"].as_str().unwrap().to_owned(),
    };
    let ports = change["ports"].as_array().unwrap().iter();
    let ports: Vec<String> = ports.map(|port| format!("{}-{}/{}", port["from"], port["to"], port["protocol"].as_str().unwrap())).collect();
    format!("{}: {} to {} {}", change["becomes"].as_str().unwrap(), end(&change["from"]), end(&change["to"]), ports.join(" "))
}

/// `observer diff` between two revisions of a repository says what was changed on purpose, and nothing else.
#[test]
fn between_two_revisions_exactly_the_planted_changes_are_told() {
    let repository = Repository::new();
    let boutique = &repository.boutique;
    boutique.replace("policies/storefront.yaml", "- port: 3550", "- port: 3551");
    boutique.replace("policies/data.yaml", "cidr: 198.51.100.0/25", "cidr: 198.51.100.0/24");
    boutique.replace("policies/edge.yaml", "app: log-collector", "app: log-collectors");
    // Without a port of that name the label lets nobody in.
    boutique.replace(
        "workloads/storefront.yaml",
        "        app: ads\n    spec",
        "        app: ads\n        boutique.example/metrics: \"true\"\n    spec",
    );
    assert!(repository.git(&["commit", "--quiet", "--all", "--message", "Changes"]).status.success());
    // What lies in the work tree is none of it.
    boutique.replace("policies/edge.yaml", "team: boutique", "team: nobody");

    let output = repository.step("observer diff rev:main:manifests rev:change:manifests -o json", &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut changes: Vec<String> = lines.iter().filter(|line| line["type"] == "change").map(words).collect();
    changes.sort();
    assert_eq!(
        changes,
        [
            "allowed: boutique/settlement to 198.51.100.128/25 443-443/TCP",
            "denied: boutique/recommendation to boutique/catalogue 3550-3550/TCP",
            "denied: edge/proxy to monitoring/log-collector 5140-5140/UDP",
        ]
    );
    let objects = lines.iter().filter(|line| line["type"] == "object").map(|line| line["name"].as_str().unwrap());
    assert_eq!(objects.collect::<Vec<_>>(), ["recommendation", "settlement", "proxy"]);
    let summary = lines.last().unwrap();
    assert_eq!((&summary["type"], &summary["workloads"]), (&"diff".into(), &20.into()));

    let nothing = repository.step("observer diff rev:main:manifests rev:main:manifests --fail-on any -o json", &[]);
    assert!(nothing.status.success() && text(&nothing.stdout).lines().count() == 1, "{}", text(&nothing.stdout));
}
