//! Of which groups an address is, as a list of tags.
//!
//! ```text
//! OutIdentity   the list of the source, for whoever gets the packet; that of the destination, for the rules
//! InIdentity    that of the source: it came with the packet, or is asked for
//! Identity      address -> list
//! ```
//! A longer prefix inherits the shorter ones' groups. Where no rule names a group, and no packet leaves the host
//! with its source's groups, nobody asks.
//!
//! Table Identity has the members of all groups that local rules name. Not so in a scope that is *tagged*, where
//! every host says of each packet what its source is: there it has the host's own addresses; members of groups
//! that rules for what ports *send* name; and those that have left a group, as long as a flow may remember
//! them in it. Of any other address the flow's entry knows what its first packet said (its label).

use super::own::ethertype;
use super::{Scene, is_ingress};
use crate::draft::Draft;
use crate::numbers::hash;
use crate::registers::{ASKED4, ASKED6, Flag, SCOPE, SOURCE_TAGS, TAGS, TAGS_IN_PLACE, WIDE};
use crate::tables::Table;
use model::{Family, GroupId, Prefix, ScopeId};
use openflow::{Action, Bits, Field};
use policy::PeerView;
use std::collections::{BTreeMap, BTreeSet};

pub(super) type Tags = BTreeSet<u16>;
type Lists<'a> = BTreeMap<(&'a ScopeId, Prefix), Tags>;

pub(super) fn render(scene: &mut Scene<'_>) {
    let scopes: BTreeSet<&ScopeId> = scene.networks().values().map(|n| &n.scope).collect();
    let tagged: Vec<u16> = scopes
        .into_iter()
        .filter(|scope| scene.is_tagged(scope))
        .map(|scope| scene.names.scopes[scope] as u16)
        .collect();
    for family in Family::BOTH {
        let [src, dst] = match family {
            Family::V4 => [Field::IpSrc, Field::IpDst],
            Family::V6 => [Field::Ipv6Src, Field::Ipv6Dst],
        };
        let of_family = |table, priority| Draft::new(table, priority).eth(ethertype(family));
        for scope in &tagged {
            let out = of_family(Table::OutIdentity, 20).on_part(SCOPE, *scope);
            let out = ask(scene, out, src, family).copy(TAGS, SOURCE_TAGS);
            let out = ask(scene, out.raise(&[Flag::TAGGED]), dst, family);
            scene.add(out.goto(Table::Elide));
        }
        let out = ask(scene, of_family(Table::OutIdentity, 10), dst, family);
        scene.add(out.goto(Table::Elide));
        let came = of_family(Table::InIdentity, 20).with(Flag::TAGGED);
        scene.add(came.copy(SOURCE_TAGS, TAGS).goto(Table::Elide));
        let asked = ask(scene, of_family(Table::InIdentity, 10), src, family);
        scene.add(asked.goto(Table::Elide));
    }
    members(scene);
    for scope in &tagged {
        let remembered = Draft::new(Table::Identity, 1).on_part(SCOPE, *scope);
        let remembered = remembered.with(Flag::ABOUT_FIRST);
        // The tracker's label can't be asked for where there is no entry.
        scene.add(remembered.copy(Field::CtLabel, TAGS));
    }
    scene.add(Draft::new(Table::Identity, 0).set(TAGS, 0u32));
}

fn members(scene: &mut Scene<'_>) {
    let lists = lists(scene);
    let numbers = long(lists.values());
    for ((scope, prefix), tags) in &lists {
        let scope_number = scene.names.scopes[*scope] as u16;
        let draft = Draft::new(Table::Identity, 2 + u16::from(prefix.length()));
        let draft = draft.on_part(SCOPE, scope_number);
        let draft = draft.flag_is(Flag::SIX, prefix.family() == Family::V6);
        let draft = draft.on_prefix([ASKED4, ASKED6], *prefix);
        scene.add(draft.act(Action::set(TAGS, list_value(tags, &numbers))));
    }
}

