//! "Fragments".

use crate::support::*;
use model::{Capabilities, Direction, Elision};
use portcullis_oracle::Open;
use wire::build::{Builder, Ip};

fn first(id: u32, l4_port: u16) -> Builder<Ip> {
    // 8 bytes of header and 16 more.
    into_vm(PEER)
        .udp(9, l4_port)
        .payload(&[0; 16])
        .fragment(id, 0, true)
}

fn later(id: u32, offset: u32) -> Builder<Ip> {
    into_vm(PEER)
        .protocol(17, &[0; 8])
        .fragment(id, offset, false)
}

fn world() -> World {
    World::new(&["in udp 53 any", "in6 udp 53 any"])
}

#[test]
fn later_fragments_get_the_verdict_of_the_first() {
    let mut w = world();
    w.gets(later(1, 24), "orphan-fragment");
    w.gets(first(1, 53), "rule g/r0");
    w.gets(later(1, 24), "fragment");
    w.gets(later(1, 800), "fragment");
    w.gets(later(2, 24), "orphan-fragment");
    w.gets(first(3, 54), "no-rule");
    w.gets(later(3, 24), "orphan-fragment");
}

#[test]
fn an_overlap_with_the_first_is_bad() {
    let mut w = world();
    w.gets(first(1, 53), "rule g/r0");
    w.gets(later(1, 16), "bad-fragment");
    w.gets(later(1, 8), "bad-fragment");
    w.gets(later(1, 24), "fragment");
}

#[test]
fn the_newest_first_fragment_says_where_it_ends() {
    let mut w = world();
    w.gets(first(1, 53), "rule g/r0");
    w.gets(first(1, 53).payload(&[0; 32]), "rule g/r0");
    w.gets(later(1, 24), "bad-fragment");
    w.gets(later(1, 40), "fragment");
}

#[test]
fn a_first_fragment_holds_its_headers() {
    let mut w = World::new(&["in any any"]);
    w.gets(
        into_vm(PEER)
            .tcp(1, 2, SYN)
            .fragment(1, 0, true)
            .cut(14 + 20 + 19),
        "bad-fragment",
    );
    w.gets(
        into_vm(PEER).tcp(1, 2, SYN).fragment(1, 0, true),
        "rule g/r0",
    );
}

#[test]
fn fragments_of_ipv6() {
    let mut w = world();
    let datagram = into_vm(PEER6).udp(9, 53).payload(&[0; 40]);
    let [first, second, third] = &datagram.fragments(7, 16)[..] else {
        panic!("48 bytes make three fragments");
    };
    w.gets(second.clone(), "orphan-fragment");
    w.gets(first.clone(), "rule g/r1");
    w.gets(third.clone(), "fragment");
    w.gets(second.clone(), "fragment");
    // Other fragments may name another next header: it is not part of the name.
    let other = into_vm(PEER6).protocol(6, &[0; 8]).fragment(7, 48, false);
    w.gets(other, "fragment");
    // An atomic fragment is a whole packet.
    w.gets(into_vm(PEER6).udp(9, 53).fragment(8, 0, false), "rule g/r1");
    w.gets(into_vm(PEER6).udp(9, 54).fragment(8, 0, false), "no-rule");
}

#[test]
fn the_name_is_addresses_direction_id_and_protocol() {
    let mut w = World::new(&["in udp 53 any", "out udp 53 any"]);
    w.gets(first(1, 53), "rule g/r0");
    w.gets(
        into_vm(PEER).protocol(6, &[0; 8]).fragment(1, 24, false),
        "orphan-fragment",
    );
    w.gets(
        into_vm("10.0.0.8")
            .protocol(17, &[0; 8])
            .fragment(1, 24, false),
        "orphan-fragment",
    );
    w.sends(
        out(PEER).protocol(17, &[0; 8]).fragment(1, 24, false),
        "orphan-fragment",
    );
    w.gets(later(1, 24), "fragment");
}

#[test]
fn a_dropped_first_fragment_takes_the_datagram_with_it() {
    let mut w = world();
    w.gets(first(1, 53), "rule g/r0");
    w.gets(first(1, 54), "no-rule");
    w.gets(later(1, 24), "orphan-fragment");
    // Not if the guard drops it.
    w.gets(first(1, 53), "rule g/r0");
    w.gets(
        received("10.0.0.255", VM).udp(9, 53).fragment(1, 0, true),
        "martian",
    );
    w.gets(later(1, 24), "fragment");
}

#[test]
fn first_fragments_of_infrastructure_are_remembered() {
    let mut w = world();
    let request = out("10.0.0.2").dhcp_client(VM_MAC);
    let [first, second] = &request.fragments(4, 160)[..] else {
        panic!("a request makes two fragments");
    };
    w.sends(first.clone(), "infrastructure");
    w.sends(second.clone(), "fragment");
}

#[test]
fn a_datagram_is_remembered_for_30_s() {
    for (idle, expected, open) in [
        (27, "fragment", false),
        (30, "fragment", true),
        (31, "orphan-fragment", true),
        (61, "orphan-fragment", false),
    ] {
        let mut w = world();
        w.gets(first(1, 53), "rule g/r0");
        w.later(idle);
        let seen = w.decide(Direction::Ingress, &later(1, 24).bytes());
        assert_eq!(
            (text(&seen.verdict).as_str(), seen.open == Open::Either),
            (expected, open),
            "{idle}"
        );
    }
}

#[test]
fn a_port_remembers_the_64_datagrams_that_passed_last() {
    let mut w = world();
    for id in 0..64 {
        w.gets(first(id, 53), "rule g/r0");
    }
    w.gets(later(0, 24), "fragment");
    w.gets(first(64, 53), "rule g/r0");
    w.gets(later(0, 24), "orphan-fragment");
    w.gets(later(1, 24), "fragment");
    // One that passes again counts again.
    w.gets(first(64, 53), "rule g/r0");
    w.gets(later(1, 24), "orphan-fragment");
}

#[test]
fn fragment_state_is_apart_from_flows() {
    let mut w = World::new(&["in udp 53 any", "out udp any any"]);
    w.gets(first(1, 53), "rule g/r0");
    assert_eq!(w.flows(), 0, "elided");
    w.gets(later(1, 24), "fragment");
    w.rules(&[]);
    w.gets(later(1, 24), "fragment");
}

#[test]
fn a_plane_that_reassembles_may_deliver_orphans() {
    let capabilities = Capabilities {
        fragment_verdict: false,
        ..Capabilities::ALL
    };
    let mut w = World::with(capabilities, Elision::On, &["in udp 53 any"]);
    let left = |w: &mut World| w.decide(Direction::Ingress, &later(1, 24).bytes()).open;
    assert_eq!(left(&mut w), Open::Either);
    w.gets(first(1, 53), "rule g/r0");
    // All pieces of a datagram wait for the last of them.
    assert_eq!(left(&mut w), Open::MayDrop);
    assert_eq!(left(&mut world()), Open::No);
}
