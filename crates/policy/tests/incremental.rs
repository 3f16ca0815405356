//! A view that is kept in step is the one that compiling anew gives, after every change.

mod support;

use model::{HostId, Inventory, InventoryChange, Revision, RuleRef, SecurityGroup, Settings};
use portcullis_policy::{Compiler, HostView, compile};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use support::inventory;
use support::random::dangling_lines;

/// What leads from one inventory to another, as far as `kept` says so.
fn change(from: &Inventory, to: &Inventory, kept: u64, commit: u64) -> InventoryChange {
    let mut number = 0;
    let mut keep = || {
        number += 1;
        kept & (1 << (number % 64)) != 0
    };
    let mut change = InventoryChange {
        revision: Revision { epoch: 1, commit },
        hosts: differing(&from.hosts, &to.hosts, &mut keep),
        networks: differing(&from.networks, &to.networks, &mut keep),
        ports: differing(&from.ports, &to.ports, &mut keep),
        address_groups: differing(&from.address_groups, &to.address_groups, &mut keep),
        ..InventoryChange::default()
    };
    let heads = |of: &Inventory| -> BTreeMap<_, SecurityGroup> {
        let heads = of.groups.iter().map(|(id, group)| {
            let rules = BTreeMap::new();
            (
                id.clone(),
                SecurityGroup {
                    rules,
                    ..group.clone()
                },
            )
        });
        heads.collect()
    };
    let rules = |of: &Inventory| -> BTreeMap<RuleRef, model::Rule> {
        let rules = of.groups.iter().flat_map(|(id, group)| {
            group.rules.iter().map(|(rule, content)| {
                let of = RuleRef {
                    group: id.clone(),
                    rule: rule.clone(),
                };
                (of, content.clone())
            })
        });
        rules.collect()
    };
    change.groups = differing(&heads(from), &heads(to), &mut keep);
    change.rules = differing(&rules(from), &rules(to), &mut keep);
    change
}

fn differing<K: Ord + Clone, V: PartialEq + Clone>(
    from: &BTreeMap<K, V>,
    to: &BTreeMap<K, V>,
    mut keep: impl FnMut() -> bool,
) -> BTreeMap<K, Option<V>> {
    let differing = portcullis_policy::differing(from, to);
    differing
        .filter(|_| keep())
        .map(|(key, _, after)| (key.clone(), after.cloned()))
        .collect()
}

/// Hosts with tunnels, networks with numbers, and how the host inspects.
fn with_tunnels(mut inventory: Inventory, inspection: model::Inspection) -> Inventory {
    for (n, host) in (1u8..).zip(inventory.hosts.values_mut()) {
        host.tunnel_address = Some([192, 0, 2, n].into());
        host.settings = Settings {
            inspection,
            ..Settings::default()
        };
    }
    for (n, network) in (1..).zip(inventory.networks.values_mut()) {
        network.vni = Some(n);
    }
    inventory
}

fn check(inventories: Vec<Inventory>, kept: &[u64]) {
    let hosts: [HostId; 2] = ["h1".into(), "h2".into()];
    let first = inventories[0].clone();
    let mut compilers = hosts.map(|host| (Compiler::new(first.clone(), host.clone()), host));
    let mut inventory = first;
    let turns = inventories.iter().cycle().skip(1).zip(kept).zip(2..);
    for ((to, kept), commit) in turns {
        let change = change(&inventory, to, *kept, commit);
        inventory.change(change.clone());
        for (compiler, host) in &mut compilers {
            let before = compiler.view().clone();
            compiler.change(change.clone());
            check_shared(&before, compiler.view());
            let (view, findings) = compile(&inventory, host);
            assert_eq!(*compiler.view(), view, "after {change:?}");
            assert_eq!(*compiler.inventory(), inventory);
            assert_eq!(compiler.findings(), findings);
        }
    }
}

/// What is equal is the same in memory.
fn check_shared(before: &HostView, after: &HostView) {
    fn check<K: Ord, V: PartialEq>(before: &BTreeMap<K, Arc<V>>, after: &BTreeMap<K, Arc<V>>) {
        for (key, value) in after {
            let known = before.get(key).filter(|known| *known == value);
            assert!(known.is_none_or(|known| Arc::ptr_eq(known, value)));
        }
    }
    check(&before.ports, &after.ports);
    check(&before.groups, &after.groups);
    check(&before.members, &after.members);
    check(&before.address_groups, &after.address_groups);
    let reserved = |view: &HostView| -> BTreeMap<_, _> {
        let networks = view.networks.iter();
        let reserved = networks.map(|(id, n)| (id.clone(), n.reserved_link_local.clone()));
        reserved.collect()
    };
    check(&reserved(before), &reserved(after));
}

fn several() -> impl Strategy<Value = (Vec<Inventory>, Vec<u64>)> {
    let inventories = proptest::collection::vec(dangling_lines(), 2..4);
    let inventories = inventories.prop_map(|all| {
        let read = |lines: &Vec<String>| inventory(lines.iter().map(String::as_str));
        all.iter().map(read).collect()
    });
    // All at once, few things at a time, and one or none.
    let kept = prop_oneof![
        Just(u64::MAX),
        any::<u64>(),
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(a, b, c)| a & b & c),
        (0..64u32).prop_map(|bit| 1 << bit),
    ];
    (inventories, proptest::collection::vec(kept, 1..24))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn after_every_change_the_view_is_the_one_of_the_inventory((inventories, kept) in several()) {
        check(inventories, &kept);
    }

    #[test]
    fn so_it_is_where_hosts_build_tunnels(
        (inventories, kept) in several(),
        inspection in prop_oneof![
            3 => Just(model::Inspection::Destination),
            1 => Just(model::Inspection::Source),
        ],
    ) {
        let with = |inventory| with_tunnels(inventory, inspection);
        check(inventories.into_iter().map(with).collect(), &kept);
    }
}
