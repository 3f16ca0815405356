//! The flows of one port: their states, their expiry, and the budgets.
//!
//! Place on the line: guard -> **conntrack** -> identity. Whether a flow is live also needs the rules
//! as they are now, which the caller asks.
//! Knows nothing of: rules, packets beyond TCP's flags, other ports.

use crate::{LeftOut, MovedFlow, NO_TURN};
use model::{Direction, FlowKey, FlowState, Timeouts};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use wire::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, TcpFlags};

pub(super) struct Flows {
    flows: HashMap<FlowKey, Flow>,
    timeouts: Timeouts,
    /// Places for half-open flows, taken in turn.
    places: Vec<Option<FlowKey>>,
    /// The place that comes next.
    turn: usize,
    taken: usize,
    established_budget: usize,
    /// No flow expires before this moment.
    earliest_expiry: Duration,
}

#[derive(Clone, Debug)]
pub(super) struct Flow {
    /// The direction of the first packet.
    pub(super) original: Direction,
    pub(super) state: FlowState,
    replied: bool,
    finished: FinSeen,
    last: Duration,
    /// Half-open flows have one.
    place: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default)]
struct FinSeen {
    original: bool,
    reply: bool,
}

/// How far a packet's flags matter; the empty ones for protocols without.
#[derive(Clone, Copy)]
pub(super) struct Moves {
    pub(super) reply: bool,
    pub(super) flags: Option<TcpFlags>,
}

impl Flows {
    pub(super) fn new(timeouts: Timeouts, half_open: u32, established: u32) -> Self {
        let mut flows = Self {
            flows: HashMap::new(),
            timeouts,
            places: Vec::new(),
            turn: 0,
            taken: 0,
            established_budget: 0,
            earliest_expiry: Duration::MAX,
        };
        flows.limit(timeouts, half_open, established);
        flows
    }

    /// Flows whose half-open place is no more are gone.
    pub(super) fn limit(&mut self, timeouts: Timeouts, half_open: u32, established: u32) {
        // There has to be one place that can be taken in turn; more than this no plane has.
        let places = half_open.clamp(1, 4096) as usize;
        let beyond = self.places.split_off(places.min(self.places.len()));
        for key in beyond.into_iter().flatten() {
            self.flows.remove(&key);
            self.taken -= 1;
        }
        self.places.resize(places, None);
        self.turn %= places;
        self.established_budget = established as usize;
        self.timeouts = timeouts;
        self.earliest_expiry = Duration::ZERO;
    }

    /// Those that may have expired are counted, too, until the next `expire`.
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    pub(super) fn half_open(&self) -> usize {
        self.taken
    }

    fn established(&self) -> usize {
        self.flows.len() - self.taken
    }

    pub(super) fn established_budget_is_spent(&mut self, now: Duration) -> bool {
        if self.established() >= self.established_budget {
            self.expire(now);
        }
        self.established() >= self.established_budget
    }

    pub(super) fn get(&mut self, key: &FlowKey, now: Duration) -> Option<&Flow> {
        let expired = self.flows.get(key)?.expiry(key, &self.timeouts) < now;
        if expired {
            self.remove(key);
        }
        self.flows.get(key)
    }

    /// A new flow, or one that starts anew. The caller has seen to the budgets.
    pub(super) fn start(&mut self, key: FlowKey, original: Direction, now: Duration) {
        self.remove(&key);
        self.expire(now);
        let place = self.next_place();
        self.places[place] = Some(key);
        self.taken += 1;
        let flow = Flow {
            original,
            state: FlowState::Opening,
            replied: false,
            finished: FinSeen::default(),
            last: now,
            place: Some(place),
        };
        self.note_expiry(flow.expiry(&key, &self.timeouts));
        self.flows.insert(key, flow);
    }

    /// The next free place, or the next one at all, whose flow pays.
    fn next_place(&mut self) -> usize {
        let count = self.places.len();
        let in_turn = (0..count).map(|step| (self.turn + step) % count);
        let free = if self.taken == count {
            None
        } else {
            in_turn
                .into_iter()
                .find(|place| self.places[*place].is_none())
        };
        let place = free.unwrap_or(self.turn);
        if let Some(payer) = self.places[place] {
            self.remove(&payer);
        }
        self.turn = (place + 1) % count;
        place
    }

