//! A mismatch for people: shrunk, with the policy, every packet, both answers, and the oracle's steps.

use super::{Mismatch, dump, shrunk, walk};
use crate::generate::{self, Event, Trace};
use crate::judge::{Answer, Judge, Open, OracleJudge};
use model::{Capabilities, PassReason, Verdict};
use std::fmt::{self, Write};

#[derive(Clone, Debug)]
pub struct Failure {
    pub trace: Trace,
    text: String,
}

impl Failure {
    pub(super) fn told(trace: Trace, text: String) -> Self {
        Self { trace, text }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

pub(super) fn failure(
    trace: &Trace,
    mismatch: &Mismatch,
    oracle: &mut OracleJudge,
    judge: &mut dyn Judge,
    capabilities: Capabilities,
) -> Failure {
    let mut seen_again = walk(trace, oracle, judge, |_, _, _| {});
    let mut text = format!("seed {:#018x}", trace.seed);
    if seen_again.as_ref() != Some(mismatch) {
        text += "; shown alone it does not happen: it depends on the traces before";
        seen_again = None;
    }
    let trace = match seen_again {
        Some(mismatch) => shrunk(trace, &mismatch, oracle, judge),
        None => Trace {
            events: trace.events[..=mismatch.at].to_vec(),
            ..*trace
        },
    };
    text.push('\n');
    tell(&mut text, &trace, judge, capabilities);
    Failure { trace, text }
}

fn tell(text: &mut String, trace: &Trace, judge: &mut dyn Judge, capabilities: Capabilities) {
    let mut oracle = OracleJudge::new(generate::host(), capabilities).explaining();
    let mut answers = Vec::new();
    walk(trace, &mut oracle, judge, |_, [expected, seen], _| {
        answers.push((expected.clone(), seen.clone()));
    });
    let mut answers = answers.into_iter();
    let mut told = Telling::default();
    for event in &trace.events {
        told.event(event);
        if let Event::Packet(_) = event
            && let Some((expected, seen)) = answers.next()
        {
            told.line(format_args!("    oracle: {}", answered(&expected)));
            if seen.verdict != expected.verdict {
                let name = judge.name();
                told.line(format_args!("    {name}: {}", words(&seen.verdict)));
            }
        }
    }
    for (name, lines) in [
        ("oracle", oracle.last_trace()),
        (judge.name(), judge.last_trace()),
    ] {
        for line in lines {
            told.line(format_args!("  {name}: {line}"));
        }
    }
    text.push_str(&told.text);
}

/// A trace in lines, of policies after the first one what is new.
#[derive(Default)]
pub(super) struct Telling {
    pub(super) text: String,
    before: Option<Vec<String>>,
}

impl Telling {
    pub(super) fn line(&mut self, line: fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("a string takes everything");
    }

    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Policy(inventory) => {
                let lines = dump::lines(inventory, &generate::host());
                let shown = match &self.before {
                    None => lines.clone(),
                    Some(before) => dump::difference(before, &lines),
                };
                self.line(format_args!("policy {}", inventory.revision));
                for line in shown {
                    self.line(format_args!("    {line}"));
                }
                self.before = Some(lines);
            }
            Event::Advance(by) => self.line(format_args!("{by:?} later")),
            Event::Packet(sent) => {
                let what = wire::words::describe(&sent.frame);
                self.line(format_args!("{} at {}: {what}", sent.direction, sent.port));
                self.line(format_args!("    {}", hex(&sent.frame)));
            }
        }
    }
}

/// A verdict, and what the contract leaves open about it.
pub(super) fn answered(answer: &Answer) -> String {
    let open = match answer.open {
        Open::No => "",
        Open::MayDrop => " (or drop)",
        Open::Either => " (open)",
    };
    format!("{}{open}", words(&answer.verdict))
}

/// A verdict with its reason in one phrase.
pub fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Pass(PassReason::Rule(rule)) => format!("pass by rule {rule}"),
        Verdict::Pass(PassReason::Live(rule)) => format!("pass as live, by rule {rule}"),
        Verdict::Pass(_) | Verdict::Drop(_) => kind(verdict),
    }
}

/// A verdict without the rule.
pub(super) fn kind(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Drop(reason) => format!("drop: {reason}"),
        Verdict::Pass(reason) => match reason {
            PassReason::Rule(_) => "pass by rule",
            PassReason::Live(_) => "pass as live",
            PassReason::ElidedError => "pass as error about an untracked flow",
            PassReason::Fragment => "pass as fragment",
            PassReason::Infrastructure => "pass as infrastructure",
            PassReason::Unguarded => "pass unguarded",
        }
        .to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
