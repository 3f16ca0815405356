//! Entries of the kernel's tracker that a change of policy ends.
//!
//! Place on the line: beside the steps, behind the last of them. Which: those of ports that are gone, and
//! those that were elidable before the change or are now. What is elidable has no flow; what stops being
//! elidable begins with its next packet.
//! A look at the tracker takes as long as its table is large: it is looked at only where a change asks for it.
//! Source: docs/semantics.md "Elision", "Truth under change".

use crate::books::{Pool, zone};
use crate::flows::Locals;
use dataplane::Target;
use model::PortId;
use netfilter::conntrack::{self, Change, Entry, Filter};
use policy::ElisionChange;
use std::collections::BTreeSet;

/// Which of two targets' entries go.
pub(crate) struct Forget<'a> {
    old: &'a Target,
    new: &'a Target,
    /// The bridges' numbers before.
    before: &'a Pool<u32>,
    gone: BTreeSet<PortId>,
    changed: BTreeSet<PortId>,
    /// Zones that a bridge has got now: nothing in them is its.
    fresh: BTreeSet<u16>,
}

impl<'a> Forget<'a> {
    /// `None`: none do. `before`, `after`: the bridges' numbers.
    pub(crate) fn between(
        old: &'a Target,
        new: &'a Target,
        before: &'a Pool<u32>,
        after: &Pool<u32>,
    ) -> Option<Self> {
        let gone = old.devices.iter();
        let gone = gone.filter(|(id, device)| new.devices.get(*id) != Some(*device));
        let mut elision = ElisionChange::between(&old.view, &new.view);
        // What becomes elidable on the way back is not any more.
        let mut back = ElisionChange::between(&new.view, &old.view);
        let both = new
            .devices
            .keys()
            .filter(|id| old.devices.contains_key(*id));
        let changed = both.filter(|id| elision.becomes(id) || back.becomes(id));
        let numbers =
            |of: &Pool<u32>| -> BTreeSet<u16> { of.all().map(|(_, number)| number).collect() };
        let known = numbers(before);
        let fresh = numbers(after)
            .into_iter()
            .filter(|number| !known.contains(number));
        let forget = Self {
            gone: gone.map(|(id, _)| id.clone()).collect(),
            changed: changed.cloned().collect(),
            fresh: fresh.map(zone).collect(),
            before,
            old,
            new,
        };
        let some =
            !(forget.gone.is_empty() && forget.changed.is_empty() && forget.fresh.is_empty());
        some.then_some(forget)
    }

    pub(crate) fn execute(&self) -> Result<(), netfilter::Error> {
        if conntrack::count()? == 0 {
            return Ok(());
        }
        let locals = Locals::of(self.old, self.before);
        let mut entries = Vec::new();
        conntrack::dump(&Filter::default(), |entry| {
            if self.goes(&entry, &locals) {
                entries.push(entry);
            }
        })?;
        let changes: Vec<Change<'_>> = entries.iter().map(Change::Delete).collect();
        conntrack::change(&changes).map(|_| ())
    }

    fn goes(&self, entry: &Entry, locals: &Locals) -> bool {
        if self.fresh.contains(&entry.zone) {
            return true;
        }
        locals.flows(entry).iter().any(|flow| {
            let elidable = |target: &Target| policy::elidable(&target.view, flow.port, &flow.key);
            self.gone.contains(flow.port)
                || (self.changed.contains(flow.port) && (elidable(self.old) || elidable(self.new)))
        })
    }
}
