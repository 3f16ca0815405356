//! Packets as a mistaken parser or guard would see them. What a fault isn't about is left as it is;
//! packets with IPv4 options or IPv6 extension headers mostly are.

use model::{Direction, Port};
use std::net::IpAddr;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

type Frame = Vec<u8>;

pub(crate) fn strip_tag(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if is(frame, 12, &[0x81, 0x00]) && frame.len() >= 18 {
        frame.drain(12..16);
    }
}

pub(crate) fn own_source_mac(frame: &mut Frame, direction: Direction, port: Option<&Port>) {
    if let (Direction::Egress, Some(port)) = (direction, port) {
        put(frame, 6, &port.mac.0);
    }
}

pub(crate) fn own_arp_address(frame: &mut Frame, _: Direction, port: Option<&Port>) {
    let own = port.into_iter().flat_map(|p| &p.fixed_addresses);
    let own = own.filter_map(|a| match a {
        IpAddr::V4(a) => Some(a.octets()),
        IpAddr::V6(_) => None,
    });
    if let (true, Some(own)) = (is_arp(frame), own.into_iter().next()) {
        put(frame, 28, &own);
    }
}

pub(crate) fn honest_arp_mac(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if is_arp(frame) {
        let mac: Vec<u8> = frame[6..12].to_vec();
        put(frame, 22, &mac);
    }
}

pub(crate) fn arp_request(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if is_arp(frame) {
        put(frame, 20, &[0, 1]);
    }
}

pub(crate) fn arp_header(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if is_arp(frame) {
        put(frame, 14, &[0, 1, 8, 0, 6, 4]);
    }
}

pub(crate) fn no_rarp(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if is(frame, 12, &[0x80, 0x35]) {
        put(frame, 20, &[0, 9]);
    }
}

pub(crate) fn nd_hops(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if is_nd(frame) {
        put(frame, 21, &[255]);
    }
}

pub(crate) fn nd_code(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if is_nd(frame) {
        put(frame, 55, &[0]);
    }
}

pub(crate) fn nd_option(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if is_nd(frame) {
        let mac: Vec<u8> = frame[6..12].to_vec();
        for option in [78, 86] {
            if is(frame, option, &[1, 1]) || is(frame, option, &[2, 1]) {
                put(frame, option + 2, &mac);
            }
        }
    }
}

pub(crate) fn nd_target(frame: &mut Frame, direction: Direction, port: Option<&Port>) {
    if let (true, Direction::Egress, Some(port)) = (is_nd(frame), direction, port) {
        put(frame, 62, &port.mac.eui64_link_local().octets());
    }
}

pub(crate) fn mld_query(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if let Some((58, at)) = transport(frame)
        && is(frame, at, &[130])
    {
        put(frame, at, &[131]);
    }
}

pub(crate) fn mld_hops(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if let Some((58, at)) = transport(frame)
        && matches!(frame[at], 130..=132 | 143)
    {
        put(frame, 21, &[1]);
    }
}

pub(crate) fn igmp_query(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if let Some((2, at)) = transport(frame)
        && is(frame, at, &[0x11])
    {
        put(frame, at, &[0x16]);
    }
}

pub(crate) fn igmp_ttl(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if let Some((2, _)) = transport(frame) {
        put(frame, 22, &[1]);
    }
}

pub(crate) fn no_loopback(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if is(frame, 12, &[0x08, 0x00, 0x45]) && is(frame, 26, &[127]) {
        put(frame, 26, &[198]);
    }
}

pub(crate) fn no_unspecified(frame: &mut Frame, direction: Direction, _: Option<&Port>) {
    if direction == Direction::Egress {
        return;
    }
    if is(frame, 12, &[0x08, 0x00]) && is(frame, 26, &[0; 4]) {
        put(frame, 26, &[198]);
    }
    if is(frame, 12, &[0x86, 0xdd]) && is(frame, 22, &[0; 16]) {
        put(frame, 22, &[0x20]);
    }
}

pub(crate) fn no_multicast_source(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if is(frame, 12, &[0x08, 0x00]) && frame.len() > 26 && frame[26] >> 4 == 0xe {
        put(frame, 26, &[198]);
    }
    if is(frame, 12, &[0x86, 0xdd]) && is(frame, 22, &[0xff]) {
        put(frame, 22, &[0x20]);
    }
}

