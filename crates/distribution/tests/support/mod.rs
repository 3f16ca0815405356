//! Random inventories and changes out of a seed: small, so that everything meets everything, and with references
//! that lead nowhere.

#![allow(dead_code, reason = "each test file uses a part")]

use model::*;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn some<T: Copy + Ord>(&mut self, from: &[T], most: usize) -> BTreeSet<T> {
        let count = self.below(most + 1);
        (0..count).map(|_| self.pick(from)).collect()
    }
}

/// `h9` is never in an inventory, and may follow.
pub(crate) const HOSTS: [&str; 4] = ["h1", "h2", "h3", "h9"];
const NETWORKS: [&str; 5] = ["n1", "n2", "n3", "n4", "n9"];
const SCOPES: [&str; 2] = ["blue", "red"];
const GROUPS: [&str; 14] = [
    "g1", "g2", "g3", "g4", "g1", "g2", "g3", "g5", "g6", "g7", "g8", "g9", "ga", "gb",
];
const SETS: [&str; 3] = ["a1", "a2", "a3"];
const ADDRESSES: [&str; 10] = [
    "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "fd00::1", "fd00::2",
    "fe80::5", "fe80::6",
];
const PAIRS: [&str; 8] = [
    "0.0.0.0/0",
    "10.0.0.0/24",
    "10.0.0.2/32",
    "10.0.0.1/32",
    "fe80::7/128",
    "fe80::/64",
    "fd00::/64",
    "169.254.0.1/32",
];

pub(crate) fn host(dice: &mut Dice, id: &str) -> Host {
    let settings = Settings {
        inspection: dice.pick(&[
            Inspection::Destination,
            Inspection::Source,
            Inspection::Both,
        ]),
        elision: dice.pick(&[Elision::On, Elision::Off]),
        ..Settings::default()
    };
    Host {
        id: id.into(),
        tunnel_address: dice
            .chance(60)
            .then(|| address(&format!("192.0.2.{}", dice.below(200)))),
        peer_trust: dice.pick(&[PeerTrust::Tag, PeerTrust::Address]),
        settings,
    }
}

pub(crate) fn network(dice: &mut Dice, id: &str) -> Network {
    Network {
        id: id.into(),
        scope: dice.pick(&SCOPES).into(),
        vni: dice.chance(60).then(|| dice.below(1000) as u32),
        mtu: dice.chance(30).then_some(1400),
        subnets: dice
            .some(&["10.0.0.0/24", "fd00::/64"], 2)
            .into_iter()
            .map(prefix)
            .collect(),
        dhcp_servers: dice
            .some(&["10.0.0.2"], 1)
            .into_iter()
            .map(address)
            .collect(),
        routers: dice
            .some(&["10.0.0.254", "fe80::1"], 2)
            .into_iter()
            .map(address)
            .collect(),
        eui64_only: dice.chance(40),
    }
}

pub(crate) fn port(dice: &mut Dice, id: &str) -> Port {
    let groups = match dice.below(12) {
        0 => dice.some(&GROUPS, 40),
        _ => dice.some(&GROUPS, 4),
    };
    let pairs = dice.some(&PAIRS, 2).into_iter().map(|text| AddressPair {
        prefix: prefix(text),
        mac: None,
    });
    let mut pairs: BTreeSet<AddressPair> = pairs.collect();
    if dice.chance(20) {
        pairs.insert(AddressPair {
            prefix: prefix(dice.pick(&PAIRS)),
            mac: Some(MacAddr([2, 9, 9, 9, 9, dice.below(4) as u8])),
        });
    }
    Port {
        id: id.into(),
        network: dice.pick(&NETWORKS).into(),
        host: dice.chance(90).then(|| dice.pick(&HOSTS).into()),
        device: DeviceMatch::Name(format!("tap{}", dice.below(100))),
        moving: dice.chance(20).then(|| {
            Box::new(Moving {
                to: dice.pick(&HOSTS).into(),
                device: DeviceMatch::Mac,
            })
        }),
        mac: MacAddr([2, 0, 0, 0, 0, dice.below(30) as u8]),
        fixed_addresses: dice.some(&ADDRESSES, 3).into_iter().map(address).collect(),
        address_pairs: pairs.into(),
        groups: groups.into_iter().map(GroupId::from).collect(),
        port_security: dice.chance(90),
        dhcp_server: dice.chance(10),
        router: dice.chance(10),
    }
}

