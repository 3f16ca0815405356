//! Which ends of the host can do without tracking, and who is found at which address: what several ports
//! have a say in.
//!
//! Place on the line: ports -> **elements** of link.nft, `cs_notrack`, `pc-served`, `pc-to`.
//! An address of several ports of one bridge needs tracking if it does for one of them. Never tracking less
//! than what is needed is the rule here; tracking more is allowed.
//! Source: docs/semantics.md "Elision"; mode `strict`, as netfilter can't look into ICMP errors.

use super::port::{PortInput, is_link_local, widest};
use super::profile::{Profile, Summary};
use crate::element::Field;
use crate::mark;
use crate::parts::{Content, Part, Service};
use model::{Family, PortId, Prefix};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ends {
    /// Something may go untracked.
    elides: bool,
    ports: BTreeMap<PortId, End>,
}

#[derive(Clone, Debug, PartialEq)]
struct End {
    port: Arc<PortInput>,
    /// The bridge's name.
    bridge: Arc<str>,
    profile: Arc<Profile>,
}

/// What is known of an address at a bridge, or of an address behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Nothing,
    Services,
    Tracking,
}

impl End {
    fn served(&self, family: Family) -> &BTreeSet<Service> {
        &self.profile.summary.served[family as usize]
    }

    /// All by which it is found.
    fn prefixes(&self) -> impl Iterator<Item = Prefix> {
        let listed = self.port.port.addresses.iter().map(|a| a.prefix);
        listed.chain([self.link_local()])
    }

    fn link_local(&self) -> Prefix {
        Prefix::host(self.port.port.mac.eui64_link_local().into())
    }

    fn has_nets(&self) -> bool {
        self.prefixes().any(|prefix| prefix.as_host().is_none())
    }
}

impl Ends {
    pub(crate) fn new(elides: bool) -> Self {
        Self {
            elides,
            ports: BTreeMap::new(),
        }
    }

    /// Whether a port with such rules may send something untracked.
    pub(crate) fn may_elide(&self, summary: &Summary, family: Family) -> bool {
        let all_open = summary.open[family as usize].iter().all(|open| *open);
        self.elides && (all_open || !summary.served[family as usize].is_empty())
    }

    pub(crate) fn add(
        &mut self,
        id: &PortId,
        port: &Arc<PortInput>,
        bridge: &Arc<str>,
        profile: &Arc<Profile>,
    ) {
        let end = End {
            port: Arc::clone(port),
            bridge: Arc::clone(bridge),
            profile: Arc::clone(profile),
        };
        self.ports.insert(id.clone(), end);
    }

    pub(crate) fn render(&self) -> Part {
        let mut part = Part::default();
        for family in Family::BOTH {
            self.add_tracking(family, &mut part);
            self.add_found(family, &mut part);
        }
        part
    }

    fn add_tracking(&self, family: Family, part: &mut Part) {
        let names = SetNames::of(family);
        let mut notrack = BTreeSet::new();
        let mut served = BTreeSet::new();
        let mut needs: BTreeMap<(u16, IpAddr), Need> = BTreeMap::new();
        for end in self.ports.values() {
            let need = self.need(end, family);
            for address in end.port.single_addresses(family) {
                let known = needs.entry((end.port.bridge, address)).or_insert(need);
                // Two ports with services: whose are they?
                *known = if *known == need && need != Need::Services {
                    need
                } else {
                    (*known).max(need)
                };
            }
            if need == Need::Nothing {
                part.element(names.open_from, [Field::Device(end.port.ifindex)]);
            }
        }
        let tracked_nets = self.tracked_nets(family);
        for (bridge, net) in &tracked_nets {
            let bridge = Field::Mark(mark::bridge(*bridge));
            part.element(names.tracked_nets, [bridge, Field::Range(*net)]);
        }
        for ((bridge, address), need) in &needs {
            let key = [Field::Mark(mark::bridge(*bridge)), Field::Address(*address)];
            match need {
                Need::Tracking => part.element(names.tracked, key),
                Need::Services => part.element(names.serving, key),
                Need::Nothing => {
                    notrack.insert(*address);
                    part.element(names.open, key);
                }
            }
        }
        for end in self
            .ports
            .values()
            .filter(|end| self.need(end, family) == Need::Services)
        {
            for address in end.port.single_addresses(family) {
                if needs[&(end.port.bridge, address)] != Need::Services {
                    continue;
                }
                for service in end.served(family) {
                    let Service { protocol, l4_port } = service;
                    let key = [
                        Field::Mark(mark::bridge(end.port.bridge)),
                        Field::Address(address),
                        Field::Protocol(*protocol),
                        Field::L4Port(*l4_port),
                    ];
                    part.element(names.served, key);
                    served.insert((address, *service));
                }
            }
        }
        part.set(names.notrack, family, Content::Addresses(notrack));
        part.set(names.served_set, family, Content::AddressPorts(served));
    }

