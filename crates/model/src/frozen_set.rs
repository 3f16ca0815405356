//! A set of a few things that is seldom changed, in as little memory as it can be.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;
use triomphe::ThinArc;

/// Sorted, in one allocation that all clones share; an empty one has none. One pointer in size. A change makes it anew.
#[derive(Clone, PartialEq, Eq)]
pub struct FrozenSet<T>(Option<ThinArc<(), T>>);

impl<T> FrozenSet<T> {
    pub const fn new() -> Self {
        Self(None)
    }
}

impl<T: Ord> FrozenSet<T> {
    /// Cost: a binary search.
    pub fn contains<Q: Ord + ?Sized>(&self, value: &Q) -> bool
    where
        T: Borrow<Q>,
    {
        self.binary_search_by(|known| known.borrow().cmp(value))
            .is_ok()
    }
}

impl<T: Ord + Clone> FrozenSet<T> {
    /// Whether it wasn't there.
    pub fn insert(&mut self, value: T) -> bool {
        let is_new = !self.contains(&value);
        if is_new {
            self.extend([value]);
        }
        is_new
    }

    /// Whether it was there.
    pub fn remove<Q: Ord + ?Sized>(&mut self, value: &Q) -> bool
    where
        T: Borrow<Q>,
    {
        let was_there = self.contains(value);
        if was_there {
            self.retain(|known| known.borrow() != value);
        }
        was_there
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        *self = self.iter().filter(|value| keep(value)).cloned().collect();
    }

    pub fn clear(&mut self) {
        *self = Self::new();
    }
}

impl<T> Default for FrozenSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for FrozenSet<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.0.as_ref().map_or(&[], |values| &values.slice)
    }
}

impl<T: fmt::Debug> fmt::Debug for FrozenSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<T: Ord> FromIterator<T> for FrozenSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut values = Vec::from_iter(values);
        values.sort_unstable();
        values.dedup();
        Self((!values.is_empty()).then(|| ThinArc::from_header_and_iter((), values.into_iter())))
    }
}

impl<T: Ord, const N: usize> From<[T; N]> for FrozenSet<T> {
    fn from(values: [T; N]) -> Self {
        values.into_iter().collect()
    }
}

impl<T: Ord> From<BTreeSet<T>> for FrozenSet<T> {
    fn from(values: BTreeSet<T>) -> Self {
        values.into_iter().collect()
    }
}

impl<T: Ord + Clone> Extend<T> for FrozenSet<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, values: I) {
        *self = self.iter().cloned().chain(values).collect();
    }
}

impl<'a, T> IntoIterator for &'a FrozenSet<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_set() {
        let mut set = FrozenSet::from([3, 1, 2, 1]);
        assert_eq!(*set, [1, 2, 3]);
        assert!(set.contains(&2) && !set.contains(&4));
        assert!(set.insert(4) && !set.insert(4));
        assert!(set.remove(&1) && !set.remove(&1));
        assert_eq!(*set, [2, 3, 4]);
        set.extend([0, 2]);
        assert_eq!(set, FrozenSet::from([0, 2, 3, 4]));
        set.retain(|value| *value > 2);
        assert_eq!(*set, [3, 4]);
        set.clear();
        assert_eq!(set, FrozenSet::default());
    }

    #[test]
    fn clones_share_what_is_in_it() {
        let mut set = FrozenSet::from([1, 2]);
        let clone = set.clone();
        assert!(std::ptr::eq(&raw const set[0], &raw const clone[0]));
        set.remove(&1);
        assert_eq!((&*set, &*clone), (&[2][..], &[1, 2][..]));
    }
}
