//! The packet that is asked about, as far as a snapshot has to know it. Pure.

use model::{Direction, Family, MacAddr, PortId};
use netfilter::conntrack::{Entry, Tuple, TupleL4};
use std::net::IpAddr;
use wire::{Body, Fragment, L4, Packet};

pub(super) struct Question<'a> {
    pub(super) port: &'a PortId,
    pub(super) direction: Direction,
    frame: &'a [u8],
    /// What the tracker calls its connection, and that of a packet that it quotes as an ICMP error.
    pub(super) named: Option<Named>,
    pub(super) quoted: Option<Named>,
    /// Between whom it may be of any connection: the kernel reads some packets, and quotes, that we don't.
    between: Vec<[IpAddr; 2]>,
}

/// A packet of a tracked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    protocol: u8,
    tuple: Tuple,
}

impl<'a> Question<'a> {
    pub(super) fn new(port: &'a PortId, direction: Direction, frame: &'a [u8]) -> Self {
        let packet = packet(frame);
        let error = packet.as_ref().filter(|p| matches!(p.l4, L4::Icmp { .. }));
        let quoted = error.and_then(|packet| packet.payload.get(8..));
        let family = family(frame);
        let named = packet.as_ref().and_then(Named::of);
        let is_clear = named.is_some_and(|named| named.tuple.l4 != TupleL4::Nothing);
        let unclear = frame.get(14..).filter(|_| !is_clear);
        let between = [unclear, quoted].into_iter().flatten();
        Self {
            port,
            direction,
            frame,
            named,
            quoted: quoted.and_then(|bytes| Named::of(&wire::parse_quoted(bytes, family?)?)),
            between: between.filter_map(|bytes| ends(bytes, family?)).collect(),
        }
    }

    pub(super) fn destination(&self) -> Option<MacAddr> {
        self.frame.first_chunk().copied().map(MacAddr)
    }

    /// `None`: it is no IP.
    pub(super) fn family(&self) -> Option<Family> {
        family(self.frame)
    }

    pub(super) fn is_in_pieces(&self) -> bool {
        packet(self.frame).is_some_and(|packet| packet.fragment != Fragment::Whole)
    }

    /// Whether it, or what it quotes, may be of this connection.
    pub(super) fn may_be_of(&self, entry: &Entry) -> bool {
        let named = [self.named, self.quoted].into_iter().flatten();
        let tuples = [entry.original, entry.reply];
        let between = |ends: &[IpAddr; 2]| {
            let mut tuples = tuples.iter();
            tuples.any(|tuple| ends.contains(&tuple.src) && ends.contains(&tuple.dst))
        };
        named.into_iter().any(|named| named.is_of(entry)) || self.between.iter().any(between)
    }
}

impl Named {
    fn of(packet: &Packet<'_>) -> Option<Self> {
        let l4 = match packet.l4 {
            L4::Tcp { src, dst, .. } | L4::Ported { src, dst } => TupleL4::Ports { src, dst },
            L4::Icmp {
                icmp_type,
                code,
                identifier: id,
            } => TupleL4::Icmp {
                icmp_type,
                code,
                id,
            },
            L4::Opaque => TupleL4::Nothing,
            L4::Absent => return None,
        };
        let (src, dst) = (packet.src, packet.dst);
        Some(Self {
            protocol: packet.protocol,
            tuple: Tuple { src, dst, l4 },
        })
    }

    pub(super) fn is_of(&self, entry: &Entry) -> bool {
        entry.protocol == self.protocol && [entry.original, entry.reply].contains(&self.tuple)
    }
}

fn family(frame: &[u8]) -> Option<Family> {
    match frame.get(12..14)? {
        [0x08, 0x00] => Some(Family::V4),
        [0x86, 0xdd] => Some(Family::V6),
        _ => None,
    }
}

fn packet(frame: &[u8]) -> Option<Packet<'_>> {
    match wire::parse(frame).ok()?.body {
        Body::Ip(packet) => packet.ok(),
        Body::Tagged | Body::Arp(_) | Body::Other => None,
    }
}

/// Source and destination, where an IP header has them.
fn ends(header: &[u8], family: Family) -> Option<[IpAddr; 2]> {
    let four = |at: usize| {
        header
            .get(at..)?
            .first_chunk::<4>()
            .copied()
            .map(IpAddr::from)
    };
    let six = |at: usize| {
        header
            .get(at..)?
            .first_chunk::<16>()
            .copied()
            .map(IpAddr::from)
    };
    match family {
        Family::V4 => Some([four(12)?, four(16)?]),
        Family::V6 => Some([six(8)?, six(24)?]),
    }
}
