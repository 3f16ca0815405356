//! What leads from one inventory to another.

use model::{GroupId, Inventory, InventoryChange, RuleRef, SecurityGroup};
use std::collections::BTreeMap;

/// Cost: one pass over both.
pub fn difference(old: &Inventory, new: Inventory) -> InventoryChange {
    let mut change = InventoryChange {
        revision: new.revision,
        hosts: differing(&old.hosts, new.hosts),
        networks: differing(&old.networks, new.networks),
        ports: differing(&old.ports, new.ports),
        groups: BTreeMap::new(),
        rules: BTreeMap::new(),
        address_groups: differing(&old.address_groups, new.address_groups),
    };
    for (id, group) in differing(&old.groups, new.groups) {
        match (old.groups.get(&id), group) {
            (Some(before), Some(after)) => change_group(&mut change, before, id, after),
            (_, after) => {
                change.groups.insert(id, after);
            }
        }
    }
    change
}

fn change_group(
    change: &mut InventoryChange,
    before: &SecurityGroup,
    id: GroupId,
    mut after: SecurityGroup,
) {
    let rules = differing(&before.rules, std::mem::take(&mut after.rules));
    let of = |rule| RuleRef {
        group: id.clone(),
        rule,
    };
    let rules = rules.into_iter().map(|(rule, now)| (of(rule), now));
    change.rules.extend(rules);
    if crate::undo::head(before) != after {
        change.groups.insert(id, Some(after));
    }
}

fn differing<K: Ord + Clone, V: PartialEq>(
    old: &BTreeMap<K, V>,
    new: BTreeMap<K, V>,
) -> BTreeMap<K, Option<V>> {
    let gone = old.keys().filter(|id| !new.contains_key(*id));
    let gone: Vec<(K, Option<V>)> = gone.map(|id| (id.clone(), None)).collect();
    let new = new
        .into_iter()
        .filter(|(id, object)| old.get(id) != Some(object));
    let new = new.map(|(id, object)| (id, Some(object)));
    new.chain(gone).collect()
}
