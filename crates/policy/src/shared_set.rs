//! A set in order whose copies share what is the same in them: a copy with one thing more costs a little, whatever is
//! in it, and so does finding where the two differ.
//!
//! ```text
//! chunks   [a b c d] [e f g] [h i j k l]      each on its own in memory, none empty, all in order
//! copy        same   [e f g g']   same
//! ```
//! Two sets are equal by what is in them, however it is cut.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

#[derive(Clone)]
pub struct SharedSet<T> {
    chunks: Vec<Arc<Vec<T>>>,
    len: usize,
}

/// More in a chunk are cut in two; two that are as small as this together become one.
const MOST: usize = 128;
const FEW: usize = 32;

impl<T> SharedSet<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }
}

impl<T: Ord> SharedSet<T> {
    pub fn contains(&self, thing: &T) -> bool {
        let chunk = self.chunk_of(thing).map(|at| &self.chunks[at]);
        chunk.is_some_and(|chunk| chunk.binary_search(thing).is_ok())
    }

    /// The last one that is at or before this.
    pub fn last_up_to(&self, thing: &T) -> Option<&T> {
        let chunk = &self.chunks[self.chunk_of(thing)?];
        let behind = chunk.partition_point(|known| known <= thing);
        // The chunk begins at or before it.
        Some(&chunk[behind - 1])
    }

    /// Those that are behind the first, up to the second.
    pub fn between(&self, first: T, last: T) -> impl Iterator<Item = &T> {
        let from = self.chunk_of(&first).unwrap_or(0);
        let all = self.chunks[from..].iter().flat_map(|chunk| chunk.iter());
        let behind = all.skip_while(move |thing| **thing <= first);
        behind.take_while(move |thing| **thing <= last)
    }

    /// What is in this one only.
    pub fn difference<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a T> {
        let mut both = Both::new(self, other);
        std::iter::from_fn(move || {
            loop {
                if let (Some(ours), Ordering::Less) = both.next()? {
                    return Some(ours);
                }
            }
        })
    }

    /// The chunk that it is in, or would be: the last one that begins at or before it.
    fn chunk_of(&self, thing: &T) -> Option<usize> {
        let behind = self.chunks.partition_point(|chunk| chunk[0] <= *thing);
        behind.checked_sub(1)
    }
}

impl<T: Ord + Clone> SharedSet<T> {
    /// `false`: it was there.
    pub fn insert(&mut self, thing: T) -> bool {
        let at = self.chunk_of(&thing).unwrap_or(0);
        let Some(chunk) = self.chunks.get_mut(at) else {
            self.chunks.push(Arc::new(vec![thing]));
            self.len = 1;
            return true;
        };
        let Err(place) = chunk.binary_search(&thing) else {
            return false;
        };
        let things = Arc::make_mut(chunk);
        things.insert(place, thing);
        if things.len() > MOST {
            let rest = things.split_off(MOST / 2);
            self.chunks.insert(at + 1, Arc::new(rest));
        }
        self.len += 1;
        true
    }

    /// `false`: it wasn't there.
    pub fn remove(&mut self, thing: &T) -> bool {
        let Some(at) = self.chunk_of(thing) else {
            return false;
        };
        let Ok(place) = self.chunks[at].binary_search(thing) else {
            return false;
        };
        Arc::make_mut(&mut self.chunks[at]).remove(place);
        self.len -= 1;
        if self.chunks[at].is_empty() {
            self.chunks.remove(at);
        } else {
            self.unite(at);
            self.unite(at.saturating_sub(1));
        }
        true
    }

    /// A chunk with the one behind it, if both are small.
    fn unite(&mut self, at: usize) {
        if let [ours, next, ..] = &self.chunks[at..]
            && ours.len() + next.len() <= FEW
        {
            let next = self.chunks.remove(at + 1);
            Arc::make_mut(&mut self.chunks[at]).extend(next.iter().cloned());
        }
    }
}

/// Walks over two sets in order, past the chunks that they share.
struct Both<'a, T> {
    sides: [Side<'a, T>; 2],
}

struct Side<'a, T> {
    chunks: &'a [Arc<Vec<T>>],
    /// In the first of them.
    at: usize,
}

impl<'a, T> Side<'a, T> {
    fn peek(&self) -> Option<&'a T> {
        self.chunks.first().map(|chunk| &chunk[self.at])
    }

    fn step(&mut self) {
        self.at += 1;
        if self.at == self.chunks[0].len() {
            self.chunks = &self.chunks[1..];
            self.at = 0;
        }
    }
}

