//! Ways from an object to those that it matters to, over the global inventory.
//!
//! Shape: some entries per port; a port that changes moves just those that differ.

mod gathered;

use crate::undo::Undo;
use gathered::Gathered;
use model::{FrozenSet, GroupId, HostId, Inventory, NetworkId, Port, PortId, Prefix, ScopeId};
use std::collections::btree_map::Entry::{Occupied, Vacant};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// An address in more groups than this matters to all that build tunnels in its scope: `policy` says why.
pub(crate) const SHORT: usize = 8;

#[derive(Default)]
pub(crate) struct Index {
    hosts: HashMap<HostId, BTreeSet<PortId>>,
    networks: HashMap<NetworkId, OfNetwork>,
    groups: HashMap<GroupId, OfGroup>,
    addresses: HashMap<ScopeId, BTreeMap<Prefix, Holders>>,
    crowds: HashMap<ScopeId, Crowd>,
}

/// Counted, where several ports lead to the same.
#[derive(Default)]
pub(crate) struct OfNetwork {
    pub(crate) ports: BTreeSet<PortId>,
    pub(crate) hosts: BTreeMap<HostId, usize>,
    pub(crate) groups: BTreeMap<GroupId, usize>,
}

#[derive(Default)]
pub(crate) struct OfGroup {
    pub(crate) members: BTreeSet<PortId>,
    pub(crate) networks: BTreeMap<NetworkId, usize>,
}

/// The ports that have an address; mostly it is one, of a million.
enum Holders {
    One(PortId),
    More(FrozenSet<PortId>),
}

/// Addresses in many groups, and the ports that have them.
#[derive(Default)]
struct Crowd {
    addresses: BTreeSet<Prefix>,
    ports: Arc<BTreeSet<PortId>>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    OnHost(HostId),
    InNetwork(NetworkId),
    HostInNetwork(NetworkId, HostId),
    GroupInNetwork(NetworkId, GroupId),
    Member(GroupId),
    Address(ScopeId, Prefix),
}

/// What came to an index, or went, that interests hang on.
#[derive(Default)]
pub(crate) struct Turned {
    pub(crate) hosts_of: BTreeSet<NetworkId>,
    pub(crate) groups_of: BTreeSet<NetworkId>,
    pub(crate) networks_of: BTreeSet<(NetworkId, GroupId)>,
    pub(crate) addresses: BTreeSet<(ScopeId, Prefix)>,
    pub(crate) crowds: BTreeSet<ScopeId>,
}

impl Index {
    pub(crate) fn of(inventory: &Inventory) -> Self {
        let mut index = Self::default();
        let mut gathered = Gathered::default();
        for port in inventory.ports.values() {
            for entry in entries(port, scope_of(inventory, port)) {
                if let Some(counted) = gathered.add(entry, &port.id) {
                    index.insert(counted, &port.id, &mut Turned::default());
                }
            }
        }
        gathered.fill(&mut index);
        let addresses = index.addresses.iter().flat_map(|(scope, of)| {
            let prefixes = of.keys();
            prefixes.map(|prefix| (scope.clone(), *prefix))
        });
        let crowded = addresses.filter(|(s, p)| index.is_crowded(inventory, s, p));
        let crowded = BTreeSet::from_iter(crowded);
        index.recount(inventory, crowded.iter(), &mut Turned::default());
        index
    }

    /// After the inventory.
    pub(crate) fn follow(&mut self, undo: &Undo, inventory: &Inventory) -> Turned {
        let mut turned = Turned::default();
        let mut regrouped = BTreeSet::new();
        for id in self.touched(undo, inventory) {
            let before = undo
                .ports
                .get(&id)
                .map_or_else(|| inventory.ports.get(&id), Option::as_ref);
            let after = inventory.ports.get(&id);
            let old = before.map(|port| entries(port, old_scope(undo, inventory, port)));
            let new = after.map(|port| entries(port, scope_of(inventory, port)));
            let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
            for entry in old.difference(&new) {
                self.remove(entry, &id, &mut turned);
            }
            for entry in new.difference(&old) {
                self.insert(entry.clone(), &id, &mut turned);
            }
            regrouped.extend(old.into_iter().chain(new).filter_map(|entry| match entry {
                Entry::Address(scope, prefix) => Some((scope, prefix)),
                Entry::OnHost(_)
                | Entry::InNetwork(_)
                | Entry::HostInNetwork(..)
                | Entry::GroupInNetwork(..)
                | Entry::Member(_) => None,
            }));
        }
        self.recount(inventory, regrouped.iter(), &mut turned);
        turned
    }

    /// Ports that changed, and those of networks that are in another scope now.
    fn touched(&self, undo: &Undo, inventory: &Inventory) -> BTreeSet<PortId> {
        let networks = undo.networks.keys();
        let networks = networks.filter(|id| undo.is_rescoped(inventory, id));
        let of_networks = networks.flat_map(|id| self.ports_in(id)).cloned();
        undo.ports.keys().cloned().chain(of_networks).collect()
    }

