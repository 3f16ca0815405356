//! `confirm`: a first enforcement stands.

use super::InstanceArgs;
use crate::control;
use crate::failure::Failure;
use clap::Args;

/// Keep a first enforcement that `run --confirm` would undo
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portcullis run --policy policy.yaml --confirm 60 &
  portcullis confirm        # you can still reach the machine: keep it

Exit codes: 0 confirmed, 1 there is nothing to confirm, 4 no agent runs.")]
pub(crate) struct ConfirmArgs {
    #[command(flatten)]
    instance: InstanceArgs,
}

pub(crate) fn run(args: ConfirmArgs) -> Result<(), Failure> {
    let instance = args.instance.instance()?;
    let answer = control::request(&instance, "confirm")?.ok_or_else(|| {
        Failure::System(format!(
            "no agent of instance {} runs; there is nothing to confirm",
            instance.name()
        ))
    })?;
    match answer["confirmed"].as_bool() {
        Some(true) => {
            crate::output::say("confirmed: enforcement stays\n");
            Ok(())
        }
        Some(false) => Err(Failure::No(
            "there was nothing to confirm: enforcement stands already, or has not begun".to_owned(),
        )),
        None => Err(Failure::System(format!(
            "the agent did not confirm: {}",
            crate::output::text(&answer, "error")
        ))),
    }
}
