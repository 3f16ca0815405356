//! A mismatch for people: shrunk, with the policy, every packet, both answers, and the oracle's steps.

use super::{Mismatch, dump, shrunk, walk};
use crate::generate::{self, Event, Trace};
use crate::judge::{Judge, Open, OracleJudge};
use model::{Capabilities, PassReason, Verdict};
use std::fmt::{self, Write};

#[derive(Clone, Debug)]
pub struct Failure {
    pub trace: Trace,
    text: String,
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
    let mut before: Option<Vec<String>> = None;
    for event in &trace.events {
        match event {
            Event::Policy(inventory) => {
                let lines = dump::lines(inventory, &generate::host());
                let shown = match &before {
                    None => lines.clone(),
                    Some(before) => dump::difference(before, &lines),
                };
                say(text, format_args!("policy {}", inventory.revision));
                for line in shown {
                    say(text, format_args!("    {line}"));
                }
                before = Some(lines);
            }
            Event::Advance(by) => say(text, format_args!("{by:?} later")),
            Event::Packet(sent) => {
                let what = wire::words::describe(&sent.frame);
                say(
                    text,
                    format_args!("{} at {}: {what}", sent.direction, sent.port),
                );
                say(text, format_args!("    {}", hex(&sent.frame)));
                if let Some((expected, seen)) = answers.next() {
                    let open = match expected.open {
                        Open::No => "",
                        Open::MayDrop => " (or drop)",
                        Open::Either => " (open)",
                    };
                    say(
                        text,
                        format_args!("    oracle: {}{open}", words(&expected.verdict)),
                    );
                    if seen.verdict != expected.verdict {
                        let name = judge.name();
                        say(text, format_args!("    {name}: {}", words(&seen.verdict)));
                    }
                }
            }
        }
    }
    for (name, lines) in [
        ("oracle", oracle.last_trace()),
        (judge.name(), judge.last_trace()),
    ] {
        for line in lines {
            say(text, format_args!("  {name}: {line}"));
        }
    }
}

fn say(text: &mut String, line: fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes everything");
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
