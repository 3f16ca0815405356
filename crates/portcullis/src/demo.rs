//! The demo: one host out of network namespaces, and security groups on real packets.
//!
//! ```text
//! cast        who plays, and who is meant to reach whom      stage        the machines
//! policy      the policy file and its edits                  enforcement  `portcullis run`, asked as people do
//! report      what is printed; counts verdicts               remains      what has to go again
//! matrix, spoofing, revocation, joining, restart, elision, explain, ending: an act each
//! ```
//! Place on the lines: around both, at the operator's end and at the machines'.
//! Knows nothing of: how verdicts are made. What it expects is written by hand.

mod cast;
mod elision;
mod ending;
mod enforcement;
mod explain;
mod joining;
mod matrix;
mod policy;
mod remains;
mod report;
mod restart;
mod revocation;
mod spoofing;
mod stage;
mod traffic;

pub(crate) use remains::take_down;

use crate::failure::Failure;
use crate::plane::PlaneArgs;
use anyhow::Context;
use conformance::lab::{Lab, LabError};
use enforcement::Enforcement;
use remains::Remains;
use report::{Report, ms};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use spoofing::Spoofing;
use stage::Stage;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(crate) fn run(plane: PlaneArgs, keep: bool) -> Result<(), Failure> {
    let begun = Instant::now();
    let interrupted = Interrupted::watch()?;
    let played = play(plane, keep, begun, &interrupted);
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
    for name in remains::left_behind() {
        report.line(format!(
            "({name} was left by an earlier demo; `portcullis demo --down` removes it)"
        ))?;
    }
    report.act("The stage: six machines on a bridge, and a policy file")?;
    let lab = Lab::new("demo")?;
    let enforcement = Enforcement::new(plane, lab.host())?;
    interrupted.clears(enforcement.remains());
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
    remains: std::sync::mpsc::Sender<Remains>,
}

impl Interrupted {
    fn watch() -> Result<Self, Failure> {
        const SIGNALS: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];
        let is = Arc::new(AtomicBool::new(false));
        for signal in SIGNALS {
            signal_hook::flag::register(signal, Arc::clone(&is)).context("waiting for signals")?;
        }
        let mut signals = Signals::new(SIGNALS).context("waiting for signals")?;
        let (remains, to_clear) = std::sync::mpsc::channel::<Remains>();
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                eprintln!("\nportcullis: interrupted; cleaning up");
                // As shells say it.
                let code = 128 + signal;
                match to_clear.try_recv() {
                    Ok(remains) => remains.clear_and_exit(code),
                    Err(_) => std::process::exit(code),
                }
            }
        });
        Ok(Self { is, remains })
    }

    fn clears(&self, remains: &Remains) {
        // Nobody takes it when the process is ending already.
        let _ = self.remains.send(remains.clone());
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
