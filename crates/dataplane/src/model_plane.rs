//! A data plane in memory, which interprets a view packet by packet.
//!
//! Place on the line: hook -> parse -> guard -> conntrack -> identity -> policy -> verdict, all of it,
//! one module per stage. It shows what a view means, so it says whether the compiler is right, and
//! what any plane should do with a view.
//! Knows nothing of: the inventory, devices, the kernel, any other plane. It is told the time.

mod conntrack;
mod fragments;
mod guard;
mod policy;

use self::conntrack::{Flows, Moves};
use self::fragments::Fragments;
use self::guard::{Guard, Guarded};
use self::policy::{Asked, Rules, ends, flow_of};
use crate::{
    ApplyError, ApplyReport, Capabilities, Count, Counters, DataPlane, Drift, Imported, LeftOut,
    PortFlows, Target, not_in_force,
};
use ::policy::{ElisionChange, HostView};
use model::{
    Direction, DropReason, Family, FlowKey, FlowState, Narrowing, PassReason, PortId, Settings,
    Verdict,
};
use std::collections::BTreeMap;
use std::time::Duration;
use wire::{L4, Packet, TcpFlags};

#[derive(Default)]
pub struct ModelPlane {
    /// `None` before the first policy, and after `detach`.
    view: Option<HostView>,
    detached: bool,
    /// The ports of the view.
    ports: BTreeMap<PortId, Port>,
    /// At least the flows of all ports: those that expired may still be counted.
    flows: usize,
    now: Duration,
    counters: Counters,
}

/// A port of the view, under its policy, with its state.
struct Port {
    guarded: bool,
    guard: Guard,
    rules: Rules,
    flows: Flows,
    fragments: Fragments,
    /// Until then TCP flows start by SYN only.
    hold_until: Option<Duration>,
    errors_per_s: u32,
    /// Of ingress and egress: a second of the clock, and elided errors passed in it.
    errors: [(u64, u32); 2],
}

/// The host's part in the budgets.
#[derive(Clone, Copy)]
struct HostRoom {
    /// Flows of the other ports.
    elsewhere: usize,
    /// The host's cap less the reserves of all ports.
    shared: usize,
    reserve: usize,
}

impl HostRoom {
    /// For a port that has so many.
    fn is_full(&self, flows: usize) -> bool {
        self.elsewhere + flows >= self.shared && flows >= self.reserve
    }
}

impl ModelPlane {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn judge(
        &mut self,
        port: &PortId,
        direction: Direction,
        frame: &[u8],
        now: Duration,
    ) -> Verdict {
        self.now = now;
        if self.detached {
            return Verdict::Pass(PassReason::Unguarded);
        }
        let room = self.room(now);
        let verdict = match self.ports.get_mut(port) {
            None => Verdict::Drop(DropReason::NotReady),
            Some(state) => {
                let before = state.flows.len();
                let elsewhere = self.flows - before;
                let verdict = state.judge(direction, frame, HostRoom { elsewhere, ..room }, now);
                self.flows = elsewhere + state.flows.len();
                verdict
            }
        };
        self.count(port, direction, &verdict, frame.len());
        verdict
    }

    /// The policy from this moment on.
    pub fn apply_at(&mut self, view: &HostView, now: Duration) {
        self.now = now;
        self.detached = false;
        let old = self.view.replace(view.clone()).unwrap_or_default();
        self.ports.retain(|id, _| view.ports.contains_key(id));
        let mut change = ElisionChange::between(&old, view);
        for id in view.ports.keys() {
            let Some(guard) = Guard::new(view, id) else {
                self.ports.remove(id);
                continue;
            };
            let narrowed = change.stops(id);
            match self.ports.get_mut(id) {
                Some(port) => port.change(view, id, guard, narrowed, now),
                None => {
                    self.ports.insert(id.clone(), Port::new(view, id, guard));
                }
            }
        }
        self.flows = self.ports.values().map(|port| port.flows.len()).sum();
    }

    /// What is enforced. `None`: nothing has been applied, or it was taken away.
    pub fn view(&self) -> Option<&HostView> {
        self.view.as_ref()
    }

    /// Flows of a port that are there now.
    pub fn flows(&mut self, port: &PortId) -> usize {
        let now = self.now;
        self.ports.get_mut(port).map_or(0, |port| {
            port.flows.expire(now);
            port.flows.len()
        })
    }

