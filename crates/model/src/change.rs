//! What changes an inventory: the objects as they are now, and the names of those that are gone.
//!
//! Place on the line: store commit -> watch -> **inventory** -> compile.

use crate::{
    AddressGroup, AddressGroupId, GroupId, Host, HostId, Inventory, Network, NetworkId, Port,
    PortId, Revision, Rule, RuleRef, SecurityGroup,
};
use std::collections::BTreeMap;

/// Shape: per object `Some`: it is like this now; `None`: it is gone. What isn't named stays.
///
/// Of a group that is put, the rules in it are put as well, and its others stay; with a group its rules go. `rules`
/// come after `groups`; one for a group that isn't there is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InventoryChange {
    /// What the inventory is at afterwards.
    pub revision: Revision,
    pub hosts: BTreeMap<HostId, Option<Host>>,
    pub networks: BTreeMap<NetworkId, Option<Network>>,
    pub ports: BTreeMap<PortId, Option<Port>>,
    pub groups: BTreeMap<GroupId, Option<SecurityGroup>>,
    pub rules: BTreeMap<RuleRef, Option<Rule>>,
    pub address_groups: BTreeMap<AddressGroupId, Option<AddressGroup>>,
}

impl InventoryChange {
    /// Apart from the revision.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
            && self.networks.is_empty()
            && self.ports.is_empty()
            && self.groups.is_empty()
            && self.rules.is_empty()
            && self.address_groups.is_empty()
    }
}

impl Inventory {
    pub fn change(&mut self, change: InventoryChange) {
        self.revision = change.revision;
        put(&mut self.hosts, change.hosts);
        put(&mut self.networks, change.networks);
        put(&mut self.ports, change.ports);
        put(&mut self.address_groups, change.address_groups);
        for (id, group) in change.groups {
            let Some(mut group) = group else {
                self.groups.remove(&id);
                continue;
            };
            if let Some(old) = self.groups.remove(&id) {
                let given = std::mem::replace(&mut group.rules, old.rules);
                group.rules.extend(given);
            }
            self.groups.insert(id, group);
        }
        for (of, rule) in change.rules {
            let Some(group) = self.groups.get_mut(&of.group) else {
                continue;
            };
            match rule {
                Some(rule) => group.rules.insert(of.rule, rule),
                None => group.rules.remove(&of.rule),
            };
        }
    }
}

fn put<K: Ord, V>(objects: &mut BTreeMap<K, V>, changes: BTreeMap<K, Option<V>>) {
    for (id, object) in changes {
        match object {
            Some(object) => objects.insert(id, object),
            None => objects.remove(&id),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Direction, Family, L4Match, Peer, RuleId};

    fn rule(id: &str) -> Rule {
        Rule {
            id: RuleId::from(id),
            direction: Direction::Ingress,
            family: Family::V4,
            l4: L4Match::Any,
            peer: Peer::Any,
        }
    }

    fn group(name: &str, rules: &[&str]) -> SecurityGroup {
        SecurityGroup {
            id: GroupId::from("g"),
            project: None,
            name: name.to_owned(),
            stateful: true,
            tag: None,
            rules: rules
                .iter()
                .map(|id| (RuleId::from(*id), rule(id)))
                .collect(),
        }
    }

    fn put_group(group: SecurityGroup) -> InventoryChange {
        InventoryChange {
            groups: [(group.id.clone(), Some(group))].into(),
            ..Default::default()
        }
    }

    fn put_rule(id: &str, there: bool) -> InventoryChange {
        let of = RuleRef {
            group: GroupId::from("g"),
            rule: RuleId::from(id),
        };
        InventoryChange {
            rules: [(of, there.then(|| rule(id)))].into(),
            ..Default::default()
        }
    }

    fn check(changes: Vec<InventoryChange>, expected: Option<SecurityGroup>) {
        let mut inventory = Inventory::default();
        for change in changes {
            inventory.change(change);
        }
        assert_eq!(inventory.groups.remove("g"), expected);
    }

    #[test]
    fn a_group_keeps_its_rules_when_its_head_changes() {
        let a = put_group(group("a", &["1", "2"]));
        let b = put_group(group("b", &["3"]));
        check(vec![a.clone(), b], Some(group("b", &["1", "2", "3"])));
        check(
            vec![a, put_rule("2", false), put_rule("4", true)],
            Some(group("a", &["1", "4"])),
        );
    }

    #[test]
    fn a_rule_goes_with_its_group() {
        let a = put_group(group("a", &["1"]));
        let gone = InventoryChange {
            groups: [(GroupId::from("g"), None)].into(),
            ..Default::default()
        };
        check(vec![a.clone(), gone.clone()], None);
        check(vec![put_rule("1", true)], None);
        check(vec![a.clone(), gone, a], Some(group("a", &["1"])));
    }
}
