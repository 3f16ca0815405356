//! The last act: enforcement is removed, and everything else.

use super::super::cast::{Role, Service};
use super::super::report::{Report, Rows};
use super::super::traffic::{Attempt, PATIENCE};
use super::remains::Remains;
use super::stage::Stage;
use crate::failure::Failure;
use model::Family;

pub(crate) fn play(stage: Stage, remains: &Remains, report: &mut Report) -> Result<(), Failure> {
    report.act("`portcullis detach` on both hosts: the end")?;
    let mut rows = Rows::new("AFTERWARDS");
    for host in stage.hosts() {
        host.detach()?;
    }
    for family in Family::BOTH {
        let attempt = Attempt {
            from: Role::Outsider,
            to: Role::Db1,
            service: Service::Db,
            family,
        };
        let seen = match attempt.make(&stage.machines, PATIENCE)? {
            true => "passes",
            false => "dropped",
        };
        let what = format!("{attempt}: no longer enforced");
        report.row(&mut rows, what, "passes", seen);
    }
    remains.clear()?;
    drop(stage);
    report.row(
        &mut rows,
        "left on this machine",
        "nothing",
        remains.left()?,
    );
    report.rows(&rows)
}
