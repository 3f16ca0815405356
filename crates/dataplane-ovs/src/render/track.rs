//! What is tracked, what is live, and what passes: the same at both gates.
//!
//! ```text
//! Elide --(what needs no state)--> rules -> Verdict -> Passed
//!    \-- ct(zone of the port) -> State -> rules -> Verdict -> Passed
//! ```
//! The rules are asked about the packet, and of a reply also about the first packet of its flow, as the tracker
//! remembers it. So a rule that is gone ends the replies that it let through, without any change of entries.
//! Only Verdict writes entries, last of all: a commit forgets what the tracker has said.

use super::classify::GROUP_BIT;
use super::from_port::{FRAGMENT, ICMP, ICMPV6, SCTP, TCP, UDP};
use super::own::ethertype;
use super::to_port::for_many;
use super::{Scene, identity};
use crate::draft::Draft;
use crate::elide;
use crate::registers::{Flag, PORT, PROFILE};
use crate::tables::Table;
use model::{DropReason, Family};
use openflow::{Action, Field, Zone};

const TRACKED: u128 = 1 << 5;
const NEW: u128 = 1;
const ESTABLISHED: u128 = 1 << 1;
const RELATED: u128 = 1 << 2;
const REPLY: u128 = 1 << 3;
const INVALID: u128 = 1 << 4;

const FIN: u128 = 1;
pub(super) const SYN: u128 = 1 << 1;
const RST: u128 = 1 << 2;
pub(super) const ACK: u128 = 1 << 4;

pub(super) fn render(scene: &mut Scene<'_>) {
    many(scene);
    elidable(scene);
    states(scene);
    first(scene);
    verdicts(scene);
}

/// What goes to many starts no flow.
fn many(scene: &mut Scene<'_>) {
    let (table, next) = (Table::OutMany, Table::OutIdentity);
    let by_mac = Draft::new(table, 60).on_masked(Field::EthDst, GROUP_BIT, GROUP_BIT);
    scene.add(by_mac.raise(&[Flag::MANY]).goto(next));
    for draft in for_many(scene, table, 50, [Field::IpDst, Field::Ipv6Dst]) {
        scene.add(draft.raise(&[Flag::MANY]).goto(next));
    }
    scene.add(Draft::new(table, 0).goto(next));
}

/// What is judged without a look at the tracker. Fragments never are: it puts them together.
fn elidable(scene: &mut Scene<'_>) {
    let untracked = |priority, family| {
        let draft = Draft::new(Table::Elide, priority).eth(ethertype(family));
        draft.on_masked(Field::IpFrag, 0, FRAGMENT)
    };
    for (profile, number) in &scene.names.profiles {
        if scene.inspects_ahead() {
            // Who began a flow has to be known of each.
            continue;
        }
        for class in elide::classes(scene.view, profile) {
            let draft = untracked(30, class.family)
                .on(PROFILE, *number)
                .raise(&[Flag::ELIDED])
                .ask(Table::Walk)
                .goto(Table::Verdict);
            for draft in class.matched(draft) {
                scene.add(draft);
            }
        }
    }
    for family in Family::BOTH {
        scene.add(
            Draft::new(Table::Elide, 10)
                .eth(ethertype(family))
                .act(Action::Ct {
                    commit: false,
                    force: false,
                    zone: Zone::Field(PORT.bits()),
                    table: Some(Table::State.number()),
                    exec: Vec::new(),
                }),
        );
    }
}

