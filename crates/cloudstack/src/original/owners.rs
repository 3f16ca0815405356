//! Which VM a device is of, and which a chain: names are cut, tenants choose their ends, and devices'
//! names are used again.

use super::dispatch::Dispatch;
use super::dump::Rule;
use super::host::{Beside, Host};
use super::{Doubt, Link, names, nics};
use crate::VmName;
use model::Family;
use std::collections::{BTreeMap, BTreeSet};

/// Which VM each device is of. A device is one VM's.
pub(super) fn devices<'d>(
    host: &Host<'_>,
    beside: &Beside<'_>,
    dispatched: &'d [Dispatch],
    doubts: &mut Vec<Doubt>,
) -> BTreeMap<VmName, Vec<&'d Dispatch>> {
    let mut by_device: BTreeMap<&str, Vec<(VmName, &Dispatch)>> = BTreeMap::new();
    for dispatch in dispatched {
        let owner = owner(host, beside, dispatch);
        let owners = by_device.entry(dispatch.vif.as_str()).or_default();
        owners.retain(|(vm, _)| *vm != owner);
        owners.push((owner, dispatch));
    }
    let mut owned: BTreeMap<VmName, Vec<&Dispatch>> = BTreeMap::new();
    for (vif, owners) in by_device {
        let link = beside.links.get(vif).copied();
        let (vm, dispatch) = rightful(host, link, &owners);
        let others = owners.iter().filter(|(other, _)| other != vm);
        doubts.extend(others.map(|(other, _)| Doubt::TwoOwners {
            vif: dispatch.vif.clone(),
            vm: vm.clone(),
            other: other.clone(),
        }));
        owned.entry(vm.clone()).or_default().push(dispatch);
    }
    owned
}

/// The guard names the VM's sets, whose names are whole; its chains' names may be cut.
fn owner(host: &Host<'_>, beside: &Beside<'_>, dispatch: &Dispatch) -> VmName {
    let whole = VmName::new(&dispatch.chain).expect("a chain of a VM has a VM's name");
    if !names::is_user_vm(&dispatch.chain) {
        let is_it = |name: &&&VmName| names::vm_chain(name.as_str()) == dispatch.chain;
        return beside
            .logs
            .keys()
            .find(is_it)
            .map_or(whole, |name| (*name).clone());
    }
    let vif = Some(dispatch.vif.as_str());
    for family in Family::BOTH {
        let guard = host.chain(family, &dispatch.chain).unwrap_or_default();
        let of_vif = |rule: &&Rule<'_>| rule.value("--physdev-in") == vif;
        let set = guard
            .iter()
            .filter(of_vif)
            .find_map(|rule| rule.value("--match-set"));
        let name = set.map(|set| match family {
            Family::V4 => set,
            Family::V6 => set.strip_suffix("-6").unwrap_or(set),
        });
        let name = name.filter(|name| names::is_user_vm(name));
        if let Some(name) = name.and_then(|name| VmName::new(name).ok()) {
            return logged_as(beside, &name).unwrap_or(name);
        }
    }
    // The guard says nothing: by the names that belong together.
    let is_guard = |chain: &str| names::default_chain(chain) == dispatch.chain;
    let logged = beside
        .logs
        .keys()
        .copied()
        .filter(|name| name.is_instance());
    let mut logged = logged.filter(|name| is_guard(names::vm_chain(name.as_str())));
    let chain = || {
        chains_of_rules(host)
            .into_iter()
            .find(|chain| is_guard(chain))
    };
    let from_log = logged.next().cloned();
    let from_chain = || VmName::new(&chain()?).ok();
    from_log.or_else(from_chain).unwrap_or(whole)
}

/// A set's name is cut at another length than a chain's; the log has the whole one.
fn logged_as(beside: &Beside<'_>, set: &VmName) -> Option<VmName> {
    if beside.logs.contains_key(set) {
        return Some(set.clone());
    }
    let is_it = |name: &&&VmName| names::set(name.as_str()) == set.as_str();
    beside.logs.keys().find(is_it).map(|name| (*name).clone())
}

