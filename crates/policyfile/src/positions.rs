//! Where the objects of an inventory stand in the file that it was read from.

use crate::error::Position;
use model::{AddressGroupId, GroupId, HostId, NetworkId, PortId, RuleId};
use std::collections::BTreeMap;

/// For messages about objects that are well-formed and still look wrong, such as the compiler's
/// findings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    pub hosts: BTreeMap<HostId, Position>,
    pub networks: BTreeMap<NetworkId, Position>,
    pub address_groups: BTreeMap<AddressGroupId, Position>,
    pub groups: BTreeMap<GroupId, Position>,
    pub ports: BTreeMap<PortId, Position>,
    /// As they stand in the file: several rules of the model may come from one.
    pub(crate) rules: BTreeMap<GroupId, Vec<RulePosition>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RulePosition {
    pub(crate) name: Option<Box<str>>,
    pub(crate) position: Position,
}

impl Positions {
    pub fn rule(&self, group: &GroupId, rule: &RuleId) -> Option<Position> {
        let rules = self.rules.get(group)?;
        let base = rule.as_str().split('.').next()?;
        let found = match base.parse::<usize>() {
            Ok(number) => rules.get(number.checked_sub(1)?),
            Err(_) => rules.iter().find(|r| r.name.as_deref() == Some(base)),
        };
        found.map(|r| r.position)
    }
}
