//! The demo: one host out of network namespaces, and security groups on real packets.
//!
//! ```text
//! cast        who plays, and who is meant to reach whom      machines     theirs, all listening
//! stage       the host and its machines
//! policy      the policy file and its edits                  enforcement  `portcullis run`, asked as people do
//! report      what is printed; counts verdicts               remains      what has to go again
//! ovs         the same between two hosts with Open vSwitch, a play of its own
//! cluster     the same cast on two hosts that follow a server, a play of its own
//! matrix, spoofing, revocation, joining, restart, elision, explain, ending: an act each
//! ```
//! Place on the lines: around both, at the operator's end and at the machines'.
//! Knows nothing of: how verdicts are made. What it expects is written by hand.

mod cast;
mod cluster;
mod elision;
mod ending;
mod enforcement;
mod explain;
mod joining;
mod machines;
mod matrix;
mod ovs;
mod policy;
mod remains;
mod report;
mod restart;
mod revocation;
mod spoofing;
mod stage;
mod traffic;

pub(crate) use cluster::run as run_cluster;
pub(crate) use ovs::run as run_ovs;
pub(crate) use remains::take_down;

use crate::failure::Failure;
use crate::plane::PlaneArgs;
use anyhow::Context;
use conformance::lab::{Lab, LabError};
use enforcement::Enforcement;
use report::{Report, ms};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use spoofing::Spoofing;
use stage::Stage;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(crate) fn run(plane: PlaneArgs, keep: bool) -> Result<(), Failure> {
    with_interrupts(|begun, interrupted| play(plane, keep, begun, interrupted))
}

fn with_interrupts(
    play: impl FnOnce(Instant, &Interrupted) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let interrupted = Interrupted::watch()?;
    let played = play(begun, &interrupted);
    if played.is_err() {
        // What was interrupted failed because of that; there is nothing else to tell.
        interrupted.wait_if_so();
    }
    played
}

fn play(
    plane: PlaneArgs,
    keep: bool,
    begun: Instant,
    interrupted: &Interrupted,
) -> Result<(), Failure> {
    let mut report = Report::new();
    tell_left_behind(&report)?;
    report.act("The stage: six machines on a bridge, and a policy file")?;
    let lab = Lab::new("demo")?;
    let enforcement = Enforcement::new(plane, lab.host())?;
    let remains = enforcement.remains().clone();
    interrupted.clears(move |code| remains.clear_and_exit(code));
    let stage = Stage::build(lab, enforcement)?;
    stage.show(&report)?;
    let spoofing = Spoofing::rehearse(&stage)?;
    begin(&stage, &report, begun)?;

    matrix::play(&stage, &mut report)?;
    spoofing.play(&stage, &mut report)?;
    revocation::play(&stage, &mut report)?;
    joining::play(&stage, &mut report)?;
    restart::play(&stage, &mut report)?;
    elision::play(&stage, &mut report)?;
    explain::play(&stage, &mut report)?;
    match keep {
        true => ending::keep(&stage, &mut report)?,
        false => ending::detach(stage, &mut report)?,
    }
    report.end(begun.elapsed())
}

fn tell_left_behind(report: &Report) -> Result<(), Failure> {
    for name in remains::left_behind() {
        report.line(format!(
            "({name} was left by an earlier demo; `portcullis demo --down` removes it)"
        ))?;
    }
    Ok(())
}

/// From now on the policy is enforced.
fn begin(stage: &Stage, report: &Report, begun: Instant) -> Result<(), Failure> {
    let enforcement = &stage.enforcement;
    let built = begun.elapsed();
    let starting = Instant::now();
    enforcement.save(policy::POLICY)?;
    enforcement.start_agent()?;
    enforcement.wait_enforced(policy::POLICY)?;
    report.line(format!(
        "\npolicy   {} (the same as examples/demo.yaml)\n\
         agent    portcullis run, enforcing {} after its start; the stage took {}",
        enforcement.policy_path().display(),
        ms(starting.elapsed()),
        ms(built),
    ))
}

/// Polls until there is an answer; says for what it waited in vain.
fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut poll: impl FnMut() -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    /// Between two looks; not for anything to happen in.
    const PAUSE: Duration = Duration::from_millis(1);
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = poll()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(Failure::System(format!("waited {limit:?} for {what}")));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Ctrl-C and its kin: the demo ends, and nothing of it is left.
struct Interrupted {
    is: Arc<AtomicBool>,
    clearing: std::sync::mpsc::Sender<Clear>,
}

/// Removes what there is of a demo, and ends the process with this code.
type Clear = Box<dyn FnOnce(i32) + Send>;

impl Interrupted {
    fn watch() -> Result<Self, Failure> {
        const SIGNALS: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];
        let is = Arc::new(AtomicBool::new(false));
        for signal in SIGNALS {
            signal_hook::flag::register(signal, Arc::clone(&is)).context("waiting for signals")?;
        }
        let mut signals = Signals::new(SIGNALS).context("waiting for signals")?;
        let (clearing, to_clear) = std::sync::mpsc::channel::<Clear>();
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                eprintln!("\nportcullis: interrupted; cleaning up");
                // As shells say it.
                let code = 128 + signal;
                match to_clear.try_recv() {
                    Ok(clear) => clear(code),
                    Err(_) => std::process::exit(code),
                }
            }
        });
        Ok(Self { is, clearing })
    }

    fn clears(&self, clear: impl FnOnce(i32) + Send + 'static) {
        // Nobody takes it when the process is ending already.
        let _ = self.clearing.send(Box::new(clear));
    }

    fn wait_if_so(&self) {
        while self.is.load(Ordering::Acquire) {
            std::thread::park();
        }
    }
}

impl From<LabError> for Failure {
    fn from(error: LabError) -> Self {
        Failure::System(error.to_string())
    }
}
