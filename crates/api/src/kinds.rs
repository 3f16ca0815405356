//! The kinds of objects that the API has: their names and tables, how they are found, shown and changed.
//!
//! Every kind is a module of `resources`; here is what they have in common, and which is which.
//! Knows nothing of: requests and answers.

use crate::Enforcement;
use crate::attribute::Attribute;
use crate::body::{Body, Expected};
use crate::fault::Fault;
use crate::query::Wanted;
use crate::resources::{
    addresses, groups, hosts, networks, ports, rules, shares, subnets, template,
};
use control::objects::{
    Addresses, Group, GroupRule, Host, Network, Port, Share, Subnet, TemplateRule,
};
use control::{Caller, Control, State, Stored};
use serde_json::{Map, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Group,
    Rule,
    TemplateRule,
    Addresses,
    Network,
    Subnet,
    Port,
    Share,
    Host,
}

/// What a kind is called, and what can be done with it beside being shown.
#[derive(Debug)]
pub(crate) struct Table {
    /// In addresses: `security-groups`.
    pub(crate) path: &'static str,
    pub(crate) one: &'static str,
    pub(crate) many: &'static str,
    pub(crate) says: &'static str,
    pub(crate) attributes: &'static [Attribute],
    pub(crate) create: bool,
    pub(crate) update: bool,
    pub(crate) delete: bool,
    pub(crate) tags: bool,
}