fn states(scene: &mut Scene<'_>) {
    for family in Family::BOTH {
        let begin = |priority| Draft::new(Table::State, priority).eth(ethertype(family));
        let state = |priority, value: u128, mask: u128| {
            begin(priority).on_masked(Field::CtState, value, mask)
        };
        let mut drafts = Vec::new();
        // Of a fragment only the tracker knows the ports: what it knows is asked alone.
        let fragment = |draft: Draft| draft.on_masked(Field::IpFrag, FRAGMENT, FRAGMENT);
        for reply in [0, REPLY] {
            let tracked = state(70, TRACKED | reply, TRACKED | INVALID | REPLY);
            drafts.push(about_first(fragment(tracked), reply));
        }
        drafts.push(fragment(begin(60)));

        let reply = TRACKED | ESTABLISHED | REPLY;
        // Against the direction, a SYN without ACK is nobody's reply.
        let syn = state(50, reply, reply | INVALID).on(Field::IpProto, TCP);
        let syn = syn.on_masked(Field::TcpFlags, SYN, SYN | ACK);
        drafts.push(syn.ask(Table::Walk));
        let reply = state(40, reply, reply | INVALID).ask(Table::Walk);
        drafts.push(about_first(reply.raise(&[Flag::BACK]), REPLY));
        for (icmp_type, field, protocol) in errors(family) {
            for reply in [REPLY, 0] {
                let mask = TRACKED | RELATED | REPLY | INVALID;
                let error = state(40, TRACKED | RELATED | reply, mask);
                let error = error.on(Field::IpProto, protocol).on(field, icmp_type);
                drafts.push(about_first(error.ask(Table::Walk), reply));
            }
        }
        drafts.push(begin(0).ask(Table::Walk));
        if scene.inspects_ahead() {
            drafts.extend(forth(family));
            let inspected = begin(90).with(Flag::INSPECTED);
            drafts.push(inspected.raise(&[Flag::PERMITTED, Flag::STATEFUL]));
        }
        for draft in drafts {
            scene.add(draft.goto(Table::Verdict));
        }
        let tracked = |reply| state(80, TRACKED | reply, TRACKED | INVALID | REPLY);
        let [(server, client), (asked, by)] = dhcp_ports(family).map(|p| (p[0], p[1]));
        // As the tracker sees it: from the end that spoke first.
        for (reply, src, dst) in [(0, server, client), (REPLY, asked, by)] {
            let rogue = fragment(tracked(reply)).with(Flag::FROM_PORT);
            let rogue = rogue.without(Flag::DHCP_SERVER);
            let rogue = rogue.on(Field::CtNwProto, UDP).on(Field::CtTpSrc, src);
            scene.add(rogue.on(Field::CtTpDst, dst).drop(DropReason::RogueDhcp));
        }
    }
}

/// Of a packet that is no reply: it belongs to a flow that the port began, or begins it.
fn forth(family: Family) -> Vec<Draft> {
    let state = |value: u128| {
        let mask = TRACKED | NEW | ESTABLISHED | RELATED | REPLY | INVALID;
        let draft = Draft::new(Table::State, 10).eth(ethertype(family));
        draft.on_masked(Field::CtState, TRACKED | value, mask)
    };
    let icmp = match family {
        Family::V4 => ICMP,
        Family::V6 => ICMPV6,
    };
    let begins = [UDP, icmp].map(|protocol| state(NEW).on(Field::IpProto, protocol));
    let syn = state(NEW).on(Field::IpProto, TCP);
    let syn = syn.on_masked(Field::TcpFlags, SYN, SYN | ACK | FIN | RST);
    let all = begins.into_iter().chain([syn, state(ESTABLISHED)]);
    all.map(|draft| draft.raise(&[Flag::FORTH]).ask(Table::Walk))
        .collect()
}

/// Of an answer, its ports; of the question, its own.
fn dhcp_ports(family: Family) -> [[u16; 2]; 2] {
    match family {
        Family::V4 => [[67, 68], [68, 67]],
        Family::V6 => [[547, 546], [546, 547]],
    }
}

/// Types that tell of a flow.
fn errors(family: Family) -> Vec<(u8, Field, u8)> {
    match family {
        Family::V4 => [3, 11, 12].map(|t| (t, Field::IcmpType, ICMP)).to_vec(),
        Family::V6 => [1, 2, 3, 4]
            .map(|t| (t, Field::Icmpv6Type, ICMPV6))
            .to_vec(),
    }
}

/// Asks the rules about the first packet of the flow, as they are now. That of a reply went the other way.
fn about_first(draft: Draft, reply: u128) -> Draft {
    let draft = draft.raise(&[Flag::ABOUT_FIRST]);
    let draft = match reply {
        REPLY => draft.copy_flag(Flag::FROM_PORT, Flag::TOWARDS),
        _same_way => draft,
    };
    draft.ask(Table::First)
}

