//! From the flows that are there to those that should be.
//!
//! Place on the line: render, read back -> **plan** -> execute. Pure.
//! A packet waits between two halves of a gate while the tracker looks at it, and goes on with what the first
//! half knew. What only such packets still ask for goes last, when the switch has forgotten old decisions.

use crate::cookie::Cookie;
use crate::flow_set::FlowSet;
use crate::registers::{FLAGS, FROM_GROUP, Flag, TO_GROUP};
use crate::tables::{FIRST, Table};
use openflow::{Action, Change, Field, Flow, FlowStats, Value};
use std::collections::BTreeSet;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// One bundle.
    pub(crate) switch: Vec<Change>,
    /// Another one, once nothing is under way that was decided before.
    pub(crate) clear: Vec<Change>,
}

impl Plan {
    pub(crate) fn is_empty(&self) -> bool {
        self.switch.is_empty() && self.clear.is_empty()
    }

    pub(crate) fn len(&self) -> u64 {
        (self.switch.len() + self.clear.len()) as u64
    }
}

pub(crate) fn plan(found: &FlowSet, wanted: &FlowSet) -> Plan {
    let mut plan = Plan::default();
    let mut gone = Vec::new();
    for (before, after) in wanted.differences(found) {
        match (before, after) {
            (_, Some(after)) => plan.switch.push(Change::Add(after.clone())),
            (Some(before), None) => gone.push(before),
            (None, None) => {}
        }
    }
    if gone.is_empty() {
        return plan;
    }
    let walked = walked(wanted);
    for flow in gone {
        let change = Change::Delete {
            table: flow.table,
            priority: flow.priority,
            matching: flow.matching.clone(),
        };
        match is_asked_late(flow, &walked) {
            true => plan.clear.push(change),
            false => plan.switch.push(change),
        }
    }
    plan
}

/// By what a packet carries since its first half. Rules of a group that ports are still in go at once, as nothing
/// passes by them any more; those of a group that the last port has left are asked by such packets alone.
fn is_asked_late(flow: &Flow, walked: &BTreeSet<(Field, Value)>) -> bool {
    match Table::from_number(flow.table) {
        Some(Table::Walk | Table::Remotes | Table::Passed | Table::Enter) => true,
        Some(Table::Rules) => own_group(flow).is_some_and(|group| !walked.contains(&group)),
        Some(_) | None => false,
    }
}

/// The groups whose rules are asked, each with its register.
fn walked(wanted: &FlowSet) -> BTreeSet<(Field, Value)> {
    let walks = wanted.table(Table::Walk.number()).iter();
    let groups = walks
        .flat_map(|flow| &flow.actions)
        .filter_map(|action| match action {
            Action::Set { to, value, .. } => Some((*to, *value)),
            _other => None,
        });
    groups.collect()
}

/// The group that a rule's flow is of.
fn own_group(rule: &Flow) -> Option<(Field, Value)> {
    let flags = rule.matching.get(FLAGS)?.value.u128()?;
    let register = match flags & Flag::TOWARDS.bit() {
        0 => FROM_GROUP,
        _ => TO_GROUP,
    };
    Some((register, rule.matching.get(register)?.value))
}

/// Of what a switch tells, the flows that we write, and what others have put into tables that are ours alone: that
/// has to go. Not those that came by themselves.
pub(crate) fn ours(told: impl IntoIterator<Item = FlowStats>) -> FlowSet {
    let flows = told.into_iter().map(|told| told.flow);
    let written = flows.filter(|flow| match Cookie::from_number(flow.cookie) {
        Some(Cookie::Shared | Cookie::Rule(_) | Cookie::Port(_)) => true,
        Some(Cookie::Count | Cookie::Learned) => false,
        None => flow.table >= FIRST,
    });
    FlowSet::of(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draft::Draft;
    use crate::registers::PROFILE;

    fn walk(profile: u32, group: u32) -> Flow {
        let draft = Draft::new(Table::Walk, 10).with(Flag::TOWARDS);
        let draft = draft.on(PROFILE, profile).set(TO_GROUP, group);
        draft.ask(Table::Remotes).flow()
    }

    fn rule(group: u32, number: u32) -> Flow {
        let draft = Draft::new(Table::Rules, 10).cookie(Cookie::Rule(number));
        draft.with(Flag::TOWARDS).on(TO_GROUP, group).flow()
    }

    #[test]
    fn rules_of_a_group_that_nobody_is_in_any_more_go_last() {
        let (left, kept) = (7u32, 8u32);
        let found = FlowSet::of([walk(1, left), walk(2, kept), rule(left, 1), rule(kept, 2)]);
        let wanted = FlowSet::of([walk(2, kept)]);
        let plan = plan(&found, &wanted);
        let tables = |changes: &[Change]| -> Vec<(u8, Value)> {
            let deleted = changes.iter().map(|change| match change {
                Change::Delete {
                    table, matching, ..
                } => {
                    let group = matching.get(TO_GROUP).map_or(Value::ZERO, |m| m.value);
                    (*table, group)
                }
                other => panic!("{other}"),
            });
            deleted.collect()
        };
        let (walks, rules) = (Table::Walk.number(), Table::Rules.number());
        assert_eq!(
            tables(&plan.switch),
            [(rules, Value::from(u128::from(kept)))]
        );
        assert_eq!(
            tables(&plan.clear),
            [(walks, Value::ZERO), (rules, Value::from(u128::from(left)))]
        );
    }
}