    fn need(&self, end: &End, family: Family) -> Need {
        let served = end.served(family);
        let has_nets = end.port.nets(family).next().is_some();
        if self.elides && end.port.is_open(family) {
            Need::Nothing
        } else if self.elides && !served.is_empty() && !has_nets {
            Need::Services
        } else {
            Need::Tracking
        }
    }

    /// Prefixes that a port which needs tracking may use.
    fn tracked_nets(&self, family: Family) -> BTreeSet<(u16, Prefix)> {
        let mut by_bridge: BTreeMap<u16, Vec<Prefix>> = BTreeMap::new();
        for end in self.ports.values() {
            if self.need(end, family) == Need::Tracking {
                by_bridge
                    .entry(end.port.bridge)
                    .or_default()
                    .extend(end.port.nets(family));
            }
        }
        let all = by_bridge.into_iter();
        all.flat_map(|(bridge, nets)| widest(nets).into_iter().map(move |net| (bridge, net)))
            .collect()
    }

    /// For what the host itself sends: whose an address is on a bridge. The first port has it.
    fn add_found(&self, family: Family, part: &mut Part) {
        let mut found = BTreeMap::new();
        for end in self.ports.values().filter(|end| is_plain(&end.bridge)) {
            let mark = end.port.mark(family);
            let own = end.port.port.addresses.iter().map(|a| a.prefix);
            let own = own.filter(|p| p.family() == family && !is_link_local(p.network()));
            let link_local = (family == Family::V6).then(|| end.link_local());
            for prefix in own.chain(link_local) {
                found
                    .entry((prefix, end.bridge.to_string()))
                    .or_insert(mark);
            }
        }
        part.set(SetNames::of(family).to, family, Content::NetDevices(found));
    }
}

/// Both without the ends that have nothing to do with those that differ: of their addresses the same is known
/// in both. Ranges are one thing with all others.
pub(crate) fn apart(one: &Ends, other: &Ends) -> (Ends, Ends) {
    if one.elides != other.elides {
        return (one.clone(), other.clone());
    }
    let differing = policy::differing(&one.ports, &other.ports);
    let differing: Vec<&End> = differing.flat_map(|(_, a, b)| [a, b]).flatten().collect();
    let touched: BTreeSet<Prefix> = differing.iter().flat_map(|end| end.prefixes()).collect();
    let nets = differing.iter().any(|end| end.has_nets());
    let is_near = |end: &End| {
        end.prefixes().any(|prefix| touched.contains(&prefix)) || (nets && end.has_nets())
    };
    let near = |ends: &Ends| {
        let near = ends.ports.iter().filter(|(_, end)| is_near(end));
        Ends {
            elides: ends.elides,
            ports: near.map(|(id, end)| (id.clone(), end.clone())).collect(),
        }
    };
    (near(one), near(other))
}

/// A name that ipset reads as a name. To ports of bridges with others, the host itself sends nothing.
fn is_plain(bridge: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@');
    bridge.bytes().all(plain)
}

struct SetNames {
    open_from: &'static str,
    open: &'static str,
    tracked: &'static str,
    tracked_nets: &'static str,
    serving: &'static str,
    served: &'static str,
    notrack: &'static str,
    served_set: &'static str,
    to: &'static str,
}

impl SetNames {
    fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self {
                open_from: "open4_from",
                open: "open4",
                tracked: "tracked4",
                tracked_nets: "tracked4_nets",
                serving: "serving4",
                served: "served4",
                notrack: "cs_notrack",
                served_set: "pc-served-4",
                to: "pc-to-4",
            },
            Family::V6 => Self {
                open_from: "open6_from",
                open: "open6",
                tracked: "tracked6",
                tracked_nets: "tracked6_nets",
                serving: "serving6",
                served: "served6",
                notrack: "cs_notrack6",
                served_set: "pc-served-6",
                to: "pc-to-6",
            },
        }
    }
}
