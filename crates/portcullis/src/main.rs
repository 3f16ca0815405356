//! The one binary: arguments in, wiring, answers out.
//!
//! Place on the lines: around both. Each command is one file in `commands`; what it prints is made in
//! `output`, how it ends is a `Failure`.
//! Knows nothing of: how verdicts are made; it asks the crates that do.

mod backup_file;
mod bench;
mod client;
mod cloudstack;
mod cluster;
mod commands;
mod control;
mod demo;
mod enforce;
mod failure;
mod logging;
mod output;
mod plane;
mod policy_source;
mod reach_view;
mod served_policy;
mod status_view;

use clap::{CommandFactory, FromArgMatches};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    if cloudstack::is_script(words.next().as_deref()) {
        return cloudstack::script(&words.collect::<Vec<_>>());
    }
    // A reader that has seen enough (`| head`) is no error of ours.
    let matches = commands::Cli::command().get_matches();
    match commands::Cli::from_arg_matches(&matches) {
        Ok(cli) => commands::dispatch(cli),
        Err(error) => error.exit(),
    }
}
