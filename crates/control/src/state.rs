//! The copy of the store that use cases decide on, and readers read.
//!
//! Place on the line: store commit -> **watch -> inventory**.
//! Invariants: it is what the store was at `revision`, whole commits only. An object whose record can't be read is
//! left out and named in `unreadable`; a rule whose group isn't there, or the group that it names, is not there.
//! Knows nothing of: the use cases; how commits get here.

use crate::objects::{
    Addresses, AskedPeer, Departure, Group, GroupRule, Host, Network, Port, Project, Quota,
    Resource, Seconds, Share, Shared, Subnet, TemplateRule,
};
use crate::once::Known;
use crate::quotas::Counted;
use crate::records::{self, Kept, QuotaOf, Unreadable};
use crate::taken::Taken;
use crate::told::{Running, Told};
use arcstr::ArcStr;
use model::{
    AddressGroupId, GroupId, HostId, NetworkId, PortId, ProjectId, Revision, RuleId, RuleRef,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Deref;
use std::sync::Arc;
use store::{Change, Key, KeyPrefix, ReadError, Reader, Record, Store};

/// An object as a commit left it. Cheap to clone.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored<T> {
    pub object: Arc<T>,
    /// The commits that made it, and wrote it last.
    pub created: u64,
    pub modified: u64,
}

pub type Table<K, T> = BTreeMap<K, Stored<T>>;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct State {
    pub revision: Revision,
    /// The newest commit that said more than what hosts have told. (Of a copy just made, its revision.)
    pub policy_revision: Revision,
    pub groups: Table<GroupId, Group>,
    /// By group.
    pub rules: BTreeMap<GroupId, Table<RuleId, GroupRule>>,
    pub template: Table<RuleId, TemplateRule>,
    pub addresses: Table<AddressGroupId, Addresses>,
    pub networks: Table<NetworkId, Network>,
    pub subnets: Table<ArcStr, Subnet>,
    pub ports: Table<PortId, Port>,
    pub hosts: Table<HostId, Host>,
    pub projects: Table<ProjectId, Project>,
    pub shares: Table<String, Share>,
    pub told: Table<HostId, Told>,
    /// By their runs.
    pub servers: Table<String, Running>,
    /// Flows on their way between hosts, by port and part; they themselves are in the store alone.
    pub(crate) moved: BTreeMap<PortId, Table<u32, Departure>>,
    quotas: Table<String, QuotaOf>,
    /// The server's, for projects that have no quota of their own.
    pub defaults: Quota,
    /// Who has a tag, a rule's content and so on.
    held: HashMap<Key, Stored<String>>,
    taken: Taken,
    marks: HashMap<Key, Mark>,
    pub unreadable: BTreeMap<Key, String>,
    /// What leads from one object to those that name it.
    pub index: Index,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Index {
    pub group_of_rule: HashMap<RuleId, GroupId>,
    pub rules_naming_group: HashMap<GroupId, BTreeSet<RuleRef>>,
    pub rules_naming_addresses: HashMap<AddressGroupId, BTreeSet<RuleRef>>,
    pub ports_in_group: HashMap<GroupId, BTreeSet<PortId>>,
    pub ports_in_network: HashMap<NetworkId, BTreeSet<PortId>>,
    /// Those that are on their way there, too.
    pub ports_on_host: HashMap<HostId, BTreeSet<PortId>>,
    pub subnets_of_network: HashMap<NetworkId, BTreeSet<ArcStr>>,
    /// Ports of DHCP servers, routers and so on.
    pub services_in_network: HashMap<NetworkId, BTreeSet<PortId>>,
    pub groups_of_project: HashMap<ProjectId, BTreeSet<GroupId>>,
    pub shares_of: HashMap<Shared, BTreeSet<String>>,
    /// None is zero.
    pub counts: HashMap<ProjectId, BTreeMap<Resource, u64>>,
}

/// What one commit did, for those who follow: the objects before and after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    Group(Differs<Group>),
    Rule(Differs<GroupRule>),
    Addresses(Differs<Addresses>),
    Network(Differs<Network>),
    Subnet(Differs<Subnet>),
    Port(Differs<Port>),
    Host(Differs<Host>),
    Told(Differs<Told>),
    Server(Differs<Running>),
    /// Of a port that is being migrated, on their way to another host.
    Flows(Differs<Departure>),
    /// What no host needs.
    Other,
}

/// When somebody came to depend on an object last, and the commit that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub at: Seconds,
    pub modified: u64,
}

/// At least one of them is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differs<T> {
    pub before: Option<Arc<T>>,
    pub after: Option<Arc<T>>,
}

