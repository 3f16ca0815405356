//! Table Identity: of which groups each address is. The one table that grows with groups, so it outlives the
//! rendering: what it is made of is compared first, and where just members came or went, just their flows are new.
//!
//! A longer prefix inherits the shorter ones' groups. The table has the members of all groups that local rules
//! name. Not so in a scope that is *tagged*, where every host says of each packet what its source is: there it has
//! the host's own addresses; members of groups that rules for what ports *send* name; and those that have left a
//! group, as long as a flow may remember them in it. Of any other address the flow's entry knows what its first
//! packet said (its label).

use super::{Switchboard, is_ingress};
use crate::draft::Draft;
use crate::flow_set::{FlowTable, in_order, put, remove};
use crate::names::Names;
use crate::numbers::hash;
use crate::registers::{ASKED4, ASKED6, Flag, SCOPE, TAGS, TAGS_IN_PLACE, WIDE};
use crate::tables::Table;
use model::{Family, GroupId, Prefix, ScopeId};
use openflow::{Action, Field, Flow};
use policy::{HostView, OverlayView, PeerView, SharedSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) type Tags = BTreeSet<u16>;
type Lists<'a> = BTreeMap<(&'a ScopeId, Prefix), Tags>;
type Sets = BTreeMap<(ScopeId, GroupId), Arc<SharedSet<Prefix>>>;

#[derive(Debug)]
pub(crate) struct Members {
    sets: Sets,
    around: Around,
    pub(crate) table: FlowTable,
    /// Lists that don't fit into their place, by number: also those that may come from other hosts.
    pub(crate) long_lists: Vec<(u32, Tags)>,
    /// No prefix in another, and no long list.
    is_flat: bool,
}

/// What else the table comes of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Around {
    overlay: Option<Arc<OverlayView>>,
    has_tunnel: bool,
    scopes: BTreeMap<ScopeId, u32>,
    tags: BTreeMap<GroupId, u16>,
    tagged: BTreeSet<ScopeId>,
    /// Groups that rules for what ports send name.
    sent_to: BTreeSet<GroupId>,
    lost: BTreeSet<(ScopeId, Prefix)>,
}

impl Members {
    pub(crate) fn of(
        view: &HostView,
        board: &Switchboard,
        names: &Names,
        known: Option<Arc<Members>>,
    ) -> Arc<Members> {
        let around = Around::of(view, board, names);
        match known {
            Some(known) if known.around == around && known.sets == view.members => known,
            Some(known) if known.around.differs_in_tags_alone(&around) => {
                Arc::new(known.with(&view.members, around))
            }
            Some(_) | None => Arc::new(Self::new(view.members.clone(), around)),
        }
    }

    fn new(sets: Sets, around: Around) -> Self {
        let lists = around.lists(&sets);
        let numbers = long(lists.values());
        let flows = lists.iter().map(|((scope, prefix), tags)| {
            let list = list_value(tags, &numbers);
            Arc::new(around.flow(scope, *prefix, list))
        });
        let flows = around.others().into_iter().map(Arc::new).chain(flows);
        let table = in_order(flows.collect());
        let crowded: Vec<Tags> = around.crowded();
        let long_lists = long(lists.values().chain(&crowded)).into_iter();
        let long_lists: Vec<(u32, Tags)> = long_lists.map(|(tags, n)| (n, tags)).collect();
        let prefixes = lists.keys().map(|(_, prefix)| prefix);
        let mut prefixes = prefixes.chain(sets.values().flat_map(|set| set.iter()));
        let is_flat = numbers.is_empty() && prefixes.all(|prefix| is_host(*prefix));
        drop(prefixes);
        Self {
            sets,
            around,
            table,
            long_lists,
            is_flat,
        }
    }

    /// The same with other members, or tags.
    fn with(&self, sets: &Sets, around: Around) -> Self {
        let mut changed = changed(&self.sets, sets);
        changed.extend(retagged(&self.around, &around, sets));
        let lists: Option<Vec<_>> = match self.is_flat && changed.len() < self.table.len() / 4 + 4 {
            true => changed
                .into_iter()
                .map(|at| Some((at, around.list_of_host(sets, at)?)))
                .collect(),
            false => None,
        };
        let Some(lists) = lists else {
            return Self::new(sets.clone(), around);
        };
        let mut table = self.table.clone();
        for ((scope, prefix), tags) in lists {
            let none = BTreeMap::new();
            match tags {
                Some(tags) => put(
                    &mut table,
                    around.flow(scope, prefix, list_value(&tags, &none)),
                ),
                None => remove(&mut table, &around.flow(scope, prefix, 0)),
            }
        }
        Self {
            sets: sets.clone(),
            around,
            table,
            long_lists: self.long_lists.clone(),
            is_flat: true,
        }
    }
}