    /// Without `elsewhere`, which is the port's.
    fn room(&mut self, now: Duration) -> HostRoom {
        let settings = self.view.as_ref().map(|view| &view.settings);
        let budgets = settings.map(|s| s.budgets).unwrap_or_default();
        let reserve = budgets.reserve_per_port as usize;
        let reserved = reserve.saturating_mul(self.ports.len());
        let shared = (budgets.flows_per_host as usize).saturating_sub(reserved);
        if self.flows >= shared {
            let ports = self.ports.values_mut();
            self.flows = ports.fold(0, |sum, port| {
                port.flows.expire(now);
                sum + port.flows.len()
            });
        }
        HostRoom {
            elsewhere: 0,
            shared,
            reserve,
        }
    }

    fn count(&mut self, port: &PortId, direction: Direction, verdict: &Verdict, bytes: usize) {
        let add = |count: &mut Count| {
            count.packets += 1;
            count.bytes += bytes as u64;
        };
        if !self.counters.ports.contains_key(port) {
            self.counters.ports.insert(port.clone(), Default::default());
        }
        let of_port = self.counters.ports.get_mut(port).expect("just put there");
        match verdict {
            Verdict::Drop(reason) => add(of_port.drops.entry(*reason).or_default()),
            Verdict::Pass(reason) => {
                add(match direction {
                    Direction::Ingress => &mut of_port.passed_ingress,
                    Direction::Egress => &mut of_port.passed_egress,
                });
                match reason {
                    PassReason::Rule(rule) | PassReason::Live(rule) => {
                        match self.counters.rules.get_mut(rule) {
                            Some(count) => add(count),
                            None => add(self.counters.rules.entry(rule.clone()).or_default()),
                        }
                    }
                    PassReason::ElidedError
                    | PassReason::Fragment
                    | PassReason::Infrastructure
                    | PassReason::Unguarded => {}
                }
            }
        }
    }
}

impl DataPlane for ModelPlane {
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    /// Devices don't matter here: every port of the view is judged. It happens at the time of the
    /// last packet, or of the last `apply_at`.
    fn apply(&mut self, target: &Target) -> Result<ApplyReport, ApplyError> {
        self.apply_at(&target.view, self.now);
        Ok(ApplyReport {
            revision: target.view.revision,
            applied: target.view.ports.keys().cloned().collect(),
            ..ApplyReport::default()
        })
    }

    fn audit(&mut self) -> Result<Vec<Drift>, ApplyError> {
        Ok(Vec::new())
    }

    fn counters(&mut self) -> Result<Counters, ApplyError> {
        let mut counters = self.counters.clone();
        for (id, port) in &mut self.ports {
            port.flows.expire(self.now);
            let of_port = counters.ports.entry(id.clone()).or_default();
            of_port.flows = u32::try_from(port.flows.len()).unwrap_or(u32::MAX);
            of_port.half_open = u32::try_from(port.flows.half_open()).unwrap_or(u32::MAX);
        }
        Ok(counters)
    }

    fn export_flows(&mut self, port: &PortId) -> Result<PortFlows, ApplyError> {
        let now = self.now;
        let known = self.ports.get_mut(port);
        let known = known.ok_or_else(|| not_in_force("exporting", port))?;
        Ok(PortFlows {
            flows: known.flows.export(now),
            hold: known.hold_until.and_then(|until| until.checked_sub(now)),
        })
    }

    fn import_flows(&mut self, port: &PortId, flows: &PortFlows) -> Result<Imported, ApplyError> {
        let now = self.now;
        let room = self.room(now);
        let known = self.ports.get_mut(port);
        let known = known.ok_or_else(|| not_in_force("importing", port))?;
        let elsewhere = self.flows - known.flows.len();
        let imported = known.import(flows, HostRoom { elsewhere, ..room }, now);
        self.flows = elsewhere + known.flows.len();
        Ok(imported)
    }

    fn detach(&mut self) -> Result<(), ApplyError> {
        *self = Self {
            detached: true,
            now: self.now,
            ..Self::default()
        };
        Ok(())
    }
}

impl Port {
    fn new(view: &HostView, id: &PortId, guard: Guard) -> Self {
        let Settings {
            timeouts, budgets, ..
        } = view.settings;
        Self {
            guarded: view.ports[id].port_security,
            guard,
            rules: Rules::new(view, id),
            flows: Flows::new(timeouts, budgets.half_open_per_port, budgets.flows_per_port),
            fragments: Fragments::default(),
            hold_until: None,
            errors_per_s: budgets.elided_errors_per_s,
            errors: [(0, 0); 2],
        }
    }

