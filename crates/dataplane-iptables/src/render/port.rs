//! A port: what its device may send and receive, and the marks of its frames.
//!
//! Place on the line: port view, network view -> **elements** of link.nft.
//! Source: docs/semantics.md "Guard".

use crate::element::Field;
use crate::mark;
use crate::parts::Part;
use model::{Direction, Family, MacAddr, Prefix};
use policy::{NetworkView, PortView};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// All that a guarded port's elements depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortInput {
    pub(crate) ifindex: u32,
    pub(crate) port: Arc<PortView>,
    pub(crate) network: Arc<NetworkInput>,
    pub(crate) network_number: u16,
    pub(crate) bridge: u16,
    /// 0: no rules.
    pub(crate) profile: u16,
    /// By family, then direction.
    pub(crate) open: [[bool; 2]; 2],
    /// By family: some of what it sends may go untracked.
    pub(crate) elides: [bool; 2],
}

/// A network without what changes with each port of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetworkInput {
    pub(crate) subnets: BTreeSet<Prefix>,
    pub(crate) dhcp_servers: BTreeSet<IpAddr>,
    pub(crate) eui64_only: bool,
}

impl NetworkInput {
    pub(crate) fn of(network: &NetworkView) -> Self {
        Self {
            subnets: network.subnets.clone(),
            dhcp_servers: network.dhcp_servers.clone(),
            eui64_only: network.eui64_only,
        }
    }
}

impl PortInput {
    pub(crate) fn render(&self) -> Part {
        let mut part = Part::default();
        let device = Field::Device(self.ifindex);
        part.element("ports", [device]);
        for (family, from, to) in [(Family::V4, "from4", "to4"), (Family::V6, "from6", "to6")] {
            let mark = self.mark(family);
            part.entry(from, [device], mark);
            part.entry(to, [device], mark);
        }
        part.entry("network_of", [device], self.network_number.into());
        if self.port.dhcp_server {
            part.element("dhcp_servers", [device]);
        }
        if self.port.router {
            part.element("routers", [device]);
        }
        if self.network.eui64_only {
            part.element("listed_only", [device]);
        }
        self.add_macs(&mut part, device);
        self.add_addresses(&mut part, device);
        self.add_network(&mut part, device);
        part
    }

    pub(crate) fn mark(&self, family: Family) -> u32 {
        let [open_in, open_out] = self.open[family as usize];
        let flag = |flag, on| if on { flag } else { 0 };
        mark::GATE
            | flag(mark::OPEN_IN, open_in)
            | flag(mark::OPEN_OUT, open_out)
            | mark::bridge(self.bridge)
            | u32::from(self.profile)
    }

    fn may_elide(&self, family: Family) -> u32 {
        match self.elides[family as usize] {
            true => mark::ELIDABLE,
            false => 0,
        }
    }

    fn add_macs(&self, part: &mut Part, device: Field) {
        for mac in self.port.macs() {
            let (plain, raw) = (Field::Mac(mac), Field::RawMac(mac));
            part.element("macs", [device, plain]);
            part.element("same_mac", [device, plain, raw]);
            part.element("rarp_own", [device, raw]);
        }
    }

    fn add_addresses(&self, part: &mut Part, device: Field) {
        let macs = self.port.macs();
        let mut destinations = BTreeSet::new();
        // With the MAC that they go with.
        let mut wide: BTreeSet<(MacAddr, Prefix)> = BTreeSet::new();
        let mut single: BTreeSet<(MacAddr, IpAddr)> = BTreeSet::new();
        let own_link_local = IpAddr::V6(self.port.mac.eui64_link_local());
        destinations.insert(Prefix::host(own_link_local));
        single.extend(macs.iter().map(|mac| (*mac, own_link_local)));
        for address in &self.port.addresses {
            destinations.insert(address.prefix);
            let with: Vec<MacAddr> = match address.mac {
                Some(mac) => vec![mac],
                None => macs.iter().copied().collect(),
            };
            match address.prefix.as_host() {
                Some(host) => single.extend(with.iter().map(|mac| (*mac, host))),
                None => wide.extend(with.iter().map(|mac| (*mac, address.prefix))),
            }
        }
        for (mac, address) in &single {
            add_source(part, device, *mac, &Prefix::host(*address), false);
            let family = Family::of(*address);
            let map = by_family(family, "plain4_from", "plain6_from");
            let mark = self.mark(family) | self.may_elide(family);
            let key = [device, Field::Mac(*mac), Field::Address(*address)];
            part.entry(map, key, mark);
        }
        for mac in &macs {
            let of_mac = wide.iter().filter(|(m, _)| m == mac).map(|(_, net)| *net);
            for net in widest(of_mac) {
                add_source(part, device, *mac, &net, true);
            }
        }
        let broadcasts = broadcasts(&self.network.subnets);
        let (hosts, nets): (Vec<Prefix>, Vec<Prefix>) = destinations
            .into_iter()
            .partition(|p| p.as_host().is_some());
        for host in hosts {
            let set = by_family(host.family(), "to_own4", "to_own6");
            let address = host.network();
            let key = [device, Field::Address(address)];
            part.element(set, key);
            if !broadcasts.contains(&address) {
                let map = by_family(host.family(), "plain4_to", "plain6_to");
                let mark = self.mark(host.family());
                part.entry(map, key, mark);
            }
        }
        for net in widest(nets) {
            let set = by_family(net.family(), "to_own4_nets", "to_own6_nets");
            part.element(set, [device, Field::Range(net)]);
        }
    }

