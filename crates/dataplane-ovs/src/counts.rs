//! What flows have counted, as counts of ports and rules. Pure.
//!
//! Of the first packet that is dropped at a port for a reason the bytes are not known.
//! A rule's flows count how often it was asked with success, about packets and about the first packets of flows.

use crate::cookie::Cookie;
use crate::names::Names;
use crate::registers::{FLAGS, Flag, GATE, REASON};
use crate::render::Switchboard;
use crate::tables::Table;
use dataplane::{Count, Counters, PortCounters};
use model::{DropReason, PortId, RuleRef};
use openflow::{FlowStats, Match};
use std::collections::BTreeMap;

/// By the numbers that flows carry.
struct Known<'a> {
    ports: BTreeMap<u16, &'a PortId>,
    rules: BTreeMap<u32, &'a RuleRef>,
}

/// Adds what a bridge tells.
pub(crate) fn add(
    counters: &mut Counters,
    board: &Switchboard,
    names: &Names,
    told: impl IntoIterator<Item = FlowStats>,
) {
    let ports = board.ports.iter().map(|(id, port)| (port.number, id));
    let rules = names.rules.iter().map(|(rule, number)| (*number, rule));
    let known = Known {
        ports: ports.collect(),
        rules: rules.collect(),
    };
    for id in board.ports.keys() {
        counters.ports.entry(id.clone()).or_default();
    }
    for told in told {
        if let Some(sum) = known.counted(counters, &told) {
            sum.packets += told.packets;
            sum.bytes += told.bytes;
            // The packet that such a flow comes of meets another one.
            sum.packets += u64::from(told.flow.cookie == Cookie::Count.number());
        }
    }
}

impl Known<'_> {
    /// What a flow counts for.
    fn counted<'c>(&self, counters: &'c mut Counters, told: &FlowStats) -> Option<&'c mut Count> {
        match Cookie::from_number(told.flow.cookie)? {
            Cookie::Rule(number) => {
                let rule = *self.rules.get(&number)?;
                Some(counters.rules.entry(rule.clone()).or_default())
            }
            Cookie::Port(number) => {
                if told.flow.table != Table::Passed.number() {
                    return None;
                }
                let of_port = self.of_port(counters, number)?;
                let gate = told.flow.matching.get(FLAGS)?.value.u128()?;
                match gate == Flag::FROM_PORT.bit() {
                    true => Some(&mut of_port.passed_egress),
                    false => Some(&mut of_port.passed_ingress),
                }
            }
            Cookie::Count => {
                let (number, reason) = dropped(&told.flow.matching)?;
                let of_port = self.of_port(counters, number)?;
                Some(of_port.drops.entry(reason).or_default())
            }
            Cookie::Shared | Cookie::Learned => None,
        }
    }

    fn of_port<'c>(&self, counters: &'c mut Counters, number: u16) -> Option<&'c mut PortCounters> {
        let id = *self.ports.get(&number)?;
        Some(counters.ports.entry(id.clone()).or_default())
    }
}

/// Whose, and why, by the match of a flow that counts drops.
fn dropped(matching: &Match) -> Option<(u16, DropReason)> {
    let gate = matching.get(GATE)?.value.u128()?;
    let reason = matching.get(REASON)?.value.u128()?;
    let reason = DropReason::from_number(u8::try_from(reason).ok()?)?;
    Some((gate as u16, reason))
}
