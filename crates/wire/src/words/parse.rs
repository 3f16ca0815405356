//! Words to a description.

use super::{Extra, Kind, Words, WordsError};
use crate::TcpFlags;
use crate::build::Extension;
use model::MacAddr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const KINDS: &str = "tcp, udp, udplite, sctp, dccp, icmp, protocol, arp, rarp, ns, na, rs, ra, \
                     redirect, mld, igmp, dhcp, ethertype or frame";

const KEYS: &str = "one of src-mac, dst-mac, frag, ttl, vlan, qinq, len, data, options, hop-by-hop, \
                    dest-options, long-options, routing, ah, extension, router-alert, code, id, about, sender-mac, \
                    target-mac, lladdr, nd-option, nd-options, target, destination, group, arp-header, opcode, \
                    version, header-words, ip-length, next-header, cut, pad, tail";

struct Reader<'a> {
    words: Vec<&'a str>,
    at: usize,
}

type Ends = (IpAddr, IpAddr);

pub(super) fn words(text: &str) -> Result<Words, WordsError> {
    let mut reader = Reader {
        words: split(text),
        at: 0,
    };
    let words = packet(&mut reader)?;
    match reader.peek() {
        None => Ok(words),
        Some(_) => reader.fail(KEYS),
    }
}

/// Words, with parentheses as words of their own.
fn split(text: &str) -> Vec<&str> {
    let parts = text.split_whitespace().flat_map(|word| {
        word.split_inclusive(['(', ')']).flat_map(|part| {
            let cut = part.len() - usize::from(part.ends_with(['(', ')']));
            let (word, bracket) = part.split_at(cut);
            [word, bracket]
        })
    });
    parts.filter(|word| !word.is_empty()).collect()
}

fn packet(reader: &mut Reader<'_>) -> Result<Words, WordsError> {
    let (kind, ends) = kind(reader)?;
    let mut words = Words {
        kind,
        ends,
        src_mac: None,
        dst_mac: None,
        extras: Vec::new(),
    };
    while reader.peek().is_some_and(|word| word != ")") {
        extra(reader, &mut words)?;
    }
    Ok(words)
}

fn kind(reader: &mut Reader<'_>) -> Result<(Kind, Option<Ends>), WordsError> {
    let word = reader.next(KINDS)?;
    let ported = |protocol, reader: &mut Reader<'_>| {
        let (src, dst, ends) = ported_ends(reader)?;
        Ok((Kind::Ported { protocol, src, dst }, Some(ends)))
    };
    let nd = |icmp_type, reader: &mut Reader<'_>| {
        let ends = v6_ends(reader)?;
        let target = Ipv6Addr::UNSPECIFIED;
        Ok((Kind::Nd { icmp_type, target }, Some(ends)))
    };
    match word {
        "tcp" => {
            let (src, dst, ends) = ported_ends(reader)?;
            let flags = tcp_flags(reader)?;
            Ok((Kind::Tcp { src, dst, flags }, Some(ends)))
        }
        "udp" => ported(17, reader),
        "udplite" => ported(136, reader),
        "sctp" => ported(132, reader),
        "dccp" => ported(33, reader),
        "icmp" | "icmpv6" => {
            let ends = plain_ends(reader)?;
            let (icmp_type, code) = icmp_kind(reader, ends.0.is_ipv4())?;
            Ok((Kind::Icmp { icmp_type, code }, Some(ends)))
        }
        "protocol" => {
            let protocol = reader.number("a protocol number from 0 to 255")?;
            Ok((Kind::Protocol(protocol), Some(plain_ends(reader)?)))
        }
        "arp" => arp(reader),
        "rarp" => Ok((Kind::Rarp, None)),
        "rs" => nd(133, reader),
        "ra" => nd(134, reader),
        "ns" => nd(135, reader),
        "na" => nd(136, reader),
        "redirect" => nd(137, reader),
        "mld" => {
            let expected = "query, report, report2 or done";
            let icmp_type = reader.choose(
                expected,
                &[
                    ("query", 130),
                    ("report", 131),
                    ("done", 132),
                    ("report2", 143),
                ],
            )?;
            Ok((Kind::Mld { icmp_type }, Some(v6_ends(reader)?)))
        }
        "igmp" => {
            let expected = "query, report1, report, report3 or leave";
            let igmp_type = reader.choose(
                expected,
                &[
                    ("query", 0x11),
                    ("report1", 0x12),
                    ("report", 0x16),
                    ("leave", 0x17),
                    ("report3", 0x22),
                ],
            )?;
            Ok((Kind::Igmp { igmp_type }, Some(v4_ends(reader)?)))
        }
        "dhcp" => {
            let server = reader.choose("client or server", &[("client", 0), ("server", 1)])? == 1;
            Ok((Kind::Dhcp { server }, Some(plain_ends(reader)?)))
        }
        "ethertype" => {
            let ethertype = reader.number("an ethertype, such as 0x88cc")?;
            Ok((Kind::Ethertype(ethertype), None))
        }
        "frame" => Ok((Kind::Frame, None)),
        _ => reader.back(KINDS),
    }
}

