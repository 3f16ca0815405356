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
use policy::HostView;
use std::collections::BTreeMap;
use std::io;

/// Counts of rules by sets that are gone.
pub(crate) type Past = BTreeMap<RuleRef, Count>;

/// Adds the counts of sets that have ended. Rules that are gone themselves are forgotten.
pub(crate) fn keep(past: &mut Past, ended: Past, view: &HostView) {
    if ended.is_empty() {
        return;
    }
    for (rule, count) in ended {
        add(past.entry(rule).or_default(), count);
    }
    past.retain(|rule, _| {
        let group = view.groups.get(&rule.group);
        group.is_some_and(|group| group.rules.contains_key(&rule.rule))
    });
}

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
        add(to.entry(rule.clone()).or_default(), sum(stats));
    }
    Ok(())
}

fn add(total: &mut Count, count: Count) {
    total.packets += count.packets;
    total.bytes += count.bytes;
}

fn sum(cpus: &[Stat]) -> Count {
    let mut total = Count::default();
    for cpu in cpus {
        total.packets += cpu.packets;
        total.bytes += cpu.bytes;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::GroupView;

    #[test]
    fn counts_of_ended_sets_add_up_for_as_long_as_the_rule_is_there() {
        let rule = |rule: &str| RuleRef {
            group: "web".into(),
            rule: rule.into(),
        };
        let counted = |names: &[&str]| -> Past {
            let one = Count {
                packets: 1,
                bytes: 60,
            };
            names.iter().map(|name| (rule(name), one)).collect()
        };
        let view = |names: &[&str]| {
            let some = policy::RuleView {
                direction: model::Direction::Ingress,
                family: model::Family::V4,
                peer: policy::PeerView::Any,
                l4: model::L4Match::Any,
            };
            let rules = names.iter().map(|name| ((*name).into(), some.clone()));
            let group = GroupView {
                stateful: true,
                tag: None,
                rules: rules.collect(),
            };
            let mut view = HostView::default();
            view.groups.insert("web".into(), group.into());
            view
        };
        let mut past = Past::new();
        keep(&mut past, counted(&["a", "b"]), &view(&["a", "b"]));
        keep(&mut past, counted(&["a", "b"]), &view(&["a"]));
        let two = Count {
            packets: 2,
            bytes: 120,
        };
        assert_eq!(past, Past::from([(rule("a"), two)]));
    }
}
