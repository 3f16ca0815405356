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
use super::peers::{self, Lists};
use crate::contents::{Contents, SetState, merge_sorted};
use crate::layout::{ExactKey, Peers, PrefixKey};
use crate::numbers::Numbers;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Also fills in the desired sets.
pub(crate) fn pass(
    actual: &Contents,
    desired: &mut Contents,
    books: &mut Books,
    new: &mut New,
) -> (Arc<Lists>, BTreeMap<u32, SetState>) {
    let old_named = named(actual, &actual.sets, books);
    let new_named = named(desired, &new.sets, books);
    let passing = if actual.lists == desired.lists {
        desired.lists = Arc::clone(&actual.lists);
        Arc::clone(&actual.lists)
    } else {
        let sides = Sides {
            old: &old_named,
            new: &new_named,
        };
        Arc::new(Lists {
            exact: sides.exact(
                &actual.lists.exact,
                &desired.lists.exact,
                &mut books.numbers,
            ),
            prefixes: sides.prefixes(
                &actual.lists.prefixes,
                &desired.lists.prefixes,
                &mut books.numbers,
            ),
        })
    };
    let stay = unions_in(&desired.lists, &books.numbers);
    let mut pass = unions_in(&passing, &books.numbers);
    pass.extend(unions_in(&actual.lists, &books.numbers));
    pass.extend(stay.iter().copied());
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
            set.unions.retain(|union, _| stay.contains(union));
            desired.sets.insert(*number, set);
        }
    }
    (passing, passing_sets)
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

/// The unions that lists end in.
pub(crate) fn unions_in(lists: &Lists, numbers: &Numbers) -> BTreeSet<u32> {
    let exact = lists.exact.iter().map(|(_, peers)| peers);
    let prefixes = lists.prefixes.iter().map(|(_, peers)| peers);
    let last = exact
        .chain(prefixes)
        .map(|peers| peers.peer[peers.peer.len() - 1]);
    last.filter(|peer| numbers.unions().contains_key(peer))
        .collect()
}

/// The peers that the sets in force name.
fn named(contents: &Contents, more: &BTreeMap<u32, SetState>, books: &Books) -> BTreeSet<u32> {
    let in_force: BTreeSet<u32> = contents
        .ports
        .values()
        .map(|port| port.record.set)
        .collect();
    let mut named = BTreeSet::new();
    for number in in_force {
        if let Some(compiled) = books.compiled.get(&number) {
            named.extend(compiled.named.keys());
        } else if let Some(set) = contents.sets.get(&number).or_else(|| more.get(&number)) {
            named.extend(set.all_entries().map(|(key, _)| key.peer));
        }
    }
    named
}

struct Sides<'a> {
    old: &'a BTreeSet<u32>,
    new: &'a BTreeSet<u32>,
}

impl Sides<'_> {
    fn exact(
        &self,
        old: &[(ExactKey, Peers)],
        new: &[(ExactKey, Peers)],
        numbers: &mut Numbers,
    ) -> Vec<(ExactKey, Peers)> {
        let mut passing = Vec::with_capacity(new.len());
        for (key, before, after) in merge_sorted(old, new) {
            let empty = Peers::default();
            let (o, n) = (before.unwrap_or(&empty), after.unwrap_or(&empty));
            let list = if o == n {
                *o
            } else {
                self.between(o, n, numbers)
            };
            if list != empty {
                passing.push((*key, list));
            }
        }
        passing
    }

    fn prefixes(
        &self,
        old: &[(PrefixKey, Peers)],
        new: &[(PrefixKey, Peers)],
        numbers: &mut Numbers,
    ) -> Vec<(PrefixKey, Peers)> {
        let mut passing = Vec::with_capacity(new.len());
        for (key, before, after) in merge_sorted(old, new) {
            let o = before.copied().unwrap_or_else(|| around(old, key));
            let n = after.copied().unwrap_or_else(|| around(new, key));
            let list = if o == n {
                o
            } else {
                self.between(&o, &n, numbers)
            };
            if before.is_some() || list != o {
                passing.push((*key, list));
            }
        }
        passing
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
fn around(lists: &[(PrefixKey, Peers)], key: &PrefixKey) -> Peers {
    for bits in (0..key.prefix_len.saturating_sub(32)).rev() {
        let outer = PrefixKey {
            prefix_len: 32 + bits,
            scope_family: key.scope_family,
            address: cut(key.address, bits),
        };
        if let Ok(at) = lists.binary_search_by_key(&outer, |(key, _)| *key) {
            return lists[at].1;
        }
    }
    Peers::default()
}

fn cut(address: [u8; 16], bits: u32) -> [u8; 16] {
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    (u128::from_be_bytes(address) & mask).to_be_bytes()
}