fn arp(reader: &mut Reader<'_>) -> Result<(Kind, Option<Ends>), WordsError> {
    let made = |opcode, sender: Ipv4Addr, target: Ipv4Addr| {
        let kind = Kind::Arp {
            opcode,
            sender,
            target,
        };
        Ok((kind, Some((sender.into(), target.into()))))
    };
    let expected = "who-has ADDRESS tell ADDRESS, or reply ADDRESS to ADDRESS";
    match reader.peek() {
        Some("who-has") => {
            reader.at += 1;
            let target = reader.parsed("an IPv4 address")?;
            reader.exactly("tell")?;
            made(1, reader.parsed("an IPv4 address")?, target)
        }
        Some("reply") => {
            reader.at += 1;
            let sender = reader.parsed("an IPv4 address")?;
            reader.exactly("to")?;
            made(2, sender, reader.parsed("an IPv4 address")?)
        }
        _ => reader.fail(expected),
    }
}

/// `ADDRESS:PORT -> ADDRESS:PORT`; without ports only where a later fragment follows.
fn ported_ends(reader: &mut Reader<'_>) -> Result<(u16, u16, Ends), WordsError> {
    let expected = "ADDRESS:PORT, such as 10.0.0.5:443 or [fd00::1]:443";
    let start = reader.at;
    let (src, src_port) = address_and_port(reader, expected)?;
    reader.exactly("->")?;
    let (dst, dst_port) = address_and_port(reader, expected)?;
    one_family(reader, src, dst)?;
    let later = reader.words[reader.at..]
        .windows(2)
        .any(|w| w[0] == "frag" && !w[1].contains("@0"));
    match (src_port, dst_port) {
        (Some(src_port), Some(dst_port)) => Ok((src_port, dst_port, (src, dst))),
        _ if later => Ok((0, 0, (src, dst))),
        (None, _) => {
            reader.at = start;
            reader.fail(expected)
        }
        (Some(_), None) => reader.back(expected),
    }
}

fn address_and_port(
    reader: &mut Reader<'_>,
    expected: &str,
) -> Result<(IpAddr, Option<u16>), WordsError> {
    let word = reader.next(expected)?;
    if let Ok(address) = word.parse() {
        return Ok((address, None));
    }
    let split = word.rsplit_once(':').and_then(|(address, port)| {
        let bare = address
            .strip_prefix('[')
            .and_then(|a| a.strip_suffix(']'))
            .filter(|a| a.contains(':'));
        let address: IpAddr = match bare {
            Some(v6) => v6.parse::<Ipv6Addr>().ok()?.into(),
            None => address.parse::<Ipv4Addr>().ok()?.into(),
        };
        Some((address, Some(number(port)?)))
    });
    match split {
        Some(found) => Ok(found),
        None => reader.back(expected),
    }
}

