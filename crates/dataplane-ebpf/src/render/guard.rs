//! What the guard needs: a port's record and its addresses, a network's addresses.
//!
//! Place on the line: port views, network views -> **records** -> `ports`, `own`, `macs`,
//! `reserved`, `net_addresses`, `subnets`. A port's addresses, and a network's subnets and DHCP
//! servers, are never rewritten: a change makes new ones under a new number, and the port's record
//! switches over. Reserved link-local addresses change in place, as each new port of a network adds
//! one.

use super::peers::octets;
use crate::contents::{Contents, ReservedChange};
use crate::layout::{
    MAC_DESTINATION, MAC_MORE, MAC_OWN, MacKey, NET_BROADCAST, NET_DHCP_SERVER, NetAddressKey,
    OwnKey, PORT_DHCP_SERVER, PORT_DHCP4_LISTED, PORT_DHCP6_LISTED, PORT_EUI64_ONLY,
    PORT_MORE_ADDRESSES, PORT_MORE_BROADCASTS, PORT_MORE_MACS, PORT_ROUTER, PORT_SECURITY,
    PortRecord, ReservedKey, SubnetKey,
};
use crate::numbers::{NetworkName, Numbers, digest};
use model::{Family, MacAddr, NetworkId, Prefix};
use policy::{HostView, NetworkView, OwnAddress, PortView, SharedSet, differing};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

/// What `own` and `macs` hold under one number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AddressBlock {
    pub(crate) own: BTreeSet<OwnKey>,
    pub(crate) macs: BTreeMap<MacKey, u32>,
}

/// What `net_addresses` and `subnets` hold of one network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetworkBlock {
    pub(crate) addresses: BTreeSet<NetAddressKey>,
    pub(crate) subnets: BTreeSet<SubnetKey>,
}

/// A port's record as far as its port view and network view say: set, numbers and hold are missing.
pub(crate) fn record(port: &PortView, network: &NetworkView) -> PortRecord {
    let mut flags = 0;
    let mut set = |flag: u32, on: bool| flags |= if on { flag } else { 0 };
    let lists = |family| {
        network
            .dhcp_servers
            .iter()
            .any(|a| Family::of(*a) == family)
    };
    let inline = inline_addresses(port);
    let broadcasts = broadcasts(network);
    set(PORT_SECURITY, port.port_security);
    set(PORT_DHCP_SERVER, port.dhcp_server);
    set(PORT_ROUTER, port.router);
    set(PORT_EUI64_ONLY, network.eui64_only);
    set(
        PORT_MORE_ADDRESSES,
        port.addresses.len() > inline.iter().flatten().count(),
    );
    set(PORT_MORE_MACS, port.macs().len() > 1);
    set(PORT_MORE_BROADCASTS, broadcasts.len() > 1);
    set(PORT_DHCP4_LISTED, lists(Family::V4));
    set(PORT_DHCP6_LISTED, lists(Family::V6));
    let mut record = PortRecord {
        flags,
        mac: port.mac.0,
        link_local: port.mac.eui64_link_local().octets(),
        ..PortRecord::default()
    };
    if let Some(IpAddr::V4(address)) = inline[0] {
        record.v4 = address.octets();
    }
    if let Some(IpAddr::V6(address)) = inline[1] {
        record.v6 = address.octets();
    }
    if let Some(IpAddr::V4(address)) = broadcasts.first() {
        record.broadcast = address.octets();
    }
    record
}

/// One fixed address of each family, link-local ones last.
fn inline_addresses(port: &PortView) -> [Option<IpAddr>; 2] {
    Family::BOTH.map(|family| {
        let fixed = port.addresses.iter().filter(|a| a.mac.is_none());
        let hosts = fixed.filter_map(|a| a.prefix.as_host());
        let hosts =
            hosts.filter(|address| Family::of(*address) == family && !address.is_unspecified());
        hosts.min_by_key(|address| match address {
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => address.is_unicast_link_local(),
        })
    })
}

/// The broadcast addresses of IPv4 subnets of up to /30.
fn broadcasts(network: &NetworkView) -> Vec<IpAddr> {
    let subnets = network.subnets.iter();
    let v4 = subnets.filter(|s| s.family() == Family::V4 && s.length() <= 30);
    let addresses: BTreeSet<IpAddr> = v4.map(Prefix::last).collect();
    addresses.into_iter().collect()
}

