//! The books: which numbers and places are taken, and which set each list of groups has.
//!
//! Place on the line: group views -> compiled sets -> **places in the arrays**. A set is found again
//! by the digest of its content; a new content gets a new number, so that no set changes under a
//! port that is judged by it.
//! Knows nothing of: ports' records, addresses, steps.

use super::Last;
use super::sets::{self, CompiledSet, Entry, EntryKey};
use crate::contents::{Contents, PolicyEntries, SetState, Space};
use crate::layout::{PolicyEntry, PolicyKey, Range};
use crate::numbers::Numbers;
use model::GroupId;
use policy::{GroupView, HostView};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How much there is room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) ports: u32,
    pub(crate) sets: u32,
    pub(crate) policy: u32,
    pub(crate) ranges: u32,
    pub(crate) rules: u32,
    pub(crate) members: u32,
    pub(crate) flows: u32,
}

/// Numbers and places that are taken, and what sets were compiled from.
#[derive(Clone, Debug)]
pub(crate) struct Books {
    pub(crate) limits: Limits,
    pub(crate) numbers: Numbers,
    pub(crate) ranges: Space,
    pub(crate) rules: Space,
    /// By set number.
    pub(crate) compiled: BTreeMap<u32, Arc<CompiledSet>>,
    by_groups: BTreeMap<Vec<GroupId>, u32>,
    /// What was given up by the last apply: not used again before the next one is done, so that a
    /// packet that is being judged meets no stranger in an old place.
    resting: Resting,
    set_hand: u32,
    /// What the last render came to. `None`: what is in force was read back.
    pub(crate) last: Option<Last>,
}

#[derive(Clone, Debug, Default)]
struct Resting {
    sets: BTreeSet<u32>,
    ranges: Vec<(u32, u32)>,
    rules: Vec<(u32, u32)>,
}

/// What a render adds to the arrays.
#[derive(Default)]
pub(crate) struct New {
    pub(crate) ranges: Vec<(u32, Range)>,
    pub(crate) reused_rules: Vec<(u32, u32)>,
    /// By number; not in the actual contents.
    pub(crate) sets: BTreeMap<u32, SetState>,
}

impl Books {
    pub(crate) fn new(limits: Limits, numbers: Numbers) -> Self {
        Self {
            limits,
            numbers,
            ranges: Space::new(limits.ranges),
            rules: Space::new(limits.rules),
            compiled: BTreeMap::new(),
            by_groups: BTreeMap::new(),
            resting: Resting::default(),
            set_hand: 1,
            last: None,
        }
    }

    /// Each list of groups' set, or why it can't be served.
    pub(crate) fn sets(
        &mut self,
        view: &HostView,
        old: Option<&HostView>,
        actual: &Contents,
        new: &mut New,
    ) -> BTreeMap<Vec<GroupId>, Result<u32, String>> {
        let unchanged: BTreeSet<&GroupId> = view
            .groups
            .iter()
            .filter(|(id, group)| old.and_then(|o| o.groups.get(*id)) == Some(*group))
            .map(|(id, _)| id)
            .collect();
        let mut by_digest: BTreeMap<[u64; 2], u32> = BTreeMap::new();
        for (number, set) in &actual.sets {
            if set.record.digest != [0; 2] {
                by_digest.insert(set.record.digest, *number);
            }
        }
        let mut of_groups = BTreeMap::new();
        let guarded = view.ports.values().filter(|port| port.port_security);
        for port in guarded {
            if of_groups.contains_key(&port.groups) {
                continue;
            }
            let known = self.by_groups.get(&port.groups).copied();
            let same = port.groups.iter().all(|group| unchanged.contains(group));
            if let Some(set) = known.filter(|set| same && actual.sets.contains_key(set)) {
                of_groups.insert(port.groups.clone(), Ok(set));
                continue;
            }
            let groups = groups(view, &port.groups);
            let compiled = sets::compile(&groups, |peer| self.numbers.peer(peer));
            let number = if compiled.rules.is_empty() {
                Ok(0)
            } else if let Some(number) = by_digest.get(&compiled.record.digest) {
                self.compiled.insert(*number, Arc::new(compiled));
                Ok(*number)
            } else {
                let added = self.add(compiled, actual, new);
                if let Ok(number) = added {
                    by_digest.insert(new.sets[&number].record.digest, number);
                }
                added
            };
            of_groups.insert(port.groups.clone(), number);
        }
        self.by_groups = of_groups
            .iter()
            .filter_map(|(groups, set)| {
                Some((groups.clone(), set.clone().ok().filter(|s| *s != 0)?))
            })
            .collect();
        of_groups
    }

    /// Finds what is in force in the view that it comes from.
    pub(crate) fn recognize(&mut self, view: &HostView, actual: &Contents) {
        let mut numbers = self.numbers.clone();
        let lists: BTreeSet<&Vec<GroupId>> = view.ports.values().map(|port| &port.groups).collect();
        for list in lists {
            let groups = groups(view, list);
            let compiled = sets::compile(&groups, |peer| numbers.peer(peer));
            let mut known = actual.sets.iter();
            let known = known.find(|(_, set)| set.record.digest == compiled.record.digest);
            if let Some((number, _)) = known {
                self.by_groups.insert(list.clone(), *number);
                self.compiled.insert(*number, Arc::new(compiled));
            }
        }
    }