fn plain_ends(reader: &mut Reader<'_>) -> Result<Ends, WordsError> {
    let src = reader.parsed("an address")?;
    reader.exactly("->")?;
    let dst = reader.parsed("an address")?;
    one_family(reader, src, dst)?;
    Ok((src, dst))
}

fn v4_ends(reader: &mut Reader<'_>) -> Result<Ends, WordsError> {
    let src: Ipv4Addr = reader.parsed("an IPv4 address")?;
    reader.exactly("->")?;
    Ok((
        src.into(),
        reader.parsed::<Ipv4Addr>("an IPv4 address")?.into(),
    ))
}

fn v6_ends(reader: &mut Reader<'_>) -> Result<Ends, WordsError> {
    let src: Ipv6Addr = reader.parsed("an IPv6 address")?;
    reader.exactly("->")?;
    Ok((
        src.into(),
        reader.parsed::<Ipv6Addr>("an IPv6 address")?.into(),
    ))
}

fn one_family(reader: &mut Reader<'_>, src: IpAddr, dst: IpAddr) -> Result<(), WordsError> {
    match (src, dst) {
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => Ok(()),
        (IpAddr::V4(_), IpAddr::V6(_)) => reader.back("an IPv4 address, as the source is one"),
        (IpAddr::V6(_), IpAddr::V4(_)) => reader.back("an IPv6 address, as the source is one"),
    }
}

fn tcp_flags(reader: &mut Reader<'_>) -> Result<u8, WordsError> {
    let expected =
        "flags such as [syn] or [fin|ack]: fin, syn, rst, psh, ack, urg, ece, cwr, or [none]";
    let Some(word) = reader.peek().filter(|w| w.starts_with('[')) else {
        return Ok(TcpFlags::SYN);
    };
    reader.at += 1;
    let Some(names) = word.strip_prefix('[').and_then(|w| w.strip_suffix(']')) else {
        return reader.back(expected);
    };
    let mut flags = 0;
    for name in names.split(['|', ',']) {
        flags |= match name {
            "none" => 0,
            "fin" => TcpFlags::FIN,
            "syn" => TcpFlags::SYN,
            "rst" => TcpFlags::RST,
            "psh" => 0x08,
            "ack" => TcpFlags::ACK,
            "urg" => 0x20,
            "ece" => 0x40,
            "cwr" => 0x80,
            _ => return reader.back(expected),
        };
    }
    Ok(flags)
}

/// Type and code.
fn icmp_kind(reader: &mut Reader<'_>, v4: bool) -> Result<(u8, u8), WordsError> {
    let expected = match v4 {
        true => {
            "type N, echo-request, echo-reply, timestamp-request, timestamp-reply, \
             destination-unreachable, port-unreachable, fragmentation-needed, source-quench, \
             redirect, time-exceeded or parameter-problem"
        }
        false => {
            "type N, echo-request, echo-reply, destination-unreachable, port-unreachable, \
             packet-too-big, time-exceeded or parameter-problem"
        }
    };
    let by_family = match v4 {
        true => (3, 3, 11, 12, 8, 0),
        false => (1, 4, 3, 4, 128, 129),
    };
    let (unreachable, port_code, exceeded, problem, request, reply) = by_family;
    match (reader.next(expected)?, v4) {
        ("type", _) => Ok((reader.number("an ICMP type from 0 to 255")?, 0)),
        ("echo-request", _) => Ok((request, 0)),
        ("echo-reply", _) => Ok((reply, 0)),
        ("destination-unreachable", _) => Ok((unreachable, 0)),
        ("port-unreachable", _) => Ok((unreachable, port_code)),
        ("time-exceeded", _) => Ok((exceeded, 0)),
        ("parameter-problem", _) => Ok((problem, 0)),
        ("fragmentation-needed", true) => Ok((3, 4)),
        ("source-quench", true) => Ok((4, 0)),
        ("redirect", true) => Ok((5, 0)),
        ("timestamp-request", true) => Ok((13, 0)),
        ("timestamp-reply", true) => Ok((14, 0)),
        ("packet-too-big", false) => Ok((2, 0)),
        _ => reader.back(expected),
    }
}

