//! Which kinds of flows: protocols, destination ports, types and codes of ICMP, as one line of numbers.
//!
//! ```text
//! protocol 0 | 1: type 0 code 0 .. type 255 code 255 | .. | 6: port 0 .. port 65535 | .. | 255
//! ```
//! A protocol that has neither ports nor types has its whole stretch or nothing of it.

use super::ranges::Ranges;
use crate::compile::is_extension_header;
use crate::elision::icmp_number;
use model::{Family, IcmpKind, L4Match, L4PortRange, PortedProtocol};

/// A set of kinds of flows of one family. Equal sets are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct L4Set {
    family: Family,
    pub(super) line: Ranges,
}

/// A piece of such a set, as people name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4Part {
    /// From one number to another, with all that is in them.
    Protocols {
        first: u8,
        last: u8,
    },
    /// Of one protocol, not all of them.
    Ports {
        protocol: PortedProtocol,
        dst: L4PortRange,
    },
    /// All codes of these types, not of all.
    IcmpTypes {
        first: u8,
        last: u8,
    },
    IcmpCodes {
        icmp_type: u8,
        first: u8,
        last: u8,
    },
}

/// So many numbers has each protocol.
const WIDTH: u128 = 1 << 16;

impl L4Set {
    /// Every packet has one of these: in IPv6 extension headers are on the way to the protocol.
    pub fn any(family: Family) -> Self {
        let is_protocol = |p: &u8| family == Family::V4 || !is_extension_header(*p);
        let protocols = (0..=u8::MAX).filter(is_protocol);
        Self {
            family,
            line: protocols.map(stretch).collect(),
        }
    }

    pub fn none(family: Family) -> Self {
        Self::new(family, Ranges::default())
    }

    pub fn of(family: Family, l4: L4Match) -> Self {
        let line = match l4 {
            L4Match::Any => return Self::any(family),
            L4Match::Ported { protocol, dst } => {
                let (start, _) = stretch(protocol.number());
                Ranges::one(
                    start + u128::from(dst.first()),
                    start + u128::from(dst.last()),
                )
            }
            L4Match::Icmp { kind } => {
                let (start, last) = stretch(icmp_number(family));
                match kind {
                    None => Ranges::one(start, last),
                    Some(IcmpKind { icmp_type, code }) => {
                        let start = start + (u128::from(icmp_type) << 8);
                        let (first, last) = code.map_or((0, u8::MAX), |code| (code, code));
                        Ranges::one(start + u128::from(first), start + u128::from(last))
                    }
                }
            }
            L4Match::Other(protocol) => {
                let (first, last) = stretch(protocol.number());
                Ranges::one(first, last)
            }
        };
        Self { family, line }.within(&Self::any(family))
    }

    pub(super) fn new(family: Family, line: Ranges) -> Self {
        Self { family, line }
    }

    fn within(&self, other: &Self) -> Self {
        Self::new(self.family, self.line.intersection(&other.line))
    }

    pub fn family(&self) -> Family {
        self.family
    }

    pub fn is_any(&self) -> bool {
        *self == Self::any(self.family)
    }

    /// What of the family isn't in it.
    pub fn rest(&self) -> Self {
        let any = Self::any(self.family);
        Self::new(self.family, any.line.without(&self.line))
    }

    /// `detail` is the destination port, for ICMP the type and the code as two bytes, else 0.
    pub fn contains(&self, protocol: u8, detail: u16) -> bool {
        let (start, _) = stretch(protocol);
        self.line.contains(start + u128::from(detail))
    }

    /// In order.
    pub fn parts(&self) -> Vec<L4Part> {
        let mut parts = Vec::new();
        for (first, last) in self.line.iter() {
            // Whole protocols in the middle, and perhaps pieces of one on either side.
            let whole = first.div_ceil(WIDTH)..(last + 1) / WIDTH;
            if whole.is_empty() && first / WIDTH == last / WIDTH {
                self.pieces(first, last, &mut parts);
                continue;
            }
            if first < whole.start * WIDTH {
                self.pieces(first, whole.start * WIDTH - 1, &mut parts);
            }
            if !whole.is_empty() {
                let (first, last) = (byte(whole.start), byte(whole.end - 1));
                parts.push(L4Part::Protocols { first, last });
            }
            if last >= whole.end * WIDTH {
                self.pieces(whole.end * WIDTH, last, &mut parts);
            }
        }
        parts
    }

    /// Of one protocol, not the whole of it.
    fn pieces(&self, first: u128, last: u128, parts: &mut Vec<L4Part>) {
        let protocol = byte(first / WIDTH);
        let number = |n: u128| u16::try_from(n % WIDTH).expect("below the width");
        let (first, last) = (number(first), number(last));
        if let Some(protocol) = PortedProtocol::from_number(protocol) {
            let dst = L4PortRange::new(first, last).expect("ranges are in order");
            parts.push(L4Part::Ports { protocol, dst });
        } else {
            // Nothing but ICMP has other pieces.
            icmp_pieces(first, last, parts);
        }
    }
}