pub(crate) fn dhcp_anywhere(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    let Some((17, at)) = transport(frame) else {
        return;
    };
    if is(frame, at, &[0, 68, 0, 67]) {
        put(frame, 30, &[255; 4]);
    }
}

/// The address in the message becomes the one that it is sent to.
pub(crate) fn mld_group(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if let Some((58, at)) = transport(frame)
        && matches!(frame[at], 131 | 132)
    {
        let dst: Vec<u8> = frame[38..54].to_vec();
        put(frame, at + 8, &dst);
    }
}

pub(crate) fn late_hop_by_hop(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if is(frame, 12, &[0x86, 0xdd])
        && (is(frame, 20, &[60]) || is(frame, 20, &[43]))
        && is(frame, 54, &[0])
    {
        put(frame, 54, &[60]);
    }
}

pub(crate) fn endless_datagram(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if is(frame, 12, &[0x08, 0x00]) && is(frame, 20, &[0x1f, 0xff]) {
        put(frame, 21, &[0xf0]);
    }
}

pub(crate) fn no_source_route(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if is(frame, 12, &[0x08, 0x00]) && (is(frame, 34, &[131]) || is(frame, 34, &[137])) {
        put(frame, 34, &[130]);
    }
}

pub(crate) fn no_segments(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if is(frame, 12, &[0x86, 0xdd]) && is(frame, 20, &[43]) {
        put(frame, 57, &[0]);
    }
}

pub(crate) fn whole_length(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => put(frame, 16, &[0, 0]),
        Some([0x86, 0xdd]) => put(frame, 18, &[0, 0]),
        _ => {}
    }
}

pub(crate) fn atomic_is_first(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if is(frame, 12, &[0x86, 0xdd]) && is(frame, 20, &[44]) && is(frame, 56, &[0, 0]) {
        put(frame, 57, &[1]);
    }
}

pub(crate) fn clear_flags(frame: &mut [u8], flags: u8) {
    with_flags(frame, |old| old & !flags);
}

pub(crate) fn no_syn(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    with_flags(frame, |old| if old & SYN != 0 { old | ACK } else { old });
}

pub(crate) fn no_syn_ack(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    with_flags(frame, |old| if old & ACK != 0 { old & !SYN } else { old });
}

pub(crate) fn no_mid_stream(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    with_flags(frame, |old| {
        if old & (ACK | RST | FIN) == ACK {
            old | SYN
        } else {
            old
        }
    });
}

pub(crate) fn syn_is_ack(frame: &mut Frame, direction: Direction, _: Option<&Port>) {
    if direction == Direction::Ingress {
        with_flags(
            frame,
            |old| if old & (SYN | ACK) == SYN { ACK } else { old },
        );
    }
}

fn with_flags(frame: &mut [u8], change: impl Fn(u8) -> u8) {
    if let Some((6, at)) = transport(frame)
        && let Some(flags) = frame.get_mut(at + 13)
    {
        *flags = change(*flags);
    }
}

pub(crate) fn no_identifier(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if let Some(at) = icmp(frame)
        && matches!(frame[at], 0 | 8 | 13 | 14 | 128 | 129)
    {
        put(frame, at + 4, &[0, 0]);
    }
}

pub(crate) fn reply_code(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if let Some(at) = icmp(frame)
        && matches!(frame[at], 0 | 14 | 129)
    {
        put(frame, at + 1, &[0]);
    }
}

pub(crate) fn request_code(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if let Some(at) = icmp(frame)
        && matches!(frame[at], 8 | 13 | 128)
    {
        put(frame, at + 1, &[0]);
    }
}

pub(crate) fn no_timestamp(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if let Some((1, at)) = transport(frame)
        && is(frame, at, &[14])
    {
        put(frame, at, &[15]);
    }
}

pub(crate) fn redirect_is_error(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    is_error(frame, 5);
}

pub(crate) fn quench_is_error(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    is_error(frame, 4);
}

fn is_error(frame: &mut [u8], icmp_type: u8) {
    if let Some((1, at)) = transport(frame)
        && is(frame, at, &[icmp_type])
    {
        put(frame, at, &[3]);
    }
}

