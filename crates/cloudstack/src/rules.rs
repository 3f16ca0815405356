//! The rules of a VM as the management server pushes them.
//!
//! ```text
//! I:tcp;22;22;0.0.0.0/0,::/0,NEXT;I:icmp;8;0;10.0.0.0/8,NEXT;E:all;0;0;0.0.0.0/0,NEXT;
//! | |   |  |  |
//! | |   |  |  prefixes, each followed by `,`
//! | |   first and last port; ICMP type and code, -1 for any; 0 and 0 for what has neither
//! | tcp, udp, icmp, all, or a protocol's number
//! I ingress, E egress
//! ```
//! A text is good as a whole or refused as a whole: a half-read set of rules is never enforced.
//! Knows nothing of: what no rules at all mean, or what a record becomes in the model.

use crate::words::{self, quoted};
use model::{Direction, Family, IcmpKind, L4PortRange, Prefix};
use std::fmt;
use std::sync::Arc;

/// Longer texts are refused; Linux passes no longer argument.
pub const MAX_BYTES: usize = 128 << 10;

/// The rules of one push: the text as it came, and what it says. Cheap to clone; without records, no
/// rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    text: Arc<str>,
    records: Arc<[RuleRecord]>,
}

/// One record: what one direction admits, to or from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRecord {
    /// Seen from the VM.
    pub direction: Direction,
    /// Of the packet's headers; towards the VM or from it alike.
    pub service: Service,
    /// Never empty; in the order of the text, doubled ones as they came.
    pub remotes: Vec<Remote>,
}

/// A record beside the words that it came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AsTold<'r> {
    /// What they mean.
    pub(crate) record: &'r RuleRecord,
    protocol: &'r str,
    prefixes: &'r str,
}

/// Which protocol a record admits, and what of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Any protocol.
    All,
    /// TCP or UDP to these ports.
    Ports {
        /// TCP or UDP.
        transport: Transport,
        /// Destination ports, both ends included.
        ports: L4PortRange,
    },
    /// ICMP to IPv4 prefixes and ICMPv6 to IPv6 ones; without a kind, all of it.
    Icmp(Option<IcmpKind>),
    /// A protocol by its number: none that the variants above say (1, 6 and 17 are read as those).
    Protocol(u8),
}

/// The protocols that CloudStack's rules have ports for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Who is on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remote {
    /// Everybody with an address in it.
    Prefix(Prefix),
    /// `null/32`: how the server writes a member of an allowed group that has no IPv4 address. Nobody;
    /// but a record that has only this one is still a rule of IPv4.
    NoAddress,
}

/// Why a text of rules is refused. In one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Of the whole text.
    #[error("the rules have {bytes} bytes; at most {MAX_BYTES} are read")]
    TooLong {
        /// How many it has.
        bytes: usize,
    },
    /// Of one record.
    #[error("record {number} of the rules, {record}: {problem}")]
    Record {
        /// Counted from 1.
        number: usize,
        /// The record as it came, quoted and perhaps cut.
        record: String,
        /// What is wrong with it.
        problem: RuleProblem,
    },
}

/// What is wrong with a record. Texts are quoted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleProblem {
    /// The text ends before the record does.
    #[error("it isn't ended by `NEXT;`")]
    NotEnded,
    /// Too few fields.
    #[error("it isn't of the form DIRECTION:PROTOCOL;START;END;PREFIXES")]
    Shape,
    /// The first field's first part.
    #[error("{0} is no direction: I or E")]
    Direction(String),
    /// The first field's second part.
    #[error("{0} is no protocol: tcp, udp, icmp, all, or a number from 0 to 255")]
    Protocol(String),
    /// A port out of 0-65535, or no number.
    #[error("{0} is no port: 0 to 65535")]
    Port(String),
    /// The first port is above the last.
    #[error("its ports end before they begin")]
    PortsReversed,
    /// A type or code out of -1 to 255, or no number.
    #[error("{0} is no ICMP type or code: 0 to 255, or -1 for any")]
    Icmp(String),
    /// Type -1 with a code.
    #[error("it has an ICMP code and no type")]
    CodeWithoutType,
    /// Ports or types for a protocol that is given by number, or for all.
    #[error("its protocol has no ports here: 0 and 0 belong there")]
    PortsOfNone,
    /// The last field is empty. An egress record without prefixes must not pass for no record.
    #[error("it has no prefixes")]
    NoPrefixes,
    /// Not a prefix or address, or one that can be read in two ways.
    #[error("{0} is no prefix, such as 10.0.0.0/8 or fd00::/8")]
    Prefix(String),
}

