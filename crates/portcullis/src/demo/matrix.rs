//! Who reaches whom: every pair, every service, both families, by real connections and pings.
//!
//! What is expected is the table in `cast`, written by hand; that the oracle says the same about the
//! policy file is a verdict of its own.

use super::cast::{Role, Service, may_reach};
use super::machines::Machines;
use super::policy::POLICY;
use super::report::Report;
use super::stage::Stage;
use super::traffic::{Attempt, IN_VAIN, PATIENCE, family_name};
use crate::failure::Failure;
use crate::output::{Columns, Tone};
use crate::policy_source::understand;
use model::{Capabilities, Direction, DropReason, Family, HostId, PortId};
use oracle::Oracle;
use std::net::SocketAddr;
use std::time::Duration;
use wire::words::Words;

pub(crate) fn play(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    report.act("Who reaches whom: real TCP connections and pings, from row to column")?;
    let attempts = every_attempt();
    let before = no_rule_drops(stage)?;
    let reached = make_all(&stage.machines, report, &attempts)?;
    let dropped = no_rule_drops(stage)? - before;

    report.table(&table(&attempts, &reached))?;
    report.line(Service::LEGEND)?;

    let denied = attempts.iter().filter(|attempt| !is_meant(attempt)).count();
    let counted = match dropped >= denied as u64 {
        true => format!("at least {denied}"),
        false => dropped.to_string(),
    };
    let expected = format!("at least {denied}");
    report.verdict("packets counted as dropped by no rule", expected, counted);
    report.line(format!(
        "\n{} attempts; {denied} not meant to pass, {dropped} packets dropped and counted as no-rule",
        attempts.len()
    ))?;

    let mut oracle = Meaning::of_policy()?;
    let (all, mut agrees) = (attempts.len(), 0);
    for attempt in &attempts {
        let says = oracle.passes(*attempt);
        match says == is_meant(attempt) {
            true => agrees += 1,
            false => report.line(format!("the oracle says of {attempt}: {}", passes(says)))?,
        }
    }
    report.verdict("the oracle about the policy file", all, agrees);
    report.line(format!(
        "the oracle says of {agrees} of {all} what is expected here by hand"
    ))
}

/// All at once, each a verdict; which got an answer.
pub(super) fn make_all(
    machines: &Machines,
    report: &mut Report,
    attempts: &[Attempt],
) -> Result<Vec<bool>, Failure> {
    let with_patience: Vec<(Attempt, Duration)> = attempts
        .iter()
        .map(|attempt| match is_meant(attempt) {
            true => (*attempt, PATIENCE),
            false => (*attempt, IN_VAIN),
        })
        .collect();
    let reached = Attempt::make_all(machines, &with_patience)?;
    for (attempt, reached) in attempts.iter().zip(&reached) {
        report.verdict(attempt, passes(is_meant(attempt)), passes(*reached));
    }
    Ok(reached)
}

fn is_meant(attempt: &Attempt) -> bool {
    may_reach(attempt.from, attempt.to, attempt.service)
}

pub(super) fn every_attempt() -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for from in Role::ALL {
        for family in [Family::V4, Family::V6] {
            for to in Role::ALL.into_iter().filter(|to| *to != from) {
                attempts.extend(Service::ALL.map(|service| Attempt {
                    from,
                    to,
                    service,
                    family,
                }));
            }
        }
    }
    attempts
}

pub(super) fn passes(does: bool) -> &'static str {
    match does {
        true => "passes",
        false => "dropped",
    }
}

fn no_rule_drops(stage: &Stage) -> Result<u64, Failure> {
    let protected = Role::ALL.into_iter().filter(|role| role.is_protected());
    let drops = protected.map(|role| stage.enforcement.dropped(role, DropReason::NoRule));
    drops.sum()
}

/// Three lines for each machine: what is expected, and what was seen in each family.
pub(super) fn table(attempts: &[Attempt], reached: &[bool]) -> Columns {
    let mut header = vec!["FROM", ""];
    header.extend(Role::ALL.map(Role::name));
    let mut columns = Columns::new(&header);
    let letters = |which: &dyn Fn(Service) -> bool| {
        let letters: String = Service::ALL
            .into_iter()
            .filter(|service| which(*service))
            .map(Service::letter)
            .collect();
        match letters.is_empty() {
            true => "·".to_owned(),
            false => letters,
        }
    };
    for from in Role::ALL {
        let expected = Role::ALL.map(|to| match to == from {
            true => String::new(),
            false => letters(&|service| may_reach(from, to, service)),
        });
        let mut row = vec![
            (from.name().to_owned(), Tone::Plain),
            ("expected".to_owned(), Tone::Plain),
        ];
        row.extend(expected.iter().map(|cell| (cell.clone(), Tone::Plain)));
        columns.row(row);
        for family in [Family::V4, Family::V6] {
            let seen = |to: Role| {
                let got = |service| {
                    let mut all = attempts.iter().zip(reached);
                    all.any(|(a, reached)| {
                        *reached
                            && (a.from, a.to, a.service, a.family) == (from, to, service, family)
                    })
                };
                match to == from {
                    true => String::new(),
                    false => letters(&got),
                }
            };
            let label = format!("  {}", family_name(family));
            let mut row = vec![(String::new(), Tone::Plain), (label, Tone::Plain)];
            row.extend(Role::ALL.iter().zip(&expected).map(|(to, expected)| {
                let seen = seen(*to);
                let tone = match seen == *expected {
                    true => Tone::Good,
                    false => Tone::Bad,
                };
                (seen, tone)
            }));
            columns.row(row);
        }
    }
    columns
}

/// The policy file by the oracle: question and answer, at both ends.
struct Meaning(Oracle);

impl Meaning {
    fn of_policy() -> Result<Self, Failure> {
        let host = HostId::new("demo");
        let (read, _) = understand(POLICY.as_bytes(), "demo.yaml", &host)
            .map_err(|errors| Failure::Internal(anyhow::anyhow!("the demo's policy: {errors}")))?;
        let mut oracle = Oracle::new(host, Capabilities::ALL);
        oracle.apply(&read.inventory, Duration::ZERO);
        Ok(Self(oracle))
    }

    fn passes(&mut self, attempt: Attempt) -> bool {
        let Attempt {
            from,
            to,
            service,
            family,
        } = attempt;
        let (a, b) = (from.address(family), to.address(family));
        let (asks, answers) = match service.l4_port() {
            Some(port) => {
                let (a, b) = (SocketAddr::new(a, 40_000), SocketAddr::new(b, port));
                (
                    format!("tcp {a} -> {b}"),
                    format!("tcp {b} -> {a} [syn|ack]"),
                )
            }
            None => (
                format!("icmp {a} -> {b} echo-request id 7"),
                format!("icmp {b} -> {a} echo-reply id 7"),
            ),
        };
        self.goes(from, to, &asks) && self.goes(to, from, &answers)
    }

    fn goes(&mut self, from: Role, to: Role, words: &str) -> bool {
        let words: Words = words.parse().expect("it is written as packets are");
        let frame = words.frame(from.mac(), to.mac());
        let mut at = |role: Role, direction| {
            let port = PortId::new(role.name());
            !role.is_protected() || {
                let decision = self.0.decide(&port, direction, &frame, Duration::ZERO);
                decision.verdict.passes()
            }
        };
        at(from, Direction::Egress) && at(to, Direction::Ingress)
    }
}
