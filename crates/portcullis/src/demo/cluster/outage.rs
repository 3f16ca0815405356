//! `kill -9` of the server, then of an agent that has to start without one; the server comes back.

use super::super::cast::{Role, Service};
use super::super::joining::{after_all, attempt, try_both};
use super::super::report::{Report, Rows, ms};
use super::super::revocation::{Open, goes_on, open};
use super::super::traffic::{Attempt, Conversation, IN_VAIN, PATIENCE};
use super::host::HostName;
use super::joining::WITH_APP;
use super::policy::{Policy, groups_of};
use super::stage::Stage;
use crate::failure::Failure;
use model::Family;
use std::time::{Instant, SystemTime};

pub(crate) fn play(stage: &Stage, policy: &Policy, report: &mut Report) -> Result<(), Failure> {
    report.act("kill -9 of the server, then of host b's agent, which starts without a server")?;
    let (machines, b) = (&stage.machines, stage.host(HostName::B));
    let begun = SystemTime::now();
    policy.set_groups(stage, Role::Web2, &WITH_APP)?;
    let mut member = Conversation::open(machines, attempt(Family::V4))?;
    let mut others = open(
        machines,
        &[
            (Role::Web2, Role::App1, Service::App, Family::V4),
            (Role::Admin, Role::Db1, Service::Ssh, Family::V6),
            (Role::Outsider, Role::Web2, Service::Https, Family::V4),
            (Role::App1, Role::Db1, Service::Db, Family::V6),
        ],
    )?;
    let mut rows = Rows::new("WHEN");
    let mut look = |report: &mut Report, rows: &mut Rows, when: &str| {
        let what = format!("{when}: web2 -> db1, open as a member");
        report.row(rows, what, "goes on", goes_on(&mut member, PATIENCE));
        look(stage, &mut others, report, rows, when)
    };
    b.wait_cached(begun)?;
    look(report, &mut rows, "before")?;

    stage.server.kill()?;
    let seen = match stage.server.is_there() {
        true => "an answer",
        false => "no answer",
    };
    report.row(&mut rows, "no server: the API", "no answer", seen);
    look(report, &mut rows, "no server")?;
    b.kill_agent()?;
    look(report, &mut rows, "no server, no agent on b")?;
    b.start_agent()?;
    let source = b.wait_enforced()?;
    report.row(
        &mut rows,
        "b's agent is started: policy from",
        "cache",
        source,
    );
    look(report, &mut rows, "no server, agent on b started")?;

    let starting = Instant::now();
    stage.server.start()?;
    let answers = starting.elapsed();
    look(report, &mut rows, "the server runs again")?;
    let left = policy.set_groups(stage, Role::Web2, groups_of(Role::Web2))?;
    let source = b.wait_enforced()?;
    report.row(
        &mut rows,
        "web2 leaves app: b's policy from",
        "server",
        source,
    );
    let spoken = member.speak();
    try_both(machines, report, &mut rows, "has left", false)?;
    let what = format!("{}: still open, has left", attempt(Family::V4));
    report.row(&mut rows, what, "is cut", after_all(&mut member, spoken));
    report.rows(&rows)?;
    report.line(format!(
        "\nThe server, started again, answered after {}. API's answer -> enforced on both hosts, which had to\n\
         find the server first: {}",
        ms(answers),
        ms(left)
    ))
}

/// Whether connections go on, and who gets new ones.
fn look(
    stage: &Stage,
    connections: &mut [Open],
    report: &mut Report,
    rows: &mut Rows,
    when: &str,
) -> Result<(), Failure> {
    let states = connections
        .iter_mut()
        .map(|(_, conversation)| goes_on(conversation, PATIENCE));
    let go_on = states.filter(|state| state == "goes on").count();
    let what = format!("{when}: other open connections");
    let all = format!("{} go on", connections.len());
    report.row(rows, what, all, format!("{go_on} go on"));
    let of = |from, to, service, family| Attempt {
        from,
        to,
        service,
        family,
    };
    let attempts = Family::BOTH.map(|family| {
        [
            (of(Role::Web2, Role::App1, Service::App, family), PATIENCE),
            (of(Role::Admin, Role::Web1, Service::Ping, family), PATIENCE),
            (
                of(Role::Outsider, Role::App1, Service::App, family),
                IN_VAIN,
            ),
            (of(Role::Web1, Role::Web2, Service::Ssh, family), IN_VAIN),
        ]
    });
    let attempts = attempts.concat();
    let reached = Attempt::make_all(&stage.machines, &attempts)?;
    let may = reached.iter().zip(&attempts);
    let (may, may_not): (Vec<_>, Vec<_>) =
        may.partition(|(_, (_, patience))| *patience == PATIENCE);
    let count = |of: &[(&bool, &_)]| of.iter().filter(|(reached, _)| **reached).count();
    let what = format!("{when}: new that may pass, and may not");
    let expected = format!("{} pass, 0 pass", may.len());
    let seen = format!("{} pass, {} pass", count(&may), count(&may_not));
    report.row(rows, what, expected, seen);
    Ok(())
}
