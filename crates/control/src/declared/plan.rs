//! What differs between a declaration and what is there, and whether it may be changed.
//!
//! Knows nothing of: in which order, and in how many commits.

use super::kinds::Declarable;
use super::records::{Common, asks, rule_id, subnet_id};
use super::turn::OfTurn;
use super::{Declared, Kind, Outcome, What, tag_of};
use crate::allocate::{address_key, mac_key};
use crate::ids::{self, Moment};
use crate::objects::{Addresses, Group, GroupRule, Host, Network, Port, Subnet};
use crate::refused::Refused;
use crate::rules::content;
use crate::state::{State, Stored, Table};
use arcstr::ArcStr;
use model::{GroupId, NetworkId, PortId, Prefix, RuleId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use store::{Key, MOST_VALUE_BYTES, MOST_WRITES};

/// An object that is to be made, changed or removed.
pub(super) struct Item<'a, T> {
    pub(super) before: Option<&'a Stored<T>>,
    /// `None`: it goes.
    pub(super) after: Option<T>,
}

pub(super) struct Plan<'a> {
    pub(super) state: &'a State,
    pub(super) now: &'a Moment,
    /// Writes of one commit.
    pub(super) room: usize,
    pub(super) turn: OfTurn,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) hosts: Vec<Item<'a, Host>>,
    pub(super) addresses: Vec<Item<'a, Addresses>>,
    pub(super) networks: Vec<Item<'a, Network>>,
    pub(super) subnets: BTreeMap<NetworkId, Vec<Item<'a, Subnet>>>,
    pub(super) groups: Vec<Item<'a, Group>>,
    pub(super) rules: BTreeMap<GroupId, Rules<'a>>,
    pub(super) ports: Vec<Item<'a, Port>>,
    /// Which of these ports have an address or MAC now.
    pub(super) holders: HashMap<Key, PortId>,
}

/// Of a group in which a rule differs.
#[derive(Default)]
pub(super) struct Rules<'a> {
    /// The label's; of a group that goes, or that is made on what another has left, all.
    pub(super) before: BTreeMap<RuleId, &'a Stored<GroupRule>>,
    pub(super) after: BTreeMap<RuleId, GroupRule>,
}

/// More subnets of one network don't fit into a commit with it.
const MOST_SUBNETS_AT_ONCE: usize = 50;

impl<'a> Plan<'a> {
    pub(super) fn of(
        state: &'a State,
        now: &'a Moment,
        declared: &Declared,
    ) -> Result<Self, Refused> {
        let mut making = Making {
            plan: Plan {
                state,
                now,
                room: MOST_WRITES,
                turn: OfTurn::default(),
                outcomes: Vec::new(),
                hosts: Vec::new(),
                addresses: Vec::new(),
                networks: Vec::new(),
                subnets: BTreeMap::new(),
                groups: Vec::new(),
                rules: BTreeMap::new(),
                ports: Vec::new(),
                holders: HashMap::new(),
            },
            common: Common {
                now,
                project: &declared.project,
                tag: tag_of(&declared.label),
            },
            declared,
            subnets_of: HashMap::new(),
            foreign: Vec::new(),
            used: Vec::new(),
            impossible: Vec::new(),
        };
        making.hosts();
        making.addresses();
        making.networks();
        making.groups();
        making.rules();
        making.ports();
        making.removed_in_use();
        making.names_in_use();
        making.made()
    }

    /// A port's item.
    pub(super) fn port(&self, id: &str) -> Option<&Item<'a, Port>> {
        let at = self
            .ports
            .binary_search_by(|item| item.port_id().as_str().cmp(id));
        at.ok().map(|at| &self.ports[at])
    }
}

impl Item<'_, Port> {
    pub(super) fn port_id(&self) -> &PortId {
        let before = self.before.map(|before| &before.id);
        let id = self.after.as_ref().map(|after| &after.id).or(before);
        id.expect("it is there before or after")
    }
}

/// Addresses and MACs that nobody else may have.
pub(super) fn names(port: &Port) -> BTreeSet<Key> {
    let addresses = port.fixed.addresses().iter();
    let addresses = addresses.map(|address| address_key(&port.network, *address));
    addresses
        .chain([mac_key(&port.network, port.mac)])
        .collect()
}

