//! What one host has to hear of, and who has to hear of one thing.
//!
//! An interest is a function of the inventory, its index, and the host. It says which objects are in the host's part
//! and, with `part`, what is left of them there.

use crate::index::{Index, joined, member_addresses};
use model::{
    AddressGroupId, GroupId, HostId, Inspection, Inventory, NetworkId, Peer, PortId, ScopeId,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interest {
    /// Of local ports, the missing ones too.
    pub(crate) networks: BTreeMap<NetworkId, LocalNetwork>,
    /// Groups whose rules are asked here.
    pub(crate) full: BTreeSet<GroupId>,
    /// Groups that those rules name, and the scopes in which their members matter. Those that are merely seen at an
    /// address have no scope.
    pub(crate) named: BTreeMap<GroupId, BTreeSet<ScopeId>>,
    pub(crate) address_groups: BTreeSet<AddressGroupId>,
    /// Not local; members are there.
    pub(crate) remote_networks: BTreeSet<NetworkId>,
    /// `None`: the host builds no tunnels.
    pub(crate) tunnel: Option<Tunnel>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LocalNetwork {
    /// Link-local addresses of its ports are reserved.
    pub(crate) reserves: bool,
    /// It goes to other hosts by tunnels.
    pub(crate) is_overlay: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tunnel {
    /// The rules of receivers elsewhere are asked here.
    pub(crate) asks_ahead: bool,
    /// Others that have ports in the overlay's networks.
    pub(crate) hosts: BTreeSet<HostId>,
    /// Scopes of these networks, and the ports in them whose addresses are in many groups.
    pub(crate) crowds: BTreeMap<ScopeId, Arc<BTreeSet<PortId>>>,
    /// Other hosts' ports that have an address of a local one.
    pub(crate) shared: BTreeSet<PortId>,
}

impl Interest {
    /// And of how many objects that is said.
    pub(crate) fn of(inventory: &Inventory, index: &Index, host: &HostId) -> (Self, usize) {
        let mut asked = 0;
        let this = inventory.hosts.get(host);
        let mut interest = Self {
            tunnel: this
                .filter(|this| this.tunnel_address.is_some())
                .map(|this| Tunnel {
                    asks_ahead: match this.settings.inspection {
                        Inspection::Source | Inspection::Both => true,
                        Inspection::Destination => false,
                    },
                    ..Tunnel::default()
                }),
            ..Self::default()
        };
        let mut scopes: BTreeMap<&GroupId, BTreeSet<&ScopeId>> = BTreeMap::new();
        for id in index.ports_on(host) {
            let port = &inventory.ports[id];
            asked += 1;
            interest.see_network(inventory, &port.network);
            let network = inventory.networks.get(&port.network);
            for group in joined(port) {
                let of_group = scopes.entry(group).or_default();
                of_group.extend(network.map(|network| &network.scope));
            }
        }
        asked += interest.see_overlay(inventory, index, host, &mut scopes);
        asked += interest.see_rules(inventory, &scopes);
        interest.see_watched(inventory);
        interest.full = scopes.into_keys().cloned().collect();
        asked += interest.see_remote_networks(inventory, index);
        (interest, asked)
    }

    fn see_network(&mut self, inventory: &Inventory, id: &NetworkId) {
        if self.networks.contains_key(id) {
            return;
        }
        let network = inventory.networks.get(id);
        let tunnels = self.tunnel.is_some();
        let seen = network.map(|network| LocalNetwork {
            reserves: !network.eui64_only,
            is_overlay: tunnels && network.vni.is_some(),
        });
        self.networks.insert(id.clone(), seen.unwrap_or_default());
    }

    fn see_overlay<'a>(
        &mut self,
        inventory: &'a Inventory,
        index: &'a Index,
        host: &HostId,
        scopes: &mut BTreeMap<&'a GroupId, BTreeSet<&'a ScopeId>>,
    ) -> usize {
        let mut asked = 0;
        let Some(tunnel) = &mut self.tunnel else {
            return asked;
        };
        for (id, seen) in &self.networks {
            let (Some(network), Some(of)) = (inventory.networks.get(id), index.network(id)) else {
                continue;
            };
            if !seen.is_overlay {
                continue;
            }
            asked += of.hosts.len() + of.groups.len();
            let others = of.hosts.keys().filter(|other| *other != host);
            tunnel.hosts.extend(others.cloned());
            let scope = &network.scope;
            tunnel.crowds.insert(scope.clone(), index.crowd(scope));
            for group in of.groups.keys().filter(|_| tunnel.asks_ahead) {
                scopes.entry(group).or_default().insert(scope);
            }
        }
        for id in index.ports_on(host) {
            let port = &inventory.ports[id];
            let network = inventory.networks.get(&port.network);
            let Some(scope) = network.map(|network| &network.scope) else {
                continue;
            };
            if !tunnel.crowds.contains_key(scope) {
                continue;
            }
            let same = member_addresses(port).flat_map(|prefix| index.ports_at(scope, &prefix));
            let elsewhere = same.filter(|id| !inventory.ports[*id].is_on(host));
            tunnel.shared.extend(elsewhere.cloned());
        }
        asked + tunnel.watched().count()
    }

    /// Whether what they name is there doesn't matter: if it comes, it is heard of.
    fn see_rules(
        &mut self,
        inventory: &Inventory,
        scopes: &BTreeMap<&GroupId, BTreeSet<&ScopeId>>,
    ) -> usize {
        let mut asked = 0;
        for (group, scopes) in scopes {
            let rules = inventory.groups.get(*group).into_iter();
            for rule in rules.flat_map(|group| group.rules.values()) {
                asked += 1;
                match &rule.peer {
                    Peer::Any | Peer::Prefix(_) => {}
                    Peer::Group(named) => match self.named.get_mut(named) {
                        Some(known) => known.extend(scopes.iter().copied().cloned()),
                        None => {
                            let scopes = scopes.iter().copied().cloned().collect();
                            self.named.insert(named.clone(), scopes);
                        }
                    },
                    Peer::AddressGroup(named) => {
                        self.address_groups.insert(named.clone());
                    }
                }
            }
        }
        asked
    }

    /// Groups of ports whose groups are all told.
    fn see_watched(&mut self, inventory: &Inventory) {
        for id in self.tunnel.iter().flat_map(Tunnel::watched) {
            for group in joined(&inventory.ports[id]) {
                if !self.named.contains_key(group) {
                    self.named.insert(group.clone(), BTreeSet::new());
                }
            }
        }
    }

    fn see_remote_networks(&mut self, inventory: &Inventory, index: &Index) -> usize {
        let mut asked = 0;
        let mut found = BTreeSet::new();
        for (group, scopes) in &self.named {
            let of = index.group(group).into_iter();
            let networks = of.flat_map(|of| of.networks.keys());
            let networks = networks.inspect(|_| asked += 1);
            found.extend(networks.filter(|id| {
                let network = inventory.networks.get(*id);
                network.is_some_and(|network| scopes.contains(&network.scope))
            }));
        }
        let watched = self.tunnel.iter().flat_map(Tunnel::watched);
        found.extend(watched.map(|id| &inventory.ports[id].network));
        found.retain(|id| !self.networks.contains_key(*id));
        self.remote_networks = found.into_iter().cloned().collect();
        asked
    }

    /// Whether the network is to be one of them, by all else; and of how many objects that is said.
    pub(crate) fn has_remote(
        &self,
        inventory: &Inventory,
        index: &Index,
        id: &NetworkId,
    ) -> (bool, usize) {
        let Some(network) = inventory.networks.get(id) else {
            return (false, 0);
        };
        if self.networks.contains_key(id) {
            return (false, 1);
        }
        let mut asked = 0;
        let mut named = self.named.iter().inspect(|_| asked += 1);
        let has_member = named.any(|(group, scopes)| {
            let of = index
                .group(group)
                .filter(|_| scopes.contains(&network.scope));
            of.is_some_and(|of| of.networks.contains_key(id))
        });
        let watched = self.tunnel.iter().flat_map(Tunnel::watched);
        let watched = watched.filter_map(|port| inventory.ports.get(port));
        let mut watched = watched.inspect(|_| asked += 1);
        let is_remote = has_member || watched.any(|port| port.network == *id);
        (is_remote, asked)
    }

    pub(crate) fn is_named_in(&self, group: &GroupId, scope: &ScopeId) -> bool {
        let scopes = self.named.get(group);
        scopes.is_some_and(|scopes| scopes.contains(scope))
    }

    fn reasons(&self) -> BTreeSet<Reason> {
        let mut reasons = BTreeSet::new();
        reasons.extend(self.networks.keys().cloned().map(Reason::Network));
        let neighbours = self.networks.iter();
        let neighbours = neighbours.filter(|(_, local)| local.reserves || local.is_overlay);
        reasons.extend(neighbours.map(|(id, _)| Reason::Neighbours(id.clone())));
        reasons.extend(self.full.iter().cloned().map(Reason::Rules));
        reasons.extend(self.named.keys().cloned().map(Reason::Members));
        reasons.extend(
            self.address_groups
                .iter()
                .cloned()
                .map(Reason::AddressGroup),
        );
        reasons.extend(self.remote_networks.iter().cloned().map(Reason::Scope));
        if let Some(tunnel) = &self.tunnel {
            reasons.insert(Reason::Tags);
            reasons.extend(tunnel.hosts.iter().cloned().map(Reason::Peer));
            reasons.extend(tunnel.crowds.keys().cloned().map(Reason::Crowd));
            reasons.extend(tunnel.shared.iter().cloned().map(Reason::Shared));
        }
        reasons
    }
}

impl Tunnel {
    /// Ports of which all groups matter, whoever's rules name them.
    fn watched(&self) -> impl Iterator<Item = &PortId> {
        let crowds = self.crowds.values().flat_map(|ports| ports.iter());
        crowds.chain(&self.shared)
    }
}

/// Why a host hears of something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reason {
    /// It has a port there.
    Network(NetworkId),
    /// And all others that are there matter.
    Neighbours(NetworkId),
    /// A port of its groups is there.
    Scope(NetworkId),
    Rules(GroupId),
    Members(GroupId),
    AddressGroup(AddressGroupId),
    Peer(HostId),
    /// Addresses in many groups, in this scope.
    Crowd(ScopeId),
    Shared(PortId),
    /// The tags of all groups.
    Tags,
}

/// The hosts that follow, and for each reason which of them have it.
#[derive(Default)]
pub(crate) struct Followers {
    interests: BTreeMap<HostId, Interest>,
    by_reason: HashMap<Reason, BTreeSet<HostId>>,
}

impl Followers {
    pub(crate) fn is_empty(&self) -> bool {
        self.interests.is_empty()
    }

    pub(crate) fn hosts(&self) -> impl Iterator<Item = &HostId> {
        self.interests.keys()
    }

    pub(crate) fn interest(&self, host: &HostId) -> Option<&Interest> {
        self.interests.get(host)
    }

    pub(crate) fn with(&self, reason: &Reason) -> impl Iterator<Item = &HostId> + use<'_> {
        self.by_reason.get(reason).into_iter().flatten()
    }

    /// What it was before.
    pub(crate) fn set(&mut self, host: &HostId, interest: Option<Interest>) -> Option<Interest> {
        let old = self.interests.remove(host);
        let before = old.as_ref().map(Interest::reasons).unwrap_or_default();
        let after = interest.as_ref().map(Interest::reasons).unwrap_or_default();
        for reason in before.difference(&after) {
            self.unlist(reason, host);
        }
        for reason in after.difference(&before) {
            self.list(reason.clone(), host);
        }
        if let Some(interest) = interest {
            self.interests.insert(host.clone(), interest);
        }
        old
    }

    /// One of its remote networks comes or goes, and nothing else. What it was before.
    pub(crate) fn turn_remote(&mut self, host: &HostId, network: &NetworkId) -> Interest {
        let interest = self.interests.get_mut(host).expect("it follows");
        let old = interest.clone();
        let reason = Reason::Scope(network.clone());
        if interest.remote_networks.remove(network) {
            self.unlist(&reason, host);
        } else {
            interest.remote_networks.insert(network.clone());
            self.list(reason, host);
        }
        old
    }

    fn list(&mut self, reason: Reason, host: &HostId) {
        let hosts = self.by_reason.entry(reason).or_default();
        hosts.insert(host.clone());
    }

    fn unlist(&mut self, reason: &Reason, host: &HostId) {
        let hosts = self.by_reason.get_mut(reason);
        if hosts.is_some_and(|hosts| hosts.remove(host) && hosts.is_empty()) {
            self.by_reason.remove(reason);
        }
    }
}
