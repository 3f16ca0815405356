//! Exact bytes, and every bound from both sides.

use super::*;
use BadPacket::{Fragment as BadFragment, Header as BadHeader};

/// An IPv4 packet: options, what the fragment word says, protocol, payload. Lengths are right.
fn v4(options: &[u8], fragment_word: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    assert_eq!(header % 4, 0);
    let total = u16::try_from(header + payload.len()).unwrap_or(0);
    let mut b = vec![0x40 | u8::try_from(header / 4).expect("fits"), 0];
    b.extend(total.to_be_bytes());
    b.extend([0x12, 0x34]);
    b.extend(fragment_word.to_be_bytes());
    b.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    b.extend(options);
    b.extend(payload);
    b
}

/// An IPv6 packet from 2001:db8::1 to 2001:db8::2; the length is right.
fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut b = vec![0x60, 0, 0, 0];
    b.extend(u16::try_from(payload.len()).unwrap_or(0).to_be_bytes());
    b.extend([next, 64]);
    for last in [1, 2] {
        b.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    b.extend(payload);
    b
}

fn framed(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut b = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    b.extend(ethertype.to_be_bytes());
    b.extend(packet);
    b
}

fn ip(packet: &[u8]) -> Result<Packet<'_>, BadPacket> {
    match packet[0] >> 4 {
        4 => ipv4(packet, Transport::Whole),
        _ => ipv6(packet, Transport::Whole),
    }
}

/// Protocol, fragment, transport header and the payload's length.
fn check(packet: &[u8], expected: Result<(u8, Fragment, L4, usize), BadPacket>) {
    let seen = ip(packet).map(|p| (p.protocol, p.fragment, p.l4, p.payload.len()));
    assert_eq!(seen, expected, "{packet:02x?}");
}

fn check_bad(packet: &[u8], expected: BadPacket) {
    check(packet, Err(expected));
}

const UDP: [u8; 8] = [0x9c, 0x40, 0, 53, 0, 8, 0, 0];
const UDP_PORTS: L4 = L4::Ported {
    src: 40_000,
    dst: 53,
};
const WHOLE_UDP: Result<(u8, Fragment, L4, usize), BadPacket> =
    Ok((17, Fragment::Whole, UDP_PORTS, 8));

#[test]
fn a_frame_has_14_bytes() {
    assert_eq!(parse(&[0; 13]), Err(TooShort));
    let frame = framed(0x88cc, &[]);
    let expected = Frame {
        dst: MacAddr([2, 0, 0, 0, 0, 2]),
        src: MacAddr([2, 0, 0, 0, 0, 1]),
        ethertype: 0x88cc,
        body: Body::Other,
    };
    assert_eq!(parse(&frame), Ok(expected));
}

#[test]
fn the_ethertype_says_what_the_body_is() {
    for tag in [0x8100, 0x88a8, 0x9100] {
        let frame = framed(tag, &[0, 0, 8, 0]);
        assert_eq!(parse(&frame).map(|f| f.body), Ok(Body::Tagged));
    }
    let packet = v4(&[], 0, 17, &UDP);
    let as_v6 = framed(0x86dd, &packet);
    assert_eq!(
        parse(&as_v6).map(|f| f.body),
        Ok(Body::Ip(Err(BadHeader))),
        "a wrong version"
    );
    let as_v4 = framed(0x0800, &v6(17, &UDP));
    assert_eq!(parse(&as_v4).map(|f| f.body), Ok(Body::Ip(Err(BadHeader))));
    let length = framed(0x05dc, &packet);
    assert_eq!(parse(&length).map(|f| f.body), Ok(Body::Other));
}

#[test]
fn arp_has_28_bytes() {
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 2];
    bytes.extend([2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2]);
    let expected = Arp {
        header: (1, 0x0800, 6, 4),
        opcode: 2,
        sender_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        sender_ip: Ipv4Addr::new(10, 0, 0, 1),
        target_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        target_ip: Ipv4Addr::new(10, 0, 0, 2),
    };
    for ethertype in [0x0806, 0x8035] {
        let frame = framed(ethertype, &bytes);
        let body = parse(&frame).map(|f| f.body);
        assert_eq!(body, Ok(Body::Arp(Some(expected))));
    }
    let cut = framed(0x0806, &bytes[..27]);
    assert_eq!(parse(&cut).map(|f| f.body), Ok(Body::Arp(None)));
}

