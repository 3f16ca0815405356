//! What names one direction of a connection.

use std::fmt;
use std::net::IpAddr;

/// A packet of one direction, as far as conntrack tells connections apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub l4: TupleL4,
}

/// By what the kernel says, whatever the protocol: one that a kernel doesn't know has nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TupleL4 {
    /// TCP, UDP, UDP-Lite, SCTP, DCCP (before 6.17). GRE: the keys.
    Ports {
        src: u16,
        dst: u16,
    },
    /// ICMP or ICMPv6. The reply has the type of the answer.
    Icmp {
        icmp_type: u8,
        code: u8,
        id: u16,
    },
    Nothing,
}

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    Original,
    Reply,
}

impl Tuple {
    /// What answers it, without address translation. `None`: an ICMP message that has no answer, which
    /// conntrack has no entries for.
    pub fn reversed(&self) -> Option<Self> {
        let l4 = match self.l4 {
            TupleL4::Ports { src, dst } => TupleL4::Ports { src: dst, dst: src },
            TupleL4::Icmp {
                icmp_type,
                code,
                id,
            } => TupleL4::Icmp {
                icmp_type: answering(self.src.is_ipv4(), icmp_type)?,
                code,
                id,
            },
            TupleL4::Nothing => TupleL4::Nothing,
        };
        Some(Self {
            src: self.dst,
            dst: self.src,
            l4,
        })
    }
}

/// Questions and answers: echo, timestamp, information, address mask; of ICMPv6 echo, node information.
fn answering(v4: bool, icmp_type: u8) -> Option<u8> {
    const V4: [(u8, u8); 4] = [(8, 0), (13, 14), (15, 16), (17, 18)];
    const V6: [(u8, u8); 2] = [(128, 129), (139, 140)];
    let pairs: &[(u8, u8)] = if v4 { &V4 } else { &V6 };
    pairs
        .iter()
        .find_map(|&(question, answer)| match icmp_type {
            t if t == question => Some(answer),
            t if t == answer => Some(question),
            _ => None,
        })
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { src, dst, l4 } = self;
        match l4 {
            TupleL4::Ports { src: from, dst: to } => {
                let (src, dst) = (bracketed(src), bracketed(dst));
                write!(f, "{src}:{from} -> {dst}:{to}")
            }
            TupleL4::Icmp {
                icmp_type,
                code,
                id,
            } => {
                write!(f, "{src} -> {dst} type {icmp_type} code {code} id {id}")
            }
            TupleL4::Nothing => write!(f, "{src} -> {dst}"),
        }
    }
}

fn bracketed(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(a) => a.to_string(),
        IpAddr::V6(a) => format!("[{a}]"),
    }
}
