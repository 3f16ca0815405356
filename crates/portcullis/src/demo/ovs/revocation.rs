//! Permissions that are taken away under streams from host b to host a.

use super::super::report::{Report, Rows, ms};
use super::cast::{Machine, Role, Tenant};
use super::policy::Policy;
use super::stage::Stage;
use super::traffic::Stream;
use crate::failure::Failure;
use std::time::{Duration, Instant};

/// The goal, from the saved file to the last packet, is a tenth of it; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(2);

pub(crate) fn play(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    report.act("A rule and a member are removed under streams, friend@b -> web@a, UDP 514")?;
    let stream = |tenant| {
        let [from, to] = [Role::Friend, Role::Web].map(|role| Machine::new(tenant, role));
        Stream::begin(stage, from, to, 42_000, 514)
    };
    let (red, blue) = (stream(Tenant::Red)?, stream(Tenant::Blue)?);
    let mut rows = Rows::new("STREAM");
    let mut told = Vec::new();
    for inspection in ["destination", "source"] {
        let all = Policy {
            inspection,
            ..Policy::default()
        };
        stage.edit(&all.text())?;
        let mut row = |report: &mut Report, what: &str, expected: &str, seen: &str| {
            report.row(&mut rows, format!("{inspection}: {what}"), expected, seen);
        };
        row(
            report,
            "red's, and blue's",
            "goes on, goes on",
            &both(&red, &blue),
        );
        let no_rule = Policy {
            syslog: false,
            ..all
        };
        let by_rule = cut(stage, &no_rule, &[&red, &blue])?;
        row(
            report,
            "the rule is removed",
            "is cut, is cut",
            &both(&red, &blue),
        );
        row(report, "and in time", "yes", in_time(by_rule));
        stage.edit(&all.text())?;
        row(
            report,
            "the rule is restored",
            "goes on, goes on",
            &both(&red, &blue),
        );
        let no_member = Policy {
            red_friend: "others",
            ..all
        };
        let by_member = cut(stage, &no_member, &[&red])?;
        row(
            report,
            "red's member leaves the group",
            "is cut, goes on",
            &both(&red, &blue),
        );
        row(report, "and in time", "yes", in_time(by_member));
        told.push(format!(
            "{inspection}: the last packet {} after the rule was removed from the file, {} after the member was",
            ms(by_rule),
            ms(by_member)
        ));
    }
    stage.edit(&Policy::default().text())?;
    red.end()?;
    blue.end()?;
    report.rows(&rows)?;
    report.line(format!("\n{}", told.join("\n")))
}

fn both(red: &Stream, blue: &Stream) -> String {
    format!("{}, {}", red.state(), blue.state())
}

/// How long after the save the last packet arrived.
fn cut(stage: &Stage, policy: &Policy, streams: &[&Stream]) -> Result<Duration, Failure> {
    let saved = Instant::now();
    stage.edit(&policy.text())?;
    for stream in streams {
        stream.wait_for_more(50);
    }
    let last = streams.iter().filter_map(|stream| stream.last()).max();
    Ok(last.map_or(Duration::ZERO, |last| last.saturating_duration_since(saved)))
}

fn in_time(took: Duration) -> &'static str {
    match took < LIMIT {
        true => "yes",
        false => "no",
    }
}
