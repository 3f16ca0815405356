//! Packets as bytes: parse what a firewall looks at, and build exact ones.
//!
//! Place on the line: hook -> **parse** -> guard.
//! Knows nothing of: policy, ports, connections. Never panics on any bytes; reads nothing past the end.
#![forbid(unsafe_code)]

pub mod build;
mod frame;
pub mod nd;
mod parse;
pub mod words;

pub use frame::{Arp, BadPacket, Body, Fragment, Frame, L4, Packet, TcpFlags};
pub use parse::{
    ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_RARP, ETHERTYPES_TAG, EXTENSION_AH,
    EXTENSION_DESTINATION, EXTENSION_FRAGMENT, EXTENSION_HOP_BY_HOP, EXTENSION_ROUTING,
    MAX_DATAGRAM, MAX_EXTENSION_BYTES, MAX_EXTENSION_HEADERS, PROTOCOL_DCCP, PROTOCOL_ICMP,
    PROTOCOL_ICMPV6, PROTOCOL_IGMP, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_UDPLITE,
    TooShort, parse, parse_quoted,
};
