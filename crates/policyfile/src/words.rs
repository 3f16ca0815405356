//! The grammar of single values: names, numbers, addresses, ports, devices, choices.

use crate::error::{Complaint, ErrorKind, quoted};
use model::{Family, L4PortRange, MacAddr, Prefix, PrefixError};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;

pub(crate) const MAX_NAME: usize = 63;

/// The name of an object: letters, digits and `. _ -`, beginning with a letter or digit.
pub(crate) fn name(text: &str) -> Result<(), Complaint> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let begins = text
        .as_bytes()
        .first()
        .is_some_and(u8::is_ascii_alphanumeric);
    let why = if text.is_empty() {
        "a name is empty".to_owned()
    } else if text.len() > MAX_NAME {
        format!(
            "the name {} has {} bytes; names have at most {MAX_NAME}",
            quoted(text),
            text.len()
        )
    } else if !begins || !text.bytes().all(plain) {
        format!("{} can't be a name", quoted(text))
    } else {
        return Ok(());
    };
    let advice =
        "names are letters, digits, `.`, `_` and `-`, and begin with a letter or digit (ASCII)";
    Err(Complaint::new(ErrorKind::BadName, why, advice))
}

/// The name of a group or address group: a rule's remote must tell it from `any` and from addresses.
pub(crate) fn group_name(text: &str) -> Result<(), Complaint> {
    name(text)?;
    if text.eq_ignore_ascii_case("any") || looks_like_address(text) {
        let what = format!("{} can't be the name of a group", quoted(text));
        let advice = "in a rule, `any` is everybody, and digits and dots are an address";
        return Err(Complaint::new(ErrorKind::BadName, what, advice));
    }
    Ok(())
}

/// The name of a rule. Rules without one are numbered, and rules that stand for several are
/// numbered behind a dot, so neither can be in a name.
pub(crate) fn rule_name(text: &str) -> Result<(), Complaint> {
    name(text)?;
    if text.contains('.') || text.bytes().all(|b| b.is_ascii_digit()) {
        let what = format!("{} can't be the name of a rule", quoted(text));
        let advice = "rules without a name are called by their number, and their parts by `.`: use letters, and `-` or `_`";
        return Err(Complaint::new(ErrorKind::BadName, what, advice));
    }
    Ok(())
}

/// A plain decimal number: ASCII digits without sign or leading zeros.
pub(crate) fn number<T: TryFrom<u64> + PartialOrd>(
    text: &str,
    bounds: RangeInclusive<T>,
) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let plain = digits && (text.len() == 1 || !text.starts_with('0'));
    let value: u64 = plain.then(|| text.parse().ok()).flatten()?;
    T::try_from(value)
        .ok()
        .filter(|value| bounds.contains(value))
}

pub(crate) fn bounded(
    text: &str,
    what: &str,
    bounds: RangeInclusive<u32>,
) -> Result<u32, Complaint> {
    let (low, high) = (*bounds.start(), *bounds.end());
    number(text, bounds).ok_or_else(|| {
        let message = format!("{} can't be {what}", quoted(text));
        let advice = format!("a whole number from {low} to {high}");
        Complaint::new(ErrorKind::BadNumber, message, advice)
    })
}

/// One of a few words, each with what it means.
pub(crate) fn choice<T: Copy>(
    text: &str,
    what: &str,
    choices: &[(&'static str, T)],
) -> Result<T, Complaint> {
    choices
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let message = format!("{} is not a value of {what}", quoted(text));
            let advice = format!("one of {}", words.join(", "));
            Complaint::new(ErrorKind::BadValue, message, advice)
        })
}

pub(crate) fn switch(text: &str, what: &str) -> Result<bool, Complaint> {
    let choices = [
        ("on", true),
        ("off", false),
        ("true", true),
        ("false", false),
    ];
    choice(text, what, &choices)
}

/// One transport port or a range, both ends included: `22`, `8000-8099`.
pub(crate) fn ports(text: &str) -> Result<L4PortRange, Complaint> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let all = 0..=u16::MAX;
    let bad = |what: String, advice: String| Complaint::new(ErrorKind::BadPorts, what, advice);
    let (Some(first), Some(last)) = (number(first, all.clone()), number(last, all)) else {
        let what = format!("{} is neither a port nor a range of ports", quoted(text));
        let advice = if text.contains(',') {
            format!(
                "write several as a list: [{}]",
                text.replace(',', ", ").replace("  ", " ")
            )
        } else if text.contains(':') {
            "write a range with `-`: 8000-8099".to_owned()
        } else {
            "ports are numbers from 0 to 65535: 22, or a range 8000-8099".to_owned()
        };
        return Err(bad(what, advice));
    };
    L4PortRange::new(first, last).ok_or_else(|| {
        let what = format!("{} ends before it begins", quoted(text));
        bad(what, format!("did you mean {last}-{first}?"))
    })
}

/// Whether a remote is to be read as a prefix rather than as a name.
pub(crate) fn looks_like_address(text: &str) -> bool {
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    numeric || text.contains(['/', ':'])
}