fn icmp_pieces(first: u16, last: u16, parts: &mut Vec<L4Part>) {
    let codes = |icmp_type, first, last| L4Part::IcmpCodes {
        icmp_type,
        first,
        last,
    };
    let ([low, first_code], [high, last_code]) = (first.to_be_bytes(), last.to_be_bytes());
    if low == high && (first_code, last_code) != (0, u8::MAX) {
        return parts.push(codes(low, first_code, last_code));
    }
    if first_code != 0 {
        parts.push(codes(low, first_code, u8::MAX));
    }
    let first_whole = u16::from(low) + u16::from(first_code != 0);
    let end_whole = u16::from(high) + u16::from(last_code == u8::MAX);
    if first_whole < end_whole {
        let (first, last) = (byte(first_whole.into()), byte((end_whole - 1).into()));
        parts.push(L4Part::IcmpTypes { first, last });
    }
    if last_code != u8::MAX {
        parts.push(codes(high, 0, last_code));
    }
}

fn stretch(protocol: u8) -> (u128, u128) {
    let start = u128::from(protocol) * WIDTH;
    (start, start + WIDTH - 1)
}

fn byte(number: u128) -> u8 {
    u8::try_from(number).expect("there are 256 protocols and types")
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::PortlessProtocol;

    fn set(family: Family, matches: &[L4Match]) -> L4Set {
        let sets: Vec<L4Set> = matches.iter().map(|l4| L4Set::of(family, *l4)).collect();
        L4Set::new(family, Ranges::union(sets.iter().map(|set| &set.line)))
    }

    fn ports(first: u16, last: u16) -> L4Match {
        L4Match::Ported {
            protocol: PortedProtocol::Tcp,
            dst: L4PortRange::new(first, last).expect("a range"),
        }
    }

    fn icmp(icmp_type: u8, code: Option<u8>) -> L4Match {
        L4Match::Icmp {
            kind: Some(IcmpKind { icmp_type, code }),
        }
    }

    fn other(protocol: u8) -> L4Match {
        L4Match::Other(PortlessProtocol::new(protocol).expect("it has no variant"))
    }

    fn check(matches: &[L4Match], expected: &[L4Part]) {
        assert_eq!(set(Family::V4, matches).parts(), expected, "{matches:?}");
    }

    #[test]
    fn sets_are_named_by_their_largest_pieces() {
        let tcp = |first, last| L4Part::Ports {
            protocol: PortedProtocol::Tcp,
            dst: L4PortRange::new(first, last).expect("a range"),
        };
        let protocols = |first, last| L4Part::Protocols { first, last };
        let codes = |icmp_type, first, last| L4Part::IcmpCodes {
            icmp_type,
            first,
            last,
        };
        check(&[], &[]);
        check(&[L4Match::Any], &[protocols(0, 255)]);
        check(&[ports(80, 80), ports(81, 90)], &[tcp(80, 90)]);
        check(&[ports(0, 79), ports(80, 65_535)], &[protocols(6, 6)]);
        // Next to each other on the line, and nothing else in common.
        check(&[other(5), ports(0, 7)], &[protocols(5, 5), tcp(0, 7)]);
        check(
            &[ports(65_535, 65_535), other(7), other(8)],
            &[tcp(65_535, 65_535), protocols(7, 8)],
        );
        check(&[icmp(8, None)], &[L4Part::IcmpTypes { first: 8, last: 8 }]);
        check(
            &[icmp(3, Some(255)), icmp(4, None), icmp(5, Some(0))],
            &[
                codes(3, 255, 255),
                L4Part::IcmpTypes { first: 4, last: 4 },
                codes(5, 0, 0),
            ],
        );
        check(
            &[icmp(3, Some(255)), icmp(4, Some(0))],
            &[codes(3, 255, 255), codes(4, 0, 0)],
        );
        check(
            &[icmp(255, Some(255)), other(2)],
            &[codes(255, 255, 255), protocols(2, 2)],
        );
        check(&[icmp(3, Some(4))], &[codes(3, 4, 4)]);
    }

    #[test]
    fn the_rest_is_what_is_not_in_it() {
        let without = set(Family::V4, &[ports(443, 443)]).rest();
        assert!(!without.contains(6, 443));
        for (protocol, detail) in [(6, 442), (6, 444), (17, 443), (0, 0), (255, 65_535)] {
            assert!(without.contains(protocol, detail), "{protocol} {detail}");
        }
        assert!(without.rest().rest() == without);
        assert!(L4Set::any(Family::V6).rest().line.is_empty());
    }

    #[test]
    fn extension_headers_are_no_protocols_of_ipv6() {
        for protocol in [0, 43, 44, 51, 60] {
            assert!(L4Set::any(Family::V4).contains(protocol, 0));
            assert!(!L4Set::any(Family::V6).contains(protocol, 0));
            assert!(L4Set::of(Family::V6, other(protocol)).line.is_empty());
        }
        assert!(set(Family::V6, &[L4Match::Any, ports(1, 2)]).is_any());
    }

    #[test]
    fn icmp_is_another_protocol_in_each_family() {
        let all = L4Match::Icmp { kind: None };
        assert!(L4Set::of(Family::V4, all).contains(1, 0x0800));
        assert!(L4Set::of(Family::V6, all).contains(58, 0x8000));
        assert!(!L4Set::of(Family::V6, all).contains(1, 0));
    }
}