impl<'a, T: Ord> Both<'a, T> {
    fn new(one: &'a SharedSet<T>, other: &'a SharedSet<T>) -> Self {
        let side = |set: &'a SharedSet<T>| Side {
            chunks: &set.chunks,
            at: 0,
        };
        Self {
            sides: [side(one), side(other)],
        }
    }

    /// The next thing of the first set, if it is at or before the other's, and how it stands to that.
    fn next(&mut self) -> Option<(Option<&'a T>, Ordering)> {
        let [one, other] = &mut self.sides;
        while let ([ours, ..], [theirs, ..]) = (one.chunks, other.chunks)
            && one.at == 0
            && other.at == 0
            && Arc::ptr_eq(ours, theirs)
        {
            one.chunks = &one.chunks[1..];
            other.chunks = &other.chunks[1..];
        }
        let order = match (one.peek(), other.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(ours), Some(theirs)) => ours.cmp(theirs),
        };
        let ours = one.peek().filter(|_| order.is_le());
        if order.is_le() {
            one.step();
        }
        if order.is_ge() {
            other.step();
        }
        Some((ours, order))
    }
}

impl<T: Ord> PartialEq for SharedSet<T> {
    fn eq(&self, other: &Self) -> bool {
        let mut both = Both::new(self, other);
        self.len == other.len
            && std::iter::from_fn(|| both.next()).all(|(_, order)| order == Ordering::Equal)
    }
}

impl<T: Ord> Eq for SharedSet<T> {}

impl<T: Hash> Hash for SharedSet<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.len.hash(state);
        self.iter().for_each(|thing| thing.hash(state));
    }
}

impl<T> Default for SharedSet<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            len: 0,
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for SharedSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<T: Ord + Clone> FromIterator<T> for SharedSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(things: I) -> Self {
        let mut all: Vec<T> = things.into_iter().collect();
        all.sort();
        all.dedup();
        let chunks = all.chunks(MOST / 2);
        Self {
            chunks: chunks.map(|chunk| Arc::new(chunk.to_vec())).collect(),
            len: all.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn check(set: &SharedSet<u16>, expected: &BTreeSet<u16>) {
        assert!(set.iter().eq(expected));
        assert_eq!(set.len(), expected.len());
        assert_eq!(set.is_empty(), expected.is_empty());
        assert!(
            set.chunks
                .iter()
                .all(|chunk| !chunk.is_empty() && chunk.len() <= MOST)
        );
        assert_eq!(*set, expected.iter().copied().collect());
    }

    proptest! {
        #[test]
        fn it_is_a_set(
            first in proptest::collection::vec(0..2_000u16, 0..600),
            then in proptest::collection::vec((0..2_000u16, any::<bool>()), 0..600),
            (from, to) in (0..2_000u16, 0..2_000u16),
        ) {
            let mut set: SharedSet<u16> = first.iter().copied().collect();
            let mut expected: BTreeSet<u16> = first.into_iter().collect();
            let (before, expected_before) = (set.clone(), expected.clone());
            check(&set, &expected);
            for (thing, comes) in then {
                prop_assert_eq!(set.contains(&thing), expected.contains(&thing));
                if comes {
                    prop_assert_eq!(set.insert(thing), expected.insert(thing));
                } else {
                    prop_assert_eq!(set.remove(&thing), expected.remove(&thing));
                }
            }
            check(&set, &expected);
            check(&before, &expected_before);
            prop_assert!(set.difference(&before).eq(expected.difference(&expected_before)));
            prop_assert!(before.difference(&set).eq(expected_before.difference(&expected)));
            prop_assert_eq!(set == before, expected == expected_before);
            prop_assert_eq!(set.last_up_to(&from), expected.range(..=from).next_back());
            let behind = expected.iter().filter(|thing| (from + 1..=to).contains(thing));
            prop_assert!(set.between(from, to).eq(behind));
        }
    }

    #[test]
    fn what_is_left_of_many_takes_little_room() {
        let mut set: SharedSet<u16> = (0..10_000).collect();
        for thing in (0..10_000).filter(|n| n % 100 != 0) {
            set.remove(&thing);
        }
        assert_eq!(set.len(), 100);
        assert!(set.chunks.len() <= 20, "{} chunks", set.chunks.len());
    }
}