struct Making<'a, 'd> {
    plan: Plan<'a>,
    common: Common<'d>,
    declared: &'d Declared,
    subnets_of: HashMap<NetworkId, Vec<(String, Prefix)>>,
    /// What is there and isn't ours.
    foreign: Vec<String>,
    used: Vec<String>,
    impossible: Vec<String>,
}

impl<'a> Making<'a, '_> {
    fn made(self) -> Result<Plan<'a>, Refused> {
        if let Some(why) = self.impossible.into_iter().next() {
            return Err(Refused::input("policy", why));
        }
        if !self.foreign.is_empty() {
            let label = self.declared.label.clone();
            let objects = self.foreign;
            return Err(Refused::NotOfLabel { label, objects });
        }
        match self.used.is_empty() {
            true => Ok(self.plan),
            false => Err(Refused::UsedByOthers(self.used)),
        }
    }

    fn is_ours<T: Declarable>(&self, object: &T) -> bool {
        object.tags().contains(self.common.tag.as_str())
    }

    fn outcome(&mut self, kind: Kind, id: &str, what: What) {
        let id = id.to_owned();
        self.plan.outcomes.push(Outcome { kind, id, what });
    }

    /// What becomes of an object that is declared; `None` if nothing.
    fn item<T: Declarable>(
        &mut self,
        id: &str,
        before: Option<&'a Stored<T>>,
        mut after: T,
    ) -> Option<Item<'a, T>> {
        let kind = T::KIND_OF_IT;
        let mut foreign = self.plan.state.is_unreadable(T::KIND, &after.path());
        if let Some(before) = before {
            // Agents tell of their hosts before anybody writes of them.
            let nobodys = kind == Kind::Host && before.tags().is_empty();
            let of = before.counted().map(|(project, _)| project);
            let elsewhere = of.is_some_and(|of| of != self.common.project);
            foreign |= elsewhere || !(nobodys || self.is_ours(&**before));
        }
        if foreign {
            self.foreign.push(format!("{} {id}", kind.name()));
        }
        if !ids::is_id(id) {
            let why = format!("the {} '{id}' has no possible id", kind.name());
            self.impossible.push(why);
            return None;
        }
        if let Some(before) = before
            && **before == after
        {
            self.outcome(kind, id, What::Unchanged);
            return None;
        }
        after.changed(self.common.now.at);
        if after.value().len() > MOST_VALUE_BYTES {
            let why = format!("the {} '{id}' is more than a record holds", kind.name());
            self.impossible.push(why);
        }
        let what = match before {
            Some(_) => What::Updated,
            None => What::Created,
        };
        self.outcome(kind, id, what);
        Some(Item {
            before,
            after: Some(after),
        })
    }

    /// Ours that aren't declared.
    fn rest<K: Ord, T: Declarable>(
        &mut self,
        table: &'a Table<K, T>,
        is_declared: impl Fn(&K) -> bool,
    ) -> Vec<Item<'a, T>> {
        if !self.declared.prune {
            return Vec::new();
        }
        let rest = table.iter().filter(|(id, _)| !is_declared(id));
        let ours = rest.filter(|(_, object)| self.is_ours(&***object));
        let ours = Vec::from_iter(ours.map(|(_, object)| object));
        let items = ours.into_iter().map(|object| self.removed(object));
        items.collect()
    }

    fn removed<T: Declarable>(&mut self, object: &'a Stored<T>) -> Item<'a, T> {
        let path = object.path();
        let id = path.rsplit('/').next().unwrap_or_default();
        self.outcome(T::KIND_OF_IT, id, What::Removed);
        Item {
            before: Some(object),
            after: None,
        }
    }

    fn hosts(&mut self) {
        let (state, declared) = (self.plan.state, self.declared);
        for (id, host) in &declared.inventory.hosts {
            let before = state.hosts.get(id);
            let after = self.common.host(before.map(|before| &**before), host);
            if before.is_some_and(|before| self.is_anothers_alike(before, &after)) {
                self.outcome(Kind::Host, id.as_str(), What::Unchanged);
                continue;
            }
            let item = self.item(id.as_str(), before, after);
            self.plan.hosts.extend(item);
        }
        let rest = self.rest(&state.hosts, |id| declared.inventory.hosts.contains_key(id));
        self.plan.hosts.extend(rest);
    }

    /// Policies of several labels have ports on one host: whoever says of it what is so doesn't ask for it.
    fn is_anothers_alike(&self, before: &Host, after: &Host) -> bool {
        let alike = Host {
            tags: before.tags.clone(),
            ..after.clone()
        };
        !before.tags.is_empty() && !self.is_ours(before) && alike == *before
    }

    fn addresses(&mut self) {
        let (state, declared) = (self.plan.state, self.declared);
        let groups = &declared.inventory.address_groups;
        for (id, group) in groups {
            let before = state.addresses.get(id);
            let after = self.common.addresses(before.map(|b| &**b), group);
            let item = self.item(id.as_str(), before, after);
            self.plan.addresses.extend(item);
        }
        let rest = self.rest(&state.addresses, |id| groups.contains_key(id));
        self.plan.addresses.extend(rest);
    }

    fn networks(&mut self) {
        let (state, declared) = (self.plan.state, self.declared);
        let networks = &declared.inventory.networks;
        for (id, network) in networks {
            let before = state.networks.get(id);
            let after = self.common.network(before.map(|b| &**b), network);
            let item = self.item(id.as_str(), before, after);
            self.plan.networks.extend(item);
            self.subnets(network);
        }
        let rest = self.rest(&state.networks, |id| networks.contains_key(id));
        for network in rest {
            let id = &network.before.expect("it is removed").id;
            for subnet in state.subnets_in(id) {
                self.subnet_goes(subnet);
            }
            self.plan.networks.push(network);
        }
    }

    fn subnets(&mut self, network: &model::Network) {
        let state = self.plan.state;
        let mut subnets = Vec::new();
        for prefix in &network.subnets {
            let id = subnet_id(&network.id, *prefix);
            let before = state.subnets.get(id.as_str());
            let after = self.common.subnet(before.map(|b| &**b), network, *prefix);
            if let Some(item) = self.item(&id, before, after) {
                let items = self.plan.subnets.entry(network.id.clone());
                items.or_default().push(item);
            }
            subnets.push((id, *prefix));
        }
        for subnet in state.subnets_in(&network.id) {
            if subnets.iter().any(|(id, _)| *id == subnet.id) {
                continue;
            }
            match self.is_ours(&**subnet) {
                true => self.subnet_goes(subnet),
                false => subnets.push((subnet.id.to_string(), subnet.prefix)),
            }
        }
        let differing = self.plan.subnets.get(&network.id).map_or(0, Vec::len);
        if differing > MOST_SUBNETS_AT_ONCE {
            let why = format!(
                "{differing} subnets of the network '{}' change at once; at most {MOST_SUBNETS_AT_ONCE} are possible",
                network.id
            );
            self.impossible.push(why);
        }
        self.subnets_of.insert(network.id.clone(), subnets);
    }

    fn subnet_goes(&mut self, subnet: &'a Stored<Subnet>) {
        if !self.is_ours(&**subnet) {
            let (id, network) = (&subnet.id, &subnet.network);
            self.used
                .push(format!("network {network} (by subnet {id})"));
            return;
        }
        let item = self.removed(subnet);
        let items = self.plan.subnets.entry(subnet.network.clone());
        items.or_default().push(item);
    }

    fn groups(&mut self) {
        let (state, declared) = (self.plan.state, self.declared);
        let groups = &declared.inventory.groups;
        for (id, group) in groups {
            let before = state.groups.get(id);
            let after = self.common.group(before.map(|b| &**b), group);
            let item = self.item(id.as_str(), before, after);
            self.plan.groups.extend(item);
        }
        let rest = self.rest(&state.groups, |id| groups.contains_key(id));
        self.plan.groups.extend(rest);
    }

    fn rules(&mut self) {
        let declared = self.declared;
        let mut ids: HashMap<RuleId, &GroupId> = HashMap::new();
        for (id, group) in &declared.inventory.groups {
            self.rules_of(group);
            for rule in group.rules.keys() {
                if let Some(other) = ids.insert(rule_id(id, rule), id) {
                    let why = format!(
                        "a rule of the group '{id}' and one of '{other}' would both be '{id}.{rule}': give one of them another name"
                    );
                    self.impossible.push(why);
                }
            }
        }
        let groups = self.plan.groups.iter();
        let gone = groups.filter(|item| item.after.is_none());
        let gone = Vec::from_iter(gone.filter_map(|item| item.before));
        for group in gone {
            let mut rules = Rules::default();
            for (id, rule) in self.plan.state.rules.get(&group.id).into_iter().flatten() {
                rules.before.insert(id.clone(), rule);
                self.outcome(Kind::Rule, id.as_str(), What::Removed);
            }
            self.plan.rules.insert(group.id.clone(), rules);
        }
    }

    fn rules_of(&mut self, group: &model::SecurityGroup) {
        let state = self.plan.state;
        let there = state.rules.get(&group.id).into_iter().flatten();
        let leftovers = !state.groups.contains_key(&group.id);
        let mut rules = Rules::default();
        // By what they say, so that none is said twice.
        let mut said: HashMap<String, RuleId> = HashMap::new();
        for (id, rule) in there {
            match leftovers || self.is_ours(&**rule) {
                true => {
                    rules.before.insert(id.clone(), rule);
                }
                false => {
                    said.insert(content(&rule.asks), id.clone());
                }
            }
        }
        let mut differs = false;
        for (short, rule) in &group.rules {
            let id = rule_id(&group.id, short);
            let asks = asks(rule);
            let says = content(&asks);
            let there = state.rules.get(&group.id).and_then(|rules| rules.get(&id));
            if there.is_some() && !rules.before.contains_key(&id) {
                self.foreign.push(format!("rule {id}"));
                continue;
            }
            if let Some(first) = said.get(&says) {
                let what = What::Repeats(first.to_string());
                self.outcome(Kind::Rule, id.as_str(), what);
                continue;
            }
            said.insert(says, id.clone());
            if let Some(other) = state.index.group_of_rule.get(&id)
                && *other != group.id
            {
                self.foreign.push(format!("rule {id} (of group {other})"));
            }
            let before = rules.before.get(&id).copied();
            let after = self
                .common
                .rule(before.map(|b| &**b), &group.id, id.clone(), asks);
            let item = self.item(id.as_str(), before, after.clone());
            differs |= item.is_some();
            let after = item.and_then(|item| item.after).unwrap_or(after);
            rules.after.insert(id, after);
        }
        for id in Vec::from_iter(rules.before.keys().cloned()) {
            if !rules.after.contains_key(&id) {
                differs = true;
                self.outcome(Kind::Rule, id.as_str(), What::Removed);
            }
        }
        if differs {
            self.plan.rules.insert(group.id.clone(), rules);
        }
    }

    fn ports(&mut self) {
        let (state, declared) = (self.plan.state, self.declared);
        let ports = &declared.inventory.ports;
        for (id, port) in ports {
            if port.dhcp_server && port.router {
                let why = format!(
                    "the port '{id}' is both a DHCP server and a router, which one port of a cluster can't be: make it a router, and list its address in the network's 'dhcp-servers'"
                );
                self.impossible.push(why);
            }
            let before = state.ports.get(id);
            let subnets = self.subnets_of.get(&port.network);
            let subnets = subnets.map(Vec::as_slice).unwrap_or_default();
            let after = self.common.port(before.map(|b| &**b), port, subnets);
            let item = self.item(id.as_str(), before, after);
            self.plan.ports.extend(item);
        }
        let rest = self.rest(&state.ports, |id| ports.contains_key(id));
        self.plan.ports.extend(rest);
        self.plan.ports.sort_by(|a, b| a.port_id().cmp(b.port_id()));
        for before in self.plan.ports.iter().filter_map(|item| item.before) {
            let names = names(before).into_iter();
            let held = names.map(|name| (name, before.id.clone()));
            self.plan.holders.extend(held);
        }
    }

    /// It is declared, or goes.
    fn follows(&self, port: &PortId) -> bool {
        let ours = |port: &Stored<Port>| self.is_ours(&**port);
        self.declared.inventory.ports.contains_key(port)
            || (self.declared.prune && self.plan.state.ports.get(port).is_some_and(ours))
    }

    fn removed_in_use(&mut self) {
        let state = self.plan.state;
        let mut used = Vec::new();
        for group in self.plan.groups.iter().filter(|item| item.after.is_none()) {
            let id = &group.before.expect("it is removed").id;
            let ports = state.index.ports_in_group.get(id).into_iter().flatten();
            let ports = ports.filter(|port| !self.follows(port));
            used.extend(ports.map(|port| format!("group {id} (by port {port})")));
            let rules = state.index.rules_naming_group.get(id).into_iter().flatten();
            let rules = rules.filter(|of| of.group != *id && self.is_foreign_rule(&of.rule));
            used.extend(rules.map(|of| format!("group {id} (by rule {})", of.rule)));
        }
        for addresses in self.plan.addresses.iter().filter(|i| i.after.is_none()) {
            let id = &addresses.before.expect("it is removed").id;
            let rules = state.index.rules_naming_addresses.get(id);
            let rules = rules.into_iter().flatten();
            let rules = rules.filter(|of| self.is_foreign_rule(&of.rule));
            used.extend(rules.map(|of| format!("address-group {id} (by rule {})", of.rule)));
        }
        for network in self.plan.networks.iter() {
            let Some(before) = network.before else {
                continue;
            };
            let stays = network.after.as_ref();
            if stays.is_some_and(|after| after.scope == before.scope) {
                continue;
            }
            let ports = state.ports_in(&before.id);
            let ports = ports.filter(|port| !self.follows(&port.id));
            used.extend(ports.map(|port| format!("network {} (by port {})", before.id, port.id)));
        }
        for (network, subnets) in &self.plan.subnets {
            let gone = subnets.iter().filter(|item| item.after.is_none());
            let gone = gone.filter_map(|item| item.before.map(|before| &before.id));
            let gone: BTreeSet<&ArcStr> = gone.collect();
            let ports = state.ports_in(network);
            for port in ports.filter(|port| !self.follows(&port.id)) {
                let fixed = port.fixed.iter().filter(|f| gone.contains(&f.subnet));
                used.extend(fixed.map(|f| format!("subnet {} (by port {})", f.subnet, port.id)));
            }
        }
        self.used.extend(used);
    }

    /// It isn't this label's to take away.
    fn is_foreign_rule(&self, id: &RuleId) -> bool {
        let rule = self.plan.state.rule(id);
        rule.is_some_and(|rule| {
            let mut groups = self.plan.groups.iter();
            let of_it = |item: &Item<Group>| item.before.is_some_and(|g| g.id == rule.group);
            let goes_along = groups.any(|item| item.after.is_none() && of_it(item));
            !goes_along && !self.is_ours(&**rule)
        })
    }

    /// Addresses and MACs that ports have which stay.
    fn names_in_use(&mut self) {
        let state = self.plan.state;
        let mut given = BTreeSet::new();
        for item in &self.plan.ports {
            let Some(after) = &item.after else { continue };
            for name in names(after) {
                if !given.insert(name.clone()) {
                    let why = format!("the port '{}' has what another one has", after.id);
                    self.impossible.push(why);
                }
                let holder = self.plan.holders.get(&name);
                if !state.is_held(&name) || holder == Some(&after.id) {
                    continue;
                }
                let other = holder.and_then(|holder| self.plan.port(holder.as_str()));
                let freed = other.is_some_and(|other| {
                    let stays = other.after.as_ref();
                    !stays.is_some_and(|after| names(after).contains(&name))
                });
                if !freed {
                    let what = name.as_str().rsplit('/').next().unwrap_or_default();
                    let has = |port: &&Stored<Port>| names(port).contains(&name);
                    let port = state.ports_in(&after.network).find(has);
                    let port = port.map_or("", |port| port.id.as_str());
                    let text = format!("{what} of network {} (of port {port})", after.network);
                    self.foreign.push(text);
                }
            }
        }
    }
}
