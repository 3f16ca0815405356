//! What a rule says: a direction, a family, what it asks of the transport header, and of the other side.

use crate::{AddressGroupId, Family, GroupId, Prefix, RuleId};
use std::fmt;

/// Seen from the VM: ingress is towards it, egress from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    pub fn opposite(self) -> Self {
        match self {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        })
    }
}

/// Permits traffic; nothing forbids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    pub id: RuleId,
    pub direction: Direction,
    pub family: Family,
    pub l4: L4Match,
    pub peer: Peer,
}

/// Who is on the other side.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    Any,
    /// Of the rule's family, else it matches nobody (a finding says so).
    Prefix(Prefix),
    Group(GroupId),
    AddressGroup(AddressGroupId),
}

/// What a rule asks of the transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum L4Match {
    /// Any protocol.
    Any,
    Ported {
        protocol: PortedProtocol,
        dst: L4PortRange,
    },
    /// ICMP in an IPv4 rule, ICMPv6 in an IPv6 rule.
    Icmp {
        kind: Option<IcmpKind>,
    },
    Other(PortlessProtocol),
}

/// A protocol whose header begins with a source and a destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortedProtocol {
    Tcp,
    Udp,
    Dccp,
    Sctp,
    UdpLite,
}

impl PortedProtocol {
    pub const ALL: [PortedProtocol; 5] = [
        PortedProtocol::Tcp,
        PortedProtocol::Udp,
        PortedProtocol::Dccp,
        PortedProtocol::Sctp,
        PortedProtocol::UdpLite,
    ];

    pub fn number(self) -> u8 {
        match self {
            PortedProtocol::Tcp => 6,
            PortedProtocol::Udp => 17,
            PortedProtocol::Dccp => 33,
            PortedProtocol::Sctp => 132,
            PortedProtocol::UdpLite => 136,
        }
    }

    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.number() == number)
    }
}

/// An IP protocol that has no variant of its own in [`L4Match`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortlessProtocol(u8);

impl PortlessProtocol {
    /// `None` for protocols with ports and for ICMP (1) and ICMPv6 (58).
    pub fn new(number: u8) -> Option<Self> {
        let has_variant = PortedProtocol::from_number(number).is_some() || matches!(number, 1 | 58);
        (!has_variant).then_some(Self(number))
    }

    pub fn number(self) -> u8 {
        self.0
    }
}

/// Transport ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct L4PortRange {
    first: u16,
    last: u16,
}

impl L4PortRange {
    pub const ALL: L4PortRange = L4PortRange {
        first: 0,
        last: u16::MAX,
    };

    /// `None` when `last < first`.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    pub fn first(self) -> u16 {
        self.first
    }

    pub fn last(self) -> u16 {
        self.last
    }

    pub fn contains(self, l4_port: u16) -> bool {
        (self.first..=self.last).contains(&l4_port)
    }
}

/// An ICMP type, perhaps with a code; without one, every code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IcmpKind {
    pub icmp_type: u8,
    pub code: Option<u8>,
}