/// Addresses whose membership of any group is another.
fn changed<'a>(before: &'a Sets, after: &'a Sets) -> BTreeSet<(&'a ScopeId, Prefix)> {
    let none = SharedSet::default();
    let mut changed = BTreeSet::new();
    for ((scope, _), before, after) in policy::differing(before, after) {
        let [before, after] = [before, after].map(|set| set.map_or(&none, |set| &**set));
        let either = before.difference(after).chain(after.difference(before));
        changed.extend(either.map(|p| (scope, *p)));
    }
    changed
}

/// Members of groups whose tag is another.
fn retagged<'a>(
    before: &Around,
    after: &Around,
    sets: &'a Sets,
) -> impl Iterator<Item = (&'a ScopeId, Prefix)> {
    let tags = policy::differing(&before.tags, &after.tags);
    let groups: BTreeSet<GroupId> = tags.map(|(group, _, _)| group.clone()).collect();
    let sets = sets
        .iter()
        .filter(move |((_, group), _)| groups.contains(group));
    sets.flat_map(|((scope, _), set)| set.iter().map(move |member| (scope, *member)))
}

fn is_host(prefix: Prefix) -> bool {
    prefix == Prefix::host(prefix.network())
}

impl Around {
    fn of(view: &HostView, board: &Switchboard, names: &Names) -> Self {
        let has_tunnel = board.tunnel.is_some();
        let overlay = view.overlay.as_ref();
        let rules = view.groups.values().flat_map(|group| group.rules.values());
        let sends = rules.filter(|rule| !is_ingress(rule.direction));
        let sent_to = sends.filter_map(|rule| match &rule.peer {
            PeerView::Group(group) => Some(group.clone()),
            PeerView::Any | PeerView::Prefix(_) | PeerView::AddressGroup(_) => None,
        });
        let tagged = names.scopes.keys().filter(|scope| {
            has_tunnel && overlay.is_some_and(|overlay| overlay.is_tagged(view, scope))
        });
        Self {
            overlay: overlay.cloned(),
            has_tunnel,
            scopes: names.scopes.clone(),
            tags: names.tags.clone(),
            tagged: tagged.cloned().collect(),
            sent_to: sent_to.collect(),
            lost: board.lost.clone(),
        }
    }

    /// Or in nothing. Where the host builds tunnels, more hangs on tags than the members of groups.
    fn differs_in_tags_alone(&self, other: &Self) -> bool {
        let retagged = || Self {
            tags: other.tags.clone(),
            ..self.clone()
        };
        self == other || (self.overlay.is_none() && retagged() == *other)
    }

    fn flow(&self, scope: &ScopeId, prefix: Prefix, list: u128) -> Flow {
        let draft = Draft::new(Table::Identity, 2 + u16::from(prefix.length()));
        let draft = draft.on_part(SCOPE, self.scopes[scope] as u16);
        let draft = draft.flag_is(Flag::SIX, prefix.family() == Family::V6);
        let draft = draft.on_prefix([ASKED4, ASKED6], prefix);
        draft.act(Action::set(TAGS, list)).flow()
    }

    /// Of addresses that aren't in the table.
    fn others(&self) -> Vec<Flow> {
        let remembered = self.tagged.iter().map(|scope| {
            let draft = Draft::new(Table::Identity, 1).on_part(SCOPE, self.scopes[scope] as u16);
            let draft = draft.with(Flag::ABOUT_FIRST);
            // The tracker's label can't be asked for where there is no entry.
            draft.copy(Field::CtLabel, TAGS).flow()
        });
        let nobody = Draft::new(Table::Identity, 0).set(TAGS, 0u32).flow();
        remembered.chain([nobody]).collect()
    }

    fn crowded(&self) -> Vec<Tags> {
        let crowded = self.overlay.iter().flat_map(|o| o.crowded.values());
        crowded.map(|groups| self.tags_of(groups)).collect()
    }

