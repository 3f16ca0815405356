//! What goes over the cable: the groups of the source with every packet, and what doesn't go at all.

use super::super::report::{Report, Rows};
use super::cast::{HostName, Machine, Role, Tenant};
use super::frames::Tunnelled;
use super::policy::Policy;
use super::stage::Stage;
use super::traffic::datagram;
use crate::failure::Failure;
use conformance::lab::PacketSocket;
use std::time::Duration;

/// What certainly arrives, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);
const SYSLOG: u16 = 514;
const DNS: u16 = 53;

pub(crate) fn play(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    report.act("On the cable from host b to host a")?;
    let mut rows = Rows::new("ON THE CABLE");
    let sent = |tenant, role| Machine::new(tenant, role);
    // Solution 1 is in force.
    let early = is_on_cable(stage, 41_001)?;
    stage.edit(&Policy::default().text())?;
    let late = is_on_cable(stage, 41_002)?;
    let mut texts = Vec::new();
    for (from, tag, vni) in [
        (sent(Tenant::Red, Role::Friend), 11, 100),
        (sent(Tenant::Blue, Role::Friend), 11, 200),
        (sent(Tenant::Red, Role::Stranger), 12, 100),
    ] {
        let seen = one_frame(stage, from)?;
        let told = seen.option.as_ref().map(|o| o.tags.clone());
        let what = format!("{from} -> web: its groups, and its network");
        let expected = format!("{:?} in {vni}", [tag]);
        let got = format!("{:?} in {}", told.unwrap_or_default(), seen.vni);
        report.row(&mut rows, what, expected, got);
        texts.push(seen.to_string());
    }
    let denied = "red/stranger -> red/web, UDP 514: web drops it;";
    let what = format!("{denied} judged by the destination");
    report.row(&mut rows, what, "sent, and dropped there", late);
    let what = format!("{denied} judged by the source");
    report.row(&mut rows, what, "never sent", early);
    report.line(texts.join("\n"))?;
    report.line("\n")?;
    report.rows(&rows)
}

/// A permitted packet to the tenant's web, as it is on the cable.
fn one_frame(stage: &Stage, from: Machine) -> Result<Tunnelled, Failure> {
    let cable = stage.tap_cable(HostName::A)?;
    let frame = datagram(from, Machine::new(from.tenant, Role::Web), 41_000, DNS);
    stage.vm(from).open_packets()?.send(&frame)?;
    wait_for(&cable, &frame)?.ok_or_else(|| {
        Failure::System(format!(
            "demo: a permitted packet of {from} isn't on the cable"
        ))
    })
}

/// A packet that only the destination's policy denies. What is behind it on the cable says whether it came.
fn is_on_cable(stage: &Stage, source: u16) -> Result<&'static str, Failure> {
    let [from, to] = [Role::Stranger, Role::Web].map(|role| Machine::new(Tenant::Red, role));
    let denied = datagram(from, to, source, SYSLOG);
    let (cable, sender) = (
        stage.tap_cable(HostName::A)?,
        stage.vm(from).open_packets()?,
    );
    let receiver = stage.vm(to).open_packets()?;
    sender.send(&denied)?;
    let (mut crossed, mut arrived) = (false, false);
    // A packet of a kind that is new to the switch may be overtaken once.
    for number in 0..2 {
        let marker = datagram(from, to, source + 100 + number, DNS);
        sender.send(&marker)?;
        let here = cable.wait_for(PATIENCE, |seen| {
            let inner = Tunnelled::parse(seen).map(|tunnelled| tunnelled.inner);
            crossed |= inner.as_ref() == Some(&denied);
            inner.as_ref() == Some(&marker)
        })?;
        let there = receiver.wait_for(PATIENCE, |seen| {
            arrived |= seen == denied;
            seen == marker
        })?;
        if here.is_none() || there.is_none() {
            return Ok("nothing arrives at all");
        }
    }
    Ok(match (crossed, arrived) {
        (false, false) => "never sent",
        (true, false) => "sent, and dropped there",
        (_, true) => "arrives",
    })
}

fn wait_for(cable: &PacketSocket, inner: &[u8]) -> Result<Option<Tunnelled>, Failure> {
    let is_it = |seen: &[u8]| Tunnelled::parse(seen).is_some_and(|t| t.inner == inner);
    let seen = cable.wait_for(PATIENCE, is_it)?;
    Ok(seen.and_then(|frame| Tunnelled::parse(&frame)))
}
