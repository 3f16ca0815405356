//! `portcullis explain`, as an operator would ask.

use super::cast::Role;
use super::report::Report;
use super::stage::Stage;
use crate::failure::Failure;
use serde_json::Value;
use std::process::Output;

struct Question {
    port: Role,
    packet: String,
    verdict: &'static str,
    reason: &'static str,
}

pub(crate) fn play(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    report.act("Why? `portcullis explain`, by the oracle and by what is loaded")?;
    let to = Role::Db1;
    let questions = [
        Question {
            port: to,
            packet: format!("tcp {}:40000 -> {}:5432", Role::Web1.v4(), to.v4()),
            verdict: "drop",
            reason: "no-rule",
        },
        Question {
            port: to,
            packet: format!("tcp [{}]:40000 -> [{}]:5432", Role::App1.v6(), to.v6()),
            verdict: "pass",
            reason: "rule",
        },
    ];
    for (number, question) in questions.into_iter().enumerate() {
        let Question {
            port,
            packet,
            verdict,
            reason,
        } = question;
        let words = ["explain", "--port", port.name(), "--ingress", &packet];
        let apart = if number > 0 { "\n" } else { "" };
        report.line(format!(
            "{apart}$ portcullis explain --port {port} --ingress '{packet}'"
        ))?;
        report.line(text(stage.enforcement.ask(&words)?)?)?;
        let in_json = [&words[..], &["-o", "json"]].concat();
        let answer = text(stage.enforcement.ask(&in_json)?)?;
        let answer: Value = serde_json::from_str(&answer)
            .map_err(|e| Failure::System(format!("demo: reading the answer of explain: {e}")))?;
        for (who, key) in [("the oracle", "model"), ("what is loaded", "plane")] {
            let answer = &answer[key];
            let seen = format!(
                "{} ({})",
                answer["verdict"].as_str().unwrap_or("nothing"),
                answer["reason"].as_str().unwrap_or("nothing")
            );
            let what = format!("explain at {port}, {packet}, {who}");
            report.verdict(what, format!("{verdict} ({reason})"), seen);
        }
    }
    Ok(())
}

pub(super) fn text(output: Output) -> Result<String, Failure> {
    // 1 is an answer: the two differ.
    match output.status.code() {
        Some(0 | 1) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Some(_) | None => Err(Failure::System(format!(
            "demo: portcullis explain: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}
