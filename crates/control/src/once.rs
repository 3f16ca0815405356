//! What ports have in common, in memory once: what they name, where they are bound, who owns them.
//!
//! Place on the line: store commit -> **watch**.
//! Invariants: a port says the same as before. What isn't found here is just there twice.
//! Knows nothing of: who reads ports.

use crate::objects::{Binding, FixedAddress, Move, Port, Subnet};
use crate::state::{Index, Table};
use arcstr::ArcStr;
use model::PortId;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

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
        let others = Vec::from_iter(self.others(port, ports));
        for other in &others {
            share_text(&other.device_owner, &mut port.device_owner);
        }
        self.share_groups(&others, port);
        self.share_subnets(&others, port);
        self.share_binding(&others, port);
    }

    /// Some that may be like it: of each group, of its network, of its host.
    fn others<'p>(
        &self,
        port: &Port,
        ports: &'p Table<PortId, Port>,
    ) -> impl Iterator<Item = &'p Port> {
        let index = self.index;
        let of_groups = port.groups.iter().map(|id| index.ports_in_group.get(id));
        let in_network = index.ports_in_network.get(&port.network);
        let binding = port.binding.as_deref();
        let on_host = binding.and_then(|binding| index.ports_on_host.get(&binding.host));
        let lists = of_groups.chain([in_network, on_host]).flatten();
        lists.filter_map(|list| ports.get(list.first()?).map(|port| &**port))
    }

    /// Who is in a group is often in the same others as well.
    fn share_groups(&self, others: &[&Port], port: &mut Port) {
        if let Some(like) = others.iter().find(|other| other.groups == port.groups) {
            port.groups = like.groups.clone();
            return;
        }
        let mut groups = Vec::from_iter(port.groups.iter().cloned());
        for group in &mut groups {
            share(&self.index.ports_in_group, group);
        }
        port.groups = groups.into_iter().collect();
    }

    /// When ports are read, subnets aren't yet; then they have them from each other.
    fn share_subnets(&self, others: &[&Port], port: &mut Port) {
        if others
            .iter()
            .any(|other| port.fixed.share_subnets(&other.fixed))
        {
            return;
        }
        let known = |subnet: &ArcStr| {
            let stored = self.subnets.get_key_value(subnet).map(|(id, _)| id);
            let mut of_others = others.iter().flat_map(|other| other.fixed.subnets());
            stored.or_else(|| of_others.find(|other| *other == subnet))
        };
        let fixed = port.fixed.iter().map(|fixed| FixedAddress {
            subnet: known(&fixed.subnet).unwrap_or(&fixed.subnet).clone(),
            ..fixed
        });
        port.fixed = fixed.collect();
    }

    /// Most ports of a host are bound to it alike.
    fn share_binding(&self, others: &[&Port], port: &mut Port) {
        let Some(binding) = &mut port.binding else {
            return;
        };
        let bindings = || others.iter().filter_map(|other| other.binding.as_ref());
        if let Some(like) = bindings().find(|other| *other == binding) {
            *binding = Arc::clone(like);
            return;
        }
        let binding: &mut Binding = Arc::make_mut(binding);
        share(&self.index.ports_on_host, &mut binding.host);
        if let Some(Move::To(to)) = binding.moving.as_deref_mut() {
            share(&self.index.ports_on_host, &mut to.host);
        }
        for other in bindings() {
            share_text(&other.vnic_type, &mut binding.vnic_type);
        }
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
