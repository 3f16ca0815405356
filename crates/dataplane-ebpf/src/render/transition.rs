//! What holds while ports switch from the old to the new policy.
//!
//! An address's list in passing, where O are its old peers, N its new ones:
//! ```text
//! of O: those also in N, and those that no new set names (they go once the old sets are gone)
//! of N: those that no old set names (they are there when the new sets come)
//! ```
//! So old sets find no more than O, and new sets no more than N. What both name and only one has is
//! missing for a moment: a drop that is allowed, never a pass that is not.
//! A prefix that is not there stands for the longest one around it, which is.

use super::books::{Books, New};
use super::peers::{self, ChangedLists, Lists};
use crate::contents::{Contents, Desired, ListChange, ListChanges, SetState};
use crate::layout::{ExactKey, Peers, PrefixKey};
use crate::numbers::Numbers;
use policy::differing;
use std::collections::{BTreeMap, BTreeSet};

/// Fills in the desired lists and sets; the sets in passing, and how many lists end in each union afterwards.
/// `unions`: how many do now, if that is known.
pub(super) fn pass(
    actual: &Contents,
    desired: &mut Desired,
    books: &mut Books,
    new: &mut New,
    changed: ChangedLists,
    unions: Option<&BTreeMap<u32, usize>>,
) -> (BTreeMap<u32, SetState>, BTreeMap<u32, usize>) {
    if !(changed.exact.is_empty() && changed.prefixes.is_none()) {
        let sides = Sides {
            old: named(
                actual.ports.values().map(|p| p.record.set),
                &actual.sets,
                books,
            ),
            new: named(
                desired.ports.values().map(|p| p.record.set),
                &new.sets,
                books,
            ),
        };
        let numbers = &mut books.numbers;
        desired.lists = ListChanges {
            exact: sides.exact(changed.exact, numbers),
            prefixes: match &changed.prefixes {
                Some(after) => sides.prefixes(&actual.lists.prefixes, after, numbers),
                None => Vec::new(),
            },
        };
    }
    let before = match unions {
        Some(known) => known.clone(),
        None => unions_in(&actual.lists, &books.numbers),
    };
    let mut stay = before.clone();
    let mut pass: BTreeSet<u32> = before.into_keys().collect();
    let lists = &desired.lists;
    let exact = lists.exact.iter().map(|c| (c.before, c.passing, c.after));
    let prefixes = lists.prefixes.iter();
    let prefixes = prefixes.map(|c| (c.before, c.passing, c.after));
    for (before, passing, after) in exact.chain(prefixes) {
        let [before, passing, after] =
            [before, passing, after].map(|list| list.and_then(|l| last_union(&l, &books.numbers)));
        pass.extend(passing.into_iter().chain(after));
        if let Some(union) = before {
            let count = stay
                .get_mut(&union)
                .expect("what is counted less was counted");
            *count -= 1;
            if *count == 0 {
                stay.remove(&union);
            }
        }
        if let Some(union) = after {
            *stay.entry(union).or_default() += 1;
        }
    }
    let used: BTreeSet<u32> = desired.ports.values().map(|port| port.record.set).collect();
    let mut passing_sets = actual.sets.clone();
    passing_sets.append(&mut new.sets);
    for (number, set) in &mut passing_sets {
        if *number == 0 {
            continue;
        }
        for union in &pass {
            if set.unions.contains_key(union) || !books.names_some(*number, *union) {
                continue;
            }
            if let Some(entries) = books.add_union(*number, *union, &mut new.ranges) {
                set.unions.insert(*union, entries);
            }
        }
        if used.contains(number) {
            let mut set = set.clone();
            set.unions.retain(|union, _| stay.contains_key(union));
            desired.sets.insert(*number, set);
        }
    }
    (passing_sets, stay)
}

impl Books {
    fn names_some(&self, set: u32, union: u32) -> bool {
        let parts = self.numbers.unions().get(&union);
        let compiled = self.compiled.get(&set);
        parts.zip(compiled).is_some_and(|(parts, compiled)| {
            parts.iter().any(|part| compiled.named.contains_key(part))
        })
    }
}

