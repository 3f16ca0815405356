//! Names of objects of which a host may have to hear, and what it hears of them.

use crate::index::Index;
use crate::interest::Interest;
use crate::part::{GroupPart, Part};
use crate::undo::{Undo, rule_ref};
use model::{
    AddressGroupId, GroupId, HostId, Inventory, InventoryChange, NetworkId, PortId, Rule, RuleId,
    SecurityGroup,
};
use std::collections::BTreeSet;

/// Too many in it cost time, and are no news.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    pub(crate) hosts: BTreeSet<HostId>,
    pub(crate) networks: BTreeSet<NetworkId>,
    pub(crate) ports: BTreeSet<PortId>,
    pub(crate) groups: BTreeSet<GroupId>,
    pub(crate) address_groups: BTreeSet<AddressGroupId>,
}

impl Objects {
    pub(crate) fn len(&self) -> usize {
        self.hosts.len()
            + self.networks.len()
            + self.ports.len()
            + self.groups.len()
            + self.address_groups.len()
    }

    /// What comes into a host's part, or leaves it, as its interest changes.
    pub(crate) fn between(
        old: &Interest,
        new: &Interest,
        inventory: &Inventory,
        index: &Index,
    ) -> Self {
        let mut objects = Self::default();
        objects.by_networks(old, new, index);
        objects.by_groups(old, new, index);
        objects.by_tunnel(old, new, inventory, index);
        objects
    }

    fn by_networks(&mut self, old: &Interest, new: &Interest, index: &Index) {
        let ids: BTreeSet<&NetworkId> = old.networks.keys().chain(new.networks.keys()).collect();
        for id in ids {
            let (before, after) = (old.networks.get(id), new.networks.get(id));
            if before.is_some() != after.is_some() {
                self.networks.insert(id.clone());
            }
            // Its ports as such, that is: members are told by their groups.
            if before.copied().unwrap_or_default() != after.copied().unwrap_or_default() {
                self.ports.extend(index.ports_in(id).cloned());
            }
        }
        let remote = old
            .remote_networks
            .symmetric_difference(&new.remote_networks);
        self.networks.extend(remote.cloned());
    }

    fn by_groups(&mut self, old: &Interest, new: &Interest, index: &Index) {
        let full = old.full.symmetric_difference(&new.full);
        self.groups.extend(full.cloned());
        let named: BTreeSet<&GroupId> = old.named.keys().chain(new.named.keys()).collect();
        for id in named {
            if old.named.get(id) != new.named.get(id) {
                self.groups.insert(id.clone());
                self.ports.extend(index.members(id).cloned());
            }
        }
        let address_groups = old.address_groups.symmetric_difference(&new.address_groups);
        self.address_groups.extend(address_groups.cloned());
    }

    fn by_tunnel(&mut self, old: &Interest, new: &Interest, inventory: &Inventory, index: &Index) {
        if old.tunnel.is_some() != new.tunnel.is_some() {
            self.groups.extend(inventory.groups.keys().cloned());
        }
        let none = Default::default();
        let before = old.tunnel.as_ref().unwrap_or(&none);
        let after = new.tunnel.as_ref().unwrap_or(&none);
        if before.asks_ahead != after.asks_ahead {
            let networks = new.networks.keys();
            self.ports
                .extend(networks.flat_map(|id| index.ports_in(id)).cloned());
        }
        let hosts = before.hosts.symmetric_difference(&after.hosts);
        self.hosts.extend(hosts.cloned());
        let shared = before.shared.symmetric_difference(&after.shared);
        self.ports.extend(shared.cloned());
        let none = Default::default();
        for scope in before.crowds.keys().chain(after.crowds.keys()) {
            let before = before.crowds.get(scope).unwrap_or(&none);
            let after = after.crowds.get(scope).unwrap_or(&none);
            self.ports
                .extend(before.symmetric_difference(after).cloned());
        }
    }

    /// All that is in the part of a host with this interest.
    pub(crate) fn of(
        host: &HostId,
        interest: &Interest,
        inventory: &Inventory,
        index: &Index,
    ) -> Self {
        let mut all = Self::between(&Interest::default(), interest, inventory, index);
        all.hosts.insert(host.clone());
        all.ports.extend(index.ports_on(host).cloned());
        all
    }
}

/// What the host has to hear. The two parts are of one host.
pub(crate) fn message(
    objects: &Objects,
    before: Part<'_>,
    after: Part<'_>,
    undo: &Undo,
) -> InventoryChange {
    let mut change = InventoryChange {
        revision: after.world.inventory.revision,
        ..InventoryChange::default()
    };
    for id in &objects.hosts {
        let now = after.host(id);
        if before.host(id) != now {
            change.hosts.insert(id.clone(), now);
        }
    }
    for id in &objects.networks {
        let now = after.network(id);
        if before.network(id) != now {
            change.networks.insert(id.clone(), now);
        }
    }
    for id in &objects.ports {
        let now = after.port(id);
        if before.port(id) != now {
            change.ports.insert(id.clone(), now);
        }
    }
    for id in &objects.address_groups {
        let now = after.address_group(id);
        if before.address_group(id) != now {
            change.address_groups.insert(id.clone(), now);
        }
    }
    for id in &objects.groups {
        change_group(&mut change, id, before.group(id), after, undo);
    }
    change
}

fn change_group(
    change: &mut InventoryChange,
    id: &GroupId,
    before: GroupPart,
    after: Part<'_>,
    undo: &Undo,
) {
    let inventory = after.world.inventory;
    match (before, after.group(id)) {
        (GroupPart::Absent, GroupPart::Absent) => {}
        (_, GroupPart::Absent) => {
            change.groups.insert(id.clone(), None);
        }
        (GroupPart::Whole(old), GroupPart::Whole(new)) => {
            if old != new {
                change.groups.insert(id.clone(), Some(new));
            }
            for rule in undo
                .rules
                .get(id)
                .into_iter()
                .flat_map(|rules| rules.keys())
            {
                let now = rule_now(inventory, id, rule);
                change.rules.insert(rule_ref(id, rule), now);
            }
        }
        (_, GroupPart::Whole(_)) => {
            let whole = inventory.groups.get(id).cloned();
            change.groups.insert(id.clone(), whole);
        }
        (GroupPart::Whole(_), GroupPart::Name(new)) => {
            change.groups.insert(id.clone(), Some(new));
            let now = inventory.groups.get(id).into_iter();
            let now = now.flat_map(|group: &SecurityGroup| group.rules.keys());
            let old = undo
                .rules
                .get(id)
                .into_iter()
                .flat_map(|rules| rules.keys());
            let gone = now.chain(old).map(|rule| (rule_ref(id, rule), None));
            change.rules.extend(gone);
        }
        (GroupPart::Absent, GroupPart::Name(new)) => {
            change.groups.insert(id.clone(), Some(new));
        }
        (GroupPart::Name(old), GroupPart::Name(new)) => {
            if old != new {
                change.groups.insert(id.clone(), Some(new));
            }
        }
    }
}

fn rule_now(inventory: &Inventory, group: &GroupId, rule: &RuleId) -> Option<Rule> {
    inventory.groups.get(group)?.rules.get(rule).cloned()
}
