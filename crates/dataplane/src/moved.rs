//! What a port remembers of its packets, on its way to another host.
//!
//! Place on the line: conntrack, between two hosts. In a live migration the old host's plane says what it
//! has tracked for the port, and the new host's takes it in.
//! Knows nothing of: how a plane keeps flows, either host's clock (there are durations alone), the policy:
//! what the flows are worth is up to the policy of the host that takes them in.

mod encoding;

pub use encoding::{BadFlows, MAX_FLOWS};
use model::{Direction, FlowKey, FlowState};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What makes a port's packets pass or not beside its policy. Not in here, as it lasts for moments: datagrams
/// whose first fragment passed, and how many errors about elided flows did in this second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortFlows {
    /// Those that some rule of the old host permitted once; dead ones, too.
    pub flows: BTreeMap<FlowKey, MovedFlow>,
    /// So long from now TCP flows start by SYN only.
    pub hold: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedFlow {
    /// The direction of its first packet.
    pub original: Direction,
    pub state: FlowState,
    /// A packet against the original direction was seen.
    pub replied: bool,
    /// Of TCP: whether the local end, and the remote one, sent a FIN.
    pub fin_local: bool,
    pub fin_remote: bool,
    /// Of a half-open flow: how many of the port's places come before its own in turn.
    pub turn: Option<u16>,
    pub idle: Duration,
}

/// Of a half-open flow for which there is no place.
pub const NO_TURN: u16 = u16::MAX;

impl PortFlows {
    /// The same, so much later: for the time that it is on its way.
    pub fn aged(mut self, by: Duration) -> Self {
        for flow in self.flows.values_mut() {
            flow.idle = flow.idle.saturating_add(by);
        }
        self.hold = self.hold.and_then(|hold| hold.checked_sub(by));
        self
    }

    /// Each with at most so many flows, and good by itself: what is established first, half-open ones by turn.
    pub fn parts(&self, most: usize) -> impl Iterator<Item = PortFlows> {
        let mut flows: Vec<_> = self.flows.iter().collect();
        flows.sort_by_key(|(_, flow)| flow.turn);
        let hold = self.hold;
        let alone = hold.filter(|_| flows.is_empty());
        let alone = alone.map(|hold| PortFlows {
            hold: Some(hold),
            ..PortFlows::default()
        });
        let parts: Vec<PortFlows> = flows
            .chunks(most)
            .map(|part| PortFlows {
                flows: part.iter().map(|(key, flow)| (**key, **flow)).collect(),
                hold,
            })
            .collect();
        parts.into_iter().chain(alone)
    }

    /// In the order in which a plane with so many places takes them in: what counts as established, then
    /// half-open ones by turn. Their turns are different ones, as near to what they were as there is room;
    /// of too many the first, which are the next to pay anyway, have [`NO_TURN`].
    pub fn in_turn(&self, places: usize) -> Vec<(&FlowKey, MovedFlow)> {
        let flows = self.flows.iter().map(|(key, flow)| (key, *flow));
        let mut flows: Vec<_> = flows.collect();
        flows.sort_by_key(|(_, flow)| flow.turn);
        let mut to_come = flows.iter().filter(|(_, flow)| flow.turn.is_some()).count();
        let mut next = 0;
        for turn in flows.iter_mut().filter_map(|(_, flow)| flow.turn.as_mut()) {
            let fitting = places.checked_sub(to_come).map(|last| {
                next = usize::from(*turn).min(last).max(next) + 1;
                next - 1
            });
            *turn = fitting.map_or(NO_TURN, |fitting| fitting as u16);
            to_come -= 1;
        }
        flows
    }
}

/// What became of the flows that a plane was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub taken: usize,
    /// How many were not, by the reason.
    pub left_out: BTreeMap<LeftOut, usize>,
}

impl Imported {
    pub fn note(&mut self, result: Result<(), LeftOut>) {
        match result {
            Ok(()) => self.taken += 1,
            Err(reason) => *self.left_out.entry(reason).or_default() += 1,
        }
    }
}

/// Why a flow is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    Expired,
    /// The port has one of its tuple here: its packets have begun to come.
    Known,
    /// Its local address is not the port's here.
    NotThePorts,
    /// Here it needs no tracking.
    Elidable,
    /// The port's budget is spent here, or the host's.
    Budget,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LeftOut::Expired => "expired",
            LeftOut::Known => "already known here",
            LeftOut::NotThePorts => "of an address that is not the port's",
            LeftOut::Elidable => "in no need of tracking",
            LeftOut::Budget => "beyond the budget",
        })
    }
}

#[cfg(test)]
mod tests;
