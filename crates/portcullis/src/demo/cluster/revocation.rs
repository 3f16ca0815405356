//! A rule that is removed by a request under open connections, and made again.

use super::super::cast::{Role, Service};
use super::super::joining::after_all;
use super::super::report::{Report, Rows, ms};
use super::super::revocation::{all_arrives, goes_on, open};
use super::super::traffic::{IN_VAIN, PATIENCE};
use super::policy::Policy;
use super::stage::Stage;
use crate::failure::Failure;
use model::Family;

pub(crate) fn play(stage: &Stage, policy: &mut Policy, report: &mut Report) -> Result<(), Failure> {
    report.act(
        "app's rule for TCP 8080 from web is deleted under open connections, and made again",
    )?;
    let machines = &stage.machines;
    let mut cut = open(
        machines,
        &[
            (Role::Web2, Role::App1, Service::App, Family::V4),
            (Role::Web2, Role::App1, Service::App, Family::V6),
            (Role::Web1, Role::App1, Service::App, Family::V4),
        ],
    )?;
    let mut others = open(
        machines,
        &[
            (Role::App1, Role::Db1, Service::Db, Family::V4),
            (Role::Admin, Role::App1, Service::Ssh, Family::V6),
            (Role::Outsider, Role::Web1, Service::Https, Family::V6),
        ],
    )?;
    let mut rows = Rows::new("CONNECTION");
    for (attempt, conversation) in cut.iter_mut().chain(&mut others) {
        let what = format!("{attempt}: open");
        report.row(&mut rows, what, "goes on", goes_on(conversation, PATIENCE));
    }

    let removed = policy.remove_from_web(stage)?;
    let spoken: Vec<_> = cut.iter_mut().map(|(_, open)| open.speak()).collect();
    let new_one = match cut[0].0.make(machines, IN_VAIN)? {
        true => "passes",
        false => "dropped",
    };
    let what = format!("{}: a new one", cut[0].0);
    report.row(&mut rows, what, "dropped", new_one);
    for ((attempt, conversation), spoken) in cut.iter_mut().zip(spoken) {
        let what = format!("{attempt}: rule deleted");
        report.row(&mut rows, what, "is cut", after_all(conversation, spoken));
    }
    for (attempt, conversation) in &mut others {
        let what = format!("{attempt}: not concerned");
        report.row(&mut rows, what, "goes on", goes_on(conversation, PATIENCE));
    }

    let restored = policy.restore_from_web(stage)?;
    for (attempt, conversation) in &mut cut {
        let what = format!("{attempt}: rule made again");
        report.row(&mut rows, what, "all bytes", all_arrives(conversation));
    }
    report.rows(&rows)?;
    report.line(format!(
        "\nAPI's answer -> applied on the group's host: {} to delete, {} to make again",
        ms(removed),
        ms(restored)
    ))
}
