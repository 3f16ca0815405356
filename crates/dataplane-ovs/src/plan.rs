//! From the flows that are there to those that should be.
//!
//! Place on the line: render, read back -> **plan** -> execute. Pure.
//! A packet waits between two halves of a gate while the tracker looks at it, and goes on with what the first
//! half knew. What only such packets still ask for goes last, when the switch has forgotten old decisions.

use crate::cookie::Cookie;
use crate::render::Flows;
use crate::tables::{FIRST, Table};
use openflow::{Change, Flow, FlowStats};

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

pub(crate) fn plan(found: &Flows, wanted: &Flows) -> Plan {
    let mut plan = Plan::default();
    for (key, flow) in wanted {
        if found.get(key) != Some(flow) {
            plan.switch.push(Change::Add(flow.clone()));
        }
    }
    for (key, flow) in found {
        if wanted.contains_key(key) {
            continue;
        }
        let (table, priority, matching) = key.clone();
        let gone = Change::Delete {
            table,
            priority,
            matching,
        };
        match is_asked_late(flow) {
            true => plan.clear.push(gone),
            false => plan.switch.push(gone),
        }
    }
    plan
}

/// By what a packet carries since its first half.
fn is_asked_late(flow: &Flow) -> bool {
    match Table::from_number(flow.table) {
        Some(Table::Walk | Table::Remotes | Table::Passed | Table::Enter) => true,
        Some(_) | None => false,
    }
}

/// Of what a switch tells, the flows that we write, and what others have put into tables that are ours alone: that
/// has to go. Not those that came by themselves.
pub(crate) fn ours(told: impl IntoIterator<Item = FlowStats>) -> Flows {
    let flows = told.into_iter().map(|told| told.flow);
    let written = flows.filter(|flow| match Cookie::from_number(flow.cookie) {
        Some(Cookie::Shared | Cookie::Rule(_) | Cookie::Port(_)) => true,
        Some(Cookie::Count | Cookie::Learned) => false,
        None => flow.table >= FIRST,
    });
    written
        .map(|flow| ((flow.table, flow.priority, flow.matching.clone()), flow))
        .collect()
}
