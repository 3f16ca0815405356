//! What was committed, at every revision: what hosts are judged by.
//!
//! Place on the line: **store commit**, beside the line.
//! Ports are those of the server's copy of the store, in memory once. Of the past, what each commit changed is kept.
//! Which objects a host needs is found the plain way: its ports, their groups, who is in the groups that these name.
//! No port of a simulation has link-local addresses, no host builds tunnels; then that is all that matters to it.
//! Knows nothing of: distribution, messages, agents.

use control::objects::Port;
use model::{
    AddressGroup, AddressGroupId, GroupId, Host, HostId, Inventory, InventoryChange, Network,
    NetworkId, Peer, PortId, Revision, SecurityGroup,
};
use policy::HostView;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) revision: Revision,
    /// All but ports.
    rest: Inventory,
    ports: Ports,
    on_host: BTreeMap<HostId, BTreeSet<PortId>>,
    in_group: BTreeMap<GroupId, BTreeSet<PortId>>,
    /// In the order of the commits.
    log: Vec<(Revision, Past)>,
}

pub(crate) type Ports = BTreeMap<PortId, Arc<Port>>;

/// What objects were before. `None`: not there.
#[derive(Clone, Default)]
struct Past {
    hosts: BTreeMap<HostId, Option<Host>>,
    networks: BTreeMap<NetworkId, Option<Network>>,
    ports: BTreeMap<PortId, Option<Arc<Port>>>,
    groups: BTreeMap<GroupId, Option<SecurityGroup>>,
    address_groups: BTreeMap<AddressGroupId, Option<AddressGroup>>,
    /// What the ports became.
    after: Vec<Arc<Port>>,
}

/// What a host has to enforce, and what that was made of: as long as none of it changes, it stays.
pub(crate) struct Expected {
    pub(crate) view: HostView,
    revision: Revision,
    host: HostId,
    needs: Needs,
}

#[derive(Default)]
struct Needs {
    /// Of its ports, and that their rules name.
    groups: BTreeSet<GroupId>,
    named: BTreeSet<GroupId>,
    networks: BTreeSet<NetworkId>,
    address_groups: BTreeSet<AddressGroupId>,
}

/// One port, before and after a commit.
pub(crate) type PortChange = (PortId, Option<Arc<Port>>, Option<Arc<Port>>);

impl Ledger {
    /// All anew; what is another now is as if one commit had done it. The ports that are.
    pub(crate) fn replace(&mut self, rest: Inventory, ports: Ports) -> Vec<PortChange> {
        let mut changed: Vec<PortChange> = Vec::new();
        for (id, after) in &ports {
            let before = self.ports.get(id);
            if before != Some(after) {
                changed.push((id.clone(), before.cloned(), Some(after.clone())));
            }
        }
        let gone = self.ports.iter().filter(|(id, _)| !ports.contains_key(*id));
        changed.extend(gone.map(|(id, before)| (id.clone(), Some(before.clone()), None)));
        let before = &self.rest;
        let is_first = self.revision == Revision::default();
        let past = Past {
            hosts: differing(&before.hosts, &rest.hosts),
            networks: differing(&before.networks, &rest.networks),
            ports: olds(&changed),
            groups: differing(&before.groups, &rest.groups),
            address_groups: differing(&before.address_groups, &rest.address_groups),
            after: afters(&changed),
        };
        // Before the first there is nothing that anybody could enforce.
        if !is_first {
            self.log.push((rest.revision, past));
        }
        changed.iter().for_each(|change| self.list(change));
        self.revision = rest.revision;
        // Equal ones, too: so they are in memory once.
        self.ports = ports;
        self.rest = rest;
        changed
    }

    pub(crate) fn change(&mut self, mut change: InventoryChange, ports: &[PortChange]) {
        let before = &self.rest;
        let rules = change.rules.keys().map(|of| &of.group);
        let past = Past {
            hosts: old(&before.hosts, change.hosts.keys()),
            networks: old(&before.networks, change.networks.keys()),
            ports: olds(ports),
            groups: old(&before.groups, change.groups.keys().chain(rules)),
            address_groups: old(&before.address_groups, change.address_groups.keys()),
            after: afters(ports),
        };
        self.revision = change.revision;
        self.log.push((change.revision, past));
        for port in ports {
            self.list(port);
            match &port.2 {
                Some(after) => self.ports.insert(port.0.clone(), after.clone()),
                None => self.ports.remove(&port.0),
            };
        }
        change.ports.clear();
        self.rest.change(change);
    }

    pub(crate) fn next(&self) -> Revision {
        Revision {
            commit: self.revision.commit + 1,
            ..self.revision
        }
    }

