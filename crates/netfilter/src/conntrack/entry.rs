//! An entry of the kernel's connection table.

use super::tuple::{Side, Tuple, TupleL4};
use model::{Direction, Family, FlowKey, IcmpRequest};
use std::fmt;

/// An entry as listed. What the kernel knows beyond it is lost when it is created again from this: TCP's
/// sequence numbers (the first packet of each direction sets them anew), DCCP's state, labels, counters,
/// helpers, who was expected by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub protocol: u8,
    pub original: Tuple,
    /// The reversed original, unless addresses are translated.
    pub reply: Tuple,
    pub zone: u16,
    /// Packets of the other direction are in zone 0. `None`: both are in the zone.
    pub zone_only: Option<Side>,
    pub mark: u32,
    pub status: Status,
    /// What is left of it. For creating: at least 1, or the entry is never seen.
    pub timeout_s: u32,
    pub state: State,
    /// A hash of where it lies in memory and of its tuple. `None`: made here, not listed.
    pub id: Option<u32>,
}

/// What a protocol's own states are, as the kernel numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Tcp(Tcp),
    Sctp(Sctp),
    /// Protocols without, and TCP or SCTP of which the kernel didn't say it.
    Stateless,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    pub state: u8,
    pub original: TcpOptions,
    pub reply: TcpOptions,
}

/// What one end agreed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpOptions {
    pub window_scale: u8,
    /// Bits of the kernel's `IP_CT_TCP_FLAG_`.
    pub flags: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sctp {
    pub state: u8,
    pub original_tag: u32,
    pub reply_tag: u32,
}

/// Bits of the kernel's `IPS_`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status(pub u32);

impl Tcp {
    pub const SYN_SENT: u8 = 1;
    pub const SYN_RECV: u8 = 2;
    pub const ESTABLISHED: u8 = 3;
    pub const FIN_WAIT: u8 = 4;
    pub const CLOSE_WAIT: u8 = 5;
    pub const LAST_ACK: u8 = 6;
    pub const TIME_WAIT: u8 = 7;
    pub const CLOSE: u8 = 8;
    pub const SYN_SENT2: u8 = 9;
}

impl TcpOptions {
    /// `window_scale` was agreed.
    pub const WINDOW_SCALE: u8 = 0x01;
    pub const SACK_PERMITTED: u8 = 0x02;
    /// It closes first.
    pub const CLOSE_INIT: u8 = 0x04;
    /// Its packets count whatever their sequence numbers.
    pub const BE_LIBERAL: u8 = 0x08;
    pub const SIMULTANEOUS_OPEN: u8 = 0x80;
    /// What holds without the sequence numbers. The other flags say that the kernel remembers one, and
    /// an entry created with such a flag takes half of all resets for forged.
    pub(crate) const TRANSFERABLE: u8 = Self::WINDOW_SCALE
        | Self::SACK_PERMITTED
        | Self::CLOSE_INIT
        | Self::BE_LIBERAL
        | Self::SIMULTANEOUS_OPEN;
}

impl Status {
    pub const EXPECTED: Status = Status(0x0001);
    pub const SEEN_REPLY: Status = Status(0x0002);
    /// Not given up early when the table is full.
    pub const ASSURED: Status = Status(0x0004);
    pub const CONFIRMED: Status = Status(0x0008);
    pub const SOURCE_TRANSLATED: Status = Status(0x0010);
    pub const DESTINATION_TRANSLATED: Status = Status(0x0020);
    pub const DYING: Status = Status(0x0200);
    pub const FIXED_TIMEOUT: Status = Status(0x0400);
    /// In a flow table, whose packets pass by conntrack and by rules.
    pub const OFFLOADED: Status = Status(0x4000);

    pub fn has(self, bits: Status) -> bool {
        self.0 & bits.0 == bits.0
    }

    pub fn with(self, bits: Status) -> Status {
        Status(self.0 | bits.0)
    }
}

impl Entry {
    pub fn family(&self) -> Family {
        Family::of(self.original.src)
    }

    pub fn is_translated(&self) -> bool {
        self.status.has(Status::SOURCE_TRANSLATED)
            || self.status.has(Status::DESTINATION_TRANSLATED)
    }

    /// The flow that it is to the end that it came in to, or went out from; `original`: which. `None`: ICMP
    /// that is no request of a flow.
    pub fn flow_key(&self, original: Direction) -> Option<FlowKey> {
        let tuple = &self.original;
        let (src_l4, dst_l4, icmp) = match tuple.l4 {
            TupleL4::Ports { src, dst } => (src, dst, None),
            TupleL4::Nothing => (0, 0, None),
            TupleL4::Icmp {
                icmp_type,
                code,
                id,
            } => {
                let request = IcmpRequest {
                    icmp_type,
                    by_local: original == Direction::Egress,
                };
                let of_flow = code == 0 && matches!(icmp_type, 8 | 13 | 128);
                (id, id, Some(of_flow.then_some(request)?))
            }
        };
        let (local, remote, local_l4, remote_l4) = match original {
            Direction::Egress => (tuple.src, tuple.dst, src_l4, dst_l4),
            Direction::Ingress => (tuple.dst, tuple.src, dst_l4, src_l4),
        };
        Some(FlowKey {
            protocol: self.protocol,
            local,
            remote,
            local_l4,
            remote_l4,
            icmp,
        })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            original,
            zone,
            ..
        } = self;
        write!(f, "{original} protocol {protocol} zone {zone}")
    }
}
