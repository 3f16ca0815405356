//! The demo of the Open vSwitch plane: two hosts, a switch on each, a tunnel between them, two tenants that have the
//! same addresses.
//!
//! ```text
//! cast      who plays, and who is meant to reach whom     stage    the hosts, their cable, and the machines
//! policy    the policy file and its edits                 host     a switch, its machines, and `portcullis run`
//! traffic   questions, and who answers; streams           frames   what is on the cable, taken apart
//! remains   what has to go again
//! matrix, cable, growth, revocation, restart, explain, ending: an act each
//! ```
//! Place on the lines: around both, as the other demo.
//! Knows nothing of: how verdicts are made. What it expects is written by hand.

mod cable;
mod cast;
mod ending;
mod explain;
mod frames;
mod growth;
mod host;
mod matrix;
mod policy;
mod remains;
mod restart;
mod revocation;
mod stage;
mod traffic;

pub(crate) use remains::end_agents;

use super::report::{Report, ms};
use super::{Interrupted, tell_left_behind, with_interrupts};
use crate::failure::Failure;
use policy::Policy;
use remains::{Clearing, Remains};
use stage::Stage;
use std::path::Path;
use std::time::Instant;

pub(crate) fn run() -> Result<(), Failure> {
    check_installed()?;
    with_interrupts(play)
}

fn play(begun: Instant, interrupted: &Interrupted) -> Result<(), Failure> {
    let mut report = Report::new();
    tell_left_behind(&report)?;
    report.act("The stage: two hosts, a switch on each, two tenants with the same addresses")?;
    let remains = Remains::new()?;
    let _clearing = Clearing(remains.clone());
    let to_clear = remains.clone();
    interrupted.clears(move |code| to_clear.clear_and_exit(code));
    let mut stage = Stage::build(&remains)?;
    stage.show(&report)?;
    begin(&stage, &report, begun)?;

    let destination = Policy::default();
    matrix::play(&stage, &mut report, &destination)?;
    let source = Policy {
        inspection: "source",
        ..destination
    };
    matrix::play(&stage, &mut report, &source)?;
    cable::play(&stage, &mut report)?;
    growth::play(&stage, &mut report)?;
    revocation::play(&stage, &mut report)?;
    restart::play(&mut stage, &mut report)?;
    explain::play(&stage, &mut report)?;
    ending::play(stage, &remains, &mut report)?;
    report.end(begun.elapsed())
}

/// From now on the policy is enforced on both hosts.
fn begin(stage: &Stage, report: &Report, begun: Instant) -> Result<(), Failure> {
    let (built, starting) = (begun.elapsed(), Instant::now());
    let policy = Policy::default().text();
    stage.save(&policy)?;
    for host in stage.hosts() {
        host.start_agent()?;
    }
    stage.wait_enforced(&policy)?;
    report.line(format!(
        "\nagents   portcullis run --plane ovs --host a (and b), enforcing {} after their start; the stage took {}",
        ms(starting.elapsed()),
        ms(built),
    ))
}

/// Said before anything is made.
fn check_installed() -> Result<(), Failure> {
    const PROGRAMS: [&str; 3] = ["ovs-vswitchd", "ovsdb-server", "ovs-vsctl"];
    // The daemons are where a user's path may not lead.
    let path = std::env::var("PATH").unwrap_or_default();
    let is_there = |program: &str| {
        let mut directories = path.split(':').chain(["/usr/sbin", "/usr/bin"]);
        directories.any(|directory| Path::new(directory).join(program).exists())
    };
    match PROGRAMS.into_iter().find(|program| !is_there(program)) {
        None => Ok(()),
        Some(program) => Err(Failure::System(format!(
            "demo: {program} isn't installed. On Debian: apt-get install openvswitch-switch; the demo runs \
             switches of its own, and needs neither the service nor a kernel module"
        ))),
    }
}
