//! What holds for every inventory.

mod support;

use model::{
    Direction, Elision, Family, FlowKey, HostId, IcmpRequest, Inventory, L4Match, PortId,
    PortedProtocol, Prefix, RuleRef,
};
use portcullis_policy::{
    HostView, SharedSet, becomes_elidable, compile, contains, elidable, permitting,
    stops_being_elidable,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use support::inventory;
use support::random::{PORT, dangling_lines, lines};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn compiling_is_total_and_the_view_is_closed_in_itself(lines in dangling_lines()) {
        let inventory = inventory(lines.iter().map(String::as_str));
        for host in ["h1", "h2", "nobody"] {
            let (view, findings) = compile(&inventory, &host.into());
            prop_assert!(findings.is_sorted());
            check_closed(&inventory, &host.into(), &view);
            for finding in findings {
                prop_assert!(!finding.to_string().is_empty());
            }
        }
    }

    /// C5: a set that is empty, missing, or whose members are gone matches nobody.
    #[test]
    fn members_are_in_the_inventory(lines in dangling_lines()) {
        let inventory = inventory(lines.iter().map(String::as_str));
        let (view, _) = compile(&inventory, &"h1".into());
        for ((scope, group), members) in &view.members {
            prop_assert!(!members.is_empty());
            let is_member = |prefix: &Prefix| inventory.ports.values().any(|port| {
                let network = inventory.networks.get(&port.network);
                port.port_security
                    && port.groups.contains(group)
                    && network.is_some_and(|n| n.scope == *scope)
                    && port.member_prefixes().any(|p| p == *prefix)
            });
            prop_assert!(members.iter().all(is_member));
        }
        for (id, prefixes) in &view.address_groups {
            prop_assert!(prefixes.iter().eq(&inventory.address_groups[id].prefixes));
        }
    }

    #[test]
    fn changes_of_elision_are_what_flow_by_flow_would_say(
        (old, new) in two_policies(),
        modes in (mode(), mode()),
    ) {
        let port = PortId::from(PORT);
        let old = view(&old, modes.0);
        let new = view(&new, modes.1);
        let (mut stops, mut becomes) = (false, false);
        for flow in flows(&old, &new) {
            let before = elidable(&old, &port, &flow);
            let after = elidable(&new, &port, &flow);
            stops |= before && !after && flow.protocol == 6;
            becomes |= !before && after;
        }
        let guarded = |view: &HostView| view.ports[PORT].port_security;
        stops &= guarded(&old) && guarded(&new);
        prop_assert_eq!(stops_being_elidable(&old, &new, &port), stops, "stops");
        prop_assert_eq!(becomes_elidable(&old, &new, &port), becomes, "becomes");
    }

    #[test]
    fn of_the_rules_that_permit_alone_the_least_is_named(
        (lines, other) in two_policies(),
        direction in prop_oneof![Just(Direction::Ingress), Just(Direction::Egress)],
    ) {
        let port = PortId::from(PORT);
        let whole = view(&lines, Elision::On);
        let alone = rules_alone(&whole);
        for flow in flows(&whole, &view(&other, Elision::On)) {
            let permits = |view: &HostView| permitting(view, &port, direction, &flow);
            let least = alone.iter().find(|(_, view)| permits(view).is_some());
            let expected = least.map(|(rule, _)| rule.clone());
            prop_assert_eq!(permits(&whole), expected, "{:?}", flow);
        }
    }
}

/// For each rule of the port, in order, the view with this rule and no other.
fn rules_alone(view: &HostView) -> Vec<(RuleRef, HostView)> {
    let mut alone = Vec::new();
    for group in &view.ports[PORT].groups {
        for rule in view.groups[group].rules.keys() {
            let mut only = view.clone();
            for (id, group_view) in &mut only.groups {
                let rules = &mut Arc::make_mut(group_view).rules;
                rules.retain(|r, _| id == group && r == rule);
            }
            let rule = RuleRef {
                group: group.clone(),
                rule: rule.clone(),
            };
            alone.push((rule, only));
        }
    }
    alone
}

