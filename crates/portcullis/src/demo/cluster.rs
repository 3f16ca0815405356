//! The demo of a cluster: a server, two hosts whose agents follow it, and policy by the API.
//!
//! ```text
//! server, agent a, br0 --- uplink <== veth ==> uplink --- br0, agent b    the other demo's machines, on both
//!             198.51.100.1 mgmt <== veth ==> mgmt 198.51.100.2            where agents reach the server
//!
//! stage     the hosts, their cables, and the machines    host     `portcullis agent`, asked as people do
//! policy    what the API is told; how long it takes      server   `portcullis server`, and requests to it
//! remains   what has to go again                         client   OpenStack's, if it is there
//! matrix, joining, revocation, outage, ending: an act each
//! ```
//! Place on the lines: around both, as the other demo, whose cast it has, and whose policy.
//! Knows nothing of: how verdicts are made. What it expects is written by hand.

mod client;
mod ending;
mod host;
mod joining;
mod matrix;
mod outage;
mod policy;
mod remains;
mod revocation;
mod server;
mod stage;

pub(crate) use remains::take_down;

use super::report::{Report, ms};
use super::{Interrupted, tell_left_behind, with_interrupts};
use crate::failure::Failure;
use crate::plane::PlaneArgs;
use policy::Policy;
use remains::Remains;
use stage::Stage;
use std::time::Instant;

pub(crate) fn run(plane: PlaneArgs) -> Result<(), Failure> {
    with_interrupts(|begun, interrupted| play(plane, begun, interrupted))
}

fn play(plane: PlaneArgs, begun: Instant, interrupted: &Interrupted) -> Result<(), Failure> {
    let mut report = Report::new();
    tell_left_behind(&report)?;
    report.act("The stage: a server, two hosts, and policy by the OpenStack API")?;
    let remains = Remains::new(plane)?;
    let to_clear = remains.clone();
    interrupted.clears(move |code| to_clear.clear_and_exit(code));
    let stage = Stage::build(&remains)?;
    stage.show(&report)?;
    let mut policy = begin(&stage, &report, begun)?;

    matrix::play(&stage, &mut report)?;
    joining::play(&stage, &policy, &mut report)?;
    revocation::play(&stage, &mut policy, &mut report)?;
    outage::play(&stage, &policy, &mut report)?;
    ending::play(stage, &remains, &mut report)?;
    report.end(begun.elapsed())
}

/// Certificates, the server, its policy, and agents; from then on it is enforced on both hosts.
fn begin(stage: &Stage, report: &Report, begun: Instant) -> Result<Policy, Failure> {
    let built = begun.elapsed();
    stage.server.make_certificates(report)?;
    stage.server.start()?;
    report.line(format!("$ portcullis {}", stage.server.words()))?;
    let policy = Policy::make(&stage.server, report)?;
    let starting = Instant::now();
    for host in stage.hosts() {
        report.line(format!("$ portcullis {}", host.words()))?;
        host.start_agent()?;
    }
    for host in stage.hosts() {
        host.wait_enforced()?;
    }
    policy.wait_active(&stage.server)?;
    report.line(format!(
        "\nBoth hosts enforce {} after their agents' start; the stage took {}",
        ms(starting.elapsed()),
        ms(built),
    ))?;
    Ok(policy)
}
