//! `man`: the manual, made of the same texts as `--help`.

use super::Cli;
use crate::failure::Failure;
use anyhow::Context;
use clap::{Args, CommandFactory};

/// Print the manual page: `portcullis man | man -l -`
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The manual of this command
    command: Option<String>,
}

pub(crate) fn run(args: ManArgs) -> Result<(), Failure> {
    let mut cli = Cli::command();
    cli.build();
    let page = match &args.command {
        None => cli,
        Some(name) => {
            let command = cli.find_subcommand(name).cloned();
            let command = command.ok_or_else(|| {
                Failure::Usage(format!("there is no command {name:?} to describe"))
            })?;
            let full = format!("portcullis-{name}");
            command.name(full)
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page)
        .render(&mut text)
        .context("rendering the manual")?;
    crate::output::say(&String::from_utf8_lossy(&text));
    Ok(())
}
