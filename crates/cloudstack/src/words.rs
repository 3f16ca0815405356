//! The grammar of single values, and how a text of somebody else's is shown in one line.

use model::{Family, MacAddr, Prefix};
use std::net::{IpAddr, Ipv6Addr};

/// Quotes a text for a message: one line, no control characters, not too long.
pub(crate) fn quoted(text: &str) -> String {
    const MAX_CHARS: usize = 70;
    let mut out = String::from("`");
    for (i, c) in text.chars().enumerate() {
        if i == MAX_CHARS {
            out.push('…');
            break;
        }
        if c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric() {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
    }
    out.push('`');
    out
}

/// A plain decimal number: ASCII digits without sign or leading zeros, so that nobody reads `010` as 8.
pub(crate) fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let plain = digits && (text.len() == 1 || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

/// A prefix or a single address. Bits behind the length are cut off: the management server takes such
/// prefixes, and its own script means the same by them. Leading zeros are refused: the server reads
/// them as decimal and iptables as octal.
///
/// An IPv4 address in the clothes of an IPv6 one stays an IPv6 prefix, which no packet matches.
pub(crate) fn prefix(text: &str) -> Option<Prefix> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(number(length)?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let width = Family::of(address).width();
    let length = length.map_or(Ok(width), u8::try_from).ok()?;
    (length <= width).then(|| Prefix::containing(address, length))
}

/// An address that one machine can have.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    let impossible = match address {
        IpAddr::V4(a) => a.is_broadcast(),
        IpAddr::V6(a) => is_mapped(a),
    };
    let reserved = address.is_multicast() || address.is_unspecified() || address.is_loopback();
    (!impossible && !reserved).then_some(address)
}

fn is_mapped(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some()
}

/// A MAC that one NIC can have.
pub(crate) fn mac(text: &str) -> Option<MacAddr> {
    let mac: MacAddr = text.parse().ok()?;
    (!mac.is_group() && mac != MacAddr::ZERO).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_prefix(text: &str, expected: Option<&str>) {
        let seen = prefix(text).map(|p| p.to_string());
        assert_eq!(seen.as_deref(), expected, "{text}");
    }

    #[test]
    fn prefixes_are_read_in_one_way_or_refused() {
        check_prefix("0.0.0.0/0", Some("0.0.0.0/0"));
        check_prefix("10.1.2.3/8", Some("10.0.0.0/8"));
        check_prefix("10.1.2.3/32", Some("10.1.2.3"));
        check_prefix("10.1.2.3", Some("10.1.2.3"));
        check_prefix("2001:DB8::1/32", Some("2001:db8::/32"));
        check_prefix("::/0", Some("::/0"));
        check_prefix("::ffff:1.2.3.4/128", Some("::ffff:1.2.3.4"));
        for bad in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/08",
            "10.0.0.0/010",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "010.0.0.0/8",
            "10.0.0/8",
            "10.0.0.0/255.0.0.0",
            "0x0a000000/8",
            " 10.0.0.0/8",
            "10.0.0.0/8 ",
            "١٠.0.0.0/8",
            "10.0.0.0/٨",
            "fe80::1%eth0/64",
            "any",
            "null/32",
        ] {
            check_prefix(bad, None);
        }
    }

    fn check_address(text: &str, expected: Option<&str>) {
        let seen = address(text).map(|a| a.to_string());
        assert_eq!(seen.as_deref(), expected, "{text}");
    }

    #[test]
    fn addresses_are_those_of_machines() {
        check_address("10.1.1.10", Some("10.1.1.10"));
        check_address("FD00::0:10", Some("fd00::10"));
        check_address("fe80::1", Some("fe80::1"));
        for bad in [
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "127.0.0.1",
            "::",
            "::1",
            "ff02::1",
            "::ffff:10.1.1.10",
            "10.1.1.10/32",
            "10.1.1.010",
            "",
            "_ignore_",
        ] {
            check_address(bad, None);
        }
    }

    #[test]
    fn macs_are_those_of_nics() {
        assert!(mac("02:00:4c:5f:00:01").is_some());
        assert_eq!(mac("02-00-4C-5F-00-01"), mac("02:00:4c:5f:00:01"));
        for bad in [
            "",
            "2:0:4c:5f:0:1",
            "00:00:00:00:00:00",
            "01:00:5e:00:00:01",
        ] {
            assert_eq!(mac(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_are_plain() {
        assert_eq!(number("0"), Some(0));
        assert_eq!(number("65535"), Some(65_535));
        for bad in [
            "",
            "00",
            "01",
            "+1",
            "-1",
            "1 ",
            "١",
            "1e3",
            "99999999999999999999",
        ] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_quoted_text_is_one_short_line() {
        assert_eq!(quoted("a b"), "`a b`");
        assert_eq!(quoted("a\nb\u{1b}[0m"), "`a\\u{a}b\\u{1b}[0m`");
        assert_eq!(quoted(&"x".repeat(1_000)).chars().count(), 73);
    }
}
