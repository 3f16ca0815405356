//! `detach`: the one command that removes enforcement.

use super::InstanceArgs;
use crate::control;
use crate::failure::Failure;
use crate::output::{FormatArgs, print};
use crate::plane::{self, PlaneArgs};
use agent::{Guard, Instance};
use clap::Args;
use serde_json::json;

/// Remove enforcement: every port of this host is open afterwards
///
/// A running agent removes it and ends, and so does a `server --all-in-one`, with its API. Devices, policy file and
/// cached policy stay as they are.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portcullis detach

Exit codes: 0 removed, or there was nothing; 4 the system refused.")]
pub(crate) struct DetachArgs {
    #[command(flatten)]
    instance: InstanceArgs,

    #[command(flatten)]
    plane: PlaneArgs,

    #[command(flatten)]
    format: FormatArgs,
}

pub(crate) fn run(args: DetachArgs) -> Result<(), Failure> {
    let instance = args.instance.instance()?;
    if let Some(answer) = control::request(&instance, "detach")? {
        return match answer["error"].as_str() {
            None => {
                tell(&args, &instance, true, true);
                Ok(())
            }
            Some(error) => Err(Failure::System(format!(
                "the agent could not remove all enforcement: {error}"
            ))),
        };
    }
    // An agent that starts now would put back what is being removed.
    let _lock = instance.lock().map_err(Failure::system)?;
    let removed = plane::remove(args.plane, &instance)?;
    Guard::new(instance.name())
        .remove()
        .map_err(Failure::system)?;
    instance.forget().map_err(Failure::system)?;
    tell(&args, &instance, removed, false);
    Ok(())
}

fn tell(args: &DetachArgs, instance: &Instance, removed: bool, agent_ended: bool) {
    let value = json!({
        "instance": instance.name(),
        "removed": removed,
        "agent_ended": agent_ended,
    });
    print(args.format.output, &value, |_, _| {
        match (removed, agent_ended) {
            (_, true) => "enforcement removed; the agent has ended\n",
            (true, false) => "enforcement removed\n",
            (false, false) => "nothing was enforced here\n",
        }
        .to_owned()
    });
}
