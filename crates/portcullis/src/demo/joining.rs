//! A machine joins a group by an edit of the file, and leaves it again.

use super::cast::{Role, Service};
use super::machines::Machines;
use super::policy::{POLICY, web2_in_app};
use super::report::{Report, Rows, ms};
use super::revocation::goes_on;
use super::stage::Stage;
use super::traffic::{Attempt, Conversation, IN_VAIN, PATIENCE};
use crate::failure::Failure;
use model::Family;
use std::io;
use std::time::Duration;

pub(crate) fn play(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    report.act(
        "web2 joins the group app, whose members alone may reach the database, and leaves it",
    )?;
    let mut rows = Rows::new("ATTEMPT");
    let joined = stage.enforcement.edit(&web2_in_app())?;
    try_both(&stage.machines, report, &mut rows, "a member", true)?;
    let mut open = Conversation::open(&stage.machines, attempt(Family::V4))?;
    let first = goes_on(&mut open, PATIENCE);
    let what = format!("{}: open", attempt(Family::V4));
    report.row(&mut rows, what, "goes on", first);

    let left = stage.enforcement.edit(POLICY)?;
    let spoken = open.speak();
    try_both(&stage.machines, report, &mut rows, "has left", false)?;
    let seen = after_all(&mut open, spoken);
    let what = format!("{}: still open, has left", attempt(Family::V4));
    report.row(&mut rows, what, "is cut", seen);
    report.rows(&rows)?;
    report.line(format!(
        "\nfile saved -> enforced: {} to join, {} to leave",
        ms(joined),
        ms(left)
    ))
}

/// Attempts have taken their time since it was spoken; what could arrive has.
pub(super) fn after_all(open: &mut Conversation, spoken: io::Result<()>) -> String {
    match spoken.and_then(|()| open.all_arrives(Duration::ZERO)) {
        Ok(true) => "goes on".to_owned(),
        Ok(false) => "is cut".to_owned(),
        Err(error) => error.to_string(),
    }
}

pub(super) fn attempt(family: Family) -> Attempt {
    Attempt {
        from: Role::Web2,
        to: Role::Db1,
        service: Service::Db,
        family,
    }
}

/// By each family.
pub(super) fn try_both(
    machines: &Machines,
    report: &mut Report,
    rows: &mut Rows,
    when: &str,
    meant: bool,
) -> Result<(), Failure> {
    let patience = match meant {
        true => PATIENCE,
        false => IN_VAIN,
    };
    let attempts: [(Attempt, Duration); 2] =
        [Family::V4, Family::V6].map(|family| (attempt(family), patience));
    let reached = Attempt::make_all(machines, &attempts)?;
    let words = |passes| match passes {
        true => "passes",
        false => "dropped",
    };
    for ((attempt, _), reached) in attempts.iter().zip(reached) {
        report.row(
            rows,
            format!("{attempt}: {when}"),
            words(meant),
            words(reached),
        );
    }
    Ok(())
}
