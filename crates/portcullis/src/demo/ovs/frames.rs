//! What is on the cable, taken apart: Geneve with the option that says who sends.
//!
//! ```text
//! Ethernet 14 | IPv4 20 | UDP 8, to 6081 | Geneve 8: length of options, VNI | options | the machine's own frame
//! an option:  class 2 | type 1 | length 1, in words of 4 bytes | what is in it
//! in ours:    form 1 | inspected at the source 1 | 2 | eight tags of 2, the first one last
//! ```
//! Source: RFC 8926.

use super::policy::TAGS;
use std::fmt;
use std::net::Ipv4Addr;

const UDP: u8 = 17;
const GENEVE: u16 = 6081;
const IPV4: u16 = 0x0800;

pub(crate) struct Tunnelled {
    pub(crate) outer: [Ipv4Addr; 2],
    pub(crate) vni: u32,
    pub(crate) option: Option<GroupsOption>,
    pub(crate) inner: Vec<u8>,
}

pub(crate) struct GroupsOption {
    pub(crate) class: u16,
    pub(crate) kind: u8,
    pub(crate) inspected: bool,
    pub(crate) tags: Vec<u16>,
}

impl Tunnelled {
    /// `None`: something else.
    pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
        let geneve = udp_payload(frame, GENEVE)?;
        let options_length = usize::from(geneve.first()? & 0x3f) * 4;
        let [high, middle, low] = [4, 5, 6].map(|at| geneve.get(at).copied());
        let options = geneve.get(8..8 + options_length)?;
        Some(Self {
            outer: [address(frame, 26)?, address(frame, 30)?],
            vni: u32::from_be_bytes([0, high?, middle?, low?]),
            option: GroupsOption::parse(options),
            inner: geneve.get(8 + options_length..)?.to_vec(),
        })
    }
}

impl GroupsOption {
    /// The first one.
    fn parse(options: &[u8]) -> Option<Self> {
        let length = usize::from(options.get(3)? & 0x1f) * 4;
        let content = options.get(4..4 + length)?;
        let words = content.get(4..)?.chunks_exact(2);
        let tags = words
            .rev()
            .map(|word| u16::from_be_bytes([word[0], word[1]]));
        Some(Self {
            class: word(options, 0)?,
            kind: *options.get(2)?,
            inspected: content.get(1)? & 1 == 1,
            tags: tags.filter(|tag| *tag != 0).collect(),
        })
    }

    pub(crate) fn groups(&self) -> String {
        let name = |tag: &u16| {
            let known = TAGS.iter().find(|(number, _)| number == tag);
            known.map_or("?", |(_, name)| name)
        };
        let groups: Vec<String> = self
            .tags
            .iter()
            .map(|tag| format!("{tag} = {}", name(tag)))
            .collect();
        groups.join(", ")
    }
}

impl fmt::Display for Tunnelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [from, to] = self.outer;
        writeln!(f, "{from} -> {to}, Geneve, VNI {}", self.vni)?;
        match &self.option {
            Some(option) => writeln!(
                f,
                "  option class {:#06x} type {:#04x}: source's groups {}; inspected at the source: {}",
                option.class,
                option.kind,
                option.groups(),
                if option.inspected { "yes" } else { "no" },
            )?,
            None => writeln!(f, "  no option")?,
        }
        let ports = udp_ports(&self.inner).unwrap_or([0, 0]);
        let unspecified = Ipv4Addr::UNSPECIFIED;
        let [from, to] = [26, 30].map(|at| address(&self.inner, at).unwrap_or(unspecified));
        write!(f, "  inside: UDP {from}:{} -> {to}:{}", ports[0], ports[1])
    }
}

fn udp_payload(frame: &[u8], l4_port: u16) -> Option<&[u8]> {
    match udp_ports(frame)? {
        [_, to] if to == l4_port => frame.get(42..),
        _ => None,
    }
}

/// Of a packet of IPv4 without options.
fn udp_ports(frame: &[u8]) -> Option<[u16; 2]> {
    let is_udp = word(frame, 12)? == IPV4 && frame.get(14)? == &0x45 && frame.get(23)? == &UDP;
    is_udp.then_some([word(frame, 34)?, word(frame, 36)?])
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let word = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([word[0], word[1]]))
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let word = bytes.get(at..at + 4)?;
    Some(Ipv4Addr::new(word[0], word[1], word[2], word[3]))
}
