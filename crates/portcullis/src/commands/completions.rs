//! `completions`: what a shell needs to complete our commands.

use super::Cli;
use crate::failure::Failure;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Print completions for a shell
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis completions bash > /etc/bash_completion.d/portcullis
  source <(portcullis completions zsh)")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: CompletionsArgs) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "portcullis", &mut text);
    crate::output::say(&String::from_utf8_lossy(&text));
    Ok(())
}
