//! The sets: each VM's addresses, and those that aren't tracked.

use super::super::host::Host;
use super::super::names::UNTRACKED;
use super::plan::{Plan, PlannedNic, PlannedVm};
use crate::rules::Service;
use model::Family;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

/// The members of each set of a VM, by its name, with what it is created as.
pub(super) fn of_vms(plan: &Plan<'_>) -> BTreeMap<String, (&'static str, BTreeSet<IpAddr>)> {
    let mut sets = BTreeMap::new();
    for vm in plan.vms.iter().filter(|vm| !vm.is_closed) {
        for (family, kind) in [
            (Family::V4, "hash:ip family inet"),
            (Family::V6, "hash:net family inet6"),
        ] {
            let addresses = vm.open_nics().flat_map(|nic| addresses(nic, family));
            let set = vm.names.set(family).to_owned();
            sets.insert(set, (kind, addresses.collect()));
        }
    }
    sets
}

/// Makes the sets that rules ask. Of those that aren't tracked, nothing but that they are there.
pub(super) fn script(plan: &Plan<'_>, host: &Host<'_>) -> String {
    let mut script = String::new();
    for (set, kind) in untracked_sets(plan).map(|(_, set, kind)| (set, kind)) {
        if !host.sets.contains_key(set) {
            let _ = writeln!(script, "create {set} hash:ip family {kind}");
        }
    }
    for (set, (kind, members)) in of_vms(plan) {
        let _ = match host.sets.contains_key(&*set) {
            true => writeln!(script, "flush {set}"),
            false => writeln!(script, "create {set} {kind}"),
        };
        add(&mut script, &set, members);
    }
    script
}

/// Replaces the sets of untracked addresses.
pub(super) fn untracked(plan: &Plan<'_>) -> String {
    let mut script = String::new();
    for (family, set, kind) in untracked_sets(plan) {
        let new = format!("{set}-new");
        let _ = writeln!(
            script,
            "create {new} hash:ip family {kind} -exist\nflush {new}"
        );
        let vms = plan.vms.iter().filter(|vm| is_untracked(vm, family));
        let nics = vms.filter_map(pushed_nic);
        add(
            &mut script,
            &new,
            nics.flat_map(|nic| addresses(nic, family)).collect(),
        );
        let _ = writeln!(script, "swap {new} {set}\ndestroy {new}");
    }
    script
}

/// How many VMs that is about.
pub(super) fn untracked_vms(plan: &Plan<'_>) -> usize {
    let of_vm = |vm: &&PlannedVm<'_>| {
        let mut families = untracked_sets(plan).map(|(family, ..)| family);
        families.any(|family| is_untracked(vm, family))
    };
    plan.vms.iter().filter(of_vm).count()
}

/// With the family, and its word. Without bridges the script has made none.
pub(super) fn untracked_sets(
    plan: &Plan<'_>,
) -> impl Iterator<Item = (Family, &'static str, &'static str)> {
    let families = plan.untracking.iter().filter(|_| !plan.bridges.is_empty());
    families.map(|family| match family {
        Family::V4 => (Family::V4, UNTRACKED[0], "inet"),
        Family::V6 => (Family::V6, UNTRACKED[1], "inet6"),
    })
}

fn add(script: &mut String, set: &str, members: BTreeSet<IpAddr>) {
    for member in members {
        let _ = writeln!(script, "add {set} {member}"); // To a string, which can't fail.
    }
}

/// What a NIC may use.
fn addresses(nic: &PlannedNic<'_>, family: Family) -> impl Iterator<Item = IpAddr> {
    let link_local = IpAddr::V6(nic.mac.eui64_link_local());
    let addresses = nic.nic.addresses().chain([link_local]);
    addresses.filter(move |address| Family::of(*address) == family)
}

/// The script's condition: a record of either direction for everything and everybody, in these words.
fn is_untracked(vm: &PlannedVm<'_>, family: Family) -> bool {
    let everybody = match family {
        Family::V4 => "0.0.0.0/0",
        Family::V6 => "::/0",
    };
    let records = vm.user.push.iter().flat_map(|push| push.rules.as_told());
    let mut all = records.filter(|told| told.record.service == Service::All);
    all.any(|told| told.prefixes().any(|prefix| prefix == everybody))
}

/// The one that the push was about: its addresses are those that were told with it.
fn pushed_nic<'p>(vm: &'p PlannedVm<'_>) -> Option<&'p PlannedNic<'p>> {
    let address = vm.user.address;
    let told = |nic: &&PlannedNic<'_>| address.is_some() && nic.nic.ipv4 == address;
    vm.open_nics().find(told).or_else(|| vm.open_nics().next())
}
