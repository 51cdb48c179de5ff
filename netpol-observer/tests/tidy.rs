//! Keeps the invariants of ARCHITECTURE.md that a program can check.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest source file, tests included.
const MAX_LINES: usize = 600;

/// The stages, and which other parts of the crate each may name. What is not listed here may not exist.
const LAYERS: &[(&str, &[&str])] = &[
    ("allocator", &[]),
    ("flow", &[]),
    ("capture", &["flow"]),
    ("cluster", &["flow"]),
    ("watch", &["cluster"]),
    ("install", &["watch"]),
    ("identify", &["flow", "cluster"]),
    ("policy", &["flow", "cluster", "identify"]),
    ("timeline", &["cluster", "policy"]),
    ("effect", &["cluster", "policy", "timeline"]),
    ("question", &["flow", "cluster", "identify", "policy"]),
    ("lint", &["flow", "cluster", "identify", "policy"]),
    ("connectivity", &["flow", "cluster", "identify", "policy"]),
    ("suite", &["flow", "cluster", "identify", "policy", "question", "connectivity"]),
    ("map", &["flow", "cluster", "identify", "policy", "connectivity"]),
    ("compare", &["flow", "cluster", "identify", "policy", "question", "connectivity"]),
    ("diagnose", &["flow", "cluster", "identify", "policy", "timeline"]),
    ("pipeline", &["flow", "capture", "cluster", "identify", "policy", "timeline", "diagnose"]),
    ("serve", &["flow", "capture", "cluster", "identify", "policy", "timeline", "effect", "question", "diagnose", "pipeline"]),
    ("client", &["serve"]),
    (
        "agent",
        &["flow", "capture", "cluster", "identify", "policy", "timeline", "effect", "watch", "question", "diagnose", "pipeline", "serve"],
    ),
    ("publish", &["flow", "cluster", "identify", "policy", "diagnose", "serve", "agent", "watch"]),
    (
        "cli",
        &[
            "flow",
            "capture",
            "cluster",
            "identify",
            "policy",
            "timeline",
            "watch",
            "question",
            "diagnose",
            "pipeline",
            "serve",
            "lint",
            "connectivity",
            "suite",
            "map",
            "compare",
            "agent",
            "client",
            "allocator",
            "install",
            "publish",
        ],
    ),
];

/// Stages that do no I/O, know no clock and cannot fail for reasons outside of them.
const PURE: &[&str] = &[
    "flow",
    "identify",
    "policy",
    "timeline",
    "effect",
    "question",
    "lint",
    "connectivity",
    "suite",
    "map",
    "compare",
    "diagnose",
    "pipeline",
];

/// Files of other stages that are as pure.
const PURE_FILES: &[&str] = &[
    "cli/check/change.rs",
    "client/clean.rs",
    "client/frame.rs",
    "client/merge.rs",
    "client/resume.rs",
    "client/skew.rs",
    "client/follow/changes.rs",
    "client/follow/news.rs",
];

