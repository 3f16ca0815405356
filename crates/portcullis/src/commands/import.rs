//! `import`: what another system enforces, as a policy file.

use crate::cloudstack::{self, CONFIG_PATH, CloudHost, Config, Leaving};
use crate::failure::Failure;
use crate::output;
use ::cloudstack::policy_file::policy_file;
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

/// Print what another system enforces on this host, as a policy file
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portcullis import cloudstack > policy.yaml && portcullis check policy.yaml

Exit codes: 0 printed, 4 there is nothing to read, or it can't be read.")]
pub(crate) struct ImportArgs {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, Subcommand)]
enum From {
    /// The VMs of a CloudStack host: those that are ours, or that its script has programmed
    Cloudstack(CloudstackArgs),
}

#[derive(Args, Debug)]
struct CloudstackArgs {
    /// How this host is set up; the file need not be there
    #[arg(long, value_name = "FILE", default_value = CONFIG_PATH, env = "PORTCULLIS_CLOUDSTACK_CONF")]
    config: PathBuf,
}

pub(crate) fn run(args: ImportArgs) -> Result<(), Failure> {
    match args.from {
        From::Cloudstack(args) => from_cloudstack(&args.config),
    }
}

/// What isn't clear goes to standard error: the file is on standard output.
fn from_cloudstack(config: &Path) -> Result<(), Failure> {
    let host = CloudHost::enter(Config::read(config)?)?;
    let ours = match host.leaving() {
        Some(Leaving::Left) => None,
        Some(Leaving::Building | Leaving::Switched(_)) | None => host.state()?,
    };
    let state = match ours {
        Some(state) => state,
        None => {
            let (_, recovered) = cloudstack::recover(&host)?.ok_or_else(|| {
                Failure::System("no VM of CloudStack has been programmed on this host".to_owned())
            })?;
            for doubt in &recovered.doubts {
                eprintln!("not clear: {doubt}");
            }
            recovered.state
        }
    };
    output::say(&policy_file(&state, &host.config.options));
    Ok(())
}
