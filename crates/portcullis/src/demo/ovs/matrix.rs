//! Who reaches whom, and who it is that answers: on one host and across, in both families.

use super::super::report::Report;
use super::super::traffic::family_name;
use super::cast::{Machine, Role, Service, may_reach};
use super::policy::Policy;
use super::stage::Stage;
use super::traffic::Attempt;
use crate::failure::Failure;
use crate::output::{Columns, Tone};
use model::Family;

type Seen = Vec<(Attempt, Option<String>)>;

pub(crate) fn play(stage: &Stage, report: &mut Report, policy: &Policy) -> Result<(), Failure> {
    let solution = match policy.inspection {
        "source" => "Solution 1, the source's host judges for both ends",
        _ => "Solution 2, the destination's host judges by the groups in the tunnel",
    };
    report.act(&format!("Who reaches whom: {solution}"))?;
    let took = stage.edit(&policy.text())?;
    let mut seen = Seen::new();
    for family in Family::BOTH {
        let attempts = attempts(family);
        let answers = Attempt::make_all(stage, &attempts)?;
        seen.extend(
            attempts
                .into_iter()
                .map(|(attempt, _)| attempt)
                .zip(answers),
        );
    }
    for (attempt, answer) in &seen {
        let expected = match is_meant(attempt) {
            true => format!("{} answers", attempt.to),
            false => "dropped".to_owned(),
        };
        let answer = answer.as_ref().map(|name| format!("{name} answers"));
        report.verdict(attempt, expected, answer.unwrap_or("dropped".to_owned()));
    }
    report.table(&table(&seen))?;
    report.line(format!(
        "{}\n\nEvery server says its name: who answers is always of the asker's own tenant.\n\
         inspection: {} was in force on both hosts {} after it was saved",
        Service::LEGEND,
        policy.inspection,
        super::ms(took),
    ))
}

fn attempts(family: Family) -> Vec<(Attempt, bool)> {
    let mut attempts = Vec::new();
    for from in Machine::all() {
        let others = Machine::all()
            .into_iter()
            .filter(|to| to.tenant == from.tenant && *to != from);
        for to in others {
            attempts.extend(Service::ALL.map(|service| Attempt {
                from,
                to,
                service,
                family,
            }));
        }
    }
    let with_meaning = attempts.into_iter().map(|a| (a, is_meant(&a)));
    with_meaning.collect()
}

fn is_meant(attempt: &Attempt) -> bool {
    may_reach(attempt.from.role, attempt.to.role, attempt.service)
}

/// Three lines for each machine: what is expected, and what was seen in each family.
fn table(seen: &Seen) -> Columns {
    let titles = Role::ALL.map(|role| format!("{}@{}", role.name(), role.host().name()));
    let mut header = vec!["FROM", ""];
    header.extend(titles.iter().map(String::as_str));
    let mut columns = Columns::new(&header);
    for from in Machine::all() {
        let expected = Role::ALL.map(|to| letters(|service| may_reach(from.role, to, service)));
        let mut row = vec![
            (format!("{from}@{}", from.host().name()), Tone::Plain),
            ("expected".to_owned(), Tone::Plain),
        ];
        row.extend(Role::ALL.iter().zip(&expected).map(|(to, cell)| {
            let cell = match is_nobody(from, *to) {
                true => String::new(),
                false => cell.clone(),
            };
            (cell, Tone::Plain)
        }));
        columns.row(row);
        for family in Family::BOTH {
            let label = format!("  {}", family_name(family));
            let mut row = vec![(String::new(), Tone::Plain), (label, Tone::Plain)];
            row.extend(Role::ALL.iter().zip(&expected).map(|(to, expected)| {
                let got = letters(|service| {
                    seen.iter().any(|(a, answer)| {
                        (a.from, a.to.role, a.service, a.family) == (from, *to, service, family)
                            && answer.as_ref() == Some(&a.to.to_string())
                    })
                });
                match (is_nobody(from, *to), got == *expected) {
                    (true, _) => (String::new(), Tone::Plain),
                    (false, true) => (got, Tone::Good),
                    (false, false) => (got, Tone::Bad),
                }
            }));
            columns.row(row);
        }
    }
    columns
}

fn is_nobody(from: Machine, to: Role) -> bool {
    let to = Machine::new(from.tenant, to);
    to == from || !Machine::all().contains(&to)
}

fn letters(which: impl Fn(Service) -> bool) -> String {
    let services = Service::ALL.into_iter().filter(|service| which(*service));
    let letters: String = services.map(Service::letter).collect();
    match letters.is_empty() {
        true => "·".to_owned(),
        false => letters,
    }
}
