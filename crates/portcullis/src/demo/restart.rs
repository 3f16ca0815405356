//! `kill -9` of the agent under traffic, and its start again.
//!
//! Two threads never stop: one keeps connections busy, one sends frames that have to pass and frames
//! that must not, each followed by a marker that tells what became of them.

use super::cast::{Role, Service};
use super::policy::POLICY;
use super::report::{Report, Rows};
use super::stage::Stage;
use super::traffic::{Attempt, Conversation, PATIENCE};
use super::wait_until;
use crate::failure::Failure;
use conformance::lab::{Arrival, PacketSocket, probe};
use model::{Family, FlowKey};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use wire::TcpFlags;
use wire::build;

const CONNECTIONS: usize = 60;
/// Of each thread at least, while no agent runs and again when one does.
const ROUNDS: u64 = 20;
/// Between two rounds: it is the agent's start that the demo waits for.
const PAUSE: Duration = Duration::from_millis(1);

const SENDER: Role = Role::Web1;
const RECEIVER: Role = Role::App1;

/// What the threads count, for all to see.
#[derive(Default)]
struct Traffic {
    stopping: AtomicBool,
    exchanges: AtomicU64,
    talk_rounds: AtomicU64,
    cut: AtomicU64,
    probe_rounds: AtomicU64,
    wrongly_dropped: AtomicU64,
    wrongly_passed: AtomicU64,
}

pub(crate) fn play(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    report.act("The agent is killed (kill -9) under traffic, and started again")?;
    let mut conversations = Vec::new();
    for number in 0..CONNECTIONS {
        let family = [Family::V4, Family::V6][number % 2];
        conversations.push(Conversation::open(&stage.machines, attempt(family))?);
    }
    let sender = stage.machines.vm(SENDER).open_packets()?;
    let receiver = stage.machines.vm(RECEIVER).open_packets()?;
    let traffic = Traffic::default();
    let clients = conversations.iter().map(Conversation::client);
    let clients: BTreeSet<SocketAddr> = clients.collect::<Result<_, _>>()?;
    let ours = |flows: BTreeSet<FlowKey>| {
        let of_clients = flows.into_iter().filter(|flow| {
            let client = SocketAddr::new(flow.remote, flow.remote_l4);
            Some(flow.local_l4) == Service::App.l4_port() && clients.contains(&client)
        });
        of_clients.collect::<BTreeSet<FlowKey>>()
    };
    let before = ours(stage.enforcement.flows(RECEIVER)?);
    let without_agent = std::thread::scope(|scope| {
        let talking = scope.spawn(|| traffic.talk(&mut conversations));
        let probing = scope.spawn(|| traffic.probe(&sender, &receiver));
        let killed = kill_and_start(stage, &traffic);
        traffic.stopping.store(true, Ordering::Release);
        talking.join().expect("it has nothing to panic about");
        let probed = probing.join().expect("it has nothing to panic about");
        probed.and(killed)
    })?;
    let after = ours(stage.enforcement.flows(RECEIVER)?);

    let count = |counter: &AtomicU64| counter.load(Ordering::Acquire);
    let probes = count(&traffic.probe_rounds) * 2;
    let mut rows = Rows::new(&format!("{CONNECTIONS} OPEN CONNECTIONS"));
    let went_on = match without_agent {
        0 => "stopped",
        _ => "went on",
    };
    report.row(&mut rows, "traffic while no agent ran", "went on", went_on);
    report.row(&mut rows, "connections cut", 0, count(&traffic.cut));
    let kept = before.intersection(&after).count();
    report.row(&mut rows, "their flow entries kept", CONNECTIONS, kept);
    let what = format!("dropped of {probes} frames that may pass");
    report.row(&mut rows, what, 0, count(&traffic.wrongly_dropped));
    let what = format!("passed of {probes} frames that may not");
    report.row(&mut rows, what, 0, count(&traffic.wrongly_passed));
    report.rows(&rows)?;
    report.line(format!(
        "\n{} exchanges on the connections, {without_agent} of them while no agent ran",
        count(&traffic.exchanges)
    ))
}

fn attempt(family: Family) -> Attempt {
    Attempt {
        from: SENDER,
        to: RECEIVER,
        service: Service::App,
        family,
    }
}

/// How many exchanges there were while no agent ran.
fn kill_and_start(stage: &Stage, traffic: &Traffic) -> Result<u64, Failure> {
    traffic.wait_for_rounds()?;
    stage.enforcement.kill_agent()?;
    let begun = traffic.exchanges.load(Ordering::Acquire);
    traffic.wait_for_rounds()?;
    let without_agent = traffic.exchanges.load(Ordering::Acquire) - begun;
    stage.enforcement.start_agent()?;
    stage.enforcement.wait_enforced(POLICY)?;
    traffic.wait_for_rounds()?;
    Ok(without_agent)
}

impl Traffic {
    fn talk(&self, conversations: &mut [Conversation]) {
        let mut open: Vec<&mut Conversation> = conversations.iter_mut().collect();
        while !self.is_stopping() {
            open.retain_mut(|conversation| {
                let goes_on = conversation.goes_on(PATIENCE).is_ok_and(|arrives| arrives);
                let counter = match goes_on {
                    true => &self.exchanges,
                    false => &self.cut,
                };
                counter.fetch_add(1, Ordering::AcqRel);
                goes_on
            });
            self.talk_rounds.fetch_add(1, Ordering::AcqRel);
            std::thread::sleep(PAUSE);
        }
    }

    /// In each round four frames: to a service that may be reached and one that may not, in each family.
    fn probe(&self, sender: &PacketSocket, receiver: &PacketSocket) -> Result<(), Failure> {
        // Other source ports than the kernel uses by itself.
        for source in (1_024..30_000).cycle() {
            if self.is_stopping() {
                break;
            }
            let frame = |family, service: Service| {
                let port = service.l4_port().expect("TCP is asked for");
                build::ip(SENDER.address(family), RECEIVER.address(family))
                    .macs(SENDER.mac(), RECEIVER.mac())
                    .tcp(source, port, TcpFlags::SYN)
                    .bytes()
            };
            let frames = [
                frame(Family::V4, Service::App),
                frame(Family::V6, Service::App),
                frame(Family::V4, Service::Ssh),
                frame(Family::V6, Service::Ssh),
            ];
            let arrivals = probe(sender, receiver, &frames, SENDER.mac())?;
            let (may, may_not) = arrivals.split_at(2);
            let count = |arrivals: &[Arrival], which| {
                arrivals.iter().filter(|arrival| **arrival == which).count() as u64
            };
            let dropped = count(may, Arrival::Missing);
            let passed = count(may_not, Arrival::Arrived);
            self.wrongly_dropped.fetch_add(dropped, Ordering::AcqRel);
            self.wrongly_passed.fetch_add(passed, Ordering::AcqRel);
            self.probe_rounds.fetch_add(1, Ordering::AcqRel);
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn wait_for_rounds(&self) -> Result<(), Failure> {
        let rounds = || {
            let counters = [&self.talk_rounds, &self.probe_rounds];
            counters.map(|counter| counter.load(Ordering::Acquire))
        };
        let from = rounds();
        let limit = PATIENCE * 2 + Duration::from_secs(CONNECTIONS as u64);
        wait_until("traffic to go on", limit, || {
            let grown = rounds().into_iter().zip(from).map(|(now, from)| now - from);
            Ok(grown.min().filter(|least| *least >= ROUNDS).map(drop))
        })
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}
