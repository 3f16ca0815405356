//! From the flows that are there to those that should be.
//!
//! Place on the line: render, read back -> **plan** -> execute. Pure.
//! A packet waits between two halves of a gate while the tracker looks at it, and goes on with what the first
//! half knew. What only such packets still ask for goes last, when the switch has forgotten old decisions. And
//! what none of them asks for yet comes first: of a state that there was before, the switch may remember what
//! became of it when it was cleared.

use crate::cookie::Cookie;
use crate::flow_set::FlowSet;
use crate::registers::{FLAGS, FROM_GROUP, Flag, TO_GROUP};
use crate::tables::{FIRST, Table};
use openflow::{Action, Change, Field, Flow, FlowStats, Value};
use std::collections::BTreeSet;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// A bundle; decisions by what there was then have to be forgotten before the next.
    pub(crate) prepare: Vec<Change>,
    /// Another one.
    pub(crate) switch: Vec<Change>,
    /// The last one, once nothing is under way that was decided before.
    pub(crate) clear: Vec<Change>,
}

impl Plan {
    pub(crate) fn is_empty(&self) -> bool {
        self.changes().next().is_none()
    }

    pub(crate) fn len(&self) -> u64 {
        self.changes().count() as u64
    }

    pub(crate) fn changes(&self) -> impl Iterator<Item = &Change> {
        let all = self.prepare.iter().chain(&self.switch);
        all.chain(&self.clear)
    }
}

pub(crate) fn plan(found: &FlowSet, wanted: &FlowSet) -> Plan {
    let mut plan = Plan::default();
    let walked = [found, wanted].map(walked);
    for (before, after) in wanted.differences(found) {
        match (before, after) {
            // Of a bridge without flows nothing is remembered.
            (None, Some(flow)) => match !found.is_empty() && is_asked_late(flow, &walked[0]) {
                true => plan.prepare.push(Change::Add(flow.clone())),
                false => plan.switch.push(Change::Add(flow.clone())),
            },
            (Some(_), Some(flow)) => plan.switch.push(Change::Add(flow.clone())),
            (Some(flow), None) => {
                let change = Change::Delete {
                    table: flow.table,
                    priority: flow.priority,
                    matching: flow.matching.clone(),
                };
                match is_asked_late(flow, &walked[1]) {
                    true => plan.clear.push(change),
                    false => plan.switch.push(change),
                }
            }
            (None, None) => {}
        }
    }
    plan
}

/// By what a packet carries since its first half. Rules of a group that some port is in are asked by all; those of
/// another one only by a packet whose port was in it in its first half.
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

    /// Tables of changes, and whose rules these are.
    fn told(changes: &[Change]) -> Vec<(Table, u32)> {
        let told = changes.iter().map(|change| {
            let (table, matching) = match change {
                Change::Add(flow) => (flow.table, &flow.matching),
                Change::Delete {
                    table, matching, ..
                } => (*table, matching),
                Change::DeleteAll { .. } => panic!("{change}"),
            };
            let group = matching.get(TO_GROUP).and_then(|group| group.value.u128());
            let table = Table::from_number(table).expect("one of ours");
            (table, group.unwrap_or(0) as u32)
        });
        told.collect()
    }

    #[test]
    fn rules_of_a_group_that_nobody_is_in_come_first_and_go_last() {
        let (other, kept) = (7, 8);
        let more = FlowSet::of([walk(1, other), walk(2, kept), rule(other, 1), rule(kept, 2)]);
        let less = FlowSet::of([walk(2, kept)]);
        let apart = [(Table::Walk, 0), (Table::Rules, other)];
        let at_once = [(Table::Rules, kept)];

        let narrowed = plan(&more, &less);
        assert_eq!(told(&narrowed.prepare), []);
        assert_eq!(told(&narrowed.switch), at_once);
        assert_eq!(told(&narrowed.clear), apart);

        let widened = plan(&less, &more);
        assert_eq!(told(&widened.prepare), apart);
        assert_eq!(told(&widened.switch), at_once);
        assert_eq!(told(&widened.clear), []);
    }
}
