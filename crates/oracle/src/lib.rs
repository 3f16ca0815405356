//! The meaning of a policy: docs/semantics.md, executable.
//!
//! Place on the line: hook -> **parse -> guard -> conntrack -> identity -> policy -> verdict**, for
//! every packet at every port of one host, from the inventory itself. It is slow and obvious, to be
//! read in one sitting, and exists to catch `policy` and the data planes. So it uses neither.
//! Knows nothing of: views, planes, devices, the clock.
//!
//! ```text
//! lib.rs          the line of a packet, and a change of policy
//! guard.rs        who may send and receive what
//! judge.rs        a packet behind the guard
//! rules.rs        static: what the rules say
//! connections.rs  what is remembered of packets
//! tracker.rs      what a tracker remembers in a plane's stead; whose it may be: tracker/*.rs
//! unlike.rs       what a plane reads unlike the contract, as far as it may
//! elision.rs      what needs no state
//! ```
#![forbid(unsafe_code)]

mod connections;
mod elision;
mod guard;
mod judge;
mod rules;
mod tracker;
mod unlike;

pub use connections::Flow;

use connections::Connections;
use guard::{Guard, Guarded};
use model::{
    Capabilities, Direction, DropReason, Elision, FlowKey, Flows, HostId, Inventory, Narrowing,
    NetworkId, PassReason, PortId, ScopeId, Settings, Stage, Verdict,
};
use rules::{Identities, Question, Rules};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use wire::{BadPacket, Body, Fragment, Frame, Packet, TooShort};

/// The verdicts and connections of one host. Times are of any clock that doesn't go back.
#[derive(Clone, Debug)]
pub struct Oracle {
    host: HostId,
    capabilities: Capabilities,
    settings: Settings,
    ports: HashMap<PortId, Port>,
    /// No flow of the host expires before this.
    next_expiry: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    /// What each stage said; from [`Oracle::explain`] only.
    pub trace: Vec<(Stage, String)>,
    /// What the contract leaves open about it.
    pub open: Open,
}

/// How far a plane may answer otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Open {
    #[default]
    No,
    /// It may drop what passes, but not pass what is dropped.
    MayDrop,
    /// The verdict is open, and what becomes of its flow with it.
    Either,
}

#[derive(Clone, Debug)]
struct Port {
    policy: Arc<Policy>,
    connections: Connections,
}

/// What is in force at a port.
#[derive(Debug)]
struct Policy {
    port_security: bool,
    network: NetworkId,
    scope: ScopeId,
    guard: Guard,
    rules: Rules,
    elision: Elision,
}

/// Beside a port's own state, what its packets are judged by.
struct Surroundings<'a> {
    now: Duration,
    settings: &'a Settings,
    capabilities: Capabilities,
    /// The host has flows to give beyond the ports' reserves.
    host_has_room: bool,
    /// Joint start: the receiver's gate on this host drops the packet.
    other_gate_refuses: bool,
    /// The plane may drop the packet for what it lacks.
    may_be_lost: bool,
}

#[derive(Default)]
struct Notes {
    open: Open,
    trace: Option<Vec<(Stage, String)>>,
}

type Judgement = Result<PassReason, DropReason>;

impl Oracle {
    /// Nothing passes before the first [`Oracle::apply`].
    pub fn new(host: HostId, capabilities: Capabilities) -> Self {
        Self {
            host,
            capabilities,
            settings: Settings::default(),
            ports: HashMap::new(),
            next_expiry: Duration::MAX,
        }
    }

    /// The policy changes. Flows stay, and are judged by what is now in force.
    pub fn apply(&mut self, inventory: &Inventory, now: Duration) {
        self.expire(now);
        let host = inventory.hosts.get(&self.host);
        self.settings = host.map(|h| h.settings.clone()).unwrap_or_default();
        let elision = match self.settings.elision {
            Elision::On if !self.capabilities.quote_match => Elision::Strict,
            mode => mode,
        };
        let mut identities = Identities::new(inventory, self.capabilities);
        let mut reserved = HashMap::new();
        let mut before = std::mem::take(&mut self.ports);
        let local = inventory.ports.values();
        for port in local.filter(|p| p.is_on(&self.host)) {
            let Some(network) = inventory.networks.get(&port.network) else {
                continue;
            };
            let reserved = reserved
                .entry(&network.id)
                .or_insert_with(|| Arc::new(guard::reserved_link_local(inventory, network)));
            let policy = Policy {
                port_security: port.port_security,
                network: network.id.clone(),
                scope: network.scope.clone(),
                guard: Guard::new(port, network, Arc::clone(reserved), self.capabilities),
                rules: identities.rules(port, &network.scope),
                elision,
            };
            let mut connections = Connections::new(self.capabilities.flows);
            if let Some(old) = before.remove(&port.id) {
                connections = old.connections;
                policy.take_over(&old.policy, &mut connections, self.settings.narrowing, now);
            }
            let policy = Arc::new(policy);
            let port = (
                port.id.clone(),
                Port {
                    policy,
                    connections,
                },
            );
            self.ports.extend([port]);
        }
        // Timeouts may be shorter now.
        self.next_expiry = Duration::ZERO;
    }

