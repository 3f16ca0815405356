//! The view of one host, kept in step with an inventory that changes: a change costs what it touches.
//!
//! Place on the line: inventory -> **compile** -> view, for whoever is told changes rather than inventories.
//!
//! Invariant: the view always equals [`compile`]'s of the same inventory and host. What a change doesn't touch is the
//! same in memory as before, so that who compares two views looks at what differs.
//! A change of this host, or of a network with ports on it, compiles all anew; so does each change where this host
//! inspects for others. The overlay is made anew each time.
//! Findings aren't kept: they are about the whole inventory, and found when somebody asks.
//! Cost: of a change, objects it names, the group of a rule, the members of a group that somebody joins or leaves
//! (copied, if an older view still has them).

mod index;

use crate::compile::{self, compile};
use crate::finding::Finding;
use crate::overlay::overlay;
use crate::view::{GroupView, HostView, PortView};
use index::{Contributions, Index};
use model::{
    AddressGroupId, GroupId, HostId, Inspection, Inventory, InventoryChange, Port, PortId,
};
use std::collections::BTreeSet;
use std::sync::Arc;

pub struct Compiler {
    host: HostId,
    inventory: Inventory,
    view: HostView,
    index: Index,
}

/// Groups and address groups that come or go: what leads to them means something else now.
struct Existence {
    groups: BTreeSet<GroupId>,
    address_groups: BTreeSet<AddressGroupId>,
}

impl Compiler {
    pub fn new(inventory: Inventory, host: HostId) -> Self {
        let (view, _) = compile(&inventory, &host);
        let index = Index::new(&inventory, &view);
        Self {
            host,
            inventory,
            view,
            index,
        }
    }

    pub fn view(&self) -> &HostView {
        &self.view
    }

    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Costs what there is.
    pub fn findings(&self) -> Vec<Finding> {
        compile(&self.inventory, &self.host).1
    }

    /// Costs what there is; what is equal stays the same in memory.
    pub fn replace(&mut self, inventory: Inventory) {
        let mut new = Self::new(inventory, self.host.clone());
        new.view.share(&self.view);
        *self = new;
    }

    pub fn change(&mut self, change: InventoryChange) {
        if self.is_far_reaching(&change) {
            let mut inventory = std::mem::take(&mut self.inventory);
            inventory.change(change);
            return self.replace(inventory);
        }
        let old_ports: Vec<(PortId, Option<Port>)> = change
            .ports
            .keys()
            .map(|id| (id.clone(), self.inventory.ports.get(id).cloned()))
            .collect();
        let groups: BTreeSet<GroupId> = change
            .groups
            .keys()
            .chain(change.rules.keys().map(|rule| &rule.group))
            .cloned()
            .collect();
        let address_groups: BTreeSet<AddressGroupId> =
            change.address_groups.keys().cloned().collect();
        let before = self.existing(&groups, &address_groups);
        for id in &groups {
            self.index.forget_names(id, self.inventory.groups.get(id));
        }
        self.inventory.change(change);
        for id in &groups {
            self.index.learn_names(id, self.inventory.groups.get(id));
        }
        let after = self.existing(&groups, &address_groups);
        let other = Existence {
            groups: &before.groups ^ &after.groups,
            address_groups: &before.address_groups ^ &after.address_groups,
        };

        let contributions = self.ports_changed(&old_ports);
        let mut regrouped = self.local_ports(old_ports, &other);
        let mut rebuilt = groups;
        rebuilt.extend(self.index.naming(&other.groups, &other.address_groups));
        regrouped.extend(rebuilt.iter().cloned());
        for id in regrouped {
            self.regroup(&id, rebuilt.contains(&id));
        }
        self.index
            .members(&self.inventory, &mut self.view.members, &contributions);
        self.index
            .networks(&self.inventory, &mut self.view.networks, &contributions);
        self.address_groups(address_groups);
        self.view.revision = self.inventory.revision;
        self.overlay();
    }

    fn is_far_reaching(&self, change: &InventoryChange) -> bool {
        let this = self.inventory.hosts.get(&self.host);
        let builds_tunnels = this.is_some_and(|this| this.tunnel_address.is_some());
        let inspects = this.is_some_and(|this| match this.settings.inspection {
            Inspection::Source | Inspection::Both => true,
            Inspection::Destination => false,
        });
        change.hosts.contains_key(&self.host)
            || (builds_tunnels && inspects)
            || change.networks.keys().any(|id| self.index.is_used(id))
    }

