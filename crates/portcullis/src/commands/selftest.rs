//! `portcullis selftest`: on this kernel, does the data plane answer as the oracle does?

use crate::failure::Failure;
use crate::output;
use crate::plane::{self, PlaneArgs};
use crate::policy_source::InspectionArgs;
use anyhow::Context;
use clap::Args;
use conformance::selftest::{self, Progress};
use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Prove on this kernel that a data plane does what the contract says
///
/// Policies and packets are generated from the seed, with their history: replies, errors, fragments,
/// changes in mid-flow. Each packet is judged by the contract and by the data plane: by the loaded program,
/// or (iptables, ovs) for real, in network namespaces of its own, with an Open vSwitch of its own. No device is
/// touched, and an enforcement that is in place goes on. The last line counts the mismatches; the exit code is 0 if there are none.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis selftest
  portcullis selftest --plane ovs --cases 20000
  portcullis selftest --plane ovs --hosts 2 --inspection source --cases 20000

Exit codes: 0 no mismatch, 1 mismatches, or stopped before the end, 4 the system refused.")]
pub(crate) struct SelftestArgs {
    #[command(flatten)]
    plane: PlaneArgs,

    /// Packets to judge
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    cases: u64,

    /// The same seed, the same policies and packets
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// With 2: whether packets from host to host arrive where they should, through tunnels (ovs)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    hosts: u8,

    #[command(flatten)]
    inspection: InspectionArgs,

    /// Also print which verdicts were met, and how often
    #[arg(long)]
    coverage: bool,
}

pub(crate) fn run(args: SelftestArgs) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("watching for signals")?;
    }
    let mut ticker = Ticker::new(args.cases);
    let go_on = |progress| {
        ticker.tell(progress);
        match stop.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let (cases, seed) = (args.cases, args.seed);
    let report = match args.hosts {
        2 => plane::with_trial_hosts(args.plane, |hosts, capabilities| {
            let inspection = args.inspection.inspection().unwrap_or_default();
            selftest::run_between(hosts, capabilities, inspection, cases, seed, go_on)
        })?,
        _ => plane::with_trial(args.plane, |judge, capabilities| {
            selftest::run(judge, capabilities, cases, seed, go_on)
        })?,
    };
    ticker.end();
    if let Some(trouble) = report.trouble {
        return Err(Failure::System(format!(
            "after {} cases, of which {} were mismatches: {trouble}",
            report.cases, report.mismatches
        )));
    }
    for failure in &report.failures {
        output::say(&format!("{failure}\n"));
    }
    for ((expected, seen), count) in &report.kinds {
        output::say(&format!("{count} times expected {expected}, seen {seen}\n"));
    }
    if args.coverage {
        output::say(&format!("{}\n", report.coverage));
    }
    let seconds = ticker.began.elapsed().as_secs_f64();
    output::say(&format!(
        "seed {}, {:.0} cases/s, {} left open by the contract{}\n{} cases, {} mismatches\n",
        args.seed,
        report.cases as f64 / seconds,
        report.open,
        may_drop(report.may_drop),
        report.cases,
        report.mismatches
    ));
    match (report.mismatches, report.cases < args.cases) {
        (0, false) => Ok(()),
        (0, true) => Err(Failure::No("stopped before the end".to_owned())),
        (_, _) => Err(Failure::No(String::new())),
    }
}

/// Of a plane that lacks something.
fn may_drop(cases: u64) -> String {
    match cases {
        0 => String::new(),
        cases => format!(", {cases} may be dropped"),
    }
}

/// One line that moves, on a terminal.
struct Ticker {
    cases: u64,
    began: Instant,
    told: Instant,
    on_terminal: bool,
}

impl Ticker {
    fn new(cases: u64) -> Self {
        let now = Instant::now();
        Self {
            cases,
            began: now,
            told: now,
            on_terminal: std::io::stderr().is_terminal(),
        }
    }

    fn tell(&mut self, progress: Progress) {
        if !self.on_terminal || self.told.elapsed() < Duration::from_millis(200) {
            return;
        }
        self.told = Instant::now();
        let Progress { cases, mismatches } = progress;
        let rate = cases as f64 / self.began.elapsed().as_secs_f64();
        eprint!(
            "\r{cases} of {} cases, {mismatches} mismatches, {rate:.0} cases/s\x1b[K",
            self.cases
        );
        // Who closed stderr sees no progress; the run goes on.
        let _ = std::io::stderr().flush();
    }

    fn end(&self) {
        if self.on_terminal {
            eprint!("\r\x1b[K");
        }
    }
}
