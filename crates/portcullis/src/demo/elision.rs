//! Connections that need no tracking, and some that do.
//!
//! web admits everybody at 443 and lets everything out: any packet of such a connection passes by the
//! rules alone. db answers only what app asks: its answers need a flow.
//! An ICMP error about an untracked connection passes where the plane can look into it; iptables can't, and
//! leaves untracked only what has rules for errors.

use super::cast::{Role, Service};
use super::policy::{POLICY, errors_to_web};
use super::report::{Report, Rows};
use super::stage::Stage;
use super::traffic::{Attempt, Conversation, PATIENCE};
use crate::failure::Failure;
use crate::plane::PlaneName;
use model::{Family, FlowKey};
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const UNTRACKED: usize = 100_000;
const TRACKED: usize = 100;

pub(crate) fn play(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    report.act("Connections that need no tracking")?;
    admit_errors(stage, report)?;
    let mut rows = Rows::new("FLOW ENTRIES");
    let before = at_service(stage, Role::Web1, 443)?;
    report.row(&mut rows, "web1, TCP 443, before", 0, before.len());
    let took = connect_many(stage)?;
    let after = at_service(stage, Role::Web1, 443)?;
    let what = format!("web1, TCP 443, after {UNTRACKED} connections");
    report.row(&mut rows, what, 0, after.len());

    let before = at_service(stage, Role::Db1, 5432)?;
    let mut open = Vec::new();
    for number in 0..TRACKED {
        let family = [Family::V4, Family::V6][number % 2];
        let attempt = Attempt {
            from: Role::App1,
            to: Role::Db1,
            service: Service::Db,
            family,
        };
        open.push(Conversation::open(&stage.machines, attempt)?);
    }
    let after = at_service(stage, Role::Db1, 5432)?;
    let what = format!("db1, TCP 5432, more after {TRACKED} connections");
    report.row(&mut rows, what, TRACKED, after.difference(&before).count());
    report.rows(&rows)?;
    // As it was, where errors were let in.
    stage.enforcement.edit(POLICY)?;
    let rate = UNTRACKED as f64 / took.as_secs_f64();
    report.line(format!(
        "\n{UNTRACKED} TCP connections in {:.1} s, {rate:.0}/s, opened and closed",
        took.as_secs_f64()
    ))
}

fn admit_errors(stage: &Stage, report: &Report) -> Result<(), Failure> {
    match stage.enforcement.plane() {
        PlaneName::Ebpf => Ok(()),
        // No demo of it begins.
        PlaneName::Ovs => Ok(()),
        PlaneName::Iptables => {
            stage.enforcement.edit(&errors_to_web())?;
            report.line(
                "(iptables can't tell which connection an ICMP error is about. So web has rules for errors in\n\
                 this act; without them its connections would be tracked.)\n\n",
            )
        }
    }
}

fn at_service(stage: &Stage, role: Role, port: u16) -> Result<BTreeSet<FlowKey>, Failure> {
    let flows = stage.enforcement.flows(role)?.into_iter();
    Ok(flows
        .filter(|flow| flow.protocol == 6 && flow.local_l4 == port)
        .collect())
}

/// Each family on a thread of its own, which plays both ends: the kernel shakes hands by itself, so
/// nobody waits for anybody.
fn connect_many(stage: &Stage) -> Result<Duration, Failure> {
    let listener = stage.machines.listener(Role::Web1, Service::Https);
    let connect = |family| {
        let address = SocketAddr::from((Role::Web1.address(family), 443));
        stage.machines.vm(Role::Outsider).run(|| {
            for _ in 0..UNTRACKED / 2 {
                connect_once(address, listener)
                    .map_err(|e| Failure::System(format!("demo: connecting to web1: {e}")))?;
            }
            Ok(())
        })
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let halves = [Family::V4, Family::V6].map(|family| scope.spawn(move || connect(family)));
        let halves = halves.map(|half| half.join().expect("it has nothing to panic about"));
        halves.into_iter().collect::<Result<(), Failure>>()
    })?;
    Ok(begun.elapsed())
}

fn connect_once(to: SocketAddr, listener: &TcpListener) -> io::Result<()> {
    let mut client = TcpStream::connect_timeout(&to, PATIENCE)?;
    // Perhaps the other family's; then that thread gets ours.
    let (server, _) = listener.accept()?;
    // The server ends first: the client's port is free at once.
    drop(server);
    client.set_read_timeout(Some(PATIENCE))?;
    match client.read(&mut [0; 1])? {
        0 => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