/// A prefix without host bits, or one address.
pub(crate) fn prefix(text: &str) -> Result<Prefix, Complaint> {
    let bad = |what: String, advice: &str| Complaint::new(ErrorKind::BadAddress, what, advice);
    let padded = text
        .split_once('/')
        .is_some_and(|(_, l)| l.len() > 1 && l.starts_with('0'));
    match text.parse::<Prefix>() {
        Ok(prefix) if !padded => {
            if let IpAddr::V6(network) = prefix.network()
                && prefix.length() >= 96
            {
                refuse_mapped(text, network)?;
            }
            Ok(prefix)
        }
        Err(PrefixError::HostBits { meant }) if !padded => {
            let address = text.split('/').next().unwrap_or_default();
            let what = format!("{} has bits set behind its length", quoted(text));
            let advice = format!("did you mean {meant}? A single address is written {address}");
            Err(Complaint::new(ErrorKind::HostBits, what, advice))
        }
        Err(PrefixError::TooLong { family }) => {
            let what = format!("{} is longer than an address", quoted(text));
            let advice = match family {
                Family::V4 => "the length of an IPv4 prefix is 0 to 32",
                Family::V6 => "the length of an IPv6 prefix is 0 to 128",
            };
            Err(bad(what, advice))
        }
        Ok(_) | Err(PrefixError::HostBits { .. } | PrefixError::Syntax) => Err(bad(
            format!("{} is no IP address or prefix", quoted(text)),
            "write 10.0.0.5, 10.0.0.0/24, fd00::5 or fd00::/64",
        )),
    }
}

/// One address that a host can have.
pub(crate) fn address(text: &str) -> Result<IpAddr, Complaint> {
    let bad = |what: &str, advice: &str| {
        let what = format!("{} {what}", quoted(text));
        Complaint::new(ErrorKind::BadAddress, what, advice)
    };
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(if text.contains('/') {
            let advice = "write the address alone; prefixes belong in a network's `subnets` or a port's `pairs`";
            bad("is no single address", advice)
        } else {
            bad("is no IP address", "write it as 10.0.0.5 or fd00::5")
        });
    };
    if let IpAddr::V6(v6) = address {
        refuse_mapped(text, v6)?;
    }
    let broadcast = matches!(address, IpAddr::V4(a) if a.is_broadcast());
    if address.is_multicast() || address.is_unspecified() || address.is_loopback() || broadcast {
        let advice = "multicast, broadcast, loopback and the unspecified address belong to no port";
        return Err(bad("is no address that one machine can have", advice));
    }
    Ok(address)
}

/// `::ffff:1.2.3.4` is never on the wire, so what it would allow is not what is meant.
fn refuse_mapped(text: &str, address: Ipv6Addr) -> Result<(), Complaint> {
    match address.to_ipv4_mapped() {
        None => Ok(()),
        Some(v4) => {
            let what = format!(
                "{} is an IPv4 address in the clothes of an IPv6 one",
                quoted(text)
            );
            let advice = format!("write {v4}");
            Err(Complaint::new(ErrorKind::BadAddress, what, advice))
        }
    }
}

/// A MAC that a port can have.
pub(crate) fn mac(text: &str) -> Result<MacAddr, Complaint> {
    let bad = |what: &str, advice: &str| {
        let what = format!("{} {what}", quoted(text));
        Complaint::new(ErrorKind::BadMac, what, advice)
    };
    match text.parse::<MacAddr>() {
        Err(()) => Err(bad("is no MAC address", "write it as 52:54:00:12:34:56")),
        Ok(mac) if mac.is_group() || mac == MacAddr::ZERO => Err(bad(
            "is no MAC address that a port can have",
            "the lowest bit of the first byte is 0 (not multicast), and some bit is 1",
        )),
        Ok(mac) => Ok(mac),
    }
}

/// A device's name as the kernel takes it, perhaps with `*` for any text.
pub(crate) fn device(text: &str) -> Result<(), Complaint> {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b':');
    let fits = !text.is_empty() && text.len() <= 15 && !matches!(text, "." | "..");
    if fits && text.bytes().all(plain) {
        return Ok(());
    }
    let what = format!("{} can't be the name of a network device", quoted(text));
    let advice = "1 to 15 characters without spaces, `/` and `:`; with `*` for any text it is a pattern; without `device` it is found by its MAC";
    Err(Complaint::new(ErrorKind::BadDevice, what, advice))
}

/// The text that a virtual switch has for an interface: a UUID as a rule, but it may be any.
pub(crate) fn interface_id(text: &str) -> Result<(), Complaint> {
    const MAX: usize = 512;
    if (1..=MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    let what = format!("{} can't be the id of an interface", quoted(text));
    let advice = format!(
        "1 to {MAX} characters without spaces (ASCII), as `ovs-vsctl get interface DEVICE external_ids:iface-id` shows it"
    );
    Err(Complaint::new(ErrorKind::BadInterfaceId, what, advice))
}

/// `0x88cc` or 35020. Those that the guard itself judges can't be listed, nor tags, which would hide
/// what is behind them.
pub(crate) fn ethertype(text: &str) -> Result<u16, Complaint> {
    let hex = text
        .strip_prefix("0x")
        .filter(|hex| hex.len() <= 4 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    let value = match hex {
        Some(hex) => u16::from_str_radix(hex, 16).ok(),
        None => number(text, 0..=u16::MAX),
    };
    let bad = |what: &str, advice: &str| {
        let what = format!("{} {what}", quoted(text));
        Complaint::new(ErrorKind::BadEthertype, what, advice)
    };
    match value {
        None => Err(bad("is no ethertype", "write it as 0x88cc")),
        Some(..0x600) => Err(bad(
            "is a frame's length, no ethertype",
            "ethertypes begin at 0x0600",
        )),
        Some(0x0800 | 0x86dd | 0x0806 | 0x8035) => Err(bad(
            "needs no listing",
            "IPv4, IPv6, ARP and RARP are judged by the guard and the rules",
        )),
        Some(0x8100 | 0x88a8 | 0x9100) => Err(bad(
            "is a VLAN tag's, and tagged frames never pass",
            "remove it",
        )),
        Some(value) => Ok(value),
    }
}
