//! The guard of what a port sends, one table per step; the first that fails names the reason.
//!
//! Source: docs/semantics.md "Guard", from-port. What OpenFlow can't see is a capability that is missing.

use super::Scene;
use super::{identity, own};
use crate::draft::{Draft, ETH_ARP, ETH_IP, ETH_IPV6, ETH_RARP};
use crate::registers::{Flag, NETWORK};
use crate::tables::Table;
use model::{DropReason, Family, Prefix};
use openflow::Field;
use std::net::{Ipv4Addr, Ipv6Addr};

pub(super) const UDP: u8 = 17;
pub(super) const TCP: u8 = 6;
pub(super) const SCTP: u8 = 132;
pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;
pub(super) const IGMP: u8 = 2;

/// Of nw_frag: any fragment. Also of the first of them a switch shows no ports, unless it is told to.
pub(super) const FRAGMENT: u128 = 1;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const LISTENER_QUERY: u8 = 130;

pub(super) fn render(scene: &mut Scene<'_>) {
    macs(scene);
    arp(scene);
    ip(scene);
    ip4(scene);
    ip6(scene);
    neighbours(scene);
}

/// Whether the frame's is the port's has been asked.
fn macs(scene: &mut Scene<'_>) {
    let table = Table::FromMac;
    let spoofed = Draft::new(table, 40).without(Flag::OWN_MAC);
    scene.add(spoofed.drop(DropReason::SpoofedMac));
    let arp = Draft::new(table, 30).eth(ETH_ARP);
    scene.add(own::begin_mac(arp, Field::ArpSha).goto(Table::FromArp));
    // What a hypervisor announces for a machine that has just arrived.
    let announced = Draft::new(table, 30).eth(ETH_RARP).on(Field::ArpOp, 3u8);
    let announced = announced.on(Field::ArpSpa, 0u8).on(Field::ArpTpa, 0u8);
    scene.add(own::begin_mac(announced, Field::ArpSha).goto(Table::FromArp));
    let other = Draft::new(table, 20).eth(ETH_RARP);
    scene.add(other.drop(DropReason::SpoofedArp));
    scene.add(Draft::new(table, 0).goto(Table::FromClaim));
}

/// The sender's MAC is the frame's.
fn arp(scene: &mut Scene<'_>) {
    let spoofed = Draft::new(Table::FromArp, 30).without(Flag::OWN_MAC);
    scene.add(spoofed.drop(DropReason::SpoofedArp));
    let announced = Draft::new(Table::FromArp, 20).eth(ETH_RARP);
    scene.add(own::begin_mac(announced, Field::ArpTha).goto(Table::FromClaim));
    for opcode in [1u8, 2] {
        let message = |priority| Draft::new(Table::FromArp, priority).eth(ETH_ARP);
        // A probe asks for the address that it wants to use.
        let probe = message(20).on(Field::ArpOp, opcode).on(Field::ArpSpa, 0u8);
        let probe = own::begin(probe, Field::ArpTpa, Family::V4);
        scene.add(probe.goto(Table::FromClaim));
        let claim = message(10).on(Field::ArpOp, opcode);
        let claim = own::begin(claim, Field::ArpSpa, Family::V4);
        scene.add(claim.goto(Table::FromClaim));
    }
    scene.add(Draft::new(Table::FromArp, 0).drop(DropReason::SpoofedArp));
}

/// What the frame is, once its MAC is right.
fn ip(scene: &mut Scene<'_>) {
    let table = Table::FromClaim;
    let claimed = Draft::new(table, 30).eth(ETH_ARP).with(Flag::OWN);
    scene.add(claimed.goto(Table::Passed));
    let announced = Draft::new(table, 30).eth(ETH_RARP).with(Flag::OWN_MAC);
    scene.add(announced.goto(Table::Passed));
    for ethertype in [ETH_ARP, ETH_RARP] {
        scene.add(
            Draft::new(table, 20)
                .eth(ethertype)
                .drop(DropReason::SpoofedArp),
        );
    }
    let v4 = own::begin(Draft::new(table, 20).eth(ETH_IP), Field::IpSrc, Family::V4);
    let v4 = identity::of_source(scene, v4, Field::IpSrc, Family::V4);
    scene.add(v4.goto(Table::FromIp4));
    let v6 = own::begin(
        Draft::new(table, 20).eth(ETH_IPV6),
        Field::Ipv6Src,
        Family::V6,
    );
    let v6 = identity::of_source(scene, v6, Field::Ipv6Src, Family::V6);
    scene.add(v6.goto(Table::FromIp6));
    // Listed ethertypes.
    scene.add(Draft::new(table, 0).goto(Table::Passed));
}

