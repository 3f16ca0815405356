//! `cloudstack`: in the place of CloudStack's script.

use crate::cloudstack::{self, Adopted, CONFIG_PATH, CloudHost, Config, Leaving};
use crate::failure::Failure;
use crate::logging::{self, LogArgs};
use crate::output;
use ::cloudstack::original::Version;
use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

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
  portcullis cloudstack release --as before                   give this host back to a script up to 4.22
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

    /// Give this host back to CloudStack's script, under running VMs
    ///
    /// Builds what the script would have built itself, hands the connections over, then takes all of ours away.
    /// Connections go on; at no moment is a VM open or cut off by the change. What this version of the script
    /// judges otherwise than we do is said. From then on calls that still come here are refused, so that two never
    /// program one host: put the script back under its name right afterwards. To take the host over again:
    /// portcullis cloudstack adopt.
    Release(ReleaseArgs),

    /// Put right what others change, between the agent's calls, until stopped
    Watch(Box<LogArgs>),

    /// A command of CloudStack's agent, with its options
    #[command(external_subcommand)]
    Agent(Vec<OsString>),
}

#[derive(Args, Debug)]
#[command(after_help = "\
What it does, in this order; it says what is true after each step:
  carried    the kernel's connection tracker knows the live connections, as the script goes by it
  built      the script's sets, rules and chains are there; ours still judge
  switched   the script's rules judge
  removed    nothing of ours is left, and /var/run/cloud/*.log are the script's

If it is stopped in the middle, run it again. Until `switched`, ours is in force, and the next call of the agent takes away what was built; afterwards the script's rules are in force, and calls are refused until it ended.

Examples:
  portcullis cloudstack release               as the version of the script that was taken over
  portcullis cloudstack release --as after    as that of CloudStack 4.23

Exit codes: 0 given back, or there was nothing to give back; 2 say --as; 4 the system refused, with what is true now.")]
struct ReleaseArgs {
    /// Which version of the script is to go on [default: the newest that had built something when this host was
    /// taken over]
    #[arg(long = "as", value_enum, value_name = "VERSION")]
    version: Option<VersionName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum VersionName {
    /// Up to CloudStack 4.22: state of connections before explicit rules
    Before,
    /// CloudStack 4.23: explicit rules first, and sets of addresses that need no tracking
    After,
    /// After CloudStack 4.23: with networks that the host routes
    Main,
}

impl VersionName {
    fn version(self) -> Version {
        match self {
            VersionName::Before => Version::Before,
            VersionName::After => Version::After,
            VersionName::Main => Version::Main,
        }
    }
}

pub(crate) fn run(args: CloudstackArgs) -> ExitCode {
    let done = match args.command {
        CloudstackCommand::Adopt => adopt(&args.config),
        CloudstackCommand::Release(release) => give_back(&args.config, &release),
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
    if host.leaving() == Some(Leaving::Left) {
        host.mark_leaving(None)?;
    }
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

fn give_back(config: &Path, args: &ReleaseArgs) -> Result<(), Failure> {
    let host = CloudHost::enter(Config::read(config)?)?;
    // Whoever reads it may stop early; that doesn't stop a change-over.
    let mut tell = |line: &str| drop(writeln!(std::io::stdout(), "{line}"));
    let released = match host.leaving() {
        Some(Leaving::Left) => {
            tell("this host was given back to the script already; nothing was changed");
            return Ok(());
        }
        Some(Leaving::Switched(version)) => {
            tell(&format!(
                "going on where a release was stopped: to the script {version}"
            ));
            cloudstack::end_release(&host, version, &mut tell)?
        }
        Some(Leaving::Building) | None if host.is_half_adopted() => {
            return Err(Failure::System(
                "taking this host over was stopped half-way, and the script's rules judge; end that first \
                 (`portcullis cloudstack adopt`); nothing was changed"
                    .to_owned(),
            ));
        }
        Some(Leaving::Building) | None => {
            let Some(state) = host.state()? else {
                tell("nothing of ours is in force here; there is nothing to give back");
                return Ok(());
            };
            let told = args.version.map(VersionName::version);
            let version = told.or_else(|| host.script_version()).ok_or_else(|| {
                Failure::Usage(
                    "nothing was taken over from the script here, so which version of it is to go on isn't known: say \
                     --as before (CloudStack up to 4.22), --as after (4.23) or --as main (later); nothing was changed"
                        .to_owned(),
                )
            })?;
            tell(&format!("giving this host back to the script {version}"));
            cloudstack::release(&host, state, version, &mut tell)?
        }
    };
    for doubt in &released.doubts {
        tell(&format!("not as it was: {doubt}"));
    }
    let nics: usize = released.state.vms.values().map(|vm| vm.nics.len()).sum();
    tell(&format!(
        "given back: {} VMs with {nics} NICs, to the script {}; put it back under its name now, calls that come here \
         are refused",
        released.state.vms.len(),
        released.version
    ));
    Ok(())
}

fn follow(config: &Path, log: LogArgs) -> Result<(), Failure> {
    logging::start(log);
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("watching for signals")?;
    }
    cloudstack::watch(&Config::read(config)?, &stop)
}
