//! What packets can be besides a plain part of a conversation: dressed up, in pieces, damaged,
//! spoofed, errors about others, and plain junk.

use super::dice::Dice;
use super::inventory::address_of;
use super::scene::{GATEWAY, Local, Scene, next_to};
use super::talk::Talk;
use model::{Direction, Family, MacAddr};
use std::net::IpAddr;
use wire::TcpFlags;
use wire::build::{self, Builder, Extension, Ip};

/// As it is, mostly.
pub(super) fn decorated(dice: &mut Dice, packet: Builder<Ip>, family: Family) -> Builder<Ip> {
    if dice.chance(75) {
        return packet;
    }
    match dice.below(12) {
        0..=2 => with_headers(dice, packet, family),
        3 => packet.ip_length(0),
        4 => packet.payload(&[0xa5; 40]).pad_to(120),
        5 => packet.trailer(&[0x77; 9]),
        6 => packet.dst_mac(*dice.pick(&[
            MacAddr::BROADCAST,
            MacAddr([1, 0, 0x5e, 0, 0, 5]),
            MacAddr([0x33, 0x33, 0, 0, 0, 1]),
        ])),
        7 => packet.src_mac(*dice.pick(&[
            GATEWAY,
            MacAddr([0x02, 0xaa, 0, 0, 0, 1]),
            MacAddr([0x52, 0x54, 0, 0, 0, 2]),
            MacAddr([0x52, 0x54, 0, 0, 0, 1]),
        ])),
        8 => packet.ip_length(*dice.pick(&[1, 19, 20, 24, 28, 39, 40, 41, 60, 65_535])),
        9 => match dice.below(4) {
            0 => packet.version(*dice.pick(&[4, 5, 6])),
            1 => packet.header_words(*dice.pick(&[0, 4, 6, 15])),
            2 => packet.tag(*dice.pick(&[0x8100, 0x88a8]), *dice.pick(&[0, 5])),
            _ => packet.hops(*dice.pick(&[0, 1, 255])),
        },
        10 if dice.chance(50) => packet.fragment(9, 0, false),
        // Behind a first fragment's header, more of them: its length is what its datagram has.
        10 => with_headers(dice, packet.fragment(9, 0, true), family),
        _ => packet
            .identification(0xffff)
            .traffic_class(0xff)
            .dont_fragment(),
    }
}

/// IPv6 extension headers, or IPv4 options: fine ones, too many, and forbidden ones.
fn with_headers(dice: &mut Dice, mut packet: Builder<Ip>, family: Family) -> Builder<Ip> {
    if family == Family::V4 {
        let options: [&[u8]; 10] = [
            &[1, 1, 1, 1],
            &[148, 4, 0, 0],
            &[0, 131, 3, 4],
            &[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0],
            &[131, 7, 4, 10, 0, 0, 9],
            &[1, 137, 7, 4, 10, 0, 0, 9],
            &[130, 0, 0, 0],
            &[130, 1, 0, 0],
            &[130, 5, 0, 0],
            &[1, 1, 1, 130],
        ];
        return packet.options(dice.pick::<&[u8]>(&options));
    }
    for i in 0..1 + dice.below(3) {
        let header = match dice.below(10) {
            0..=1 if i == 0 => Extension::HopByHop(vec![5, 2, 0, 0]),
            0..=3 => Extension::Destination(vec![1; dice.below(20)]),
            4..=5 => Extension::Routing {
                kind: *dice.pick(&[0, 2, 3, 4]),
                segments_left: dice.weighted(&[(3, 0), (1, 1)]),
                data: vec![0; 16],
            },
            6 => Extension::Authentication(vec![7; 12]),
            7 => Extension::Destination(vec![0; *dice.pick(&[200, 246, 247, 254])]),
            8 => Extension::Raw {
                kind: *dice.pick(&[0, 43, 44, 51, 60]),
                bytes: (0..8).map(|_| *dice.pick(&[0, 0, 1, 2, 255])).collect(),
            },
            _ => Extension::Fragment {
                id: 9,
                offset: 0,
                more: false,
            },
        };
        packet = packet.extension(header);
    }
    if dice.chance(15) {
        // As many as may be, or one more.
        for _ in 0..4 + dice.below(3) {
            packet = packet.extension(Extension::Destination(Vec::new()));
        }
    }
    packet
}

