//! The inventory, who follows it, and one change after another.

use crate::difference::difference;
use crate::index::{Index, Turned, joined};
use crate::interest::{Followers, Interest, Reason};
use crate::objects::{Objects, message};
use crate::part::{GroupPart, Part};
use crate::undo::{Undo, World};
use model::{
    GroupId, HostId, Inventory, InventoryChange, NetworkId, Peer, Port, PortId, Revision, Rule,
};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Distribution {
    inventory: Inventory,
    index: Index,
    followers: Followers,
    work: Work,
}

/// To each host that has to hear something, all of it; none is empty.
pub type Messages = BTreeMap<HostId, InventoryChange>;

/// What has been done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Objects that changes were about.
    pub named: usize,
    /// Interests of hosts that were looked at anew.
    pub interests: usize,
    /// Ports, rules and the like that were asked for what interests are.
    pub asked: usize,
    /// Objects that were compared, for one host each.
    pub objects: usize,
    pub messages: usize,
}

impl Distribution {
    pub fn revision(&self) -> Revision {
        self.inventory.revision
    }

    pub fn work(&self) -> Work {
        self.work
    }

    /// As if it had come by a change: hosts hear what is another now. Cost: by the size of both.
    pub fn replace(&mut self, inventory: Inventory) -> Messages {
        if !self.followers.is_empty() {
            return self.change(difference(&self.inventory, inventory));
        }
        self.index = Index::of(&inventory);
        self.inventory = inventory;
        Messages::new()
    }

    pub fn change(&mut self, change: InventoryChange) -> Messages {
        self.work.named += objects_of(&change);
        let undo = Undo::change(&mut self.inventory, change);
        let turned = self.index.follow(&undo, &self.inventory);
        let mut concerned = self.concerned(&undo);
        let mut earlier = BTreeMap::new();
        let unsettled = self.unsettled(&undo, &turned);
        for (host, network) in self.reached(&turned) {
            if !unsettled.contains(&host) && self.is_other(&host, &network) {
                let old = self.followers.turn_remote(&host, &network);
                earlier.entry(host).or_insert(old);
            }
        }
        for host in unsettled {
            let new = self.interest(&host);
            let old = self.followers.interest(&host);
            if old.is_none_or(|old| *old == new) {
                continue;
            }
            let old = self.followers.set(&host, Some(new)).expect("it follows");
            earlier.insert(host, old);
        }
        for (host, objects) in self.concerned(&undo) {
            concerned.entry(host).or_default().add(objects);
        }
        for (host, old) in &earlier {
            let new = self.followers.interest(host).expect("it was just set");
            let objects = Objects::between(old, new, &self.inventory, &self.index);
            concerned.entry(host.clone()).or_default().add(objects);
        }
        self.messages(concerned, &earlier, &undo)
    }

    fn messages(
        &mut self,
        concerned: BTreeMap<HostId, Objects>,
        earlier: &BTreeMap<HostId, Interest>,
        undo: &Undo,
    ) -> Messages {
        let mut messages = Messages::new();
        self.work.objects += concerned.values().map(Objects::len).sum::<usize>();
        for (host, objects) in concerned {
            let Some(interest) = self.followers.interest(&host) else {
                continue;
            };
            let after = self.part(&host, interest);
            let before = Part {
                world: World {
                    undo: Some(undo),
                    ..after.world
                },
                interest: earlier.get(&host).unwrap_or(interest),
                host: &host,
            };
            let change = message(&objects, before, after, undo);
            if !change.is_empty() {
                messages.insert(host, change);
            }
        }
        self.work.messages += messages.len();
        messages
    }

    /// From now on the host hears of changes. What there is so far.
    pub fn subscribe(&mut self, host: &HostId) -> Inventory {
        self.follow(host);
        let interest = self.followers.interest(host).expect("it was just set");
        let objects = Objects::of(host, interest, &self.inventory, &self.index);
        self.work.objects += objects.len();
        collected(&objects, self.part(host, interest))
    }

    /// The same for one that has all there is so far.
    pub fn follow(&mut self, host: &HostId) {
        let interest = self.interest(host);
        self.followers.set(host, Some(interest));
    }

    fn interest(&mut self, host: &HostId) -> Interest {
        let (interest, asked) = Interest::of(&self.inventory, &self.index, host);
        self.work.interests += 1;
        self.work.asked += asked;
        interest
    }

    pub fn unsubscribe(&mut self, host: &HostId) {
        self.followers.set(host, None);
    }

    pub fn followers(&self) -> impl Iterator<Item = &HostId> {
        self.followers.hosts()
    }

