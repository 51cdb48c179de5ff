//! Completion in real shells, man pages, and the plugin of kubectl.

use std::path::Path;
use std::process::Command;

use xtask::testing::skipped;

use crate::scene::Scene;

/// A directory with the program under both of its names, to be put on the PATH.
fn programs(scene: &Scene) -> String {
    let directory = scene.path("bin");
    std::fs::create_dir(&directory).unwrap();
    for name in ["observer", "kubectl-observer"] {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_observer"), directory.join(name)).unwrap();
    }
    format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default())
}

/// What a shell says to a script; `None`, and said so, when there is no such shell.
fn shell(test: &str, shell: &str, scene: &Scene, script: &str) -> Option<String> {
    let path = programs(scene);
    let flags: &[&str] = match shell {
        "bash" => &["--norc", "--noprofile"],
        "zsh" => &["-f"],
        _ => &["--no-config"],
    };
    std::fs::write(scene.path("script"), script).unwrap();
    let run = Command::new(shell)
        .args(flags)
        .arg("script")
        .current_dir(&scene.directory)
        .env("PATH", path)
        .env("HOME", scene.directory.path())
        .output();
    match run {
        Ok(output) => {
            let said = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
            Some(said)
        }
        Err(error) => {
            skipped(test, &format!("{shell} cannot be run: {error}"));
            None
        }
    }
}

#[test]
fn completion_in_bash() {
    let script = r#"
source <(observer completion bash)
complete -p observer
try() { COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=(); _observer observer "${COMP_WORDS[$COMP_CWORD]}" "${COMP_WORDS[$((COMP_CWORD - 1))]}"; echo "${COMPREPLY[@]}"; }
try observer sta
try observer tail --kubec
try observer tail --output ""
try observer completion ""
"#;
    let Some(said) = shell("completion_in_bash", "bash", &Scene::new(), script) else { return };
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains("-F _observer"), "{said}");
    assert_eq!(lines[1..4], ["status", "--kubeconfig", "text json"], "{said}");
    assert!(lines[4].ends_with("bash zsh fish"), "{said}");
}

#[test]
fn completion_in_zsh() {
    // What the completion system would be asked to add is written instead.
    let script = r#"
autoload -Uz compinit && compinit -u -D
source <(observer completion zsh)
(( $+functions[_observer] )) && echo defined
[[ ${_comps[observer]} == _observer ]] && echo registered
_describe() { print -l -- ${(P)${@[-1]}} }
_observer_commands
"#;
    let Some(said) = shell("completion_in_zsh", "zsh", &Scene::new(), script) else { return };
    assert!(said.starts_with("defined\nregistered\n"), "{said}");
    assert!(said.contains("\ntail:") || said.contains("tail:Show dropped"), "{said}");
    assert!(!said.contains("__complete:") || said.contains("status:"), "{said}");
}

#[test]
fn completion_in_fish() {
    let script = "observer completion fish | source\ncomplete -C 'observer sta'\ncomplete -C 'observer tail --kubec'\ncomplete -C 'observer tail -o '\n";
    let Some(said) = shell("completion_in_fish", "fish", &Scene::new(), script) else { return };
    let words: Vec<&str> = said.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(words, ["status", "--kubeconfig", "json", "text"], "{said}");
}

#[test]
fn kubectl_asks_what_may_come_next() {
    let scene = Scene::new();
    let path = programs(&scene);
    // As the help of `observer completion` says, and kubectl calls it.
    let script = scene.path("bin/kubectl_complete-observer");
    std::fs::write(&script, "#!/bin/sh\nexec kubectl-observer __complete -- \"$@\"\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let ask = |words: &[&str]| {
        let output = Command::new(&script).args(words).env("PATH", &path).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(ask(&["sta"]).starts_with("status\t"));
    assert!(ask(&["tail", "--kubec"]).starts_with("--kubeconfig\t"));
    assert_eq!(ask(&["tail", "--kubeconfig", ""]), ":0\n");
    assert_eq!(ask(&["tail", "-o", "j"]), "json\tFor programs: one object per line\n:4\n");
}

#[test]
fn as_a_plugin_of_kubectl_it_is_named_so() {
    let scene = Scene::new();
    programs(&scene);
    let program = |name: &str| Path::new(scene.directory.path()).join("bin").join(name).display().to_string();
    let plugin = program("kubectl-observer");
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert!(output(&plugin, &["--help"]).0.contains("Usage: kubectl observer [OPTIONS] <COMMAND>"));
    assert!(output(&plugin, &["status", "--help"]).0.contains("Usage: kubectl observer status [OPTIONS]"));
    assert!(output(&plugin, &["status", "--wrong"]).1.contains("Usage: kubectl observer status [OPTIONS]"));
    assert!(output(&program("observer"), &["--help"]).0.contains("Usage: observer [OPTIONS] <COMMAND>"));
}

#[test]
fn man_pages() {
    let scene = Scene::new();
    let run = scene.run(&["man", "man"]);
    assert_eq!(run.code, Some(0), "{}", run.err);
    let page = std::fs::read_to_string(scene.path("man/observer-tail.1")).unwrap();
    assert!(page.starts_with(".ie") && page.contains(".TH") && page.contains("kubeconfig"), "{page}");
    assert!(scene.path("man/observer.1").is_file() && scene.path("man/observer-status.1").is_file());
    let run = scene.run(&["man", "kubeconfig/x"]);
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("error: the man pages cannot be written to kubeconfig/x: "), "{}", run.err);
    match Command::new("man").args(["--warnings", "-l"]).arg(scene.path("man/observer-tail.1")).env("MANPAGER", "cat").output() {
        Ok(output) => assert!(output.status.success() && output.stderr.is_empty(), "{output:?}"),
        Err(error) => skipped("man_pages", &format!("man cannot be run, so the pages are not formatted: {error}")),
    }
}
