//! Which number stands for what: bridges, networks, profiles, sets of members.
//!
//! Place on the line: view -> **numbers** -> parts. Numbers are in marks and in the names of chains and
//! sets; what a number meant a moment ago, a packet on its way may still mean by it. So they are given in
//! turn, and one that was given back is the last to be given again.
//! Knows nothing of: what any of it looks like in the kernel.

use crate::found::Numbers;
use crate::mark;
use crate::render::names;
use dataplane::Target;
use model::{AddressGroupId, Family, GroupId, NetworkId, ScopeId};
use policy::PeerView;
use std::collections::{BTreeMap, BTreeSet};

/// The rules of a list of groups, with the members that they name in a scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProfileName {
    pub(crate) scope: ScopeId,
    pub(crate) groups: Vec<GroupId>,
}

/// A remote that has members.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MembersName {
    Group(ScopeId, GroupId),
    AddressGroup(AddressGroupId),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Books {
    /// By device index: a bridge that is made again under the same name is another one.
    pub(crate) bridges: Pool<u32>,
    pub(crate) networks: Pool<NetworkId>,
    pub(crate) profiles: Pool<ProfileName>,
    pub(crate) members: Pool<MembersName>,
}

/// Numbers from 1 to `most`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pool<K> {
    numbers: BTreeMap<K, u16>,
    /// In the kernel, and nobody knows for what, or it has another number by now.
    unknown: BTreeSet<u16>,
    last: u16,
    most: u16,
}