impl RuleRecord {
    /// It is a rule of this family: some prefix of it is. The first egress rule of a family is what
    /// restricts the VM's egress.
    pub fn is_of(&self, family: Family) -> bool {
        self.remotes.iter().any(|remote| remote.family() == family)
    }
}

impl Remote {
    /// Whose rule it is.
    pub fn family(&self) -> Family {
        match self {
            Remote::Prefix(prefix) => prefix.family(),
            Remote::NoAddress => Family::V4,
        }
    }
}

impl Rules {
    /// Reads a text; an empty one has no rules.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        Ok(Self {
            records: records(text)?.into(),
            text: text.into(),
        })
    }

    /// The rules that say this, in a text that the server might have sent.
    pub fn new(records: Vec<RuleRecord>) -> Self {
        let text: String = records.iter().map(RuleRecord::to_string).collect();
        Self {
            text: text.into(),
            records: records.into(),
        }
    }

    /// As it came.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// In the order of the text.
    pub fn records(&self) -> &[RuleRecord] {
        &self.records
    }

    /// In the order of the text, with its words.
    pub(crate) fn as_told(&self) -> impl Iterator<Item = AsTold<'_>> {
        let records = self.text.split(END).zip(self.records());
        records.map(|(text, record)| AsTold::new(text, record))
    }
}

impl<'r> AsTold<'r> {
    /// `text` is the record's, without its end.
    fn new(text: &'r str, record: &'r RuleRecord) -> Self {
        let (_, fields) = text.split_once(':').unwrap_or_default();
        let mut fields = fields.splitn(4, ';');
        Self {
            record,
            protocol: fields.next().unwrap_or_default(),
            prefixes: fields.nth(2).unwrap_or_default(),
        }
    }

    /// Its protocol came as a number.
    pub(crate) fn is_numbered(self) -> bool {
        self.protocol.starts_with(|c: char| c.is_ascii_digit())
    }

    pub(crate) fn prefixes(self) -> impl Iterator<Item = &'r str> {
        self.prefixes.split(',')
    }
}

fn records(text: &str) -> Result<Vec<RuleRecord>, RulesError> {
    if text.len() > MAX_BYTES {
        let bytes = text.len();
        return Err(RulesError::TooLong { bytes });
    }
    let mut rest = text;
    let mut records = Vec::with_capacity(text.len() / SHORT_RECORD);
    while !rest.is_empty() {
        let (text, next) = rest.split_once(END).unwrap_or((rest, ""));
        let read = match text.len() == rest.len() {
            true => Err(RuleProblem::NotEnded),
            false => record(text),
        };
        records.push(read.map_err(|problem| RulesError::Record {
            number: records.len() + 1,
            record: quoted(text),
            problem,
        })?);
        rest = next;
    }
    Ok(records)
}

const END: &str = "NEXT;";

/// Bytes of `I:tcp;22;22;::/0,NEXT;`, or so.
const SHORT_RECORD: usize = 24;

fn record(text: &str) -> Result<RuleRecord, RuleProblem> {
    let mut fields = text.splitn(4, ';');
    let mut field = || fields.next().ok_or(RuleProblem::Shape);
    let (head, start, end, prefixes) = (field()?, field()?, field()?, field()?);
    let (direction, protocol) = head.split_once(':').ok_or(RuleProblem::Shape)?;
    let direction = match direction {
        "I" => Direction::Ingress,
        "E" => Direction::Egress,
        _ => return Err(RuleProblem::Direction(quoted(direction))),
    };
    Ok(RuleRecord {
        direction,
        service: service(protocol, start, end)?,
        remotes: remotes(prefixes)?,
    })
}

