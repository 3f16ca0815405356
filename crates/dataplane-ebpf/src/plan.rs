//! From actual and desired contents to ordered steps.
//!
//! Place on the line: render -> **plan** -> execute. Pure.
//!
//! ```text
//! prepare    what the new policy refers to: names, sets, addresses, more link-local reserved
//! hold       ports whose untracked flows need tracking from now on
//! narrow     memberships end (and those begin that no old set knows)
//! switch     each port to its new record: one write
//! widen      memberships begin
//! settings   timeouts, mode, generation: flows are judged anew
//! devices    whose packets are judged as which port's
//! clear      ports that are gone, and what nothing refers to any more
//! ```
//! After each step a packet passes only if the old or the new policy passes it, and whatever refers
//! to something finds it.

use crate::contents::{Contents, DevicePlace, InForce, ListChange, PolicyEntries, SetState};
use crate::layout::{
    Config, ExactKey, MacKey, NetAddressKey, OwnKey, PORT_RECORDS, Peers, PolicyEntry, PolicyKey,
    PortRecord, PortState, PrefixKey, Range, ReservedKey, SWEEP_ELIDABLE, SWEEP_EXPIRED, SetRecord,
    SubnetKey,
};
use crate::render::Rendered;
use crate::render::guard::{AddressBlock, NetworkBlock};
use crate::table::Name;
use std::collections::BTreeMap;

/// Entries of one map: written, or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change<K, V> {
    Put(Vec<(K, V)>),
    Delete(Vec<K>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Names(Change<u64, Name>),
    Own(Change<OwnKey, u8>),
    Macs(Change<MacKey, u32>),
    Reserved(Change<ReservedKey, u8>),
    NetAddresses(Change<NetAddressKey, u8>),
    Subnets(Change<SubnetKey, u8>),
    Ranges(Vec<(u32, Range)>),
    Policy(Change<PolicyKey, PolicyEntry>),
    Sets(Vec<(u32, SetRecord)>),
    Exact(Change<ExactKey, Peers>),
    Prefixes(Change<PrefixKey, Peers>),
    /// From here on that many counters of rules start from 0.
    ZeroRules(u32, u32),
    /// The slot's counters and state are this port's.
    Occupy(u32, PortState),
    /// A record of a slot that is not in force.
    Record(u32, PortRecord),
    /// Slot -> which of its records is in force.
    PortIndex(u32, u32),
    Config(Config),
    Device(u32, Option<DevicePlace>, bool),
    Attach(u32, String),
    Detach(u32),
    /// Mode, and the ports by slot and number; those without flows are not looked for.
    Sweep(u32, Vec<(u32, u32)>),
}

impl<K, V> Change<K, V> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Change::Put(entries) => entries.len(),
            Change::Delete(keys) => keys.len(),
        }
    }
}

impl Step {
    /// Writes to the kernel.
    pub(crate) fn writes(&self) -> u64 {
        let entries = match self {
            Step::Names(change) => change.len(),
            Step::Own(change) => change.len(),
            Step::Macs(change) => change.len(),
            Step::Reserved(change) => change.len(),
            Step::NetAddresses(change) => change.len(),
            Step::Subnets(change) => change.len(),
            Step::Ranges(entries) => entries.len(),
            Step::Policy(change) => change.len(),
            Step::Sets(entries) => entries.len(),
            Step::Exact(change) => change.len(),
            Step::Prefixes(change) => change.len(),
            Step::ZeroRules(_, count) => *count as usize,
            Step::Attach(..) => 2,
            Step::Occupy(..)
            | Step::Record(..)
            | Step::PortIndex(..)
            | Step::Config(_)
            | Step::Device(..)
            | Step::Detach(_)
            | Step::Sweep(..) => 1,
        };
        entries as u64
    }
}

/// What the steps make of the desired contents beside.
pub(crate) struct Ending {
    pub(crate) config: Config,
    /// By slot.
    pub(crate) indices: BTreeMap<u32, u32>,
}

pub(crate) fn plan(actual: &Contents, rendered: &Rendered) -> (Vec<Step>, Ending) {
    let mut steps = Vec::new();
    let desired = &rendered.desired;
    let mut config = desired.config;
    prepare(actual, rendered, &mut steps);
    let mut indices: BTreeMap<u32, u32> = actual
        .ports
        .iter()
        .map(|(slot, p)| (*slot, p.index))
        .collect();
    hold(actual, rendered, &mut indices, &mut steps);
    lists(
        rendered,
        &mut steps,
        |change| (change.before, change.passing),
        |change| (change.before, change.passing),
    );
    switch(actual, rendered, &mut indices, &mut steps);
    lists(
        rendered,
        &mut steps,
        |change| (change.passing, change.after),
        |change| (change.passing, change.after),
    );
    let devices_alone = steps.is_empty() && actual.ports.keys().eq(desired.ports.keys());
    if !devices_alone || config != actual.config {
        config.generation = actual.config.generation.wrapping_add(1);
        steps.push(Step::Config(config));
    }
    devices(actual, rendered, &mut steps);
    clear(actual, rendered, &mut indices, &mut steps);
    (steps, Ending { config, indices })
}