    fn existing(
        &self,
        groups: &BTreeSet<GroupId>,
        address_groups: &BTreeSet<AddressGroupId>,
    ) -> Existence {
        let Inventory {
            groups: known,
            address_groups: known_address_groups,
            ..
        } = &self.inventory;
        let groups = groups.iter().filter(|id| known.contains_key(*id));
        let address_groups = address_groups.iter();
        let address_groups = address_groups.filter(|id| known_address_groups.contains_key(*id));
        Existence {
            groups: groups.cloned().collect(),
            address_groups: address_groups.cloned().collect(),
        }
    }

    /// Into the index, wherever the ports are; what they add to members and reserved addresses, and take away.
    fn ports_changed(&mut self, old: &[(PortId, Option<Port>)]) -> Contributions {
        let mut contributions = Contributions::default();
        for (id, old) in old {
            if let Some(old) = old {
                self.index.forget_port(id, old);
                contributions.add(&self.inventory, old, -1);
            }
            if let Some(new) = self.inventory.ports.get(id) {
                self.index.learn_port(id, new);
                contributions.add(&self.inventory, new, 1);
            }
        }
        contributions
    }

    /// Ports that are local or were; the groups that others join now, or that some have left.
    fn local_ports(
        &mut self,
        changed: Vec<(PortId, Option<Port>)>,
        other: &Existence,
    ) -> BTreeSet<GroupId> {
        let mut ids: BTreeSet<PortId> = changed.into_iter().map(|(id, _)| id).collect();
        for group in &other.groups {
            let ports = self.index.in_group(group);
            ids.extend(
                ports
                    .filter(|id| self.view.ports.contains_key(*id))
                    .cloned(),
            );
        }
        let mut regrouped = BTreeSet::new();
        for id in ids {
            let new = self.port_view(&id);
            let old = self.view.ports.get(&id);
            if old.map(|old| &**old) == new.as_ref() {
                continue;
            }
            for (port, come) in [(old.map(|old| &**old), false), (new.as_ref(), true)] {
                if let Some(port) = port {
                    self.index.count_local(&self.inventory, port, come);
                    regrouped.extend(port.groups.iter().cloned());
                }
            }
            match new {
                Some(new) => self.view.ports.insert(id, Arc::new(new)),
                None => self.view.ports.remove(&id),
            };
        }
        regrouped
    }

    fn port_view(&self, id: &PortId) -> Option<PortView> {
        let port = self.inventory.ports.get(id)?;
        let device = port.device_on(&self.host)?;
        let is_known = self.inventory.networks.contains_key(&port.network);
        let groups = || compile::known_groups(&self.inventory, port).collect();
        is_known.then(|| compile::port_view(port, device, groups()))
    }

    /// A group whose local ports, or rules, may be others.
    fn regroup(&mut self, id: &GroupId, rebuild: bool) {
        let is_local = self.index.is_local(id);
        let group = self.inventory.groups.get(id).filter(|_| is_local);
        let Some(group) = group else {
            self.view.groups.remove(id);
            self.index.stand(id, None);
            return;
        };
        let known = self.view.groups.get(id);
        let view = match known.filter(|_| !rebuild) {
            Some(known) => Arc::clone(known),
            None => {
                let view = self.group_view(id, group);
                let same = known.filter(|known| ***known == view);
                same.cloned().unwrap_or_else(|| Arc::new(view))
            }
        };
        self.index.stand(id, Some(&view));
        self.view.groups.insert(id.clone(), view);
    }

    fn group_view(&self, id: &GroupId, group: &model::SecurityGroup) -> GroupView {
        let sound = compile::rules(&self.inventory, id, group, &mut Vec::new());
        compile::group_view(group, sound)
    }

    fn address_groups(&mut self, changed: BTreeSet<AddressGroupId>) {
        let mut changed = changed;
        changed.extend(self.index.address_groups_to_look_at());
        for id in changed {
            let group = self.inventory.address_groups.get(&id);
            let wanted =
                group.filter(|g| self.index.names_addresses(&id) && !g.prefixes.is_empty());
            let known = self.view.address_groups.get(&id);
            match wanted {
                None => drop(self.view.address_groups.remove(&id)),
                Some(group) => {
                    let prefixes = group.prefixes.iter().copied().collect();
                    if known.is_none_or(|known| **known != prefixes) {
                        self.view.address_groups.insert(id, Arc::new(prefixes));
                    }
                }
            }
        }
    }

    fn overlay(&mut self) {
        let overlay = overlay(&self.inventory, &self.host, &self.view.ports);
        if overlay != self.view.overlay {
            self.view.overlay = overlay;
        }
    }
}
