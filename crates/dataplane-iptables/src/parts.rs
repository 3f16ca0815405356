//! What the kernel is to hold, in parts that are compared, rendered and written each for itself.
//!
//! Place on the line: render -> **parts** -> plan. A part is all that comes of one thing of the policy: a
//! port, a profile, a set of members. What is of several things at once (the ways to the profiles, which
//! addresses need no tracking) is the common part.
//! Knows nothing of: where a part comes from, in which order parts are written.

use crate::element::{Element, Field};
use model::{Family, Prefix};
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
    Nets(Arc<BTreeSet<Prefix>>),
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
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Content::Addresses(_) => "hash:ip",
            Content::Nets(_) | Content::RuleNets(_) => "hash:net",
            Content::NetPorts(_) => "hash:net,port",
            Content::AddressPorts(_) => "hash:ip,port",
            Content::NetDevices(_) => "hash:net,iface",
        }
    }

    /// How often it was met is counted for each element; each carries a mark.
    pub(crate) fn extensions(&self) -> &'static str {
        match self {
            Content::Addresses(_) | Content::Nets(_) | Content::AddressPorts(_) => "",
            Content::NetPorts(_) | Content::RuleNets(_) => " counters comment",
            Content::NetDevices(_) => " skbinfo",
        }
    }
}

impl IpSet {
    pub(crate) fn type_and_family(&self) -> String {
        format!("{} {}", self.content.type_name(), self.family_name())
    }

    pub(crate) fn family_name(&self) -> &'static str {
        match self.family {
            Family::V4 => "inet",
            Family::V6 => "inet6",
        }
    }

    /// An element, and what is said of it behind it; in ipset's words, in order.
    pub(crate) fn elements(&self) -> BTreeMap<String, String> {
        match &self.content {
            Content::Addresses(addresses) => {
                let each = addresses.iter();
                each.map(|a| (a.to_string(), String::new())).collect()
            }
            Content::Nets(nets) => {
                let halves = nets
                    .iter()
                    .filter(|n| n.family() == self.family)
                    .flat_map(halves);
                halves.map(|net| (net, String::new())).collect()
            }
            Content::RuleNets(rules) => {
                let mut elements = BTreeMap::new();
                for (net, rule) in rules {
                    let each = halves(net).into_iter();
                    elements.extend(each.map(|net| (net, format!(" comment \"{rule}\""))));
                }
                elements
            }
            Content::NetPorts(rules) => {
                let mut elements = BTreeMap::new();
                for (NetPort { net, service }, rule) in rules {
                    for net in halves(net) {
                        let comment = format!(" comment \"{rule}\"");
                        elements.insert(format!("{net},{service}"), comment);
                    }
                }
                elements
            }
            Content::AddressPorts(services) => {
                let each = services.iter();
                each.map(|(address, service)| (format!("{address},{service}"), String::new()))
                    .collect()
            }
            Content::NetDevices(nets) => {
                let mut elements = BTreeMap::new();
                for ((net, device), mark) in nets {
                    for net in halves(net) {
                        elements.insert(format!("{net},{device}"), format!(" skbmark {mark:#x}"));
                    }
                }
                elements
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
pub(crate) fn change(old: &IpSet, new: &IpSet) -> (Vec<String>, Vec<(String, String)>) {
    if let (Content::Nets(before), Content::Nets(after)) = (&old.content, &new.content) {
        // These can be large.
        let lines = |of: &BTreeSet<Prefix>, not_of: &BTreeSet<Prefix>| -> Vec<String> {
            let only = of.difference(not_of).filter(|n| n.family() == old.family);
            only.flat_map(halves).collect()
        };
        let added = lines(after, before).into_iter();
        let added = added.map(|element| (element, String::new())).collect();
        return (lines(before, after), added);
    }
    let (before, after) = (old.elements(), new.elements());
    let gone = before
        .keys()
        .filter(|element| !after.contains_key(*element));
    let come = after
        .iter()
        .filter(|(element, said)| before.get(*element) != Some(*said));
    (
        gone.cloned().collect(),
        come.map(|(element, said)| (element.clone(), said.clone()))
            .collect(),
    )
}

/// As ipset writes it; it takes no prefix of length 0, so the whole family is two halves.
fn halves(net: &Prefix) -> Vec<String> {
    match (net.family(), net.length()) {
        (Family::V4, 0) => vec!["0.0.0.0/1".to_owned(), "128.0.0.0/1".to_owned()],
        (Family::V6, 0) => vec!["::/1".to_owned(), "8000::/1".to_owned()],
        _ => vec![net.to_string()],
    }
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.protocol {
            6 => write!(f, "tcp:{}", self.l4_port),
            17 => write!(f, "udp:{}", self.l4_port),
            132 => write!(f, "sctp:{}", self.l4_port),
            other => write!(f, "{other}:0"),
        }
    }
}
