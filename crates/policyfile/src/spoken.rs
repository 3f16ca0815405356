//! The file's words outside of a file: what people write on a command line, and what is shown to them.

use crate::error::{Complaint, ErrorKind, quoted};
use crate::protocols::{self, ICMP_NAMES, Layer4, NAMES, Protocol};
use crate::words;
use model::{Family, L4Match, L4PortRange, Prefix};

/// Kinds of flows, in the words of a rule's `protocol` and `ports`, one behind the other: `any`, `tcp 5432`,
/// `udp 8000-8099`, `icmp echo-request`, `gre`. By the family of their flows. On an error, what is wrong and what
/// to do about it.
pub fn kinds(text: &str) -> Result<Vec<(Family, L4Match)>, String> {
    let (protocol, ports) = kinds_of(text).map_err(told)?;
    let of = |(family, layer4): (Family, Option<Layer4>)| Some((family, layer4?.with_ports(ports)));
    let v6 = protocol.v6.filter(|_| !protocol.one_family);
    let both = [(Family::V4, protocol.v4), (Family::V6, v6)];
    Ok(both.into_iter().filter_map(of).collect())
}

fn kinds_of(text: &str) -> Result<(Protocol, L4PortRange), Complaint> {
    if let Some((protocol, ports)) = text.split_once('/')
        && protocols::protocol(protocol).is_ok_and(|p| p.has_ports())
    {
        let what = format!("{} is no protocol", quoted(text));
        let advice = format!("the port comes behind a blank: `{protocol} {ports}`");
        return Err(Complaint::new(ErrorKind::BadProtocol, what, advice));
    }
    let mut all = text.split_ascii_whitespace();
    if let (Some(protocol), Some(ports), None) = (all.next(), all.next(), all.next())
        && let Ok(protocol) = protocols::protocol(protocol)
        && protocol.has_ports()
    {
        return Ok((protocol, words::ports(ports)?));
    }
    Ok((protocols::protocol(text)?, L4PortRange::ALL))
}

/// An address, or a prefix without bits behind its length.
pub fn prefix(text: &str) -> Result<Prefix, String> {
    words::prefix(text).map_err(told)
}

/// Whether it is an address or prefix, perhaps a bad one, rather than a name.
pub fn looks_like_address(text: &str) -> bool {
    words::looks_like_address(text)
}

/// `None`: it goes by its number.
pub fn protocol_name(number: u8) -> Option<&'static str> {
    let named = NAMES.iter().find(|(_, known)| *known == number);
    named.map(|(name, _)| *name)
}

/// The name of a type with every code, or with this one. `None`: it goes by its numbers.
pub fn icmp_name(family: Family, icmp_type: u8, code: Option<u8>) -> Option<&'static str> {
    let named = ICMP_NAMES.iter().find(|(_, v4, v6)| {
        let known = match family {
            Family::V4 => v4,
            Family::V6 => v6,
        };
        *known == Some((icmp_type, code))
    });
    named.map(|(name, ..)| *name)
}

fn told(complaint: Complaint) -> String {
    match complaint.advice.as_str() {
        "" => complaint.what,
        advice => format!("{}; {advice}", complaint.what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{IcmpKind, PortedProtocol};

    fn check(text: &str, expected: &[(Family, L4Match)]) {
        assert_eq!(kinds(text).as_deref(), Ok(expected), "{text}");
    }

    fn check_bad(text: &str, says: &str) {
        let error = kinds(text).expect_err(text);
        assert!(error.contains(says), "{text}: {error}");
    }

    fn tcp(first: u16, last: u16) -> L4Match {
        L4Match::Ported {
            protocol: PortedProtocol::Tcp,
            dst: L4PortRange::new(first, last).expect("a range"),
        }
    }

    #[test]
    fn kinds_are_named_as_in_a_rule() {
        let both = |l4| Family::BOTH.map(|family| (family, l4));
        check("any", &both(L4Match::Any));
        check("tcp 5432", &both(tcp(5432, 5432)));
        check("TCP 80-90", &both(tcp(80, 90)));
        check("tcp", &both(tcp(0, 65_535)));
        check("6", &both(tcp(0, 65_535)));
        let icmp = |icmp_type, code| L4Match::Icmp {
            kind: Some(IcmpKind { icmp_type, code }),
        };
        check(
            "icmp echo-request",
            &[(Family::V4, icmp(8, None)), (Family::V6, icmp(128, None))],
        );
        check("icmp 3/4", &[(Family::V4, icmp(3, Some(4)))]);
        check("icmpv6 1/4", &[(Family::V6, icmp(1, Some(4)))]);
    }

    #[test]
    fn what_makes_no_sense_is_told_with_what_would() {
        check_bad("tcp/5432", "`tcp 5432`");
        check_bad("tpc 5432", "no protocol");
        check_bad("tpc", "did you mean `tcp`?");
        check_bad("tcp 80 90", "no protocol");
        check_bad("tcp 90-80", "did you mean 80-90?");
        check_bad("gre 47", "no protocol");
        check_bad("icmp 300", "no ICMP type");
        check_bad("", "no protocol");
    }

    #[test]
    fn names_are_found_by_number() {
        assert_eq!(protocol_name(6), Some("tcp"));
        assert_eq!(protocol_name(253), None);
        assert_eq!(icmp_name(Family::V4, 8, None), Some("echo-request"));
        assert_eq!(icmp_name(Family::V6, 8, None), None);
        assert_eq!(
            icmp_name(Family::V4, 3, Some(4)),
            Some("fragmentation-needed")
        );
    }
}
