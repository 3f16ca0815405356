//! Where two maps, or two views, differ: what most questions about a change begin with.

use crate::view::{HostView, PeerView, RuleView};
use model::GroupId;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;

/// The keys that only one of the maps has, or of which they have different values, in order; with both values.
pub fn differing<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            let first = match (old.peek(), new.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((before, _)), Some((after, _))) => before.cmp(after),
            };
            let before = first.is_le().then(|| old.next()).flatten();
            let after = first.is_ge().then(|| new.next()).flatten();
            let (key, _) = before.or(after)?;
            let (before, after) = (before.map(|(_, v)| v), after.map(|(_, v)| v));
            if before != after {
                return Some((key, before, after));
            }
        }
    })
}

/// Groups whose rules come, go or change, or the members that their rules name. For ports of none of them the
/// rules permit the same in both views.
pub fn touched_groups<'a>(old: &'a HostView, new: &'a HostView) -> HashSet<&'a GroupId> {
    let members = keys(&old.members, &new.members);
    let members: HashSet<&GroupId> = members.into_iter().map(|(_, group)| group).collect();
    let address_groups = keys(&old.address_groups, &new.address_groups);
    let names_changed = |rule: &RuleView| match &rule.peer {
        PeerView::Any | PeerView::Prefix(_) => false,
        PeerView::Group(group) => members.contains(group),
        PeerView::AddressGroup(group) => address_groups.contains(group),
    };
    let mut touched = keys(&old.groups, &new.groups);
    if !(members.is_empty() && address_groups.is_empty()) {
        let groups = old.groups.iter();
        let naming = groups.filter(|(_, group)| group.rules.values().any(names_changed));
        touched.extend(naming.map(|(id, _)| id));
    }
    touched
}

fn keys<'a, K: Ord + Hash, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> HashSet<&'a K> {
    differing(old, new).map(|(key, _, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        old: &[(u8, char)],
        new: &[(u8, char)],
        expected: &[(u8, Option<char>, Option<char>)],
    ) {
        let [old, new] = [old, new].map(|map| map.iter().copied().collect());
        let found = differing(&old, &new);
        let found: Vec<_> = found
            .map(|(key, before, after)| (*key, before.copied(), after.copied()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_comes_goes_or_is_another_one_is_told_in_order() {
        check(&[], &[], &[]);
        check(&[(1, 'a')], &[(1, 'a')], &[]);
        check(&[(1, 'a')], &[], &[(1, Some('a'), None)]);
        check(&[], &[(1, 'a')], &[(1, None, Some('a'))]);
        check(
            &[(1, 'a'), (2, 'b'), (4, 'd'), (5, 'e')],
            &[(2, 'b'), (3, 'c'), (4, 'x'), (6, 'f')],
            &[
                (1, Some('a'), None),
                (3, None, Some('c')),
                (4, Some('d'), Some('x')),
                (5, Some('e'), None),
                (6, None, Some('f')),
            ],
        );
    }
}
