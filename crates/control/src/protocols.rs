//! What a rule's protocol and range mean.
//!
//! Knows nothing of: what is refused, and in which words (see the use case of rules).

use crate::objects::Asks;
use model::{Family, IcmpKind, L4Match, L4PortRange, PortedProtocol, PortlessProtocol};

/// Names that the API takes, with their numbers (IANA's, as Neutron has them).
const NAMES: &[(&str, u8)] = &[
    ("ah", 51),
    ("dccp", 33),
    ("egp", 8),
    ("esp", 50),
    ("gre", 47),
    ("hopopt", 0),
    ("icmp", 1),
    ("icmpv6", 58),
    ("igmp", 2),
    ("ip", 0),
    ("ipip", 4),
    ("ipv6-encap", 41),
    ("ipv6-frag", 44),
    ("ipv6-icmp", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ipv6-route", 43),
    ("ospf", 89),
    ("pgm", 113),
    ("rsvp", 46),
    ("sctp", 132),
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
    ("vrrp", 112),
];

/// Of a name in lower case, or of a number written in digits.
pub(crate) fn number(protocol: &str) -> Option<u8> {
    let named = NAMES.iter().find(|(name, _)| *name == protocol);
    named.map(|(_, number)| *number).or_else(|| {
        let digits = !protocol.is_empty() && protocol.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| protocol.parse().ok()).flatten()
    })
}

/// One that [`number`] takes: the number itself where there is no name, or more than one.
pub(crate) fn name(number: u8) -> String {
    let mut names = NAMES.iter().filter(|(_, of)| *of == number);
    match (names.next(), names.next()) {
        (Some((name, _)), None) => (*name).to_owned(),
        _ => number.to_string(),
    }
}

pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

pub(crate) fn l4(asks: &Asks) -> Option<L4Match> {
    let Some(protocol) = &asks.protocol else {
        return (asks.range_min.is_none() && asks.range_max.is_none()).then_some(L4Match::Any);
    };
    let number = number(protocol)?;
    let icmp = match asks.family {
        Family::V4 => number == 1,
        Family::V6 => number == 58 || number == 1,
    };
    if icmp {
        return icmp_kind(asks).map(|kind| L4Match::Icmp { kind });
    }
    if let Some(protocol) = PortedProtocol::from_number(number) {
        let dst = match (asks.range_min, asks.range_max) {
            (None, None) => L4PortRange::ALL,
            (Some(first), Some(last)) => L4PortRange::new(first, last)?,
            _ => return None,
        };
        return Some(L4Match::Ported { protocol, dst });
    }
    let portless = PortlessProtocol::new(number)?;
    (asks.range_min.is_none() && asks.range_max.is_none()).then_some(L4Match::Other(portless))
}

/// Type and code stand where ports would.
fn icmp_kind(asks: &Asks) -> Option<Option<IcmpKind>> {
    let code = match asks.range_max {
        Some(code) => Some(u8::try_from(code).ok()?),
        None => None,
    };
    match (asks.range_min, code) {
        (None, None) => Some(None),
        (None, Some(_)) => None,
        (Some(icmp_type), code) => Some(Some(IcmpKind {
            icmp_type: u8::try_from(icmp_type).ok()?,
            code,
        })),
    }
}
