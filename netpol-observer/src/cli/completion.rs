//! `observer completion`

use std::io::{self, Write as _};

use clap::Args;
use clap_complete::{Shell, generate};

use super::{CommandError, Name};

/// Print a script that completes the command line in a shell.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompletionArgs {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    shell: KnownShell,
}

/// The shells that are tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum KnownShell {
    Bash,
    Zsh,
    Fish,
}

const EXAMPLES: &str = "\
Examples:
  bash, for this session and for all:
    source <(observer completion bash)
    observer completion bash > /etc/bash_completion.d/observer

  zsh, in a directory of $fpath:
    observer completion zsh > \"${fpath[1]}/_observer\"

  fish:
    observer completion fish > ~/.config/fish/completions/observer.fish

  kubectl observer: kubectl asks a program kubectl_complete-observer on the PATH
    printf '#!/bin/sh\\nexec kubectl-observer __complete -- \"$@\"\\n' > /usr/local/bin/kubectl_complete-observer
    chmod +x /usr/local/bin/kubectl_complete-observer";

/// Runs `observer completion`.
pub(super) fn run(arguments: &CompletionArgs, name: Name) -> Result<(), CommandError> {
    let shell = match arguments.shell {
        KnownShell::Bash => Shell::Bash,
        KnownShell::Zsh => Shell::Zsh,
        KnownShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    let mut command = name.command();
    let called = match name {
        Name::Observer => "observer",
        Name::Plugin => "kubectl-observer",
    };
    generate(shell, &mut command, called, &mut script);
    match io::stdout().write_all(&script) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::failure(format!("standard output: {error}"))),
        _ => Ok(()),
    }
}
