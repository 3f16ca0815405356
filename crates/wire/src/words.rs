//! Packets in words: what people write to `explain`, and what scenarios send.
//!
//! ```text
//! tcp 10.0.0.5:40000 -> 10.0.0.9:443 [syn|ack]        flags: syn if none are given; [none] for none
//! udp [fd00::1]:53 -> [fd00::2]:5353 len 100          also udplite, sctp, dccp
//! icmp 10.0.0.1 -> 10.0.0.2 echo-request id 7         or `type 8 code 0`; ICMPv6 between IPv6 addresses
//! icmp 10.0.0.1 -> 10.0.0.2 port-unreachable about (udp 10.0.0.2:1 -> 10.0.0.1:2)
//! protocol 47 10.0.0.1 -> 10.0.0.2
//! arp who-has 10.0.0.9 tell 10.0.0.5                  arp reply 10.0.0.5 to 10.0.0.9
//! rarp
//! ns fd00::1 -> ff02::1:ff00:2 target fd00::2         also na; rs, ra, redirect (target, destination)
//! mld report fd00::1 -> ff02::5                       query, report, report2, done; igmp: query, report1,
//! igmp report 10.0.0.5 -> 224.0.0.251                 report, report3, leave
//! dhcp client 0.0.0.0 -> 255.255.255.255              or server; DHCPv6 between IPv6 addresses
//! ethertype 0x88cc data 0102                          frame data ffffffffffff0102
//! ```
//! Behind these, in any order (`KEYS` below has them all): `src-mac M`, `dst-mac M`, `frag ID@OFFSET[+]`
//! (`+`: more to come), `ttl N`, `vlan N`, `len N`, `data HEX`, `options HEX`, extension headers ...
//!
//! Place on the line: before it. Knows nothing of: ports and policies; the MACs of who sends and
//! receives come from the caller where the words don't give them.

mod describe;
mod make;
mod parse;

pub use describe::describe;

use crate::build::Extension;
use model::MacAddr;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A packet as it was described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    kind: Kind,
    /// Addresses of an IP packet; of ARP the sender's and the target's.
    ends: Option<(IpAddr, IpAddr)>,
    src_mac: Option<MacAddr>,
    dst_mac: Option<MacAddr>,
    extras: Vec<Extra>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Tcp {
        src: u16,
        dst: u16,
        flags: u8,
    },
    /// UDP, UDP-Lite, SCTP, DCCP by number.
    Ported {
        protocol: u8,
        src: u16,
        dst: u16,
    },
    Icmp {
        icmp_type: u8,
        code: u8,
    },
    Protocol(u8),
    Arp {
        opcode: u16,
        sender: Ipv4Addr,
        target: Ipv4Addr,
    },
    Rarp,
    Nd {
        icmp_type: u8,
        target: Ipv6Addr,
    },
    Mld {
        icmp_type: u8,
    },
    Igmp {
        igmp_type: u8,
    },
    Dhcp {
        server: bool,
    },
    Ethertype(u16),
    /// A whole frame, byte by byte.
    Frame,
}

/// What can be said about a packet beside its kind and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Extra {
    SenderMac(MacAddr),
    TargetMac(MacAddr),
    /// `None`: no link-layer option.
    LinkLayer(Option<MacAddr>),
    NdOption(Vec<u8>),
    Destination(Ipv6Addr),
    Group(IpAddr),
    ArpHeader((u16, u16, u8, u8)),
    Opcode(u16),
    Code(u8),
    Identifier(u16),
    About(Box<Words>),
    Hops(u8),
    Fragment {
        id: u32,
        offset: u32,
        more: bool,
    },
    Extension(Extension),
    RouterAlert,
    Options(Vec<u8>),
    Data(Vec<u8>),
    Version(u8),
    HeaderWords(u8),
    IpLength(u16),
    NextHeader(u8),
    Tag(u16, u16),
    Cut(usize),
    Pad(usize),
    Trailer(usize),
}

/// Where the words stop making sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordsError {
    /// The word, or nothing if the text ends too early.
    pub word: Option<String>,
    /// What was expected there.
    pub expected: String,
}

impl fmt::Display for WordsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.word {
            Some(word) => write!(f, "`{word}`: expected {}", self.expected),
            None => write!(f, "it ends where {} is expected", self.expected),
        }
    }
}

impl std::error::Error for WordsError {}

impl std::str::FromStr for Words {
    type Err = WordsError;

    fn from_str(text: &str) -> Result<Self, WordsError> {
        parse::words(text)
    }
}

impl Words {
    /// Source and destination address; of ARP the sender's and the target's.
    pub fn ends(&self) -> Option<(IpAddr, IpAddr)> {
        self.ends
    }

    /// The source MAC, where the words give one.
    pub fn src_mac(&self) -> Option<MacAddr> {
        self.src_mac
    }

    pub fn dst_mac(&self) -> Option<MacAddr> {
        self.dst_mac
    }

    /// The frame, with these MACs where the words don't give them. A multicast or broadcast
    /// destination address decides the destination MAC before the default does.
    pub fn frame(&self, src_mac: MacAddr, dst_mac: MacAddr) -> Vec<u8> {
        make::frame(self, self.src_mac.unwrap_or(src_mac), dst_mac)
    }
}

#[cfg(test)]
mod tests;
