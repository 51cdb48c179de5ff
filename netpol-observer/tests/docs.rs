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

/// The commands of a document that are in blocks of shell.
fn commands(text: &str) -> Vec<String> {
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let joined = blocks.map(|block| block.replace("\\\n", " ")).collect::<Vec<_>>().join("\n");
    joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// The command line of each `observer` in the documents is one that the program takes.
#[test]
fn the_commands_of_the_documents_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut seen = 0;
    for path in docs.chain([root.join("README.md")]).filter(|path| path.extension().is_some_and(|end| end == "md")) {
        for line in commands(&std::fs::read_to_string(&path).unwrap()) {
            let line = line.split(" # ").next().unwrap();
            for part in line.split(['|', '&', ';', '>']) {
                let words: Vec<&str> = part.split_whitespace().skip_while(|word| *word == "sudo" || word.contains('=')).collect();
                let Some(program) = words.first().filter(|word| **word == "observer" || word.ends_with("/observer")) else { continue };
                let words = words.iter().map(|word| word.trim_matches(['\'', '"']));
                let parsed = netpol_observer::cli::command().try_get_matches_from(words);
                let is_wrong = parsed.as_ref().is_err_and(clap::Error::use_stderr);
                assert!(!is_wrong, "{}: {line} ({program}): {}", path.display(), parsed.unwrap_err());
                seen += 1;
            }
        }
    }
    assert!(seen >= 19, "{seen}");
}

/// Those that need neither a cluster nor root do what they should, on the shop of the examples.
#[test]
fn the_commands_that_need_no_cluster_work() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let directory = tempfile::TempDir::new().unwrap();
    let shop = |file: &str| std::fs::read_to_string(root.join("deploy/examples/shop").join(file)).unwrap();
    let cluster = ["cluster.yaml", "pods.yaml", "services.yaml", "policies.yaml"].map(shop).join("\n---\n");
    std::fs::write(directory.path().join("cluster.yaml"), cluster).unwrap();
    std::fs::create_dir(directory.path().join("policies")).unwrap();
    std::fs::write(directory.path().join("policies/policies.yaml"), shop("policies.yaml")).unwrap();
    std::os::unix::fs::symlink(root.join("deploy").canonicalize().unwrap(), directory.path().join("deploy")).unwrap();
    // The tutorial is run as a whole, in tests/check/tutorial.rs.
    let docs =
        std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("tutorial.md"));
    let (mut installed, mut asked) = (0, 0);
    for path in docs.chain([root.join("README.md")]).filter(|path| path.extension().is_some_and(|end| end == "md")) {
        for line in commands(&std::fs::read_to_string(&path).unwrap()) {
            let words: Vec<&str> = line.split(['|', '#', '>']).next().unwrap().split_whitespace().collect();
            let (["observer", "install", ..] | ["observer", "explain", "-f", ..] | ["observer", "check", ..]) = words[..] else { continue };
            let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_observer"));
            let output = command.current_dir(&directory).args(&words[1..]).output().unwrap();
            let (code, said) = (output.status.code(), String::from_utf8_lossy(&output.stderr));
            if words[1] == "install" {
                assert_eq!(code, Some(0), "{}: {line}: {said}", path.display());
                let objects: Vec<serde_json::Value> = serde_saphyr::from_multiple(&String::from_utf8(output.stdout).unwrap()).unwrap();
                assert!(objects.iter().any(|object| object["kind"] == "DaemonSet"), "{line}");
                installed += 1;
            } else {
                // Denied, or with findings, is an answer.
                assert!(matches!(code, Some(0 | 1)), "{}: {line}: {said}", path.display());
                assert!(!output.stdout.is_empty(), "{line}");
                asked += 1;
            }
        }
    }
    assert!(installed >= 8 && asked >= 3, "{installed} {asked}");
}

/// The manifest in deploy/ for those who have no program yet: what `observer install` prints, with the image to be replaced.
#[test]
fn the_manifest_is_what_install_prints() {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_observer"));
    let image = format!("registry.example/netpol-observer:{}", env!("CARGO_PKG_VERSION"));
    let output = command.args(["install", "--image", &image]).output().unwrap();
    let head = "# What `observer install` prints: the image is to be replaced by yours. Written by a test; docs/install.md says what each object is for.\n";
    check("../deploy/netpol-observer.yaml", &format!("{head}{}", String::from_utf8(output.stdout).unwrap()));
}

/// The schema of policy tests, for editors that are given a file: what `observer check --schema` prints.
#[test]
fn the_schema_of_policy_tests_is_what_check_prints() {
    let output = assert_cmd::Command::new(env!("CARGO_BIN_EXE_observer")).args(["check", "--schema"]).output().unwrap();
    assert!(output.status.success());
    check("../deploy/schema/policy-test.schema.json", &String::from_utf8(output.stdout).unwrap());
}
