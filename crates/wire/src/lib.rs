//! Packets as bytes: parse what a firewall looks at, and build exact ones.
//!
//! Place on the line: hook -> **parse** -> guard.
//! Knows nothing of: policy, ports, connections. Never panics on any bytes; reads nothing past the end.
#![forbid(unsafe_code)]

mod frame;

pub use frame::{Arp, BadPacket, Body, Fragment, Frame, L4, Packet, TcpFlags};