impl State {
    pub(crate) async fn read(store: &dyn Store) -> Result<Self, ReadError> {
        let mut state = Self::default();
        store.read_all(&KeyPrefix::all(), &mut state).await?;
        // In order one after the other, they have left the trees half empty.
        state.ports = std::mem::take(&mut state.ports).into_iter().collect();
        state.index.close_up();
        state.taken.close_up();
        Ok(state)
    }

    /// All of a commit, as a watch tells it.
    pub fn commit(&mut self, revision: Revision, changes: Vec<Change>) -> Vec<Changed> {
        self.revision = revision;
        let changes = changes.into_iter();
        let changed: Vec<Changed> = changes.map(|change| self.change(change)).collect();
        if changed.iter().any(Changed::is_policy) {
            self.policy_revision = revision;
        }
        changed
    }

    pub fn quota(&self, project: &str) -> Option<&Quota> {
        self.quotas.get(project).map(|stored| &stored.object.quota)
    }

    pub fn quotas(&self) -> impl Iterator<Item = (&str, &Quota)> {
        let stored = self.quotas.values();
        stored.map(|stored| (stored.object.project.as_str(), &stored.object.quota))
    }

    pub(crate) fn quota_record(&self, project: &str) -> Option<&Stored<QuotaOf>> {
        self.quotas.get(project)
    }

    /// It is there, and this program can't read it.
    pub(crate) fn is_unreadable(&self, kind: &str, id: &str) -> bool {
        self.unreadable.contains_key(&records::key(kind, id))
    }

    /// Grows with each change of the group or its rules.
    pub fn group_revision(&self, group: &Stored<Group>) -> u64 {
        let rules = self.marked(&records::rules_mark(group.id.as_str()));
        rules.map_or(group.modified, |mark| mark.modified.max(group.modified))
    }

    /// When the group or its rules have changed.
    pub fn group_updated_at(&self, group: &Stored<Group>) -> Seconds {
        let rules = self.marked(&records::rules_mark(group.id.as_str()));
        let at = group.said.updated_at;
        rules.map_or(at, |mark| mark.at.max(at))
    }

    /// By anybody.
    pub(crate) fn is_held(&self, name: &Key) -> bool {
        match records::of_port(name) {
            Some((network, name)) => self.taken.contains(network, name),
            None => self.held.contains_key(name),
        }
    }

    /// Who has it; not for addresses and MACs.
    pub(crate) fn holder(&self, held: &Key) -> Option<&Stored<String>> {
        self.held.get(held)
    }

    /// `None` if nobody has written it.
    pub(crate) fn marked(&self, mark: &Key) -> Option<Mark> {
        self.marks.get(mark).copied()
    }

    pub fn rules_of(&self, group: &GroupId) -> impl Iterator<Item = &Stored<GroupRule>> {
        let rules = self.rules.get(group).into_iter().flatten();
        rules
            .map(|(_, rule)| rule)
            .filter(|rule| self.is_whole(rule))
    }

    pub fn rule(&self, id: &RuleId) -> Option<&Stored<GroupRule>> {
        let group = self.index.group_of_rule.get(id)?;
        let rule = self.rules.get(group)?.get(id)?;
        self.is_whole(rule).then_some(rule)
    }

    /// What it names is there. What isn't whole was left by a deletion, and goes.
    pub(crate) fn is_whole(&self, rule: &GroupRule) -> bool {
        self.groups.contains_key(&rule.group)
            && match &rule.asks.peer {
                AskedPeer::Group(remote) => self.groups.contains_key(remote),
                AskedPeer::Addresses(remote) => self.addresses.contains_key(remote),
                AskedPeer::Anyone | AskedPeer::Prefix { .. } => true,
            }
    }

    fn change(&mut self, change: Change) -> Changed {
        let key = change.key().clone();
        self.unreadable.remove(&key);
        match self.put_or_remove(&key, change) {
            Ok(changed) => changed,
            Err(Unreadable { key, what }) => {
                // What was there before is not what is there now.
                let gone = self.put_or_remove(&key, Change::Delete(key.clone()));
                self.unreadable.insert(key, what);
                gone.unwrap_or(Changed::Other)
            }
        }
    }

