//! Policies as a mistaken compiler would understand them.

use model::{
    AddressPair, Family, GroupId, Inventory, L4Match, L4PortRange, Network, Peer, Port, Prefix,
    Rule, SecurityGroup, Settings,
};
use oracle::Oracle;
use portcullis_conformance::generate;

pub(crate) fn settings(made: &mut Inventory, change: impl Fn(&mut Settings)) {
    made.hosts
        .values_mut()
        .for_each(|h| change(&mut h.settings));
}

pub(crate) fn ports(made: &mut Inventory, change: fn(&mut Port)) {
    made.ports.values_mut().for_each(change);
}

pub(crate) fn networks(made: &mut Inventory, change: fn(&mut Network)) {
    made.networks.values_mut().for_each(change);
}

pub(crate) fn groups(made: &mut Inventory, change: fn(&mut SecurityGroup)) {
    made.groups.values_mut().for_each(change);
}

pub(crate) fn rules(made: &mut Inventory, change: fn(&mut Rule)) {
    let groups = made.groups.values_mut();
    groups.flat_map(|g| g.rules.values_mut()).for_each(change);
}

pub(crate) fn no_broadcast(network: &mut Network) {
    let narrow = |prefix: &Prefix| match prefix.family() {
        Family::V4 => Prefix::containing(prefix.network(), 31),
        Family::V6 => *prefix,
    };
    network.subnets = network.subnets.iter().map(narrow).collect();
}

pub(crate) fn no_pair_macs(port: &mut Port) {
    let pairs = port.address_pairs.iter();
    port.address_pairs = pairs.map(|p| AddressPair { mac: None, ..*p }).collect();
}

pub(crate) fn own_the_world(port: &mut Port) {
    for family in Family::BOTH {
        port.address_pairs.insert(AddressPair {
            prefix: Prefix::whole(family),
            mac: None,
        });
    }
}

pub(crate) fn end_later(rule: &mut Rule) {
    if let L4Match::Ported { dst, .. } = &mut rule.l4 {
        let last = dst.last().saturating_add(1);
        *dst = L4PortRange::new(dst.first(), last).expect("the end moved away");
    }
}

pub(crate) fn begin_later(rule: &mut Rule) {
    if let L4Match::Ported { dst, .. } = &mut rule.l4
        && let Some(later) = L4PortRange::new(dst.first().saturating_add(1), dst.last())
    {
        *dst = later;
    }
}

pub(crate) fn widen(rule: &mut Rule) {
    if let Peer::Prefix(prefix) = &mut rule.peer {
        let length = prefix.length().saturating_sub(1);
        *prefix = Prefix::containing(prefix.network(), length);
    }
}

pub(crate) fn any_code(rule: &mut Rule) {
    if let L4Match::Icmp { kind: Some(kind) } = &mut rule.l4 {
        kind.code = None;
    }
}

pub(crate) fn lose_prefix(made: &mut Inventory) {
    for group in made.address_groups.values_mut() {
        group.prefixes.pop_first();
    }
}

pub(crate) fn missing_is_any(made: &mut Inventory) {
    let known: Vec<GroupId> = made.groups.keys().cloned().collect();
    for_peers(made, |group| !known.contains(group));
}

pub(crate) fn empty_is_any(made: &mut Inventory) {
    let members = made.ports.values().flat_map(|p| &p.groups);
    let members: Vec<GroupId> = members.cloned().collect();
    for_peers(made, |group| !members.contains(group));
}

fn for_peers(made: &mut Inventory, is_any: impl Fn(&GroupId) -> bool) {
    let groups = made.groups.values_mut();
    for rule in groups.flat_map(|g| g.rules.values_mut()) {
        if let Peer::Group(group) = &rule.peer
            && is_any(group)
        {
            rule.peer = Peer::Any;
        }
    }
}

pub(crate) fn wrong_family_is_any(rule: &mut Rule) {
    if let Peer::Prefix(prefix) = &rule.peer
        && prefix.family() != rule.family
    {
        rule.peer = Peer::Any;
    }
}

pub(crate) fn extension_is_any(rule: &mut Rule) {
    if let (L4Match::Other(protocol), Family::V6) = (rule.l4, rule.family)
        && matches!(protocol.number(), 0 | 43 | 44 | 51 | 60)
    {
        rule.l4 = L4Match::Any;
    }
}

pub(crate) fn others_change_mac(made: &mut Inventory) {
    let here = generate::host();
    for port in made.ports.values_mut() {
        if port.host.as_ref() != Some(&here) {
            port.mac.0[4] = 0x99;
        }
    }
}

pub(crate) fn lose_state(oracle: &mut Oracle, made: &Inventory) {
    made.ports
        .keys()
        .for_each(|port| oracle.remove_device(port));
}

/// Each too short pair becomes two that are long enough.
pub(crate) fn short_pairs_enter(port: &mut Port) {
    let mut split = Vec::new();
    for pair in &port.address_pairs {
        let length = pair.prefix.length() + 1;
        let one_longer = AddressPair {
            prefix: Prefix::containing(pair.prefix.network(), length),
            ..*pair
        };
        if !pair.enters_remote_groups() && one_longer.enters_remote_groups() {
            let other = Prefix::containing(pair.prefix.last(), length);
            split.extend([
                one_longer,
                AddressPair {
                    prefix: other,
                    ..*pair
                },
            ]);
        }
    }
    port.address_pairs.extend(split);
}

/// A pair of one address becomes too short to be a member.
pub(crate) fn pairs_stay_out(port: &mut Port) {
    let shortened = |pair: AddressPair| match (pair.prefix.as_host(), pair.prefix.family()) {
        (None, _) => pair,
        (Some(address), family) => AddressPair {
            prefix: Prefix::containing(address, if family == Family::V4 { 23 } else { 63 }),
            ..pair
        },
    };
    let pairs = std::mem::take(&mut port.address_pairs);
    port.address_pairs = pairs.iter().copied().map(shortened).collect();
}

/// Every rule that ever was.
pub(crate) fn rules_stay(made: &mut Inventory, before: &Inventory) {
    for (id, group) in &mut made.groups {
        let old = before.groups.get(id).into_iter().flat_map(|g| &g.rules);
        for (rule, content) in old {
            group
                .rules
                .entry(rule.clone())
                .or_insert_with(|| content.clone());
        }
    }
}

/// Every group that a port ever was in.
pub(crate) fn members_stay(made: &mut Inventory, before: &Inventory) {
    for (id, port) in &mut made.ports {
        let old = before.ports.get(id).into_iter().flat_map(|p| &p.groups);
        port.groups.extend(old.cloned());
    }
}