    fn tags_of<'a>(&self, groups: impl IntoIterator<Item = &'a GroupId>) -> Tags {
        let tags = groups.into_iter().filter_map(|group| self.tags.get(group));
        tags.copied().collect()
    }

    /// What tunnels say of the host's own addresses.
    fn own(&self) -> impl Iterator<Item = (&(ScopeId, Prefix), &BTreeSet<GroupId>)> {
        let overlay = self.overlay.iter().filter(|_| self.has_tunnel);
        overlay.flat_map(|overlay| &overlay.identities)
    }

    /// The tags of the addresses that stand in the table.
    fn lists<'a>(&'a self, sets: &'a Sets) -> Lists<'a> {
        let direct = self.direct(sets);
        let wanted = self.wanted(sets);
        let lengths: BTreeSet<(Family, u8)> = direct
            .keys()
            .map(|(_, p)| (p.family(), p.length()))
            .collect();
        let inherited = |scope, prefix: Prefix| {
            let shorter = lengths.iter().filter(move |(family, length)| {
                *family == prefix.family() && *length <= prefix.length()
            });
            let direct = &direct;
            let covering = shorter.filter_map(move |(_, length)| {
                direct.get(&(scope, Prefix::containing(prefix.network(), *length)))
            });
            covering.flatten().copied().collect()
        };
        let lost = self.lost.iter().filter_map(|(scope, prefix)| {
            let (scope, _) = self.scopes.get_key_value(scope)?;
            Some((scope, *prefix))
        });
        let keys = direct
            .keys()
            .filter(|key| wanted.as_ref().is_none_or(|w| w.contains(*key)));
        let keys = keys.map(|(scope, prefix)| (*scope, *prefix)).chain(lost);
        keys.map(|(scope, prefix)| ((scope, prefix), inherited(scope, prefix)))
            .collect()
    }

    /// Each address's own groups that have a tag: of the host's addresses all, of others those that rules name.
    fn direct<'a>(&'a self, sets: &'a Sets) -> Lists<'a> {
        let mut direct = Lists::new();
        for ((scope, group), members) in sets {
            let in_sight = self.scopes.contains_key(scope);
            if let Some(tag) = self.tags.get(group).filter(|_| in_sight) {
                for member in members.iter() {
                    direct.entry((scope, *member)).or_default().insert(*tag);
                }
            }
        }
        for ((scope, prefix), groups) in self.own() {
            if self.scopes.contains_key(scope) {
                let tags = self.tags_of(groups);
                direct.entry((scope, *prefix)).or_default().extend(tags);
            }
        }
        direct
    }

    /// Those that have to stand in the table, where not all do.
    fn wanted<'a>(&'a self, sets: &'a Sets) -> Option<BTreeSet<(&'a ScopeId, Prefix)>> {
        let overlay = self.overlay.as_ref()?;
        let named = sets
            .iter()
            .filter(|((scope, group), _)| self.stand(scope, group));
        let members = named.flat_map(|((scope, _), set)| set.iter().map(move |m| (scope, *m)));
        let own = overlay.identities.keys().map(|(scope, p)| (scope, *p));
        Some(members.chain(own).collect())
    }

    /// Whether this group's members have to stand in the table.
    fn stand(&self, scope: &ScopeId, group: &GroupId) -> bool {
        self.overlay.is_none() || !self.tagged.contains(scope) || self.sent_to.contains(group)
    }

    /// The same for one address, where no prefix is in another. The inner `None`: it doesn't stand there.
    #[allow(clippy::option_option)]
    fn list_of_host(&self, sets: &Sets, at: (&ScopeId, Prefix)) -> Option<Option<Tags>> {
        let (scope, prefix) = at;
        if !is_host(prefix) {
            return None;
        }
        if !self.scopes.contains_key(scope) {
            return Some(None);
        }
        let of_scope = sets
            .iter()
            .filter(|((s, _), set)| s == scope && set.contains(&prefix));
        let groups: Vec<&GroupId> = of_scope.map(|((_, group), _)| group).collect();
        let key = (scope.clone(), prefix);
        let own = self.overlay.as_ref().and_then(|o| o.identities.get(&key));
        let mut tags = self.tags_of(groups.iter().copied());
        let is_there = self.lost.contains(&key)
            || (own.is_some() && self.has_tunnel)
            || (!tags.is_empty()
                && (own.is_some() || groups.iter().any(|group| self.stand(scope, group))));
        if self.has_tunnel {
            tags.extend(own.into_iter().flat_map(|groups| self.tags_of(groups)));
        }
        match tags.len() <= TAGS_IN_PLACE {
            true => Some(is_there.then_some(tags)),
            false => None,
        }
    }
}

/// The same at each host, as the number comes of the list alone. Two lists of one number are nobody's.
fn long<'a>(lists: impl Iterator<Item = &'a Tags>) -> BTreeMap<Tags, u32> {
    let mut by_number: BTreeMap<u32, Option<&Tags>> = BTreeMap::new();
    for tags in lists.filter(|tags| tags.len() > TAGS_IN_PLACE) {
        let number = hash(&format!("{tags:?}")) as u32;
        let known = by_number.entry(number).or_insert(Some(tags));
        if *known != Some(tags) {
            *known = None;
        }
    }
    let known = by_number.into_iter();
    known
        .filter_map(|(number, tags)| Some((tags?.clone(), number)))
        .collect()
}

fn list_value(tags: &Tags, numbers: &BTreeMap<Tags, u32>) -> u128 {
    if tags.len() > TAGS_IN_PLACE {
        let number = numbers.get(tags).copied().unwrap_or_default();
        return u128::from(WIDE) | u128::from(number) << 16;
    }
    let places = tags.iter().enumerate();
    places.fold(0, |list, (place, tag)| {
        list | u128::from(*tag) << (16 * place)
    })
}

#[cfg(test)]
mod tests;