    fn put_or_remove(&mut self, key: &Key, change: Change) -> Result<Changed, Unreadable> {
        let Some((kind, path)) = key.as_str().split_once('/') else {
            return Ok(Changed::Other);
        };
        let record = match &change {
            Change::Put(record) => Some(record),
            Change::Delete(_) => None,
        };
        Ok(match kind {
            Group::KIND => {
                let differs = exchange(&mut self.groups, GroupId::from(path), record)?;
                self.index.group(&differs);
                Changed::Group(differs)
            }
            GroupRule::KIND => {
                let Some((group, rule)) = path.split_once('/') else {
                    return Ok(Changed::Other);
                };
                let rules = self.rules.entry(GroupId::from(group)).or_default();
                let differs = exchange(rules, RuleId::from(rule), record)?;
                if rules.is_empty() {
                    self.rules.remove(group);
                }
                self.index.rule(&differs);
                Changed::Rule(differs)
            }
            Addresses::KIND => {
                let id = AddressGroupId::from(path);
                let differs = exchange(&mut self.addresses, id, record)?;
                self.index.count(&differs);
                Changed::Addresses(differs)
            }
            Network::KIND => {
                let id = NetworkId::from(path);
                let differs = exchange(&mut self.networks, id, record)?;
                self.index.count(&differs);
                Changed::Network(differs)
            }
            Subnet::KIND => {
                let differs = exchange(&mut self.subnets, path.into(), record)?;
                self.index.subnet(&differs);
                Changed::Subnet(differs)
            }
            Port::KIND => {
                let known = Known {
                    index: &self.index,
                    subnets: &self.subnets,
                };
                let id = PortId::from(path);
                let share = |id: &_, ports: &_, port: &mut _| known.share(id, ports, port);
                let differs = exchange_with(&mut self.ports, id, record, share)?;
                self.index.port(&differs);
                Changed::Port(differs)
            }
            Host::KIND => Changed::Host(exchange(&mut self.hosts, HostId::from(path), record)?),
            Told::KIND => Changed::Told(exchange(&mut self.told, HostId::from(path), record)?),
            Running::KIND => Changed::Server(exchange(&mut self.servers, path.to_owned(), record)?),
            Departure::KIND => {
                let Some((port, part)) = path.split_once('/') else {
                    return Ok(Changed::Other);
                };
                let Ok(part) = part.parse() else {
                    return Ok(Changed::Other);
                };
                let port = PortId::from(port);
                let parts = self.moved.entry(port.clone()).or_default();
                let differs = exchange(parts, part, record);
                if parts.is_empty() {
                    self.moved.remove(&port);
                }
                Changed::Flows(differs?)
            }
            TemplateRule::KIND => other(&mut self.template, RuleId::from(path), record)?,
            Project::KIND => other(&mut self.projects, ProjectId::from(path), record)?,
            Share::KIND => {
                let differs = exchange(&mut self.shares, path.to_owned(), record)?;
                self.index.share(&differs);
                Changed::Other
            }
            QuotaOf::KIND => other(&mut self.quotas, path.to_owned(), record)?,
            "held" => {
                self.hold(key, record);
                Changed::Other
            }
            "mark" => {
                match record {
                    Some(record) => self.marks.insert(key.clone(), Mark::of(record)),
                    None => self.marks.remove(key),
                };
                Changed::Other
            }
            _ => Changed::Other,
        })
    }

    fn hold(&mut self, key: &Key, record: Option<&Record>) {
        if let Some((network, name)) = records::of_port(key) {
            return self.taken.set(network, name, record.is_some());
        }
        match record {
            Some(record) => {
                let holder = String::from_utf8_lossy(&record.value).into_owned();
                self.held.insert(key.clone(), Stored::new(holder, record));
            }
            None => {
                self.held.remove(key);
            }
        }
    }
}

fn other<K: Ord, T: Kept>(
    table: &mut Table<K, T>,
    id: K,
    record: Option<&Record>,
) -> Result<Changed, Unreadable> {
    exchange(table, id, record).map(|_| Changed::Other)
}

fn exchange<K: Ord, T: Kept>(
    table: &mut Table<K, T>,
    id: K,
    record: Option<&Record>,
) -> Result<Differs<T>, Unreadable> {
    exchange_with(table, id, record, |_, _, _| {})
}

/// `prepare`: what is done with a new one before others see it.
fn exchange_with<K: Ord, T: Kept>(
    table: &mut Table<K, T>,
    id: K,
    record: Option<&Record>,
    prepare: impl FnOnce(&K, &Table<K, T>, &mut T),
) -> Result<Differs<T>, Unreadable> {
    let Some(record) = record else {
        let before = table.remove(&id).map(|stored| stored.object);
        return Ok(Differs {
            before,
            after: None,
        });
    };
    let mut object = records::read::<T>(record)?;
    prepare(&id, table, &mut object);
    let stored = Stored::new(object, record);
    let after = Some(stored.object.clone());
    let before = table.insert(id, stored).map(|stored| stored.object);
    Ok(Differs { before, after })
}