    fn insert(&mut self, entry: Entry, port: &PortId, turned: &mut Turned) {
        match entry {
            Entry::OnHost(host) => {
                self.hosts.entry(host).or_default().insert(port.clone());
            }
            Entry::InNetwork(network) => {
                let of = self.networks.entry(network).or_default();
                of.ports.insert(port.clone());
            }
            Entry::HostInNetwork(network, host) => {
                let of = self.networks.entry(network.clone()).or_default();
                if count_up(&mut of.hosts, host) {
                    turned.hosts_of.insert(network);
                }
            }
            Entry::GroupInNetwork(network, group) => {
                let of = self.networks.entry(network.clone()).or_default();
                if count_up(&mut of.groups, group.clone()) {
                    turned.groups_of.insert(network.clone());
                }
                let of = self.groups.entry(group.clone()).or_default();
                if count_up(&mut of.networks, network.clone()) {
                    turned.networks_of.insert((network, group));
                }
            }
            Entry::Member(group) => {
                let of = self.groups.entry(group).or_default();
                of.members.insert(port.clone());
            }
            Entry::Address(scope, prefix) => {
                let of = self.addresses.entry(scope.clone()).or_default();
                match of.entry(prefix) {
                    Vacant(entry) => drop(entry.insert(Holders::One(port.clone()))),
                    Occupied(mut entry) => entry.get_mut().add(port.clone()),
                }
                turned.addresses.insert((scope, prefix));
            }
        }
    }

    fn remove(&mut self, entry: &Entry, port: &PortId, turned: &mut Turned) {
        match entry {
            Entry::OnHost(host) => {
                let ports = self.hosts.get_mut(host);
                if ports.is_some_and(|ports| ports.remove(port) && ports.is_empty()) {
                    self.hosts.remove(host);
                }
            }
            Entry::InNetwork(network) => {
                let of = self.networks.get_mut(network);
                // The port that goes last takes the counts along: they are of ports.
                if of.is_some_and(|of| of.ports.remove(port) && of.is_vacant()) {
                    self.networks.remove(network);
                }
            }
            Entry::HostInNetwork(network, host) => {
                let of = self.networks.get_mut(network);
                if of.is_some_and(|of| count_down(&mut of.hosts, host)) {
                    turned.hosts_of.insert(network.clone());
                }
                self.forget_network(network);
            }
            Entry::GroupInNetwork(network, group) => {
                let of = self.networks.get_mut(network);
                if of.is_some_and(|of| count_down(&mut of.groups, group)) {
                    turned.groups_of.insert(network.clone());
                }
                self.forget_network(network);
                let of = self.groups.get_mut(group);
                if of.is_some_and(|of| count_down(&mut of.networks, network)) {
                    let both = (network.clone(), group.clone());
                    turned.networks_of.insert(both);
                }
                self.forget_group(group);
            }
            Entry::Member(group) => {
                if let Some(of) = self.groups.get_mut(group) {
                    of.members.remove(port);
                }
                self.forget_group(group);
            }
            Entry::Address(scope, prefix) => {
                if let Some(of) = self.addresses.get_mut(scope)
                    && let Some(ports) = of.get_mut(prefix)
                    && ports.remove(port)
                {
                    of.remove(prefix);
                }
                turned.addresses.insert((scope.clone(), *prefix));
            }
        }
    }

    fn forget_network(&mut self, network: &NetworkId) {
        if self.networks.get(network).is_some_and(OfNetwork::is_vacant) {
            self.networks.remove(network);
        }
    }

    fn forget_group(&mut self, group: &GroupId) {
        let of = self.groups.get(group);
        if of.is_some_and(|of| of.members.is_empty() && of.networks.is_empty()) {
            self.groups.remove(group);
        }
    }