/// The quoted source becomes the destination of the error.
pub(crate) fn quote_anybody(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if let Some((quoted, header)) = quote(frame) {
        let (dst, src) = if header == 20 {
            (30..34, 12)
        } else {
            (38..54, 8)
        };
        let dst: Vec<u8> = frame[dst].to_vec();
        put(frame, quoted + src, &dst);
    }
}

pub(crate) fn quote_fragment(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if let Some((quoted, 20)) = quote(frame) {
        put(frame, quoted + 6, &[0, 0]);
    }
}

/// What is missing of 8 bytes is made up: the ports of the packet before, so to say.
pub(crate) fn quote_short(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if let Some((quoted, header)) = quote(frame) {
        let end = quoted + header + 8;
        if frame.len() >= end - 4 && frame.len() < end {
            frame.resize(end, 0);
            match header {
                20 => put(frame, 16, &[0, 0]),
                _ => put(frame, 18, &[0, 0]),
            }
        }
    }
}

pub(crate) fn unicast_mac(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if let Some(first) = frame.first_mut() {
        *first &= !1;
    }
}

pub(crate) fn far_fragment(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    match frame.get(12..14) {
        Some([0x08, 0x00]) if frame.len() > 34 && frame[21] > 0 => put(frame, 21, &[200]),
        Some([0x86, 0xdd]) if is(frame, 20, &[44]) && frame.len() > 62 && frame[57] > 7 => {
            let more = frame[57] & 1;
            put(frame, 56, &[8, more]);
        }
        _ => {}
    }
}

pub(crate) fn one_datagram(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => put(frame, 18, &[0, 0]),
        Some([0x86, 0xdd]) if is(frame, 20, &[44]) => put(frame, 58, &[0; 4]),
        _ => {}
    }
}

pub(crate) fn swap_ports(frame: &mut Frame, _: Direction, _: Option<&Port>) {
    if let Some((6 | 17, at)) = transport(frame)
        && let Some([a, b, c, d]) = frame.get_mut(at..at + 4)
    {
        std::mem::swap(a, c);
        std::mem::swap(b, d);
    }
}

/// Where an ICMP error's quote begins, and how long a plain IP header in it is.
fn quote(frame: &[u8]) -> Option<(usize, usize)> {
    let (protocol, at) = transport(frame)?;
    let (header, is_error) = match protocol {
        1 => (20, matches!(frame[at], 3 | 11 | 12)),
        58 => (40, matches!(frame[at], 1..=4)),
        _ => return None,
    };
    (is_error && frame.len() >= at + 8 + header).then_some((at + 8, header))
}

fn icmp(frame: &[u8]) -> Option<usize> {
    let (protocol, at) = transport(frame)?;
    matches!(protocol, 1 | 58).then_some(at)
}

/// Protocol and place of the transport header, which has a first byte.
fn transport(frame: &[u8]) -> Option<(u8, usize)> {
    let (protocol, at) = match frame.get(12..14)? {
        [0x08, 0x00] if is(frame, 14, &[0x45]) && is_whole_v4(frame) => (*frame.get(23)?, 34),
        [0x08, 0x00] if is(frame, 14, &[0x46]) && is_whole_v4(frame) => (*frame.get(23)?, 38),
        [0x86, 0xdd] if is(frame, 20, &[0]) && is(frame, 55, &[0]) => (*frame.get(54)?, 62),
        [0x86, 0xdd] => (*frame.get(20)?, 54),
        _ => return None,
    };
    (frame.len() > at).then_some((protocol, at))
}

fn is_whole_v4(frame: &[u8]) -> bool {
    frame.get(20).is_some_and(|b| b & 0x3f == 0) && is(frame, 21, &[0])
}

fn is_arp(frame: &[u8]) -> bool {
    is(frame, 12, &[0x08, 0x06]) && frame.len() >= 42
}

fn is_nd(frame: &[u8]) -> bool {
    let icmp_type = transport(frame)
        .filter(|t| *t == (58, 54))
        .map(|_| frame[54]);
    icmp_type.is_some_and(|t| (133..=137).contains(&t))
}

fn is(frame: &[u8], at: usize, bytes: &[u8]) -> bool {
    frame.get(at..at + bytes.len()) == Some(bytes)
}

/// Where it fits.
fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = frame.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}
