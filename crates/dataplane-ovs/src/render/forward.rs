//! From one gate to the other: where a frame goes that has passed the sender's.
//!
//! ```text
//! Passed        counts it for its port; what was for the port goes out of its device
//! Destination   by segment and MAC: to a port of ours by Enter, else as the bridge forwards
//! Enter         by the OpenFlow port in OUT_PORT: all that is known of the port whose gate comes next
//! ```
//! HandOver is where another pipeline of the bridge hands over a frame for one of our ports: it puts the port's
//! OpenFlow number into bits 16 to 31 of reg4, and resubmits to table 200.

use super::classify::{GROUP_BIT, flags, mac_value};
use super::{Attached, Forwarding, Scene, Segment, tunnel};
use crate::cookie::Cookie;
use crate::draft::{Draft, ask, ones, set_masked};
use crate::registers::{
    FLAGS, Flag, GATE, NETWORK, OUT_PORT, PORT, PROFILE, REASON, RULE, SCOPE, SEGMENT,
};
use crate::tables::Table;
use model::NetworkId;
use openflow::{Action, Bits, Field, Learn, Port, Source, Spec};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn render(scene: &mut Scene<'_>) {
    for port in scene.board.ports.values() {
        scene.add(itself(port));
        if port.view.port_security {
            scene.add(entered(scene, port));
            scene.add(passed(port, Flag::FROM_PORT).goto(Table::Destination));
            scene.add(passed(port, Flag::TO_PORT).act(output(port)));
        } else {
            let draft = Draft::new(Table::Enter, 10).cookie(Cookie::Port(port.number));
            scene.add(draft.on_part(OUT_PORT, port.of_port).act(output(port)));
        }
    }
    scene.add(Draft::new(Table::Enter, 0));
    let handed_over = Draft::new(Table::HandOver, 0).set(FLAGS, 0u32);
    scene.add(handed_over.goto(Table::Enter));
    unicast(scene);
    match scene.board.forwarding {
        Forwarding::Normal => normal(scene),
        Forwarding::Whole => whole(scene),
    }
    scene.add(counted_drop());
}

/// To the gate of a port.
pub(super) fn enter(port: &Attached) -> [Action; 2] {
    let out_port = Action::set_bits(OUT_PORT.bits(), port.of_port.into());
    [out_port, ask(Table::Enter)]
}

/// Nobody hears what they said themselves.
fn itself(port: &Attached) -> Draft {
    let draft = Draft::new(Table::Enter, 20).cookie(Cookie::Port(port.number));
    draft
        .on_part(OUT_PORT, port.of_port)
        .on(Field::InPort, port.of_port)
}

fn entered(scene: &Scene<'_>, port: &Attached) -> Draft {
    let gate = NETWORK.value(scene.network_number(&port.view.network)) | PORT.value(port.number);
    Draft::new(Table::Enter, 10)
        .cookie(Cookie::Port(port.number))
        .on_part(OUT_PORT, port.of_port)
        .set(GATE, gate)
        // But for tags that came with it nothing that the other gate knew counts here.
        .act(set_masked(
            FLAGS,
            flags(port) | Flag::TO_PORT.bit() | Flag::TOWARDS.bit(),
            ones(32) & !(Flag::TAGGED.bit() | Flag::INSPECTED.bit()),
        ))
        .set(RULE, 0u32)
        .set(PROFILE, scene.names.profiles[&port.view.groups])
        .set_part(SCOPE, scene.names.scopes[scene.scope(port)] as u16)
        .goto(Table::Frame)
}

/// Counts what has passed this gate of the port.
fn passed(port: &Attached, gate: Flag) -> Draft {
    let draft = Draft::new(Table::Passed, 10).cookie(Cookie::Port(port.number));
    draft.on_part(PORT, port.number).with(gate)
}

fn output(port: &Attached) -> Action {
    Action::Output(Port::Number(port.of_port.into()))
}