/// Behind both ends of a family's steps: it goes on if the source is the port's.
fn end_of_steps(scene: &mut Scene<'_>, table: Table, ethertype: u16) {
    let of_family = |priority| Draft::new(table, priority).eth(ethertype);
    scene.add(of_family(10).with(Flag::OWN).goto(Table::OutMany));
    scene.add(of_family(0).drop(DropReason::SpoofedIp));
}

fn ip4(scene: &mut Scene<'_>) {
    let table = Table::FromIp4;
    let infrastructure = Table::Passed;
    let igmp = |priority| {
        let draft = Draft::new(table, priority).ip(IGMP);
        draft.on_masked(Field::IpFrag, 0, FRAGMENT)
    };
    // The type is nothing that OpenFlow can see: queries go to all systems, reports and leaves elsewhere.
    let all_systems = address4(Ipv4Addr::new(224, 0, 0, 1));
    scene.add(
        igmp(60)
            .on(Field::IpDst, all_systems)
            .drop(DropReason::RogueQuery),
    );
    let report = || {
        igmp(50)
            .on(Field::IpTtl, 1u8)
            .on_masked(Field::IpDst, 0xe << 28, 0xf << 28)
    };
    scene.add(report().with(Flag::OWN).goto(infrastructure));
    scene.add(report().on(Field::IpSrc, 0u8).goto(infrastructure));

    let answer = || udp4(table, 50, 67, 68);
    scene.add(
        answer()
            .without(Flag::DHCP_SERVER)
            .drop(DropReason::RogueDhcp),
    );
    scene.add(
        answer()
            .with(Flag::DHCP_SERVER)
            .with(Flag::OWN)
            .goto(infrastructure),
    );
    let own_or_none = [
        (|draft: Draft| draft.with(Flag::OWN)) as fn(Draft) -> Draft,
        |draft| draft.on(Field::IpSrc, 0u8),
    ];
    for source in own_or_none {
        let ask = || source(udp4(table, 50, 68, 67));
        let everybody = u128::from(u32::MAX);
        scene.add(ask().on(Field::IpDst, everybody).goto(infrastructure));
        for (network, server) in dhcp_servers(scene, Family::V4) {
            let draft = ask().on_part(NETWORK, network);
            let draft = draft.on_prefix([Field::IpDst, Field::Ipv6Dst], server);
            scene.add(draft.goto(infrastructure));
        }
    }
    end_of_steps(scene, table, ETH_IP);
}

fn ip6(scene: &mut Scene<'_>) {
    let table = Table::FromIp6;
    let infrastructure = Table::Passed;
    let icmp = |priority, icmp_type: u8| {
        Draft::new(table, priority)
            .ip6(ICMPV6)
            .on(Field::Icmpv6Type, icmp_type)
    };
    let sound = |icmp_type| {
        let draft = icmp(60, icmp_type).on_masked(Field::IpFrag, 0, FRAGMENT);
        draft.on(Field::IpTtl, 255u8).on(Field::Icmpv6Code, 0u8)
    };
    for icmp_type in [ROUTER_ADVERTISEMENT, REDIRECT] {
        let rogue = icmp(70, icmp_type).without(Flag::ROUTER);
        scene.add(rogue.drop(DropReason::RogueRa));
        scene.add(sound(icmp_type).with(Flag::OWN).goto(infrastructure));
    }
    scene.add(
        sound(ROUTER_SOLICITATION)
            .with(Flag::OWN)
            .goto(infrastructure),
    );
    for icmp_type in [NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT] {
        scene.add(sound(icmp_type).goto(Table::FromNd));
    }
    for icmp_type in ROUTER_SOLICITATION..=REDIRECT {
        scene.add(icmp(50, icmp_type).drop(DropReason::SpoofedNd));
    }

    scene.add(icmp(60, LISTENER_QUERY).drop(DropReason::RogueQuery));
    for icmp_type in [131, 132, 143] {
        let report = || {
            let draft = icmp(60, icmp_type).on_masked(Field::IpFrag, 0, FRAGMENT);
            let draft = draft.on(Field::IpTtl, 1u8);
            draft.on_masked(Field::Ipv6Dst, 0xff02 << 112, 0xffff << 112)
        };
        scene.add(report().on(Field::Ipv6Src, 0u8).goto(infrastructure));
        let own = from_link_local(report()).with(Flag::OWN);
        scene.add(own.goto(infrastructure));
    }

    let answer = || udp6(table, 50, 547, 546);
    scene.add(
        answer()
            .without(Flag::DHCP_SERVER)
            .drop(DropReason::RogueDhcp),
    );
    scene.add(
        answer()
            .with(Flag::DHCP_SERVER)
            .with(Flag::OWN)
            .goto(infrastructure),
    );
    let ask = || from_link_local(udp6(table, 50, 546, 547)).with(Flag::OWN);
    for group in DHCPV6_GROUPS {
        scene.add(
            ask()
                .on(Field::Ipv6Dst, u128::from(group))
                .goto(infrastructure),
        );
    }
    for (network, server) in dhcp_servers(scene, Family::V6) {
        let draft = ask().on_part(NETWORK, network);
        let draft = draft.on_prefix([Field::IpDst, Field::Ipv6Dst], server);
        scene.add(draft.goto(infrastructure));
    }
    end_of_steps(scene, table, ETH_IPV6);
}

