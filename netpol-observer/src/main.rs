//! The `observer` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    netpol_observer::cli::run(std::env::args_os())
}