    fn add_network(&self, part: &mut Part, device: Field) {
        let network = &self.network;
        for broadcast in broadcasts(&network.subnets) {
            part.element("broadcasts", [device, Field::Address(broadcast)]);
        }
        for family in Family::BOTH {
            let servers = network.dhcp_servers.iter();
            let listed: Vec<Prefix> = servers
                .filter(|a| Family::of(**a) == family)
                .map(|a| Prefix::host(*a))
                .collect();
            let anybody = listed.is_empty();
            let own = network.subnets.iter().filter(|s| s.family() == family);
            let servers = if anybody {
                own.copied().collect()
            } else {
                listed
            };
            for net in widest(servers) {
                let of_family = |four, six| by_family(family, four, six);
                match (net.length(), net.as_host()) {
                    // A range would cost each port that comes or goes as much as there are ports.
                    (0, _) => {
                        let set = of_family("dhcp4_anywhere", "dhcp6_anywhere");
                        part.element(set, [device]);
                    }
                    (_, Some(host)) => {
                        let set = of_family("dhcp4", "dhcp6");
                        part.element(set, [device, Field::Address(host)]);
                    }
                    (_, None) => {
                        let set = of_family("dhcp4_nets", "dhcp6_nets");
                        part.element(set, [device, Field::Range(net)]);
                    }
                }
            }
            if anybody && family == Family::V6 {
                part.element("dhcp6_any", [device]);
            }
        }
    }

    /// Addresses by which others find the port: neither prefixes nor link-local ones.
    pub(crate) fn single_addresses(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        let hosts = self
            .port
            .addresses
            .iter()
            .filter_map(|a| a.prefix.as_host());
        hosts.filter(move |a| Family::of(*a) == family && !is_link_local(*a))
    }

    pub(crate) fn nets(&self, family: Family) -> impl Iterator<Item = Prefix> {
        let nets = self.port.addresses.iter().map(|a| a.prefix);
        nets.filter(move |p| p.family() == family && p.as_host().is_none())
    }

    pub(crate) fn is_open(&self, family: Family) -> bool {
        Direction::BOTH
            .iter()
            .all(|d| self.open[family as usize][*d as usize])
    }
}

fn add_source(part: &mut Part, device: Field, mac: MacAddr, net: &Prefix, wide: bool) {
    let pick = |exact, nets| if wide { nets } else { exact };
    let mac = Field::Mac(mac);
    let address = match wide {
        true => Field::Range(*net),
        false => Field::Address(net.network()),
    };
    match net.network() {
        IpAddr::V4(_) => {
            part.element(pick("own4", "own4_nets"), [device, mac, address]);
            part.element(pick("arp_own", "arp_own_nets"), [device, mac, mac, address]);
        }
        IpAddr::V6(host) => {
            let raw = match wide {
                true => Field::RawRange(*net),
                false => Field::RawAddress(host),
            };
            part.element(pick("own6", "own6_nets"), [device, mac, address]);
            part.element(pick("nd_own", "nd_own_nets"), [device, mac, raw]);
        }
    }
}

/// Sets of ranges take none that overlap.
pub(crate) fn widest(nets: impl IntoIterator<Item = Prefix>) -> Vec<Prefix> {
    let sorted: BTreeSet<Prefix> = nets.into_iter().collect();
    let mut widest: Vec<Prefix> = Vec::new();
    for net in sorted {
        if !widest.last().is_some_and(|last| last.covers(&net)) {
            widest.push(net);
        }
    }
    widest
}

pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn broadcasts(subnets: &BTreeSet<Prefix>) -> BTreeSet<IpAddr> {
    let v4 = subnets
        .iter()
        .filter(|s| s.family() == Family::V4 && s.length() <= 30);
    v4.map(Prefix::last).collect()
}

fn by_family(family: Family, four: &'static str, six: &'static str) -> &'static str {
    match family {
        Family::V4 => four,
        Family::V6 => six,
    }
}
