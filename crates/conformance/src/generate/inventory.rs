//! Random inventories: small, so that everything meets everything, and full of edges.

use super::dice::Dice;
use model::{
    AddressGroup, AddressGroupId, AddressPair, Budgets, DeviceMatch, Direction, Elision, Family,
    GroupId, Host, HostId, IcmpKind, Inventory, L4Match, L4PortRange, MacAddr, Narrowing, Network,
    NetworkId, Peer, PeerTrust, Port, PortId, PortedProtocol, PortlessProtocol, Prefix, Revision,
    Rule, RuleId, ScopeId, SecurityGroup, Settings, Timeouts,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Transport ports that rules and packets like: the ends of everything, and a few in between.
pub(super) const L4_PORTS: [u16; 15] = [
    0, 1, 22, 53, 80, 443, 546, 1023, 1024, 8000, 8080, 8099, 32_768, 65_534, 65_535,
];

/// Addresses that are nobody's.
pub(super) const OUTSIDE: [&str; 8] = [
    "198.51.100.7",
    // The same numbers in both families.
    "::ffff:10.0.0.5",
    "::10.0.0.5",
    "203.0.113.255",
    "169.254.1.1",
    "2001:db8:ff::1",
    "2001:db8:ff::ffff",
    "fe80::1234",
];

const FOREIGN_MACS: [MacAddr; 2] = [
    MacAddr([0x02, 0xaa, 0, 0, 0, 1]),
    MacAddr([0x02, 0xaa, 0, 0, 0, 2]),
];

pub(super) fn here() -> HostId {
    HostId::new("here")
}

pub(super) fn inventory(dice: &mut Dice) -> Inventory {
    let mut made = Inventory {
        revision: Revision {
            epoch: 1,
            commit: 1,
        },
        ..Inventory::default()
    };
    for id in [here(), HostId::new("there")] {
        let settings = settings(dice);
        let host = Host {
            id: id.clone(),
            tunnel_address: None,
            peer_trust: PeerTrust::Address,
            settings,
        };
        made.hosts.insert(id, host);
    }
    for n in 0..1 + dice.below(3) {
        let network = network(dice, n);
        made.networks.insert(network.id.clone(), network);
    }
    let group_count = 1 + dice.below(5);
    for g in 0..group_count {
        let id = GroupId::new(format!("g{g}"));
        made.groups.insert(id.clone(), empty_group(dice, id, g));
    }
    for p in 0..2 + dice.below(8) {
        let port = port(dice, &made, p);
        made.ports.insert(port.id.clone(), port);
    }
    for a in 0..dice.below(3) {
        let id = AddressGroupId::new(format!("a{a}"));
        let prefixes = (0..dice.below(4)).map(|_| prefix(dice, &made)).collect();
        let group = AddressGroup {
            id: id.clone(),
            prefixes,
        };
        made.address_groups.insert(id, group);
    }
    let ids: Vec<GroupId> = made.groups.keys().cloned().collect();
    let crowded = dice.chance(8);
    for id in ids {
        let rules = rules(dice, &made, if crowded { 40 } else { 0 });
        let group = made.groups.get_mut(&id).expect("a key of this map");
        group.rules = rules;
    }
    made
}

fn settings(dice: &mut Dice) -> Settings {
    let timeouts = if dice.chance(60) {
        Timeouts::default()
    } else {
        Timeouts {
            tcp_opening_s: 70,
            tcp_established_s: 4_000,
            tcp_closing_s: 300,
            tcp_reset_s: 20,
            udp_s: 140,
            udp_replied_s: 500,
            icmp_s: 220,
            other_s: 900,
        }
    };
    let mut ethertypes = BTreeSet::new();
    if dice.chance(25) {
        ethertypes.insert(*dice.pick(&[0x88cc, 0x8899, 0x0600]));
    }
    Settings {
        elision: elision(dice),
        narrowing: *dice.pick(&[Narrowing::Cut, Narrowing::Cut, Narrowing::Keep]),
        timeouts,
        budgets: budgets(dice),
        ethertypes,
        ..Settings::default()
    }
}

pub(super) fn budgets(dice: &mut Dice) -> Budgets {
    let mut budgets = Budgets::default();
    if dice.chance(30) {
        budgets.flows_per_port = *dice.pick(&[0, 1, 2, 4]);
    }
    if dice.chance(30) {
        budgets.half_open_per_port = *dice.pick(&[1, 2, 3, 5]);
    }
    if dice.chance(15) {
        (budgets.flows_per_host, budgets.reserve_per_port) =
            *dice.pick(&[(4, 1), (6, 0), (10, 2), (3, 1)]);
    }
    if dice.chance(50) {
        budgets.elided_errors_per_s = *dice.pick(&[0, 1, 2, 3]);
    }
    budgets
}

pub(super) fn elision(dice: &mut Dice) -> Elision {
    dice.weighted(&[(5, Elision::On), (3, Elision::Strict), (3, Elision::Off)])
}

fn network(dice: &mut Dice, n: usize) -> Network {
    // Two scopes, and the same addresses in both.
    let scope = ScopeId::new(format!("s{}", dice.below(2)));
    let k = dice.below(2) as u8;
    let v4 = Ipv4Addr::new(10, 0, k, 0);
    let v6 = Ipv6Addr::new(0xfd00, 0, 0, u16::from(k), 0, 0, 0, 0);
    let v4_length = dice.weighted(&[(6, 24), (1, 30), (1, 31), (1, 29), (1, 16)]);
    let v6_length = dice.weighted(&[(6, 64), (1, 120), (1, 127), (1, 48)]);
    let mut subnets = BTreeSet::new();
    if dice.chance(90) {
        subnets.insert(Prefix::containing(v4.into(), v4_length));
    }
    if dice.chance(15) {
        let second = Ipv4Addr::new(10, 2, k, 0);
        subnets.insert(Prefix::containing(second.into(), 29));
    }
    if dice.chance(85) {
        subnets.insert(Prefix::containing(v6.into(), v6_length));
    }
    let mut dhcp_servers = BTreeSet::new();
    if dice.chance(30) {
        dhcp_servers.insert(Ipv4Addr::new(10, 0, k, 2).into());
    }
    if dice.chance(10) {
        dhcp_servers.insert(Ipv4Addr::new(192, 0, 2, 53).into());
    }
    if dice.chance(20) {
        dhcp_servers.insert(parse_address("fe80::53"));
    }
    let mut routers = BTreeSet::new();
    if dice.chance(60) {
        routers.insert(Ipv4Addr::new(10, 0, k, 1).into());
        routers.insert(parse_address("fe80::1"));
    }
    Network {
        id: NetworkId::new(format!("n{n}")),
        scope,
        vni: None,
        mtu: None,
        subnets,
        dhcp_servers,
        routers,
        eui64_only: dice.chance(25),
    }
}

fn empty_group(dice: &mut Dice, id: GroupId, number: usize) -> SecurityGroup {
    SecurityGroup {
        name: id.as_str().to_owned(),
        id,
        project: None,
        stateful: dice.chance(80),
        tag: Some(number as u16 + 1),
        rules: BTreeMap::new(),
    }
}

fn port(dice: &mut Dice, made: &Inventory, number: usize) -> Port {
    let networks: Vec<&Network> = made.networks.values().collect();
    let network = *dice.pick(&networks);
    let mut id = network.id.clone();
    if dice.chance(1) {
        id = NetworkId::new("gone");
    }
    let host = match dice.below(10) {
        0 => None,
        1..=3 => Some(HostId::new("there")),
        _ => Some(here()),
    };
    // The first is always here, so that there is somewhere to judge.
    let host = if number == 0 { Some(here()) } else { host };
    let mut groups = BTreeSet::new();
    let known: Vec<&GroupId> = made.groups.keys().collect();
    for _ in 0..dice.weighted(&[(1, 0), (5, 1), (4, 2), (2, 3)]) {
        groups.insert((*dice.pick(&known)).clone());
    }
    if dice.chance(3) {
        groups.insert(GroupId::new("ghost"));
    }
    let mac = MacAddr([0x52, 0x54, 0, 0, 0, number as u8 + 1]);
    Port {
        id: PortId::new(format!("p{number}")),
        network: id,
        host,
        device: DeviceMatch::Name(format!("tap{number}")),
        moving: None,
        mac: if dice.chance(2) { FOREIGN_MACS[0] } else { mac },
        fixed_addresses: fixed_addresses(dice, network).into(),
        address_pairs: (0..dice.weighted(&[(6, 0), (2, 1), (1, 2)]))
            .map(|_| address_pair(dice, network))
            .collect(),
        groups: groups.into(),
        port_security: dice.chance(97),
        dhcp_server: dice.chance(12),
        router: dice.chance(12),
    }
}

fn fixed_addresses(dice: &mut Dice, network: &Network) -> BTreeSet<IpAddr> {
    let mut addresses = BTreeSet::new();
    for subnet in &network.subnets {
        for _ in 0..dice.weighted(&[(1, 0), (8, 1), (2, 2)]) {
            let host = 1 + dice.below(14) as u32;
            addresses.insert(inside(subnet, host));
        }
    }
    if dice.chance(4) {
        addresses.insert(parse_address("fe80::5"));
    }
    if dice.chance(4) {
        addresses.insert(parse_address("192.0.2.9"));
    }
    addresses
}

pub(super) fn address_pair(dice: &mut Dice, network: &Network) -> AddressPair {
    let fixed = [
        "0.0.0.0/0",
        "::/0",
        "10.9.9.0/24",
        "10.9.8.0/23",
        "10.9.8.0/23",
        "10.9.8.0/24",
        "10.0.0.128/25",
        "10.0.0.0/24",
        "10.0.1.0/28",
        "fd00:9::/64",
        "fd00::/64",
        "fd00:0:0:1::/112",
        "fd00:8::/63",
        "fd00:8::/63",
        "fe80::/64",
        "fe80::77",
        "10.9.9.9",
        "224.0.0.0/4",
    ];
    let subnets: Vec<&Prefix> = network.subnets.iter().collect();
    let prefix = match dice.pick_if_any(&subnets) {
        Some(subnet) if dice.chance(50) => Prefix::host(inside(subnet, dice.below(15) as u32)),
        _ => dice.pick(&fixed).parse().expect("a prefix"),
    };
    let mac = dice.chance(45).then(|| *dice.pick(&FOREIGN_MACS));
    AddressPair { prefix, mac }
}

/// The address with this number in the prefix, wrapped around at its size.
pub(super) fn inside(prefix: &Prefix, number: u32) -> IpAddr {
    let host_bits = prefix.family().width() - prefix.length();
    let mask = 1u32
        .checked_shl(host_bits.into())
        .map_or(u32::MAX, |n| n - 1);
    let number = number & mask;
    match prefix.network() {
        IpAddr::V4(a) => Ipv4Addr::from(u32::from(a) | number).into(),
        IpAddr::V6(a) => Ipv6Addr::from(u128::from(a) | u128::from(number)).into(),
    }
}

pub(super) fn parse_address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(super) fn address_of(dice: &mut Dice, texts: &[&str]) -> IpAddr {
    parse_address(dice.pick::<&str>(texts))
}

/// Around the addresses that are in use, of all lengths; now and then of a whole family.
pub(super) fn prefix(dice: &mut Dice, made: &Inventory) -> Prefix {
    let used = made.ports.values().flat_map(|p| &p.fixed_addresses);
    let mut addresses: Vec<IpAddr> = used.copied().collect();
    addresses.extend(OUTSIDE.map(parse_address));
    let address = *dice.pick(&addresses);
    let length = match Family::of(address) {
        Family::V4 => *dice.pick(&[0, 1, 8, 16, 24, 25, 28, 30, 31, 32, 32]),
        Family::V6 => *dice.pick(&[0, 8, 10, 48, 64, 65, 96, 124, 127, 128, 128]),
    };
    Prefix::containing(address, length)
}

fn rules(dice: &mut Dice, made: &Inventory, at_least: usize) -> BTreeMap<RuleId, Rule> {
    let mut rules = Vec::new();
    // What people write: out to everywhere, everything, pings and errors; and what needs no state.
    if dice.chance(50) {
        rules.extend(for_all(Direction::Egress, L4Match::Any));
    }
    if dice.chance(10) {
        rules.extend(for_all(Direction::Ingress, L4Match::Any));
    }
    if dice.chance(15) {
        let icmp = L4Match::Icmp { kind: None };
        rules.extend(Direction::BOTH.into_iter().flat_map(|d| for_all(d, icmp)));
    }
    for _ in 0..at_least + dice.weighted(&[(1, 0), (4, 1), (4, 2), (4, 4), (2, 7)]) {
        let one = rule(dice, made);
        if dice.chance(25) {
            let back = Rule {
                direction: one.direction.opposite(),
                ..one.clone()
            };
            rules.push(back);
        }
        rules.push(one);
    }
    let start = dice.below(12);
    rules
        .into_iter()
        .enumerate()
        .map(|(i, mut rule)| {
            // `r10` is before `r9`: the order of ids is that of text.
            rule.id = RuleId::new(format!("r{}", start + i));
            (rule.id.clone(), rule)
        })
        .collect()
}

fn for_all(direction: Direction, l4: L4Match) -> [Rule; 2] {
    Family::BOTH.map(|family| Rule {
        id: RuleId::new(""),
        direction,
        family,
        l4,
        peer: Peer::Any,
    })
}

/// A rule; its id is the caller's to give.
pub(super) fn rule(dice: &mut Dice, made: &Inventory) -> Rule {
    let family = *dice.pick(&Family::BOTH);
    Rule {
        id: RuleId::new(""),
        direction: *dice.pick(&[Direction::Ingress, Direction::Ingress, Direction::Egress]),
        family,
        l4: l4_match(dice, family),
        peer: peer(dice, made, family),
    }
}

fn l4_match(dice: &mut Dice, family: Family) -> L4Match {
    match dice.below(20) {
        0..=2 => L4Match::Any,
        3..=12 => {
            let protocol = dice.weighted(&[
                (10, PortedProtocol::Tcp),
                (6, PortedProtocol::Udp),
                (1, PortedProtocol::Sctp),
                (1, PortedProtocol::UdpLite),
                (1, PortedProtocol::Dccp),
            ]);
            let (a, b) = (*dice.pick(&L4_PORTS), *dice.pick(&L4_PORTS));
            let dst = match dice.below(4) {
                0 => L4PortRange::ALL,
                1 => L4PortRange::new(a.min(b), a.max(b)).expect("the lesser comes first"),
                _ => L4PortRange::new(a, a).expect("a single number is a range"),
            };
            L4Match::Ported { protocol, dst }
        }
        13..=17 => {
            let types: &[u8] = match family {
                Family::V4 => &[8, 8, 0, 13, 14, 3, 11, 12, 5, 255],
                Family::V6 => &[128, 128, 129, 1, 2, 3, 4, 135, 143, 0],
            };
            let kind = IcmpKind {
                icmp_type: *dice.pick(types),
                code: dice.chance(25).then(|| *dice.pick(&[0, 1, 4])),
            };
            L4Match::Icmp {
                kind: dice.chance(65).then_some(kind),
            }
        }
        _ => {
            let number = *dice.pick(&[47, 50, 51, 0, 2, 59, 89, 255, 43, 44, 60]);
            let protocol = PortlessProtocol::new(number).expect("none of these has ports");
            L4Match::Other(protocol)
        }
    }
}

fn peer(dice: &mut Dice, made: &Inventory, family: Family) -> Peer {
    match dice.below(20) {
        0..=6 => Peer::Any,
        7..=11 => {
            let mut chosen = prefix(dice, made);
            // Mostly of the rule's family; the others match nobody.
            for _ in 0..5 {
                if chosen.family() == family {
                    break;
                }
                chosen = prefix(dice, made);
            }
            Peer::Prefix(chosen)
        }
        12..=16 => {
            let known: Vec<&GroupId> = made.groups.keys().collect();
            let group = dice.pick_if_any(&known);
            Peer::Group(group.map_or(GroupId::new("ghost"), |g| (*g).clone()))
        }
        17..=18 => {
            let known: Vec<&AddressGroupId> = made.address_groups.keys().collect();
            match dice.pick_if_any(&known) {
                Some(group) => Peer::AddressGroup((*group).clone()),
                None => Peer::AddressGroup(AddressGroupId::new("ghosts")),
            }
        }
        _ => Peer::Group(GroupId::new("ghost")),
    }
}
