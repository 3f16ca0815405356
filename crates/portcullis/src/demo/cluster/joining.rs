//! A machine on host b joins a group by a request, and leaves it; the rule that names the group is on host a.

use super::super::cast::Role;
use super::super::joining::{after_all, attempt, try_both};
use super::super::report::{Report, Rows, ms};
use super::super::revocation::goes_on;
use super::super::traffic::{Conversation, PATIENCE};
use super::policy::{Policy, groups_of};
use super::stage::Stage;
use crate::failure::Failure;
use model::Family;

/// What lets web2 reach the database.
pub(super) const WITH_APP: [&str; 3] = ["web", "managed", "app"];

pub(crate) fn play(stage: &Stage, policy: &Policy, report: &mut Report) -> Result<(), Failure> {
    report.act(
        "web2@b joins app, whose members alone may reach db1@a, and leaves it: PUT /v2.0/ports/...",
    )?;
    let mut rows = Rows::new("ATTEMPT");
    let machines = &stage.machines;
    try_both(machines, report, &mut rows, "no member", false)?;
    let joined = policy.set_groups(stage, Role::Web2, &WITH_APP)?;
    try_both(machines, report, &mut rows, "a member", true)?;
    let mut open = Conversation::open(machines, attempt(Family::V4))?;
    let what = format!("{}: open", attempt(Family::V4));
    report.row(&mut rows, what, "goes on", goes_on(&mut open, PATIENCE));

    let left = policy.set_groups(stage, Role::Web2, groups_of(Role::Web2))?;
    let spoken = open.speak();
    try_both(machines, report, &mut rows, "has left", false)?;
    let what = format!("{}: still open, has left", attempt(Family::V4));
    report.row(&mut rows, what, "is cut", after_all(&mut open, spoken));
    report.rows(&rows)?;
    report.line(format!(
        "\nAPI's answer -> enforced on both hosts, and told to the API: {} to join, {} to leave",
        ms(joined),
        ms(left)
    ))
}