fn check_closed(inventory: &Inventory, host: &HostId, view: &HostView) {
    for (id, port) in &view.ports {
        assert!(inventory.ports[id].is_on(host));
        assert!(view.networks.contains_key(&port.network));
        assert!(port.groups.iter().all(|g| view.groups.contains_key(g)));
        assert!(port.groups.is_sorted());
    }
    for id in view.networks.keys() {
        assert!(view.ports.values().any(|p| p.network == *id));
    }
    for id in view.groups.keys() {
        assert!(view.ports.values().any(|p| p.groups.contains(id)));
    }
}

/// Two inventories that are mostly the same.
fn two_policies() -> impl Strategy<Value = (Vec<String>, Vec<String>)> {
    let few = (lines(), lines(), any::<u64>()).prop_map(|(old, other, which)| {
        let mut new: Vec<String> = old.clone();
        // Sparse, so that one change alone is common.
        let which = which & which.rotate_left(17) & which.rotate_left(31);
        let changed = |n: usize| which & (1 << (n % 64)) != 0;
        new.retain({
            let mut n = 0;
            move |line| {
                n += 1;
                !changed(n + 32) || !(line.starts_with("rule") || line.starts_with("port vm1"))
            }
        });
        let more = other.into_iter().enumerate().filter(|(n, _)| changed(*n));
        new.extend(more.map(|(_, line)| line));
        (old, new)
    });
    let flipped = (few, any::<bool>());
    flipped.prop_map(|((old, new), flip)| if flip { (new, old) } else { (old, new) })
}

fn mode() -> impl Strategy<Value = Elision> {
    prop_oneof![4 => Just(Elision::On), 2 => Just(Elision::Strict), 1 => Just(Elision::Off)]
}

fn view(lines: &[String], mode: Elision) -> HostView {
    let inventory = inventory(lines.iter().map(String::as_str));
    let (mut view, _) = compile(&inventory, &"h1".into());
    view.settings.elision = mode;
    view
}

/// One flow of each class that rules of the two views can tell apart.
fn flows(old: &HostView, new: &HostView) -> Vec<FlowKey> {
    let (mut prefixes, mut l4_ports) = (BTreeSet::new(), BTreeSet::from([0]));
    prefixes.extend(Family::BOTH.map(Prefix::whole));
    for view in [old, new] {
        let sets = view.members.values().chain(view.address_groups.values());
        prefixes.extend(sets.flat_map(|set| set.iter().copied()));
        for rule in view.groups.values().flat_map(|g| g.rules.values()) {
            if let portcullis_policy::PeerView::Prefix(prefix) = rule.peer {
                prefixes.insert(prefix);
            }
            if let L4Match::Ported { dst, .. } = rule.l4 {
                l4_ports.insert(dst.first());
                l4_ports.extend(dst.last().checked_add(1));
            }
        }
    }
    let remotes: BTreeSet<IpAddr> = prefixes
        .iter()
        .flat_map(|p| [Some(p.network()), after(p.last())])
        .flatten()
        .collect();
    let mut flows = Vec::new();
    for remote in remotes {
        let family = Family::of(remote);
        let (local, requests): (IpAddr, &[u8]) = match family {
            Family::V4 => (Ipv4Addr::new(10, 0, 0, 1).into(), &[8, 13]),
            Family::V6 => (Ipv6Addr::LOCALHOST.into(), &[128]),
        };
        let mut add = |protocol, (local_l4, remote_l4), icmp| {
            flows.push(FlowKey {
                protocol,
                local,
                remote,
                local_l4,
                remote_l4,
                icmp,
            });
        };
        for protocol in PortedProtocol::ALL {
            for local_l4 in &l4_ports {
                for remote_l4 in &l4_ports {
                    add(protocol.number(), (*local_l4, *remote_l4), None);
                }
            }
        }
        for icmp_type in requests {
            for by_local in [false, true] {
                let request = IcmpRequest {
                    icmp_type: *icmp_type,
                    by_local,
                };
                let protocol = if family == Family::V4 { 1 } else { 58 };
                add(protocol, (7, 7), Some(request));
            }
        }
        for protocol in [47, 51, 253] {
            add(protocol, (0, 0), None);
        }
    }
    flows
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(a) => u32::from(a)
            .checked_add(1)
            .map(|n| Ipv4Addr::from(n).into()),
        IpAddr::V6(a) => u128::from(a)
            .checked_add(1)
            .map(|n| Ipv6Addr::from(n).into()),
    }
}