impl Reader for State {
    fn begin(&mut self, revision: Revision) {
        *self = Self {
            revision,
            policy_revision: revision,
            ..Self::default()
        };
    }

    fn take(&mut self, record: Record) {
        self.change(Change::Put(record));
    }
}

impl Changed {
    /// Not only what servers say of hosts, or carry between them.
    pub fn is_policy(&self) -> bool {
        !matches!(self, Self::Told(_) | Self::Server(_) | Self::Flows(_))
    }
}

impl Mark {
    fn of(record: &Record) -> Self {
        let at = std::str::from_utf8(&record.value).ok();
        Self {
            at: at.and_then(|at| at.parse().ok()).unwrap_or_default(),
            modified: record.modified,
        }
    }
}

impl<T> Stored<T> {
    fn new(object: T, record: &Record) -> Self {
        Self {
            object: Arc::new(object),
            created: record.created,
            modified: record.modified,
        }
    }
}

impl<T> Clone for Stored<T> {
    fn clone(&self) -> Self {
        Self {
            object: self.object.clone(),
            ..*self
        }
    }
}

impl<T> Deref for Stored<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.object
    }
}

impl<T> Differs<T> {
    fn each(&self) -> impl Iterator<Item = (bool, &T)> {
        let before = self.before.iter().map(|object| (false, &**object));
        before.chain(self.after.iter().map(|object| (true, &**object)))
    }
}

impl Index {
    fn count<T: Counted>(&mut self, counted: &Differs<T>) {
        for (there, object) in counted.each() {
            let counts = self.counts.entry(object.project().clone()).or_default();
            let count = counts.entry(T::RESOURCE).or_default();
            match there {
                true => *count += 1,
                false => *count -= 1,
            }
            if *count == 0 {
                counts.remove(&T::RESOURCE);
            }
            if counts.is_empty() {
                self.counts.remove(object.project());
            }
        }
    }

    fn share(&mut self, share: &Differs<Share>) {
        self.count(share);
        for (there, share) in share.each() {
            list(&mut self.shares_of, &share.object, &share.id, there);
        }
    }

    fn group(&mut self, group: &Differs<Group>) {
        self.count(group);
        for (there, group) in group.each() {
            let groups = &mut self.groups_of_project;
            list(groups, &group.project, &group.id, there);
        }
    }

    fn rule(&mut self, rule: &Differs<GroupRule>) {
        self.count(rule);
        for (there, rule) in rule.each() {
            let of = RuleRef {
                group: rule.group.clone(),
                rule: rule.id.clone(),
            };
            match &rule.asks.peer {
                AskedPeer::Group(id) => list(&mut self.rules_naming_group, id, &of, there),
                AskedPeer::Addresses(id) => list(&mut self.rules_naming_addresses, id, &of, there),
                AskedPeer::Anyone | AskedPeer::Prefix { .. } => {}
            }
            match there {
                true => self.group_of_rule.insert(of.rule, of.group),
                false => self.group_of_rule.remove(&of.rule),
            };
        }
    }

    fn subnet(&mut self, subnet: &Differs<Subnet>) {
        self.count(subnet);
        for (there, subnet) in subnet.each() {
            let subnets = &mut self.subnets_of_network;
            list(subnets, &subnet.network, &subnet.id, there);
        }
    }

    /// The lists of ports take no more room than they need.
    fn close_up(&mut self) {
        let lists = self.ports_in_group.values_mut();
        let lists = lists.chain(self.ports_in_network.values_mut());
        for ports in lists.chain(self.ports_on_host.values_mut()) {
            *ports = std::mem::take(ports).into_iter().collect();
        }
    }

    fn port(&mut self, port: &Differs<Port>) {
        self.count(port);
        for (there, port) in port.each() {
            for group in &port.groups {
                list(&mut self.ports_in_group, group, &port.id, there);
            }
            list(&mut self.ports_in_network, &port.network, &port.id, there);
            if port.is_service() {
                let services = &mut self.services_in_network;
                list(services, &port.network, &port.id, there);
            }
            if let Some(binding) = &port.binding {
                for host in binding.hosts() {
                    list(&mut self.ports_on_host, host, &port.id, there);
                }
            }
        }
    }
}

fn list<K, V>(lists: &mut HashMap<K, BTreeSet<V>>, key: &K, value: &V, there: bool)
where
    K: Clone + Eq + std::hash::Hash,
    V: Clone + Ord,
{
    if there {
        lists.entry(key.clone()).or_default().insert(value.clone());
    } else if let Some(listed) = lists.get_mut(key) {
        listed.remove(value);
        if listed.is_empty() {
            lists.remove(key);
        }
    }
}