    /// Places for a new set.
    fn add(
        &mut self,
        compiled: CompiledSet,
        actual: &Contents,
        new: &mut New,
    ) -> Result<u32, String> {
        let sets = actual.sets.values().chain(new.sets.values());
        let taken: usize = sets.map(|set| set.all_entries().count()).sum();
        let entries = compiled.entries.len();
        if taken + entries > self.limits.policy as usize {
            return Err(format!(
                "its rules need {entries} policy entries, and {} are left",
                (self.limits.policy as usize).saturating_sub(taken)
            ));
        }
        let number = (0..self.limits.sets)
            .map(|step| (self.set_hand + step) % self.limits.sets)
            .find(|number| {
                *number != 0
                    && !actual.sets.contains_key(number)
                    && !new.sets.contains_key(number)
                    && !self.resting.sets.contains(number)
            })
            .ok_or_else(|| {
                format!(
                    "there is room for {} different lists of groups",
                    self.limits.sets
                )
            })?;
        let rules = compiled.rules.len() as u32;
        let fresh_from = self.rules.untouched();
        let rule_base = self
            .rules
            .take(rules)
            .ok_or_else(|| format!("there is no room for counters of {rules} rules more"))?;
        let several = |entry: &&(EntryKey, Entry)| entry.1.ranges > 1;
        let ranges: u32 = compiled
            .entries
            .iter()
            .filter(several)
            .map(|(_, e)| e.ranges)
            .sum();
        let Some(mut base) = self.ranges.take(ranges) else {
            self.rules.give(rule_base, rules);
            return Err(format!("there is no room for {ranges} port ranges more"));
        };
        if rule_base < fresh_from {
            new.reused_rules
                .push((rule_base, rules.min(fresh_from - rule_base)));
        }
        self.set_hand = number + 1;
        let mut policy = PolicyEntries::with_capacity(entries);
        for (key, entry) in &compiled.entries {
            let ranges = compiled.ranges_of(entry);
            policy.push(policy_entry(
                number,
                key,
                entry,
                ranges,
                &mut base,
                &mut new.ranges,
            ));
        }
        policy.sort_unstable_by_key(|(key, _)| *key);
        let mut record = compiled.record;
        record.rule_base = rule_base;
        let state = SetState {
            record,
            entries: Arc::new(policy),
            unions: BTreeMap::new(),
        };
        new.sets.insert(number, state);
        self.compiled.insert(number, Arc::new(compiled));
        Ok(number)
    }

    /// A union's entries in one set.
    pub(crate) fn add_union(
        &mut self,
        set: u32,
        union: u32,
        new: &mut Vec<(u32, Range)>,
    ) -> Option<Arc<PolicyEntries>> {
        let compiled = self.compiled.get(&set)?;
        let parts = self.numbers.unions().get(&union)?;
        let entries = compiled.union_entries(union, parts);
        let mut policy = PolicyEntries::with_capacity(entries.len());
        for (key, entry, ranges) in &entries {
            let several = if entry.ranges > 1 { entry.ranges } else { 0 };
            // Without room the peer permits nothing: the closed side.
            let mut base = self.ranges.take(several)?;
            policy.push(policy_entry(set, key, entry, ranges, &mut base, new));
        }
        (!policy.is_empty()).then(|| Arc::new(policy))
    }

    /// After an apply: what it gave up rests, and what the one before gave up is free again.
    pub(crate) fn settle(
        &mut self,
        before: &BTreeMap<u32, SetState>,
        passing: &BTreeMap<u32, SetState>,
        after: &BTreeMap<u32, SetState>,
    ) {
        let rested = std::mem::take(&mut self.resting);
        rested
            .ranges
            .iter()
            .for_each(|(start, length)| self.ranges.give(*start, *length));
        rested
            .rules
            .iter()
            .for_each(|(start, length)| self.rules.give(*start, *length));
        let gone = |number: &u32| !after.contains_key(number);
        let all: BTreeSet<u32> = before.keys().chain(passing.keys()).copied().collect();
        for number in all.into_iter().filter(|number| *number != 0) {
            let set = passing.get(&number).or_else(|| before.get(&number));
            let set = set.expect("the number is of one of them");
            if gone(&number) {
                self.resting.sets.insert(number);
                self.resting
                    .rules
                    .push((set.record.rule_base, set.record.rules));
                let runs = set.all_entries().filter(|(_, entry)| entry.count > 1);
                self.resting
                    .ranges
                    .extend(runs.map(|(_, entry)| (entry.base, entry.count)));
                self.compiled.remove(&number);
            } else {
                let kept = &after[&number].unions;
                let left = set
                    .unions
                    .iter()
                    .filter(|(union, _)| !kept.contains_key(union));
                let entries = left.flat_map(|(_, entries)| entries.iter());
                let runs = entries.filter(|(_, entry)| entry.count > 1);
                self.resting
                    .ranges
                    .extend(runs.map(|(_, entry)| (entry.base, entry.count)));
            }
        }
    }
}

fn groups<'a>(view: &'a HostView, ids: &[GroupId]) -> Vec<(&'a GroupId, &'a GroupView)> {
    let known = ids.iter().filter_map(|id| view.groups.get_key_value(id));
    known.map(|(id, group)| (id, &**group)).collect()
}

fn policy_entry(
    set: u32,
    key: &EntryKey,
    entry: &Entry,
    ranges: &[Range],
    base: &mut u32,
    new: &mut Vec<(u32, Range)>,
) -> (PolicyKey, PolicyEntry) {
    let key = PolicyKey {
        set,
        peer: key.peer,
        protocol: key.protocol,
        direction: key.direction,
        family: key.family,
    };
    let mut value = PolicyEntry {
        whole: entry.whole,
        count: entry.ranges,
        errors: entry.errors,
        ..PolicyEntry::default()
    };
    match ranges {
        [] => {}
        [one] => {
            value.base = u32::from(one.first) << 16 | u32::from(one.last);
            value.word = one.word;
        }
        several => {
            value.base = *base;
            new.extend((*base..).zip(several.iter().copied()));
            *base += several.len() as u32;
        }
    }
    (key, value)
}