/// A datagram of the talk in pieces: in order, shuffled, overlapping, without its beginning.
pub(super) fn fragments(dice: &mut Dice, talk: &Talk) -> (Direction, Vec<Vec<u8>>) {
    let step = talk.odd_step(dice);
    let direction = talk.direction(step);
    let mut datagram = talk.packet(step).payload(&[0x42; 64]);
    if talk.family() == Family::V6 && dice.chance(10) {
        datagram = datagram.extension(Extension::Destination(vec![]));
    }
    let id = *dice.pick(&[0, 1, 7, 0xffff]);
    let size = *dice.pick(&[8, 16, 24, 24, 32, 32, 48]);
    let mut pieces: Vec<Vec<u8>> = datagram
        .fragments(id, size)
        .iter()
        .map(Builder::bytes)
        .collect();
    match dice.below(12) {
        0..=4 => {}
        5 => pieces.reverse(),
        6 => {
            pieces.remove(0);
        }
        7 => pieces.truncate(1),
        8 => {
            // One that reaches into the first.
            let offset = *dice.pick(&[8, 16, 24]);
            let over = raw_fragment(talk, direction, id, offset, true, 24);
            pieces.insert(1.min(pieces.len()), over);
        }
        9 => {
            let over = raw_fragment(talk, direction, id, 65_528, false, *dice.pick(&[7, 8]));
            pieces.push(over);
        }
        10 => {
            // Nothing in it but its place.
            pieces.push(raw_fragment(talk, direction, id, 64, false, 0));
            pieces.push(raw_fragment(
                talk,
                direction,
                id,
                0,
                true,
                *dice.pick(&[0, 4, 8, 20]),
            ));
        }
        _ => {
            // More datagrams than a port remembers.
            if dice.chance(10) {
                let many = 2..68;
                let firsts = many.map(|id| datagram.fragments(id, size)[0].bytes());
                pieces.splice(1..1, firsts);
            }
        }
    }
    (direction, pieces)
}

fn raw_fragment(
    talk: &Talk,
    direction: Direction,
    id: u32,
    offset: u32,
    more: bool,
    length: usize,
) -> Vec<u8> {
    let whole = talk.packet(talk.step_towards(direction)).bytes();
    let protocol = match wire::parse(&whole).map(|f| f.body) {
        Ok(wire::Body::Ip(Ok(packet))) => packet.protocol,
        Ok(_) | Err(_) => wire::PROTOCOL_UDP,
    };
    let piece = talk.addressed(direction).fragment(id, offset, more);
    piece.protocol(protocol, &vec![0x24; length]).bytes()
}

/// An ICMP error about a packet of the talk, or about something like it.
pub(super) fn error(dice: &mut Dice, scene: &Scene, talk: &Talk) -> (Direction, Vec<u8>) {
    let family = talk.family();
    let types: &[(u8, u8)] = match family {
        Family::V4 => &[
            (3, 4),
            (3, 3),
            (3, 1),
            (11, 0),
            (12, 0),
            (3, 13),
            (4, 0),
            (5, 1),
        ],
        Family::V6 => &[
            (1, 4),
            (2, 0),
            (3, 0),
            (4, 1),
            (1, 0),
            (5, 0),
            (100, 0),
            (127, 0),
        ],
    };
    let usual = dice.chance(75);
    let (icmp_type, code) = if usual {
        types[dice.below(4)]
    } else {
        *dice.pick(types)
    };
    let direction = *dice.pick(&Direction::BOTH);
    let quoted_step = match dice.below(4) {
        0 => talk.first_step(),
        1 => talk.odd_step(dice),
        _ => talk.step_towards(direction),
    };
    let quoted_direction = talk.direction(quoted_step);
    let mut direction = quoted_direction.opposite();
    let mut quoted = talk.packet(quoted_step).payload(&[0x99; 32]);
    if dice.chance(6) {
        quoted = with_headers(dice, quoted, family);
    }
    let (src, dst) = match quoted_direction {
        Direction::Egress => (talk.local.address, talk.remote),
        Direction::Ingress => (talk.remote, talk.local.address),
    };
    let mut bytes = match dice.below(24) {
        0 => quoted.fragment(5, 0, true).packet(),
        1 => quoted.fragment(5, 64, true).packet(),
        // About an error.
        2 => quoted.icmp_error(icmp_type, code, &[0x45; 28]).packet(),
        3 => quoted.ip_length(1_500).packet(),
        4 => quoted
            .ip_length(*dice.pick(&[0, 20, 27, 28, 47, 48]))
            .packet(),
        // The wrong way round, and about somebody else.
        5 => build::ip(dst, src).tcp(443, 40_000, TcpFlags::ACK).packet(),
        6 => build::ip(next_to(dice, src), dst).udp(53, 53).packet(),
        7 => build::ip(src, next_to(dice, dst)).udp(53, 53).packet(),
        _ => quoted.packet(),
    };
    let header = match family {
        Family::V4 => 20,
        Family::V6 => 40,
    };
    match dice.below(12) {
        0..=2 => bytes.truncate(header + 8),
        3 => bytes.truncate(header + dice.below(9)),
        4 => bytes.truncate(dice.below(bytes.len())),
        5 if dice.chance(50) => damage(dice, &mut bytes),
        _ => {}
    }
    if dice.chance(4) {
        direction = quoted_direction;
    }
    let builder = match direction {
        Direction::Ingress => {
            let from = match dice.below(3) {
                0 => talk.remote,
                _ => scene.any_address(dice, family),
            };
            let to = if dice.chance(4) {
                talk.remote
            } else {
                talk.local.address
            };
            build::ip(from, to).macs(GATEWAY, talk.port_mac())
        }
        Direction::Egress => {
            let other = scene.any_address(dice, family);
            let to = if dice.chance(4) { other } else { talk.remote };
            build::ip(talk.local.address, to).macs(talk.local.mac, GATEWAY)
        }
    };
    let mut builder = builder.icmp_error(icmp_type, code, &bytes);
    if dice.chance(5) {
        builder = with_headers(dice, builder, family);
    }
    (direction, builder.bytes())
}

