//! What a rule's `protocol` can say: names and numbers of protocols, types of ICMP.

use crate::error::{Complaint, ErrorKind, quoted};
use crate::nearest::suggestion;
use crate::words::number;
use model::{Family, IcmpKind, L4Match, L4PortRange, PortedProtocol, PortlessProtocol};

/// One item of `protocol`, with its meaning in each family; `None` where it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) v4: Option<Layer4>,
    pub(crate) v6: Option<Layer4>,
    /// An ICMP type by number: it is a number of the rule's one family, or else of IPv4.
    pub(crate) one_family: bool,
}

/// As [`L4Match`], without the ports, which stand in a field of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer4 {
    Any,
    Ported(PortedProtocol),
    Icmp(Option<IcmpKind>),
    Other(PortlessProtocol),
}

impl Layer4 {
    /// Ports mean nothing to protocols without them; that they aren't there is checked before.
    pub(crate) fn with_ports(self, dst: L4PortRange) -> L4Match {
        match self {
            Layer4::Any => L4Match::Any,
            Layer4::Ported(protocol) => L4Match::Ported { protocol, dst },
            Layer4::Icmp(kind) => L4Match::Icmp { kind },
            Layer4::Other(protocol) => L4Match::Other(protocol),
        }
    }
}

impl Protocol {
    pub(crate) const ANY: Protocol = Protocol::both(Layer4::Any);

    const fn both(layer4: Layer4) -> Self {
        Protocol {
            v4: Some(layer4),
            v6: Some(layer4),
            one_family: false,
        }
    }

    const fn only(family: Family, layer4: Layer4) -> Self {
        let (v4, v6) = match family {
            Family::V4 => (Some(layer4), None),
            Family::V6 => (None, Some(layer4)),
        };
        Protocol {
            v4,
            v6,
            one_family: false,
        }
    }

    pub(crate) fn has_ports(&self) -> bool {
        let ported = |l: Option<Layer4>| matches!(l, Some(Layer4::Ported(_)));
        ported(self.v4) || ported(self.v6)
    }
}

/// Protocols by name, as in /etc/protocols; `ipip` is 4, as in Linux and Neutron. TCP and the like
/// and ICMP are here too.
pub(crate) const NAMES: &[(&str, u8)] = &[
    ("tcp", 6),
    ("udp", 17),
    ("sctp", 132),
    ("dccp", 33),
    ("udplite", 136),
    ("igmp", 2),
    ("ipip", 4),
    ("egp", 8),
    ("ipv6-encap", 41),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ipv6-nonxt", 59),
    ("eigrp", 88),
    ("ospf", 89),
    ("etherip", 97),
    ("pim", 103),
    ("ipcomp", 108),
    ("vrrp", 112),
    ("pgm", 113),
    ("l2tp", 115),
    ("isis", 124),
    ("hip", 139),
    ("shim6", 140),
];

/// (name, IPv4 type and code, IPv6 type and code), as the RFCs call them.
type IcmpName = (
    &'static str,
    Option<(u8, Option<u8>)>,
    Option<(u8, Option<u8>)>,
);

pub(crate) const ICMP_NAMES: &[IcmpName] = &[
    ("echo-request", Some((8, None)), Some((128, None))),
    ("echo-reply", Some((0, None)), Some((129, None))),
    ("destination-unreachable", Some((3, None)), Some((1, None))),
    ("port-unreachable", Some((3, Some(3))), Some((1, Some(4)))),
    ("time-exceeded", Some((11, None)), Some((3, None))),
    ("parameter-problem", Some((12, None)), Some((4, None))),
    ("redirect", Some((5, None)), Some((137, None))),
    ("router-advertisement", Some((9, None)), Some((134, None))),
    ("router-solicitation", Some((10, None)), Some((133, None))),
    ("source-quench", Some((4, None)), None),
    ("timestamp-request", Some((13, None)), None),
    ("timestamp-reply", Some((14, None)), None),
    ("fragmentation-needed", Some((3, Some(4))), None),
    ("network-unreachable", Some((3, Some(0))), None),
    ("host-unreachable", Some((3, Some(1))), None),
    ("packet-too-big", None, Some((2, None))),
    ("neighbor-solicitation", None, Some((135, None))),
    ("neighbor-advertisement", None, Some((136, None))),
];

