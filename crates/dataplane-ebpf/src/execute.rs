//! Runs a plan's steps against the kernel.
//!
//! Place on the line: plan -> **execute**. The first step that fails ends it: what was done stays,
//! and each port is under its old or its new policy; the next apply reads back first.

use crate::attach::{Hook, is_no_device};
use crate::layout::{DeviceEntry, STATS_PER_PORT, Shared, Stat, SweepArgs};
use crate::object::Object;
use crate::plan::{Change, Step};
use crate::table::Table;
use dataplane::ApplyError;
use hurry::Hurry;
use std::io;

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) writes: u64,
    /// Devices that our hooks could not get onto: their packets pass unseen. (A device that is gone
    /// is none of them.)
    pub(crate) unattached: Vec<(u32, io::Error)>,
}

pub(crate) fn execute(object: &Object, hook: &Hook, steps: &[Step]) -> Result<Done, ApplyError> {
    let mut done = Done::default();
    let of_devices = |step: &Step| matches!(step, Step::Attach(..) | Step::Detach(_));
    let _hurry = steps.iter().any(of_devices).then(Hurry::up);
    for (number, step) in steps.iter().enumerate() {
        let failed = match run(object, hook, step) {
            Ok(()) => None,
            // One device's trouble must not keep the others from their policy.
            Err(source) => match step {
                Step::Attach(ifindex, _) => {
                    if !is_no_device(&source) {
                        done.unattached.push((*ifindex, source));
                    }
                    None
                }
                _ => Some(source),
            },
        };
        if let Some(source) = failed {
            return Err(ApplyError {
                step: format!("step {} of {}: {}", number + 1, steps.len(), describe(step)),
                source,
            });
        }
        done.writes += step.writes();
    }
    Ok(done)
}

fn run(object: &Object, hook: &Hook, step: &Step) -> io::Result<()> {
    let tables = &object.tables;
    match step {
        Step::Names(change) => write(&tables.names, change),
        Step::Own(change) => write(&tables.own, change),
        Step::Macs(change) => write(&tables.macs, change),
        Step::Reserved(change) => write(&tables.reserved, change),
        Step::NetAddresses(change) => write(&tables.net_addresses, change),
        Step::Subnets(change) => write(&tables.subnets, change),
        Step::Ranges(entries) => tables.ranges.put_all(entries),
        Step::Policy(change) => write(&tables.policy, change),
        Step::Sets(entries) => tables.sets.put_all(entries),
        Step::Exact(change) => write(&tables.exact, change),
        Step::Prefixes(change) => write(&tables.prefixes, change),
        Step::ZeroRules(first, count) => {
            let zero = Stat::default();
            tables.rule_stats.put_per_cpu(*first, *count, &zero)
        }
        Step::Occupy(slot, state) => {
            let (first, zero) = (slot * STATS_PER_PORT, Stat::default());
            tables
                .port_stats
                .put_per_cpu(first, STATS_PER_PORT, &zero)?;
            tables.port_state.put(slot, state)
        }
        Step::Record(index, record) => tables.ports.put(index, record),
        Step::PortIndex(slot, index) => tables.port_index.put(slot, index),
        Step::Config(config) => tables.config.put(&0, config),
        Step::Device(ifindex, place, more) => match (place, more) {
            (Some(place), true) => tables.devices_more.put(ifindex, &place.slot),
            (None, true) => tables.devices_more.delete(ifindex),
            (place, false) => {
                let entry = place.map(|place| DeviceEntry {
                    ifindex: *ifindex,
                    slot: place.slot,
                });
                tables
                    .devices
                    .put(&(ifindex & 0xffff), &entry.unwrap_or_default())
            }
        },
        Step::Attach(ifindex, _) => hook.attach(object, *ifindex),
        Step::Detach(ifindex) => hook.detach(object, *ifindex),
        Step::Sweep(mode, ports) => sweep_ports(object, *mode, ports),
    }
}

fn write<K: Shared, V: Shared>(table: &Table<K, V>, change: &Change<K, V>) -> io::Result<()> {
    match change {
        Change::Put(entries) => table.put_all(entries),
        Change::Delete(keys) => table.delete_all(keys),
    }
}

/// Looks through all flows at most once, and only if one of the ports has any.
fn sweep_ports(object: &Object, mode: u32, ports: &[(u32, u32)]) -> io::Result<()> {
    let mut with_flows = Vec::new();
    for (slot, number) in ports {
        let state = object.tables.port_state.get(slot)?.unwrap_or_default();
        // A slot that is somebody else's already doesn't tell.
        if state.number != *number || state.established + state.half_open > 0 {
            with_flows.push(*number);
        }
    }
    match with_flows.as_slice() {
        [] => Ok(()),
        [one] => sweep(object, mode, *one).map(|_| ()),
        _ => sweep(object, mode, 0).map(|_| ()),
    }
}

/// Removes flows that are expired, of ports that are gone, or (by mode) in no need of tracking.
pub(crate) fn sweep(object: &Object, mode: u32, number: u32) -> io::Result<SweepArgs> {
    crate::judge::ask_sweep(object, mode, number)
}

fn describe(step: &Step) -> String {
    let (verb, what) = match step {
        Step::Names(change) => words(change, "names"),
        Step::Own(change) => words(change, "addresses of ports"),
        Step::Macs(change) => words(change, "MACs of ports"),
        Step::Reserved(change) => words(change, "reserved link-local addresses"),
        Step::NetAddresses(change) => words(change, "addresses of networks"),
        Step::Subnets(change) => words(change, "subnets"),
        Step::Ranges(entries) => ("writing", format!("{} port ranges", entries.len())),
        Step::Policy(change) => words(change, "policy entries"),
        Step::Sets(entries) => ("writing", format!("{} sets of rules", entries.len())),
        Step::Exact(change) => words(change, "members"),
        Step::Prefixes(change) => words(change, "prefixes"),
        Step::ZeroRules(_, count) => ("clearing", format!("the counters of {count} rules")),
        Step::Occupy(slot, _) => ("clearing", format!("the state of port slot {slot}")),
        Step::Record(..) => ("writing", "a port's record".to_owned()),
        Step::PortIndex(slot, _) => ("switching", format!("port slot {slot}")),
        Step::Config(_) => ("writing", "the settings".to_owned()),
        Step::Device(ifindex, _, _) => ("writing", format!("the entry of device {ifindex}")),
        Step::Attach(ifindex, name) => ("attaching to", format!("device {name} ({ifindex})")),
        Step::Detach(ifindex) => ("detaching from", format!("device {ifindex}")),
        Step::Sweep(..) => ("removing", "flows".to_owned()),
    };
    format!("{verb} {what}")
}

fn words<K, V>(change: &Change<K, V>, what: &str) -> (&'static str, String) {
    let verb = match change {
        Change::Put(_) => "writing",
        Change::Delete(_) => "removing",
    };
    (verb, format!("{} {what}", change.len()))
}
