//! The `observer` command line: one file per command.
#![forbid(unsafe_code)]

mod agent;
mod check;
mod cluster;
mod complete;
mod completion;
mod diff;
mod doctor;
mod error;
mod explain;
mod filter;
mod follow;
mod install;
mod live;
mod man;
mod map;
mod objects;
mod output;
mod record;
mod signals;
mod source;
mod status;
mod tail;
mod time;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::{ArgAction, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use error::CommandError;

/// Explains packets dropped by Kubernetes NetworkPolicies.
///
/// For every connection that does not get through it names the policy that is responsible, the rule that came nearest to
/// allowing it, and the smallest change that would; or it says that no policy is to blame.
#[derive(Parser)]
#[command(name = "observer", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Say more on standard error about what the program does: -v for debugging, -vv for all.
    ///
    /// The environment variable RUST_LOG selects more finely, such as `netpol_observer::flow=trace`.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,

    /// When to colour the output.
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    color: Colour,
}

#[derive(Subcommand)]
enum Command {
    Tail(Box<tail::TailArgs>),
    Explain(Box<explain::ExplainArgs>),
    Status(Box<status::StatusArgs>),
    Check(Box<check::CheckArgs>),
    Diff(Box<diff::DiffArgs>),
    Map(Box<map::MapArgs>),
    Agent(Box<agent::AgentArgs>),
    Doctor(doctor::DoctorArgs),
    Install(Box<install::InstallArgs>),
    Completion(completion::CompletionArgs),
    #[command(hide = true)]
    Man(man::ManArgs),
    #[command(name = "__complete", hide = true)]
    Complete(complete::CompleteArgs),
}

/// `--color`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// `-o`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum OutputForm {
    /// For people.
    Text,
    /// For programs: one object per line.
    Json,
}

/// Runs the command line and returns what the process ends with: 0 when all went well, 1 after an error, 2 when the command
/// line is wrong. Commands that answer a question say it by their code: see their help.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let name = Name::of(arguments.first());
    let cli = match parse(arguments, name) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no errors. A reader that has gone does not matter.
            _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    start_log(cli.verbose);
    let result = match cli.command {
        Command::Tail(arguments) => tail::run(*arguments, cli.color).map(|()| ExitCode::SUCCESS),
        Command::Check(arguments) => check::run(*arguments, cli.color),
        Command::Diff(arguments) => diff::run(&arguments, cli.color),
        Command::Map(arguments) => map::run(*arguments).map(|()| ExitCode::SUCCESS),
        Command::Agent(arguments) => agent::run(*arguments).map(|()| ExitCode::SUCCESS),
        Command::Explain(arguments) => explain::run(&arguments, cli.color),
        Command::Status(arguments) => status::run(&arguments, cli.color),
        Command::Doctor(arguments) => doctor::run(&arguments, cli.color).map(|()| ExitCode::SUCCESS),
        Command::Install(arguments) => install::run(*arguments).map(|()| ExitCode::SUCCESS),
        Command::Completion(arguments) => completion::run(&arguments, name).map(|()| ExitCode::SUCCESS),
        Command::Man(arguments) => man::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Complete(arguments) => complete::run(&arguments, name).map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}", crate::serve::render::clean_lines(&error.to_string()));
            error.exit_code()
        }
    }
}

/// The command line as `clap` knows it, for the documentation.
pub fn command() -> clap::Command {
    Cli::command()
}

/// What the program is called as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// By itself.
    Observer,
    /// As a plugin of kubectl, which runs what is called `kubectl-observer` for `kubectl observer`.
    Plugin,
}

impl Name {
    fn of(program: Option<&OsString>) -> Name {
        let stem = program.and_then(|program| Path::new(program).file_stem());
        if stem.is_some_and(|stem| stem == "kubectl-observer") { Name::Plugin } else { Name::Observer }
    }

    /// What people type.
    fn typed(self) -> &'static str {
        match self {
            Name::Observer => "observer",
            Name::Plugin => "kubectl observer",
        }
    }

    fn command(self) -> clap::Command {
        match self {
            Name::Observer => Cli::command(),
            Name::Plugin => Cli::command().name("kubectl-observer").bin_name(self.typed()).display_name("kubectl-observer"),
        }
    }
}

fn parse(arguments: Vec<OsString>, name: Name) -> Result<Cli, clap::Error> {
    let mut command = name.command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let (targets, wrong) = match std::env::var("RUST_LOG").ok().filter(|directives| !directives.is_empty()) {
        Some(directives) => match directives.parse::<Targets>() {
            Ok(targets) => (targets, None),
            Err(error) => (Targets::new().with_default(level), Some(error)),
        },
        None => {
            let targets = Targets::new().with_target("netpol_observer", level).with_default(LevelFilter::WARN);
            // What goes wrong with the API server is told as a notice.
            let told = if verbose == 0 { LevelFilter::OFF } else { LevelFilter::WARN };
            (targets.with_target("kube_runtime", told).with_target("kube_client", told), None)
        }
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    // A second call, as in tests, keeps the first log.
    _ = tracing_subscriber::registry().with(layer).with(targets).try_init();
    if let Some(error) = wrong {
        tracing::warn!("RUST_LOG is not used: {error}");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_sound() {
        super::command().debug_assert();
    }
}
