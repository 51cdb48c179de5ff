//! `observer man`: for whoever packages the program.

use std::fs;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use super::{Cli, CommandError};

/// Write the man pages into a directory.
#[derive(Args)]
pub(super) struct ManArgs {
    /// The directory; made if it is not there.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Runs `observer man`.
pub(super) fn run(arguments: &ManArgs) -> Result<(), CommandError> {
    let directory = &arguments.directory;
    let written = fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
    written.map_err(|error| CommandError::failure(format!("the man pages cannot be written to {}: {error}", directory.display())))
}
