//! Who reaches whom, on one host and across, in both families.

use super::super::cast::Service;
use super::super::matrix::{every_attempt, make_all, table};
use super::super::report::Report;
use super::stage::Stage;
use crate::failure::Failure;

pub(crate) fn play(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    report.act(
        "Who reaches whom: real TCP connections and pings, from row to column, on and across hosts",
    )?;
    let attempts = every_attempt();
    let reached = make_all(&stage.machines, report, &attempts)?;
    report.table(&table(&attempts, &reached))?;
    report.line(format!("{}\n{} attempts", Service::LEGEND, attempts.len()))
}