proptest! {
    #[test]
    fn a_set_contains_what_one_of_its_prefixes_does(
        prefixes in proptest::collection::btree_set((0u32..64, 24u8..33), 0..12),
        address in 0u32..64,
    ) {
        let spread = |n: u32| IpAddr::from(Ipv4Addr::from(0x0a00_0000 | n << 3));
        let prefixes = prefixes.into_iter();
        let set: SharedSet<Prefix> =
            prefixes.map(|(n, length)| Prefix::containing(spread(n), length)).collect();
        let address = spread(address);
        let expected = set.iter().any(|p| p.contains(address));
        prop_assert_eq!(contains(&set, address), expected);
    }
}

#[test]
fn directions_are_seen_from_the_port() {
    let lines = [
        "host h1",
        "network net blue -",
        "group g",
        "rule g/in ingress IPv4 tcp:22-22 any",
        "rule g/out egress IPv4 tcp:40000-50000 any",
        "port vm net h1 02:00:00:00:00:01 10.0.0.1 in=g",
    ];
    let (view, _) = compile(&inventory(lines), &"h1".into());
    let check = |local_l4, remote_l4, expected| {
        let flow = FlowKey {
            protocol: 6,
            local: Ipv4Addr::new(10, 0, 0, 1).into(),
            remote: Ipv4Addr::new(10, 0, 0, 2).into(),
            local_l4,
            remote_l4,
            icmp: None,
        };
        assert_eq!(elidable(&view, &"vm".into(), &flow), expected, "{flow:?}");
    };
    check(22, 40_000, true);
    check(22, 50_001, false);
    check(40_000, 22, false);
    let directions = view.groups["g"].rules.values().map(|r| r.direction);
    assert!(directions.eq([Direction::Ingress, Direction::Egress]));
}

/// More members than are looked at one by one.
#[test]
fn a_change_of_a_large_group_is_seen_for_what_it_changes() {
    let view = |members: std::ops::Range<u32>, rules: &[&str]| {
        let mut lines: Vec<String> = ["host h1", "network net blue -", "group big"]
            .map(str::to_owned)
            .into();
        lines.extend(rules.iter().map(|rule| format!("rule big/{rule}")));
        lines.push("port vm1 net h1 02:00:00:00:00:01 10.0.0.1 in=big".to_owned());
        lines.extend(members.map(|n| {
            let (a, b) = (n / 256, n % 256);
            format!("port m{n} net - 02:00:00:01:{a:02x}:{b:02x} 10.1.{a}.{b} in=big")
        }));
        view(&lines, Elision::On)
    };
    let check = |members, rules: &[&str], stops, becomes| {
        let out = "out egress IPv4 any any";
        let old = view(0..600, &[out, "in ingress IPv4 tcp:1-9 group:big"]);
        let new = view(members, &[&[out], rules].concat());
        let port = "vm1".into();
        let seen = [stops_being_elidable, becomes_elidable].map(|ask| ask(&old, &new, &port));
        assert_eq!(seen, [stops, becomes], "{rules:?}");
    };
    let same = "in ingress IPv4 tcp:1-9 group:big";
    check(0..600, &[same], false, false);
    let renamed = "another ingress IPv4 tcp:1-9 group:big";
    check(0..600, &[renamed], false, false);
    check(0..600, &["in ingress IPv4 tcp:1-8 group:big"], true, false);
    check(0..600, &["in ingress IPv4 tcp:1-10 group:big"], false, true);
    check(0..600, &["in ingress IPv4 tcp:2-10 group:big"], true, true);
    check(0..600, &["in ingress IPv4 tcp:1-9 any"], false, true);
    check(
        0..600,
        &[same, "ping ingress IPv4 udp:7-7 group:big"],
        false,
        true,
    );
    check(0..600, &["in ingress IPv6 tcp:1-9 group:big"], true, false);
    check(0..599, &[same], true, false);
    check(0..601, &[same], false, true);
    check(0..10, &[same], true, false);
    check(1..601, &[same], true, true);
}
