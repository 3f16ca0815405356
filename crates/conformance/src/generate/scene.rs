//! What there is to make packets from under one policy: the host's ports, their addresses and rules,
//! and everybody's addresses.

use super::dice::Dice;
use super::inventory::{OUTSIDE, here, parse_address};
use model::{
    AddressGroupId, Direction, Family, GroupId, Inventory, MacAddr, Network, Peer, Port, PortId,
    Prefix, Rule,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who forwards to and from elsewhere.
pub(super) const GATEWAY: MacAddr = MacAddr([0x02, 0, 0, 0, 0xff, 1]);

pub(super) struct Scene {
    pub(super) ports: Vec<Local>,
    /// In use somewhere, or nobody's; in any scope.
    addresses: [Vec<IpAddr>; 2],
    members: BTreeMap<GroupId, Vec<Prefix>>,
    address_groups: BTreeMap<AddressGroupId, Vec<Prefix>>,
}

/// A port of this host.
pub(super) struct Local {
    pub(super) id: PortId,
    pub(super) mac: MacAddr,
    pub(super) own: Vec<Own>,
    pub(super) network: Option<Network>,
    pub(super) rules: Vec<Rule>,
}

/// An address that a port may use, and with which MAC.
#[derive(Clone, Copy)]
pub(super) struct Own {
    pub(super) address: IpAddr,
    pub(super) mac: MacAddr,
}

impl Scene {
    pub(super) fn of(made: &Inventory) -> Self {
        let here = here();
        Self::with(made, |port| port.is_on(&here))
    }

    /// Its ports are those that are `judged`.
    pub(super) fn with(made: &Inventory, judged: impl Fn(&Port) -> bool) -> Self {
        let local = made.ports.values().filter(|port| judged(port));
        let mut addresses: Vec<IpAddr> = OUTSIDE.map(parse_address).to_vec();
        let mut members: BTreeMap<GroupId, Vec<Prefix>> = BTreeMap::new();
        for port in made.ports.values() {
            addresses.extend(&port.fixed_addresses);
            addresses.extend(port.address_pairs.iter().map(|p| p.prefix.network()));
            addresses.push(port.mac.eui64_link_local().into());
            for group in &port.groups {
                let known = members.entry(group.clone()).or_default();
                // Short pairs, too, which are no members.
                known.extend(port.fixed_addresses.iter().map(|a| Prefix::host(*a)));
                known.extend(port.address_pairs.iter().map(|p| p.prefix));
            }
        }
        let (v4, v6) = addresses.into_iter().partition(IpAddr::is_ipv4);
        let address_groups = made.address_groups.values();
        Self {
            ports: local.map(|p| Local::of(made, p)).collect(),
            addresses: [v4, v6],
            members,
            address_groups: address_groups
                .map(|g| (g.id.clone(), g.prefixes.iter().copied().collect()))
                .collect(),
        }
    }

    pub(super) fn any_address(&self, dice: &mut Dice, family: Family) -> IpAddr {
        let known = match family {
            Family::V4 => &self.addresses[0],
            Family::V6 => &self.addresses[1],
        };
        let address = *dice.pick(known);
        if dice.chance(12) {
            next_to(dice, address)
        } else {
            address
        }
    }

    /// An address that the peer means, or one just beside.
    pub(super) fn address_of(&self, dice: &mut Dice, family: Family, peer: &Peer) -> IpAddr {
        let prefixes = match peer {
            Peer::Any => None,
            Peer::Prefix(prefix) => Some(std::slice::from_ref(prefix)),
            Peer::Group(group) => self.members.get(group).map(Vec::as_slice),
            Peer::AddressGroup(group) => self.address_groups.get(group).map(Vec::as_slice),
        };
        let prefix = prefixes.and_then(|p| dice.pick_if_any(p));
        match prefix {
            Some(prefix) if prefix.family() == family => at_an_edge(dice, prefix),
            Some(_) | None => self.any_address(dice, family),
        }
    }
}

impl Local {
    fn of(made: &Inventory, port: &Port) -> Self {
        let fixed = port.fixed_addresses.iter().map(|address| Own {
            address: *address,
            mac: port.mac,
        });
        let pairs = port.address_pairs.iter().flat_map(|pair| {
            let mac = pair.mac.unwrap_or(port.mac);
            let ends = [pair.prefix.network(), pair.prefix.last()];
            ends.map(|address| Own { address, mac })
        });
        let link_local = Own {
            address: port.mac.eui64_link_local().into(),
            mac: port.mac,
        };
        let groups = port.groups.iter().filter_map(|g| made.groups.get(g));
        Self {
            id: port.id.clone(),
            mac: port.mac,
            own: fixed.chain(pairs).chain([link_local]).collect(),
            network: made.networks.get(&port.network).cloned(),
            rules: groups.flat_map(|g| g.rules.values().cloned()).collect(),
        }
    }

    /// One of the port's addresses, the first ones (the fixed ones) more often.
    pub(super) fn any_own(&self, dice: &mut Dice, family: Family) -> Option<Own> {
        let fitting = self.own.iter().filter(|o| Family::of(o.address) == family);
        let fitting: Vec<Own> = fitting.copied().collect();
        let first = fitting.first().copied();
        first
            .filter(|_| dice.chance(60))
            .or_else(|| dice.pick_if_any(&fitting).copied())
    }

    pub(super) fn rules_of(&self, direction: Direction) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |r| r.direction == direction)
    }

    /// Where its network's prefix of this family ends: its last address, IPv4's broadcast.
    pub(super) fn last_of_subnet(&self, family: Family) -> Option<IpAddr> {
        let subnets = &self.network.as_ref()?.subnets;
        let subnet = subnets.iter().find(|s| s.family() == family)?;
        Some(subnet.last())
    }
}

fn at_an_edge(dice: &mut Dice, prefix: &Prefix) -> IpAddr {
    match dice.below(16) {
        0..=7 => prefix.network(),
        8..=13 => prefix.last(),
        14 => next_to(dice, prefix.last()),
        _ => next_to(dice, prefix.network()),
    }
}

pub(super) fn next_to(dice: &mut Dice, address: IpAddr) -> IpAddr {
    let up = dice.chance(50);
    match address {
        IpAddr::V4(a) => {
            let a = u32::from(a);
            Ipv4Addr::from(if up {
                a.wrapping_add(1)
            } else {
                a.wrapping_sub(1)
            })
            .into()
        }
        IpAddr::V6(a) => {
            let a = u128::from(a);
            Ipv6Addr::from(if up {
                a.wrapping_add(1)
            } else {
                a.wrapping_sub(1)
            })
            .into()
        }
    }
}
