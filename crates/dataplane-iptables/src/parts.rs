//! What the kernel is to hold, in parts that are compared, rendered and written each for itself.
//!
//! Place on the line: render -> **parts** -> plan. A part is all that comes of one thing of the policy: a
//! port, a profile, a set of members. What is of several things at once (the ways to the profiles, which
//! addresses need no tracking) is the common part.
//! Knows nothing of: where a part comes from, in which order parts are written.

use crate::element::{Element, Field};
use model::{Family, Prefix};
use netfilter::ipset::{self, Behind, Carries, Kind, Said};
use policy::SharedSet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// What an ipset holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// `hash:ip`
    Addresses(BTreeSet<IpAddr>),
    /// `hash:net`: those of the set's family.
    Nets(Arc<SharedSet<Prefix>>),
    /// `hash:net`: whom rules name that ask for the same, and the rule.
    RuleNets(BTreeMap<Prefix, String>),
    /// `hash:net,port`: whom a rule names, what it asks for, and the rule.
    NetPorts(BTreeMap<NetPort, String>),
    /// `hash:ip,port`
    AddressPorts(BTreeSet<(IpAddr, Service)>),
    /// `hash:net,iface` with the mark that goes with it.
    NetDevices(BTreeMap<(Prefix, String), u32>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NetPort {
    pub(crate) net: Prefix,
    pub(crate) service: Service,
}

/// A protocol, and its destination port where it has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Service {
    pub(crate) protocol: u8,
    pub(crate) l4_port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IpSet {
    pub(crate) family: Family,
    pub(crate) content: Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub(crate) enum Table {
    Raw,
    Mangle,
    Filter,
}

impl Table {
    pub(crate) const ALL: [Table; 3] = [Table::Raw, Table::Mangle, Table::Filter];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Table::Raw => "raw",
            Table::Mangle => "mangle",
            Table::Filter => "filter",
        }
    }
}

/// A chain of iptables or ip6tables, by table and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChainName {
    pub(crate) family: Family,
    pub(crate) table: Table,
    pub(crate) chain: String,
}

/// Rules as iptables-restore takes them, without `-A CHAIN`.
pub(crate) type Chain = Vec<String>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) elements: BTreeSet<Element>,
    pub(crate) sets: BTreeMap<String, IpSet>,
    pub(crate) chains: BTreeMap<ChainName, Chain>,
}

impl Part {
    pub(crate) fn element(&mut self, set: &'static str, key: impl Into<Vec<Field>>) {
        let (key, value) = (key.into(), None);
        self.elements.insert(Element { set, key, value });
    }

    /// Of a map.
    pub(crate) fn entry(&mut self, set: &'static str, key: impl Into<Vec<Field>>, value: u32) {
        let (key, value) = (key.into(), Some(value));
        self.elements.insert(Element { set, key, value });
    }

    pub(crate) fn set(&mut self, name: impl Into<String>, family: Family, content: Content) {
        self.sets.insert(name.into(), IpSet { family, content });
    }

    pub(crate) fn chain(
        &mut self,
        family: Family,
        table: Table,
        chain: impl Into<String>,
        rules: Chain,
    ) {
        let chain = chain.into();
        let name = ChainName {
            family,
            table,
            chain,
        };
        self.chains.insert(name, rules);
    }
}

impl Content {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Content::Addresses(_) => Kind::Ip,
            Content::Nets(_) | Content::RuleNets(_) => Kind::Net,
            Content::NetPorts(_) => Kind::NetPort,
            Content::AddressPorts(_) => Kind::IpPort,
            Content::NetDevices(_) => Kind::NetIface,
        }
    }

    /// How often a rule's element was met is counted.
    pub(crate) fn carries(&self) -> Carries {
        match self {
            Content::Addresses(_) | Content::Nets(_) | Content::AddressPorts(_) => Carries::Nothing,
            Content::NetPorts(_) | Content::RuleNets(_) => Carries::CountersAndComment,
            Content::NetDevices(_) => Carries::Mark,
        }
    }
}

impl IpSet {
    /// As `ipset save` tells them.
    pub(crate) fn type_and_family(&self) -> String {
        let family = match self.family {
            Family::V4 => "inet",
            Family::V6 => "inet6",
        };
        format!("{} {family}", self.content.kind().name())
    }