/// Who was at the other end, and what the rules say. Of what nobody has sent this way there is no first packet: both
/// ends of a flow may be addresses of the port.
fn first(scene: &mut Scene<'_>) {
    for (family, src, dst) in [
        (Family::V4, Field::CtNwSrc, Field::CtNwDst),
        (Family::V6, Field::CtIpv6Src, Field::CtIpv6Dst),
    ] {
        // An entry has one of the marks; where there is none, this is the first packet itself, in pieces.
        for (towards, remote, against) in [
            (true, src, identity::FROM_PORT),
            (false, dst, identity::TO_PORT),
        ] {
            let draft = Draft::new(Table::First, 10).eth(ethertype(family));
            let draft = draft.on_masked(Field::CtState, TRACKED, TRACKED | INVALID);
            let draft = draft.on_masked(Field::CtMark, 0, against);
            let draft = draft.flag_is(Flag::TOWARDS, towards);
            scene.add(identity::ask(scene, draft, remote, family).ask(Table::Walk));
        }
    }
}

fn verdicts(scene: &mut Scene<'_>) {
    let permitted = |priority| Draft::new(Table::Verdict, priority).with(Flag::PERMITTED);
    let begins = |priority, ethertype| {
        let draft = permitted(priority).eth(ethertype).with(Flag::STATEFUL);
        let draft = draft.without(Flag::MANY).without(Flag::ELIDED);
        let asked = TRACKED | NEW | REPLY | INVALID;
        draft.on_masked(Field::CtState, TRACKED | NEW, asked)
    };
    let commit = |draft: Draft| draft.act(commit(scene));
    let mut drafts = Vec::new();
    for (family, own_icmp, icmp_field, requests) in [
        (Family::V4, ICMP, Field::IcmpType, [8u8, 13].as_slice()),
        (Family::V6, ICMPV6, Field::Icmpv6Type, &[128]),
    ] {
        let ethertype = ethertype(family);
        // What the rules were asked about is the first packet of these pieces' flow.
        let pieces = |protocol: u8| {
            let draft = begins(80, ethertype).on(Field::IpProto, protocol);
            draft.on_masked(Field::IpFrag, FRAGMENT, FRAGMENT)
        };
        drafts.push(pieces(TCP));
        drafts.push(commit(pieces(own_icmp)));
        let tcp = || begins(70, ethertype).on(Field::IpProto, TCP);
        // To the tracker a SYN that crosses another is new as well; the flow is the other one's.
        for (flag, against) in [
            (Flag::TO_PORT, identity::FROM_PORT),
            (Flag::FROM_PORT, identity::TO_PORT),
        ] {
            let syn = tcp().on_masked(Field::TcpFlags, SYN, SYN | ACK | FIN | RST);
            let syn = syn.with(flag).on_masked(Field::CtMark, 0, against);
            drafts.push(commit(syn));
        }
        let mid_stream = tcp().on_masked(Field::TcpFlags, ACK, SYN | ACK | FIN | RST);
        drafts.push(commit(mid_stream.without(Flag::HELD)));
        for icmp_type in requests {
            let request = begins(70, ethertype).on(Field::IpProto, own_icmp);
            drafts.push(commit(request.on(icmp_field, *icmp_type)));
        }
        // No flow comes of these.
        for protocol in [TCP, own_icmp].into_iter().chain(unkept(family)) {
            drafts.push(begins(60, ethertype).on(Field::IpProto, protocol));
        }
        drafts.push(commit(begins(50, ethertype)));
    }
    drafts.push(permitted(40));
    for draft in drafts {
        scene.add(draft.goto(Table::Passed));
    }
    scene.add(Draft::new(Table::Verdict, 0).drop(DropReason::NoRule));
}

/// Protocols that no flow comes of: the tracker knows no ports of them, or there is nothing in them.
fn unkept(family: Family) -> Vec<u8> {
    const DCCP: u8 = 33;
    const UDP_LITE: u8 = 136;
    /// In IPv6: no next header.
    const NOTHING: u8 = 59;
    /// The switch tells nothing of a first packet that has it.
    const ZERO: u8 = 0;
    let of_family: &[u8] = match family {
        Family::V4 => &[ICMPV6, ZERO],
        Family::V6 => &[ICMP, NOTHING],
    };
    [&[SCTP, DCCP, UDP_LITE], of_family].concat()
}

fn commit(scene: &Scene<'_>) -> Action {
    Action::Ct {
        commit: true,
        force: false,
        zone: Zone::Field(PORT.bits()),
        table: None,
        exec: identity::remember(scene),
    }
}
