//! What the connection tracker of Open vSwitch's userspace datapath reads, its TCP, and its timeouts. Its checks
//! of sequence numbers are off (`dpctl/ct-disable-tcp-seq-chk`).
//!
//! Each end of a TCP connection has a state of its own, which only goes on:
//!
//! ```text
//! Silent -> Opening -> Established -> Closing -> Closed        Reset: of both at once
//!   its first packet | the other's ACK | its FIN | the other's ACK
//! ```
//! Source: Open vSwitch 3.1, `lib/conntrack.c` and the files beside it; asked of a running one, too.

use super::{Life, Next};
use crate::connections::Flow;
use model::{FlowKey, FlowState, Timeouts};
use std::net::IpAddr;
use wire::{Fragment, L4, PROTOCOL_TCP, PROTOCOL_UDP, Packet, TcpFlags};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tcp {
    /// Who sent the first packet.
    opener: End,
    other: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Silent,
    Opening,
    Established,
    Closing,
    Closed,
    Reset,
}

/// What it can't read, or finds damaged, is invalid.
pub(crate) fn reads(packet: &Packet<'_>) -> bool {
    match packet.l4 {
        L4::Tcp { src, dst, flags } => {
            let header = packet
                .payload
                .get(12)
                .map_or(0, |b| usize::from(b >> 4) * 4);
            let fits = (20..=packet.payload.len()).contains(&header);
            src != 0 && dst != 0 && fits && is_orderly(flags) && sum_fits(packet)
        }
        L4::Ported { src, dst } if packet.protocol == PROTOCOL_UDP => {
            let field = |at| packet.payload.get(at..at + 2).map_or(0, word);
            let fits = (8..=packet.payload.len()).contains(&field(4).into());
            let unsummed = field(6) == 0 && packet.src.is_ipv4();
            src != 0 && dst != 0 && fits && (unsummed || sum_fits(packet))
        }
        L4::Icmp { .. } => sum_fits(packet),
        L4::Ported { .. } | L4::Opaque | L4::Absent => true,
    }
}

/// Does it look for the flow that a quoted packet is of? It is less strict than the contract about headers, but
/// wants no fragment.
pub(crate) fn reads_quote(quoted: &Packet<'_>) -> bool {
    let ports = match quoted.l4 {
        L4::Tcp { src, dst, .. } => src != 0 && dst != 0,
        L4::Ported { src, dst } if quoted.protocol == PROTOCOL_UDP => src != 0 && dst != 0,
        L4::Ported { .. } | L4::Icmp { .. } | L4::Opaque | L4::Absent => true,
    };
    quoted.fragment == Fragment::Whole && ports
}

/// In IPv6 it wants to see the whole header of a quoted TCP packet, wherever its IP length says that it ends.
pub(crate) fn may_be_short_quote(quoted: &Packet<'_>) -> bool {
    let whole = 20;
    matches!(quoted.l4, L4::Tcp { .. }) && quoted.src.is_ipv6() && quoted.payload.len() < whole
}

/// Can an entry come of a packet of no entry? Its flags are orderly.
pub(super) fn is_first(flags: TcpFlags) -> bool {
    !(flags.has(TcpFlags::SYN) && flags.has(TcpFlags::ACK))
}

/// Flags that go together; ECE and CWR go with all.
fn is_orderly(flags: TcpFlags) -> bool {
    const PSH: u8 = 0x08;
    const URG: u8 = 0x20;
    let has = |flag| flags.has(flag);
    let one_sense = match has(TcpFlags::SYN) {
        true => !has(TcpFlags::RST | TcpFlags::FIN),
        false => has(TcpFlags::ACK | TcpFlags::RST),
    };
    one_sense && (has(TcpFlags::ACK) || !has(TcpFlags::FIN | PSH | URG))
}

impl Tcp {
    /// By SYN and ACK alike.
    pub(super) fn begun() -> Self {
        Self {
            opener: End::Opening,
            other: End::Silent,
        }
    }