/// Empty where the record's own fields say it all.
pub(crate) fn address_block(port: &PortView, number: u32) -> AddressBlock {
    let mut block = AddressBlock::default();
    if !port.port_security {
        return block;
    }
    let mut mac_numbers: BTreeMap<MacAddr, u32> = BTreeMap::new();
    mac_numbers.insert(port.mac, MAC_OWN);
    let others = port.macs().into_iter().filter(|mac| *mac != port.mac);
    for (mac, mac_number) in others.zip(MAC_MORE..) {
        mac_numbers.insert(mac, mac_number);
        let key = MacKey {
            addresses: number,
            mac: mac.0,
            pad: 0,
        };
        block.macs.insert(key, mac_number);
    }
    let inline = inline_addresses(port);
    if port.addresses.len() > inline.iter().flatten().count() {
        for address in &port.addresses {
            block.own.insert(own_key(number, MAC_DESTINATION, address));
            match address.mac {
                Some(mac) => {
                    block
                        .own
                        .insert(own_key(number, mac_numbers[&mac], address));
                }
                None => block.own.extend(
                    mac_numbers
                        .values()
                        .map(|mac| own_key(number, *mac, address)),
                ),
            }
        }
    }
    block
}

fn own_key(number: u32, mac: u32, address: &OwnAddress) -> OwnKey {
    let (family, octets) = octets(address.prefix.network());
    OwnKey {
        prefix_len: 64 + u32::from(address.prefix.length()),
        addresses: number,
        mac: mac as u16,
        family: family as u16,
        address: octets,
    }
}

pub(crate) fn network_name(id: &NetworkId, network: &NetworkView) -> NetworkName {
    let [content, _] = digest(&(&network.subnets, &network.dhcp_servers));
    NetworkName {
        id: id.clone(),
        content,
    }
}

pub(crate) fn network_block(network: &NetworkView, number: u32) -> NetworkBlock {
    let key = |kind: u32, address: IpAddr| {
        let (family, address) = octets(address);
        NetAddressKey {
            network: number,
            kind: kind as u16,
            family: family as u16,
            address,
        }
    };
    let mut block = NetworkBlock::default();
    let servers = network.dhcp_servers.iter();
    block
        .addresses
        .extend(servers.map(|a| key(NET_DHCP_SERVER, *a)));
    let broadcasts = broadcasts(network);
    if broadcasts.len() > 1 {
        let keys = broadcasts.into_iter().map(|a| key(NET_BROADCAST, a));
        block.addresses.extend(keys);
    }
    block.subnets.extend(network.subnets.iter().map(|subnet| {
        let (family, address) = octets(subnet.network());
        SubnetKey {
            prefix_len: 64 + u32::from(subnet.length()),
            network: number,
            family,
            address,
        }
    }));
    block
}

/// Which link-local addresses are reserved from now on, and which no more. `old`: the view that the actual ones are
/// of, if that is known.
pub(crate) fn reserved(
    old: Option<&HostView>,
    new: &HostView,
    actual: &Contents,
    numbers: &mut Numbers,
) -> ReservedChange {
    let mut change = ReservedChange::default();
    let Some(old) = old else {
        let mut desired = BTreeSet::new();
        for (id, network) in &new.networks {
            let number = numbers.network(&network_name(id, network));
            let addresses = network.reserved_link_local.iter();
            desired.extend(addresses.map(|a| reserved_key(number, a)));
        }
        change.more.extend(desired.difference(&actual.reserved));
        change.fewer.extend(actual.reserved.difference(&desired));
        return change;
    };
    for (id, before, after) in differing(&old.networks, &new.networks) {
        let mut numbered = |network: &NetworkView| numbers.network(&network_name(id, network));
        let was = before.map(&mut numbered);
        let is = after.map(&mut numbered);
        let empty = SharedSet::default();
        let [before, after] =
            [before, after].map(|n| n.map_or(&empty, |n| &*n.reserved_link_local));
        let (gone, come): (Vec<&Ipv6Addr>, Vec<&Ipv6Addr>) = if was == is {
            (
                before.difference(after).collect(),
                after.difference(before).collect(),
            )
        } else {
            (before.iter().collect(), after.iter().collect())
        };
        change.fewer.extend(
            was.iter()
                .flat_map(|n| gone.iter().map(|a| reserved_key(*n, a))),
        );
        change.more.extend(
            is.iter()
                .flat_map(|n| come.iter().map(|a| reserved_key(*n, a))),
        );
    }
    change
}

fn reserved_key(network: u32, address: &Ipv6Addr) -> ReservedKey {
    ReservedKey {
        network,
        address: address.octets(),
    }
}
