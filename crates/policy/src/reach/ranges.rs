//! Sets of numbers as ranges: what addresses and kinds of flows are, to reach.

use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Disjoint ranges in order, both ends included, none next to another: equal sets have one form.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ranges(Vec<(u128, u128)>);

impl FromIterator<(u128, u128)> for Ranges {
    fn from_iter<I: IntoIterator<Item = (u128, u128)>>(ranges: I) -> Self {
        let mut ranges: Vec<(u128, u128)> = ranges.into_iter().collect();
        ranges.sort_unstable();
        ranges.dedup_by(|(first, last), (_, end)| {
            let joins = end.checked_add(1).is_none_or(|next| *first <= next);
            if joins {
                *end = (*end).max(*last);
            }
            joins
        });
        Self(ranges)
    }
}

impl Ranges {
    pub(crate) fn one(first: u128, last: u128) -> Self {
        Self(vec![(first, last)])
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u128, u128)> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains(&self, number: u128) -> bool {
        let after = self.0.partition_point(|(_, last)| *last < number);
        self.0.get(after).is_some_and(|(first, _)| *first <= number)
    }

    pub(crate) fn union<'a>(sets: impl IntoIterator<Item = &'a Ranges>) -> Self {
        sets.into_iter().flat_map(Ranges::iter).collect()
    }

    /// Cost: in the smaller set, and the logarithm of the larger.
    pub(crate) fn intersection(&self, other: &Ranges) -> Self {
        Self(self.overlaps(other).collect())
    }

    pub(crate) fn meets(&self, other: &Ranges) -> bool {
        self.overlaps(other).next().is_some()
    }

    /// In order, and none next to another, as the ranges of each set aren't.
    fn overlaps<'a>(&'a self, other: &'a Ranges) -> impl Iterator<Item = (u128, u128)> + 'a {
        let (few, many) = match self.len().cmp(&other.len()) {
            Ordering::Less | Ordering::Equal => (self, other),
            Ordering::Greater => (other, self),
        };
        few.iter().flat_map(move |(first, last)| {
            let start = many.0.partition_point(|(_, end)| *end < first);
            let within = many.0[start..]
                .iter()
                .take_while(move |(from, _)| *from <= last);
            within.map(move |(from, end)| (first.max(*from), last.min(*end)))
        })
    }

    pub(crate) fn without(&self, other: &Ranges) -> Self {
        let mut left = Vec::new();
        for (first, last) in self.iter() {
            let mut next = Some(first);
            let within = Self::one(first, last);
            for (from, end) in within.overlaps(other) {
                if let Some(open) = next.filter(|open| *open < from) {
                    left.push((open, from - 1));
                }
                next = end.checked_add(1).filter(|next| *next <= last);
            }
            left.extend(next.map(|open| (open, last)));
        }
        Self(left)
    }

    /// Where membership in one of the sets changes: the first number of each stretch in which it doesn't, and the
    /// sets that such a stretch is in. What is in none is left out.
    pub(crate) fn stretches(sets: &[Ranges]) -> Vec<((u128, u128), BTreeSet<usize>)> {
        let mut turns: Vec<(u128, bool, usize)> = Vec::new();
        for (index, set) in sets.iter().enumerate() {
            for (first, last) in set.iter() {
                turns.push((first, true, index));
                turns.extend(last.checked_add(1).map(|next| (next, false, index)));
            }
        }
        turns.sort_unstable();
        let mut stretches = Vec::new();
        let mut inside = BTreeSet::new();
        let mut turns = turns.into_iter().peekable();
        while let Some((at, enters, index)) = turns.next() {
            match enters {
                true => inside.insert(index),
                false => inside.remove(&index),
            };
            let next = turns.peek().map(|(next, ..)| *next);
            if next != Some(at) && !inside.is_empty() {
                let last = next.map_or(u128::MAX, |next| next - 1);
                stretches.push(((at, last), inside.clone()));
            }
        }
        stretches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(u128, u128)]) -> Ranges {
        ranges.iter().copied().collect()
    }

    /// Sets of numbers below 12, as the bits of a number.
    fn of_bits(bits: u16) -> Ranges {
        let numbers = (0..12).filter(|n| bits & (1 << n) != 0);
        numbers.map(|n| (n, n)).collect()
    }

    #[test]
    fn equal_sets_have_one_form() {
        let check = |given: &[(u128, u128)], expected: &[(u128, u128)]| {
            assert_eq!(set(given).iter().collect::<Vec<_>>(), expected);
        };
        check(&[], &[]);
        check(&[(5, 9), (0, 4)], &[(0, 9)]);
        check(&[(0, 4), (6, 9)], &[(0, 4), (6, 9)]);
        check(&[(0, 9), (2, 3), (10, 10)], &[(0, 10)]);
        check(&[(7, u128::MAX), (0, 8)], &[(0, u128::MAX)]);
    }

    #[test]
    fn sets_are_what_their_numbers_say() {
        for a in (0..1 << 12).step_by(7) {
            for b in (0..1 << 12).step_by(61) {
                let (left, right) = (of_bits(a), of_bits(b));
                assert_eq!(left.intersection(&right), of_bits(a & b));
                assert_eq!(left.without(&right), of_bits(a & !b));
                assert_eq!(Ranges::union([&left, &right]), of_bits(a | b));
                assert_eq!(left.meets(&right), a & b != 0);
            }
        }
        assert!(of_bits(0b100).contains(2) && !of_bits(0b100).contains(3));
    }

    #[test]
    fn the_ends_of_all_numbers_are_numbers() {
        let all = set(&[(0, u128::MAX)]);
        let middle = set(&[(1, u128::MAX - 1)]);
        assert_eq!(all.without(&middle), set(&[(0, 0), (u128::MAX, u128::MAX)]));
        assert_eq!(middle.without(&all), set(&[]));
        assert_eq!(all.intersection(&middle), middle);
    }

    #[test]
    fn stretches_are_where_the_same_sets_hold() {
        let sets = [set(&[(0, 9)]), set(&[(5, 5), (9, u128::MAX)])];
        let found: Vec<_> = Ranges::stretches(&sets)
            .into_iter()
            .map(|(stretch, inside)| (stretch, inside.into_iter().collect::<Vec<_>>()))
            .collect();
        let expected = [
            ((0, 4), vec![0]),
            ((5, 5), vec![0, 1]),
            ((6, 8), vec![0]),
            ((9, 9), vec![0, 1]),
            ((10, u128::MAX), vec![1]),
        ];
        assert_eq!(found, expected);
    }
}
