//! Two hosts: does whoever is to get a packet get it, and nobody else?
//!
//! The contract knows no hosts. A packet is judged for who sends it, and if it passes, for each who would receive it:
//! by the oracle of each one's host, since state is a host's. Where between the two it was dropped doesn't show.

use super::{Coverage, FAILURES_TOLD, Failure, PACKETS_PER_TRACE, Progress, Report, report};
use crate::generate::{self, Event, Sent, Trace};
use crate::judge::{Answer, Judge, Open, OracleJudge};
use crate::shrink;
use model::{Capabilities, Direction, HostId, Inspection, Inventory, PortId, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use wire::{Body, L4, TcpFlags};

/// Two switches need a tenth of a second for each.
const TRIES: usize = 300;

/// Two hosts on which packets are really sent.
pub trait Deliveries {
    fn name(&self) -> &str;

    /// Back to no policy and no state.
    fn reset(&mut self);

    fn apply(&mut self, inventory: &Arc<Inventory>);

    fn advance(&mut self, by: Duration);

    /// Whether it can be sent like that.
    fn can_deliver(&self, sent: &Sent) -> bool;

    /// Who of the sender's network gets it.
    fn deliver(&mut self, sent: &Sent) -> BTreeSet<PortId>;

    /// Why it can't go on, if so.
    fn trouble(&self) -> Option<&str>;
}

/// The contract, of both hosts.
struct Truth {
    capabilities: Capabilities,
    oracles: BTreeMap<HostId, OracleJudge>,
    inventory: Arc<Inventory>,
}

/// What becomes of one packet.
struct Fate {
    at_sender: Answer,
    /// Of those to whom it is addressed; none if the sender's gate drops it.
    at_receivers: BTreeMap<PortId, Answer>,
}

struct Mismatch {
    at: usize,
    expected: String,
    seen: String,
    at_port: PortId,
}

enum Agreement {
    Same,
    /// The same as far as the contract says; what comes of it is open.
    Unknown,
    Wrong {
        port: PortId,
        expected: String,
        seen: &'static str,
    },
}

/// Sends this many packets. `progress` is called after each trace, and may end the run early.
pub fn run_between(
    hosts: &mut dyn Deliveries,
    capabilities: Capabilities,
    inspection: Inspection,
    cases: u64,
    seed: u64,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Report {
    let mut truth = Truth::new(capabilities, false);
    let mut report = Report::default();
    let mut seeds = generate::Dice::new(seed);
    while report.cases < cases {
        let left = usize::try_from(cases - report.cases).unwrap_or(usize::MAX);
        let trace = generate::between(seeds.roll(), left.min(PACKETS_PER_TRACE), inspection);
        let mismatch = play(&trace, &mut truth, hosts, &mut report);
        if let Some(trouble) = hosts.trouble() {
            report.trouble = Some(format!("{trouble} (trace {:#018x})", trace.seed));
            return report;
        }
        if let Some(mismatch) = mismatch {
            let first = report.tally((mismatch.expected.clone(), mismatch.seen.clone()));
            if first && report.failures.len() < FAILURES_TOLD {
                let failure = failure(&trace, &mismatch, &mut truth, hosts);
                report.failures.push(failure);
            }
        }
        if progress(report.so_far()).is_break() {
            break;
        }
    }
    report
}

fn play(
    trace: &Trace,
    truth: &mut Truth,
    hosts: &mut dyn Deliveries,
    report: &mut Report,
) -> Option<Mismatch> {
    report.coverage.next_trace();
    walk(trace, truth, hosts, |_, sent, fate, _| {
        report.cases += 1;
        let answers = || fate.at_receivers.values().chain([&fate.at_sender]);
        report.open += u64::from(answers().any(|answer| answer.open == Open::Either));
        report.may_drop += u64::from(answers().any(|answer| answer.open == Open::MayDrop));
        count(&mut report.coverage, sent, fate);
    })
}

fn count(coverage: &mut Coverage, sent: &Sent, fate: &Fate) {
    coverage.count(sent, &fate.at_sender, &[]);
    for (port, answer) in &fate.at_receivers {
        let received = Sent {
            port: port.clone(),
            direction: Direction::Ingress,
            frame: sent.frame.clone(),
        };
        coverage.count(&received, answer, &[]);
    }
}

/// The first event at which they differ.
fn walk(
    trace: &Trace,
    truth: &mut Truth,
    hosts: &mut dyn Deliveries,
    mut each: impl FnMut(usize, &Sent, &Fate, &BTreeSet<PortId>),
) -> Option<Mismatch> {
    truth.reset();
    hosts.reset();
    for (at, event) in trace.events.iter().enumerate() {
        if hosts.trouble().is_some() {
            return None;
        }
        match event {
            Event::Policy(inventory) => {
                truth.apply(inventory);
                hosts.apply(inventory);
            }
            Event::Advance(by) => {
                truth.advance(*by);
                let more = truth.leave_doubt();
                hosts.advance(*by + more);
            }
            Event::Packet(sent) if !truth.is_clear(sent) || !hosts.can_deliver(sent) => {}
            Event::Packet(sent) => {
                let fate = truth.send(sent);
                let got = hosts.deliver(sent);
                each(at, sent, &fate, &got);
                match truth.compare(&fate, &got) {
                    Agreement::Same if truth.may_be_unseen(sent, &fate) => return None,
                    Agreement::Same => {}
                    Agreement::Unknown => return None,
                    Agreement::Wrong {
                        port,
                        expected,
                        seen,
                    } => {
                        return Some(Mismatch {
                            at,
                            expected,
                            seen: seen.to_owned(),
                            at_port: port,
                        });
                    }
                }
            }
        }
    }
    None
}

impl Truth {
    fn new(capabilities: Capabilities, explaining: bool) -> Self {
        let oracles = generate::hosts().map(|host| {
            let oracle = OracleJudge::new(host.clone(), capabilities);
            (
                host,
                if explaining {
                    oracle.explaining()
                } else {
                    oracle
                },
            )
        });
        Self {
            capabilities,
            oracles: oracles.into(),
            inventory: Arc::default(),
        }
    }

    fn reset(&mut self) {
        self.oracles.values_mut().for_each(Judge::reset);
        self.inventory = Arc::default();
    }

    fn apply(&mut self, inventory: &Arc<Inventory>) {
        let oracles = self.oracles.values_mut();
        oracles.for_each(|oracle| oracle.apply(inventory));
        self.inventory = Arc::clone(inventory);
    }

    fn advance(&mut self, by: Duration) {
        self.oracles
            .values_mut()
            .for_each(|oracle| oracle.advance(by));
    }

    /// Lets time pass until no state is at an age at which the contract leaves its life open. How much.
    fn leave_doubt(&mut self) -> Duration {
        let mut more = Duration::from_secs(5);
        let mut passed = Duration::ZERO;
        for _ in 0..20 {
            if !self.oracles.values().any(OracleJudge::is_doubtful) {
                break;
            }
            self.advance(more);
            passed += more;
            more = Duration::from_secs((more * 3 / 2).as_secs());
        }
        passed
    }

    /// Of what is for one MAC, who has it has to be clear.
    fn is_clear(&self, sent: &Sent) -> bool {
        let to_many = sent.frame.first().is_some_and(|byte| byte & 1 == 1);
        to_many || self.receivers(sent).len() <= 1
    }

    fn receivers(&self, sent: &Sent) -> Vec<(PortId, HostId)> {
        let Some(sender) = self.inventory.ports.get(&sent.port) else {
            return Vec::new();
        };
        let ports = self.inventory.ports.values();
        let others = ports.filter(|p| p.id != sender.id && p.network == sender.network);
        let addressed = others.filter(|port| generate::is_addressed(port, &sent.frame));
        addressed
            .filter_map(|port| Some((port.id.clone(), port.host.clone()?)))
            .collect()
    }

    fn judge(&mut self, host: &HostId, port: &PortId, way: Direction, frame: &[u8]) -> Answer {
        let oracle = self.oracles.get_mut(host).expect("one of the two");
        oracle.judge(port, way, frame)
    }

    fn send(&mut self, sent: &Sent) -> Fate {
        let host = self.inventory.ports[&sent.port].host.clone();
        let host = host.expect("what can be sent comes from a host");
        let at_sender = self.judge(&host, &sent.port, Direction::Egress, &sent.frame);
        let receivers = match at_sender.verdict {
            Verdict::Pass(_) => self.receivers(sent),
            Verdict::Drop(_) => Vec::new(),
        };
        let at_receivers = receivers.into_iter().map(|(port, host)| {
            let answer = self.judge(&host, &port, Direction::Ingress, &sent.frame);
            (port, answer)
        });
        Fate {
            at_receivers: at_receivers.collect(),
            at_sender,
        }
    }

    fn compare(&self, fate: &Fate, got: &BTreeSet<PortId>) -> Agreement {
        let sender_open = fate.at_sender.open;
        let mut unknown = false;
        for (port, answer) in &fate.at_receivers {
            let passes = matches!(answer.verdict, Verdict::Pass(_));
            let arrived = got.contains(port);
            let open = answer.open.max(sender_open);
            unknown |= open == Open::Either;
            let allowed = match open {
                Open::No => passes == arrived,
                // Where it was lost, and so who remembers it, isn't known.
                Open::MayDrop => {
                    unknown |= passes && !arrived;
                    passes || !arrived
                }
                Open::Either => true,
            };
            if !allowed {
                return Agreement::Wrong {
                    port: port.clone(),
                    expected: report::kind(&answer.verdict),
                    seen: said(arrived),
                };
            }
        }
        unknown |= sender_open == Open::Either;
        if unknown {
            return Agreement::Unknown;
        }
        match got.iter().find(|port| self.overhears(fate, port)) {
            None => Agreement::Same,
            Some(port) => Agreement::Wrong {
                port: port.clone(),
                expected: match &fate.at_sender.verdict {
                    Verdict::Drop(_) => {
                        format!("at the sender {}", report::kind(&fate.at_sender.verdict))
                    }
                    Verdict::Pass(_) => "nothing: it is for another".to_owned(),
                },
                seen: said(true),
            },
        }
    }

    /// A SYN moves what the receiver's tracker has of a flow that has ended, also one that is dropped then. It never
    /// sees one that the source drops.
    fn may_be_unseen(&self, sent: &Sent, fate: &Fate) -> bool {
        let mut hosts = self.inventory.hosts.values();
        let inspects = hosts.any(|host| host.settings.inspection != Inspection::Destination);
        let mut answers = fate.at_receivers.values();
        let is_dropped = answers.any(|answer| matches!(answer.verdict, Verdict::Drop(_)));
        inspects && is_dropped && is_syn(&sent.frame)
    }

    /// A port gets what it is not to get: dropped, or for another. One without port security may hear what is for a
    /// MAC that nobody is known to have.
    fn overhears(&self, fate: &Fate, port: &PortId) -> bool {
        let passes = matches!(fate.at_sender.verdict, Verdict::Pass(_));
        let guarded = self.inventory.ports[port].port_security;
        !fate.at_receivers.contains_key(port) && (guarded || !passes)
    }
}

fn is_syn(frame: &[u8]) -> bool {
    let Ok(Body::Ip(Ok(packet))) = wire::parse(frame).map(|frame| frame.body) else {
        return false;
    };
    match packet.l4 {
        L4::Tcp { flags, .. } => flags.has(TcpFlags::SYN) && !flags.has(TcpFlags::ACK),
        L4::Ported { .. } | L4::Icmp { .. } | L4::Opaque | L4::Absent => false,
    }
}

fn said(arrived: bool) -> &'static str {
    if arrived { "it arrives" } else { "nothing" }
}

fn failure(
    trace: &Trace,
    mismatch: &Mismatch,
    truth: &mut Truth,
    hosts: &mut dyn Deliveries,
) -> Failure {
    let mut text = format!("trace {:#018x}", trace.seed);
    let mut begun = trace.clone();
    begun.events.truncate(mismatch.at + 1);
    let fails = |candidate: &Trace, truth: &mut Truth, hosts: &mut dyn Deliveries| {
        let seen = walk(candidate, truth, hosts, |_, _, _, _| {});
        let same = |m: &Mismatch| m.expected == mismatch.expected && m.seen == mismatch.seen;
        seen.filter(same).map(|m| m.at)
    };
    let small = match fails(&begun, truth, hosts) {
        Some(_) => shrink::shrink(TRIES, begun, |candidate| fails(candidate, truth, hosts)),
        None => {
            text += "; shown alone it does not happen";
            begun
        }
    };
    text += &format!("\nat {}\n", mismatch.at_port);
    let mut explaining = Truth::new(truth.capabilities, true);
    let mut fates = BTreeMap::new();
    walk(&small, &mut explaining, hosts, |at, _, fate, got| {
        let mut lines = vec![format!("sender: {}", report::answered(&fate.at_sender))];
        for (port, answer) in &fate.at_receivers {
            lines.push(format!("{port}: {}", report::answered(answer)));
        }
        let got: Vec<&str> = got.iter().map(PortId::as_str).collect();
        lines.push(format!("arrives at: {}", got.join(" ")));
        fates.insert(at, lines);
    });
    let mut told = report::Telling::default();
    for (at, event) in small.events.iter().enumerate() {
        told.event(event);
        for line in fates.get(&at).into_iter().flatten() {
            told.line(format_args!("    {line}"));
        }
    }
    for (host, oracle) in &explaining.oracles {
        for line in oracle.last_trace() {
            told.line(format_args!("  oracle of {host}: {line}"));
        }
    }
    text += &told.text;
    Failure::told(small, text)
}