/// The unions that lists end in, and how many do.
fn unions_in(lists: &Lists, numbers: &Numbers) -> BTreeMap<u32, usize> {
    let mut unions = BTreeMap::new();
    for list in lists.exact.values().chain(lists.prefixes.values()) {
        if let Some(union) = last_union(list, numbers) {
            *unions.entry(union).or_default() += 1;
        }
    }
    unions
}

fn last_union(list: &Peers, numbers: &Numbers) -> Option<u32> {
    let last = list.peer[list.peer.len() - 1];
    numbers.unions().contains_key(&last).then_some(last)
}

/// The peers that these sets, which are in force, name.
fn named(
    in_force: impl Iterator<Item = u32>,
    sets: &BTreeMap<u32, SetState>,
    books: &Books,
) -> BTreeSet<u32> {
    let in_force: BTreeSet<u32> = in_force.collect();
    let mut named = BTreeSet::new();
    for number in in_force {
        if let Some(compiled) = books.compiled.get(&number) {
            named.extend(compiled.named.keys());
        } else if let Some(set) = sets.get(&number) {
            named.extend(set.all_entries().map(|(key, _)| key.peer));
        }
    }
    named
}

struct Sides {
    old: BTreeSet<u32>,
    new: BTreeSet<u32>,
}

impl Sides {
    fn exact(
        &self,
        changed: Vec<(ExactKey, Option<Peers>, Option<Peers>)>,
        numbers: &mut Numbers,
    ) -> Vec<ListChange<ExactKey>> {
        let mut changes = Vec::with_capacity(changed.len());
        for (key, before, after) in changed {
            let empty = Peers::default();
            let (o, n) = (before.unwrap_or(empty), after.unwrap_or(empty));
            let list = self.between(&o, &n, numbers);
            changes.push(ListChange {
                key,
                before,
                passing: (list != empty).then_some(list),
                after,
            });
        }
        changes
    }

    fn prefixes(
        &self,
        old: &BTreeMap<PrefixKey, Peers>,
        new: &BTreeMap<PrefixKey, Peers>,
        numbers: &mut Numbers,
    ) -> Vec<ListChange<PrefixKey>> {
        let mut changes = Vec::new();
        for (key, before, after) in differing(old, new) {
            let o = before.copied().unwrap_or_else(|| around(old, key));
            let n = after.copied().unwrap_or_else(|| around(new, key));
            let list = if o == n {
                o
            } else {
                self.between(&o, &n, numbers)
            };
            changes.push(ListChange {
                key: *key,
                before: before.copied(),
                passing: (before.is_some() || list != o).then_some(list),
                after: after.copied(),
            });
        }
        changes
    }

    fn between(&self, o: &Peers, n: &Peers, numbers: &mut Numbers) -> Peers {
        let (was, is) = (peers::expand(o, numbers), peers::expand(n, numbers));
        let stay = was
            .iter()
            .filter(|peer| is.contains(peer) || !self.new.contains(peer));
        let come = is
            .iter()
            .filter(|peer| !was.contains(peer) && !self.old.contains(peer));
        let between: Vec<u32> = stay.chain(come).copied().collect();
        let same = |other: &[u32]| {
            other.len() == between.len() && other.iter().all(|peer| between.contains(peer))
        };
        if same(&was) {
            *o
        } else if same(&is) {
            *n
        } else {
            peers::list(&between, numbers)
        }
    }
}

/// The list of the longest prefix around this one.
fn around(lists: &BTreeMap<PrefixKey, Peers>, key: &PrefixKey) -> Peers {
    for bits in (0..key.prefix_len.saturating_sub(32)).rev() {
        let outer = PrefixKey {
            prefix_len: 32 + bits,
            scope_family: key.scope_family,
            address: cut(key.address, bits),
        };
        if let Some(list) = lists.get(&outer) {
            return *list;
        }
    }
    Peers::default()
}

fn cut(address: [u8; 16], bits: u32) -> [u8; 16] {
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    (u128::from_be_bytes(address) & mask).to_be_bytes()
}
