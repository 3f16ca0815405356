//! What a plane reads unlike the contract, as far as its capabilities say that it may.
//!
//! Place on the line: beside parse. Bytes in; whether the plane may lose the frame, or take it for another.

use model::{Capabilities, DropReason, MacAddr};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};
use wire::{Body, Fragment, L4, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP, TcpFlags, TooShort};

/// Does the plane lack what such a packet needs? It may then drop it; what the rules deny it drops anyway.
pub(crate) fn may_be_lost(can: Capabilities, bytes: &[u8]) -> bool {
    let reassembled = || match wire::parse(bytes).map(|frame| frame.body) {
        Ok(Body::Ip(Ok(packet))) => packet.fragment != Fragment::Whole,
        Ok(Body::Ip(Err(_))) => true,
        Ok(Body::Arp(_) | Body::Tagged | Body::Other) | Err(TooShort) => false,
    };
    (!can.lenient_ip && is_odd(bytes))
        || (!can.fragment_verdict && reassembled())
        || (!can.ipv4_options && has_options(bytes))
        || (!can.extension_chain && has_extensions(bytes))
        || (!can.whole_headers && looks_cut(bytes))
}

/// Doesn't the plane see what the contract drops the frame for? It can't drop it for that, then.
pub(crate) fn is_unseen(can: Capabilities, frame: &[u8], reason: DropReason) -> bool {
    match reason {
        DropReason::BadHeader => is_header_unseen(can, frame),
        DropReason::BadFragment => !can.fragment_verdict || is_header_unseen(can, frame),
        DropReason::Ethertype => !can.whole_headers && is_snap(frame),
        DropReason::NotReady | DropReason::VlanTag | DropReason::SpoofedMac => false,
        DropReason::SpoofedArp
        | DropReason::SpoofedNd
        | DropReason::RogueRa
        | DropReason::RogueQuery
        | DropReason::RogueDhcp
        | DropReason::SpoofedIp
        | DropReason::ForeignDestination
        | DropReason::Martian
        | DropReason::NoRule
        | DropReason::FlowBudget
        | DropReason::OrphanFragment
        | DropReason::ErrorRate
        | DropReason::UnknownTunnel => !can.whole_headers && is_length_off(frame),
    }
}

fn is_header_unseen(can: Capabilities, frame: &[u8]) -> bool {
    (!can.ipv4_options && has_options(frame))
        || (!can.extension_chain && has_extensions(frame))
        || (!can.whole_headers && wire::parse(frame).is_ok())
}

/// Is all that a switch asks of a transport header 0? It takes a header that is cut short for this, too.
fn looks_cut(frame: &[u8]) -> bool {
    let Ok(Body::Ip(Ok(packet))) = wire::parse(frame).map(|frame| frame.body) else {
        return false;
    };
    let empty = match packet.l4 {
        L4::Tcp { src, dst, flags } => (src, dst, flags) == (0, 0, TcpFlags(0)),
        L4::Ported { src, dst } => {
            (src, dst) == (0, 0) && matches!(packet.protocol, PROTOCOL_UDP | PROTOCOL_SCTP)
        }
        L4::Icmp { .. } | L4::Opaque | L4::Absent => false,
    };
    let whole = packet.fragment == Fragment::Whole;
    whole && (empty || (packet.protocol == PROTOCOL_TCP && !tcp_offset_fits(packet.payload)))
}

/// A switch sees no header of TCP that says it is shorter than it can be, or longer than the packet.
fn tcp_offset_fits(segment: &[u8]) -> bool {
    let offset = segment.get(12).map(|byte| usize::from(byte >> 4) * 4);
    offset.is_some_and(|offset| (20..=segment.len()).contains(&offset))
}

/// A 802.3 frame whose SNAP header names an ethertype.
fn is_snap(frame: &[u8]) -> bool {
    const FIRST_ETHERTYPE: u16 = 0x600;
    let word = |at: usize| {
        frame
            .get(at..at + 2)
            .map(|w| u16::from_be_bytes([w[0], w[1]]))
    };
    word(12).is_some_and(|length| length < FIRST_ETHERTYPE)
        && frame.get(14..20) == Some(&[0xaa, 0xaa, 3, 0, 0, 0])
        && word(20).is_some_and(|ethertype| ethertype >= FIRST_ETHERTYPE)
}

