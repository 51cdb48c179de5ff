//! Documents that are written by the program. `UPDATE_DOCS=1 cargo test --test docs` writes them anew.

use std::fmt::Write as _;
use std::path::Path;

/// Compares a file under `docs/` with what it should hold.
fn check(name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, expected).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    for (line, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "docs/{name}, line {}; UPDATE_DOCS=1 cargo test --test docs writes it anew", line + 1);
    }
    assert_eq!(found, expected, "docs/{name} is not complete; UPDATE_DOCS=1 cargo test --test docs writes it anew");
}

/// The help of every command, in a width that does not depend on the terminal.
#[test]
fn the_command_line_reference_is_the_help() {
    let mut command = netpol_observer::cli::command().term_width(100);
    command.build();
    let mut text = "# Command line\n\nWritten by the program: `observer COMMAND --help`.\n".to_owned();
    let names: Vec<_> = command.get_subcommands().map(|command| command.get_name().to_owned()).filter(|name| name != "help").collect();
    assert!(names.contains(&"tail".to_owned()));
    let mut add = |title: &str, help: String| {
        let lines: Vec<_> = help.trim_end().lines().map(str::trim_end).collect();
        _ = write!(text, "\n## `{title}`\n\n```text\n{}\n```\n", lines.join("\n"));
    };
    add("observer", command.render_long_help().to_string());
    for name in names {
        add(&format!("observer {name}"), command.find_subcommand_mut(&name).unwrap().render_long_help().to_string());
    }
    check("cli.md", &text);
}