#[test]
fn the_ip_length_ends_the_packet_unless_the_frame_does() {
    let mut padded = v4(&[], 0, 17, &UDP);
    padded.extend([0; 10]);
    check(&padded, WHOLE_UDP);
    padded[2..4].copy_from_slice(&[0, 0]);
    check(&padded, Ok((17, Fragment::Whole, UDP_PORTS, 18)));
    padded[2..4].copy_from_slice(&[0xff, 0xff]);
    check(&padded, Ok((17, Fragment::Whole, UDP_PORTS, 18)));
    padded[2..4].copy_from_slice(&[0, 27]);
    check_bad(&padded, BadHeader);

    let mut padded = v6(17, &UDP);
    padded.extend([0; 10]);
    check(&padded, WHOLE_UDP);
    padded[4..6].copy_from_slice(&[0, 0]);
    check(&padded, Ok((17, Fragment::Whole, UDP_PORTS, 18)));
    padded[4..6].copy_from_slice(&[0, 7]);
    check_bad(&padded, BadHeader);
}

#[test]
fn ipv4_header_lengths() {
    let good = v4(&[], 0, 99, &[]);
    check(&good, Ok((99, Fragment::Whole, L4::Opaque, 0)));
    check_bad(&good[..19], BadHeader);
    let mut short = good.clone();
    short[0] = 0x44;
    check_bad(&short, BadHeader);
    let mut long = good.clone();
    long[0] = 0x46;
    check_bad(&long, BadHeader);
    let mut total = v4(&[1, 1, 1, 1], 0, 99, &[]);
    check(&total, Ok((99, Fragment::Whole, L4::Opaque, 0)));
    total[3] = 23;
    check_bad(&total, BadHeader);
}

#[test]
fn ipv4_options_are_walked_to_their_end() {
    check(&v4(&[1, 1, 1, 1], 0, 17, &UDP), WHOLE_UDP);
    check(&v4(&[7, 4, 4, 0], 0, 17, &UDP), WHOLE_UDP);
    check(&v4(&[7, 2, 148, 2], 0, 17, &UDP), WHOLE_UDP);
    // Behind the end of options nothing counts.
    check(&v4(&[0, 131, 3, 4], 0, 17, &UDP), WHOLE_UDP);
    check(&v4(&[1; 40], 0, 17, &UDP), WHOLE_UDP);
    for bad in [
        [7, 0, 0, 0],
        [7, 1, 0, 0],
        [7, 5, 4, 0],
        [1, 1, 1, 7],
        [131, 3, 4, 0],
        [137, 3, 4, 0],
        [1, 131, 3, 4],
    ] {
        check_bad(&v4(&bad, 0, 17, &UDP), BadHeader);
    }
}

#[test]
fn transport_headers_have_lengths() {
    let bytes = [0x11; 20];
    let ports = L4::Ported {
        src: 0x1111,
        dst: 0x1111,
    };
    let tcp = L4::Tcp {
        src: 0x1111,
        dst: 0x1111,
        flags: TcpFlags(0x11),
    };
    let icmp = L4::Icmp {
        icmp_type: 0x11,
        code: 0x11,
        identifier: 0x1111,
    };
    let none = L4::Opaque;
    for (protocol, length, v4_l4, v6_l4) in [
        (6, 20, tcp, tcp),
        (17, 8, ports, ports),
        (136, 8, ports, ports),
        (132, 12, ports, ports),
        (33, 12, ports, ports),
        (1, 8, icmp, none),
        (58, 8, none, icmp),
        (50, 0, none, none),
        (59, 0, none, none),
    ] {
        for (packet, l4) in [
            (v4(&[], 0, protocol, &bytes[..length]), v4_l4),
            (v6(protocol, &bytes[..length]), v6_l4),
        ] {
            check(&packet, Ok((protocol, Fragment::Whole, l4, length)));
        }
        if length > 0 {
            let cut = &bytes[..length - 1];
            for (packet, l4) in [
                (v4(&[], 0, protocol, cut), v4_l4),
                (v6(protocol, cut), v6_l4),
            ] {
                match l4 {
                    L4::Opaque => check(&packet, Ok((protocol, Fragment::Whole, l4, length - 1))),
                    _ => check_bad(&packet, BadHeader),
                }
            }
        }
    }
}

