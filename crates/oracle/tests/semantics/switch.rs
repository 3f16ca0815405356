//! Section "Capabilities": what a switch that matches fields sees of a frame, and what it doesn't.

use crate::support::*;
use model::{Direction, Elision, MacAddr};
use portcullis_oracle::Open;
use wire::build::{self, Builder, Extension, Ip, SOURCE_LINK_LAYER, TARGET_LINK_LAYER};

const OTHER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 5]);
const NONCE: u8 = 14;

fn world(rules: &[&str]) -> World {
    World::with(OPEN_VSWITCH, Elision::Off, rules)
}

#[track_caller]
fn check(w: &mut World, frame: Builder<Ip>, expected: &str, open: Open) {
    w.leaves(Direction::Egress, &frame.bytes(), expected, open);
}

#[test]
fn of_solicitations_the_source_option_is_seen() {
    let mut w = world(&[]);
    let ns = || out(PEER6).neighbour_solicitation(v6(PEER6));
    let (fine, dropped) = ("infrastructure", "spoofed-nd");
    check(&mut w, ns(), fine, Open::No);
    let own = || ns().nd_link_layer(SOURCE_LINK_LAYER, VM_MAC);
    check(&mut w, own(), fine, Open::No);
    check(&mut w, own().nd_option(NONCE, &[0; 6]), fine, Open::No);
    check(&mut w, own().nd_option(NONCE, &[0; 14]), fine, Open::No);
    let spoofed = ns().nd_link_layer(SOURCE_LINK_LAYER, OTHER_MAC);
    check(&mut w, spoofed, dropped, Open::No);
    let twice = own().nd_link_layer(SOURCE_LINK_LAYER, VM_MAC);
    check(&mut w, twice, dropped, Open::No);
    // Zeros are taken for none.
    let zeros = ns().nd_link_layer(SOURCE_LINK_LAYER, MacAddr([0; 6]));
    check(&mut w, zeros, dropped, Open::Either);
    check(
        &mut w,
        own().append(&[NONCE, 0, 0, 0, 0, 0, 0, 0]),
        dropped,
        Open::Either,
    );
    check(
        &mut w,
        own().append(&[NONCE, 9, 0, 0, 0, 0, 0, 0]),
        dropped,
        Open::Either,
    );
    check(&mut w, own().append(&[NONCE]), dropped, Open::Either);
    let unfitting = own().nd_link_layer(TARGET_LINK_LAYER, OTHER_MAC);
    check(&mut w, unfitting, dropped, Open::Either);
    let long = ns().nd_option(SOURCE_LINK_LAYER, &[9; 14]);
    check(&mut w, long, dropped, Open::Either);
    let many = (0..65).fold(ns(), |ns, _| ns.nd_option(NONCE, &[0; 6]));
    check(&mut w, many, dropped, Open::Either);
    let for_none = out(PEER6).neighbour_solicitation(v6("::"));
    check(&mut w, for_none, dropped, Open::No);
    check(&mut w, own().hops(254), dropped, Open::No);
    let probe = sent("::", "ff02::1:ff00:1").neighbour_solicitation(v6(VM6));
    check(&mut w, probe, fine, Open::No);
    let probe = sent("::", "ff02::1:ff00:9").neighbour_solicitation(v6(PEER6));
    check(&mut w, probe, dropped, Open::No);
}

#[test]
fn of_advertisements_the_target_option_is_seen() {
    let mut w = world(&[]);
    let na = || out(PEER6).neighbour_advertisement(v6(VM6));
    let own = na().nd_link_layer(TARGET_LINK_LAYER, VM_MAC);
    check(&mut w, own, "infrastructure", Open::No);
    let spoofed = na().nd_link_layer(TARGET_LINK_LAYER, OTHER_MAC);
    check(&mut w, spoofed, "spoofed-nd", Open::No);
    let unfitting = na().nd_link_layer(SOURCE_LINK_LAYER, OTHER_MAC);
    check(&mut w, unfitting, "spoofed-nd", Open::Either);
    let foreign = out(PEER6).neighbour_advertisement(v6(PEER6));
    check(&mut w, foreign, "spoofed-nd", Open::No);
}

#[test]
fn of_router_messages_no_option_is_seen() {
    let mut w = world(&[]);
    let rs = || out("ff02::2").router_solicitation();
    check(&mut w, rs(), "infrastructure", Open::No);
    let spoofed = rs().nd_link_layer(SOURCE_LINK_LAYER, OTHER_MAC);
    check(&mut w, spoofed, "spoofed-nd", Open::Either);
    let foreign = sent(PEER6, "ff02::2").router_solicitation();
    check(&mut w, foreign, "spoofed-nd", Open::No);
    let ra = || out("ff02::1").router_advertisement();
    check(&mut w, ra(), "rogue-ra", Open::No);
    w.edit_port(|p| p.router = true);
    let of_whomever = ra().nd_link_layer(SOURCE_LINK_LAYER, OTHER_MAC);
    check(&mut w, of_whomever, "infrastructure", Open::No);
}