fn in_segment(table: Table, priority: u16, segment: Segment) -> Draft {
    Draft::new(table, priority).on(SEGMENT, segment.0)
}

/// What is for one of the bridge's ports.
fn unicast(scene: &mut Scene<'_>) {
    let whole = scene.board.forwarding == Forwarding::Whole;
    for port in scene.board.ports.values() {
        let segment = scene.segment(port);
        for mac in port.view.macs() {
            let draft =
                in_segment(Table::Destination, 30, segment).cookie(Cookie::Port(port.number));
            let draft = draft.on(Field::EthDst, mac_value(mac));
            match port.view.port_security {
                true => {
                    let [out_port, _] = enter(port);
                    scene.add(draft.act(out_port).goto(Table::Enter));
                }
                false if whole => {
                    scene.add(draft.act(output(port)));
                }
                // The bridge knows it as it knows others.
                false => {}
            }
        }
    }
}

/// The guarded ports of each segment.
fn receivers<'a>(scene: &Scene<'a>) -> BTreeMap<Segment, Vec<&'a Attached>> {
    let mut receivers: BTreeMap<Segment, Vec<&Attached>> = BTreeMap::new();
    for (_, port) in scene.guarded() {
        receivers.entry(scene.segment(port)).or_default().push(port);
    }
    receivers
}

fn each_receiver(draft: Draft, receivers: &[&Attached]) -> Draft {
    let clones = receivers
        .iter()
        .map(|port| Action::Clone(enter(port).into()));
    clones.fold(draft, Draft::act)
}

fn normal(scene: &mut Scene<'_>) {
    for (segment, receivers) in receivers(scene) {
        let many = in_segment(Table::Destination, 20, segment);
        let many = many.on_masked(Field::EthDst, GROUP_BIT, GROUP_BIT);
        let many = each_receiver(many, &receivers);
        scene.add(many.act(Action::Output(Port::Normal)));
    }
    let other = Draft::new(Table::Destination, 0);
    scene.add(other.act(Action::Output(Port::Normal)));
}

fn whole(scene: &mut Scene<'_>) {
    let receivers = receivers(scene);
    for (network, _) in scene.networks() {
        let segment = Segment(scene.names.networks[network]);
        let many = in_segment(Table::Destination, 20, segment);
        let many = many.on_masked(Field::EthDst, GROUP_BIT, GROUP_BIT);
        let guarded = receivers.get(&segment).map_or(&[][..], Vec::as_slice);
        let many = to_others(scene, network, each_receiver(many, guarded));
        let flooded = tunnel::flooded(scene, network).into_iter();
        scene.add(flooded.fold(many, Draft::act));
        // Where there are tunnels, the MAC may be at another host.
        let other = in_segment(Table::Destination, 5, segment);
        scene.add(to_others(scene, network, other));
    }
    scene.add(Draft::new(Table::Destination, 0));
}

/// To what of the network has no gate here.
pub(super) fn to_others(scene: &Scene<'_>, network: &NetworkId, draft: Draft) -> Draft {
    let open = scene.board.ports.values().filter(|p| !p.view.port_security);
    let open = open
        .filter(|p| p.view.network == *network)
        .map(|p| p.of_port);
    let outside = scene.board.outside.get(network).into_iter().flatten();
    let others: BTreeSet<u16> = open.chain(outside.copied()).collect();
    let out = |of_port: u16| Action::Output(Port::Number(of_port.into()));
    others.into_iter().map(out).fold(draft, Draft::act)
}

/// Counts what is dropped by port and reason: a flow for each pair that there was, which comes by itself.
fn counted_drop() -> Draft {
    let same = |field| Spec::Match {
        to: Bits::all(field),
        from: Source::Field(Bits::all(field)),
    };
    Draft::new(Table::Drop, 0).act(Action::Learn(Learn {
        table: Table::Drop.number(),
        priority: 10,
        cookie: Cookie::Count.number(),
        specs: vec![same(GATE), same(REASON)],
        ..Learn::default()
    }))
}
