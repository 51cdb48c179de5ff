//! `observer __complete`: what may come next, for `kubectl observer` and a press of the tab key.
//!
//! kubectl runs `kubectl_complete-observer` with the words typed so far, the last one being completed, and reads lines of what may stand
//! there, then a line with a number that says how to go on.

use std::io::{self, Write as _};

use clap::builder::PossibleValue;
use clap::{Arg, Args};

use super::{CommandError, Name};

/// Print what the last word may become.
#[derive(Args)]
pub(super) struct CompleteArgs {
    /// The words typed so far, the last one perhaps empty.
    #[arg(value_name = "WORD", allow_hyphen_values = true, trailing_var_arg = true)]
    words: Vec<String>,
}

/// Complete nothing from files: every value that may be a file is asked for by [`FILES`].
const NO_FILES: u8 = 4;

/// The shell completes names of files.
const FILES: u8 = 0;

/// Runs `observer __complete`.
pub(super) fn run(arguments: &CompleteArgs, name: Name) -> Result<(), CommandError> {
    let (candidates, directive) = complete(name.command(), &arguments.words);
    let mut text = String::new();
    for (word, help) in candidates {
        text.push_str(&word);
        if let Some(help) = help {
            text.push('\t');
            text.push_str(&help);
        }
        text.push('\n');
    }
    text.push_str(&format!(":{directive}\n"));
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::failure(format!("standard output: {error}"))),
        _ => Ok(()),
    }
}

type Candidates = Vec<(String, Option<String>)>;

fn complete(mut command: clap::Command, words: &[String]) -> (Candidates, u8) {
    command.build();
    let Some((last, before)) = words.split_last() else { return (Vec::new(), NO_FILES) };
    let mut command = &command;
    let mut pending: Option<&Arg> = None;
    for word in before {
        if pending.take().is_some() {
            continue;
        }
        if let Some(found) = command.find_subcommand(word) {
            command = found;
        } else if word.starts_with('-') && !word.contains('=') {
            pending = find(command, word).filter(|arg| takes_value(arg));
        }
    }
    if let Some(arg) = pending {
        return values(arg, last, "");
    }
    if let Some((option, value)) = last.split_once('=').filter(|_| last.starts_with("--")) {
        return match find(command, option) {
            Some(arg) => values(arg, value, &format!("{option}=")),
            None => (Vec::new(), NO_FILES),
        };
    }
    if last.starts_with('-') {
        let options = command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(|arg| Some((arg, arg.get_long()?)));
        let named = options.map(|(arg, long)| (format!("--{long}"), arg.get_help().map(first_line)));
        return (named.filter(|(word, _)| word.starts_with(last.as_str())).collect(), NO_FILES);
    }
    let subcommands = command.get_subcommands().filter(|found| !found.is_hide_set());
    let named = subcommands.map(|found| (found.get_name().to_owned(), found.get_about().map(first_line)));
    let mut candidates: Candidates = named.filter(|(word, _)| word.starts_with(last.as_str())).collect();
    let mut directive = NO_FILES;
    for arg in command.get_positionals() {
        let (more, files) = values(arg, last, "");
        candidates.extend(more);
        directive = directive.min(files);
    }
    (candidates, directive)
}

fn find<'a>(command: &'a clap::Command, option: &str) -> Option<&'a Arg> {
    let wanted = |arg: &&Arg| match option.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => arg.get_short().is_some_and(|short| option.strip_prefix('-').is_some_and(|rest| rest.chars().eq([short]))),
    };
    command.get_arguments().find(wanted)
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values() && arg.get_num_args().is_none_or(|range| range.max_values() > 0)
}

/// What an option may be set to, each with a prefix.
fn values(arg: &Arg, typed: &str, prefix: &str) -> (Candidates, u8) {
    let possible = arg.get_possible_values();
    let shown = possible.iter().filter(|value| !value.is_hide_set() && value.get_name().starts_with(typed));
    let candidates = shown.map(|value: &PossibleValue| (format!("{prefix}{}", value.get_name()), value.get_help().map(first_line)));
    let names = arg.get_value_names().into_iter().flatten();
    let is_file = names.into_iter().any(|name| name.contains("FILE") || name.contains("DIR"));
    (candidates.collect(), if is_file { FILES } else { NO_FILES })
}

/// Help in one line.
fn first_line(help: &clap::builder::StyledStr) -> String {
    help.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(typed: &[&str]) -> (Vec<String>, u8) {
        let typed: Vec<String> = typed.iter().map(|word| (*word).to_owned()).collect();
        let (candidates, directive) = complete(Name::Plugin.command(), &typed);
        (candidates.into_iter().map(|(word, _)| word).collect(), directive)
    }

    #[test]
    fn what_may_come_next() {
        let (commands, directive) = words(&[""]);
        assert!(
            ["tail", "explain", "status", "check", "completion"].iter().all(|name| commands.contains(&(*name).to_owned())),
            "{commands:?}"
        );
        assert!(!commands.iter().any(|name| name.starts_with("__") || name == "man"));
        assert_eq!(directive, NO_FILES);
        assert_eq!(words(&["ta"]).0, ["tail"]);
        assert_eq!(words(&["tail", "--kubec"]), (vec!["--kubeconfig".to_owned()], NO_FILES));
        assert_eq!(words(&["tail", "--kubeconfig", ""]), (vec![], FILES));
        assert_eq!(words(&["tail", "-n", "x", "-o", ""]), (vec!["text".to_owned(), "json".to_owned()], NO_FILES));
        assert_eq!(words(&["tail", "--output=j"]), (vec!["--output=json".to_owned()], NO_FILES));
        assert_eq!(words(&["completion", "b"]).0, ["bash"]);
        assert_eq!(words(&["tail", "--not", "--por"]).0, ["--port"], "--not takes no value");
        assert_eq!(words(&[]).0, Vec::<String>::new());
        assert_eq!(words(&["nothing", "--x=", "--y="]).0, Vec::<String>::new());
    }
}
