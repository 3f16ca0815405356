//! Of which groups an address is, as a list of tags.
//!
//! ```text
//! OutIdentity   the list of the source, for whoever gets the packet; that of the destination, for the rules
//! InIdentity    that of the source: it came with the packet, or is asked for
//! Identity      address -> list
//! ```
//! Table Identity has the members of the groups that local rules name; a longer prefix inherits the shorter
//! ones' groups. Where no rule names a group, nobody asks.

use super::Scene;
use super::own::ethertype;
use crate::draft::Draft;
use crate::numbers::number;
use crate::registers::{ASKED4, ASKED6, Flag, SCOPE, SOURCE_TAGS, TAGS, TAGS_IN_PLACE, WIDE};
use crate::tables::Table;
use model::{Family, Prefix, ScopeId};
use openflow::{Action, Field};
use policy::PeerView;
use std::collections::{BTreeMap, BTreeSet};

type Tags = BTreeSet<u16>;

pub(super) fn render(scene: &mut Scene<'_>) {
    for family in Family::BOTH {
        let [src, dst] = match family {
            Family::V4 => [Field::IpSrc, Field::IpDst],
            Family::V6 => [Field::Ipv6Src, Field::Ipv6Dst],
        };
        let out = Draft::new(Table::OutIdentity, 10).eth(ethertype(family));
        let out = ask(scene, out, dst, family);
        scene.add(out.goto(Table::OutElide));
        let into = |priority| Draft::new(Table::InIdentity, priority).eth(ethertype(family));
        let tagged = into(20).with(Flag::TAGGED).copy(SOURCE_TAGS, TAGS);
        scene.add(tagged.goto(Table::InElide));
        let asked = ask(scene, into(10), src, family);
        scene.add(asked.goto(Table::InElide));
    }
    let lists = lists(scene);
    let numbers = long(&lists);
    for ((scope, prefix), tags) in &lists {
        let scope_number = scene.names.scopes[*scope] as u16;
        let draft = Draft::new(Table::Identity, 1 + u16::from(prefix.length()));
        let draft = draft.on_part(SCOPE, scope_number);
        let draft = draft.flag_is(Flag::SIX, prefix.family() == Family::V6);
        let draft = draft.on_prefix([ASKED4, ASKED6], *prefix);
        scene.add(draft.act(Action::set(TAGS, list_value(tags, &numbers))));
    }
    scene.add(Draft::new(Table::Identity, 0).set(TAGS, 0u32));
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

/// Some rule names a group.
fn is_asked(scene: &Scene<'_>) -> bool {
    let mut rules = scene
        .view
        .groups
        .values()
        .flat_map(|group| group.rules.values());
    rules.any(|rule| matches!(rule.peer, PeerView::Group(_)))
}

/// What an entry of the tracker keeps of its first packet.
pub(super) fn remember(_scene: &Scene<'_>) -> Vec<Action> {
    Vec::new()
}

/// Lists that don't fit into their place, by number.
pub(super) fn long_lists(scene: &Scene<'_>) -> Vec<(u32, Tags)> {
    let numbers = long(&lists(scene)).into_iter();
    numbers.map(|(tags, number)| (number, tags)).collect()
}

fn long(lists: &BTreeMap<(&ScopeId, Prefix), Tags>) -> BTreeMap<Tags, u32> {
    let long = lists.values().filter(|tags| tags.len() > TAGS_IN_PLACE);
    number(
        long.cloned(),
        |tags| format!("{tags:?}"),
        32,
        &BTreeSet::new(),
    )
}

fn list_value(tags: &Tags, numbers: &BTreeMap<Tags, u32>) -> u128 {
    if let Some(number) = numbers.get(tags) {
        return u128::from(WIDE) | u128::from(*number) << 16;
    }
    let places = tags.iter().enumerate();
    places.fold(0, |list, (place, tag)| {
        list | u128::from(*tag) << (16 * place)
    })
}

/// The tags of the addresses that somebody asks for.
fn lists<'a>(scene: &Scene<'a>) -> BTreeMap<(&'a ScopeId, Prefix), Tags> {
    let mut direct: BTreeMap<(&ScopeId, Prefix), Tags> = BTreeMap::new();
    for ((scope, group), members) in &scene.view.members {
        let Some(tag) = scene.names.tags.get(group) else {
            continue;
        };
        if !scene.names.scopes.contains_key(scope) {
            continue;
        }
        for member in members.iter() {
            direct.entry((scope, *member)).or_default().insert(*tag);
        }
    }
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
    let keys = direct.keys();
    keys.map(|(scope, prefix)| ((*scope, *prefix), inherited(*scope, *prefix)))
        .collect()
}
