//! `status`: what is enforced, on which devices, and what was dropped.

use super::InstanceArgs;
use crate::failure::Failure;
use crate::output::{FormatArgs, print};
use crate::plane::PlaneArgs;
use crate::policy_source::{InspectionArgs, look_named};
use crate::{control, status_view};
use clap::Args;

/// Show what is enforced: ports, devices, flows, drops
///
/// With a running agent it says what the agent knows too: the policy's revision and errors, the time
/// from link-up to armed. Without one it shows what is in the kernel.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis status
  portcullis status -o wide        with drop reasons and the packets of each rule
  portcullis status -o json | jq '.ports[] | select(.state != \"enforced\")'

Exit codes: 0 shown, 4 nothing is enforced here, or it can't be read.")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    instance: InstanceArgs,

    #[command(flatten)]
    plane: PlaneArgs,

    #[command(flatten)]
    inspection: InspectionArgs,

    #[command(flatten)]
    format: FormatArgs,
}

pub(crate) fn run(args: StatusArgs) -> Result<(), Failure> {
    let instance = args.instance.instance()?;
    let status = match control::request(&instance, "status")? {
        Some(status) => status,
        None => {
            let mut plane = look_named(args.plane, &instance, args.inspection)?;
            let can = plane.capabilities();
            let counters = plane.counters().map_err(Failure::system)?;
            let devices = plane.find_devices()?;
            let drift = plane.audit().map_err(Failure::system)?;
            let name = args.plane.name();
            status_view::of_plane(&counters, &devices, &drift, can, &instance, name)
        }
    };
    print(args.format.output, &status, status_view::table);
    Ok(())
}