impl<K: Ord + Clone> Pool<K> {
    fn new(most: u16) -> Self {
        Self {
            numbers: BTreeMap::new(),
            unknown: BTreeSet::new(),
            last: 0,
            most,
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<u16> {
        self.numbers.get(key).copied()
    }

    /// The key's number, given now if it has none; `None` when all are given.
    pub(crate) fn give(&mut self, key: &K) -> Option<u16> {
        if let Some(number) = self.numbers.get(key) {
            return Some(*number);
        }
        let mut taken: BTreeSet<u16> = self.numbers.values().copied().collect();
        taken.extend(&self.unknown);
        if taken.len() >= usize::from(self.most) {
            return None;
        }
        let next = |number: u16| if number >= self.most { 1 } else { number + 1 };
        let mut number = next(self.last);
        while taken.contains(&number) {
            number = next(number);
        }
        self.last = number;
        self.numbers.insert(key.clone(), number);
        Some(number)
    }

    /// The key has had this number; it keeps it if neither has another one by now.
    fn take(&mut self, key: &K, number: u16) {
        let free = !self.numbers.contains_key(key) && !self.numbers.values().any(|n| *n == number);
        if free && (1..=self.most).contains(&number) {
            self.numbers.insert(key.clone(), number);
        }
    }

    /// Beside those that are given.
    pub(crate) fn has_room_for(&self, more: usize) -> bool {
        self.numbers.len() + self.unknown.len() + more <= usize::from(self.most)
    }

    /// The next numbers that are given to these keys are others than theirs, which stay taken.
    pub(crate) fn renew(&mut self, keys: &BTreeSet<K>) {
        let old = keys.iter().filter_map(|key| self.numbers.remove(key));
        self.unknown.extend(old);
    }

    /// The numbers that are used; others are free from now on.
    pub(crate) fn retain(&mut self, used: &BTreeSet<u16>) {
        self.numbers.retain(|_, number| used.contains(number));
        self.unknown.clear();
    }

    /// These were found in the kernel: what has none of its own by now gets none of them.
    pub(crate) fn avoid(&mut self, found: impl IntoIterator<Item = u16>) {
        let known: BTreeSet<u16> = self.numbers.values().copied().collect();
        let in_range = found.into_iter().filter(|n| (1..=self.most).contains(n));
        self.unknown = in_range.filter(|n| !known.contains(n)).collect();
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&K, u16)> {
        self.numbers.iter().map(|(key, number)| (key, *number))
    }

    pub(crate) fn last(&self) -> u16 {
        self.last
    }

    pub(crate) fn restore(&mut self, numbers: BTreeMap<K, u16>, last: u16) {
        self.numbers = numbers;
        self.numbers
            .retain(|_, number| (1..=self.most).contains(number));
        self.last = last.min(self.most);
    }
}

impl Default for Books {
    fn default() -> Self {
        Self {
            bridges: Pool::new((1 << mark::BRIDGE_BITS) - 1),
            networks: Pool::new(u16::MAX),
            profiles: Pool::new((1 << mark::PROFILE_BITS) - 1),
            members: Pool::new(u16::MAX),
        }
    }
}

impl MembersName {
    /// `None`: the peer has no members.
    pub(crate) fn of(scope: &ScopeId, peer: &PeerView) -> Option<Self> {
        match peer {
            PeerView::Any | PeerView::Prefix(_) => None,
            PeerView::Group(group) => Some(Self::Group(scope.clone(), group.clone())),
            PeerView::AddressGroup(group) => Some(Self::AddressGroup(group.clone())),
        }
    }
}

impl Books {
    /// From what is in the kernel: numbers that nobody knows the meaning of are not given, and bridges of
    /// which the books say nothing keep the numbers that their connections are tracked under.
    pub(crate) fn learn(&mut self, found: &Numbers, target: &Target) {
        self.profiles.avoid(found.profiles.iter().copied());
        self.members.avoid(found.members.iter().copied());
        for device in target.bridges.keys() {
            if let Some(number) = found.bridges.get(&device.ifindex) {
                self.bridges.take(&device.ifindex, *number);
            }
        }
        self.bridges.avoid(found.bridges.values().copied());
    }
}

/// The ipset with the members that have this number.
pub(crate) fn members_set(number: u16, family: Family) -> String {
    format!("pc-m{number}-{}", names::digit(family))
}

/// The conntrack zone of a bridge.
pub(crate) fn zone(bridge: u16) -> u16 {
    const FIRST: u16 = 0x5000;
    FIRST + bridge
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_kernel_for_nobody_knows_what_is_not_given() {
        let mut pool: Pool<char> = Pool::new(4);
        assert_eq!(pool.give(&'a'), Some(1));
        pool.avoid([0, 1, 2, 9]);
        assert_eq!(pool.give(&'b'), Some(3));
        assert_eq!(pool.give(&'c'), Some(4));
        assert_eq!(pool.give(&'d'), None);
        pool.retain(&BTreeSet::from([1]));
        assert_eq!(pool.give(&'d'), Some(2));
    }

    #[test]
    fn a_renewed_key_gets_another_number_and_nobody_its_own() {
        let mut pool: Pool<char> = Pool::new(3);
        assert_eq!(pool.give(&'a'), Some(1));
        assert!(pool.has_room_for(2) && !pool.has_room_for(3));
        pool.renew(&BTreeSet::from(['a', 'x']));
        assert_eq!(pool.give(&'a'), Some(2));
        assert_eq!(pool.give(&'b'), Some(3));
        assert_eq!(pool.give(&'c'), None);
        pool.retain(&BTreeSet::from([2, 3]));
        assert_eq!(pool.give(&'c'), Some(1));
    }

    #[test]
    fn numbers_are_given_in_turn_and_given_back_ones_come_last() {
        let mut pool: Pool<char> = Pool::new(3);
        let mut check = |key: char, expected: Option<u16>| assert_eq!(pool.give(&key), expected);
        check('a', Some(1));
        check('b', Some(2));
        check('a', Some(1));
        pool.retain(&BTreeSet::from([1]));
        let mut check = |key: char, expected: Option<u16>| assert_eq!(pool.give(&key), expected);
        check('c', Some(3));
        check('d', Some(2));
        check('e', None);
    }
}
