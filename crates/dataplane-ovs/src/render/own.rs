//! Is an address the port's own? Asked with the address in a register, by both guards: table Own. Is the frame's
//! MAC, and is it what the frame says elsewhere, in another register: table OwnMac.
//!
//! Link-local addresses that a MAC derives count as reserved, whoever's MAC it may be: a flow for each port of
//! a network, wherever it is, would be a flow for each member.

use super::Scene;
use super::classify::mac_value;
use crate::cookie::Cookie;
use crate::draft::{Draft, ETH_IPV6, ETH_RARP};
use crate::registers::{ASKED_MAC, ASKED4, ASKED6, Flag, NETWORK, PORT};
use crate::tables::Table;
use model::{Family, Prefix};
use openflow::{Action, Bits, Field};

/// Listed.
const LISTED: u16 = 40;
const OWN_DERIVED: u16 = 35;
const RESERVED: u16 = 30;
const LINK_LOCAL: u16 = 10;

pub(super) fn render(scene: &mut Scene<'_>) {
    macs(scene);
    addresses(scene);
    derived(scene);
}

/// MACs in a frame have to be its source's. In an address there may be the port's own, whatever the source is.
fn macs(scene: &mut Scene<'_>) {
    for (_, port) in scene.guarded() {
        let asked = |mac| {
            let draft = Draft::new(Table::OwnMac, 10).cookie(Cookie::Port(port.number));
            let draft = draft.on_part(PORT, port.number);
            let draft = draft.on_bits(ASKED_MAC, mac_value(mac));
            draft.raise(&[Flag::OWN_MAC])
        };
        let macs = port.view.macs();
        if macs.len() == 1 {
            scene.add(asked(port.view.mac));
            continue;
        }
        scene.add(asked(port.view.mac).with(Flag::DERIVED));
        for source in &macs {
            for mac in &macs {
                let draft = asked(*mac).without(Flag::DERIVED);
                let draft = draft.on(Field::EthSrc, mac_value(*source));
                scene.add(match mac == source {
                    true => draft,
                    // What a hypervisor announces for a machine that has just arrived.
                    false => draft.eth(ETH_RARP),
                });
            }
        }
    }
    scene.add(Draft::new(Table::OwnMac, 0));
}

/// Takes the MAC out of an address: without its middle, and with bit 1 of its first byte turned.
fn derived(scene: &mut Scene<'_>) {
    let interface = |start, count| Bits::new(Field::XReg(5), start, count);
    let mac = |start, count| Bits::new(ASKED_MAC.field, start, count);
    for turned in [0, 1] {
        let middle = 0xfffe << 24;
        let draft = Draft::new(Table::Own, OWN_DERIVED).with(Flag::SIX);
        let draft = draft.on_masked(
            ASKED6,
            0xfe80 << 112 | turned << 57 | middle,
            u128::MAX << 64 | 1 << 57 | 0xffff << 24,
        );
        let draft = draft.raise(&[Flag::DERIVED]).clear(&[Flag::OWN_MAC]);
        let draft = draft.copy_bits(interface(0, 24), mac(0, 24));
        let draft = draft.copy_bits(interface(40, 24), mac(24, 24));
        let draft = draft.act(Action::set_bits(mac(41, 1), 1 - turned));
        let draft = draft.ask(Table::OwnMac).clear(&[Flag::DERIVED]);
        scene.add(draft.copy_flag(Flag::OWN_MAC, Flag::OWN));
    }
}

fn addresses(scene: &mut Scene<'_>) {
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
            match own.mac {
                None => scene.add(draft),
                Some(mac) => {
                    scene.add(draft.clone().with(Flag::TO_PORT));
                    let sends = draft.with(Flag::FROM_PORT);
                    scene.add(sends.on(Field::EthSrc, mac_value(mac)));
                }
            }
        }
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
    scene.add(Draft::new(Table::Own, 0));
}

pub(super) fn ethertype(family: Family) -> u16 {
    match family {
        Family::V4 => crate::draft::ETH_IP,
        Family::V6 => ETH_IPV6,
    }
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

/// The same of a MAC.
pub(super) fn begin_mac(draft: Draft, mac: Field) -> Draft {
    let draft = draft.clear(&[Flag::OWN_MAC]);
    draft
        .copy_bits(Bits::all(mac), ASKED_MAC)
        .ask(Table::OwnMac)
}