fn extra(reader: &mut Reader<'_>, words: &mut Words) -> Result<(), WordsError> {
    let mac = "a MAC such as 52:54:00:12:34:56";
    let byte = "a number from 0 to 255";
    let short = "a number from 0 to 65535";
    let extra = match reader.next(KEYS)? {
        "src-mac" => {
            words.src_mac = Some(reader.mac(mac)?);
            return Ok(());
        }
        "dst-mac" => {
            words.dst_mac = Some(reader.mac(mac)?);
            return Ok(());
        }
        "target" => {
            let Kind::Nd { target, .. } = &mut words.kind else {
                return reader.back("a word that fits: only ns, na and redirect have a target");
            };
            *target = reader.parsed("an IPv6 address")?;
            return Ok(());
        }
        "sender-mac" => Extra::SenderMac(reader.mac(mac)?),
        "target-mac" => Extra::TargetMac(reader.mac(mac)?),
        "lladdr" => match reader.peek() {
            Some("none") => {
                reader.at += 1;
                Extra::LinkLayer(None)
            }
            _ => Extra::LinkLayer(Some(reader.mac("a MAC, or none")?)),
        },
        "nd-option" => Extra::NdOption(reader.hex()?),
        "nd-options" => {
            let count: u8 = reader.number("how many options of 8 bytes")?;
            Extra::NdOption([14, 1, 0, 0, 0, 0, 0, 0].repeat(count.into()))
        }
        "destination" => Extra::Destination(reader.parsed("an IPv6 address")?),
        "group" => Extra::Group(reader.parsed("a multicast address")?),
        "arp-header" => Extra::ArpHeader((
            reader.number(short)?,
            reader.number(short)?,
            reader.number(byte)?,
            reader.number(byte)?,
        )),
        "opcode" => Extra::Opcode(reader.number(short)?),
        "code" => Extra::Code(reader.number(byte)?),
        "id" => Extra::Identifier(reader.number(short)?),
        "about" => {
            reader.exactly("(")?;
            let about = packet(reader)?;
            reader.exactly(")")?;
            Extra::About(Box::new(about))
        }
        "ttl" | "hops" => Extra::Hops(reader.number(byte)?),
        "frag" => fragment(reader)?,
        "hop-by-hop" => Extra::Extension(Extension::HopByHop(Vec::new())),
        "dest-options" => Extra::Extension(Extension::Destination(Vec::new())),
        "long-options" => {
            let bytes: u16 = reader.number("the header's length in bytes, a multiple of 8")?;
            let options = usize::from(bytes).saturating_sub(2);
            Extra::Extension(Extension::Destination(vec![0; options]))
        }
        "ah" => Extra::Extension(Extension::Authentication(vec![0; 12])),
        "routing" => Extra::Extension(Extension::Routing {
            kind: reader.number("a routing type from 0 to 255")?,
            segments_left: reader.number("the segments left, from 0 to 255")?,
            data: vec![0; 20],
        }),
        "extension" => Extra::Extension(Extension::Raw {
            kind: reader.number(byte)?,
            bytes: reader.hex()?,
        }),
        "router-alert" => Extra::RouterAlert,
        "options" => Extra::Options(reader.hex()?),
        "len" => Extra::Data(vec![0; usize::from(reader.number::<u16>(short)?)]),
        "data" => Extra::Data(reader.hex()?),
        "version" => Extra::Version(reader.number(byte)?),
        "header-words" => Extra::HeaderWords(reader.number(byte)?),
        "ip-length" => Extra::IpLength(reader.number(short)?),
        "next-header" => Extra::NextHeader(reader.number(byte)?),
        "vlan" => Extra::Tag(0x8100, reader.number(short)?),
        "qinq" => Extra::Tag(0x88a8, reader.number(short)?),
        "cut" => Extra::Cut(usize::from(reader.number::<u16>(short)?)),
        "pad" => Extra::Pad(usize::from(reader.number::<u16>(short)?)),
        "tail" => Extra::Trailer(usize::from(reader.number::<u16>(short)?)),
        _ => return reader.back(KEYS),
    };
    words.extras.push(extra);
    Ok(())
}

