//! docs/tutorial.md, as somebody would follow it: its blocks of shell are run in order, in one directory, and print what stands below them.
//! `UPDATE_DOCS=1 cargo test --test check` writes what they print into the document.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::ci::git_settings;

/// A part of a document.
#[derive(Debug, PartialEq)]
enum Part {
    /// Anything else.
    Prose(String),
    /// Commands.
    Shell(String),
    /// What the commands before it print.
    Printed(String),
}

/// The parts of a document; together they are the document.
fn parts(document: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut lines = document.lines();
    let mut prose = String::new();
    while let Some(line) = lines.next() {
        _ = writeln!(prose, "{line}");
        if line != "```sh" && line != "```text" {
            continue;
        }
        parts.push(Part::Prose(std::mem::take(&mut prose)));
        let inside: String = lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
        parts.push(if line == "```sh" { Part::Shell(inside) } else { Part::Printed(inside) });
        prose = "```\n".to_owned();
    }
    parts.push(Part::Prose(prose));
    parts
}

#[test]
fn the_tutorial_does_what_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let path = root.join("docs/tutorial.md");
    let document = fs::read_to_string(&path).unwrap();
    let directory = tempfile::TempDir::new().unwrap();
    // The tutorial is followed in a checkout; what it says of the files there is all that it needs.
    std::os::unix::fs::symlink(root.join("deploy"), directory.path().join("deploy")).unwrap();

    // All blocks are one session: what a block changes (the directory, variables) holds in the next.
    let parts = parts(&document);
    let whole = |parts: &[Part]| -> String {
        parts
            .iter()
            .map(|part| match part {
                Part::Prose(text) | Part::Shell(text) | Part::Printed(text) => text.as_str(),
            })
            .collect()
    };
    assert_eq!(whole(&parts), document);
    const MARK: &str = "--- the end of a block ---";
    let mut script = String::new();
    let mut blocks = 0;
    for part in &parts {
        if let Part::Shell(commands) = part {
            _ = writeln!(script, "{commands}echo '{MARK}'");
            blocks += 1;
        }
    }
    fs::write(directory.path().join("script"), script).unwrap();
    let mut command = Command::new("bash");
    git_settings(&mut command);
    let output = command.args(["-eu", "script"]).current_dir(&directory).stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8(output.stdout).unwrap();
    let mut printed: Vec<&str> = printed.split(&format!("{MARK}\n")).collect();
    assert!(output.status.success(), "block {} of {blocks}: {}\n{errors}", printed.len(), printed.last().unwrap());
    assert_eq!(printed.pop(), Some(""));
    assert_eq!((printed.len(), errors.as_ref()), (blocks, ""));

    let mut outputs = printed.into_iter();
    let mut last = "";
    let mut written = Vec::new();
    for part in parts {
        match part {
            Part::Shell(_) => {
                assert_eq!(last, "", "this is printed and not shown");
                last = outputs.next().unwrap();
                written.push(part);
            }
            Part::Printed(_) => written.push(Part::Printed(std::mem::take(&mut last).to_owned())),
            Part::Prose(_) => written.push(part),
        }
    }
    assert_eq!(last, "", "this is printed and not shown");
    let written = whole(&written);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, written).unwrap();
        return;
    }
    for (line, (found, expected)) in (1..).zip(document.lines().zip(written.lines())) {
        assert_eq!(found, expected, "docs/tutorial.md, line {line}; UPDATE_DOCS=1 cargo test --test check writes it anew");
    }
    assert_eq!(document, written);
}