/// Another in one respect, as most changes are.
fn nudged(dice: &mut Dice, old: &Port) -> Port {
    let mut port = old.clone();
    let other = self::port(dice, old.id.as_str());
    match dice.below(10) {
        0 => port.network = other.network,
        1 => port.host = other.host,
        2 => port.mac = other.mac,
        3 => port.fixed_addresses = other.fixed_addresses,
        4 => port.address_pairs = other.address_pairs,
        5 => port.port_security = !port.port_security,
        6 => port.device = other.device,
        7 => port.moving = other.moving,
        8 => {
            // It is there.
            if let Some(moving) = port.moving.take() {
                (port.host, port.device) = (Some(moving.to), moving.device);
            }
        }
        _ => port.groups = other.groups,
    }
    port
}

fn rule(dice: &mut Dice, id: &str) -> Rule {
    let peer = match dice.below(6) {
        0 => Peer::Any,
        1 => Peer::Prefix(prefix(dice.pick(&PAIRS))),
        2 => Peer::AddressGroup(dice.pick(&SETS).into()),
        _ => Peer::Group(dice.pick(&GROUPS).into()),
    };
    Rule {
        id: id.into(),
        direction: dice.pick(&Direction::BOTH),
        family: dice.pick(&Family::BOTH),
        l4: dice.pick(&[
            L4Match::Any,
            L4Match::Other(PortlessProtocol::new(43).expect("it has no ports")),
        ]),
        peer,
    }
}

fn group(dice: &mut Dice, id: &str) -> SecurityGroup {
    let rules = dice.some(&["r1", "r2", "r3", "r4"], 2);
    SecurityGroup {
        id: id.into(),
        project: None,
        name: format!("name{}", dice.below(3)),
        stateful: dice.chance(80),
        tag: dice.chance(60).then(|| dice.below(50) as u16),
        rules: rules
            .into_iter()
            .map(|id| (id.into(), rule(dice, id)))
            .collect(),
    }
}

/// One object mostly; now and then many. A third of what is named goes.
pub(crate) fn change(dice: &mut Dice, now: &Inventory) -> InventoryChange {
    let mut change = InventoryChange {
        revision: Revision {
            epoch: now.revision.epoch,
            commit: now.revision.commit + 1,
        },
        ..InventoryChange::default()
    };
    let count = dice.pick(&[1, 1, 1, 2, 3, 12]);
    for _ in 0..count {
        let stays = dice.chance(75);
        match dice.below(20) {
            0 => {
                let id = dice.pick(&["h1", "h2", "h3"]);
                change
                    .hosts
                    .insert(id.into(), stays.then(|| host(dice, id)));
            }
            1..=2 => {
                let id = dice.pick(&["n1", "n2", "n3", "n4"]);
                change
                    .networks
                    .insert(id.into(), stays.then(|| network(dice, id)));
            }
            3..=10 => {
                let id = format!("p{}", dice.below(12));
                let port = match now.ports.get(id.as_str()) {
                    Some(old) if dice.chance(80) => nudged(dice, old),
                    Some(_) | None => port(dice, &id),
                };
                change
                    .ports
                    .insert(id.as_str().into(), stays.then_some(port));
            }
            11..=12 => {
                let id = dice.pick(&GROUPS);
                change
                    .groups
                    .insert(id.into(), stays.then(|| group(dice, id)));
            }
            13..=18 => {
                let of = RuleRef {
                    group: dice.pick(&GROUPS).into(),
                    rule: dice.pick(&["r1", "r2", "r3", "r4"]).into(),
                };
                let put = stays.then(|| rule(dice, of.rule.as_str()));
                change.rules.insert(of, put);
            }
            _ => {
                let id = dice.pick(&SETS);
                let prefixes = dice.some(&PAIRS, 2).into_iter().map(prefix).collect();
                let put = AddressGroup {
                    id: id.into(),
                    prefixes,
                };
                change
                    .address_groups
                    .insert(id.into(), stays.then_some(put));
            }
        }
    }
    change
}

/// What many changes come to.
pub(crate) fn inventory(dice: &mut Dice) -> Inventory {
    let mut made = Inventory::default();
    made.revision.epoch = 1;
    for _ in 0..60 {
        let change = change(dice, &made);
        made.change(change);
    }
    made
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}
