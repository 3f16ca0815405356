//! Counters of ports and rules, summed over CPUs.
//!
//! A set that is replaced takes its counters' places along; what they had counted is added up here,
//! so that a rule's count goes on.

use crate::contents::{Contents, SetState};
use crate::layout::{STAT_PASSED_EGRESS, STAT_PASSED_INGRESS, STATS_PER_PORT, Stat};
use crate::object::Object;
use crate::render::books::Books;
use dataplane::{Count, Counters, PortCounters};
use model::{DropReason, RuleRef};
use std::collections::BTreeMap;
use std::io;

/// Counts of rules by sets that are gone.
pub(crate) type Past = BTreeMap<RuleRef, Count>;

pub(crate) fn read(
    object: &Object,
    contents: &Contents,
    books: &Books,
    past: &Past,
) -> io::Result<Counters> {
    let mut counters = Counters {
        rules: past.clone(),
        ..Counters::default()
    };
    let names = books.numbers.ports();
    for (slot, port) in &contents.ports {
        let Some(id) = names.get(slot) else {
            continue;
        };
        let state = object.tables.port_state.get(slot)?.unwrap_or_default();
        let mine = state.number == port.record.number;
        let first = slot * STATS_PER_PORT;
        let stats = object.tables.port_stats.per_cpu(first, STATS_PER_PORT)?;
        let at = |stat: u32| sum(&stats[stat as usize]);
        let mut of_port = PortCounters {
            passed_ingress: at(STAT_PASSED_INGRESS),
            passed_egress: at(STAT_PASSED_EGRESS),
            drops: BTreeMap::new(),
            flows: if mine { state.established } else { 0 },
            half_open: if mine { state.half_open } else { 0 },
        };
        for reason in DropReason::ALL {
            let count = at(u32::from(reason.number()));
            if count.packets > 0 {
                of_port.drops.insert(*reason, count);
            }
        }
        counters.ports.insert(id.clone(), of_port);
    }
    for (number, set) in &contents.sets {
        add_rules(object, books, *number, set, &mut counters.rules)?;
    }
    Ok(counters)
}

/// Adds what a set's rules have counted.
pub(crate) fn add_rules(
    object: &Object,
    books: &Books,
    number: u32,
    set: &SetState,
    to: &mut BTreeMap<RuleRef, Count>,
) -> io::Result<()> {
    let Some(compiled) = books.compiled.get(&number) else {
        return Ok(());
    };
    let stats = &object.tables.rule_stats;
    let stats = stats.per_cpu(set.record.rule_base, set.record.rules)?;
    for (rule, stats) in compiled.rules.iter().zip(&stats) {
        let count = sum(stats);
        let total = to.entry(rule.clone()).or_default();
        total.packets += count.packets;
        total.bytes += count.bytes;
    }
    Ok(())
}

fn sum(cpus: &[Stat]) -> Count {
    let mut total = Count::default();
    for cpu in cpus {
        total.packets += cpu.packets;
        total.bytes += cpu.bytes;
    }
    total
}
