//! The last act: enforcement is removed, or everything is kept to look around.

use super::cast::{Role, Service};
use super::report::{Report, Rows};
use super::stage::Stage;
use super::traffic::{Attempt, PATIENCE};
use crate::failure::Failure;
use crate::plane::PlaneName;
use model::Family;
use std::path::Path;

/// By the command; what was denied passes then, and nothing is left.
pub(crate) fn detach(stage: Stage, report: &mut Report) -> Result<(), Failure> {
    report.act("`portcullis detach`: the end")?;
    let mut rows = Rows::new("AFTERWARDS");
    let attempt = Attempt {
        from: Role::Outsider,
        to: Role::Db1,
        service: Service::Db,
        family: Family::V4,
    };
    stage.enforcement.detach()?;
    let seen = match attempt.make(&stage.machines, PATIENCE)? {
        true => "passes",
        false => "dropped",
    };
    let what = format!("{attempt}: no longer enforced");
    report.row(&mut rows, what, "passes", seen);
    stage.enforcement.remains().clear()?;
    let left = stage.enforcement.remains().left()?;
    report.row(&mut rows, "left on this machine", "nothing", left);
    report.rows(&rows)
}

/// Everything stays as it is; how to look around.
pub(crate) fn keep(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    report.act("Everything is kept")?;
    let kept = stage.lab.keep()?;
    let names: Vec<String> = kept
        .iter()
        .filter_map(|kept| Some(Path::new(&kept.path).file_name()?.to_str()?.to_owned()))
        .collect();
    let enforcement = &stage.enforcement;
    enforcement.remains().keep(&names)?;
    let exports = enforcement.environment();
    let exports: Vec<String> = exports.iter().map(|(n, v)| format!("{n}={v}")).collect();
    let path_of = |role: &str| {
        let of_role = kept.iter().find(|kept| kept.role == role);
        of_role.map_or("", |kept| kept.path.as_str())
    };
    let program = enforcement.program().display();
    let on_host = match enforcement.plane() {
        PlaneName::Ebpf => String::new(),
        // Its programs see the rules of the namespace that they are in.
        PlaneName::Iptables | PlaneName::Ovs => format!("nsenter --net={} ", path_of("host")),
    };
    report.line(format!(
        "export {}\n\n\
         {on_host}{program} status -o wide\n\
         {on_host}{program} flows\n\
         {on_host}{program} explain --port db1 --ingress 'tcp 10.0.0.12:40000 -> 10.0.0.31:5432'\n\n\
         Edit {} and save: it is enforced at once.\n\
         Follow the agent: tail -f {}\n\n\
         The machines:",
        exports.join(" "),
        enforcement.policy_path().display(),
        enforcement.log_path().display(),
    ))?;
    for role in Role::ALL.map(Role::name).into_iter().chain(["host"]) {
        report.line(format!(
            "  nsenter --net={} bash    # {role}",
            path_of(role)
        ))?;
    }
    let connect = |role: Role, port| {
        format!(
            "  nsenter --net={} timeout 2 bash -c '</dev/tcp/{}/{port}'",
            path_of(role.name()),
            Role::App1.v4(),
        )
    };
    report.line(format!(
        "\nNobody listens in them any more: a connection that passes is refused, one that is dropped\n\
         hears nothing. This one passes, the next one doesn't:\n\
         {}\n\
         {}\n\n\
         The end: {program} demo --down",
        connect(Role::Admin, 22),
        connect(Role::Web1, 22),
    ))
}
