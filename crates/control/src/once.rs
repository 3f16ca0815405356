//! What ports have in common, in memory once: ids of what they name, their lists of groups, who owns them.
//!
//! Place on the line: store commit -> **watch**.
//! Invariants: a port says the same as before. What isn't found here is just there twice.
//! Knows nothing of: who reads ports.

use crate::objects::{Move, Port, Subnet};
use crate::state::{Index, Table};
use arcstr::ArcStr;
use model::{FrozenSet, GroupId, PortId};
use std::collections::HashMap;
use std::hash::Hash;

/// Ports are a million, and what they name is little.
pub(crate) struct Known<'a> {
    pub(crate) index: &'a Index,
    pub(crate) subnets: &'a Table<ArcStr, Subnet>,
}

impl Known<'_> {
    pub(crate) fn share(&self, id: &PortId, ports: &Table<PortId, Port>, port: &mut Port) {
        let index = self.index;
        let known = ports.get_key_value(id).map(|(id, _)| id);
        port.id = known.unwrap_or(id).clone();
        share(&index.counts, &mut port.project);
        share(&index.ports_in_network, &mut port.network);
        self.share_subnets(ports, port);
        if let Some(binding) = &mut port.binding {
            share(&index.ports_on_host, &mut binding.host);
            if let Some(Move::To(to)) = binding.moving.as_deref_mut() {
                share(&index.ports_on_host, &mut to.host);
            }
        }
        port.groups = self.groups(port, ports);
        if let Some(like) = self.alike(port, ports) {
            share_text(&like.device_owner, &mut port.device_owner);
            if let (Some(binding), Some(like)) = (&mut port.binding, &like.binding) {
                share_text(&like.vnic_type, &mut binding.vnic_type);
            }
        }
        port.fixed.shrink_to_fit();
        port.pairs.shrink_to_fit();
    }

    /// When ports are read, subnets aren't yet; then those in one network have them from each other.
    fn share_subnets(&self, ports: &Table<PortId, Port>, port: &mut Port) {
        let others = self.index.ports_in_network.get(&port.network);
        let other = others.and_then(|others| ports.get(others.first()?));
        for fixed in &mut port.fixed {
            if let Some((id, _)) = self.subnets.get_key_value(&fixed.subnet) {
                fixed.subnet = id.clone();
            } else {
                let others = other.iter().flat_map(|other| &other.fixed);
                others.for_each(|other| share_text(&other.subnet, &mut fixed.subnet));
            }
        }
    }

    /// Who is in a group is often in the same others as well.
    fn groups(&self, port: &Port, ports: &Table<PortId, Port>) -> FrozenSet<GroupId> {
        let others = port.groups.iter().filter_map(|group| {
            let members = self.index.ports_in_group.get(group)?;
            ports.get(members.first()?)
        });
        let mut like = others.filter(|other| other.groups == port.groups);
        if let Some(like) = like.next() {
            return like.groups.clone();
        }
        let mut groups = Vec::from_iter(port.groups.iter().cloned());
        for group in &mut groups {
            share(&self.index.ports_in_group, group);
        }
        groups.into_iter().collect()
    }

    /// Another one on its host: who owns the one often owns the other.
    fn alike<'p>(&self, port: &Port, ports: &'p Table<PortId, Port>) -> Option<&'p Port> {
        let binding = port.binding.as_ref()?;
        let neighbours = self.index.ports_on_host.get(&binding.host)?;
        ports.get(neighbours.first()?).map(|port| &**port)
    }
}

fn share_text(known: &ArcStr, text: &mut ArcStr) {
    if known == text {
        *text = known.clone();
    }
}

fn share<K: Clone + Eq + Hash, V>(known: &HashMap<K, V>, id: &mut K) {
    if let Some((known, _)) = known.get_key_value(id) {
        *id = known.clone();
    }
}