fn prepare(actual: &Contents, rendered: &Rendered, steps: &mut Vec<Step>) {
    let desired = &rendered.desired;
    put(steps, Step::Names, desired.names.put.iter().copied());
    let zero = rendered.reused_rules.iter();
    steps.extend(zero.map(|(first, count)| Step::ZeroRules(*first, *count)));
    if !rendered.new_ranges.is_empty() {
        steps.push(Step::Ranges(rendered.new_ranges.clone()));
    }
    let mut entries = PolicyEntries::new();
    let mut records = Vec::new();
    for (number, set) in &rendered.passing_sets {
        let known = actual.sets.get(number);
        if known.is_none() {
            entries.extend_from_slice(&set.entries);
            records.push((*number, set.record));
        }
        let new = set.unions.iter();
        let new = new.filter(|(union, _)| known.is_none_or(|k| !k.unions.contains_key(union)));
        new.for_each(|(_, union)| entries.extend_from_slice(union));
    }
    put(steps, Step::Policy, entries.into_iter());
    if !records.is_empty() {
        steps.push(Step::Sets(records));
    }
    for (number, block) in &desired.addresses {
        if !actual.addresses.contains_key(number) {
            put(steps, Step::Own, block.own.iter().map(|key| (*key, 1)));
            put(
                steps,
                Step::Macs,
                block.macs.iter().map(|(key, mac)| (*key, *mac)),
            );
        }
    }
    for (number, block) in &desired.networks {
        if actual.networks.get(number) != Some(block) {
            put(
                steps,
                Step::NetAddresses,
                block.addresses.iter().map(|key| (*key, 1)),
            );
            put(
                steps,
                Step::Subnets,
                block.subnets.iter().map(|key| (*key, 1)),
            );
        }
    }
    let more = desired.reserved.more.iter();
    put(steps, Step::Reserved, more.map(|key| (*key, 1)));
    for (slot, port) in &desired.ports {
        let number = port.record.number;
        if actual
            .ports
            .get(slot)
            .is_none_or(|known| known.record.number != number)
        {
            let state = PortState {
                number,
                ..PortState::default()
            };
            steps.push(Step::Occupy(*slot, state));
        }
    }
}

fn hold(
    actual: &Contents,
    rendered: &Rendered,
    indices: &mut BTreeMap<u32, u32>,
    steps: &mut Vec<Step>,
) {
    for (slot, until) in &rendered.holds {
        if let Some(InForce { record, .. }) = actual.ports.get(slot) {
            let held = PortRecord {
                hold_until: *until,
                ..*record
            };
            put_in_force(*slot, held, indices, steps);
        }
    }
}

fn switch(
    actual: &Contents,
    rendered: &Rendered,
    indices: &mut BTreeMap<u32, u32>,
    steps: &mut Vec<Step>,
) {
    for (slot, port) in &rendered.desired.ports {
        let mut known = actual.ports.get(slot).map(|p| p.record);
        if let (Some(known), Some(until)) = (&mut known, rendered.holds.get(slot)) {
            known.hold_until = *until;
        }
        if known != Some(port.record) {
            put_in_force(*slot, port.record, indices, steps);
        }
    }
}

/// The record goes to a place that no packet reads, then one write puts it in force.
fn put_in_force(
    slot: u32,
    record: PortRecord,
    indices: &mut BTreeMap<u32, u32>,
    steps: &mut Vec<Step>,
) {
    let index = indices
        .get(&slot)
        .map_or(0, |index| (index + 1) % PORT_RECORDS);
    indices.insert(slot, index);
    steps.push(Step::Record(slot * PORT_RECORDS + index, record));
    steps.push(Step::PortIndex(slot, index));
}

/// From one of the states of the lists to the next.
fn lists(
    rendered: &Rendered,
    steps: &mut Vec<Step>,
    exact: impl Fn(&ListChange<ExactKey>) -> Passage,
    prefixes: impl Fn(&ListChange<PrefixKey>) -> Passage,
) {
    let changes = &rendered.desired.lists;
    let (written, removed) = written_and_removed(&changes.exact, exact);
    put(steps, Step::Exact, written.into_iter());
    delete(steps, Step::Exact, removed.into_iter());
    let (written, removed) = written_and_removed(&changes.prefixes, prefixes);
    put(steps, Step::Prefixes, written.into_iter());
    delete(steps, Step::Prefixes, removed.into_iter());
}

type Passage = (Option<Peers>, Option<Peers>);

