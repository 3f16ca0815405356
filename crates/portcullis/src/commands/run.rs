//! `run`: the agent for one host.

use crate::enforce::{EnforceArgs, Enforcing, enforce, without_policy};
use crate::failure::Failure;
use crate::logging;
use crate::policy_source::{parser, read_file, this_host, understand};
use agent::{Mailbox, PolicySource};
use clap::Args;
use std::path::PathBuf;

/// Enforce a policy file on this host, and follow its edits
///
/// Finds the devices of the ports, arms them as they come, and puts every valid edit of the file in
/// force at once; an invalid edit changes nothing and is reported. Ctrl-C or SIGTERM ends the agent
/// and leaves enforcement in place; SIGHUP reads the file again.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis run --policy /etc/portcullis/policy.yaml
  portcullis run --policy policy.yaml --confirm 60     removed again unless you `portcullis confirm`
  portcullis run --policy policy.yaml --guard-bridge   no packet before a device is armed
  portcullis run --policy policy.yaml --guard-bridge='tap*'   also devices that the policy doesn't name

Exit codes: 0 stopped, 1 rolled back, 3 invalid policy and no earlier one, 4 the system refused.")]
pub(crate) struct RunArgs {
    /// The policy file
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,

    /// This host, where the file has several [default: the machine's name]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,

    #[command(flatten)]
    enforce: EnforceArgs,
}

pub(crate) fn run(args: RunArgs) -> Result<(), Failure> {
    logging::start(args.enforce.log.clone());
    let instance = args.enforce.instance.instance()?;
    let host = this_host(args.host.as_deref())?;
    let parse = parser(&args.policy, &host, args.enforce.inspection);
    let cached = agent::cached_policy(&instance, &parse);
    if cached.is_none() {
        // Nothing to enforce: said before anything is loaded.
        let file = args.policy.display().to_string();
        understand(&read_file(&args.policy)?, &file, &host).map_err(without_policy)?;
    }
    let (mailbox, inputs) = Mailbox::new();
    let enforcing = Enforcing {
        host,
        instance,
        policy: PolicySource::File {
            path: args.policy.clone(),
            parse,
        },
        from: args.policy.clone(),
        cached: cached.map(|(policy, _)| policy.inventory),
        mailbox,
        inputs,
    };
    enforce(&args.enforce, enforcing, || {})
}
