//! How the flow table grows with a group's members on other hosts.

use super::super::report::{Report, ms};
use super::cast::HostName;
use super::policy::Policy;
use super::stage::Stage;
use crate::failure::Failure;
use crate::output::{Columns, Tone};
use std::collections::BTreeSet;
use std::time::Duration;

const MEMBERS: [u16; 4] = [2, 10, 100, 1_000];

/// At so many members.
struct Size {
    flows: BTreeSet<String>,
    changed: usize,
    took: Duration,
}

pub(crate) fn play(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    report.act("Members on other hosts of a group that rules name: flows on host a")?;
    let [by_destination, by_source] = grow(stage)?;
    let mut columns = Columns::new(&[
        "MEMBERS",
        "SOLUTION 2: FLOWS",
        "CHANGED",
        "IN FORCE",
        "SOLUTION 1: FLOWS",
        "CHANGED",
        "IN FORCE",
    ]);
    for (number, members) in MEMBERS.iter().enumerate() {
        let mut row = vec![(members.to_string(), Tone::Plain)];
        for sizes in [&by_destination, &by_source] {
            let Size {
                flows,
                changed,
                took,
            } = &sizes[number];
            let changed = match number {
                0 => "-".to_owned(),
                _ => changed.to_string(),
            };
            let cells = [flows.len().to_string(), changed, ms(*took)];
            row.extend(cells.map(|cell| (cell, Tone::Plain)));
        }
        columns.row(row);
    }
    report.table(&columns)?;
    let changed: usize = by_destination[1..].iter().map(|size| size.changed).sum();
    let what = "flows that 998 more members change where the destination judges";
    report.verdict(what, 0, changed);
    report.line(
        "\nWhere the destination judges, members are known by what comes with their packets; a host that judges\n\
         for other hosts' machines has to know each of them.",
    )?;
    stage.edit(&Policy::default().text()).map(drop)
}

/// It only grows: addresses that leave a group are told apart for as long as a flow may remember them in it.
fn grow(stage: &Stage) -> Result<[Vec<Size>; 2], Failure> {
    let host = stage.host(HostName::A);
    let mut sizes = [const { Vec::new() }; 2];
    for simulated in MEMBERS {
        for (inspection, sizes) in ["destination", "source"].into_iter().zip(&mut sizes) {
            let policy = Policy {
                inspection,
                simulated,
                ..Policy::default()
            };
            let took = stage.edit(&policy.text())?;
            let flows = host.flows()?;
            let before = sizes.last().map(|size: &Size| &size.flows);
            let changed = before.map_or(0, |before| flows.symmetric_difference(before).count());
            sizes.push(Size {
                flows,
                changed,
                took,
            });
        }
    }
    Ok(sizes)
}
