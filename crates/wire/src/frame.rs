//! A parsed frame: just what a firewall looks at.

use model::MacAddr;
use std::net::{IpAddr, Ipv4Addr};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub dst: MacAddr,
    pub src: MacAddr,
    /// In host order; of a tagged frame, the tag's own (0x8100, 0x88a8, 0x9100).
    pub ethertype: u16,
    pub body: Body<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    Tagged,
    /// IPv4 or IPv6; `Err` is what makes it undecidable.
    Ip(Result<Packet<'a>, BadPacket>),
    /// ARP, or RARP (the frame's ethertype says which); `None` when cut short of 28 bytes.
    Arp(Option<Arp>),
    Other,
}

/// Why an IP packet can't be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPacket {
    /// Becomes the drop reason `bad-header`.
    Header,
    /// A first fragment without its whole header chain and transport header, or a fragment that ends
    /// beyond the largest datagram: `bad-fragment`.
    Fragment,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub src: IpAddr,
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub hops: u8,
    /// Behind the extension headers. Of a later IPv6 fragment: as its fragment header says.
    pub protocol: u8,
    pub fragment: Fragment,
    pub l4: L4,
    /// The transport header and what follows it, as far as the IP length goes. Of a later fragment:
    /// its part of the datagram.
    pub payload: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Not fragmented (an IPv6 atomic fragment is this).
    Whole,
    /// Offset 0, more to come. `end`: the offset in bytes of what follows it in the datagram, which
    /// for IPv6 counts from behind the fragment header.
    First { id: u32, end: u32 },
    /// `offset` in bytes, at least 8.
    Later { id: u32, offset: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4 {
    Tcp {
        src: u16,
        dst: u16,
        flags: TcpFlags,
    },
    /// UDP, UDP-Lite, SCTP, DCCP.
    Ported {
        src: u16,
        dst: u16,
    },
    /// ICMP in IPv4, ICMPv6 in IPv6. `identifier` is bytes 4 and 5, whatever they mean.
    Icmp {
        icmp_type: u8,
        code: u8,
        identifier: u16,
    },
    /// A protocol that is known by number only.
    Opaque,
    /// Of a later fragment: not here.
    Absent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;

    pub fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }
}

/// ARP for IPv4 over Ethernet; other kinds show in `header`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Hardware type, protocol type, hardware length, protocol length: (1, 0x0800, 6, 4) is ours.
    pub header: (u16, u16, u8, u8),
    pub opcode: u16,
    pub sender_mac: MacAddr,
    pub sender_ip: Ipv4Addr,
    pub target_mac: MacAddr,
    pub target_ip: Ipv4Addr,
}