/// The server writes protocols in lower case; in another case they can't mean anything else.
fn service(protocol: &str, start: &str, end: &str) -> Result<Service, RuleProblem> {
    let is = |name: &str| protocol.eq_ignore_ascii_case(name);
    let no_ports = |service: Service| match (start, end) {
        ("0", "0") => Ok(service),
        _ => Err(RuleProblem::PortsOfNone),
    };
    if is("tcp") {
        return ports(Transport::Tcp, start, end);
    }
    if is("udp") {
        return ports(Transport::Udp, start, end);
    }
    if is("icmp") {
        return icmp(start, end);
    }
    if is("all") {
        return no_ports(Service::All);
    }
    let number = words::number(protocol).and_then(|n| u8::try_from(n).ok());
    let of_all = |transport| Service::Ports {
        transport,
        ports: L4PortRange::ALL,
    };
    no_ports(match number {
        None => return Err(RuleProblem::Protocol(quoted(protocol))),
        Some(1) => Service::Icmp(None),
        Some(6) => of_all(Transport::Tcp),
        Some(17) => of_all(Transport::Udp),
        Some(number) => Service::Protocol(number),
    })
}

fn ports(transport: Transport, start: &str, end: &str) -> Result<Service, RuleProblem> {
    let port = |text: &str| {
        words::number(text)
            .and_then(|n| u16::try_from(n).ok())
            .ok_or_else(|| RuleProblem::Port(quoted(text)))
    };
    let ports = match (port(start)?, port(end)?) {
        (0, 0) => L4PortRange::ALL,
        (first, last) => L4PortRange::new(first, last).ok_or(RuleProblem::PortsReversed)?,
    };
    Ok(Service::Ports { transport, ports })
}

fn icmp(icmp_type: &str, code: &str) -> Result<Service, RuleProblem> {
    let part = |text: &str| match text {
        "-1" => Ok(None),
        _ => words::number(text)
            .and_then(|n| u8::try_from(n).ok())
            .map(Some)
            .ok_or_else(|| RuleProblem::Icmp(quoted(text))),
    };
    Ok(Service::Icmp(match (part(icmp_type)?, part(code)?) {
        (None, None) => None,
        (None, Some(_)) => return Err(RuleProblem::CodeWithoutType),
        (Some(icmp_type), code) => Some(IcmpKind { icmp_type, code }),
    }))
}

/// The last comma may be missing.
fn remotes(text: &str) -> Result<Vec<Remote>, RuleProblem> {
    let list = text.strip_suffix(',').unwrap_or(text);
    if list.is_empty() {
        return Err(RuleProblem::NoPrefixes);
    }
    // Most have one: made to measure, and there are thousands.
    let commas = list.bytes().filter(|b| *b == b',').count();
    let mut remotes = Vec::with_capacity(commas + 1);
    for element in list.split(',') {
        remotes.push(match words::prefix(element) {
            Some(prefix) => Remote::Prefix(prefix),
            None if element == "null/32" => Remote::NoAddress,
            None => return Err(RuleProblem::Prefix(quoted(element))),
        });
    }
    Ok(remotes)
}

/// The record in the one form that each meaning has: any port is `0;0`.
impl fmt::Display for RuleRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Ingress => 'I',
            Direction::Egress => 'E',
        };
        write!(f, "{direction}:")?;
        match self.service {
            Service::All => f.write_str("all;0;0;"),
            Service::Ports { transport, ports } if ports == L4PortRange::ALL => {
                write!(f, "{transport};0;0;")
            }
            Service::Ports { transport, ports } => {
                write!(f, "{transport};{};{};", ports.first(), ports.last())
            }
            Service::Icmp(None) => f.write_str("icmp;-1;-1;"),
            Service::Icmp(Some(IcmpKind { icmp_type, code })) => match code {
                Some(code) => write!(f, "icmp;{icmp_type};{code};"),
                None => write!(f, "icmp;{icmp_type};-1;"),
            },
            Service::Protocol(number) => write!(f, "{number};0;0;"),
        }?;
        for remote in &self.remotes {
            match remote {
                // With its length, as a single address has in the server's own texts.
                Remote::Prefix(prefix) => write!(f, "{}/{},", prefix.network(), prefix.length())?,
                Remote::NoAddress => f.write_str("null/32,")?,
            }
        }
        f.write_str(END)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
