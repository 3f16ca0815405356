//! Section "Capabilities": a plane whose flows are entries of Open vSwitch's userspace tracker.

use crate::support::*;
use model::{Direction, Elision, MacAddr};
use portcullis_oracle::Open;
use wire::build::{Builder, Extension, Ip};

const URGENT: u8 = 0x20;
const PUSH: u8 = 8;
const FIN: u8 = 1;
/// The rules let the VM be the opener only.
const OUT_ONLY: &[&str] = &["out any any", "out6 any any"];

fn world(rules: &[&str]) -> World {
    World::with(OPEN_VSWITCH, Elision::Off, rules)
}

fn to_peer(flags: u8) -> Builder<Ip> {
    out(PEER).tcp(5000, 80, flags)
}

fn from_peer(flags: u8) -> Builder<Ip> {
    into_vm(PEER).tcp(80, 5000, flags)
}

/// The VM's connection, open.
fn connected() -> World {
    let mut w = world(OUT_ONLY);
    w.sends(to_peer(SYN), "rule g/r0");
    w.gets(from_peer(SYN_ACK), "live g/r0");
    w.sends(to_peer(ACK), "rule g/r0");
    w
}

/// No answer of the peer is live now, whatever it says.
fn is_over(w: &mut World) {
    w.gets(from_peer(ACK), "no-rule");
}

#[test]
fn an_entry_comes_of_what_may_start_a_flow() {
    for flags in [SYN, ACK, ACK | PUSH, ACK | URGENT, SYN | 0xc0] {
        let mut w = world(OUT_ONLY);
        w.sends(to_peer(flags), "rule g/r0");
        w.gets(from_peer(ACK), "live g/r0");
    }
    let none = [
        SYN_ACK,
        FIN_ACK,
        RST,
        RST | ACK,
        FIN,
        0,
        PUSH,
        SYN | PUSH,
        SYN | URGENT,
    ];
    for flags in none.into_iter().chain([SYN | FIN, SYN | RST]) {
        let mut w = world(OUT_ONLY);
        w.sends(to_peer(flags), "rule g/r0");
        is_over(&mut w);
    }
    let mut w = world(&["in tcp 80 any"]);
    w.stateless(OUT_ONLY);
    w.sends(to_peer(SYN), "rule u/r0");
    is_over(&mut w);
}

#[test]
fn a_dropped_packet_leaves_no_entry_behind() {
    let mut w = world(OUT_ONLY);
    w.gets(from_peer(SYN), "no-rule");
    w.sends(to_peer(SYN), "rule g/r0");
    w.gets(from_peer(SYN_ACK), "live g/r0");
}

#[test]
fn an_attempt_is_nobodys_reply() {
    let mut w = world(OUT_ONLY);
    w.sends(to_peer(SYN), "rule g/r0");
    w.gets(from_peer(SYN), "no-rule");
    w.sends(to_peer(SYN_ACK), "rule g/r0");
    w.gets(from_peer(SYN_ACK), "live g/r0");
    w.gets(from_peer(SYN), "no-rule");
    w.gets(from_peer(ACK), "live g/r0");
}

#[test]
fn a_syn_begins_anew_once_both_ends_are_closed() {
    let mut w = connected();
    w.rules(&["out tcp 80 any", "in tcp 5000 any"]);
    w.sends(to_peer(FIN_ACK), "rule g/r0");
    w.gets(from_peer(FIN_ACK), "live g/r0");
    // The peer's FIN is not acknowledged yet, so its SYN is of the old connection.
    w.gets(from_peer(SYN), "rule g/r1");
    w.rules(OUT_ONLY);
    w.gets(from_peer(ACK), "live g/r0");
    w.sends(to_peer(ACK), "rule g/r0");
    w.rules(&["in tcp 5000 any"]);
    w.gets(from_peer(SYN), "rule g/r0");
    w.sends(to_peer(SYN_ACK), "live g/r0");
    w.rules(OUT_ONLY);
    w.gets(from_peer(ACK), "no-rule");
}

#[test]
fn a_syn_on_a_closed_connection_ends_it_even_when_it_is_dropped() {
    let mut w = connected();
    w.gets(from_peer(RST), "live g/r0");
    w.gets(from_peer(ACK), "live g/r0");
    w.gets(from_peer(SYN), "no-rule");
    is_over(&mut w);
}

#[test]
fn a_dead_entry_is_not_started_from_the_other_end() {
    let mut w = connected();
    w.rules(&["in tcp 5000 any"]);
    w.gets(from_peer(SYN), "rule g/r0");
    w.sends(to_peer(SYN_ACK), "no-rule");
    w.rules(OUT_ONLY);
    w.gets(from_peer(ACK), "live g/r0");
}

