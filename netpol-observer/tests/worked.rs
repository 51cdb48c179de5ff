//! The answers in `docs/explanations.md` are what the program says. `UPDATE_DOCS=1 cargo test --test worked` writes them anew.

use std::path::Path;
use std::process::Command;

/// Worked explanations that the document promises.
const AT_LEAST: usize = 20;

const BEGIN: &str = "```console\n";
const PROMPT: &str = "$ observer explain ";

/// What the program says, with its exit code on a line of its own. Warnings about manifests go before the answer.
fn answer(root: &Path, arguments: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_observer"))
        .arg("explain")
        .args(arguments.split(' '))
        .current_dir(root)
        .env("NO_COLOR", "1")
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let code = output.status.code().expect("it ends by itself");
    assert_ne!(code, 2, "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    format!("{}{}exit code {code}\n", text(output.stderr), text(output.stdout))
}

#[test]
fn explanations_are_what_the_program_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = root.join("docs/explanations.md");
    let found = std::fs::read_to_string(&page).unwrap();
    let mut parts = found.split(BEGIN);
    let mut expected = parts.next().unwrap().to_owned();
    let mut worked = 0;
    for part in parts {
        let (block, rest) = part.split_once("```").expect("a block ends");
        let command = block.lines().next().and_then(|line| line.strip_prefix(PROMPT)).expect("a block begins with the command");
        expected.push_str(&format!("{BEGIN}{PROMPT}{command}\n{}```{rest}", answer(root, command)));
        worked += 1;
    }
    assert!(worked >= AT_LEAST, "only {worked} explanations in {}", page.display());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&page, expected).unwrap();
        return;
    }
    for (line, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "docs/explanations.md, line {}; UPDATE_DOCS=1 cargo test --test worked writes it anew", line + 1);
    }
    assert_eq!(found, expected, "docs/explanations.md is not complete");
}
