//! `observer doctor`

use std::io::Write as _;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use clap::Args;

use super::live::LiveArgs;
use super::{Colour, CommandError, OutputForm};
use crate::capture::doctor::{Check, Status, examine};
use crate::serve::render::clean_lines;

/// Check whether drops can be captured on this machine by this user, and say what to do where they cannot.
///
/// Looks at the program, the permissions and the kernel, then has one packet to this machine's own loopback address dropped and
/// waits for the record of it. Changes nothing. Ends with 0 when capture works, with 1 when it does not.
#[derive(Args)]
pub(super) struct DoctorArgs {
    /// For people (text) or for programs (json: one object with a list of checks).
    #[arg(short, long, value_enum, default_value_t = OutputForm::Text, value_name = "FORMAT")]
    output: OutputForm,

    #[command(flatten)]
    live: LiveArgs,
}

pub(super) fn run(arguments: &DoctorArgs, colour: Colour) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| CommandError::failure(format!("cannot start: {error}")))?;
    let checks = runtime.block_on(examine(arguments.live.options()));
    let text = match arguments.output {
        OutputForm::Text => checks.iter().map(text).collect(),
        OutputForm::Json => {
            let json = serde_json::json!({ "type": "doctor", "checks": checks });
            format!("{json}\n")
        }
    };
    let mut out = AutoStream::new(std::io::stdout(), colour.choice());
    // A reader that has gone does not matter.
    _ = out.write_all(text.as_bytes());
    let failed = checks.iter().filter(|check| check.status == Status::Fails).count();
    if failed > 0 {
        return Err(CommandError::failure(format!("capture does not work here: {failed} of {} checks failed", checks.len())));
    }
    Ok(())
}

fn text(check: &Check) -> String {
    let (word, colour) = match check.status {
        Status::Works => ("works", AnsiColor::Green),
        Status::Limited => ("limited", AnsiColor::Yellow),
        Status::Fails => ("FAILS", AnsiColor::Red),
        Status::Skipped => ("skipped", AnsiColor::Yellow),
    };
    let style = Style::new().fg_color(Some(colour.into()));
    let mut text = format!("{style}{word:<8}{style:#} {:<16} {}\n", check.name, clean_lines(&check.found));
    if let Some(advice) = &check.advice {
        text.push_str(&format!("{:25} → {}\n", "", clean_lines(advice)));
    }
    text
}

impl Colour {
    /// What the stream does about it.
    pub(super) fn choice(self) -> ColorChoice {
        match self {
            Colour::Auto => ColorChoice::Auto,
            Colour::Always => ColorChoice::Always,
            Colour::Never => ColorChoice::Never,
        }
    }
}
