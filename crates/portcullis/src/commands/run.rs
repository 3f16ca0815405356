//! `run`: the agent for one host.

use super::InstanceArgs;
use crate::control;
use crate::failure::Failure;
use crate::logging::{self, LogArgs};
use crate::plane::{self, PlaneArgs};
use crate::policy_source::{InspectionArgs, parser, read_file, this_host, understand};
use crate::status_view;
use agent::watch::Poke;
use agent::{Event, Guard, Input, Mailbox, Outcome, PolicySource, Setup, drive};
use anyhow::Context;
use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

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
    instance: InstanceArgs,

    #[command(flatten)]
    plane: PlaneArgs,

    #[command(flatten)]
    inspection: InspectionArgs,

    /// Remove a first enforcement after so many seconds, unless someone confirms it
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    confirm: Option<u32>,

    /// Drop on bridges what devices send and get before they are armed: those that the policy names,
    /// and those of these names (a `*` may end them). Needs nft
    #[arg(long, value_name = "NAMES", num_args = 0..=1, require_equals = true, value_delimiter = ',')]
    guard_bridge: Option<Vec<String>>,

    /// The most ports that this host may have
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    max_ports: u32,

    /// Hand packets between ports of this host straight from one device to the other, where its bridge was
    /// just seen to take them there. Faster; ebtables, nft and iptables on the bridge no longer see them
    #[arg(long)]
    direct: bool,

    #[command(flatten)]
    log: LogArgs,
}

pub(crate) fn run(args: RunArgs) -> Result<(), Failure> {
    logging::start(args.log.clone());
    let instance = args.instance.instance()?;
    let host = this_host(args.host.as_deref())?;
    let parse = parser(&args.policy, &host, args.inspection);
    let cached = agent::cached_policy(&instance, &parse);
    if cached.is_none() {
        // Nothing to enforce: said before anything is loaded.
        let file = args.policy.display().to_string();
        understand(&read_file(&args.policy)?, &file, &host).map_err(without_policy)?;
    }
    let _lock = instance.lock().map_err(Failure::system)?;
    let guard: Option<BTreeSet<String>> = args
        .guard_bridge
        .as_ref()
        .map(|names| names.iter().filter(|n| !n.is_empty()).cloned().collect());
    if guard.is_some() {
        // What can't be had is said before anything is loaded.
        Guard::new(instance.name())
            .check()
            .map_err(Failure::system)?;
    }
    let mut plane = plane::open(args.plane, &instance, args.max_ports, args.direct)?;
    if let Some((policy, _)) = cached
        && !plane.ports()?.is_empty()
    {
        // What an earlier agent left in force: rules keep their names, and the first change is seen
        // for what it changes.
        plane.recognize(&policy::compile(&policy.inventory, &host).0)?;
    }
    let (mailbox, inputs) = Mailbox::new();
    let (view_of, file) = (instance.clone(), args.policy.clone());
    let (name, direct) = (args.plane.name(), args.direct);
    let status =
        move |status: &agent::Status| status_view::of_agent(status, &view_of, &file, name, direct);
    let policy_of = control::PolicyOf {
        host: host.clone(),
        inspection: args.inspection,
    };
    let answering = control::serve(&instance, mailbox.clone(), status, policy_of).map_err(|e| {
        Failure::System(format!("opening {}: {e}", instance.socket_path().display()))
    })?;
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("waiting for signals")?;

    let setup = Setup {
        host,
        instance: instance.clone(),
        policy: PolicySource::File {
            path: args.policy.clone(),
            parse,
        },
        confirm: args.confirm.map(|s| Duration::from_secs(s.into())),
        guard,
    };
    let to = mailbox.clone();
    let on_ready = move |poke: Option<Poke>| {
        let poke = poke.expect("the policy is a file");
        std::thread::spawn(move || follow_signals(signals, &to, &poke));
    };
    let outcome = drive(plane.as_plane(), setup, &mailbox, &inputs, on_ready);
    // The next agent makes its own; a client must not wait for one that is gone.
    let _ = std::fs::remove_file(instance.socket_path());
    // What is asked from now on finds nobody.
    drop(inputs);
    answering.finish();
    match outcome.map_err(Failure::system)? {
        Outcome::Stopped => {
            eprintln!(
                "portcullis: the agent has stopped; enforcement stays. `portcullis detach{}` removes it.",
                instance_flag(&args.instance)
            );
            Ok(())
        }
        Outcome::Detached => {
            eprintln!("portcullis: enforcement is removed, and the agent has stopped.");
            Ok(())
        }
        Outcome::RolledBack => Err(Failure::No(
            "portcullis: nobody confirmed in time: enforcement is removed again, and all ports are open."
                .to_owned(),
        )),
        Outcome::NoPolicy(errors) => Err(without_policy(errors.join("\n"))),
        Outcome::Lost(what) => Err(Failure::System(format!(
            "{what}. The agent has stopped; enforcement stays as it is."
        ))),
        Outcome::DetachFailed(error) => Err(Failure::System(format!(
            "enforcement was to be removed, and something is left: {error}"
        ))),
    }
}

fn without_policy(errors: String) -> Failure {
    Failure::Policy(format!(
        "{errors}\nportcullis: nothing was changed, and there is no earlier policy to enforce."
    ))
}

fn follow_signals(mut signals: Signals, mailbox: &Mailbox, poke: &Poke) {
    let mut stopping = false;
    for signal in signals.forever() {
        match signal {
            SIGHUP => poke.poke(),
            SIGINT | SIGTERM if !stopping => {
                stopping = true;
                mailbox.send(Input::Event(Event::StopAsked));
            }
            // Whoever asks a second time means it; a kill leaves enforcement whole as well.
            other => {
                let _ = signal_hook::low_level::emulate_default_handler(other);
            }
        }
    }
}

fn instance_flag(args: &InstanceArgs) -> String {
    match args.instance.as_str() {
        "default" => String::new(),
        name => format!(" --instance {name}"),
    }
}
