//! What the maps hold, as far as user space writes them: the "actual" of a plan, and its "desired".
//!
//! Knows nothing of: how it gets there, and what the hooks write.

use crate::layout::{
    Config, ExactKey, Peers, PolicyEntry, PolicyKey, PortRecord, PrefixKey, ReservedKey, SetRecord,
};
use crate::plan::Ending;
use crate::render::guard::{AddressBlock, NetworkBlock};
use crate::render::peers::Lists;
use crate::table::Name;
use policy::differing;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) config: Config,
    /// By slot.
    pub(crate) ports: BTreeMap<u32, InForce>,
    pub(crate) addresses: BTreeMap<u32, Arc<AddressBlock>>,
    pub(crate) networks: BTreeMap<u32, Arc<NetworkBlock>>,
    pub(crate) reserved: BTreeSet<ReservedKey>,
    pub(crate) sets: BTreeMap<u32, SetState>,
    pub(crate) lists: Lists,
    /// By ifindex.
    pub(crate) devices: BTreeMap<u32, DevicePlace>,
    /// Devices with our hooks, by ifindex.
    pub(crate) attached: BTreeSet<u32>,
    pub(crate) names: BTreeMap<u64, Name>,
}

/// What they are to hold: of what grows with this host all, of what grows with groups and networks elsewhere what
/// changes.
#[derive(Debug, Default)]
pub(crate) struct Desired {
    pub(crate) config: Config,
    pub(crate) ports: BTreeMap<u32, InForce>,
    pub(crate) addresses: BTreeMap<u32, Arc<AddressBlock>>,
    pub(crate) networks: BTreeMap<u32, Arc<NetworkBlock>>,
    pub(crate) reserved: ReservedChange,
    pub(crate) sets: BTreeMap<u32, SetState>,
    pub(crate) lists: ListChanges,
    pub(crate) devices: BTreeMap<u32, DevicePlace>,
    pub(crate) attached: BTreeSet<u32>,
    pub(crate) names: NameChange,
}

#[derive(Debug, Default)]
pub(crate) struct ReservedChange {
    pub(crate) more: BTreeSet<ReservedKey>,
    pub(crate) fewer: BTreeSet<ReservedKey>,
}

#[derive(Debug, Default)]
pub(crate) struct NameChange {
    pub(crate) put: Vec<(u64, Name)>,
    pub(crate) unused: Vec<u64>,
}

impl NameChange {
    pub(crate) fn between(old: &BTreeMap<u64, Name>, new: &BTreeMap<u64, Name>) -> Self {
        let mut change = Self::default();
        for (key, _, after) in differing(old, new) {
            match after {
                Some(name) => change.put.push((*key, *name)),
                None => change.unused.push(*key),
            }
        }
        change
    }
}

/// In order of their keys.
#[derive(Debug, Default)]
pub(crate) struct ListChanges {
    pub(crate) exact: Vec<ListChange<ExactKey>>,
    pub(crate) prefixes: Vec<ListChange<PrefixKey>>,
}

/// An address's list, also while ports switch. `None`: it has none.
#[derive(Debug)]
pub(crate) struct ListChange<K> {
    pub(crate) key: K,
    pub(crate) before: Option<Peers>,
    pub(crate) passing: Option<Peers>,
    pub(crate) after: Option<Peers>,
}

impl ListChanges {
    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty()
    }
}

impl Contents {
    /// What a plan has made of them.
    pub(crate) fn advance(&mut self, desired: Desired, ending: Ending) {
        let Desired {
            config: _,
            ports,
            addresses,
            networks,
            reserved,
            sets,
            lists,
            devices,
            attached,
            names,
        } = desired;
        self.config = ending.config;
        self.ports = ports;
        for (slot, port) in &mut self.ports {
            port.index = ending.indices.get(slot).copied().unwrap_or(0);
        }
        self.addresses = addresses;
        self.networks = networks;
        self.reserved.extend(reserved.more);
        for key in &reserved.fewer {
            self.reserved.remove(key);
        }
        self.sets = sets;
        put(&mut self.lists.exact, lists.exact);
        put(&mut self.lists.prefixes, lists.prefixes);
        self.devices = devices;
        self.attached = attached;
        self.names.extend(names.put);
        for key in &names.unused {
            self.names.remove(key);
        }
    }