#[test]
fn ipv4_fragments() {
    const ID: u32 = 0x1234;
    check(&v4(&[], 0x4000, 17, &UDP), WHOLE_UDP);
    let first = Fragment::First { id: ID, end: 8 };
    check(&v4(&[], 0x2000, 17, &UDP), Ok((17, first, UDP_PORTS, 8)));
    check_bad(&v4(&[], 0x2000, 17, &UDP[..7]), BadFragment);
    check_bad(&v4(&[], 0x2000, 6, &[0; 19]), BadFragment);
    check_bad(&v4(&[131, 3, 4, 0], 0x2000, 6, &[0; 20]), BadHeader);
    let later = |offset| Ok((17, Fragment::Later { id: ID, offset }, L4::Absent, 7));
    check(&v4(&[], 0x2001, 17, &[0; 7]), later(8));
    check(&v4(&[], 0x0001, 17, &[0; 7]), later(8));
    check(&v4(&[], 0x1fff, 17, &[0; 7]), later(65_528));
    check_bad(&v4(&[], 0x1fff, 17, &[0; 8]), BadFragment);
    let longest = vec![0; 65_535];
    let first = Fragment::First {
        id: ID,
        end: 65_535,
    };
    check(
        &v4(&[], 0x2000, 99, &longest),
        Ok((99, first, L4::Opaque, 65_535)),
    );
    check_bad(&v4(&[], 0x2000, 99, &[0; 65_536]), BadFragment);
    check_bad(&v4(&[131, 3, 4, 0], 0x0001, 17, &[]), BadHeader);
}

/// Extension headers of 8 bytes before a UDP header, each with what its third byte on says.
fn chain(headers: &[(u8, [u8; 6])], transport: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for i in 0..headers.len() {
        let next = headers.get(i + 1).map_or(17, |h| h.0);
        // Byte 1 is a length of 0, or reserved (fragment).
        bytes.extend([next, 0]);
        bytes.extend(headers[i].1);
    }
    bytes.extend(transport);
    v6(headers[0].0, &bytes)
}

const PLAIN: [u8; 6] = [0; 6];
const FIRST: [u8; 6] = [0, 1, 0, 0, 0, 7];
const LATER: [u8; 6] = [0, 0x10, 0, 0, 0, 7];
const ATOMIC: [u8; 6] = [0, 0, 0, 0, 0, 7];

#[test]
fn ipv6_extension_headers_are_walked() {
    check(
        &chain(&[(0, PLAIN), (60, PLAIN), (43, PLAIN)], &UDP),
        WHOLE_UDP,
    );
    check(&chain(&[(51, PLAIN)], &UDP), WHOLE_UDP);
    check(&chain(&[(60, PLAIN); 6], &UDP), WHOLE_UDP);
    check_bad(&chain(&[(60, PLAIN); 7], &UDP), BadHeader);
    check_bad(&chain(&[(60, PLAIN), (0, PLAIN)], &UDP), BadHeader);
    check_bad(&chain(&[(0, PLAIN), (0, PLAIN)], &UDP), BadHeader);
    // Segments left.
    check_bad(&chain(&[(43, [0, 1, 0, 0, 0, 0])], &UDP), BadHeader);
    check(&chain(&[(43, [4, 0, 0, 0, 0, 0])], &UDP), WHOLE_UDP);
    // What is no extension header is the protocol.
    check(&v6(135, &UDP), Ok((135, Fragment::Whole, L4::Opaque, 8)));
}

#[test]
fn ipv6_extension_headers_have_256_bytes_at_most() {
    let with = |units: u8, bytes: usize| {
        let mut payload = vec![0; bytes];
        payload[..2].copy_from_slice(&[17, units]);
        payload.extend(UDP);
        payload
    };
    check(&v6(60, &with(31, 256)), WHOLE_UDP);
    check_bad(&v6(60, &with(32, 264)), BadHeader);
    // AH counts in units of 4 bytes.
    check(&v6(51, &with(4, 24)), WHOLE_UDP);
    check(&v6(51, &with(62, 256)), WHOLE_UDP);
    check_bad(&v6(51, &with(63, 260)), BadHeader);
    // Together.
    let mut two = with(31, 256);
    two.splice(..0, [60, 0, 0, 0, 0, 0, 0, 0]);
    check_bad(&v6(60, &two), BadHeader);
}

