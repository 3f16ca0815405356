//! The objects that a change replaces, as they were: what one has to know of the past to say what is new to whom.

use model::{
    AddressGroup, AddressGroupId, GroupId, Host, HostId, Inventory, InventoryChange, Network,
    NetworkId, Port, PortId, Rule, RuleId, RuleRef, SecurityGroup,
};
use std::collections::BTreeMap;

/// Shape: of what really is another now, `Some`: it was like this; `None`: it wasn't there. Groups without rules;
/// of a group that was there before and after, each rule that is another.
#[derive(Default)]
pub(crate) struct Undo {
    pub(crate) hosts: BTreeMap<HostId, Option<Host>>,
    pub(crate) networks: BTreeMap<NetworkId, Option<Network>>,
    pub(crate) ports: BTreeMap<PortId, Option<Port>>,
    pub(crate) groups: BTreeMap<GroupId, Option<SecurityGroup>>,
    pub(crate) rules: BTreeMap<GroupId, BTreeMap<RuleId, Option<Rule>>>,
    pub(crate) address_groups: BTreeMap<AddressGroupId, Option<AddressGroup>>,
}

impl Undo {
    /// Changes the inventory.
    pub(crate) fn change(inventory: &mut Inventory, change: InventoryChange) -> Self {
        let mut undo = Self {
            hosts: old(&inventory.hosts, &change.hosts),
            networks: old(&inventory.networks, &change.networks),
            ports: old(&inventory.ports, &change.ports),
            groups: old_heads(inventory, &change),
            rules: BTreeMap::new(),
            address_groups: old(&inventory.address_groups, &change.address_groups),
        };
        let put = change.groups.iter().flat_map(|(group, now)| {
            let rules = now.iter().flat_map(|now| now.rules.keys());
            rules.map(move |rule| (group, rule))
        });
        let named = change.rules.keys().map(|of| (&of.group, &of.rule));
        for (group, rule) in put.chain(named) {
            let Some(known) = inventory.groups.get(group) else {
                continue;
            };
            let rules = undo.rules.entry(group.clone()).or_default();
            rules.insert(rule.clone(), known.rules.get(rule).cloned());
        }
        inventory.change(change);
        undo.keep_what_differs(inventory);
        undo
    }

    fn keep_what_differs(&mut self, now: &Inventory) {
        self.hosts
            .retain(|id, old| old.as_ref() != now.hosts.get(id));
        self.networks
            .retain(|id, old| old.as_ref() != now.networks.get(id));
        self.ports
            .retain(|id, old| old.as_ref() != now.ports.get(id));
        self.groups
            .retain(|id, old| *old != now.groups.get(id).map(head));
        self.address_groups
            .retain(|id, old| old.as_ref() != now.address_groups.get(id));
        self.rules.retain(|id, rules| {
            let Some(group) = now.groups.get(id) else {
                return false;
            };
            rules.retain(|rule, old| old.as_ref() != group.rules.get(rule));
            !rules.is_empty()
        });
    }

    /// Old and new.
    pub(crate) fn port<'a>(
        &'a self,
        now: &'a Inventory,
        id: &PortId,
    ) -> impl Iterator<Item = &'a Port> {
        let old = self.ports.get(id).and_then(Option::as_ref);
        old.into_iter().chain(now.ports.get(id))
    }

    /// In another scope a network's ports are others' members.
    pub(crate) fn is_rescoped(&self, now: &Inventory, id: &NetworkId) -> bool {
        let new = now.networks.get(id).map(|network| &network.scope);
        let old = self.networks.get(id);
        old.is_some_and(|old| old.as_ref().map(|network| &network.scope) != new)
    }
}

/// All of it but the rules.
pub(crate) fn head(group: &SecurityGroup) -> SecurityGroup {
    SecurityGroup {
        id: group.id.clone(),
        project: group.project.clone(),
        name: group.name.clone(),
        stateful: group.stateful,
        tag: group.tag,
        rules: BTreeMap::new(),
    }
}

/// Of rules left out as their group isn't there, no head is looked at.
fn old_heads(
    inventory: &Inventory,
    change: &InventoryChange,
) -> BTreeMap<GroupId, Option<SecurityGroup>> {
    let named = change.groups.keys();
    named
        .map(|id| (id.clone(), inventory.groups.get(id).map(head)))
        .collect()
}

fn old<K: Ord + Clone, V: Clone>(
    known: &BTreeMap<K, V>,
    changed: &BTreeMap<K, Option<V>>,
) -> BTreeMap<K, Option<V>> {
    changed
        .keys()
        .map(|id| (id.clone(), known.get(id).cloned()))
        .collect()
}

/// Each changed rule with its name.
pub(crate) fn rule_ref(group: &GroupId, rule: &RuleId) -> RuleRef {
    RuleRef {
        group: group.clone(),
        rule: rule.clone(),
    }
}

/// The objects before a change and after it, with one face.
#[derive(Clone, Copy)]
pub(crate) struct World<'a> {
    pub(crate) inventory: &'a Inventory,
    /// `None`: as they are now.
    pub(crate) undo: Option<&'a Undo>,
}

impl<'a> World<'a> {
    pub(crate) fn host(self, id: &HostId) -> Option<&'a Host> {
        match self.undo.and_then(|undo| undo.hosts.get(id)) {
            Some(old) => old.as_ref(),
            None => self.inventory.hosts.get(id),
        }
    }

    pub(crate) fn network(self, id: &NetworkId) -> Option<&'a Network> {
        match self.undo.and_then(|undo| undo.networks.get(id)) {
            Some(old) => old.as_ref(),
            None => self.inventory.networks.get(id),
        }
    }

    pub(crate) fn port(self, id: &PortId) -> Option<&'a Port> {
        match self.undo.and_then(|undo| undo.ports.get(id)) {
            Some(old) => old.as_ref(),
            None => self.inventory.ports.get(id),
        }
    }

    /// Its rules, if there are any, are those of now.
    pub(crate) fn group(self, id: &GroupId) -> Option<&'a SecurityGroup> {
        match self.undo.and_then(|undo| undo.groups.get(id)) {
            Some(old) => old.as_ref(),
            None => self.inventory.groups.get(id),
        }
    }

    pub(crate) fn address_group(self, id: &AddressGroupId) -> Option<&'a AddressGroup> {
        match self.undo.and_then(|undo| undo.address_groups.get(id)) {
            Some(old) => old.as_ref(),
            None => self.inventory.address_groups.get(id),
        }
    }
}
