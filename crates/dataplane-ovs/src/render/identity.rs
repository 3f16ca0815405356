//! Of which groups an address is, as a list of tags.
//!
//! ```text
//! OutIdentity   the list of the source, for whoever gets the packet; that of the destination, for the rules
//! InIdentity    that of the source: it came with the packet, or is asked for
//! Identity      address -> list
//! ```
//! Where no rule names a group, and no packet leaves the host with its source's groups, nobody asks. What stands in
//! table Identity is in members.rs.

use super::Scene;
use super::own::ethertype;
use crate::draft::Draft;
use crate::registers::{ASKED4, ASKED6, FLAGS, Flag, SCOPE, SOURCE_TAGS, TAGS};
use crate::tables::Table;
use model::{Family, ScopeId};
use openflow::{Action, Bits, Field};
use policy::PeerView;
use std::collections::BTreeSet;

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
}

/// Who the source is: other hosts are told, or receivers' rules ask before the tunnel, also of what passes without any
/// rule here.
pub(super) fn of_source(scene: &Scene<'_>, draft: Draft, source: Field, family: Family) -> Draft {
    match scene.board.tunnel {
        Some(_) => ask(scene, draft, source, family).copy(TAGS, SOURCE_TAGS),
        None => draft,
    }
}

/// The list of this address, in its place.
pub(super) fn ask(scene: &Scene<'_>, draft: Draft, address: Field, family: Family) -> Draft {
    if !is_asked(scene) {
        return draft.set(TAGS, 0u32);
    }
    // Not by a move: of an ICMP error that goes the way of its flow's first packet a move takes nothing that the
    // tracker has said.
    let draft = draft.act(Action::Push(Bits::all(address)));
    let draft = match family {
        Family::V4 => draft
            .act(Action::Pop(Bits::all(ASKED4)))
            .clear(&[Flag::SIX]),
        Family::V6 => draft
            .act(Action::Pop(Bits::all(ASKED6)))
            .raise(&[Flag::SIX]),
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

/// Of an entry's mark: its first packet came to the port.
pub(super) const TO_PORT: u128 = 1;
/// The port sent it.
pub(super) const FROM_PORT: u128 = 1 << 1;

/// What an entry of the tracker keeps of its first packet.
pub(super) fn remember(scene: &Scene<'_>) -> Vec<Action> {
    // Which way it went: by addresses alone that isn't always known.
    let ways = [(Flag::TO_PORT, TO_PORT), (Flag::FROM_PORT, FROM_PORT)];
    let way = ways.map(|(flag, mark)| Action::Move {
        from: Bits::one(FLAGS, flag.place()),
        to: Bits::one(Field::CtMark, mark.trailing_zeros() as u16),
    });
    let tunnels = scene.board.tunnel.iter();
    let label = |_| Action::Move {
        from: Bits::all(TAGS),
        to: Bits::all(Field::CtLabel),
    };
    way.into_iter().chain(tunnels.map(label)).collect()
}
