//! Generated policies and packets: does a judge say what the oracle says, and for the same reason?
//!
//! Place on the line: around all of it. A case is one packet judged, in a trace with its history.
//! Knows nothing of: how the judge works. The same seed gives the same cases to every judge.
//!
//! What is compared: the verdict with its reason, whole: the drop reason's number, the rule by group
//! and id. A packet about which the contract leaves the verdict open is not compared, and counted.
//! Where the two then differ, their state may, too, so that trace ends there.

mod between;
mod coverage;
mod dump;
mod report;

pub use between::{Deliveries, run_between};
pub use coverage::Coverage;
pub use report::{Failure, words};

use crate::generate::{self, Event, Trace};
use crate::judge::{Agreement, Answer, Judge, Open, OracleJudge};
use crate::shrink;
use model::{Capabilities, Verdict};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

/// Long, since a new inventory costs a plane more than a packet.
const PACKETS_PER_TRACE: usize = 400;
/// Mismatches that are shrunk and told in full, each of another kind: one mistake shows many times.
const FAILURES_TOLD: usize = 5;

#[derive(Debug, Default)]
pub struct Report {
    pub cases: u64,
    /// Of the cases, those whose verdict the contract leaves open.
    pub open: u64,
    /// Those that pass, and that the plane may drop for lack of something.
    pub may_drop: u64,
    /// Traces in which an answer differed; each ends at its first.
    pub mismatches: u64,
    /// By what was expected and what was seen, without the rules' names.
    pub kinds: BTreeMap<(String, String), u64>,
    pub failures: Vec<Failure>,
    /// Why the run ended early: the judge could not go on.
    pub trouble: Option<String>,
    pub coverage: Coverage,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub cases: u64,
    pub mismatches: u64,
}

/// Where a trace went apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Index of the event.
    pub at: usize,
    pub expected: Verdict,
    pub seen: Verdict,
}

/// The progress of whom it doesn't concern.
pub fn on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

impl Report {
    /// One mismatch more. Whether it is the first of its kind.
    fn tally(&mut self, kind: (String, String)) -> bool {
        self.mismatches += 1;
        let count = self.kinds.entry(kind).or_default();
        *count += 1;
        *count == 1
    }

    fn so_far(&self) -> Progress {
        Progress {
            cases: self.cases,
            mismatches: self.mismatches,
        }
    }
}

impl Mismatch {
    fn kind(&self) -> (String, String) {
        (report::kind(&self.expected), report::kind(&self.seen))
    }
}

/// Judges this many packets. `progress` is called after each trace, and may end the run early.
pub fn run(
    judge: &mut dyn Judge,
    capabilities: Capabilities,
    cases: u64,
    seed: u64,
    progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Report {
    run_telling(FAILURES_TOLD, judge, capabilities, cases, seed, progress)
}

/// Like [`run`], for who wants to know just whether there are mismatches.
pub fn count(judge: &mut dyn Judge, capabilities: Capabilities, cases: u64, seed: u64) -> Report {
    run_telling(0, judge, capabilities, cases, seed, on)
}

fn run_telling(
    failures_told: usize,
    judge: &mut dyn Judge,
    capabilities: Capabilities,
    cases: u64,
    seed: u64,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Report {
    let mut oracle = OracleJudge::new(generate::host(), capabilities);
    let mut report = Report::default();
    // Seeds next to each other must not share traces.
    let mut seeds = generate::Dice::new(seed);
    while report.cases < cases {
        let left = usize::try_from(cases - report.cases).unwrap_or(usize::MAX);
        let trace = generate::trace(seeds.roll(), left.min(PACKETS_PER_TRACE));
        let mismatch = play(&trace, &mut oracle, judge, &mut report);
        if let Some(trouble) = judge.trouble() {
            report.trouble = Some(trouble.to_owned());
            return report;
        }
        if let Some(mismatch) = mismatch {
            let first = report.tally(mismatch.kind());
            if first && report.failures.len() < failures_told {
                let failure = report::failure(&trace, &mismatch, &mut oracle, judge, capabilities);
                report.failures.push(failure);
            }
        }
        if progress(report.so_far()).is_break() {
            break;
        }
    }
    report
}

/// Shows one trace to both, until they differ or it ends.
fn play(
    trace: &Trace,
    oracle: &mut OracleJudge,
    judge: &mut dyn Judge,
    report: &mut Report,
) -> Option<Mismatch> {
    report.coverage.next_trace();
    walk(trace, oracle, judge, |sent, [expected, _], steps| {
        report.cases += 1;
        report.open += u64::from(expected.open == Open::Either);
        report.may_drop += u64::from(expected.open == Open::MayDrop);
        report.coverage.count(sent, expected, steps);
    })
}

/// The first event at which they differ. `each` sees every packet with the two answers, and
/// the steps of the judge if it explains itself.
pub(crate) fn walk(
    trace: &Trace,
    oracle: &mut OracleJudge,
    judge: &mut dyn Judge,
    mut each: impl FnMut(&generate::Sent, [&Answer; 2], &[String]),
) -> Option<Mismatch> {
    oracle.reset();
    judge.reset();
    for (at, event) in trace.events.iter().enumerate() {
        match event {
            Event::Policy(inventory) => {
                oracle.apply(inventory);
                judge.apply(inventory);
            }
            Event::Advance(by) => {
                oracle.advance(*by);
                judge.advance(*by);
                leave_doubt(oracle, judge);
            }
            Event::Packet(sent) if !judge.can_judge(&sent.port, sent.direction, &sent.frame) => {}
            Event::Packet(sent) => {
                let expected = oracle.judge(&sent.port, sent.direction, &sent.frame);
                let seen = judge.judge(&sent.port, sent.direction, &sent.frame);
                each(sent, [&expected, &seen], &judge.last_trace());
                match expected.compare(&seen.verdict, judge.knows_why()) {
                    Agreement::Same | Agreement::Allowed => {}
                    Agreement::Unknown => return None,
                    Agreement::Wrong => {
                        return Some(Mismatch {
                            at,
                            expected: expected.verdict,
                            seen: seen.verdict,
                        });
                    }
                }
            }
        }
    }
    None
}

/// Lets time pass until no state is at an age at which the contract leaves its life open.
fn leave_doubt(oracle: &mut OracleJudge, judge: &mut dyn Judge) {
    let mut more = Duration::from_secs(5);
    let mut passed = Duration::ZERO;
    for _ in 0..20 {
        if !oracle.is_doubtful() {
            break;
        }
        oracle.advance(more);
        passed += more;
        more = more * 3 / 2;
        // A multiple of a tick, as all pauses are.
        more = Duration::from_secs(more.as_secs());
    }
    if !passed.is_zero() {
        judge.advance(passed);
    }
}

/// Removes from a trace what is not needed to show the same mismatch.
fn shrunk(
    trace: &Trace,
    mismatch: &Mismatch,
    oracle: &mut OracleJudge,
    judge: &mut dyn Judge,
) -> Trace {
    let wanted = mismatch.kind();
    let mut begun = trace.clone();
    begun.events.truncate(mismatch.at + 1);
    shrink::shrink(shrink::TRIES, begun, |candidate| {
        let seen = walk(candidate, oracle, judge, |_, _, _| {});
        seen.filter(|m| m.kind() == wanted).map(|m| m.at)
    })
}
