//! An agent on this host, whoever it has its policy from: arguments, and from the start to the end.
//!
//! Place on the line: policy -> inventory -> compile -> target -> **the plane** -> report.
//! Knows nothing of: where the policy comes from; that is told it.

use crate::commands::InstanceArgs;
use crate::control;
use crate::failure::Failure;
use crate::logging::LogArgs;
use crate::plane::{self, PlaneArgs};
use crate::policy_source::InspectionArgs;
use crate::status_view;
use agent::watch::Poke;
use agent::{Event, Guard, Input, Instance, Mailbox, Outcome, PolicySource, Setup, drive};
use anyhow::Context;
use clap::Args;
use clap::builder::FalseyValueParser;
use model::{HostId, Inventory};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// What `run` and `agent` have in common.
#[derive(Args, Debug)]
pub(crate) struct EnforceArgs {
    #[command(flatten)]
    pub(crate) instance: InstanceArgs,

    #[command(flatten)]
    pub(crate) plane: PlaneArgs,

    #[command(flatten)]
    pub(crate) inspection: InspectionArgs,

    /// Remove a first enforcement after so many seconds, unless someone confirms it
    #[arg(long, value_name = "SECONDS", env = "PORTCULLIS_CONFIRM", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    confirm: Option<u32>,

    /// Drop on bridges what devices send and get before they are armed: those that the policy names,
    /// and those of these names (a `*` may end them). Needs nft
    #[arg(long, value_name = "NAMES", num_args = 0..=1, require_equals = true, value_delimiter = ',', env = "PORTCULLIS_GUARD_BRIDGE")]
    guard_bridge: Option<Vec<String>>,

    /// The most ports that this host may have
    #[arg(long, value_name = "N", default_value_t = 1024, env = "PORTCULLIS_MAX_PORTS", value_parser = clap::value_parser!(u32).range(1..=65_535))]
    max_ports: u32,

    /// Hand packets between ports of this host straight from one device to the other, where its bridge was
    /// just seen to take them there. Faster; ebtables, nft and iptables on the bridge no longer see them
    #[arg(long, value_parser = FalseyValueParser::new(), env = "PORTCULLIS_DIRECT")]
    direct: bool,

    #[command(flatten)]
    pub(crate) log: LogArgs,
}

impl EnforceArgs {
    /// What is given that makes no sense where nothing is enforced.
    pub(crate) fn for_agents(&self) -> Option<&'static str> {
        let given = [
            ("--confirm", self.confirm.is_some()),
            ("--guard-bridge", self.guard_bridge.is_some()),
            ("--direct", self.direct),
        ];
        given.into_iter().find(|(_, is)| *is).map(|(name, _)| name)
    }
}

pub(crate) struct Enforcing {
    pub(crate) host: HostId,
    pub(crate) instance: Instance,
    pub(crate) policy: PolicySource,
    /// For people: the file, or the servers.
    pub(crate) from: PathBuf,
    /// The last good policy, if there is one.
    pub(crate) cached: Option<Inventory>,
    pub(crate) mailbox: Mailbox,
    pub(crate) inputs: std::sync::mpsc::Receiver<Input>,
}

/// Until it is stopped. `on_ready`: the agent takes events now.
pub(crate) fn enforce(
    args: &EnforceArgs,
    enforcing: Enforcing,
    on_ready: impl FnOnce(),
) -> Result<(), Failure> {
    let Enforcing {
        host,
        instance,
        policy,
        from,
        cached,
        mailbox,
        inputs,
    } = enforcing;
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
    if let Some(inventory) = cached
        && !plane.ports()?.is_empty()
    {
        // What an earlier agent left in force: rules keep their names, and the first change is seen
        // for what it changes.
        plane.recognize(&policy::compile(&inventory, &host).0)?;
    }
    let (view_of, name, direct) = (instance.clone(), args.plane.name(), args.direct);
    let status =
        move |status: &agent::Status| status_view::of_agent(status, &view_of, &from, name, direct);
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
        policy,
        confirm: args.confirm.map(|s| Duration::from_secs(s.into())),
        guard,
    };
    let to = mailbox.clone();
    let ready = move |poke: Option<Poke>| {
        std::thread::spawn(move || follow_signals(signals, &to, poke));
        on_ready();
    };
    let outcome = drive(plane.as_plane(), setup, &mailbox, &inputs, ready);
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

pub(crate) fn without_policy(errors: String) -> Failure {
    Failure::Policy(format!(
        "{errors}\nportcullis: nothing was changed, and there is no earlier policy to enforce."
    ))
}

fn follow_signals(mut signals: Signals, mailbox: &Mailbox, poke: Option<Poke>) {
    let mut stopping = false;
    for signal in signals.forever() {
        match signal {
            SIGHUP => {
                if let Some(poke) = &poke {
                    poke.poke();
                }
            }
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