/// The frame that a switch takes one with a SNAP header for.
pub(crate) fn unwrapped(frame: &[u8]) -> Cow<'_, [u8]> {
    match is_snap(frame) {
        true => Cow::Owned([&frame[..12], &frame[20..]].concat()),
        false => Cow::Borrowed(frame),
    }
}

/// What a switch keeps of a neighbour solicitation or advertisement.
pub(crate) struct NdFields {
    pub(crate) target: Ipv6Addr,
    pub(crate) source_mac: Option<MacAddr>,
    pub(crate) target_mac: Option<MacAddr>,
}

/// It walks the options until one doesn't fit, keeps what it has by then, and takes an address of zeros for
/// none. `None`: it keeps nothing of a message that names both twice, or whose target is cut short or zero.
pub(crate) fn nd_fields(payload: &[u8]) -> Option<NdFields> {
    let target = payload.get(8..24)?.first_chunk::<16>()?;
    let target = Ipv6Addr::from(*target);
    let mut macs = [None, None];
    let mut rest = payload.get(24..)?;
    while let Some([kind, units, mac @ ..]) = rest.first_chunk::<8>() {
        let length = usize::from(*units) * 8;
        let Some(after) = rest.get(length..).filter(|_| length > 0) else {
            break;
        };
        if length == 8 && matches!(kind, 1 | 2) {
            let place = &mut macs[usize::from(*kind) - 1];
            if place.is_some() {
                return None;
            }
            *place = Some(MacAddr(*mac)).filter(|mac| mac.0 != [0; 6]);
        }
        rest = after;
    }
    let [source_mac, target_mac] = macs;
    let fields = NdFields {
        target,
        source_mac,
        target_mac,
    };
    (!target.is_unspecified()).then_some(fields)
}

fn has_options(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x08, 0x00]) && frame.get(14).is_some_and(|b| b & 0xf > 5)
}

fn has_extensions(frame: &[u8]) -> bool {
    let extensions = |next: &u8| matches!(next, 0 | 43 | 44 | 51 | 60);
    frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(20).is_some_and(extensions)
}

/// Does the kernel's IP code drop it, if a plane leaves it to that?
fn is_odd(frame: &[u8]) -> bool {
    let bad = || matches!(wire::parse(frame), Ok(f) if matches!(f.body, Body::Ip(Err(_))));
    is_ip(frame) && (is_length_off(frame) || bad() || !checksum_fits(frame))
}

fn is_ip(frame: &[u8]) -> bool {
    matches!(frame.get(12..14), Some([0x08, 0x00] | [0x86, 0xdd]))
}

/// An IP length that is 0, beyond the frame, or not there.
fn is_length_off(frame: &[u8]) -> bool {
    let (header, length) = match frame.get(12..14) {
        Some([0x08, 0x00]) => (0, frame.get(16..18)),
        Some([0x86, 0xdd]) => (40, frame.get(18..20)),
        _ => return false,
    };
    let length = length.map(|bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])));
    length.is_none_or(|length| length == 0 || 14 + header + length > frame.len())
}

/// Source and destination, where they always are.
pub(crate) fn ends(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let four = |at: usize| {
        frame
            .get(at..at + 4)?
            .first_chunk::<4>()
            .map(|b| IpAddr::from(*b))
    };
    let six = |at: usize| {
        frame
            .get(at..at + 16)?
            .first_chunk::<16>()
            .map(|b| IpAddr::from(*b))
    };
    match frame.get(12..14)? {
        [0x08, 0x00] => Some((four(26)?, four(30)?)),
        [0x86, 0xdd] => Some((six(22)?, six(38)?)),
        _ => None,
    }
}

/// Of an IPv4 header.
fn checksum_fits(frame: &[u8]) -> bool {
    let (Some([0x08, 0x00]), Some(first)) = (frame.get(12..14), frame.get(14)) else {
        return true;
    };
    let header = frame
        .get(14..14 + usize::from(first & 0xf) * 4)
        .unwrap_or_default();
    let words = header
        .chunks_exact(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    (sum & 0xffff) + (sum >> 16) == 0xffff
}