const DHCPV6_GROUPS: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2),
    Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3),
];

/// Solicitations and advertisements of neighbours that are sound so far.
fn neighbours(scene: &mut Scene<'_>) {
    let table = Table::FromNd;
    let message = |priority, icmp_type: u8| {
        Draft::new(table, priority)
            .ip6(ICMPV6)
            .on(Field::Icmpv6Type, icmp_type)
    };
    for (icmp_type, option) in [
        (NEIGHBOUR_SOLICITATION, Field::NdSll),
        (NEIGHBOUR_ADVERTISEMENT, Field::NdTll),
    ] {
        // Also what is left of options that can't be walked.
        let no_target = message(40, icmp_type).on(Field::NdTarget, 0u8);
        scene.add(no_target.drop(DropReason::SpoofedNd));
        let without_option = message(30, icmp_type).on(option, 0u8);
        scene.add(without_option.goto(Table::FromNdTarget));
        let with_option = own::begin_mac(message(20, icmp_type), option);
        scene.add(with_option.goto(Table::FromNdTarget));
    }
    scene.add(Draft::new(table, 0).drop(DropReason::SpoofedNd));

    let table = Table::FromNdTarget;
    let spoofed = Draft::new(table, 40).without(Flag::OWN_MAC);
    scene.add(spoofed.drop(DropReason::SpoofedNd));
    let message = |icmp_type: u8| {
        Draft::new(table, 30)
            .ip6(ICMPV6)
            .on(Field::Icmpv6Type, icmp_type)
    };
    let solicits = message(NEIGHBOUR_SOLICITATION).with(Flag::OWN);
    scene.add(solicits.goto(Table::Passed));
    // Duplicate address detection: what it wants to use is the target.
    let detects = message(NEIGHBOUR_SOLICITATION)
        .without(Flag::OWN)
        .on(Field::Ipv6Src, 0u8);
    let advertises = message(NEIGHBOUR_ADVERTISEMENT).with(Flag::OWN);
    for asks in [detects, advertises] {
        let asks = asks.clear(&[Flag::OWN]);
        let asks = own::begin(asks, Field::NdTarget, Family::V6);
        scene.add(asks.goto(Table::OutMany));
    }
    scene.add(Draft::new(table, 0).drop(DropReason::SpoofedNd));
    // OutMany is also the end of the guard: there ND without an own target is dropped.
    let ended = Draft::new(Table::OutMany, 90).ip6(ICMPV6);
    for icmp_type in [NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT] {
        let ended = |priority_own: bool| {
            let draft = ended.clone().on(Field::Icmpv6Type, icmp_type);
            draft.flag_is(Flag::OWN, priority_own)
        };
        scene.add(ended(true).goto(Table::Passed));
        scene.add(ended(false).drop(DropReason::SpoofedNd));
    }
}

fn from_link_local(draft: Draft) -> Draft {
    draft.on_masked(Field::Ipv6Src, 0xfe80 << 112, 0xffc0 << 112)
}

/// UDP between these ports, not in fragments.
pub(super) fn udp4(table: Table, priority: u16, src: u16, dst: u16) -> Draft {
    udp(Draft::new(table, priority).ip(UDP), src, dst)
}

pub(super) fn udp6(table: Table, priority: u16, src: u16, dst: u16) -> Draft {
    udp(Draft::new(table, priority).ip6(UDP), src, dst)
}

fn udp(draft: Draft, src: u16, dst: u16) -> Draft {
    let draft = draft.on_masked(Field::IpFrag, 0, FRAGMENT);
    draft.on(Field::UdpSrc, src).on(Field::UdpDst, dst)
}

/// By network: listed servers and relays, or, where none of the family is listed, the network's own prefixes.
pub(super) fn dhcp_servers(scene: &Scene<'_>, family: Family) -> Vec<(u16, Prefix)> {
    let networks = scene.networks();
    let of_network = networks.iter().flat_map(|(id, network)| {
        let listed = network.dhcp_servers.iter().map(|a| Prefix::host(*a));
        let listed: Vec<Prefix> = listed.filter(|p| p.family() == family).collect();
        let servers = match listed.is_empty() {
            false => listed,
            true => network
                .subnets
                .iter()
                .copied()
                .filter(|p| p.family() == family)
                .collect(),
        };
        let number = scene.network_number(id);
        servers.into_iter().map(move |server| (number, server))
    });
    of_network.collect()
}

pub(super) fn address4(address: Ipv4Addr) -> u128 {
    u32::from(address).into()
}