#[test]
fn timers_are_few() {
    let mut opening = world(OUT_ONLY);
    opening.sends(to_peer(SYN), "rule g/r0");
    opening.later(26);
    opening.sends(to_peer(SYN), "rule g/r0");
    opening.later(26);
    opening.gets(from_peer(SYN_ACK), "live g/r0");
    opening.later(61);
    is_over(&mut opening);

    let mut w = connected();
    w.sends(to_peer(FIN_ACK), "rule g/r0");
    w.later(70_000);
    w.gets(from_peer(FIN_ACK), "live g/r0");
    w.later(100);
    w.gets(from_peer(ACK), "live g/r0");
    w.later(151);
    is_over(&mut w);

    // There is no timer for a reset alone.
    let mut w = connected();
    w.sends(to_peer(RST), "rule g/r0");
    w.later(100);
    w.gets(from_peer(ACK), "live g/r0");
    w.later(151);
    is_over(&mut w);
}

#[test]
fn timeouts_of_udp_are_those_that_were_chosen() {
    let mut w = world(OUT_ONLY);
    let (there, back) = (out(PEER).udp(9, 53), into_vm(PEER).udp(53, 9));
    w.sends(there.clone(), "rule g/r0");
    w.later(61);
    w.gets(back.clone(), "no-rule");
    w.sends(there, "rule g/r0");
    w.gets(back.clone(), "live g/r0");
    w.later(160);
    w.gets(back.clone(), "live g/r0");
    w.later(211);
    w.gets(back, "no-rule");
}

#[test]
fn other_protocols_have_timers_that_nobody_chooses() {
    for protocol in [47, 50] {
        let mut w = world(OUT_ONLY);
        let there = out(PEER).protocol(protocol, &[0; 8]);
        let back = into_vm(PEER).protocol(protocol, &[0; 8]);
        w.sends(there.clone(), "rule g/r0");
        w.later(50);
        w.gets(back.clone(), "live g/r0");
        w.later(25);
        w.gets(back.clone(), "live g/r0");
        w.later(61);
        w.gets(back, "no-rule");
    }
}

#[test]
fn icmp_is_tracked_by_type_and_identifier() {
    let mut w = world(OUT_ONLY);
    w.sends(out(PEER).echo_request(7), "rule g/r0");
    w.gets(into_vm(PEER).echo_reply(7), "live g/r0");
    w.gets(into_vm(PEER).echo_reply(8), "no-rule");
    w.gets(into_vm(PEER).echo_reply(7).icmp_code(1), "no-rule");
    w.gets(into_vm(PEER).echo_request(7), "no-rule");
    w.gets(into_vm(PEER).icmp_query(14, 7, 0), "no-rule");
    w.sends(out(PEER6).echo_request(7), "rule g/r1");
    w.gets(into_vm(PEER6).echo_reply(7), "live g/r1");
}

#[test]
fn what_has_ports_that_it_cannot_see_is_not_tracked() {
    let mut w = world(OUT_ONLY);
    w.sends(out(PEER).sctp(9, 7), "rule g/r0");
    w.gets(into_vm(PEER).sctp(7, 9), "no-rule");
    w.sends(out(PEER).dccp(9, 7), "rule g/r0");
    w.gets(into_vm(PEER).dccp(7, 9), "no-rule");
    w.sends(out(PEER).udp_lite(9, 7), "rule g/r0");
    w.gets(into_vm(PEER).udp_lite(7, 9), "no-rule");
}

#[test]
fn damaged_packets_are_of_no_flow() {
    let mut w = connected();
    w.gets(from_peer(ACK).l4_checksum(7), "no-rule");
    w.gets(from_peer(ACK), "live g/r0");
    let udp = |port| out(PEER).udp(9, port);
    w.sends(udp(53).l4_checksum(7), "rule g/r0");
    w.gets(into_vm(PEER).udp(53, 9), "no-rule");
    // Without a checksum is fine in IPv4, and in IPv6 it is not.
    w.sends(udp(53).l4_checksum(0), "rule g/r0");
    w.gets(into_vm(PEER).udp(53, 9), "live g/r0");
    w.sends(out(PEER6).udp(9, 53).l4_checksum(0), "rule g/r1");
    w.gets(into_vm(PEER6).udp(53, 9), "no-rule");
    for length in [0, 7, 9, 100] {
        w.sends(udp(54).l4_length(length), "rule g/r0");
        w.gets(into_vm(PEER).udp(54, 9), "no-rule");
    }
    w.sends(udp(0), "rule g/r0");
    w.gets(into_vm(PEER).udp(0, 9), "no-rule");
    w.sends(out(PEER).echo_request(7).l4_checksum(1), "rule g/r0");
    w.gets(into_vm(PEER).echo_reply(7), "no-rule");
}

