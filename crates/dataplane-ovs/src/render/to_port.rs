//! The guard of what a port receives.
//!
//! Source: docs/semantics.md "Guard", to-port.

use super::Scene;
use super::classify::GROUP_BIT;
use super::from_port::{FRAGMENT, ICMPV6, IGMP, address4, dhcp_servers, udp4, udp6};
use super::own::ethertype;
use crate::draft::{Draft, ETH_IP, ETH_IPV6};
use crate::registers::{Flag, NETWORK};
use crate::tables::Table;
use model::{DropReason, Family};
use openflow::Field;
use std::net::{IpAddr, Ipv4Addr};

pub(super) fn render(scene: &mut Scene<'_>) {
    addresses(scene);
    sources(scene);
    infrastructure(scene);
}

/// The broadcast addresses of the network's subnets, by its number.
pub(super) fn broadcasts(scene: &Scene<'_>) -> Vec<(u16, Ipv4Addr)> {
    let networks = scene.networks();
    let of_network = networks.iter().flat_map(|(id, network)| {
        let number = scene.network_number(id);
        let subnets = network.subnets.iter().filter(|s| s.length() <= 30);
        subnets.filter_map(move |subnet| match subnet.last() {
            IpAddr::V4(last) => Some((number, last)),
            IpAddr::V6(_) => None,
        })
    });
    of_network.collect()
}

const MULTICAST4: (u128, u128) = (0xe << 28, 0xf << 28);
const MULTICAST6: (u128, u128) = (0xff << 120, 0xff << 120);

/// Destinations that many share, on which the field is: matches for each of them.
pub(super) fn for_many(
    scene: &Scene<'_>,
    table: Table,
    priority: u16,
    fields: [Field; 2],
) -> Vec<Draft> {
    let begin = |family| Draft::new(table, priority).eth(ethertype(family));
    let (value, mask) = MULTICAST4;
    let (value6, mask6) = MULTICAST6;
    let mut drafts = vec![
        begin(Family::V4).on_masked(fields[0], value, mask),
        begin(Family::V4).on(fields[0], address4(Ipv4Addr::BROADCAST)),
        begin(Family::V6).on_masked(fields[1], value6, mask6),
    ];
    for (network, last) in broadcasts(scene) {
        let draft = begin(Family::V4).on_part(NETWORK, network);
        drafts.push(draft.on(fields[0], address4(last)));
    }
    drafts
}

/// Whether it is the port's own has been asked.
fn addresses(scene: &mut Scene<'_>) {
    let table = Table::ToAddress;
    let fields = [Field::IpDst, Field::Ipv6Dst];
    for draft in for_many(scene, table, 60, fields) {
        scene.add(draft.raise(&[Flag::MANY]).goto(Table::ToSource));
    }
    let own = Draft::new(table, 40).with(Flag::OWN);
    scene.add(own.goto(Table::ToSource));
    scene.add(Draft::new(table, 0).drop(DropReason::ForeignDestination));
}

fn sources(scene: &mut Scene<'_>) {
    let table = Table::ToSource;
    for draft in for_many(scene, table, 60, [Field::IpSrc, Field::Ipv6Src]) {
        scene.add(draft.drop(DropReason::Martian));
    }
    let loopback4 = Draft::new(table, 60).eth(ETH_IP);
    let loopback4 = loopback4.on_masked(Field::IpSrc, 127 << 24, 0xff << 24);
    let loopback6 = Draft::new(table, 60).eth(ETH_IPV6).on(Field::Ipv6Src, 1u8);
    for draft in [loopback4, loopback6] {
        scene.add(draft.drop(DropReason::Martian));
    }
    // Unspecified: explained by what it says, or not.
    let next = Table::ToInfrastructure;
    let from_nobody = |draft: Draft, field| draft.on(field, 0u8);
    scene.add(from_nobody(udp4(table, 50, 68, 67), Field::IpSrc).goto(next));
    let igmp = Draft::new(table, 50)
        .ip(IGMP)
        .on_masked(Field::IpFrag, 0, FRAGMENT);
    scene.add(from_nobody(igmp, Field::IpSrc).goto(next));
    for icmp_type in [130u8, 131, 132, 135, 143] {
        let draft = Draft::new(table, 50)
            .ip6(ICMPV6)
            .on(Field::Icmpv6Type, icmp_type);
        let draft = draft.on_masked(Field::IpFrag, 0, FRAGMENT);
        scene.add(from_nobody(draft, Field::Ipv6Src).goto(next));
    }
    let nobody4 = from_nobody(Draft::new(table, 40).eth(ETH_IP), Field::IpSrc);
    let nobody6 = from_nobody(Draft::new(table, 40).eth(ETH_IPV6), Field::Ipv6Src);
    for draft in [nobody4, nobody6] {
        scene.add(draft.drop(DropReason::Martian));
    }
    // A frame for a group of machines starts no flow, whatever address is in it.
    let many = Draft::new(table, 10).on_masked(Field::EthDst, GROUP_BIT, GROUP_BIT);
    scene.add(many.raise(&[Flag::MANY]).goto(next));
    scene.add(Draft::new(table, 0).goto(next));
}

fn infrastructure(scene: &mut Scene<'_>) {
    let table = Table::ToInfrastructure;
    let icmp = |icmp_type: u8, hops: u8| {
        let draft = Draft::new(table, 50)
            .ip6(ICMPV6)
            .on(Field::Icmpv6Type, icmp_type);
        let draft = draft.on_masked(Field::IpFrag, 0, FRAGMENT);
        draft.on(Field::IpTtl, hops)
    };
    let from_link_local =
        |draft: Draft| draft.on_masked(Field::Ipv6Src, 0xfe80 << 112, 0xffc0 << 112);
    for icmp_type in [133, 135, 136] {
        let message = icmp(icmp_type, 255).on(Field::Icmpv6Code, 0u8);
        scene.add(message.goto(Table::Passed));
    }
    let advertisement = from_link_local(icmp(134, 255)).on(Field::Icmpv6Code, 0u8);
    scene.add(advertisement.goto(Table::Passed));
    scene.add(from_link_local(icmp(130, 1)).goto(Table::Passed));
    let query = Draft::new(table, 50)
        .ip(IGMP)
        .on_masked(Field::IpFrag, 0, FRAGMENT);
    let query = query.on(Field::IpDst, address4(Ipv4Addr::new(224, 0, 0, 1)));
    scene.add(query.goto(Table::Passed));

    let kinds = [
        (
            Family::V4,
            udp4 as fn(Table, u16, u16, u16) -> Draft,
            (67, 68),
        ),
        (Family::V6, udp6, (547, 546)),
    ];
    for (family, udp, (server, client)) in kinds {
        for (network, from) in dhcp_servers(scene, family) {
            let draft = udp(table, 50, server, client).on_part(NETWORK, network);
            let draft = draft.on_prefix([Field::IpSrc, Field::Ipv6Src], from);
            scene.add(draft.goto(Table::Passed));
        }
        let asked = udp(table, 50, client, server).with(Flag::DHCP_SERVER);
        scene.add(asked.goto(Table::Passed));
    }
    // Where no server of IPv6 is listed, any on the link may answer.
    for (id, network) in scene.networks() {
        if !network.dhcp_servers.iter().any(IpAddr::is_ipv6) {
            let draft = udp6(table, 50, 547, 546).on_part(NETWORK, scene.network_number(id));
            scene.add(from_link_local(draft).goto(Table::Passed));
        }
    }
    scene.add(Draft::new(table, 0).goto(Table::InIdentity));
}
