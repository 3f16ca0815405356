//! Bytes to [`Frame`]: the stage `parse`, as docs/semantics.md "Parse" has it to the letter.
//!
//! Where several things are wrong with an IPv6 extension header, the first of these is named: one too
//! many; its first 8 bytes not there; out of place, segments left, too many bytes in all; beyond the
//! end.

use crate::frame::{Arp, BadPacket, Body, Fragment, Frame, L4, Packet, TcpFlags};
use model::{Family, MacAddr};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Fewer than the 14 bytes of an Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooShort;

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_ARP: u16 = 0x0806;
pub const ETHERTYPE_RARP: u16 = 0x8035;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// 802.1Q, 802.1ad, and the older outer tag.
pub const ETHERTYPES_TAG: [u16; 3] = [0x8100, 0x88a8, 0x9100];

pub const PROTOCOL_ICMP: u8 = 1;
pub const PROTOCOL_IGMP: u8 = 2;
pub const PROTOCOL_TCP: u8 = 6;
pub const PROTOCOL_UDP: u8 = 17;
pub const PROTOCOL_DCCP: u8 = 33;
pub const PROTOCOL_ICMPV6: u8 = 58;
pub const PROTOCOL_SCTP: u8 = 132;
pub const PROTOCOL_UDPLITE: u8 = 136;

pub const EXTENSION_HOP_BY_HOP: u8 = 0;
pub const EXTENSION_ROUTING: u8 = 43;
pub const EXTENSION_FRAGMENT: u8 = 44;
pub const EXTENSION_AH: u8 = 51;
pub const EXTENSION_DESTINATION: u8 = 60;

pub const MAX_EXTENSION_HEADERS: usize = 6;
pub const MAX_EXTENSION_BYTES: usize = 256;
/// No fragment ends behind this many bytes of its datagram.
pub const MAX_DATAGRAM: u32 = 65_535;

/// How much of the transport header has to be there.
#[derive(Clone, Copy)]
enum Transport {
    Whole,
    /// What an ICMP error has to quote.
    EightBytes,
}

pub fn parse(frame: &[u8]) -> Result<Frame<'_>, TooShort> {
    let (header, rest) = frame.split_at_checked(14).ok_or(TooShort)?;
    let ethertype = be16(header, 12);
    let body = match ethertype {
        tag if ETHERTYPES_TAG.contains(&tag) => Body::Tagged,
        ETHERTYPE_IPV4 => Body::Ip(ipv4(rest, Transport::Whole)),
        ETHERTYPE_IPV6 => Body::Ip(ipv6(rest, Transport::Whole)),
        ETHERTYPE_ARP | ETHERTYPE_RARP => Body::Arp(arp(rest)),
        _ => Body::Other,
    };
    Ok(Frame {
        dst: mac(header, 0),
        src: mac(header, 6),
        ethertype,
        body,
    })
}

/// The packet that an ICMP error quotes: what stands behind the error's own 8 bytes. `None` if it
/// can't be parsed, is a later fragment, or shows fewer than 8 bytes of a transport header that its
/// protocol has. The TCP flags of a quote cut short of them are empty.
pub fn parse_quoted(bytes: &[u8], family: Family) -> Option<Packet<'_>> {
    let packet = match family {
        Family::V4 => ipv4(bytes, Transport::EightBytes),
        Family::V6 => ipv6(bytes, Transport::EightBytes),
    };
    packet.ok().filter(|p| p.l4 != L4::Absent)
}

fn ipv4(bytes: &[u8], transport: Transport) -> Result<Packet<'_>, BadPacket> {
    if bytes.len() < 20 || bytes[0] >> 4 != 4 {
        return Err(BadPacket::Header);
    }
    let header = usize::from(bytes[0] & 0xf) * 4;
    let end = end(bytes, usize::from(be16(bytes, 2)));
    if header < 20 || header > end {
        return Err(BadPacket::Header);
    }
    ipv4_options(&bytes[20..header])?;
    let payload = &bytes[header..end];
    let word = be16(bytes, 6);
    let offset = u32::from(word & 0x1fff) * 8;
    let more = word & 0x2000 != 0;
    let packet = Packet {
        src: ipv4_address(bytes, 12).into(),
        dst: ipv4_address(bytes, 16).into(),
        hops: bytes[8],
        protocol: bytes[9],
        fragment: fragment(u32::from(be16(bytes, 4)), offset, more, payload.len())?,
        l4: L4::Absent,
        payload,
    };
    with_transport(packet, Family::V4, transport)
}

fn ipv4_options(options: &[u8]) -> Result<(), BadPacket> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    let mut rest = options;
    loop {
        rest = match rest {
            [] | [END, ..] => return Ok(()),
            [NO_OPERATION, after @ ..] => after,
            [LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE, ..] => return Err(BadPacket::Header),
            [_, length, ..] if *length >= 2 && usize::from(*length) <= rest.len() => {
                &rest[usize::from(*length)..]
            }
            _ => return Err(BadPacket::Header),
        };
    }
}

