//! The flows of a bridge, in an order in which two sets of them are compared in one go.
//!
//! Tables and flows are shared: what is the same in memory isn't looked at.

use openflow::{Flow, Match};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Of one table, by priority and match: what a switch tells two flows apart by.
pub(crate) type FlowTable = Arc<Vec<Arc<Flow>>>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlowSet {
    tables: BTreeMap<u8, FlowTable>,
}

impl FlowSet {
    pub(crate) fn of(flows: impl IntoIterator<Item = Flow>) -> Self {
        let mut tables: BTreeMap<u8, Vec<Arc<Flow>>> = BTreeMap::new();
        for flow in flows {
            tables.entry(flow.table).or_default().push(Arc::new(flow));
        }
        let tables = tables.into_iter();
        Self {
            tables: tables.map(|(n, flows)| (n, in_order(flows))).collect(),
        }
    }

    /// All flows of this table are these.
    pub(crate) fn put(&mut self, number: u8, table: FlowTable) {
        self.tables.insert(number, table);
    }

    pub(crate) fn table(&self, number: u8) -> &[Arc<Flow>] {
        self.tables
            .get(&number)
            .map_or(&[], |table| table.as_slice())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tables.values().all(|table| table.is_empty())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Flow> {
        let tables = self.tables.values();
        tables.flat_map(|table| table.iter().map(|flow| &**flow))
    }

    /// Whether it has a flow in this one's place.
    pub(crate) fn has_place_of(&self, flow: &Flow) -> bool {
        find(self.table(flow.table), flow).is_ok()
    }

    /// What is in this one's place goes.
    pub(crate) fn vacate(&mut self, flow: &Flow) {
        if let Some(table) = self.tables.get_mut(&flow.table) {
            remove(table, flow);
        }
    }

    /// What differs from another set, place by place: its flow, and this one's.
    pub(crate) fn differences<'a>(&'a self, other: &'a Self) -> Vec<Difference<'a>> {
        let numbers = self.tables.keys().chain(other.tables.keys());
        let numbers: BTreeSet<u8> = numbers.copied().collect();
        let mut all = Vec::new();
        for number in numbers {
            differences(other.table(number), self.table(number), &mut all);
        }
        all
    }
}

/// In one place: the one, and the other.
pub(crate) type Difference<'a> = (Option<&'a Flow>, Option<&'a Flow>);

fn differences<'a>(one: &'a [Arc<Flow>], other: &'a [Arc<Flow>], all: &mut Vec<Difference<'a>>) {
    if std::ptr::eq(one, other) {
        return;
    }
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    loop {
        let first = match (one.peek(), other.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) if Arc::ptr_eq(a, b) => Ordering::Equal,
            (Some(a), Some(b)) => place(a).cmp(&place(b)),
        };
        let a = first.is_le().then(|| one.next()).flatten();
        let b = first.is_ge().then(|| other.next()).flatten();
        // Of two Arcs `==` looks at the flows only if they aren't one.
        if a != b {
            all.push((a.map(|flow| &**flow), b.map(|flow| &**flow)));
        }
    }
}

/// Of two in one place the first stays.
pub(crate) fn in_order(mut flows: Vec<Arc<Flow>>) -> FlowTable {
    flows.sort_by(|a, b| place(a).cmp(&place(b)));
    flows.dedup_by(|later, first| place(later) == place(first));
    Arc::new(flows)
}

/// In its place, whatever was there.
pub(crate) fn put(table: &mut FlowTable, flow: Flow) {
    let flows = Arc::make_mut(table);
    match find(flows, &flow) {
        Ok(at) => flows[at] = Arc::new(flow),
        Err(at) => flows.insert(at, Arc::new(flow)),
    }
}

/// What is in this one's place goes.
pub(crate) fn remove(table: &mut FlowTable, flow: &Flow) {
    if let Ok(at) = find(table, flow) {
        Arc::make_mut(table).remove(at);
    }
}

/// Where it is, or would be.
fn find(table: &[Arc<Flow>], flow: &Flow) -> Result<usize, usize> {
    table.binary_search_by(|other| place(other).cmp(&place(flow)))
}

fn place(flow: &Flow) -> (u16, &Match) {
    (flow.priority, &flow.matching)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openflow::Field;

    fn flow(table: u8, reg: u8, cookie: u64) -> Flow {
        Flow {
            table,
            cookie,
            matching: Match::new().exact(Field::Reg(0), reg.into()),
            ..Flow::default()
        }
    }

    #[test]
    fn sets_differ_place_by_place() {
        let [kept, changed, gone, come] =
            [(1, 1), (1, 2), (2, 1), (3, 1)].map(|(t, r)| flow(t, r, 7));
        let now = Flow {
            cookie: 8,
            ..changed.clone()
        };
        let before = FlowSet::of([gone.clone(), changed.clone(), kept.clone()]);
        let after = FlowSet::of([come.clone(), kept, now.clone()]);
        let expected = [
            (Some(&changed), Some(&now)),
            (Some(&gone), None),
            (None, Some(&come)),
        ];
        assert_eq!(after.differences(&before), expected);
        assert_eq!(after.differences(&after.clone()), []);
    }

    #[test]
    fn the_first_of_two_in_a_place_stays() {
        let mut set = FlowSet::of([flow(1, 1, 7), flow(1, 1, 8)]);
        let cookies: Vec<u64> = set.iter().map(|flow| flow.cookie).collect();
        assert_eq!(cookies, [7]);
        set.vacate(&flow(1, 1, 9));
        assert!(!set.has_place_of(&flow(1, 1, 7)));
    }
}
