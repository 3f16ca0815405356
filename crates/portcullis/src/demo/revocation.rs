//! A rule that is removed from the file under open connections, and put back.

use super::cast::{Role, Service};
use super::machines::Machines;
use super::policy::{POLICY, without_from_web};
use super::report::{Report, Rows, ms};
use super::stage::Stage;
use super::traffic::{Attempt, Conversation, IN_VAIN, PATIENCE};
use super::wait_until;
use crate::failure::Failure;
use model::{DropReason, Family};
use std::io;
use std::time::Duration;

pub(crate) fn play(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    report.act("A rule is removed under open connections: app's `from-web` (TCP 8080)")?;
    let mut cut = open(
        &stage.machines,
        &[
            (Role::Web1, Role::App1, Service::App, Family::V4),
            (Role::Web1, Role::App1, Service::App, Family::V6),
            (Role::Web2, Role::App1, Service::App, Family::V4),
        ],
    )?;
    let mut others = open(
        &stage.machines,
        &[
            (Role::App1, Role::Db1, Service::Db, Family::V4),
            (Role::App1, Role::Db1, Service::Db, Family::V6),
            (Role::Admin, Role::App1, Service::Ssh, Family::V4),
            (Role::Outsider, Role::Web1, Service::Https, Family::V6),
        ],
    )?;
    let mut rows = Rows::new("CONNECTION");
    for (attempt, conversation) in cut.iter_mut().chain(&mut others) {
        let what = format!("{attempt}: open");
        report.row(&mut rows, what, "goes on", goes_on(conversation, PATIENCE));
    }

    let removed = stage.enforcement.edit(&without_from_web())?;
    let (bytes_seen, new_one) = talk_in_vain(stage, &mut cut)?;
    let new_attempt = cut[0].0;
    report.row(
        &mut rows,
        format!("{new_attempt}: a new one"),
        "dropped",
        new_one,
    );
    for ((attempt, _), bytes) in cut.iter().zip(bytes_seen) {
        let seen = match bytes {
            0 => "no byte".to_owned(),
            bytes => format!("{bytes} bytes"),
        };
        let what = format!("{attempt}: rule removed");
        report.row(&mut rows, what, "no byte", seen);
    }
    for (attempt, conversation) in &mut others {
        let what = format!("{attempt}: not concerned");
        report.row(&mut rows, what, "goes on", goes_on(conversation, PATIENCE));
    }
    let restored = stage.enforcement.edit(POLICY)?;
    for (attempt, conversation) in &mut cut {
        let what = format!("{attempt}: rule restored");
        report.row(&mut rows, what, "all bytes", all_arrives(conversation));
    }
    report.rows(&rows)?;
    report.line(format!(
        "\nfile saved -> enforced: {} to remove the rule, {} to restore it",
        ms(removed),
        ms(restored)
    ))
}

pub(super) type Open = (Attempt, Conversation);

pub(super) fn open(
    machines: &Machines,
    which: &[(Role, Role, Service, Family)],
) -> Result<Vec<Open>, Failure> {
    let open = which.iter().map(|&(from, to, service, family)| {
        let attempt = Attempt {
            from,
            to,
            service,
            family,
        };
        Ok((attempt, Conversation::open(machines, attempt)?))
    });
    open.collect()
}

pub(crate) fn goes_on(conversation: &mut Conversation, patience: Duration) -> String {
    match conversation.goes_on(patience) {
        Ok(true) => "goes on".to_owned(),
        Ok(false) => "is cut".to_owned(),
        Err(error) => format!("fails: {error}"),
    }
}

pub(super) fn all_arrives(conversation: &mut Conversation) -> String {
    match conversation.all_arrives(PATIENCE) {
        Ok(true) => "all bytes".to_owned(),
        Ok(false) => "not all".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Both ends speak while somebody tries to connect anew. How many bytes of each connection still arrived,
/// and what became of the new one. Nothing counts as silent before drops were counted for it.
fn talk_in_vain(stage: &Stage, cut: &mut [Open]) -> Result<(Vec<u64>, &'static str), Failure> {
    let failed = |e: io::Error| Failure::System(format!("demo: an open connection: {e}"));
    let dropped = || stage.enforcement.dropped(Role::App1, DropReason::NoRule);
    let before = dropped()?;
    let mut heard = Vec::new();
    for (_, conversation) in &mut *cut {
        heard.push(conversation.received().map_err(failed)?);
        conversation.speak().map_err(failed)?;
    }
    let new_one = match cut[0].0.make(&stage.machines, IN_VAIN)? {
        true => "passes",
        false => "dropped",
    };
    let expected = before + 2 * cut.len() as u64 + 1;
    // What passes instead is seen below.
    let _ = wait_until("drops to be counted", IN_VAIN, || {
        Ok((dropped()? >= expected).then_some(()))
    });
    let heard = cut.iter_mut().zip(heard);
    let bytes: Result<Vec<u64>, Failure> = heard
        .map(|((_, conversation), before)| Ok(conversation.received().map_err(failed)? - before))
        .collect();
    Ok((bytes?, new_one))
}
