//! The last act: enforcement is removed, and everything else.

use super::super::report::{Report, Rows};
use super::host::BRIDGE;
use super::remains::Remains;
use super::stage::Stage;
use crate::failure::Failure;

pub(crate) fn play(stage: Stage, remains: &Remains, report: &mut Report) -> Result<(), Failure> {
    report.act("`portcullis detach` on both hosts: the end")?;
    let mut rows = Rows::new("AFTERWARDS");
    for host in stage.hosts() {
        let output = host.ask(&["detach"])?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::System(format!(
                "demo: portcullis detach: {}: {}",
                output.status,
                said.trim()
            )));
        }
        let what = format!("flows on {BRIDGE}");
        report.row(&mut rows, what, 0, host.flows()?.len());
    }
    drop(stage);
    remains.clear()?;
    report.row(&mut rows, "left on this machine", "nothing", remains.left());
    report.rows(&rows)
}