/// Of several VMs, the one whose guard has the MAC of the device that is there; else the newest: packets
/// of another's MAC are dropped either way.
fn rightful<'o, 'd>(
    host: &Host<'_>,
    link: Option<&Link>,
    owners: &'o [(VmName, &'d Dispatch)],
) -> (&'o VmName, &'d Dispatch) {
    let found = link.and_then(|link| link.mac);
    let has_mac = |dispatch: &Dispatch| {
        let guard = host.chain(Family::V6, &dispatch.chain);
        let macs = nics::guarded_macs(guard, &dispatch.vif);
        found.is_some_and(|found| macs.iter().any(|mac| nics::is_behind(*mac, found)))
    };
    let bridge = link.and_then(|link| link.bridge.as_deref());
    let fitness = |dispatch: &Dispatch| {
        let is_there = bridge == Some(dispatch.bridge.as_str());
        (has_mac(dispatch), is_there, dispatch.place)
    };
    let (vm, dispatch) = owners
        .iter()
        .max_by_key(|(_, dispatch)| fitness(dispatch))
        .expect("a device is there because of one");
    (vm, dispatch)
}

/// The tenants' VMs of the host with the chain of their ingress rules.
pub(super) fn tenants_vms(
    host: &Host<'_>,
    beside: &Beside<'_>,
    owned: &BTreeMap<VmName, Vec<&Dispatch>>,
) -> BTreeMap<VmName, String> {
    let mut vms: BTreeMap<VmName, String> = BTreeMap::new();
    for name in owned.keys().filter(|name| names::is_user_vm(name.as_str())) {
        vms.insert(name.clone(), names::vm_chain(name.as_str()).to_owned());
    }
    for chain in chains_of_rules(host) {
        let names = named(host, beside, &chain);
        // Where several have the chain's name, those with a NIC are there.
        if names.len() > 1 && names.iter().any(|name| vms.contains_key(name)) {
            continue;
        }
        for name in names {
            vms.entry(name).or_insert_with(|| chain.clone());
        }
    }
    vms
}

/// Chains of ingress rules: those with a chain of egress rules beside them, as a VM's name may end like
/// any of its other chains; and a half-built VM's, which has but one.
fn chains_of_rules(host: &Host<'_>) -> BTreeSet<String> {
    let filters = Family::BOTH.map(|family| host.filter(family));
    let chains: BTreeSet<&str> = filters
        .into_iter()
        .flatten()
        .flat_map(|filter| filter.keys().copied())
        .filter(|chain| names::is_user_vm(chain))
        .collect();
    let has = |chain: &str| chains.contains(chain);
    let mut found = BTreeSet::new();
    for chain in &chains {
        if has(&names::egress_chain(chain)) {
            found.insert((*chain).to_owned());
        } else if let Some(front) = chain.strip_suffix("-eg") {
            // Egress rules whose ingress rules are missing.
            if names::is_user_vm(front) {
                found.insert(front.to_owned());
            }
        } else if !chain.ends_with("-def") {
            found.insert((*chain).to_owned());
        }
    }
    found
}

/// The VMs that a chain may be of; never none. A name that was cut is looked for among those of logs,
/// and of sets, which are longer.
fn named(host: &Host<'_>, beside: &Beside<'_>, chain: &str) -> Vec<VmName> {
    let is_it = |name: &VmName| names::vm_chain(name.as_str()) == chain;
    let mut found: BTreeSet<VmName> = BTreeSet::new();
    if chain.len() == names::CUT_CHAIN {
        let logged = beside.logs.keys().filter(|name| is_it(name));
        found.extend(logged.map(|name| (*name).clone()));
    }
    if chain.len() == names::CUT_CHAIN && found.is_empty() {
        let sets = host.sets.keys().filter_map(|set| VmName::new(set).ok());
        found.extend(sets.filter(|name| !name.as_str().ends_with("-6") && is_it(name)));
    }
    if found.is_empty() {
        found.extend(VmName::new(chain));
    }
    found.into_iter().collect()
}
