//! `kill -9` of host a's agent, and then of its switch, under packets that may pass and packets that may not.

use super::super::report::{Report, Rows, ms};
use super::super::wait_until;
use super::cast::{HostName, Machine, Role, Tenant};
use super::policy::Policy;
use super::stage::Stage;
use super::traffic::Stream;
use crate::failure::Failure;
use std::time::{Duration, Instant};

/// Until a switch that was started is driven again.
const PATIENCE: Duration = Duration::from_secs(20);
/// Packets of each stream at least, in each state.
const ROUNDS: u64 = 60;

/// All to red/web, UDP 514.
struct Streams {
    /// From the other host, and from its own.
    may: [Stream; 2],
    /// From a machine on the other host, and from outside.
    may_not: [Stream; 2],
}

pub(crate) fn play(stage: &mut Stage, report: &mut Report) -> Result<(), Failure> {
    report.act("kill -9 of host a's agent, then of its ovs-vswitchd, under traffic to red/web")?;
    let streams = Streams::begin(stage)?;
    let mut rows = Rows::new("UDP 514, FROM BOTH HOSTS");
    let mut row = |report: &mut Report, what: &str, seen: String| {
        report.row(&mut rows, what, "goes on, goes on; 0 wrongly", seen);
    };
    row(report, "before", streams.told());

    stage.host(HostName::A).kill_agent()?;
    streams.wait_for_more();
    row(report, "no agent runs", streams.told());
    stage.host(HostName::A).start_agent()?;
    stage.wait_enforced(&Policy::default().text())?;
    row(report, "the agent runs again", streams.told());

    let (up, driven) = kill_switch(stage, &streams)?;
    row(report, "the switch runs again", streams.told());
    report.rows(&rows)?;
    let sent: u64 = streams.may_not.iter().map(Stream::sent).sum();
    streams.end()?;
    report.line(format!(
        "\n{sent} packets sent that may not pass. ovs-vswitchd, started at once, was up after {}; what may pass\n\
         passed from {} after the kill, from when its flows were written again",
        ms(up),
        ms(driven)
    ))
}

/// How long after the kill it ran again, and how long until both streams went on.
fn kill_switch(stage: &mut Stage, streams: &Streams) -> Result<(Duration, Duration), Failure> {
    let switch = &mut stage.host_mut(HostName::A).switch;
    switch.kill_vswitchd()?;
    let killed = Instant::now();
    // As its service does.
    switch.start_vswitchd()?;
    let up = killed.elapsed();
    let driven = wait_until("packets to pass again", PATIENCE, || {
        let first = streams.may.iter().map(|stream| stream.first_after(killed));
        Ok(first.collect::<Option<Vec<Instant>>>())
    })?;
    let last = driven.into_iter().max().unwrap_or(killed);
    streams.wait_for_more();
    Ok((up, last.saturating_duration_since(killed)))
}

impl Streams {
    fn begin(stage: &Stage) -> Result<Self, Failure> {
        let stream = |from, source| {
            let [from, to] = [from, Role::Web].map(|role| Machine::new(Tenant::Red, role));
            Stream::begin(stage, from, to, source, 514)
        };
        Ok(Self {
            may: [stream(Role::Friend, 43_001)?, stream(Role::Mate, 43_002)?],
            may_not: [
                stream(Role::Stranger, 43_003)?,
                stream(Role::Outside, 43_004)?,
            ],
        })
    }

    fn wait_for_more(&self) {
        for stream in self.may.iter().chain(&self.may_not) {
            stream.wait_for_more(ROUNDS);
        }
    }

    fn told(&self) -> String {
        let [a, b] = self.may.each_ref().map(Stream::state);
        let wrongly: u64 = self.may_not.iter().map(Stream::arrived).sum();
        format!("{a}, {b}; {wrongly} wrongly")
    }

    fn end(self) -> Result<(), Failure> {
        let mut all = self.may.into_iter().chain(self.may_not);
        all.try_for_each(Stream::end)
    }
}