#[test]
fn an_error_about_an_entry_passes_while_the_entry_is_live() {
    let mut w = connected();
    let quoted = to_peer(ACK).packet();
    let error = |icmp_type, quoted: &[u8]| into_vm("192.0.2.9").icmp_error(icmp_type, 1, quoted);
    for icmp_type in [3, 11, 12] {
        w.gets(error(icmp_type, &quoted[..28]), "live g/r0");
    }
    w.gets(error(4, &quoted), "no-rule");
    w.gets(error(5, &quoted), "no-rule");
    w.gets(error(3, &quoted).l4_checksum(1), "no-rule");
    w.gets(error(3, &out(PEER).tcp(5000, 81, ACK).packet()), "no-rule");
    // It wants to see no fragment.
    let first = to_peer(ACK).fragment(1, 0, true).packet();
    w.gets(error(3, &first), "no-rule");
    w.rules(&["out tcp 81 any"]);
    w.gets(error(3, &quoted), "no-rule");
    w.rules(OUT_ONLY);
    w.gets(error(3, &quoted), "live g/r0");
}

#[test]
fn a_short_quote_in_ipv6_is_open() {
    let mut w = world(OUT_ONLY);
    w.sends(out(PEER6).tcp(5000, 80, SYN), "rule g/r1");
    let quoted = out(PEER6).tcp(5000, 80, SYN).packet();
    let error = |bytes: usize| into_vm(PEER6).icmp_error(1, 1, &quoted[..bytes]).bytes();
    w.leaves(Direction::Ingress, &error(60), "live g/r1", Open::No);
    w.leaves(Direction::Ingress, &error(59), "live g/r1", Open::Either);
}

#[test]
fn elision_runs_strict() {
    let mut w = World::with(
        OPEN_VSWITCH,
        Elision::On,
        &["in tcp 22 any", "out tcp any any"],
    );
    w.gets(into_vm(PEER).tcp(5, 22, SYN), "rule g/r0");
    let quoted = out(PEER).tcp(22, 5, SYN_ACK).packet();
    // Tracked, since errors are not permitted by rules.
    w.gets(into_vm(PEER).icmp_error(3, 1, &quoted), "live g/r0");
}

#[test]
fn what_an_address_sends_to_itself_is_open() {
    let mut w = world(&["out any any"]);
    w.sends(out(VM).udp(9, 10), "rule g/r0");
    let back = into_vm(VM).udp(10, 9).bytes();
    let seen = w.decide(Direction::Ingress, &back);
    assert_eq!(seen.open, Open::Either);
}

#[test]
fn fragments_may_be_dropped_and_leave_the_entry_in_doubt() {
    let mut w = world(OUT_ONLY);
    let datagram = out(PEER).udp(9, 53).payload(&[0; 64]).fragments(1, 32);
    let first = datagram[0].bytes();
    w.leaves(Direction::Egress, &first, "rule g/r0", Open::MayDrop);
    let reply = into_vm(PEER).udp(53, 9).bytes();
    w.leaves(Direction::Ingress, &reply, "no-rule", Open::Either);
    let extended = out(PEER6)
        .udp(9, 53)
        .extension(Extension::Destination(vec![]));
    w.leaves(
        Direction::Egress,
        &extended.bytes(),
        "rule g/r1",
        Open::MayDrop,
    );
}

#[test]
fn many_receive_what_starts_no_flow() {
    let mut w = world(OUT_ONLY);
    w.sends(out("224.0.0.251").udp(9, 53), "rule g/r0");
    w.gets(received("10.0.0.9", VM).udp(53, 9), "no-rule");
    let to_group_mac = out(PEER).udp(9, 53).dst_mac(MacAddr([1, 0, 0x5e, 0, 0, 1]));
    w.sends(to_group_mac, "rule g/r0");
    w.gets(into_vm(PEER).udp(53, 9), "no-rule");
}

#[test]
fn a_hold_is_kept() {
    let mut w = World::with(
        OPEN_VSWITCH,
        Elision::Strict,
        &["in any any", "out any any"],
    );
    w.rules(&["out any any"]);
    w.sends(to_peer(ACK), "rule g/r0");
    is_over(&mut w);
    w.sends(to_peer(SYN), "rule g/r0");
    w.gets(from_peer(SYN_ACK), "live g/r0");
}