    /// `narrowed`: some TCP flow was elidable and is not any more.
    fn change(
        &mut self,
        view: &HostView,
        id: &PortId,
        guard: Guard,
        narrowed: bool,
        now: Duration,
    ) {
        let Settings {
            timeouts,
            budgets,
            narrowing,
            ..
        } = view.settings;
        self.guarded = view.ports[id].port_security;
        self.guard = guard;
        self.rules = Rules::new(view, id);
        self.errors_per_s = budgets.elided_errors_per_s;
        self.flows
            .limit(timeouts, budgets.half_open_per_port, budgets.flows_per_port);
        match narrowing {
            Narrowing::Cut if narrowed => {
                let hold = Duration::from_secs(timeouts.tcp_established_s.into());
                self.hold_until = Some(now + hold);
            }
            Narrowing::Cut | Narrowing::Keep => {}
        }
        let rules = &self.rules;
        self.flows.retain(|flow| !rules.elides(flow));
    }

    fn import(&mut self, moved: &PortFlows, room: HostRoom, now: Duration) -> Imported {
        let until = moved.hold.map(|hold| now.saturating_add(hold));
        self.hold_until = self.hold_until.max(until);
        let mut imported = Imported::default();
        for (key, flow) in moved.in_turn(self.flows.places()) {
            let result = if self.flows.is_expired(key, &flow) {
                Err(LeftOut::Expired)
            } else if !self.guard.receives(key.local) {
                Err(LeftOut::NotThePorts)
            } else if self.rules.elides(key) {
                Err(LeftOut::Elidable)
            } else if self.flows.get(key, now).is_some() {
                Err(LeftOut::Known)
            } else if room.is_full(self.flows.len()) {
                Err(LeftOut::Budget)
            } else {
                self.flows.take_in(key, &flow, now)
            };
            imported.note(result);
        }
        imported
    }

    fn judge(
        &mut self,
        direction: Direction,
        frame: &[u8],
        room: HostRoom,
        now: Duration,
    ) -> Verdict {
        if !self.guarded {
            return Verdict::Pass(PassReason::Unguarded);
        }
        let Ok(frame) = wire::parse(frame) else {
            return Verdict::Drop(DropReason::BadHeader);
        };
        let to_many = frame.dst.is_group();
        let (packet, verdict) = match self.guard.judge(direction, frame) {
            Guarded::Drop(reason) => return Verdict::Drop(reason),
            Guarded::Infrastructure(packet) => {
                let Some(packet) = packet else {
                    return Verdict::Pass(PassReason::Infrastructure);
                };
                (packet, Verdict::Pass(PassReason::Infrastructure))
            }
            Guarded::Ordinary(packet) => {
                match self.fragments.judge(&packet, direction, now) {
                    Some(Ok(())) => return Verdict::Pass(PassReason::Fragment),
                    Some(Err(reason)) => return Verdict::Drop(reason),
                    None => {}
                }
                let verdict = self.judge_by_policy(&packet, direction, to_many, room, now);
                (packet, verdict)
            }
        };
        match verdict {
            Verdict::Pass(_) => self.fragments.passed(&packet, direction, now),
            Verdict::Drop(_) => self.fragments.dropped(&packet, direction),
        }
        verdict
    }

    fn judge_by_policy(
        &mut self,
        packet: &Packet<'_>,
        direction: Direction,
        to_many: bool,
        room: HostRoom,
        now: Duration,
    ) -> Verdict {
        let asked = Asked::of_packet(packet, direction);
        let rule = self.rules.permits(&asked).cloned();
        let by_rule = match &rule {
            Some(rule) => Verdict::Pass(PassReason::Rule(rule.clone())),
            None => Verdict::Drop(DropReason::NoRule),
        };
        let Some(key) = flow_of(packet, direction) else {
            return match rule {
                Some(_) => by_rule,
                None => self.judge_error(packet, direction, now),
            };
        };
        if self.rules.elides(&key) {
            return by_rule;
        }
        let flags = match packet.l4 {
            L4::Tcp { flags, .. } => Some(flags),
            L4::Ported { .. } | L4::Icmp { .. } | L4::Opaque | L4::Absent => None,
        };
        let may_start = rule.is_some()
            && !to_many
            && !self.guard.is_for_many(packet.dst)
            && self.rules.permits_with_state(&asked);
        let starts = match self.flows.get(&key, now) {
            None => may_start && self.can_begin_with(flags, &key, direction, now),
            Some(flow) => {
                let first = Asked::of_flow(&key, flow.original);
                let alive = self.rules.permits(&first);
                let over = matches!(flow.state, FlowState::Closing | FlowState::Reset);
                let reply = direction != flow.original;
                let live = alive
                    .filter(|_| reply && !is_against(flags, flow.state))
                    .cloned();
                let restarts = may_start && is_start(flags) && (over || alive.is_none());
                if !restarts {
                    if live.is_some() || (!reply && rule.is_some()) {
                        self.flows.advance(&key, Moves { reply, flags }, now);
                    }
                    return match live {
                        Some(rule) => Verdict::Pass(PassReason::Live(rule)),
                        None => by_rule,
                    };
                }
                true
            }
        };
        if starts {
            if room.is_full(self.flows.len()) || self.flows.established_budget_is_spent(now) {
                return Verdict::Drop(DropReason::FlowBudget);
            }
            self.flows.start(key, direction, now);
        }
        by_rule
    }

