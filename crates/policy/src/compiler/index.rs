//! Who is in what, who names whom, and how often: what tells which parts of a view a change touches.
//!
//! Knows nothing of: findings, the overlay, what a port or a group looks like in a view.

use crate::compile;
use crate::shared_set::SharedSet;
use crate::view::{GroupView, HostView, NetworkView, PeerView, PortView};
use model::{
    AddressGroupId, GroupId, Inventory, NetworkId, Peer, Port, PortId, Prefix, ScopeId,
    SecurityGroup,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::Ipv6Addr;
use std::sync::Arc;

type MembersOf = (ScopeId, GroupId);

#[derive(Default)]
pub(super) struct Index {
    /// All ports by the groups in force on them, and by their networks; these need not exist.
    in_group: HashMap<GroupId, BTreeSet<PortId>>,
    on_network: HashMap<NetworkId, BTreeSet<PortId>>,
    /// All groups by whom their rules name, whether or not it exists.
    naming: HashMap<GroupId, BTreeSet<GroupId>>,
    naming_addresses: HashMap<AddressGroupId, BTreeSet<GroupId>>,
    /// Local ports by group and scope, and by network.
    local: HashMap<GroupId, Counted<ScopeId>>,
    local_networks: Counted<NetworkId>,
    /// What `wanted` and `wanted_addresses` hold of each group of the view.
    standing: HashMap<GroupId, Standing>,
    /// Whose members the view has, by how many groups in one scope name them.
    wanted: Counted<MembersOf>,
    wanted_addresses: Counted<AddressGroupId>,
    /// Where they may have changed since the view was made.
    rewanted: BTreeSet<MembersOf>,
    rewanted_addresses: BTreeSet<AddressGroupId>,
    /// Two ports may have the same address, and stand for it once.
    members: HashMap<MembersOf, Counted<Prefix>>,
    reserved: HashMap<NetworkId, Counted<Ipv6Addr>>,
}

/// A group of local ports in these scopes, and whom its rules name.
#[derive(Default, PartialEq, Eq)]
struct Standing {
    scopes: BTreeSet<ScopeId>,
    groups: BTreeSet<GroupId>,
    address_groups: BTreeSet<AddressGroupId>,
}

/// What a change of ports adds to members and to reserved addresses, all in all.
#[derive(Default)]
pub(super) struct Contributions {
    members: BTreeMap<(MembersOf, Prefix), isize>,
    reserved: BTreeMap<(NetworkId, Ipv6Addr), isize>,
}

struct Counted<K>(HashMap<K, usize>);

impl<K> Default for Counted<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq> Counted<K> {
    fn contains(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    fn add(&mut self, key: K) {
        *self.0.entry(key).or_default() += 1;
    }

    fn remove(&mut self, key: &K) {
        let count = self.0.get_mut(key).expect("what is removed was added");
        *count -= 1;
        if *count == 0 {
            self.0.remove(key);
        }
    }

    /// So many more, or fewer. Whether it came, or went.
    fn change(&mut self, key: &K, by: isize) -> Option<Passage>
    where
        K: Clone,
    {
        let before = self.contains(key);
        for _ in 0..by.max(0) {
            self.add(key.clone());
        }
        for _ in by.min(0)..0 {
            self.remove(key);
        }
        match (before, self.contains(key)) {
            (false, true) => Some(Passage::Came),
            (true, false) => Some(Passage::Went),
            (false, false) | (true, true) => None,
        }
    }
}

enum Passage {
    Came,
    Went,
}

impl Passage {
    fn pass<T: Ord + Clone>(&self, set: &mut SharedSet<T>, thing: T) {
        match self {
            Passage::Came => set.insert(thing),
            Passage::Went => set.remove(&thing),
        };
    }
}

impl<K: Hash + Eq> FromIterator<K> for Counted<K> {
    fn from_iter<I: IntoIterator<Item = K>>(keys: I) -> Self {
        let mut counted = Self::default();
        keys.into_iter().for_each(|key| counted.add(key));
        counted
    }
}

impl Contributions {
    pub(super) fn add(&mut self, inventory: &Inventory, port: &Port, by: isize) {
        for address in compile::reserved_by_port(port) {
            let key = (port.network.clone(), address);
            *self.reserved.entry(key).or_default() += by;
        }
        let Some(network) = inventory.networks.get(&port.network) else {
            return;
        };
        for group in compile::joined_groups(port) {
            let of = (network.scope.clone(), group.clone());
            for prefix in compile::members_of(port) {
                *self.members.entry((of.clone(), prefix)).or_default() += by;
            }
        }
    }
}

impl Standing {
    fn of(scopes: &Counted<ScopeId>, group: &GroupView) -> Self {
        let mut standing = Self {
            scopes: scopes.0.keys().cloned().collect(),
            ..Self::default()
        };
        for rule in group.rules.values() {
            match &rule.peer {
                PeerView::Any | PeerView::Prefix(_) => {}
                PeerView::Group(group) => put(&mut standing.groups, group),
                PeerView::AddressGroup(group) => put(&mut standing.address_groups, group),
            }
        }
        standing
    }

    fn members(&self) -> impl Iterator<Item = MembersOf> + '_ {
        let scopes = self.scopes.iter();
        scopes.flat_map(|scope| {
            let groups = self.groups.iter();
            groups.map(|group| (scope.clone(), group.clone()))
        })
    }
}

/// Most rules name what others have named.
fn put<T: Ord + Clone>(set: &mut BTreeSet<T>, thing: &T) {
    if !set.contains(thing) {
        set.insert(thing.clone());
    }
}

/// Whom the rules of a group name, sound or not.
fn named(group: Option<&SecurityGroup>) -> (BTreeSet<&GroupId>, BTreeSet<&AddressGroupId>) {
    let (mut groups, mut address_groups) = (BTreeSet::new(), BTreeSet::new());
    for rule in group.iter().flat_map(|group| group.rules.values()) {
        match &rule.peer {
            Peer::Any | Peer::Prefix(_) => {}
            Peer::Group(group) => drop(groups.insert(group)),
            Peer::AddressGroup(group) => drop(address_groups.insert(group)),
        }
    }
    (groups, address_groups)
}

fn list<K: Hash + Eq + Clone, T: Ord + Clone>(
    lists: &mut HashMap<K, BTreeSet<T>>,
    key: &K,
    thing: &T,
) {
    match lists.get_mut(key) {
        Some(list) => drop(list.insert(thing.clone())),
        None => drop(lists.insert(key.clone(), BTreeSet::from([thing.clone()]))),
    }
}

fn unlist<K: Hash + Eq, T: Ord>(lists: &mut HashMap<K, BTreeSet<T>>, key: &K, thing: &T) {
    if let Some(list) = lists.get_mut(key) {
        list.remove(thing);
        if list.is_empty() {
            lists.remove(key);
        }
    }
}

impl Index {
    pub(super) fn new(inventory: &Inventory, view: &HostView) -> Self {
        let mut index = Self::default();
        for (id, port) in &inventory.ports {
            index.learn_port(id, port);
        }
        for (id, group) in &inventory.groups {
            index.learn_names(id, Some(group));
        }
        for port in view.ports.values() {
            index.count_local(inventory, port, true);
        }
        for (id, group) in &view.groups {
            index.stand(id, Some(group));
        }
        for of in std::mem::take(&mut index.rewanted) {
            let members = index.count_members(inventory, &of);
            index.members.insert(of, members);
        }
        for (id, network) in &view.networks {
            let reserved = index.count_reserved(inventory, id, network.eui64_only);
            index.reserved.insert(id.clone(), reserved);
        }
        index.rewanted_addresses.clear();
        index
    }

    pub(super) fn learn_port(&mut self, id: &PortId, port: &Port) {
        list(&mut self.on_network, &port.network, id);
        for group in compile::joined_groups(port) {
            list(&mut self.in_group, group, id);
        }
    }

    pub(super) fn forget_port(&mut self, id: &PortId, port: &Port) {
        unlist(&mut self.on_network, &port.network, id);
        for group in compile::joined_groups(port) {
            unlist(&mut self.in_group, group, id);
        }
    }

    pub(super) fn learn_names(&mut self, id: &GroupId, group: Option<&SecurityGroup>) {
        let (groups, address_groups) = named(group);
        for named in groups {
            list(&mut self.naming, named, id);
        }
        for named in address_groups {
            list(&mut self.naming_addresses, named, id);
        }
    }

    pub(super) fn forget_names(&mut self, id: &GroupId, group: Option<&SecurityGroup>) {
        let (groups, address_groups) = named(group);
        for named in groups {
            unlist(&mut self.naming, named, id);
        }
        for named in address_groups {
            unlist(&mut self.naming_addresses, named, id);
        }
    }

    pub(super) fn naming(
        &self,
        groups: &BTreeSet<GroupId>,
        address_groups: &BTreeSet<AddressGroupId>,
    ) -> BTreeSet<GroupId> {
        let groups = groups.iter().filter_map(|id| self.naming.get(id));
        let addresses = address_groups.iter();
        let addresses = addresses.filter_map(|id| self.naming_addresses.get(id));
        groups.chain(addresses).flatten().cloned().collect()
    }

    pub(super) fn in_group(&self, group: &GroupId) -> impl Iterator<Item = &PortId> {
        self.in_group.get(group).into_iter().flatten()
    }

    /// Some port is on it, here or elsewhere.
    pub(super) fn is_used(&self, network: &NetworkId) -> bool {
        self.on_network.contains_key(network)
    }

    /// A port of the view comes or goes.
    pub(super) fn count_local(&mut self, inventory: &Inventory, port: &PortView, come: bool) {
        let by = if come { 1 } else { -1 };
        self.local_networks.change(&port.network, by);
        // A network that a port of the view is on is there.
        let scope = &inventory.networks[&port.network].scope;
        for group in &port.groups {
            let scopes = self.local.entry(group.clone()).or_default();
            scopes.change(scope, by);
            if scopes.0.is_empty() {
                self.local.remove(group);
            }
        }
    }

    pub(super) fn is_local(&self, group: &GroupId) -> bool {
        self.local.contains_key(group)
    }

    /// What a group of the view leads to now. `None`: it is in the view no more.
    pub(super) fn stand(&mut self, id: &GroupId, group: Option<&GroupView>) {
        let new = group.zip(self.local.get(id));
        let new = new.map_or_else(Standing::default, |(view, scopes)| {
            Standing::of(scopes, view)
        });
        let old = self.standing.remove(id).unwrap_or_default();
        if old != new {
            self.count_standing(&new, 1);
            self.count_standing(&old, -1);
        }
        if group.is_some() {
            self.standing.insert(id.clone(), new);
        }
    }

    fn count_standing(&mut self, standing: &Standing, by: isize) {
        for of in standing.members() {
            if self.wanted.change(&of, by).is_some() {
                self.rewanted.insert(of);
            }
        }
        for group in &standing.address_groups {
            if self.wanted_addresses.change(group, by).is_some() {
                self.rewanted_addresses.insert(group.clone());
            }
        }
    }

    pub(super) fn names_addresses(&self, group: &AddressGroupId) -> bool {
        self.wanted_addresses.contains(group)
    }

    /// Those that rules of the view name now, or no more.
    pub(super) fn address_groups_to_look_at(&mut self) -> BTreeSet<AddressGroupId> {
        std::mem::take(&mut self.rewanted_addresses)
    }

    pub(super) fn members(
        &mut self,
        inventory: &Inventory,
        view: &mut BTreeMap<MembersOf, Arc<SharedSet<Prefix>>>,
        contributions: &Contributions,
    ) {
        let mut fresh = BTreeSet::new();
        for of in std::mem::take(&mut self.rewanted) {
            match (self.members.contains_key(&of), self.wanted.contains(&of)) {
                (true, false) => {
                    self.members.remove(&of);
                    view.remove(&of);
                }
                (false, true) => {
                    let members = self.count_members(inventory, &of);
                    if !members.0.is_empty() {
                        let set = members.0.keys().copied().collect();
                        view.insert(of.clone(), Arc::new(set));
                    }
                    self.members.insert(of.clone(), members);
                    fresh.insert(of);
                }
                (false, false) | (true, true) => {}
            }
        }
        for ((of, prefix), by) in &contributions.members {
            let known = self.members.get_mut(of).filter(|_| !fresh.contains(of));
            let Some(passage) = known.and_then(|known| known.change(prefix, *by)) else {
                continue;
            };
            let set = Arc::make_mut(view.entry(of.clone()).or_default());
            passage.pass(set, *prefix);
            if set.is_empty() {
                view.remove(of);
            }
        }
    }

    fn count_members(&self, inventory: &Inventory, of: &MembersOf) -> Counted<Prefix> {
        let (scope, group) = of;
        let ports = self.in_group(group).map(|id| &inventory.ports[id]);
        let ports = ports.filter(|port| {
            let network = inventory.networks.get(&port.network);
            network.is_some_and(|network| network.scope == *scope)
        });
        ports.flat_map(compile::members_of).collect()
    }

    pub(super) fn networks(
        &mut self,
        inventory: &Inventory,
        view: &mut BTreeMap<NetworkId, NetworkView>,
        contributions: &Contributions,
    ) {
        let local = &self.local_networks;
        let unused = view.extract_if(.., |id, _| !local.contains(id));
        for (id, _) in unused {
            self.reserved.remove(&id);
        }
        let come: Vec<NetworkId> = {
            let used = self.local_networks.0.keys();
            used.filter(|id| !view.contains_key(*id)).cloned().collect()
        };
        for id in &come {
            let network = &inventory.networks[id];
            let reserved = self.count_reserved(inventory, id, network.eui64_only);
            let addresses = reserved.0.keys().copied().collect();
            view.insert(id.clone(), compile::network_view(network, addresses));
            self.reserved.insert(id.clone(), reserved);
        }
        for ((id, address), by) in &contributions.reserved {
            let Some(network) = view.get_mut(id) else {
                continue;
            };
            if network.eui64_only || come.contains(id) {
                continue;
            }
            let known = self.reserved.get_mut(id);
            if let Some(passage) = known.and_then(|known| known.change(address, *by)) {
                let set = Arc::make_mut(&mut network.reserved_link_local);
                passage.pass(set, *address);
            }
        }
    }

    fn count_reserved(
        &self,
        inventory: &Inventory,
        network: &NetworkId,
        eui64_only: bool,
    ) -> Counted<Ipv6Addr> {
        if eui64_only {
            return Counted::default();
        }
        let routers = inventory.networks.get(network);
        let routers = routers.into_iter().flat_map(compile::reserved_by_routers);
        let ports = self.on_network.get(network).into_iter().flatten();
        let ports = ports.map(|id| &inventory.ports[id]);
        routers
            .chain(ports.flat_map(compile::reserved_by_port))
            .collect()
    }
}