/// `any`, a name, a number, or `icmp`/`icmpv6` with a type: `icmp echo-request`, `icmp 3/4`.
/// Upper and lower case are the same.
pub(crate) fn protocol(text: &str) -> Result<Protocol, Complaint> {
    let mut words = text.split_ascii_whitespace();
    let (first, second) = (words.next().unwrap_or_default(), words.next());
    if words.next().is_some() {
        return Err(bad_protocol(text));
    }
    let is = |name: &str| first.eq_ignore_ascii_case(name);
    match second {
        Some(kind) if is("icmp") => icmp(kind, None),
        Some(kind) if is("icmpv6") || is("ipv6-icmp") => icmp(kind, Some(Family::V6)),
        Some(_) => Err(bad_protocol(text)),
        None if is("any") => Ok(Protocol::ANY),
        None if is("icmp") => Ok(Protocol::both(Layer4::Icmp(None))),
        None if is("icmpv6") || is("ipv6-icmp") => {
            Ok(Protocol::only(Family::V6, Layer4::Icmp(None)))
        }
        None => match NAMES.iter().find(|(name, _)| is(name)) {
            Some((_, number)) => Ok(by_number(*number)),
            None if first.starts_with(|c: char| c.is_ascii_digit()) => {
                number(first, 0..=255).map(by_number).ok_or_else(|| {
                    let what = format!("{} is not the number of a protocol", quoted(first));
                    let advice = "protocols have numbers from 0 to 255";
                    Complaint::new(ErrorKind::BadProtocol, what, advice)
                })
            }
            None => Err(bad_protocol(text)),
        },
    }
}

/// What IPv6 walks as an extension header can't be matched there: those numbers mean IPv4 alone.
fn by_number(number: u8) -> Protocol {
    match (
        number,
        PortedProtocol::from_number(number),
        PortlessProtocol::new(number),
    ) {
        (_, Some(ported), _) => Protocol::both(Layer4::Ported(ported)),
        (0 | 43 | 44 | 51 | 60, _, Some(other)) => Protocol::only(Family::V4, Layer4::Other(other)),
        (_, _, Some(other)) => Protocol::both(Layer4::Other(other)),
        (1, None, None) => Protocol::only(Family::V4, Layer4::Icmp(None)),
        // The only other number with a variant of its own is 58.
        (_, None, None) => Protocol::only(Family::V6, Layer4::Icmp(None)),
    }
}

fn icmp(kind: &str, family: Option<Family>) -> Result<Protocol, Complaint> {
    let within = |f: Family| family.is_none_or(|family| family == f);
    let named = ICMP_NAMES
        .iter()
        .find(|(name, ..)| kind.eq_ignore_ascii_case(name));
    if let Some((name, v4, v6)) = named {
        let layer4 = |(icmp_type, code): (u8, Option<u8>)| {
            let kind = IcmpKind { icmp_type, code };
            Layer4::Icmp(Some(kind))
        };
        let v4 = v4.filter(|_| within(Family::V4)).map(layer4);
        let v6 = v6.filter(|_| within(Family::V6)).map(layer4);
        if v4.is_none() && v6.is_none() {
            let what = format!("ICMPv6 has no type `{name}`");
            let advice = format!("write `icmp {name}`");
            return Err(Complaint::new(ErrorKind::BadIcmp, what, advice));
        }
        return Ok(Protocol {
            v4,
            v6,
            one_family: false,
        });
    }
    let (icmp_type, code) = match kind.split_once('/') {
        Some((icmp_type, code)) => (number(icmp_type, 0..=255), Some(number(code, 0..=255))),
        None => (number(kind, 0..=255), None),
    };
    let (Some(icmp_type), None | Some(Some(_))) = (icmp_type, code) else {
        let what = format!("{} is no ICMP type", quoted(kind));
        let near = suggestion(kind, "types", ICMP_NAMES.iter().map(|(name, ..)| *name));
        let advice =
            format!("{near}; or a number 0-255, or type and code: `icmp 3/4`, `icmpv6 1/4`");
        return Err(Complaint::new(ErrorKind::BadIcmp, what, advice));
    };
    let code = code.flatten();
    let layer4 = Layer4::Icmp(Some(IcmpKind { icmp_type, code }));
    Ok(match family {
        Some(family) => Protocol::only(family, layer4),
        None => Protocol {
            one_family: true,
            ..Protocol::both(layer4)
        },
    })
}

fn bad_protocol(text: &str) -> Complaint {
    let what = format!("{} is no protocol that rules know", quoted(text));
    let header = ["ipv6-frag", "ipv6-opts", "ipv6-route", "hopopt"]
        .iter()
        .any(|h| text.eq_ignore_ascii_case(h));
    let names = NAMES
        .iter()
        .map(|(name, _)| *name)
        .chain(["icmp", "icmpv6"]);
    let advice = if header {
        "rules look behind IPv6 extension headers and can't name them".to_owned()
    } else if text
        .bytes()
        .any(|b| b.is_ascii_whitespace() || b == b'/' || b == b',')
    {
        "write the name alone, with ports in `ports:`, several as a list: `protocol: [tcp, udp]`; only ICMP has a second word: `icmp echo-request`".to_owned()
    } else {
        let near = suggestion(text, "protocols", names);
        format!("{near}; or a number 0-255")
    };
    Complaint::new(ErrorKind::BadProtocol, what, advice)
}