fn ipv6(bytes: &[u8], transport: Transport) -> Result<Packet<'_>, BadPacket> {
    if bytes.len() < 40 || bytes[0] >> 4 != 6 {
        return Err(BadPacket::Header);
    }
    let end = match usize::from(be16(bytes, 4)) {
        0 => bytes.len(),
        length => end(bytes, 40 + length),
    };
    let mut packet = Packet {
        src: ipv6_address(bytes, 8).into(),
        dst: ipv6_address(bytes, 24).into(),
        hops: bytes[7],
        protocol: bytes[6],
        fragment: Fragment::Whole,
        l4: L4::Absent,
        payload: &bytes[40..end],
    };
    let (mut headers, mut extension_bytes, mut fragment_seen) = (0, 0, false);
    while is_extension(packet.protocol) {
        headers += 1;
        if headers > MAX_EXTENSION_HEADERS {
            return Err(BadPacket::Header);
        }
        let Some(header) = packet.payload.first_chunk::<8>() else {
            return Err(missing(packet.fragment));
        };
        let undecidable = match packet.protocol {
            EXTENSION_HOP_BY_HOP => headers > 1,
            EXTENSION_FRAGMENT => fragment_seen,
            EXTENSION_ROUTING => header[3] > 0,
            _ => false,
        };
        if undecidable {
            return Err(BadPacket::Header);
        }
        let length = match packet.protocol {
            EXTENSION_FRAGMENT => 8,
            EXTENSION_AH => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        extension_bytes += length;
        if extension_bytes > MAX_EXTENSION_BYTES {
            return Err(BadPacket::Header);
        }
        let Some(rest) = packet.payload.get(length..) else {
            return Err(missing(packet.fragment));
        };
        if packet.protocol == EXTENSION_FRAGMENT {
            fragment_seen = true;
            let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let word = be16(header, 2);
            packet.fragment = fragment(id, u32::from(word & 0xfff8), word & 1 != 0, rest.len())?;
        }
        packet.protocol = header[0];
        packet.payload = rest;
        if matches!(packet.fragment, Fragment::Later { .. }) {
            break;
        }
    }
    with_transport(packet, Family::V6, transport)
}

fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        EXTENSION_HOP_BY_HOP
            | EXTENSION_ROUTING
            | EXTENSION_FRAGMENT
            | EXTENSION_AH
            | EXTENSION_DESTINATION
    )
}

/// The IP length or what is there, whichever is less; a length of 0 is that of a large offloaded
/// packet and says nothing.
fn end(bytes: &[u8], ip_length: usize) -> usize {
    match ip_length {
        0 => bytes.len(),
        length => length.min(bytes.len()),
    }
}

fn fragment(id: u32, offset: u32, more: bool, length: usize) -> Result<Fragment, BadPacket> {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    match (offset, more) {
        (0, false) => Ok(Fragment::Whole),
        _ if offset.saturating_add(length) > MAX_DATAGRAM => Err(BadPacket::Fragment),
        (0, true) => Ok(Fragment::First { id, end: length }),
        _ => Ok(Fragment::Later { id, offset }),
    }
}

/// What to call bytes that a header needs and that aren't there.
fn missing(fragment: Fragment) -> BadPacket {
    match fragment {
        Fragment::First { .. } => BadPacket::Fragment,
        Fragment::Whole | Fragment::Later { .. } => BadPacket::Header,
    }
}

fn with_transport<'a>(
    mut packet: Packet<'a>,
    family: Family,
    transport: Transport,
) -> Result<Packet<'a>, BadPacket> {
    if matches!(packet.fragment, Fragment::Later { .. }) {
        return Ok(packet);
    }
    let bytes = packet.payload;
    let whole = match (packet.protocol, family) {
        (PROTOCOL_TCP, _) => 20,
        (PROTOCOL_SCTP | PROTOCOL_DCCP, _) => 12,
        (PROTOCOL_UDP | PROTOCOL_UDPLITE, _) => 8,
        (PROTOCOL_ICMP, Family::V4) | (PROTOCOL_ICMPV6, Family::V6) => 8,
        _ => 0,
    };
    let needed = match transport {
        Transport::Whole => whole,
        Transport::EightBytes => whole.min(8),
    };
    if bytes.len() < needed {
        return Err(missing(packet.fragment));
    }
    packet.l4 = match (packet.protocol, needed) {
        (_, 0) => L4::Opaque,
        (PROTOCOL_TCP, _) => L4::Tcp {
            src: be16(bytes, 0),
            dst: be16(bytes, 2),
            flags: TcpFlags(bytes.get(13).copied().unwrap_or(0)),
        },
        (PROTOCOL_ICMP | PROTOCOL_ICMPV6, _) => L4::Icmp {
            icmp_type: bytes[0],
            code: bytes[1],
            identifier: be16(bytes, 4),
        },
        _ => L4::Ported {
            src: be16(bytes, 0),
            dst: be16(bytes, 2),
        },
    };
    Ok(packet)
}

fn arp(bytes: &[u8]) -> Option<Arp> {
    let b: &[u8; 28] = bytes.first_chunk()?;
    Some(Arp {
        header: (be16(b, 0), be16(b, 2), b[4], b[5]),
        opcode: be16(b, 6),
        sender_mac: mac(b, 8),
        sender_ip: ipv4_address(b, 14),
        target_mac: mac(b, 18),
        target_ip: ipv4_address(b, 24),
    })
}

/// The caller knows that the bytes are there; so in the other readers.
fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn mac(bytes: &[u8], at: usize) -> MacAddr {
    MacAddr(std::array::from_fn(|i| bytes[at + i]))
}

fn ipv4_address(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from(std::array::from_fn::<u8, 4, _>(|i| bytes[at + i]))
}

pub(crate) fn ipv6_address(bytes: &[u8], at: usize) -> Ipv6Addr {
    Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| bytes[at + i]))
}

#[cfg(test)]
#[path = "parse/tests.rs"]
mod tests;