#[test]
fn igmp_is_known_by_its_destination() {
    let mut w = world(&["in 2 any"]);
    let all_systems = || out("224.0.0.1").hops(1).igmp(0x16);
    check(&mut w, all_systems(), "rogue-query", Open::No);
    let group = || out("224.0.0.9").hops(1);
    check(&mut w, group().igmp(0x16), "infrastructure", Open::No);
    check(&mut w, group().igmp(0x11), "infrastructure", Open::No);
    check(&mut w, group().hops(2).igmp(0x16), "no-rule", Open::No);
    let foreign = sent(PEER, "224.0.0.9").hops(1).igmp(0x16);
    check(&mut w, foreign, "spoofed-ip", Open::No);
    w.gets(received(PEER, "224.0.0.1").igmp(0x16), "infrastructure");
    w.gets(received(PEER, "224.0.0.9").igmp(0x11), "rule g/r0");
}

#[test]
fn what_a_mac_derives_is_somebody_elses() {
    let mut w = world(&["out6 any any"]);
    let own = VM_MAC.eui64_link_local().to_string();
    let from = |address: &str| sent(address, PEER6).udp(1, 2);
    check(&mut w, from(&own), "rule g/r0", Open::No);
    check(&mut w, from("fe80::ff:fe00:77"), "spoofed-ip", Open::No);
    check(&mut w, from("fe80::77"), "rule g/r0", Open::No);
    w.edit_port(|p| p.fixed_addresses.extend([address("fe80::ff:fe00:77")]));
    check(&mut w, from("fe80::ff:fe00:77"), "rule g/r0", Open::No);
    let foreign = received(PEER6, "fe80::ff:fe00:78").udp(1, 2);
    w.gets(foreign, "foreign-destination");
}

#[test]
fn headers_that_are_cut_or_lie_are_open() {
    let mut w = world(&["in any any", "out any any", "out6 any any"]);
    let cut = out(PEER).tcp(5, 80, SYN).cut(40);
    check(&mut w, cut.ip_length(26), "bad-header", Open::Either);
    let version = out(PEER).tcp(5, 80, SYN).version(5);
    check(&mut w, version, "bad-header", Open::Either);
    let chain = (0..7).fold(out(PEER6).udp(1, 2), |packet, _| {
        packet.extension(Extension::Destination(vec![]))
    });
    check(&mut w, chain, "bad-header", Open::Either);
    let short = build::ethernet(0x0806, &[0; 20]).macs(PEER_MAC, VM_MAC);
    w.leaves(
        Direction::Ingress,
        &short.bytes(),
        "bad-header",
        Open::Either,
    );
    w.leaves(Direction::Ingress, &[0; 13], "bad-header", Open::No);
    // It looks as if its header were cut short.
    check(&mut w, out(PEER).udp(0, 0), "rule g/r1", Open::MayDrop);
    check(&mut w, out(PEER).tcp(0, 0, 0), "rule g/r1", Open::MayDrop);
    check(&mut w, out(PEER).tcp(0, 0, ACK), "rule g/r1", Open::No);
    // Without a length nothing of it is seen, not even that it is an advertisement.
    let hidden = out("ff02::1").router_advertisement().ip_length(0);
    check(&mut w, hidden, "rogue-ra", Open::Either);
    let elsewhere = out(PEER).udp(1, 2).src_mac(OTHER_MAC).ip_length(0);
    check(&mut w, elsewhere, "spoofed-mac", Open::MayDrop);
}

#[test]
fn a_snap_header_is_looked_through() {
    let mut w = world(&["out any any"]);
    let inner = out(PEER).udp(9, 53).packet();
    let snap = |oui: u8| {
        let header = [0xaa, 0xaa, 3, 0, 0, oui, 8, 0];
        let length = u16::try_from(header.len() + inner.len()).expect("it is short");
        build::ethernet(length, &[&header, inner.as_slice()].concat()).macs(VM_MAC, PEER_MAC)
    };
    let frame = snap(0).bytes();
    w.leaves(Direction::Egress, &frame, "ethertype", Open::Either);
    // What it did to a flow, nobody knows.
    let reply = into_vm(PEER).udp(53, 9).bytes();
    w.leaves(Direction::Ingress, &reply, "no-rule", Open::Either);
    w.leaves(Direction::Egress, &snap(12).bytes(), "ethertype", Open::No);
}