/// `ID@OFFSET`, with `+` if there is more to come.
fn fragment(reader: &mut Reader<'_>) -> Result<Extra, WordsError> {
    let expected = "ID@OFFSET or ID@OFFSET+, the offset in bytes, a multiple of 8";
    let word = reader.next(expected)?;
    let (word, more) = match word.strip_suffix('+') {
        Some(word) => (word, true),
        None => (word, false),
    };
    let parts = word.split_once('@');
    let numbers = parts.and_then(|(id, offset)| Some((number(id)?, number::<u16>(offset)?)));
    match numbers {
        Some((id, offset)) if offset % 8 == 0 => Ok(Extra::Fragment {
            id,
            offset: u32::from(offset),
            more,
        }),
        _ => reader.back(expected),
    }
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self, expected: &str) -> Result<&'a str, WordsError> {
        let word = self.peek();
        self.at += usize::from(word.is_some());
        word.ok_or_else(|| WordsError {
            word: None,
            expected: expected.to_owned(),
        })
    }

    /// The word at hand isn't what is expected.
    fn fail<T>(&self, expected: &str) -> Result<T, WordsError> {
        Err(WordsError {
            word: self.peek().map(str::to_owned),
            expected: expected.to_owned(),
        })
    }

    /// The word just taken isn't.
    fn back<T>(&mut self, expected: &str) -> Result<T, WordsError> {
        self.at = self.at.saturating_sub(1);
        self.fail(expected)
    }

    fn exactly(&mut self, word: &str) -> Result<(), WordsError> {
        let expected = format!("`{word}`");
        if self.next(&expected)? == word {
            return Ok(());
        }
        self.back(&expected)
    }

    fn parsed<T: std::str::FromStr>(&mut self, expected: &str) -> Result<T, WordsError> {
        match self.next(expected)?.parse() {
            Ok(value) => Ok(value),
            Err(_) => self.back(expected),
        }
    }

    fn mac(&mut self, expected: &str) -> Result<MacAddr, WordsError> {
        self.parsed(expected)
    }

    fn number<T: TryFrom<u64>>(&mut self, expected: &str) -> Result<T, WordsError> {
        match number(self.next(expected)?) {
            Some(value) => Ok(value),
            None => self.back(expected),
        }
    }

    fn choose(&mut self, expected: &str, choices: &[(&str, u8)]) -> Result<u8, WordsError> {
        let word = self.next(expected)?;
        match choices.iter().find(|(name, _)| *name == word) {
            Some((_, value)) => Ok(*value),
            None => self.back(expected),
        }
    }

    fn hex(&mut self) -> Result<Vec<u8>, WordsError> {
        let expected = "bytes as pairs of hexadecimal digits";
        let word = self.next(expected)?;
        let digits: Option<Vec<u8>> = word
            .chars()
            .map(|c| c.to_digit(16).map(|d| d as u8))
            .collect();
        match digits {
            Some(digits) if digits.len() % 2 == 0 => Ok(digits
                .chunks(2)
                .map(|pair| (pair[0] << 4) | pair[1])
                .collect()),
            _ => self.back(expected),
        }
    }
}

/// Decimal, or hexadecimal with `0x`.
fn number<T: TryFrom<u64>>(word: &str) -> Option<T> {
    let (digits, radix) = match word.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (word, 10),
    };
    if digits.starts_with('+') {
        return None;
    }
    T::try_from(u64::from_str_radix(digits, radix).ok()?).ok()
}