    /// Judges one packet at one port, and moves the port's connections.
    pub fn decide(
        &mut self,
        port: &PortId,
        direction: Direction,
        frame: &[u8],
        now: Duration,
    ) -> Decision {
        self.decide_noting(port, direction, frame, now, Notes::default())
    }

    /// What [`Oracle::decide`] would answer, and why. Changes nothing.
    pub fn explain(
        &self,
        port: &PortId,
        direction: Direction,
        frame: &[u8],
        now: Duration,
    ) -> Decision {
        let trace = Some(Vec::new());
        let open = Open::No;
        let notes = Notes { open, trace };
        self.clone()
            .decide_noting(port, direction, frame, now, notes)
    }

    /// At this time, does the contract leave open what some port still remembers?
    pub fn is_doubtful(&self, now: Duration) -> bool {
        let mut ports = self.ports.values();
        ports.any(|p| p.connections.is_doubtful(now, &self.settings.timeouts))
    }

    /// The flows of a port, as far as they haven't expired by now.
    pub fn flows(&mut self, port: &PortId, now: Duration) -> Vec<(FlowKey, Flow)> {
        self.expire(now);
        let connections = self.ports.get(port).map(|p| &p.connections);
        let flows = connections.into_iter().flat_map(Connections::flows);
        let mut flows: Vec<_> = flows.map(|(key, flow)| (*key, *flow)).collect();
        flows.sort_by_key(|(key, _)| *key);
        flows
    }

    /// Puts a flow in that was read from a data plane. Of no effect where the port is unknown.
    pub fn put_flow(&mut self, port: &PortId, key: FlowKey, flow: Flow) {
        let Some(port) = self.ports.get_mut(port) else {
            return;
        };
        match self.capabilities.own_flows() {
            true => port.connections.put(key, flow, &self.settings.timeouts),
            false => port.connections.tracker.put(key, &flow),
        }
        // It may be the first to expire.
        self.next_expiry = Duration::ZERO;
    }

    /// The port's device is gone, and its state with it.
    pub fn remove_device(&mut self, port: &PortId) {
        if let Some(port) = self.ports.get_mut(port) {
            port.connections = Connections::new(self.capabilities.flows);
        }
    }

    /// The port's VM goes on at another host, under the same policy, and its flows go along.
    pub fn migrate(&mut self, port: &PortId) {
        if let Some(port) = self.ports.get_mut(port) {
            let Port {
                policy,
                connections,
            } = port;
            connections.keep_what_moves(|local| policy.guard.receives_at(local));
        }
    }

    fn decide_noting(
        &mut self,
        port: &PortId,
        direction: Direction,
        frame: &[u8],
        now: Duration,
        mut notes: Notes,
    ) -> Decision {
        self.expire(now);
        notes.say(Stage::Hook, || format!("{direction} at port {port}"));
        let judgement = self.judge(port, direction, frame, now, &mut notes);
        let verdict = match judgement {
            Ok(reason) => Verdict::Pass(reason),
            Err(reason) => {
                notes.leave_if(unlike::is_unseen(self.capabilities, frame, reason));
                Verdict::Drop(reason)
            }
        };
        notes.say(Stage::Verdict, || format!("{verdict:?}"));
        Decision {
            verdict,
            open: notes.open,
            trace: notes.trace.unwrap_or_default(),
        }
    }

    fn judge(
        &mut self,
        id: &PortId,
        direction: Direction,
        bytes: &[u8],
        now: Duration,
        notes: &mut Notes,
    ) -> Judgement {
        let policy = match self.ports.get(id) {
            Some(port) => Arc::clone(&port.policy),
            None => return Err(DropReason::NotReady),
        };
        let may_be_lost = unlike::may_be_lost(self.capabilities, bytes);
        if may_be_lost {
            notes.leave(Open::MayDrop);
        }
        if !policy.port_security {
            return Ok(PassReason::Unguarded);
        }
        let frame = match parse(bytes, &self.settings, notes) {
            Ok(frame) => frame,
            Err(reason) => {
                self.note_unread(id, direction, bytes, now);
                return Err(reason);
            }
        };
        let guarded = policy
            .guard
            .check(direction, &frame, self.capabilities, notes);
        notes.say(Stage::Guard, || match guarded {
            Ok(Guarded::Infrastructure) => "infrastructure".to_owned(),
            Ok(Guarded::GoesOn) => "passes".to_owned(),
            Err(reason) => reason.to_string(),
        });
        let guarded = match guarded {
            Ok(guarded) => guarded,
            Err(reason) => {
                if direction == Direction::Ingress && self.capabilities.flows == Flows::Netfilter {
                    self.note_unread(id, direction, bytes, now);
                }
                let later = matches!(&frame.body, Body::Ip(Ok(p)) if matches!(p.fragment, Fragment::Later { .. }));
                notes.leave_if(later && may_be_lost);
                return Err(reason);
            }
        };
        let Body::Ip(Ok(packet)) = &frame.body else {
            return Ok(PassReason::Infrastructure);
        };
        let other_gate_refuses = !self.capabilities.per_end_start
            && direction == Direction::Egress
            && self.other_gate_refuses(&policy, packet);
        let shared_flows = host_share(&self.settings, self.ports.len());
        let host_flows: usize = self.ports.values().map(|p| p.connections.len()).sum();
        let surroundings = Surroundings {
            now,
            settings: &self.settings,
            capabilities: self.capabilities,
            host_has_room: host_flows < shared_flows,
            may_be_lost,
            other_gate_refuses,
        };
        let port = self.ports.get_mut(id).ok_or(DropReason::NotReady)?;
        let judgement = match guarded {
            Guarded::Infrastructure => Ok(PassReason::Infrastructure),
            Guarded::GoesOn => port.judge(direction, &frame, packet, &surroundings, notes),
        };
        port.note_first_fragment(direction, packet, judgement.is_ok(), now);
        self.next_expiry = self.next_expiry.min(port.connections.next_expiry);
        judgement
    }

