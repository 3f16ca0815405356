//! Walks over remote addresses in order, and asks once for each class of them that it meets.
//!
//! A class is a set of prefixes that contain the address. Prefixes nest, so what contains the place
//! where the walk stands is a stack. Only addresses that are there are asked for: a prefix whose
//! parts fill it has no address of its own.

use super::coverage::{BothWays, Coverage, Kinds, some_only_in};
use crate::prefix_set;
use model::{Elision, Family, Prefix};
use std::collections::{HashMap, HashSet};

/// One policy, as far as the question goes.
pub(super) struct Side {
    pub(super) mode: Elision,
    /// In the order of `Direction::BOTH`.
    pub(super) slots: [Slot; 2],
}

/// What rules of one direction cover, and for which remotes.
#[derive(Default)]
pub(super) struct Slot {
    everywhere_v4: Coverage,
    everywhere_v6: Coverage,
    places: Vec<(Prefix, u32)>,
    coverages: Vec<Coverage>,
    known: HashMap<Coverage, u32>,
}

impl Slot {
    pub(super) fn everywhere(&mut self, family: Family, coverage: Coverage) {
        match family {
            Family::V4 => self.everywhere_v4 = coverage,
            Family::V6 => self.everywhere_v6 = coverage,
        }
    }

    pub(super) fn at(&mut self, places: Vec<Prefix>, coverage: Coverage) {
        let next = u32::try_from(self.coverages.len()).expect("fewer coverages than rules");
        let id = *self.known.entry(coverage.clone()).or_insert(next);
        if id == next {
            self.coverages.push(coverage);
        }
        self.places.extend(places.into_iter().map(|p| (p, id)));
    }

    fn of_family(&self, family: Family) -> &Coverage {
        match family {
            Family::V4 => &self.everywhere_v4,
            Family::V6 => &self.everywhere_v6,
        }
    }
}

/// What a place adds: to the slot of a side and a direction, one of its coverages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Part(u32);

impl Part {
    /// In the upper bits which of the four slots, in the others which coverage.
    fn new(side: usize, direction: usize, coverage: u32) -> Self {
        let slot = u32::try_from(side * 2 + direction).expect("two sides, two directions");
        assert!(
            coverage < 1 << 30,
            "as many different coverages as no memory can hold"
        );
        Self(slot << 30 | coverage)
    }

    fn is_of(self, side: usize, direction: usize) -> bool {
        (self.0 >> 30) as usize == side * 2 + direction
    }

    fn coverage(self) -> usize {
        (self.0 & ((1 << 30) - 1)) as usize
    }
}

struct Place {
    first: u128,
    last: u128,
    /// `None`: one of the places that the walk is about.
    part: Option<Part>,
}

/// Whether at some of these places a flow is elidable under the first side and not under the second.
pub(super) fn some_flow_only_in_first(
    sides: &[Side; 2],
    affected: &[Prefix],
    kinds: Kinds,
) -> bool {
    Family::BOTH.into_iter().any(|family| {
        let places = places(sides, affected, family);
        let mut asked: HashSet<Vec<Part>> = HashSet::new();
        let (mut class, mut last): (Vec<Part>, Option<Vec<Part>>) = (Vec::new(), None);
        walk(places, |stack| {
            class.clear();
            class.extend(stack.iter().filter_map(|place| place.part));
            class.sort_unstable();
            class.dedup();
            // Most neighbours are alike.
            if last.as_ref() == Some(&class) {
                return false;
            }
            last = Some(class.clone());
            asked.insert(class.clone()) && class_only_in_first(sides, family, &class, kinds)
        })
    })
}

fn places(sides: &[Side; 2], affected: &[Prefix], family: Family) -> Vec<Place> {
    let mut places = Vec::new();
    let mut add = |prefix: &Prefix, part| {
        if prefix.family() == family {
            let (first, last) = prefix_set::bounds(prefix);
            places.push(Place { first, last, part });
        }
    };
    for prefix in affected {
        add(prefix, None);
    }
    for (s, side) in sides.iter().enumerate() {
        for (d, slot) in side.slots.iter().enumerate() {
            for (prefix, coverage) in &slot.places {
                add(prefix, Some(Part::new(s, d, *coverage)));
            }
        }
    }
    // Outer before inner. The sets come in this order, which a stable sort makes use of.
    places.sort_by_key(|place| (place.first, u128::MAX - place.last));
    places
}

/// Calls `ask` with what contains an address, at least once for each different answer there is to
/// that; stops at the first true.
fn walk(places: Vec<Place>, mut ask: impl FnMut(&[Place]) -> bool) -> bool {
    let mut stack: Vec<Place> = Vec::new();
    // The first address not asked for yet; `None` behind the last one.
    let mut next = Some(0);
    for place in places {
        if leave(&mut stack, &mut next, Some(place.first), &mut ask) {
            return true;
        }
        if !stack.is_empty() && next.is_some_and(|next| next < place.first) && ask(&stack) {
            return true;
        }
        next = Some(place.first);
        stack.push(place);
    }
    leave(&mut stack, &mut next, None, &mut ask)
}

/// Leaves the places that end before this address; `None`: all.
fn leave(
    stack: &mut Vec<Place>,
    next: &mut Option<u128>,
    before: Option<u128>,
    ask: &mut impl FnMut(&[Place]) -> bool,
) -> bool {
    while let Some(top) = stack.last() {
        let last = top.last;
        if before.is_some_and(|before| last >= before) {
            return false;
        }
        if next.is_some_and(|next| next <= last) && ask(stack) {
            return true;
        }
        *next = last.checked_add(1);
        stack.pop();
    }
    false
}

fn class_only_in_first(sides: &[Side; 2], family: Family, class: &[Part], kinds: Kinds) -> bool {
    let both_ways = |s: usize| -> BothWays {
        std::array::from_fn(|d| {
            let slot = &sides[s].slots[d];
            let here = class.iter().filter(|part| part.is_of(s, d));
            let here = here.map(|part| &slot.coverages[part.coverage()]);
            Coverage::union(here.chain([slot.of_family(family)]))
        })
    };
    let elides = |s: usize, covered: &BothWays| match sides[s].mode {
        Elision::On => true,
        Elision::Off => false,
        // Errors may come in from any source, and go out to this class.
        Elision::Strict => {
            let from_anywhere = sides[s].slots[0].of_family(family);
            from_anywhere.has_all_errors(family) && covered[1].has_all_errors(family)
        }
    };
    let first = both_ways(0);
    if !elides(0, &first) {
        return false;
    }
    let second = both_ways(1);
    let second = match elides(1, &second) {
        true => second,
        false => BothWays::default(),
    };
    some_only_in(&first, &second, kinds)
}
