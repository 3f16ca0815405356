//! `cloudstack`: in the place of CloudStack's script.

use crate::cloudstack::{self, Adopted, CONFIG_PATH, CloudHost, Config};
use crate::failure::Failure;
use crate::logging::{self, LogFormat};
use crate::output;
use anyhow::Context;
use clap::{Args, Subcommand};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tracing_subscriber::EnvFilter;

/// Stand in for CloudStack's security_group.py on a KVM host
///
/// Each call of CloudStack's agent is one short process; no daemon is needed. Linked under the name
/// security_group.py, the program takes the agent's words without `cloudstack` in front.
#[derive(Args, Debug)]
#[command(after_help = "\
Commands of the agent:
  can_bridge_firewall, default_network_rules, default_network_rules_systemvm, add_network_rules,
  network_rules_vmSecondaryIp, destroy_network_rules_for_vm, cleanup_rules, get_rule_logs_for_vms,
  verify_network_rules, post_default_network_rules

Examples:
  portcullis cloudstack get_rule_logs_for_vms
  portcullis cloudstack verify_network_rules --vmname i-2-104-VM --vmip 10.1.1.4 --vmmac 02:00:00:00:00:04
  ln -s \"$(command -v portcullis)\" /usr/share/cloudstack-common/scripts/vm/network/security_group.py
  portcullis status --instance cloudstack --plane iptables    what is enforced for its VMs

Exit codes: 0 done; as the script has them otherwise, with a line on standard error.")]
pub(crate) struct CloudstackArgs {
    /// How this host is set up; the file need not be there
    #[arg(long, value_name = "FILE", default_value = CONFIG_PATH, env = "PORTCULLIS_CLOUDSTACK_CONF")]
    config: PathBuf,

    #[command(subcommand)]
    command: CloudstackCommand,
}

#[derive(Debug, Subcommand)]
enum CloudstackCommand {
    /// Take over what CloudStack's script has built here, under running VMs
    ///
    /// The first call of the agent does this by itself. Connections go on; at no moment is a VM open or cut off.
    Adopt,

    /// Put right what others change, between the agent's calls, until stopped
    Watch(Box<WatchArgs>),

    /// A command of CloudStack's agent, with its options
    #[command(external_subcommand)]
    Agent(Vec<OsString>),
}

#[derive(Args, Debug)]
struct WatchArgs {
    /// How the log looks
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,

    /// How much is logged: error, warn, info, debug, trace
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "info",
        env = "PORTCULLIS_LOG"
    )]
    log_level: EnvFilter,
}

pub(crate) fn run(args: CloudstackArgs) -> ExitCode {
    let done = match args.command {
        CloudstackCommand::Adopt => adopt(&args.config),
        CloudstackCommand::Watch(watch) => follow(&args.config, *watch),
        CloudstackCommand::Agent(words) => return cloudstack::answer(&args.config, &words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            failure.exit_code()
        }
    }
}

fn adopt(config: &Path) -> Result<(), Failure> {
    let host = CloudHost::enter(Config::read(config)?)?;
    if host.state()?.is_some() {
        output::say("security groups are ours here already; there is nothing to take over\n");
        return Ok(());
    }
    let Some(Adopted {
        state,
        doubts,
        connections,
    }) = cloudstack::adopt(&host)?
    else {
        output::say("the script has built nothing here; there is nothing to take over\n");
        return Ok(());
    };
    for doubt in &doubts {
        output::say(&format!("not clear: {doubt}\n"));
    }
    let nics: usize = state.vms.values().map(|vm| vm.nics.len()).sum();
    output::say(&format!(
        "taken over: {} VMs with {nics} NICs, {connections} connections; what the script had built is gone\n",
        state.vms.len()
    ));
    Ok(())
}

fn follow(config: &Path, args: WatchArgs) -> Result<(), Failure> {
    logging::start(args.log_format, args.log_level);
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("watching for signals")?;
    }
    cloudstack::watch(&Config::read(config)?, &stop)
}