    fn list(&mut self, (id, before, after): &PortChange) {
        if let Some(before) = before {
            for group in &before.groups {
                unlist(&mut self.in_group, group, id);
            }
            if let Some(host) = host_of(before) {
                unlist(&mut self.on_host, host, id);
            }
        }
        if let Some(after) = after {
            for group in &after.groups {
                let listed = self.in_group.entry(group.clone()).or_default();
                listed.insert(after.id.clone());
            }
            if let Some(host) = host_of(after) {
                let listed = self.on_host.entry(host.clone()).or_default();
                listed.insert(after.id.clone());
            }
        }
    }

    pub(crate) fn ports(&self) -> usize {
        self.ports.len()
    }

    pub(crate) fn port(&self, id: &PortId) -> Option<&Arc<Port>> {
        self.ports.get(id)
    }

    pub(crate) fn on_host(&self, host: &HostId) -> Option<&BTreeSet<PortId>> {
        self.on_host.get(host)
    }

    pub(crate) fn in_group(&self, group: &GroupId) -> Option<&BTreeSet<PortId>> {
        self.in_group.get(group)
    }

    pub(crate) fn members(&self, group: &GroupId) -> usize {
        self.in_group(group).map_or(0, BTreeSet::len)
    }

    pub(crate) fn group(&self, id: &GroupId) -> Option<&SecurityGroup> {
        self.rest.groups.get(id)
    }

    /// Groups that rules of the host's ports name.
    pub(crate) fn named_by(&self, host: &HostId) -> BTreeSet<&GroupId> {
        let ports = self.on_host.get(host).into_iter().flatten();
        let ports = ports.filter_map(|id| self.ports.get(id));
        let groups: BTreeSet<&GroupId> = ports.flat_map(|port| &*port.groups).collect();
        let groups = groups.into_iter().filter_map(|id| self.group(id));
        let rules = groups.flat_map(|group| group.rules.values());
        let named = rules.filter_map(|rule| match &rule.peer {
            Peer::Group(named) => Some(named),
            Peer::Any | Peer::Prefix(_) | Peer::AddressGroup(_) => None,
        });
        named.collect()
    }

    /// What the host has to enforce at this revision.
    pub(crate) fn expected(&self, host: &HostId, revision: Revision) -> Expected {
        let at = At {
            ledger: self,
            past: self.past(revision),
        };
        let (part, needs) = at.part(host);
        let part = Inventory { revision, ..part };
        Expected {
            view: policy::compile(&part, host).0,
            revision,
            host: host.clone(),
            needs,
        }
    }

    /// Whether it is expected at this revision, too: then it is known from now on.
    pub(crate) fn still_holds(&self, expected: &mut Expected, revision: Revision) -> bool {
        let from = expected.revision.min(revision);
        let until = expected.revision.max(revision);
        let later = self.log.iter().rev();
        let later = later.skip_while(|(at, _)| *at > until);
        let mut between = later.take_while(|(at, _)| *at > from);
        let holds = !between.any(|(_, past)| expected.is_changed_by(past));
        if holds {
            expected.revision = revision;
        }
        holds
    }

    /// All there is now.
    pub(crate) fn whole(&self) -> Inventory {
        let ports = self.ports.iter();
        Inventory {
            ports: ports
                .map(|(id, port)| (id.clone(), port.placed()))
                .collect(),
            ..self.rest.clone()
        }
    }

    /// What was otherwise at this revision.
    fn past(&self, revision: Revision) -> Past {
        let mut past = Past::default();
        let later = self.log.iter().rev();
        for (_, before) in later.take_while(|(at, _)| *at > revision) {
            let before = before.clone();
            past.hosts.extend(before.hosts);
            past.networks.extend(before.networks);
            past.ports.extend(before.ports);
            past.groups.extend(before.groups);
            past.address_groups.extend(before.address_groups);
        }
        past
    }
}

pub(crate) fn host_of(port: &Port) -> Option<&HostId> {
    port.binding.as_ref().map(|binding| &binding.host)
}

struct At<'a> {
    ledger: &'a Ledger,
    past: Past,
}