/// An object of the copy, of any kind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item<'a> {
    Group(&'a Stored<Group>),
    Rule(&'a Stored<GroupRule>),
    TemplateRule(&'a Stored<TemplateRule>),
    Addresses(&'a Stored<Addresses>),
    Network(&'a Stored<Network>),
    Subnet(&'a Stored<Subnet>),
    Port(&'a Stored<Port>),
    Share(&'a Stored<Share>),
    Host(&'a Stored<Host>),
}

/// The copy, as one caller sees it.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) state: &'a State,
    pub(crate) who: &'a Caller,
    pub(crate) enforcement: &'a dyn Enforcement,
}

/// For whom, and if it is asked, only if the object is as it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change<'a> {
    pub(crate) who: &'a Caller,
    pub(crate) if_revision: Option<u64>,
}

impl Kind {
    pub(crate) const ALL: [Kind; 9] = [
        Kind::Group,
        Kind::Rule,
        Kind::TemplateRule,
        Kind::Addresses,
        Kind::Network,
        Kind::Subnet,
        Kind::Port,
        Kind::Share,
        Kind::Host,
    ];

    pub(crate) fn table(self) -> &'static Table {
        match self {
            Kind::Group => &groups::TABLE,
            Kind::Rule => &rules::TABLE,
            Kind::TemplateRule => &template::TABLE,
            Kind::Addresses => &addresses::TABLE,
            Kind::Network => &networks::TABLE,
            Kind::Subnet => &subnets::TABLE,
            Kind::Port => &ports::TABLE,
            Kind::Share => &shares::TABLE,
            Kind::Host => &hosts::TABLE,
        }
    }

    pub(crate) fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.table().path == path)
    }

    /// That it isn't there, or is none of the caller's business.
    pub(crate) fn not_found(self, id: &str) -> Fault {
        use control::Refused;
        let id = crate::attribute::cut(id).to_owned();
        Fault::from(match self {
            Kind::Group => Refused::SecurityGroupNotFound(id),
            Kind::Rule => Refused::SecurityGroupRuleNotFound(id),
            Kind::TemplateRule => Refused::DefaultRuleNotFound(id),
            Kind::Addresses => Refused::AddressGroupNotFound(id),
            Kind::Network => Refused::NetworkNotFound(id),
            Kind::Subnet => Refused::SubnetNotFound(id),
            Kind::Port => Refused::PortNotFound(id),
            Kind::Share => Refused::SharePolicyNotFound(id),
            Kind::Host => Refused::HostNotFound(id),
        })
    }

    /// Names of the new objects, in the order of the bodies.
    pub(crate) async fn create(
        self,
        control: &Control,
        change: Change<'_>,
        bodies: Vec<Body>,
    ) -> Result<Vec<String>, Fault> {
        match self {
            Kind::Group => groups::create(control, change, bodies).await,
            Kind::Rule => rules::create(control, change, bodies).await,
            Kind::TemplateRule => template::create(control, change, bodies).await,
            Kind::Addresses => addresses::create(control, change, bodies).await,
            Kind::Network => networks::create(control, change, bodies).await,
            Kind::Subnet => subnets::create(control, change, bodies).await,
            Kind::Port => ports::create(control, change, bodies).await,
            Kind::Share => shares::create(control, change, bodies).await,
            Kind::Host => Err(Fault::method()),
        }
    }

    pub(crate) async fn update(
        self,
        control: &Control,
        change: Change<'_>,
        id: &str,
        body: Body,
    ) -> Result<(), Fault> {
        match self {
            Kind::Group => groups::update(control, change, id, body).await,
            Kind::Rule => rules::update(control, change, id, body).await,
            Kind::TemplateRule => Err(Fault::method()),
            Kind::Addresses => addresses::update(control, change, id, body).await,
            Kind::Network => networks::update(control, change, id, body).await,
            Kind::Subnet => subnets::update(control, change, id, body).await,
            Kind::Port => ports::update(control, change, id, body).await,
            Kind::Share => shares::update(control, change, id, body).await,
            Kind::Host => hosts::update(control, change, id, body).await,
        }
    }

    pub(crate) async fn delete(
        self,
        control: &Control,
        change: Change<'_>,
        id: &str,
    ) -> Result<(), Fault> {
        let Change { who, if_revision } = change;
        match self {
            Kind::Group => control.delete_group(who, id, if_revision).await?,
            Kind::Rule => control.delete_rule(who, id, if_revision).await?,
            Kind::TemplateRule => control.delete_template_rule(who, id).await?,
            Kind::Addresses => control.delete_addresses(who, id, if_revision).await?,
            Kind::Network => control.delete_network(who, id, if_revision).await?,
            Kind::Subnet => control.delete_subnet(who, id, if_revision).await?,
            Kind::Port => control.delete_port(who, id, if_revision).await?,
            Kind::Share => control.delete_share(who, id).await?,
            Kind::Host => control.delete_host(who, id).await?,
        }
        Ok(())
    }
}

impl Table {
    pub(crate) fn expected(&self) -> Expected {
        Expected {
            one: self.one,
            many: self.many,
            attributes: self.attributes,
        }
    }
}

impl<'a> View<'a> {
    pub(crate) fn find(&self, kind: Kind, id: &str) -> Option<Item<'a>> {
        let state = self.state;
        let item = match kind {
            Kind::Group => Item::Group(state.groups.get(id)?),
            Kind::Rule => Item::Rule(state.rule(&id.into())?),
            Kind::TemplateRule => Item::TemplateRule(state.template.get(id)?),
            Kind::Addresses => Item::Addresses(state.addresses.get(id)?),
            Kind::Network => Item::Network(state.networks.get(id)?),
            Kind::Subnet => Item::Subnet(state.subnets.get(id)?),
            Kind::Port => Item::Port(state.ports.get(id)?),
            Kind::Share => Item::Share(state.shares.get(id)?),
            Kind::Host => Item::Host(state.hosts.get(id)?),
        };
        self.sees(item).then_some(item)
    }

    /// All that the caller sees and that match, by id.
    pub(crate) fn all(&self, kind: Kind, wanted: &Wanted) -> Vec<Item<'a>> {
        let wants =
            |item: &Item<'a>| self.sees(*item) && wanted.matches(|name| item.read(self, name));
        if let Some(ids) = wanted.values("id") {
            let ids: std::collections::BTreeSet<&String> = ids.iter().collect();
            let items = ids.into_iter().filter_map(|id| self.find(kind, id));
            return items.filter(wants).collect();
        }
        let state = self.state;
        match kind {
            Kind::Group => state
                .groups
                .values()
                .map(Item::Group)
                .filter(wants)
                .collect(),
            Kind::Rule => {
                let rules = rules::all(state, wanted.values("security_group_id"));
                rules.into_iter().map(Item::Rule).filter(wants).collect()
            }
            Kind::TemplateRule => {
                let rules = state.template.values();
                rules.map(Item::TemplateRule).filter(wants).collect()
            }
            Kind::Addresses => {
                let addresses = state.addresses.values();
                addresses.map(Item::Addresses).filter(wants).collect()
            }
            Kind::Network => state
                .networks
                .values()
                .map(Item::Network)
                .filter(wants)
                .collect(),
            Kind::Subnet => state
                .subnets
                .values()
                .map(Item::Subnet)
                .filter(wants)
                .collect(),
            Kind::Port => state.ports.values().map(Item::Port).filter(wants).collect(),
            Kind::Share => state
                .shares
                .values()
                .map(Item::Share)
                .filter(wants)
                .collect(),
            Kind::Host => state.hosts.values().map(Item::Host).filter(wants).collect(),
        }
    }

    fn sees(&self, item: Item<'_>) -> bool {
        let (state, who) = (self.state, self.who);
        match item {
            Item::Group(group) => state.may_see_group(who, group),
            Item::Rule(rule) => state.may_see_rule(who, rule),
            Item::TemplateRule(_) => true,
            Item::Addresses(addresses) => state.may_see_addresses(who, addresses),
            Item::Network(network) => state.may_see_network(who, network),
            Item::Subnet(subnet) => state.may_see_subnet(who, subnet),
            Item::Port(port) => state.may_see_port(who, port),
            Item::Share(share) => state.may_see_share(who, share),
            Item::Host(_) => who.is_admin(),
        }
    }

    /// `shows`: which attributes are wanted.
    pub(crate) fn shown(&self, item: Item<'_>, shows: impl Fn(&str) -> bool) -> Value {
        let attributes = item.kind().table().attributes.iter();
        let seen = attributes.filter(|a| shows(a.name) && (!a.admins || self.who.is_admin()));
        let seen = seen.map(|a| (a.name.to_owned(), item.read(self, a.name)));
        Value::Object(Map::from_iter(seen))
    }
}

impl Item<'_> {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Item::Group(_) => Kind::Group,
            Item::Rule(_) => Kind::Rule,
            Item::TemplateRule(_) => Kind::TemplateRule,
            Item::Addresses(_) => Kind::Addresses,
            Item::Network(_) => Kind::Network,
            Item::Subnet(_) => Kind::Subnet,
            Item::Port(_) => Kind::Port,
            Item::Share(_) => Kind::Share,
            Item::Host(_) => Kind::Host,
        }
    }

    /// An attribute of the kind's table.
    pub(crate) fn read(&self, view: &View<'_>, name: &str) -> Value {
        match self {
            Item::Group(group) => groups::read(group, view, name),
            Item::Rule(rule) => rules::read(rule, view, name),
            Item::TemplateRule(rule) => template::read(rule, name),
            Item::Addresses(addresses) => addresses::read(addresses, view, name),
            Item::Network(network) => networks::read(network, view, name),
            Item::Subnet(subnet) => subnets::read(subnet, name),
            Item::Port(port) => ports::read(port, view, name),
            Item::Share(share) => shares::read(share, name),
            Item::Host(host) => hosts::read(host, view, name),
        }
    }
}