#[test]
fn ipv6_headers_end_within_the_packet() {
    check_bad(&v6(17, &UDP)[..39], BadHeader);
    check_bad(&v6(60, &[17, 0, 0, 0, 0, 0, 0]), BadHeader);
    check_bad(
        &v6(60, &[17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        BadHeader,
    );
    check(
        &v6(60, &[59, 0, 0, 0, 0, 0, 0, 0]),
        Ok((59, Fragment::Whole, L4::Opaque, 0)),
    );
}

#[test]
fn ipv6_fragments() {
    check(&chain(&[(44, ATOMIC)], &UDP), WHOLE_UDP);
    let first = Fragment::First { id: 7, end: 8 };
    check(&chain(&[(44, FIRST)], &UDP), Ok((17, first, UDP_PORTS, 8)));
    // The rest of the chain is in the fragmentable part.
    let first = Fragment::First { id: 7, end: 16 };
    check(
        &chain(&[(0, PLAIN), (44, FIRST), (60, PLAIN)], &UDP),
        Ok((17, first, UDP_PORTS, 8)),
    );
    let later = Fragment::Later { id: 7, offset: 16 };
    check(&chain(&[(44, LATER)], &UDP), Ok((17, later, L4::Absent, 8)));
    // Whatever a later fragment's header names isn't walked.
    check(
        &chain(&[(44, LATER), (0, PLAIN)], &[]),
        Ok((0, later, L4::Absent, 8)),
    );
    check_bad(&chain(&[(44, ATOMIC), (44, ATOMIC)], &UDP), BadHeader);
    check_bad(&chain(&[(44, FIRST), (44, LATER)], &UDP), BadHeader);
    check_bad(&chain(&[(44, FIRST), (0, PLAIN)], &UDP), BadHeader);
    let last = [0xff, 0xf8, 0, 0, 0, 7];
    let offset = 65_528;
    check(
        &chain(&[(44, last)], &[0; 7]),
        Ok((17, Fragment::Later { id: 7, offset }, L4::Absent, 7)),
    );
    check_bad(&chain(&[(44, last)], &[0; 8]), BadFragment);
}

#[test]
fn an_ipv6_first_fragment_holds_the_whole_chain() {
    check_bad(&chain(&[(44, FIRST)], &UDP[..7]), BadFragment);
    check_bad(&chain(&[(44, FIRST), (60, PLAIN)], &UDP[..7]), BadFragment);
    let cut = chain(&[(44, FIRST), (60, PLAIN)], &[]);
    let mut shorter = cut[..cut.len() - 1].to_vec();
    shorter[5] -= 1;
    check_bad(&shorter, BadFragment);
    let mut longer = cut.clone();
    let at = longer.len() - 7;
    longer[at] = 1;
    check_bad(&longer, BadFragment);
    // What is not there can't be out of place.
    check_bad(&chain(&[(44, FIRST), (0, PLAIN)], &[])[..54], BadFragment);
    // Before the fragment header no one knows that it is one.
    check_bad(&chain(&[(44, FIRST)], &[])[..47], BadHeader);
}

fn quoted(packet: &[u8]) -> Option<L4> {
    let family = match packet[0] >> 4 {
        4 => Family::V4,
        _ => Family::V6,
    };
    parse_quoted(packet, family).map(|p| p.l4)
}

#[test]
fn a_quote_shows_8_bytes_of_transport() {
    let tcp = [
        0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0,
    ];
    let with = |flags| {
        Some(L4::Tcp {
            src: 1,
            dst: 2,
            flags: TcpFlags(flags),
        })
    };
    for packet in [v4(&[], 0, 6, &tcp), v6(6, &tcp)] {
        let at = |transport| packet.len() - tcp.len() + transport;
        assert_eq!(quoted(&packet), with(2));
        assert_eq!(quoted(&packet[..at(8)]), with(0));
        assert_eq!(quoted(&packet[..at(7)]), None);
    }
    assert_eq!(quoted(&v4(&[], 0, 47, &[])), Some(L4::Opaque));
}

#[test]
fn a_quote_is_no_later_fragment_and_no_bad_packet() {
    assert_eq!(quoted(&v4(&[], 0x2000, 17, &UDP)), Some(UDP_PORTS));
    assert_eq!(quoted(&v4(&[], 0x2001, 17, &UDP)), None);
    assert_eq!(quoted(&chain(&[(44, FIRST)], &UDP)), Some(UDP_PORTS));
    assert_eq!(quoted(&chain(&[(44, LATER)], &UDP)), None);
    assert_eq!(quoted(&v4(&[131, 3, 4, 0], 0, 17, &UDP)), None);
    assert_eq!(parse_quoted(&v6(17, &UDP), Family::V4), None);
}

#[test]
fn no_bytes_make_it_panic() {
    // A small generator of its own: every prefix of frames with bytes replaced at will.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let seeds = [
        framed(0x0800, &v4(&[7, 4, 4, 0], 0x2000, 6, &[0; 20])),
        framed(
            0x86dd,
            &chain(&[(0, PLAIN), (43, PLAIN), (44, FIRST)], &UDP),
        ),
        framed(0x0806, &[0; 28]),
    ];
    for round in 0..200_000_usize {
        let mut frame = seeds[round % seeds.len()].clone();
        for _ in 0..next() % 8 {
            let at = usize::try_from(next()).unwrap_or(0) % frame.len();
            frame[at] = next().to_le_bytes()[0];
        }
        frame.truncate(usize::try_from(next()).unwrap_or(0) % (frame.len() + 1));
        let _ = parse(&frame);
        if let Some(packet) = frame.get(14..) {
            let _ = parse_quoted(packet, Family::V4);
            let _ = parse_quoted(packet, Family::V6);
            let _ = crate::nd::message(135, packet).map(|m| m.speaks_for(MacAddr::ZERO));
        }
    }
}
