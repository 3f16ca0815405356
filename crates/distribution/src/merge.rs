//! Two changes, one after the other, as one.

use model::InventoryChange;
use std::collections::BTreeMap;

/// Afterwards `first` does what both did (its rules being for groups that were there then). Where that can't be said
/// in one change (a group that goes, and comes back without its old rules), `first` stays as it is and `then` comes
/// back.
pub fn merge(
    first: &mut InventoryChange,
    then: InventoryChange,
) -> Result<(), Box<InventoryChange>> {
    let comes_back = |(id, group): (&_, &Option<_>)| {
        group.is_some() && matches!(first.groups.get(id), Some(None))
    };
    if then.groups.iter().any(comes_back) {
        return Err(Box::new(then));
    }
    first.revision = then.revision;
    first.hosts.extend(then.hosts);
    first.networks.extend(then.networks);
    first.ports.extend(then.ports);
    first.address_groups.extend(then.address_groups);
    for (id, group) in then.groups {
        // What the first one said of rules that are put now, or go with their group, is over.
        first.rules.retain(|of, _| match &group {
            Some(group) => of.group != id || !group.rules.contains_key(&of.rule),
            None => of.group != id,
        });
        let earlier = first.groups.remove(&id).flatten();
        let group = group.map(|mut group| {
            let given = std::mem::take(&mut group.rules);
            group.rules = earlier.map_or_else(BTreeMap::new, |earlier| earlier.rules);
            group.rules.extend(given);
            group
        });
        first.groups.insert(id, group);
    }
    // For a group that is gone by then they were left out, and still are.
    first.rules.extend(then.rules);
    Ok(())
}