    /// Does the packet go to a port of this host that doesn't let it in by its rules?
    fn other_gate_refuses(&self, sender: &Policy, packet: &Packet<'_>) -> bool {
        let question = Question {
            remote: packet.src,
            ..Question::about(packet, Direction::Ingress)
        };
        let mut others = self.ports.values().map(|p| &p.policy).filter(|other| {
            let reaches = match rules::is_link_local(packet.dst) {
                true => other.network == sender.network,
                false => other.scope == sender.scope,
            };
            reaches && other.port_security && other.guard.receives_at(packet.dst)
        });
        others.any(|other| other.rules.permits(&question).is_none())
    }

    /// A tracker reads what the contract doesn't in its own way, and a kernel's sees what is for a port before
    /// the port's guard drops it: what it knows of these addresses is not certain any more.
    fn note_unread(&mut self, id: &PortId, direction: Direction, bytes: &[u8], now: Duration) {
        let ends = match self.capabilities.flows {
            Flows::Own => None,
            Flows::Netfilter => unlike::ends(bytes),
            Flows::Userspace => unlike::ends(&unlike::unwrapped(bytes)),
        };
        let (Some(port), Some((src, dst))) = (self.ports.get_mut(id), ends) else {
            return;
        };
        match direction {
            Direction::Ingress => port.connections.tracker.doubt_all(dst, src, now),
            Direction::Egress => port.connections.tracker.doubt_all(src, dst, now),
        }
    }

    fn expire(&mut self, now: Duration) {
        if now <= self.next_expiry {
            return;
        }
        for port in self.ports.values_mut() {
            port.connections.expire(now, &self.settings.timeouts);
        }
        let next = self.ports.values().map(|p| p.connections.next_expiry);
        self.next_expiry = next.min().unwrap_or(Duration::MAX);
    }
}

impl Policy {
    /// What becomes of the state that the port has from the policy before.
    fn take_over(
        &self,
        old: &Policy,
        connections: &mut Connections,
        narrowing: Narrowing,
        now: Duration,
    ) {
        let [was, is] = [old, self].map(|policy| (&policy.rules, policy.elision));
        if !self.port_security || was == is {
            return;
        }
        connections.remove_where(|key| self.rules.elide(self.elision, key));
        let holds = match narrowing {
            Narrowing::Cut => old.port_security && elision::narrows(was, is),
            Narrowing::Keep => false,
        };
        if holds {
            connections.hold(now);
        }
    }
}

/// Stage parse.
fn parse<'a>(
    bytes: &'a [u8],
    settings: &Settings,
    notes: &mut Notes,
) -> Result<Frame<'a>, DropReason> {
    let frame = wire::parse(bytes).map_err(|TooShort| DropReason::BadHeader)?;
    notes.say(Stage::Parse, || wire::words::describe(bytes));
    match &frame.body {
        Body::Tagged => Err(DropReason::VlanTag),
        Body::Other if !settings.ethertypes.contains(&frame.ethertype) => {
            Err(DropReason::Ethertype)
        }
        Body::Ip(Err(BadPacket::Header)) => Err(DropReason::BadHeader),
        Body::Ip(Err(BadPacket::Fragment)) => Err(DropReason::BadFragment),
        Body::Ip(Ok(_)) | Body::Arp(_) | Body::Other => Ok(frame),
    }
}

/// How many flows the host has beyond its ports' reserves.
fn host_share(settings: &Settings, ports: usize) -> usize {
    let reserves = limit(settings.budgets.reserve_per_port).saturating_mul(ports);
    limit(settings.budgets.flows_per_host).saturating_sub(reserves)
}

fn limit(budget: u32) -> usize {
    usize::try_from(budget).unwrap_or(usize::MAX)
}

impl Notes {
    fn leave(&mut self, open: Open) {
        self.open = self.open.max(open);
    }

    /// The verdict is open if so.
    fn leave_if(&mut self, open: bool) {
        self.leave(if open { Open::Either } else { Open::No });
    }

    fn say(&mut self, stage: Stage, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push((stage, text()));
        }
    }
}