/// Words that have no place in them.
const IMPURE: &[&str] = &[
    "aya::",
    "tokio::",
    "axum::",
    "kube::",
    "std::fs",
    "std::process",
    "std::thread",
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn files_under(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "target" || name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            files.extend(files_under(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn sources() -> Vec<PathBuf> {
    files_under(&root(), "rs")
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// The code of a file: no comments, and no test module at its end.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn check(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// The stage a source file of the library belongs to.
fn layer(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("netpol-observer/src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_string_lossy().into_owned();
    Some(first.trim_end_matches(".rs").to_owned())
}

fn is_test_file(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.ends_with("/tests.rs") || text.contains("/tests/") || text.ends_with("/testing.rs")
}

#[test]
fn stages_know_only_earlier_stages() {
    let mut problems = Vec::new();
    for path in sources() {
        let Some(layer) = layer(&path) else { continue };
        if matches!(layer.as_str(), "lib" | "main") || is_test_file(&path) {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            problems.push(format!("{}: the stage {layer} is not in the list of tests/tidy.rs", shown(&path)));
            continue;
        };
        for after in code(&path).split("crate::").skip(1) {
            let named: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let is_stage = LAYERS.iter().any(|(name, _)| *name == named);
            if is_stage && named != layer && !allowed.contains(&named.as_str()) {
                problems.push(format!("{}: {layer} must not know {named}", shown(&path)));
            }
        }
    }
    check(&problems);
}

#[test]
fn pure_stages_do_no_io() {
    let mut problems = Vec::new();
    for path in sources() {
        let Some(layer) = layer(&path) else { continue };
        let is_pure = PURE.contains(&layer.as_str()) || PURE_FILES.iter().any(|pure| path.ends_with(pure));
        if !is_pure || is_test_file(&path) {
            continue;
        }
        let code = code(&path);
        for word in IMPURE.iter().filter(|word| code.contains(**word)) {
            problems.push(format!("{}: {layer} is pure and must not use {word}", shown(&path)));
        }
    }
    for stage in PURE.iter().chain(&["cluster"]) {
        let source = root().join("netpol-observer/src").join(stage);
        let head = [source.join("mod.rs"), source.with_extension("rs")].into_iter().find(|path| path.is_file()).unwrap();
        if !fs::read_to_string(&head).unwrap().contains("#![forbid(unsafe_code)]") {
            problems.push(format!("{}: lacks #![forbid(unsafe_code)]", shown(&head)));
        }
    }
    check(&problems);
}

#[test]
fn shared_records_know_neither_world() {
    let mut problems = Vec::new();
    for path in files_under(&root().join("netpol-observer-common"), "rs") {
        let code = code(&path);
        if code.contains("aya") || code.contains("std::") {
            problems.push(format!("{}: the common crate is no_std and knows no aya", shown(&path)));
        }
    }
    check(&problems);
}

#[test]
fn files_fit_in_the_head() {
    let too_long = sources().into_iter().filter_map(|path| {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        (lines > MAX_LINES).then(|| format!("{}: {lines} lines, at most {MAX_LINES}: split it along its seams", shown(&path)))
    });
    check(&too_long.collect::<Vec<_>>());
}

/// Every source file is reached by `mod` from a crate's root, so that no test is edited for years without being compiled.
#[test]
fn no_file_is_forgotten() {
    let mut reached = BTreeSet::new();
    let mut open = Vec::new();
    for package in ["netpol-observer", "netpol-observer-common", "netpol-observer-ebpf", "xtask"] {
        let package = root().join(package);
        open.extend([package.join("src/lib.rs"), package.join("src/main.rs"), package.join("build.rs")]);
        for targets in ["tests", "benches", "src/bin"] {
            for entry in fs::read_dir(package.join(targets)).into_iter().flatten().flatten() {
                open.extend([entry.path(), entry.path().join("main.rs")]);
            }
        }
    }
    // Every file of the fuzz crate that its manifest names is a target.
    let fuzz = root().join("netpol-observer/fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    open.extend(manifest.lines().filter_map(|line| Some(fuzz.join(line.strip_prefix("path = \"")?.strip_suffix('"')?))));
    while let Some(path) = open.pop() {
        if !path.is_file() || path.extension().is_none_or(|extension| extension != "rs") || !reached.insert(path.clone()) {
            continue;
        }
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let parent = path.parent().unwrap();
        let inside = if matches!(stem.as_str(), "lib" | "main" | "mod") { parent.to_owned() } else { parent.join(&stem) };
        let is_target_root = parent.ends_with("tests");
        for line in fs::read_to_string(&path).unwrap().lines() {
            let declaration = line.trim().trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ").trim_start_matches("pub ");
            if let Some(name) = declaration.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                for directory in [&inside, &parent.to_owned()].into_iter().take(if is_target_root { 2 } else { 1 }) {
                    open.extend([directory.join(format!("{name}.rs")), directory.join(name).join("mod.rs")]);
                }
            }
        }
    }
    let forgotten = sources().into_iter().filter(|path| !reached.contains(path)).map(|path| format!("{}: in no module", shown(&path)));
    check(&forgotten.collect::<Vec<_>>());
}

#[test]
fn expectations_instead_of_permissions() {
    // Put together here, so that this file does not hold what it looks for.
    let attribute = ["#[al", "low("].concat();
    let found = sources().into_iter().filter(|path| fs::read_to_string(path).unwrap().contains(&attribute));
    check(&found.map(|path| format!("{}: say #[expect(…, reason = …)]", shown(&path))).collect::<Vec<_>>());
}

#[test]
fn versions_are_pinned() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let table = manifest.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let loose = table.lines().filter(|line| line.contains('=') && !line.trim_start().starts_with('#'));
    let loose = loose.filter(|line| !line.contains("\"=") && !line.contains("path = "));
    check(&loose.map(|line| format!("Cargo.toml: not pinned to one version: {line}")).collect::<Vec<_>>());
    for package in ["netpol-observer", "netpol-observer-common", "netpol-observer-ebpf", "xtask"] {
        let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
        assert!(!manifest.contains("version = \""), "{package}/Cargo.toml: versions stand in the workspace's table");
    }
}

/// Relative links in the documentation lead somewhere.
#[test]
fn links_in_the_documentation_lead_somewhere() {
    let mut problems = Vec::new();
    for page in files_under(&root(), "md") {
        let text = fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") || file.contains(' ') {
                continue;
            }
            if !page.parent().unwrap().join(file).exists() {
                problems.push(format!("{}: no {target}", shown(&page)));
            }
        }
    }
    check(&problems);
}
