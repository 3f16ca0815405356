//! What hosts need of the copy: all of it as an inventory, and each commit as a change of one.
//!
//! Place on the line: store commit -> watch -> **inventory** -> compile.
//!
//! ```text
//! inventory_of(before) + inventory_change(after, commit) == inventory_of(after)
//! ```
//! Both ask the same functions what an object is now; a change only knows for which objects to ask.
//! Knows nothing of: which host needs what.

use crate::objects::{Addresses, Binding, Group, GroupRule, Port, Segment};
use crate::state::{Changed, Differs, State};
use model::{
    AddressGroup, AddressGroupId, GroupId, HostId, Inventory, InventoryChange, NetworkId, Revision,
    RuleRef, SecurityGroup, Settings,
};
use std::collections::{BTreeMap, BTreeSet};

/// All of it.
pub fn inventory_of(state: &State) -> Inventory {
    let groups = state.groups.keys();
    let networks = state.networks.keys();
    let addresses = state.addresses.keys();
    let ports = state.ports.iter();
    let hosts = state.hosts.keys().chain(state.index.ports_on_host.keys());
    Inventory {
        revision: state.revision,
        hosts: hosts.filter_map(|id| named(id, host(state, id))).collect(),
        networks: networks
            .filter_map(|id| named(id, network(state, id)))
            .collect(),
        ports: ports
            .map(|(id, port)| (id.clone(), port.placed()))
            .collect(),
        groups: groups
            .filter_map(|id| named(id, whole_group(state, id)))
            .collect(),
        address_groups: addresses
            .filter_map(|id| named(id, address_group(state, id)))
            .collect(),
    }
}

fn named<K: Clone, V>(id: &K, object: Option<V>) -> Option<(K, V)> {
    object.map(|object| (id.clone(), object))
}

/// What a commit did. `state` has it already, and nothing after it.
pub fn inventory_change(state: &State, revision: Revision, changes: &[Changed]) -> InventoryChange {
    let mut change = InventoryChange {
        revision,
        ..Default::default()
    };
    for changed in changes {
        match changed {
            Changed::Group(differs) => of_group(state, differs, &mut change),
            Changed::Rule(differs) => of_rule(state, differs, &mut change),
            Changed::Addresses(differs) => of_addresses(state, differs, &mut change),
            Changed::Network(differs) => {
                for network in each(differs) {
                    of_network(state, &network.id, &mut change);
                }
            }
            Changed::Subnet(differs) => {
                for subnet in each(differs) {
                    of_network(state, &subnet.network, &mut change);
                }
            }
            Changed::Port(differs) => of_port(state, differs, &mut change),
            Changed::Host(differs) => {
                for host in each(differs) {
                    of_host(state, &host.id, &mut change);
                }
            }
            Changed::Told(_) | Changed::Server(_) | Changed::Flows(_) | Changed::Other => {}
        }
    }
    change
}

fn each<T>(differs: &Differs<T>) -> impl Iterator<Item = &T> {
    let both = [&differs.before, &differs.after];
    both.into_iter().flatten().map(|object| &**object)
}

fn of_group(state: &State, differs: &Differs<Group>, change: &mut InventoryChange) {
    let Some(id) = each(differs).map(|group| &group.id).next() else {
        return;
    };
    let was_there = differs.before.is_some();
    let is_there = differs.after.is_some();
    // One that was there keeps its rules.
    let group = match was_there {
        true => group(state, id),
        false => whole_group(state, id),
    };
    change.groups.insert(id.clone(), group);
    if was_there != is_there {
        let naming = state.index.rules_naming_group.get(id);
        of_rules(state, naming.into_iter().flatten(), change);
    }
}

fn of_rule(state: &State, differs: &Differs<GroupRule>, change: &mut InventoryChange) {
    let rules = each(differs).map(|rule| RuleRef {
        group: rule.group.clone(),
        rule: rule.id.clone(),
    });
    of_rules(state, Vec::from_iter(rules).iter(), change);
}

fn of_rules<'a>(
    state: &State,
    rules: impl Iterator<Item = &'a RuleRef>,
    change: &mut InventoryChange,
) {
    for of in rules {
        let rules = state.rules.get(&of.group);
        let rule = rules.and_then(|rules| rules.get(&of.rule));
        let rule = rule.filter(|rule| state.is_whole(rule));
        let rule = rule.and_then(|rule| rule.rule());
        change.rules.insert(of.clone(), rule);
    }
}