impl At<'_> {
    fn part(&self, host: &HostId) -> (Inventory, Needs) {
        let rest = &self.ledger.rest;
        let mut part = Inventory::default();
        if let Some(host) = object(&self.past.hosts, &rest.hosts, host) {
            part.hosts.insert(host.id.clone(), host.clone());
        }
        let local = |port: &Port| host_of(port) == Some(host);
        self.add_ports(&mut part, self.ledger.on_host.get(host), local);
        let own: BTreeSet<GroupId> = part
            .ports
            .values()
            .flat_map(|p| &*p.groups)
            .cloned()
            .collect();
        let mut named = BTreeSet::new();
        let mut address_groups = BTreeSet::new();
        for id in &own {
            let Some(group) = object(&self.past.groups, &rest.groups, id) else {
                continue;
            };
            for rule in group.rules.values() {
                match &rule.peer {
                    Peer::Group(group) => drop(named.insert(group.clone())),
                    Peer::AddressGroup(id) => {
                        address_groups.insert(id.clone());
                        let known = &rest.address_groups;
                        let addresses = object(&self.past.address_groups, known, id);
                        let addresses = addresses.map(|found| (id.clone(), found.clone()));
                        part.address_groups.extend(addresses);
                    }
                    Peer::Any | Peer::Prefix(_) => {}
                }
            }
            part.groups.insert(id.clone(), group.clone());
        }
        for id in &named {
            let group = object(&self.past.groups, &rest.groups, id);
            let group = group.map(|group| (id.clone(), group.clone()));
            part.groups.extend(group);
            let member = |port: &Port| port.groups.contains(id);
            self.add_ports(&mut part, self.ledger.in_group.get(id), member);
        }
        let networks: BTreeSet<NetworkId> =
            part.ports.values().map(|p| p.network.clone()).collect();
        for id in &networks {
            let network = object(&self.past.networks, &rest.networks, id);
            part.networks
                .extend(network.map(|network| (id.clone(), network.clone())));
        }
        let needs = Needs {
            groups: own,
            named,
            networks,
            address_groups,
        };
        (part, needs)
    }

    fn add_ports(
        &self,
        part: &mut Inventory,
        listed: Option<&BTreeSet<PortId>>,
        fits: impl Fn(&Port) -> bool,
    ) {
        let ids = listed.into_iter().flatten().chain(self.past.ports.keys());
        for id in ids {
            let port = object(&self.past.ports, &self.ledger.ports, id);
            if let Some(port) = port.filter(|port| fits(port))
                && !part.ports.contains_key(id)
            {
                part.ports.insert(id.clone(), port.placed());
            }
        }
    }
}

impl Expected {
    fn is_changed_by(&self, past: &Past) -> bool {
        let Needs {
            groups,
            named,
            networks,
            address_groups,
        } = &self.needs;
        let before = past.ports.values().flatten();
        let mut ports = before.chain(&past.after);
        let is_ours = |port: &Arc<Port>| {
            host_of(port) == Some(&self.host)
                || port.groups.iter().any(|group| named.contains(group))
        };
        let is_group = |id| groups.contains(id) || named.contains(id);
        past.hosts.contains_key(&self.host)
            || past.groups.keys().any(is_group)
            || past.networks.keys().any(|id| networks.contains(id))
            || past
                .address_groups
                .keys()
                .any(|id| address_groups.contains(id))
            || ports.any(is_ours)
    }
}

fn object<'a, K: Ord, T>(
    past: &'a BTreeMap<K, Option<T>>,
    now: &'a BTreeMap<K, T>,
    id: &K,
) -> Option<&'a T> {
    match past.get(id) {
        Some(was) => was.as_ref(),
        None => now.get(id),
    }
}

fn old<'a, K: Ord + Clone + 'a, T: Clone>(
    now: &BTreeMap<K, T>,
    ids: impl Iterator<Item = &'a K>,
) -> BTreeMap<K, Option<T>> {
    ids.map(|id| (id.clone(), now.get(id).cloned())).collect()
}

fn olds(ports: &[PortChange]) -> BTreeMap<PortId, Option<Arc<Port>>> {
    let olds = ports.iter();
    olds.map(|(id, before, _)| (id.clone(), before.clone()))
        .collect()
}

fn afters(ports: &[PortChange]) -> Vec<Arc<Port>> {
    let afters = ports.iter();
    afters.filter_map(|(_, _, after)| after.clone()).collect()
}

/// As they were before.
fn differing<K: Ord + Clone, T: Clone + PartialEq>(
    before: &BTreeMap<K, T>,
    after: &BTreeMap<K, T>,
) -> BTreeMap<K, Option<T>> {
    let gone = before
        .iter()
        .filter(|(id, was)| after.get(*id) != Some(*was));
    let gone = gone.map(|(id, was)| (id.clone(), Some(was.clone())));
    let come = after.keys().filter(|id| !before.contains_key(*id));
    gone.chain(come.map(|id| (id.clone(), None))).collect()
}

fn unlist<K: Ord>(lists: &mut BTreeMap<K, BTreeSet<PortId>>, key: &K, id: &PortId) {
    if let Some(listed) = lists.get_mut(key) {
        listed.remove(id);
        if listed.is_empty() {
            lists.remove(key);
        }
    }
}