fn written_and_removed<K: Copy>(
    changes: &[ListChange<K>],
    passage: impl Fn(&ListChange<K>) -> Passage,
) -> (Vec<(K, Peers)>, Vec<K>) {
    let (mut written, mut removed) = (Vec::new(), Vec::new());
    for change in changes {
        match passage(change) {
            (from, Some(to)) if from != Some(to) => written.push((change.key, to)),
            (Some(_), None) => removed.push(change.key),
            (_, Some(_)) | (None, None) => {}
        }
    }
    (written, removed)
}

fn devices(actual: &Contents, rendered: &Rendered, steps: &mut Vec<Step>) {
    let desired = &rendered.desired;
    for (ifindex, place) in &desired.devices {
        if actual.devices.get(ifindex) != Some(place) {
            steps.push(Step::Device(*ifindex, Some(*place), place.more));
        }
    }
    for ifindex in desired.attached.difference(&actual.attached) {
        let name = rendered
            .device_names
            .get(ifindex)
            .cloned()
            .unwrap_or_default();
        steps.push(Step::Attach(*ifindex, name));
    }
    for ifindex in actual.attached.difference(&desired.attached) {
        steps.push(Step::Detach(*ifindex));
    }
    for (ifindex, place) in &actual.devices {
        if !desired.devices.contains_key(ifindex) {
            steps.push(Step::Device(*ifindex, None, place.more));
        }
    }
}

fn clear(
    actual: &Contents,
    rendered: &Rendered,
    indices: &mut BTreeMap<u32, u32>,
    steps: &mut Vec<Step>,
) {
    let desired = &rendered.desired;
    let mut gone = Vec::new();
    for (slot, port) in &actual.ports {
        let stays = desired.ports.get(slot);
        if stays.is_none() {
            put_in_force(*slot, PortRecord::default(), indices, steps);
        }
        if stays.is_none_or(|p| p.record.number != port.record.number) {
            gone.push((*slot, port.record.number));
        }
    }
    if !rendered.becoming_elidable.is_empty() {
        gone.extend(&rendered.becoming_elidable);
        steps.push(Step::Sweep(SWEEP_ELIDABLE, gone));
    } else if !gone.is_empty() {
        steps.push(Step::Sweep(SWEEP_EXPIRED, gone));
    }
    clear_sets(actual, rendered, steps);
    for (number, block) in &actual.addresses {
        if !desired.addresses.contains_key(number) {
            let AddressBlock { own, macs } = &**block;
            delete(steps, Step::Own, own.iter().copied());
            delete(steps, Step::Macs, macs.keys().copied());
        }
    }
    for (number, block) in &actual.networks {
        if !desired.networks.contains_key(number) {
            let NetworkBlock { addresses, subnets } = &**block;
            delete(steps, Step::NetAddresses, addresses.iter().copied());
            delete(steps, Step::Subnets, subnets.iter().copied());
        }
    }
    let fewer = desired.reserved.fewer.iter();
    delete(steps, Step::Reserved, fewer.copied());
    delete(steps, Step::Names, desired.names.unused.iter().copied());
}

/// Records first, so that a record's digest always vouches for all of its entries.
fn clear_sets(actual: &Contents, rendered: &Rendered, steps: &mut Vec<Step>) {
    let mut records = Vec::new();
    let mut keys = Vec::new();
    let mut numbers: Vec<(u32, &SetState)> = Vec::new();
    numbers.extend(
        rendered
            .passing_sets
            .iter()
            .map(|(number, set)| (*number, set)),
    );
    let others = actual.sets.iter();
    numbers.extend(
        others
            .filter(|(n, _)| !rendered.passing_sets.contains_key(n))
            .map(|(n, s)| (*n, s)),
    );
    for (number, set) in numbers {
        match rendered.desired.sets.get(&number) {
            None => {
                records.push((number, SetRecord::default()));
                keys.extend(set.all_entries().map(|(key, _)| *key));
            }
            Some(stays) => {
                let gone = set
                    .unions
                    .iter()
                    .filter(|(union, _)| !stays.unions.contains_key(union));
                keys.extend(gone.flat_map(|(_, entries)| entries.iter().map(|(key, _)| *key)));
            }
        }
    }
    if !records.is_empty() {
        steps.push(Step::Sets(records));
    }
    delete(steps, Step::Policy, keys.into_iter());
}

fn put<K, V>(
    steps: &mut Vec<Step>,
    step: fn(Change<K, V>) -> Step,
    entries: impl Iterator<Item = (K, V)>,
) {
    let entries: Vec<(K, V)> = entries.collect();
    if !entries.is_empty() {
        steps.push(step(Change::Put(entries)));
    }
}

fn delete<K, V>(
    steps: &mut Vec<Step>,
    step: fn(Change<K, V>) -> Step,
    keys: impl Iterator<Item = K>,
) {
    let keys: Vec<K> = keys.collect();
    if !keys.is_empty() {
        steps.push(step(Change::Delete(keys)));
    }
}

#[cfg(test)]
mod tests;