    /// In order, with what is said of each.
    pub(crate) fn elements(&self) -> BTreeMap<ipset::Element, Said> {
        let plain = |net| ipset::Element {
            net,
            behind: Behind::Nothing,
        };
        match &self.content {
            Content::Addresses(addresses) => {
                let each = addresses.iter().map(|a| plain(Prefix::host(*a)));
                each.map(|element| (element, Said::Nothing)).collect()
            }
            Content::Nets(nets) => {
                let own = nets.iter().filter(|n| n.family() == self.family);
                let halves = own.flat_map(halves).map(plain);
                halves.map(|element| (element, Said::Nothing)).collect()
            }
            Content::RuleNets(rules) => {
                let halves = rules
                    .iter()
                    .flat_map(|(net, rule)| halves(net).into_iter().map(move |half| (half, rule)));
                halves
                    .map(|(net, rule)| (plain(net), Said::Comment(rule.clone())))
                    .collect()
            }
            Content::NetPorts(rules) => {
                let halves = rules.iter().flat_map(|(NetPort { net, service }, rule)| {
                    let halves = halves(net).into_iter();
                    halves.map(move |net| (net, service, rule))
                });
                let element = |net, service: &Service| ipset::Element {
                    net,
                    behind: service.behind(),
                };
                halves
                    .map(|(net, service, rule)| {
                        (element(net, service), Said::Comment(rule.clone()))
                    })
                    .collect()
            }
            Content::AddressPorts(services) => {
                let each = services.iter().map(|(address, service)| ipset::Element {
                    net: Prefix::host(*address),
                    behind: service.behind(),
                });
                each.map(|element| (element, Said::Nothing)).collect()
            }
            Content::NetDevices(nets) => {
                let halves = nets.iter().flat_map(|((net, device), mark)| {
                    let halves = halves(net).into_iter();
                    halves.map(move |net| (net, device, mark))
                });
                let element = |net, device: &String| ipset::Element {
                    net,
                    behind: Behind::Device(device.clone()),
                };
                halves
                    .map(|(net, device, mark)| (element(net, device), Said::Mark(*mark)))
                    .collect()
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        let count = |nets: &mut dyn Iterator<Item = &Prefix>| nets.map(|n| halves(n).len()).sum();
        match &self.content {
            Content::Addresses(addresses) => addresses.len(),
            Content::Nets(nets) => count(&mut nets.iter().filter(|n| n.family() == self.family)),
            Content::RuleNets(rules) => count(&mut rules.keys()),
            Content::NetPorts(rules) => count(&mut rules.keys().map(|rule| &rule.net)),
            Content::AddressPorts(services) => services.len(),
            Content::NetDevices(nets) => count(&mut nets.keys().map(|(net, _)| net)),
        }
    }
}

/// What one set has to lose and to gain to be the other, of the same type: elements, with what is said of
/// those that come. One of which something else is said now comes, and goes not.
pub(crate) fn change(
    old: &IpSet,
    new: &IpSet,
) -> (Vec<ipset::Element>, Vec<(ipset::Element, Said)>) {
    if let (Content::Nets(before), Content::Nets(after)) = (&old.content, &new.content) {
        // These can be large.
        let only = |of: &SharedSet<Prefix>, not_of: &SharedSet<Prefix>| {
            let nets = Arc::new(of.difference(not_of).copied().collect());
            let (family, content) = (old.family, Content::Nets(nets));
            IpSet { family, content }.elements().into_iter()
        };
        let gone = only(before, after).map(|(element, _)| element);
        return (gone.collect(), only(after, before).collect());
    }
    let (before, after) = (old.elements(), new.elements());
    let gone = before.keys().filter(|element| !after.contains_key(element));
    let gone = gone.cloned().collect();
    let come = after.into_iter();
    let come = come.filter(|(element, said)| before.get(element) != Some(said));
    (gone, come.collect())
}

/// Sets take no prefix of length 0, so the whole family is two halves.
fn halves(net: &Prefix) -> Vec<Prefix> {
    match net.length() {
        0 => [net.network(), net.last()]
            .map(|half| Prefix::containing(half, 1))
            .to_vec(),
        _ => vec![*net],
    }
}

impl Service {
    fn behind(self) -> Behind {
        Behind::Service {
            protocol: self.protocol,
            l4_port: self.l4_port,
        }
    }
}