    /// Which of these addresses are in many groups now. Whatever else such an address's ports do is news as well.
    fn recount<'a>(
        &mut self,
        inventory: &Inventory,
        addresses: impl Iterator<Item = &'a (ScopeId, Prefix)>,
        turned: &mut Turned,
    ) {
        for (scope, prefix) in addresses {
            let is_crowded = self.is_crowded(inventory, scope, prefix);
            let crowd = self.crowds.get_mut(scope);
            if is_crowded {
                let crowd = self.crowds.entry(scope.clone()).or_default();
                crowd.addresses.insert(*prefix);
                turned.crowds.insert(scope.clone());
            } else if crowd.is_some_and(|crowd| crowd.addresses.remove(prefix)) {
                turned.crowds.insert(scope.clone());
            }
        }
        for scope in &turned.crowds {
            let of = self.addresses.get(scope);
            let Some(crowd) = self.crowds.get_mut(scope) else {
                continue;
            };
            let ports = crowd.addresses.iter().filter_map(|prefix| of?.get(prefix));
            crowd.ports = Arc::new(ports.flat_map(Holders::ports).cloned().collect());
            if crowd.addresses.is_empty() {
                self.crowds.remove(scope);
            }
        }
    }

    fn is_crowded(&self, inventory: &Inventory, scope: &ScopeId, prefix: &Prefix) -> bool {
        let ports = self.ports_at(scope, prefix).iter();
        let ports: Vec<&Port> = ports.filter_map(|id| inventory.ports.get(id)).collect();
        // Cheap for the many that are in a few.
        let at_most: usize = ports.iter().map(|port| port.groups.len()).sum();
        at_most > SHORT && {
            let groups = ports.iter().flat_map(|port| joined(port));
            groups.collect::<BTreeSet<_>>().len() > SHORT
        }
    }

    pub(crate) fn ports_on(&self, host: &HostId) -> impl Iterator<Item = &PortId> {
        self.hosts.get(host).into_iter().flatten()
    }

    pub(crate) fn network(&self, id: &NetworkId) -> Option<&OfNetwork> {
        self.networks.get(id)
    }

    pub(crate) fn ports_in(&self, network: &NetworkId) -> impl Iterator<Item = &PortId> {
        self.networks
            .get(network)
            .into_iter()
            .flat_map(|of| &of.ports)
    }

    pub(crate) fn group(&self, id: &GroupId) -> Option<&OfGroup> {
        self.groups.get(id)
    }

    pub(crate) fn members(&self, group: &GroupId) -> impl Iterator<Item = &PortId> {
        self.groups
            .get(group)
            .into_iter()
            .flat_map(|of| &of.members)
    }

    pub(crate) fn ports_at(&self, scope: &ScopeId, prefix: &Prefix) -> &[PortId] {
        let of = self.addresses.get(scope);
        of.and_then(|of| of.get(prefix)).map_or(&[], Holders::ports)
    }

    /// The ports of the scope that have an address in many groups.
    pub(crate) fn crowd(&self, scope: &ScopeId) -> Arc<BTreeSet<PortId>> {
        let crowd = self.crowds.get(scope);
        crowd.map_or_else(Arc::default, |crowd| Arc::clone(&crowd.ports))
    }
}

impl Holders {
    fn ports(&self) -> &[PortId] {
        match self {
            Self::One(port) => std::slice::from_ref(port),
            Self::More(ports) => ports,
        }
    }

    fn add(&mut self, port: PortId) {
        match self {
            Self::One(known) => *self = Self::More([known.clone(), port].into()),
            Self::More(ports) => drop(ports.insert(port)),
        }
    }

    /// Whether none is left.
    fn remove(&mut self, port: &PortId) -> bool {
        match self {
            Self::One(known) => known == port,
            Self::More(ports) => {
                ports.remove(port);
                ports.is_empty()
            }
        }
    }
}

impl OfNetwork {
    fn is_vacant(&self) -> bool {
        self.ports.is_empty() && self.hosts.is_empty() && self.groups.is_empty()
    }
}

fn entries(port: &Port, scope: Option<&ScopeId>) -> BTreeSet<Entry> {
    let network = &port.network;
    let mut entries = BTreeSet::from([Entry::InNetwork(network.clone())]);
    entries.extend(port.hosts().cloned().map(Entry::OnHost));
    // Tunnels lead to where it is.
    if let Some(host) = &port.host {
        entries.insert(Entry::HostInNetwork(network.clone(), host.clone()));
    }
    for group in joined(port) {
        entries.insert(Entry::Member(group.clone()));
        entries.insert(Entry::GroupInNetwork(network.clone(), group.clone()));
    }
    if let Some(scope) = scope {
        let addresses = member_addresses(port);
        entries.extend(addresses.map(|prefix| Entry::Address(scope.clone(), prefix)));
    }
    entries
}

/// Groups in force: none with port security off, and none of a list too long.
pub(crate) fn joined(port: &Port) -> impl Iterator<Item = &GroupId> {
    let in_force = port.port_security && port.groups.len() <= Port::MAX_GROUPS;
    port.groups.iter().filter(move |_| in_force)
}

/// What stands for the port in its groups.
pub(crate) fn member_addresses(port: &Port) -> impl Iterator<Item = Prefix> + '_ {
    let prefixes = port.member_prefixes();
    prefixes.filter(|prefix| port.port_security && !is_link_local(prefix))
}

pub(crate) fn is_link_local(prefix: &Prefix) -> bool {
    match prefix.network() {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => prefix.length() >= 10 && address.is_unicast_link_local(),
    }
}

pub(crate) fn scope_of<'a>(inventory: &'a Inventory, port: &Port) -> Option<&'a ScopeId> {
    let network = inventory.networks.get(&port.network);
    network.map(|network| &network.scope)
}

fn old_scope<'a>(undo: &'a Undo, inventory: &'a Inventory, port: &Port) -> Option<&'a ScopeId> {
    match undo.networks.get(&port.network) {
        Some(old) => old.as_ref().map(|network| &network.scope),
        None => scope_of(inventory, port),
    }
}

/// Whether it is the first.
fn count_up<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) -> bool {
    let count = counts.entry(key).or_default();
    *count += 1;
    *count == 1
}

/// Whether it was the last.
fn count_down<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) -> bool {
    let Some(count) = counts.get_mut(key) else {
        return false;
    };
    *count -= 1;
    if *count == 0 {
        counts.remove(key);
        return true;
    }
    false
}
