//! A policy in between: permits no more than both the old and the new one do.
//!
//! Place on the line: views -> **transition** -> inputs. Pure.
//!
//! Each kind of change alone reaches every packet as the old policy or as the new one. Two at once may not:
//! while one is there and the other is not yet, a packet might pass that neither of the two policies lets
//! pass. So a revision that changes rules and members, or either of them and ports, goes in two steps: what
//! it takes away first, then what it gives. What both permit by different rules is dropped for that moment.
//! Source: docs/semantics.md "Truth under change".

use model::{AddressGroupId, GroupId, Prefix, ScopeId};
use policy::{GroupView, HostView, NetworkView, PortView};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// `None`: there is just one kind of change, or none.
pub(crate) fn between(old: &HostView, new: &HostView) -> Option<HostView> {
    let kinds = [
        rules_change(old, new),
        members_change(old, new),
        ports_change(old, new),
    ];
    if kinds.iter().filter(|changes| **changes).count() < 2 {
        return None;
    }
    let mut ports = new.ports.clone();
    for (id, after) in &mut ports {
        if let Some(before) = old.ports.get(id) {
            *after = port(before, after);
        }
    }
    Some(HostView {
        revision: new.revision,
        settings: new.settings.clone(),
        networks: networks(old, new),
        ports,
        groups: groups(old, new),
        members: members(old, new),
        address_groups: address_groups(old, new),
    })
}

/// Of groups that are in both; a group that comes or goes does so with the ports that are in it.
fn rules_change(old: &HostView, new: &HostView) -> bool {
    old.groups
        .iter()
        .any(|(id, before)| new.groups.get(id).is_some_and(|after| after != before))
}

fn members_change(old: &HostView, new: &HostView) -> bool {
    let members = |before: &HostView, after: &HostView| {
        before.members.iter().any(|(key, set)| {
            let other = after.members.get(key);
            other != Some(set) && (other.is_some() || names_group(after, &key.1))
        })
    };
    let address_groups = old.address_groups.iter().any(|(key, set)| {
        new.address_groups
            .get(key)
            .is_some_and(|other| other != set)
    });
    members(old, new) || members(new, old) || address_groups
}

/// A set that is not there has no members, if some rule still asks for them.
fn names_group(view: &HostView, group: &GroupId) -> bool {
    let rules = view.groups.values().flat_map(|g| g.rules.values());
    rules
        .into_iter()
        .any(|rule| rule.peer == policy::PeerView::Group(group.clone()))
}

/// Of ports that are in both.
fn ports_change(old: &HostView, new: &HostView) -> bool {
    old.ports.iter().any(|(id, before)| {
        new.ports.get(id).is_some_and(|after| {
            before != after || old.networks.get(&before.network) != new.networks.get(&after.network)
        })
    })
}

fn port(before: &PortView, after: &PortView) -> PortView {
    if !before.port_security {
        return after.clone();
    }
    if !after.port_security {
        return before.clone();
    }
    let addresses = before.addresses.intersection(&after.addresses);
    let groups = after
        .groups
        .iter()
        .filter(|group| before.groups.contains(group));
    PortView {
        dhcp_server: before.dhcp_server && after.dhcp_server,
        router: before.router && after.router,
        addresses: addresses.copied().collect(),
        groups: groups.cloned().collect(),
        ..after.clone()
    }
}

fn networks(old: &HostView, new: &HostView) -> BTreeMap<model::NetworkId, NetworkView> {
    let mut networks = new.networks.clone();
    for (id, after) in &mut networks {
        let Some(before) = old.networks.get(id) else {
            continue;
        };
        let subnets = before.subnets.intersection(&after.subnets);
        after.subnets = subnets.copied().collect();
        // With none listed, more may answer than with one.
        if !before.dhcp_servers.is_empty() && !after.dhcp_servers.is_empty() {
            let servers = before.dhcp_servers.intersection(&after.dhcp_servers);
            after.dhcp_servers = servers.copied().collect();
        } else if after.dhcp_servers.is_empty() {
            after.dhcp_servers.clone_from(&before.dhcp_servers);
        }
        after
            .reserved_link_local
            .extend(&before.reserved_link_local);
        after.eui64_only |= before.eui64_only;
    }
    // Of ports that were not guarded, or are not any more.
    for (id, network) in &old.networks {
        networks
            .entry(id.clone())
            .or_insert_with(|| network.clone());
    }
    networks
}

fn groups(old: &HostView, new: &HostView) -> BTreeMap<GroupId, GroupView> {
    let mut groups = new.groups.clone();
    for (id, after) in &mut groups {
        if let Some(before) = old.groups.get(id) {
            let there: BTreeSet<_> = before.rules.values().collect();
            after.rules.retain(|_, rule| there.contains(rule));
            after.stateful &= before.stateful;
        }
    }
    for (id, group) in &old.groups {
        groups.entry(id.clone()).or_insert_with(|| group.clone());
    }
    groups
}

fn members(old: &HostView, new: &HostView) -> BTreeMap<(ScopeId, GroupId), Arc<BTreeSet<Prefix>>> {
    let mut members = new.members.clone();
    for (key, after) in &mut members {
        match old.members.get(key) {
            Some(before) if before == after => {}
            Some(before) => *after = Arc::new(both(before, after)),
            None if names_group(old, &key.1) => *after = Arc::default(),
            None => {}
        }
    }
    for (key, set) in &old.members {
        if !new.members.contains_key(key) && !names_group(new, &key.1) {
            members.insert(key.clone(), Arc::clone(set));
        }
    }
    members
}

fn address_groups(
    old: &HostView,
    new: &HostView,
) -> BTreeMap<AddressGroupId, Arc<BTreeSet<Prefix>>> {
    let mut groups = new.address_groups.clone();
    for (key, after) in &mut groups {
        if let Some(before) = old
            .address_groups
            .get(key)
            .filter(|before| *before != after)
        {
            *after = Arc::new(both(before, after));
        }
    }
    for (key, set) in &old.address_groups {
        groups.entry(key.clone()).or_insert_with(|| Arc::clone(set));
    }
    groups
}

/// Addresses that both hold; a prefix counts where the other has it whole.
fn both(before: &BTreeSet<Prefix>, after: &BTreeSet<Prefix>) -> BTreeSet<Prefix> {
    let in_before = after.iter().filter(|p| policy::covers(before, p));
    let in_after = before.iter().filter(|p| policy::covers(after, p));
    in_before.chain(in_after).copied().collect()
}
