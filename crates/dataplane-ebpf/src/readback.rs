//! What the kernel holds, read back: after a restart, and after a step that failed.
//!
//! Place on the line: kernel -> **readback** -> actual. Everything is in the maps, the numbers'
//! names too; only what sets were compiled from is not, and comes back with the next view.

use crate::attach::Hook;
use crate::contents::{Contents, DevicePlace, InForce, PolicyEntries, SetState};
use crate::layout::PORT_RECORDS;
use crate::numbers::Numbers;
use crate::object::Object;
use crate::render::books::{Books, Limits};
use crate::render::guard::{AddressBlock, NetworkBlock};
use crate::render::peers::Lists;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

pub(crate) fn limits(object: &Object) -> Limits {
    let tables = &object.tables;
    Limits {
        ports: tables.port_index.max_entries(),
        sets: tables.sets.max_entries(),
        policy: tables.policy.max_entries(),
        ranges: tables.ranges.max_entries(),
        rules: tables.rule_stats.max_entries(),
        members: tables.exact.max_entries(),
        flows: tables.flows.max_entries(),
    }
}

pub(crate) fn read(object: &Object, hook: Hook) -> io::Result<(Contents, Books)> {
    let tables = &object.tables;
    let names = tables.names.entries_in_batches()?;
    let numbers = Numbers::read(&names);
    let mut books = Books::new(limits(object), numbers);
    let mut contents = Contents {
        config: tables.config.get(&0)?.unwrap_or_default(),
        ports: ports(object)?,
        addresses: addresses(object)?,
        networks: networks(object)?,
        reserved: tables
            .reserved
            .entries_in_batches()?
            .into_iter()
            .map(|(key, _)| key)
            .collect(),
        sets: sets(object, &books.numbers)?,
        lists: lists(object)?,
        devices: devices(object)?,
        names: names.into_iter().collect(),
        ..Contents::default()
    };
    contents.attached = hook.attached(object, &contents.devices.keys().copied().collect())?;
    for set in contents.sets.values() {
        books.rules.claim(set.record.rule_base, set.record.rules);
        let runs = set.all_entries().filter(|(_, entry)| entry.count > 1);
        runs.for_each(|(_, entry)| books.ranges.claim(entry.base, entry.count));
    }
    Ok((contents, books))
}

fn ports(object: &Object) -> io::Result<BTreeMap<u32, InForce>> {
    let tables = &object.tables;
    let mut ports = BTreeMap::new();
    for (slot, index) in tables.port_index.entries_in_batches()? {
        let place = slot * PORT_RECORDS + index % PORT_RECORDS;
        let record = tables.ports.get(&place)?.unwrap_or_default();
        if record.number != 0 {
            ports.insert(slot, InForce { index, record });
        }
    }
    Ok(ports)
}

fn addresses(object: &Object) -> io::Result<BTreeMap<u32, Arc<AddressBlock>>> {
    let tables = &object.tables;
    let mut blocks: BTreeMap<u32, AddressBlock> = BTreeMap::new();
    for (key, _) in tables.own.entries()? {
        blocks.entry(key.addresses).or_default().own.insert(key);
    }
    for (key, mac) in tables.macs.entries_in_batches()? {
        blocks
            .entry(key.addresses)
            .or_default()
            .macs
            .insert(key, mac);
    }
    Ok(shared(blocks))
}

fn networks(object: &Object) -> io::Result<BTreeMap<u32, Arc<NetworkBlock>>> {
    let tables = &object.tables;
    let mut blocks: BTreeMap<u32, NetworkBlock> = BTreeMap::new();
    for (key, _) in tables.net_addresses.entries_in_batches()? {
        blocks.entry(key.network).or_default().addresses.insert(key);
    }
    for (key, _) in tables.subnets.entries()? {
        blocks.entry(key.network).or_default().subnets.insert(key);
    }
    Ok(shared(blocks))
}

fn shared<T>(blocks: BTreeMap<u32, T>) -> BTreeMap<u32, Arc<T>> {
    blocks
        .into_iter()
        .map(|(number, block)| (number, Arc::new(block)))
        .collect()
}

/// A set whose record is empty was being written, or removed: its entries are to go.
fn sets(object: &Object, numbers: &Numbers) -> io::Result<BTreeMap<u32, SetState>> {
    let tables = &object.tables;
    let mut entries: BTreeMap<u32, BTreeMap<Option<u32>, PolicyEntries>> = BTreeMap::new();
    for (key, entry) in tables.policy.entries_in_batches()? {
        let union = numbers.is_union(key.peer).then_some(key.peer);
        let of_set = entries.entry(key.set).or_default();
        of_set.entry(union).or_default().push((key, entry));
    }
    let mut sets = BTreeMap::new();
    for (number, record) in tables.sets.entries_in_batches()? {
        let parts = entries.remove(&number).unwrap_or_default();
        if parts.is_empty() && record.digest == [0; 2] {
            continue;
        }
        let mut state = SetState {
            record,
            entries: Arc::default(),
            unions: BTreeMap::new(),
        };
        for (union, mut entries) in parts {
            entries.sort_unstable_by_key(|(key, _)| *key);
            match union {
                None => state.entries = Arc::new(entries),
                Some(union) => {
                    state.unions.insert(union, Arc::new(entries));
                }
            }
        }
        sets.insert(number, state);
    }
    Ok(sets)
}

fn lists(object: &Object) -> io::Result<Lists> {
    let tables = &object.tables;
    Ok(Lists {
        exact: tables.exact.entries_in_batches()?.into_iter().collect(),
        prefixes: tables.prefixes.entries()?.into_iter().collect(),
    })
}

fn devices(object: &Object) -> io::Result<BTreeMap<u32, DevicePlace>> {
    let tables = &object.tables;
    let first = tables.devices.entries_in_batches()?.into_iter();
    let first = first.filter(|(_, device)| device.ifindex != 0);
    let first = first.map(|(_, device)| {
        let place = DevicePlace {
            slot: device.slot,
            more: false,
        };
        (device.ifindex, place)
    });
    let more = tables.devices_more.entries_in_batches()?.into_iter();
    let more = more.map(|(ifindex, slot)| (ifindex, DevicePlace { slot, more: true }));
    // Of a device that is in both, the hooks ask `devices` first.
    Ok(more.chain(first).collect())
}
