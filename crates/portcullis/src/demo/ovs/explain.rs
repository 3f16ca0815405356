//! `portcullis explain`, by the oracle and by the switch's own trace.

use super::super::explain::text;
use super::super::report::Report;
use super::cast::{HostName, Machine, Role, Tenant};
use super::stage::Stage;
use crate::failure::Failure;
use serde_json::Value;

pub(crate) fn play(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    report.act("Why? `portcullis explain` on host a, by the oracle and by the switch")?;
    let of = |role| Machine::new(Tenant::Red, role);
    let to = of(Role::Web);
    let (id, host) = (to.port(), stage.host(HostName::A));
    for (role, verdict, reason) in [
        (Role::Friend, "pass", "rule"),
        (Role::Stranger, "drop", "no-rule"),
    ] {
        let packet = format!("udp {}:40000 -> {}:514", of(role).v4(), to.v4());
        let words = ["explain", "--port", &id, "--ingress", &packet];
        report.line(format!(
            "$ portcullis explain --port {id} --ingress '{packet}'"
        ))?;
        report.line(text(host.ask(&words)?)?)?;
        report.line("\n")?;
        let in_json = [&words[..], &["-o", "json"]].concat();
        let answer: Value = serde_json::from_str(&text(host.ask(&in_json)?)?)
            .map_err(|e| Failure::System(format!("demo: reading the answer of explain: {e}")))?;
        for (who, key) in [("the oracle", "model"), ("the switch", "plane")] {
            let answer = &answer[key];
            let [seen_verdict, seen_reason] =
                ["verdict", "reason"].map(|field| answer[field].as_str().unwrap_or("nothing"));
            let what = format!("explain at {id}, {packet}, {who}");
            let seen = format!("{seen_verdict} ({seen_reason})");
            report.verdict(what, format!("{verdict} ({reason})"), seen);
        }
    }
    Ok(())
}