    pub(super) fn of(flow: &Flow) -> Self {
        let (opener, other) = match flow.state {
            FlowState::Opening if !flow.replied => (End::Opening, End::Silent),
            FlowState::Opening => (End::Established, End::Opening),
            FlowState::Established => (End::Established, End::Established),
            FlowState::Closing => (End::Closed, End::Closed),
            FlowState::Reset => (End::Reset, End::Reset),
        };
        Self { opener, other }
    }

    /// The flags are orderly.
    pub(super) fn next(&mut self, original: bool, flags: TcpFlags) -> Next {
        let has = |flag| flags.has(flag);
        let (sender, receiver) = match original {
            true => (&mut self.opener, &mut self.other),
            false => (&mut self.other, &mut self.opener),
        };
        if has(TcpFlags::SYN) && !has(TcpFlags::ACK) {
            if *sender >= End::Closed && *receiver >= End::Closed {
                return Next::Anew;
            }
            if *sender <= End::Opening {
                *sender = End::Opening;
                return Next::Attempt;
            }
        }
        *sender = (*sender).max(End::Opening);
        if has(TcpFlags::FIN) {
            *sender = (*sender).max(End::Closing);
        }
        if has(TcpFlags::ACK) {
            *receiver = match *receiver {
                End::Opening => End::Established,
                End::Closing => End::Closed,
                end @ (End::Silent | End::Established | End::Closed | End::Reset) => end,
            };
        }
        if has(TcpFlags::RST) {
            (*sender, *receiver) = (End::Reset, End::Reset);
        }
        match has(TcpFlags::SYN) && !has(TcpFlags::ACK) {
            true => Next::Attempt,
            false => Next::Moves,
        }
    }
}

/// Seconds, of protocols that timeout policies aren't for: before an answer and after it.
const OTHER: (u32, u32) = (60, 30);

/// A connection is over for it once both ends sent FIN, and by RST; it has one timer for these. It asks policies
/// about TCP, UDP and ICMP alone.
pub(super) fn life(key: &FlowKey, tcp: &Tcp, replied: bool, t: &Timeouts) -> Life {
    let earlier = tcp.opener.min(tcp.other);
    let seconds = match key.protocol {
        PROTOCOL_TCP if earlier >= End::Closing => t.tcp_closing_s,
        PROTOCOL_TCP if earlier >= End::Established => t.tcp_established_s,
        PROTOCOL_TCP => t.tcp_opening_s,
        _ if key.icmp.is_some() => t.icmp_s,
        PROTOCOL_UDP if replied => t.udp_replied_s,
        PROTOCOL_UDP => t.udp_s,
        _ if replied => OTHER.1,
        _ => OTHER.0,
    };
    Life {
        sure: seconds,
        most: seconds,
    }
}

/// The checksum of a transport header and what follows it.
fn sum_fits(packet: &Packet<'_>) -> bool {
    let length = u32::try_from(packet.payload.len()).unwrap_or(u32::MAX);
    let pseudo = match (packet.l4, packet.src, packet.dst) {
        (L4::Icmp { .. }, IpAddr::V4(_), _) => 0,
        (_, IpAddr::V4(src), IpAddr::V4(dst)) => {
            sum(&src.octets()) + sum(&dst.octets()) + length + u32::from(packet.protocol)
        }
        (_, src, dst) => {
            sum(&sixteen(src)) + sum(&sixteen(dst)) + length + u32::from(packet.protocol)
        }
    };
    let mut sum = sum(packet.payload) + pseudo;
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum == 0xffff
}

fn sixteen(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

fn sum(bytes: &[u8]) -> u32 {
    let (words, odd) = bytes.as_chunks::<2>();
    let words: u32 = words.iter().map(|w| u32::from(word(w))).sum();
    let last = odd.first().map_or(0, |b| u32::from(*b) << 8);
    words + last
}

fn word(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}