/// From addresses that aren't the port's, to addresses that aren't, and those that mean something
/// by themselves.
pub(super) fn spoofed(
    dice: &mut Dice,
    scene: &Scene,
    port: &Local,
    direction: Direction,
) -> Vec<u8> {
    let family = *dice.pick(&Family::BOTH);
    let special: &[&str] = match family {
        Family::V4 => &[
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "223.255.255.255",
            "240.0.0.1",
            "169.254.7.7",
        ],
        Family::V6 => &[
            "::",
            "::1",
            "ff02::1",
            "ff0e::7",
            "fe80::1",
            "fe80::77",
            "fe80::5",
            "febf::ffff",
            "fec0::1",
            "::ffff:10.0.0.1",
        ],
    };
    let own = port.any_own(dice, family);
    let mut choose = |likely_own: usize| -> IpAddr {
        let subnet_end = port.last_of_subnet(family);
        match (own, subnet_end, dice.below(10)) {
            (Some(own), _, _) if dice.chance(likely_own) => own.address,
            (Some(own), _, 0..=1) => next_to(dice, own.address),
            (_, Some(end), 2..=3) => end,
            (_, Some(end), 4) => next_to(dice, end),
            (_, _, 5..=6) => scene.any_address(dice, family),
            _ => address_of(dice, special),
        }
    };
    let (from_own, to_own) = match direction {
        Direction::Egress => (30, 3),
        Direction::Ingress => (3, 55),
    };
    let (src, dst) = (choose(from_own), choose(to_own));
    let mac = own.map_or(port.mac, |own| own.mac);
    let packet = build::ip(src, dst);
    // The MAC of a multicast or broadcast address is the builder's to give.
    let is_many = match dst {
        IpAddr::V4(a) => a.is_multicast() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_multicast(),
    };
    let packet = match direction {
        Direction::Egress if is_many => packet.src_mac(mac),
        Direction::Ingress if is_many => packet.src_mac(GATEWAY),
        Direction::Egress => packet.macs(mac, GATEWAY),
        Direction::Ingress => packet.macs(GATEWAY, port.mac),
    };
    let packet = match dice.below(6) {
        0 => packet.tcp(40_000, 443, TcpFlags::SYN),
        1..=2 => packet.udp(*dice.pick(&[53, 68, 67]), *dice.pick(&[53, 67, 68, 443])),
        3 => packet.echo_request(1),
        4 => packet.protocol(*dice.pick(&[47, 2, 255]), &[0; 8]),
        _ => packet.fragment(3, 64, false).protocol(17, &[0; 8]),
    };
    packet.bytes()
}

/// A bit turned, a byte replaced, an end lost.
pub(super) fn damage(dice: &mut Dice, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = dice.below(bytes.len());
    match dice.below(5) {
        0..=1 => bytes[at] ^= 1 << dice.below(8),
        2 => bytes[at] = *dice.pick(&[0, 1, 0x7f, 0x80, 0xff]),
        3 => bytes.truncate(at),
        _ => bytes.resize(bytes.len() + 1 + dice.below(20), 0xee),
    }
}

pub(super) fn junk(dice: &mut Dice) -> Vec<u8> {
    let length = dice.below(90);
    let mut bytes: Vec<u8> = (0..length).map(|_| dice.byte()).collect();
    if let Some(ethertype) = bytes.get_mut(12..14) {
        let kinds = [[0x08, 0x00], [0x86, 0xdd], [0x08, 0x06]];
        ethertype.copy_from_slice(dice.pick::<[u8; 2]>(&kinds));
    }
    if let Some(version) = bytes.get_mut(14) {
        *version = *dice.pick(&[0x45, 0x60, 0x46, 0x4f, 0x00]);
    }
    bytes
}
