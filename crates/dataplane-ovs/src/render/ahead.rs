//! Inspection at the source: the rules of a receiver on another host, asked before the tunnel.
//!
//! ```text
//! Destination   by segment and MAC: the remote port's profile and host -> Ahead
//! Ahead         the receiver's rules about the packet; of a reply also about the first packet of its flow
//! AheadVerdict  permitted -> Send, with a word for the other host; else dropped
//! ```
//! Only what this host's tracker knows for certain can be inspected: whether a packet is a reply to the remote
//! port, the remote host's tracker knows better. Everything else is left to the destination, which judges as if
//! there were no inspection here: fragments, what is for many, protocols without state, what a port sends some of
//! whose rules keep no state, and TCP that began before anybody looked. So is what the receiver's rules deny, but
//! would take for an answer: it may have begun a flow of the same ports by a packet that didn't get through.

use super::classify::{GROUP_BIT, mac_value};
use super::from_port::{FRAGMENT, ICMP, ICMPV6, TCP, UDP};
use super::own::ethertype;
use super::track::{ACK, SYN};
use super::{Scene, Segment, tunnel};
use crate::draft::Draft;
use crate::registers::{Flag, PROFILE, REMOTE, SEGMENT, SOURCE_TAGS, TAGS};
use crate::tables::Table;
use model::{DropReason, Family, Inspection, NetworkId};
use openflow::Field;
use policy::RemotePort;

/// The remote ports of a network; what is for nobody that is known goes to all.
pub(super) fn destinations(scene: &mut Scene<'_>, network: &NetworkId, segment: Segment) {
    let Some(overlay) = scene.overlay() else {
        return;
    };
    let ports = overlay
        .remote_ports
        .values()
        .filter(|port| port.network == *network);
    for port in ports {
        let Some(peer) = overlay.peers.get(&port.host) else {
            continue;
        };
        let Some(address) = tunnel::v4(peer.address) else {
            continue;
        };
        for mac in &port.macs {
            let draft = Draft::new(Table::Destination, 25).on(SEGMENT, segment.0);
            let draft = draft
                .on(Field::EthDst, mac_value(*mac))
                .set(REMOTE, address);
            let draft = match peer.trust {
                model::PeerTrust::Tag => draft.clear(&[Flag::PLAIN, Flag::INSPECTED]),
                model::PeerTrust::Address => draft.clear(&[Flag::INSPECTED]).raise(&[Flag::PLAIN]),
            };
            scene.add(match inspects(port) {
                true => {
                    let profile = scene.names.profiles[&port.groups];
                    draft.set(PROFILE, profile).goto(Table::Ahead)
                }
                false => draft.goto(Table::Send),
            });
        }
    }
    let unknown = Draft::new(Table::Destination, 10).on(SEGMENT, segment.0);
    scene.add(unknown.set(REMOTE, 0u32).goto(Table::Send));
}

/// A port without port security takes everything.
fn inspects(port: &RemotePort) -> bool {
    port.port_security
}

pub(super) fn render(scene: &mut Scene<'_>) {
    let inspection = match scene.overlay() {
        Some(overlay) if scene.board.tunnel.is_some() => overlay.inspection,
        Some(_) | None => Inspection::Destination,
    };
    if inspection == Inspection::Destination {
        return;
    }
    asks(scene);
    let permitted = |flag| {
        let draft = Draft::new(Table::AheadVerdict, 10).with(flag);
        match inspection {
            Inspection::Source => draft.raise(&[Flag::INSPECTED]),
            Inspection::Destination | Inspection::Both => draft,
        }
    };
    for flag in [Flag::PERMITTED, Flag::LIVE] {
        scene.add(permitted(flag).goto(Table::Send));
    }
    // The other host takes a word for that of rules that keep state: of what others permit, it must not start a flow,
    // and what others let out is in no tracker.
    let stateless = Draft::new(Table::AheadVerdict, 20).with(Flag::PERMITTED);
    scene.add(stateless.without(Flag::STATEFUL).goto(Table::Send));
    let may_answer = Draft::new(Table::AheadVerdict, 5).with(Flag::MAY_ANSWER);
    scene.add(may_answer.goto(Table::Send));
    scene.add(Draft::new(Table::AheadVerdict, 0).drop(DropReason::NoRule));
}

fn asks(scene: &mut Scene<'_>) {
    let table = Table::Ahead;
    let many = Draft::new(table, 90).on_masked(Field::EthDst, GROUP_BIT, GROUP_BIT);
    scene.add(many.goto(Table::Send));
    for (family, icmp) in [(Family::V4, ICMP), (Family::V6, ICMPV6)] {
        let begin = |priority| Draft::new(table, priority).eth(ethertype(family));
        let pieces = begin(80).on_masked(Field::IpFrag, FRAGMENT, FRAGMENT);
        scene.add(pieces.goto(Table::Send));
        for protocol in [TCP, UDP, icmp] {
            let known = |flag| {
                let draft = begin(20).with(Flag::KEEPS_STATE).with(flag);
                ask_receiver(draft.on(Field::IpProto, protocol))
            };
            // The receiver may have begun a flow, too, by a packet that this host dropped: to it this is a reply.
            let forth = known(Flag::FORTH);
            let forth = match protocol == icmp {
                true => forth,
                false => may_answer(forth),
            };
            scene.add(forth.goto(Table::AheadVerdict));
            // What the receiver began, its own rules for what it sends have let out.
            let back = known(Flag::BACK).clear(&[Flag::TOWARDS]);
            let back = back.raise(&[Flag::ABOUT_FIRST]).ask(Table::Walk);
            scene.add(back.clear(&[Flag::ABOUT_FIRST]).goto(Table::AheadVerdict));
        }
    }
    // A SYN without ACK is nobody's reply.
    for family in Family::BOTH {
        let syn = Draft::new(table, 30).eth(ethertype(family));
        let syn = syn.with(Flag::KEEPS_STATE).with(Flag::FORTH);
        let syn = syn.on(Field::IpProto, TCP);
        let syn = syn.on_masked(Field::TcpFlags, SYN, SYN | ACK);
        scene.add(ask_receiver(syn).goto(Table::AheadVerdict));
    }
    scene.add(Draft::new(table, 0).goto(Table::Send));
}

/// Asks whether the receiver's rules let out what this would answer.
fn may_answer(draft: Draft) -> Draft {
    let draft = draft.clear(&[Flag::TOWARDS]).raise(&[Flag::REVERSED]);
    draft.ask(Table::Walk).clear(&[Flag::REVERSED])
}

/// With nothing of what the sender's rules have been asked, and have said.
fn ask_receiver(draft: Draft) -> Draft {
    let draft = draft.clear(&[Flag::PERMITTED, Flag::STATEFUL, Flag::LIVE]);
    let draft = draft.clear(&[Flag::ABOUT_FIRST]);
    let draft = draft.raise(&[Flag::TOWARDS]).copy(SOURCE_TAGS, TAGS);
    draft.ask(Table::Walk)
}