    /// What of this isn't as in the other, in words.
    pub(crate) fn differing_parts(&self, other: &Self) -> Vec<&'static str> {
        let parts = [
            (self.config == other.config, "the settings"),
            (self.ports == other.ports, "records of ports"),
            (self.addresses == other.addresses, "addresses of ports"),
            (self.networks == other.networks, "addresses of networks"),
            (self.reserved == other.reserved, "reserved addresses"),
            (self.sets == other.sets, "rules"),
            (self.lists == other.lists, "members"),
            (self.devices == other.devices, "entries of devices"),
            (self.attached == other.attached, "hooks"),
            (self.names == other.names, "names of numbers"),
        ];
        let differing = parts.into_iter().filter(|(same, _)| !same);
        differing.map(|(_, part)| part).collect()
    }
}

fn put<K: Ord>(lists: &mut BTreeMap<K, Peers>, changes: Vec<ListChange<K>>) {
    for change in changes {
        match change.after {
            Some(list) => lists.insert(change.key, list),
            None => lists.remove(&change.key),
        };
    }
}

/// A slot's record in force, and which of the four it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InForce {
    pub(crate) index: u32,
    pub(crate) record: PortRecord,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DevicePlace {
    pub(crate) slot: u32,
    /// In `devices_more`, as another device has its place in `devices`.
    pub(crate) more: bool,
}

pub(crate) type PolicyEntries = Vec<(PolicyKey, PolicyEntry)>;

/// A set with all that is keyed by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetState {
    pub(crate) record: SetRecord,
    pub(crate) entries: Arc<PolicyEntries>,
    /// By the union's number.
    pub(crate) unions: BTreeMap<u32, Arc<PolicyEntries>>,
}

impl SetState {
    pub(crate) fn all_entries(&self) -> impl Iterator<Item = &(PolicyKey, PolicyEntry)> {
        let unions = self.unions.values().flat_map(|entries| entries.iter());
        self.entries.iter().chain(unions)
    }
}

/// Free places of an array, handed out in runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Space {
    /// Start -> length, never touching.
    free: BTreeMap<u32, u32>,
    /// Nothing from here on was ever handed out.
    untouched: u32,
}

impl Space {
    pub(crate) fn new(length: u32) -> Self {
        Self {
            free: BTreeMap::from([(0, length)]),
            untouched: 0,
        }
    }

    pub(crate) fn take(&mut self, length: u32) -> Option<u32> {
        if length == 0 {
            return Some(0);
        }
        let (start, room) = self.free.iter().find(|(_, room)| **room >= length)?;
        let (start, room) = (*start, *room);
        self.free.remove(&start);
        if room > length {
            self.free.insert(start + length, room - length);
        }
        self.untouched = self.untouched.max(start + length);
        Some(start)
    }

    pub(crate) fn give(&mut self, start: u32, length: u32) {
        if length == 0 {
            return;
        }
        let (mut start, mut length) = (start, length);
        if let Some((before, room)) = self.free.range(..start).next_back()
            && before + room == start
        {
            (start, length) = (*before, room + length);
        }
        if let Some(room) = self.free.remove(&(start + length)) {
            length += room;
        }
        self.free.insert(start, length);
    }

    /// Takes just this run out of what is free.
    pub(crate) fn claim(&mut self, start: u32, length: u32) {
        let Some((from, room)) = self.free.range(..=start).next_back() else {
            return;
        };
        let (from, room) = (*from, *room);
        if length == 0 || from + room < start + length {
            return;
        }
        self.free.remove(&from);
        if start > from {
            self.free.insert(from, start - from);
        }
        if from + room > start + length {
            self.free
                .insert(start + length, from + room - start - length);
        }
        self.untouched = self.untouched.max(start + length);
    }

    pub(crate) fn untouched(&self) -> u32 {
        self.untouched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_that_is_given_back_grows_together() {
        let mut space = Space::new(100);
        let runs = [space.take(40), space.take(40), space.take(40)];
        assert_eq!(runs, [Some(0), Some(40), None]);
        space.give(0, 40);
        space.give(40, 40);
        assert_eq!((space.untouched(), space.take(100)), (80, Some(0)));
        assert_eq!((space.take(1), space.take(0)), (None, Some(0)));
    }

    #[test]
    fn space_that_is_claimed_is_not_handed_out() {
        let mut space = Space::new(100);
        space.claim(10, 5);
        assert_eq!((space.take(20), space.take(10)), (Some(15), Some(0)));
    }
}