    fn part<'a>(&'a self, host: &'a HostId, interest: &'a Interest) -> Part<'a> {
        let world = World {
            inventory: &self.inventory,
            undo: None,
        };
        Part {
            world,
            host,
            interest,
        }
    }

    /// Who may have to hear of the objects that changed, by the interests of this moment.
    fn concerned(&self, undo: &Undo) -> BTreeMap<HostId, Objects> {
        let mut told = Told {
            followers: &self.followers,
            by_host: BTreeMap::new(),
        };
        for id in undo.hosts.keys() {
            told.tell(id, |objects| {
                objects.hosts.insert(id.clone());
            });
            told.tell_all(&Reason::Peer(id.clone()), |objects| {
                objects.hosts.insert(id.clone());
            });
        }
        for id in undo.networks.keys() {
            self.tell_of_network(&mut told, undo, id);
        }
        for id in undo.ports.keys() {
            self.tell_of_port(&mut told, undo, id);
        }
        for id in undo.groups.keys().chain(undo.rules.keys()) {
            let mut reasons = vec![Reason::Rules(id.clone()), Reason::Members(id.clone())];
            let tag = |group: Option<&model::SecurityGroup>| group.and_then(|group| group.tag);
            let old = undo.groups.get(id);
            if old.is_some_and(|old| tag(old.as_ref()) != tag(self.inventory.groups.get(id))) {
                reasons.push(Reason::Tags);
            }
            for reason in &reasons {
                told.tell_all(reason, |objects| {
                    objects.groups.insert(id.clone());
                });
            }
        }
        for id in undo.address_groups.keys() {
            told.tell_all(&Reason::AddressGroup(id.clone()), |objects| {
                objects.address_groups.insert(id.clone());
            });
        }
        told.by_host
    }

    fn tell_of_network(&self, told: &mut Told<'_>, undo: &Undo, id: &NetworkId) {
        for reason in [Reason::Network(id.clone()), Reason::Scope(id.clone())] {
            told.tell_all(&reason, |objects| {
                objects.networks.insert(id.clone());
            });
        }
        if !undo.is_rescoped(&self.inventory, id) {
            return;
        }
        let ports = || self.index.ports_in(id).cloned();
        told.tell_all(&Reason::Network(id.clone()), |objects| {
            objects.ports.extend(ports());
        });
        told.tell_all(&Reason::Scope(id.clone()), |objects| {
            objects.ports.extend(ports());
        });
        for group in self.groups_in(id) {
            told.tell_all(&Reason::Members(group.clone()), |objects| {
                objects.ports.extend(ports());
            });
        }
    }

    fn groups_in(&self, network: &NetworkId) -> impl Iterator<Item = &GroupId> {
        let of = self.index.network(network);
        of.into_iter().flat_map(|of| of.groups.keys())
    }

    fn tell_of_port(&self, told: &mut Told<'_>, undo: &Undo, id: &PortId) {
        let mut reasons = BTreeSet::from([Reason::Shared(id.clone())]);
        for port in undo.port(&self.inventory, id) {
            reasons.insert(Reason::Neighbours(port.network.clone()));
            reasons.extend(joined(port).cloned().map(Reason::Members));
            if let Some(network) = self.inventory.networks.get(&port.network)
                && self.index.crowd(&network.scope).contains(id)
            {
                reasons.insert(Reason::Crowd(network.scope.clone()));
            }
            for host in port.hosts() {
                told.tell(host, |objects| {
                    objects.ports.insert(id.clone());
                });
            }
        }
        for reason in reasons {
            told.tell_all(&reason, |objects| {
                objects.ports.insert(id.clone());
            });
        }
    }

    /// Hosts whose interest may be another now.
    fn unsettled(&self, undo: &Undo, turned: &Turned) -> BTreeSet<HostId> {
        let mut hosts: BTreeSet<&HostId> = undo.hosts.keys().collect();
        let mut reasons = BTreeSet::new();
        for id in undo.ports.keys() {
            let ports = undo.port(&self.inventory, id);
            hosts.extend(ports.flat_map(Port::hosts));
            reasons.insert(Reason::Shared(id.clone()));
        }
        for id in undo.networks.keys() {
            reasons.insert(Reason::Network(id.clone()));
            if undo.is_rescoped(&self.inventory, id) {
                reasons.insert(Reason::Scope(id.clone()));
                reasons.extend(self.groups_in(id).cloned().map(Reason::Members));
            }
        }
        for (id, old) in &undo.groups {
            if old.is_some() != self.inventory.groups.contains_key(id) {
                reasons.insert(Reason::Rules(id.clone()));
            }
        }
        for (id, rules) in &undo.rules {
            let group = self.inventory.groups.get(id);
            let names = rules.iter().any(|(rule, old)| {
                let new = group.and_then(|group| group.rules.get(rule));
                names_a_set(old.as_ref()) || names_a_set(new)
            });
            if names {
                reasons.insert(Reason::Rules(id.clone()));
            }
        }
        reasons.extend(turned.crowds.iter().cloned().map(Reason::Crowd));
        let by_reason = reasons
            .iter()
            .flat_map(|reason| self.followers.with(reason));
        let all = hosts.into_iter().chain(by_reason);
        let followed = all.filter(|host| self.followers.interest(host).is_some());
        followed
            .chain(self.unsettled_ends(turned))
            .cloned()
            .collect()
    }

    /// Hosts where rules name a group that has its first member in a network now, or had its last one: many, of a group
    /// that many name, and their interest is otherwise what it was.
    fn reached(&self, turned: &Turned) -> BTreeSet<(HostId, NetworkId)> {
        let turned = turned.networks_of.iter();
        let reached = turned.flat_map(|(network, group)| {
            let hosts = self.followers.with(&Reason::Members(group.clone()));
            hosts.map(|host| (host.clone(), network.clone()))
        });
        reached.collect()
    }

    /// Whether the network is a remote one of the host now, and wasn't, or was.
    fn is_other(&mut self, host: &HostId, network: &NetworkId) -> bool {
        let interest = self.followers.interest(host).expect("it follows");
        let (is_remote, asked) = interest.has_remote(&self.inventory, &self.index, network);
        self.work.asked += asked;
        is_remote != interest.remote_networks.contains(network)
    }

    /// The same of ends of tunnels: to others it is nothing who else is in a network, or has an address.
    fn unsettled_ends<'a>(&'a self, turned: &'a Turned) -> impl Iterator<Item = &'a HostId> {
        let networks = turned.hosts_of.iter().chain(&turned.groups_of);
        let of_networks = networks.flat_map(|id| self.followers.with(&Reason::Network(id.clone())));
        let addresses = turned.addresses.iter();
        let ports = addresses.flat_map(|(scope, prefix)| self.index.ports_at(scope, prefix));
        let ports = ports.filter_map(|id| self.inventory.ports.get(id));
        let hosts = of_networks.chain(ports.flat_map(Port::hosts));
        hosts.filter(|host| {
            let interest = self.followers.interest(host);
            interest.is_some_and(|interest| interest.tunnel.is_some())
        })
    }
}