/// The list of this address, in its place.
pub(super) fn ask(scene: &Scene<'_>, draft: Draft, address: Field, family: Family) -> Draft {
    if !is_asked(scene) {
        return draft;
    }
    let draft = match family {
        Family::V4 => draft.copy(address, ASKED4).clear(&[Flag::SIX]),
        Family::V6 => draft.copy(address, ASKED6).raise(&[Flag::SIX]),
    };
    draft.ask(Table::Identity)
}

/// Some rule names a group, or some other host's may.
fn is_asked(scene: &Scene<'_>) -> bool {
    let rules = scene
        .view
        .groups
        .values()
        .flat_map(|group| group.rules.values());
    let mut named = rules.filter(|rule| matches!(rule.peer, PeerView::Group(_)));
    scene.board.tunnel.is_some() || named.next().is_some()
}

/// What an entry of the tracker keeps of its first packet.
pub(super) fn remember(scene: &Scene<'_>) -> Vec<Action> {
    let tunnels = scene.board.tunnel.iter();
    let label = |_| Action::Move {
        from: Bits::all(TAGS),
        to: Bits::all(Field::CtLabel),
    };
    tunnels.map(label).collect()
}

/// Lists that don't fit into their place, by number: also those that may come from other hosts.
pub(super) fn long_lists(scene: &Scene<'_>) -> Vec<(u32, Tags)> {
    let here = lists(scene);
    let overlay = scene.overlay().into_iter();
    let crowded = overlay.flat_map(|overlay| overlay.crowded.values());
    let crowded: Vec<Tags> = crowded.map(|groups| tags_of(scene, groups)).collect();
    let numbers = long(here.values().chain(&crowded)).into_iter();
    numbers.map(|(tags, number)| (number, tags)).collect()
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

fn tags_of<'a>(scene: &Scene<'_>, groups: impl IntoIterator<Item = &'a GroupId>) -> Tags {
    let tags = groups
        .into_iter()
        .filter_map(|group| scene.names.tags.get(group));
    tags.copied().collect()
}

/// The tags of the addresses that stand in the table.
fn lists<'a>(scene: &Scene<'a>) -> Lists<'a> {
    let direct = direct(scene);
    let wanted = wanted(scene);
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
    let lost = scene.board.lost.iter().filter_map(|(scope, prefix)| {
        let (scope, _) = scene.names.scopes.get_key_value(scope)?;
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
fn direct<'a>(scene: &Scene<'a>) -> Lists<'a> {
    let mut direct = Lists::new();
    let in_sight = |scope: &ScopeId| scene.names.scopes.contains_key(scope);
    for ((scope, group), members) in &scene.view.members {
        let Some(tag) = scene.names.tags.get(group).filter(|_| in_sight(scope)) else {
            continue;
        };
        for member in members.iter() {
            direct.entry((scope, *member)).or_default().insert(*tag);
        }
    }
    let overlay = scene
        .overlay()
        .filter(|_| scene.board.tunnel.is_some())
        .into_iter();
    for ((scope, prefix), groups) in overlay.flat_map(|overlay| &overlay.identities) {
        if in_sight(scope) {
            let tags = tags_of(scene, groups);
            direct.entry((scope, *prefix)).or_default().extend(tags);
        }
    }
    direct
}

/// Those that have to stand in the table, where not all do.
fn wanted<'a>(scene: &Scene<'a>) -> Option<BTreeSet<(&'a ScopeId, Prefix)>> {
    let overlay = scene.overlay()?;
    let tagged = |scope: &ScopeId| scene.is_tagged(scope);
    let rules = scene
        .view
        .groups
        .values()
        .flat_map(|group| group.rules.values());
    let sent_to: BTreeSet<&GroupId> = rules
        .filter(|rule| !is_ingress(rule.direction))
        .filter_map(|rule| match &rule.peer {
            PeerView::Group(group) => Some(group),
            PeerView::Any | PeerView::Prefix(_) | PeerView::AddressGroup(_) => None,
        })
        .collect();
    let named = scene.view.members.iter();
    let named = named.filter(|((scope, group), _)| !tagged(scope) || sent_to.contains(group));
    let members = named.flat_map(|((scope, _), members)| members.iter().map(move |m| (scope, *m)));
    let own = overlay
        .identities
        .keys()
        .map(|(scope, prefix)| (scope, *prefix));
    Some(members.chain(own).collect())
}