    /// Of a packet that a rule permits, and whose flow is not there.
    fn can_begin_with(
        &self,
        flags: Option<TcpFlags>,
        key: &FlowKey,
        direction: Direction,
        now: Duration,
    ) -> bool {
        match (flags, key.icmp) {
            (None, None) => true,
            (None, Some(request)) => request.by_local == (direction == Direction::Egress),
            (Some(tcp), _) => {
                let held = self.hold_until.is_some_and(|until| now <= until);
                let others = [TcpFlags::SYN, TcpFlags::FIN, TcpFlags::RST];
                let mid_stream = tcp.has(TcpFlags::ACK) && !others.iter().any(|f| tcp.has(*f));
                is_start(flags) || (mid_stream && !held)
            }
        }
    }

    /// What no rule permits may be an error about a flow that is live, or is kept no state for.
    fn judge_error(&mut self, packet: &Packet<'_>, direction: Direction, now: Duration) -> Verdict {
        let no_rule = Verdict::Drop(DropReason::NoRule);
        let Some((key, local)) = quoted_flow(packet, direction) else {
            return no_rule;
        };
        if let Some(flow) = self.flows.get(&key, now) {
            let first = Asked::of_flow(&key, flow.original);
            if let Some(rule) = self.rules.permits(&first) {
                return Verdict::Pass(PassReason::Live(rule.clone()));
            }
        }
        if !self.guard.receives(local) || !self.rules.passes_errors_about(&key) {
            return no_rule;
        }
        let (second, passed) = match direction {
            Direction::Ingress => &mut self.errors[0],
            Direction::Egress => &mut self.errors[1],
        };
        if *second != now.as_secs() {
            (*second, *passed) = (now.as_secs(), 0);
        }
        if *passed >= self.errors_per_s {
            return Verdict::Drop(DropReason::ErrorRate);
        }
        *passed += 1;
        Verdict::Pass(PassReason::ElidedError)
    }
}

/// Of TCP: what starts a flow, or starts it anew.
fn is_start(flags: Option<TcpFlags>) -> bool {
    let others = [TcpFlags::ACK, TcpFlags::FIN, TcpFlags::RST];
    flags.is_some_and(|tcp| tcp.has(TcpFlags::SYN) && !others.iter().any(|f| tcp.has(*f)))
}

/// Of TCP: whether a reply tries to open what is open.
fn is_against(flags: Option<TcpFlags>, state: FlowState) -> bool {
    let opens = flags.is_some_and(|tcp| tcp.has(TcpFlags::SYN) && !tcp.has(TcpFlags::ACK));
    opens && state != FlowState::Opening
}

/// The flow that an ICMP error is about, and its local address.
fn quoted_flow(packet: &Packet<'_>, direction: Direction) -> Option<(FlowKey, std::net::IpAddr)> {
    let family = Family::of(packet.src);
    let L4::Icmp { icmp_type, .. } = packet.l4 else {
        return None;
    };
    let is_error = match family {
        Family::V4 => matches!(icmp_type, 3 | 11 | 12),
        Family::V6 => (1..=4).contains(&icmp_type),
    };
    let quote = packet.payload.get(8..).filter(|_| is_error)?;
    let quoted = wire::parse_quoted(quote, family)?;
    let opposite = direction.opposite();
    let (local, _) = ends(&quoted, opposite);
    // A quoted error, redirect or source quench is of no flow.
    let key = flow_of(&quoted, opposite).filter(|_| quoted.src == packet.dst)?;
    Some((key, local))
}