struct Told<'a> {
    followers: &'a Followers,
    by_host: BTreeMap<HostId, Objects>,
}

impl Told<'_> {
    fn tell(&mut self, host: &HostId, say: impl FnOnce(&mut Objects)) {
        if self.followers.interest(host).is_some() {
            say(self.by_host.entry(host.clone()).or_default());
        }
    }

    fn tell_all(&mut self, reason: &Reason, mut say: impl FnMut(&mut Objects)) {
        for host in self.followers.with(reason) {
            say(self.by_host.entry(host.clone()).or_default());
        }
    }
}

impl Objects {
    fn add(&mut self, mut other: Self) {
        self.hosts.append(&mut other.hosts);
        self.networks.append(&mut other.networks);
        self.ports.append(&mut other.ports);
        self.groups.append(&mut other.groups);
        self.address_groups.append(&mut other.address_groups);
    }
}

fn objects_of(change: &InventoryChange) -> usize {
    change.hosts.len()
        + change.networks.len()
        + change.ports.len()
        + change.groups.len()
        + change.rules.len()
        + change.address_groups.len()
}

fn names_a_set(rule: Option<&Rule>) -> bool {
    match rule.map(|rule| &rule.peer) {
        Some(Peer::Group(_) | Peer::AddressGroup(_)) => true,
        Some(Peer::Any | Peer::Prefix(_)) | None => false,
    }
}

fn collected(objects: &Objects, part: Part<'_>) -> Inventory {
    let inventory = part.world.inventory;
    let mut made = Inventory {
        revision: inventory.revision,
        ..Inventory::default()
    };
    let hosts = objects.hosts.iter();
    made.hosts = hosts
        .filter_map(|id| Some((id.clone(), part.host(id)?)))
        .collect();
    let networks = objects.networks.iter();
    made.networks = networks
        .filter_map(|id| Some((id.clone(), part.network(id)?)))
        .collect();
    let ports = objects.ports.iter();
    made.ports = ports
        .filter_map(|id| Some((id.clone(), part.port(id)?)))
        .collect();
    let groups = objects.address_groups.iter();
    made.address_groups = groups
        .filter_map(|id| Some((id.clone(), part.address_group(id)?)))
        .collect();
    for id in &objects.groups {
        let group = match part.group(id) {
            GroupPart::Absent => continue,
            GroupPart::Name(group) => group,
            GroupPart::Whole(_) => inventory.groups[id].clone(),
        };
        made.groups.insert(id.clone(), group);
    }
    made
}