    /// A packet that keeps the flow alive: one in its original direction, or a live reply.
    pub(super) fn advance(&mut self, key: &FlowKey, moves: Moves, now: Duration) {
        let may_establish = self
            .flows
            .get(key)
            .is_some_and(|flow| flow.would_establish(moves))
            && !self.established_budget_is_spent(now);
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        flow.last = now;
        flow.replied |= moves.reply;
        if may_establish {
            flow.state = FlowState::Established;
            if let Some(place) = flow.place.take() {
                self.places[place] = None;
                self.taken -= 1;
            }
        }
        if let Some(flags) = moves.flags {
            flow.close(flags, moves.reply);
        }
        let expiry = flow.expiry(key, &self.timeouts);
        self.note_expiry(expiry);
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&FlowKey) -> bool) {
        let gone: Vec<FlowKey> = self.flows.keys().filter(|k| !keep(k)).copied().collect();
        gone.iter().for_each(|key| self.remove(key));
    }

    pub(super) fn expire(&mut self, now: Duration) {
        if now <= self.earliest_expiry {
            return;
        }
        let timeouts = self.timeouts;
        let expiry = |(key, flow): (&FlowKey, &Flow)| (*key, flow.expiry(key, &timeouts));
        let gone: Vec<FlowKey> = self
            .flows
            .iter()
            .map(expiry)
            .filter(|(_, expiry)| *expiry < now)
            .map(|(key, _)| key)
            .collect();
        gone.iter().for_each(|key| self.remove(key));
        let left = self.flows.iter().map(expiry).map(|(_, expiry)| expiry);
        self.earliest_expiry = left.min().unwrap_or(Duration::MAX);
    }

    /// For another host.
    pub(super) fn export(&mut self, now: Duration) -> BTreeMap<FlowKey, MovedFlow> {
        self.expire(now);
        let places = self.places.len();
        let moved = |flow: &Flow| {
            let [local, remote] = flow.by_end([flow.finished.original, flow.finished.reply]);
            let turn = |place: usize| (place + places - self.turn) % places;
            MovedFlow {
                original: flow.original,
                state: flow.state,
                replied: flow.replied,
                fin_local: local,
                fin_remote: remote,
                turn: flow.place.map(|place| turn(place) as u16),
                idle: now.saturating_sub(flow.last),
            }
        };
        let flows = self.flows.iter();
        flows.map(|(key, flow)| (*key, moved(flow))).collect()
    }

    /// From another host; there is none of its name here. It was last seen when this clock began, if that is later.
    pub(super) fn take_in(
        &mut self,
        key: &FlowKey,
        moved: &MovedFlow,
        now: Duration,
    ) -> Result<(), LeftOut> {
        let mut flow = Flow {
            original: moved.original,
            state: moved.state,
            replied: moved.replied,
            finished: FinSeen::default(),
            last: now.saturating_sub(moved.idle),
            place: None,
        };
        let [original, reply] = flow.by_end([moved.fin_local, moved.fin_remote]);
        flow.finished = FinSeen { original, reply };
        match moved.turn {
            None if self.established_budget_is_spent(now) => return Err(LeftOut::Budget),
            None => {}
            Some(NO_TURN) => return Err(LeftOut::Budget),
            Some(turn) => {
                self.expire(now);
                let count = self.places.len();
                let mut in_turn =
                    (0..count).map(|step| (self.turn + usize::from(turn) + step) % count);
                let free = in_turn.find(|place| self.places[*place].is_none());
                let place = free.ok_or(LeftOut::Budget)?;
                self.places[place] = Some(*key);
                self.taken += 1;
                flow.place = Some(place);
            }
        }
        self.note_expiry(flow.expiry(key, &self.timeouts));
        self.flows.insert(*key, flow);
        Ok(())
    }

    pub(super) fn is_expired(&self, key: &FlowKey, moved: &MovedFlow) -> bool {
        moved.idle > timeout(key, moved.state, &self.timeouts)
    }

    fn remove(&mut self, key: &FlowKey) {
        if let Some(flow) = self.flows.remove(key)
            && let Some(place) = flow.place
        {
            self.places[place] = None;
            self.taken -= 1;
        }
    }

    fn note_expiry(&mut self, expiry: Duration) {
        self.earliest_expiry = self.earliest_expiry.min(expiry);
    }
}

impl Flow {
    /// The last moment at which it is there.
    fn expiry(&self, key: &FlowKey, timeouts: &Timeouts) -> Duration {
        self.last + timeout(key, self.state, timeouts)
    }

    /// What is told by direction, original first, told by end, local first; and the other way round.
    fn by_end<T>(&self, [a, b]: [T; 2]) -> [T; 2] {
        match self.original {
            Direction::Egress => [a, b],
            Direction::Ingress => [b, a],
        }
    }

    fn would_establish(&self, moves: Moves) -> bool {
        let both_seen = self.replied || moves.reply;
        let speaks = match moves.flags {
            None => moves.reply,
            Some(flags) => {
                flags.has(TcpFlags::ACK) && !flags.has(TcpFlags::SYN) && !flags.has(TcpFlags::RST)
            }
        };
        self.state == FlowState::Opening && both_seen && speaks
    }

    fn close(&mut self, flags: TcpFlags, reply: bool) {
        if flags.has(TcpFlags::FIN) {
            match reply {
                true => self.finished.reply = true,
                false => self.finished.original = true,
            }
        }
        if flags.has(TcpFlags::RST) {
            self.state = FlowState::Reset;
        } else if self.finished.original && self.finished.reply && self.state != FlowState::Reset {
            self.state = FlowState::Closing;
        }
    }
}

fn timeout(key: &FlowKey, state: FlowState, timeouts: &Timeouts) -> Duration {
    let seconds = match (key.protocol, state) {
        (PROTOCOL_TCP, FlowState::Opening) => timeouts.tcp_opening_s,
        (PROTOCOL_TCP, FlowState::Established) => timeouts.tcp_established_s,
        (PROTOCOL_TCP, FlowState::Closing) => timeouts.tcp_closing_s,
        (PROTOCOL_TCP, FlowState::Reset) => timeouts.tcp_reset_s,
        (PROTOCOL_UDP, FlowState::Established) => timeouts.udp_replied_s,
        (PROTOCOL_UDP, _) => timeouts.udp_s,
        (PROTOCOL_ICMP | PROTOCOL_ICMPV6, _) if key.icmp.is_some() => timeouts.icmp_s,
        _ => timeouts.other_s,
    };
    Duration::from_secs(seconds.into())
}