fn of_addresses(state: &State, differs: &Differs<Addresses>, change: &mut InventoryChange) {
    let Some(id) = each(differs).map(|addresses| &addresses.id).next() else {
        return;
    };
    let now = address_group(state, id);
    change.address_groups.insert(id.clone(), now);
    if differs.before.is_some() != differs.after.is_some() {
        let naming = state.index.rules_naming_addresses.get(id);
        of_rules(state, naming.into_iter().flatten(), change);
    }
}

fn of_network(state: &State, id: &NetworkId, change: &mut InventoryChange) {
    change.networks.insert(id.clone(), network(state, id));
}

fn of_port(state: &State, differs: &Differs<Port>, change: &mut InventoryChange) {
    for port in each(differs) {
        let now = state.ports.get(&port.id).map(|port| port.placed());
        change.ports.insert(port.id.clone(), now);
        if port.is_service() {
            of_network(state, &port.network, change);
        }
    }
    let hosts_of = |port: &Option<_>| hosts_of(port.as_deref());
    let (before, after) = (hosts_of(&differs.before), hosts_of(&differs.after));
    for host in before.symmetric_difference(&after) {
        of_host(state, host, change);
    }
}

fn hosts_of(port: Option<&Port>) -> BTreeSet<HostId> {
    let binding = port.and_then(|port| port.binding.as_deref());
    let hosts = binding.into_iter().flat_map(Binding::hosts);
    hosts.cloned().collect()
}

fn of_host(state: &State, id: &HostId, change: &mut InventoryChange) {
    change.hosts.insert(id.clone(), host(state, id));
}

fn host(state: &State, id: &HostId) -> Option<model::Host> {
    if let Some(host) = state.hosts.get(id) {
        return Some(host.host());
    }
    let only_named = state.index.ports_on_host.contains_key(id);
    only_named.then(|| model::Host {
        id: id.clone(),
        tunnel_address: None,
        peer_trust: Default::default(),
        settings: Settings::default(),
    })
}

fn network(state: &State, id: &NetworkId) -> Option<model::Network> {
    let network = state.networks.get(id)?;
    let services = state.index.services_in_network.get(id);
    let services = services.into_iter().flatten();
    let services = Vec::from_iter(services.filter_map(|id| state.ports.get(id)));
    let addresses = |of: fn(&Port) -> bool| {
        let services = services.iter().filter(move |port| of(port));
        services.flat_map(|port| port.fixed.addresses().iter().copied())
    };
    let subnets = Vec::from_iter(state.subnets_in(id));
    let gateways = subnets.iter().filter_map(|subnet| subnet.gateway);
    Some(model::Network {
        id: id.clone(),
        scope: network.scope.clone(),
        vni: network.segment.as_ref().and_then(Segment::vni),
        mtu: network.mtu,
        subnets: subnets.iter().map(|subnet| subnet.prefix).collect(),
        dhcp_servers: match &network.dhcp_servers {
            Some(said) => said.clone(),
            None => addresses(Port::is_dhcp_server).collect(),
        },
        routers: match &network.routers {
            Some(said) => said.clone(),
            None => addresses(Port::is_router).chain(gateways).collect(),
        },
        eui64_only: network.eui64_only,
    })
}

fn whole_group(state: &State, id: &GroupId) -> Option<SecurityGroup> {
    let mut group = group(state, id)?;
    let rules = state.rules_of(id).filter_map(|rule| rule.rule());
    group.rules = rules.map(|rule| (rule.id.clone(), rule)).collect();
    Some(group)
}

/// Without its rules.
fn group(state: &State, id: &GroupId) -> Option<SecurityGroup> {
    let group = state.groups.get(id)?;
    Some(SecurityGroup {
        id: id.clone(),
        project: Some(group.project.clone()),
        name: group.said.name.to_string(),
        stateful: group.stateful,
        tag: group.wire_tag,
        rules: BTreeMap::new(),
    })
}

fn address_group(state: &State, id: &AddressGroupId) -> Option<AddressGroup> {
    let addresses = state.addresses.get(id)?;
    Some(AddressGroup {
        id: id.clone(),
        prefixes: addresses.prefixes.clone(),
    })
}

#[cfg(test)]
mod tests;
