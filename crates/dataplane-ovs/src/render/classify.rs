//! Table 0: what a port of ours sends goes to its gate; on a bridge that forwards by itself, what comes from
//! elsewhere and is for a port of ours is taken out of its hands.

use super::{Attached, Forwarding, Scene, Segment, inlets};
use crate::cookie::Cookie;
use crate::draft::Draft;
use crate::registers::{
    FLAGS, Flag, GATE, NETWORK, OUT_PORT, PORT, PROFILE, SCOPE, SEGMENT, SOURCE_TAGS,
};
use crate::secure;
use crate::tables::Table;
use model::{DropReason, MacAddr, ScopeId};
use openflow::{Action, Field};
use std::collections::{BTreeMap, BTreeSet};

/// Above whatever else may be in the bridge's first table.
pub(super) const OURS: u16 = 65_000;
pub(super) const FOR_OURS: u16 = 64_000;
pub(super) const BETWEEN: u16 = 63_000;

pub(super) fn render(scene: &mut Scene<'_>) {
    for port in scene.board.ports.values() {
        let draft = sends(scene, port);
        scene.add(draft);
    }
    for of_port in &scene.board.closed {
        let closed = Draft::new(Table::Classify, OURS).on(Field::InPort, *of_port);
        scene.add(closed.drop(DropReason::NotReady));
    }
    match scene.board.forwarding {
        Forwarding::Normal => {
            from_elsewhere(scene);
            if scene.board.floor {
                scene.add(secure::floor());
            }
        }
        Forwarding::Whole => from_outside(scene),
    }
}

/// All that is known of a port comes with what it sends.
fn sends(scene: &Scene<'_>, port: &Attached) -> Draft {
    let gate = NETWORK.value(scene.network_number(&port.view.network)) | PORT.value(port.number);
    let draft = Draft::new(Table::Classify, OURS)
        .cookie(Cookie::Port(port.number))
        .on(Field::InPort, port.of_port)
        .set(SEGMENT, scene.segment(port).0)
        .set(GATE, gate)
        .set(
            FLAGS,
            flags(port) | keeps_state(scene, port) | Flag::FROM_PORT.bit(),
        )
        .set(PROFILE, scene.names.profiles[&port.view.groups])
        .set_part(SCOPE, scene.names.scopes[scene.scope(port)] as u16)
        .set(SOURCE_TAGS, 0u32);
    match port.view.port_security {
        true => draft.goto(Table::Frame),
        false => of_no_group(scene, draft, scene.scope(port)).goto(Table::Destination),
    }
}

/// Where tags say who is in which group, what enters without them is in none.
fn of_no_group(scene: &Scene<'_>, draft: Draft, scope: &ScopeId) -> Draft {
    match scene.is_tagged(scope) {
        true => draft.raise(&[Flag::TAGGED]),
        false => draft,
    }
}

/// What the guard and the tracker ask of a port.
pub(super) fn flags(port: &Attached) -> u128 {
    let of_port = [
        (port.view.router, Flag::ROUTER),
        (port.view.dhcp_server, Flag::DHCP_SERVER),
        (port.held, Flag::HELD),
    ];
    let set = of_port.iter().filter(|(on, _)| *on);
    set.map(|(_, flag)| flag.bit())
        .fold(0, |all, bit| all | bit)
}

/// Of each flow at the port the tracker can say who began it.
fn keeps_state(scene: &Scene<'_>, port: &Attached) -> u128 {
    let groups = port
        .view
        .groups
        .iter()
        .filter_map(|id| scene.view.groups.get(id));
    let all = scene.inspects_ahead() && groups.clone().all(|group| group.stateful);
    if all { Flag::KEEPS_STATE.bit() } else { 0 }
}

fn from_elsewhere(scene: &mut Scene<'_>) {
    let mut segments: BTreeMap<Segment, BTreeSet<MacAddr>> = BTreeMap::new();
    for (_, port) in scene.guarded() {
        let macs = segments.entry(scene.segment(port)).or_default();
        macs.extend(port.view.macs());
    }
    inlets::render(scene, &segments);
    inlets::priority_tagged(scene, &segments);
    for (segment, macs) in segments {
        let begin = |priority| {
            let draft = Draft::new(Table::Classify, priority);
            // 0: no tag at all.
            let draft = draft.on_masked(Field::VlanTci, segment.0.into(), 0x1fff);
            let draft = draft.set(SEGMENT, segment.0).set(FLAGS, 0u32);
            match segment.0 {
                0 => draft,
                _ => draft.act(Action::PopVlan),
            }
        };
        for mac in macs {
            let draft = begin(FOR_OURS).on(Field::EthDst, mac_value(mac));
            scene.add(draft.goto(Table::Destination));
        }
        // The bridge floods it; each port of ours has to be asked apart.
        let many = Draft::new(Table::Classify, BETWEEN)
            .on_masked(Field::VlanTci, segment.0.into(), 0x1fff)
            .on_masked(Field::EthDst, GROUP_BIT, GROUP_BIT);
        let many = to_receivers(scene, many, segment, segment.0 != 0);
        scene.add(many.act(Action::Output(openflow::Port::Normal)));
    }
}

/// A copy to the gate of each guarded port of the segment, without the tag if there is one.
pub(super) fn to_receivers(
    scene: &Scene<'_>,
    draft: Draft,
    segment: Segment,
    is_tagged: bool,
) -> Draft {
    let receivers = scene
        .guarded()
        .filter(|(_, port)| scene.segment(port) == segment);
    receivers.fold(draft, |draft, (_, port)| {
        let pop = is_tagged.then_some(Action::PopVlan);
        let enter = super::forward::enter(port);
        let fresh = Action::set(FLAGS, 0);
        let actions = pop.into_iter().chain([fresh]).chain(enter);
        draft.act(Action::Clone(actions.collect()))
    })
}

fn from_outside(scene: &mut Scene<'_>) {
    for (network, of_ports) in &scene.board.outside {
        let Some(number) = scene.names.networks.get(network) else {
            continue;
        };
        for of_port in of_ports {
            let draft = Draft::new(Table::Classify, OURS)
                .on(Field::InPort, *of_port)
                .set(SEGMENT, *number)
                .set(FLAGS, 0u32)
                .set(SOURCE_TAGS, 0u32)
                .set_part(OUT_PORT, 0);
            let scope = scene
                .view
                .networks
                .get(network)
                .map(|network| &network.scope);
            let draft = match scope {
                Some(scope) => of_no_group(scene, draft, scope),
                None => draft,
            };
            scene.add(draft.goto(Table::Destination));
        }
    }
}

pub(super) const GROUP_BIT: u128 = 1 << 40;

pub(crate) fn mac_value(mac: MacAddr) -> u128 {
    mac.0
        .iter()
        .fold(0, |value, byte| value << 8 | u128::from(*byte))
}
