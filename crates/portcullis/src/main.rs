//! The one binary: arguments in, wiring, answers out.
//!
//! Place on the lines: around both. Each command is one file in `commands`; what it prints is made in
//! `output`, how it ends is a `Failure`.
//! Knows nothing of: how verdicts are made; it asks the crates that do.

mod bench;
mod commands;
mod control;
mod demo;
mod failure;
mod logging;
mod output;
mod plane;
mod policy_source;
mod status_view;

use clap::{CommandFactory, FromArgMatches};
use std::process::ExitCode;

fn main() -> ExitCode {
    // A reader that has seen enough (`| head`) is no error of ours.
    let matches = commands::Cli::command().get_matches();
    let cli = match commands::Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match commands::dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            failure.exit_code()
        }
    }
}
