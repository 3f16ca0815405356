//! Table Own: is an address the port's own? Asked with the address in a register, by the guard of what it sends
//! (with the frame's MAC); the to-port guard asks table ToAddress.
//!
//! Link-local addresses that a MAC derives count as reserved, whoever's MAC it may be: a flow for each port of
//! a network, wherever it is, would be a flow for each member.

use super::Scene;
use super::classify::mac_value;
use crate::cookie::Cookie;
use crate::draft::{Draft, ETH_IPV6};
use crate::registers::{ASKED4, ASKED6, Flag, NETWORK, PORT};
use crate::tables::Table;
use model::{DropReason, Family, Prefix};
use openflow::Field;
use std::net::{IpAddr, Ipv6Addr};

/// Listed, or derived from the port's own MAC.
const LISTED: u16 = 40;
const RESERVED: u16 = 30;
const LINK_LOCAL: u16 = 10;

pub(super) fn render(scene: &mut Scene<'_>) {
    from_ports(scene);
    to_ports(scene);
    scene.add(Draft::new(Table::Own, 0));
}

fn from_ports(scene: &mut Scene<'_>) {
    for (_, port) in scene.guarded() {
        let asked = |prefix: Prefix| {
            let draft = Draft::new(Table::Own, LISTED).cookie(Cookie::Port(port.number));
            let draft = draft.on_part(PORT, port.number);
            let draft = draft.flag_is(Flag::SIX, prefix.family() == Family::V6);
            draft
                .on_prefix([ASKED4, ASKED6], prefix)
                .raise(&[Flag::OWN])
        };
        for own in &port.view.addresses {
            let draft = asked(own.prefix);
            scene.add(match own.mac {
                Some(mac) => draft.on(Field::EthSrc, mac_value(mac)),
                None => draft,
            });
        }
        scene.add(asked(derived(port.view.mac.eui64_link_local())));
    }
    for (id, network) in scene.networks() {
        let number = scene.network_number(id);
        let asked = |priority, value, mask| {
            let draft = Draft::new(Table::Own, priority).on_part(NETWORK, number);
            draft.with(Flag::SIX).on_masked(ASKED6, value, mask)
        };
        for (value, mask) in reserved(network) {
            scene.add(asked(RESERVED, value, mask));
        }
        if !network.eui64_only {
            let (value, mask) = ANY_LINK_LOCAL;
            scene.add(asked(LINK_LOCAL, value, mask).raise(&[Flag::OWN]));
        }
    }
}

fn to_ports(scene: &mut Scene<'_>) {
    let table = Table::ToAddress;
    for (_, port) in scene.guarded() {
        let asked = |prefix: Prefix| {
            let draft = Draft::new(table, LISTED).cookie(Cookie::Port(port.number));
            let draft = draft
                .on_part(PORT, port.number)
                .eth(ethertype(prefix.family()));
            draft
                .on_prefix([Field::IpDst, Field::Ipv6Dst], prefix)
                .goto(Table::ToSource)
        };
        for own in &port.view.addresses {
            scene.add(asked(own.prefix));
        }
        scene.add(asked(derived(port.view.mac.eui64_link_local())));
    }
    for (id, network) in scene.networks() {
        let number = scene.network_number(id);
        let asked = |priority, value, mask| {
            let draft = Draft::new(table, priority).on_part(NETWORK, number);
            draft.eth(ETH_IPV6).on_masked(Field::Ipv6Dst, value, mask)
        };
        for (value, mask) in reserved(network) {
            scene.add(asked(RESERVED, value, mask).drop(DropReason::ForeignDestination));
        }
        if !network.eui64_only {
            let (value, mask) = ANY_LINK_LOCAL;
            scene.add(asked(LINK_LOCAL, value, mask).goto(Table::ToSource));
        }
    }
}

pub(super) fn ethertype(family: Family) -> u16 {
    match family {
        Family::V4 => crate::draft::ETH_IP,
        Family::V6 => ETH_IPV6,
    }
}

fn derived(address: Ipv6Addr) -> Prefix {
    Prefix::host(IpAddr::V6(address))
}

/// fe80::/10.
const ANY_LINK_LOCAL: (u128, u128) = (0xfe80 << 112, 0xffc0 << 112);
/// fe80::/10 with ff:fe in the middle of the interface's part.
const DERIVED: (u128, u128) = (0xfe80 << 112 | 0xfffe << 24, 0xffc0 << 112 | 0xffff << 24);

/// Values and masks of link-local addresses that only their owners may use.
fn reserved(network: &policy::NetworkView) -> Vec<(u128, u128)> {
    if network.eui64_only {
        return Vec::new();
    }
    let exact = network.reserved_link_local.iter().map(|a| u128::from(*a));
    let (value, mask) = DERIVED;
    let exact = exact.filter(|address| address & mask != value);
    let exact = exact.map(|address| (address, u128::MAX));
    exact.chain([DERIVED]).collect()
}

/// So that whatever register is asked about, the flag says which.
pub(super) fn begin(draft: Draft, address: Field, family: Family) -> Draft {
    let draft = match family {
        Family::V4 => draft.copy(address, ASKED4),
        Family::V6 => draft.copy(address, ASKED6).raise(&[Flag::SIX]),
    };
    draft.ask(Table::Own)
}
